//! The HTTP status of each [`LockError`].

use crate::LockError;

impl LockError {
    /// The HTTP status that a server answers it with.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        match self {
            Self::InvalidKey(_) | Self::InvalidTtl(_) | Self::InvalidOption { .. } => 422,
            Self::Held | Self::Timeout { .. } => 423,
            Self::NotHeld | Self::Lost(_) | Self::TokenReused | Self::WrongMode(_) | Self::Deadlock { .. } => 409,
            Self::SessionEnded => 410,
            Self::QueueFull | Self::TooManyKeys | Self::TooManyHolders | Self::TooManyLocks => 429,
            Self::TooManySessions | Self::TooManyWatchers | Self::LockQuota | Self::SessionQuota => 429,
            Self::Forked | Self::StoreUnavailable | Self::ShuttingDown => 503,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Key, KeyFault, Loss, ModeConflict, TtlFault, WaitEdge};

    #[test]
    fn every_error_has_the_status_of_the_contract() {
        let edge = WaitEdge { owner: "a".into(), key: Key::new("k").unwrap() };
        let rows: Vec<(LockError, u16)> = vec![
            (KeyFault::Empty.into(), 422),
            (TtlFault::Zero.into(), 422),
            (LockError::InvalidOption { option: "o", why: "w" }, 422),
            (LockError::Held, 423),
            (LockError::Timeout { waited: Duration::ZERO }, 423),
            (LockError::NotHeld, 409),
            (LockError::Lost(Loss::Expired), 409),
            (LockError::TokenReused, 409),
            (ModeConflict::Permits.into(), 409),
            (LockError::SessionEnded, 410),
            (LockError::QueueFull, 429),
            (LockError::TooManyKeys, 429),
            (LockError::TooManyHolders, 429),
            (LockError::TooManyLocks, 429),
            (LockError::TooManySessions, 429),
            (LockError::LockQuota, 429),
            (LockError::SessionQuota, 429),
            (LockError::TooManyWatchers, 429),
            (LockError::Forked, 503),
            (LockError::Deadlock { cycle: [edge].into() }, 409),
            (LockError::StoreUnavailable, 503),
            (LockError::ShuttingDown, 503),
        ];
        for (error, status) in rows {
            assert_eq!(error.http_status(), status, "{error}");
            // What a proxy or a client of HTTP would try again, and what the caller has to change first.
            assert_eq!(error.is_contention(), status == 423, "{error}");
            let own_fault = {
                use LockError::{Forked, LockQuota, SessionQuota, ShuttingDown, TooManyLocks};
                matches!(error, TooManyLocks | LockQuota | SessionQuota | ShuttingDown | Forked)
            };
            assert_eq!(error.is_retryable(), [423, 429, 503].contains(&status) && !own_fault, "{error}");
        }
    }
}
