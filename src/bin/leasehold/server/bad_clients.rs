//! Clients that break the protocol: counted by what is wrong, and logged in one line per address and minute.
//!
//! A scan of ports makes thousands of such connections. The HTTP library would write a line at `ERROR` for each,
//! without the address.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long an address is not logged again.
const QUIET: Duration = Duration::from_secs(60);
/// How many addresses are logged within that time at most.
const MOST_TOLD: usize = 100;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It is no HTTP.
    Http,
    /// It is no TLS, or there is no agreement.
    Tls,
    /// The head of a request is larger than taken.
    Head,
}

impl Wrong {
    const ALL: [Self; 3] = [Self::Http, Self::Tls, Self::Head];

    fn label(self) -> &'static str {
        match self {
            Self::Http => "no_http",
            Self::Tls => "no_tls",
            Self::Head => "head_too_large",
        }
    }
}

/// All such clients of this process.
#[derive(Default)]
pub(crate) struct BadClients {
    counts: [AtomicU64; 3],
    lines: Mutex<HashMap<IpAddr, LastLine>>,
}

/// The last line about an address.
struct LastLine {
    at: Instant,
    /// How often a client of this address was wrong since then.
    since: u64,
}

/// Whether there is to be a line now.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    /// With how often the same address was wrong since its last line.
    Now {
        untold: u64,
    },
    Not,
}

impl BadClients {
    /// Counts a client, and logs it unless its address was logged lately.
    pub(crate) fn came(&self, peer: Option<IpAddr>, wrong: Wrong, why: &dyn fmt::Display) {
        self.counts[wrong as usize].fetch_add(1, Ordering::Relaxed);
        let address = peer.unwrap_or(IpAddr::from([0; 4])).to_canonical();
        if let Due::Now { untold } = self.due(address, Instant::now()) {
            tracing::warn!(%address, wrong = wrong.label(), untold, %why, "a client that is not understood");
        }
    }

    /// How many came, by what was wrong.
    pub(crate) fn counts(&self) -> [(&'static str, u64); 3] {
        Wrong::ALL.map(|wrong| (wrong.label(), self.counts[wrong as usize].load(Ordering::Relaxed)))
    }

    fn due(&self, address: IpAddr, now: Instant) -> Due {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |line: &LastLine| now.saturating_duration_since(line.at) >= QUIET;
        if let Some(known) = lines.get_mut(&address) {
            if !is_over(known) {
                known.since += 1;
                return Due::Not;
            }
            let untold = std::mem::take(&mut known.since);
            known.at = now;
            return Due::Now { untold };
        }
        if lines.len() >= MOST_TOLD {
            lines.retain(|_, line| !is_over(line));
        }
        if lines.len() >= MOST_TOLD {
            return Due::Not;
        }
        lines.insert(address, LastLine { at: now, since: 0 });
        Due::Now { untold: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_is_told_of_once_a_minute_and_not_too_many_are() {
        let clients = BadClients::default();
        let (one, now) = (IpAddr::from([192, 0, 2, 1]), Instant::now());
        assert_eq!(clients.due(one, now), Due::Now { untold: 0 });
        for _ in 0..1999 {
            assert_eq!(clients.due(one, now + QUIET / 2), Due::Not);
        }
        assert_eq!(clients.due(one, now + QUIET), Due::Now { untold: 1999 });
        let lines = (0..1000_u32).filter(|n| clients.due(IpAddr::from(n.to_be_bytes()), now + QUIET) != Due::Not);
        assert_eq!(lines.count(), MOST_TOLD - 1);
        assert_eq!(clients.due(IpAddr::from([7, 7, 7, 7]), now + 3 * QUIET), Due::Now { untold: 0 });
        assert_eq!(clients.lines.lock().unwrap().len(), 1, "the others are forgotten");
    }
}
