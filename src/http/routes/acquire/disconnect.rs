//! Awaits a request so that a client who has gone is noticed before a grant to it is seen.
//!
//! actix-web reads the connection and then polls the handler, and looks whether the connection has ended only after
//! that. A handler that is woken by its grant would so answer a client whose end was read in the same turn, and the
//! key would stay locked for its whole TTL with nobody knowing the token.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use actix_web::rt::task::yield_now;

/// The output of `request`. If it does not come at once, `begin` is called, and its answer is kept until the end.
///
/// Two turns of the event loop come before each poll but the first: in one the connection's events are fetched, in the
/// other actix-web acts upon them, and drops this future.
///
/// # Cancel safety
/// That of `request`: a grant that was made and not yet looked at goes to the next waiter (T3).
///
/// # Errors
/// Those of `begin`; the request is dropped then.
pub(in crate::http) async fn while_present<F: Future + Unpin, S, E>(
    mut request: F,
    begin: impl FnOnce() -> Result<S, E>,
) -> Result<F::Output, E> {
    let mut begin = Some(begin);
    let mut _kept = None;
    loop {
        let polled = poll_fn(|cx| Poll::Ready(Pin::new(&mut request).poll(cx))).await;
        if let Poll::Ready(answer) = polled {
            return Ok(answer);
        }
        if let Some(begin) = begin.take() {
            _kept = Some(begin()?);
        }
        next_wake().await;
        yield_now().await;
        yield_now().await;
    }
}

/// Ready when it is polled for the second time. `request` has the waker.
async fn next_wake() {
    let mut polled = false;
    poll_fn(|_| if std::mem::replace(&mut polled, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}
