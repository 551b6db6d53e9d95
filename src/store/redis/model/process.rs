//! A process's part in the walks: [`Process`]. Its places are the code of `tickets` itself.

use std::collections::VecDeque;
use std::sync::Arc;

use uuid::Uuid;

use super::server::{Answer, Command, Token};
use crate::clock::ManualClock;
use crate::key::{self, Key};
use crate::store::redis::keys::{KeyNames, SIDE_KEYS};
use crate::store::redis::shares::HoldKind;
use crate::store::redis::tickets::{Begun, Left, ROUND, Renewal, TicketedTry, Tickets};
use crate::store::{Acquired, KeyTemplate, OnHeld, Watch};

/// So long a command is answered or has no effect (R5).
const TIMEOUT_MS: u64 = 200;

/// A command on its way, and what waits for its answer.
pub(super) struct Flying {
    pub(super) command: Command,
    pub(super) not_after: u64,
    pub(super) answer: Option<Answer>,
    /// When the server ran it.
    pub(super) ran_at: u64,
    /// Of a try: it was sent then.
    pub(super) attempt: Option<(TicketedTry<'static>, u64)>,
    pub(super) renewal: Option<Renewal>,
}

/// A token that may hold the lock, or may come to: nobody wants it.
#[derive(Clone, Copy)]
pub(super) struct Owed {
    pub(super) token: Token,
    pub(super) not_after: u64,
}

impl Owed {
    /// What was handed over, and is not wanted: no command of this process's may set it again.
    pub(super) fn refused(token: key::Token) -> Self {
        Self { token: of_token(token), not_after: 0 }
    }
}

pub(super) fn as_token(token: Token) -> key::Token {
    key::Token::from(Uuid::from_u128(token.into()))
}

pub(super) fn of_token(token: key::Token) -> Token {
    Token::try_from(token.as_uuid().as_u128()).unwrap()
}

pub(super) struct Process {
    pub(super) id: usize,
    pub(super) tickets: &'static Arc<Tickets>,
    pub(super) names: &'static KeyNames,
    /// Requests that wait, also the one that the lock is being taken for.
    pub(super) waiting: usize,
    /// The token of the request that the lock is being taken for, while it listens or asks.
    pub(super) claim: Option<Token>,
    pub(super) turn: Option<Watch>,
    pub(super) sleeps_until: u64,
    pub(super) holds: Option<(Token, u64)>,
    pub(super) wire: VecDeque<Flying>,
    pub(super) owed: Vec<Owed>,
    pub(super) next_round: u64,
    /// How often it was granted the lock.
    pub(super) granted: usize,
    /// Hints that come at the holder's end.
    pub(super) timers: Vec<(u64, u64)>,
}

impl Process {
    pub(super) fn new(id: usize, clock: &ManualClock) -> Self {
        let names = KeyNames::new(&KeyTemplate::default(), SIDE_KEYS, &Key::new("k").unwrap()).unwrap();
        Self {
            id,
            // Tries borrow them for as long as they are under way.
            tickets: Box::leak(Box::new(Arc::new(Tickets::new(clock.clock())))),
            names: Box::leak(Box::new(names)),
            waiting: 0,
            claim: None,
            turn: None,
            sleeps_until: 0,
            holds: None,
            wire: VecDeque::new(),
            owed: Vec::new(),
            next_round: 0,
            granted: 0,
            timers: Vec::new(),
        }
    }

    pub(super) fn send(&mut self, command: Command, now: u64) {
        self.wire.push_back(Flying {
            command,
            not_after: now + TIMEOUT_MS,
            answer: None,
            ran_at: 0,
            attempt: None,
            renewal: None,
        });
    }

    pub(super) fn is_asking(&self) -> bool {
        self.wire.iter().any(|flying| flying.attempt.is_some() && flying.token() == self.claim)
    }

    /// Asks for the lock, and lets go what it `held` in the same step.
    pub(super) fn ask(&mut self, token: Token, held: Option<Token>, now: u64) {
        if let Some(turn) = &mut self.turn {
            turn.clear();
        }
        self.claim = Some(token);
        let offer = Some((as_token(token), self.tickets.now()));
        let (attempt, refused) =
            match self.tickets.begin_try(self.names, OnHeld::QueueForHandOver, HoldKind::Exclusive, offer) {
                Begun::Try(attempt, refused) => (attempt, refused),
                Begun::Granted(Acquired::Granted { valid_for, .. }) => {
                    assert_eq!(held, None, "nobody hands over what this process holds");
                    return self.hold(token, now + u64::try_from(valid_for.as_millis()).unwrap());
                }
                Begun::Granted(answer) => panic!("it is granted: {answer:?}"),
            };
        self.owed.extend(refused.map(Owed::refused));
        let (ticket, offer) = ((self.id, attempt.number()), attempt.offer());
        let command = match held {
            Some(held) => Command::Exchange { held, token, ticket, offer },
            None => Command::Try { token, ticket, offer },
        };
        self.send(command, now);
        self.wire.back_mut().unwrap().attempt = Some((attempt, now));
    }

    pub(super) fn hold(&mut self, token: Token, deadline: u64) {
        (self.claim, self.turn, self.holds) = (None, None, Some((token, deadline)));
        self.waiting -= 1;
        self.granted += 1;
    }

    /// The next request's turn, if there is one; else the process leaves the queue.
    pub(super) fn go_on(&mut self, token: Token, now: u64) {
        if self.waiting > 0 {
            self.ask(token, None, now);
        } else if let Some(left) = self.tickets.leave(self.names) {
            self.leave(left, now);
        }
    }

    pub(super) fn leave(&mut self, left: Left, now: u64) {
        self.send(Command::Leave { ticket: (self.id, left.ticket), token: left.token.map(of_token) }, now);
    }

    pub(super) fn round(&mut self, now: u64) {
        let round = self.tickets.round(Vec::new());
        for (_, left) in round.abandoned {
            self.leave(left, now);
        }
        for renewal in round.renewals {
            self.send(Command::Renew { ticket: (self.id, renewal.number.unwrap()) }, now);
            self.wire.back_mut().unwrap().renewal = Some(renewal);
        }
        self.next_round = now + u64::try_from(ROUND.as_millis()).unwrap();
    }
}

impl Flying {
    pub(super) fn token(&self) -> Option<Token> {
        match self.command {
            Command::Try { token, .. } | Command::Exchange { token, .. } => Some(token),
            _ => None,
        }
    }

    /// What it may leave behind if it is not answered.
    pub(super) fn may_leave(&self) -> Vec<Token> {
        match self.command {
            Command::Try { token, .. } | Command::Release { token } => vec![token],
            Command::Exchange { held, token, .. } => vec![held, token],
            _ => Vec::new(),
        }
    }
}

pub(super) fn owed(command: &Command, not_after: u64) -> Vec<Owed> {
    let flying = Flying { command: command.clone(), not_after, answer: None, ran_at: 0, attempt: None, renewal: None };
    flying.may_leave().into_iter().map(|token| Owed { token, not_after }).collect()
}
