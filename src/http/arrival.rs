//! One request from its arrival to its answer: named, counted, and logged if it is refused. Every request comes through
//! here, whether actix-web's router has found its route or `direct` has.
//!
//! It is no middleware: one would cost every request a future on the heap and a look through the router more.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Instant;
#[cfg(feature = "metrics")]
use std::{cell::RefCell, rc::Rc};

use actix_web::dev::RequestHead;
use actix_web::http::Method;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, ResponseError};

use super::auth::{self, Caller, Needs, Refusal};
use super::context::{HandlerResult, RequestContext};
use super::host::{CurrentAccess, Host, no_manager};
use super::problem::{Fault, Problem};
#[cfg(feature = "metrics")]
use crate::metrics::{HttpMetrics, RequestCounter};

/// The header that names a request, in both directions.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const LONGEST_ID: usize = 64;
/// How many methods and statuses of a route are kept in mind.
#[cfg(feature = "metrics")]
const MOST_KNOWN: usize = 32;

/// The method of what no router has looked at.
static POST: Method = Method::POST;

/// A request under way. It keeps what its answer needs of its head, which a long wait need not keep; and no more, since
/// thousands may wait.
pub(super) struct Arrival<'a> {
    pub(super) access: CurrentAccess<'a>,
    #[cfg(feature = "metrics")]
    metrics: Option<&'a HttpMetrics>,
    pub(super) id: RequestId,
    /// When it came.
    pub(super) received: Instant,
    /// From where it came, as far as a trusted proxy says so.
    pub(super) client_addr: IpAddr,
    route: Found<'a>,
    counters: &'a RouteCounters,
}

/// The route of a request, and who has found it.
pub(super) enum Found<'a> {
    ByRouter(&'a HttpRequest),
    /// A `POST` to this path.
    Directly(&'static str),
}

impl Found<'_> {
    fn method(&self) -> &Method {
        match self {
            Self::ByRouter(req) => req.method(),
            Self::Directly(_) => &POST,
        }
    }

    /// The pattern of the path, since that may hold a key. The router takes a while to find it out.
    fn pattern(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::ByRouter(req) => req.match_pattern().map(Cow::Owned),
            Self::Directly(path) => Some(Cow::Borrowed(path)),
        }
    }
}

impl<'a> Arrival<'a> {
    pub(super) fn new(head: &RequestHead, host: Host<'a>, route: Found<'a>, counters: &'a RouteCounters) -> Self {
        let (id, client_addr) = (RequestId::of(head), host.access.client_addr(head));
        Self {
            access: host.access,
            #[cfg(feature = "metrics")]
            metrics: host.metrics,
            id,
            received: Instant::now(),
            client_addr,
            route,
            counters,
        }
    }

    /// Lets a request in, or answers why not.
    pub(super) fn let_in(
        head: &RequestHead,
        host: Host<'a>,
        route: Found<'a>,
        counters: &'a RouteCounters,
        needs: Needs,
    ) -> Result<RequestContext<'a>, Box<HttpResponse>> {
        let (locks, limits) = (host.locks, host.limits);
        let arrival = Self::new(head, host, route, counters);
        let admitted = arrival.access.admit(head, needs);
        match admitted.and_then(|caller| Ok((locks.ok_or_else(no_manager)?, caller))) {
            Ok((locks, caller)) => Ok(RequestContext { locks, limits, caller, arrival }),
            Err(fault) => Err(Box::new(arrival.refuse(head, fault))),
        }
    }

    fn refuse(self, head: &RequestHead, fault: Fault) -> HttpResponse {
        let problem = Problem::from(fault);
        self.log_refusal(&problem, || self.access.name_of(head));
        self.name(problem.error_response())
    }

    /// Answers it.
    pub(super) fn finish(self, caller: &Caller, answer: HandlerResult) -> HttpResponse {
        match answer {
            Ok(response) => self.name(response),
            Err(problem) => {
                self.log_refusal(&problem, || caller.name().to_owned());
                self.name(problem.error_response())
            }
        }
    }

    /// Counts and names the answer.
    pub(super) fn name(self, mut response: HttpResponse) -> HttpResponse {
        let status = response.status().as_u16();
        self.counters.count(&self, status);
        if tracing::enabled!(tracing::Level::DEBUG) {
            let (request_id, method) = (self.id.as_str(), self.route.method());
            let route = self.route.pattern().unwrap_or_default();
            tracing::debug!(request_id, %method, route = &*route, status, "answered");
        }
        response.headers_mut().insert(REQUEST_ID, self.id.0);
        response
    }

    /// Logs and counts a request that was refused for want of a right or of room.
    fn log_refusal(&self, problem: &Problem, by: impl FnOnce() -> String) {
        let code = problem.code();
        #[cfg(feature = "metrics")]
        if let ([401 | 403 | 429], Some(metrics)) = ([problem.status_code().as_u16()], self.metrics) {
            metrics.refused(code);
        }
        if !auth::is_logged(code) {
            return;
        }
        let (by, route) = (by(), self.route.pattern().unwrap_or_default());
        let (from, method, request_id) = (self.client_addr, self.route.method().as_str(), self.id.as_str());
        self.access.log_refusal(&Refusal { from, by: &by, code, method, route: &route, request_id });
    }
}

/// What a route's requests are counted by, where requests are counted. To find out the name of the route costs more than
/// many a request, so it is asked for once for each method and status.
#[derive(Clone, Default)]
pub(super) struct RouteCounters {
    #[cfg(feature = "metrics")]
    known: Rc<RefCell<Vec<(Method, u16, RequestCounter)>>>,
}

impl RouteCounters {
    #[cfg(feature = "metrics")]
    fn count(&self, arrival: &Arrival<'_>, code: u16) {
        let Some(metrics) = arrival.metrics else { return };
        let (method, took) = (arrival.route.method(), arrival.received.elapsed());
        let mut known = self.known.borrow_mut();
        if let Some((.., counter)) = known.iter().find(|(of, status, _)| *status == code && of == method) {
            return counter.count(took);
        }
        let route = arrival.route.pattern().map(Cow::into_owned);
        let counter = metrics.counter(route, method.as_str(), code);
        counter.count(took);
        // A client may name any method.
        if known.len() < MOST_KNOWN {
            known.push((method.clone(), code, counter));
        }
    }

    #[cfg(not(feature = "metrics"))]
    fn count(&self, _: &Arrival<'_>, _: u16) {}
}

/// What one request is called in logs and in its answer.
#[derive(Debug)]
pub(super) struct RequestId(HeaderValue);

impl RequestId {
    /// The client's own name for it, if that is harmless; else a new one.
    fn of(head: &RequestHead) -> Self {
        match head.headers.get(&REQUEST_ID) {
            // Copied: it would keep all that was read with it for as long as the request waits.
            Some(given) if is_harmless(given.as_bytes()) => {
                Self(HeaderValue::from_bytes(given.as_bytes()).expect("it was in a header"))
            }
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
            let request = TestRequest::default().insert_header(("x-request-id", given)).to_http_request();
            RequestId::of(request.head())
        };
        assert_eq!(of("abc-1.2:3_4").as_str(), "abc-1.2:3_4");
        for bad in ["", "a b", "<script>", &"x".repeat(65), "größe"] {
            let id = of(bad);
            assert!(id.as_str().len() == 16 && id.as_str() != bad, "{bad}");
        }
        assert_ne!(of("").as_str(), of("").as_str());
    }
}
