//! What the faults of all vendors have in common. The words of each fault stand in the folder of its dialect.

use actix_web::HttpResponse;

use crate::error::Error;
use crate::http::request::{self, Call};
use crate::outcome::Outcome;

/// The faults of one vendor: what it answers when a call fails.
pub(crate) trait VendorFault: Sized {
    /// The call is over its limit.
    const LIMIT: Self;
    /// A bug of ours, or data that can't be read.
    const INTERNAL: Self;

    /// The call may succeed in a moment: Redis does not answer, or there is too much to do.
    fn unavailable(outcome: Outcome) -> Self;

    /// The answer that says so.
    fn answer(&self) -> HttpResponse;

    /// The fault of a call whose read failed. Logs the failure.
    fn of_read(error: Error) -> Self {
        match error {
            Error::Limited(_) => Self::LIMIT,
            error if error.is_transient() => {
                tracing::debug!(%error, "a read failed");
                Self::unavailable(error.outcome())
            }
            error => {
                tracing::error!(%error, "a read failed");
                Self::INTERNAL
            }
        }
    }

    /// The answer to a call whose credentials are refused. Counts the refusal: beyond the limit of its address, the caller hears
    /// that there were too many, and how long to wait.
    fn refuse(&self, call: &Call<'_>) -> HttpResponse {
        match call.refused() {
            Some(seconds) => {
                let mut response = Self::LIMIT.answer();
                request::retry_after(&mut response, seconds);
                response
            }
            None => self.answer(),
        }
    }
}
