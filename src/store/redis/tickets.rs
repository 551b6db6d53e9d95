//! This process's places in the queues of keys that others hold (R16): [`Tickets`].
//!
//! A try that waits takes a ticket; the script judges tickets by the server's clock. One task renews all tickets of
//! the process, apart from anybody's polling, so that a slow poller keeps its place and a dead process loses it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::call::call;
use super::names::Names;
use super::script::{LEAVE, Parts, RENEW};
use super::{Inner, millis};
use crate::store::{Acquired, Intent};

/// How long a ticket lives without being renewed: so long a dead process holds the others up.
pub(super) const TICKET: Duration = Duration::from_secs(1);

/// The queues in which this process has a place.
#[derive(Default)]
pub(super) struct Tickets {
    held: Mutex<HashMap<Names, ()>>,
    first: Notify,
}

impl Tickets {
    /// A denied try has a ticket, to be renewed from now on; the ticket of a granted one is used up. Called by the try
    /// itself: one that was dropped holds no place, so that nobody has to give it up (its ticket runs out).
    pub(super) fn settle(&self, names: &Names, intent: Intent, answer: &Acquired) {
        let mut held = self.held.lock();
        match answer {
            Acquired::Denied { .. } if intent == Intent::Wait && !held.contains_key(names) => {
                held.insert(names.clone(), ());
                if held.len() == 1 {
                    self.first.notify_one();
                }
            }
            Acquired::Granted { .. } => {
                held.remove(names);
            }
            _ => {}
        }
    }

    /// Gives the place up: forgets it here at once, and tells the server when it can be told. If it cannot, the
    /// ticket runs out.
    pub(super) fn leave(inner: &Arc<Inner>, names: Names) {
        inner.tickets.held.lock().remove(&names);
        let Some(runtime) = inner.runtime() else { return };
        let inner = Arc::clone(inner);
        runtime.spawn(async move {
            let telling = call(&inner, &names, &LEAVE, inner.now(), (), |_| {
                let parts = Parts::of([names.lock(), names.queue(), names.alive()]);
                parts.arg(&inner.config.process).arg(names.wake())
            });
            // Unanswered, it ends by itself.
            let _ = telling.await;
        });
    }

    /// Renews for as long as it is polled.
    pub(super) async fn run(inner: Arc<Inner>) {
        loop {
            let held: Vec<Names> = inner.tickets.held.lock().keys().cloned().collect();
            if held.is_empty() {
                inner.tickets.first.notified().await;
            }
            // All at once: they go out in one piece.
            join_all(held.iter().map(|names| renew(&inner, names))).await;
            tokio::time::sleep(TICKET / 3).await;
        }
    }
}

async fn renew(inner: &Inner, names: &Names) {
    if !inner.tickets.held.lock().contains_key(names) {
        return;
    }
    let renewing = call(inner, names, &RENEW, inner.now(), (), |_| {
        Parts::of([names.queue(), names.alive()]).arg(&inner.config.process).arg(millis(TICKET))
    });
    // Unanswered, it is renewed in a third of its life, or taken anew by the next try.
    let _ = renewing.await;
}
