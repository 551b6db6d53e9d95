//! What a store, and a manager over it, must do, as checks that anybody can run over a store of their own: [`store`] and
//! [`manager`].

pub mod manager;
pub mod store;

use std::time::{Duration, Instant};

/// However loaded the machine is, what has not come by then does not come.
const TIMEOUT: Duration = Duration::from_secs(30);
/// So long that nothing but a release ends it within a check.
const LONG: Duration = Duration::from_hours(1);

/// Polls until it is so.
#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < TIMEOUT, "it never came: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
