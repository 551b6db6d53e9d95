//! A store that you write yourself: locks that hold across the processes of one machine, as files in a directory.
//!
//! One file per key says which token holds it, until when, and the last fence; an operating-system lock on a file
//! beside them makes each operation one step. What it does not do: queues and hints (waiters poll), network file
//! systems (their locks cannot be trusted), and deleting the files of idle keys (they keep the fence). It blocks: each
//! call does a few short file operations in the caller's thread. `main` runs the suite that every store must pass.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use leasehold::store::{
    AcquireRequest, Acquired, BoxFuture, Capabilities, Denial, Events, Extended, Fairness, Forced, Health, Hints,
    Holder, KeyState, Released, Store, StoreError, Watch, drift,
};
use leasehold::{Key, LockManager, Token, Ttl, conformance};

#[derive(Debug)]
struct FileStore {
    dir: PathBuf,
}

/// What a key's file says.
#[derive(Clone, Copy)]
struct Entry {
    token: Token,
    ends_ms: u64,
    fence: u64,
}

impl Entry {
    fn left(self, now_ms: u64) -> Option<Duration> {
        self.ends_ms.checked_sub(now_ms).filter(|left| *left > 0).map(Duration::from_millis)
    }
}

impl FileStore {
    fn new(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        Ok(Self { dir })
    }

    /// One step: nobody else reads or writes entries meanwhile. The lock ends with `_step`, also if the process dies.
    fn step<T>(
        &self,
        key: &Key,
        work: impl FnOnce(Option<Entry>, u64, &dyn Fn(Entry) -> io::Result<()>) -> T,
    ) -> Step<T> {
        let name: String = key.as_str().bytes().map(|byte| format!("{byte:02x}")).collect();
        // A name that is too long for a file is refused by the file system.
        let (path, draft) = (self.dir.join(&name), self.dir.join(format!("{name}~")));
        let _step = File::create(self.dir.join("~lock")).and_then(|file| file.lock().map(|()| file)).map_err(failed)?;
        let entry = match fs::read_to_string(&path) {
            Ok(text) => Some(parse(&text).ok_or_else(|| StoreError::Protocol("a file that is no entry".into()))?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        let write = |entry: Entry| {
            // Renaming is atomic: a process that dies here leaves the old entry.
            fs::write(&draft, format!("{} {} {}", entry.token, entry.ends_ms, entry.fence))?;
            fs::rename(&draft, &path)
        };
        Ok(work(entry, now_ms(), &write))
    }

    fn try_acquire(&self, ask: AcquireRequest<'_>) -> Step<Acquired> {
        let ttl = self.checked(ask.ttl)?;
        let granted = |fence, left: Duration| {
            let span = ttl.min(left);
            Acquired::Granted { fence: Some(fence), valid_for: span.saturating_sub(drift(span)), clock: None }
        };
        self.step(ask.key, |entry, now, write| match entry.and_then(|entry| Some((entry, entry.left(now)?))) {
            Some((entry, left)) if entry.token == ask.token => Ok(granted(entry.fence, left)),
            Some((_, left)) => Ok(Acquired::Denied { retry_in: Some(left), why: Denial::Held }),
            None => {
                let fence = entry.map_or(0, |entry| entry.fence) + 1;
                write(Entry { token: ask.token, ends_ms: now + millis(ttl), fence }).map_err(failed)?;
                Ok(granted(fence, ttl))
            }
        })?
    }

    fn try_extend(&self, key: &Key, token: Token, ttl: Ttl) -> Step<Extended> {
        let ttl = self.checked(ttl)?;
        self.step(key, |entry, now, write| {
            let Some((entry, left)) = entry.filter(|e| e.token == token).and_then(|e| Some((e, e.left(now)?))) else {
                return Ok(Extended::Lost);
            };
            let longest = left.max(ttl);
            write(Entry { ends_ms: now + millis(longest), ..entry }).map_err(failed)?;
            Ok(Extended::Extended { valid_for: longest.saturating_sub(drift(longest)) })
        })?
    }

    /// Ends whoever holds the key, if `whom` says so; answers whether somebody was ended.
    fn end(&self, key: &Key, whom: impl FnOnce(Token) -> bool) -> Step<bool> {
        self.step(key, |entry, now, write| match entry {
            Some(entry) if entry.left(now).is_some() && whom(entry.token) => {
                write(Entry { ends_ms: 0, ..entry }).map_err(failed).map(|()| true)
            }
            _ => Ok(false),
        })?
    }

    fn checked(&self, ttl: Ttl) -> Step<Duration> {
        let ttl = ttl.as_duration();
        if ttl < self.capabilities().min_ttl { Err(StoreError::InvalidTtl) } else { Ok(ttl) }
    }
}

type Step<T> = Result<T, StoreError>;

impl Store for FileStore {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(Duration::from_secs(1));
        (capabilities.fairness, capabilities.hints) = (Fairness::None, Hints::None);
        capabilities
    }

    fn start(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn acquire<'a>(&'a self, ask: AcquireRequest<'a>) -> BoxFuture<'a, Acquired> {
        // In the first poll or not at all: whoever drops the future earlier has left nothing behind.
        Box::pin(async move { self.try_acquire(ask).unwrap_or_else(Acquired::Unknown) })
    }

    fn leave(&self, _: &Key) {}

    fn extend<'a>(&'a self, key: &'a Key, token: Token, ttl: Ttl) -> BoxFuture<'a, Extended> {
        Box::pin(async move { self.try_extend(key, token, ttl).unwrap_or_else(Extended::Unknown) })
    }

    fn release<'a>(&'a self, key: &'a Key, token: Token) -> BoxFuture<'a, Released> {
        // With the call, not with the first poll (S7).
        let released = match self.end(key, |holder| holder == token) {
            Ok(true) => Released::Released,
            Ok(false) => Released::AlreadyGone,
            Err(error) => Released::Unknown(error),
        };
        Box::pin(std::future::ready(released))
    }

    fn force_release<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Forced> {
        Box::pin(async move {
            match self.end(key, |_| true) {
                Ok(true) => Forced::Released,
                Ok(false) => Forced::WasFree,
                Err(error) => Forced::Unknown(error),
            }
        })
    }

    fn look<'a>(&'a self, key: &'a Key, token: Option<Token>) -> BoxFuture<'a, Result<KeyState, StoreError>> {
        Box::pin(async move {
            self.step(key, |entry, now, _| match entry.and_then(|entry| Some((entry, entry.left(now)?))) {
                Some((entry, left)) => {
                    let by = if Some(entry.token) == token { Holder::Ours } else { Holder::Other };
                    KeyState::Held { by, ends_in: Some(left), fence: Some(entry.fence) }
                }
                None => KeyState::Free,
            })
        })
    }

    fn watch<'a>(&'a self, _: &'a Key) -> BoxFuture<'a, Result<Watch, StoreError>> {
        Box::pin(std::future::ready(Ok(Watch::silent())))
    }

    fn events(&self) -> BoxFuture<'_, Result<Events, StoreError>> {
        Box::pin(std::future::ready(Ok(Events::silent())))
    }

    fn health(&self) -> BoxFuture<'_, Health> {
        let answer = fs::metadata(&self.dir).map(|_| Duration::ZERO).map_err(failed);
        Box::pin(std::future::ready(Health::new(answer, Vec::new())))
    }
}

fn parse(text: &str) -> Option<Entry> {
    let mut words = text.split(' ');
    Some(Entry {
        token: words.next()?.parse().ok()?,
        ends_ms: words.next()?.parse().ok()?,
        fence: words.next()?.parse().ok()?,
    })
}

fn failed(error: io::Error) -> StoreError {
    StoreError::Io(error.to_string().into())
}

fn now_ms() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[actix_rt::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::temp_dir().join(format!("leasehold-file-store-{}", std::process::id()));
    FileStore::new(dir.clone())?;
    conformance::store::check(|| {
        Arc::new(FileStore::new(dir.clone()).expect("the directory is there")) as Arc<dyn Store>
    });
    let locks = LockManager::builder().store(FileStore::new(dir.clone())?).build_and_connect().await?;
    let lock = locks.lock("order:42").await?;
    println!("locked {} with fencing token {:?}", lock.key(), lock.fencing_token());
    lock.unlock().await;
    locks.shutdown(Duration::from_secs(1)).await;
    fs::remove_dir_all(dir)?;
    println!("a store on files keeps the contract");
    Ok(())
}
