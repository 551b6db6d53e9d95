//! The calls that a lock lives by, without actix-web's router.
//!
//! A server that has its connections at hand asks here first. The router costs such a call about as much as the lock
//! itself, and keeps the head of a request until it is answered: seven kilobytes for each client that waits. What is
//! answered, counted and logged is the same either way.

use std::ops::Deref;
use std::rc::Rc;

use actix_web::HttpResponse;
use actix_web::dev::{Payload, RequestHead};
use actix_web::http::Method;

use super::arrival::{Arrival, Found, RouteCounters};
use super::auth::{Needs, ReloadableAccess};
use super::body::{self, PolledAgain};
use super::host::{CurrentAccess, Host};
use super::limits::Limits;
use super::routes::{acquire, heartbeat, release};
use crate::LockManager;
#[cfg(feature = "metrics")]
use crate::metrics::HttpMetrics;

/// Answers `POST /acquire`, `/release` and `/heartbeat` of a server as [`configure`](super::configure) does, for less. Each
/// worker makes one; clones are cheap.
///
/// It is for servers that stand between the connections and their actix-web app, and that have the routes at their
/// root: whoever only mounts the routes needs none of it.
#[derive(Clone)]
#[must_use]
pub struct DirectCalls(Rc<Shared>);

struct Shared {
    locks: LockManager,
    limits: Limits,
    access: ReloadableAccess,
    #[cfg(feature = "metrics")]
    metrics: Option<HttpMetrics>,
    acquires: RouteCounters,
    releases: RouteCounters,
    heartbeats: RouteCounters,
}

/// A call that can be answered directly.
#[must_use]
pub struct DirectCall {
    shared: Rc<Shared>,
    verb: Verb,
}

#[derive(Clone, Copy)]
enum Verb {
    Acquire,
    Release,
    Heartbeat,
}

impl Verb {
    fn of(path: &str) -> Option<Self> {
        [Self::Acquire, Self::Release, Self::Heartbeat].into_iter().find(|verb| verb.path() == path)
    }

    fn path(self) -> &'static str {
        match self {
            Self::Acquire => "/acquire",
            Self::Release => "/release",
            Self::Heartbeat => "/heartbeat",
        }
    }

    fn needs(self) -> Needs {
        match self {
            Self::Acquire => Needs::Acquire,
            Self::Release | Self::Heartbeat => Needs::GiveBack,
        }
    }
}

impl DirectCalls {
    /// Of this manager, on these terms. Requests are not counted.
    pub fn new(locks: LockManager, limits: Limits, access: ReloadableAccess) -> Self {
        Self(Rc::new(Shared {
            locks,
            limits,
            access,
            #[cfg(feature = "metrics")]
            metrics: None,
            acquires: RouteCounters::default(),
            releases: RouteCounters::default(),
            heartbeats: RouteCounters::default(),
        }))
    }

    /// Counts requests, as the routes do with these in their `app_data`.
    #[cfg(feature = "metrics")]
    #[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
    pub fn counted(mut self, metrics: HttpMetrics) -> Self {
        if let Some(shared) = Rc::get_mut(&mut self.0) {
            shared.metrics = Some(metrics);
        }
        self
    }

    /// The call that a request makes, if it is one of these. The others are the router's: other paths and methods, and
    /// paths that are written in another way.
    #[must_use]
    pub fn find(&self, head: &RequestHead) -> Option<DirectCall> {
        if head.method != Method::POST {
            return None;
        }
        let verb = Verb::of(head.uri.path())?;
        Some(DirectCall { shared: Rc::clone(&self.0), verb })
    }
}

impl Shared {
    fn host(&self) -> Host<'_> {
        Host {
            locks: Some(&self.locks),
            limits: &self.limits,
            access: CurrentAccess::Reloadable(self.access.current()),
            #[cfg(feature = "metrics")]
            metrics: self.metrics.as_ref(),
        }
    }

    fn counters(&self, verb: Verb) -> &RouteCounters {
        match verb {
            Verb::Acquire => &self.acquires,
            Verb::Release => &self.releases,
            Verb::Heartbeat => &self.heartbeats,
        }
    }
}

impl DirectCall {
    /// Answers the request. Its head is dropped as soon as its body has been read: who waits for a lock does not keep it.
    ///
    /// The connection is to poll it when the head has come, and once more behind that, as actix-http does. Of a body that
    /// has not come by then it is woken.
    ///
    /// # Cancel safety
    /// Drop it when the client goes away: its waiter leaves the queue then, and a grant that was already made to it goes
    /// to the next.
    pub async fn answer<H>(self, head: H, payload: Payload) -> HttpResponse
    where
        H: Deref<Target = RequestHead>,
    {
        let (shared, verb) = (&*self.shared, self.verb);
        let (route, counters) = (Found::Directly(verb.path()), shared.counters(verb));
        let ctx = match Arrival::let_in(&head, shared.host(), route, counters, verb.needs()) {
            Ok(ctx) => ctx,
            Err(refusal) => return *refusal,
        };
        let bytes = body::read(&head, payload, ctx.limits, PolledAgain::ByTheConnection).await;
        drop(head);
        let answer = match (bytes, verb) {
            (Ok(bytes), Verb::Acquire) => acquire::acquire(&ctx, &bytes).await,
            (Ok(bytes), Verb::Release) => release::release(&ctx, &bytes).await,
            (Ok(bytes), Verb::Heartbeat) => heartbeat::heartbeat(&ctx, &bytes).await,
            (Err(problem), _) => Err(problem),
        };
        ctx.finish(answer)
    }
}

debug_of!(DirectCalls, |it| access: it.0.access);
debug_of!(DirectCall, |it| path: it.verb.path());
