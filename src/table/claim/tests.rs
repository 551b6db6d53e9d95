//! What the table does with claims that outlive a grant, where one step does not show it; `model` has found these.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use uuid::Uuid;

use super::{Claim, ClaimOutcome, ClaimSource, StoreCommand, StoreCommands, StoreGrant, Told};
use crate::claim_reuse::ClaimReuse;
use crate::clock::Moment;
use crate::key::{FencingToken, Key, Token, Ttl};
use crate::mode::Modes;
use crate::table::{
    AcquireOutcome, AcquireRequest, Effects, End, Grant, GrantState, HoldersCursor, Limits, Slice, Table, Terms,
    TokenOrigin, WaitPolicy,
};

const HASH: u32 = 7;
const CLOCK: u64 = 1 << 50;

#[derive(Default)]
struct Recorder(Mutex<Vec<StoreCommand>>);

impl StoreCommands for Recorder {
    fn run(&self, command: StoreCommand) {
        self.0.lock().unwrap().push(command);
    }
}

/// A table, and the time, which is always its time.
struct Process {
    table: Table,
    recorder: Arc<Recorder>,
    now: Moment,
}

impl Process {
    fn new(reuse: ClaimReuse) -> Self {
        let recorder = Arc::new(Recorder::default());
        let claim =
            Claim::Stored { commands: recorder.clone(), reuse, tag: 7, modes: Modes::Exclusive, why_exclusive: None };
        let limits = Limits { keys: 8, members: 8, waiters: 8, waiters_per_key: 8 };
        let now = Moment::from_nanos(1 << 40);
        Self { table: Table::new(limits, claim, 1, now), recorder, now }
    }

    fn after(&mut self, millis: u64) {
        self.now = self.now.saturating_add(Duration::from_millis(millis));
    }

    /// Runs a transition; answers also the commands that it has sent.
    fn act<R>(&mut self, does: impl FnOnce(&mut Table, Moment, &mut Effects) -> R) -> (R, Vec<StoreCommand>) {
        let mut fx = Effects::new();
        let answer = does(&mut self.table, self.now, &mut fx);
        drop(fx);
        (answer, std::mem::take(&mut *self.recorder.0.lock().unwrap()))
    }

    /// Asks for the key and waits, as long as it takes.
    fn ask(&mut self, token: u128) -> (AcquireOutcome, Vec<StoreCommand>) {
        self.ask_for(token, WaitPolicy::Until(Moment::FAR, None))
    }

    fn ask_for(&mut self, token: u128, policy: WaitPolicy<'_>) -> (AcquireOutcome, Vec<StoreCommand>) {
        let terms = Terms { ttl: Ttl::new(Duration::from_secs(10)).unwrap(), extra: None };
        let key = key();
        let request = AcquireRequest {
            key: &key,
            hash: HASH,
            terms: &terms,
            token: Some(Token::from(Uuid::from_u128(token))),
            origin: TokenOrigin::Minted,
            grant_state: GrantState::Guard(TokenOrigin::Minted),
        };
        self.act(|table, now, fx| table.acquire(&request, policy, now, fx))
    }

    /// The store says yes to what was asked last.
    fn claimed(&mut self, commands: &[StoreCommand]) -> Grant {
        let Some(StoreCommand::Acquire { ask, .. }) = commands.last() else { panic!("it asks: {commands:?}") };
        self.claimed_for(commands, ask.ttl.as_duration())
    }

    fn claimed_for(&mut self, commands: &[StoreCommand], span: Duration) -> Grant {
        let Some(StoreCommand::Acquire { grant, .. }) = commands.last() else { panic!("it asks: {commands:?}") };
        let given = StoreGrant { fence: Some(FencingToken::at_least_one(CLOCK)), clock: Some(CLOCK) };
        let deadline = self.now.saturating_add(span);
        let source = ClaimSource::OfStore(given);
        let (outcome, _) = self.act(|table, now, fx| table.claimed(grant, source, deadline, now, fx));
        assert_eq!(outcome, ClaimOutcome::Taken);
        Grant { proof: given.fence, ..*grant }
    }

    fn release(&mut self, grant: &Grant) -> Vec<StoreCommand> {
        self.act(|table, now, fx| table.release(grant, End::Released, now, fx)).1
    }

    /// The store may have forgotten everything. What is idle has not been looked at yet.
    fn doubt_all(&mut self) {
        self.act(|table, _, _| table.doubt_claims());
    }

    fn tick(&mut self) -> Vec<StoreCommand> {
        let (slice, commands) = self.act(|table, now, fx| table.tick(now, 1_000, fx));
        assert_eq!(slice, Slice::Done);
        commands
    }
}

fn key() -> Key {
    Key::new("k").unwrap()
}

fn is_given_up(commands: &[StoreCommand]) -> bool {
    matches!(commands.first(), Some(StoreCommand::GiveUp { .. }))
}

/// Before when the store is not asked for a key that is taken.
fn not_before(commands: &[StoreCommand]) -> Moment {
    match commands.last() {
        Some(StoreCommand::Acquire { ask, .. }) => ask.not_before,
        _ => panic!("it asks: {commands:?}"),
    }
}

#[test]
fn a_doubt_is_not_forgotten_while_the_store_has_not_answered() {
    let mut process = Process::new(ClaimReuse::hand_off());
    let (_, asked) = process.ask(1);
    process.ask(2);
    process.act(|table, now, fx| table.tell_claim(&key(), HASH, Told::Doubted, now, fx));
    let grant = process.claimed(&asked);
    assert!(is_given_up(&process.release(&grant)), "the answer may be older than the doubt");
}

#[test]
fn all_are_in_doubt_also_those_that_the_store_has_not_answered() {
    let mut process = Process::new(ClaimReuse::hand_off());
    let (_, asked) = process.ask(1);
    process.ask(2);
    process.doubt_all();
    let grant = process.claimed(&asked);
    assert!(is_given_up(&process.release(&grant)), "K6");
}

#[test]
fn a_claim_that_is_let_go_and_taken_before_the_idle_ones_are_looked_at_is_in_doubt() {
    let mut process = Process::new(ClaimReuse::linger());
    let (_, asked) = process.ask(1);
    let grant = process.claimed(&asked);
    process.release(&grant);
    process.doubt_all();
    let (outcome, asked) = process.ask(2);
    assert!(matches!(outcome, AcquireOutcome::Queued(_)), "K6: {outcome:?}");
    let Some(StoreCommand::Acquire { ask, .. }) = asked.last() else { panic!("the store is asked: {asked:?}") };
    assert!(ask.after.is_some(), "the old claim is let go first: {ask:?}");
    let grant = process.claimed(&asked);
    assert_eq!(process.release(&grant), [], "the store was asked for this one after the doubt");
}

#[test]
fn a_claim_that_was_held_at_a_doubt_is_neither_handed_on_nor_kept() {
    for waits in [true, false] {
        let mut process = Process::new(ClaimReuse::linger());
        let (_, asked) = process.ask(1);
        let grant = process.claimed(&asked);
        if waits {
            process.ask(2);
        }
        process.doubt_all();
        assert!(is_given_up(&process.release(&grant)), "K6");
    }
}

#[test]
fn a_claim_that_follows_a_pause_is_told_of_a_doubt_also_before_the_pause_is_forgotten() {
    let mut process = Process::new(ClaimReuse::HandOff { max_count: 1, max_time: Duration::from_secs(8) });
    let (_, asked) = process.ask(1);
    process.ask(2);
    let first = process.claimed(&asked);
    process.after(800);
    assert_eq!(process.release(&first), [], "it is handed on");
    process.ask(3);
    let held =
        |table: &mut Table, now, fx: &mut Effects| table.grants_on(&key(), HASH, HoldersCursor::default(), now, fx);
    let second = process.act(held).0.0[0];
    let asked = process.release(&second);
    assert!(is_given_up(&asked) && not_before(&asked) > process.now, "K5: {asked:?}");
    process.ask(4);
    // No turn of the actor comes in between.
    process.after(200);
    let third = process.claimed(&asked);
    process.act(|table, now, fx| table.tell_claim(&key(), HASH, Told::Doubted, now, fx));
    assert!(is_given_up(&process.release(&third)));
}

#[test]
fn a_claim_that_is_idle_when_its_whole_time_is_over_is_followed_by_a_pause() {
    let (idle, max_time) = (Duration::from_millis(250), Duration::from_millis(800));
    let mut process = Process::new(ClaimReuse::Linger { idle, max_time });
    let (_, asked) = process.ask(1);
    let grant = process.claimed(&asked);
    process.after(700);
    assert_eq!(process.release(&grant), [], "it is kept");
    let (AcquireOutcome::Granted(again), _) = process.ask(2) else { panic!("it is this process's") };
    assert_eq!(process.release(&again), [], "it is kept");
    process.after(110);
    assert!(is_given_up(&process.tick()));
    let (_, asked) = process.ask(3);
    assert_eq!(not_before(&asked), process.now.saturating_add(max_time / 8), "K5");
}

#[test]
fn a_claim_that_nobody_wants_any_more_is_followed_by_no_pause() {
    let mut process = Process::new(ClaimReuse::linger());
    let (_, asked) = process.ask(1);
    let grant = process.claimed(&asked);
    process.release(&grant);
    let (AcquireOutcome::Granted(again), _) = process.ask(2) else { panic!("it is this process's") };
    process.release(&again);
    // However late its end is noticed.
    process.after(5_000);
    assert!(is_given_up(&process.tick()));
    assert_eq!(not_before(&process.ask(3).1), Moment::ZERO);
}

#[test]
fn a_single_try_during_a_pause_does_not_end_it() {
    let (idle, max_time) = (Duration::from_millis(250), Duration::from_millis(800));
    let mut process = Process::new(ClaimReuse::Linger { idle, max_time });
    let (_, asked) = process.ask(1);
    let grant = process.claimed(&asked);
    process.release(&grant);
    let (AcquireOutcome::Granted(again), _) = process.ask(2) else { panic!("it is this process's") };
    process.after(800);
    assert!(is_given_up(&process.release(&again)));
    let pause_ends = process.now.saturating_add(max_time / 8);
    let (_, asked) = process.ask_for(3, WaitPolicy::Now);
    assert_eq!(not_before(&asked), Moment::ZERO, "it does not wait");
    let single = process.claimed(&asked);
    assert!(is_given_up(&process.release(&single)), "it is not kept");
    assert_eq!(not_before(&process.ask(4).1), pause_ends, "K5");
}

/// Whether anything extends the lock.
fn extends(commands: &[StoreCommand]) -> bool {
    commands.iter().any(|command| matches!(command, StoreCommand::Extend { .. }))
}

#[test]
fn a_lock_that_was_granted_for_less_than_its_ttl_is_extended_in_a_moment_whatever_is_ordered_or_stopped() {
    for step in 0..5 {
        let mut process = Process::new(ClaimReuse::Off);
        let (_, asked) = process.ask(1);
        let grant = process.claimed_for(&asked, Duration::from_secs(1));
        let third = Duration::from_secs(3);
        let order = |process: &mut Process| {
            process.act(|table, now, fx| table.auto_refresh(&grant, third, third, now, fx)).0.unwrap()
        };
        match step {
            0 => {}
            1 => drop(process.act(|table, _, fx| table.stop_auto_refresh(&grant, fx))),
            2 => drop(order(&mut process)),
            3 => {
                let id = order(&mut process);
                process.act(|table, _, fx| table.stop_order(&grant, id, fx));
            }
            _ => {
                order(&mut process);
                process.act(|table, _, fx| table.stop_auto_refresh(&grant, fx));
            }
        }
        assert!(!extends(&process.tick()), "not at once");
        process.after(20);
        assert!(extends(&process.tick()), "step {step}");
        let until = process.now.saturating_add(Duration::from_secs(10));
        process.act(|table, now, fx| table.extended(&grant, until, now, fx)).0.unwrap();
        process.after(100);
        assert!(!extends(&process.tick()), "once");
    }
}

#[test]
fn a_lock_that_is_released_in_a_moment_is_not_extended() {
    let mut process = Process::new(ClaimReuse::Off);
    let (_, asked) = process.ask(1);
    let grant = process.claimed_for(&asked, Duration::from_secs(1));
    process.after(9);
    process.release(&grant);
    let (_, asked) = process.ask(2);
    process.claimed(&asked);
    process.after(1_000);
    assert!(!extends(&process.tick()));
}
