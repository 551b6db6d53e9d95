//! What the table keeps of one key, and on what terms a lock is asked for.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::acquire::TokenChoice;
use super::counters::Counters;
use super::ended::End;
use super::expiry::{Links, Timed};
use super::queue::Queue;
use super::slab::Slab;
use crate::clock::Moment;
use crate::key::{FencingToken, Key, Token, Ttl};

/// On what terms a lock is asked for and granted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Terms {
    pub(crate) ttl: Ttl,
    /// The rarer ones; most requests have none, and then carry no more than a null pointer.
    pub(crate) extra: Option<Arc<ExtraTerms>>,
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct ExtraTerms {
    pub(crate) owner: Option<Arc<str>>,
    /// No refresh moves the deadline further than this from the grant.
    pub(crate) max_hold: Option<Duration>,
    /// Refreshes before this share of the TTL has passed write nothing.
    pub(crate) refresh_after: Option<f32>,
}

impl Terms {
    pub(crate) fn owner(&self) -> Option<&Arc<str>> {
        self.extra.as_ref()?.owner.as_ref()
    }

    pub(crate) fn max_hold(&self) -> Option<Duration> {
        self.extra.as_ref()?.max_hold
    }
}

/// The deadline of a grant or refresh at `now`, before T6 is applied.
pub(super) fn deadline(ttl: Ttl, max_hold: Option<Duration>, granted_at: Moment, now: Moment) -> Moment {
    let asked = now.after(ttl);
    match max_hold {
        Some(max_hold) => asked.min(granted_at.saturating_add(max_hold)),
        None => asked,
    }
}

/// Who hears of the end of a grant.
pub(crate) trait Watcher: Any + Send + Sync {
    /// Called exactly once, after the shard's mutex is dropped.
    fn ended(&self, end: End);
}

/// Who answers for a grant, and so who may still ask about its token.
///
/// | state    | the grant is known to                        | it ends by                              |
/// |----------|----------------------------------------------|-----------------------------------------|
/// | `Unseen` | nobody yet: its waiter has not polled        | expiry, force, or the future's drop     |
/// | `Guard`  | one `Lock` in this process; if not `Minted`, | the guard's unlock or drop, or any loss |
/// |          | also to a client or to views of the lock     |                                         |
/// | `Ticket` | whoever has the token (a client, a `Ticket`) | release by token, or any loss           |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keeper {
    Unseen(u32),
    Guard(TokenChoice),
    Ticket,
}

impl Keeper {
    /// Whether nobody can ask about the token any more once the grant has ended so: that of a guard that let go by
    /// itself, or of a grant that nobody saw.
    pub(super) fn forgets(self, end: End) -> bool {
        match self {
            Self::Guard(TokenChoice::Minted) => matches!(end, End::Released | End::Dropped),
            Self::Unseen(_) => end == End::Dropped,
            Self::Guard(TokenChoice::ByClient) | Self::Ticket => false,
        }
    }
}

/// The grant that holds a key now (T1: at most one).
#[derive(Debug)]
pub(crate) struct Holder {
    pub(crate) token: Token,
    pub(crate) fence: FencingToken,
    pub(crate) deadline: Moment,
    pub(crate) granted_at: Moment,
    pub(crate) ttl: Ttl,
    pub(crate) refreshes: u32,
    pub(crate) keeper: Keeper,
}

/// One key in the table: held, or it is not here (T7).
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) key: Key,
    pub(crate) holder: Option<Holder>,
    pub(crate) queue: Queue,
    pub(crate) hash: u32,
    pub(crate) expiry: Links,
    pub(crate) extras: Option<Box<Extras>>,
}

impl Slot {
    pub(crate) fn extras_mut(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    /// The holder's terms, put together again from where they are kept.
    pub(crate) fn terms(&self, holder: &Holder) -> Terms {
        Terms { ttl: holder.ttl, extra: self.extra_terms().cloned() }
    }

    pub(crate) fn extra_terms(&self) -> Option<&Arc<ExtraTerms>> {
        self.extras.as_ref()?.terms.as_ref()
    }

    pub(crate) fn owner(&self) -> Option<&Arc<str>> {
        self.extra_terms()?.owner.as_ref()
    }

    /// The cap on the holder's hold, the later word first.
    pub(crate) fn max_hold(&self) -> Option<Duration> {
        let extras = self.extras.as_ref()?;
        extras.cap.or_else(|| extras.terms.as_ref()?.max_hold)
    }
}

/// What only some keys need.
#[derive(Default)]
pub(crate) struct Extras {
    /// Of the holder: as it asked, for the answer when it asks again (DESIGN 6).
    pub(crate) terms: Option<Arc<ExtraTerms>>,
    /// Of the holder: a cap on its hold that came later than the grant, and stands in for the one in its terms.
    pub(crate) cap: Option<Duration>,
    /// Of the holder.
    pub(crate) watcher: Option<Arc<dyn Watcher>>,
    /// Of the holder.
    pub(crate) auto: Option<AutoRefresh>,
    /// Of the key, from the first time that somebody had to wait or was refused.
    pub(crate) traffic: Option<Box<Counters>>,
}

impl fmt::Debug for Extras {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extras").field("terms", &self.terms).field("auto", &self.auto).finish_non_exhaustive()
    }
}

/// A holder's standing order to be refreshed.
#[derive(Debug)]
pub(crate) struct AutoRefresh {
    pub(crate) every: Duration,
    /// A refresh that comes later than this after it was due counts as failed, and is done all the same.
    pub(crate) timeout: Duration,
    pub(crate) due: Moment,
    pub(crate) links: Links,
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
