//! Random walks of processes that wait in turn for one lock (R16): nobody is granted while another holds, processes that
//! wait take turns, and whoever waits is granted soon once nothing fails any more.
//!
//! The processes' part is the code of [`super::tickets`] itself; how the driver uses it, and what the scripts do, is
//! written down here once more. Time goes in milliseconds. In each step a command reaches the server, a reply, a call or
//! a hint arrives, a request comes or gives up, a holder lets go, a connection breaks, a process dies, or time passes.
//!
//! | a request's claim | it goes on |
//! |---|---|
//! | asks | with the answer. Granted: the process holds. Denied: it listens for its turn. No answer: what the try may have left is owed, and it tries again once that is paid |
//! | listens | with a hint, or when its pause is over: it asks again |
//! | has gone | a grant that still comes is let go; without another request the process leaves the queue |

mod process;
mod server;

use std::time::Duration;

use fastrand::Rng;
use futures_util::FutureExt;

use self::process::{Owed, Process, as_token, owed};
use self::server::{Answer, Call, Command, Server, TTL_MS, Token};
use super::hand_over::HandOver;
use super::script::Reply;
use crate::clock::ManualClock;
use crate::store::{Acquired, Denial, Hint};

/// What holders take off for the drift of clocks.
const DRIFT_MS: u64 = TTL_MS / 100 + 2;

struct World {
    seed: u64,
    random: Rng,
    clock: ManualClock,
    server: Server,
    processes: Vec<Option<Process>>,
    /// Commands whose connection broke. They may still run.
    strays: Vec<(Command, u64)>,
    next_token: Token,
    grants: Vec<usize>,
    /// Nothing fails any more, and nobody comes.
    calm: bool,
    /// How long nothing happens at times.
    pause_ms: u64,
}

impl World {
    fn new(seed: u64, processes: usize) -> Self {
        let clock = ManualClock::new();
        Self {
            seed,
            random: Rng::with_seed(seed),
            processes: (0..processes).map(|id| Some(Process::new(id, &clock))).collect(),
            clock,
            server: Server::default(),
            strays: Vec::new(),
            next_token: 0,
            grants: Vec::new(),
            calm: false,
            pause_ms: 400,
        }
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        self.next_token
    }

    fn pass(&mut self, ms: u64) {
        self.server.now += ms;
        self.clock.advance(Duration::from_millis(ms));
    }

    /// One thing that may happen, if it can happen now.
    fn step(&mut self) {
        let at = self.random.usize(..self.processes.len());
        let (now, token) = (self.server.now, self.token());
        let chance = self.random.u32(..1_000);
        let Some(process) = &mut self.processes[at] else { return self.pass(1) };
        match chance {
            0..350 => self.run_one(at),
            350..600 => self.answer_one(at),
            600..700 => self.call_one(),
            700..760 => self.look(at),
            760..820 => self.let_go(at),
            820..880 if !self.calm && process.waiting < 3 => {
                process.waiting += 1;
                if process.claim.is_none() && process.holds.is_none() {
                    process.ask(token, None, now);
                }
            }
            880..895 if !self.calm => self.give_up(at),
            895..900 if !self.calm => self.break_wire(at),
            900..901 if !self.calm => self.kill(at),
            901..920 if !self.calm => self.run_stray(),
            920..925 if !self.calm => drop(self.server.calls.pop()),
            _ => {
                let ms = if self.random.u8(..50) == 0 { self.pause_ms } else { self.random.u64(..4) };
                self.pass(ms);
            }
        }
        self.housekeeping(at);
        self.note_grants();
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
            (Some((attempt, sent)), _, Answer::Granted(left)) => {
                let deadline = (sent + left).saturating_sub(DRIFT_MS);
                attempt.settle(&Acquired::Granted { fence: None, valid_for: Duration::ZERO, clock: None });
                if of == process.claim && now < deadline {
                    process.hold(of.unwrap(), deadline);
                } else {
                    process.send(Command::Release { token: of.unwrap() }, now);
                    if of == process.claim {
                        process.claim = None;
                        process.go_on(token, now);
                    }
                }
            }
            (Some((attempt, _)), _, Answer::Held | Answer::Ahead(_)) => {
                attempt.settle(&Acquired::Denied { retry_in: None, why: Denial::Held });
                if of == process.claim {
                    let pause = if let Answer::Ahead(ms) = answer { ms } else { u64::MAX / 2 };
                    process.sleeps_until = now + pause;
                    process.turn.get_or_insert_with(|| process.tickets.turn(process.names.clone()));
                } else if process.claim.is_none() && process.waiting == 0 {
                    process.go_on(token, now);
                }
            }
            (Some((attempt, _)), ..) => {
                drop(attempt);
                process.owed.extend(owed(&flying.command, flying.not_after));
                if of == process.claim {
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
            (None, None, _) => process.owed.extend(owed(&flying.command, flying.not_after)),
        }
    }

    /// A call arrives.
    fn call_one(&mut self) {
        if self.server.calls.is_empty() {
            return;
        }
        // Those of one connection come in their order; of two they need not.
        let which = if self.calm { 0 } else { self.random.usize(..self.server.calls.len().min(3)) };
        let call = self.server.calls.remove(which);
        let Some(process) = &mut self.processes[call.process()] else { return };
        let lock = process.names.lock();
        match call {
            Call::Try(ticket) => process.tickets.called(lock, ticket.1),
            Call::HandOver { ticket, offer, server_us, token } => {
                let given = HandOver::of([ticket.1, offer, 1], server_us, as_token(token));
                process.tickets.handed_over(lock, &given, || process.owed.push(Owed::refused(given.token)));
            }
        }
    }

    /// A request that listens looks whether it is to try again.
    fn look(&mut self, at: usize) {
        let now = self.server.now;
        let Some(process) = &mut self.processes[at] else { return };
        let Some(token) = process.claim.filter(|_| !process.is_asking()) else { return };
        let hint = process.turn.as_mut().and_then(|turn| turn.next().now_or_never()).flatten();
        // S5: its own earlier try has to be out of the way.
        let is_clean = process.owed.iter().all(|owed| owed.token != token);
        if (hint.is_some() || now >= process.sleeps_until) && is_clean {
            process.ask(token, None, now);
        }
    }

    /// The holder lets go, for the next request of its process where one waits.
    fn let_go(&mut self, at: usize) {
        let (now, token) = (self.server.now, self.token());
        let Some(process) = &mut self.processes[at] else { return };
        let Some((held, _)) = process.holds.take() else { return };
        if process.waiting > 0 {
            process.ask(token, Some(held), now);
        } else {
            process.send(Command::Release { token: held }, now);
        }
    }

    /// The request that the lock is being taken for gives up.
    fn give_up(&mut self, at: usize) {
        let (now, token) = (self.server.now, self.token());
        let Some(process) = &mut self.processes[at] else { return };
        let Some(gone) = process.claim.take() else { return };
        process.waiting -= 1;
        process.turn = None;
        // An exchange is not dropped: its release has to be answered.
        for flying in &mut process.wire {
            if flying.token() == Some(gone) && matches!(flying.command, Command::Try { .. }) && flying.attempt.is_some()
            {
                flying.attempt = None;
                process.owed.extend(owed(&flying.command, flying.not_after));
            }
        }
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
            process.owed.extend(owed(&flying.command, flying.not_after));
            if flying.token() == process.claim {
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

    /// What a process does by itself.
    fn housekeeping(&mut self, at: usize) {
        let (now, token) = (self.server.now, self.token());
        let Some(process) = &mut self.processes[at] else { return };
        if now >= process.next_round {
            process.round(now);
        }
        let due = process.timers.extract_if(.., |(due, _)| *due <= now).collect::<Vec<_>>();
        for (_, number) in due {
            process.tickets.hint(process.names.lock(), number, Hint::Free);
        }
        if let Some((held, _)) = process.holds.take_if(|(_, deadline)| *deadline <= now) {
            process.send(Command::Release { token: held }, now);
            if process.waiting > 0 {
                process.ask(token, None, now);
            }
        }
        if let Some(owed) = process.owed.first().copied()
            && process.wire.iter().all(|flying| !matches!(flying.command, Command::Release { .. }))
        {
            process.send(Command::Release { token: owed.token }, now);
        }
    }

    /// Notes who was granted the lock in this step.
    fn note_grants(&mut self) {
        for (at, process) in self.processes.iter_mut().enumerate() {
            let granted = process.as_mut().map_or(0, |process| std::mem::take(&mut process.granted));
            self.grants.extend(std::iter::repeat_n(at, granted));
        }
    }

    /// Nobody holds with another.
    fn check(&self) {
        let now = self.server.now;
        let holders = self.processes.iter().flatten().filter(|process| process.holds.is_some_and(|(_, end)| end > now));
        assert!(holders.count() <= 1, "seed {}: two hold it at {now}", self.seed);
    }

    fn waits(&self) -> usize {
        self.processes.iter().flatten().map(|process| process.waiting).sum()
    }
}

/// More by `LEASEHOLD_WALKS`.
fn walks() -> u64 {
    std::env::var("LEASEHOLD_WALKS").ok().and_then(|walks| walks.parse().ok()).unwrap_or(1_000)
}

#[test]
fn nobody_holds_with_another_and_whoever_waits_is_granted_once_nothing_fails_any_more() {
    for seed in 0..walks() {
        let mut world = World::new(seed, 2 + usize::try_from(seed % 3).unwrap());
        (0..2_000).for_each(|_| world.step());
        world.calm = true;
        world.strays.clear();
        let began = world.server.now;
        while world.waits() > 0 {
            world.step();
            // A dead holder keeps the lock for its time.
            let dead = if world.processes.iter().any(Option::is_none) { TTL_MS } else { 0 };
            let most = began + 10_000 + dead;
            assert!(world.server.now < most, "seed {seed}: {} wait, the lock: {:?}", world.waits(), world.server.lock);
        }
    }
}

#[test]
fn processes_whose_requests_wait_all_the_time_take_turns() {
    for seed in 0..walks() / 10 {
        let mut world = World::new(seed, 3);
        // Else tickets would run out.
        (world.calm, world.pause_ms) = (true, 1);
        for process in world.processes.iter_mut().flatten() {
            process.waiting = 100;
            process.ask(1_000_000 + u64::try_from(process.id).unwrap(), None, 0);
        }
        // All have a place from here on.
        (0..3).for_each(|at| world.run_one(at));
        while world.grants.len() < 60 {
            world.step();
        }
        for turns in world.grants[3..].windows(3) {
            assert!(turns[0] != turns[1] && turns[1] != turns[2] && turns[0] != turns[2], "seed {seed}: {turns:?}");
        }
    }
}
