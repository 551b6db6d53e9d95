//! Fear: a bug that other lock libraries had is ours too, and nobody looked (peer bugs).
//!
//! The tests live with their fears. Here is the list of the bugs, each with a public report where one is known, and of
//! where each has to be tested.
//!
//! | peer bug | what went wrong elsewhere |
//! |---|---|
//! | 1 | unlock message missed, the waiter sleeps a whole lease (redisson#5761, #3891) |
//! | 2 | key vanishes without a message: DEL, eviction, failover (redisson#3829) |
//! | 3 | granted after its own lease or session died in the queue (etcd#11456, #19597) |
//! | 4 | a late retry of a release kills a newer lock (etcd#22082) |
//! | 5 | watchdog outlives unlock or a cancelled acquire (redisson#7272, #2714) |
//! | 6 | keep-alive goes on after the client object is gone (etcd#17470) |
//! | 7 | watchdog stops silently (redisson#3194, #5698) |
//! | 8 | extender continues after a conflict, re-grabs, extends for ever (RedLock.net#48, #68) |
//! | 9 | cancelled release leaves a permanent lock (redis-py#3847, #4258) |
//! | 10 | clean-up runs on the cancelled context (blnk#354, ncps#913) |
//! | 11 | cancelled command desynchronises the connection (redis-py#2624, #2665) |
//! | 12 | SETNX, crash, no TTL (redis-py#818) |
//! | 13 | quorum reached, validity already over (redsync#72, redis-plus-plus#24) |
//! | 14 | blocked by its own earlier attempt (node-redlock#369) |
//! | 15 | deadline counted from the first attempt (node-redlock#169) |
//! | 16 | background extend throws and kills the process (node-redlock#283) |
//! | 17 | orphan wake-up token (python-redis-lock#14) |
//! | 18 | 0, negative, null timeouts = infinite lock (python-redis-lock#73, #74) |
//! | 19 | huge TTL overflows (etcd#9374, tokio#6612, parking_lot#111) |
//! | 20 | special argument values open the gate (redisson#2172) |
//! | 21 | dropped future leaves a dead waiter at the head (tokio#1898, sqlx#620, bb8#67) |
//! | 22 | wake or drop under the internal lock (tokio#5429, #6450) |
//! | 23 | idle key leak; or removal that gives two mutexes for one key (aioredlock#101, spring-integration#11044) |
//! | 24 | fair queue stuck behind dead waiters (redisson#1104 ... #6150) |
//! | 25 | after a failover nothing works, unlock hangs, subscriptions gone (redisson#4822, #6223, #2007) |
//! | 26 | stale topology, READONLY until restart (redis-rs#2277) |
//! | 27 | gauges drift or go negative (bifrost#7005) |
//! | 28 | deadlock detector loops, or sees ghosts (muscle3#395, matrixone#25571) |
//! | 29 | the handler goes on waiting after its client left (actix-web#3462) |
//! | 30 | wall-clock jumps (valkey#2651), suspend (rust#87906) |
//! | 31 | a lost lock is retried as if transient; the last error hides the first |
//! | 32 | lost-handler hangs or races (DistributedLock#85, #133) |
//! | 33 | circuit breaker stays open for ever (redlock-universal#77) |
//! | 34 | memory store: after a takeover the old owner can release, the new one cannot (verrou) |
//! | 35 | release error hides the callback's own error (verrou, node-redlock#369) |
//! | 36 | guard drop is a no-op in one build (rslock#30) |
//! | 37 | a failed extend deletes the key; short TTLs underflow (rslock) |
//! | 38 | contention and outage give the same error (node-redlock#168) |
//! | 39 | child keeps running after its lock is lost; exit code hidden (etcdctl lock, consul lock) |
//! | 40 | cancelled leader takes the followers with it (tailscale#18919) |

use crate::sources::sources;

/// Those of the peers' bugs that can happen without a store.
const IN_MEMORY_MODE: [u32; 19] = [3, 5, 6, 16, 17, 18, 19, 20, 21, 22, 23, 27, 28, 30, 32, 34, 35, 36, 40];

/// Those that can happen to locks in Redis.
#[cfg(feature = "redis")]
const OVER_REDIS: [u32; 19] = [1, 2, 4, 7, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 31, 33, 37, 38];

/// Those that can happen to clients of a server, and to a command that runs under a lock.
#[cfg(feature = "server")]
const AT_THE_SERVER: [u32; 2] = [29, 39];

/// The doc line of a test for a peer's bug: `/// Peer bug N: what went wrong there`.
const MARK: &str = concat!("/// Peer", " bug ");

/// The numbers of the bugs that a file has tests for: a doc line, then a test's attribute and its function.
fn tested(text: &str) -> Vec<u32> {
    let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
    let number = |(at, line): (usize, &&str)| {
        let (number, what) = line.strip_prefix(MARK)?.split_once(": ")?;
        let mut after = lines[at + 1..].iter().skip_while(|line| line.starts_with("///"));
        let is_test = after.next()?.contains("test") && after.next()?.contains("fn ");
        (is_test && !what.is_empty()).then(|| number.parse().expect("it is a number"))
    };
    lines.iter().enumerate().filter_map(number).collect()
}

/// Those of these bugs that none of the files that count has a test for.
fn missing(bugs: &[u32], counts: impl Fn(&str) -> bool) -> Vec<u32> {
    let files = ["src", "tests"].into_iter().flat_map(sources);
    let tested: Vec<u32> = files.filter(|(_, text)| counts(text)).flat_map(|(_, text)| tested(&text)).collect();
    bugs.iter().copied().filter(|bug| !tested.contains(bug)).collect()
}

#[test]
fn every_peer_bug_that_can_happen_in_memory_mode_has_its_test() {
    let missing = missing(&IN_MEMORY_MODE, |_| true);
    assert!(missing.is_empty(), "no test says that it is for peer bug {missing:?}");
}

#[cfg(feature = "redis")]
#[test]
fn every_peer_bug_that_can_happen_over_redis_has_its_test_there() {
    // Only those with real servers count.
    let missing = missing(&OVER_REDIS, |text| text.contains(concat!("crate", "::kit")));
    assert!(missing.is_empty(), "no test over Redis says that it is for peer bug {missing:?}");
}

#[cfg(feature = "server")]
#[test]
fn every_peer_bug_that_can_happen_at_the_server_has_its_test() {
    let missing = missing(&AT_THE_SERVER, |_| true);
    assert!(missing.is_empty(), "no test says that it is for peer bug {missing:?}");
}

#[test]
fn a_doc_line_counts_only_above_a_test() {
    let line = format!("{MARK}7: it was so.");
    assert_eq!(tested(&format!("{line}\n#[test]\nfn it_is_not_so() {{}}")), [7]);
    assert_eq!(tested(&format!("{line}\n#[actix_rt::test]\nasync fn it_is_not_so() {{}}")), [7]);
    assert_eq!(tested(&format!("{line}\n#[tokio::test(flavor = \"multi_thread\")]\nasync fn it_is_not() {{}}")), [7]);
    assert_eq!(tested(&format!("{line}\nstruct NoTest;")), [0; 0]);
    assert_eq!(tested(&format!("{MARK}7: \n#[test]\nfn says_nothing() {{}}")), [0; 0]);
}
