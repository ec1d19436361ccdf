//! The body of an answer.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde::Serialize;

use crate::http::request;

/// The body of an answer. It holds the total or the lists, never both (T1).
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct AnswerBody<'a> {
    pub action_status: &'a str,
    pub error_info: &'a str,
    pub error_code: u32,
    #[serde(rename = "AllC2CUnreadMsgNum", skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    #[serde(
        rename = "C2CUnreadMsgNumList",
        skip_serializing_if = "Option::is_none"
    )]
    pub counts: Option<Vec<Count<'a>>>,
    #[serde(rename = "ErrorList", skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<Failed<'a>>,
}

/// A peer, and how many of its messages the user has not read.
#[derive(Serialize)]
pub(super) struct Count<'a> {
    #[serde(rename = "Peer_Account")]
    pub peer: &'a str,
    #[serde(rename = "C2CUnreadMsgNum")]
    pub unread: u64,
}

/// A peer that does not exist.
#[derive(Serialize)]
pub(super) struct Failed<'a> {
    #[serde(rename = "Peer_Account")]
    pub peer: &'a str,
    #[serde(rename = "ErrorCode")]
    pub code: u32,
}

impl AnswerBody<'_> {
    /// A success that says nothing yet.
    pub(super) const OK: Self = Self {
        action_status: "OK",
        error_info: "",
        error_code: 0,
        total: None,
        counts: None,
        failed: Vec::new(),
    };

    /// The response with this body.
    pub(super) fn response(&self) -> HttpResponse {
        request::json(StatusCode::OK, self).unwrap_or_else(|| {
            let body = br#"{"ActionStatus":"FAIL","ErrorInfo":"","ErrorCode":91000}"#;
            request::json_bytes(StatusCode::OK, body.to_vec())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_shows_no_list() {
        let answer = AnswerBody {
            total: Some(12),
            ..AnswerBody::OK
        };
        assert_eq!(
            serde_json::to_string(&answer).unwrap(),
            r#"{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"AllC2CUnreadMsgNum":12}"#
        );
    }
}
