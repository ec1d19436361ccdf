//! Takes the same requests apart as `unread` does (path, query, headers, JSON body), asks nobody, and answers a constant of
//! the same size and content type. Usage: ceiling PORT WORKERS DIRECTORY; the directory holds one reply per file.

use std::path::PathBuf;

use actix_web::http::header;
use actix_web::web::{Bytes, Data, Json, Path, Query};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, get, post};
use serde::Deserialize;

/// What is answered, as the server itself answered it to one of the requests.
struct Replies {
    tencent_total: Bytes,
    tencent_peers: Bytes,
    sendbird: Bytes,
    imkit_badges: Bytes,
    native_one: Bytes,
    native_many: Bytes,
}

fn answer(reply: &Bytes) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "application/json; charset=utf-8"))
        .body(reply.clone())
}

/// Whether all these headers are there and not empty, as credentials have to be.
fn has(request: &HttpRequest, names: &[&str]) -> bool {
    names.iter().all(|name| {
        let value = request.headers().get(*name);
        value.is_some_and(|value| value.to_str().is_ok_and(|text| !text.is_empty()))
    })
}

fn refuse() -> HttpResponse {
    HttpResponse::Unauthorized().finish()
}

#[derive(Deserialize)]
struct TencentQuery {
    sdkappid: u64,
    identifier: String,
    usersig: String,
}

#[derive(Deserialize)]
struct TencentBody {
    #[serde(rename = "To_Account")]
    user: String,
    #[serde(rename = "Peer_Account", default)]
    peers: Vec<String>,
}

#[post("/v4/openim/get_c2c_unread_msg_num")]
async fn tencent(
    query: Query<TencentQuery>,
    body: Json<TencentBody>,
    replies: Data<Replies>,
) -> HttpResponse {
    if query.sdkappid == 0 || query.identifier.is_empty() || query.usersig.is_empty() {
        return refuse();
    }
    if body.user.is_empty() || body.peers.iter().any(String::is_empty) {
        return HttpResponse::BadRequest().finish();
    }
    answer(if body.peers.is_empty() {
        &replies.tencent_total
    } else {
        &replies.tencent_peers
    })
}

#[derive(Deserialize)]
struct SendbirdQuery {
    item_keys: String,
}

#[get("/v3/users/{user}/unread_item_count")]
async fn sendbird(
    request: HttpRequest,
    user: Path<String>,
    query: Query<SendbirdQuery>,
    replies: Data<Replies>,
) -> HttpResponse {
    if user.is_empty() || !has(&request, &["api-token"]) {
        return refuse();
    }
    if query.item_keys.split(',').any(str::is_empty) {
        return HttpResponse::BadRequest().finish();
    }
    answer(&replies.sendbird)
}

#[derive(Deserialize)]
struct Tags {
    tags: Vec<String>,
}

#[post("/badges/byRoomTags")]
async fn imkit_badges(
    request: HttpRequest,
    body: Json<Tags>,
    replies: Data<Replies>,
) -> HttpResponse {
    if !has(&request, &["im-client-key", "im-authorization"]) {
        return refuse();
    }
    if body.tags.is_empty() {
        return HttpResponse::BadRequest().finish();
    }
    answer(&replies.imkit_badges)
}

#[derive(Deserialize)]
struct Users {
    users: Vec<String>,
}

#[post("/v1/unread")]
async fn native(request: HttpRequest, body: Json<Users>, replies: Data<Replies>) -> HttpResponse {
    if !has(&request, &["authorization"]) {
        return refuse();
    }
    match body.users.len() {
        0 => HttpResponse::BadRequest().finish(),
        1 => answer(&replies.native_one),
        _ => answer(&replies.native_many),
    }
}

#[get("/")]
async fn ready() -> HttpResponse {
    HttpResponse::Ok().finish()
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("usage: ceiling PORT WORKERS DIRECTORY");
    let (port, workers) = (next()?.parse::<u16>()?, next()?.parse::<usize>()?);
    let directory = PathBuf::from(next()?);
    let read = |name: &str| std::fs::read(directory.join(name)).map(Bytes::from);
    let replies = Data::new(Replies {
        tencent_total: read("tencent_total")?,
        tencent_peers: read("tencent_peers")?,
        sendbird: read("sendbird")?,
        imkit_badges: read("imkit_badges")?,
        native_one: read("native_one")?,
        native_many: read("native_many")?,
    });
    let app = move || {
        App::new()
            .app_data(Data::clone(&replies))
            .service(tencent)
            .service(sendbird)
            .service(imkit_badges)
            .service(native)
            .service(ready)
    };
    HttpServer::new(app)
        .workers(workers)
        .bind(("127.0.0.1", port))?
        .run()
        .await?;
    Ok(())
}
