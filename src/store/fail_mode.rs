//! What is done while a store does not answer.

/// What becomes of requests while the store does not answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum FailMode {
    /// None is granted: a try is [`LockError::StoreUnavailable`](crate::LockError::StoreUnavailable), a waiter waits on.
    #[default]
    Closed,
    /// They are granted within this process, where the store should have been asked: such a lock
    /// [is degraded](crate::Held::is_degraded), has no fencing token and excludes nobody elsewhere. When the store
    /// answers again, each has to win its key there, or is lost at once. For work that is better done twice than not
    /// at all.
    Local,
}
