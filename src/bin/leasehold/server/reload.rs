//! What is read again while the server runs: the list of tokens, and the certificate.
//!
//! At SIGHUP, and when a file has changed: that is looked for by reading it every second, since what an orchestrator
//! mounts is exchanged as a whole, link and all. A change counts when it stood for one look, so that a file that is still
//! being written, or a key whose certificate follows, is left alone. What cannot be used is logged, and the old stays.

use std::collections::hash_map::DefaultHasher;
use std::convert::Infallible;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_rt::time::sleep;
use futures_util::future::{Either, select};

use super::signals::Hangup;
use crate::exit::Failure;

const EVERY: Duration = Duration::from_secs(1);

static DONE: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
static FAILED: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// What can be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Tokens,
    Certificate,
}

impl What {
    const ALL: [Self; 2] = [Self::Tokens, Self::Certificate];

    fn label(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Certificate => "certificate",
        }
    }
}

/// How often each was read again, and could not be used.
pub(crate) fn counts() -> impl Iterator<Item = (&'static str, u64, u64)> {
    What::ALL.into_iter().map(|what| {
        let count = |counts: &[AtomicU64; 2]| counts[what as usize].load(Ordering::Relaxed);
        (what.label(), count(&DONE), count(&FAILED))
    })
}

/// Files, and who reads them.
pub(crate) struct Watched {
    what: What,
    files: Vec<PathBuf>,
    load: Box<dyn Fn() -> Result<(), Failure> + Send>,
    /// What was in them when they were loaded, and at the last look.
    loaded: u64,
    seen: u64,
}

impl Watched {
    /// They have just been loaded.
    pub(crate) fn new(
        what: What,
        files: Vec<PathBuf>,
        load: impl Fn() -> Result<(), Failure> + Send + 'static,
    ) -> Self {
        let now = content(&files);
        Self { what, files, load: Box::new(load), loaded: now, seen: now }
    }

    fn look(&mut self, is_asked: bool) {
        let now = content(&self.files);
        let is_new = now != self.loaded && now == self.seen;
        self.seen = now;
        if !is_new && !is_asked {
            return;
        }
        self.loaded = now;
        let what = self.what.label();
        match (self.load)() {
            Ok(()) => {
                DONE[self.what as usize].fetch_add(1, Ordering::Relaxed);
                tracing::info!(what, "read again");
            }
            Err(why) => {
                FAILED[self.what as usize].fetch_add(1, Ordering::Relaxed);
                tracing::error!(what, %why, "cannot be used: what was read before stays in force");
            }
        }
    }
}

/// Reads again what has changed, or everything when it is asked to.
pub(crate) async fn watch(watched: Vec<Watched>, mut hangup: Hangup) -> Infallible {
    let watched = Arc::new(Mutex::new(watched));
    loop {
        let is_asked = matches!(select(pin!(hangup.next()), pin!(sleep(EVERY))).await, Either::Left(_));
        let watched = Arc::clone(&watched);
        let look = move || {
            let mut watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
            if is_asked && watched.is_empty() {
                tracing::info!("SIGHUP: there is no file of tokens and no certificate to read again");
            }
            watched.iter_mut().for_each(|watched| watched.look(is_asked));
        };
        if let Err(why) = actix_rt::task::spawn_blocking(look).await {
            tracing::error!(%why, "what has changed could not be looked for");
        }
    }
}

/// What is in these files, if they can be read.
fn content(files: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        std::fs::read(file).ok().hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_when_it_stood_for_one_look() {
        let file = std::env::temp_dir().join(format!("leasehold-reload-{}", leasehold::Token::random()));
        std::fs::write(&file, "one").unwrap();
        let loads = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&loads);
        let load = move || {
            count.fetch_add(1, Ordering::Relaxed);
            Err(Failure::Usage("never good".to_owned()))
        };
        let mut watched = Watched::new(What::Tokens, vec![file.clone()], load);
        let mut loads_after = |is_asked| {
            watched.look(is_asked);
            loads.load(Ordering::Relaxed)
        };
        assert_eq!(loads_after(false), 0);
        std::fs::write(&file, "two").unwrap();
        assert_eq!(loads_after(false), 0, "it may be half of it");
        std::fs::write(&file, "two and a half").unwrap();
        assert_eq!(loads_after(false), 0);
        assert_eq!(loads_after(false), 1);
        assert_eq!(loads_after(false), 1, "what was of no use is tried once");
        assert_eq!(loads_after(true), 2);
        std::fs::remove_file(&file).unwrap();
        assert_eq!([loads_after(false), loads_after(false)], [2, 3]);
    }
}
