//! From the first lock to the deep end, a page a subject; every example on them is run by the tests.
//!
//! | page | what it answers |
//! |---|---|
//! | [`tour`] | what can be asked for beyond a lock and its release |
//! | [`choosing_a_store`] | memory, a lock server, Redis, Redlock: what each survives and costs |
//! | [`fencing`] | what to do about a holder that does not know that it has lost its lock |
//! | [`sessions_and_deadlocks`] | one owner of several locks, and what happens when two wait for each other |
//! | [`fairness`] | who is next, and who may pass |
//! | [`failure_modes`] | what goes wrong, what leasehold does then, and what is left for you |
//! | [`tuning`] | TTLs, waits, bounds, threads |
//! | [`migrating`] | from verrou, redis-py, rslock, flock, `consul lock`: what is called what, and how both run side by side |

#[doc = include_str!("tour.md")]
pub mod tour {}

#[doc = include_str!("choosing_a_store.md")]
pub mod choosing_a_store {}

#[doc = include_str!("fencing.md")]
pub mod fencing {}

#[doc = include_str!("sessions_and_deadlocks.md")]
pub mod sessions_and_deadlocks {}

#[doc = include_str!("fairness.md")]
pub mod fairness {}

#[doc = include_str!("failure_modes.md")]
pub mod failure_modes {}

#[doc = include_str!("tuning.md")]
pub mod tuning {}

#[doc = include_str!("migrating.md")]
pub mod migrating {}
