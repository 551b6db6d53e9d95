//! Locks that an earlier process granted, whose holders come to take them back.
//!
//! A table in memory forgets its locks when its process ends, and their holders do not know. A holder proves that it is
//! one by the grant's token and fence. That proof is good only while nothing else is granted: whoever calls this sees to
//! that. Of two that claim one key, the later grant is the right one, and has the higher fence.
//!
//! It is no full proof: nothing is left by which a made-up token and fence could be told from those of a grant. What is
//! seen to is that no fence counts that was above all when this process began, that everything is charged as it would
//! have been at the grant, and that whoever is put out is reported to the caller.

use super::acquire::Grant;
use super::history::End;
use super::request::AcquireRequest;
use super::{Effects, Table};
use crate::account::Account;
use crate::clock::Moment;
use crate::error::{LockError, Loss};
use crate::key::FencingToken;
use crate::mode::Mode;

/// A lock that was taken back.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Reclaimed {
    pub(crate) grant: Grant,
    /// How many who had taken the key back before, by lower fences, had to go.
    pub(crate) put_out: usize,
}

impl Table {
    /// Grants a key under the token and the fence that it was granted with before.
    ///
    /// # Errors
    /// `NotHeld` if another holds the key by a higher fence, or the fence is above those from which this table counts;
    /// `Lost` if this token's grant has ended here; `LockQuota` if the account has too many locks.
    pub(crate) fn reclaim(
        &mut self,
        request: &AcquireRequest<'_>,
        fence: FencingToken,
        now: Moment,
        fx: &mut Effects,
    ) -> Result<Reclaimed, LockError> {
        self.advance_clock(now);
        if self.closed {
            return Err(LockError::ShuttingDown);
        }
        let Some(token) = request.token else { return Err(LockError::NotHeld) };
        if let Some(end) = self.history.end_of_token(token, request.hash) {
            return Err(LockError::Lost(end.as_loss()));
        }
        // What is locked in a store did not end with the process.
        if self.claim.is_stored() {
            return Err(LockError::Lost(Loss::Unknown));
        }
        // An earlier process gave out fences below the time at which this one began (T4).
        if fence > self.fence {
            return Err(LockError::NotHeld);
        }
        // Two heartbeats of one holder may come at once.
        if let Ok(grant) = self.grant_of(request.key, request.hash, token, now, fx) {
            return Ok(Reclaimed { grant, put_out: 0 });
        }
        let found = self.find_live(request.hash, request.key, fx);
        let rivals = match found {
            Some(index) => self.in_the_way(index, request.terms.mode(), fence).ok_or(LockError::NotHeld)?,
            None => Vec::new(),
        };
        // Nobody goes for one who is then refused.
        if let Some(account) = request.terms.account()
            && !account.lock_quota().has_room()
            && !rivals.iter().any(|rival| self.is_charged_to(*rival, account))
        {
            return Err(LockError::LockQuota);
        }
        for rival in &rivals {
            self.end(*rival, End::Expired, fx);
        }
        let found = self.find_live(request.hash, request.key, fx);
        // The grant takes the next fence, as all do, and all later ones are above what was given out before (T4).
        let last = std::mem::replace(&mut self.fence, FencingToken::at_least_one(fence.get().saturating_sub(1)));
        let granted = self.open(request, found, fx);
        self.fence = last;
        let grant = granted.map_err(|shut| shut.refusal(LockError::NotHeld))?;
        Ok(Reclaimed { grant, put_out: rivals.len() })
    }

    fn is_charged_to(&self, at: u32, account: &Account) -> bool {
        self.slots[at].extra_terms().is_some_and(|extra| extra.account.as_ref() == Some(account))
    }

    /// The holders of a key that must go for a grant of this mode, the lowest fences first; none if one of them has a
    /// fence as high as the grant's.
    fn in_the_way(&self, index: u32, mode: Mode, fence: FencingToken) -> Option<Vec<u32>> {
        let slot = &self.slots[index];
        let is_same_kind = slot.kind() == mode.kind();
        if is_same_kind && slot.has_room(mode) {
            return Some(Vec::new());
        }
        // Of permits as many as are missing, else all.
        let mut missing = match (mode, slot.group()) {
            (Mode::Permits { limit, permits }, Some(group)) if is_same_kind => {
                (group.used + u64::from(permits)).saturating_sub(u64::from(limit))
            }
            _ => u64::MAX,
        };
        let members = slot.group().into_iter().flat_map(|group| group.members());
        let fence_of = |at: u32| self.slots[at].holder.as_ref().map(|holder| (holder.fence(), at));
        let mut holders: Vec<_> = std::iter::once(index).chain(members).filter_map(fence_of).collect();
        holders.sort_unstable();
        let mut rivals = Vec::new();
        for (held_by, at) in holders {
            if missing == 0 {
                break;
            }
            if held_by >= fence {
                return None;
            }
            missing = missing.saturating_sub(u64::from(self.slots[at].mode(slot).weight()));
            rivals.push(at);
        }
        Some(rivals)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::{
        AcquireOutcome, Claim, ExtraTerms, GrantState, Limits, Release, Terms, TokenOrigin, WaitPolicy,
    };
    use super::*;
    use crate::key::{Key, Token, Ttl};

    fn fence(number: u64) -> FencingToken {
        FencingToken::at_least_one(number)
    }

    fn table() -> Table {
        let limits = Limits { keys: 10, members: 10, waiters: 10, waiters_per_key: 10 };
        Table::new(limits, Claim::Local, 10_000, Moment::ZERO)
    }

    fn terms(extra: ExtraTerms) -> Terms {
        Terms { ttl: Ttl::new(Duration::from_secs(30)).unwrap(), extra: Some(Arc::new(extra)) }
    }

    fn in_mode(mode: Mode) -> Terms {
        terms(ExtraTerms { mode, ..ExtraTerms::default() })
    }

    fn request<'a>(key: &'a Key, terms: &'a Terms, token: Token) -> AcquireRequest<'a> {
        let hash = u32::from(key.as_str().as_bytes()[0]);
        let (token, origin) = (Some(token), TokenOrigin::ByClient);
        AcquireRequest { key, hash, terms, token, origin, grant_state: GrantState::Ticket }
    }

    #[test]
    fn a_lock_is_taken_back_with_its_fence_and_all_later_ones_are_above() {
        let (mut fx, now, mut table) = (Effects::new(), Moment::ZERO, table());
        let (key, plain) = (Key::new("a").unwrap(), in_mode(Mode::Exclusive));
        let request = |token| request(&key, &plain, token);
        let (stale, holder) = (Token::random(), Token::random());
        // Who comes first is not who holds it: it was granted to another since.
        table.reclaim(&request(stale), fence(700), now, &mut fx).unwrap();
        let Reclaimed { grant, put_out } = table.reclaim(&request(holder), fence(900), now, &mut fx).unwrap();
        assert_eq!((table.tell_token(&grant, 1), grant.fence, put_out), (holder, fence(900), 1));
        let again = table.reclaim(&request(stale), fence(700), now, &mut fx);
        assert_eq!(again, Err(LockError::Lost(Loss::Expired)));
        // Below the holder's, as high, and above all from which this table counts.
        for number in [800, 900, 10_001] {
            let other = table.reclaim(&request(Token::random()), fence(number), now, &mut fx);
            assert_eq!(other, Err(LockError::NotHeld), "{number}");
        }
        let twice = table.reclaim(&request(holder), fence(900), now, &mut fx);
        assert_eq!(twice, Ok(Reclaimed { grant, put_out: 0 }));
        assert_eq!(table.grant_of(&key, request(holder).hash, holder, now, &mut fx), Ok(grant));
        assert_eq!(table.release(&grant, End::ByToken, now, &mut fx), Release::Released);
        let next = table.acquire(&request(Token::random()), WaitPolicy::Now, now, &mut fx);
        assert!(matches!(next, AcquireOutcome::Granted(grant) if grant.fence > fence(10_000)), "{next:?}");
    }

    #[test]
    fn of_those_who_cannot_hold_a_key_together_the_higher_fences_stay() {
        let (mut fx, now, mut table) = (Effects::new(), Moment::ZERO, table());
        let permits = |permits| in_mode(Mode::Permits { limit: 3, permits });
        let (shared, alone) = (in_mode(Mode::Shared), in_mode(Mode::Exclusive));
        let mut put_out = |key: &str, terms: &Terms, number| {
            let key = Key::new(key).unwrap();
            let done = table.reclaim(&request(&key, terms, Token::random()), fence(number), now, &mut fx);
            table.assert_invariants();
            done.map(|done| done.put_out)
        };
        let refused = Err(LockError::NotHeld);
        // Two old or made-up shares are no reason to keep out the one who got the key after them.
        assert_eq!(put_out("a", &shared, 200), Ok(0));
        assert_eq!(put_out("a", &shared, 100), Ok(0));
        assert_eq!(put_out("a", &alone, 150), refused);
        assert_eq!(put_out("a", &permits(1), 150), refused);
        assert_eq!(put_out("a", &alone, 300), Ok(2));
        assert_eq!(put_out("a", &shared, 250), refused);
        assert_eq!(put_out("a", &shared, 400), Ok(1));
        // As many permits as are missing, the oldest first.
        assert_eq!(put_out("b", &permits(2), 310), Ok(0));
        assert_eq!(put_out("b", &permits(1), 110), Ok(0));
        assert_eq!(put_out("b", &permits(1), 210), Ok(1));
        assert_eq!(put_out("b", &permits(2), 260), refused);
        assert_eq!(put_out("b", &permits(3), 410), Ok(2));
        assert_eq!(put_out("b", &alone, 510), Ok(1));
    }

    #[test]
    fn what_is_taken_back_is_charged_and_nobody_goes_for_one_who_is_refused() {
        let (mut fx, now, mut table) = (Effects::new(), Moment::ZERO, table());
        let accounts = [Account::new("mine").max_locks(1), Account::new("theirs").max_locks(2)];
        let [mine, theirs] = accounts.clone().map(|account| {
            let account = Some(account);
            terms(ExtraTerms { account, ..ExtraTerms::default() })
        });
        let [a, b] = ["a", "b"].map(|key| Key::new(key).unwrap());
        let first = request(&a, &mine, Token::random());
        table.reclaim(&first, fence(500), now, &mut fx).unwrap();
        assert_eq!(accounts[0].locks(), 1);
        table.reclaim(&request(&b, &theirs, Token::random()), fence(500), now, &mut fx).unwrap();
        let beyond = table.reclaim(&request(&b, &mine, Token::random()), fence(600), now, &mut fx);
        assert_eq!(beyond, Err(LockError::LockQuota));
        assert_eq!((accounts[0].locks(), accounts[1].locks()), (1, 1));
        // In the place of one's own there is room.
        let Reclaimed { grant, .. } =
            table.reclaim(&request(&a, &mine, Token::random()), fence(600), now, &mut fx).unwrap();
        assert_eq!(accounts[0].locks(), 1);
        table.release(&grant, End::ByToken, now, &mut fx);
        assert_eq!(accounts[0].locks(), 0, "it is given back at the end");
    }
}
