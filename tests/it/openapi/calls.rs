//! Calls made of the document's examples, with credentials that are good today.

use std::collections::BTreeMap;

use serde_json::Value;

use super::document::{Document, Operation};
use crate::support::{
    App, Pod, Reply, escaped, imkit_token, now_seconds, tencent_usersig, user_token,
};

/// A request before it is sent.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub method: String,
    /// The whole address, without the query.
    pub url: String,
    /// Names and values, encoded.
    pub query: Vec<(String, String)>,
    pub headers: Vec<(String, String)>,
    /// Content type and bytes.
    pub body: Option<(String, Vec<u8>)>,
}

impl Call {
    /// Path and query.
    pub(super) fn target(&self) -> String {
        let query: Vec<String> = self
            .query
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let path = self.url.splitn(4, '/').nth(3).unwrap_or_default();
        match query.is_empty() {
            true => format!("/{path}"),
            false => format!("/{path}?{}", query.join("&")),
        }
    }

    /// Host and port.
    pub(super) fn authority(&self) -> &str {
        self.url.split('/').nth(2).unwrap()
    }
}

/// The call that the examples of that name make. A parameter without one has its only example, or is left out.
pub(super) fn call(
    document: &Document,
    app: &App,
    pod: &Pod,
    operation: &Operation,
    name: Option<&str>,
) -> Call {
    let mut path = operation.path.clone();
    let (mut query, mut headers) = (Vec::new(), Vec::new());
    for parameter in &operation.parameters {
        let text = |name: &str| parameter[name].as_str().unwrap();
        let own = name.and_then(|name| parameter["examples"].get(name));
        let value = own
            .map(|example| &example["value"])
            .or_else(|| parameter.get("example"));
        // Where the call is about something else than examples, any value does that there has to be.
        let any = || {
            let examples = parameter["examples"].as_object()?;
            Some(&examples.values().next()?["value"])
        };
        let value =
            value.or_else(|| any().filter(|_| name.is_none() && parameter["required"] == true));
        let Some(value) = value else {
            assert_ne!(
                parameter["required"], true,
                "{}: {name:?}: {parameter}",
                operation.id
            );
            continue;
        };
        let values: Vec<String> = match value {
            Value::Array(items) if parameter["explode"] == false => {
                let items: Vec<String> = items.iter().map(|item| escaped(&plain(item))).collect();
                vec![items.join(",")]
            }
            Value::Array(items) => items.iter().map(|item| escaped(&plain(item))).collect(),
            value => vec![escaped(&plain(value))],
        };
        for encoded in values {
            match text("in") {
                "path" => path = path.replace(&format!("{{{}}}", text("name")), &encoded),
                "query" => query.push((text("name").to_owned(), encoded)),
                "header" => headers.push((text("name").to_owned(), plain(value))),
                other => panic!("{other}"),
            }
        }
    }
    credentials(document, app, operation, &mut query, &mut headers);
    let bodies = operation.bodies.iter();
    let mut bodies = bodies.flat_map(|(content_type, examples)| {
        examples
            .iter()
            .map(move |(name, value)| (content_type, name, value))
    });
    let body = bodies.find(|(_, example, _)| name.is_none_or(|name| name == example.as_str()));
    assert!(
        body.is_some() || operation.bodies.is_empty(),
        "{}: {name:?}",
        operation.id
    );
    let body = body.map(|(content_type, _, value)| {
        let bytes = match value {
            Value::String(text) if content_type != "application/json" => text.clone(),
            value => value.to_string(),
        };
        (content_type.clone(), bytes.into_bytes())
    });
    let base = match operation.admin {
        true => format!("http://{}", pod.admin),
        false => pod.base.clone(),
    };
    Call {
        method: operation.method.to_uppercase(),
        url: format!("{base}{path}"),
        query,
        headers,
        body,
    }
}

/// A text, or what else it is as JSON.
pub(super) fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn credentials(
    document: &Document,
    app: &App,
    operation: &Operation,
    query: &mut Vec<(String, String)>,
    headers: &mut Vec<(String, String)>,
) {
    let keys = &app.keys;
    let now = now_seconds();
    let security = operation.operation["security"].as_array().unwrap();
    let schemes = security.first().and_then(Value::as_object);
    for scheme in schemes.into_iter().flat_map(serde_json::Map::keys) {
        let secret = match scheme.as_str() {
            "serverKey" => format!("Bearer {}", keys.server_key),
            "userToken" => {
                let token = user_token(&keys.user_secret, "alice", now + 3600);
                format!("Bearer {token}")
            }
            "imkitClientKey" => keys.client_key.clone(),
            "imkitToken" => imkit_token(&keys.jwt_secret, "alice", now + 3600),
            "tencentUserSig" => {
                tencent_usersig(keys.sdkappid, &keys.secret_key, &keys.admin, now, 3600)
            }
            "sendbirdApiToken" => keys.api_token.clone(),
            other => panic!("{other}"),
        };
        let described = document.at(&format!("/components/securitySchemes/{scheme}"));
        match (described["in"].as_str(), described["name"].as_str()) {
            (Some("header"), Some(name)) => headers.push((name.to_owned(), secret)),
            (Some("query"), Some(name)) => query.push((name.to_owned(), escaped(&secret))),
            _ => headers.push(("Authorization".to_owned(), secret)),
        }
    }
}

pub(super) async fn send(call: Call) -> Reply {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let method = reqwest::Method::from_bytes(call.method.as_bytes()).unwrap();
    let mut request = client.request(
        method,
        format!("http://{}{}", call.authority(), call.target()),
    );
    for (name, value) in &call.headers {
        request = request.header(name, value);
    }
    if let Some((content_type, body)) = call.body {
        request = request.header("content-type", content_type).body(body);
    }
    if !call.url.ends_with("/v1/live") {
        return App::send(request).await;
    }
    let mut response = request.send().await.unwrap();
    let headers = response.headers().iter().map(|(name, value)| {
        let value = value.to_str().unwrap().to_owned();
        (name.to_string(), value)
    });
    let (status, headers): (u16, BTreeMap<String, String>) =
        (response.status().as_u16(), headers.collect());
    // A stream has no end. What it says is for other tests.
    let text = match headers.get("content-type").map(String::as_str) {
        Some("text/event-stream") => {
            let begin = response.chunk().await.unwrap().unwrap();
            String::from_utf8(begin.to_vec()).unwrap()
        }
        _ => response.text().await.unwrap(),
    };
    Reply {
        status,
        headers,
        body: serde_json::from_str(&text).unwrap_or(Value::Null),
        text,
    }
}

/// Whether an answer is the one of the example, but for numbers that are of the moment, and for texts that only its changes
/// make sense of.
pub(super) fn same(example: &Value, found: &Value) -> Result<(), String> {
    const OF_THE_MOMENT: [&str; 2] = ["tookMS", "updatedAtMS"];
    const OPAQUE: &str = "stamp";
    match (example, found) {
        (Value::Object(one), Value::Object(other)) => {
            if !one.keys().eq(other.keys()) {
                return Err(format!("{example} is not {found}"));
            }
            one.iter()
                .zip(other.values())
                .try_for_each(|((name, one), other)| {
                    let any = OF_THE_MOMENT.contains(&name.as_str())
                        && one.is_number()
                        && other.is_number();
                    let any = any || (name == OPAQUE && one.is_string() && other.is_string());
                    if any { Ok(()) } else { same(one, other) }
                })
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => one
            .iter()
            .zip(other)
            .try_for_each(|(one, other)| same(one, other)),
        _ if example == found => Ok(()),
        _ => Err(format!("{example} is not {found}")),
    }
}

#[test]
fn what_is_not_the_same_is_told() {
    let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let example = value(r#"{"a": [{"tookMS": 1, "b": "x"}]}"#);
    for (found, is_same) in [
        (r#"{"a": [{"tookMS": 7, "b": "x"}]}"#, true),
        (r#"{"a": [{"tookMS": 1, "b": "y"}]}"#, false),
        (r#"{"a": [{"tookMS": "1", "b": "x"}]}"#, false),
        (r#"{"a": [{"tookMS": 1}]}"#, false),
        (r#"{"a": [{"tookMS": 1, "b": "x", "c": 1}]}"#, false),
        (r#"{"a": []}"#, false),
        (r#"{"a": [{"tookMS": 1, "b": "x", "stamp": "y"}]}"#, false),
    ] {
        assert_eq!(same(&example, &value(found)).is_ok(), is_same, "{found}");
    }
}
