//! How many connections and waiters this process can really have.
//!
//! Every waiter keeps a connection open. Were waiters to take them all, no holder could come to release, so waiters get
//! at most half of what the operating system allows.

use crate::settings::ServeArgs;

/// Files that are open beside the connections: listeners, pollers, pipes.
const OTHER_FILES: u64 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) connections: usize,
    pub(crate) waiters: usize,
}

impl Bounds {
    /// What was asked for, as far as it can be had. Raises the process's soft limit on open files to the hard one.
    pub(crate) fn secure(args: &ServeArgs) -> Self {
        let asked = Self { connections: args.max_connections, waiters: args.max_waiters };
        let files = raise_open_files();
        let had = asked.within(files);
        if had != asked {
            tracing::info!(?files, ?asked, ?had, "the limit on open files is too low for the bounds asked for");
        }
        had
    }

    fn within(self, files: Option<u64>) -> Self {
        let Some(files) = files else { return self };
        let room = usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX).max(2);
        if self.connections <= room {
            return self;
        }
        Self { connections: room, waiters: self.waiters.min(room / 2) }
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
        let bounds = |connections, waiters| Bounds { connections, waiters };
        let asked = bounds(65_536, 32_768);
        assert_eq!(asked.within(None), asked);
        assert_eq!(asked.within(Some(1 << 20)), asked);
        assert_eq!(asked.within(Some(1024)), bounds(960, 480));
        assert_eq!(bounds(900, 899).within(Some(1024)), bounds(900, 899));
        assert_eq!(bounds(65_536, 10).within(Some(1024)), bounds(960, 10));
        assert_eq!(asked.within(Some(3)), bounds(2, 1));
    }
}
