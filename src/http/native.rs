//! The native API, `/v1`. Also answers every path that no dialect claims.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;

use crate::http::request::Call;

/// Answers a call of the native API, or of a path that nobody knows.
pub async fn serve(call: Call<'_>) -> HttpResponse {
    call.route("unknown");
    HttpResponse::build(StatusCode::NOT_FOUND)
        .content_type("application/problem+json")
        .body(r#"{"type":"about:blank","title":"Not Found","status":404}"#)
}
