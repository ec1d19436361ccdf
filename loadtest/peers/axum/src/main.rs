//! A peer: the total of a user's unread direct messages, by one HGET on one multiplexed connection.
//! Usage: axum-peer PORT REDIS_URL; TOKIO_WORKER_THREADS says how many threads.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Asked {
    #[serde(rename = "To_Account")]
    user: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    action_status: &'static str,
    error_info: &'static str,
    error_code: u32,
    #[serde(rename = "AllC2CUnreadMsgNum")]
    total: u64,
}

async fn unread(
    State(mut redis): State<MultiplexedConnection>,
    Json(asked): Json<Asked>,
) -> Result<Json<Reply>, StatusCode> {
    let key = format!("unread:v1:{{bench:u:{}}}:counts", asked.user);
    let total: Option<u64> = redis
        .hget(key, "messages:direct")
        .await
        .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(Json(Reply {
        action_status: "OK",
        error_info: "",
        error_code: 0,
        total: total.unwrap_or(0),
    }))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("usage: axum-peer PORT REDIS_URL");
    let port: u16 = next()?.parse()?;
    let client = redis::Client::open(next()?)?;
    let connection = client.get_multiplexed_async_connection().await?;
    let app = Router::new()
        .route("/v4/openim/get_c2c_unread_msg_num", post(unread))
        .route("/", get(|| async {}))
        .with_state(connection);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    axum::serve(listener, app).await?;
    Ok(())
}
