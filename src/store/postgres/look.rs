//! What is only read: who holds a key, and which keys are held. No token leaves this file.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::call::rows;
use super::fault::Fault;
use super::hold;
use super::inner::{Inner, mode_of};
use crate::key::{Key, Token};
use crate::mode::Mode;
use crate::store::{Extended, HoldInfo, Holder, KeyState, ScanPage, Scanned, StoreError};

/// So many holders are listed at most.
const MOST: usize = 1000;
/// So many rows are looked at for one page: most may be idle.
const ROWS: i64 = 4000;

/// Everybody who holds a key, whoever ends first.
pub(super) async fn holders(inner: &Arc<Inner>, key: &Key, token: Option<Token>) -> Result<Vec<HoldInfo>, StoreError> {
    let mut holders = all(inner, key, token).await?;
    holders.sort_by_key(|hold| hold.ends_in);
    holders.truncate(MOST);
    Ok(holders)
}

/// Everybody who holds a key, in the order in which they were granted.
async fn all(inner: &Arc<Inner>, key: &Key, token: Option<Token>) -> Result<Vec<HoldInfo>, StoreError> {
    let key = key.as_str();
    let rows = rows(inner, inner.statements.look(), &[(&key, Type::TEXT)]).await?;
    rows.first().map_or(Ok(Vec::new()), |row| read(row, token).ok_or_else(|| Fault::nonsense().error))
}

fn read(row: &Row, token: Option<Token>) -> Option<Vec<HoldInfo>> {
    let mode: i64 = row.try_get(0).ok()?;
    let Some(tokens): Option<Vec<Uuid>> = row.try_get(1).ok()? else { return Some(Vec::new()) };
    let [fences, ends, permits] = [2, 3, 4].map(|at| row.try_get::<_, Vec<i64>>(at).ok());
    let (fences, ends, permits, now) = (fences?, ends?, permits?, row.try_get::<_, i64>(5).ok()?);
    let mut holders = Vec::with_capacity(tokens.len());
    for (at, holder) in tokens.into_iter().enumerate() {
        let (fence, ends, permits) = (*fences.get(at)?, *ends.get(at)?, *permits.get(at)?);
        let by = if token.is_some_and(|token| token.as_uuid() == holder) { Holder::Ours } else { Holder::Other };
        if let Some(left) = left(ends, now) {
            holders.push(HoldInfo::new(by, mode_of(mode, permits)?, Some(left), u64::try_from(fence).ok()));
        }
    }
    Some(holders)
}

/// How long it is until then; `None`: it is over.
fn left(ends: i64, now: i64) -> Option<Duration> {
    u64::try_from(ends.saturating_sub(now)).ok().filter(|left| *left > 0).map(Duration::from_micros)
}

/// Who holds a key: the token, if that does; one alone; or several.
pub(super) async fn look(inner: &Arc<Inner>, key: &Key, token: Option<Token>) -> Result<KeyState, StoreError> {
    let holders = all(inner, key, token).await?;
    let Some(last) = holders.last() else { return Ok(KeyState::Free) };
    Ok(match holders.iter().find(|hold| hold.by == Holder::Ours || hold.mode == Mode::Exclusive) {
        Some(hold) => KeyState::Held { by: hold.by, ends_in: hold.ends_in, fence: hold.fence },
        None => {
            let ends_in = holders.iter().filter_map(|hold| hold.ends_in).max();
            KeyState::Held { by: Holder::Sharing, ends_in, fence: last.fence }
        }
    })
}

/// For how long a token still holds its key.
pub(super) async fn confirm(inner: &Arc<Inner>, key: &Key, token: Token) -> Extended {
    let begun = inner.now();
    match look(inner, key, Some(token)).await {
        Ok(KeyState::Held { by: Holder::Ours, ends_in: Some(left), .. }) => hold::left(inner, begun, left),
        Ok(_) => Extended::Lost,
        Err(error) => Extended::Unknown(error),
    }
}

/// Some of the keys that are held, in their order: the cursor is the last key that was looked at.
pub(super) async fn scan(
    inner: &Arc<Inner>,
    prefix: &str,
    cursor: Option<&str>,
    limit: usize,
) -> Result<ScanPage, StoreError> {
    let rows_looked_at = i64::try_from(limit).unwrap_or(ROWS).clamp(1, ROWS);
    let after = cursor.unwrap_or_default();
    if prefix.contains('\0') || after.contains('\0') {
        return Err(StoreError::Config("the prefix or the cursor is none of this store's".into()));
    }
    let params: &[_] = &[(&after as _, Type::TEXT), (&prefix as _, Type::TEXT), (&rows_looked_at as _, Type::INT8)];
    let rows = rows(inner, inner.statements.scan(), params).await?;
    let is_full = i64::try_from(rows.len()).is_ok_and(|count| count >= rows_looked_at);
    let (mut locks, mut last) = (Vec::new(), None);
    for row in rows {
        let key: String = row.try_get(0).map_err(|_| Fault::nonsense().error)?;
        if let (Ok(key), Some((ends_in, by))) = (Key::new(&key), held(&row)) {
            locks.push(Scanned::new(key, Some(ends_in)).held_by(by));
        }
        last = Some(key);
    }
    Ok(ScanPage::new(locks, last.filter(|_| is_full)))
}

/// How long the key of a row is held, and by whom; `None`: nobody holds it.
fn held(row: &Row) -> Option<(Duration, Holder)> {
    let (mode, ends, now) = (row.try_get(1).ok()?, row.try_get(3).ok()?, row.try_get(4).ok()?);
    let by = if mode_of(mode, 1)? == Mode::Exclusive { Holder::Other } else { Holder::Sharing };
    Some((left(ends, now)?, by))
}
