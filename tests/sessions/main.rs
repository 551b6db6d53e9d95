//! Fears about owners who hold and want several locks: one file each.
#![cfg(feature = "test-util")]

mod deadlocks;
mod session;
mod shared_hands;
