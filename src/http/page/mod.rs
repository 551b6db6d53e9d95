//! The status page: locks, queues, sessions and events as they are, for a browser.
//!
//! It is made of files within the program and reads the routes beside it, so it shows what its reader's token may see,
//! and works wherever the routes are mounted. It asks nobody else for anything, and its policy lets it ask nobody else.

use std::borrow::Cow;

use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, EntityTag, Header, IfNoneMatch, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use actix_web::{HttpRequest, HttpResponse};
use sha2::{Digest, Sha256};

use super::context::HandlerResult;
use super::openapi::docs::escape;
use super::problem::Fault;

/// Its own files and the routes beside it; no framing, so that nobody can be led to click on it unseen.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'self'; form-action 'none'; frame-ancestors 'none'";
const PAGE: &str = include_str!("page.html");
/// What the page's addresses are relative to; it stands in [`PAGE`] once.
const BESIDE: &str = r#"<base href="./">"#;

const SCRIPT: &str = "text/javascript; charset=utf-8";
/// Name, type and text of what the page loads.
const FILES: [(&str, &str, &str); 11] = [
    ("page.css", "text/css; charset=utf-8", include_str!("page.css")),
    ("icon.svg", "image/svg+xml", include_str!("icon.svg")),
    ("page.js", SCRIPT, include_str!("page.js")),
    ("api.js", SCRIPT, include_str!("api.js")),
    ("stream.js", SCRIPT, include_str!("stream.js")),
    ("charts.js", SCRIPT, include_str!("charts.js")),
    ("table.js", SCRIPT, include_str!("table.js")),
    ("panels.js", SCRIPT, include_str!("panels.js")),
    ("recent.js", SCRIPT, include_str!("recent.js")),
    ("attention.js", SCRIPT, include_str!("attention.js")),
    ("text.js", SCRIPT, include_str!("text.js")),
];

/// `GET /`
pub(super) fn page(req: &HttpRequest) -> HandlerResult {
    Ok(cached(req, "text/html; charset=utf-8", PAGE.into()))
}

/// `GET` of a scope without the slash at its end. Nothing is redirected: a host that trims slashes would send the
/// browser round in circles.
pub(super) fn page_beside(req: &HttpRequest) -> HandlerResult {
    let base = format!(r#"<base href="{}/">"#, escape(req.path()));
    Ok(cached(req, "text/html; charset=utf-8", PAGE.replacen(BESIDE, &base, 1).into()))
}

/// `GET /page/{file}`
pub(super) fn file(req: &HttpRequest) -> HandlerResult {
    let wanted = req.match_info().query("file");
    let (_, kind, text) = FILES.iter().find(|(name, ..)| *name == wanted).ok_or(Fault::NotFound)?;
    Ok(cached(req, kind, (*text).into()))
}

/// The text, or that the browser has it already.
fn cached(req: &HttpRequest, kind: &'static str, text: Cow<'static, str>) -> HttpResponse {
    let digest = Sha256::digest(text.as_bytes());
    let tag = EntityTag::new_strong(digest[..12].iter().map(|byte| format!("{byte:02x}")).collect());
    let known = match IfNoneMatch::parse(req) {
        Ok(IfNoneMatch::Items(tags)) => tags.iter().any(|known| known.weak_eq(&tag)),
        // Without the header, it parses to no items.
        Ok(IfNoneMatch::Any) => true,
        Err(_) => false,
    };
    let mut answer = if known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    answer
        .insert_header((ETAG, tag.to_string()))
        // Kept, and asked for each time: a new version of the server brings a new page.
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((REFERRER_POLICY, "no-referrer"))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"));
    if known { answer.finish() } else { answer.insert_header((CONTENT_TYPE, kind)).body(text.into_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_its_base_once_and_every_file_that_it_loads_is_there() {
        assert_eq!(PAGE.matches(BESIDE).count(), 1);
        let has = |name: &str| FILES.iter().any(|(file, ..)| *file == name);
        for text in std::iter::once(PAGE).chain(FILES.iter().map(|(_, _, text)| *text)) {
            for (mark, end) in [("\"page/", '"'), ("from \"./", '"')] {
                for loaded in text.split(mark).skip(1).filter_map(|rest| rest.split(end).next()) {
                    assert!(has(loaded), "{loaded}");
                }
            }
        }
    }

    #[test]
    fn nothing_is_inline_and_nothing_comes_from_elsewhere() {
        for text in std::iter::once(PAGE).chain(FILES.iter().map(|(_, _, text)| *text)) {
            for word in [" style=", " onclick", "innerHTML", "eval(", "@import", "url(", "https:"] {
                assert!(!text.contains(word), "{word}");
            }
            let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("://"));
        }
    }
}
