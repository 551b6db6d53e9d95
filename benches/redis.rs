//! What does a lock in Redis cost over the two scripts that it consists of?
//!
//! Each line is acquire + release, against a real server on this machine. The baseline sends the same scripts (and,
//! below, the shortest ones that other libraries use) by EVALSHA over one multiplexed connection that lives on another
//! thread, as the store's does. Runs alternate, and the medians are shown.

#[path = "../tests/support/redis/mod.rs"]
mod kit;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};
use kit::Server;
use leasehold::store::conformance::{Stores, wait};
use leasehold::store::redis::RedisStore;
use leasehold::store::{Acquired, Ask, Intent, Released, Store};
use leasehold::{Key, Token, Ttl};
use redis::aio::MultiplexedConnection;

const TTL_MS: u64 = 30_000;
const SHORT_ACQUIRE: &str = "if redis.call('SET',KEYS[1],ARGV[1],'NX','PX',ARGV[2]) then return 1 else return 0 end";
const SHORT_RELEASE: &str =
    "if redis.call('GET',KEYS[1])==ARGV[1] then return redis.call('DEL',KEYS[1]) else return 0 end";

/// Two scripts, and a connection whose task runs on another thread.
struct Raw {
    connection: MultiplexedConnection,
    acquire: redis::Script,
    release: redis::Script,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Ours,
    Shortest,
}

impl Raw {
    fn over(connection: MultiplexedConnection, kind: Kind) -> Self {
        let (acquire, release) = match kind {
            Kind::Ours => {
                (include_str!("../src/store/redis/acquire.lua"), include_str!("../src/store/redis/release.lua"))
            }
            Kind::Shortest => (SHORT_ACQUIRE, SHORT_RELEASE),
        };
        let (acquire, release) = (redis::Script::new(acquire), redis::Script::new(release));
        let mut loading = connection.clone();
        wait(async {
            acquire.load_async(&mut loading).await.unwrap();
            release.load_async(&mut loading).await.unwrap();
        });
        Self { connection, acquire, release, kind }
    }

    async fn lock_and_release(&self, key: &str) {
        let token = Token::random().to_string();
        let (lock, fence) = (format!("lock:{key}"), format!("leasehold:fence:{{lock:{key}}}"));
        let (queue, alive) = (format!("leasehold:queue:{{lock:{key}}}"), format!("leasehold:alive:{{lock:{key}}}"));
        let wake = format!("leasehold:wake:{{lock:{key}}}");
        let late = 9_000_000_000_000_000_u64;
        let mut connection = self.connection.clone();
        let mut acquire = redis::cmd("EVALSHA");
        acquire.arg(self.acquire.get_hash());
        let mut release = redis::cmd("EVALSHA");
        release.arg(self.release.get_hash());
        if self.kind == Kind::Ours {
            acquire.arg(4).arg(&lock).arg(&fence).arg(&queue).arg(&alive).arg(&token).arg(TTL_MS).arg(late);
            acquire.arg(86_400_000).arg(0).arg("").arg(1000);
            release.arg(1).arg(&lock).arg(&token).arg(&wake).arg(late);
        } else {
            acquire.arg(1).arg(&lock).arg(&token).arg(TTL_MS);
            release.arg(1).arg(&lock).arg(&token);
        }
        connection.send_packed_command(&acquire).await.unwrap();
        connection.send_packed_command(&release).await.unwrap();
    }
}

async fn ours(store: &dyn Store, key: &Key) {
    let token = Token::random();
    let ttl = Ttl::new(Duration::from_millis(TTL_MS)).unwrap();
    let answer = store.acquire(Ask { key, token, ttl, intent: Intent::Try }).await;
    assert!(matches!(answer, Acquired::Granted { .. }), "{answer:?}");
    assert_eq!(store.release(key, token).await, Released::Released);
}

/// Runs `total` pairs with so many in flight on distinct keys; answers pairs per second.
fn measure<F: Future<Output = ()>>(in_flight: usize, total: usize, pair: impl Fn(usize) -> F) -> f64 {
    let began = Instant::now();
    wait(async {
        let mut running: FuturesUnordered<F> = (0..in_flight).map(&pair).collect();
        let mut started = in_flight;
        while running.next().await.is_some() {
            if started < total {
                running.push(pair(started));
                started += 1;
            }
        }
    });
    total as f64 / began.elapsed().as_secs_f64()
}

fn median(mut runs: Vec<f64>) -> f64 {
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 2]
}

fn main() {
    // `cargo test` passes no `--bench`.
    let (rounds, pairs) = if std::env::args().any(|arg| arg == "--bench") { (15, 20_000) } else { (1, 500) };
    let server = Server::start(&[]);
    let stores = Stores::start(&|| Arc::new(RedisStore::new(&server.url()).unwrap()) as Arc<dyn Store>);
    let elsewhere = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let connect = || {
        let client = redis::Client::open(server.url()).unwrap();
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(1024);
        elsewhere
            .block_on(
                elsewhere.spawn(async move { client.get_multiplexed_async_connection_with_config(&config).await }),
            )
            .unwrap()
            .unwrap()
    };
    let (same, shortest) = (Raw::over(connect(), Kind::Ours), Raw::over(connect(), Kind::Shortest));
    let number = AtomicU64::new(0);
    let names: Vec<Key> = (0..512).map(|n| Key::new(format!("order:{n}")).unwrap()).collect();
    let name = || &names[number.fetch_add(1, Ordering::Relaxed) as usize % names.len()];
    wait(ours(&*stores.one, name()));
    for in_flight in [1, 8, 64, 256] {
        let pairs = if in_flight == 1 { pairs / 5 } else { pairs };
        let [mut us, mut same_runs, mut shortest_runs] = [(); 3].map(|()| Vec::new());
        for _ in 0..rounds {
            us.push(measure(in_flight, pairs, |_| ours(&*stores.one, name())));
            same_runs.push(measure(in_flight, pairs, |_| same.lock_and_release(name().as_str())));
            shortest_runs.push(measure(in_flight, pairs, |_| shortest.lock_and_release(name().as_str())));
        }
        let (us, same, shortest) = (median(us), median(same_runs), median(shortest_runs));
        println!(
            "{in_flight:>4} in flight: leasehold {us:>8.0}/s   same scripts raw {same:>8.0}/s ({:.2}x)   \
             shortest scripts raw {shortest:>8.0}/s ({:.2}x)",
            us / same,
            us / shortest
        );
    }
}
