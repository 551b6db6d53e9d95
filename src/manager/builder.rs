//! How a manager is described and built: every setting, its default and its bounds.

use std::sync::Arc;
use std::time::Duration;

use super::LockManager;
use crate::config::{BuildError, Builder, Config};
use crate::key::{Key, Ttl, TtlBounds};
use crate::routing;
use crate::store::{ClaimReuse, FailMode, Store};

impl Builder {
    /// Prefixes of keys that metrics tell apart by their label `lock_namespace`, up to 32; of several that a key begins
    /// with the longest counts. Keys that begin with none are in `other`; so are all, by default.
    ///
    /// Each namespace has [`shards`](Self::shards) of its own, up to 4,096 in all, and with them
    /// [`max_keys`](Self::max_keys) of its own: one that is full leaves room in the others.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let locks = leasehold::LockManager::builder().namespaces(["order:", "cron:"]).build()?;
    /// # Ok(()) }
    /// ```
    pub fn namespaces<P: Into<String>>(mut self, prefixes: impl IntoIterator<Item = P>) -> Self {
        self.namespaces = prefixes.into_iter().map(|prefix| prefix.into().into_boxed_str()).collect();
        self
    }

    /// Backs the locks with a store, so that they hold across processes: a lock is granted when the store has given it,
    /// and ends when the store says that it does (less an allowance for drift).
    ///
    /// Shared locks and permits too, if the store keeps them ([`Capabilities::modes`](crate::store::Capabilities::modes));
    /// otherwise they are refused with [`LockError::WrongMode`](crate::LockError::WrongMode), unless they
    /// [stay within the process](crate::LockOptions::process_scope).
    pub fn store(mut self, store: impl Store) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// The same as [`Builder::build`], and verifies that the store answers.
    ///
    /// # Errors
    /// As for `build`; [`BuildError::Store`] if the store's set-up is wrong, or if it does not answer.
    ///
    /// # Cancel safety
    /// Dropping the future ends the manager that was being built.
    pub async fn build_and_connect(self) -> Result<LockManager, BuildError> {
        let manager = self.build()?;
        if let Some(client) = manager.client() {
            client.connected().await.map_err(BuildError::Store)?;
        }
        Ok(manager)
    }

    /// Builds the manager and starts its own thread. It needs no runtime, and works inside any.
    ///
    /// # Errors
    /// [`BuildError::InvalidOption`] names a setting that is out of bounds; [`BuildError::Thread`] if the machine has
    /// no thread to give.
    pub fn build(self) -> Result<LockManager, BuildError> {
        LockManager::start(self.check()?)
    }

    /// Holds the settings to their bounds; answers what a manager is started with.
    pub(crate) fn check(self) -> Result<Config, BuildError> {
        let (ttl, ttls) = self.check_ttls()?;
        self.check_shards()?;
        self.check_limits()?;
        self.check_fail_mode()?;
        let shards = routing::shards_each(self.shards, self.namespaces.len() + 1);
        Ok(Config { ttl, ttls, given: Self { shards, ..self } })
    }

    /// Answers the default TTL, and the bounds of every TTL: the narrower of these settings' and the store's.
    fn check_ttls(&self) -> Result<(Ttl, TtlBounds), BuildError> {
        let Self { ttl, min_ttl, max_ttl, .. } = *self;
        let kept = self.store.as_ref().map(|store| store.capabilities());
        let (shortest, longest) = kept.map_or((Duration::ZERO, Ttl::MAX), |kept| (kept.min_ttl, kept.max_ttl));
        let default = Ttl::new(ttl).map_err(|_| invalid("ttl", "it must be from 1 ms to 45 days"))?;
        let is_range = Ttl::MIN <= min_ttl && min_ttl <= max_ttl && max_ttl <= Ttl::MAX;
        require(is_range, "min_ttl, max_ttl", "they must be from 1 ms to 45 days, the smaller first")?;
        require((min_ttl..=max_ttl).contains(&ttl), "ttl", "the default is outside min_ttl and max_ttl")?;
        require(ttl >= shortest, "ttl", "the default is shorter than what the store keeps")?;
        require(ttl <= longest, "ttl", "the default is longer than what the store keeps")?;
        Ok((default, TtlBounds { min: min_ttl.max(shortest), max: max_ttl.min(longest) }))
    }

    /// Checks how the keys are split, and how many threads look after them how often.
    fn check_shards(&self) -> Result<(), BuildError> {
        let is_power = self.shards.is_power_of_two() && self.shards <= 1024;
        require(is_power, "shards", "it must be a power of two from 1 to 1024")?;
        if let Some(why) = routing::fault(&self.namespaces) {
            return Err(invalid("namespaces", why));
        }
        require((1..=64).contains(&self.threads), "threads", "it must be from 1 to 64")?;
        require(self.sweep_every >= Duration::from_millis(1), "sweep_every", "it must be at least 1 ms")
    }

    fn check_fail_mode(&self) -> Result<(), BuildError> {
        let reuse = self.store.as_ref().map_or(ClaimReuse::Off, |store| store.capabilities().claim_reuse);
        let is_clear = self.fail_mode != FailMode::Local || reuse == ClaimReuse::Off;
        require(is_clear, "fail_mode", "locks without the store and claims that are reused do not go together")
    }

    fn check_limits(&self) -> Result<(), BuildError> {
        let is_length = (1..=Key::MAX_BYTES).contains(&self.max_key_bytes);
        require(is_length, "max_key_bytes", "it must be from 1 to 1024")?;
        let counts = [self.max_keys, self.max_holders, self.max_waiters, self.max_waiters_per_key];
        let names = "max_keys, max_holders, max_waiters, max_waiters_per_key";
        let all_fit = counts.iter().all(|count| (1..1 << 31).contains(count));
        require(all_fit, names, "they must be from 1 to 2^31 - 1")?;
        require(self.max_locks_per_session > 0, "max_locks_per_session", "it must be at least 1")?;
        require(self.max_value_bytes <= 1 << 24, "max_value_bytes", "it must be at most 16 MiB")?;
        let lives = Duration::from_millis(1)..=Duration::from_hours(1);
        require(lives.contains(&self.value_life), "value_life", "it must be from 1 ms to an hour")?;
        require((1..=1 << 16).contains(&self.event_buffer), "event_buffer", "it must be from 1 to 65,536")
    }
}

/// `Ok` if a setting is as it must be.
fn require(is_so: bool, option: &'static str, why: &'static str) -> Result<(), BuildError> {
    if is_so { Ok(()) } else { Err(invalid(option, why)) }
}

fn invalid(option: &'static str, why: &'static str) -> BuildError {
    BuildError::InvalidOption { option, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_bounds_are_named() {
        let second = Duration::from_secs(1);
        let wrong: Vec<(Builder, &str)> = vec![
            (Builder::default().ttl(Duration::ZERO), "ttl"),
            (Builder::default().ttl(Duration::MAX), "ttl"),
            (Builder::default().max_ttl(second), "ttl"),
            (Builder::default().min_ttl(Duration::ZERO), "min_ttl, max_ttl"),
            (Builder::default().max_ttl(Duration::MAX), "min_ttl, max_ttl"),
            (Builder::default().shards(0), "shards"),
            (Builder::default().shards(3), "shards"),
            (Builder::default().namespaces(["other"]), "namespaces"),
            (Builder::default().threads(0), "threads"),
            (Builder::default().sweep_every(Duration::ZERO), "sweep_every"),
            (Builder::default().max_key_bytes(0), "max_key_bytes"),
            (Builder::default().max_locks_per_session(0), "max_locks_per_session"),
            (Builder::default().event_buffer(0), "event_buffer"),
            (Builder::default().max_value_bytes((1 << 24) + 1), "max_value_bytes"),
            (Builder::default().value_life(Duration::ZERO), "value_life"),
            (Builder::default().max_keys(0), "max_keys, max_holders, max_waiters, max_waiters_per_key"),
            (Builder::default().max_holders(0), "max_keys, max_holders, max_waiters, max_waiters_per_key"),
        ];
        for (builder, named) in wrong {
            match builder.build() {
                Err(BuildError::InvalidOption { option, .. }) => assert_eq!(option, named),
                other => panic!("{named}: {other:?}"),
            }
        }
    }
}
