//! This process's places in the queues of keys that others hold (R16): [`Tickets`].
//!
//! A try that waits takes a ticket; the scripts judge tickets by the server's clock. A release hands the key over to the
//! first ticket's process or calls it, by a message on a channel of that process, and tells nobody else: what a grant costs
//! does not grow with the processes that wait.
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
//! | the key was handed over to it | its ticket is used up; the next try with the token is granted. Of a request that has gone it is let go; after a reconnect the server knows |

mod place;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

pub(super) use self::place::Left;
use self::place::{Place, Ticket, Wanted, kind_of};
use super::hand_over::{HandOver, Offer};
use super::keys::KeyNames;
use super::script::Reply;
use super::shares::HoldKind;
use crate::clock::{Clock, Moment};
use crate::key::Token;
use crate::store::{Acquired, Hint, OnHeld, Watch};

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
    superseded: Vec<(KeyNames, Left)>,
    /// There is nothing to renew: the task sleeps until it is woken. Set by `round`, and cleared by `wake`;
    /// were it false while the task sleeps, new tickets would run out.
    resting: bool,
}

/// A ticket to renew, or the mark that a lock is watched.
pub(super) struct Renewal {
    pub(super) names: KeyNames,
    /// `None`: the mark that somebody watches.
    pub(super) number: Option<u64>,
    /// When it was made: before it was sent.
    made: Moment,
}

/// What is to be done about all places.
#[derive(Default)]
pub(super) struct Round {
    pub(super) renewals: Vec<Renewal>,
    /// Given up here; the server is still to forget them.
    pub(super) abandoned: Vec<(KeyNames, Left)>,
}

/// How a try begins.
pub(super) enum Begun<'a> {
    /// The key was handed over for it: it is granted.
    Granted(Acquired),
    /// The server is to be asked. What was handed over to this other token, nobody asks for any more.
    Try(TicketedTry<'a>, Option<Token>),
}

/// A try in flight. Dropped before it is settled, it may have taken a ticket.
pub(super) struct TicketedTry<'a> {
    /// `None` if the try does not wait.
    tickets: Option<&'a Tickets>,
    names: &'a KeyNames,
    number: u64,
    /// The number of its offer; 0: it makes none.
    offer: u64,
}

impl Tickets {
    pub(super) fn new(clock: Clock) -> Self {
        let state = State { places: HashMap::new(), superseded: Vec::new(), resting: true };
        Self {
            clock,
            state: Mutex::new(state),
            next: AtomicU64::new(2 * u64::from(fastrand::u32(..)) + 2),
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
            offer: None,
            handed: None,
            former: None,
        }
    }

    /// Begins a try to take a lock. The try has a place in the queue if it waits. `offer`: the token that the key may be
    /// handed over to, and when the try began.
    pub(super) fn begin_try<'a>(
        &'a self,
        names: &'a KeyNames,
        on_held: OnHeld,
        kind: HoldKind,
        offer: Option<(Token, Moment)>,
    ) -> Begun<'a> {
        if on_held == OnHeld::Fail {
            return Begun::Try(TicketedTry { tickets: None, names, number: 0, offer: 0 }, None);
        }
        let mut state = self.state.lock();
        let state = &mut *state;
        if !state.places.contains_key(names) {
            state.places.insert(names.clone(), self.new_place(kind));
        }
        let place = state.places.get_mut(names).expect("it was just put there");
        if kind_of(place.number) != kind {
            let old = place.left();
            place.number = self.next_number(kind);
            if std::mem::replace(&mut place.ticket, Ticket::None) != Ticket::None {
                state.superseded.push((names.clone(), old));
            }
        }
        let (handed, token) = (place.handed.take(), offer.map(|(token, _)| token));
        // This try sees what it was called for.
        place.called = false;
        if let Some(granted) = handed.filter(|handed| Some(handed.token) == token).and_then(|it| it.answer(self.now()))
        {
            place.number = self.next_number(kind);
            if place.is_over() {
                state.places.remove(names);
            }
            return Begun::Granted(granted);
        }
        place.tries += 1;
        place.former = place.offer.map(|offer| offer.token).or(place.former).filter(|former| Some(*former) != token);
        place.offer = offer.map(|(token, begun)| Offer::new(self.next.fetch_add(2, Ordering::Relaxed), token, begun));
        let offer = place.offer.map_or(0, |offer| offer.number);
        let one = TicketedTry { tickets: Some(self), names, number: place.number, offer };
        Begun::Try(one, handed.map(|handed| handed.token).filter(|other| Some(*other) != token))
    }

    /// A key was handed over. `refuse` is called if the request has gone that had the token, and before anybody can ask
    /// anew.
    pub(super) fn handed_over(&self, lock: &str, hand_over: &HandOver, refuse: impl FnOnce()) {
        let mut state = self.state.lock();
        let wanted = state.places.get_mut(lock).map_or(Wanted::Perhaps, |place| place.handed_over(hand_over));
        if wanted == Wanted::No {
            refuse();
        }
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
        self.state.lock().places.values_mut().for_each(|place| {
            // The server may have forgotten what it said.
            (place.offer, place.handed) = (None, None);
            place.notify(hint);
        });
    }

    /// Ends all places, and what listens for them.
    pub(super) fn end(&self) {
        self.state.lock().places.clear();
    }

    /// Gives a place up, unless a call of this process still tries or listens for it. Answers what the server is still to
    /// forget.
    pub(super) fn leave(&self, names: &KeyNames) -> Option<Left> {
        let mut state = self.state.lock();
        if state.places.get(names)?.is_wanted() {
            return None;
        }
        let place = state.places.remove(names)?;
        (place.ticket != Ticket::None || place.token().is_some()).then(|| place.left())
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
                    round.renewals.push(Renewal { names: names.clone(), number: Some(place.number), made: now });
                }
                (false, Ticket::Taken) => {
                    round.abandoned.push((names.clone(), place.left()));
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
        round.renewals.extend(watched.into_iter().map(|names| Renewal::of_watched(names, now)));
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
        if reply.code() == 1 {
            self.waits(renewal, number, reply);
        }
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

    fn waits(&self, renewal: &Renewal, number: u64, reply: &Reply) {
        let mut state = self.state.lock();
        let place = state.places.get_mut(&renewal.names).filter(|place| place.number == number);
        if let Some(offer) = place.and_then(|place| place.offer.as_mut()) {
            offer.waits(renewal.made, reply);
        }
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

impl Renewal {
    pub(super) fn of_watched(names: KeyNames, made: Moment) -> Self {
        Self { names, number: None, made }
    }
}

impl<'a> TicketedTry<'a> {
    pub(super) fn names(&self) -> &'a KeyNames {
        self.names
    }

    /// The number of the ticket that it takes or has; 0: none.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The number of its offer; 0: it makes none.
    pub(super) fn offer(&self) -> u64 {
        self.offer
    }

    /// It was answered: a denied try has a ticket, to be renewed from now on; that of a granted one is used up.
    pub(super) fn settle(mut self, answer: &Acquired) {
        let Some(tickets) = self.tickets.take() else { return };
        let ticket = match answer {
            Acquired::Granted { .. } => Ticket::None,
            _ => Ticket::Taken,
        };
        tickets.end_try(&self, ticket);
    }
}

impl Drop for TicketedTry<'_> {
    fn drop(&mut self) {
        if let Some(tickets) = self.tickets {
            tickets.end_try(self, Ticket::Perhaps);
        }
    }
}

impl Tickets {
    /// A try has ended, with this ticket.
    fn end_try(&self, ended: &TicketedTry<'_>, ticket: Ticket) {
        let TicketedTry { names, number, offer, .. } = *ended;
        let mut guard = self.state.lock();
        let state = &mut *guard;
        // It was stopped meanwhile.
        let Some(place) = state.places.get_mut(names) else { return };
        place.tries = place.tries.saturating_sub(1);
        let is_superseded = kind_of(number) != kind_of(place.number);
        if is_superseded && ticket != Ticket::None {
            state.superseded.push((names.clone(), Left { ticket: number, token: None }));
        }
        match (place.ticket, ticket) {
            _ if is_superseded => {}
            (_, Ticket::None) => {
                // Whatever calls that one now is too late.
                (place.ticket, place.called) = (Ticket::None, false);
                (place.offer, place.handed, place.former) = (None, None, None);
                place.number = self.next_number(kind_of(number));
            }
            // The key was handed over before the answer came, and the ticket is used up.
            (_, Ticket::Taken) if place.handed.is_some() => {}
            (_, Ticket::Taken) => place.ticket = ticket,
            (before, Ticket::Perhaps) => {
                // What it may have left, and may yet be handed over to it, is taken back.
                place.offer.take_if(|made| made.number == offer);
                place.handed.take_if(|handed| handed.offer == offer);
                if before == Ticket::None {
                    place.ticket = Ticket::Perhaps;
                }
            }
        }
        if place.is_over() {
            state.places.remove(names);
        } else {
            place.since = self.clock.now();
        }
        self.wake(state);
    }
}
