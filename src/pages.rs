//! Pages for people. The [`console`] is on the admin address of every pod; the [`chat`] is the demo's. Their files are built into
//! the program and load nothing from elsewhere.

pub(crate) mod chat;
pub(crate) mod console;

use actix_web::http::header;
use actix_web::{HttpResponse, HttpResponseBuilder};

/// What a page may do: load its own files, and call the address that it came from. No script or style stands in a page itself,
/// so what a name could bring into one is never run.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// A file of a page.
#[derive(Clone, Copy)]
struct File {
    path: &'static str,
    content_type: &'static str,
    text: &'static str,
}

impl File {
    const fn page(path: &'static str, text: &'static str) -> Self {
        Self {
            path,
            content_type: "text/html; charset=utf-8",
            text,
        }
    }

    const fn script(path: &'static str, text: &'static str) -> Self {
        Self {
            path,
            content_type: "text/javascript; charset=utf-8",
            text,
        }
    }

    const fn style(path: &'static str, text: &'static str) -> Self {
        Self {
            path,
            content_type: "text/css; charset=utf-8",
            text,
        }
    }

    /// The answer that has it. A browser asks again each time, so an upgraded pod never meets the script of an earlier version.
    fn answer(self) -> HttpResponse {
        guarded(HttpResponse::Ok())
            .content_type(self.content_type)
            .insert_header((header::CACHE_CONTROL, "no-cache"))
            .body(self.text)
    }
}

/// A JSON answer to a page.
fn json(answer: HttpResponseBuilder, value: &serde_json::Value) -> HttpResponse {
    guarded(answer)
        .content_type("application/json")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(format!("{value}\n"))
}

/// With the headers that keep a browser from using an answer otherwise than a page of ours does.
fn guarded(mut answer: HttpResponseBuilder) -> HttpResponseBuilder {
    answer
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header(("cross-origin-resource-policy", "same-origin"))
        .insert_header(("cross-origin-opener-policy", "same-origin"));
    answer
}
