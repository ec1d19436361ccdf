//! `token`, and secrets that stand in files of their own.

use std::process::Command;

use reqwest::Method;
use serde_json::json;

use super::{File, check, file};
use crate::support::model::ITEM_KEYS;
use crate::support::{App, Config, Pod, Ran, RedisServer, escaped, quoted, run, unread};

fn token(file: &File, args: &[&str]) -> Command {
    let mut command = unread();
    command
        .arg("token")
        .args(args)
        .arg("--config")
        .arg(&file.path);
    command
}

/// The one line of a command that went well.
#[track_caller]
fn printed(said: &Ran) -> String {
    assert_eq!(
        (said.code, said.stderr.as_str()),
        (0, ""),
        "{}",
        said.stdout
    );
    assert_eq!(said.stdout.lines().count(), 1, "{}", said.stdout);
    said.stdout.trim_end().to_owned()
}

#[tokio::test]
async fn tokens_are_accepted_and_secrets_come_from_files() {
    let redis = RedisServer::start();
    let config = Config::apps(1);
    let keys = &config.apps[0];
    let secrets = tempfile::tempdir().unwrap();
    let mut toml = config.toml(&redis.url());
    // A line break at the end, as every editor leaves one.
    for (name, one) in [
        ("jwt_secret", &keys.jwt_secret),
        ("secret_key", &keys.secret_key),
        ("master_token", &keys.master_token),
    ] {
        let path = secrets.path().join(name);
        std::fs::write(&path, format!("{one}\n")).unwrap();
        let before = format!("{name} = {}", quoted(one));
        assert!(toml.contains(&before));
        toml = toml.replace(
            &before,
            &format!("{name}_file = {}", quoted(path.to_str().unwrap())),
        );
    }
    for (name, one) in [
        ("server_keys", &keys.server_key),
        ("token_secret", &keys.user_secret),
        ("client_keys", &keys.client_key),
        ("api_tokens", &keys.api_token),
    ] {
        let path = secrets.path().join(name);
        std::fs::write(&path, format!("{one}\r\n{one}-next\n")).unwrap();
        let before = format!("{name} = [{}]", quoted(one));
        assert!(toml.contains(&before));
        toml = toml.replace(
            &before,
            &format!("{name}_file = {}", quoted(path.to_str().unwrap())),
        );
    }
    let file = file(&toml);
    let shown = run(&mut check(&file));
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    for secret in keys.secrets() {
        assert!(!shown.stdout.contains(secret), "{}", shown.stdout);
    }

    let pod = Pod::start_toml(&toml);
    pod.until_ready();
    let app = App::new(keys, &pod.base);
    app.must(&json!({"type": "message.sent", "to": "ali ce", "sender": "bob", "id": "1"}))
        .await;
    let next = app.request(Method::GET, "/v1/users/ali%20ce/unread");
    App::send(next.bearer_auth(format!("{}-next", keys.server_key)))
        .await
        .ok();
    assert_eq!(
        app.sendbird("ali ce", None, None).await.ok()[ITEM_KEYS[2]],
        1
    );
    let mut master = app.clone();
    master.keys.api_token = keys.master_token.clone();
    assert_eq!(
        master.sendbird("ali ce", None, None).await.ok()[ITEM_KEYS[2]],
        1
    );

    let jwt = printed(&run(&mut token(
        &file,
        &["imkit", "--app", "app-0", "--user", "ali ce"],
    )));
    let request = app
        .request(Method::GET, "/rooms")
        .header("IM-CLIENT-KEY", &keys.client_key)
        .header("IM-CLIENT-ID", "ali ce")
        .header("IM-Authorization", &jwt);
    assert_eq!(
        App::send(request).await.ok()["result"]["data"][0]["unread"],
        1
    );

    let mine = printed(&run(&mut token(
        &file,
        &["user", "--app", "app-0", "--user", "ali ce"],
    )));
    let request = app.request(Method::GET, "/v1/me/unread").bearer_auth(mine);
    assert_eq!(App::send(request).await.ok()["messages"]["total"], 1);

    let ask = |identifier: &str, usersig: &str| {
        let query = format!(
            "sdkappid={}&identifier={}&usersig={}",
            keys.sdkappid,
            escaped(identifier),
            escaped(usersig)
        );
        let request = app.request(
            Method::POST,
            &format!("/v4/openim/get_c2c_unread_msg_num?{query}"),
        );
        App::send(request.body(r#"{"To_Account":"ali ce"}"#))
    };
    let admin = keys.admin.as_str();
    let usersig = printed(&run(&mut token(
        &file,
        &["tencent", "--app", "app-0", "--identifier", admin],
    )));
    assert_eq!(ask(admin, &usersig).await.ok()["AllC2CUnreadMsgNum"], 1);
    let nobody = printed(&run(&mut token(
        &file,
        &["tencent", "--app", "app-0", "--identifier", "测试"],
    )));
    assert_eq!(ask("测试", &nobody).await.ok()["ErrorCode"], 60010);

    for (args, names) in [
        (
            &["imkit", "--app", "nope", "--user", "u"][..],
            &["nope"][..],
        ),
        (
            &["tencent", "--app", "nope", "--identifier", "u"],
            &["nope"],
        ),
        (&["imkit", "--app", "app-0", "--user", ""], &["--user"]),
        (&["user", "--app", "nope", "--user", "u"], &["nope"]),
        (&["user", "--app", "app-0", "--user", ""], &["--user"]),
    ] {
        run(&mut token(&file, args)).assert_failed_in_one_line(names);
    }
    pod.assert_no_secret_logged(&config);
}

/// Whoever forgets `--config` is told so.
#[test]
fn without_a_configuration_only_the_demos_app_is_known() {
    let args = ["token", "imkit", "--user", "u", "--app"];
    printed(&run(unread().args(args).arg("demo")));
    run(unread().args(args).arg("main")).assert_failed_in_one_line(&[
        "no app \"main\" is configured: no configuration with apps was given (--config FILE), so only the demo's app, \"demo\", is known",
    ]);
}

#[test]
fn a_token_needs_its_dialect() {
    let file = file("[[apps]]\nid = \"bare\"\nserver_keys = [\"k\"]\n");
    run(&mut token(
        &file,
        &["imkit", "--app", "bare", "--user", "u"],
    ))
    .assert_failed_in_one_line(&["bare", "apps.imkit"]);
    run(&mut token(
        &file,
        &["tencent", "--app", "bare", "--identifier", "u"],
    ))
    .assert_failed_in_one_line(&["bare", "apps.tencent"]);
    run(&mut token(&file, &["user", "--app", "bare", "--user", "u"])).assert_failed_in_one_line(&[
        "bare",
        "token_secret",
        "apps.users",
    ]);
}
