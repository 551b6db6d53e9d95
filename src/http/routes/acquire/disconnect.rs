//! Awaits a request so that a client who has gone is noticed before a grant to it is seen.
//!
//! actix-web reads the connection and then polls the handler, and looks whether the connection has ended only after
//! that. A handler that is woken by its grant would so answer a client whose end was read in the same turn, and the
//! key would stay locked for its whole TTL with nobody knowing the token.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use actix_web::rt::task::yield_now;
use actix_web::rt::time::timeout;

/// How much later than at the end of its wait a request is answered at the latest.
const LATE: Duration = Duration::from_millis(250);

/// The output of `request`; `None` if it does not come until soon after `longest`. If it does not come at once, `begin`
/// is called, and its answer is kept until the end. The request stays where it is: a future that is given one has room
/// for it twice.
///
/// Two turns of the event loop come before each poll but the first: in one the connection's events are fetched, in the
/// other actix-web acts upon them, and drops this future.
///
/// # Cancel safety
/// That of `request`: a grant that was made and not yet looked at goes to the next waiter (T3).
///
/// # Errors
/// Those of `begin`; the request is to be dropped then.
pub(super) async fn while_present<F: Future + Unpin, S, E>(
    request: &mut F,
    begin: impl FnOnce() -> Result<S, E>,
    longest: Option<Duration>,
) -> Result<Option<F::Output>, E> {
    if let Poll::Ready(answer) = poll_once(request).await {
        return Ok(Some(answer));
    }
    let _kept = begin()?;
    let Some(longest) = longest else { return Ok(Some(wait(request).await)) };
    // The table's own end of the wait comes first wherever the place is not shared. On the heap: those who wait without
    // a bound have no room for it.
    Ok(Box::pin(timeout(longest.saturating_add(LATE), wait(request))).await.ok())
}

/// Goes on after the first poll.
async fn wait<F: Future + Unpin>(request: &mut F) -> F::Output {
    loop {
        next_wake().await;
        yield_now().await;
        yield_now().await;
        if let Poll::Ready(answer) = poll_once(request).await {
            return answer;
        }
    }
}

async fn poll_once<F: Future + Unpin>(request: &mut F) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *request).poll(cx))).await
}

/// Ready when it is polled for the second time. `request` has the waker.
async fn next_wake() {
    let mut polled = false;
    poll_fn(|_| if std::mem::replace(&mut polled, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}
