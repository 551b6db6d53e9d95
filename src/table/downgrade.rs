//! From the key alone to a share of it.
//!
//! Without a store that is one step. What a store keeps it is asked for first, and what it answers is written then: until
//! then the lock is what it was. Its claim passes to nobody meanwhile, and to nobody after an answer that did not come: the
//! store may have made it a share.

use super::claim::ClaimEnd;
use super::slot::Scope;
use super::{Effects, Grant, Table};
use crate::clock::Moment;
use crate::error::LockError;
use crate::key::Key;
use crate::mode::{Kind, Mode, ModeConflict};

/// How a downgrade goes on.
#[derive(Debug, PartialEq)]
pub(crate) enum Downgrade {
    /// The lock is a share.
    Done,
    /// The store is to be asked.
    Asks { key: Key, claim: ClaimEnd },
}

impl Table {
    /// Makes an exclusive lock a shared one, and lets those in who wait for that; or says what the store is to be asked.
    pub(crate) fn downgrade(&mut self, grant: &Grant, now: Moment, fx: &mut Effects) -> Result<Downgrade, LockError> {
        self.check(grant, now, fx).map_err(LockError::Lost)?;
        let index = grant.slot;
        let key_slot = self.key_slot(index);
        if self.slots[key_slot].kind() != Kind::ReadWrite {
            return Err(ModeConflict::Permits.into());
        }
        match self.slots[key_slot].group() {
            Some(group) if group.is_alone() => self.open_company(key_slot),
            Some(_) => return Ok(Downgrade::Done),
            None if self.is_by_store(index) => {
                self.claim.check(Mode::Shared)?;
                return Ok(self.asks_for_share(grant));
            }
            None => self.begin_company(index, Scope::Process),
        }
        self.hand_off(key_slot, fx);
        Ok(Downgrade::Done)
    }

    /// The store keeps an exclusive lock as a share now, until `deadline`: those who wait to share it are let in.
    pub(crate) fn downgraded(
        &mut self,
        grant: &Grant,
        deadline: Moment,
        now: Moment,
        fx: &mut Effects,
    ) -> Result<(), LockError> {
        self.check(grant, now, fx).map_err(LockError::Lost)?;
        let index = grant.slot;
        if self.slots[self.key_slot(index)].group().is_none() {
            self.begin_company(index, Scope::Everywhere);
            self.claim_becomes_share(index, deadline);
            self.confirmed(grant, deadline, now, fx);
            self.hand_off(index, fx);
        }
        Ok(())
    }
}
