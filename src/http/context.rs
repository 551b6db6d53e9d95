//! One request on its way through: let in, answered, named. Every route goes through here, and so does every refusal.
//!
//! It is no middleware: one would cost every request a future on the heap and a look through the router more.

use std::future::ready;
use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::Instant;
#[cfg(feature = "metrics")]
use std::{cell::RefCell, rc::Rc};

#[cfg(feature = "metrics")]
use actix_web::http::Method;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, ResponseError, Route, web};

use super::auth::{self, Access, Caller, Needs, Refusal};
#[cfg(feature = "metrics")]
use super::host::shared;
use super::host::{CurrentAccess, Host, given_access};
use super::limits::Limits;
use super::problem::{Fault, Problem};
use super::routes::locks::Scope;
#[cfg(feature = "metrics")]
use crate::metrics::{HttpMetrics, RequestCounter};
use crate::{Key, KeyFault, LockError, LockManager};

/// What a handler answers.
pub(super) type HandlerResult = Result<HttpResponse, Problem>;

/// The header that names a request, in both directions.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const LONGEST_ID: usize = 64;
/// How many methods and statuses of a route are kept in mind.
#[cfg(feature = "metrics")]
const MOST_KNOWN: usize = 32;

/// A request that was let in.
pub(super) struct RequestContext {
    pub(super) locks: LockManager,
    pub(super) limits: Limits,
    pub(super) req: HttpRequest,
    pub(super) caller: Caller,
    pub(super) id: RequestId,
    /// When it came.
    pub(super) received: Instant,
}

impl RequestContext {
    /// Refuses a key outside of the caller's namespaces. Compared as the manager keeps it: another spelling is the same
    /// lock. What is no key is the manager's to refuse, unless there are namespaces.
    pub(super) fn key(&self, text: &str) -> Result<RequestedKey, Problem> {
        let requested = RequestedKey(Key::try_from(text));
        if self.caller.is_unbound() {
            return Ok(requested);
        }
        let key = requested.0.as_ref().map_err(|fault| LockError::from(*fault))?;
        if self.caller.may_use(&self.locks, self.locks.canonical_key(key)?.as_str()) {
            return Ok(requested);
        }
        Err(Fault::Forbidden { why: "the key is outside of the token's namespaces" }.into())
    }

    /// Where it came from, as far as a trusted proxy says so.
    pub(super) fn client_addr(&self) -> IpAddr {
        current_access(&self.req).client_addr(&self.req)
    }

    /// Whether the totals of all keys are the caller's to see.
    pub(super) fn sees_all_totals(&self) -> bool {
        self.caller.is_unbound() || current_access(&self.req).has_open_stats()
    }

    /// Whose locks the manager's own lists show.
    pub(super) fn scope(&self) -> Scope {
        if self.locks.has_store() { Scope::Server } else { Scope::All }
    }

    /// Whether a key, as the manager keeps it, may be shown to the caller.
    pub(super) fn may_see(&self, key: &Key) -> bool {
        self.caller.is_unbound() || self.caller.may_use(&self.locks, key.as_str())
    }
}

/// A key as a client wrote it: made once for all who ask for it.
pub(super) struct RequestedKey(Result<Key, KeyFault>);

impl TryFrom<RequestedKey> for Key {
    type Error = KeyFault;

    fn try_from(requested: RequestedKey) -> Result<Self, KeyFault> {
        requested.0
    }
}

/// What holds where the host says nothing.
static OPEN: LazyLock<Access> = LazyLock::new(Access::open);

fn current_access(req: &HttpRequest) -> CurrentAccess<'_> {
    given_access(req).unwrap_or(CurrentAccess::Fixed(&OPEN))
}

/// Lets a request in, or says why not.
fn admit(req: &HttpRequest, needs: Needs) -> Result<(Host, Caller), Fault> {
    let caller = current_access(req).admit(req, needs)?;
    Ok((Host::of(req)?, caller))
}

/// A route whose requests need a right.
pub(super) fn guarded<F>(route: Route, needs: Needs, handler: F) -> Route
where
    F: AsyncFn(&RequestContext, web::Payload) -> HandlerResult + Copy + 'static,
{
    let counters = RouteCounters::default();
    route.to(move |req: HttpRequest, payload: web::Payload| {
        let counters = counters.clone();
        async move {
            let (received, id) = (Instant::now(), RequestId::of(&req));
            match admit(&req, needs) {
                Ok((Host { locks, limits }, caller)) => {
                    let ctx = RequestContext { locks, limits, req, caller, id, received };
                    let answer = handler(&ctx, payload).await;
                    let answer = answer.map_err(|problem| problem.because(|| ctx.locks.last_store_error()));
                    let RequestContext { req, id, caller, .. } = ctx;
                    id.finish(&req, received, &counters, Some(&caller), answer)
                }
                Err(fault) => id.finish(&req, received, &counters, None, Err(fault.into())),
            }
        }
    })
}

/// A route that is open to all, and needs no manager.
pub(super) fn open(route: Route, handler: impl Fn(&HttpRequest) -> HandlerResult + Copy + 'static) -> Route {
    route.to(move |req: HttpRequest| {
        let (received, id) = (Instant::now(), RequestId::of(&req));
        // Of its own: what no route is for comes here by any path.
        ready(id.finish(&req, received, &RouteCounters::default(), None, handler(&req)))
    })
}

/// The same, but not for pages of other sites where there are no tokens: whoever cannot use the routes from there
/// finds out at once.
pub(super) fn presented(route: Route, handler: impl Fn(&HttpRequest) -> HandlerResult + Copy + 'static) -> Route {
    open(route, move |req| {
        current_access(req).check_site(req)?;
        handler(req)
    })
}

/// What a route's requests are counted by, where requests are counted. To find out the name of the route costs more than
/// many a request, so it is asked for once for each method and status.
#[derive(Clone, Default)]
struct RouteCounters {
    #[cfg(feature = "metrics")]
    known: Rc<RefCell<Vec<(Method, u16, RequestCounter)>>>,
}

impl RouteCounters {
    #[cfg(feature = "metrics")]
    fn count(&self, req: &HttpRequest, received: Instant, code: u16) {
        let Some(metrics) = shared::<HttpMetrics>(req) else { return };
        let took = received.elapsed();
        let mut known = self.known.borrow_mut();
        let same = |(method, status, _): &&(Method, u16, RequestCounter)| *status == code && method == req.method();
        if let Some((.., counter)) = known.iter().find(same) {
            return counter.count(took);
        }
        let counter = metrics.counter(req.match_pattern(), req.method().as_str(), code);
        counter.count(took);
        // A client may name any method.
        if known.len() < MOST_KNOWN {
            known.push((req.method().clone(), code, counter));
        }
    }

    #[cfg(not(feature = "metrics"))]
    fn count(&self, _: &HttpRequest, _: Instant, _: u16) {}
}

/// What one request is called in logs and in its answer.
#[derive(Debug)]
pub(super) struct RequestId(HeaderValue);

impl RequestId {
    /// The client's own name for it, if that is harmless; else a new one.
    fn of(req: &HttpRequest) -> Self {
        match req.headers().get(&REQUEST_ID) {
            Some(given) if is_harmless(given.as_bytes()) => Self(given.clone()),
            _ => Self::new(),
        }
    }

    /// It distinguishes requests, and need not be hard to guess.
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
    fn finish(
        self,
        req: &HttpRequest,
        received: Instant,
        counters: &RouteCounters,
        caller: Option<&Caller>,
        answer: HandlerResult,
    ) -> HttpResponse {
        if let Err(problem) = &answer {
            self.log_refusal(req, problem, caller);
        }
        let mut response = answer.unwrap_or_else(|problem| problem.error_response());
        counters.count(req, received, response.status().as_u16());
        if tracing::enabled!(tracing::Level::DEBUG) {
            // The pattern, not the path: that holds a key.
            let (status, route) = (response.status().as_u16(), req.match_pattern().unwrap_or_default());
            tracing::debug!(request_id = self.as_str(), method = %req.method(), route, status, "answered");
        }
        response.headers_mut().insert(REQUEST_ID, self.0);
        response
    }
}

impl RequestId {
    /// Logs and counts a request that was refused for want of a right or of room.
    fn log_refusal(&self, req: &HttpRequest, problem: &Problem, caller: Option<&Caller>) {
        let code = problem.code();
        #[cfg(feature = "metrics")]
        if let ([401 | 403 | 429], Some(metrics)) = ([problem.status_code().as_u16()], shared::<HttpMetrics>(req)) {
            metrics.refused(code);
        }
        if !auth::is_logged(code) {
            return;
        }
        let access = current_access(req);
        let by = caller.map_or_else(|| access.name_of(req), |caller| caller.name().to_owned());
        let (method, route) = (req.method().as_str(), req.match_pattern().unwrap_or_default());
        let (from, by, route, request_id) = (access.client_addr(req), by.as_str(), route.as_str(), self.as_str());
        access.log_refusal(&Refusal { from, by, code, method, route, request_id });
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
