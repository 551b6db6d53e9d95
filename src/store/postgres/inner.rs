//! What all calls of one store share: [`Inner`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use uuid::Uuid;

use super::builder::Settings;
use super::ears::Ears;
use super::places::Places;
use super::statements::Statements;
use super::wires::Wires;
use crate::clock::Moment;
use crate::key::{Key, Ttl};
use crate::mode::Mode;
use crate::store::pending::Cleaning;
use crate::store::time::Ticks;
use crate::store::{Capabilities, StoreError, Warning, drift};

/// The same warning is given to the hook again after so long.
const WARN_AGAIN: Duration = Duration::from_mins(1);

pub(super) struct Inner {
    pub(super) settings: Settings,
    pub(super) statements: Statements,
    pub(super) ticks: Arc<Ticks>,
    pub(super) wires: Wires,
    pub(super) cleaning: Cleaning<Key>,
    pub(super) places: Arc<Places>,
    pub(super) ears: Arc<Ears>,
    /// One caller of the health tries a lock for all.
    pub(super) last_trial: tokio::sync::Mutex<Option<(Instant, Result<(), StoreError>)>>,
    /// When each warning was given to the hook last.
    warned: Mutex<Vec<(&'static str, Instant)>>,
    /// `Some` from the start to the stop: without it no call is sent.
    pub(super) runtime: RwLock<Option<Handle>>,
    pub(super) tasks: Mutex<Vec<AbortHandle>>,
}

impl Inner {
    pub(super) fn new(settings: Settings) -> Self {
        let ticks = Ticks::new(settings.operation_timeout);
        let process = Uuid::new_v4().as_u64_pair().0;
        Self {
            statements: Statements::new(&settings.names),
            wires: Wires::default(),
            cleaning: Cleaning::default(),
            places: Arc::new(Places::new(process)),
            ears: Arc::default(),
            last_trial: tokio::sync::Mutex::default(),
            warned: Mutex::default(),
            runtime: RwLock::default(),
            tasks: Mutex::default(),
            ticks,
            settings,
        }
    }

    pub(super) fn now(&self) -> Moment {
        self.ticks.now()
    }

    /// The store's own runtime, while it runs.
    pub(super) fn runtime(&self) -> Option<Handle> {
        self.runtime.read().clone()
    }

    /// Whether it was started, and has not been stopped.
    pub(super) fn is_running(&self) -> bool {
        self.runtime.read().is_some()
    }

    pub(super) fn checked_ttl(&self, ttl: Ttl) -> Result<Duration, StoreError> {
        let ttl = ttl.as_duration();
        if ttl < Capabilities::new(self.settings.operation_timeout).min_ttl {
            Err(StoreError::InvalidTtl)
        } else {
            Ok(ttl)
        }
    }

    /// Passes a warning to the hook, unless it has just had the same.
    pub(super) fn warn(&self, warning: &Warning) {
        let Some(hook) = &self.settings.on_warning else { return };
        let mut warned = self.warned.lock();
        warned.retain(|(_, when)| when.elapsed() < WARN_AGAIN);
        if !warned.iter().any(|(name, _)| *name == warning.name()) {
            warned.push((warning.name(), Instant::now()));
            drop(warned);
            hook(warning);
        }
    }
}

/// For how long a grant is valid (S3, S4): the shorter of what was asked for and what is left, less the drift allowance.
pub(super) fn valid_for(ttl: Duration, left_us: i64) -> Duration {
    let span = ttl.min(Duration::from_micros(u64::try_from(left_us).unwrap_or(0)));
    span.saturating_sub(drift(span))
}

/// Whole microseconds, as statements take them.
pub(super) fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

/// How the table writes a mode, and how many permits a holder has.
pub(super) fn columns_of(mode: Mode) -> Result<(i64, i64), StoreError> {
    match mode {
        Mode::Exclusive => Ok((-1, 1)),
        Mode::Shared => Ok((0, 1)),
        Mode::Permits { limit, permits } if permits > 0 && permits <= limit => Ok((limit.into(), permits.into())),
        Mode::Permits { .. } => Err(StoreError::Config("more permits than there are, or none".into())),
    }
}

/// The mode of a holder by its columns; `None`: they are nothing of ours.
pub(super) fn mode_of(mode: i64, permits: i64) -> Option<Mode> {
    match mode {
        -1 => Some(Mode::Exclusive),
        0 => Some(Mode::Shared),
        limit => Some(Mode::Permits { limit: limit.try_into().ok()?, permits: permits.try_into().ok()? }),
    }
}
