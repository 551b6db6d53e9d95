//! What a manager does over any store, as checks that anybody can run over a store of their own: [`check`].
//!
//! [`conformance::store`](super::store) holds a store to its contract; this holds a
//! [`LockManager`] over it to what memory mode does: the same answers, the same errors, the same order. Each check is a
//! sentence, gets a manager of its own and runs in a thread without any runtime. Time is real: nothing here asks how
//! long something took, only what comes of it. A few checks make two managers; nothing else that spans several is checked.
//!
//! ```no_run
//! # fn my_store() -> leasehold::store::redis::RedisStore { unreachable!() }
//! # #[cfg(feature = "redis")]
//! leasehold::conformance::manager::check(|| leasehold::LockManager::builder().store(my_store()));
//! ```

#![expect(clippy::unwrap_used, reason = "these are tests, for others to run: a panic is how they fail")]

mod ending;
mod holding;
mod owners;
mod reports;
mod waiting;

use std::fmt;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::{LONG, TIMEOUT, until};
use crate::key::Token;
use crate::{Builder, LockManager};

/// So short that a check can wait for its end, and so long that a loaded machine finds it held.
const SHORT: Duration = Duration::from_millis(700);

/// Makes a builder of a manager over the store that is checked.
type Make<'a> = dyn Fn() -> Builder + 'a;

macro_rules! cases {
    ($($room:ident { $($case:ident),* $(,)? })*) => {
        /// Every check and its name.
        const CASES: &[(&str, fn(&Make<'_>))] = &[$($((stringify!($case), $room::$case)),*),*];
    };
}

cases! {
    holding {
        one_holds_and_all_others_are_told_so,
        an_unlock_ends_only_what_its_guard_holds,
        a_token_releases_and_refreshes_what_it_holds_and_nothing_else,
        a_refresh_lengthens_and_never_shortens,
        an_automatic_refresh_keeps_a_lock_until_it_is_stopped,
        a_cap_ends_what_is_refreshed_for_ever,
        fences_rise_however_the_last_lock_ended,
        a_detached_lock_is_restored_once,
        a_chosen_token_is_one_lock_however_often_it_asks,
        shares_and_permits_within_the_process_are_counted,
        shares_and_permits_are_counted_in_every_process,
    }
    ending {
        a_lock_that_ran_out_is_lost_and_the_next_one_is_served,
        a_dropped_lock_is_free,
        a_forced_lock_is_lost_and_free,
        a_shutdown_refuses_who_waits_and_tells_who_holds,
        a_shutdown_waits_for_who_releases_in_time,
    }
    waiting {
        those_who_wait_are_served_in_their_order,
        a_wait_that_ends_says_for_how_long_it_was,
        a_request_dropped_at_any_point_leaves_nothing,
        who_gives_up_makes_way,
        who_waited_in_vain_keeps_no_other_process_out,
        pollers_try_until_they_are_told_yes_or_are_done,
        a_full_queue_and_a_full_table_say_so,
        synchronous_callers_wait_like_others,
    }
    owners {
        a_session_holds_and_ends_as_one,
        a_session_reenters_what_it_holds,
        a_cycle_of_waits_is_refused,
        a_cycle_through_two_processes_is_refused_once,
        a_callback_runs_under_its_lock,
        those_who_ask_together_share_one_flight,
        processes_that_ask_together_call_once,
        many_keys_are_locked_together_or_not_at_all,
    }
    reports {
        bad_input_is_refused_before_anything_is_asked,
        it_can_be_asked_who_holds,
        what_happens_is_told_in_its_order,
        the_counters_balance,
    }
}

/// Runs every check over managers that `make` describes, one after the other.
///
/// # Panics
/// If one of them fails; its name is in the message.
pub fn check(make: impl Fn() -> Builder) {
    for (name, case) in CASES {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| case(&make))) {
            #[expect(
                clippy::print_stderr,
                reason = "it is called in tests, whose output is kept for the one who reads"
            )]
            let () = eprintln!("it failed: {name}");
            resume_unwind(panic);
        }
    }
}

/// A manager that is shut down with the check that made it.
struct Managed(LockManager);

impl Managed {
    fn new(builder: Builder) -> Self {
        Self(wait(builder.build_and_connect()).expect("the place is there"))
    }
}

impl Deref for Managed {
    type Target = LockManager;

    fn deref(&self) -> &LockManager {
        &self.0
    }
}

impl fmt::Debug for Managed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        wait(self.0.shutdown(Duration::ZERO));
    }
}

/// A manager with the settings that checks want unless they say otherwise.
fn manager(make: &Make<'_>) -> Managed {
    Managed::new(make().ttl(LONG).wait(TIMEOUT))
}

/// A key that no other check has used.
fn fresh() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    format!("api:{}:{}", Token::random(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Waits for a request in this thread, without any runtime.
fn wait<F: IntoFuture>(request: F) -> F::Output {
    super::store::wait(request.into_future())
}

/// A request that has begun: it was polled once, and is not done.
#[track_caller]
fn begun<F: IntoFuture>(request: F) -> Pin<Box<F::IntoFuture>> {
    let mut future = Box::pin(request.into_future());
    assert!(!is_done(&mut future), "it should wait");
    future
}

/// Polls once. An answer is lost.
fn is_done<F: Future>(future: &mut Pin<Box<F>>) -> bool {
    matches!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(_))
}
