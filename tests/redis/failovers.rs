//! Fear: after a failover, or while a slot moves, a manager's waiters hang, its holders are not told, or nothing is
//! granted until it is started anew. What the store alone does then is in `sentinel` and `cluster`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use leasehold::{Lock, LockError, LockManager, Loss, Release};
use tokio::task::{JoinHandle, block_in_place};

use crate::kit::sentinel::NAME;
use crate::kit::{Cluster, Sentinels, Server, until};
use crate::redis_managers::{LONG, builder, poll_some, queue};

/// Tasks that lock a key again and again, each counting its turns.
struct Fairness {
    counts: Vec<Arc<AtomicU64>>,
    tasks: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Fairness {
    /// `each` tasks of each manager, on keys `k0` up to `k{keys}`.
    fn start(managers: &[LockManager], each: usize, keys: usize) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let mut this = Self { counts: Vec::new(), tasks: Vec::new(), stop };
        for n in 0..managers.len() * each {
            let (locks, count) = (managers[n % managers.len()].clone(), Arc::<AtomicU64>::default());
            this.counts.push(Arc::clone(&count));
            let (key, stop) = (format!("k{}", n / managers.len() % keys), Arc::clone(&this.stop));
            this.tasks.push(tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    // What a dying master had not passed on lasts for its TTL at most.
                    match locks.lock(key.as_str()).ttl(Duration::from_secs(10)).wait(LONG).await {
                        Ok(lock) => {
                            assert!(lock.fencing_token().is_some());
                            tokio::time::sleep(Duration::from_millis(2)).await;
                            let _: Release = lock.unlock().await;
                            count.fetch_add(1, Ordering::SeqCst);
                        }
                        // Granted by a server that has died, or that forgot it at once.
                        Err(LockError::Lost(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }));
        }
        this
    }

    /// Waits until every task has had two more turns: the second has begun after this call.
    fn all_go_on(&self, when: &str) {
        let now = || self.counts.iter().map(|count| count.load(Ordering::SeqCst)).collect::<Vec<_>>();
        let before = now();
        until(&format!("turns of all tasks {when}: they had {before:?}"), || {
            assert!(!self.tasks.iter().any(JoinHandle::is_finished), "a task has died");
            now().iter().zip(&before).all(|(now, before)| now > &(before + 1))
        });
    }

    async fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

async fn managers(url: &str, count: usize) -> Vec<LockManager> {
    let mut managers = Vec::new();
    for _ in 0..count {
        managers.push(builder(url).build_and_connect().await.unwrap());
    }
    managers
}

/// Peer bug 25: after a failover nothing works, an unlock hangs, subscriptions are gone.
#[tokio::test(flavor = "multi_thread")]
async fn twenty_masters_die_and_all_who_wait_go_on() {
    let mut sentinels = Sentinels::start();
    let managers = managers(&format!("redis+sentinel://{}/{NAME}", sentinels.hosts()), 3).await;
    let turns = Fairness::start(&managers, 4, 2);
    turns.all_go_on("at first");
    for kill in 0..20 {
        let dead = sentinels.kill_master();
        turns.all_go_on(&format!("after kill {kill}"));
        sentinels.revive(dead);
    }
    turns.end().await;
    // And what was heard before is heard still.
    let lock = managers[0].lock("k").wait(LONG).await.unwrap();
    until("ears", || sentinels.master().ask::<(String, i64)>("PUBSUB NUMSUB leasehold:forced:0").1 == 3);
    assert_eq!(managers[1].force_release("k").await, Ok(Release::Released));
    assert_eq!(lock.lost().await, Some(Loss::Forced));
}

/// Peer bug 25: the same for those who hold: they keep what was passed on to the next master, or are told at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_holder_keeps_its_lock_through_a_failover_or_hears_that_it_is_gone() {
    let mut sentinels = Sentinels::start();
    let managers = managers(&format!("redis+sentinel://{}/{NAME}", sentinels.hosts()), 2).await;
    let kept = managers[0].lock("kept").await.unwrap();
    let fence = kept.fencing_token();
    assert_eq!(sentinels.master().ask::<i64>("WAIT 2 20000"), 2);
    // One that only the dying master knew of.
    let lost = managers[0].lock("lost").await.unwrap();
    assert_eq!(sentinels.master().ask::<i64>("WAIT 2 20000"), 2);
    sentinels.master().ask::<i64>("DEL lock:lost");
    assert_eq!(sentinels.master().ask::<i64>("WAIT 2 20000"), 2);
    let waiter = queue(&managers[1], "kept");
    sentinels.kill_master();
    assert_eq!(lost.lost().await, Some(Loss::Vanished), "nobody refreshed it: it was verified");
    assert!(kept.is_held() && !waiter.is_finished());
    until("a refresh", || block_in_place(|| managers[0].blocking_lock("any").is_ok()));
    assert!(kept.refresh().await.is_ok());
    assert_eq!(kept.unlock().await, Release::Released);
    let next = waiter.await.unwrap().unwrap();
    assert!(next.is_held() && next.fencing_token() > fence);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_stalls_is_replaced_and_does_not_come_back_as_one() {
    let sentinels = Sentinels::start();
    let managers = managers(&format!("redis+sentinel://{}/{NAME}", sentinels.hosts()), 2).await;
    let turns = Fairness::start(&managers, 3, 2);
    turns.all_go_on("at first");
    let old = sentinels.stop_master();
    turns.all_go_on("after the master stalled");
    // It wakes up in the belief that it is the master, and is told otherwise.
    sentinels.server(old).cont();
    until("its demotion", || sentinels.server(old).info("role") == "slave");
    turns.all_go_on("after it came back");
    turns.end().await;
}

/// Peer bug 26: a stale map of the cluster, READONLY until a restart.
#[tokio::test(flavor = "multi_thread")]
async fn masters_of_a_cluster_die_and_all_who_wait_go_on() {
    let mut cluster = Cluster::with_replicas(1);
    let managers = managers(&format!("redis+cluster://{}", cluster.hosts()), 3).await;
    let turns = Fairness::start(&managers, 4, 4);
    turns.all_go_on("at first");
    for kill in 0..6 {
        let slot = cluster.slot_of(&format!("lock:k{}", kill % 4));
        let dead = cluster.owner(slot);
        cluster.kill_owner(slot);
        turns.all_go_on(&format!("after kill {kill}"));
        cluster.revive(dead);
    }
    for turn in 0..4 {
        cluster.failover(cluster.slot_of(&format!("lock:k{turn}")));
        turns.all_go_on(&format!("after failover {turn} by hand"));
    }
    turns.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_moves_under_those_who_hold_and_those_who_wait() {
    let cluster = Cluster::start();
    let managers = managers(&format!("redis+cluster://{}", cluster.hosts()), 2).await;
    let lock = managers[0].lock("k0").await.unwrap();
    let refreshing = lock.auto_refresh(Duration::from_millis(50), Duration::from_secs(1)).unwrap();
    let waiter = queue(&managers[1], "k0");
    let slot = cluster.slot_of("lock:k0");
    for _ in 0..6 {
        let to = (cluster.owner(slot) + 1) % 3;
        cluster.begin_move(slot, to);
        let refreshed = managers[0].stats().refreshed;
        cluster.finish_move(slot, to);
        until("a refresh at its new place", || managers[0].stats().refreshed > refreshed + 1);
        assert!(lock.is_held() && !waiter.is_finished());
        assert_eq!(managers[1].try_lock("k0").await.unwrap_err(), LockError::Held);
    }
    refreshing.stop();
    assert_eq!(lock.unlock().await, Release::Released);
    assert_eq!(waiter.await.unwrap().unwrap().unlock().await, Release::Released);
    // And under many who come and go.
    let turns = Fairness::start(&managers, 4, 1);
    for n in 0..6 {
        cluster.move_slot(slot, (cluster.owner(slot) + 1) % 3);
        turns.all_go_on(&format!("after move {n}"));
    }
    turns.end().await;
}

/// Peer bug 24: a fair queue that stands still behind dead waiters.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_wait_in_four_managers_fifty_die_and_the_rest_are_served_in_order() {
    let server = Server::start(&[]);
    let managers = managers(&server.url(), 4).await;
    let holder = managers[0].lock("k").await.unwrap();
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut waiters = Vec::new();
    for n in 0..200 {
        let (locks, order) = (managers[n % 4].clone(), Arc::clone(&order));
        let waiting = locks.stats().waiting;
        waiters.push(tokio::spawn(async move {
            let lock: Lock = locks.lock("k").wait(LONG).await.unwrap();
            order.lock().unwrap().push(n);
            assert_eq!(lock.unlock().await, Release::Released);
        }));
        // They come one after the other.
        until("the place of each", || managers[n % 4].stats().waiting > waiting || places_and_waiting(&server, n));
    }
    // Every fourth of them, but of other managers each time: also heads of their queues.
    let dead: Vec<usize> = (0..50).map(|n| n * 4 + n % 4).collect();
    for &n in &dead {
        waiters[n].abort();
    }
    drop(holder);
    for (n, waiter) in waiters.into_iter().enumerate() {
        assert_eq!(waiter.await.is_ok(), !dead.contains(&n), "{n}");
    }
    let order = order.lock().unwrap().clone();
    assert_eq!(order.len(), 150);
    for manager in 0..4 {
        assert!(order.iter().filter(|&&n| n % 4 == manager).is_sorted(), "within a manager, first come, first served");
    }
    until("an empty queue", || server.ask::<i64>("EXISTS leasehold:queue:{lock:k}") == 0);
    poll_some(managers[0].lock("k"), 3).await;
}

/// The first of a manager is not queued in its own table: it talks to the store.
fn places_and_waiting(server: &Server, n: usize) -> bool {
    (1..4).contains(&n) && server.ask::<usize>("ZCARD leasehold:queue:{lock:k}") >= n
}
