//! `leasehold health`: whether a server is ready, for images that have no other client.

use clap::Args;
use serde_json::{Map, Value};

use crate::client::{Client, ServerArgs};
use crate::exit::Failure;
use crate::output::print_line;

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct HealthArgs {
    /// Only whether it lives, also while its store does not answer or it shuts down
    #[arg(long)]
    live: bool,

    #[command(flatten)]
    server: ServerArgs,
}

const EXAMPLES: &str = "\
Exit codes: 0 it is ready, or starting; 69 it is not, or cannot be reached. No token is needed.

Examples:
  HEALTHCHECK CMD [\"leasehold\", \"health\"]
  leasehold health --live --server http://locks:7420";

/// Prints `ready`, `starting` or `ok`.
///
/// # Errors
/// The server cannot be reached, or is not ready.
pub(crate) async fn health(args: HealthArgs) -> Result<(), Failure> {
    let client = Client::new(&args.server)?;
    let text = client.get(if args.live { "/healthz" } else { "/readyz" }, &[]).await?;
    let answer: Map<String, Value> = client.read(&text)?;
    print_line(answer.get("status").and_then(Value::as_str).unwrap_or("ready"))
}
