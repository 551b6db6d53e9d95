//! How many connections and waiters this process can really have.
//!
//! Every waiter keeps a connection open. Were waiters to take them all, no holder could come to release, so waiters get
//! at most half of what the operating system allows.

use crate::settings::ServeArgs;

/// How many connections may be open beyond the bound for a moment: accepted and not yet refused, or evicted and not yet
/// closed.
pub(crate) const SPARE_FILES: usize = 64;
/// Files that are open beside the connections: listeners, pollers, pipes.
const OTHER_FILES: u64 = 64 + SPARE_FILES as u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) connections: usize,
    pub(crate) waiters: usize,
    /// Of one address.
    pub(crate) per_address: usize,
}

impl Bounds {
    /// The bounds of the settings, lowered to what the limit on open files allows. Raises the process's soft limit to
    /// the hard one.
    pub(crate) fn secure(args: &ServeArgs) -> Self {
        let asked = Self::new(args.max_connections, args.max_waiters, args.max_connections_per_address);
        let files = raise_open_files();
        let had = asked.within(files, args.max_connections_per_address);
        if had != asked {
            tracing::info!(?files, ?asked, ?had, "the limit on open files is too low for the bounds asked for");
        }
        had
    }

    /// By default one address may have three quarters of the connections, or as many as all waiters and one holder
    /// need.
    fn new(connections: usize, waiters: usize, per_address: Option<usize>) -> Self {
        let per_address = per_address.unwrap_or_else(|| (connections - connections / 4).max(waiters + 1));
        Self { connections, waiters, per_address: per_address.min(connections) }
    }

    fn within(self, files: Option<u64>, per_address: Option<usize>) -> Self {
        let Some(files) = files else { return self };
        let room = usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX).max(2);
        if self.connections <= room {
            return self;
        }
        Self::new(room, self.waiters.min(room / 2), per_address)
    }
}

/// How many files may be open; `None`: no limit, or none that is known.
#[cfg(target_os = "linux")]
fn raise_open_files() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
}

#[cfg(not(target_os = "linux"))]
fn raise_open_files() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiters_never_take_every_connection_that_can_be_had() {
        let bounds = |connections, waiters| Bounds::new(connections, waiters, None);
        let within = |bounds: Bounds, files| bounds.within(files, None);
        let asked = bounds(65_536, 32_768);
        assert_eq!(within(asked, None), asked);
        assert_eq!(within(asked, Some(1 << 20)), asked);
        assert_eq!(within(asked, Some(1024)), bounds(896, 448));
        assert_eq!(within(bounds(890, 889), Some(1024)), bounds(890, 889));
        assert_eq!(within(bounds(65_536, 10), Some(1024)), bounds(896, 10));
        assert_eq!(within(asked, Some(3)), bounds(2, 1));
    }

    #[test]
    fn one_address_leaves_room_for_others_unless_all_waiters_come_from_there() {
        assert_eq!(Bounds::new(100, 50, None).per_address, 75);
        assert_eq!(Bounds::new(100, 99, None).per_address, 100);
        assert_eq!(Bounds::new(100, 50, Some(7)).per_address, 7);
        assert_eq!(Bounds::new(100, 50, Some(1000)).per_address, 100);
    }
}
