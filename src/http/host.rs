//! What the host app gives to the routes: the manager, and maybe limits.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};

use super::limits::Limits;
use super::problem::{Fault, Problem};
use crate::LockManager;

/// An extractor of the host's manager and limits.
pub(super) struct Host {
    pub(super) locks: LockManager,
    pub(super) limits: Limits,
}

impl FromRequest for Host {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let Some(locks) = shared::<LockManager>(req) else {
            tracing::error!("these routes need a LockManager in app_data, and the app has none");
            let why = "the server has no lock manager; this is for its operator to mend";
            return ready(Err(Fault::Internal { why }.into()));
        };
        let limits = shared::<Limits>(req).copied().unwrap_or_default();
        ready(Ok(Self { locks: locks.clone(), limits }))
    }
}

/// `app_data` of a `T`, given as it is or in a `web::Data`.
fn shared<T: 'static>(req: &HttpRequest) -> Option<&T> {
    req.app_data::<T>().or_else(|| req.app_data::<web::Data<T>>().map(|data| data.get_ref()))
}
