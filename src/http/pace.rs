//! How often somebody may come: the rate limit, per bearer token, or per address where there is none.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::problem::Fault;

/// After so many requests of addresses, those that have not come for a while are forgotten.
const FORGET_EVERY: u32 = 4096;

/// Who is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Payer {
    /// By its place in the list of tokens.
    Bearer(usize),
    /// An IPv4 address, or the network of an IPv6 one: whoever has one of those has 2^64.
    Address(IpAddr),
}

impl Payer {
    /// Whoever is at this address.
    pub(super) fn at(address: IpAddr) -> Self {
        Self::Address(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(v6) => IpAddr::from((v6.to_bits() >> 64 << 64).to_be_bytes()),
        })
    }
}

/// The rate limit of one server.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: NonZeroU32,
    bearers: Vec<DefaultDirectRateLimiter>,
    addresses: DefaultKeyedRateLimiter<IpAddr>,
    clock: DefaultClock,
    of_addresses: AtomicU32,
}

impl Pace {
    pub(super) fn new(per_second: NonZeroU32, bearers: usize) -> Self {
        let quota = Quota::per_second(per_second);
        let bearers = (0..bearers).map(|_| RateLimiter::direct(quota)).collect();
        Self {
            per_second,
            bearers,
            addresses: RateLimiter::dashmap(quota),
            clock: DefaultClock::default(),
            of_addresses: AtomicU32::new(0),
        }
    }

    /// The same limit for another list of tokens.
    pub(super) fn for_bearers(&self, bearers: usize) -> Self {
        Self::new(self.per_second, bearers)
    }

    /// Counts one request.
    pub(super) fn take(&self, payer: Payer) -> Result<(), Fault> {
        let counted = match payer {
            Payer::Bearer(at) => self.bearers[at].check(),
            Payer::Address(address) => {
                if self.of_addresses.fetch_add(1, Ordering::Relaxed).is_multiple_of(FORGET_EVERY) {
                    self.addresses.retain_recent();
                }
                self.addresses.check_key(&address)
            }
        };
        counted.map_err(|refused| Fault::RateLimited { after: refused.wait_time_from(self.clock.now()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Payer {
        Payer::at(address.parse().unwrap())
    }

    #[test]
    fn addresses_of_one_network_are_one_payer() {
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:2"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_ne!(at("10.0.0.1"), at("10.0.0.2"));
    }

    #[test]
    fn addresses_that_no_longer_come_are_forgotten() {
        let pace = Pace::new(NonZeroU32::new(1_000_000).unwrap(), 0);
        for number in 0..3 * FORGET_EVERY {
            pace.take(Payer::Address(IpAddr::from(number.to_be_bytes()))).unwrap();
        }
        // Each is whole again within a microsecond, but for the last few.
        assert!(pace.addresses.len() < 2 * FORGET_EVERY as usize, "{}", pace.addresses.len());
    }
}
