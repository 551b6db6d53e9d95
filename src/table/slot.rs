//! What the table keeps of one key, and on what terms a lock is asked for.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use super::claim::{CarrierNumber, Joins, KeptClaim};
use super::counters::Counters;
use super::group::Group;
use super::history::End;
use super::holder::{Asked, GrantState, Holder};
use super::index::Chained;
use super::owner::Owner;
use super::permits_wanted::PermitsWanted;
use super::queue::Queue;
use super::refresh_order::AutoRefresh;
use super::slab::{NIL, Slab};
use super::timer_wheel::{Links, Timed};
use crate::account::Account;
use crate::clock::Moment;
use crate::key::{FencingToken, Key, Token, Ttl};
use crate::mode::{Kind, Mode};

/// On what terms a lock is asked for and granted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Terms {
    pub(crate) ttl: Ttl,
    /// The rarer ones; most requests have none, and then carry no more than a null pointer.
    pub(crate) extra: Option<Arc<ExtraTerms>>,
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct ExtraTerms {
    /// What views and events call the owner.
    pub(crate) owner_label: Option<Arc<str>>,
    /// No refresh moves the deadline further than this from the grant.
    pub(crate) max_hold: Option<Duration>,
    /// Refreshes before this share of the TTL has passed write nothing.
    pub(crate) refresh_after: Option<f32>,
    pub(crate) mode: Mode,
    /// The session or callback that makes the request. The locks of a session end with it, and have no other deadline.
    pub(crate) owner: Option<Arc<Owner>>,
    pub(crate) reentry: Reentry,
    pub(crate) scope: Scope,
    /// Whom the lock and the wait for it are charged to.
    pub(crate) account: Option<Account>,
    pub(crate) leaves: Leaves,
}

/// What the release of a lock may leave in the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Leaves {
    #[default]
    Nothing,
    /// A value for other processes (S19), so that it has to be a release in the store: its claim is not reused.
    Value,
}

/// How a request treats a key that its own owner already holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Reentry {
    /// As held: it waits or is refused like any other request.
    #[default]
    Refused,
    /// As its own: it is answered with the same grant, which ends when it has been released as often.
    Counted,
}

impl ExtraTerms {
    /// Whether the lane must leave the request to [`Table::acquire`](super::Table::acquire).
    pub(crate) fn need_slow_path(&self) -> bool {
        self.owner.is_some() || self.account.is_some() || self.mode != Mode::Exclusive
    }

    pub(crate) fn session(&self) -> Option<&Arc<Owner>> {
        self.owner.as_ref().filter(|owner| owner.is_session())
    }
}

impl Terms {
    pub(crate) fn owner_label(&self) -> Option<&Arc<str>> {
        self.extra.as_ref()?.owner_label.as_ref()
    }

    pub(crate) fn max_hold(&self) -> Option<Duration> {
        self.extra.as_ref()?.max_hold
    }

    pub(crate) fn mode(&self) -> Mode {
        self.extra.as_ref().map_or(Mode::Exclusive, |extra| extra.mode)
    }

    /// Whether a request that names the same token asks for the same thing (T11). In which callback it asks is all
    /// the same, since a retry may well ask in another; not so its session.
    pub(crate) fn ask_for_the_same(&self, other: &Self) -> bool {
        let plain = ExtraTerms::default();
        let (mine, theirs) = (self.extra.as_deref().unwrap_or(&plain), other.extra.as_deref().unwrap_or(&plain));
        let beside = |extra: &ExtraTerms| {
            let session = extra.session().map(|session| session.id);
            (session, extra.max_hold, extra.refresh_after, extra.mode, extra.reentry)
        };
        self.ttl == other.ttl && mine.owner_label == theirs.owner_label && beside(mine) == beside(theirs)
    }

    pub(crate) fn owner(&self) -> Option<&Arc<Owner>> {
        self.extra.as_ref()?.owner.as_ref()
    }

    pub(crate) fn account(&self) -> Option<&Account> {
        self.extra.as_ref()?.account.as_ref()
    }

    pub(crate) fn session(&self) -> Option<&Arc<Owner>> {
        self.extra.as_ref()?.session()
    }

    pub(crate) fn leaves(&self) -> Leaves {
        self.extra.as_ref().map_or(Leaves::Nothing, |extra| extra.leaves)
    }

    /// Whether a manager with a store must ask it.
    pub(crate) fn needs_claim(&self) -> bool {
        self.extra.as_ref().is_none_or(|extra| extra.scope == Scope::Everywhere)
    }
}

/// How far a lock reaches, where there is a store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) enum Scope {
    /// As far as the store does.
    #[default]
    Everywhere,
    /// Within this process.
    Process,
}

/// What is notified of the end of a grant.
pub(crate) trait Watcher: Any + Send + Sync {
    /// Called exactly once, after the shard's mutex is dropped.
    fn ended(&self, end: End);

    /// An operator asks for the lock, and will take it at `deadline`. Called after the mutex is dropped.
    fn revocation_notice(&self, deadline: Moment);
}

/// One key in the table: held, or it is not here (T7). Or, of a key that several hold, a further one of its holders.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) key: Key,
    pub(crate) holder: Option<Holder>,
    pub(crate) queue: Queue,
    pub(crate) hash: u32,
    /// Of a further holder: the slot of its key. `NIL` in a key's own.
    key_slot: u32,
    /// Of a key's own: the next one of its chain in the index.
    pub(super) chained: u32,
    pub(crate) expiry: Links,
    pub(crate) extras: Option<Box<Extras>>,
}

impl Slot {
    /// The slot of a key.
    #[inline(always)]
    pub(super) fn of_key(key: Key, hash: u32, holder: Option<Holder>, extras: Option<Box<Extras>>) -> Self {
        Self { key, holder, queue: Queue::EMPTY, hash, key_slot: NIL, chained: NIL, expiry: Links::NEW, extras }
    }

    /// The same, with the next one of its chain in the index.
    #[inline(always)]
    pub(super) fn before(self, chained: u32) -> Self {
        Self { chained, ..self }
    }

    /// The slot of a further holder of the key in `key_slot`.
    #[inline]
    pub(super) fn of_member(&self, key_slot: u32, holder: Holder, extras: Option<Box<Extras>>) -> Self {
        Self { key_slot, ..Self::of_key(self.key.clone(), self.hash, Some(holder), extras) }
    }

    /// Whether it is this key's; `hash` is the key's.
    #[inline]
    pub(crate) fn is_of(&self, hash: u32, key: &Key) -> bool {
        self.hash == hash && self.key == *key
    }

    pub(crate) fn extras_mut(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    /// The holder's terms, put together again from where they are kept.
    pub(crate) fn terms(&self, holder: &Holder) -> Terms {
        let of_lane = || match holder.asked {
            Asked::Alone => None,
            Asked::Share => Some(Arc::new(ExtraTerms { mode: Mode::Shared, ..ExtraTerms::default() })),
        };
        Terms { ttl: holder.ttl, extra: self.extra_terms().cloned().or_else(of_lane) }
    }

    pub(crate) fn extra_terms(&self) -> Option<&Arc<ExtraTerms>> {
        self.extras.as_ref()?.terms.as_ref()
    }

    pub(crate) fn owner_label(&self) -> Option<&Arc<str>> {
        self.extra_terms()?.owner_label.as_ref()
    }

    /// The moment that no refresh moves the holder's deadline past: its cap (one that came later counts instead of the first), and the notice given.
    pub(crate) fn last_deadline(&self) -> Moment {
        let (Some(extras), Some(holder)) = (self.extras.as_ref(), self.holder.as_ref()) else { return Moment::FAR };
        let cap = extras.cap.or_else(|| extras.terms.as_ref()?.max_hold);
        let capped = cap.map_or(Moment::FAR, |cap| holder.granted_at.saturating_add(cap));
        capped.min(extras.notice.unwrap_or(Moment::FAR))
    }

    /// The deadline of the lock of a session that lives `until` then. A cap that came later takes nothing of the one
    /// that the holder is filed under (T6).
    pub(super) fn within_cap(&self, holder: &Holder, until: Moment) -> Moment {
        until.min(self.last_deadline().max(holder.deadline))
    }

    pub(crate) fn owner(&self) -> Option<&Arc<Owner>> {
        self.extra_terms()?.owner.as_ref()
    }

    pub(crate) fn session(&self) -> Option<&Arc<Owner>> {
        self.extra_terms()?.session()
    }

    /// The holder's token, if it is kept.
    #[inline]
    pub(crate) fn kept_token(&self) -> Option<Token> {
        self.extras.as_ref()?.token
    }

    /// Whether its holder has the key alone, on no terms but its TTL, and whoever comes next finds the slot as a free one.
    #[inline]
    pub(super) fn is_ordinary(&self) -> bool {
        self.member_of().is_none() && self.extras.as_deref().is_none_or(Extras::only_count)
    }

    /// Whether its holder has a share of the key on no terms but its TTL, and nobody asks what becomes of it.
    #[inline]
    pub(super) fn is_ordinary_share(&self) -> bool {
        self.extras.as_deref().is_none_or(Extras::has_ordinary_share)
    }

    /// What is counted of the key.
    pub(super) fn traffic(&self) -> Option<&Counters> {
        self.extras.as_ref()?.traffic.as_deref()
    }

    /// Counts the key for itself from now on, with the grant that is there.
    #[inline(never)]
    pub(super) fn start_traffic(&mut self) {
        let held =
            u64::from(self.holder.is_some() && !self.is_pending()) + self.group().map_or(0, |group| group.len() as u64);
        let counters = || Box::new(Counters { attempts: held, grants: held, ..Counters::default() });
        self.extras_mut().traffic.get_or_insert_with(counters);
    }

    pub(super) fn traffic_mut(&mut self) -> Option<&mut Counters> {
        self.extras.as_mut()?.traffic.as_deref_mut()
    }

    pub(crate) fn group(&self) -> Option<&Group> {
        self.extras.as_ref()?.group.as_deref()
    }

    pub(crate) fn group_mut(&mut self) -> Option<&mut Group> {
        self.extras.as_mut()?.group.as_deref_mut()
    }

    /// The slot of the key, if this is a further holder of it.
    #[inline]
    pub(crate) fn member_of(&self) -> Option<u32> {
        (self.key_slot != NIL).then_some(self.key_slot)
    }

    /// Whether a further grant of this mode has room beside those that there are (T1).
    pub(crate) fn has_room(&self, mode: Mode) -> bool {
        match (self.group(), self.joins()) {
            (None, None) => self.holder.is_none(),
            (Some(group), None) => group.has_room(0, mode),
            (group, Some(joins)) => {
                let used = group.map_or(0, |group| group.used);
                joins.taken().is_some_and(|taken| joins.kind().has_room(used + taken, mode))
            }
        }
    }

    /// The requests that shares of it are being taken for, if there are any.
    pub(crate) fn joins(&self) -> Option<&Joins> {
        self.extras.as_ref()?.joins.as_deref()
    }

    /// Whether it is here for the sake of those requests alone.
    pub(crate) fn is_bare(&self) -> bool {
        self.holder.is_none() && self.group().is_none() && self.joins().is_some()
    }

    /// What the key is used as.
    pub(crate) fn kind(&self) -> Kind {
        let joins = || self.joins().map_or(Kind::ReadWrite, Joins::kind);
        self.group().map_or_else(joins, |group| group.kind)
    }

    /// Whether its holder only keeps the place of one that the key is being taken for.
    pub(crate) fn is_pending(&self) -> bool {
        self.holder.as_ref().is_some_and(|holder| matches!(holder.grant_state, GrantState::Claiming(_)))
    }

    /// Whether it is held until a deadline that is in no wheel.
    pub(crate) fn is_to_be_filed(&self) -> bool {
        self.holder.is_some() && !self.is_pending() && !self.expiry.is_filed()
    }

    /// Whether its holder was granted the key by the store, or waits for that.
    pub(crate) fn is_claimed(&self) -> bool {
        let of_holder = || self.extra_terms().map_or(Scope::Everywhere, |extra| extra.scope);
        self.group().map_or_else(of_holder, |group| group.scope) == Scope::Everywhere
    }

    /// Whether nobody holds the key, or is about to share it.
    pub(crate) fn is_free(&self) -> bool {
        self.holder.is_none() && self.group().is_none() && self.joins().is_none()
    }

    /// How the holder of this slot holds the key whose slot is `key_slot`.
    pub(crate) fn mode(&self, key_slot: &Slot) -> Mode {
        match (self.extra_terms().map(|extra| extra.mode), key_slot.group()) {
            (_, None) => Mode::Exclusive,
            (Some(Mode::Permits { limit, permits }), Some(_)) => Mode::Permits { limit, permits },
            (_, Some(group)) if group.is_alone() => Mode::Exclusive,
            (_, Some(_)) => Mode::Shared,
        }
    }
}

/// What only some keys need.
#[derive(Default)]
pub(crate) struct Extras {
    /// Of the holder: as it asked, for the answer when it asks again (T11).
    pub(crate) terms: Option<Arc<ExtraTerms>>,
    /// Of the holder: a cap on its hold that came later than the grant, and stands in for the one in its terms.
    pub(crate) cap: Option<Duration>,
    /// Of the holder: its token, if a client chose it or a store was given it.
    pub(crate) token: Option<Token>,
    /// Of the holder.
    pub(crate) watcher: Option<Arc<dyn Watcher>>,
    /// Of the holder: what it is refreshed by.
    pub(crate) auto: Option<AutoRefresh>,
    /// Of the holder, if it was granted for less than its TTL, and is not extended yet: when it is to be.
    pub(crate) extension: Option<Moment>,
    /// Of the holder: how often it was asked for again by its owner, and not yet released.
    pub(crate) reentries: u32,
    /// Of the holder: when an operator will take the lock.
    pub(crate) notice: Option<Moment>,
    /// Of the holder: the fence that the store gave it, or that was made under its claim.
    pub(crate) proof: Option<FencingToken>,
    /// Of the holder, and for a moment of the next one: the claim that it holds the key under, if that may be reused.
    pub(crate) claim: Option<Box<KeptClaim>>,
    /// Of the holder: the share of its key that it holds it under (K7).
    pub(super) rides_on: Option<CarrierNumber>,
    /// Of the holder: its request had to wait for others, here or in the store.
    pub(crate) was_behind: bool,
    /// Of the key: the store has said neither yes nor no since it was asked for it last, so that a wait which ends now
    /// was not for another holder (R20).
    pub(crate) unanswered: bool,
    /// Of a key that is held shared or by permits.
    pub(crate) group: Option<Box<Group>>,
    /// Of a key that shares are being taken of.
    pub(crate) joins: Option<Box<Joins>>,
    /// Of a semaphore that somebody waits for.
    pub(crate) wanted: Option<Box<PermitsWanted>>,
    /// Of the key, from the first time that somebody had to wait or was refused.
    pub(crate) traffic: Option<Box<Counters>>,
}

impl Extras {
    /// Whether there is nothing but what is counted, and what is of use with a store alone.
    #[inline]
    fn only_count(&self) -> bool {
        !(self.group.is_some() | self.joins.is_some() | self.has_terms_of_holder())
    }

    /// Whether the holder's terms are its TTL alone, and its fence the one that it was granted under.
    #[inline]
    fn has_ordinary_share(&self) -> bool {
        !(self.joins.is_some() | self.proof.is_some() | self.has_terms_of_holder())
    }

    /// Whether there is anything of the holder's, of use without a store.
    #[inline]
    fn has_terms_of_holder(&self) -> bool {
        let of_holder = self.terms.is_some() || self.watcher.is_some() || self.auto.is_some() || self.token.is_some();
        let later = self.cap.is_some() || self.notice.is_some() || self.reentries > 0;
        of_holder | later
    }

    /// Forgets what was the holder's.
    pub(crate) fn forget_holder(&mut self) -> Option<Arc<dyn Watcher>> {
        (self.terms, self.token, self.cap, self.notice, self.reentries) = (None, None, None, None, 0);
        (self.proof, self.extension, self.rides_on, self.was_behind) = (None, None, None, false);
        self.watcher.take()
    }
}

debug_of!(Extras, |it| terms: it.terms, auto: it.auto);

/// The slots as entries of the index.
impl Chained for Slab<Slot> {
    #[inline(always)]
    fn hash_of(&self, id: u32) -> u32 {
        self[id].hash
    }

    #[inline(always)]
    fn next_of(&self, id: u32) -> u32 {
        self[id].chained
    }

    fn set_next(&mut self, id: u32, next: u32) {
        self[id].chained = next;
    }
}

/// The slots as entries of the expiry wheel: filed under their holder's deadline.
impl Timed for Slab<Slot> {
    fn timed(&mut self, id: u32) -> (Moment, &mut Links) {
        let slot = &mut self[id];
        (slot.holder.as_ref().map_or(Moment::FAR, |holder| holder.deadline), &mut slot.expiry)
    }
}

/// The slots as entries of the refresh wheel: filed under their holder's next automatic refresh.
pub(crate) struct Refreshes<'a>(pub(crate) &'a mut Slab<Slot>);

impl Timed for Refreshes<'_> {
    fn timed(&mut self, id: u32) -> (Moment, &mut Links) {
        let auto = self.0[id].extras_mut().auto.as_mut();
        let auto = auto.expect("only slots with a standing order are in the refresh wheel");
        (auto.due, &mut auto.links)
    }
}
