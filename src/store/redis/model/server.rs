//! The scripts' part in the walks: one server, with one lock and its queue.

use std::collections::BTreeMap;

const TICKET_MS: u64 = 1_000;
pub(super) const TTL_MS: u64 = 30_000;
/// How long a key is kept that was handed over.
const HAND_OVER_MS: u64 = 1_000;

pub(super) type Token = u64;
/// The process, and the number of its ticket.
pub(super) type Ticket = (usize, u64);
/// Its number; the token is that of the try.
pub(super) type Offer = u64;

#[derive(Clone, Debug)]
pub(super) enum Command {
    Try { token: Token, ticket: Ticket, offer: Offer },
    Exchange { held: Token, token: Token, ticket: Ticket, offer: Offer },
    Release { token: Token },
    Renew { ticket: Ticket },
    Leave { ticket: Ticket, token: Option<Token> },
}

/// What is published to the process of a ticket.
#[derive(Clone, Copy, Debug)]
pub(super) enum Call {
    Try(Ticket),
    HandOver { ticket: Ticket, offer: Offer, server_us: i64, token: Token },
}

impl Call {
    pub(super) fn process(self) -> usize {
        let (Self::Try(ticket) | Self::HandOver { ticket, .. }) = self;
        ticket.0
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// For so long.
    Granted(u64),
    Held,
    /// Another process is ahead, for so long at most.
    Ahead(u64),
    Done,
    TooLate,
    /// Of a renewal.
    Stands([i64; 4], usize),
}

#[derive(Default)]
pub(super) struct Server {
    pub(super) now: u64,
    pub(super) lock: Option<(Token, u64)>,
    /// Each ticket by its turn, and until when it lasts. Two are never of the same moment: a script takes longer than the
    /// microsecond by which the server dates them.
    queue: BTreeMap<(u64, Ticket), Worth>,
    taken: u64,
    /// How many scripts have run: as with a clock in microseconds, no two are of the same moment.
    ran: i64,
    /// Calls on their way.
    pub(super) calls: Vec<Call>,
}

/// Until when a ticket lasts, and what it offers.
#[derive(Clone, Copy)]
struct Worth {
    ends: u64,
    offer: (Offer, Token),
}

impl Server {
    fn holder(&mut self) -> Option<Token> {
        self.lock = self.lock.filter(|(_, end)| *end > self.now);
        self.lock.map(|(token, _)| token)
    }

    fn place(&self, ticket: Ticket) -> Option<(u64, Ticket)> {
        self.queue.keys().find(|(_, other)| *other == ticket).copied()
    }

    fn first(&mut self) -> Option<(Ticket, Worth)> {
        let now = self.now;
        while let Some((at, worth)) = self.queue.first_key_value().map(|(at, worth)| (*at, *worth)) {
            if worth.ends > now {
                return Some((at.1, worth));
            }
            self.queue.remove(&at);
        }
        None
    }

    fn call_first(&mut self) {
        if let Some((first, _)) = self.first() {
            self.calls.push(Call::Try(first));
        }
    }

    /// The lock is free: hands it over to the first ticket, or calls that.
    fn hand_over_or_call(&mut self) {
        let Some((ticket, worth)) = self.first() else { return };
        if self.ran % 8 == 0 {
            return self.calls.push(Call::Try(ticket));
        }
        let (offer, token) = worth.offer;
        self.lock = Some((token, self.now + HAND_OVER_MS));
        self.calls.push(Call::HandOver { ticket, offer, server_us: self.ran, token });
        self.drop_ticket(ticket);
    }

    fn drop_ticket(&mut self, ticket: Ticket) -> Option<Worth> {
        self.place(ticket).and_then(|at| self.queue.remove(&at))
    }

    fn take_ticket(&mut self, ticket: Ticket, offer: (Offer, Token)) {
        self.taken += 1;
        let at = self.place(ticket).unwrap_or((self.taken, ticket));
        self.queue.insert(at, Worth { ends: self.now + TICKET_MS, offer });
    }

    /// The lock is free: takes it in turn.
    fn take(&mut self, token: Token, ticket: Ticket, offer: Offer) -> Answer {
        match self.first() {
            Some((first, worth)) if first.0 != ticket.0 => {
                self.take_ticket(ticket, (offer, token));
                return Answer::Ahead(worth.ends - self.now);
            }
            Some((first, _)) => _ = self.drop_ticket(first),
            None => {}
        }
        self.lock = Some((token, self.now + TTL_MS));
        Answer::Granted(TTL_MS)
    }

    pub(super) fn run(&mut self, command: &Command, not_after: u64) -> Answer {
        self.ran += 1;
        if self.now > not_after {
            return Answer::TooLate;
        }
        match *command {
            Command::Try { token, ticket, offer } => match self.holder().and(self.lock) {
                Some((holder, end)) if holder == token => Answer::Granted(end - self.now),
                Some(_) => {
                    self.take_ticket(ticket, (offer, token));
                    Answer::Held
                }
                None => self.take(token, ticket, offer),
            },
            Command::Exchange { held, token, ticket, offer } => {
                if self.holder() != Some(held) {
                    return self.run(&Command::Try { token, ticket, offer }, not_after);
                }
                self.lock = None;
                let is_other = self.first().is_some_and(|(first, _)| first.0 != ticket.0);
                let answer = self.take(token, ticket, offer);
                if is_other {
                    self.hand_over_or_call();
                }
                answer
            }
            Command::Release { token } => {
                if self.holder() == Some(token) {
                    self.lock = None;
                    self.hand_over_or_call();
                }
                Answer::Done
            }
            Command::Renew { ticket } => self.renew(ticket),
            Command::Leave { ticket, token } => {
                let mut has_left = self.drop_ticket(ticket).is_some();
                if token.is_some() && self.holder() == token {
                    (self.lock, has_left) = (None, true);
                }
                if has_left && self.holder().is_none() {
                    self.call_first();
                }
                Answer::Done
            }
        }
    }

    fn renew(&mut self, ticket: Ticket) -> Answer {
        let (now, us) = (self.now, self.ran);
        let Some(worth) = self.place(ticket).and_then(|at| self.queue.get_mut(&at)) else {
            return Answer::Stands([2, us, 0, 0], 2);
        };
        worth.ends = now + TICKET_MS;
        if self.first().is_some_and(|(first, _)| first != ticket) {
            return Answer::Stands([1, us, 0, 0], 3);
        }
        match self.holder().and(self.lock) {
            None => Answer::Stands([1, us, 2, 0], 3),
            Some((_, end)) => Answer::Stands([1, us, 1, i64::try_from(end - now).unwrap()], 4),
        }
    }
}
