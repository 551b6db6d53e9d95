//! How a key goes from one process to the next without another question: offers, and what was handed over.
//!
//! A process that waits says beforehand, with each try that may have to wait, under which token and above which fence it
//! would take the key: its *offer*, kept with its ticket. Whoever releases gives the key to the first offer in the same
//! script and publishes that, so that the next holder goes on after one message, where a call would have it ask and wait
//! for the answer.
//!
//! A message says nothing about how long it was on its way. So the grant is not dated by it, but by the last moment of
//! this process at which the key cannot have been handed over yet: before it sent the try with the offer, or the last
//! renewal of the ticket that found it still waiting. A ticket is dropped as the key is handed over, so each offer is
//! taken once at most.
//!
//! | an offer | it goes on |
//! |---|---|
//! | is made by a try, under a new number | the try is granted, or not answered, or the next try makes another: it is over |
//! | stands with the ticket | each renewal that finds the ticket waiting dates it anew |
//! | is taken: the key is set to its token for [`LIFE`], the message sent | by the message: the next try with the token is granted here, without a call. Without the message: the renewal finds no ticket, and the next try is granted by the server (R2) |
//! | is over, and its message comes | of a request that has gone, while its process still waits: the key is released. Else the message means nothing: the same token may be tried, or hold the key already by the answer to a try |
//!
//! | rule | what holds |
//! |---|---|
//! | H1 | A grant by a message ends, here, [`LIFE`] after it was dated, less the drift allowance: before the server's does. With less than half of that left, the next try asks the server. |
//! | H2 | It counts only for the offer of the last try, and only if the server handed over after the last time that it found the ticket waiting. |
//! | H3 | A key that was handed over to a process that has died, or does not want it any more, is free again after [`LIFE`] at the latest. It is not handed over to a process that does not listen at the server which does it; that is called, as wherever it listens: in a Cluster mostly at another node. Who received a message is not asked afterwards: one that nobody has received here may have gone on to another node, or a replica. |
//! | H4 | One release of eight leaves the key free, and calls: clients that only poll find it so. |
//! | H5 | Nobody makes an offer whose caller could not extend the key in time, who has replicas confirm, or who wants it for less than two [`LIFE`]s. |

use std::sync::Arc;
use std::time::Duration;

use super::inner::Inner;
use super::keys::KeyNames;
use super::script::Reply;
use crate::clock::Moment;
use crate::key::Token;
use crate::mode::Mode;
use crate::store::owed::take_back;
use crate::store::pending::PendingCleanup;
use crate::store::{AcquireRequest, Acquired, OnHeld, drift};

/// How long a key is kept that was handed over (H3). The script knows it, too.
pub(super) const LIFE: Duration = Duration::from_secs(1);

/// A grant by a message that would have less is asked for at the server: its ticket could not be renewed, as while a slot
/// moves.
const LEAST: Duration = Duration::from_millis(LIFE.as_millis() as u64 / 2);

/// What this process would take the key under.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer {
    pub(super) number: u64,
    pub(super) token: Token,
    /// The key was not handed over before.
    dated: Moment,
    /// Nor before this moment of the server's clock, in microseconds.
    server_us: i64,
}

/// The message that the key was handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct HandOver {
    pub(super) ticket: u64,
    offer: u64,
    fence: u64,
    server_us: i64,
    pub(super) token: Token,
}

/// The key is held here, for the next try with the token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handed {
    /// The number of the offer.
    pub(super) offer: u64,
    pub(super) token: Token,
    pub(super) fence: u64,
    server_us: i64,
    deadline: Moment,
}

/// What is said on the channel of a process that waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Call {
    /// It may be the turn of the ticket with this number.
    Try(u64),
    HandOver(HandOver),
}

impl Offer {
    pub(super) fn new(number: u64, token: Token, begun: Moment) -> Self {
        Self { number, token, dated: begun, server_us: 0 }
    }

    /// The server has found the ticket waiting when it answered what was sent at this moment.
    pub(super) fn waits(&mut self, sent: Moment, reply: &Reply) {
        self.dated = self.dated.max(sent);
        self.server_us = self.server_us.max(reply.server_us());
    }

    /// What the message means; `None` if it is not about this offer (H2).
    pub(super) fn taken(&self, by: &HandOver) -> Option<Handed> {
        let is_ours = by.offer == self.number && by.token == self.token && by.server_us > self.server_us;
        let deadline = self.dated.saturating_add(LIFE.saturating_sub(drift(LIFE)));
        is_ours.then_some(Handed {
            offer: by.offer,
            token: by.token,
            fence: by.fence,
            server_us: by.server_us,
            deadline,
        })
    }
}

#[cfg(test)]
impl HandOver {
    pub(super) fn of([ticket, offer, fence]: [u64; 3], server_us: i64, token: Token) -> Self {
        Self { ticket, offer, fence, server_us, token }
    }
}

impl Handed {
    /// The answer to a try at this moment; `None` if little is left of its time, or nothing: the server knows how much more
    /// there is.
    pub(super) fn answer(&self, now: Moment) -> Option<Acquired> {
        let valid_for = self.deadline.saturating_since(now);
        let (fence, clock) = (Some(self.fence), u64::try_from(self.server_us).ok());
        (valid_for >= LEAST).then_some(Acquired::Granted { fence, valid_for, clock })
    }
}

impl Call {
    /// Reads a message: who is called, and the lock.
    pub(super) fn read(text: &str) -> Option<(Self, &str)> {
        let (said, lock) = text.split_once(' ')?;
        let mut words = said.split(':');
        let ticket = words.next()?.parse().ok()?;
        let Some(offer) = words.next() else { return Some((Self::Try(ticket), lock)) };
        let offer = offer.parse().ok()?;
        let (fence, server_us) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let token = words.next()?.parse().ok()?;
        Some((Self::HandOver(HandOver { ticket, offer, fence, server_us, token }), lock))
    }
}

/// Gives back what was handed over to a token that nobody asks for any more.
pub(super) fn refuse(inner: &Arc<Inner>, names: KeyNames, token: Token) {
    let over = inner.now().saturating_add(LIFE * 2);
    take_back(inner, names, token, PendingCleanup::new(over));
}

/// Whether a request's key may be handed over (H5).
pub(super) fn may_be_offered(ask: &AcquireRequest<'_>, replicas: u32, lock_delay: Duration) -> bool {
    ask.on_held == OnHeld::QueueForHandOver
        && ask.mode == Mode::Exclusive
        && replicas == 0
        && lock_delay.is_zero()
        && ask.ttl.as_duration() >= LIFE * 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::ZERO.saturating_add(Duration::from_secs(60) + Duration::from_millis(ms))
    }

    fn hand_over(offer: u64, token: Token, server_us: i64) -> HandOver {
        HandOver::of([7, offer, 5], server_us, token)
    }

    #[test]
    fn a_grant_is_dated_by_what_was_sent_while_the_ticket_waited_and_not_by_the_message() {
        let token = Token::random();
        let mut offer = Offer::new(3, token, at(0));
        offer.waits(at(300), &Reply::of([1, 1_000, 0]));
        // One that was sent before, and answered late.
        offer.waits(at(200), &Reply::of([1, 900, 0]));
        let handed = offer.taken(&hand_over(3, token, 1_001)).expect("it is ours");
        let left = |now| match handed.answer(now) {
            Some(Acquired::Granted { valid_for, .. }) => Some(valid_for),
            _ => None,
        };
        assert_eq!(left(at(300)), Some(LIFE - drift(LIFE)));
        assert_eq!(left(at(788)), Some(LEAST));
        assert_eq!(left(at(789)), None, "the message came too late");
    }

    #[test]
    fn a_message_about_another_try_or_from_before_the_ticket_was_found_waiting_means_nothing() {
        let token = Token::random();
        let mut offer = Offer::new(3, token, at(0));
        offer.waits(at(1), &Reply::of([1, 1_000, 0]));
        for other in [hand_over(2, token, 1_001), hand_over(3, Token::random(), 1_001), hand_over(3, token, 1_000)] {
            assert!(offer.taken(&other).is_none(), "{other:?}");
        }
    }

    #[test]
    fn messages_are_read_as_the_scripts_write_them() {
        assert_eq!(Call::read("7 a key"), Some((Call::Try(7), "a key")));
        let token = Token::random();
        let text = format!("7:3:5:1000:{token} a: key");
        assert_eq!(Call::read(&text), Some((Call::HandOver(hand_over(3, token, 1_000)), "a: key")));
        for broken in ["", "7", "x k", "7:3 k", "7:3:5:1000 k", "7:3:5:1000:x k"] {
            assert_eq!(Call::read(broken), None, "{broken}");
        }
    }
}
