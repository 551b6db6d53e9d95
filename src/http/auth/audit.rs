//! Log lines about refused requests: who, from where, what. There is one line per address and minute, and one more with
//! the number of its other refusals, so that guesses are seen and fill no disk.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::rate_limit::network;

/// How long what comes again is gathered.
const EVERY: Duration = Duration::from_secs(60);
/// How many addresses are told apart at once.
const MOST_PEERS: usize = 1024;
/// The refusals that are logged; others are of no concern to who guards the server, and are counted in metrics.
const LOGGED: [&str; 4] = ["unauthenticated", "forbidden", "forbidden_host", "cross_site"];

/// One request that was refused.
pub(in crate::http) struct Refusal<'a> {
    pub(in crate::http) from: IpAddr,
    /// The name of its token.
    pub(in crate::http) by: &'a str,
    pub(in crate::http) code: &'static str,
    pub(in crate::http) method: &'a str,
    pub(in crate::http) route: &'a str,
    pub(in crate::http) request_id: &'a str,
}

/// The addresses that were refused within the last minute, and how often each was refused again.
pub(in crate::http) struct Refusals {
    /// An entry lasts for `every`, from the line about its first refusal on. `None`: all addresses for which there was no
    /// room.
    repeats: Mutex<HashMap<Option<IpAddr>, u64>>,
    every: Duration,
}

impl Default for Refusals {
    fn default() -> Self {
        Self::gathering(EVERY)
    }
}

/// Whether a refusal of this code is logged.
pub(in crate::http) fn is_logged(code: &str) -> bool {
    LOGGED.contains(&code)
}

impl Refusals {
    fn gathering(every: Duration) -> Self {
        Self { repeats: Mutex::default(), every }
    }

    /// Logs it, now or in a minute with the others of its address.
    pub(in crate::http) fn log(self: &Arc<Self>, refusal: &Refusal<'_>) {
        let peer = network(refusal.from);
        let mut all = self.repeats.lock();
        let known = all.contains_key(&Some(peer)) || all.len() < MOST_PEERS;
        let peer = known.then_some(peer);
        if let Some(again) = all.get_mut(&peer) {
            *again += 1;
            return;
        }
        all.insert(peer, 0);
        drop(all);
        let Refusal { from, by, code, method, route, request_id } = refusal;
        tracing::warn!(%from, by, code, method, route, request_id, "a request was refused");
        // Without a runtime there is no server either, and the next refusal is logged.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            self.repeats.lock().remove(&peer);
            return;
        };
        let refusals = Arc::clone(self);
        runtime.spawn(async move {
            tokio::time::sleep(refusals.every).await;
            let again = refusals.repeats.lock().remove(&peer);
            log_repeats(peer, again.unwrap_or(0));
        });
    }
}

impl Drop for Refusals {
    fn drop(&mut self) {
        self.repeats.get_mut().drain().for_each(|(peer, again)| log_repeats(peer, again));
    }
}

fn log_repeats(peer: Option<IpAddr>, times: u64) {
    if times > 0 {
        let from = peer.map_or_else(|| "other addresses".to_owned(), |peer| peer.to_string());
        tracing::warn!(from, times, "more requests were refused");
    }
}

debug_of!(Refusals, |it| peers: it.repeats.lock().len());

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(refusals: &Arc<Refusals>, from: IpAddr) {
        let (by, code) = ("nobody", "unauthenticated");
        refusals.log(&Refusal { from, by, code, method: "GET", route: "/locks", request_id: "1" });
    }

    #[tokio::test]
    async fn an_address_is_gathered_for_a_while_and_then_forgotten() {
        let refusals = Arc::new(Refusals::gathering(Duration::from_millis(5)));
        let peer = IpAddr::from([10, 0, 0, 7]);
        (0..200).for_each(|_| refused(&refusals, peer));
        assert_eq!(refusals.repeats.lock().get(&Some(peer)), Some(&199));
        while !refusals.repeats.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn those_of_many_addresses_are_logged_together() {
        let refusals = Arc::new(Refusals::default());
        for number in 0..3 * MOST_PEERS as u32 {
            refused(&refusals, IpAddr::from(number.to_be_bytes()));
        }
        let all = refusals.repeats.lock();
        assert_eq!((all.len(), all[&None]), (MOST_PEERS + 1, 2 * MOST_PEERS as u64 - 1));
    }
}
