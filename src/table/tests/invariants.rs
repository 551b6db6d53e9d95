//! The check, by the tests and after every step, of the rules that the documentation of `table` lists.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::acquire::Grant;
use super::group::Group;
use super::holder::{GrantState, Keep};
use super::queue::WaiterState;
use super::slot::Slot;
use super::timer_wheel::Links;
use super::upgrade::Company;
use super::{Counters, ENDED_TOKENS, MAX_SEATS, Table, Waiter};
use crate::clock::Moment;
use crate::mode::{Kind, Mode};

impl Table {
    /// Panics, with the number of the broken invariant, unless all of them hold.
    pub(crate) fn assert_invariants(&self) {
        let slots: Vec<(u32, &Slot)> =
            (0..self.slots.bound()).filter_map(|index| Some((index, self.slots.get(index)?))).collect();
        let waiters: Vec<(u32, &Waiter)> =
            (0..self.waiters.bound()).filter_map(|index| Some((index, self.waiters.get(index)?))).collect();
        self.assert_slots(&slots);
        self.assert_queues(&slots, &waiters);
        self.assert_waiters(&waiters);
        self.assert_wheels(&slots, &waiters);
        self.assert_counters(&slots);
        self.assert_belongings(&slots, &waiters);
    }

    fn assert_slots(&self, slots: &[(u32, &Slot)]) {
        assert_eq!(self.slots.len(), slots.len(), "the slab counts its slots");
        let keys = slots.iter().filter(|(_, slot)| slot.member_of().is_none()).count();
        assert_eq!(self.index.len(), keys, "T7: index and keys are one to one");
        assert!(keys <= self.limits.keys, "T9: keys");
        let mut fences = HashSet::new();
        let (mut headless, mut bare) = (0, 0);
        for (index, slot) in slots {
            match slot.member_of() {
                None => {
                    assert_eq!(
                        self.find(slot.hash, &slot.key),
                        Some(*index),
                        "T1: {:?} is found at its slot",
                        slot.key
                    );
                    self.assert_group(*index, slot);
                }
                Some(key_slot) => {
                    let group = self.slots.get(key_slot).and_then(Slot::group).expect("T7: a member has its group");
                    assert!(slot.holder.is_some(), "T7: a member is a holder");
                    let named = self.known_token(*index).map(|token| group.member(token));
                    assert!(named.is_none_or(|member| member == Some(*index)), "T1: the group knows its member");
                    assert!(group.members().any(|member| member == *index), "T1: the group has its member");
                    assert_eq!(slot.queue.len, 0, "nobody queues at a member");
                }
            }
            self.assert_joins(*index, slot, &mut fences);
            if slot.is_bare() {
                bare += 1;
                continue;
            }
            let Some(holder) = slot.holder.as_ref() else {
                headless += 1;
                assert!(slot.group().is_some_and(|group| group.len() > 0), "T7: nobody holds {:?}", slot.key);
                continue;
            };
            assert!(holder.fence() <= self.fence, "T4: {:?} has a fence that was never given", slot.key);
            assert!(fences.insert(holder.fence()), "T4: {:?} has the fence of another grant", slot.key);
            assert!(holder.granted_at <= self.now, "C1: {:?} was granted in the future", slot.key);
            assert!(holder.granted_at < holder.deadline, "C1: {:?} was granted past its deadline", slot.key);
            if let GrantState::Unseen(waiter) = holder.grant_state {
                let waiter = self.waiters.get(waiter).expect("T3: an unseen grant has its waiter");
                assert_eq!(*waiter.state(), WaiterState::Granted, "T3: {:?} is held for a waiter", slot.key);
                assert_eq!(
                    (waiter.slot, waiter.kept_token()),
                    (*index, slot.kept_token()),
                    "T3: the waiter is this grant's"
                );
            }
            assert!(self.deadline_of(&Grant { slot: *index, fence: holder.fence(), proof: None }).is_some());
        }
        assert_eq!(self.headless, headless, "T8: keys that only members hold");
        assert_eq!(self.bare, bare, "T8: keys that shares are being taken of, and nobody holds");
    }

    /// T3 for requests that shares of a key are being taken for.
    fn assert_joins(&self, index: u32, slot: &Slot, fences: &mut HashSet<crate::key::FencingToken>) {
        let Some(joins) = slot.joins() else { return };
        assert!(slot.member_of().is_none(), "nobody joins a member");
        assert!(slot.holder.is_none() || slot.group().is_some(), "T1: {:?} is held by one alone", slot.key);
        assert_eq!(joins.kind(), slot.kind(), "T1: one kind of lock on {:?}", slot.key);
        assert!(joins.waiters().count() > 0, "T7: joins of nobody on {:?}", slot.key);
        for (id, fence) in joins.waiters().zip(joins.fences()) {
            let waiter = self.waiters.get(id).expect("T3: a join has its waiter");
            assert!(waiter.is_claiming() && waiter.slot == index, "T3: its waiter waits for the store");
            assert_eq!(waiter.terms.mode().kind(), joins.kind(), "T1: one kind of lock on {:?}", slot.key);
            assert!(fences.insert(fence), "T4: {:?} has the fence of another grant", slot.key);
        }
        self.assert_first_has_no_room(index, slot);
    }

    /// T2 for keys that several hold. A table that is closed grants nothing any more, and its waiters leave in slices; many
    /// who share a key are let in by steps; one that may ride on a share which is being taken waits for that (K7).
    fn assert_first_has_no_room(&self, index: u32, slot: &Slot) {
        if let Some(first) = slot.queue.first().filter(|_| !self.closed && !self.handing_off.contains(&index)) {
            let has_room = slot.has_room(self.waiters[first].terms.mode()) && !self.awaits_carrier(index, first);
            assert!(!has_room, "T2: the first waiter of {:?} has room", slot.key);
        }
    }

    /// How many requests wait to have the holder of a slot upgraded.
    pub(crate) fn upgrade_seats_of(&self, at: u32) -> usize {
        match self.slots[self.key_slot(at)].group().map(|group| &group.company) {
            Some(Company::Closing { by, seats, .. }) if *by == at => seats.len(),
            _ => 0,
        }
    }

    /// T1 for keys that several hold.
    fn assert_group(&self, index: u32, slot: &Slot) {
        let Some(group) = slot.group() else { return };
        let members: Vec<u32> = group.members().collect();
        let on = |at: &u32| self.slots[*at].extras.as_ref().and_then(|extras| extras.rides_on);
        let mut riders = std::collections::BTreeMap::new();
        for number in members.iter().chain([&index]).filter_map(on) {
            *riders.entry(number).or_insert(0) += 1;
        }
        let known = group.carriers.as_ref().map(|carriers| carriers.riders()).unwrap_or_default();
        assert_eq!(known, riders, "K7: who rides on what of {:?}", slot.key);
        assert_eq!(members.len(), group.len(), "T1: members and deadlines of {:?} are one to one", slot.key);
        assert!(members.len() + usize::from(slot.holder.is_some()) > 0, "T7: {:?} is a group of nobody", slot.key);
        let owned = members.iter().filter_map(|member| Some((self.slots[*member].owner()?.id, *member)));
        let owned: BTreeSet<_> = owned.collect();
        assert!(group.owned().into_iter().eq(owned), "T1: {:?} knows whose its members are", slot.key);
        assert!(group.dated_after(None).is_sorted(), "T9: the members of {:?} come in their order", slot.key);
        for (deadline, member) in group.dated_after(None) {
            assert!(group.none_due_before() <= deadline, "T1: the lane knows when {:?} is over", slot.key);
            let filed = self.slots[member].holder.as_ref().map(|holder| holder.deadline);
            assert_eq!(Some(deadline), filed, "C1: {:?} knows when its members are over", slot.key);
        }
        let mut used = 0;
        for at in slot.holder.iter().map(|_| index).chain(members) {
            let holder = &self.slots[at];
            assert!(at == index || holder.member_of() == Some(index), "T1: a member knows its key");
            let mode = holder.mode(slot);
            assert_eq!(mode.kind(), group.kind, "T1: one kind of lock on {:?}", slot.key);
            assert_eq!(mode == Mode::Exclusive, group.is_alone(), "T1: {:?} is shared or exclusive", slot.key);
            used += u64::from(mode.weight());
        }
        assert_eq!(group.used, used, "T1: the room taken of {:?}", slot.key);
        assert!(used == 1 || !group.is_alone(), "T1: {:?} is one holder's alone", slot.key);
        self.assert_upgrade(index, slot, group);
        if let Kind::Semaphore { limit } = group.kind {
            assert!(used <= u64::from(limit), "T1: permits of {:?}", slot.key);
        }
        self.assert_first_has_no_room(index, slot);
    }

    /// Who waits to have a key alone is one of those who share it.
    fn assert_upgrade(&self, index: u32, slot: &Slot, group: &Group) {
        let Company::Closing { by, seats, .. } = &group.company else { return };
        let by = (*by, &self.slots[*by]);
        assert!(by.0 == index || by.1.member_of() == Some(index), "T3: a holder of {:?} is upgraded", slot.key);
        assert!(by.1.holder.is_some(), "T3: who waits to have {:?} alone holds it", slot.key);
        assert!((1..=MAX_SEATS as usize).contains(&seats.len()), "T9: requests to have {:?} alone", slot.key);
    }

    /// What sessions have is known by them.
    fn assert_belongings(&self, slots: &[(u32, &Slot)], waiters: &[(u32, &Waiter)]) {
        let mut owned: HashMap<_, (BTreeSet<u32>, BTreeSet<u32>)> = HashMap::new();
        for (index, slot) in slots {
            if let Some(session) = slot.session() {
                owned.entry(session.id).or_default().0.insert(*index);
            }
        }
        let is_joining = |waiter: &Waiter| waiter.is_claiming() && waiter.terms.mode() != Mode::Exclusive;
        for (id, waiter) in waiters.iter().filter(|(_, waiter)| waiter.is_queued() || is_joining(waiter)) {
            if let Some(session) = waiter.terms.session() {
                owned.entry(session.id).or_default().1.insert(*id);
            }
        }
        let known = self.owner_index.iter().map(|(owner, owner_index)| {
            (*owner, (owner_index.grants.iter().copied().collect(), owner_index.waiters.iter().copied().collect()))
        });
        assert_eq!(known.collect::<HashMap<_, _>>(), owned, "T7: what sessions have");
    }

    fn assert_queues(&self, slots: &[(u32, &Slot)], waiters: &[(u32, &Waiter)]) {
        let mut queued = HashSet::new();
        for (index, slot) in slots {
            assert!(slot.queue.len as usize <= self.limits.waiters_per_key, "T9: waiters of {:?}", slot.key);
            assert_eq!(slot.queue.first().is_none(), slot.queue.len == 0, "an empty queue has no head");
            let in_order: Vec<(u32, &Waiter)> = slot.queue.iter(&self.waiters).collect();
            for (at, (id, waiter)) in in_order.iter().enumerate() {
                let next = in_order[(at + 1) % in_order.len()].0;
                assert_eq!(waiter.next, next, "T2: the queue of {:?} is a circle", slot.key);
                assert_eq!(self.waiters[next].prev, *id, "T2: the queue of {:?} is linked both ways", slot.key);
                assert_eq!(*waiter.state(), WaiterState::Queued, "T3: only the queued are in a queue");
                assert_eq!(waiter.slot, *index, "T3: a waiter knows its slot");
                assert!(queued.insert(*id), "T3: a waiter stands in one queue, once");
            }
            let permits = in_order.iter().filter(|(_, waiter)| matches!(waiter.terms.mode(), Mode::Permits { .. }));
            let wanted = slot.extras.as_ref().and_then(|extras| extras.wanted.as_ref()).map(|wanted| wanted.len());
            assert_eq!(wanted, Some(permits.count()).filter(|count| *count > 0), "what is wanted of {:?}", slot.key);
            assert!(
                in_order.is_sorted_by_key(|(_, waiter)| waiter.seq),
                "T2: {:?} is first come, first served",
                slot.key
            );
        }
        let states = waiters.iter().filter(|(_, waiter)| waiter.is_queued());
        assert_eq!(queued, states.map(|(id, _)| *id).collect(), "T3: whoever is queued is in a queue");
        assert_eq!(self.waiting, queued.len(), "T8: waiting now");
        assert!(self.waiting <= self.limits.waiters, "T9: waiters");
    }

    /// How many waiters there are, with those whose answer nobody has taken yet.
    pub(crate) fn waiters_kept(&self) -> usize {
        self.waiters.len()
    }

    fn assert_waiters(&self, waiters: &[(u32, &Waiter)]) {
        assert_eq!(self.waiters_kept(), waiters.len(), "the slab counts its waiters");
        for (id, waiter) in waiters {
            assert!((1..=MAX_SEATS).contains(&waiter.seats), "T3: a waiter without seats is gone");
            let joined = waiter.joined.as_ref().map_or(&[][..], |joined| &joined.0);
            assert!(joined.len() <= waiter.seats as usize, "T9: only taken seats are kept");
            assert!(joined.is_sorted_by_key(|(seat, _)| *seat), "seats are in order");
            if *waiter.state() == WaiterState::Granted {
                let holder = self.slots.get(waiter.slot).and_then(|slot| slot.holder.as_ref());
                let holder = holder.expect("T3: the grant of a granted waiter holds its key");
                assert_eq!(holder.grant_state, GrantState::Unseen(*id), "T3: unseen both ways");
            }
        }
        for ((token, slot), id) in &self.chosen {
            let waiter = self.waiters.get(*id).expect("T7: chosen tokens are of waiters that are there");
            assert_eq!(
                (waiter.kept_token(), waiter.slot, waiter.state()),
                (Some(*token), *slot, &WaiterState::Queued),
                "chosen tokens are of the queued"
            );
        }
    }

    fn assert_wheels(&self, slots: &[(u32, &Slot)], waiters: &[(u32, &Waiter)]) {
        let sorted = |mut ids: Vec<u32>| {
            ids.sort_unstable();
            ids
        };
        let auto = |id: u32| self.slots[id].extras.as_ref().and_then(|extras| extras.auto.as_ref());
        let is_held = |slot: &Slot| slot.holder.is_some() && !slot.is_pending();
        let held: Vec<u32> = slots.iter().filter(|(_, slot)| is_held(slot)).map(|(id, _)| *id).collect();
        let waits = |waiter: &Waiter| waiter.is_queued() || waiter.is_claiming();
        let finite = |(_, waiter): &&(u32, &Waiter)| waits(waiter) && waiter.due != Moment::FAR;
        let timed: Vec<u32> = waiters.iter().filter(finite).map(|(id, _)| *id).collect();
        let ordered: Vec<u32> = held.iter().copied().filter(|id| auto(*id).is_some()).collect();
        let filed = self.expiries.filed(|id| self.slots[id].expiry);
        let to_be_filed = held.iter().copied().filter(|id| self.slots[*id].is_to_be_filed());
        let to_be_filed: Vec<u32> =
            to_be_filed.inspect(|id| assert!(self.unfiled.has(*id), "C1: {id} is listed")).collect();
        assert_eq!(
            sorted([filed, to_be_filed].concat()),
            held,
            "C1: every holder is timed, or will be by the next tick"
        );
        let filed = self.timeouts.filed(|id| self.waiters[id].timeout);
        let to_be_filed = timed.iter().copied().filter(|id| self.waiters[*id].is_to_be_filed());
        let to_be_filed: Vec<u32> =
            to_be_filed.inspect(|id| assert!(self.unfiled_waits.has(*id), "C1: waiter {id} is listed")).collect();
        assert_eq!(
            sorted([filed, to_be_filed].concat()),
            timed,
            "C1: every finite wait is timed, or will be by the next tick"
        );
        for (id, slot) in
            slots.iter().filter(|(_, slot)| slot.queue.len > 0 && slot.group().is_none() && !slot.is_bare())
        {
            let urgent = slot.is_pending() || self.slots[*id].expiry.is_urgent();
            assert!(urgent, "C1: the holder of {:?}, which somebody waits for, ends before others", slot.key);
        }
        let kept = |id: &u32| self.slots[*id].holder.as_ref().is_some_and(|holder| holder.keep == Keep::FromNextTick);
        for id in held.iter().filter(|id| kept(id)) {
            assert!(self.unfiled.has(*id) && auto(*id).is_none(), "C1: the next tick has {id} refreshed");
        }
        let links = |id| auto(id).map_or(Links::NEW, |auto| auto.links);
        assert_eq!(sorted(self.refreshes.filed(links)), ordered, "C1: every standing order is timed");
    }

    fn assert_counters(&self, slots: &[(u32, &Slot)]) {
        let held = slots.iter().filter(|(_, slot)| slot.holder.is_some() && !slot.is_pending()).count();
        assert_eq!(self.held(), held, "T8: held now");
        // Those that a key is being taken for have left the queue, and have no answer yet.
        let was_queued = |waiter: &Waiter| matches!(waiter.state(), WaiterState::Claiming { queued: true, .. });
        let waiters = (0..self.waiters.bound()).filter_map(|id| self.waiters.get(id));
        let claimants: Vec<u32> = waiters.filter(|waiter| was_queued(waiter)).map(|waiter| waiter.slot).collect();
        assert_balance(&self.counters, held, self.waiting + claimants.len(), "the shard");
        #[cfg(feature = "metrics")]
        self.assert_tally(slots);
        for (index, slot) in slots {
            if let Some(traffic) = slot.traffic() {
                let held = usize::from(slot.holder.is_some() && !slot.is_pending())
                    + slot.group().map_or(0, |group| group.len());
                let claimants = claimants.iter().filter(|at| *at == index).count();
                assert_balance(traffic, held, slot.queue.len as usize + claimants, slot.key.as_str());
            } else {
                assert_eq!(slot.queue.len, 0, "T8: a key with a queue counts for itself");
            }
        }
        assert!(self.history.tokens_remembered() <= usize::from(ENDED_TOKENS), "T9: ended tokens");
    }
}

#[cfg(feature = "metrics")]
impl Table {
    /// T8, by mode and outcome: what metrics show is what there is.
    fn assert_tally(&self, slots: &[(u32, &Slot)]) {
        use crate::error::AttemptOutcome;
        use crate::mode::ModeLabel;
        let (c, tally) = (&self.counters, &self.tally);
        let (mut held, mut entries) = ([0; 3], [0; 3]);
        for (_, slot) in slots {
            let key_slot = slot.member_of().map_or(*slot, |at| &self.slots[at]);
            let mode = key_slot.group().filter(|group| !group.is_alone());
            let mode = mode.map_or(ModeLabel::Exclusive, |group| group.kind.into()) as usize;
            entries[mode] += 1;
            held[mode] += u64::from(slot.holder.is_some() && !slot.is_pending());
        }
        let mut waiting = [0; 3];
        for waiter in
            (0..self.waiters.bound()).filter_map(|id| self.waiters.get(id)).filter(|waiter| waiter.is_queued())
        {
            waiting[waiter.terms.mode().label() as usize] += 1;
        }
        assert_eq!((tally.held[1], tally.held[2]), (held[1], held[2]), "T8: shares and permits held now");
        assert_eq!(self.held() as u64, held.iter().sum::<u64>(), "T8: held now, by mode");
        assert_eq!(tally.waiting, waiting, "T8: waiting now, by mode");
        let together = |mode: usize| tally.held[mode] + tally.headless[mode];
        assert_eq!((together(1), together(2)), (entries[1], entries[2]), "T8: entries, by mode");
        let ended: u64 = tally.outcomes.iter().flatten().sum();
        let acquired = AttemptOutcome::Acquired as usize;
        let exclusive = c.grants + c.reentered - tally.outcomes[1][acquired] - tally.outcomes[2][acquired];
        assert_eq!(tally.outcomes[ModeLabel::Exclusive as usize][acquired], 0, "the lane's are not counted twice");
        assert_eq!(c.attempts, ended + exclusive, "T8: attempts, by outcome");
        let of = |outcome| tally.outcomes.iter().map(|mode| mode[outcome as usize]).sum::<u64>();
        assert_eq!(of(AttemptOutcome::Busy), c.busy, "T8: busy");
        assert_eq!(of(AttemptOutcome::Cancelled), c.cancelled + c.cancelled_polls, "T8: cancelled");
        assert_eq!(tally.all_holds(c.ends()).counts.iter().sum::<u64>(), c.ends(), "T8: every end has its hold time");
        let granted: u64 = tally.waits[acquired].counts.iter().sum();
        assert!(granted >= c.handoffs, "T8: every hand-off has its wait");
    }
}

fn assert_balance(c: &Counters, held: usize, waiting: usize, whose: &str) {
    assert_eq!(c.grants, c.ends() + held as u64, "T8: grants of {whose}");
    assert_eq!(c.queued, c.left_queue() + waiting as u64, "T8: queue of {whose}");
    let outcomes = c.grants
        + (c.reentered + c.deadlocked + c.outlived)
        + (c.timed_out + c.cancelled + c.refused_by_shutdown)
        + (c.busy + c.rejected + c.cancelled_polls + c.polls_exhausted);
    assert_eq!(c.attempts, outcomes, "T8: attempts of {whose}");
}
