//! Making the table: [`init`].

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::fault::{Fault, unconnected};
use super::inner::Inner;
use super::statements::ddl;
use crate::store::StoreError;

/// Makes the table and its functions, unless they are there.
pub(super) async fn init(inner: &Inner) -> Result<(), StoreError> {
    let connecting = tokio::time::timeout(inner.settings.connect_timeout, inner.settings.connect());
    let connected = connecting.await.map_err(|_| StoreError::Timeout)?;
    let (client, connection) = connected.map_err(|error| unconnected(&error))?;
    let work = std::pin::pin!(make(inner, &client));
    // Whichever ends first: without the connection nothing is answered.
    match futures_util::future::select(work, std::pin::pin!(connection)).await {
        futures_util::future::Either::Left((made, _)) => made,
        futures_util::future::Either::Right((ended, _)) => Err(match ended {
            Ok(()) => StoreError::Io("it was closed".into()),
            Err(error) => Fault::of(&error).error,
        }),
    }
}

async fn make(inner: &Inner, client: &Client) -> Result<(), StoreError> {
    let names = &inner.settings.names;
    let there = |what: &'static str, name: String| async move {
        let rows = client.query_typed(what, &[(&name, Type::TEXT)]).await.map_err(|error| Fault::of(&error).error)?;
        rows.first().and_then(|row| row.try_get::<_, bool>(0).ok()).ok_or_else(|| Fault::nonsense().error)
    };
    // The last function: whoever may not create anything can still ask.
    if there("SELECT to_regproc($1) IS NOT NULL", names.function("sweep")).await? {
        return Ok(());
    }
    let mut text = format!("SELECT pg_advisory_xact_lock({});\n", names.advisory_lock());
    if !there("SELECT to_regnamespace($1) IS NOT NULL", names.schema()).await? {
        text += &format!("CREATE SCHEMA IF NOT EXISTS {};\n", names.schema());
    }
    text += &ddl(names);
    // One message, so one transaction: all of it is made, or nothing.
    client.batch_execute(&text).await.map_err(|error| Fault::of(&error).error)
}
