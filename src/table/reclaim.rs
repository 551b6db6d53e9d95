//! Locks that an earlier process granted, whose holders come to take them back.
//!
//! A table in memory forgets its locks when its process ends, and their holders do not know. A holder proves that it is
//! one by the grant's token and fence. That proof is good only while nothing else is granted: whoever calls this sees to
//! that. Of two that claim one key, the later grant is the right one, and has the higher fence.

use super::acquire::{Ask, Grant};
use super::ended::End;
use super::{Effects, Table};
use crate::clock::Moment;
use crate::error::{LockError, Loss};
use crate::key::FencingToken;

impl Table {
    /// Grants a key under the token and the fence that it was granted with before.
    ///
    /// # Errors
    /// `NotHeld` if another holds the key by a higher fence; `Lost` if this token's grant has ended here.
    pub(crate) fn reclaim(
        &mut self,
        ask: &Ask<'_>,
        fence: FencingToken,
        now: Moment,
        fx: &mut Effects,
    ) -> Result<Grant, LockError> {
        self.see(now);
        if self.closed {
            return Err(LockError::ShuttingDown);
        }
        if let Some(end) = self.ended.find(ask.token, ask.hash) {
            return Err(LockError::Lost(end.as_loss()));
        }
        // What is locked in a store did not end with the process.
        if self.claim.is_stored() {
            return Err(LockError::Lost(Loss::Unknown));
        }
        let found = self.find_live(ask.hash, ask.key, fx);
        if let Some(index) = found
            && self.slots[index].group().is_none()
            && self.slots[index].holder.as_ref().is_some_and(|holder| holder.fence < fence)
        {
            self.end(index, End::Expired, fx);
        }
        let found = self.find_live(ask.hash, ask.key, fx);
        // The grant takes the next fence, as all do, and all later ones are above what was given out before (T4).
        let last = std::mem::replace(&mut self.fence, FencingToken::at_least_one(fence.get().saturating_sub(1)));
        let granted = self.open(ask, found, fx);
        self.fence = last.max(fence);
        granted.map_err(|shut| shut.refusal(LockError::NotHeld))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Claim, Keeper, Limits, Patience, Release, Terms, TokenChoice, Verdict};
    use super::*;
    use crate::key::{Key, Token, Ttl};

    fn fence(number: u64) -> FencingToken {
        FencingToken::at_least_one(number)
    }

    #[test]
    fn a_lock_is_taken_back_with_its_fence_and_all_later_ones_are_above() {
        let (mut fx, now) = (Effects::new(), Moment::ZERO);
        let limits = Limits { keys: 10, members: 10, waiters: 10, waiters_per_key: 10 };
        let mut table = Table::new(limits, Claim::Local, 1_000, now);
        let terms = Terms { ttl: Ttl::new(Duration::from_secs(30)).unwrap(), extra: None };
        let keys = ["a", "b"].map(|key| Key::new(key).unwrap());
        let ask = |at: usize, token| Ask {
            key: &keys[at],
            hash: at as u32,
            terms: &terms,
            token,
            choice: TokenChoice::ByClient,
            keeper: Keeper::Ticket,
        };
        let (stale, holder) = (Token::random(), Token::random());
        // Who comes first is not who holds it: it was granted to another since.
        table.reclaim(&ask(0, stale), fence(700), now, &mut fx).unwrap();
        let grant = table.reclaim(&ask(0, holder), fence(900), now, &mut fx).unwrap();
        assert_eq!((grant.token, grant.fence), (holder, fence(900)));
        let again = table.reclaim(&ask(0, stale), fence(700), now, &mut fx);
        assert_eq!(again, Err(LockError::Lost(Loss::Expired)));
        let other = table.reclaim(&ask(0, Token::random()), fence(800), now, &mut fx);
        assert_eq!(other, Err(LockError::NotHeld));
        // One above all that this table would have given out.
        table.reclaim(&ask(1, Token::random()), fence(5_000), now, &mut fx).unwrap();
        assert_eq!(table.grant_of(&keys[0], 0, holder, now, &mut fx), Ok(grant));
        assert_eq!(table.release(&grant, End::ByToken, now, &mut fx), Release::Released);
        let next = table.acquire(&ask(0, Token::random()), Patience::Now, now, &mut fx);
        assert!(matches!(next, Verdict::Granted(grant) if grant.fence > fence(5_000)), "{next:?}");
    }
}
