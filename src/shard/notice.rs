//! Taking a lock from a holder in another process, with notice: [`StoreClient::force_with_notice`].
//!
//! | the store | the holder | the lock ends |
//! |---|---|---|
//! | passes notices on to other processes | gets it as it gets a notice given in its own process | by its own process at the end of the notice, or by the store if that process does not |
//! | does not | learns of its end only | by the store at the end of the notice |
//!
//! At the end of the notice the store ends the grant that was meant, or those, where several share the key. What was
//! granted since is left alone, as far as the store's fences show it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Shard;
use super::client::StoreClient;
use crate::key::Key;
use crate::store::{Forced, HoldInfo, Noticed, StoreError, Watch};
use crate::supervise::guarded;

/// How often the store is asked whether the lock has ended, where no hint says so.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl StoreClient {
    /// Gives notice to whatever holds a key in the store, and ends it when that is over; answers when it has ended. It
    /// is carried out also when the future is dropped after its first poll. `None` if there is no runtime to do it on.
    pub(crate) async fn force_with_notice(self: &Arc<Self>, key: &Key, notice: Duration) -> Option<Forced> {
        let (sender, answer) = oneshot::channel();
        let (client, key) = (Arc::clone(self), key.clone());
        self.spawn_unawaited(guarded("a notice", async move {
            let forced = client.take_after(&key, notice).await.unwrap_or_else(Forced::Unknown);
            // Whoever ordered it may have gone.
            let _ = sender.send(forced);
        }));
        answer.await.ok()
    }

    async fn take_after(&self, key: &Key, notice: Duration) -> Result<Forced, StoreError> {
        let end = Instant::now().checked_add(notice);
        // In force before the notice is given, so that no release after it is missed.
        let mut watch = self.store.watch(key).await.ok();
        let meant = match self.store.give_notice(key, notice).await? {
            Noticed::Told { fence: Some(fence) } => vec![fence],
            Noticed::WasFree => return Ok(Forced::WasFree),
            Noticed::Told { fence: None } | Noticed::CannotTell => {
                let holders = self.store.holders(key, None).await?;
                if holders.is_empty() {
                    return Ok(Forced::WasFree);
                }
                holders.iter().filter_map(|hold| hold.fence).collect()
            }
        };
        while end.is_none_or(|end| Instant::now() < end) {
            let pause = end.map_or(LOOK_AGAIN, |end| LOOK_AGAIN.min(end - Instant::now()));
            // A hint, or the time for another look.
            let _ = tokio::time::timeout(pause, next_hint(&mut watch)).await;
            match self.store.holders(key, None).await {
                Ok(holders) if holders.iter().any(|hold| is_meant(hold, &meant)) => {}
                Ok(_) => return Ok(Forced::Released),
                // Unknown: the next round asks again.
                Err(_) => {}
            }
        }
        if meant.is_empty() {
            let forced = self.store.force_release(key).await;
            return Ok(if forced == Forced::WasFree { Forced::Released } else { forced });
        }
        // Free by now, it was released or has ended in time.
        let mut forced = Forced::Released;
        for fence in meant {
            if let Forced::Unknown(why) = self.store.force_release_grant(key, fence).await {
                forced = Forced::Unknown(why);
            }
        }
        Ok(forced)
    }
}

/// Whether a notice was for this grant; for any, if it is not known for which.
fn is_meant(hold: &HoldInfo, meant: &[u64]) -> bool {
    meant.is_empty() || hold.fence.is_some_and(|fence| meant.contains(&fence))
}

/// Never comes where there is no watch, or none any more.
async fn next_hint(watch: &mut Option<Watch>) {
    if let Some(hints) = watch
        && hints.next().await.is_some()
    {
        return;
    }
    *watch = None;
    std::future::pending().await
}

impl Shard {
    /// Gives notice to the grant here of a key that the store keeps, if it is the one that is meant.
    pub(super) fn pass_on_notice(&self, key: &Key, hash: u32, fence: Option<u64>, within: Duration) {
        self.for_each_holder(key, hash, |table, grant, now, fx| {
            let known = table.store_fence(&grant);
            let is_meant = known.is_none_or(|known| fence.is_none_or(|fence| known.get() == fence));
            if is_meant && table.claim_of(&grant).is_some() {
                table.give_notice(&grant, now.saturating_add(within), now, fx);
            }
        });
    }

    /// Whether the store keeps what holds a key here.
    pub(crate) fn is_claimed_here(&self, key: &Key, hash: u32) -> bool {
        !self.claims_on(key, hash).is_empty()
    }
}
