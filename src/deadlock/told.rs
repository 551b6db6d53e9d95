//! What this process has to tell others of its owners' waits, looked at now; and the refusal of one of them.
//!
//! What is looked at is not of one moment: each wait and each grant has a name that is unique over time, and `across`
//! needs no more. Called by the task that puts up posts.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::across::{Hold, Lacks, Reach, Since, Told, Wait as ToldWait};
use super::{Detector, WaitId, WaitKind, name_of};
use crate::error::WaitEdge;
use crate::key::Key;
use crate::shard::Shard;
use crate::table::{Effects, InTheWay, Owner, OwnerId, OwnerSet, Scope, Want};

/// So many waits are looked at, the oldest ones.
const MOST_WAITS: usize = 2048;

/// What there is to tell.
#[derive(Debug)]
pub(crate) enum Telling {
    /// No owner waits that holds something: there will be nothing before the signal is stirred.
    Idle,
    /// Nobody waits for what another process may hold.
    Nothing,
    /// Each owner that holds something and waits.
    Something(Vec<Told>),
}

/// A wait as it stood in the register.
struct Listed {
    id: WaitId,
    owner: Arc<Owner>,
    shard: u32,
    key: Key,
    hash: u32,
    how: WaitKind,
}

/// Where a key is looked up: its shard, and its hash there.
type Place = (u32, u32);

impl Detector {
    /// What there is to tell, where other processes wait for `wanted`. `place` finds a key's shard and its hash there.
    pub(crate) fn telling<'k>(
        &self,
        shards: &[Arc<Shard>],
        wanted: impl Iterator<Item = &'k Key>,
        place: impl Fn(&Key) -> Place,
    ) -> Telling {
        let listed = self.list();
        if listed.is_empty() {
            return Telling::Idle;
        }
        let blocked: OwnerSet = listed.iter().map(|wait| wait.owner.id).collect();
        let (mut owners, mut keys, mut is_foreign) = (BTreeMap::new(), HashMap::new(), false);
        for wait in listed {
            let (lacks, in_the_way) = lacks(shards, &wait, &blocked);
            is_foreign |= in_the_way == InTheWay::Foreign;
            let Listed { id, owner, shard, key, hash, .. } = wait;
            if lacks.is_empty() {
                continue;
            }
            keys.insert(key.clone(), (shard, hash));
            let told = owners.entry(owner.id).or_insert_with(|| Told {
                owner: owner.id.0,
                label: owner.label(),
                waits: Vec::new(),
                holds: Vec::new(),
            });
            let wait = |lacks| ToldWait { id: id.0.get(), since: Since::UNKNOWN, lacks, key: key.clone() };
            told.waits.extend(lacks.into_iter().map(wait));
        }
        if !is_foreign {
            return Telling::Nothing;
        }
        for key in wanted {
            keys.entry(key.clone()).or_insert_with(|| place(key));
        }
        add_holds(shards, &mut owners, keys);
        Telling::Something(owners.into_values().collect())
    }

    /// The waits of those who hold something, in the order in which they began.
    fn list(&self) -> Vec<Listed> {
        let register = self.register.lock();
        let of_owner = |owner: &OwnerId| register.by_owner.get(owner).into_iter().flatten();
        let ids = register.blocked.iter().flat_map(of_owner);
        let waits = ids.filter_map(|id| Some((*id, register.waits.get(id)?)));
        let mut waits: Vec<_> = waits.filter(|(_, wait)| wait.owner.holds_something()).collect();
        waits.sort_unstable_by_key(|(id, _)| *id);
        let listed = waits.into_iter().take(MOST_WAITS).map(|(id, wait)| Listed {
            id,
            owner: Arc::clone(&wait.owner),
            shard: wait.shard,
            key: wait.key.clone(),
            hash: wait.hash,
            how: wait.how.clone(),
        });
        listed.collect()
    }

    /// Has the signal be stirred when one of these waits ends: other processes may take it for a part of a cycle.
    pub(crate) fn suspect(&self, waits: &[u64]) {
        let mut register = self.register.lock();
        let ids = waits.iter().filter_map(|id| std::num::NonZeroU64::new(*id));
        for id in ids.map(WaitId) {
            if let Some(wait) = register.waits.get_mut(&id) {
                wait.is_suspected = true;
            }
        }
    }

    /// Refuses a wait that is part of a cycle through several processes, if it still waits.
    pub(crate) fn refuse(&self, shards: &[Arc<Shard>], wait: u64, cycle: Arc<[WaitEdge]>) {
        let Some(id) = std::num::NonZeroU64::new(wait).map(WaitId) else { return };
        let mut fx = Effects::new();
        self.register.lock().refuse(shards, id, cycle, &mut fx);
        self.finish(shards, fx);
    }
}

/// What a wait lacks, and whether others may have it. Nothing, if it is over.
fn lacks(shards: &[Arc<Shard>], wait: &Listed, blocked: &OwnerSet) -> (Vec<Lacks>, InTheWay) {
    let shard = &shards[wait.shard as usize];
    let grant = |owner: OwnerId, grant| Lacks::Grant { owner: owner.0, grant };
    if wait.owner.settle(shard.now()).is_err() {
        return (Vec::new(), InTheWay::Local);
    }
    let want = match &wait.how {
        WaitKind::Queued(waiter) => shard.want_of(*waiter),
        WaitKind::Polling(mode, scope) => {
            // Perhaps by the very try whose answer nobody has seen yet: then it waits no more.
            let has_it = !shard.held_by(&wait.key, wait.hash, &OwnerSet::from_iter([wait.owner.id])).is_empty();
            (!has_it).then(|| shard.want_of_poller(&wait.key, wait.hash, *mode, *scope))
        }
        WaitKind::Following(following) => {
            let turn = following.blocker().into_iter().flat_map(|turn| turn.holders);
            return (turn.map(|hold| grant(hold.owner, hold.grant)).collect(), InTheWay::Local);
        }
        WaitKind::Upgrading(own, seat) => {
            let shares = shard.blocker_of_upgrade((own, *seat), blocked).into_iter().flat_map(|shares| shares.holders);
            let shares = shares.map(|(owner, _, share)| grant(owner.id, name_of(&share, wait.shard)));
            return (shares.collect(), InTheWay::Local);
        }
        WaitKind::Refused(_) => None,
    };
    match want {
        Some(Want { mode, scope, in_the_way }) => (vec![Lacks::Key(reach(scope), mode)], in_the_way),
        None => (Vec::new(), InTheWay::Local),
    }
}

/// Adds what these owners hold of the keys.
fn add_holds(shards: &[Arc<Shard>], owners: &mut BTreeMap<OwnerId, Told>, keys: HashMap<Key, Place>) {
    let among: OwnerSet = owners.keys().copied().collect();
    for (key, (shard, hash)) in keys {
        for part in shards[shard as usize].held_by(&key, hash, &among) {
            if let Some(told) = owners.get_mut(&part.owner.id) {
                let (grant, reach) = (name_of(&part.grant, shard), reach(part.scope));
                told.holds.push(Hold { grant, since: Since::UNKNOWN, reach, mode: part.mode, key: key.clone() });
            }
        }
    }
}

const fn reach(scope: Scope) -> Reach {
    match scope {
        Scope::Everywhere => Reach::Everywhere,
        Scope::Process => Reach::Process,
    }
}
