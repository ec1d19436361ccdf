//! `docs/openapi.yaml`: it is OpenAPI, it names what the program serves, its examples are true, and each answer of a pod is one
//! that it describes.
//!
//! `openapi/oas-3.1.json` is the official schema of OpenAPI 3.1 documents (<https://spec.openapis.org/oas/3.1/schema/2022-10-07>,
//! Apache-2.0).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::{App, Config, Pod, RedisServer, run_unread};
use document::{Document, Operation, written_json};

/// The document, its operations and its schemas.
pub(crate) mod document;

/// Calls made of the document's examples, and answers compared with what it says.
mod calls;

/// Every error that can be had is in the document, and every one in the document can be had.
mod errors;

/// Where the JSON is that a pod serves beside the YAML.
const JSON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");

/// A pod with the app of the example configuration, whose ids the examples show.
fn demo(redis: &RedisServer) -> (Pod, App) {
    let config = demo_config();
    let pod = Pod::start(&config, redis);
    let app = App::new(&config.apps[0], &pod.base);
    (pod, app)
}

fn demo_config() -> Config {
    let mut config = Config::apps(1);
    let keys = &mut config.apps[0];
    keys.id = "demo".to_owned();
    keys.sdkappid = 1_400_000_001;
    keys.admin = "administrator".to_owned();
    config
}

#[test]
fn the_document_is_openapi() {
    let document = Document::read();
    document.fits_the_official_schema().unwrap();
    document.references_can_be_followed().unwrap();
    document.schemas_can_be_used().unwrap();
    document.components_are_used().unwrap();
}

/// What the checks are for.
#[test]
fn a_document_that_is_wrong_is_found_out() {
    type Check = fn(&Document) -> Result<(), String>;
    let cases: [(&str, Value, Check); 5] = [
        (
            "/paths/~1v1~1unread/post/responses",
            Value::from(1),
            Document::fits_the_official_schema,
        ),
        (
            "/paths/~1rooms/get/paramters",
            serde_json::json!([]),
            Document::fits_the_official_schema,
        ),
        (
            "/paths/~1v1~1unread/post/responses/400/$ref",
            "#/components/responses/None".into(),
            Document::references_can_be_followed,
        ),
        (
            "/components/schemas/Count/type",
            "number of".into(),
            Document::schemas_can_be_used,
        ),
        (
            "/components/schemas/Nobody",
            serde_json::json!({"type": "string"}),
            Document::components_are_used,
        ),
    ];
    for (place, value, check) in cases {
        let mut document = Document::read();
        check(&document).unwrap();
        document.put(place, value);
        assert!(check(&document).is_err(), "{place}");
    }
}

/// `make openapi` writes it.
#[test]
fn the_json_is_the_yaml() {
    let json = written_json(&Document::read());
    if std::env::var_os("WRITE_OPENAPI").is_some() {
        std::fs::write(JSON, &json).unwrap();
    }
    let found = std::fs::read_to_string(JSON).unwrap();
    assert!(
        found == json,
        "docs/openapi.json is not what docs/openapi.yaml says: run `make openapi`"
    );
}

#[test]
fn a_pod_serves_the_document() {
    let redis = RedisServer::start();
    let (pod, _app) = demo(&redis);
    for (path, content_type) in [
        ("/openapi.yaml", "application/yaml"),
        ("/openapi.json", "application/json"),
    ] {
        let answer = pod.admin_get(path).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let line = format!("\r\ncontent-type: {content_type}\r\n");
        assert!(head.to_ascii_lowercase().contains(&line), "{head}");
        let file = format!("{}/docs{path}", env!("CARGO_MANIFEST_DIR"));
        assert!(body == std::fs::read_to_string(file).unwrap(), "{path}");
        assert!(body.ends_with('\n'), "{path}");
    }
}

/// The document is of this version of the program.
#[test]
fn the_document_has_the_programs_version() {
    let version = run_unread(&["--version"]).stdout;
    let document = Document::read();
    let said = document.at("/info/version").as_str().unwrap();
    assert!(
        version
            .split([' ', '\n', '+', '-'])
            .any(|word| word == said),
        "{version} {said}"
    );
}

/// The endpoints that a pod knows, each with a method: its metrics have them from the start.
fn endpoints(pod: &Pod) -> BTreeSet<(String, String)> {
    let metrics = pod.admin_get("/metrics").unwrap();
    let label = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!("{name}=\""))?;
        Some(rest.split_once('"')?.0.to_owned())
    };
    metrics
        .lines()
        .filter(|line| line.starts_with("unread_http_request_duration_seconds_count{"))
        .filter_map(|line| Some((label(line, "endpoint")?, label(line, "method")?)))
        .collect()
}

#[test]
fn the_endpoints_are_those_of_the_program() {
    let redis = RedisServer::start();
    let (pod, _app) = demo(&redis);
    let known = endpoints(&pod);
    assert!(known.len() > 5, "{known:?}");
    let document = Document::read();
    let described: BTreeSet<(String, String)> = document
        .operations()
        .iter()
        .filter_map(|operation| {
            let endpoint = operation.endpoint.clone()?;
            Some((endpoint, operation.method.to_uppercase()))
        })
        .collect();
    let missing: Vec<_> = known.difference(&described).collect();
    assert!(missing.is_empty(), "not in the document: {missing:?}");
    let names = |pairs: &BTreeSet<(String, String)>| -> BTreeSet<String> {
        pairs.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(&described), names(&known));
}

/// How a pod takes a request.
#[derive(Debug, PartialEq, Eq)]
enum Taken {
    Yes,
    NoSuchPath,
    NoSuchMethod,
}

fn taken(reply: &crate::support::Reply) -> Taken {
    let body = &reply.body;
    let code = |field: &str| body[field].as_u64();
    let said = |text: &Value, words: &str| text.as_str() == Some(words);
    if said(&body["detail"], "no such path")
        || said(&body["error"]["code"], "NOT_FOUND")
        || code("ErrorCode") == Some(60009)
        || code("code") == Some(400_114)
    {
        Taken::NoSuchPath
    } else if reply.status == 405
        || said(&body["ErrorInfo"], "HTTP parse Error")
        || code("code") == Some(400_930)
    {
        Taken::NoSuchMethod
    } else {
        Taken::Yes
    }
}

#[tokio::test]
async fn each_path_takes_the_methods_of_the_document_and_no_others() {
    let redis = RedisServer::start();
    let (pod, app) = demo(&redis);
    let document = Document::read();
    let mut paths: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    let operations = document.operations();
    for operation in &operations {
        paths.entry(&operation.path).or_default().push(operation);
    }
    for (path, operations) in paths {
        let methods: BTreeSet<String> =
            operations.iter().map(|o| o.method.to_uppercase()).collect();
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "BREW"] {
            let mut call = calls::call(&document, &app, &pod, operations[0], None);
            call.method = method.to_owned();
            let reply = calls::send(call).await;
            let expected = match methods.contains(method) {
                true => Taken::Yes,
                false => Taken::NoSuchMethod,
            };
            assert_eq!(taken(&reply), expected, "{method} {path}: {reply:?}");
            // Tencent's dialect has no header for it.
            if expected == Taken::NoSuchMethod && !path.starts_with("/v4/") {
                let allowed = reply.header("allow").unwrap_or_default().split(", ");
                let allowed = allowed.filter(|method| !["HEAD", "OPTIONS"].contains(method));
                let allowed: BTreeSet<String> = allowed.map(str::to_owned).collect();
                assert_eq!(allowed, methods, "{path}");
            }
        }
        let mut call = calls::call(&document, &app, &pod, operations[0], None);
        call.url = call
            .url
            .replacen(path.split('{').next().unwrap(), "/v1/nope/", 1);
        assert_eq!(taken(&calls::send(call).await), Taken::NoSuchPath, "{path}");
    }
}

/// In the order of the document, the events first: the others show what these have come to.
#[tokio::test]
async fn the_examples_are_true() {
    let redis = RedisServer::start();
    let (pod, app) = demo(&redis);
    let document = Document::read();
    let mut operations = document.operations();
    operations.sort_by_key(|operation| operation.id != "postEvents");
    let mut shown = 0;
    for operation in &operations {
        for name in operation.example_names() {
            let call = calls::call(&document, &app, &pod, operation, name.as_deref());
            let reply = calls::send(call).await;
            let what = format!("{} {name:?}: {reply:?}", operation.id);
            let status = document
                .check(operation, &reply)
                .unwrap_or_else(|why| panic!("{why}: {what}"));
            let example = name.and_then(|name| operation.answer_example(&document, &name));
            let Some((expected, example)) = example else {
                assert_eq!(status, 200, "{what}");
                continue;
            };
            assert_eq!(status, expected, "{what}");
            calls::same(example, &reply.body).unwrap_or_else(|why| panic!("{why}: {what}"));
            shown += 1;
        }
    }
    assert!(shown > 10, "{shown}");
}
