//! A client of one app, with a method for each endpoint.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::config::AppKeys;
use super::fixture::Shared;
use super::tokens::{imkit_token, now_seconds, tencent_usersig, user_token};
use super::wait::PATIENCE;

/// When `POST /v1/events` answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    Applied,
    Accepted,
}

/// An HTTP answer, read to its end.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    /// Null when the body was not JSON.
    pub body: Value,
    pub text: String,
}

impl Reply {
    /// The body of an answer that has to be a 200.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.body
    }

    /// What each event of a request came to: its status, or the code of its rejection.
    #[track_caller]
    pub fn outcomes(self) -> Vec<String> {
        let answer = self.ok();
        let results = answer["results"].as_array().unwrap().iter();
        let outcome = |result: &Value| {
            let code = result["error"]["code"].as_str();
            code.or(result["status"].as_str()).unwrap().to_owned()
        };
        results.map(outcome).collect()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// A client of one app, speaking all five dialects to one pod.
#[derive(Clone)]
pub struct App {
    pub keys: AppKeys,
    pub base: String,
    /// Whether it sends events by time.
    pub by_time: bool,
    client: reqwest::Client,
    shared: Option<Arc<Shared>>,
}

impl App {
    pub fn new(keys: &AppKeys, base: &str) -> Self {
        let client = reqwest::Client::builder()
            .timeout(PATIENCE)
            .no_proxy()
            .build()
            .unwrap();
        Self {
            keys: keys.clone(),
            base: base.to_owned(),
            by_time: false,
            client,
            shared: None,
        }
    }

    pub(super) fn of_shared(keys: &AppKeys, shared: Arc<Shared>) -> Self {
        let mut app = Self::new(keys, &shared.pod.base);
        app.shared = Some(shared);
        app
    }

    /// The same app by way of another pod, with connections of its own.
    pub fn on(&self, base: &str) -> Self {
        let mut other = Self::new(&self.keys, base);
        other.by_time = self.by_time;
        other.shared.clone_from(&self.shared);
        other
    }

    /// `HOST:PORT` of its pod.
    pub fn address(&self) -> &str {
        address(&self.base)
    }

    /// Only for an app of the shared fixture: that its pod kept all secrets of all apps to itself.
    pub fn assert_no_secret_logged(&self) {
        let shared = self.shared.as_ref().expect("an app of the shared fixture");
        shared.pod.assert_no_secret_logged(&shared.config);
    }

    /// Only for an app of the shared fixture: the address of its Redis.
    pub fn redis_url(&self) -> String {
        let shared = self.shared.as_ref().expect("an app of the shared fixture");
        shared.redis.url()
    }

    pub fn request(
        &self,
        method: reqwest::Method,
        path_and_query: &str,
    ) -> reqwest::RequestBuilder {
        self.client
            .request(method, format!("{}{path_and_query}", self.base))
    }

    /// Sends, and reads the answer; an error is one of the connection, never of HTTP.
    pub async fn try_send(request: reqwest::RequestBuilder) -> Result<Reply, reqwest::Error> {
        let response = request.send().await?;
        let status = response.status().as_u16();
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| {
                (
                    name.to_string(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            })
            .collect();
        let text = response.text().await?;
        // So that a shell's prompt does not stand behind it.
        assert!(
            text.is_empty() || text.ends_with('\n'),
            "no line feed at the end: {text}"
        );
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Reply {
            status,
            headers,
            body,
            text,
        })
    }

    pub async fn send(request: reqwest::RequestBuilder) -> Reply {
        Self::try_send(request).await.unwrap()
    }

    // ------------------------------------------------------------------------------------------------ native

    pub fn native(&self, method: reqwest::Method, path_and_query: &str) -> reqwest::RequestBuilder {
        self.request(method, path_and_query)
            .bearer_auth(&self.keys.server_key)
    }

    fn post_events(&self, wait: Wait, content_type: &str, body: String) -> reqwest::RequestBuilder {
        let wait = match wait {
            Wait::Applied => "applied",
            Wait::Accepted => "accepted",
        };
        let order = if self.by_time { "&order=time" } else { "" };
        let path = format!("/v1/events?wait={wait}{order}");
        self.native(reqwest::Method::POST, &path)
            .header("content-type", content_type)
            .body(body)
    }

    /// One event object or an array of them.
    pub async fn events(&self, events: &Value, wait: Wait) -> Reply {
        Self::send(self.post_events(wait, "application/json", events.to_string())).await
    }

    /// Like [`App::events`], for a test that expects connections to break.
    pub async fn try_events(&self, events: &Value, wait: Wait) -> Result<Reply, reqwest::Error> {
        Self::try_send(self.post_events(wait, "application/json", events.to_string())).await
    }

    /// One event on each line.
    pub async fn events_ndjson(&self, events: &[Value], wait: Wait) -> Reply {
        let lines: Vec<String> = events.iter().map(Value::to_string).collect();
        Self::send(self.post_events(wait, "application/x-ndjson", lines.join("\n"))).await
    }

    /// Sends events of which none may be rejected; answers their results.
    #[track_caller]
    pub fn must<'a>(&'a self, events: &'a Value) -> impl Future<Output = Vec<Value>> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let reply = self.events(events, Wait::Applied).await;
            assert_eq!(reply.status, 200, "events sent at {caller}: {}", reply.text);
            assert_eq!(
                reply.body["rejected"], 0,
                "events sent at {caller}: {}",
                reply.text
            );
            reply.body["results"].as_array().unwrap().clone()
        }
    }

    pub async fn unread(&self, user: &str, include_rooms: bool) -> Reply {
        let include = if include_rooms { "?include=rooms" } else { "" };
        Self::send(self.native(
            reqwest::Method::GET,
            &format!("/v1/users/{}/unread{include}", escaped(user)),
        ))
        .await
    }

    /// `GET /v1/me/unread`, with a token that is good for an hour.
    pub fn me(&self, query: &str, user: &str) -> reqwest::RequestBuilder {
        let token = user_token(&self.keys.user_secret, user, now_seconds() + 3600);
        self.request(reqwest::Method::GET, &format!("/v1/me/unread{query}"))
            .bearer_auth(token)
    }

    pub async fn unread_many<S: AsRef<str>>(&self, users: &[S]) -> Reply {
        let users: Vec<&str> = users.iter().map(AsRef::as_ref).collect();
        Self::send(
            self.native(reqwest::Method::POST, "/v1/unread")
                .json(&json!({ "users": users })),
        )
        .await
    }

    /// `users` go into a comma list, so none of them may have a comma.
    pub async fn room_unread<S: AsRef<str>>(&self, room: &str, users: Option<&[S]>) -> Reply {
        self.room_unread_with("", room, users).await
    }

    /// The same with read positions.
    pub async fn room_read<S: AsRef<str>>(&self, room: &str, users: Option<&[S]>) -> Reply {
        self.room_unread_with("include=read", room, users).await
    }

    async fn room_unread_with<S: AsRef<str>>(
        &self,
        query: &str,
        room: &str,
        users: Option<&[S]>,
    ) -> Reply {
        let users = users.map_or(String::new(), |users| {
            let users: Vec<String> = users.iter().map(|user| escaped(user.as_ref())).collect();
            format!("users={}", users.join(","))
        });
        Self::send(self.native(
            reqwest::Method::GET,
            &format!("/v1/rooms/{}/unread?{users}&{query}", escaped(room)),
        ))
        .await
    }

    // ------------------------------------------------------------------------------------------------ IMKIT

    pub fn imkit(
        &self,
        method: reqwest::Method,
        path_and_query: &str,
        user: &str,
    ) -> reqwest::RequestBuilder {
        self.request(method, path_and_query)
            .header("IM-CLIENT-KEY", &self.keys.client_key)
            .header(
                "IM-Authorization",
                imkit_token(&self.keys.jwt_secret, user, now_seconds() + 3600),
            )
    }

    /// `None`: no body at all.
    pub async fn imkit_badges<S: AsRef<str>>(&self, user: &str, tags: Option<&[S]>) -> Reply {
        let request = self.imkit(reqwest::Method::POST, "/badges/byRoomTags", user);
        Self::send(match tags {
            Some(tags) => {
                let tags: Vec<&str> = tags.iter().map(AsRef::as_ref).collect();
                request.json(&json!({ "tags": tags }))
            }
            None => request,
        })
        .await
    }

    /// `query`: parameters, not yet encoded.
    pub async fn imkit_rooms(&self, user: &str, query: &[(String, String)]) -> Reply {
        let query: Vec<String> = query
            .iter()
            .map(|(name, value)| format!("{}={}", escaped(name), escaped(value)))
            .collect();
        let path = if query.is_empty() {
            "/rooms".to_owned()
        } else {
            format!("/rooms?{}", query.join("&"))
        };
        Self::send(self.imkit(reqwest::Method::GET, &path, user)).await
    }

    // ------------------------------------------------------------------------------------------------ Tencent

    pub fn tencent(&self, body: &Value) -> reqwest::RequestBuilder {
        let AppKeys {
            sdkappid,
            secret_key,
            admin,
            ..
        } = &self.keys;
        let usersig = tencent_usersig(*sdkappid, secret_key, admin, now_seconds(), 3600);
        let query = format!(
            "sdkappid={sdkappid}&identifier={}&usersig={}&random=99999999&contenttype=json",
            escaped(admin),
            escaped(&usersig)
        );
        self.request(
            reqwest::Method::POST,
            &format!("/v4/openim/get_c2c_unread_msg_num?{query}"),
        )
        .body(body.to_string())
    }

    pub async fn tencent_total(&self, to: &str) -> Reply {
        Self::send(self.tencent(&json!({ "To_Account": to }))).await
    }

    pub async fn tencent_peers<S: AsRef<str>>(&self, to: &str, peers: &[S]) -> Reply {
        let peers: Vec<&str> = peers.iter().map(AsRef::as_ref).collect();
        Self::send(self.tencent(&json!({ "To_Account": to, "Peer_Account": peers }))).await
    }

    // ------------------------------------------------------------------------------------------------ Sendbird

    pub fn sendbird_request(
        &self,
        user: &str,
        keys: Option<&str>,
        types: Option<&str>,
    ) -> reqwest::RequestBuilder {
        let mut query = Vec::new();
        if let Some(keys) = keys {
            query.push(format!("item_keys={}", escaped(keys)));
        }
        if let Some(types) = types {
            query.push(format!("custom_types={}", escaped(types)));
        }
        let query = if query.is_empty() {
            String::new()
        } else {
            format!("?{}", query.join("&"))
        };
        self.request(
            reqwest::Method::GET,
            &format!("/v3/users/{}/unread_item_count{query}", escaped(user)),
        )
        .header("Api-Token", &self.keys.api_token)
    }

    /// `keys` and `types` as comma lists; `None`: the parameter is left out.
    pub async fn sendbird(&self, user: &str, keys: Option<&str>, types: Option<&str>) -> Reply {
        Self::send(self.sendbird_request(user, keys, types)).await
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // The shared pod outlives the test that fails, so its log is shown from here.
        if let (true, Some(shared)) = (std::thread::panicking(), &self.shared)
            && !shared.shown.swap(true, Ordering::Relaxed)
        {
            eprintln!("--- the shared pod logged last:\n{}", shared.pod.log_tail());
        }
    }
}

/// `HOST:PORT` of a base URL.
pub fn address(base: &str) -> &str {
    base.strip_prefix("http://").unwrap()
}

/// Bytes to an address over a connection of its own, and all that comes back. They have to ask for the connection's end.
pub fn raw(address: &str, request: &[u8]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Everything but letters and digits percent-encoded: right in a path segment and in a query value alike.
pub fn escaped(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
