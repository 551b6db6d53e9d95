//! Who may use the routes, where that changes while they are served.

use std::sync::{Arc, PoisonError, RwLock};

use super::access::Access;

/// An [`Access`] that can be exchanged. Make it once, outside of the app's factory, and give a clone to each app by
/// `app_data`, in place of an `Access`.
///
/// A request is judged by what holds when it comes.
///
/// ```
/// use leasehold::http::{Access, ReloadableAccess};
/// let access = ReloadableAccess::new(Access::open());
/// let list = r#"[{ "name": "ci", "token": "7hKq2-change-me-9Zp", "rights": ["acquire"] }]"#;
/// access.replace(access.current().with_tokens(list)?);
/// assert!(access.current().has_tokens());
/// # Ok::<(), leasehold::http::AccessError>(())
/// ```
#[derive(Clone)]
pub struct ReloadableAccess(Arc<RwLock<Arc<Access>>>);

impl ReloadableAccess {
    /// With this one to begin with.
    #[must_use]
    pub fn new(access: Access) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(access))))
    }

    /// The one that holds now.
    #[must_use]
    pub fn current(&self) -> Arc<Access> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on this one holds.
    pub fn replace(&self, access: Access) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(access);
    }
}

debug_of!(ReloadableAccess, |it| current: it.current());
