//! `leasehold redlock`: what an operator does to the servers behind `--store redlock:`.

use std::time::Duration;

use clap::{Args, Subcommand};
use leasehold::store::Store;

use crate::exit::Failure;
use crate::output::print_line;
use crate::settings::store::{self, Choice};

#[derive(Subcommand, Debug)]
pub(crate) enum RedlockCommand {
    /// Let new servers vote at once: without it they keep silent for --redlock-max-ttl first
    Init(InitArgs),
}

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InitArgs {
    /// The servers: `redlock:redis://a,redis://b,redis://c`
    // Checked by hand: a refusal by clap would print the value, and a URL may hold a password.
    #[arg(long, env = "LEASEHOLD_STORE", hide_env_values = true)]
    store: String,

    /// What the lock servers are given as their --redlock-max-ttl
    #[arg(long, env = "LEASEHOLD_REDLOCK_MAX_TTL", value_name = "TIME", default_value = "60s", value_parser = crate::settings::time)]
    redlock_max_ttl: Duration,

    #[command(flatten)]
    store_settings: store::StoreArgs,

    /// Say that no lock is held on any of them: one that is held could be granted a second time
    #[arg(long)]
    nothing_is_held: bool,
}

const EXAMPLES: &str = "\
Once, before the first start of a new set of servers, or to give a set another --redlock-max-ttl while all lock servers
are stopped. Never for servers that were in use: what they have forgotten may be held still. All of them must answer; it
can be run again.

Examples:
  leasehold redlock init --store redlock:redis://a,redis://b,redis://c --nothing-is-held";

/// Ends the quarantine of all servers.
///
/// # Errors
/// The store is no quorum, nobody said that nothing is held, or a server does not answer.
pub(crate) async fn redlock(RedlockCommand::Init(args): RedlockCommand) -> Result<(), Failure> {
    let Choice::Redlock(store) =
        store::choose(&args.store, args.redlock_max_ttl, &args.store_settings).map_err(Failure::Usage)?
    else {
        return Err(Failure::Usage(
            "--store (LEASEHOLD_STORE) must be `redlock:redis://a,redis://b,redis://c`".to_owned(),
        ));
    };
    if !args.nothing_is_held {
        let why = "redlock init is for servers on which no lock is held: say --nothing-is-held";
        return Err(Failure::Usage(why.to_owned()));
    }
    let initialising = async {
        store.start().await?;
        store.initialise().await
    };
    let initialised = initialising.await;
    store.stop().await;
    initialised.map_err(|why| Failure::Unavailable(why.to_string()))?;
    // It is done, whoever reads that.
    let _ = print_line("initialised");
    Ok(())
}
