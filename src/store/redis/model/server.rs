//! The scripts' part in the walks: one server, with one lock and its queue.

use std::collections::BTreeMap;

const TICKET_MS: u64 = 1_000;
pub(super) const TTL_MS: u64 = 30_000;

pub(super) type Token = u64;
/// The process, and the number of its ticket.
pub(super) type Ticket = (usize, u64);

#[derive(Clone, Debug)]
pub(super) enum Command {
    Try { token: Token, ticket: Ticket },
    Exchange { held: Token, token: Token, ticket: Ticket },
    Release { token: Token },
    Renew { ticket: Ticket },
    Leave { ticket: Ticket },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    Granted,
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
    queue: BTreeMap<(u64, Ticket), u64>,
    taken: u64,
    /// Calls on their way.
    pub(super) calls: Vec<Ticket>,
}

impl Server {
    fn holder(&mut self) -> Option<Token> {
        self.lock = self.lock.filter(|(_, end)| *end > self.now);
        self.lock.map(|(token, _)| token)
    }

    fn place(&self, ticket: Ticket) -> Option<(u64, Ticket)> {
        self.queue.keys().find(|(_, other)| *other == ticket).copied()
    }

    fn first(&mut self) -> Option<(Ticket, u64)> {
        let now = self.now;
        while let Some((at, ends)) = self.queue.first_key_value().map(|(at, ends)| (*at, *ends)) {
            if ends > now {
                return Some((at.1, ends));
            }
            self.queue.remove(&at);
        }
        None
    }

    fn call_first(&mut self) {
        if let Some((first, _)) = self.first() {
            self.calls.push(first);
        }
    }

    fn take_ticket(&mut self, ticket: Ticket) {
        self.taken += 1;
        let at = self.place(ticket).unwrap_or((self.taken, ticket));
        self.queue.insert(at, self.now + TICKET_MS);
    }

    /// The lock is free: takes it in turn.
    fn take(&mut self, token: Token, ticket: Ticket) -> Answer {
        match self.first() {
            Some((first, ends)) if first.0 != ticket.0 => {
                self.take_ticket(ticket);
                return Answer::Ahead(ends - self.now);
            }
            Some((first, _)) => drop(self.place(first).and_then(|at| self.queue.remove(&at))),
            None => {}
        }
        self.lock = Some((token, self.now + TTL_MS));
        Answer::Granted
    }

    pub(super) fn run(&mut self, command: &Command, not_after: u64) -> Answer {
        if self.now > not_after {
            return Answer::TooLate;
        }
        match *command {
            Command::Try { token, ticket } => match self.holder() {
                Some(holder) if holder == token => Answer::Granted,
                Some(_) => {
                    self.take_ticket(ticket);
                    Answer::Held
                }
                None => self.take(token, ticket),
            },
            Command::Exchange { held, token, ticket } => {
                if self.holder() != Some(held) {
                    return self.run(&Command::Try { token, ticket }, not_after);
                }
                self.lock = None;
                let answer = self.take(token, ticket);
                if answer != Answer::Granted {
                    self.call_first();
                }
                answer
            }
            Command::Release { token } => {
                if self.holder() == Some(token) {
                    self.lock = None;
                    self.call_first();
                }
                Answer::Done
            }
            Command::Renew { ticket } => self.renew(ticket),
            Command::Leave { ticket } => {
                let was_there = self.place(ticket).and_then(|at| self.queue.remove(&at)).is_some();
                if was_there && self.holder().is_none() {
                    self.call_first();
                }
                Answer::Done
            }
        }
    }

    fn renew(&mut self, ticket: Ticket) -> Answer {
        let Some(at) = self.place(ticket) else { return Answer::Stands([2, 0, 0, 0], 2) };
        self.queue.insert(at, self.now + TICKET_MS);
        if self.first().is_some_and(|(first, _)| first != ticket) {
            return Answer::Stands([1, 0, 0, 0], 3);
        }
        match self.holder().and(self.lock) {
            None => Answer::Stands([1, 0, 2, 0], 3),
            Some((_, end)) => Answer::Stands([1, 0, 1, i64::try_from(end - self.now).unwrap()], 4),
        }
    }
}
