//! What must happen once the shard's mutex is dropped: wake-ups and notices, never run under it (peer bug 22). So with
//! wakers that are only dropped: that too may run code of the caller's.
//!
//! They run when this is dropped, so that a panic in between hangs nobody.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;

use super::claim::{ReleaseCommand, StoreCommand, StoreCommands};
use super::events::{Event, Sink};
use super::history::End;
use super::owner::Owner;
use super::slot::Watcher;
use crate::clock::Moment;
use crate::wakes;

pub(crate) struct Effects {
    /// Most transitions wake nobody, most of the others one task: neither costs more than this field.
    wake: Option<Waker>,
    more: Option<Box<More>>,
    /// The earliest deadline that somebody now waits for.
    earliest: Moment,
}

#[derive(Default)]
struct More {
    wakes: Vec<Waker>,
    notices: Vec<(Arc<dyn Watcher>, Notice)>,
    events: Vec<(Arc<dyn Sink>, Event)>,
    commands: Vec<(Arc<dyn StoreCommands>, StoreCommand)>,
    /// Owners that were granted one key while they wait for another: that may have closed a cycle.
    rechecks: Vec<Arc<Owner>>,
    /// Wakers that nobody will wake. Dropping one may drop a task, and with it a lock of this very shard.
    spent: Vec<Waker>,
}

/// What a watcher is notified of.
enum Notice {
    Ended(End),
    AskedBack(Moment),
}

impl More {
    #[cold]
    fn run(self) {
        // The store first: whoever is woken below may ask it for the same key.
        for (store, command) in self.commands {
            let _ = catch_unwind(AssertUnwindSafe(|| store.run(command)));
        }
        for (watcher, notice) in self.notices {
            // A watcher is ours and does not panic; its own wakers may.
            let _ = catch_unwind(AssertUnwindSafe(|| match notice {
                Notice::Ended(end) => watcher.ended(end),
                Notice::AskedBack(deadline) => watcher.revocation_notice(deadline),
            }));
        }
        for (sink, event) in self.events {
            let _ = catch_unwind(AssertUnwindSafe(|| sink.publish(event)));
        }
        for waker in self.wakes {
            wakes::wake_safely(waker);
        }
        for waker in self.spent {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(waker)));
        }
    }
}

impl Effects {
    pub(crate) const fn new() -> Self {
        Self { wake: None, more: None, earliest: Moment::FAR }
    }

    /// Somebody waits for this deadline: the actor must not sleep past it.
    pub(crate) fn due(&mut self, deadline: Moment) {
        self.earliest = self.earliest.min(deadline);
    }

    pub(crate) fn earliest(&self) -> Moment {
        self.earliest
    }

    pub(crate) fn wake(&mut self, waker: Waker) {
        match self.wake {
            None => self.wake = Some(waker),
            Some(_) => self.more.get_or_insert_default().wakes.push(waker),
        }
    }

    /// Drops wakers after the mutex.
    pub(crate) fn discard(&mut self, wakers: impl IntoIterator<Item = Waker>) {
        for waker in wakers {
            self.more.get_or_insert_default().spent.push(waker);
        }
    }

    pub(crate) fn ended(&mut self, watcher: Arc<dyn Watcher>, end: End) {
        self.more.get_or_insert_default().notices.push((watcher, Notice::Ended(end)));
    }

    pub(crate) fn revocation_notice(&mut self, watcher: Arc<dyn Watcher>, deadline: Moment) {
        self.more.get_or_insert_default().notices.push((watcher, Notice::AskedBack(deadline)));
    }

    pub(crate) fn publish(&mut self, sink: Arc<dyn Sink>, event: Event) {
        self.more.get_or_insert_default().events.push((sink, event));
    }

    pub(crate) fn command(&mut self, store: Arc<dyn StoreCommands>, command: StoreCommand) {
        let commands = &mut self.more.get_or_insert_default().commands;
        if commands.last_mut().is_none_or(|(_, last)| !last.takes_up(&command)) {
            if commands.is_empty() {
                // Mostly it is the only one, and large.
                commands.reserve_exact(1);
            }
            commands.push((store, command));
        }
    }

    /// Takes out the releases that the store would be asked for: the caller sends them itself, to get their answers.
    pub(crate) fn take_releases(&mut self, mut send: impl FnMut(ReleaseCommand)) {
        let Some(more) = self.more.as_mut() else { return };
        for (store, command) in std::mem::take(&mut more.commands) {
            match command {
                StoreCommand::Release(release) => send(release),
                other => more.commands.push((store, other)),
            }
        }
    }

    /// Has the deadlock check look at an owner again.
    pub(crate) fn recheck(&mut self, owner: Arc<Owner>) {
        self.more.get_or_insert_default().rechecks.push(owner);
    }

    /// The owners to look at again, if there are any. Whoever runs the transition takes them out: effects know no deadlock check.
    #[inline]
    pub(crate) fn take_rechecks(&mut self) -> Option<Vec<Arc<Owner>>> {
        let rechecks = &mut self.more.as_mut()?.rechecks;
        (!rechecks.is_empty()).then(|| std::mem::take(rechecks))
    }
}

/// Tells and wakes. One waker that panics keeps no other from being woken.
impl Drop for Effects {
    #[inline]
    fn drop(&mut self) {
        if let Some(more) = self.more.take() {
            more.run();
        }
        if let Some(waker) = self.wake.take() {
            wakes::wake_safely(waker);
        }
    }
}
