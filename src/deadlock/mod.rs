//! Deadlocks among owners: what must be known of their waits to refuse the one that would close a cycle.
//!
//! The decision is `graph`'s; it is pure, and asks for what it needs to know.

#[cfg_attr(
    not(test),
    expect(dead_code, reason = "decides for owners that span locks, and nothing makes such owners yet")
)]
pub(crate) mod graph;
