//! Random walks of a table over a store that keeps keys in every mode, with rivals in other processes: whatever is held here
//! the store has granted and keeps for as long, every step leaves the table in order, nobody rides on a share that
//! another process was seen to wait for (K7), and nothing stays behind.
//!
//! The store is one key with its holders and their ends. In each step a request comes, polls or goes, the store answers
//! one of the commands that it was sent, a holder lets go or refreshes, a rival takes, releases or asks for the key, a
//! grant vanishes, or time passes.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Duration;

use fastrand::Rng;
use uuid::Uuid;

use super::{Claim, ClaimOutcome, ClaimRequest, ClaimSource, StoreCommand, StoreCommands, StoreGrant, Told};
use crate::claim_reuse::ClaimReuse;
use crate::clock::Moment;
use crate::error::LockError;
use crate::key::{FencingToken, Key, Token, Ttl};
use crate::mode::{Mode, ModeConflict, Modes};
use crate::table::{
    AcquireOutcome, AcquireRequest, Attempts, Downgrade, Effects, End, ExtraTerms, Grant, GrantState, Limits, Slice,
    Table, Terms, TokenOrigin, WaitPolicy, WaiterId, WaiterPoll,
};

const HASH: u32 = 7;
const TTL: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Recorder(Mutex<Vec<StoreCommand>>);

impl StoreCommands for Recorder {
    fn run(&self, command: StoreCommand) {
        self.0.lock().unwrap().push(command);
    }
}

/// A request that the store was asked for, and has not granted.
struct Asked {
    grant: Grant,
    ask: ClaimRequest,
}

struct World {
    random: Rng,
    table: Table,
    recorder: Arc<Recorder>,
    now: Moment,
    next_token: u128,
    fence: u64,
    /// The store's holders of the key, and their ends.
    store: HashMap<Token, (Mode, Moment)>,
    /// Those of them that are in other processes.
    rivals: Vec<Token>,
    asked: Vec<Asked>,
    /// Requests that wait, and what they are for.
    waiting: Vec<(WaiterId, Mode)>,
    held: Vec<(Grant, Mode)>,
    grants: HashMap<Mode, u32>,
    together: usize,
    /// What others have asked for, of what the store keeps.
    wanted: HashSet<Token>,
    rides: usize,
    /// Locks that the store was asked to keep as shares, and has not answered for.
    downgrading: Vec<(Grant, Token)>,
    /// Those of them that it keeps so, by their fences: nobody has heard of it.
    in_doubt: HashSet<FencingToken>,
    downgraded: usize,
}

fn key() -> Key {
    Key::new("k").unwrap()
}

fn go_together(one: Mode, other: Mode) -> bool {
    one != Mode::Exclusive && one.kind() == other.kind() && other != Mode::Exclusive
}

impl World {
    fn new(seed: u64) -> Self {
        let recorder = Arc::new(Recorder::default());
        let reuse = if seed.is_multiple_of(2) { ClaimReuse::Off } else { ClaimReuse::hand_off() };
        let claim = Claim::Stored { commands: recorder.clone(), reuse, tag: 7, modes: Modes::All, why_exclusive: None };
        let limits = Limits { keys: 8, members: 8, waiters: 8, waiters_per_key: 8 };
        let now = Moment::from_nanos(1 << 40);
        Self {
            random: Rng::with_seed(seed),
            table: Table::new(limits, claim, 1, now),
            recorder,
            now,
            next_token: 0,
            fence: 1 << 50,
            store: HashMap::new(),
            rivals: Vec::new(),
            asked: Vec::new(),
            waiting: Vec::new(),
            held: Vec::new(),
            grants: HashMap::new(),
            together: 0,
            wanted: HashSet::new(),
            rides: 0,
            downgrading: Vec::new(),
            in_doubt: HashSet::new(),
            downgraded: 0,
        }
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        Token::from(Uuid::from_u128(self.next_token))
    }

    fn mode(&mut self) -> Mode {
        match self.random.u32(..8) {
            0..2 => Mode::Exclusive,
            2..5 => Mode::Shared,
            _ => Mode::Permits { limit: 3, permits: self.random.u32(1..=2) },
        }
    }

    fn act<R>(&mut self, does: impl FnOnce(&mut Table, Moment, &mut Effects) -> R) -> R {
        let mut fx = Effects::new();
        let answer = does(&mut self.table, self.now, &mut fx);
        drop(fx);
        let commands = std::mem::take(&mut *self.recorder.0.lock().unwrap());
        commands.into_iter().for_each(|command| self.take(command));
        self.table.assert_invariants();
        answer
    }

    /// The store is sent a command.
    fn take(&mut self, command: StoreCommand) {
        match command {
            StoreCommand::Acquire { grant, ask, .. } => {
                let token = ask.token;
                if let Some(own) = ask.after {
                    self.store.remove(&own.token);
                }
                assert!(!self.store.contains_key(&token), "it asks for what it has");
                self.asked.push(Asked { grant, ask });
            }
            StoreCommand::Cancel { grant, .. } => self.asked.retain(|asked| asked.grant.fence != grant.fence),
            StoreCommand::Release(release) => {
                assert!(release.next.is_none() || release.end != End::Vanished);
                self.store.remove(&release.claim.token);
                if let Some((grant, ask)) = release.next {
                    self.asked.push(Asked { grant, ask });
                }
            }
            StoreCommand::GiveUp { claim, .. } => drop(self.store.remove(&claim.token)),
            StoreCommand::Extend { grant, token, .. } => {
                let deadline = self.now.saturating_add(TTL);
                let is_answered = self.random.bool();
                match self.store.get_mut(&token) {
                    Some((_, ends)) => {
                        *ends = deadline;
                        if is_answered {
                            let _ = self.act(|table, now, fx| table.extended(&grant, deadline, now, fx));
                        }
                    }
                    None if is_answered => {
                        self.act(|table, now, fx| table.claim_lost(&grant, End::Vanished, now, fx));
                    }
                    None => {}
                }
            }
            StoreCommand::RunOut { .. } | StoreCommand::Confirm { .. } => {}
        }
    }

    fn has_room(&self, mode: Mode) -> bool {
        let goes_with_all = self.store.values().all(|(held, _)| go_together(mode, *held));
        let used: u32 = self.store.values().map(|(held, _)| held.weight()).sum();
        match mode {
            Mode::Exclusive => self.store.is_empty(),
            Mode::Shared => goes_with_all,
            Mode::Permits { limit, permits } => goes_with_all && used + permits <= limit,
        }
    }

    /// A request comes.
    fn ask(&mut self) {
        let (token, mode) = (self.token(), self.mode());
        let extra = (mode != Mode::Exclusive).then(|| Arc::new(ExtraTerms { mode, ..ExtraTerms::default() }));
        let (terms, key) = (Terms { ttl: Ttl::new(TTL).unwrap(), extra }, key());
        let wait = Duration::from_millis(self.random.u64(1..5_000));
        let policy = match self.random.u8(..6) {
            0 => WaitPolicy::Now,
            1 => WaitPolicy::Poll,
            2..4 => WaitPolicy::Until(Moment::FAR, None),
            _ => WaitPolicy::Until(self.now.saturating_add(wait), None),
        };
        let origin = TokenOrigin::Minted;
        let request = AcquireRequest {
            key: &key,
            hash: HASH,
            terms: &terms,
            token: Some(token),
            origin,
            grant_state: GrantState::Guard(origin),
        };
        match self.act(|table, now, fx| table.acquire(&request, policy, now, fx)) {
            AcquireOutcome::Queued(id) => self.waiting.push((id, mode)),
            AcquireOutcome::Granted(grant) => {
                let ridden = self.table.claim_of(&grant).expect("the store has granted it");
                assert!(!self.wanted.contains(&ridden) || mode == Mode::Exclusive, "K7: another process waits for it");
                self.rides += usize::from(mode == Mode::Shared);
                self.granted(grant, mode);
            }
            AcquireOutcome::Refused(_) => {}
        }
    }

    fn granted(&mut self, grant: Grant, mode: Mode) {
        self.assert_is_kept(&grant, mode);
        *self.grants.entry(mode).or_default() += 1;
        self.held.push((grant, mode));
        self.together += usize::from(self.held.len() > 1);
    }

    /// What is held here the store has granted, and keeps for at least as long.
    fn assert_is_kept(&self, grant: &Grant, mode: Mode) {
        let kept = self.table.claim_of(grant).and_then(|token| self.store.get(&token));
        let ends = self.table.deadline_of(grant).expect("it is held");
        // An exclusive lock may be handed on under the claim of the one before.
        let is_in_doubt = |kept: Mode| kept == Mode::Shared && self.in_doubt.contains(&grant.fence);
        let is_kept = kept.is_some_and(|(kept, until)| (*kept == mode || is_in_doubt(*kept)) && ends <= *until);
        assert!(is_kept, "held here as {mode:?} until {ends:?}, and in the store {kept:?}");
    }

    fn poll(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let at = self.random.usize(..self.waiting.len());
        let (id, mode) = self.waiting[at];
        let state = GrantState::Guard(TokenOrigin::Minted);
        match self.act(|table, now, fx| table.poll_waiter(id, state, Waker::noop(), now, fx)) {
            WaiterPoll::Pending => return,
            WaiterPoll::Granted(grant) => self.granted(grant, mode),
            WaiterPoll::Refused(_) | WaiterPoll::Taken => {}
        }
        self.waiting.swap_remove(at);
    }

    fn go(&mut self) {
        if !self.waiting.is_empty() {
            let (id, _) = self.waiting.swap_remove(self.random.usize(..self.waiting.len()));
            self.act(|table, now, fx| table.cancel(id, now, fx));
        }
    }

    /// The store answers a request.
    fn answer(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        let Asked { grant, ask } = self.asked.swap_remove(self.random.usize(..self.asked.len()));
        let (is_unknown, has_room) = (self.random.u8(..8) == 0, self.has_room(ask.mode));
        if has_room && !is_unknown {
            self.fence += 1;
            self.store.insert(ask.token, (ask.mode, self.now.saturating_add(TTL)));
            let fence = Some(FencingToken::at_least_one(self.fence));
            let source = ClaimSource::OfStore(StoreGrant { fence, clock: Some(self.fence) });
            let late = self.random.u8(..16) == 0;
            let deadline = if late { self.now } else { self.now.saturating_add(TTL) };
            match self.act(|table, now, fx| table.claimed(&grant, source, deadline, now, fx)) {
                ClaimOutcome::Taken => return,
                ClaimOutcome::Unwanted => drop(self.store.remove(&ask.token)),
                ClaimOutcome::TooLate => {
                    self.store.remove(&ask.token);
                    self.deny(grant, ask, LockError::StoreUnavailable);
                }
            }
            return;
        }
        let is_other = |held: &Mode| *held != Mode::Exclusive && held.kind() != ask.mode.kind();
        let why = if is_unknown {
            LockError::StoreUnavailable
        } else if ask.mode != Mode::Exclusive && self.store.values().any(|(held, _)| is_other(held)) {
            ModeConflict::Elsewhere { asked: ask.mode }.into()
        } else {
            LockError::Held
        };
        self.deny(grant, ask, why);
    }

    /// One that waits asks again.
    fn deny(&mut self, grant: Grant, ask: ClaimRequest, why: LockError) {
        self.act(|table, now, fx| table.denied(&grant, why, now, fx));
        if ask.tries == Attempts::Many && self.table.is_claimed_for(&grant) {
            self.asked.push(Asked { grant, ask });
        }
    }

    /// An exclusive lock is to become a share, and the store to be asked.
    fn downgrade(&mut self) {
        let alone = self.held.iter().find(|(_, mode)| *mode == Mode::Exclusive).copied();
        let Some((grant, _)) = alone else { return };
        match self.act(|table, now, fx| table.downgrade(&grant, now, fx)) {
            Ok(Downgrade::Asks { claim, .. }) => self.downgrading.push((grant, claim.token)),
            Ok(Downgrade::Done) => panic!("the store keeps it"),
            Err(why) => assert!(matches!(why, LockError::Lost(_)), "{why}"),
        }
    }

    /// The store answers for a lock that is to become a share; or it does not.
    fn answer_downgrade(&mut self) {
        let Some((grant, token)) = self.downgrading.pop() else { return };
        let Some((mode, ends)) = self.store.get_mut(&token) else {
            self.act(|table, now, fx| table.claim_lost(&grant, End::Vanished, now, fx));
            return;
        };
        if self.random.u8(..4) == 0 {
            // It was not asked, or has done it and nobody hears of it.
            if self.random.bool() {
                *mode = Mode::Shared;
                self.in_doubt.insert(grant.fence);
            }
            return;
        }
        *mode = Mode::Shared;
        let ends = *ends;
        // Those who are let in are seen by their own polls.
        if self.act(|table, now, fx| table.downgraded(&grant, ends, now, fx)).is_ok()
            && let Some((_, held_as)) = self.held.iter_mut().find(|(held, _)| held.fence == grant.fence)
        {
            *held_as = Mode::Shared;
            self.downgraded += 1;
        }
    }

    fn let_go(&mut self) {
        if !self.held.is_empty() {
            let (grant, _) = self.held.swap_remove(self.random.usize(..self.held.len()));
            self.act(|table, now, fx| table.release(&grant, End::Released, now, fx));
        }
    }

    /// Another process takes the key, or releases it.
    fn rival(&mut self) {
        if self.random.bool() {
            self.rivals.pop().map(|token| self.store.remove(&token));
            return;
        }
        let (token, mode) = (self.token(), self.mode());
        if self.has_room(mode) {
            self.store.insert(token, (mode, Moment::FAR));
            self.rivals.push(token);
        }
    }

    /// The store has forgotten a grant.
    fn vanish(&mut self) {
        if let Some((grant, _)) = self.held.first().copied() {
            let token = self.table.claim_of(&grant);
            self.store.retain(|held, _| Some(*held) != token);
            self.act(|table, now, fx| table.claim_lost(&grant, End::Vanished, now, fx));
        }
    }

    /// Another process waits for the key, or the store may have forgotten it.
    fn want(&mut self) {
        self.wanted.extend(self.store.keys());
        if self.random.u8(..4) == 0 {
            self.table.doubt_claims();
        } else {
            let told = if self.random.bool() { Told::Wanted } else { Told::Doubted };
            self.act(|table, now, fx| table.tell_claim(&key(), HASH, told, now, fx));
        }
    }

    fn pass(&mut self) {
        self.now = self.now.saturating_add(Duration::from_millis(self.random.u64(..200)));
        self.store.retain(|_, (_, ends)| *ends > self.now);
        while self.act(|table, now, fx| table.tick(now, 100, fx)) == Slice::More {}
    }

    fn step(&mut self) {
        match self.random.u32(..112) {
            0..20 => self.ask(),
            20..55 => self.answer(),
            55..75 => self.poll(),
            75..80 => self.go(),
            80..88 => self.let_go(),
            88..93 => self.rival(),
            93 => self.want(),
            94 => self.vanish(),
            95..101 => self.downgrade(),
            101..107 => self.answer_downgrade(),
            _ => self.pass(),
        }
        let now = self.now;
        self.held.retain(|(grant, _)| self.table.held_until(grant, now).is_some());
        self.held.iter().for_each(|(grant, mode)| self.assert_is_kept(grant, *mode));
    }

    /// Everybody goes, and nothing stays.
    fn end(&mut self) {
        while !self.waiting.is_empty() {
            self.go();
        }
        while !self.held.is_empty() {
            self.let_go();
        }
        assert!(self.asked.is_empty(), "the store is asked for nobody");
        self.now = self.now.saturating_add(2 * TTL);
        while self.act(|table, now, fx| table.tick(now, 100, fx)) == Slice::More {}
        assert_eq!((self.table.held(), self.table.waiting()), (0, 0));
        self.store.retain(|token, _| !self.rivals.contains(token));
        assert_eq!(self.store, HashMap::new(), "nothing of it stays in the store");
    }
}

#[test]
fn what_is_shared_here_the_store_has_granted_and_nothing_stays_behind() {
    let (mut grants, mut together, mut rides, mut downgraded) = (HashMap::<_, u32>::new(), 0, 0, 0);
    for seed in 0..200 {
        let mut world = World::new(seed);
        (0..400).for_each(|_| world.step());
        world.end();
        world.grants.into_iter().for_each(|(mode, count)| *grants.entry(mode).or_default() += count);
        together += world.together;
        rides += world.rides;
        downgraded += world.downgraded;
    }
    assert!(grants.len() == 4 && grants.values().all(|count| *count > 100), "{grants:?}");
    assert!(together > 300 && rides > 300 && downgraded > 30, "{together} {rides} {downgraded}");
}
