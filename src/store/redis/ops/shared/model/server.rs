//! The scripts' part in the walks: one server, with one lock, its shares and its queue.

use std::collections::BTreeMap;

const TICKET_MS: u64 = 1_000;
pub(super) const TTL_MS: u64 = 30_000;
/// So many tickets for shares are called at once.
const TOGETHER: usize = 32;

pub(super) type Token = u64;
/// The process, and the number of its ticket.
pub(super) type Ticket = (usize, u64);

/// The limit (0: shared) and the permits of a share; `None`: the lock for itself.
pub(super) type Want = Option<(u32, u32)>;

#[derive(Clone, Debug)]
pub(super) enum Command {
    Try { token: Token, want: Want, ticket: Ticket },
    Release { token: Token },
    Renew { ticket: Ticket },
    Leave { ticket: Ticket },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    Granted,
    Held,
    OtherMode,
    /// Another process is ahead, for so long at most.
    Ahead(u64),
    Done,
    TooLate,
    /// Of a renewal.
    Stands([i64; 4], usize),
}

#[derive(Default, Debug)]
pub(super) enum Lock {
    #[default]
    Free,
    Alone(Token, u64),
    /// The limit, and of each share the permits and the end.
    Shared(u32, BTreeMap<Token, (u32, u64)>),
}

#[derive(Default)]
pub(super) struct Server {
    pub(super) now: u64,
    pub(super) lock: Lock,
    /// Each ticket by its turn, and until when it lasts.
    queue: BTreeMap<(u64, Ticket), u64>,
    taken: u64,
    /// Calls on their way.
    pub(super) calls: Vec<Ticket>,
}

fn is_for_share(ticket: Ticket) -> bool {
    ticket.1 % 2 == 1
}

impl Server {
    /// It is started anew, and has nothing.
    pub(super) fn forget(&mut self) {
        (self.lock, self.queue) = (Lock::Free, BTreeMap::new());
    }

    /// Takes out what is over.
    fn expire(&mut self) {
        let now = self.now;
        match &mut self.lock {
            Lock::Alone(_, end) if *end <= now => self.lock = Lock::Free,
            Lock::Shared(_, shares) => {
                shares.retain(|_, (_, end)| *end > now);
                if shares.is_empty() {
                    self.lock = Lock::Free;
                }
            }
            _ => {}
        }
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
        let Some((first, _)) = self.first() else { return };
        self.calls.push(first);
        if is_for_share(first) {
            let tickets = self.queue.keys().map(|(_, ticket)| *ticket).skip(1).take(TOGETHER - 1);
            self.calls.extend(tickets.take_while(|ticket| is_for_share(*ticket)));
        }
    }

    fn take_ticket(&mut self, ticket: Ticket) {
        self.taken += 1;
        let at = self.place(ticket).unwrap_or((self.taken, ticket));
        self.queue.insert(at, self.now + TICKET_MS);
    }

    fn drop_ticket(&mut self, ticket: Ticket) -> bool {
        self.place(ticket).and_then(|at| self.queue.remove(&at)).is_some()
    }

    /// Until when a ticket is ahead that the try may not pass; and the first one if it is of the same process.
    fn ahead(&mut self, ticket: Ticket, want: Want) -> Result<Option<Ticket>, u64> {
        match self.first() {
            None => Ok(None),
            Some((first, _)) if first.0 == ticket.0 => Ok(Some(first)),
            Some((_, ends)) if want.is_none_or(|(limit, _)| limit > 0) => Err(ends),
            Some((_, ends)) => {
                let mut ahead = self.queue.keys().map(|(_, other)| *other).take_while(|other| *other != ticket);
                if ahead.all(is_for_share) { Ok(None) } else { Err(ends) }
            }
        }
    }

    fn denied(&mut self, ticket: Ticket, answer: Answer) -> Answer {
        self.take_ticket(ticket);
        answer
    }

    fn attempt(&mut self, token: Token, want: Want, ticket: Ticket) -> Answer {
        self.expire();
        match (&self.lock, want) {
            (Lock::Alone(holder, _), None) if *holder == token => return Answer::Granted,
            (Lock::Alone(..), _) | (Lock::Shared(..), None) => return self.denied(ticket, Answer::Held),
            (Lock::Shared(limit, _), Some((other, _))) if *limit != other => return Answer::OtherMode,
            (Lock::Shared(_, shares), _) if shares.contains_key(&token) => return Answer::Granted,
            _ => {}
        }
        let first = match self.ahead(ticket, want) {
            Ok(first) => first,
            Err(ends) => {
                let left = ends - self.now;
                return self.denied(ticket, Answer::Ahead(left));
            }
        };
        let end = self.now + TTL_MS;
        match (&mut self.lock, want) {
            (Lock::Shared(limit, shares), Some((_, permits))) => {
                let used: u32 = shares.values().map(|(permits, _)| permits).sum();
                if *limit > 0 && used + permits > *limit {
                    return self.denied(ticket, Answer::Held);
                }
                shares.insert(token, (permits, end));
            }
            (lock, Some((limit, permits))) => *lock = Lock::Shared(limit, BTreeMap::from([(token, (permits, end))])),
            (lock, None) => *lock = Lock::Alone(token, end),
        }
        self.drop_ticket(first.unwrap_or(ticket));
        if let Some((following, _)) = self.first().filter(|(following, _)| want.is_some() && is_for_share(*following)) {
            self.calls.push(following);
        }
        Answer::Granted
    }

    fn release(&mut self, token: Token) {
        self.expire();
        let is_to_call = match &mut self.lock {
            Lock::Alone(holder, _) if *holder == token => {
                self.lock = Lock::Free;
                true
            }
            Lock::Shared(limit, shares) => {
                let is_released = shares.remove(&token).is_some();
                let is_to_call = is_released && (*limit > 0 || shares.is_empty());
                self.expire();
                is_to_call
            }
            _ => false,
        };
        if is_to_call {
            self.call_first();
        }
    }

    pub(super) fn run(&mut self, command: &Command, not_after: u64) -> Answer {
        if self.now > not_after {
            return Answer::TooLate;
        }
        match *command {
            Command::Try { token, want, ticket } => return self.attempt(token, want, ticket),
            Command::Release { token } => self.release(token),
            Command::Renew { ticket } => return self.renew(ticket),
            Command::Leave { ticket } => {
                self.expire();
                if self.drop_ticket(ticket) && matches!(self.lock, Lock::Free) {
                    self.call_first();
                }
            }
        }
        Answer::Done
    }

    fn renew(&mut self, ticket: Ticket) -> Answer {
        let Some(at) = self.place(ticket) else { return Answer::Stands([2, 0, 0, 0], 2) };
        self.queue.insert(at, self.now + TICKET_MS);
        if self.first().is_some_and(|(first, _)| first != ticket) {
            return Answer::Stands([1, 0, 0, 0], 3);
        }
        self.expire();
        let end = match &self.lock {
            Lock::Free => return Answer::Stands([1, 0, 2, 0], 3),
            Lock::Shared(..) if is_for_share(ticket) => return Answer::Stands([1, 0, 2, 0], 3),
            Lock::Shared(_, shares) => shares.values().map(|(_, end)| *end).max().unwrap_or(self.now),
            Lock::Alone(_, end) => *end,
        };
        Answer::Stands([1, 0, 1, i64::try_from(end - self.now).unwrap()], 4)
    }
}
