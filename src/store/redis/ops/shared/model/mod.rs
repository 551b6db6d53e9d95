//! Random walks of processes that want one lock in every way: nobody has it beside who has it for itself, permits are never
//! more than there are, and whoever waits is granted soon once nothing fails any more.
//!
//! The processes' part is the code of `tickets` itself; how the driver uses it, and what the scripts do, is written
//! down here once more. Time goes in milliseconds. In each step a command reaches the server, a reply, a call or a hint
//! arrives, a request comes or gives up, a holder lets go, a connection breaks, a process dies, the server forgets
//! everything, or time passes. What was granted before the server forgot it is not counted any more.

mod server;

use std::collections::VecDeque;
use std::time::Duration;

use fastrand::Rng;
use futures_util::FutureExt;

use self::server::{Answer, Command, Server, TTL_MS, Token, Want};
use crate::clock::ManualClock;
use crate::key::Key;
use crate::store::redis::keys::{KeyNames, SIDE_KEYS};
use crate::store::redis::script::Reply;
use crate::store::redis::shares::HoldKind;
use crate::store::redis::tickets::{Begun, ROUND, Renewal, TicketedTry, Tickets};
use crate::store::{Acquired, Denial, Hint, KeyTemplate, OnHeld, Watch};

/// What holders take off for the drift of clocks.
const DRIFT_MS: u64 = TTL_MS / 100 + 2;
/// So long a command is answered or has no effect (R5).
const TIMEOUT_MS: u64 = 200;

/// A command on its way, and what waits for its answer.
struct Flying {
    command: Command,
    not_after: u64,
    answer: Option<Answer>,
    /// When the server ran it.
    ran_at: u64,
    /// Of a try: it was sent then.
    attempt: Option<(TicketedTry<'static>, u64)>,
    renewal: Option<Renewal>,
}

/// A token that may hold the lock, or may come to: nobody wants it.
#[derive(Clone, Copy)]
struct Owed {
    token: Token,
    not_after: u64,
}

#[derive(Clone, Copy)]
struct Hold {
    token: Token,
    want: Want,
    deadline: u64,
}

struct Process {
    id: usize,
    tickets: &'static std::sync::Arc<Tickets>,
    names: &'static KeyNames,
    /// What requests want that wait behind the one that the lock is being taken for.
    waiting: VecDeque<Want>,
    /// The request that the lock is being taken for, while it listens or asks.
    claim: Option<(Token, Want)>,
    turn: Option<Watch>,
    sleeps_until: u64,
    holds: Vec<Hold>,
    wire: VecDeque<Flying>,
    owed: Vec<Owed>,
    next_round: u64,
    /// Hints that come at the holder's end.
    timers: Vec<(u64, u64)>,
}

struct World {
    random: Rng,
    clock: ManualClock,
    server: Server,
    processes: Vec<Option<Process>>,
    /// Commands whose connection broke. They may still run.
    strays: Vec<(Command, u64)>,
    next_token: Token,
    /// Nothing fails any more, and nobody comes.
    calm: bool,
    /// When the server has forgotten everything.
    forgot: u64,
    grants: usize,
    shared_by_several: usize,
}

impl Process {
    fn new(id: usize, clock: &ManualClock) -> Self {
        let names = KeyNames::new(&KeyTemplate::default(), SIDE_KEYS, &Key::new("k").unwrap()).unwrap();
        Self {
            id,
            // Tries borrow them for as long as they are under way.
            tickets: Box::leak(Box::new(std::sync::Arc::new(Tickets::new(clock.clock())))),
            names: Box::leak(Box::new(names)),
            waiting: VecDeque::new(),
            claim: None,
            turn: None,
            sleeps_until: 0,
            holds: Vec::new(),
            wire: VecDeque::new(),
            owed: Vec::new(),
            next_round: 0,
            timers: Vec::new(),
        }
    }

    fn send(&mut self, command: Command, now: u64) {
        let not_after = now + TIMEOUT_MS;
        self.wire.push_back(Flying { command, not_after, answer: None, ran_at: 0, attempt: None, renewal: None });
    }

    fn token(&self) -> Option<Token> {
        self.claim.map(|(token, _)| token)
    }

    fn is_asking(&self) -> bool {
        self.wire.iter().any(|flying| flying.attempt.is_some() && flying.token() == self.token())
    }

    fn ask(&mut self, token: Token, want: Want, now: u64) {
        if let Some(turn) = &mut self.turn {
            turn.clear();
        }
        self.claim = Some((token, want));
        let kind = if want.is_some() { HoldKind::Share } else { HoldKind::Exclusive };
        let Begun::Try(attempt, None) = self.tickets.begin_try(self.names, OnHeld::Queue, kind, None) else {
            panic!("shares are not handed over")
        };
        self.send(Command::Try { token, want, ticket: (self.id, attempt.number()) }, now);
        self.wire.back_mut().unwrap().attempt = Some((attempt, now));
    }

    /// The next request's turn, if there is one; else the process leaves the queue.
    fn go_on(&mut self, token: Token, now: u64) {
        if let Some(want) = self.waiting.pop_front() {
            self.ask(token, want, now);
        } else if let Some(left) = self.tickets.leave(self.names) {
            self.send(Command::Leave { ticket: (self.id, left.ticket) }, now);
        }
    }

    fn round(&mut self, now: u64) {
        let round = self.tickets.round(Vec::new());
        for (_, left) in round.abandoned {
            self.send(Command::Leave { ticket: (self.id, left.ticket) }, now);
        }
        for renewal in round.renewals {
            self.send(Command::Renew { ticket: (self.id, renewal.number.unwrap()) }, now);
            self.wire.back_mut().unwrap().renewal = Some(renewal);
        }
        self.next_round = now + u64::try_from(ROUND.as_millis()).unwrap();
    }

    /// What a command that is not answered may leave behind.
    fn owe(&mut self, command: &Command, not_after: u64) {
        if let Command::Try { token, .. } | Command::Release { token } = *command {
            self.owed.push(Owed { token, not_after });
        }
    }
}

impl Flying {
    fn token(&self) -> Option<Token> {
        if let Command::Try { token, .. } = self.command { Some(token) } else { None }
    }
}

impl World {
    fn new(seed: u64, processes: usize) -> Self {
        let clock = ManualClock::new();
        Self {
            random: Rng::with_seed(seed),
            processes: (0..processes).map(|id| Some(Process::new(id, &clock))).collect(),
            clock,
            server: Server::default(),
            strays: Vec::new(),
            next_token: 0,
            calm: false,
            forgot: 0,
            grants: 0,
            shared_by_several: 0,
        }
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        self.next_token
    }

    fn want(&mut self) -> Want {
        match self.random.u32(..10) {
            0..3 => None,
            3..7 => Some((0, 1)),
            7..9 => Some((3, self.random.u32(1..=3))),
            _ => Some((2, 1)),
        }
    }

    fn pass(&mut self, ms: u64) {
        self.server.now += ms;
        self.clock.advance(Duration::from_millis(ms));
    }

    /// One thing that may happen, if it can happen now.
    fn step(&mut self) {
        let at = self.random.usize(..self.processes.len());
        let (now, token, want) = (self.server.now, self.token(), self.want());
        let chance = self.random.u32(..1_000);
        let Some(process) = &mut self.processes[at] else { return self.pass(1) };
        match chance {
            0..350 => self.run_one(at),
            350..600 => self.answer_one(at),
            600..700 => self.call_one(),
            700..760 => self.look(at),
            760..820 => self.let_go(at),
            820..880 if !self.calm && process.waiting.len() < 3 => {
                process.waiting.push_back(want);
                if process.claim.is_none() {
                    process.go_on(token, now);
                }
            }
            880..895 if !self.calm => self.give_up(at),
            895..900 if !self.calm => self.break_wire(at),
            900..901 if !self.calm => self.kill(at),
            901..920 if !self.calm => self.run_stray(),
            920..925 if !self.calm => drop(self.server.calls.pop()),
            925..926 if !self.calm => self.forget(),
            _ => {
                let ms = if self.random.u8(..50) == 0 { 400 } else { self.random.u64(..4) };
                self.pass(ms);
            }
        }
        self.housekeeping(at);
        self.check();
    }

    /// A command reaches the server. A connection keeps their order.
    fn run_one(&mut self, at: usize) {
        let Some(process) = &mut self.processes[at] else { return };
        if let Some(flying) = process.wire.iter_mut().find(|flying| flying.answer.is_none()) {
            flying.answer = Some(self.server.run(&flying.command, flying.not_after));
            flying.ran_at = self.server.now;
        }
    }

    fn run_stray(&mut self) {
        if !self.strays.is_empty() {
            let (command, not_after) = self.strays.swap_remove(self.random.usize(..self.strays.len()));
            self.server.run(&command, not_after);
        }
    }

    /// A reply arrives.
    fn answer_one(&mut self, at: usize) {
        let (now, token) = (self.server.now, self.token());
        let Some(process) = &mut self.processes[at] else { return };
        if process.wire.front().is_none_or(|flying| flying.answer.is_none()) {
            return;
        }
        let flying = process.wire.pop_front().unwrap();
        let (answer, of) = (flying.answer.unwrap(), flying.token());
        match (flying.attempt, flying.renewal, answer) {
            (Some((attempt, sent)), _, Answer::Granted) => {
                let deadline = sent + TTL_MS - DRIFT_MS;
                attempt.settle(&Acquired::Granted { fence: None, valid_for: Duration::ZERO, clock: None });
                match process.claim.filter(|claim| Some(claim.0) == of && now < deadline) {
                    Some((token, want)) if flying.ran_at > self.forgot => {
                        process.holds.push(Hold { token, want, deadline });
                        self.grants += 1;
                    }
                    // It works under a lock that the server has forgotten.
                    Some(_) => {}
                    None => process.send(Command::Release { token: of.unwrap() }, now),
                }
                if of == process.token() {
                    (process.claim, process.turn) = (None, None);
                    process.go_on(token, now);
                }
            }
            (Some((attempt, _)), _, answer @ (Answer::Held | Answer::Ahead(_) | Answer::OtherMode)) => {
                attempt.settle(&Acquired::Denied { retry_in: None, why: Denial::Held });
                if of != process.token() {
                    if process.claim.is_none() && process.waiting.is_empty() {
                        process.go_on(token, now);
                    }
                } else if answer == Answer::OtherMode {
                    (process.claim, process.turn) = (None, None);
                    process.go_on(token, now);
                } else {
                    let pause = if let Answer::Ahead(ms) = answer { ms } else { u64::MAX / 2 };
                    process.sleeps_until = now + pause;
                    process.turn.get_or_insert_with(|| process.tickets.turn(process.names.clone()));
                }
            }
            (Some((attempt, _)), ..) => {
                drop(attempt);
                process.owe(&flying.command, flying.not_after);
                if of == process.token() {
                    process.sleeps_until = now + 50;
                }
            }
            (None, Some(renewal), Answer::Stands(numbers, len)) => {
                let reply = match len {
                    2 => Reply::of([numbers[0], 0]),
                    3 => Reply::of([numbers[0], 0, numbers[2]]),
                    _ => Reply::of(numbers),
                };
                if let Some(left) = process.tickets.renewed(&renewal, &reply) {
                    let at = now + u64::try_from(left.as_millis()).unwrap() + 1;
                    process.timers.push((at, renewal.number.unwrap()));
                }
            }
            (None, Some(renewal), _) => process.tickets.cannot_renew(&[renewal]),
            (None, None, Answer::Done) => {
                if let Command::Release { token } = flying.command {
                    // What ran before that may have been overtaken by it.
                    process.owed.retain(|owed| owed.token != token || flying.ran_at <= owed.not_after);
                }
            }
            (None, None, _) => process.owe(&flying.command, flying.not_after),
        }
    }

    /// A call arrives.
    fn call_one(&mut self) {
        if self.server.calls.is_empty() {
            return;
        }
        let (at, number) = self.server.calls.remove(0);
        if let Some(process) = &self.processes[at] {
            process.tickets.called(process.names.lock(), number);
        }
    }

    /// A request that listens looks whether it is to try again.
    fn look(&mut self, at: usize) {
        let now = self.server.now;
        let Some(process) = &mut self.processes[at] else { return };
        let Some((token, want)) = process.claim.filter(|_| !process.is_asking()) else { return };
        let hint = process.turn.as_mut().and_then(|turn| turn.next().now_or_never()).flatten();
        // S5: its own earlier try has to be out of the way.
        let is_clean = process.owed.iter().all(|owed| owed.token != token);
        if (hint.is_some() || now >= process.sleeps_until) && is_clean {
            process.ask(token, want, now);
        }
    }

    /// A holder lets go.
    fn let_go(&mut self, at: usize) {
        let now = self.server.now;
        let Some(process) = &mut self.processes[at] else { return };
        if !process.holds.is_empty() {
            let hold = process.holds.swap_remove(self.random.usize(..process.holds.len()));
            process.send(Command::Release { token: hold.token }, now);
        }
    }

    /// The request that the lock is being taken for gives up.
    fn give_up(&mut self, at: usize) {
        let (now, token) = (self.server.now, self.token());
        let Some(process) = &mut self.processes[at] else { return };
        let Some((gone, _)) = process.claim.take() else { return };
        process.turn = None;
        let mut left = Vec::new();
        for flying in process.wire.iter_mut().filter(|flying| flying.token() == Some(gone)) {
            if flying.attempt.take().is_some() {
                left.push((flying.command.clone(), flying.not_after));
            }
        }
        left.iter().for_each(|(command, not_after)| process.owe(command, *not_after));
        process.go_on(token, now);
    }

    /// Nothing on its way is answered; what has not run may run later.
    fn break_wire(&mut self, at: usize) {
        let now = self.server.now;
        let Some(process) = &mut self.processes[at] else { return };
        for flying in std::mem::take(&mut process.wire) {
            if flying.answer.is_none() {
                self.strays.push((flying.command.clone(), flying.not_after));
            }
            process.owe(&flying.command, flying.not_after);
            if flying.token() == process.token() {
                process.sleeps_until = now + 50;
            }
            if let Some(renewal) = flying.renewal {
                process.tickets.cannot_renew(&[renewal]);
            }
        }
        // Messages may have been missed.
        process.tickets.hint_all(Hint::Resumed);
    }

    fn kill(&mut self, at: usize) {
        if self.processes.iter().flatten().count() > 2
            && let Some(process) = self.processes[at].take()
        {
            self.strays.extend(process.wire.into_iter().map(|flying| (flying.command, flying.not_after)));
        }
    }

    fn forget(&mut self) {
        self.server.forget();
        self.forgot = self.server.now;
        self.processes.iter_mut().flatten().for_each(|process| process.holds.clear());
        // Whatever it ran in this millisecond was before that.
        self.pass(1);
    }

    /// What a process does by itself.
    fn housekeeping(&mut self, at: usize) {
        let now = self.server.now;
        let Some(process) = &mut self.processes[at] else { return };
        if now >= process.next_round {
            process.round(now);
        }
        let due = process.timers.extract_if(.., |(due, _)| *due <= now).collect::<Vec<_>>();
        for (_, number) in due {
            process.tickets.hint(process.names.lock(), number, Hint::Free);
        }
        let over = process.holds.extract_if(.., |hold| hold.deadline <= now).collect::<Vec<_>>();
        for hold in over {
            process.send(Command::Release { token: hold.token }, now);
        }
        if let Some(owed) = process.owed.first().copied()
            && process.wire.iter().all(|flying| !matches!(flying.command, Command::Release { .. }))
        {
            process.send(Command::Release { token: owed.token }, now);
        }
    }

    fn check(&mut self) {
        let now = self.server.now;
        let holds = self.processes.iter().flatten().flat_map(|process| process.holds.iter());
        let holds: Vec<Want> = holds.filter(|hold| hold.deadline > now).map(|hold| hold.want).collect();
        let Some(first) = holds.first() else { return };
        let Some((limit, _)) = first else {
            assert_eq!(holds.len(), 1, "another beside who has it for itself, at {now}: {holds:?}");
            return;
        };
        let shares = holds.iter().map(|want| want.unwrap_or_else(|| panic!("at {now}: {holds:?}")));
        let used: u32 = shares.clone().map(|(_, permits)| permits).sum();
        assert!(shares.clone().all(|(other, _)| other == *limit), "two kinds at {now}: {holds:?}");
        assert!(*limit == 0 || used <= *limit, "too many permits at {now}: {holds:?}");
        self.shared_by_several += usize::from(holds.len() > 1);
    }

    fn waits(&self) -> usize {
        let waits = |process: &Process| process.waiting.len() + usize::from(process.claim.is_some());
        self.processes.iter().flatten().map(waits).sum()
    }
}

/// More by `LEASEHOLD_WALKS`.
fn walks() -> u64 {
    std::env::var("LEASEHOLD_WALKS").ok().and_then(|walks| walks.parse().ok()).unwrap_or(300)
}

#[test]
fn nobody_shares_what_another_has_for_itself_and_whoever_waits_is_granted_once_nothing_fails_any_more() {
    let mut shared_by_several = 0;
    for seed in 0..walks() {
        let mut world = World::new(seed, 2 + usize::try_from(seed % 3).unwrap());
        (0..2_000).for_each(|_| world.step());
        world.calm = true;
        world.strays.clear();
        let began = world.server.now;
        while world.waits() > 0 {
            world.step();
            // Dead holders, and those that the server alone remembers, keep the lock for their time.
            let most = began + 10_000 + TTL_MS;
            assert!(world.server.now < most, "seed {seed}: {} wait, the lock: {:?}", world.waits(), world.server.lock);
        }
        assert!(world.grants > 0, "seed {seed}: nobody was granted anything");
        shared_by_several += world.shared_by_several;
    }
    assert!(shared_by_several > 0, "nobody has ever shared it");
}
