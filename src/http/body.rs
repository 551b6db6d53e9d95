//! Reads a request's JSON body: all of it, within the limits, and only what its type knows. And writes answers.
//!
//! actix-web puts no end to the time a client may take for its body, so it is read here by hand.

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use actix_web::dev::{Payload, RequestHead};
use actix_web::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use actix_web::mime::Mime;
use actix_web::rt::time::timeout;
use actix_web::{HttpResponse, ResponseError};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use super::limits::Limits;
use super::problem::{Fault, Problem};

/// How often it is looked whether the body is there before a timer is set. Most come right behind their heads: actix-web
/// asks a second time before it goes on to other connections.
const LOOKS: u32 = 2;
/// Most answers are shorter.
const USUAL_ANSWER: usize = 256;
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Who polls a request again whose body has not come with its head.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PolledAgain {
    /// Whoever is woken.
    WhenWoken,
    /// The connection: behind a head it looks for the body, and then at the request once more, in the same turn. To be
    /// woken as well would cost a turn of the connection for each request.
    ByTheConnection,
}

/// The whole of a body.
///
/// A body must say that it is JSON: browsers then ask before they send one across sites, which keeps most pages on the
/// web from taking locks of a server on their visitor's own machine.
///
/// # Cancel safety
/// Dropped, the rest of the body stays unread, and the connection is closed after the answer.
pub(super) async fn read(
    head: &RequestHead,
    payload: Payload,
    limits: &Limits,
    again: PolledAgain,
) -> Result<Bytes, Problem> {
    if !is_json(head) {
        return Err(Fault::UnsupportedMediaType.into());
    }
    let mut body = pin!(collect(head, payload, limits.max_body_bytes));
    match soon(body.as_mut(), again).await {
        Some(bytes) => bytes,
        None => {
            // On the heap, so that no request has room for it that does not need it.
            let bytes = Box::pin(timeout(limits.body_timeout, body)).await;
            bytes.map_err(|_| Fault::BodyTimeout { after: limits.body_timeout })?
        }
    }
}

/// The body as a `T`, which may borrow from it.
pub(super) fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Problem> {
    let text = str::from_utf8(bytes).map_err(|_| invalid("the body is not UTF-8"))?;
    // Told apart here: serde would take an array for an object, and would quote a bare string, which may be a token.
    if !text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{') {
        return Err(invalid("the body is not a JSON object"));
    }
    serde_json::from_str(text).map_err(|why| invalid(why.to_string()))
}

/// 200, with this as JSON.
pub(super) fn answer(value: &impl Serialize) -> HttpResponse {
    let mut text = Vec::with_capacity(USUAL_ANSWER);
    match serde_json::to_writer(&mut text, value) {
        Ok(()) => HttpResponse::Ok().insert_header((CONTENT_TYPE, JSON)).body(text),
        Err(_) => Problem::from(Fault::Internal { why: "the answer is no JSON" }).error_response(),
    }
}

/// The output of `work` if it comes by itself within a few looks at it.
async fn soon<F: Future>(mut work: Pin<&mut F>, again: PolledAgain) -> Option<F::Output> {
    let mut looks = 0;
    poll_fn(|cx| {
        let unwoken = looks == 0 && again == PolledAgain::ByTheConnection;
        let mut nobody = Context::from_waker(Waker::noop());
        match work.as_mut().poll(if unwoken { &mut nobody } else { cx }) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if looks == LOOKS => Poll::Ready(None),
            Poll::Pending => {
                looks += 1;
                // Not `yield_now`: that has the event loop look at its sockets first, once for each request.
                if !unwoken {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    })
    .await
}

fn is_json(head: &RequestHead) -> bool {
    let Some(given) = head.headers.get(CONTENT_TYPE).and_then(|mime| mime.to_str().ok()) else { return false };
    // What nearly everybody sends needs no parser.
    if given == "application/json" {
        return true;
    }
    let Ok(mime) = given.parse::<Mime>() else { return false };
    let json = mime.essence_str() == "application/json" || mime.suffix().is_some_and(|suffix| suffix == "json");
    json && mime.get_param("charset").is_none_or(|charset| charset == "utf-8")
}

async fn collect(head: &RequestHead, mut payload: Payload, max: usize) -> Result<Bytes, Problem> {
    let announced = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > max as u64) {
        return Err(Fault::TooLarge { max }.into());
    }
    // Most come in one piece, which is taken as it is.
    let (mut first, mut bytes) = (Bytes::new(), Vec::new());
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| invalid("the body broke off or is badly encoded"))?;
        if first.len().max(bytes.len()) + chunk.len() > max {
            return Err(Fault::TooLarge { max }.into());
        }
        if first.is_empty() {
            first = chunk;
            continue;
        }
        if bytes.is_empty() {
            bytes.extend_from_slice(&first);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(if bytes.is_empty() { first } else { bytes.into() })
}

fn invalid(detail: impl Into<Cow<'static, str>>) -> Problem {
    Fault::InvalidBody(detail.into()).into()
}
