//! The errors of this dialect, in the vendor's envelope. Codes are the vendor's (S2). Of the texts,
//! only that of an unknown user is the vendor's; the others are ours.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde::Serialize;

use crate::error::Error;
use crate::http::fault::VendorFault;
use crate::http::request;
use crate::outcome::Outcome;

/// An error of this dialect.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    outcome: Outcome,
    status: StatusCode,
    code: u32,
    message: &'static str,
}

/// A fault for which the caller has to change the call.
const fn bad(code: u32, message: &'static str) -> Fault {
    refusal(Outcome::BadRequest, code, message)
}

/// A fault with the status that nearly all of them have.
const fn refusal(outcome: Outcome, code: u32, message: &'static str) -> Fault {
    Fault {
        outcome,
        status: StatusCode::BAD_REQUEST,
        code,
        message,
    }
}

pub(super) const TOKEN: Fault = refusal(Outcome::Unauthorized, 400401, "Invalid API token.");
pub(super) const USER: Fault = refusal(Outcome::NotFound, 400201, "\"User\" not found.");
pub(super) const USER_ID: Fault = bad(400111, "\"user_id\" must be percent-encoded UTF-8.");
pub(super) const KEY: Fault = bad(400111, "Invalid value: \"item_keys\".");
pub(super) const TYPES: Fault = bad(400203, "At most 1000 custom types may be named.");
pub(super) const URL: Fault = refusal(Outcome::NotFound, 400114, "The resource URL is not known.");
pub(super) const REQUEST: Fault = bad(400404, "The request could not be read.");
pub(super) const LENGTH: Fault = bad(400110, "The request is too long.");
pub(super) const SLOW: Fault = bad(400404, "The request did not arrive in time.");
pub(super) const METHOD: Fault = bad(400930, "This endpoint answers GET only.");

impl VendorFault for Fault {
    const LIMIT: Self = Self {
        outcome: Outcome::Limited,
        status: StatusCode::TOO_MANY_REQUESTS,
        code: 500910,
        message: "Rate limit exceeded.",
    };
    const INTERNAL: Self = Self {
        outcome: Outcome::Internal,
        status: StatusCode::INTERNAL_SERVER_ERROR,
        code: 500901,
        message: "Internal error.",
    };

    fn unavailable(outcome: Outcome) -> Self {
        Self {
            outcome,
            status: StatusCode::INTERNAL_SERVER_ERROR,
            code: 500901,
            message: "Temporarily unavailable, please retry.",
        }
    }

    fn answer(&self) -> HttpResponse {
        #[derive(Serialize)]
        struct Envelope<'a> {
            message: &'a str,
            code: u32,
            error: bool,
        }
        let envelope = Envelope {
            message: self.message,
            code: self.code,
            error: true,
        };
        let mut response = request::json(self.status, &envelope)
            .unwrap_or_else(|| request::json_bytes(self.status, Vec::from(b"{\"error\":true}")));
        request::failed_with(&mut response, self.outcome);
        response
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

    #[test]
    fn errors_are_the_documented_envelope() {
        let response = USER.answer();
        assert_eq!(response.status(), 400);
        let body = response.into_body();
        let bytes = actix_web::body::MessageBody::try_into_bytes(body).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"message": "\"User\" not found.", "code": 400201, "error": true})
        );
    }
}
