//! `leasehold postgres`: the table behind `--store postgres://`.

use std::time::Duration;

use clap::{Args, Subcommand};

use crate::exit::Failure;
use crate::output::print_line;
use crate::settings::store::{self, Choice};

#[derive(Subcommand, Debug)]
pub(crate) enum PostgresCommand {
    /// Create the table and its functions, if they are missing
    Init(TableArgs),
    /// Print what `init` would run, for a migration tool; nothing is connected to
    Ddl(TableArgs),
}

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TableArgs {
    /// The server: `postgres://user@host/database`; the user must be allowed to create the table
    // Checked by hand: a refusal by clap would print the value, and a URL may hold a password.
    #[arg(long, env = "LEASEHOLD_STORE", hide_env_values = true, default_value = "postgres://localhost/postgres")]
    store: String,

    #[command(flatten)]
    store_settings: store::StoreArgs,
}

const EXAMPLES: &str = "\
Once, before the first start. The user who locks needs less than the one who creates: see the documentation of
`store::postgres` for the rights.

Examples:
  leasehold postgres init --store postgres://owner@db.internal/shop
  leasehold postgres ddl > migrations/0042_leasehold.sql";

/// Creates the table, or prints how.
///
/// # Errors
/// The store is no PostgreSQL, does not answer, or refuses the user.
pub(crate) async fn postgres(command: PostgresCommand) -> Result<(), Failure> {
    let (PostgresCommand::Init(args) | PostgresCommand::Ddl(args)) = &command;
    let Choice::Postgres(store) =
        store::choose(&args.store, Duration::ZERO, &args.store_settings).map_err(Failure::Usage)?
    else {
        return Err(Failure::Usage("--store (LEASEHOLD_STORE) must be `postgres://host/database`".to_owned()));
    };
    match command {
        PostgresCommand::Init(_) => {
            store.init().await.map_err(|why| Failure::Unavailable(why.to_string()))?;
            // It is done, whoever reads that.
            let _ = print_line("initialised");
            Ok(())
        }
        PostgresCommand::Ddl(_) => Ok(print_line(store.ddl().trim_end())?),
    }
}
