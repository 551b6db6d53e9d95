//! Reads a request's JSON body: all of it, within the limits, and only what its type knows.
//!
//! actix-web puts no end to the time a client may take for its body, so it is read here by hand.

use std::borrow::Cow;
use std::pin::pin;
use std::task::Poll;

use actix_web::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use actix_web::rt::task::yield_now;
use actix_web::rt::time::timeout;
use actix_web::{HttpMessage, HttpRequest, web};
use futures_util::{StreamExt, poll};
use serde::de::DeserializeOwned;

use super::limits::Limits;
use super::problem::{Fault, Problem};

/// The body as a `T`.
///
/// A body must say that it is JSON: browsers then ask before they send one across sites, which keeps most pages on the
/// web from taking locks of a server on their visitor's own machine.
///
/// # Cancel safety
/// Dropped, the rest of the body stays unread, and the connection is closed after the answer.
pub(super) async fn read<T: DeserializeOwned>(
    req: &HttpRequest,
    payload: web::Payload,
    limits: Limits,
) -> Result<T, Problem> {
    if !is_json(req) {
        return Err(Fault::UnsupportedMediaType.into());
    }
    let mut body = pin!(collect(req, payload, limits.max_body_bytes));
    // Most bodies come right behind their heads, and are there at the second look: those need no timer.
    for _ in 0..2 {
        if let Poll::Ready(bytes) = poll!(body.as_mut()) {
            return parse(&bytes?);
        }
        yield_now().await;
    }
    let bytes = timeout(limits.body_timeout, body).await;
    parse(&bytes.map_err(|_| Fault::BodyTimeout { after: limits.body_timeout })??)
}

fn is_json(req: &HttpRequest) -> bool {
    // What nearly everybody sends needs no parser.
    if req.headers().get(CONTENT_TYPE).is_some_and(|mime| mime == "application/json") {
        return true;
    }
    let Ok(Some(mime)) = req.mime_type() else { return false };
    let json = mime.essence_str() == "application/json" || mime.suffix().is_some_and(|suffix| suffix == "json");
    json && mime.get_param("charset").is_none_or(|charset| charset == "utf-8")
}

async fn collect(req: &HttpRequest, mut payload: web::Payload, max: usize) -> Result<Vec<u8>, Problem> {
    let announced = req.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > max as u64) {
        return Err(Fault::TooLarge { max }.into());
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| invalid("the body broke off or is badly encoded"))?;
        if bytes.len() + chunk.len() > max {
            return Err(Fault::TooLarge { max }.into());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Err(invalid("the body is not UTF-8")) };
    // Told apart here: serde would take an array for an object, and would quote a bare string, which may be a token.
    if !text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{') {
        return Err(invalid("the body is not a JSON object"));
    }
    serde_json::from_str(text).map_err(|why| invalid(why.to_string()))
}

fn invalid(detail: impl Into<Cow<'static, str>>) -> Problem {
    Fault::InvalidBody(detail.into()).into()
}
