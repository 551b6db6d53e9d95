//! Whether the server answers, and does what a lock needs: [`health`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::acquire::acquire;
use super::hold::GuardedRelease;
use super::inner::Inner;
use crate::key::{Key, Token, Ttl};
use crate::mode::Mode;
use crate::store::{AcquireRequest, Acquired, Health, OnHeld, StoreError};

/// The key that is taken and released, once a second at most.
const PROBE: &str = "leasehold-probe";
const AGAIN: Duration = Duration::from_secs(1);
const LIFE: Duration = Duration::from_secs(1);

pub(super) async fn health(inner: &Arc<Inner>) -> Health {
    let begun = inner.now();
    // One for all who ask at the same time; who asks meanwhile waits no longer than a call may take.
    let trying = async {
        let mut last = inner.last_trial.lock().await;
        match &*last {
            Some((when, outcome)) if when.elapsed() < AGAIN => outcome.clone(),
            _ => {
                let outcome = trial(inner).await;
                *last = Some((Instant::now(), outcome.clone()));
                outcome
            }
        }
    };
    let limit = inner.settings.operation_timeout;
    let answered = match inner.ticks.within(begun, limit, trying).await {
        Ok(outcome) => outcome.map(|()| inner.now().saturating_since(begun)),
        Err(error) => Err(error),
    };
    Health::new(answered, inner.wires.warnings())
}

/// Takes and releases a lock of our own.
async fn trial(inner: &Arc<Inner>) -> Result<(), StoreError> {
    let (Ok(key), Ok(ttl)) = (Key::new(PROBE), Ttl::new(LIFE)) else { return Ok(()) };
    let token = Token::random();
    let ask = AcquireRequest { key: &key, token, ttl, on_held: OnHeld::Fail, mode: Mode::Exclusive, note: &[] };
    match acquire(inner, ask).await {
        Acquired::Unknown(error) => return Err(error),
        // Another process tries at the same time: the server answers.
        Acquired::Denied { .. } => {}
        Acquired::Granted { .. } => {
            // What is not answered is repeated in the background.
            let _ = GuardedRelease::new(inner, &key, token).run().await;
        }
    }
    Ok(())
}
