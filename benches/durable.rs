//! What does a lock cost that is on the disk before it is answered? Takes and releases keys of their own, one at a time
//! and 64 at a time, over a store in a directory; beside it, in the same rounds and on the same disk, the least that
//! durability costs: a record appended to a file and synced, where all that come together share one sync. Then the same
//! rows committed by the database that the store writes with, without a store; a relaxed store, and memory. Medians of the
//! rounds.

#[path = "support/figures.rs"]
mod figures;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use figures::keep;
use leasehold::store::file::{Durability, FileStore};
use leasehold::store::{AcquireRequest, Acquired, OnHeld, Released, Store};
use leasehold::{Key, LockManager, Mode, Token, Ttl};
use redb::{Database, TableDefinition};
use tokio::sync::{mpsc, oneshot};

const IN_FLIGHT: [usize; 2] = [1, 64];
/// What a row of the store takes, name and value.
const RECORD: usize = 60;

/// Writes records that arrive together by one call, and answers when they are on the disk.
struct Group {
    records: mpsc::UnboundedSender<oneshot::Sender<()>>,
}

impl Group {
    fn start(mut commit: impl FnMut(usize) + Send + 'static) -> Arc<Self> {
        let (records, mut waiting) = mpsc::unbounded_channel::<oneshot::Sender<()>>();
        std::thread::spawn(move || {
            while let Some(first) = waiting.blocking_recv() {
                let mut batch = vec![first];
                while let Ok(next) = waiting.try_recv() {
                    batch.push(next);
                }
                commit(batch.len());
                batch.into_iter().for_each(|answer| answer.send(()).expect("it waits"));
            }
        });
        Arc::new(Self { records })
    }

    async fn commit(&self) {
        let (answer, done) = oneshot::channel();
        self.records.send(answer).expect("the thread runs");
        done.await.expect("the thread answers");
    }
}

fn appended(dir: &Path) -> Arc<Group> {
    let mut file: File = OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
    Group::start(move |count| {
        file.write_all(&vec![7; count * RECORD]).unwrap();
        file.sync_data().unwrap();
    })
}

fn by_redb(dir: &Path) -> Arc<Group> {
    const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("rows");
    let database = Database::create(dir.join("bare.redb")).unwrap();
    let mut next = 0_u64;
    Group::start(move |count| {
        let transaction = database.begin_write().unwrap();
        {
            let mut table = transaction.open_table(TABLE).unwrap();
            for _ in 0..count {
                // A row appears, and goes with the next of its kind, as a lock does.
                let (key, row) = (next / 2 % 64, [7; RECORD - 8]);
                if next.is_multiple_of(2) {
                    table.insert(key, &row[..]).unwrap();
                } else {
                    table.remove(key).unwrap();
                }
                next += 1;
            }
        }
        transaction.commit().unwrap();
    })
}

/// Pairs a second of `tasks` that each do one pair after the other, for so long.
async fn pairs<F: Future<Output = ()> + Send>(
    tasks: usize,
    lasting: Duration,
    pair: impl Fn(usize) -> F + Clone + Send + 'static,
) -> f64 {
    let began = Instant::now();
    let working: Vec<_> = (0..tasks)
        .map(|task| {
            let pair = pair.clone();
            tokio::spawn(async move {
                let mut done = 0_u64;
                while began.elapsed() < lasting {
                    pair(task).await;
                    done += 1;
                }
                done
            })
        })
        .collect();
    let mut done = 0;
    for task in working {
        done += task.await.unwrap();
    }
    done as f64 / began.elapsed().as_secs_f64()
}

async fn of_group(group: &Arc<Group>, tasks: usize, lasting: Duration) -> f64 {
    let group = Arc::clone(group);
    pairs(tasks, lasting, move |_| {
        let group = Arc::clone(&group);
        async move {
            group.commit().await;
            group.commit().await;
        }
    })
    .await
}

async fn of_store(store: &Arc<FileStore>, tasks: usize, lasting: Duration) -> f64 {
    let store = Arc::clone(store);
    pairs(tasks, lasting, move |task| {
        let store = Arc::clone(&store);
        async move {
            let (key, token) = (Key::new(format!("order:{task}")).unwrap(), Token::random());
            let ttl = Ttl::new(Duration::from_secs(30)).unwrap();
            let ask = AcquireRequest { key: &key, token, ttl, on_held: OnHeld::Fail, mode: Mode::Exclusive, note: &[] };
            assert!(matches!(store.acquire(ask).await, Acquired::Granted { .. }));
            assert_eq!(store.release(&key, token).await, Released::Released);
        }
    })
    .await
}

async fn of_manager(locks: &LockManager, tasks: usize, lasting: Duration) -> f64 {
    let locks = locks.clone();
    pairs(tasks, lasting, move |task| {
        let locks = locks.clone();
        async move {
            let lock = locks.lock(format!("order:{task}")).await.unwrap();
            lock.unlock().await;
        }
    })
    .await
}

fn median(mut runs: Vec<f64>) -> f64 {
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 2]
}

/// A directory on the disk that the target folder is on: `/tmp` may be memory.
fn dir() -> PathBuf {
    let dir = std::env::var_os("LEASEHOLD_BENCH_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let dir = dir.join(format!("durable-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn main() {
    // `cargo test` passes no `--bench`.
    let is_bench = std::env::args().any(|arg| arg == "--bench");
    let (rounds, lasting) = if is_bench { (7, Duration::from_millis(400)) } else { (1, Duration::from_millis(20)) };
    let dir = dir();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let figures = runtime.block_on(async {
        let synced = Arc::new(FileStore::builder(dir.join("synced")).build().unwrap());
        let every = Duration::from_millis(50);
        let relaxed = FileStore::builder(dir.join("relaxed")).durability(Durability::Relaxed { every });
        let relaxed = Arc::new(relaxed.build().unwrap());
        synced.start().await.unwrap();
        relaxed.start().await.unwrap();
        let managed = FileStore::builder(dir.join("managed")).build().unwrap();
        let managed = LockManager::builder().store(managed).build_and_connect().await.unwrap();
        let memory = LockManager::builder().build().unwrap();
        let (log, bare) = (appended(&dir), by_redb(&dir));
        let mut figures: Vec<(String, f64)> = Vec::new();
        for tasks in IN_FLIGHT {
            let mut runs = [const { Vec::new() }; 6];
            for _ in 0..rounds {
                runs[0].push(of_group(&log, tasks, lasting).await);
                runs[1].push(of_group(&bare, tasks, lasting).await);
                runs[2].push(of_store(&synced, tasks, lasting).await);
                runs[3].push(of_manager(&managed, tasks, lasting).await);
                runs[4].push(of_store(&relaxed, tasks, lasting).await);
                runs[5].push(of_manager(&memory, tasks, lasting).await);
            }
            let names = [
                "durable/append_and_sync",
                "durable/bare_redb",
                "durable/leasehold",
                "durable_manager/leasehold",
                "durable_relaxed/leasehold",
                "durable_relaxed/in_memory",
            ];
            let medians = runs.map(median);
            for (name, rate) in names.iter().zip(medians) {
                println!(
                    "{tasks:>2} in flight: {name:<26} {rate:>10.0} pairs/s, {:.2} of the floor",
                    rate / medians[0]
                );
                figures.push((format!("{name}/{tasks}"), rate));
            }
        }
        managed.shutdown(Duration::from_secs(1)).await;
        synced.stop().await;
        relaxed.stop().await;
        figures
    });
    std::fs::remove_dir_all(&dir).unwrap();
    if is_bench {
        let figures: Vec<(&str, f64)> = figures.iter().map(|(name, rate)| (&**name, *rate)).collect();
        keep("durable.json", &figures).expect("the target folder is writable");
    }
}
