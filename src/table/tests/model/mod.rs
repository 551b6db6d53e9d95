//! The table against a naive model of it: random operations, and after each of them every answer, every wake-up,
//! every notice and the whole state compared, and the invariants checked.
//!
//! The model keeps plain lists and scans them. It knows no slots, wheels or links, so it cannot be wrong in the same
//! way as the table. In one thing it is looser: which of several due things a [`tick`](Table::tick) does first is the
//! table's choice, as long as it is a legal one ([`Model::due_steps`]).
//!
//! A failure shrinks to a list of [`Op`]s; [`Harness::run`] replays one. `naive` is the model, `harness` runs the two side
//! by side, `regressions` replays what it has found.

mod harness;
mod naive;
mod regressions;

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::error::{LockError, Loss};
use crate::key::Ttl;
use harness::Harness;

/// Two of the keys share a hash.
const HASHES: [u32; 4] = [7, 7, 8, 9];
const LIMITS: Limits = Limits { keys: 3, members: 3, waiters: 7, waiters_per_key: 4 };
const TTLS_MS: [u64; 4] = [1, 5, 20, 1_000];
/// Of the two sessions.
const SESSION_TTLS_MS: [u64; 2] = [6, 60];
const MAX_PLACES: u32 = 3;
/// What requests ask for, by their number.
const MODES: [Mode; 6] = [
    Mode::Exclusive,
    Mode::Shared,
    Mode::Permits { limit: 3, permits: 1 },
    Mode::Permits { limit: 3, permits: 2 },
    Mode::Permits { limit: 3, permits: 3 },
    Mode::Permits { limit: 2, permits: 1 },
];
const START: u64 = 1 << 40;
const TICK: u64 = 1_000_000;

#[derive(Clone, Debug)]
enum Op {
    Acquire(Request),
    GrantNow(Request),
    See {
        seat: usize,
    },
    Cancel {
        seat: usize,
    },
    Release {
        grant: usize,
        end: End,
    },
    ReleaseByToken {
        grant: usize,
        key: usize,
    },
    Refresh {
        grant: usize,
        ttl: Option<usize>,
    },
    RefreshByToken {
        grant: usize,
        key: usize,
        ttl: Option<usize>,
    },
    AutoRefresh {
        grant: usize,
        every_ms: u64,
        timeout_ms: u64,
    },
    StopAutoRefresh {
        grant: usize,
    },
    /// As a `run` has its lock refreshed.
    Keep {
        grant: usize,
    },
    /// As the callback of a `run` becomes an owner.
    GiveOwner {
        grant: usize,
        who: usize,
    },
    CapHold {
        grant: usize,
        cap_ms: u64,
    },
    Watch {
        grant: usize,
    },
    Detach {
        grant: usize,
    },
    Restore {
        grant: usize,
    },
    Downgrade {
        grant: usize,
    },
    Upgrade {
        grant: usize,
        waits: bool,
    },
    SeeUpgrade {
        seat: usize,
    },
    CancelUpgrade {
        seat: usize,
    },
    /// To break a deadlock.
    CallOffUpgrade {
        seat: usize,
    },
    /// An operator takes a grant after this long, unless it is released before.
    GiveNotice {
        grant: usize,
        ms: u64,
    },
    Revoke {
        grant: usize,
    },
    BreakWait {
        seat: usize,
    },
    Force {
        key: usize,
    },
    Heartbeat {
        session: usize,
        ttl: usize,
    },
    /// Ends a session, slice by slice; a new one takes its place.
    EndSession {
        session: usize,
    },
    /// To one key, or to everything.
    Listen {
        key: Option<usize>,
    },
    StopListening {
        listener: usize,
    },
    Tick {
        steps: usize,
    },
    /// Ticks until nothing is due.
    Settle,
    Advance {
        micros: u64,
    },
    /// The next operation read the clock this much too early (C1).
    ReadEarly {
        micros: u64,
    },
    Close,
    RefuseWaiters {
        budget: u32,
    },
    EndGrants {
        budget: u32,
    },
}

#[derive(Clone, Copy, Debug)]
struct Request {
    key: usize,
    /// Which of [`MODES`].
    mode: usize,
    /// Which of the owners; there are two sessions and a call.
    who: Option<usize>,
    reentry: Reentry,
    ttl: usize,
    extra: usize,
    /// One of a few that clients choose, or a fresh one.
    token: Option<usize>,
    ticket: bool,
    /// Whether it takes the lane's short way in first.
    lane: bool,
    wait: Wait,
}

/// A request as it was made: its session may have another in its place since.
#[derive(Clone, Debug)]
struct Asked {
    key: usize,
    terms: Terms,
    /// The one that the client chose, if it did.
    token: Option<u128>,
    ticket: bool,
    wait: Wait,
}

#[derive(Clone, Copy, Debug)]
enum Wait {
    No,
    Poll,
    Millis(u64),
    Forever,
}

#[derive(Debug, PartialEq)]
enum Answer {
    Nothing,
    Granted { fence: u64 },
    Queued { seq: u64 },
    Pending,
    Refused(LockError),
    Release(Release),
    Refreshed(Refreshed),
    Lost(Loss),
    Until(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let at = 0..64_usize;
    let key = 0..HASHES.len();
    let ttl = 0..TTLS_MS.len();
    let maybe_ttl = prop_oneof![Just(None), ttl.clone().prop_map(Some)];
    let ms = prop_oneof![Just(1_u64), Just(3), Just(8), Just(40)];
    let end = prop_oneof![Just(End::Released), Just(End::Dropped)];
    // Two listeners of one hash, of which one leaves, are what is easily got wrong.
    let listened_to = prop_oneof![1 => Just(None), 4 => (0..2_usize).prop_map(Some), 1 => key.clone().prop_map(Some)];
    let span = prop_oneof![
        8 => 1..3_000_u64,
        4 => 3_000..30_000_u64,
        1 => (20_u32..42).prop_map(|bits| 1_u64 << bits),
    ];
    prop_oneof![
        60 => request().prop_map(Op::Acquire),
        22 => at.clone().prop_map(|seat| Op::See { seat }),
        12 => at.clone().prop_map(|seat| Op::Cancel { seat }),
        16 => (at.clone(), end).prop_map(|(grant, end)| Op::Release { grant, end }),
        5 => (at.clone(), key.clone()).prop_map(|(grant, key)| Op::ReleaseByToken { grant, key }),
        8 => (at.clone(), maybe_ttl.clone()).prop_map(|(grant, ttl)| Op::Refresh { grant, ttl }),
        3 => (at.clone(), key.clone(), maybe_ttl)
            .prop_map(|(grant, key, ttl)| Op::RefreshByToken { grant, key, ttl }),
        6 => (at.clone(), ms.clone(), ms.clone())
            .prop_map(|(grant, every_ms, timeout_ms)| Op::AutoRefresh { grant, every_ms, timeout_ms }),
        2 => at.clone().prop_map(|grant| Op::StopAutoRefresh { grant }),
        4 => at.clone().prop_map(|grant| Op::Keep { grant }),
        4 => at.clone().prop_map(|grant| Op::GiveOwner { grant, who: 2 }),
        3 => (at.clone(), ms.clone()).prop_map(|(grant, cap_ms)| Op::CapHold { grant, cap_ms }),
        4 => at.clone().prop_map(|grant| Op::Watch { grant }),
        2 => at.clone().prop_map(|grant| Op::Detach { grant }),
        2 => at.clone().prop_map(|grant| Op::Restore { grant }),
        3 => key.clone().prop_map(|key| Op::Force { key }),
        3 => request().prop_map(Op::GrantNow),
        6 => at.clone().prop_map(|grant| Op::Downgrade { grant }),
        16 => (at.clone(), any::<bool>()).prop_map(|(grant, waits)| Op::Upgrade { grant, waits }),
        10 => at.clone().prop_map(|seat| Op::SeeUpgrade { seat }),
        4 => at.clone().prop_map(|seat| Op::CancelUpgrade { seat }),
        2 => at.clone().prop_map(|seat| Op::CallOffUpgrade { seat }),
        4 => (at.clone(), ms).prop_map(|(grant, ms)| Op::GiveNotice { grant, ms }),
        3 => at.clone().prop_map(|grant| Op::Revoke { grant }),
        5 => at.clone().prop_map(|seat| Op::BreakWait { seat }),
        10 => (prop_oneof![2 => Just(0_usize), 1 => Just(1)], ttl).prop_map(|(session, ttl)| Op::Heartbeat { session, ttl }),
        4 => (0..2_usize).prop_map(|session| Op::EndSession { session }),
        6 => listened_to.prop_map(|key| Op::Listen { key }),
        5 => at.prop_map(|listener| Op::StopListening { listener }),
        10 => (1..4_usize).prop_map(|steps| Op::Tick { steps }),
        5 => Just(Op::Settle),
        22 => span.prop_map(|micros| Op::Advance { micros }),
        5 => (1..6_000_u64).prop_map(|micros| Op::ReadEarly { micros }),
        1 => Just(Op::Close),
        2 => (1..4_u32).prop_map(|budget| Op::RefuseWaiters { budget }),
        1 => (1..4_u32).prop_map(|budget| Op::EndGrants { budget }),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let wait = prop_oneof![
        2 => Just(Wait::No),
        1 => Just(Wait::Poll),
        6 => prop_oneof![Just(0_u64), Just(3), Just(10), Just(5_000)].prop_map(Wait::Millis),
        3 => Just(Wait::Forever),
    ];
    // Two keys are mostly read and written, two mostly semaphores; what does not go together is refused.
    let read_write = prop_oneof![8 => Just(0_usize), 8 => Just(1), 1 => Just(2), 1 => Just(5)];
    let permits = prop_oneof![1 => Just(0_usize), 6 => Just(2), 4 => Just(3), 2 => Just(4), 1 => Just(5)];
    let on_read_write = (prop_oneof![6 => Just(0_usize), 1 => Just(2)], read_write);
    let on_permits = (prop_oneof![4 => Just(1_usize), 1 => Just(3)], permits);
    let key_and_mode = prop_oneof![3 => on_read_write, 2 => on_permits];
    // Mostly one and the same, so that it comes to what it has already.
    let who = prop_oneof![3 => Just(None), 3 => Just(Some(0_usize)), 1 => Just(Some(1)), 1 => Just(Some(2))];
    let reentry = prop_oneof![1 => Just(Reentry::Refused), 2 => Just(Reentry::Counted)];
    let token = prop_oneof![1 => Just(None), 1 => (0..3_usize).prop_map(Some)];
    let extra = prop_oneof![3 => Just(0_usize), 1 => 1..4_usize];
    let ttl = prop_oneof![3 => Just(2_usize), 2 => Just(3), 1 => 0..TTLS_MS.len()];
    let asked = (key_and_mode, who, reentry, ttl, extra);
    (asked, token, any::<bool>(), any::<bool>(), wait).prop_map(|(asked, token, ticket, lane, wait)| {
        let ((key, mode), who, reentry, ttl, extra) = asked;
        Request { key, mode, who, reentry, ttl, extra, token, ticket, lane, wait }
    })
}

fn ttl_at(at: usize) -> Ttl {
    Ttl::new(Duration::from_millis(TTLS_MS[at])).unwrap()
}

fn key_at(at: usize) -> Key {
    Key::new(format!("key-{at}")).unwrap()
}

impl Request {
    fn terms(&self, owners: &[Arc<Owner>]) -> Terms {
        let extra = match self.extra {
            0 => ExtraTerms::default(),
            1 => ExtraTerms { owner_label: Some("someone".into()), ..ExtraTerms::default() },
            2 => ExtraTerms { max_hold: Some(Duration::from_millis(15)), ..ExtraTerms::default() },
            _ => ExtraTerms { refresh_after: Some(0.5), ..ExtraTerms::default() },
        };
        let owner = self.who.map(|who| owners[who].clone());
        let reentry = if owner.is_some() { self.reentry } else { Reentry::Refused };
        let extra = ExtraTerms { mode: MODES[self.mode], owner, reentry, ..extra };
        let plain = extra == ExtraTerms::default();
        Terms { ttl: ttl_at(self.ttl), extra: (!plain).then(|| Arc::new(extra)) }
    }
}

impl Asked {
    /// Whether the lane of shares is for it.
    fn is_ordinary_share(&self) -> bool {
        let share = ExtraTerms { mode: Mode::Shared, ..ExtraTerms::default() };
        self.token.is_none() && self.terms.extra.as_deref() == Some(&share)
    }

    /// Whether the lane is to have it refreshed.
    fn is_kept(&self) -> bool {
        matches!(self.wait, Wait::No)
    }

    fn origin(&self) -> TokenOrigin {
        if self.token.is_some() { TokenOrigin::ByClient } else { TokenOrigin::Minted }
    }

    fn grant_state(&self) -> GrantState {
        if self.ticket { GrantState::Ticket } else { GrantState::Guard(self.origin()) }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_table_answers_as_its_model_does_after_every_operation(ops in prop::collection::vec(op(), 1..100)) {
        Harness::new().run(ops);
    }
}
