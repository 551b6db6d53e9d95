//! For handlers of the host: an extractor of the manager, and [`LockError`] as an answer.

use std::future::{Ready, ready};
use std::ops::Deref;

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::{FromRequest, HttpRequest, HttpResponse, ResponseError};

use super::host::manager;
use super::problem::Problem;
use crate::{LockError, LockManager};

/// The host's manager, for a handler to take as an argument.
///
/// It comes from the app's `app_data`, given as a [`LockManager`] or as `web::Data` of one; without it the request is
/// answered with 500. A [`LockError`] is an answer of its own, so that `?` does:
///
/// ```
/// use actix_web::{HttpResponse, post, web};
/// use leasehold::{LockError, http::Locks};
///
/// #[post("/orders/{id}/pay")]
/// async fn pay(locks: Locks, id: web::Path<u64>) -> Result<HttpResponse, LockError> {
///     let lock = locks.try_lock(format!("order:{id}")).await?; // 423 if it is being paid
///     // The work.
///     lock.unlock().await;
///     Ok(HttpResponse::Ok().finish())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Locks(LockManager);

impl Locks {
    /// The manager itself.
    #[must_use]
    pub fn into_inner(self) -> LockManager {
        self.0
    }
}

impl Deref for Locks {
    type Target = LockManager;

    fn deref(&self) -> &LockManager {
        &self.0
    }
}

impl FromRequest for Locks {
    type Error = actix_web::Error;
    type Future = Ready<Result<Self, actix_web::Error>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(manager(req).map(|locks| Self(locks.clone())).map_err(|fault| Problem::from(fault).into()))
    }
}

/// Answers as the lock server does: its [status](LockError::http_status) and [code](LockError::code), in a problem
/// document (RFC 9457).
impl ResponseError for LockError {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        Problem::from(self.clone()).error_response()
    }
}
