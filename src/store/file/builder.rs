//! Where a directory is and how it is kept: [`FileBuilder`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::FileStore;
use super::disk::{Opener, open_file};
use super::line::Machine;
use crate::store::StoreError;

/// When an answer is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Durability {
    /// When what it promises is on the disk. Those who ask at the same time share one sync.
    #[default]
    Synced,
    /// At once; the disk follows. After a crash, of the process or of the machine, locks of the last moment may be
    /// forgotten, and releases undone. For that reason nothing new is granted then before all locks have run out that may
    /// have been forgotten: for as long as the longest lock that was asked for shortly before the crash, and a second more.
    Relaxed {
        /// How often what has changed is written and synced: 1 ms to a minute.
        every: Duration,
    },
}

/// Sets up a [`FileStore`].
#[derive(Clone)]
#[must_use]
pub struct FileBuilder {
    pub(super) dir: PathBuf,
    pub(super) durability: Durability,
    pub(super) operation_timeout: Duration,
    pub(super) machine: Machine,
    pub(super) opener: Opener,
}

impl FileBuilder {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.into(),
            durability: Durability::default(),
            operation_timeout: Duration::from_secs(2),
            machine: Machine::own(),
            opener: Arc::new(open_file),
        }
    }

    /// When answers are given; [`Durability::Synced`] unless it is set.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How long an operation waits for the disk; 2 s unless it is set, from 10 ms to a minute. One that has waited for so
    /// long is unknown, and new ones are refused until the disk answers.
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = timeout;
        self
    }

    /// Checks the settings. The directory is opened when the store is started.
    ///
    /// # Errors
    /// [`StoreError::Config`] names the setting that is out of its bounds.
    pub fn build(self) -> Result<FileStore, StoreError> {
        let within = |what: &str, span: Duration, least: Duration| {
            let most = Duration::from_mins(1);
            let why = || StoreError::Config(format!("{what} is {span:?}, and may be {least:?} to {most:?}").into());
            if (least..=most).contains(&span) { Ok(()) } else { Err(why()) }
        };
        within("the operation timeout", self.operation_timeout, Duration::from_millis(10))?;
        if let Durability::Relaxed { every } = self.durability {
            within("the time between two syncs", every, Duration::from_millis(1))?;
        }
        if self.dir.as_os_str().is_empty() {
            return Err(StoreError::Config("the directory has no name".into()));
        }
        Ok(FileStore::of(self))
    }
}

debug_of!(FileBuilder, |it| dir: it.dir, durability: it.durability, operation_timeout: it.operation_timeout);
