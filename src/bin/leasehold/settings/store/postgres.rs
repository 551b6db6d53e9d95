//! The store in a table of PostgreSQL.

use std::time::Duration;

use leasehold::store::postgres::{PostgresBuilder, PostgresStore};

use super::{Choice, StoreArgs, given, refusal};

/// What the URL of a PostgreSQL begins with.
pub(super) fn is_named_by(name: &str) -> bool {
    name.starts_with("postgres://") || name.starts_with("postgresql://")
}

pub(super) fn choose(url: &str, _: Duration, args: &StoreArgs) -> Result<Choice, String> {
    if args.reuses_claims() {
        return Err("--claim-reuse: every lock is asked of PostgreSQL; it goes with `redis`".to_owned());
    }
    let builder = given!(PostgresStore::builder(url);
        schema(args.store_schema.as_deref()),
        table(args.store_table.as_deref()),
        listen_url(args.store_listen_url.as_deref()),
        operation_timeout(args.store_timeout),
        connect_timeout(args.store_connect_timeout),
        fence_retention(args.store_fence_retention),
        root_certificate(args.root_certificate()?),
    );
    let builder: PostgresBuilder = if args.store_listen == Some(false) { builder.listen(false) } else { builder };
    builder.on_warning(|warning| tracing::warn!(%warning, "store")).build().map(Choice::Postgres).map_err(refusal)
}
