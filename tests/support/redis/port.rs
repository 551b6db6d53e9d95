//! Loopback ports that stay ours while their server is down, and directories that go with their owner.
//!
//! Ports come from below the range that the kernel hands to outgoing connections: a client that keeps dialling a dead
//! server's port from that range sooner or later connects to itself. A locked file per port keeps the kit's own
//! processes apart; against everybody else there is only the try.

use std::fs::{File, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const LOWEST: u64 = 12_000;
const HIGHEST: u64 = 32_000;

#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) number: u16,
    /// Its lock ends with this value, or with the process.
    _reserved: File,
}

impl Port {
    /// A port that nobody listens on at this moment, and that nobody else of the kit will choose.
    pub(crate) fn choose() -> Self {
        let shelf = std::env::temp_dir().join("leasehold-test-ports");
        std::fs::create_dir_all(&shelf).unwrap();
        for _ in 0..1000 {
            let number = u16::try_from(LOWEST + random() % (HIGHEST - LOWEST)).unwrap();
            let reserved = File::create(shelf.join(number.to_string())).unwrap();
            match reserved.try_lock() {
                Ok(()) if TcpListener::bind(("127.0.0.1", number)).is_ok() => {
                    return Self { number, _reserved: reserved };
                }
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => panic!("cannot lock a port's file: {error}"),
            }
        }
        panic!("no port is free");
    }
}

/// A directory that is removed with this value.
#[derive(Debug)]
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn make() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("leasehold-redis-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own cleaning; a failing test shall show its own failure.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}
