//! What the host app gives to the routes: the manager, and maybe limits and access.

use std::ops::Deref;
use std::sync::Arc;

use actix_web::{HttpRequest, web};

use super::auth::{Access, ReloadableAccess};
use super::limits::Limits;
use super::problem::Fault;
use crate::LockManager;

/// The host's manager and its terms.
pub(super) struct Host {
    pub(super) locks: LockManager,
    pub(super) limits: Limits,
}

impl Host {
    pub(super) fn of(req: &HttpRequest) -> Result<Self, Fault> {
        let Some(locks) = shared::<LockManager>(req) else {
            tracing::error!("these routes need a LockManager in app_data, and the app has none");
            return Err(Fault::Internal { why: "the server has no lock manager; this is for its operator to mend" });
        };
        let limits = shared::<Limits>(req).copied().unwrap_or_default();
        Ok(Self { locks: locks.clone(), limits })
    }
}

/// An access, as the host has given it.
pub(super) enum InForce<'a> {
    Always(&'a Access),
    Now(Arc<Access>),
}

impl Deref for InForce<'_> {
    type Target = Access;

    fn deref(&self) -> &Access {
        match self {
            Self::Always(access) => access,
            Self::Now(access) => access,
        }
    }
}

/// The host's word on who may come, if it has one.
pub(super) fn access(req: &HttpRequest) -> Option<InForce<'_>> {
    let now = shared::<ReloadableAccess>(req).map(|access| InForce::Now(access.current()));
    now.or_else(|| shared::<Access>(req).map(InForce::Always))
}

/// `app_data` of a `T`, given as it is or in a `web::Data`.
pub(super) fn shared<T: 'static>(req: &HttpRequest) -> Option<&T> {
    req.app_data::<T>().or_else(|| req.app_data::<web::Data<T>>().map(|data| data.get_ref()))
}
