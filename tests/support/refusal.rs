//! What each dialect says when Redis does not answer.

use std::time::Duration;

use serde_json::{Value, json};

use super::check::Check;
use super::model::Model;
use super::{App, Reply, escaped};

/// How long a caller may be left without an answer while Redis is away.
pub const ANSWER: Duration = Duration::from_secs(5);

/// A refusal in the native API's own form.
pub fn native_refusal(reply: &Reply) -> Check {
    let json = reply
        .header("content-type")
        .is_some_and(|t| t.starts_with("application/problem+json"));
    let later = reply
        .header("retry-after")
        .and_then(|after| after.parse::<u64>().ok())
        .is_some_and(|after| after >= 1);
    let right = reply.status == 503 && json && later;
    right
        .then_some(())
        .ok_or_else(|| format!("native: {reply:?}"))
}

pub fn imkit_refusal(reply: &Reply) -> Check {
    let right = reply.status >= 500
        && reply.body["RC"].as_u64().is_some_and(|rc| rc != 0)
        && reply.body["RM"].is_string()
        && reply.body["error"]["code"].is_string();
    right
        .then_some(())
        .ok_or_else(|| format!("IMKIT: {reply:?}"))
}

pub fn tencent_refusal(reply: &Reply) -> Check {
    let right = reply.status == 200
        && reply.body["ActionStatus"] == "FAIL"
        && reply.body["ErrorCode"] == 91000;
    right
        .then_some(())
        .ok_or_else(|| format!("Tencent: {reply:?}"))
}

pub fn sendbird_refusal(reply: &Reply) -> Check {
    let right = reply.status == 500 && reply.body["error"] == true && reply.body["code"] == 500_901;
    right
        .then_some(())
        .ok_or_else(|| format!("Sendbird: {reply:?}"))
}

/// Asks every dialect about one user. Each answers in time: what the model says if it may answer, or a refusal in its own form.
pub async fn right_or_refused(app: &App, model: &Model, user: &str, may_answer: bool) -> Check {
    async fn in_time<F: Future<Output = Reply>>(call: F) -> Result<Reply, String> {
        tokio::time::timeout(ANSWER, call)
            .await
            .map_err(|_| format!("no answer within {ANSWER:?}"))
    }
    let tags: Option<&[&str]> = None;
    let (native, badges, rooms, total, nine) = tokio::join!(
        in_time(app.unread(user, false)),
        in_time(app.imkit_badges(user, tags)),
        in_time(app.imkit_rooms(user, &[])),
        in_time(app.tencent_total(user)),
        in_time(app.sendbird(user, None, None)),
    );
    let right = |answer: &Value, expected: Value| may_answer && *answer == expected;
    let mut reply = native?;
    // The model has no stamp.
    if let Some(body) = reply.body.as_object_mut() {
        body.remove("stamp");
    }
    if !right(&reply.body, json!(model.native(user, false))) {
        native_refusal(&reply)?;
    }
    let reply = badges?;
    if !right(
        &reply.body["result"]["data"],
        json!(model.badges(user, None)),
    ) {
        imkit_refusal(&reply)?;
    }
    let reply = rooms?;
    if !right(
        &reply.body["result"]["totalCount"],
        json!(model.rooms_of(user).count()),
    ) {
        imkit_refusal(&reply)?;
    }
    let reply = total?;
    if !right(
        &reply.body["AllC2CUnreadMsgNum"],
        json!(model.tencent_total(user)),
    ) {
        tencent_refusal(&reply)?;
    }
    let reply = nine?;
    if !right(&reply.body, json!(model.sendbird(user, None))) {
        sendbird_refusal(&reply)?;
    }
    Ok(())
}

/// Asks every dialect about one user: each answers, or refuses in its own form. Answers how many refused.
pub async fn answered_or_refused(app: &App, user: &str) -> Result<usize, String> {
    let sent = tokio::join!(
        App::try_send(app.native(reqwest::Method::GET, &unread_path(user))),
        App::try_send(app.imkit(reqwest::Method::POST, "/badges/byRoomTags", user)),
        App::try_send(app.imkit(reqwest::Method::GET, "/rooms", user)),
        App::try_send(app.tencent(&json!({ "To_Account": user }))),
        App::try_send(app.sendbird_request(user, None, None)),
    );
    let broken = |error: reqwest::Error| format!("{user}: {error}");
    let mut refused = 0;
    let reply = sent.0.map_err(broken)?;
    if reply.status == 200 {
        let of = |kind: &str| reply.body["messages"][kind].as_u64();
        let sum = ["direct", "group", "supergroup"].map(of).into_iter().sum();
        if of("total") != sum {
            return Err(format!("a total that is no sum: {reply:?}"));
        }
    } else {
        native_refusal(&reply)?;
        refused += 1;
    }
    for reply in [sent.1.map_err(broken)?, sent.2.map_err(broken)?] {
        if reply.status != 200 {
            imkit_refusal(&reply)?;
            refused += 1;
        }
    }
    let reply = sent.3.map_err(broken)?;
    if reply.body["ActionStatus"] != "OK" {
        tencent_refusal(&reply)?;
        refused += 1;
    }
    let reply = sent.4.map_err(broken)?;
    if reply.status != 200 {
        sendbird_refusal(&reply)?;
        refused += 1;
    }
    Ok(refused)
}

fn unread_path(user: &str) -> String {
    format!("/v1/users/{}/unread", escaped(user))
}
