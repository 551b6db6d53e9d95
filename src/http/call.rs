//! One request on its way through: let in, answered, named. Every route goes through here, and so does every refusal.
//!
//! It is no middleware: one would cost every request a future on the heap and a look through the router more.

use std::future::ready;
#[cfg(feature = "metrics")]
use std::time::Instant;

use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, ResponseError, Route, web};

use super::access::{Caller, Needs};
#[cfg(feature = "metrics")]
use super::host::shared;
use super::host::{Host, access};
use super::limits::Limits;
use super::problem::{Fault, Problem};
#[cfg(feature = "metrics")]
use crate::metrics::HttpMetrics;
use crate::{Key, LockManager};

/// What a handler answers.
pub(super) type Answer = Result<HttpResponse, Problem>;

/// The header that names a request, in both directions.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const LONGEST_ID: usize = 64;

/// A request that was let in.
pub(super) struct Call {
    pub(super) locks: LockManager,
    pub(super) limits: Limits,
    pub(super) req: HttpRequest,
    pub(super) caller: Caller,
    pub(super) id: RequestId,
}

impl Call {
    fn admit(req: HttpRequest, needs: Needs, id: RequestId) -> Result<Self, Fault> {
        let caller = match access(&req) {
            Some(access) => access.admit(&req, needs)?,
            None => Caller::anybody(),
        };
        let Host { locks, limits } = Host::of(&req)?;
        Ok(Self { locks, limits, req, caller, id })
    }

    /// Refuses a key outside of the caller's namespaces. Spelt as the manager keeps it: another spelling is the same
    /// lock.
    pub(super) fn check_key(&self, key: &str) -> Result<(), Problem> {
        if self.caller.is_unbound() || self.caller.may_use(&self.locks, self.locks.canonical_key(key)?.as_str()) {
            return Ok(());
        }
        Err(Fault::Forbidden { why: "the key is outside of the token's namespaces" }.into())
    }

    /// Whether a key, as the manager keeps it, may be shown to the caller.
    pub(super) fn may_see(&self, key: &Key) -> bool {
        self.caller.is_unbound() || self.caller.may_use(&self.locks, key.as_str())
    }
}

/// A route whose requests need a right.
pub(super) fn guarded<F, Fut>(route: Route, needs: Needs, handler: F) -> Route
where
    F: Fn(Call, web::Payload) -> Fut + Copy + 'static,
    Fut: Future<Output = Answer> + 'static,
{
    route.to(move |req: HttpRequest, payload: web::Payload| async move {
        let began = Began::now(&req);
        let id = RequestId::of(&req);
        let answer = match Call::admit(req.clone(), needs, id.clone()) {
            Ok(call) => handler(call, payload).await,
            Err(fault) => Err(fault.into()),
        };
        id.finish(&req, began, answer)
    })
}

/// A route that is open to all, and needs no manager.
pub(super) fn open(route: Route, handler: impl Fn(&HttpRequest) -> Answer + Copy + 'static) -> Route {
    route.to(move |req: HttpRequest| {
        let began = Began::now(&req);
        ready(RequestId::of(&req).finish(&req, began, handler(&req)))
    })
}

/// When a request came, where requests are counted.
struct Began {
    #[cfg(feature = "metrics")]
    at: Option<(Instant, HttpMetrics)>,
}

impl Began {
    #[cfg(feature = "metrics")]
    fn now(req: &HttpRequest) -> Self {
        Self { at: shared::<HttpMetrics>(req).map(|metrics| (Instant::now(), metrics.clone())) }
    }

    #[cfg(feature = "metrics")]
    fn answered(self, req: &HttpRequest, code: u16) {
        if let Some((at, metrics)) = self.at {
            metrics.count(req.match_pattern(), req.method().as_str(), code, at.elapsed());
        }
    }

    #[cfg(not(feature = "metrics"))]
    fn now(_: &HttpRequest) -> Self {
        Self {}
    }

    #[cfg(not(feature = "metrics"))]
    fn answered(self, _: &HttpRequest, _: u16) {}
}

/// What one request is called in logs and in its answer.
#[derive(Clone, Debug)]
pub(super) struct RequestId(HeaderValue);

impl RequestId {
    /// The client's own name for it, if that is harmless; else a new one.
    fn of(req: &HttpRequest) -> Self {
        match req.headers().get(&REQUEST_ID) {
            Some(given) if is_harmless(given.as_bytes()) => Self(given.clone()),
            _ => Self::new(),
        }
    }

    /// It tells requests apart, and need not be hard to guess.
    fn new() -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let random = fastrand::u64(..);
        let text: [u8; 16] = std::array::from_fn(|at| DIGITS[(random >> (4 * at)) as usize & 15]);
        Self(HeaderValue::from_bytes(&text).expect("digits go into a header"))
    }

    pub(super) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// Names the answer.
    fn finish(self, req: &HttpRequest, began: Began, answer: Answer) -> HttpResponse {
        let mut response = answer.unwrap_or_else(|problem| problem.error_response());
        began.answered(req, response.status().as_u16());
        if tracing::enabled!(tracing::Level::DEBUG) {
            // The pattern, not the path: that may hold a session's id.
            let (status, route) = (response.status().as_u16(), req.match_pattern().unwrap_or_default());
            tracing::debug!(request_id = self.as_str(), method = %req.method(), route, status, "answered");
        }
        response.headers_mut().insert(REQUEST_ID, self.0);
        response
    }
}

fn is_harmless(id: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
    (1..=LONGEST_ID).contains(&id.len()) && id.iter().all(plain)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_requests_own_name_is_kept_if_it_is_harmless() {
        let of = |given: &str| {
            RequestId::of(&TestRequest::default().insert_header(("x-request-id", given)).to_http_request())
        };
        assert_eq!(of("abc-1.2:3_4").as_str(), "abc-1.2:3_4");
        for bad in ["", "a b", "<script>", &"x".repeat(65), "größe"] {
            let id = of(bad);
            assert!(id.as_str().len() == 16 && id.as_str() != bad, "{bad}");
        }
        assert_ne!(of("").as_str(), of("").as_str());
    }
}
