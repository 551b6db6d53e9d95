//! How a request is answered that names a token for the second time (T11).

use super::acquire::Grant;
use super::holder::GrantState;
use super::request::{AcquireOutcome, AcquireRequest, WaitPolicy};
use super::{Effects, Table};
use crate::clock::Moment;
use crate::error::{LockError, Loss};
use crate::key::Token;

impl Table {
    /// Answers a request whose token this key already knows (T11): the waiter it queued, the grant it was given,
    /// or the end of that grant. `None`: the token is new here.
    pub(super) fn answer_repeated(
        &mut self,
        request: &AcquireRequest<'_>,
        found: Option<u32>,
        policy: &WaitPolicy<'_>,
        fx: &mut Effects,
    ) -> Option<AcquireOutcome> {
        // Only what a client names can be named again.
        let token = request.token?;
        if let Some(index) = found.and_then(|index| self.holder_with(index, token))
            && let Some(holder) = self.slots[index].holder.as_ref()
        {
            if !self.slots[index].terms(holder).ask_for_the_same(request.terms) {
                return Some(self.reject(found, request.terms.mode(), LockError::TokenReused));
            }
            let old_state = holder.grant_state;
            let grant = Grant { slot: index, fence: holder.fence(), proof: self.proof_in(index) };
            match (old_state, request.grant_state) {
                // One guard per token and process (T10): a second one would release under the first.
                (GrantState::Guard(_), GrantState::Guard(_)) => {
                    return Some(self.reject(found, request.terms.mode(), LockError::TokenReused));
                }
                (GrantState::Guard(_), _) => return Some(AcquireOutcome::Granted(grant)),
                (GrantState::Claiming(waiter), _) => return Some(self.take_seat(waiter, policy, found)),
                (GrantState::Unseen(waiter), _) => self.take_answer(waiter, fx),
                (GrantState::Ticket, _) => {}
            }
            if let Some(holder) = self.slots[index].holder.as_mut() {
                holder.grant_state = request.grant_state;
            }
            return Some(AcquireOutcome::Granted(grant));
        }
        if let Some(waiter) = found.and_then(|index| self.joining_with(index, token)) {
            return Some(if self.waiters[waiter].terms.ask_for_the_same(request.terms) {
                self.take_seat(waiter, policy, found)
            } else {
                self.reject(found, request.terms.mode(), LockError::TokenReused)
            });
        }
        if let Some(&queued) = found.and_then(|index| self.chosen.get(&(token, index))) {
            if !self.waiters[queued].terms.ask_for_the_same(request.terms) {
                return Some(self.reject(found, request.terms.mode(), LockError::TokenReused));
            }
            if matches!(policy, WaitPolicy::Now | WaitPolicy::Poll) {
                // It is known to be held by another, and this request will not wait with the first.
                return None;
            }
            return Some(self.take_seat(queued, policy, found));
        }
        let end = self.history.end_of_token(token, request.hash)?;
        Some(self.reject(found, request.terms.mode(), LockError::Lost(end.as_loss())))
    }

    /// What became of a grant that another seat of the same waiter took: the same answer, or `Lost`.
    pub(crate) fn answer_taken(
        &mut self,
        request: &AcquireRequest<'_>,
        now: Moment,
        fx: &mut Effects,
    ) -> Result<Grant, LockError> {
        self.advance_clock(now);
        let found = self.find_live(request.hash, request.key, fx);
        match self.answer_repeated(request, found, &WaitPolicy::Now, fx) {
            Some(AcquireOutcome::Granted(grant)) => Ok(grant),
            Some(AcquireOutcome::Refused(why)) => Err(why),
            Some(AcquireOutcome::Queued(_)) | None => Err(LockError::Lost(Loss::Unknown)),
        }
    }

    /// The slot of the grant with this token on a key.
    pub(super) fn holder_with(&self, index: u32, token: Token) -> Option<u32> {
        if self.known_token(index) == Some(token) { Some(index) } else { self.slots[index].group()?.member(token) }
    }
}
