//! Fear: those who wait in turn, in several processes, are stuck behind a process that died in the queue, or lose their
//! turn with it.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::poll;
use leasehold::store::redis::RedisStore;
use leasehold::{BuildError, LockManager, Release};

use crate::kit::{Server, until};
use crate::processes::{MARK, Process};

const PROCESSES: usize = 4;
/// In each of them: 200 in all.
const WAITERS: usize = 50;
/// Longer than any test is patient.
const LONG: Duration = Duration::from_mins(5);
/// A process that is killed with the lock leaves it for so long.
const TTL: Duration = Duration::from_secs(2);

async fn manager(url: &str) -> LockManager {
    loop {
        let builder = LockManager::builder().ttl(TTL).store(RedisStore::new(url).unwrap());
        match builder.build_and_connect().await {
            Ok(locks) => return locks,
            // The machine is busy, the server is there.
            Err(BuildError::Store(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
#[ignore = "a process of the other tests, which run it"]
fn waiters() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let url = std::env::var("LEASEHOLD_URL").expect("the tests set it");
    // Requests borrow it, and run in tasks.
    let locks: &'static LockManager = Box::leak(Box::new(runtime.block_on(manager(&url))));
    let mut tasks = Vec::new();
    for line in std::io::stdin().lines() {
        match line.unwrap().split_once(' ').unwrap() {
            ("queue", count) => runtime.block_on(async {
                for number in 0..count.parse().unwrap() {
                    let mut request = Box::pin(locks.lock("k").wait(LONG).into_future());
                    // It has its place from the first poll on.
                    assert!(poll!(request.as_mut()).is_pending());
                    tasks.push(runtime.spawn(async move {
                        let lock = request.await.unwrap();
                        println!("{MARK}{number} {}", lock.fencing_token().unwrap());
                        assert_eq!(lock.unlock().await, Release::Released);
                    }));
                }
                println!("{MARK}queued");
            }),
            ("cancel", number) => {
                let task = &mut tasks[number.parse::<usize>().unwrap()];
                task.abort();
                assert!(runtime.block_on(task).unwrap_err().is_cancelled());
                println!("{MARK}cancelled");
            }
            other => panic!("{other:?} is no command"),
        }
    }
}

/// The processes, their places in the order of their numbers.
struct Queue {
    server: Server,
    holder: leasehold::Lock,
    processes: Vec<Process>,
}

impl Queue {
    async fn start() -> Self {
        let server = Server::start(&[]);
        let locks = manager(&server.url()).await;
        let holder = locks.lock("k").ttl(LONG).await.unwrap();
        let mut processes = Vec::new();
        for number in 1..=PROCESSES {
            let mut process = Process::worker("dead_waiters::waiters", &[("LEASEHOLD_URL", &server.url())]);
            assert_eq!(process.ask(&format!("queue {WAITERS}")), "queued");
            until("its place", || server.ask::<usize>("ZCARD leasehold:queue:{lock:k}") == number);
            processes.push(process);
        }
        Self { server, holder, processes }
    }
}

/// A grant, as a process tells it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Granted {
    process: usize,
    waiter: usize,
    fence: u64,
}

fn hear(process: usize, worker: &Process) -> Option<Granted> {
    let said = worker.hear()?;
    let (waiter, fence) = said.split_once(' ').unwrap_or_else(|| panic!("it said {said:?}"));
    Some(Granted { process, waiter: waiter.parse().unwrap(), fence: fence.parse().unwrap() })
}

fn seed() -> u64 {
    let seed = std::env::var("LEASEHOLD_CHAOS_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("LEASEHOLD_CHAOS_SEED={seed}");
    seed
}

/// Nobody has the key many times running while another, who is alive, waits in turn.
fn assert_turns(grants: &mut [Granted], dead: usize) {
    const MANY: usize = 10;
    grants.sort_by_key(|grant| grant.fence);
    assert!(grants.windows(2).all(|two| two[0].fence < two[1].fence), "a fence was given twice");
    for (at, run) in grants.windows(MANY).enumerate() {
        let is_one = run.iter().all(|grant| grant.process == run[0].process);
        let waits = |grant: &Granted| grant.process != run[0].process && grant.process != dead;
        let others_wait = grants[at + MANY..].iter().any(waits);
        assert!(!(is_one && others_wait), "process {} has it all: {run:?}", run[0].process);
    }
}

/// Kills a process before anybody is granted, and sends single waiters of the others away.
async fn a_dead_process_in_the_queue(victim: usize, random: &mut fastrand::Rng) {
    let mut queue = Queue::start().await;
    let mut left = vec![(0..WAITERS).collect::<BTreeSet<usize>>(); PROCESSES];
    for (process, left) in queue.processes.iter_mut().zip(&mut left) {
        for _ in 0..5 {
            let waiter = random.usize(..WAITERS);
            if left.remove(&waiter) {
                assert_eq!(process.ask(&format!("cancel {waiter}")), "cancelled");
            }
        }
    }
    queue.processes[victim].kill9();
    assert_eq!(queue.holder.unlock().await, Release::Released);

    let mut all = Vec::new();
    for (number, process) in queue.processes.iter().enumerate().filter(|(number, _)| *number != victim) {
        let grants: Vec<Granted> = left[number].iter().map(|_| hear(number, process).expect("it lives")).collect();
        let order: Vec<usize> = grants.iter().map(|grant| grant.waiter).collect();
        assert_eq!(order, left[number].iter().copied().collect::<Vec<_>>(), "process {number}");
        all.extend(grants);
    }
    assert_turns(&mut all, victim);
    // Each process in its turn: by the places that they took before anybody was granted.
    let mut first: Vec<usize> = Vec::new();
    for grant in &all {
        if !first.contains(&grant.process) {
            first.push(grant.process);
        }
    }
    assert!(first.is_sorted(), "first served: {first:?}");
    until("an empty queue", || queue.server.ask::<usize>("ZCARD leasehold:queue:{lock:k}") == 0);
}

/// Peer bug 24: a fair queue stood still behind waiters whose process had died.
#[tokio::test(flavor = "multi_thread")]
async fn waiters_whose_process_died_hold_nobody_up_and_the_others_keep_their_order() {
    let mut random = fastrand::Rng::with_seed(seed());
    // The one whose turn it is, and one further back.
    a_dead_process_in_the_queue(0, &mut random).await;
    let victim = random.usize(1..PROCESSES);
    a_dead_process_in_the_queue(victim, &mut random).await;
}

/// Peer bug 24: a fair queue stood still when a process died while it was served.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_while_it_is_served_takes_no_other_along() {
    let mut random = fastrand::Rng::with_seed(seed());
    let mut queue = Queue::start().await;
    let victim = random.usize(..PROCESSES);
    let seen = random.usize(1..WAITERS / 2);
    assert_eq!(queue.holder.unlock().await, Release::Released);
    let served = (0..seen).map(|_| hear(victim, &queue.processes[victim]).expect("it lives")).collect::<Vec<_>>();
    queue.processes[victim].kill9();
    let last_words = std::iter::from_fn(|| hear(victim, &queue.processes[victim]));
    let mut all: Vec<Granted> = served.into_iter().chain(last_words).collect();
    assert!(all.iter().enumerate().all(|(at, grant)| grant.waiter == at));
    for (number, process) in queue.processes.iter().enumerate().filter(|(number, _)| *number != victim) {
        let grants: Vec<Granted> = (0..WAITERS).map(|_| hear(number, process).expect("it lives")).collect();
        assert!(grants.iter().enumerate().all(|(at, grant)| grant.waiter == at), "process {number}: {grants:?}");
        all.extend(grants);
    }
    assert_turns(&mut all, victim);
    until("the end of the lock", || queue.server.ask::<i64>("EXISTS lock:k") == 0);
}
