//! Who has a connection, and who has to give one up when all are taken.
//!
//! | when | who gives way |
//! |---|---|
//! | an address has as many as one may have | its own connection that has idled the longest |
//! | all but a reserve are taken, and a stranger comes | the stranger's connection that has idled the longest |
//! | all are taken, and an address comes that has lately used a lock | the same; if there is none, of the others |
//! | none of these idles | nobody: the one that comes is closed |
//!
//! A connection idles while no request of it is under way: one that never sent a whole head does, and so does one whose
//! TLS was never finished. So a client that only opens connections keeps nobody out, however many it opens. Of a new
//! connection only the address is known. An address is known, and no stranger, once a request to acquire, to release or
//! for a heartbeat succeeded from there, which on a server with tokens takes a token.
//!
//! To find the one that has idled the longest, only some are looked at each time, so that a flood of clients costs
//! little.

mod register;
mod socket;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures_util::task::AtomicWaker;
use ipnet::IpNet;

use register::{Among, Register, Slot};
pub(crate) use socket::Evictable;
pub(super) use socket::flush_and_shutdown_of_io;

/// The part of all connections that is kept back for known addresses.
const RESERVE_SHARE: usize = 8;

/// How many connections there may be.
#[derive(Clone, Debug)]
pub(crate) struct Capacity {
    pub(crate) total: usize,
    pub(crate) per_address: usize,
    /// Proxies: all of their clients have one address, so that address has no bound of its own.
    pub(crate) proxies: Vec<IpNet>,
}

/// All connections of this process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connections(Arc<Shared>);

struct Shared {
    capacity: Capacity,
    began: Instant,
    register: Mutex<Register>,
    evicted: AtomicU64,
    refused_full: AtomicU64,
    refused_address: AtomicU64,
}

/// Why a connection was closed as soon as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// All are busy.
    Full,
    /// All of its address are.
    Address,
}

/// The numbers of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) open: usize,
    pub(crate) evicted: u64,
    pub(crate) refused_full: u64,
    pub(crate) refused_address: u64,
}

/// Counts one connection as open until it is dropped.
pub(crate) struct ConnectionPermit {
    connections: Connections,
    slot: usize,
    activity: Activity,
}

/// What a connection has under way; its requests, its socket and the register share it.
#[derive(Clone)]
pub(crate) struct Activity(Arc<ActivityState>);

struct ActivityState {
    began: Instant,
    /// Under way now; an endless answer counts as one for ever.
    requests: AtomicU32,
    /// So far.
    begun: AtomicU32,
    /// How long the body of the last request is, as its head says.
    declared: AtomicU64,
    /// When the last one ended, or the connection came: in milliseconds from `began`.
    idle_since: AtomicU64,
    is_evicted: AtomicBool,
    is_known: AtomicBool,
    waker: AtomicWaker,
}

/// A request under way.
pub(crate) struct Busy(Activity);

impl Activity {
    fn new(began: Instant) -> Self {
        Self(Arc::new(ActivityState {
            began,
            requests: AtomicU32::new(0),
            begun: AtomicU32::new(0),
            declared: AtomicU64::new(0),
            idle_since: AtomicU64::new(millis(began)),
            is_evicted: AtomicBool::new(false),
            is_known: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }))
    }

    /// Begins a request whose body has so many bytes.
    pub(crate) fn begin(&self, declared: u64) -> Busy {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        self.0.declared.store(declared, Ordering::Relaxed);
        Busy(self.clone())
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.0.requests.load(Ordering::Relaxed) == 0
    }

    /// How many requests have begun so far, and how long the body of the last is.
    pub(crate) fn begun(&self) -> (u32, u64) {
        (self.0.begun.load(Ordering::Relaxed), self.0.declared.load(Ordering::Relaxed))
    }

    /// Ends the connection as soon as no request of it is under way.
    fn evict(&self) {
        self.0.is_evicted.store(true, Ordering::Relaxed);
        self.0.waker.wake();
    }

    fn idle_since(&self) -> u64 {
        self.0.idle_since.load(Ordering::Relaxed)
    }
}

impl Busy {
    /// Notes that the answer is an endless stream: the connection never idles again.
    pub(crate) fn streams(&self) {
        self.0.0.requests.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let Self(Activity(state)) = self;
        state.idle_since.store(millis(state.began), Ordering::Relaxed);
        state.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

fn millis(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Connections {
    pub(crate) fn new(capacity: Capacity) -> Self {
        Self(Arc::new(Shared {
            capacity,
            began: Instant::now(),
            register: Mutex::default(),
            evicted: AtomicU64::new(0),
            refused_full: AtomicU64::new(0),
            refused_address: AtomicU64::new(0),
        }))
    }

    fn register(&self) -> MutexGuard<'_, Register> {
        self.0.register.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn counts(&self) -> Counts {
        let Shared { evicted, refused_full, refused_address, .. } = &*self.0;
        Counts {
            open: self.register().open,
            evicted: evicted.load(Ordering::Relaxed),
            refused_full: refused_full.load(Ordering::Relaxed),
            refused_address: refused_address.load(Ordering::Relaxed),
        }
    }

    /// A place for a connection that has come.
    ///
    /// # Errors
    /// There is none, and nobody to give way.
    pub(crate) fn admit(&self, peer: Option<IpAddr>) -> Result<ConnectionPermit, Refused> {
        let Capacity { total, per_address, proxies } = &self.0.capacity;
        let peer = peer.unwrap_or(IpAddr::from([0; 4])).to_canonical();
        let is_proxy = proxies.iter().any(|network| network.contains(&peer));
        let address = network(peer);
        let mut register = self.register();
        let is_known = register.is_known(address);
        if !is_proxy
            && register.addresses.get(&address).is_some_and(|address| address.open() >= *per_address)
            && !self.evict(&mut register, Among::Address(address))
        {
            self.0.refused_address.fetch_add(1, Ordering::Relaxed);
            return Err(Refused::Address);
        }
        let reserve = total / RESERVE_SHARE;
        let room = if is_known { *total } else { total - reserve };
        if register.open >= room
            && !self.evict(&mut register, Among::Strangers)
            && !(is_known && self.evict(&mut register, Among::Known))
        {
            self.0.refused_full.fetch_add(1, Ordering::Relaxed);
            return Err(Refused::Full);
        }
        let activity = Activity::new(self.0.began);
        let slot = register.add(activity.clone(), address, is_known);
        drop(register);
        Ok(ConnectionPermit { connections: self.clone(), slot, activity })
    }

    fn evict(&self, register: &mut Register, among: Among) -> bool {
        let Some(slot) = register.longest_idle(among) else { return false };
        if let Some(Slot { activity, .. }) = register.remove(slot) {
            activity.evict();
            self.0.evicted.fetch_add(1, Ordering::Relaxed);
        }
        true
    }
}

impl ConnectionPermit {
    pub(crate) fn activity(&self) -> &Activity {
        &self.activity
    }

    /// Notes that a request to acquire, to release or for a heartbeat succeeded.
    pub(crate) fn succeeded(&self) {
        if !self.activity.0.is_known.swap(true, Ordering::Relaxed) {
            self.connections.register().know(self.slot, &self.activity);
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut register = self.connections.register();
        // One that was evicted was removed then, and its slot may be another's by now.
        if register.is_at(self.slot, &self.activity) {
            register.remove(self.slot);
        }
    }
}

/// An IPv4 address as it is; of an IPv6 address its /64, all of which a client can use.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::from((v6.to_bits() >> 64 << 64).to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::register::REMEMBERED;
    use super::*;

    fn room(total: usize, per_address: usize) -> Connections {
        let proxies = vec!["10.0.0.9/32".parse().unwrap()];
        Connections::new(Capacity { total, per_address, proxies })
    }

    fn come(connections: &Connections, address: &str) -> Result<ConnectionPermit, Refused> {
        connections.admit(Some(address.parse().unwrap()))
    }

    fn is_evicted(place: &ConnectionPermit) -> bool {
        place.activity.0.is_evicted.load(Ordering::Relaxed)
    }

    #[test]
    fn the_longest_idle_stranger_gives_way_and_the_busy_stay() {
        let connections = room(9, 9);
        let crowd: Vec<_> = (0..8).map(|n| come(&connections, &format!("192.0.2.{n}")).unwrap()).collect();
        std::thread::sleep(Duration::from_millis(2));
        // All but one have done something since.
        let busy: Vec<_> = crowd.iter().skip(4).map(|place| place.activity.begin(0)).collect();
        for place in crowd.iter().take(4).filter(|place| place.slot != 2) {
            drop(place.activity.begin(0));
        }
        let _new = come(&connections, "198.51.100.1").unwrap();
        assert_eq!(crowd.iter().map(is_evicted).filter(|gone| *gone).count(), 1);
        assert!(is_evicted(&crowd[2]));
        assert_eq!(connections.counts(), Counts { open: 8, evicted: 1, refused_full: 0, refused_address: 0 });
        drop((crowd, busy));
        assert_eq!(connections.counts().open, 1);
    }

    #[test]
    fn a_known_address_has_the_reserve_and_gives_way_last() {
        let connections = room(9, 9);
        let holder = come(&connections, "203.0.113.7").unwrap();
        let strangers: Vec<_> = (0..7).map(|n| come(&connections, &format!("192.0.2.{n}")).unwrap()).collect();
        let busy: Vec<_> = strangers.iter().map(|place| place.activity.begin(0)).collect();
        holder.succeeded();
        assert_eq!(come(&connections, "192.0.2.99").err(), Some(Refused::Full), "the reserve is not for strangers");
        assert!(!is_evicted(&holder));
        let second = come(&connections, "203.0.113.7").unwrap();
        let busy_too = second.activity.begin(0);
        let third = come(&connections, "203.0.113.7").unwrap();
        assert!(is_evicted(&holder), "of its own, when nobody else idles");
        let counts = connections.counts();
        assert_eq!((counts.open, counts.evicted, counts.refused_full), (9, 1, 1));
        drop((busy, strangers, busy_too, second, third, holder));
        assert_eq!(connections.counts().open, 0);
        assert!(connections.register().is_known("203.0.113.7".parse().unwrap()), "for a while");
    }

    #[test]
    fn an_address_has_a_bound_of_its_own_but_a_proxy_has_none() {
        let connections = room(100, 3);
        let first: Vec<_> = (0..3).map(|_| come(&connections, "2001:db8::1").unwrap()).collect();
        let _other = come(&connections, "2001:db8::2").unwrap();
        assert_eq!(first.iter().filter(|place| is_evicted(place)).count(), 1, "one network is one address");
        let _busy: Vec<_> = first.iter().map(|place| place.activity.begin(0)).collect();
        let _more = come(&connections, "2001:db8::3").unwrap();
        let behind: Vec<_> = (0..20).map(|_| come(&connections, "10.0.0.9").unwrap()).collect();
        assert!(!behind.iter().any(is_evicted));
        let busy: Vec<_> = (0..3).map(|_| come(&connections, "192.0.2.1").unwrap()).collect();
        let _under_way: Vec<_> = busy.iter().map(|place| place.activity.begin(0)).collect();
        assert_eq!(come(&connections, "192.0.2.1").err(), Some(Refused::Address));
    }

    #[test]
    fn addresses_that_did_nothing_are_forgotten() {
        let connections = room(100, 100);
        for number in 0..3 * REMEMBERED as u32 {
            let place = connections.admit(Some(IpAddr::from(number.to_be_bytes()))).unwrap();
            if number % 2 == 0 {
                place.succeeded();
            }
        }
        let remembered = connections.register().addresses.len();
        assert!(remembered <= REMEMBERED + 1, "{remembered}");
    }
}
