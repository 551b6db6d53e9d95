//! One place in a queue: [`Place`].

use crate::clock::Moment;
use crate::key::Token;
use crate::store::redis::hand_over::{HandOver, Handed, Offer};
use crate::store::redis::shares::HoldKind;
use crate::store::{Hint, Sender};

/// A place in one queue, from the first try on.
pub(super) struct Place {
    pub(super) number: u64,
    pub(super) ticket: Ticket,
    /// Tries in flight.
    pub(super) tries: u32,
    /// Those who listen for the turn of this process.
    pub(super) listeners: Vec<(u64, Sender<Hint>)>,
    /// It was called while nobody listened: the next listener gets a hint at once. Cleared by the next try, which sees
    /// what it was called for.
    pub(super) called: bool,
    /// When somebody last stopped asking or listening.
    pub(super) since: Moment,
    /// What the last try has offered; `None` once that is over (`hand_over`).
    pub(super) offer: Option<Offer>,
    /// The key was handed over, for the next try with its token.
    pub(super) handed: Option<Handed>,
    /// What was offered before by a request that has gone: what is still handed over to it is nobody's.
    pub(super) former: Option<Token>,
}

/// A place that was given up here: what the server is still to forget.
#[derive(Clone, Copy)]
pub(in crate::store::redis) struct Left {
    pub(in crate::store::redis) ticket: u64,
    /// The key may have been handed over to it.
    pub(in crate::store::redis) token: Option<Token>,
}

/// What becomes of a key that was handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    /// The next try with the token has it, or one that is under way. Or nobody knows: the token may hold the key already,
    /// by the answer to a try that came before the message.
    Perhaps,
    /// The request has gone that had the token.
    No,
}

/// What a ticket with this number is for.
pub(super) fn kind_of(number: u64) -> HoldKind {
    if number % 2 == 1 { HoldKind::Share } else { HoldKind::Exclusive }
}

/// Whether a place has a ticket in the store.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ticket {
    None,
    /// A try was not answered.
    Perhaps,
    Taken,
}

impl Place {
    pub(super) fn handed_over(&mut self, hand_over: &HandOver) -> Wanted {
        if self.former.take_if(|former| *former == hand_over.token).is_some() {
            return Wanted::No;
        }
        let handed = self.offer.and_then(|offer| offer.taken(hand_over));
        if let Some(handed) = handed.filter(|_| self.number == hand_over.ticket) {
            (self.handed, self.offer, self.ticket) = (Some(handed), None, Ticket::None);
            self.notify(Hint::Released);
        }
        Wanted::Perhaps
    }

    /// What the key may have been handed over to.
    pub(super) fn token(&self) -> Option<Token> {
        self.handed.map(|handed| handed.token).or(self.offer.map(|offer| offer.token))
    }

    pub(super) fn left(&self) -> Left {
        Left { ticket: self.number, token: self.token() }
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.tries > 0 || !self.listeners.is_empty()
    }

    pub(super) fn is_over(&self) -> bool {
        !self.is_wanted() && self.ticket == Ticket::None && self.handed.is_none()
    }

    pub(super) fn notify(&mut self, hint: Hint) {
        self.called = self.listeners.is_empty();
        for (_, sender) in &self.listeners {
            // A listener that is gone takes itself out.
            let _ = sender.send(hint);
        }
    }
}
