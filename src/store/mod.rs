//! The seam to what is shared between processes: [`Store`], the trait, and its contract.
//!
//! A store answers one question: may this process hold this key, and until when? It knows nothing of local waiters,
//! guards or sessions; the shard asks it, one try at a time, and grants under what it answered. Redis is one store; a
//! third party can write another on files or an SQL table, and run [`conformance::store`](crate::conformance::store) over it.
//!
//! # The contract
//!
//! | rule | what a store promises |
//! |---|---|
//! | S1 | Every answer is granted, denied or **unknown**. Unknown is never folded into either, and never says "held by you". |
//! | S2 | [`acquire`](Store::acquire) is one atomic step. A key never exists without an end in time. |
//! | S3 | It is idempotent by token: asked again by the token that holds, it answers granted, with the same fence and the time that is left, and moves nothing. |
//! | S4 | `valid_for` counts from the start of the call, with the drift allowance taken off. A grant that comes too late is denied, and taken back. |
//! | S5 | A grant that nobody received (unknown, or the future was dropped) leaves no key behind one second after the store answers again. Until then the same token may not be granted anew: that try waits, or is unknown. |
//! | S6 | [`extend`](Store::extend) only ever lengthens what the token still holds. It re-creates nothing. |
//! | S7 | [`release`](Store::release) ends only what the token holds. Asked once, even if its future is dropped at once, it is carried out: the store itself retries it until it is answered, or the key has run out. |
//! | S8 | Fences of one key rise from grant to grant, across processes, restarts and idle periods. A store that cannot promise that says [`Fences::None`]. |
//! | S9 | A place in the queue ([`OnHeld::Queue`]) lasts until its process is granted or [leaves](Store::leave). Nobody behind it is granted before it. A process that died holds the others up for about a second; one that lives, and neither tries nor listens for its [`turn`](Store::turn) any more, for some seconds. |
//! | S10 | [`watch`](Store::watch) is in force when it resolves: what happens to the key afterwards gives a hint. A hint grants nothing, and may be missing: waiters poll too. Those of a [`turn`](Store::turn) come within a second even so. |
//! | S11 | [`force_release`](Store::force_release) ends any holder and the queue, lets the next fence be higher, and reaches the watchers and every process's [`events`](Store::events). Who waited waits anew. |
//! | S12 | Every call answers within the store's operation timeout, however the other side fares. |
//! | S13 | Calls come from any thread and any executor, and need no runtime of the caller's: what they wait for is driven by the runtime that [`start`](Store::start) was called on. |
//! | S14 | No answer, error or `Debug` shows a password, or a value that another client stored. |
//! | S15 | Shared holders ([`Mode::Shared`]) hold a key together, holders of permits as long as those of all are within the limit, and neither beside an exclusive one. Each has a token, a fence and an end of its own, for which S2 to S8 hold as for an exclusive holder's: one that runs out ends no other, and keeps the key for none. A key is held in one of the three ways at a time, and by permits of one limit. |
//! | S16 | Who waits for a key is not passed by who comes later and could have had it sooner: a shared request waits behind an exclusive one, one permit behind three. Shared requests next to each other in the queue are granted together. |
//! | S17 | [`downgrade`](Store::downgrade) makes an exclusive hold a shared one in one step: the token, the fence and the end stay. |
//! | S18 | [`put_up`](Store::put_up) puts a process's post on the board that all processes read, in the place of its last one, or takes that down, and answers what is up there then, in one step. A post is up for its life. The number of an answer is above the number of each answer that was received before its call began. |
//! | S19 | What a release leaves ([`release_with_value`](Store::release_with_value)) can be had by every process that waited for the key then, until it has lived for as long as was asked, or another was left. It is left in one step with the end of the hold, by what the token still holds and by nothing else; a release that is repeated leaves nothing. |
//! | S20 | A store that one process at a time uses, and that outlives it, keeps the [note](AcquireRequest::note) of each grant, and tells all grants that last with their tokens and notes ([`kept_holds`](Store::kept_holds)): the process that comes next goes on with them. |
//!
//! A simple store may do without S8 to S11, and without S15 to S20, and says so in its [`Capabilities`]; its waiters poll, and barge.
//!
//! What the caller owes: it starts a store once; calls for one key and token one after the other, so that no extend is
//! under way when a release starts (R6); gives up its place when nobody waits any more; and after [`Event::Resumed`]
//! verifies what it holds (R21).

#[cfg(feature = "redis")]
mod batching;
mod board;
mod error;
mod fail_mode;
#[cfg(feature = "durable")]
#[cfg_attr(docsrs, doc(cfg(feature = "durable")))]
pub mod file;
mod kept_hold;
mod key_template;
mod outcomes;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod owed;
#[cfg(any(feature = "postgres", feature = "redis"))]
#[cfg_attr(not(feature = "redis"), expect(dead_code, reason = "only Redis has claims and several wires"))]
mod pending;
#[cfg(feature = "postgres")]
#[cfg_attr(docsrs, doc(cfg(feature = "postgres")))]
pub mod postgres;
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub mod redis;
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub mod redlock;
#[cfg(any(feature = "postgres", feature = "redis"))]
#[cfg_attr(not(any(feature = "redis", test)), expect(dead_code, reason = "only Redis hands keys over"))]
mod time;
mod value;
mod watch;

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

pub use board::{Board, Post, Posts};
pub use error::{StoreCause, StoreError};
pub use fail_mode::FailMode;
pub use kept_hold::KeptHold;
pub use key_template::{KeyTemplate, TemplateError};
pub use outcomes::{
    Acquired, Capabilities, Denial, Exchange, Extended, Fairness, Fences, Forced, Health, Hints, HoldInfo, Holder,
    KeyState, NodeHealth, NodeVote, Noticed, OnExpiry, Released, ScanPage, Scanned, Vote, Votes, Warning,
};
pub use value::{LeftValue, ValueBytes, ValueToLeave};
pub use watch::{Event, Events, Hint, Sender, Sent, Watch};

pub use crate::claim_reuse::ClaimReuse;
use crate::key::{Key, Token, Ttl};
use crate::mode::Mode;
pub use crate::mode::Modes;

/// A future on the heap, as a trait object's methods need it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One try to take a key.
#[derive(Clone, Copy, Debug)]
pub struct AcquireRequest<'a> {
    /// The key, as [`Store::canonical`] spells it.
    pub key: &'a Key,
    /// What the key will be held by; one per acquisition, unless a client chose it.
    pub token: Token,
    /// How long the grant is to last.
    pub ttl: Ttl,
    /// What to do if the key is taken.
    pub on_held: OnHeld,
    /// How the key is to be held (S15). Others than [`Mode::Exclusive`] are asked for only where
    /// [`Capabilities::modes`] says that the store keeps them. More permits than the limit, or none, are
    /// [`StoreError::Config`].
    pub mode: Mode,
    /// What is to be kept beside the grant, for the process that comes next (S20); empty where nothing is, and everywhere
    /// unless [`Capabilities::keeps_notes`] says that the store keeps it. A few hundred bytes at most.
    pub note: &'a [u8],
}

/// What a try does when the key is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnHeld {
    /// Nothing.
    Fail,
    /// Take this process's place in the key's queue, or keep the one that it has (S9).
    Queue,
    /// The same, and the key may be handed over to that place without another try: for less than the TTL, which the
    /// caller extends if it needs it for longer ([`valid_for`](Acquired::Granted::valid_for)). The next try with the
    /// token is granted then. A store that hands nothing over takes it as [`Queue`](Self::Queue).
    QueueForHandOver,
}

/// What is shared between processes. The module's table holds the contract.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// What this store can do; asked before [`start`](Store::start), and never changing.
    fn capabilities(&self) -> Capabilities;

    /// Its name in metrics and traces: one word of lower-case letters, the same for all of its kind.
    fn name(&self) -> &'static str {
        "custom"
    }

    /// The one spelling of `key` under which it is kept, so that two spellings are one lock.
    ///
    /// # Errors
    /// [`StoreError::InvalidKey`] if the store cannot keep it.
    fn canonical(&self, key: &Key) -> Result<Key, StoreError> {
        Ok(key.clone())
    }

    /// Starts the store's tasks on the current tokio runtime; called once. It need not wait until the other side
    /// answers: calls made before are unknown, or wait within the operation timeout.
    ///
    /// # Errors
    /// [`StoreError::Config`] for what no waiting would mend.
    fn start(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Finishes the clean-ups that are under way, as far as the other side answers, and ends the tasks. Later calls
    /// are unknown. The caller bounds the wait by dropping the future.
    fn stop(&self) -> BoxFuture<'_, ()>;

    /// Tries once to take a key (S1 to S5).
    fn acquire<'a>(&'a self, request: AcquireRequest<'a>) -> BoxFuture<'a, Acquired>;

    /// Gives up this process's place in the key's queue, at once for this process and soon for the others; unless a try
    /// that waits is in flight, or a [`turn`](Store::turn) is listened for.
    fn leave(&self, key: &Key);

    /// Listens for this process's turn in the key's queue, in which it has a place or asks for one. A hint says that
    /// trying again may help, and comes within about a second even if a message was lost: a listener need not poll. Dropping the watch ends it; the place stays until the process [leaves](Store::leave). `None`: the store
    /// cannot know whose turn it is; a waiter watches the key and polls.
    fn turn(&self, key: &Key) -> Option<Watch> {
        let _ = key;
        None
    }

    /// Moves the end of what `token` holds to `ttl` from now, unless it lies later already (S6).
    fn extend<'a>(&'a self, key: &'a Key, token: Token, ttl: Ttl) -> BoxFuture<'a, Extended>;

    /// For how long `token` still holds the key; moves nothing. Another process may have extended it, or released it, if
    /// it knows the token. Unknown where the store knows no more than its grants and extensions have answered.
    fn confirm<'a>(&'a self, key: &'a Key, token: Token) -> BoxFuture<'a, Extended> {
        let _ = (key, token);
        Box::pin(std::future::ready(Extended::Unknown(StoreError::Other("it does not say".into()))))
    }

    /// Makes what `token` holds exclusively a shared hold (S17), and answers for how long it still has it. One that is
    /// shared already stays as it is. Called only where [`Capabilities::modes`] says that the store keeps shared holds.
    fn downgrade<'a>(&'a self, key: &'a Key, token: Token) -> BoxFuture<'a, Extended> {
        let _ = (key, token);
        Box::pin(std::future::ready(Extended::Unknown(StoreError::Other("it keeps exclusive locks alone".into()))))
    }

    /// The same for a claim under which the caller has given out fences of its own ([`Capabilities::claim_reuse`]): the
    /// hold has `last_fence`, and those of all who share the key later are above it (S8).
    fn downgrade_claim<'a>(&'a self, key: &'a Key, token: Token, last_fence: u64) -> BoxFuture<'a, Extended> {
        let _ = last_fence;
        self.downgrade(key, token)
    }

    /// Ends what `token` holds (S7). The work begins with the call, not with the first poll.
    fn release<'a>(&'a self, key: &'a Key, token: Token) -> BoxFuture<'a, Released>;

    /// The same for a claim under which the caller has given out fences of its own ([`Capabilities::claim_reuse`]): the
    /// next fence is above `last_fence` (S8).
    fn release_claim<'a>(&'a self, key: &'a Key, token: Token, last_fence: u64) -> BoxFuture<'a, Released> {
        let _ = last_fence;
        self.release(key, token)
    }

    /// Ends what `token` holds exclusively, as [`release`](Self::release) does, and leaves a value to those who wait for the
    /// key (S19); to others only if the store likes. Called only with values as long as [`Capabilities::max_value`] says at
    /// most. What cannot be left is no reason not to release.
    fn release_with_value<'a>(&'a self, key: &'a Key, token: Token, value: ValueToLeave) -> BoxFuture<'a, Released> {
        drop(value);
        self.release(key, token)
    }

    /// The value that was left last, unless that was longer than `within` before the call (S19).
    ///
    /// How long ago it was is by the store's clock: set back in between, a value looks younger than it is, by no more than
    /// it is old. What seems to be left in the future is not told.
    fn value<'a>(&'a self, key: &'a Key, within: Duration) -> BoxFuture<'a, Result<Option<LeftValue>, StoreError>> {
        let _ = (key, within);
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Ends what `token` holds, and tries once to take the key for another request of this process: as
    /// [`release`](Self::release) and [`acquire`](Self::acquire) right after each other, with all that they promise (S1 to
    /// S9). Called where [`Capabilities::exchange`] says that it is one step: then a process whose requests wait for each
    /// other asks once for each of them, not twice.
    fn exchange<'a>(&'a self, token: Token, next: AcquireRequest<'a>) -> BoxFuture<'a, (Released, Acquired)> {
        let released = self.release(next.key, token);
        Box::pin(async move { (released.await, self.acquire(next).await) })
    }

    /// Ends whatever holds the key (S11).
    fn force_release<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Forced>;

    /// The same if the key is still held by the grant with this fence; [`Forced::WasFree`] if it is not. A store that
    /// cannot do that in one step looks first: then a holder that comes in between may be ended in place of that grant.
    fn force_release_grant<'a>(&'a self, key: &'a Key, fence: u64) -> BoxFuture<'a, Forced> {
        Box::pin(async move {
            match self.look(key, None).await {
                Ok(KeyState::Held { fence: Some(now), .. }) if now == fence => self.force_release(key).await,
                Ok(_) => Forced::WasFree,
                Err(error) => Forced::Unknown(error),
            }
        })
    }

    /// Sends every process an [`Event::Notice`]: whatever holds the key will be ended `within` this time from now. Ends
    /// nothing.
    fn give_notice<'a>(&'a self, key: &'a Key, within: Duration) -> BoxFuture<'a, Result<Noticed, StoreError>> {
        let _ = (key, within);
        Box::pin(std::future::ready(Ok(Noticed::CannotTell)))
    }

    /// Looks who holds the key. With a token, says whether that one does.
    fn look<'a>(&'a self, key: &'a Key, token: Option<Token>) -> BoxFuture<'a, Result<KeyState, StoreError>>;

    /// Everybody who holds the key, whoever ends first; a thousand at most. With a token, says which of them it is.
    fn holders<'a>(&'a self, key: &'a Key, token: Option<Token>) -> BoxFuture<'a, Result<Vec<HoldInfo>, StoreError>> {
        Box::pin(async move { Ok(HoldInfo::alone(self.look(key, token).await?)) })
    }

    /// Some of the keys that it keeps, whoever holds them, about `limit` of those that begin with `prefix` and perhaps
    /// none of them: from the beginning, or from the cursor of the page before. `None`: it cannot list them. A key that is
    /// held from the first page to the last is in one of them, and may be in two.
    fn scan<'a>(
        &'a self,
        prefix: &'a str,
        cursor: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Option<ScanPage>, StoreError>> {
        let _ = (prefix, cursor, limit);
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Everything that is held now, by whichever process it was acquired (S20), in any order. Called only where
    /// [`Capabilities::keeps_notes`] says so, by a process that begins. It does not answer for a store that others use:
    /// nobody is to know their tokens (S14).
    fn kept_holds(&self) -> BoxFuture<'_, Result<Vec<KeptHold>, StoreError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Puts a post on the board, or takes it down, and answers what is up there (S18). Called only where
    /// [`Capabilities::posts`] says that there is a board. An unknown answer may have changed it.
    fn put_up<'a>(&'a self, post: Post<'a>) -> BoxFuture<'a, Result<Board, StoreError>> {
        let _ = post;
        Box::pin(std::future::ready(Err(StoreError::Other("it has no board".into()))))
    }

    /// Whom each of its nodes votes for, in an order that stays. `token` is the holder's, where the caller knows it; else
    /// the holder is the one with a majority. Empty where no nodes vote: [`look`](Self::look) is the whole answer.
    fn votes<'a>(&'a self, key: &'a Key, token: Option<Token>) -> BoxFuture<'a, Vec<NodeVote>> {
        let _ = (key, token);
        Box::pin(std::future::ready(Vec::new()))
    }

    /// Listens to one key (S10). Dropping the watch ends it.
    fn watch<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Watch, StoreError>>;

    /// Listens to what concerns the process as a whole. Best called once, before the first acquire.
    fn events(&self) -> BoxFuture<'_, Result<Events, StoreError>>;

    /// Whether the other side answers, asked now.
    fn health(&self) -> BoxFuture<'_, Health>;
}

/// The drift allowance of R8: 1% of the TTL and 2 ms.
#[must_use]
pub fn drift(ttl: Duration) -> Duration {
    (ttl / 100).saturating_add(Duration::from_millis(2))
}
