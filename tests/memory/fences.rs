//! Fear: a holder that was paused past its lock writes over what a later one has written.

use std::process::Command;

use leasehold::fence::{FenceGuard, HEADER, StaleFence};
use leasehold::{FencingToken, LockManager};

fn fence(number: u64) -> FencingToken {
    FencingToken::try_from(number).unwrap()
}

#[actix_rt::test]
async fn the_fences_of_a_manager_are_what_a_guard_wants() {
    let locks = LockManager::builder().build().unwrap();
    let guard = FenceGuard::<String>::new();
    let mut earlier: Vec<FencingToken> = Vec::new();
    for _ in 0..100 {
        let now = locks.lock("k").await.unwrap().fencing_token().unwrap();
        assert_eq!(guard.admit("k", now), Ok(()));
        for &shown in &earlier {
            assert_eq!(guard.admit("k", shown), Err(StaleFence { shown, seen: now }));
        }
        earlier.push(now);
    }
}

#[test]
fn the_header_is_a_header_and_its_value_a_fence() {
    assert!(HEADER.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
    assert_eq!("1795229686733898".parse(), Ok(fence(1_795_229_686_733_898)));
}

/// The statements between the fences of the documentation, as they stand there.
fn documented_sql() -> Vec<String> {
    let text = include_str!("../../src/fence/mod.rs");
    let (_, rest) = text.split_once("//! ```sql\n").expect("the documentation has an SQL block");
    let (block, _) = rest.split_once("//! ```").expect("the block ends");
    let lines: Vec<&str> = block.lines().map(|line| line.trim_start_matches("//!").trim()).collect();
    lines.join(" ").split(';').map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect()
}

#[test]
fn the_documented_sql_refuses_a_stale_fence() {
    let statements = documented_sql();
    assert_eq!(statements.len(), 2);
    let script = r"
import sqlite3, sys
db = sqlite3.connect(':memory:')
db.execute('CREATE TABLE stock (id INTEGER PRIMARY KEY, amount INTEGER, fence BIGINT NOT NULL DEFAULT 0)')
db.execute('INSERT INTO stock (id, amount) VALUES (7, 100)')
def write(sql, id, amount, fence):
    return db.execute(sql, dict(id=id, amount=amount, fence=fence)).rowcount
update, upsert = sys.argv[1:]
print([write(update, 7, 1, 20), write(update, 7, 2, 19), write(update, 7, 3, 20), write(update, 8, 1, 1)])
print([write(upsert, 8, 4, 30), write(upsert, 8, 5, 29), write(upsert, 8, 6, 31), write(upsert, 7, 7, 19)])
print(db.execute('SELECT id, amount, fence FROM stock ORDER BY id').fetchall())
";
    let output = Command::new("python3").args(["-c", script]).args(&statements).output();
    let output = output.expect("python3 is installed (tests/run does it)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, "[1, 0, 1, 0]\n[1, 0, 1, 0]\n[(7, 3, 20), (8, 6, 31)]\n");
}

#[cfg(feature = "redis")]
mod in_redis {
    use std::time::Duration;

    use leasehold::fence::{GuardError, REDIS_GUARD, RedisGuard};

    use super::*;
    use crate::kit::{Cluster, Server, until};

    #[track_caller]
    fn is_stale(answer: Result<(), GuardError>, shown: u64, seen: u64) {
        match answer {
            Err(GuardError::Stale(stale)) => assert_eq!(stale, StaleFence { shown: fence(shown), seen: fence(seen) }),
            other => panic!("{shown} after {seen}: {other:?}"),
        }
    }

    #[test]
    fn a_value_is_written_by_the_latest_holder_only() {
        let server = Server::start(&[]);
        let mut client = server.client();
        let guard = RedisGuard::new();
        guard.set_blocking(&mut client, "stock", fence(7), "seven").unwrap();
        is_stale(guard.set_blocking(&mut client, "stock", fence(6), "six"), 6, 7);
        assert_eq!(server.ask::<String>("GET stock"), "seven");
        guard.set_blocking(&mut client, "stock", fence(7), "again").unwrap();
        guard.set_blocking(&mut client, "stock", fence(10), &[0xff, 0x00][..]).unwrap();
        assert_eq!(server.ask::<Vec<u8>>("GET stock"), [0xff, 0x00]);
        // The resource may go; its fence stays.
        server.ask::<()>("DEL stock");
        is_stale(guard.set_blocking(&mut client, "stock", fence(9), "nine"), 9, 10);
        assert_eq!(server.ask::<i64>("EXISTS stock"), 0);
        guard.set_blocking(&mut client, "other", fence(1), 1).unwrap();
    }

    #[test]
    fn fences_are_exact_in_all_their_digits() {
        let server = Server::start(&[]);
        let mut client = server.client();
        let guard = RedisGuard::new();
        let mut numbers = vec![1, 9, 10, 99, 100, (1 << 53) - 1, 1 << 53, (1 << 53) + 1, u64::MAX - 1, u64::MAX];
        numbers.extend((1..=63).map(|bit| 1_u64 << bit));
        for &stored in &numbers {
            for &shown in &numbers {
                server.ask::<()>(&format!("SET {} {stored}", RedisGuard::fence_key("r")));
                let answer = guard.set_blocking(&mut client, "r", fence(shown), "x");
                if shown < stored {
                    is_stale(answer, shown, stored);
                } else {
                    answer.unwrap();
                }
            }
        }
    }

    #[test]
    fn a_failed_write_writes_nothing() {
        let server = Server::start(&[]);
        let mut client = server.client();
        let guard = RedisGuard::new();
        server.ask::<()>(&format!("HSET {} a b", RedisGuard::fence_key("r")));
        assert!(matches!(guard.set_blocking(&mut client, "r", fence(1), "x"), Err(GuardError::Redis(_))));
        server.ask::<()>(&format!("SET {} soon", RedisGuard::fence_key("s")));
        assert!(matches!(guard.set_blocking(&mut client, "s", fence(1), "x"), Err(GuardError::Redis(_))));
        assert_eq!(server.ask::<i64>("EXISTS r s"), 0);
        for wrong in ["", "-1", "1.5", "1e9", "x", " 1"] {
            let mut asked = redis::cmd("EVAL");
            asked.arg(REDIS_GUARD).arg(2).arg("t").arg("t:fence").arg(wrong).arg("x").arg(0).arg(0);
            let answer: redis::RedisResult<()> = asked.query(&mut client);
            assert!(answer.is_err(), "{wrong:?}");
        }
        assert_eq!(server.ask::<i64>("EXISTS t t:fence"), 0);
    }

    #[test]
    fn lives_are_as_they_were_asked_for() {
        let server = Server::start(&[]);
        let mut client = server.client();
        let pttl = |key: &str| server.ask::<i64>(&format!("PTTL {key}"));
        RedisGuard::new().set_blocking(&mut client, "r", fence(1), "x").unwrap();
        assert_eq!((pttl("r"), pttl(&RedisGuard::fence_key("r"))), (-1, -1));
        let guard = RedisGuard::new().expire_after(Duration::ZERO).forget_after(Duration::from_secs(600));
        guard.set_blocking(&mut client, "r", fence(2), "x").unwrap();
        until("the end of the value", || server.ask::<i64>("EXISTS r") == 0);
        assert!((1..=600_000).contains(&pttl(&RedisGuard::fence_key("r"))));
        is_stale(guard.set_blocking(&mut client, "r", fence(1), "y"), 1, 2);
    }

    #[test]
    fn the_scripts_are_reloaded_after_a_flush() {
        let server = Server::start(&[]);
        let mut client = server.client();
        for number in 1..4 {
            RedisGuard::new().set_blocking(&mut client, "r", fence(number), number).unwrap();
            server.ask::<()>("SCRIPT FLUSH");
        }
        assert_eq!(server.ask::<u64>("GET r"), 3);
    }

    #[test]
    fn a_resource_and_its_fence_share_a_slot_of_the_cluster() {
        let cluster = Cluster::start();
        for resource in ["a", "stock:7", "{user}:1", "foo}bar", "{}x", "a{b}c}", "}{"] {
            let mut client = cluster.nodes[cluster.owner(cluster.slot_of(resource))].client();
            RedisGuard::new().set_blocking(&mut client, resource, fence(5), "x").unwrap();
            is_stale(RedisGuard::new().set_blocking(&mut client, resource, fence(4), "y"), 4, 5);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_two_managers_the_later_holder_writes() {
        let server = Server::start(&[]);
        let manager = async || {
            let store = leasehold::store::redis::RedisStore::new(&server.url()).unwrap();
            LockManager::builder().store(store).build_and_connect().await.unwrap()
        };
        let (one, two) = (manager().await, manager().await);
        let mut client = redis::Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
        let guard = RedisGuard::new();
        let paused = one.lock("k").ttl(Duration::from_millis(100)).await.unwrap();
        let awake = two.lock("k").wait_forever().await.unwrap();
        let (early, late) = (paused.fencing_token().unwrap(), awake.fencing_token().unwrap());
        guard.set(&mut client, "r", late, "late").await.unwrap();
        is_stale(guard.set(&mut client, "r", early, "early").await, early.get(), late.get());
        assert_eq!(server.ask::<String>("GET r"), "late");
    }
}
