//! The demo's chat: two users side by side, whose badges move. Only `unread demo` serves it, at the address of its API, so the
//! page needs no permission to read the answers.

use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Map, Value, json};

use super::File;
use crate::config::AppConfig;
use crate::http::dialect::TokenKind;
use crate::http::request::unix_seconds;
use crate::http::{self, Unserved};

/// How long the page's user tokens are good.
const TTL_SECONDS: u64 = 3_600;
/// Who chats, by the names that the sample data have for them.
const USERS: [&str; 2] = ["alice", "bob"];

const FILES: [File; 4] = [
    File::page("/", include_str!("chat/page.html")),
    File::script("/demo/chat.js", include_str!("chat/chat.js")),
    File::script("/demo/counts.js", include_str!("chat/counts.js")),
    File::style("/demo/chat.css", include_str!("chat/chat.css")),
];

/// The chat of an app.
#[derive(Clone)]
pub(crate) struct Chat {
    app: AppConfig,
    /// The port of the console, which the page has a link to.
    console: u16,
}

impl Chat {
    /// Of the demo's app. Its secrets are published, so the page may have its server key, as no page of an app of your own may.
    pub(crate) fn new(app: AppConfig) -> Self {
        Self { app, console: 0 }
    }

    /// The same beside a console at that port.
    pub(crate) fn beside(self, console: u16) -> Self {
        Self { console, ..self }
    }

    /// Adds its files and calls.
    pub(crate) fn add_to(self, service: &mut ServiceConfig) {
        for file in FILES {
            let answer = move || async move { file.answer() };
            service.route(file.path, http::get_or_head().to(answer));
        }
        service
            .app_data(web::Data::new(self))
            .route("/demo/session", http::get_or_head().to(session));
    }

    fn token(&self, kind: &TokenKind, user: &str) -> Option<String> {
        (kind.make)(&self.app, user, unix_seconds(), TTL_SECONDS).ok()
    }
}

/// What the page needs: a token of each user, and the key with which it plays the back end.
async fn session(request: HttpRequest) -> HttpResponse {
    let chat = request.app_data::<web::Data<Chat>>();
    let mut kinds = http::dialects().filter_map(|dialect| dialect.token());
    let kind = kinds.find(|kind| kind.name == "user");
    let (Some(chat), Some(kind)) = (chat, kind) else {
        return http::unserved(Unserved::Broken);
    };
    let tokens: Option<Map<String, Value>> = USERS
        .iter()
        .map(|user| Some(((*user).to_owned(), chat.token(kind, user)?.into())))
        .collect();
    let key = chat.app.server_keys.first();
    let (Some(tokens), Some(key)) = (tokens, key) else {
        return http::unserved(Unserved::Broken);
    };
    super::json(
        HttpResponse::Ok(),
        &json!({"tokens": tokens, "server_key": key.0, "ttl_seconds": TTL_SECONDS, "console_port": chat.console}),
    )
}
