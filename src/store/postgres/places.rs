//! This process's places in the queues of keys that others hold (S9): [`Places`].
//!
//! A try that waits takes a ticket, which lives for about a second by the server's clock. One task renews all of them
//! ([`renew`](super::renew)), apart from the tries, and the answer says how each stands: so no listener depends on a
//! message. A ticket begins with the number of its process, which names the channel that the process is called on.
//!
//! | of a place | what becomes of it |
//! |---|---|
//! | a try is in flight | it is left alone |
//! | somebody listens for its turn | its ticket is renewed; the listener gets a hint when to try again, also if the ticket is gone or was never taken |
//! | nobody does any more | its ticket is renewed for [`ABANDONED`], then given up: [`leave`](Places::leave) was not called |
//! | its only try was dropped | the ticket that it may have taken runs out |

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::clock::{Clock, Moment};
use crate::key::Key;
use crate::store::{Acquired, Denial, Hint, OnHeld, Sender, Watch};

/// How long a ticket lives without being renewed: so long a dead process holds the others up.
pub(super) const TICKET: Duration = Duration::from_secs(1);
/// Between two renewals of a ticket.
pub(super) const ROUND: Duration = Duration::from_millis(TICKET.as_millis() as u64 / 3);
/// After so long a place for which nobody has asked or listened is given up.
const ABANDONED: Duration = Duration::from_secs(5);

/// The queues in which this process has a place.
pub(super) struct Places {
    clock: Clock,
    /// What its tickets begin with.
    process: u64,
    next: AtomicU64,
    places: Mutex<HashMap<Key, Place>>,
    /// There is something to renew.
    pub(super) wake: Notify,
}

/// A place in one queue, from the first try on.
struct Place {
    number: u64,
    ticket: Ticket,
    /// Tries in flight.
    tries: u32,
    /// Those who listen for the turn of this process.
    listeners: Vec<(u64, Sender<Hint>)>,
    /// It was called while nobody listened: the next listener gets a hint at once. Cleared by the next try, which sees
    /// what it was called for.
    called: bool,
    /// When somebody last stopped asking or listening.
    since: Moment,
    /// When it was taken or renewed last.
    renewed: Moment,
}

/// Whether a place has a ticket in the store.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ticket {
    None,
    /// A try was not answered.
    Perhaps,
    Taken,
}

impl Place {
    fn is_wanted(&self) -> bool {
        self.tries > 0 || !self.listeners.is_empty()
    }

    fn is_over(&self) -> bool {
        !self.is_wanted() && self.ticket == Ticket::None
    }

    fn notify(&mut self, hint: Hint) {
        self.called = self.listeners.is_empty();
        for (_, sender) in &self.listeners {
            // A listener that is gone takes itself out.
            let _ = sender.send(hint);
        }
    }
}

/// What is to be done about all places.
#[derive(Default)]
pub(super) struct Round {
    /// Tickets to renew.
    pub(super) renewals: Vec<(Key, Uuid)>,
    /// Given up here; the server is still to forget them.
    pub(super) abandoned: Vec<(Key, Uuid)>,
}

/// How a renewed ticket stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    Gone,
    Waits,
    Turn,
}

/// A try in flight. Dropped before it is settled, it may have taken a ticket.
pub(super) struct TicketedTry {
    /// `None` if the try does not wait.
    places: Option<Arc<Places>>,
    key: Key,
    number: u64,
}

impl Places {
    pub(super) fn new(process: u64) -> Self {
        Self { clock: Clock::system(), process, next: AtomicU64::new(1), places: Mutex::default(), wake: Notify::new() }
    }

    /// The beginning of its tickets, as the server writes them.
    pub(super) fn process(&self) -> String {
        self.ticket(0).hyphenated().to_string()[..18].to_owned()
    }

    fn ticket(&self, number: u64) -> Uuid {
        Uuid::from_u64_pair(self.process, number)
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn new_place(&self) -> Place {
        let now = self.clock.now();
        let (ticket, listeners) = (Ticket::None, Vec::new());
        Place { number: self.number(), ticket, tries: 0, listeners, called: false, since: now, renewed: now }
    }

    /// Begins a try.
    pub(super) fn begin_try(self: &Arc<Self>, key: &Key, on_held: OnHeld) -> TicketedTry {
        if on_held == OnHeld::Fail {
            return TicketedTry { places: None, key: key.clone(), number: 0 };
        }
        let mut places = self.places.lock();
        let place = places.entry(key.clone()).or_insert_with(|| self.new_place());
        // This try sees what it was called for.
        place.called = false;
        place.tries += 1;
        TicketedTry { places: Some(Arc::clone(self)), key: key.clone(), number: place.number }
    }

    /// Listens for the turn of this process: a hint comes when it is time to try again.
    pub(super) fn turn(self: &Arc<Self>, key: &Key) -> Watch {
        let id = self.number();
        let (weak, left) = (Arc::downgrade(self), key.clone());
        let (sender, watch) = Watch::new(move || {
            if let Some(this) = weak.upgrade() {
                this.stop_listening(&left, id);
            }
        });
        let mut places = self.places.lock();
        let place = places.entry(key.clone()).or_insert_with(|| self.new_place());
        place.listeners.push((id, sender));
        if place.called {
            place.notify(Hint::Released);
        }
        drop(places);
        self.wake.notify_one();
        watch
    }

    fn stop_listening(&self, key: &Key, id: u64) {
        let mut places = self.places.lock();
        let Some(place) = places.get_mut(key) else { return };
        place.listeners.retain(|(other, _)| *other != id);
        place.since = self.clock.now();
        if place.is_over() {
            places.remove(key);
        }
    }

    /// It is this process's turn, or may be: a message says so.
    pub(super) fn called(&self, key: &str) {
        self.hint(key, Hint::Released);
    }

    /// Passes a hint to those who listen for the turn at a key.
    pub(super) fn hint(&self, key: &str, hint: Hint) {
        if let Ok(key) = Key::new(key)
            && let Some(place) = self.places.lock().get_mut(&key)
        {
            place.notify(hint);
        }
    }

    /// Messages may have been missed: everybody is to try.
    pub(super) fn hint_all(&self) {
        self.places.lock().values_mut().for_each(|place| place.notify(Hint::Resumed));
    }

    /// Ends all places, and what listens for them.
    pub(super) fn end(&self) {
        self.places.lock().clear();
    }

    /// Gives a place up, unless a call of this process still tries or listens for it. Answers what the server is still to
    /// forget.
    pub(super) fn leave(&self, key: &Key) -> Option<Uuid> {
        let mut places = self.places.lock();
        if places.get(key)?.is_wanted() {
            return None;
        }
        let place = places.remove(key)?;
        (place.ticket != Ticket::None).then(|| self.ticket(place.number))
    }

    /// Whether there is nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        self.places.lock().is_empty()
    }

    /// What is to be renewed now, and what nobody wants any more.
    pub(super) fn round(&self) -> Round {
        let (now, mut round) = (self.clock.now(), Round::default());
        self.places.lock().retain(|key, place| {
            let idle = now.saturating_since(place.since);
            let is_due = now.saturating_since(place.renewed) >= ROUND;
            match (place.is_wanted(), place.ticket) {
                (true, Ticket::None | Ticket::Perhaps) if is_due && place.tries == 0 => {
                    // It listens without a ticket: a try takes one.
                    place.renewed = now;
                    place.notify(Hint::Free);
                }
                (wanted, Ticket::Taken) if wanted || idle < ABANDONED => {
                    if is_due {
                        place.renewed = now;
                        round.renewals.push((key.clone(), self.ticket(place.number)));
                    }
                }
                (true, _) => {}
                (false, Ticket::Taken) => {
                    round.abandoned.push((key.clone(), self.ticket(place.number)));
                    return false;
                }
                (false, _) => return idle < TICKET,
            }
            true
        });
        round
    }

    /// How a ticket stands.
    pub(super) fn renewed(&self, key: &Key, ticket: Uuid, standing: Standing) {
        let mut places = self.places.lock();
        let Some(place) = places.get_mut(key).filter(|place| self.ticket(place.number) == ticket) else { return };
        match standing {
            Standing::Waits => {}
            Standing::Turn => place.notify(Hint::Released),
            Standing::Gone => {
                // A try that is under way takes it again.
                place.ticket = Ticket::None;
                place.notify(Hint::Free);
                if place.is_over() {
                    places.remove(key);
                }
            }
        }
    }
}

impl TicketedTry {
    /// What the server knows the place by.
    pub(super) fn ticket(&self) -> Option<Uuid> {
        self.places.as_ref().map(|places| places.ticket(self.number))
    }

    /// The try was answered.
    pub(super) fn settle(mut self, answer: &Acquired) {
        let Some(places) = self.places.take() else { return };
        match answer {
            Acquired::Granted { .. } => self.end(&places, Some(Ticket::None)),
            Acquired::Denied { why: Denial::Held | Denial::Ahead | Denial::OutOfMemory, .. } => {
                self.end(&places, Some(Ticket::Taken));
            }
            _ => self.end(&places, None),
        }
    }

    fn end(&self, places: &Places, ticket: Option<Ticket>) {
        let now = places.clock.now();
        let mut all = places.places.lock();
        let Some(place) = all.get_mut(&self.key) else { return };
        place.tries = place.tries.saturating_sub(1);
        place.since = now;
        if place.number == self.number {
            match ticket {
                // It is used up.
                Some(Ticket::None) => (place.number, place.ticket) = (places.number(), Ticket::None),
                Some(taken) => (place.ticket, place.renewed) = (taken, now),
                None if place.ticket == Ticket::None => place.ticket = Ticket::Perhaps,
                None => {}
            }
        }
        if place.is_over() {
            all.remove(&self.key);
        }
        drop(all);
        places.wake.notify_one();
    }
}

impl Drop for TicketedTry {
    fn drop(&mut self) {
        if let Some(places) = self.places.take() {
            self.end(&places, None);
        }
    }
}
