//! A middleware that runs a route under a lock whose key is in the request: one payment per order at a time.

use std::fmt;
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform};
use actix_web::http::header::HeaderName;
use actix_web::{Error, HttpMessage, HttpResponse, ResponseError};

use super::host::manager;
use super::problem::Problem;
use super::query;
use crate::{Lock, LockError, LockManager, LockOptions, resource_key};

/// Locks a route by a key taken from the request, for as long as its handler runs; 423 with a problem document if
/// another request holds it.
///
/// ```
/// use actix_web::{App, HttpResponse, web};
/// use leasehold::{Held, http::LockedBy};
/// # let locks = leasehold::LockManager::builder().build()?;
///
/// async fn pay(held: web::ReqData<Held>) -> HttpResponse {
///     HttpResponse::Ok().body(format!("paid under {:?}", held.fencing_token()))
/// }
///
/// let app = App::new().app_data(locks).service(
///     web::resource("/orders/{id}/pay").route(web::post().to(pay)).wrap(LockedBy::path("id").resource("order")),
/// );
/// # Ok::<(), leasehold::BuildError>(())
/// ```
///
/// The key is [`resource_key`]`("order", id)`. The lock refreshes itself while the handler runs; the handler finds it
/// as `web::ReqData<`[`Held`](crate::Held)`>`. It is released when the handler has answered, before the answer is
/// sent, and also when the handler fails, panics, or is dropped because its client has gone. What a streaming body
/// does afterwards is not under the lock.
///
/// A request that lacks the key is answered with 400 `invalid_query`. Parameters of the path are known to what wraps
/// their own resource, not to what wraps a scope around it.
#[derive(Clone)]
#[must_use]
pub struct LockedBy {
    source: Source,
    resource: Option<String>,
    options: LockOptions,
    wait: Option<Duration>,
}

type Read = Rc<dyn Fn(&ServiceRequest) -> Option<String>>;

/// Where the key comes from.
#[derive(Clone)]
enum Source {
    Path(&'static str),
    Query(&'static str),
    Header(HeaderName),
    Request(Read),
}

impl LockedBy {
    /// By a parameter of the path: `path("id")` on `/orders/{id}` locks `lock:id:42`.
    pub fn path(parameter: &'static str) -> Self {
        Self::new(Source::Path(parameter))
    }

    /// By a parameter of the query.
    pub fn query(parameter: &'static str) -> Self {
        Self::new(Source::Query(parameter))
    }

    /// By a header.
    ///
    /// # Panics
    /// If that is no name of a header.
    pub fn header(name: &'static str) -> Self {
        Self::new(Source::Header(HeaderName::from_static(name)))
    }

    /// By whatever `read` finds in the request: the whole key, as it is.
    pub fn request(read: impl Fn(&ServiceRequest) -> Option<String> + 'static) -> Self {
        Self::new(Source::Request(Rc::new(read)))
    }

    fn new(source: Source) -> Self {
        Self { source, resource: None, options: LockOptions::new(), wait: None }
    }

    /// The kind of thing that is locked, in place of the parameter's name: routes that name the same one exclude each
    /// other, and whoever locks its [`resource_key`].
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.resource = Some(resource.into());
        self
    }

    /// The TTL of the lock, which is refreshed every third of it; the manager's by default.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.options = self.options.ttl(ttl);
        self
    }

    /// Waits so long for the lock, in its queue, instead of answering 423 at once.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    /// Gives the lock away after so long, whether the handler has answered or not.
    pub fn max_hold(mut self, cap: Duration) -> Self {
        self.options = self.options.max_hold(cap);
        self
    }

    fn key(&self, req: &ServiceRequest) -> Result<String, Problem> {
        let lacks = |what: &str, name: &str| query::invalid(format!("the {what} `{name}` is missing"));
        let (name, value) = match &self.source {
            Source::Request(read) => return read(req).ok_or_else(|| query::invalid("there is no key in the request")),
            Source::Path(name) => {
                let raw = req.match_info().get(name).ok_or_else(|| lacks("parameter of the path", name))?;
                (*name, query::decode(raw)?)
            }
            Source::Query(name) => {
                let given = query::first(req.request(), name)?;
                (*name, given.ok_or_else(|| lacks("parameter", name))?)
            }
            Source::Header(name) => {
                let given = req.headers().get(name).and_then(|value| value.to_str().ok());
                (name.as_str(), given.ok_or_else(|| lacks("header", name.as_str()))?.to_owned())
            }
        };
        Ok(resource_key(self.resource.as_deref().unwrap_or(name), value))
    }

    async fn lock(&self, req: &ServiceRequest) -> Result<Lock, Problem> {
        let key = self.key(req)?;
        let locks = manager(req.request())?;
        let options = self.options.clone();
        let asked = match self.wait {
            Some(wait) => locks.lock(&key).options(options.wait(wait)).await,
            None => locks.try_lock(&key).options(options).await,
        };
        let lock = match asked {
            Ok(lock) => lock,
            Err(why) => return Err(refused(locks, &key, why).await),
        };
        keep(&lock)?;
        Ok(lock)
    }
}

/// What the client of a busy key hears.
async fn refused(locks: &LockManager, key: &str, why: LockError) -> Problem {
    match why {
        LockError::Held | LockError::Timeout { .. } => {
            let in_the_way = locks.glance(key).await.ok().flatten();
            Problem::busy(why, in_the_way.as_ref())
        }
        other => other.into(),
    }
}

/// Has the lock refresh itself, if it lasts long enough for that.
fn keep(lock: &Lock) -> Result<(), LockError> {
    let every = lock.remaining() / 3;
    match lock.auto_refresh(every, every) {
        // Too short a TTL to be refreshed in time: it lasts as long as it was asked for.
        Ok(_) | Err(LockError::InvalidOption { .. }) => Ok(()),
        Err(why) => Err(why),
    }
}

impl<S, B> Transform<S, ServiceRequest> for LockedBy
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Transform = Locking<S>;
    type InitError = ();
    type Future = Ready<Result<Locking<S>, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(Locking { by: Rc::new(self.clone()), service: Rc::new(service) }))
    }
}

/// A service that is run under a lock: [`LockedBy`] at work.
#[derive(Debug)]
pub struct Locking<S> {
    by: Rc<LockedBy>,
    service: Rc<S>,
}

impl<S, B> Service<ServiceRequest> for Locking<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>>>>;

    actix_web::dev::forward_ready!(service);

    fn call(&self, req: ServiceRequest) -> Self::Future {
        let (by, service) = (Rc::clone(&self.by), Rc::clone(&self.service));
        Box::pin(async move {
            let lock = match by.lock(&req).await {
                Ok(lock) => lock,
                Err(problem) => {
                    let refusal: HttpResponse = problem.error_response();
                    return Ok(req.into_response(refusal).map_into_right_body());
                }
            };
            req.extensions_mut().insert(lock.held());
            let answer = service.call(req).await;
            // Before the answer: whoever has that finds the key free.
            lock.unlock().await;
            answer.map(ServiceResponse::map_into_left_body)
        })
    }
}

impl fmt::Debug for LockedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source: &dyn fmt::Debug = match &self.source {
            Source::Path(name) | Source::Query(name) => name,
            Source::Header(name) => name,
            Source::Request(_) => &"a function",
        };
        f.debug_struct("LockedBy").field("by", source).field("resource", &self.resource).finish_non_exhaustive()
    }
}
