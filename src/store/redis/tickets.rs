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
use super::script::{LEAVE, RENEW};
use super::{Inner, millis};
use crate::store::Intent;

/// How long a ticket lives without being renewed: so long a dead process holds the others up.
pub(super) const TICKET: Duration = Duration::from_secs(1);

/// The queues in which this process has, or may have, a place.
#[derive(Default)]
pub(super) struct Tickets {
    held: Mutex<HashMap<Names, ()>>,
    first: Notify,
}

impl Tickets {
    /// From now on the ticket is renewed, if there is one.
    pub(super) fn hold(&self, names: &Names) {
        let mut held = self.held.lock();
        if !held.contains_key(names) {
            held.insert(names.clone(), ());
            if held.len() == 1 {
                self.first.notify_one();
            }
        }
    }

    /// The script has taken the ticket in.
    pub(super) fn granted(&self, names: &Names, intent: Intent) {
        if intent == Intent::Wait {
            self.held.lock().remove(names);
        }
    }

    /// Gives the place up: forgets it here at once, and tells the server when it can be told. If it cannot, the
    /// ticket runs out.
    pub(super) fn leave(inner: &Arc<Inner>, names: Names) {
        inner.tickets.held.lock().remove(&names);
        let Some(runtime) = inner.runtime() else { return };
        let inner = Arc::clone(inner);
        runtime.spawn(async move {
            let telling = call(&inner, &names, &LEAVE, inner.now(), (), |command, _| {
                command.arg(3).arg(names.lock()).arg(names.queue()).arg(names.alive());
                command.arg(&*inner.config.process).arg(names.wake());
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
    let renewing = call(inner, names, &RENEW, inner.now(), (), |command, _| {
        command.arg(2).arg(names.queue()).arg(names.alive()).arg(&*inner.config.process).arg(millis(TICKET));
    });
    // Unanswered, it is renewed in a third of its life, or taken anew by the next try.
    let _ = renewing.await;
}
