//! The locks that a store has kept over the end of a process, taken over by the one that comes next:
//! [`LockManager::take_over`].
//!
//! Each is asked for again, by its own token: what the token still holds is granted as it is (S3), and has the terms that
//! its note says. A lock that ended in between is granted anew by that, with another fence, and let go at once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use futures_util::future::join_all;
use uuid::Uuid;

use crate::account::Account;
use crate::engine::LockManager;
use crate::error::LockError;
use crate::mode::Mode;
use crate::request::LockOptions;
use crate::session::Session;
use crate::shard::note::{Note, NotedSession};
use crate::store::{KeptHold, StoreError};

/// So many are asked for at a time.
const AT_A_TIME: usize = 64;

/// What a manager has taken over; see [`LockManager::take_over`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TakenOver {
    /// Locks that go on here, as tickets.
    pub locks: usize,
    /// Sessions that some of them are of, which are found by their ids again.
    pub sessions: usize,
    /// Locks that go on in the store alone, until their own ends: of guards, which ended with their process; and those
    /// that a bound of this manager left no room for. Their keys are held all the same.
    pub left: usize,
}

impl LockManager {
    /// Goes on with the locks that an earlier process held in the same store: with those that a client has the token of.
    /// Refreshes, releases, repeated requests and their sessions' heartbeats then do what they would have done there.
    ///
    /// For lock servers over a store that one process at a time uses
    /// ([`Capabilities::keeps_notes`](crate::store::Capabilities::keeps_notes)), before they answer the first request;
    /// over others, and without a store, there is nothing to take over. `account_of` finds the account that locks and
    /// sessions are charged to by its name; without it they are charged to nobody, and a session stays bound to the name.
    /// A session lives for its whole TTL from now; one without locks is not kept.
    ///
    /// # Errors
    /// What is wrong with the store, if it cannot be used or does not answer.
    ///
    /// # Cancel safety
    /// Dropped early, some of them are taken over. Calling it again does the rest.
    pub async fn take_over(&self, account_of: impl Fn(&str) -> Option<Account>) -> Result<TakenOver, StoreError> {
        let Some(client) = self.client() else { return Ok(TakenOver::default()) };
        if !client.store.capabilities().keeps_notes {
            return Ok(TakenOver::default());
        }
        client.connected().await?;
        let kept = client.store.kept_holds().await?;
        let mut done = TakenOver::default();
        let mut sessions = Sessions::default();
        for some in kept.chunks(AT_A_TIME) {
            let asked = some.iter().filter_map(|hold| {
                let note = Note::from_bytes(&hold.note)?;
                let account = note.account.as_deref().and_then(&account_of);
                let session =
                    note.session.as_ref().and_then(|noted| sessions.open(self, noted, &note, account.as_ref()));
                Some(self.ask_again(hold, note, account, session))
            });
            let answers = join_all(asked.collect::<Vec<_>>()).await;
            done.left += some.len() - answers.len();
            for answer in answers {
                match answer {
                    Ok(true) => done.locks += 1,
                    Ok(false) => {}
                    Err(LockError::StoreUnavailable) => {
                        return Err(self.last_store_error().unwrap_or(StoreError::Timeout));
                    }
                    Err(_) => done.left += 1,
                }
            }
        }
        done.sessions = sessions.0.values().flatten().count();
        Ok(done)
    }

    /// Whether the lock goes on here.
    async fn ask_again(
        &self,
        hold: &KeptHold,
        note: Note,
        account: Option<Account>,
        session: Option<Session>,
    ) -> Result<bool, LockError> {
        let key = hold.key.clone();
        let request = match hold.mode {
            Mode::Exclusive => self.try_lock(key),
            Mode::Shared => self.try_read(key),
            Mode::Permits { limit, permits } => self.semaphore(key, limit).try_permits(permits),
        };
        let mut options = LockOptions::new().token(hold.token);
        if let Some(owner) = note.owner {
            options = options.owner(&*owner);
        }
        if let Some(account) = &account {
            options = options.account(account);
        }
        options = match &session {
            Some(session) => options.session(session),
            None => options.ttl(note.ttl),
        };
        let ticket = request.options(options).ticket().await?;
        if ticket.fencing_token().map(|fence| fence.get()) == Some(hold.fence) {
            return Ok(true);
        }
        self.release(ticket.key(), ticket.token()).await.map(|_| false)
    }
}

/// The sessions of the locks that are taken over, by their ids; `None` where there was no room for one.
#[derive(Default)]
struct Sessions(HashMap<Uuid, Option<Session>>);

impl Sessions {
    fn open(
        &mut self,
        locks: &LockManager,
        noted: &NotedSession,
        note: &Note,
        account: Option<&Account>,
    ) -> Option<Session> {
        let NotedSession { id, name, ttl } = noted;
        let open = || {
            let session = Session::reopened(locks, *id, name, *ttl).outlives_process();
            let by_name = note.account.as_deref().map(Account::new);
            match account.or(by_name.as_ref()) {
                Some(account) => session.register_for(account),
                None => session.register(),
            }
            .ok()
            .map(|()| session)
        };
        match self.0.entry(*id) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(place) => place.insert(open()).clone(),
        }
    }
}
