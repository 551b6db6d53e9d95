//! Fear: owners of several processes wait for each other for ever; more of them are turned away than need be, or one that
//! was part of no cycle; or the search costs something while nobody is in anybody's way.

use std::future::IntoFuture;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use leasehold::retry::FixedInterval;
use leasehold::store::ClaimReuse;
use leasehold::store::redis::RedisStore;
use leasehold::{Builder, DeadlockReach, Lock, LockError, LockManager, Session};
use tokio::task::JoinHandle;

use crate::kit::{Cluster, Server, until};
use crate::processes::{MARK, Process};
use crate::redis_managers::{LONG, builder, manager, two};

const BOARD: &str = "leasehold:board:lock:{key}";

/// Begins to wait.
fn wants(session: &Session, key: &'static str) -> JoinHandle<Result<Lock, LockError>> {
    let session = session.clone();
    tokio::spawn(async move { session.lock(key).wait(LONG).await })
}

/// Who waits for what, as an error tells it.
fn told(error: &LockError) -> Vec<String> {
    let LockError::Deadlock { cycle } = error else { panic!("{error}") };
    cycle.iter().map(|edge| format!("{} {}", edge.owner, edge.key)).collect()
}

/// The one that is refused, and the one that is granted once the first has let go what it held, and whoever else
/// holds it.
async fn one_of_two(
    waits: [JoinHandle<Result<Lock, LockError>>; 2],
    held: [Lock; 2],
    besides: Option<Lock>,
) -> (Vec<String>, Lock) {
    let ([mut first, mut second], [mine, yours]) = (waits, held);
    let (refused, its_own, other) = tokio::select! {
        answer = &mut first => (answer, mine, second),
        answer = &mut second => (answer, yours, first),
    };
    let refused = refused.unwrap().unwrap_err();
    assert!(!other.is_finished(), "one is enough");
    its_own.unlock().await;
    drop(besides);
    (told(&refused), other.await.unwrap().unwrap())
}

fn turned(mut cycle: Vec<String>) -> Vec<String> {
    let first = cycle.iter().enumerate().min_by_key(|(_, step)| (*step).clone()).unwrap().0;
    cycle.rotate_left(first);
    cycle
}

async fn break_one(one: &LockManager, two: &LockManager) {
    let (me, you) = (one.session("me"), two.session("you"));
    let held = [me.lock("a").await.unwrap(), you.lock("b").await.unwrap()];
    let waits = [wants(&me, "b"), wants(&you, "a")];
    let (cycle, _granted) = one_of_two(waits, held, None).await;
    assert_eq!(turned(cycle), ["me b", "you a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_processes_that_wait_for_each_other_one_is_told_and_the_other_goes_on() {
    let server = Server::start(&[]);
    let (one, two) = two(&server).await;
    for _ in 0..3 {
        break_one(&one, &two).await;
    }
    // Nobody waits any more: the posts are taken down.
    until("an empty board", || server.ask::<i64>(&format!("HLEN {BOARD}")) == 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_may_lead_through_owners_of_one_process_and_back() {
    let server = Server::start(&[]);
    let (one, two) = two(&server).await;
    let (me, friend, you) = (one.session("me"), one.session("friend"), two.session("you"));
    let (mine, theirs) = (me.lock("a").await.unwrap(), friend.lock("b").await.unwrap());
    let yours = you.lock("c").await.unwrap();
    // In one process; from it; and back to it.
    let waits = [wants(&me, "b"), wants(&friend, "c"), wants(&you, "a")];
    let (first, at, rest) = futures::future::select_all(waits).await;
    assert_eq!(turned(told(&first.unwrap().unwrap_err())), ["friend c", "you a", "me b"]);
    assert!(rest.iter().all(|wait| !wait.is_finished()));
    let mut held = [Some(mine), Some(theirs), Some(yours)];
    held[at].take().unwrap().unlock().await;
    // The others are served one after the other, in the order in which they wait for each other.
    let (granted, _, rest) = futures::future::select_all(rest).await;
    drop(granted.unwrap().unwrap());
    drop(held);
    assert!(futures::future::join_all(rest).await.into_iter().all(|answer| answer.unwrap().is_ok()));
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_and_permits_of_several_processes_are_in_the_way_of_those_who_want_them_all() {
    let server = Server::start(&[]);
    let ((one, two), third) = (two(&server).await, manager(&server).await);
    let (me, you) = (one.session("me"), two.session("you"));
    let share = me.read("s").await.unwrap();
    let another = third.read("s").await.unwrap();
    let yours = you.lock("b").await.unwrap();
    let (cycle, granted) = one_of_two([wants(&me, "b"), wants(&you, "s")], [share, yours], Some(another)).await;
    assert_eq!(turned(cycle), ["me b", "you s"], "also where others share it who run");
    drop(granted);

    let permits = me.semaphore("p", 4).permits(2).await.unwrap();
    let yours = you.lock("b").wait(LONG).await.unwrap();
    let pool = {
        let you = you.clone();
        tokio::spawn(async move { you.semaphore("p", 4).permits(3).wait(LONG).await })
    };
    let (cycle, _granted) = one_of_two([wants(&me, "b"), pool], [permits, yours], None).await;
    assert_eq!(turned(cycle), ["me b", "you p"]);
}

/// Callbacks that hold one key each and ask for the other's; those that come second poll. Answers how many are refused.
async fn callbacks(one: &LockManager, two: &LockManager) -> u32 {
    let refused = AtomicU32::new(0);
    let both = async |locks: &LockManager, first: &str, second: &str| {
        let ran = locks.run(first, async |_| {
            let asked = locks.lock(second).wait(LONG);
            let pause = FixedInterval::new(Duration::from_millis(20), usize::MAX);
            let inner = if first == "a" { asked.await } else { asked.retry(pause).await };
            match inner {
                Ok(_) => {}
                Err(LockError::Deadlock { cycle }) if cycle.len() == 2 => {
                    refused.fetch_add(1, Ordering::SeqCst);
                }
                Err(error) => panic!("{error}"),
            }
        });
        assert!(ran.wait(LONG).await.is_ok());
    };
    futures::future::join(both(one, "a", "b"), both(two, "b", "a")).await;
    refused.into_inner()
}

/// Until a cycle has come about: one may be through before the other begins.
async fn one_callback_is_refused(one: &LockManager, two: &LockManager) {
    let mut refused = 0;
    while refused == 0 {
        refused = callbacks(one, two).await;
        assert!(refused <= 1, "one is enough");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_and_those_who_poll_are_owners_too() {
    let server = Server::start(&[]);
    let (one, two) = two(&server).await;
    one_callback_is_refused(&one, &two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_that_are_handed_on_inside_a_process_are_followed() {
    let server = Server::start(&[]);
    let make = async |reuse| {
        let store = RedisStore::builder(&server.url()).claim_reuse(reuse).build().unwrap();
        LockManager::builder().ttl(LONG).store(store).build_and_connect().await.unwrap()
    };
    for reuse in [ClaimReuse::hand_off(), ClaimReuse::linger()] {
        one_callback_is_refused(&make(reuse).await, &make(reuse).await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_strangers_write_on_the_board_is_no_obstacle() {
    let server = Server::start(&[]);
    let (one, two) = two(&server).await;
    for post in ["x y", "00000000000000ff nonsense", "00000000000000fe 99999999999999999_leasehold-waits", "number x"] {
        server.ask::<i64>(&format!("HSET {BOARD} {post}"));
    }
    break_one(&one, &two).await;
    // Nor one that is no board at all: then there is no search, and waits end by themselves.
    server.ask::<i64>(&format!("DEL {BOARD}"));
    server.ask::<()>(&format!("SET {BOARD} x"));
    let (me, you) = (one.session("me"), two.session("you"));
    let _held = [me.lock("a").await.unwrap(), you.lock("b").await.unwrap()];
    let short = Duration::from_millis(600);
    let waits = futures::future::join(me.lock("b").wait(short).into_future(), you.lock("a").wait(short).into_future());
    let (one, two) = waits.await;
    assert!(
        matches!((&one, &two), (Err(LockError::Timeout { .. }), Err(LockError::Timeout { .. }))),
        "{one:?} {two:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_asked_while_nobody_waits_who_holds_and_where_it_is_switched_off() {
    let server = Server::start(&[]);
    let short = Duration::from_millis(700);
    let asked = || server.ask::<i64>(&format!("EXISTS {BOARD}")) == 1;
    {
        // Sessions that hold nothing wait for others; one that holds something waits for its own process.
        let (one, two) = two(&server).await;
        let (me, friend, you) = (one.session("me"), one.session("friend"), two.session("you"));
        let _held = [you.lock("a").await.unwrap(), me.lock("b").await.unwrap(), friend.lock("c").await.unwrap()];
        let idle = one.session("idle");
        let waits = futures::future::join3(
            idle.lock("a").wait(short).into_future(),
            me.lock("c").wait(short).into_future(),
            two.lock("b").wait(short).into_future(),
        );
        let answers = waits.await;
        assert!(answers.0.is_err() && answers.1.is_err() && answers.2.is_err());
        assert!(!asked());
    }
    let make = |builder: Builder| builder.deadlock_reach(DeadlockReach::Process).build_and_connect();
    let (one, two) = (make(builder(&server.url())).await.unwrap(), make(builder(&server.url())).await.unwrap());
    let (me, you) = (one.session("me"), two.session("you"));
    let _held = [me.lock("x").await.unwrap(), you.lock("y").await.unwrap()];
    let waits = futures::future::join(me.lock("y").wait(short).into_future(), you.lock("x").wait(short).into_future());
    let (one, two) = waits.await;
    assert!(
        matches!((&one, &two), (Err(LockError::Timeout { .. }), Err(LockError::Timeout { .. }))),
        "{one:?} {two:?}"
    );
    assert!(!asked());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_waits_end_by_themselves_at_the_same_time_nobody_is_told_of_what_never_was() {
    let server = Server::start(&[]);
    let (one, two) = two(&server).await;
    for round in 0..12_u64 {
        let (me, you) = (one.session("me"), two.session("you"));
        let (mine, yours) = (me.lock("a").wait(LONG).await.unwrap(), you.lock("b").wait(LONG).await.unwrap());
        let wait = Duration::from_millis(200 + round * 40);
        let asks = async |session: &Session, key: &str, held: Lock| {
            let answer = session.lock(key).wait(wait).await;
            held.unlock().await;
            answer
        };
        let (first, second) = futures::future::join(asks(&me, "b", mine), asks(&you, "a", yours)).await;
        let refused =
            [&first, &second].iter().filter(|answer| matches!(answer, Err(LockError::Deadlock { .. }))).count();
        assert!(refused <= 1, "round {round}: {first:?} {second:?}");
        for error in [first, second].into_iter().filter_map(Result::err) {
            match error {
                LockError::Timeout { .. } => {}
                error => assert_eq!(turned(told(&error)), ["me b", "you a"]),
            }
        }
        futures::future::join(me.end(), you.end()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_the_board_has_a_node() {
    let cluster = Cluster::start();
    let make = || builder(&format!("redis+cluster://{}", cluster.hosts())).build_and_connect();
    let (one, two) = (make().await.unwrap(), make().await.unwrap());
    break_one(&one, &two).await;
}

/// Takes the first key that it is told, and then the second, and says what comes of it.
#[test]
#[ignore = "a process of the tests below, which run it"]
fn member() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let url = std::env::var("LEASEHOLD_URL").expect("where the server is");
        let locks = builder(&url).build_and_connect().await.unwrap();
        let mut lines = std::io::stdin().lines().map_while(Result::ok);
        while let Some(line) = lines.next() {
            let words: Vec<&str> = line.split(' ').collect();
            let &[name, first, second] = &words[..] else { panic!("{line}") };
            let session = locks.session(name);
            let held = session.lock(first).wait(LONG).await.unwrap();
            println!("{MARK}held");
            lines.next();
            let answer = session.lock(second).wait(LONG).await;
            match &answer {
                Ok(_) => println!("{MARK}granted"),
                Err(LockError::Deadlock { cycle }) => println!("{MARK}refused {}", cycle.len()),
                Err(error) => println!("{MARK}{error}"),
            }
            drop((answer, held));
            session.end().await;
        }
    });
}

fn members(server: &Server, count: usize) -> Vec<Process> {
    let environment = [("LEASEHOLD_URL", &*server.url())];
    (0..count).map(|_| Process::worker("deadlocks::member", &environment)).collect()
}

/// Each holds a key, and wants the next one's.
fn begin_ring(members: &mut [Process]) {
    let count = members.len();
    for (at, member) in members.iter_mut().enumerate() {
        assert_eq!(member.ask(&format!("m{at} k{at} k{}", (at + 1) % count)), "held");
    }
    members.iter_mut().for_each(|member| member.tell("go"));
}

/// What they say, one after the other.
fn answers(members: &[Process]) -> Vec<String> {
    let mut answers: Vec<_> = members.iter().map(|member| member.hear().expect("it lives")).collect();
    answers.sort();
    answers
}

#[test]
fn of_processes_in_a_ring_one_is_refused_and_all_others_are_served() {
    for count in [2, 3] {
        let server = Server::start(&[]);
        let mut members = members(&server, count);
        for _ in 0..2 {
            begin_ring(&mut members);
            let mut expected = vec!["granted".to_owned(); count - 1];
            expected.push(format!("refused {count}"));
            assert_eq!(answers(&members), expected);
        }
    }
}

#[test]
fn a_stopped_process_is_no_part_of_a_cycle_before_it_goes_on() {
    let server = Server::start(&[]);
    let mut members = members(&server, 3);
    let posts = || server.ask::<i64>(&format!("HLEN {BOARD}"));
    let number = || server.ask::<Option<u64>>(&format!("HGET {BOARD} number")).unwrap_or(0);
    for (at, member) in members.iter_mut().enumerate() {
        assert_eq!(member.ask(&format!("m{at} k{at} k{}", (at + 1) % 3)), "held");
    }
    // The third has not begun to wait when it is stopped: the ring is not closed.
    members[0].tell("go");
    members[1].tell("go");
    until("two posts", || posts() == 3);
    members[2].stop();
    members[2].tell("go");
    let (before, mut seen) = (number(), 0);
    let mut last = before;
    until("the others look again and again", || {
        let now = number();
        seen += i32::from(now > last);
        last = now;
        seen > 10
    });
    assert_eq!(posts(), 3, "they wait on, and nobody was refused");
    members[2].cont();
    assert_eq!(answers(&members), ["granted", "granted", "refused 3"]);
}

#[test]
fn a_killed_process_leaves_a_post_that_breaks_nothing() {
    let server = Server::start(&[]);
    let mut members = members(&server, 2);
    for (at, member) in members.iter_mut().enumerate() {
        assert_eq!(member.ask(&format!("m{at} k{at} k{}", 1 - at)), "held");
    }
    members[0].tell("go");
    until("its post", || server.ask::<i64>(&format!("HLEN {BOARD}")) == 2);
    members[0].kill9();
    until("its end", || server.ask::<i64>("DEL lock:k0") >= 0);
    members[1].tell("go");
    assert_eq!(members[1].hear().as_deref(), Some("granted"));
}
