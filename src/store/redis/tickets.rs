//! This process's places in the queues of keys that others hold (R16): [`Tickets`].
//!
//! A try that waits takes a ticket; the scripts judge tickets by the server's clock. A release calls the first ticket, by
//! a message on a channel of its process, and nobody else: what a grant costs does not grow with the processes that wait.
//! One task renews all tickets of the process (`renew`), many in one script, apart from the tries. The answer says how
//! each ticket stands, so that a lost message costs one renewal. `model` walks through it at random.
//!
//! | of a place | what becomes of it |
//! |---|---|
//! | a try is in flight, also one that goes along with a release (`exchange`) | it is left alone |
//! | somebody listens for its turn | its ticket is renewed; the listener gets a hint when to try again, also if the ticket is gone or cannot be renewed |
//! | nobody does any more | its ticket is renewed for [`ABANDONED`], then given up: [`leave`](Tickets::leave) was not called |
//! | its only try was dropped | the ticket that it may have taken runs out |
//! | its next request wants the other kind of hold (`ops/shared`) | it takes a new ticket, at the end of the queue: the number says what it is for |

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::keys::KeyNames;
use super::script::Reply;
use super::shares::HoldKind;
use crate::clock::{Clock, Moment};
use crate::store::{Acquired, Hint, OnHeld, Sender, Watch};

/// How long a ticket lives without being renewed: so long a dead process holds the others up. The scripts know it, too.
const TICKET: Duration = Duration::from_secs(1);
/// Between two renewals of a ticket.
pub(super) const ROUND: Duration = Duration::from_millis(TICKET.as_millis() as u64 / 3);
/// After so long a place for which nobody has asked or listened is given up.
const ABANDONED: Duration = Duration::from_secs(5);

/// The queues in which this process has a place.
pub(super) struct Tickets {
    clock: Clock,
    state: Mutex<State>,
    /// Tells a ticket from every other of this process, and mostly from those of a process that had its name before. Even:
    /// a ticket for a share has one more.
    next: AtomicU64,
    wake: Notify,
    /// Receives the calls in the place of these tickets.
    call_hook: OnceLock<CallHook>,
}

/// Receives the lock of each call; `None`: calls may have been missed.
type CallHook = Box<dyn Fn(Option<&str>) + Send + Sync>;

#[derive(Default)]
struct State {
    places: HashMap<KeyNames, Place>,
    /// Tickets in the place of which others were taken: the server is to forget them.
    superseded: Vec<(KeyNames, u64)>,
    /// There is nothing to renew: the task sleeps until it is woken. Set by `round`, and cleared by `wake`;
    /// were it false while the task sleeps, new tickets would run out.
    resting: bool,
}

/// A ticket to renew, or the mark that a lock is watched.
pub(super) struct Renewal {
    pub(super) names: KeyNames,
    /// `None`: the mark that somebody watches.
    pub(super) number: Option<u64>,
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
}

/// What a ticket with this number is for.
fn kind_of(number: u64) -> HoldKind {
    if number % 2 == 1 { HoldKind::Share } else { HoldKind::Exclusive }
}

/// Whether a place has a ticket in the store.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ticket {
    None,
    /// A try was not answered.
    Perhaps,
    Taken,
}

/// What is to be done about all places.
#[derive(Default)]
pub(super) struct Round {
    pub(super) renewals: Vec<Renewal>,
    /// Given up here; the server is still to forget them.
    pub(super) abandoned: Vec<(KeyNames, u64)>,
}

/// A try in flight. Dropped before it is settled, it may have taken a ticket.
pub(super) struct TicketedTry<'a> {
    /// `None` if the try does not wait.
    tickets: Option<&'a Tickets>,
    names: &'a KeyNames,
    number: u64,
}

impl Tickets {
    pub(super) fn new(clock: Clock) -> Self {
        let state = State { places: HashMap::new(), superseded: Vec::new(), resting: true };
        Self {
            clock,
            state: Mutex::new(state),
            next: AtomicU64::new(2 * u64::from(fastrand::u32(..))),
            wake: Notify::new(),
            call_hook: OnceLock::new(),
        }
    }

    /// The number of a new ticket. The scripts know by it what the ticket is for.
    fn next_number(&self, kind: HoldKind) -> u64 {
        self.next.fetch_add(2, Ordering::Relaxed) + u64::from(kind == HoldKind::Share)
    }

    fn new_place(&self, kind: HoldKind) -> Place {
        Place {
            number: self.next_number(kind),
            ticket: Ticket::None,
            tries: 0,
            listeners: Vec::new(),
            called: false,
            since: self.clock.now(),
        }
    }

    /// Begins a try to take a lock. The try has a place in the queue if it waits.
    pub(super) fn begin_try<'a>(&'a self, names: &'a KeyNames, on_held: OnHeld, kind: HoldKind) -> TicketedTry<'a> {
        if on_held == OnHeld::Fail {
            return TicketedTry { tickets: None, names, number: 0 };
        }
        let mut state = self.state.lock();
        let state = &mut *state;
        if !state.places.contains_key(names) {
            state.places.insert(names.clone(), self.new_place(kind));
        }
        let place = state.places.get_mut(names).expect("it was just put there");
        if kind_of(place.number) != kind {
            let old = std::mem::replace(&mut place.number, self.next_number(kind));
            if std::mem::replace(&mut place.ticket, Ticket::None) != Ticket::None {
                state.superseded.push((names.clone(), old));
            }
        }
        place.tries += 1;
        // This try sees what it was called for.
        place.called = false;
        TicketedTry { tickets: Some(self), names, number: place.number }
    }

    /// Listens for the turn of this process: a hint comes when it is time to try again.
    pub(super) fn turn(self: &Arc<Self>, names: KeyNames) -> Watch {
        let id = self.next.fetch_add(2, Ordering::Relaxed);
        let (weak, left) = (Arc::downgrade(self), names.clone());
        let (sender, watch) = Watch::new(move || {
            if let Some(this) = weak.upgrade() {
                this.stop_listening(&left, id);
            }
        });
        let mut state = self.state.lock();
        let place = state.places.entry(names).or_insert_with(|| self.new_place(HoldKind::Exclusive));
        place.listeners.push((id, sender));
        if place.called {
            place.notify(Hint::Released);
        }
        self.wake(&mut state);
        drop(state);
        watch
    }

    fn stop_listening(&self, names: &KeyNames, id: u64) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let Some(place) = state.places.get_mut(names) else { return };
        place.listeners.retain(|(other, _)| *other != id);
        place.since = now;
        if place.is_over() {
            state.places.remove(names);
        }
    }

    fn wake(&self, state: &mut State) {
        if std::mem::take(&mut state.resting) {
            self.wake.notify_one();
        }
    }

    /// Somebody watches without a place, and that has to be renewed.
    pub(super) fn renew_watched(&self) {
        self.wake(&mut self.state.lock());
    }

    /// A lock was released, and it is the turn of this ticket.
    pub(super) fn called(&self, lock: &str, number: u64) {
        match self.call_hook.get() {
            Some(hook) => hook(Some(lock)),
            None => self.hint(lock, number, Hint::Released),
        }
    }

    /// From now on `hook` receives the calls, and its owner keeps the places.
    pub(super) fn pass_on(&self, hook: impl Fn(Option<&str>) + Send + Sync + 'static) {
        // Set once, before the store starts.
        let _ = self.call_hook.set(Box::new(hook));
    }

    /// Passes a hint to those who listen for the turn of a ticket.
    pub(super) fn hint(&self, lock: &str, number: u64, hint: Hint) {
        if let Some(place) = self.state.lock().places.get_mut(lock).filter(|place| place.number == number) {
            place.notify(hint);
        }
    }

    /// Messages may have been missed: everybody is to try.
    pub(super) fn hint_all(&self, hint: Hint) {
        if let Some(hook) = self.call_hook.get() {
            hook(None);
        }
        self.state.lock().places.values_mut().for_each(|place| place.notify(hint));
    }

    /// Ends all places, and what listens for them.
    pub(super) fn end(&self) {
        self.state.lock().places.clear();
    }

    /// Gives a place up, unless a call of this process still tries or listens for it. Answers the number of the ticket
    /// that the server is still to forget.
    pub(super) fn leave(&self, names: &KeyNames) -> Option<u64> {
        let mut state = self.state.lock();
        if state.places.get(names)?.is_wanted() {
            return None;
        }
        state.places.remove(names).filter(|place| place.ticket != Ticket::None).map(|place| place.number)
    }

    /// What is to be renewed now, and what nobody wants any more.
    pub(super) fn round(&self, watched: Vec<KeyNames>) -> Round {
        let now = self.clock.now();
        let mut round = Round::default();
        let state = &mut *self.state.lock();
        round.abandoned.append(&mut state.superseded);
        state.places.retain(|names, place| {
            let idle = now.saturating_since(place.since);
            match (place.is_wanted(), place.ticket) {
                (_, Ticket::Taken) if place.is_wanted() || idle < ABANDONED => {
                    round.renewals.push(Renewal { names: names.clone(), number: Some(place.number) });
                }
                (false, Ticket::Taken) => {
                    round.abandoned.push((names.clone(), place.number));
                    return false;
                }
                (false, _) => return idle < TICKET,
                (true, _) => {
                    if place.tries == 0 {
                        place.notify(Hint::Resumed);
                    }
                }
            }
            true
        });
        state.resting = state.places.is_empty() && watched.is_empty();
        round.renewals.extend(watched.into_iter().map(|names| Renewal { names, number: None }));
        round
    }

    /// Waits until there is something to renew, if there is nothing now. Answers whether it waited.
    pub(super) async fn rested(&self) -> bool {
        let resting = self.state.lock().resting;
        if resting {
            self.wake.notified().await;
        }
        resting
    }

    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Takes in what the server answers of a ticket. Answers when the holder's time is over, if before the next round.
    pub(super) fn renewed(&self, renewal: &Renewal, reply: &Reply) -> Option<Duration> {
        let number = renewal.number?;
        match (reply.code(), reply.rest()) {
            (1, [2]) => self.hint(renewal.names.lock(), number, Hint::Free),
            (1, [1, left_ms]) => {
                let left = Duration::from_millis(u64::try_from(*left_ms).ok()?);
                return (left < ROUND).then_some(left);
            }
            (2, _) => {
                let mut state = self.state.lock();
                if let Some(place) = state.places.get_mut(&renewal.names).filter(|place| place.number == number) {
                    place.ticket = Ticket::None;
                    place.notify(Hint::Resumed);
                }
            }
            _ => {}
        }
        None
    }

    pub(super) fn cannot_renew(&self, renewals: &[Renewal]) {
        for renewal in renewals {
            // The next try gets the cause.
            if let Some(number) = renewal.number {
                self.hint(renewal.names.lock(), number, Hint::Resumed);
            }
        }
    }
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

impl TicketedTry<'_> {
    /// The number of the ticket that it takes or has.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// It was answered: a denied try has a ticket, to be renewed from now on; that of a granted one is used up.
    pub(super) fn settle(mut self, answer: &Acquired) {
        let Some(tickets) = self.tickets.take() else { return };
        let ticket = match answer {
            Acquired::Granted { .. } => Ticket::None,
            _ => Ticket::Taken,
        };
        tickets.end_try(self.names, self.number, ticket);
    }
}

impl Drop for TicketedTry<'_> {
    fn drop(&mut self) {
        if let Some(tickets) = self.tickets {
            tickets.end_try(self.names, self.number, Ticket::Perhaps);
        }
    }
}

impl Tickets {
    /// A try has ended, with this ticket.
    fn end_try(&self, names: &KeyNames, number: u64, ticket: Ticket) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        // It was stopped meanwhile.
        let Some(place) = state.places.get_mut(names) else { return };
        place.tries = place.tries.saturating_sub(1);
        let is_superseded = kind_of(number) != kind_of(place.number);
        if is_superseded && ticket != Ticket::None {
            state.superseded.push((names.clone(), number));
        }
        match (place.ticket, ticket) {
            _ if is_superseded => {}
            (_, Ticket::None) => {
                // Whatever calls that one now is too late.
                (place.ticket, place.called) = (Ticket::None, false);
                place.number = self.next_number(kind_of(number));
            }
            (_, Ticket::Taken) | (Ticket::None, Ticket::Perhaps) => place.ticket = ticket,
            (Ticket::Perhaps | Ticket::Taken, Ticket::Perhaps) => {}
        }
        if place.is_over() {
            state.places.remove(names);
        } else {
            place.since = self.clock.now();
        }
        self.wake(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::key::Key;
    use crate::store::redis::keys::SIDE_KEYS;
    use crate::store::{Denial, KeyTemplate};

    fn tickets() -> (ManualClock, Tickets, KeyNames) {
        let clock = ManualClock::new();
        let tickets = Tickets::new(clock.clock());
        (clock, tickets, KeyNames::new(&KeyTemplate::default(), SIDE_KEYS, &Key::new("k").unwrap()).unwrap())
    }

    const HELD: Acquired = Acquired::Denied { retry_in: None, why: Denial::Held };

    #[test]
    fn a_place_for_which_nobody_asks_or_listens_any_more_is_given_up() {
        let (clock, tickets, names) = tickets();
        tickets.begin_try(&names, OnHeld::Queue, HoldKind::Exclusive).settle(&HELD);
        clock.advance(ABANDONED / 2);
        assert_eq!(tickets.round(Vec::new()).renewals.len(), 1, "it may be listened for soon");
        tickets.begin_try(&names, OnHeld::Queue, HoldKind::Exclusive).settle(&HELD);
        clock.advance(ABANDONED / 2);
        assert_eq!(tickets.round(Vec::new()).renewals.len(), 1, "it was asked for in between");
        clock.advance(ABANDONED / 2);
        let round = tickets.round(Vec::new());
        assert!(round.renewals.is_empty() && round.abandoned.len() == 1);
        assert!(tickets.state.lock().places.is_empty() && tickets.state.lock().resting);
    }

    #[test]
    fn a_dropped_try_leaves_no_place_that_is_renewed() {
        let (clock, tickets, names) = tickets();
        drop(tickets.begin_try(&names, OnHeld::Queue, HoldKind::Exclusive));
        assert!(tickets.round(Vec::new()).renewals.is_empty());
        clock.advance(TICKET);
        assert!(tickets.round(Vec::new()).abandoned.is_empty(), "the ticket that it may have taken runs out");
        assert!(tickets.state.lock().places.is_empty());
        // One that had a ticket keeps it.
        tickets.begin_try(&names, OnHeld::Queue, HoldKind::Exclusive).settle(&HELD);
        let number = tickets.state.lock().places[&names].number;
        drop(tickets.begin_try(&names, OnHeld::Queue, HoldKind::Exclusive));
        assert_eq!(tickets.round(Vec::new()).renewals[0].number, Some(number));
    }

    #[test]
    fn a_granted_try_uses_its_ticket_up_and_tries_that_do_not_wait_have_none() {
        let (_clock, tickets, names) = tickets();
        tickets.begin_try(&names, OnHeld::Queue, HoldKind::Exclusive).settle(&HELD);
        let first = tickets.begin_try(&names, OnHeld::Queue, HoldKind::Exclusive);
        let number = first.number();
        first.settle(&Acquired::Granted { fence: None, valid_for: TICKET, clock: None });
        assert!(tickets.state.lock().places.is_empty());
        assert_ne!(
            tickets.begin_try(&names, OnHeld::Queue, HoldKind::Exclusive).number(),
            number,
            "a call of the old one is not for the new one"
        );
        drop(tickets.begin_try(&names, OnHeld::Fail, HoldKind::Exclusive));
        assert!(tickets.state.lock().places.len() == 1);
    }

    #[test]
    fn who_wants_the_other_kind_of_hold_takes_a_new_ticket_and_the_server_forgets_the_old_one() {
        let (_clock, tickets, names) = tickets();
        let first = tickets.begin_try(&names, OnHeld::Queue, HoldKind::Share);
        let old = first.number();
        assert_eq!(kind_of(old), HoldKind::Share);
        first.settle(&HELD);
        let second = tickets.begin_try(&names, OnHeld::Queue, HoldKind::Exclusive);
        let new = second.number();
        assert_eq!(kind_of(new), HoldKind::Exclusive);
        // One that was under way all the time has a ticket of the kind that is not wanted any more.
        let third = tickets.begin_try(&names, OnHeld::Queue, HoldKind::Share);
        second.settle(&HELD);
        third.settle(&HELD);
        let round = tickets.round(Vec::new());
        let abandoned: Vec<u64> = round.abandoned.into_iter().map(|(_, number)| number).collect();
        assert_eq!(abandoned, [old, new]);
        assert_eq!(
            round.renewals.iter().map(|renewal| renewal.number.map(kind_of)).collect::<Vec<_>>(),
            [Some(HoldKind::Share)]
        );
    }
}
