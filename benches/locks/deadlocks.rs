//! Question 8: what does the deadlock check cost, and does it grow with the chain of waits or with all who wait?
//!
//! A session that holds a lock queues for another and gives up again. `owners`: so many other sessions wait meanwhile,
//! none of them in its way. `chain`: the lock is held by a session that waits for one that waits, so many times.
//! The rival is the same request without an owner, which is not checked.

use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use leasehold::{Lock, LockFuture, LockManager, LockRequest, Session};

/// A criterion bench that is not asked to measure runs everything once, as a test.
fn is_measured() -> bool {
    std::env::args().any(|arg| arg == "--bench")
}

fn manager() -> LockManager {
    LockManager::builder().ttl(Duration::from_hours(1)).build().expect("a valid TTL")
}

/// Queues and gives up.
fn queue_and_leave(request: LockRequest<'_>) {
    let mut waits = request.wait_forever().into_future();
    assert!(Pin::new(&mut waits).poll(&mut Context::from_waker(Waker::noop())).is_pending(), "it queues");
    drop(black_box(waits));
}

/// Owners and what they hold; what they wait for must go first.
struct Waiting<'a> {
    _waits: Vec<LockFuture<'a>>,
    _held: Vec<Lock>,
}

/// Has each session hold a key of its own and wait for the key of the session that `waits_for` names.
fn wait<'a>(sessions: &'a [Session], name: &str, waits_for: impl Fn(usize) -> Option<usize>) -> Waiting<'a> {
    let key = |of: usize| format!("{name} {of}");
    let held = sessions.iter().enumerate().map(|(at, session)| session.lock(key(at)).now().expect("it is free"));
    let held = held.collect();
    let mut waits = Vec::new();
    for (at, session) in sessions.iter().enumerate() {
        if let Some(other) = waits_for(at) {
            let mut request = session.lock(key(other)).wait_forever().into_future();
            assert!(Pin::new(&mut request).poll(&mut Context::from_waker(Waker::noop())).is_pending());
            waits.push(request);
        }
    }
    Waiting { _waits: waits, _held: held }
}

pub(crate) fn deadlocks(c: &mut Criterion) {
    let mut group = c.benchmark_group("deadlocks");
    let counts: &[usize] = if is_measured() { &[10, 1_000, 100_000] } else { &[10] };
    for &owners in counts {
        let locks = manager();
        let sessions: Vec<Session> = (0..owners).map(|at| locks.session(format!("s{at}"))).collect();
        // Pairs: the odd wait for the even.
        let _others = wait(&sessions, "owner", |at| (at % 2 == 1).then(|| at - 1));
        let (me, you) = (locks.session("me"), locks.session("you"));
        let _held = (me.lock("mine").now().expect("it is free"), you.lock("yours").now().expect("it is free"));
        group.bench_function(BenchmarkId::new("leasehold", format!("{owners}_owners")), |b| {
            b.iter(|| queue_and_leave(me.lock("yours")));
        });
        group.bench_function(BenchmarkId::new("unchecked", format!("{owners}_owners")), |b| {
            b.iter(|| queue_and_leave(locks.lock("yours")));
        });
    }
    for length in [1_usize, 10, 100] {
        let locks = manager();
        let sessions: Vec<Session> = (0..=length).map(|at| locks.session(format!("s{at}"))).collect();
        let _chain = wait(&sessions, "chain", |at| (at < length).then_some(at + 1));
        let me = locks.session("me");
        let _held = me.lock("mine").now().expect("it is free");
        group.bench_function(BenchmarkId::new("leasehold", format!("chain_of_{length}")), |b| {
            b.iter(|| queue_and_leave(me.lock("chain 0")));
        });
    }
    group.finish();
}
