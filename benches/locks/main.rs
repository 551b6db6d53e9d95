//! How fast: one group per question, every rival in every group, set-up outside the timed part.
//!
//! `cargo bench --bench locks -- uncontended` asks one of them; `cargo bench --bench report` then holds the answers
//! to their targets. What a lock weighs and what refreshing costs is asked in `footprint`.

mod crowd;
mod deadlocks;
mod events;
mod hot_key;
mod parallel;
mod rivals;
mod shared;
mod uncontended;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

fn config() -> Criterion {
    Criterion::default().sample_size(40).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3))
}

criterion_group! {
    name = questions;
    config = config();
    targets = uncontended::uncontended, uncontended::uncontended_in_a_task, parallel::two_threads, hot_key::hot_key, crowd::crowd, shared::shared,
        deadlocks::deadlocks, events::events
}
criterion_main!(questions);
