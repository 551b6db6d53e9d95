//! One try to take a share of a lock: `acquire.lua`. What the answer means is as for exclusive locks (`super::super::acquire`).

use std::sync::Arc;

use super::side_keys;
use crate::mode::Mode;
use crate::store::StoreError;
use crate::store::redis::call::{Answer, Failure, call};
use crate::store::redis::cleanup::Guard;
use crate::store::redis::inner::Inner;
use crate::store::redis::ops::moving::acquire::Try;
use crate::store::redis::script::{SHARE_ACQUIRE, ScriptArgs, millis};

/// How much of a lock is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store) struct Share {
    /// How many permits there are; 0: as many shares as there may be.
    limit: u32,
    permits: u32,
}

impl Share {
    /// `None`: all of it.
    ///
    /// # Errors
    /// More permits than there are, or none.
    pub(in crate::store) fn of(mode: Mode) -> Result<Option<Self>, StoreError> {
        match mode {
            Mode::Exclusive => Ok(None),
            Mode::Shared => Ok(Some(Self { limit: 0, permits: 1 })),
            Mode::Permits { limit, permits } if (1..=limit).contains(&permits) => Ok(Some(Self { limit, permits })),
            Mode::Permits { .. } => Err(StoreError::Config("at least one permit, and no more than there are".into())),
        }
    }
}

/// Sends the try.
pub(in crate::store) async fn send(
    inner: &Arc<Inner>,
    one: Try<'_>,
    share: Share,
    ticket: u64,
    guard: &mut Guard,
) -> Result<Answer, Failure> {
    let Try { names, token, begun, life } = one;
    let [ends, holds] = side_keys(inner, names);
    inner.shares.insert(token);
    call(inner, names, &SHARE_ACQUIRE, begun, guard, |not_after| {
        let seen = inner.highest.of(names);
        let keys = [names.lock(), names.queue(), names.fence(), names.tickets(), &ends, &holds];
        let args = ScriptArgs::of(keys).limits(not_after, seen);
        let args = args.numbers([millis(inner.config.fence_retention)]).text(&inner.config.process).shared();
        let not_after = u64::try_from(not_after).unwrap_or(0);
        let [limit, permits] = [share.limit, share.permits].map(u64::from);
        args.token(token).numbers([millis(life), limit, permits, not_after, seen, ticket])
    })
    .await
}
