//! What the host app gives to the routes: the manager, and maybe limits, access and metrics.

use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use actix_web::{HttpRequest, web};

use super::auth::{Access, ReloadableAccess};
use super::limits::Limits;
use super::problem::Fault;
use crate::LockManager;
#[cfg(feature = "metrics")]
use crate::metrics::HttpMetrics;

/// What holds where the host says nothing.
static OPEN: LazyLock<Access> = LazyLock::new(Access::open);
static DEFAULTS: LazyLock<Limits> = LazyLock::new(Limits::new);

/// What the host gives to one request.
pub(super) struct Host<'a> {
    pub(super) locks: Option<&'a LockManager>,
    pub(super) limits: &'a Limits,
    pub(super) access: CurrentAccess<'a>,
    #[cfg(feature = "metrics")]
    pub(super) metrics: Option<&'a HttpMetrics>,
}

impl<'a> Host<'a> {
    pub(super) fn of(req: &'a HttpRequest) -> Self {
        Self {
            locks: shared(req),
            limits: shared(req).unwrap_or_else(|| &*DEFAULTS),
            access: current_access(req),
            #[cfg(feature = "metrics")]
            metrics: shared(req),
        }
    }
}

/// The host's manager.
pub(super) fn manager(req: &HttpRequest) -> Result<&LockManager, Fault> {
    shared(req).ok_or_else(no_manager)
}

pub(super) fn no_manager() -> Fault {
    tracing::error!("these routes need a LockManager in app_data, and the app has none");
    Fault::Internal { why: "the server has no lock manager; this is for its operator to mend" }
}

/// The access that holds for a request.
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

/// The access that the host has given; one that is open to all if it has given none.
pub(super) fn current_access(req: &HttpRequest) -> CurrentAccess<'_> {
    match shared::<ReloadableAccess>(req) {
        Some(access) => CurrentAccess::Reloadable(access.current()),
        None => CurrentAccess::Fixed(shared(req).unwrap_or_else(|| &*OPEN)),
    }
}

/// `app_data` of a `T`, given as it is or in a `web::Data`.
pub(super) fn shared<T: 'static>(req: &HttpRequest) -> Option<&T> {
    req.app_data::<T>().or_else(|| req.app_data::<web::Data<T>>().map(|data| data.get_ref()))
}
