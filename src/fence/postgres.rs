//! The check for resources in PostgreSQL: [`PostgresGuard`] and its statement.
//!
//! A row for each resource remembers the highest fence. It is compared and raised in the transaction that writes the
//! resource, and stays locked until that ends: so whoever comes with a lower fence, at whatever moment, is refused. It needs
//! nothing of the lock's own store.

use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use super::StaleFence;
use crate::key::FencingToken;

/// The statement that [`PostgresGuard`] runs with its usual table, for other libraries and languages: in the transaction
/// that writes, and before that.
///
/// `$1`: the resource. `$2`: the fence. It answers one row if the fence passes, and none if a higher one was seen.
pub const POSTGRES_GUARD: &str = "INSERT INTO leasehold_fences AS seen (resource, fence) VALUES ($1, $2) \
    ON CONFLICT (resource) DO UPDATE SET fence = excluded.fence WHERE seen.fence <= excluded.fence RETURNING fence";

/// What creates the table that [`POSTGRES_GUARD`] uses.
pub const POSTGRES_GUARD_DDL: &str = "CREATE TABLE IF NOT EXISTS leasehold_fences \
    (resource text COLLATE \"C\" PRIMARY KEY, fence bigint NOT NULL) WITH (fillfactor = 50)";

const SEEN: &str = "SELECT fence FROM leasehold_fences WHERE resource = $1";

/// Lets a transaction go on under a fence, unless a higher one has been there.
///
/// All who write the resource have to pass it. Rights: `SELECT`, `INSERT` and `UPDATE` on the table, which the
/// `search_path` has to find. A row that is deleted forgets its fence: keep it for as long as a holder may sleep.
///
/// ```no_run
/// use leasehold::fence::{PostgresGuard, PostgresGuardError};
///
/// # async fn write(lock: leasehold::Lock, client: &mut tokio_postgres::Client) -> Result<(), PostgresGuardError> {
/// let Some(fence) = lock.fencing_token() else { return Ok(()) };
/// let transaction = client.transaction().await?;
/// match PostgresGuard.check(&transaction, "stock:7", fence).await {
///     // The transaction is rolled back when it is dropped.
///     Err(PostgresGuardError::Stale(stale)) => println!("somebody else has gone on: {stale}"),
///     passed => {
///         passed?;
///         transaction.execute("UPDATE stock SET amount = 41 WHERE id = 7", &[]).await?;
///         transaction.commit().await?;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct PostgresGuard;

/// Why a transaction must not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresGuardError {
    /// A later holder has been there. The lock is lost: take it anew.
    #[error(transparent)]
    Stale(#[from] StaleFence),
    /// PostgreSQL refused, or did not answer. What comes of the transaction is for it to say.
    #[error("the resource's store failed")]
    Postgres(#[from] tokio_postgres::Error),
}

impl PostgresGuard {
    /// Raises the fence of `resource` to `fence`, unless it is higher. The row stays locked until the transaction ends:
    /// other holders wait for that, or are refused after it. To be asked before anything is written.
    ///
    /// # Errors
    /// [`PostgresGuardError::Stale`] if it is higher: roll the transaction back. [`PostgresGuardError::Postgres`] if the
    /// statement failed; the transaction has failed, too.
    ///
    /// # Cancel safety
    /// Dropped before its end, the fence may have been raised in the transaction, which is as good as without it.
    pub async fn check(
        &self,
        transaction: &Transaction<'_>,
        resource: &str,
        fence: FencingToken,
    ) -> Result<(), PostgresGuardError> {
        // Fences are microseconds since 1970: this one is of no clock.
        let number = i64::try_from(fence.get()).unwrap_or(i64::MAX);
        let passed = transaction.query_typed(POSTGRES_GUARD, &[(&resource, Type::TEXT), (&number, Type::INT8)]).await?;
        if !passed.is_empty() {
            return Ok(());
        }
        let seen = transaction.query_typed(SEEN, &[(&resource, Type::TEXT)]).await?;
        let seen = seen.first().map(|row| row.try_get::<_, i64>(0)).transpose()?;
        let seen = seen.and_then(|seen| u64::try_from(seen).ok()).unwrap_or(u64::MAX);
        Err(StaleFence::refused(fence, FencingToken::at_least_one(seen)).into())
    }
}
