//! The errors of the native API, as problem details (RFC 9457).

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use serde_json::json as object;

use crate::error::Error;
use crate::http::body::BodyError;
use crate::http::request::{came_to, close, retry_after, set, with_body};
use crate::outcome::Outcome;

/// An error of the native API.
pub(super) struct Problem {
    status: StatusCode,
    outcome: Outcome,
    detail: String,
    /// The methods that the path takes.
    allow: Option<&'static str>,
    /// Whether bytes of the body may still be on the way.
    unread_body: bool,
    /// How many seconds the caller should wait, if a limit says so.
    retry_after: Option<u64>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            outcome: Outcome::of_status(status.as_u16()),
            detail: detail.into(),
            allow: None,
            unread_body: false,
            retry_after: None,
        }
    }

    pub(super) fn too_many(seconds: u64) -> Self {
        let detail = "too many calls from this address had no valid credentials";
        Self {
            retry_after: Some(seconds),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, detail)
        }
    }

    /// The pod can't do it now: the caller should come again after so many seconds.
    pub(super) fn later(detail: &'static str, seconds: u64) -> Self {
        Self {
            retry_after: Some(seconds),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        }
    }

    pub(super) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(super) fn method(allow: &'static str) -> Self {
        let detail = "this path takes another method";
        Self {
            allow: Some(allow),
            ..Self::new(StatusCode::METHOD_NOT_ALLOWED, detail)
        }
    }

    pub(super) fn path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "no such path")
    }

    pub(super) fn render(self) -> HttpResponse {
        let body = object!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let body = body.to_string().into_bytes();
        let mut response = with_body(self.status, "application/problem+json", body);
        came_to(&mut response, self.outcome);
        match self.status {
            StatusCode::UNAUTHORIZED => set(
                &mut response,
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer"),
            ),
            StatusCode::SERVICE_UNAVAILABLE => {
                set(
                    &mut response,
                    header::RETRY_AFTER,
                    HeaderValue::from_static("1"),
                );
            }
            _ => {}
        }
        if let Some(seconds) = self.retry_after {
            retry_after(&mut response, seconds);
        }
        if let Some(allow) = self.allow {
            set(
                &mut response,
                header::ALLOW,
                HeaderValue::from_static(allow),
            );
        }
        if self.unread_body {
            close(&mut response);
        }
        response
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let why = match &error {
            Error::Limited(_) => {
                return Self::new(StatusCode::TOO_MANY_REQUESTS, "this user calls too often");
            }
            Error::Unknown(why) => Some(format!("{why}: the outcome is unknown")),
            Error::Overloaded(_) => Some(error.to_string()),
            Error::Unavailable(why) => Some(why.sentence().into_owned()),
            Error::Unreadable(_) | Error::Internal(_) => None,
        };
        let outcome = error.outcome();
        let Some(why) = why else {
            tracing::error!(%error, "a call of the native API failed");
            let detail = "the server failed; the fault is logged";
            return Self {
                outcome,
                ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
            };
        };
        let detail = format!("{why}; the whole request may be sent again");
        Self {
            outcome,
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        }
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let status = match error {
            BodyError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::TimedOut => StatusCode::REQUEST_TIMEOUT,
            BodyError::Broken => StatusCode::BAD_REQUEST,
            BodyError::Encoded => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            BodyError::NoMemory => StatusCode::SERVICE_UNAVAILABLE,
        };
        if error == BodyError::NoMemory {
            // The connection stays open: a short body is read away, so that the caller can send it again without a new
            // connection.
            return Self::new(
                status,
                format!("{error}; the whole request may be sent again"),
            );
        }
        Self {
            unread_body: true,
            ..Self::new(status, error.to_string())
        }
    }
}
