//! What the host app gives to the routes: the manager, and maybe limits and access.

use std::ops::Deref;
use std::sync::Arc;

use actix_web::{HttpRequest, web};

use super::auth::{Access, ReloadableAccess};
use super::limits::Limits;
use super::problem::Fault;
use crate::LockManager;

/// The host's manager and its limits.
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

/// The access that holds for a request, as the host has given it.
pub(super) enum CurrentAccess<'a> {
    Fixed(&'a Access),
    Reloadable(Arc<Access>),
}

impl Deref for CurrentAccess<'_> {
    type Target = Access;

    fn deref(&self) -> &Access {
        match self {
            Self::Fixed(access) => access,
            Self::Reloadable(access) => access,
        }
    }
}

/// The access that the host has given, if it has.
pub(super) fn given_access(req: &HttpRequest) -> Option<CurrentAccess<'_>> {
    let now = shared::<ReloadableAccess>(req).map(|access| CurrentAccess::Reloadable(access.current()));
    now.or_else(|| shared::<Access>(req).map(CurrentAccess::Fixed))
}

/// `app_data` of a `T`, given as it is or in a `web::Data`.
pub(super) fn shared<T: 'static>(req: &HttpRequest) -> Option<&T> {
    req.app_data::<T>().or_else(|| req.app_data::<web::Data<T>>().map(|data| data.get_ref()))
}
