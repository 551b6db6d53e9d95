//! Sessions: owners that span locks. One heartbeat keeps all locks of a session, its end releases them all.
//!
//! A session's deadline is one atomic word that its locks read (see `table::owner`), so a heartbeat costs the same
//! however many locks there are, and never revives half of them. A lock of a session has no deadline of its own.
//!
//! The deadlock check knows sessions: a request that would close a cycle of owners that wait for each other is refused
//! with the cycle. An owner is one actor to it, blocked as long as any of its requests waits.

mod heartbeats;
mod info;
mod registry;

use std::sync::Arc;
use std::time::Duration;

use heartbeats::AutoHeartbeat;
pub use info::SessionInfo;
use uuid::Uuid;

use crate::clock::Moment;
use crate::engine::{LockManager, SessionParts};
use crate::error::LockError;
use crate::key::Ttl;
use crate::store::Released;
use crate::sync::Mutex;
use crate::table::{Owner, OwnerKind, Reentry, Release, check_owner};

/// An owner of several locks. Cheap to clone; every clone is the same session.
///
/// ```
/// # #[actix_rt::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let locks = leasehold::LockManager::builder().build()?;
/// use std::time::Duration;
///
/// let me = locks.session("worker-7").ttl(Duration::from_secs(10));
/// let a = me.lock("a").await?;
/// let b = me.lock("b").await?;
/// me.heartbeat().await?;
/// assert!(a.remaining() > Duration::from_secs(9) && b.remaining() > Duration::from_secs(9));
/// me.end().await;
/// assert!(!a.is_held() && !b.is_held());
/// # Ok(()) }
/// ```
///
/// It lives for its TTL (the manager's default) from its making or its last [heartbeat](Session::heartbeat), whatever
/// becomes of its handles; dropping the last one only ends the [automatic heartbeats](Session::auto_heartbeat). A
/// session that has ended stays ended: its requests, queued ones too, answer [`LockError::SessionEnded`].
///
/// To the deadlock check a session is one actor, which runs only while none of its requests waits. Give tasks that run
/// at the same time a session each: in one, the wait of one task counts as the wait of all, and others may be refused
/// with a [`LockError::Deadlock`] that another task would have undone. The same goes for the callback of a `run` that
/// hands its guards to tasks of their own.
#[derive(Clone)]
pub struct Session {
    handle: Arc<Handle>,
}

struct Handle {
    manager: LockManager,
    id: Uuid,
    parts: SessionParts,
    /// A setting that made no sense; every request answers with it.
    fault: Option<LockError>,
    /// The automatic heartbeats, if they were asked for; a later call replaces those of an earlier one.
    heartbeats: Mutex<Option<Arc<AutoHeartbeat>>>,
}

impl LockManager {
    /// Opens a session under a name of up to 128 bytes without control characters, for people who look.
    ///
    /// A name or setting that makes no sense is answered by the session's requests, as
    /// [`LockError::InvalidOption`] or [`LockError::InvalidTtl`].
    #[must_use]
    pub fn session(&self, name: impl AsRef<str>) -> Session {
        let ttl = self.config().ttl;
        let fault = check_owner(name.as_ref()).err();
        let name = if fault.is_none() { name.as_ref() } else { "?" };
        let owner = session_owner(self, name.into(), ttl, self.config().given.max_locks_per_session);
        let parts = SessionParts { owner, ttl, lock_ttl: ttl, reentry: Reentry::Refused };
        Session::from_parts(self, Uuid::new_v4(), parts, fault)
    }
}

impl Session {
    /// A session that an earlier process had under this id.
    pub(crate) fn reopened(manager: &LockManager, id: Uuid, name: &str, ttl: Duration) -> Self {
        let session = manager.session(name).ttl(ttl);
        Self::from_parts(manager, id, session.handle.parts.clone(), session.handle.fault.clone())
    }
}

fn session_owner(manager: &LockManager, name: Arc<str>, ttl: Ttl, max_locks: u32) -> Arc<Owner> {
    Arc::new(Owner::new(Some(name), OwnerKind::Session(ttl), manager.now(), max_locks))
}

impl Session {
    /// How long the session lives from now, and after each heartbeat. To be set before it is cloned or used.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        self.set("ttl", |handle| {
            let ttl = Ttl::new(ttl)?;
            handle.manager.config().ttls.check(ttl)?;
            let parts = &mut handle.parts;
            parts.owner = session_owner(&handle.manager, parts.owner.label(), ttl, parts.owner.locks.max());
            (parts.ttl, parts.lock_ttl) = (ttl, ttl);
            Ok(())
        })
    }

    /// Has a store keep the session's locks until its deadline, even if this process has died by then: for whoever promises
    /// that deadline to others, as a lock server does. To be set after [`ttl`](Session::ttl), and before the session is
    /// cloned or used.
    ///
    /// A store keeps a lock for its TTL, and is asked for more each third of it. With the session's own TTL, as otherwise,
    /// the store may give the lock away a third of it before the session's deadline. With this it keeps the lock for half
    /// as long again, or as long as it can, and so for longer when the process has died. Without a store nothing changes.
    #[must_use]
    pub fn outlives_process(self) -> Self {
        self.set("outlives_process", |handle| {
            if handle.manager.client().is_some() {
                let (ttl, longest) = (handle.parts.ttl.as_duration(), handle.manager.config().ttls.max);
                handle.parts.lock_ttl = Ttl::new((ttl + ttl / 2).min(longest))?;
            }
            Ok(())
        })
    }

    /// Has the session's own locks count as free to it: a key that it holds already is granted again, with the same
    /// token and fencing token, and is free when it was released as often. To be set before it is cloned or used.
    ///
    /// Without this, [`lock`](Session::lock) on a key that the session holds answers [`LockError::Deadlock`]: it would
    /// wait for itself. A share is not an exclusive lock: asking for that while holding a share is a deadlock too.
    #[must_use]
    pub fn reentrant(self) -> Self {
        self.set("reentrant", |handle| {
            handle.parts.reentry = Reentry::Counted;
            Ok(())
        })
    }

    /// How many locks the session may hold and wait for together, instead of the manager's
    /// [`max_locks_per_session`](crate::Builder::max_locks_per_session); beyond it, [`LockError::TooManyLocks`].
    #[must_use]
    pub fn max_locks(self, max: u32) -> Self {
        self.set("max_locks", |handle| {
            handle.parts.owner.locks.set_max(max);
            Ok(())
        })
    }

    fn set(mut self, option: &'static str, set: impl FnOnce(&mut Handle) -> Result<(), LockError>) -> Self {
        match Arc::get_mut(&mut self.handle) {
            Some(handle) if handle.parts.owner.locks.taken() == 0 => {
                if let Err(why) = set(handle) {
                    handle.fault.get_or_insert(why);
                }
                self
            }
            _ => {
                let why = "it is to be set before the session is cloned or used";
                self.with_fault(LockError::InvalidOption { option, why })
            }
        }
    }

    /// The same session in another handle, whose requests all answer with this.
    fn with_fault(self, why: LockError) -> Self {
        let Handle { manager, id, parts, .. } = &*self.handle;
        Self::from_parts(manager, *id, parts.clone(), Some(why))
    }

    /// A name that no other session has.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.handle.id
    }

    /// The name it was opened under.
    #[must_use]
    pub fn name(&self) -> Arc<str> {
        self.handle.parts.owner.label()
    }

    /// How many locks it holds and waits for.
    #[must_use]
    pub fn locks(&self) -> usize {
        self.handle.parts.owner.locks.taken() as usize
    }

    /// When it ends unless it gets a heartbeat, on the manager's clock; `None` if it has ended.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        // Settled: one that was seen to have ended is not kept alive by a heartbeat that read the clock before.
        self.handle.parts.owner.settle(self.handle.manager.now()).ok()
    }

    /// Its TTL: how long it lives from its making, and from each heartbeat.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.handle.parts.ttl.as_duration()
    }

    /// The time until its deadline; zero if it has ended.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        let now = self.handle.manager.now();
        self.deadline().map_or(Duration::ZERO, |deadline| deadline.saturating_since(now))
    }

    /// Whether it can still lock anything.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.deadline().is_some()
    }

    /// Moves the deadline to now plus the TTL, for the session and all of its locks; answers the time until then.
    ///
    /// # Errors
    /// [`LockError::SessionEnded`]: a heartbeat revives nothing.
    ///
    /// # Cancel safety
    /// In memory mode it is done by the first poll; dropped before, it has not begun.
    pub async fn heartbeat(&self) -> Result<Duration, LockError> {
        self.check()?;
        let Handle { parts: SessionParts { owner, ttl, .. }, manager, .. } = &*self.handle;
        let now = manager.now();
        let deadline = owner.heartbeat(*ttl, now).map_err(|_| LockError::SessionEnded)?;
        Ok(deadline.saturating_since(now))
    }

    /// Has the manager send a heartbeat every `every`, until the session ends or its last handle is dropped: a worker
    /// that lost its session object keeps nothing. Calling again replaces the order.
    ///
    /// # Errors
    /// [`LockError::InvalidOption`] unless `every` is at least a millisecond and less than the TTL;
    /// [`LockError::SessionEnded`], [`LockError::ShuttingDown`].
    pub fn auto_heartbeat(&self, every: Duration) -> Result<(), LockError> {
        self.check()?;
        if every < Ttl::MIN || every >= self.handle.parts.ttl.as_duration() {
            let why = "it must be at least a millisecond and shorter than the session's ttl";
            return Err(LockError::InvalidOption { option: "auto_heartbeat", why });
        }
        if !self.is_alive() {
            return Err(LockError::SessionEnded);
        }
        let shard = self.handle.manager.shard_of_session(self.handle.id);
        let heartbeat = Arc::new(AutoHeartbeat::new(&self.handle, shard, every));
        let replaced = self.handle.heartbeats.lock().replace(Arc::clone(&heartbeat));
        if let Some(replaced) = replaced {
            replaced.cancel();
        }
        heartbeat.arm(self.handle.manager.now())
    }

    /// Ends the session: its locks are released, its queued requests refused, all before this answers. Where there is a
    /// store, that has answered then, or its answer stays unknown.
    ///
    /// [`Release::AlreadyGone`]: it had ended before. [`Release::Unknown`]: it has ended, and the store has not
    /// answered for some of its locks; the store goes on releasing them.
    ///
    /// # Cancel safety
    /// It is done by the first poll; with a store only the waiting for its answers is given up.
    pub async fn end(&self) -> Release {
        let Handle { parts: SessionParts { owner, .. }, manager, heartbeats, .. } = &*self.handle;
        let heartbeat = heartbeats.lock().take();
        if let Some(heartbeat) = heartbeat {
            heartbeat.cancel();
        }
        let ended = owner.end(manager.now());
        // Those that had run out are cleaned up on the way.
        let answers = manager.end_owner(owner);
        manager.sessions().note_end();
        let mut all_known = true;
        for answer in answers {
            // None: the runtime stopped before the store had answered.
            all_known &= matches!(answer.await, Some(Released::Released | Released::AlreadyGone));
        }
        match ended {
            Err(_) => Release::AlreadyGone,
            Ok(()) if all_known => Release::Released,
            Ok(()) => Release::Unknown,
        }
    }

    pub(crate) fn manager(&self) -> &LockManager {
        &self.handle.manager
    }

    fn from_parts(manager: &LockManager, id: Uuid, parts: SessionParts, fault: Option<LockError>) -> Self {
        let heartbeats = Mutex::new(None);
        Self { handle: Arc::new(Handle { manager: manager.clone(), id, parts, fault, heartbeats }) }
    }

    fn check(&self) -> Result<(), LockError> {
        self.handle.fault.clone().map_or(Ok(()), Err)
    }

    /// Who it is to the table; `None` if its requests will not get there.
    pub(crate) fn owner(&self) -> Option<Arc<Owner>> {
        self.check().is_ok().then(|| Arc::clone(&self.handle.parts.owner))
    }

    /// What its requests take from it; they must be requests of its own manager.
    pub(crate) fn parts_for(&self, manager: &LockManager) -> Result<SessionParts, LockError> {
        if !self.handle.manager.is(manager) {
            self.check()?;
            return Err(LockError::InvalidOption { option: "session", why: "it is of another manager" });
        }
        self.parts()
    }

    fn parts(&self) -> Result<SessionParts, LockError> {
        self.check()?;
        Ok(self.handle.parts.clone())
    }
}

debug_of!(Session, |it| name: it.name(), locks: it.locks());

impl Drop for Handle {
    /// Ends its automatic heartbeats.
    fn drop(&mut self) {
        let heartbeat = self.heartbeats.lock().take();
        if let Some(heartbeat) = heartbeat {
            heartbeat.cancel();
        }
    }
}
