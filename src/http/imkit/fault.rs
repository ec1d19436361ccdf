//! The errors of this dialect, in the vendor's envelope (I1). The status and `RC` are the same number. Where the vendor has
//! published no text, it is ours.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde::Serialize;

use crate::error::Error;
use crate::http::body::BodyError;
use crate::http::fault::VendorFault;
use crate::http::request;
use crate::outcome::Outcome;

/// An error of this dialect.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    outcome: Outcome,
    rc: u16,
    rm: &'static str,
    code: &'static str,
    message: &'static str,
}

/// A fault whose status shows its outcome.
pub(super) const fn fault(
    rc: u16,
    rm: &'static str,
    code: &'static str,
    message: &'static str,
) -> Fault {
    Fault {
        outcome: Outcome::of_status(rc),
        rc,
        rm,
        code,
        message,
    }
}

pub(super) const PARAMETERS: &str = "Invalid parameters";
pub(super) const CLIENT_KEY: Fault =
    fault(403, "Forbidden", "INVALID_CLIENT_KEY", "Invalid client key");
pub(super) const TOKEN: Fault = fault(
    401,
    "Unauthorized",
    "INVALID_TOKEN",
    "Invalid or expired token",
);
pub(super) const TAGS: Fault = fault(
    400,
    PARAMETERS,
    "INVALID_TAGS",
    "Tags must be an array of strings",
);
pub(super) const MANY_TAGS: Fault = fault(
    400,
    PARAMETERS,
    "INVALID_TAGS",
    "Tags must be an array of strings, at most 1000",
);
pub(super) const BODY: Fault = fault(
    400,
    PARAMETERS,
    "INVALID_BODY",
    "The body must be a JSON object",
);
pub(super) const BROKEN: Fault = fault(
    400,
    PARAMETERS,
    "INVALID_BODY",
    "The body could not be read",
);
pub(super) const PATH: Fault = fault(404, "Not found", "NOT_FOUND", "No such endpoint");
pub(super) const SLOW: Fault = fault(
    408,
    "Request timeout",
    "REQUEST_TIMEOUT",
    "The body did not arrive in time",
);
pub(super) const TOO_LARGE: Fault = fault(
    413,
    "Payload too large",
    "BODY_TOO_LARGE",
    "The body is too large",
);
pub(super) const ENCODED: Fault = fault(
    415,
    "Unsupported media type",
    "UNSUPPORTED_MEDIA_TYPE",
    "The body must not be encoded",
);
pub(super) const METHOD: Fault = fault(
    405,
    "Method not allowed",
    "METHOD_NOT_ALLOWED",
    "This endpoint does not answer that method",
);
/// The query can't be understood.
pub(super) fn query(message: &'static str) -> Fault {
    fault(400, PARAMETERS, "INVALID_QUERY", message)
}

impl VendorFault for Fault {
    const LIMIT: Self = fault(
        429,
        "Too many requests",
        "RATE_LIMIT_EXCEEDED",
        "Rate limit exceeded, please retry later",
    );
    const INTERNAL: Self = fault(
        500,
        "Internal server error",
        "INTERNAL_ERROR",
        "Internal server error",
    );

    fn unavailable(outcome: Outcome) -> Self {
        Self {
            outcome,
            rc: 503,
            rm: "Service unavailable",
            code: "SERVICE_UNAVAILABLE",
            message: "Temporarily unavailable, please retry",
        }
    }

    fn answer(&self) -> HttpResponse {
        #[derive(Serialize)]
        struct Detail<'a> {
            code: &'a str,
            message: &'a str,
        }
        #[derive(Serialize)]
        struct Envelope<'a> {
            #[serde(rename = "RC")]
            rc: u16,
            #[serde(rename = "RM")]
            rm: &'a str,
            error: Detail<'a>,
        }
        let status = StatusCode::from_u16(self.rc).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let envelope = Envelope {
            rc: self.rc,
            rm: self.rm,
            error: Detail {
                code: self.code,
                message: self.message,
            },
        };
        let mut response = request::json(status, &envelope)
            .unwrap_or_else(|| request::json_bytes(status, b"{\"RC\":500}".to_vec()));
        request::failed_with(&mut response, self.outcome);
        // Part of the body may still be on the way.
        if [TOO_LARGE, SLOW, BROKEN, ENCODED].contains(self) {
            request::close(&mut response);
        }
        response
    }
}

impl From<BodyError> for Fault {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge => TOO_LARGE,
            BodyError::TimedOut => SLOW,
            BodyError::Broken => BROKEN,
            BodyError::Encoded => ENCODED,
            BodyError::NoMemory => Self::unavailable(Outcome::Overloaded),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::of_read(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::body::MessageBody;
    use serde_json::{Value, json};

    #[test]
    fn errors_are_the_documented_envelope() {
        let response = TOKEN.answer();
        assert_eq!(response.status(), 401);
        let bytes = response.into_body().try_into_bytes().unwrap();
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(
            value,
            json!({"RC": 401, "RM": "Unauthorized",
                "error": {"code": "INVALID_TOKEN", "message": "Invalid or expired token"}})
        );
    }
}
