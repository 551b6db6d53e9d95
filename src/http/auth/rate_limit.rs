//! How often those may come who bring no known token: the rate limit per address.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::http::problem::Fault;

/// After so many requests, the addresses that have not come for a while are forgotten.
const FORGET_EVERY: u32 = 4096;

/// The rate limit of one server.
#[derive(Debug)]
pub(in crate::http) struct RateLimit {
    addresses: DefaultKeyedRateLimiter<IpAddr>,
    clock: DefaultClock,
    requests: AtomicU32,
}

impl RateLimit {
    pub(in crate::http) fn new(per_second: NonZeroU32) -> Self {
        Self {
            addresses: RateLimiter::dashmap(Quota::per_second(per_second)),
            clock: DefaultClock::default(),
            requests: AtomicU32::new(0),
        }
    }

    /// Counts one request from an address.
    pub(in crate::http) fn take(&self, address: IpAddr) -> Result<(), Fault> {
        if self.requests.fetch_add(1, Ordering::Relaxed).is_multiple_of(FORGET_EVERY) {
            self.addresses.retain_recent();
        }
        let counted = self.addresses.check_key(&network(address));
        counted.map_err(|refused| Fault::RateLimited { after: refused.wait_time_from(self.clock.now()) })
    }
}

/// An IPv4 address, or the network of an IPv6 one: whoever has one of those has 2^64.
pub(in crate::http) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::from((v6.to_bits() >> 64 << 64).to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> IpAddr {
        network(address.parse().unwrap())
    }

    #[test]
    fn addresses_of_one_network_are_counted_as_one() {
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:2"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_ne!(at("10.0.0.1"), at("10.0.0.2"));
    }

    #[test]
    fn addresses_that_no_longer_come_are_forgotten() {
        let pace = RateLimit::new(NonZeroU32::new(1_000_000).unwrap());
        for number in 0..3 * FORGET_EVERY {
            pace.take(IpAddr::from(number.to_be_bytes())).unwrap();
        }
        // Each is whole again within a microsecond, but for the last few.
        assert!(pace.addresses.len() < 2 * FORGET_EVERY as usize, "{}", pace.addresses.len());
    }
}
