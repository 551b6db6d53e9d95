//! A request that was let in, and the ways into the routes: to those that look, and to those that read a body.

use std::future::ready;
use std::net::IpAddr;
use std::time::Instant;

use actix_web::{HttpRequest, HttpResponse, Route, web};

use super::arrival::{Arrival, Found, RouteCounters};
use super::auth::{Caller, Needs};
use super::body::{self, PolledAgain};
use super::host::{Host, current_access};
use super::limits::Limits;
use super::problem::{Fault, Problem};
use super::routes::locks::Scope;
use crate::{Key, KeyFault, LockError, LockManager};

/// What a handler answers.
pub(super) type HandlerResult = Result<HttpResponse, Problem>;

/// A request that was let in.
pub(super) struct RequestContext<'a> {
    pub(super) locks: &'a LockManager,
    pub(super) limits: &'a Limits,
    pub(super) caller: Caller,
    pub(super) arrival: Arrival<'a>,
}

impl RequestContext<'_> {
    /// Refuses a key outside of the caller's namespaces. Compared as the manager keeps it: another spelling is the same
    /// lock. What is no key is the manager's to refuse, unless there are namespaces.
    pub(super) fn key(&self, text: &str) -> Result<RequestedKey, Problem> {
        let requested = RequestedKey(Key::try_from(text));
        if self.caller.is_unbound() {
            return Ok(requested);
        }
        let key = requested.0.as_ref().map_err(|fault| LockError::from(*fault))?;
        if self.caller.may_use(self.locks, self.locks.canonical_key(key)?.as_str()) {
            return Ok(requested);
        }
        Err(Fault::Forbidden { why: "the key is outside of the token's namespaces" }.into())
    }

    /// When it came.
    pub(super) fn received(&self) -> Instant {
        self.arrival.received
    }

    /// What it is called in logs.
    pub(super) fn request_id(&self) -> &str {
        self.arrival.id.as_str()
    }

    /// Where it came from, as far as a trusted proxy says so.
    pub(super) fn client_addr(&self) -> IpAddr {
        self.arrival.client_addr
    }

    /// Whether the totals of all keys are the caller's to see.
    pub(super) fn sees_all_totals(&self) -> bool {
        self.caller.is_unbound() || self.arrival.access.has_open_stats()
    }

    /// Whose locks the manager's own lists show.
    pub(super) fn scope(&self) -> Scope {
        if self.locks.has_store() { Scope::Server } else { Scope::All }
    }

    /// Whether a key, as the manager keeps it, may be shown to the caller.
    pub(super) fn may_see(&self, key: &Key) -> bool {
        self.caller.is_unbound() || self.caller.may_use(self.locks, key.as_str())
    }

    /// Answers the request.
    pub(super) fn finish(self, answer: HandlerResult) -> HttpResponse {
        let answer = answer.map_err(|problem| problem.because(|| self.locks.last_store_error()));
        self.arrival.finish(&self.caller, answer)
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

/// A route whose requests need a right, and have no body.
pub(super) fn guarded<F>(route: Route, needs: Needs, handler: F) -> Route
where
    F: AsyncFn(&RequestContext<'_>, &HttpRequest) -> HandlerResult + Copy + 'static,
{
    let counters = RouteCounters::default();
    route.to(move |req: HttpRequest| {
        let counters = counters.clone();
        async move {
            match let_in(&req, &counters, needs) {
                Ok(ctx) => {
                    let answer = handler(&ctx, &req).await;
                    ctx.finish(answer)
                }
                Err(refusal) => *refusal,
            }
        }
    })
}

/// A route whose requests need a right, and have JSON as their body.
pub(super) fn reading<F>(route: Route, needs: Needs, handler: F) -> Route
where
    F: AsyncFn(&RequestContext<'_>, &[u8]) -> HandlerResult + Copy + 'static,
{
    let counters = RouteCounters::default();
    route.to(move |req: HttpRequest, payload: web::Payload| {
        let counters = counters.clone();
        async move {
            let ctx = match let_in(&req, &counters, needs) {
                Ok(ctx) => ctx,
                Err(refusal) => return *refusal,
            };
            let bytes = body::read(req.head(), payload.into_inner(), ctx.limits, PolledAgain::WhenWoken).await;
            let answer = match bytes {
                Ok(bytes) => handler(&ctx, &bytes).await,
                Err(problem) => Err(problem),
            };
            ctx.finish(answer)
        }
    })
}

/// A route that is open to all, and needs no manager.
pub(super) fn open(route: Route, handler: impl Fn(&HttpRequest) -> HandlerResult + Copy + 'static) -> Route {
    route.to(move |req: HttpRequest| {
        // Of its own: what no route is for comes here by any path.
        let counters = RouteCounters::default();
        let arrival = Arrival::new(req.head(), Host::of(&req), Found::ByRouter(&req), &counters);
        ready(arrival.finish(&Caller::anybody(), handler(&req)))
    })
}

/// The same, but not for pages of other sites where there are no tokens: whoever cannot use the routes from there
/// finds out at once.
pub(super) fn presented(route: Route, handler: impl Fn(&HttpRequest) -> HandlerResult + Copy + 'static) -> Route {
    open(route, move |req| {
        current_access(req).check_site(req.head())?;
        handler(req)
    })
}

/// Lets a request in that actix-web's router has found a route for, or answers why not.
fn let_in<'a>(
    req: &'a HttpRequest,
    counters: &'a RouteCounters,
    needs: Needs,
) -> Result<RequestContext<'a>, Box<HttpResponse>> {
    Arrival::let_in(req.head(), Host::of(req), Found::ByRouter(req), counters, needs)
}
