//! This process's places in queues (R16): one ticket per key, kept alive while somebody here waits for it.
//!
//! The script that denies a try takes the place; this renews all of them together, three times in the life of a ticket,
//! however seldom the waiters try. A process that dies stops renewing, and holds nobody up for longer than that.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::RedisResult;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Shared;
use super::acquire::millis;
use super::names::Names;
use super::script::{Form, LEAVE, RENEW};
use crate::key::Key;

/// How long a ticket lives that is not renewed.
pub(super) const TICKET: Duration = Duration::from_secs(1);
/// So many are renewed in one go.
const BATCH: usize = 256;

/// The keys that this process waits for, by the name of the lock.
#[derive(Default)]
pub(super) struct Tickets(Mutex<HashMap<Box<str>, Names>>);

impl Tickets {
    pub(super) fn keep(&self, names: &Names) {
        let mut tickets = self.0.lock();
        if !tickets.contains_key(names.lock()) {
            tickets.insert(names.lock().into(), names.clone());
        }
    }

    pub(super) fn forget(&self, lock: &str) {
        self.0.lock().remove(lock);
    }

    pub(super) fn has(&self, lock: &str) -> bool {
        self.0.lock().contains_key(lock)
    }

    fn all(&self) -> Vec<Names> {
        self.0.lock().values().cloned().collect()
    }
}

impl Shared {
    pub(super) fn leave(self: &Arc<Self>, key: &Key) {
        // What has no names has no ticket.
        let Ok(names) = Names::new(&self.settings.template, key) else { return };
        self.tickets.forget(names.lock());
        let shared = Arc::clone(self);
        self.spawn(async move { shared.leave_queue(&names).await });
    }

    /// Asked once: a ticket that nobody renews ends by itself.
    pub(super) async fn leave_queue(&self, names: &Names) {
        let leave = self.call(&LEAVE, self.ticks.now(), |command, _| {
            command.arg(3).arg(names.lock()).arg(names.queue()).arg(names.alive());
            command.arg(&*self.settings.process).arg(names.wake());
        });
        drop(leave.await);
    }

    /// Renews until it is dropped.
    pub(super) async fn renew_tickets(&self) {
        let mut beat = interval(TICKET / 3);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            for batch in self.tickets.all().chunks(BATCH) {
                // A renewal that fails is made good by the next, or by the next try.
                drop(timeout(self.settings.operation_timeout, self.renew(batch)).await);
            }
        }
    }

    async fn renew(&self, batch: &[Names]) -> RedisResult<()> {
        let Ok(link) = self.line.link().await else { return Ok(()) };
        let mut pipe = redis::pipe();
        for (at, names) in batch.iter().enumerate() {
            // The first makes the script known to those behind it (R7).
            let form = if at == 0 { Form::Body } else { Form::Hash };
            let mut command = RENEW.command(form);
            command.arg(2).arg(names.queue()).arg(names.alive()).arg(&*self.settings.process).arg(millis(TICKET));
            pipe.add_command(command).ignore();
        }
        pipe.query_async(&mut link.connection.clone()).await
    }
}
