//! Errors as problem documents (RFC 9457): `application/problem+json`, each with a stable `code`.
//!
//! What a manager refuses has the code and the status of its [`LockError`]; what never comes so far is a [`Fault`]. The
//! answer closes no connection by itself and quotes no token.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use problem_details::ProblemDetails;
use serde::Serialize;

use super::routes::locks::HolderView;
use super::wire::Edge;
use crate::store::StoreError;
use crate::{Key, LockError, LockInfo};

/// The longest `retry-after`.
const LONGEST_RETRY: Duration = Duration::from_hours(1);
/// How to prove who asks: without a token, and with one that is not known.
const BEARER: HeaderValue = HeaderValue::from_static("Bearer realm=\"leasehold\"");
const UNKNOWN_BEARER: HeaderValue = HeaderValue::from_static("Bearer realm=\"leasehold\", error=\"invalid_token\"");

/// What can be wrong with a request before a manager sees it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// The body breaks off, is not UTF-8, not JSON, or not of the route's type.
    #[error("{0}")]
    InvalidBody(Cow<'static, str>),
    /// A parameter of the URL is unknown, repeated, missing or badly encoded.
    #[error("{0}")]
    InvalidQuery(Cow<'static, str>),
    /// The client was too slow.
    #[error("the body did not arrive within {after:?}")]
    BodyTimeout { after: Duration },
    /// The body has more bytes than are taken.
    #[error("the body is longer than {max} bytes")]
    TooLarge { max: usize },
    /// The body does not say that it is JSON.
    #[error("send the body as `content-type: application/json`, in UTF-8")]
    UnsupportedMediaType,
    /// A token is asked for, and none was given or another.
    #[error("{}", if *given { "the token is unknown" } else { "send `authorization: Bearer <token>`" })]
    Unauthenticated { given: bool },
    /// The token is not good for this.
    #[error("{why}")]
    Forbidden { why: &'static str },
    /// There are no tokens, and the request asks by a name that is not known to be this server's.
    #[error("without tokens this server answers to addresses, `localhost` and its allowed hosts, not to {host:?}")]
    ForbiddenHost { host: String },
    /// There are no tokens, and a page of another site has sent it.
    #[error("without tokens this server takes nothing from web pages of other sites")]
    CrossSite,
    /// It came too often.
    #[error("too many requests; releases and heartbeats are not counted")]
    RateLimited { after: Duration },
    /// As many listen to events as may.
    #[error("too many listen to events already")]
    TooManyStreams,
    /// As many requests wait with this token as may.
    #[error("too many requests wait with this token already")]
    WaiterQuota,
    /// As many listen to events with this token as may.
    #[error("too many listen to events with this token already")]
    StreamQuota,
    /// Nothing is granted yet: the locks of an earlier process may still be held.
    #[error("the server has just started: locks of its last run may still be held")]
    Starting { after: Duration },
    /// No such session, or one that ended long ago.
    #[error("there is no session of this id, or it ended a while ago")]
    UnknownSession,
    /// No such route.
    #[error("there is no such route")]
    NotFound,
    /// The key is free.
    #[error("nobody holds this key")]
    NotLocked,
    /// The route knows other methods only.
    #[error("this route takes {allow}")]
    MethodNotAllowed { allow: &'static str },
    /// It is not the client's doing.
    #[error("{why}")]
    Internal { why: &'static str },
}

impl Fault {
    fn status_and_code(&self) -> (u16, &'static str) {
        match self {
            Self::InvalidBody(_) => (400, "invalid_body"),
            Self::InvalidQuery(_) => (400, "invalid_query"),
            Self::BodyTimeout { .. } => (408, "body_timeout"),
            Self::TooLarge { .. } => (413, "too_large"),
            Self::UnsupportedMediaType => (415, "unsupported_media_type"),
            Self::Unauthenticated { .. } => (401, "unauthenticated"),
            Self::Forbidden { .. } => (403, "forbidden"),
            Self::ForbiddenHost { .. } => (403, "forbidden_host"),
            Self::CrossSite => (403, "cross_site"),
            Self::RateLimited { .. } => (429, "rate_limited"),
            Self::TooManyStreams => (429, "too_many_streams"),
            Self::WaiterQuota => (429, "waiter_quota"),
            Self::StreamQuota => (429, "stream_quota"),
            Self::Starting { .. } => (503, "starting"),
            Self::UnknownSession => (404, "unknown_session"),
            Self::NotFound => (404, "not_found"),
            Self::NotLocked => (404, "not_locked"),
            Self::MethodNotAllowed { .. } => (405, "method_not_allowed"),
            Self::Internal { .. } => (500, "internal"),
        }
    }
}

/// An error on its way out.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: Cow<'static, str>,
    members: Members,
    /// When to try again, which methods there are, how to prove who asks.
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// The members of the document that are ours.
#[derive(Debug, Serialize)]
struct Members {
    code: &'static str,
    #[serde(flatten)]
    extra: Option<Box<Extra>>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Extra {
    /// Beside `held` and `timeout`: who is in the way. There is no holder if the key came free meanwhile.
    Busy { holder: Option<HolderView>, queue_length: usize },
    /// Beside `deadlock`: who waits for what.
    Cycle { cycle: Vec<Edge> },
}

impl Problem {
    fn new((status, code): (u16, &'static str), detail: Cow<'static, str>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, detail, members: Members { code, extra: None }, headers: Vec::new() }
    }

    /// What it is, for programs.
    pub(super) fn code(&self) -> &'static str {
        self.members.code
    }

    /// The same with better words.
    pub(super) fn saying(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = detail.into();
        self
    }

    /// `StoreUnavailable`, with the kind of what kept the store from an answer; any other error as it is.
    pub(super) fn because(self, why: impl FnOnce() -> Option<StoreError>) -> Self {
        if self.members.code != "store_unavailable" {
            return self;
        }
        match why() {
            // In our words: the server's may name keys that are not the caller's.
            Some(why) => {
                let cause = why.cause();
                self.saying(format!("{} ({})", cause.describe(), cause.as_str()))
            }
            None => self,
        }
    }

    /// `Deadlock`, with those steps of the cycle whose keys the caller may see; any other error as it is.
    pub(super) fn within(why: LockError, may_see: impl Fn(&Key) -> bool) -> Self {
        let LockError::Deadlock { cycle } = &why else { return why.into() };
        if cycle.iter().all(|edge| may_see(&edge.key)) {
            return why.into();
        }
        let cycle = cycle.iter().filter(|edge| may_see(&edge.key)).map(Edge::from).collect();
        let mut problem =
            Self::new((why.http_status(), why.code()), "waiting would deadlock with locks elsewhere".into());
        problem.members.extra = Some(Box::new(Extra::Cycle { cycle }));
        problem
    }

    /// The status, the code and the document, for the description of the routes.
    pub(super) fn into_example(self) -> (u16, &'static str, serde_json::Value) {
        let document = serde_json::to_value(self.document()).expect("the document is JSON");
        (self.status.as_u16(), self.members.code, document)
    }

    /// `Held` or `Timeout`, with what is in the way: to try again is worth it when the holder's time is over.
    pub(super) fn busy(why: LockError, in_the_way: Option<&LockInfo>) -> Self {
        let mut problem = Self::from(why);
        problem.members.extra = Some(Box::new(Extra::Busy {
            holder: in_the_way.and_then(|info| Some(HolderView::of(info.holders.first()?, info.location))),
            queue_length: in_the_way.map_or(0, |info| info.waiting),
        }));
        // One that has no end may be taken away all the same.
        let after = in_the_way.map_or(Duration::ZERO, |info| info.remaining.min(LONGEST_RETRY));
        problem.headers.push((RETRY_AFTER, whole_seconds_up(after).into()));
        problem
    }
}

impl Problem {
    fn document(&self) -> ProblemDetails<&Members> {
        let mut document = ProblemDetails::new().with_detail(self.detail.as_ref()).with_extensions(&self.members);
        // actix-web and problem_details name statuses by different versions of the `http` crate.
        document.status = self.status.as_u16().try_into().ok();
        document.title = self.status.canonical_reason().map(str::to_owned);
        document
    }
}

impl From<LockError> for Problem {
    fn from(why: LockError) -> Self {
        let mut problem = Self::new((why.http_status(), why.code()), why.to_string().into());
        if let LockError::Deadlock { cycle } = why {
            problem.members.extra = Some(Box::new(Extra::Cycle { cycle: cycle.iter().map(Edge::from).collect() }));
        }
        problem
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        let mut problem = Self::new(fault.status_and_code(), fault.to_string().into());
        problem.headers.extend(match fault {
            Fault::MethodNotAllowed { allow } => Some((ALLOW, HeaderValue::from_static(allow))),
            Fault::RateLimited { after } | Fault::Starting { after } => {
                Some((RETRY_AFTER, whole_seconds_up(after).into()))
            }
            Fault::Unauthenticated { given: false } => Some((WWW_AUTHENTICATE, BEARER)),
            Fault::Unauthenticated { given: true } => Some((WWW_AUTHENTICATE, UNKNOWN_BEARER)),
            _ => None,
        });
        problem
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.members.code, self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut answer = HttpResponse::build(self.status);
        for header in &self.headers {
            answer.insert_header(header.clone());
        }
        answer.insert_header((CONTENT_TYPE, "application/problem+json")).json(self.document())
    }
}

/// Rounded up, and at least one: sooner is too soon.
fn whole_seconds_up(span: Duration) -> u64 {
    (span.as_secs() + u64::from(span.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_fault_has_the_status_and_code_of_the_contract() {
        let rows = [
            (Fault::InvalidBody("why".into()), 400, "invalid_body"),
            (Fault::InvalidQuery("why".into()), 400, "invalid_query"),
            (Fault::BodyTimeout { after: Duration::from_secs(5) }, 408, "body_timeout"),
            (Fault::TooLarge { max: 1 }, 413, "too_large"),
            (Fault::UnsupportedMediaType, 415, "unsupported_media_type"),
            (Fault::Unauthenticated { given: true }, 401, "unauthenticated"),
            (Fault::Forbidden { why: "why" }, 403, "forbidden"),
            (Fault::ForbiddenHost { host: "host".to_owned() }, 403, "forbidden_host"),
            (Fault::CrossSite, 403, "cross_site"),
            (Fault::RateLimited { after: Duration::ZERO }, 429, "rate_limited"),
            (Fault::TooManyStreams, 429, "too_many_streams"),
            (Fault::WaiterQuota, 429, "waiter_quota"),
            (Fault::StreamQuota, 429, "stream_quota"),
            (Fault::Starting { after: Duration::ZERO }, 503, "starting"),
            (Fault::UnknownSession, 404, "unknown_session"),
            (Fault::NotFound, 404, "not_found"),
            (Fault::NotLocked, 404, "not_locked"),
            (Fault::MethodNotAllowed { allow: "GET" }, 405, "method_not_allowed"),
            (Fault::Internal { why: "why" }, 500, "internal"),
        ];
        let codes: HashSet<_> = rows.iter().map(|row| row.2).collect();
        assert_eq!(codes.len(), rows.len(), "each cause has a code of its own");
        for (fault, status, code) in rows {
            assert_eq!(fault.status_and_code(), (status, code), "{fault:?}");
        }
    }

    #[test]
    fn retry_after_is_in_whole_seconds_rounded_up_and_never_zero() {
        for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (29_999, 30)] {
            assert_eq!(whole_seconds_up(Duration::from_millis(millis)), seconds, "{millis}");
        }
    }
}
