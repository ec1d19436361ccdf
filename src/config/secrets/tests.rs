//! Secrets that are no protection, credentials that two apps share, and files of secrets.

use crate::config::tests::{APP, problems, with, with_flags};
use crate::config::{Config, EXAMPLE, Flags, load_text, weak_secrets};
use crate::http::imkit::ImkitConfig;
use crate::http::sections;
use crate::http::sendbird::SendbirdConfig;
use crate::http::tencent::TencentConfig;

fn weak(config: &Config) -> Vec<(String, &'static str)> {
    let kind = |why: &str| {
        let kinds = ["published", "short", "same as"];
        kinds.into_iter().find(|kind| why.contains(kind)).unwrap()
    };
    weak_secrets(config, &sections())
        .into_iter()
        .map(|weak| (weak.setting, kind(&weak.why)))
        .collect()
}

#[test]
fn published_short_and_equal_secrets_are_named_and_never_shown() {
    let good = "k3v9x0c2-ye5tq7wb-d81m";
    let file = format!(
        r#"
[server]
admin_token = "{good}-6"
[redis]
url = "redis+sentinel://:short@h/m?sentinel_password={good}-s"
[[apps]]
id = "a"
server_keys = ["{good}-1", "demo-server-key", "{good}-1"]
[apps.imkit]
client_keys = ["{good}-2"]
jwt_secret = "abababababababababababababab"
[apps.tencent]
sdkappid = 1
secret_key = "load-tencent-secret"
[apps.sendbird]
application_id = "A"
master_token = "{good}-4"
api_tokens = ["fifteen-bytes-5", "sixteen-bytes-06"]
[[apps]]
id = "b"
server_keys = ["{good}-4"]
[apps.users]
token_secret = ["{good}-6", "demo-user-secret"]
"#
    );
    let config = with(&file, &[]).unwrap();
    let expected = [
        ("redis.url", "short"),
        ("apps[0].server_keys[1]", "published"),
        ("apps[0].server_keys[2]", "same as"),
        ("apps[0].imkit.jwt_secret", "short"),
        ("apps[0].tencent.secret_key", "published"),
        ("apps[0].sendbird.api_tokens[0]", "short"),
        ("apps[1].server_keys[0]", "same as"),
        ("apps[1].users.token_secret[0]", "same as"),
        ("apps[1].users.token_secret[1]", "published"),
    ];
    let expected = expected.map(|(setting, why)| (setting.to_owned(), why));
    assert_eq!(weak(&config), expected);
    let said = format!("{:?}", weak_secrets(&config, &sections()));
    assert!(said.contains("is the same as apps[0].sendbird.master_token"));
    for secret in [good, "demo-server-key", "abab", "load-", "bytes-5"] {
        assert!(!said.contains(secret), "{secret} is shown: {said}");
    }
}

/// Every secret that a file of this program shows is on the list: the example's, the load tests', the documents'.
#[test]
fn what_is_published_is_known_to_be() {
    let load = include_str!("../../../loadtest/unread.toml");
    for text in [EXAMPLE, load] {
        let config = load_text(text, &Flags::default(), &sections()).unwrap();
        let published = weak(&config)
            .iter()
            .filter(|(_, why)| *why == "published")
            .count();
        let secrets = config.apps.iter().map(|app| {
            let sections = app.dialects.iter();
            let own = app.server_keys.len() + app.users.token_secret.len();
            own + sections.map(|(_, own)| own.secrets().len()).sum::<usize>()
        });
        assert_eq!(published, secrets.sum::<usize>());
    }
    let docs = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/docs")).unwrap();
    let docs = docs.map(|file| file.unwrap().path());
    let docs = docs.filter(|path| path.extension().is_some_and(|ext| ext == "md"));
    let docs = docs.map(|path| std::fs::read_to_string(path).unwrap());
    let readme = include_str!("../../../README.md").to_owned();
    let documents = docs.chain([readme]).collect::<String>();
    let mut shown = 0;
    for before in ["Bearer ", "Api-Token: ", "IM-CLIENT-KEY: "] {
        for rest in documents.split(before).skip(1) {
            let secret = rest.split(['\'', '"', '<', '`']).next().unwrap();
            if !secret.is_empty() && !secret.starts_with('$') {
                let file = format!("[[apps]]\nid = \"a\"\nserver_keys = [\"{secret}\"]\n");
                let config = with(&file, &[]).unwrap();
                assert_eq!(weak(&config)[0].1, "published", "{secret}");
                shown += 1;
            }
        }
    }
    assert!(shown >= 3, "the documents show {shown} secrets");
}

#[test]
fn two_apps_share_no_credential() {
    let other = |from: &str, to: &str| {
        let second = APP
            .replace("-a\"", "-b\"")
            .replace("id = \"a\"", "id = \"b\"")
            .replace("APP-A", "APP-B")
            .replace("sdkappid = 1", "sdkappid = 2");
        let changed = second.replace(from, to);
        format!("{APP}{changed}")
    };
    with(&other("", ""), &[]).unwrap();
    for (from, to, path) in [
        ("id = \"b\"", "id = \"a\"", "id"),
        ("\"key-b\"", "\"key-x\", \"key-a\"", "server_keys"),
        ("client-b", "client-a", "imkit.client_keys"),
        ("jwt-b", "jwt-a", "imkit.jwt_secret"),
        ("sdkappid = 2", "sdkappid = 1", "tencent.sdkappid"),
        ("tencent-b", "tencent-a", "tencent.secret_key"),
        ("APP-B", "app-a", "sendbird.application_id"),
        ("master-b", "token-a", "sendbird.master_token"),
        ("token-b", "master-a", "sendbird.api_tokens"),
    ] {
        let expected = format!("apps[1].{path}: apps[0] has the same");
        assert_eq!(problems(&other(from, to), &[]), [expected]);
    }
}

#[test]
fn an_app_may_repeat_its_own_credential() {
    with("[[apps]]\nid = \"a\"\nserver_keys = [\"k\", \"k\"]\n", &[]).unwrap();
}

#[test]
fn secrets_come_from_files() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (one, list) = (file("one", "s3cret\r\n"), file("list", "k1\r\n\nk2\n"));
    let url = file("url", "redis://:pw@h\n");
    let text = format!(
        r#"
[redis]
url_file = "{url}"
[[apps]]
id = "a"
server_keys_file = "{list}"
imkit = {{ client_keys_file = "{list}", jwt_secret_file = "{one}" }}
tencent = {{ sdkappid = 1, secret_key_file = "{one}" }}
sendbird = {{ application_id = "A", master_token_file = "{one}", api_tokens_file = "{list}" }}
"#
    );
    let config = with(&text, &[]).unwrap();
    assert_eq!(config.redis.url.as_ref().unwrap().0, "redis://:pw@h");
    let app = &config.apps[0];
    let keys: Vec<&str> = app.server_keys.iter().map(|key| key.0.as_str()).collect();
    assert_eq!(keys, ["k1", "k2"]);
    assert_eq!(app.section::<ImkitConfig>().unwrap().client_keys.len(), 2);
    assert_eq!(app.section::<ImkitConfig>().unwrap().jwt_secret.0, "s3cret");
    assert_eq!(
        app.section::<TencentConfig>().unwrap().secret_key.0,
        "s3cret"
    );
    assert_eq!(
        app.section::<SendbirdConfig>().unwrap().master_token.0,
        "s3cret"
    );
    assert_eq!(
        app.section::<SendbirdConfig>().unwrap().api_tokens[1].0,
        "k2"
    );

    // A flag replaces the file, and a value beside a file is a contradiction.
    let flags = Flags {
        redis_url: Some("redis://flag".to_owned()),
        ..Flags::default()
    };
    let config = with_flags(&text, &[], flags).unwrap();
    assert_eq!(config.redis.url.unwrap().0, "redis://flag");
    assert_eq!(
        problems(&text, &[("UNREAD_APPS__0__IMKIT__JWT_SECRET", "x")]),
        ["apps[0].imkit.jwt_secret_file: `jwt_secret` is also given; only one can be"]
    );
    let env = [("UNREAD_APPS__0__IMKIT__JWT_SECRET_FILE", "/no/such")];
    let [line] = problems(&text, &env).try_into().unwrap();
    assert!(
        line.starts_with("apps[0].imkit.jwt_secret_file: /no/such: cannot be read: "),
        "{line}"
    );
    let empty = file("empty", "\n");
    let env = [("UNREAD_APPS__0__IMKIT__JWT_SECRET_FILE", empty.as_str())];
    assert_eq!(
        problems(&text, &env),
        ["apps[0].imkit.jwt_secret: must not be empty"]
    );
}
