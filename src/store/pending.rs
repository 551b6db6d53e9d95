//! What is still to be taken back: [`PendingCleanup`] of one lock and token, [`Cleaning`] of all.
//!
//! A command that was not answered may still run. What it may leave is released until no such command can run any more
//! (`cleanup` of each store); until then the lock and the token stand here.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::clock::Moment;
use crate::key::Token;

/// The unanswered commands of one lock and token.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct PendingCleanup {
    /// None of the commands has any effect after this moment of the server's clock.
    pub(in crate::store) not_after_us: i64,
    /// The wire that carried all of them, before anything that is sent from now on. With a wrong one, a clean-up would
    /// end while a command may still run.
    wires: Wires,
    /// The key cannot outlive this moment.
    pub(in crate::store) over: Moment,
    pub(in crate::store) scope: ReleaseScope,
}

/// What is released.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store) enum ReleaseScope {
    /// Whatever the token holds.
    Any,
    /// The same. Under the token this process has given out fences up to this one.
    Claim(u64),
    /// The same, and it is probably a share (`ops/shared`).
    Share,
    /// What the token holds with this fence or a lower one: it was released before (`release_replay`).
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
pub(in crate::store) enum SendOrder {
    /// It does, on the wire of this number.
    Kept(u64),
    /// It waits for others to go out with, or goes over another connection.
    Open,
}

impl PendingCleanup {
    pub(in crate::store) fn new(over: Moment) -> Self {
        Self::of(ReleaseScope::Any, over)
    }

    pub(in crate::store) fn of(scope: ReleaseScope, over: Moment) -> Self {
        Self { not_after_us: i64::MIN, wires: Wires::None, over, scope }
    }

    /// A command was sent.
    pub(in crate::store) fn add(&mut self, order: SendOrder, not_after_us: i64) {
        self.not_after_us = self.not_after_us.max(not_after_us);
        self.wires = match (self.wires, order) {
            (Wires::None, SendOrder::Kept(wire)) => Wires::One(wire),
            (Wires::One(same), SendOrder::Kept(wire)) if same == wire => Wires::One(wire),
            _ => Wires::Several,
        };
    }

    pub(in crate::store) fn join(&mut self, other: Self) {
        self.not_after_us = self.not_after_us.max(other.not_after_us);
        self.over = self.over.max(other.over);
        self.scope = match (self.scope, other.scope) {
            (ReleaseScope::UpTo(one), ReleaseScope::UpTo(other)) => ReleaseScope::UpTo(one.max(other)),
            (ReleaseScope::Claim(one), ReleaseScope::Claim(other)) => ReleaseScope::Claim(one.max(other)),
            (ReleaseScope::Claim(fence), _) | (_, ReleaseScope::Claim(fence)) => ReleaseScope::Claim(fence),
            (ReleaseScope::Share, _) | (_, ReleaseScope::Share) => ReleaseScope::Share,
            _ => ReleaseScope::Any,
        };
        self.wires = match (self.wires, other.wires) {
            (Wires::None, wires) | (wires, Wires::None) => wires,
            (Wires::One(one), Wires::One(other)) if one == other => Wires::One(one),
            _ => Wires::Several,
        };
    }

    /// The wire that carried all of them.
    #[cfg(feature = "postgres")]
    pub(in crate::store) fn only_wire(&self) -> Option<u64> {
        match self.wires {
            Wires::One(wire) => Some(wire),
            Wires::None | Wires::Several => None,
        }
    }

    /// Whether no command can run any more after a release that `wire` answered when the server's clock showed
    /// `server_us`.
    pub(in crate::store) fn is_settled(&self, wire: u64, server_us: i64) -> bool {
        self.wires == Wires::None || self.wires == Wires::One(wire) || server_us > self.not_after_us
    }
}

/// All that is being taken back, by lock and token.
pub(in crate::store) struct Cleaning<K> {
    /// Clean-ups that run. Read without the lock, by every acquire.
    running: AtomicUsize,
    entries: Mutex<HashMap<(K, Token), Arc<Entry>>>,
    all_done: Notify,
}

/// The clean-up of one lock and token. Several calls may be behind it.
pub(in crate::store) struct Entry {
    /// A call adds to it only under the lock of all entries: else `finish` might drop what the call adds.
    pub(in crate::store) pending: Mutex<PendingCleanup>,
    done: watch::Sender<()>,
}

impl<K> Default for Cleaning<K> {
    fn default() -> Self {
        Self { running: AtomicUsize::new(0), entries: Mutex::default(), all_done: Notify::new() }
    }
}

impl<K: Clone + Eq + Hash> Cleaning<K> {
    /// The entry of a new clean-up, which the caller runs. `None`: one is running already, and does this too.
    pub(in crate::store) fn begin(&self, names: &K, token: Token, pending: PendingCleanup) -> Option<Arc<Entry>> {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get(&(names.clone(), token)) {
            entry.pending.lock().join(pending);
            return None;
        }
        let entry = Arc::new(Entry { pending: Mutex::new(pending), done: watch::Sender::new(()) });
        entries.insert((names.clone(), token), Arc::clone(&entry));
        self.running.fetch_add(1, Ordering::SeqCst);
        Some(entry)
    }

    /// Takes the entry out if it is done, unless a call has just added to it.
    pub(in crate::store) fn finish(
        &self,
        names: &K,
        token: Token,
        entry: &Entry,
        is_done: impl FnOnce(&PendingCleanup) -> bool,
    ) -> bool {
        let mut entries = self.entries.lock();
        let done = is_done(&entry.pending.lock());
        if done {
            entries.remove(&(names.clone(), token));
        }
        done
    }

    /// A clean-up has ended, also one whose runtime ended first.
    pub(in crate::store) fn end(&self, names: &K, token: Token, entry: &Arc<Entry>) {
        let mut entries = self.entries.lock();
        let at = (names.clone(), token);
        // An entry that was taken out may have a successor by now, which another clean-up ends.
        if entries.get(&at).is_some_and(|other| Arc::ptr_eq(other, entry)) {
            entries.remove(&at);
        }
        drop(entries);
        if self.running.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.all_done.notify_waiters();
        }
        entry.done.send_replace(());
    }

    /// Whether nothing at all is being taken back; one load.
    pub(in crate::store) fn is_idle(&self) -> bool {
        self.running.load(Ordering::SeqCst) == 0
    }

    /// How many locks and tokens are being taken back.
    pub(in crate::store) fn len(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    /// Whether something of this lock and token is being taken back.
    pub(in crate::store) fn is_at(&self, names: &K, token: Token) -> bool {
        !self.is_idle() && self.entries.lock().contains_key(&(names.clone(), token))
    }

    /// Waits until nothing of this lock and token is being taken back.
    pub(in crate::store) async fn wait_for(&self, names: &K, token: Token) {
        loop {
            let mut done = match self.entries.lock().get(&(names.clone(), token)) {
                Some(entry) => entry.done.subscribe(),
                None => return,
            };
            // An error means the same: the entry is gone.
            let _ = done.changed().await;
        }
    }

    /// Waits until nothing at all is being taken back.
    pub(in crate::store) async fn wait_for_all(&self) {
        loop {
            let all_done = self.all_done.notified();
            if self.is_idle() {
                return;
            }
            all_done.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cleanup_is_settled_in_order_on_its_one_wire_or_after_its_time() {
        let mut pending = PendingCleanup::new(Moment::FAR);
        assert!(pending.is_settled(7, 0), "nothing was sent");
        pending.add(SendOrder::Kept(7), 100);
        assert!(pending.is_settled(7, 0), "the server keeps the order of a wire");
        assert!(!pending.is_settled(8, 100), "the other wire's command may still run");
        assert!(pending.is_settled(8, 101));
        pending.add(SendOrder::Kept(8), 200);
        assert!(!pending.is_settled(7, 101) && !pending.is_settled(8, 200));
        assert!(pending.is_settled(9, 201));
    }

    #[test]
    fn a_cleanup_of_a_command_that_waited_for_others_is_settled_after_its_time() {
        let mut pending = PendingCleanup::new(Moment::FAR);
        pending.add(SendOrder::Open, 100);
        assert!(!pending.is_settled(7, 100), "it may go out after the release");
        assert!(pending.is_settled(7, 101));
    }

    #[test]
    fn a_joined_cleanup_keeps_the_highest_fence_that_was_given_out() {
        use ReleaseScope::{Any, Claim, UpTo};
        let joined = |one, other| {
            let mut pending = PendingCleanup::of(one, Moment::ZERO);
            pending.join(PendingCleanup::of(other, Moment::ZERO));
            pending.scope
        };
        assert_eq!((joined(Claim(2), Claim(3)), joined(Any, Claim(3))), (Claim(3), Claim(3)));
        assert_eq!((joined(Claim(2), UpTo(9)), joined(UpTo(9), Any)), (Claim(2), Any));
    }

    #[test]
    fn joined_cleanups_are_settled_when_both_are() {
        for (one, other, wire, settled) in [(1, 1, 1, true), (1, 2, 1, false), (1, 2, 2, false)] {
            let (mut pending, mut more) = (PendingCleanup::new(Moment::ZERO), PendingCleanup::new(Moment::FAR));
            pending.add(SendOrder::Kept(one), 100);
            more.add(SendOrder::Kept(other), 200);
            pending.join(more);
            assert_eq!(pending.is_settled(wire, 150), settled, "{one} {other} {wire}");
            assert_eq!(pending.over, Moment::FAR);
        }
    }
}
