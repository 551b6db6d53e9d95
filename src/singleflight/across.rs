//! Sharing a call with other processes: [`SingleflightRequest::across_processes`].
//!
//! The caller whose turn it is asks for the key's lock, and so waits while another process calls. That one leaves its
//! value with the release of its lock (S19), in one step that compares the token: a lost lock leaves nothing. Then
//! the caller here gets the lock, looks for a value first, and calls only if there is none for it.
//!
//! A value is for whoever asked before it was left: a caller takes what came of a call that ran when it asked, or began
//! later, and nothing older, as within a process. The store says how long ago the value was left; that much before the
//! store was asked, less the allowance for clocks that run apart, is the last moment to have asked at. Other callers start
//! anew. So nothing is cached, no value and no error; and a caller that was given the lock at once need not look at all.

#[cfg(test)]
mod model;

use std::any::Any;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::SingleflightRequest;
use crate::clock::Moment;
use crate::engine::LockManager;
use crate::error::LockError;
use crate::key::Key;
use crate::lock::Held;
use crate::request::LockRequest;
use crate::run::Parting;
use crate::shard::client::StoreClient;
use crate::store::{LeftValue, ValueToLeave};
use crate::table::Scope;
use crate::telemetry::trace;

/// Why a value could not be written or read.
pub type CodecError = Box<dyn Error + Send + Sync>;

/// How a value of a shared call is written for other processes, and read.
///
/// ```
/// use leasehold::{Codec, CodecError};
///
/// struct Cents;
///
/// impl Codec<u64> for Cents {
///     fn encode(&self, cents: &u64) -> Result<Vec<u8>, CodecError> {
///         Ok(cents.to_le_bytes().into())
///     }
///
///     fn decode(&self, bytes: &[u8]) -> Result<u64, CodecError> {
///         Ok(u64::from_le_bytes(bytes.try_into()?))
///     }
/// }
/// ```
pub trait Codec<V>: Send + Sync {
    /// Writes a value. It is called under the call's lock.
    ///
    /// # Errors
    /// The value is its own process's only, and other processes call for themselves.
    fn encode(&self, value: &V) -> Result<Vec<u8>, CodecError>;

    /// Reads what another process has written, perhaps with another version of the program.
    ///
    /// # Errors
    /// This process calls for itself.
    fn decode(&self, bytes: &[u8]) -> Result<V, CodecError>;
}

/// Values as JSON.
#[cfg(feature = "serde")]
#[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
#[derive(Clone, Copy, Debug, Default)]
pub struct JsonCodec;

#[cfg(feature = "serde")]
impl<V: serde::Serialize + serde::de::DeserializeOwned> Codec<V> for JsonCodec {
    fn encode(&self, value: &V) -> Result<Vec<u8>, CodecError> {
        Ok(serde_json::to_vec(value)?)
    }

    fn decode(&self, bytes: &[u8]) -> Result<V, CodecError> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

impl<'a, F, Fut> SingleflightRequest<'a, F>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output: 'static>,
{
    /// Shares the call with other processes, too: while one of them calls, this one waits for the value. All of them have to
    /// say so, with codecs that understand each other, for the same key; whatever else locks the key is waited for.
    ///
    /// ```
    /// # #[cfg(feature = "serde")]
    /// # #[actix_rt::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use leasehold::{JsonCodec, LockManager};
    ///
    /// # let locks = LockManager::builder().build()?;
    /// let load = || async { Err::<u64, String>("the warehouse is closed".into()) };
    /// let price = locks.singleflight("price:42", load).across_processes(JsonCodec).await?;
    /// // An error is told like any other value, and as little kept.
    /// assert_eq!(price, Err("the warehouse is closed".into()));
    /// # Ok(()) }
    /// # #[cfg(not(feature = "serde"))] fn main() {}
    /// ```
    ///
    /// A caller gets the value of a call that was under way when it asked, or of a later one, wherever it was made; a call is
    /// under way until the store has released its lock. Nothing
    /// is cached: the value lies in the store for those who waited, for [`value_life`](crate::Builder::value_life) at
    /// most. If the process that calls dies, its lock runs out, and one of those that wait calls; if the lock is lost, or
    /// the call is dropped or panics, its value is no other process's. Those who wait also call, one after the other, where a value
    /// has more than [`max_value_bytes`](crate::Builder::max_value_bytes), or cannot be written or read, and one of them
    /// where the store does not answer in time whether there is a value; with the feature `tracing` an event says so. What
    /// is in the store can be read by whoever may read there.
    ///
    /// When a value is too old is judged by the store's clock, which should not be set back: a value then looks younger than
    /// it is, by no more than it is old.
    ///
    /// A manager without a store has no other processes, and shares within its own. The caller is answered
    /// [`InvalidOption`](LockError::InvalidOption) over a store that keeps no values
    /// ([`max_value`](crate::store::Capabilities::max_value)), as Redlock: each of its nodes would have its own.
    pub fn across_processes(mut self, codec: impl Codec<Fut::Output> + 'static) -> Self {
        self.codec = Some(AnyCodec::new(codec));
        self
    }
}

/// A codec for the values of some call.
#[derive(Clone)]
pub(super) struct AnyCodec(Arc<dyn Any + Send + Sync>);

impl AnyCodec {
    fn new<V: 'static>(codec: impl Codec<V> + 'static) -> Self {
        let codec: Arc<dyn Codec<V>> = Arc::new(codec);
        Self(Arc::new(codec))
    }

    fn of_type<V: 'static>(&self) -> Arc<dyn Codec<V>> {
        let codec: &Arc<dyn Codec<V>> = self.0.downcast_ref().expect("the request's call names the type");
        Arc::clone(codec)
    }
}

debug_of!(AnyCodec);

/// What a call needs that is shared with other processes.
pub(super) struct Across<V> {
    codec: Arc<dyn Codec<V>>,
    client: Arc<StoreClient>,
    key: Key,
    /// When the caller asked whose turn it is.
    since: Moment,
    max_bytes: usize,
    life: Duration,
    parting: Parting,
}

/// What a store has said, when it was asked at this moment.
pub(super) type Told = (Moment, LeftValue);

/// Refuses a codec where the values cannot be shared.
pub(super) fn check(request: &LockRequest<'_>, codec: Option<&AnyCodec>) -> Result<(), LockError> {
    if codec.is_none() {
        return Ok(());
    }
    let refused = |option, why| Err(LockError::InvalidOption { option, why });
    let store = request.manager().config().given.store.as_ref();
    match store.map(|store| store.capabilities().max_value) {
        Some(_) if request.the_scope() == Scope::Process => {
            refused("process_scope", "a call that is shared across processes is not this one's alone")
        }
        Some(0) => refused("across_processes", "the store keeps no values for other processes"),
        _ => Ok(()),
    }
}

impl<V: 'static> Across<V> {
    /// `None` without a store: there are no other processes.
    pub(super) fn new(codec: &AnyCodec, manager: &LockManager, key: Key, since: Moment) -> Option<Self> {
        let client = Arc::clone(manager.client()?);
        let given = &manager.config().given;
        let max_bytes = given.max_value_bytes.min(client.store.capabilities().max_value);
        let (codec, life) = (codec.of_type(), given.value_life);
        Some(Self { codec, client, key, since, max_bytes, life, parting: Parting::default() })
    }
}

impl<V> Across<V> {
    /// Where the value is put for the release to leave it.
    pub(super) fn parting(&self) -> Parting {
        self.parting.clone()
    }

    /// Asks the store for a value, under the call's lock. `None`: nobody can have left one since the caller asked.
    pub(super) fn ask(&self, held: &Held) -> Option<BoxFuture<'static, Option<Told>>> {
        if !held.was_behind() || held.is_degraded() {
            return None;
        }
        let (client, key, since) = (Arc::clone(&self.client), self.key.clone(), self.since);
        let asking = async move {
            let (asked, told) = client.value(&key, since).await?;
            // A store that does not answer is none that says no: then this process calls.
            let told =
                told.inspect_err(|_| trace::value_not_shared(&key, "the store has not said whether there is one"));
            told.ok()?.map(|value| (asked, value))
        };
        Some(asking.boxed())
    }

    /// The value, and until when one must have asked for it; `None` if it is not for the caller, or cannot be read.
    pub(super) fn read(&self, (asked, LeftValue { bytes, age, .. }): Told) -> Option<(V, Moment)> {
        let asked_by = last_to_ask(asked, age).filter(|asked_by| self.since <= *asked_by)?;
        match self.codec.decode(&bytes) {
            Ok(value) => Some((value, asked_by)),
            // What is wrong with it might show what is in it.
            Err(_) => {
                trace::value_not_shared(&self.key, "it cannot be read");
                None
            }
        }
    }

    /// Has the release leave the value, if that can be.
    pub(super) fn leave(&self, value: &V) {
        match self.codec.encode(value) {
            Ok(bytes) if bytes.len() <= self.max_bytes => {
                self.parting.put(ValueToLeave { bytes: bytes.into(), life: self.life });
            }
            Ok(_) => trace::value_not_shared(&self.key, "it has more than max_value_bytes"),
            Err(_) => trace::value_not_shared(&self.key, "it cannot be written"),
        }
    }
}

/// The request for the lock of a call.
pub(super) fn lock_for<'a, V>(request: LockRequest<'a>, across: Option<&Across<V>>) -> LockRequest<'a> {
    if across.is_some() { request.leaving_value() } else { request }
}

/// The last moment to have asked at for a value that was left so long before the store was asked.
fn last_to_ask(asked: Moment, age: Duration) -> Option<Moment> {
    // The store's clock may run slower than this one.
    let age = age.saturating_add(age / 100);
    let nanos = u64::try_from(age.as_nanos()).ok()?;
    asked.as_nanos().checked_sub(nanos).map(Moment::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_whose_clock_runs_slow_makes_no_value_younger() {
        let secs = |secs: u64| Moment::from_nanos(secs * 1_000_000_000);
        // Ten seconds, as a clock shows them that runs 1% slower.
        let age = Duration::from_nanos(9_900_990_100);
        let asked_by = last_to_ask(secs(100), age).expect("it was asked long after the beginning of time");
        assert!(secs(89) < asked_by && asked_by <= secs(90), "{asked_by:?}");
        assert_eq!(last_to_ask(secs(100), Duration::ZERO), Some(secs(100)));
        assert_eq!(last_to_ask(secs(100), Duration::MAX), None, "nobody can have asked then");
    }
}
