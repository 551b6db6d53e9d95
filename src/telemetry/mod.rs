//! How requests, holds and calls to the store are shown to who operates them: the names of the metrics, the spans, and
//! the store with its calls counted and timed.
//!
//! It decides nothing. What publishes the counts that locks keep anyway is `metrics`.

mod instrumented_store;
#[cfg(feature = "metrics")]
pub(crate) mod metric_names;
mod steadiness;
pub(crate) mod trace;

pub(crate) use instrumented_store::InstrumentedStore;
