//! Taking a lock from its holder: at once, or with notice.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use crate::engine::LockManager;
use crate::error::LockError;
use crate::key::Key;
use crate::mode::Mode;
use crate::store::Forced;
use crate::table::{Release, Told};

/// An operator's order to end whatever holds a key; `await` it.
#[derive(Debug)]
#[must_use = "nothing is released until it is awaited"]
pub struct ForceRelease<'a> {
    manager: &'a LockManager,
    key: Result<Key, LockError>,
    notice: Option<Duration>,
}

impl LockManager {
    /// Ends whatever holds the key; its holders are told by [`Held::lost`](crate::Held::lost), the next waiter gets
    /// the key.
    ///
    /// A holder may still be at work: only the fencing token keeps it from the resource. Give it
    /// [notice](ForceRelease::notice) to let it stop by itself.
    ///
    /// Answers [`Release::AlreadyGone`] if nothing held the key.
    ///
    /// # Errors
    /// [`LockError::InvalidKey`]; [`LockError::StoreUnavailable`] if there is a store and it did not answer.
    pub fn force_release<K: TryInto<Key, Error: Into<LockError>>>(&self, key: K) -> ForceRelease<'_> {
        ForceRelease { manager: self, key: self.good_key(key), notice: None }
    }
}

impl ForceRelease<'_> {
    /// Gives the holders notice first, by [`Held::revocation_notice`](crate::Held::revocation_notice), and takes the
    /// lock after `notice` unless they release it before; their deadlines show it at once. Awaiting answers when it is
    /// gone.
    ///
    /// A later order may shorten the notice, never lengthen it.
    ///
    /// A holder in another process gets the notice through the store, and as it gets one of its own process; if that
    /// process does not end the lock in time, the store does. Where the store cannot reach other processes (a
    /// [`Store`](crate::store::Store) that does not implement [`give_notice`](crate::store::Store::give_notice)), the
    /// holder gets no notice before the end: the order waits, and takes the lock then. The time begins when the order
    /// and the message arrive, and so differs by how long the message takes.
    ///
    /// # Cancel safety
    /// Once polled, the notice stands: dropping the future only gives up waiting for the end.
    pub fn notice(mut self, notice: Duration) -> Self {
        self.notice = Some(notice);
        self
    }

    async fn release(self) -> Result<Release, LockError> {
        let Self { manager, key, notice } = self;
        let key = key?;
        let (shard, hash) = manager.place(&key);
        let shard = manager.shard_at(shard);
        let Some(notice) = notice.filter(|notice| !notice.is_zero()) else {
            let Some(client) = manager.client() else { return Ok(shard.force_release(&key, hash)) };
            // The store first: were a holder ended here first, another could be granted the key, and the store would
            // end that one.
            shard.tell_claim(&key, hash, Told::Doubted);
            let grants = shard.grants_on(&key, hash);
            let forced = client.force_release(&key).await;
            let here = shard.force_release_grants(&grants);
            return match forced {
                Some(Forced::Released) => Ok(Release::Released),
                Some(Forced::WasFree) => Ok(here),
                Some(Forced::Unknown(_)) | None => Err(LockError::StoreUnavailable),
            };
        };
        // A key that is shared may be held in other processes as well.
        let is_shared = shard.look(&key, hash, 0).is_some_and(|row| row.holders[0].mode != Mode::Exclusive);
        let is_elsewhere = is_shared == shard.is_claimed_here(&key, hash);
        let grants = shard.give_notice(&key, hash, shard.now().saturating_add(notice));
        let here = if grants.is_empty() { Release::AlreadyGone } else { Release::Released };
        let elsewhere = match manager.client().filter(|_| is_elsewhere) {
            Some(client) => match client.force_with_notice(&key, notice).await {
                Some(Forced::Released) => Release::Released,
                Some(Forced::WasFree) => Release::AlreadyGone,
                Some(Forced::Unknown(_)) | None => return Err(LockError::StoreUnavailable),
            },
            None => Release::AlreadyGone,
        };
        for grant in grants {
            shard.lost_signal(&grant).wait().await;
        }
        Ok(if here == Release::Released { here } else { elsewhere })
    }
}

impl<'a> IntoFuture for ForceRelease<'a> {
    type Output = Result<Release, LockError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.release())
    }
}
