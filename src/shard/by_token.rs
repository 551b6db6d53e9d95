//! What is done by a token, for callers without a guard: what this process does not know of one, a store may know.

use super::Shard;
use crate::error::{LockError, Loss};
use crate::key::{Key, Token, Ttl};
use crate::store::{Extended, KeyState, Released};
use crate::table::{End, Grant, GrantState, RefreshRequest, Refreshed, Release};

impl Shard {
    /// The live grant that a token proves.
    fn grant_of(&self, key: &Key, hash: u32, token: Token) -> Result<Grant, LockError> {
        let now = self.clock.now();
        self.with_swept(key, hash, now, |state, fx| state.table.grant_of(key, hash, token, now, fx))
    }

    /// The token of a grant, which others may know from now on.
    pub(crate) fn tell_token(&self, grant: &Grant) -> Token {
        // A system call, by which a fork is noticed in time: before the mutex.
        let process = std::process::id();
        self.state().table.tell_token(grant, process)
    }

    /// The token that is kept with a grant, if it still holds its key.
    pub(crate) fn kept_token(&self, grant: &Grant) -> Option<Token> {
        self.state().table.kept_token(grant)
    }

    /// Releases by token, for callers without a guard. A token that this process does not know, the store may know.
    pub(crate) async fn release_token(&self, key: &Key, hash: u32, token: Token) -> Result<Release, LockError> {
        let Some(driver) = &self.driver else { return self.release_token_in_memory(key, hash, token) };
        let unknown = match self.grant_of(key, hash, token) {
            Ok(grant) => {
                return match self.release_anywhere(&grant, End::ByToken, None).await {
                    Release::Unknown => Err(LockError::StoreUnavailable),
                    known => Ok(known),
                };
            }
            Err(LockError::Lost(Loss::Unknown)) => Ok(Release::AlreadyGone),
            // The store keeps it (R28), and is not asked any more.
            Err(LockError::Lost(Loss::ShutDown)) => return Err(LockError::ShuttingDown),
            Err(LockError::Lost(_)) => return Ok(Release::AlreadyGone),
            Err(other) => Err(other),
        };
        match driver.client().release(key.clone(), token.into()).await {
            Some(Released::Released) => Ok(Release::Released),
            // Who holds it then is the store's to say: nobody, or another.
            Some(Released::AlreadyGone) => match driver.client().look(key, None).await {
                Some(Ok(KeyState::Free)) => unknown,
                Some(Ok(KeyState::Held { .. })) => Err(LockError::NotHeld),
                Some(Err(_)) | None => Err(LockError::StoreUnavailable),
            },
            Some(Released::Unknown(_)) | None => Err(LockError::StoreUnavailable),
        }
    }

    /// The same without a store: this process knows all there is to know.
    fn release_token_in_memory(&self, key: &Key, hash: u32, token: Token) -> Result<Release, LockError> {
        let now = self.clock.now();
        self.with_swept(key, hash, now, |state, fx| match state.table.grant_of(key, hash, token, now, fx) {
            Ok(grant) => Ok(state.table.release(&grant, End::ByToken, now, fx)),
            Err(LockError::Lost(_)) => Ok(Release::AlreadyGone),
            Err(other) => Err(other),
        })
    }

    /// Refreshes by token; also answers what is left and how often it was refreshed.
    pub(crate) async fn refresh_token(
        &self,
        key: &Key,
        hash: u32,
        token: Token,
        request: RefreshRequest,
    ) -> Result<Refreshed, LockError> {
        let grant = self.grant_of(key, hash, token)?;
        self.refresh_anywhere(&grant, request).await
    }

    /// Has the store extend what a token holds that this process does not know: another process granted it, or this one
    /// before it was started anew. `None`: the token holds nothing there, or there is no store.
    pub(crate) async fn extend_unknown(
        &self,
        key: &Key,
        token: Token,
        ttl: Ttl,
    ) -> Result<Option<Refreshed>, LockError> {
        let Some(driver) = &self.driver else { return Ok(None) };
        match driver.client().extend_unknown(key, token, ttl).await {
            (asked, Extended::Extended { valid_for }) => {
                Ok(Some(Refreshed { deadline: asked.saturating_add(valid_for), written: true, count: 0 }))
            }
            (_, Extended::Lost) => Ok(None),
            (_, Extended::Unknown(_)) => Err(LockError::StoreUnavailable),
        }
    }

    /// Gives a grant that travelled by its token a guard again (T10).
    pub(crate) fn adopt(&self, key: &Key, hash: u32, token: Token, guard: GrantState) -> Result<Grant, LockError> {
        let now = self.clock.now();
        self.with_swept(key, hash, now, |state, fx| {
            let grant = state.table.grant_of(key, hash, token, now, fx)?;
            if state.table.grant_state(&grant) != Some(GrantState::Ticket) {
                return Err(LockError::TokenReused);
            }
            state.table.set_grant_state(&grant, guard);
            Ok(grant)
        })
    }
}
