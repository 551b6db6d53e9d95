//! Taking back what nobody received (R5): [`Guard`], [`Cleaning`].
//!
//! A guard goes along with each acquire and release. While it is armed, dropping it (a dropped future, an unknown
//! answer) starts a task of the store's that releases by comparison until no late command can undo that any more:
//! until a release was answered on the wire that carried all unanswered commands, whose order the server keeps, or
//! was answered after the last not-after of them. It also ends when the key must have run out by itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::Inner;
use super::call::Confirm;
use super::keys::KeyNames;
use super::ops::release;
use crate::backoff::Backoff;
use crate::clock::Moment;
use crate::key::Token;
use crate::supervise::guarded;

/// Between two tries, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));
/// The same while the server refuses us.
const REFUSED: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// What is being taken back just now, by lock and token.
#[derive(Default)]
pub(in crate::store) struct Cleaning {
    under_way: AtomicUsize,
    entries: Mutex<HashMap<(KeyNames, Token), Arc<Entry>>>,
    settled: Notify,
}

/// One lock and token. Several calls may be behind it.
struct Entry {
    debt: Mutex<PendingCleanup>,
    done: watch::Sender<()>,
}

/// The unanswered commands of one lock and token.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct PendingCleanup {
    /// None of them has any effect after this moment of the server's clock.
    not_after_us: i64,
    /// The wire that carried them all, before anything that is sent from now on.
    wires: Wires,
    /// The key cannot outlive this moment.
    over: Moment,
    what: What,
}

/// What is released.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum What {
    /// Whatever the token holds.
    Any,
    /// What it holds with this fence or a lower one: it was released before (`release_replay`).
    UpTo(u64),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wires {
    None,
    One(u64),
    Several,
}

/// Whether a command stays before what is sent later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store) enum Order {
    /// It does, on this wire.
    Kept(u64),
    /// It waits for others to go out with, or goes by another connection.
    Open,
}

impl PendingCleanup {
    pub(in crate::store) fn new(over: Moment) -> Self {
        Self { not_after_us: i64::MIN, wires: Wires::None, over, what: What::Any }
    }

    /// Of a release that is repeated, although it was answered.
    pub(super) fn of_repetition(over: Moment, fence: u64) -> Self {
        Self { what: What::UpTo(fence), ..Self::new(over) }
    }

    /// A command was sent.
    pub(in crate::store) fn add(&mut self, order: Order, not_after_us: i64) {
        self.not_after_us = self.not_after_us.max(not_after_us);
        self.wires = match (self.wires, order) {
            (Wires::None, Order::Kept(wire)) => Wires::One(wire),
            (Wires::One(same), Order::Kept(wire)) if same == wire => Wires::One(wire),
            _ => Wires::Several,
        };
    }

    fn join(&mut self, other: Self) {
        self.not_after_us = self.not_after_us.max(other.not_after_us);
        self.over = self.over.max(other.over);
        self.what = match (self.what, other.what) {
            (What::UpTo(one), What::UpTo(other)) => What::UpTo(one.max(other)),
            _ => What::Any,
        };
        self.wires = match (self.wires, other.wires) {
            (Wires::None, wires) | (wires, Wires::None) => wires,
            (Wires::One(one), Wires::One(other)) if one == other => Wires::One(one),
            _ => Wires::Several,
        };
    }

    /// Whether nothing is owed after a release that `wire` answered when the server's clock showed `server_us`.
    pub(super) fn is_paid(&self, wire: u64, server_us: i64) -> bool {
        self.wires == Wires::None || self.wires == Wires::One(wire) || server_us > self.not_after_us
    }
}

/// Goes along with a call, and takes back what it may have left if it does not end well.
pub(in crate::store) struct Guard {
    inner: Arc<Inner>,
    armed: Option<(KeyNames, Token, PendingCleanup)>,
    pub(super) confirm: Confirm,
}

impl Guard {
    /// A guard that takes back what `token` may come to hold.
    pub(in crate::store) fn new(
        inner: &Arc<Inner>,
        names: &KeyNames,
        token: Token,
        debt: PendingCleanup,
        confirm: Confirm,
    ) -> Self {
        Self { inner: Arc::clone(inner), armed: Some((names.clone(), token, debt)), confirm }
    }

    /// A command is about to be sent.
    pub(super) fn sending(&mut self, order: Order, not_after_us: i64) {
        if let Some((_, _, debt)) = &mut self.armed {
            debt.add(order, not_after_us);
        }
    }

    /// It ended well.
    pub(in crate::store) fn disarm(&mut self) {
        self.armed = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some((names, token, debt)) = self.armed.take() {
            take_back(&self.inner, names, token, debt);
        }
    }
}

/// Takes back what a token holds or may come to hold, in the background.
pub(in crate::store) fn take_back(inner: &Arc<Inner>, names: KeyNames, token: Token, debt: PendingCleanup) {
    let Some(runtime) = inner.runtime() else { return };
    let mut entries = inner.cleaning.entries.lock();
    if let Some(entry) = entries.get(&(names.clone(), token)) {
        entry.debt.lock().join(debt);
        return;
    }
    let entry = Arc::new(Entry { debt: Mutex::new(debt), done: watch::Sender::new(()) });
    entries.insert((names.clone(), token), Arc::clone(&entry));
    inner.cleaning.under_way.fetch_add(1, Ordering::SeqCst);
    let work = Work { inner: Arc::clone(inner), names, token, entry };
    drop(entries);
    runtime.spawn(guarded("a clean-up", async move { work.run().await }));
}

struct Work {
    inner: Arc<Inner>,
    names: KeyNames,
    token: Token,
    entry: Arc<Entry>,
}

impl Work {
    async fn run(self) {
        let (mut unknown, mut refused) = (Backoff::new(PAUSE.0, PAUSE.1), Backoff::new(REFUSED.0, REFUSED.1));
        // What was sent has no effect after that.
        let late = self.inner.config.operation_timeout * 2;
        loop {
            self.until_reachable().await;
            if self.inner.runtime().is_none() {
                // It was stopped, and nothing will be answered any more.
                return;
            }
            let now = self.inner.now();
            if self.finish(|debt| now > debt.over.saturating_add(late)) {
                return;
            }
            if now > self.entry.debt.lock().over {
                // The key has run out, and is not released any more: its token may be taken up again when this ends.
                tokio::time::sleep(PAUSE.1).await;
                continue;
            }
            let what = self.entry.debt.lock().what;
            let mut sent = PendingCleanup { what, ..PendingCleanup::new(Moment::ZERO) };
            let answer = release::once(&self.inner, &self.names, self.token, what, &mut sent).await;
            let wait = match answer {
                Ok((wire, server_us)) => {
                    let owed = *self.entry.debt.lock();
                    if owed.is_paid(wire, server_us) && self.finish(|debt| debt.is_paid(wire, server_us)) {
                        return;
                    }
                    let left_us = u64::try_from(owed.not_after_us.saturating_sub(server_us)).unwrap_or(0);
                    Duration::from_micros(left_us).saturating_add(Duration::from_millis(1)).min(PAUSE.1)
                }
                Err(why) => {
                    self.entry.debt.lock().join(sent);
                    if why.is_refusal() { refused.next() } else { unknown.next() }
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Rests while the server is away, for as long as anything is owed: there may be many of us.
    async fn until_reachable(&self) {
        let Some(link) = self.inner.link() else { return };
        loop {
            let left = self.entry.debt.lock().over.saturating_since(self.inner.now());
            if left.is_zero() || tokio::time::timeout(left, link.wire()).await.is_ok() {
                return;
            }
        }
    }

    /// Takes the entry out if `so`, unless a call has just added to it.
    fn finish(&self, so: impl FnOnce(&PendingCleanup) -> bool) -> bool {
        let mut entries = self.inner.cleaning.entries.lock();
        let done = so(&self.entry.debt.lock());
        if done {
            entries.remove(&(self.names.clone(), self.token));
        }
        done
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // Also when the runtime ends first. What was taken out may have a successor by now, which is not ours.
        let mut entries = self.inner.cleaning.entries.lock();
        let at = (self.names.clone(), self.token);
        if entries.get(&at).is_some_and(|entry| Arc::ptr_eq(entry, &self.entry)) {
            entries.remove(&at);
        }
        drop(entries);
        if self.inner.cleaning.under_way.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.inner.cleaning.settled.notify_waiters();
        }
        self.entry.done.send_replace(());
    }
}

impl Cleaning {
    /// Whether nothing at all is being taken back; one load.
    pub(in crate::store) fn is_idle(&self) -> bool {
        self.under_way.load(Ordering::SeqCst) == 0
    }

    /// How many locks and tokens are being taken back.
    pub(in crate::store) fn len(&self) -> usize {
        self.under_way.load(Ordering::SeqCst)
    }

    /// Whether something of this lock and token is being taken back.
    pub(in crate::store) fn is_at(&self, names: &KeyNames, token: Token) -> bool {
        !self.is_idle() && self.entries.lock().contains_key(&(names.clone(), token))
    }

    /// Waits until nothing of this lock and token is being taken back.
    pub(in crate::store) async fn wait_for(&self, names: &KeyNames, token: Token) {
        loop {
            let mut done = match self.entries.lock().get(&(names.clone(), token)) {
                Some(entry) => entry.done.subscribe(),
                None => return,
            };
            // An error says the same: the entry is gone.
            let _ = done.changed().await;
        }
    }

    /// Waits until nothing at all is being taken back.
    pub(super) async fn wait_for_all(&self) {
        loop {
            let settled = self.settled.notified();
            if self.is_idle() {
                return;
            }
            settled.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debt_is_paid_in_order_on_its_one_wire_or_after_its_time() {
        let mut debt = PendingCleanup::new(Moment::FAR);
        assert!(debt.is_paid(7, 0), "nothing was sent");
        debt.add(Order::Kept(7), 100);
        assert!(debt.is_paid(7, 0), "the server keeps the order of a wire");
        assert!(!debt.is_paid(8, 100), "the other wire's command may still run");
        assert!(debt.is_paid(8, 101));
        debt.add(Order::Kept(8), 200);
        assert!(!debt.is_paid(7, 101) && !debt.is_paid(8, 200));
        assert!(debt.is_paid(9, 201));
    }

    #[test]
    fn a_debt_of_a_command_that_waited_for_others_is_paid_after_its_time() {
        let mut debt = PendingCleanup::new(Moment::FAR);
        debt.add(Order::Open, 100);
        assert!(!debt.is_paid(7, 100), "it may go out after the release");
        assert!(debt.is_paid(7, 101));
    }

    #[test]
    fn joined_debts_are_paid_when_both_are() {
        for (one, other, wire, paid) in [(1, 1, 1, true), (1, 2, 1, false), (1, 2, 2, false)] {
            let (mut debt, mut more) = (PendingCleanup::new(Moment::ZERO), PendingCleanup::new(Moment::FAR));
            debt.add(Order::Kept(one), 100);
            more.add(Order::Kept(other), 200);
            debt.join(more);
            assert_eq!(debt.is_paid(wire, 150), paid, "{one} {other} {wire}");
            assert_eq!(debt.over, Moment::FAR);
        }
    }
}
