//! Which connections there are, whose they are, and which has idled the longest.
//!
//! Each connection is in two lists: that of strangers or that of known clients, and that of its address. It knows its
//! position in both, so it is removed without a search.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Activity;

/// How many connections are looked at to find the one that gives way.
const LOOKED_AT: usize = 64;
/// How long an address stays known after its last connection ended.
const KNOWN_FOR: Duration = Duration::from_secs(600);
/// How many addresses are kept in mind that have no connection.
pub(super) const REMEMBERED: usize = 4096;

/// Which connections may be closed for a new one.
#[derive(Clone, Copy)]
pub(super) enum Among {
    Strangers,
    Known,
    Address(IpAddr),
}

#[derive(Default)]
pub(super) struct Register {
    pub(super) open: usize,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    strangers: SlotList,
    known: SlotList,
    pub(super) addresses: HashMap<IpAddr, Address>,
}

pub(super) struct Slot {
    pub(super) activity: Activity,
    address: IpAddr,
    is_known: bool,
    /// Its positions in the list of strangers or of known clients, and in that of its address.
    at: usize,
    at_address: usize,
}

#[derive(Default)]
pub(super) struct Address {
    slots: SlotList,
    /// Until when it counts as known without a connection; `None`: nobody has used a lock from there.
    known_until: Option<Instant>,
}

/// Slots in no order, and the position at which the next look begins.
#[derive(Default)]
struct SlotList {
    members: Vec<usize>,
    hand: usize,
}

impl SlotList {
    /// Adds a slot; answers its position.
    fn add(&mut self, slot: usize) -> usize {
        self.members.push(slot);
        self.members.len() - 1
    }

    /// Removes the slot at a position; answers which slot was moved there, if one was.
    fn remove(&mut self, at: usize) -> Option<usize> {
        self.members.swap_remove(at);
        self.members.get(at).copied()
    }
}

impl Address {
    /// How many connections it has.
    pub(super) fn open(&self) -> usize {
        self.slots.members.len()
    }
}

impl Register {
    pub(super) fn is_known(&self, address: IpAddr) -> bool {
        let Some(Address { slots, known_until }) = self.addresses.get(&address) else { return false };
        // All connections of an address are known, or none is.
        let open = slots.members.first().and_then(|slot| self.slots[*slot].as_ref());
        open.is_some_and(|slot| slot.is_known) || known_until.is_some_and(|until| until > Instant::now())
    }

    pub(super) fn is_at(&self, slot: usize, activity: &Activity) -> bool {
        let there = self.slots.get(slot).and_then(Option::as_ref);
        there.is_some_and(|there| Arc::ptr_eq(&there.activity.0, &activity.0))
    }

    pub(super) fn add(&mut self, activity: Activity, address: IpAddr, is_known: bool) -> usize {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let at = if is_known { self.known.add(slot) } else { self.strangers.add(slot) };
        let at_address = self.addresses.entry(address).or_default().slots.add(slot);
        self.slots[slot] = Some(Slot { activity, address, is_known, at, at_address });
        self.open += 1;
        slot
    }

    pub(super) fn remove(&mut self, slot: usize) -> Option<Slot> {
        let removed = self.slots.get_mut(slot)?.take()?;
        self.open -= 1;
        self.free.push(slot);
        self.leave_list(&removed);
        let remembered = self.addresses.len();
        if let Some(address) = self.addresses.get_mut(&removed.address) {
            let moved = address.slots.remove(removed.at_address);
            if removed.activity.0.is_known.load(Ordering::Relaxed) {
                address.known_until = Instant::now().checked_add(KNOWN_FOR);
            }
            let is_worth_it = address.known_until.is_some() && remembered <= REMEMBERED + self.open;
            if address.slots.members.is_empty() && !is_worth_it {
                self.addresses.remove(&removed.address);
            }
            if let Some(moved) = moved
                && let Some(moved) = self.slots[moved].as_mut()
            {
                moved.at_address = removed.at_address;
            }
        }
        if remembered > REMEMBERED + self.open {
            let now = Instant::now();
            let stays = |address: &Address| address.known_until.is_some_and(|until| until > now);
            self.addresses.retain(|_, address| !address.slots.members.is_empty() || stays(address));
        }
        Some(removed)
    }

    /// Removes a slot from the list of strangers or of known clients.
    fn leave_list(&mut self, slot: &Slot) {
        let list = if slot.is_known { &mut self.known } else { &mut self.strangers };
        let moved = list.remove(slot.at);
        if let Some(moved) = moved
            && let Some(moved) = self.slots[moved].as_mut()
        {
            moved.at = slot.at;
        }
    }

    /// Notes that a lock was used over this connection: all connections of its address are known from now on.
    pub(super) fn know(&mut self, slot: usize, activity: &Activity) {
        if !self.is_at(slot, activity) {
            return;
        }
        let Some(address) = self.slots[slot].as_ref().map(|slot| slot.address) else { return };
        let Some(record) = self.addresses.get_mut(&address) else { return };
        record.known_until = Instant::now().checked_add(KNOWN_FOR);
        for slot in record.slots.members.clone() {
            let Some(mut moving) = self.slots[slot].take() else { continue };
            if !moving.is_known {
                self.leave_list(&moving);
                (moving.is_known, moving.at) = (true, self.known.add(slot));
            }
            self.slots[slot] = Some(moving);
        }
    }

    /// The connection that has idled the longest, of those that are looked at. The next call looks at those behind
    /// them.
    pub(super) fn longest_idle(&mut self, among: Among) -> Option<usize> {
        let list = match among {
            Among::Strangers => &mut self.strangers,
            Among::Known => &mut self.known,
            Among::Address(address) => &mut self.addresses.get_mut(&address)?.slots,
        };
        let (members, from) = (&list.members, list.hand);
        let looked_at = members.len().min(LOOKED_AT);
        let slots = (0..looked_at).map(|step| members[(from + step) % members.len()]);
        let idle = slots.filter_map(|slot| {
            let activity = &self.slots[slot].as_ref()?.activity;
            activity.is_idle().then(|| (activity.idle_since(), slot))
        });
        let found = idle.min().map(|(_, slot)| slot);
        list.hand = (from + looked_at) % list.members.len().max(1);
        found
    }
}
