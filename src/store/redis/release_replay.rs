//! Releases again, after a failover, what was released shortly before ([`run`]).
//!
//! A master that dies takes along what it had not passed on, releases too: then its successor still holds keys that
//! their holders released, for what is left of their TTL, and everybody waits for nobody. So whenever a connection
//! comes up, the last releases are repeated. A release compares the token, so that it can hit nothing newer (R4); a client
//! may have taken the lock with the same token again, through another process, so a repetition compares the fence as well:
//! it spares a lock whose fence is above all that this process had seen at the release.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::inner::Inner;
use super::keys::KeyNames;
use crate::key::Token;
use crate::store::owed::take_back;
use crate::store::pending::{PendingCleanup, ReleaseScope};

/// So many are repeated at a time.
const AT_ONCE: usize = 64;
/// For so long a repetition that is not answered is tried again.
const TRIED_FOR: Duration = Duration::from_secs(3);

/// Repeats the last releases whenever a connection comes up, for as long as it is polled.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut reconnects = inner.servers.reconnects();
    // An error means that there are no connections any more.
    while reconnects.changed().await.is_ok() {
        let all = inner.recent_releases.all();
        let each = |(token, names, fence)| repeat(&inner, token, names, fence);
        let repeating = stream::iter(all).for_each_concurrent(AT_ONCE, each);
        tokio::select! {
            () = repeating => {}
            // All are repeated again: the server that came up may be another master.
            _ = async { reconnects.clone().changed().await } => {}
        }
    }
}

/// Repeats one release, as a clean-up: a try that uses the token again waits until no late command can hit what it then
/// holds (S5), and a release whose token was used again before is spared.
async fn repeat(inner: &Arc<Inner>, token: Token, names: KeyNames, fence: u64) {
    // A try forgets the release before that, and it is not repeated; or after that, and sees the clean-up.
    inner.recent_releases.if_known(&names, token, || {
        let pending = PendingCleanup::of(ReleaseScope::UpTo(fence), inner.now().saturating_add(TRIED_FOR));
        take_back(inner, names.clone(), token, pending);
    });
    inner.cleaning.wait_for(&names, token).await;
}
