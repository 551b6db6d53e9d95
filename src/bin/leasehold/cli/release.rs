//! `leasehold release`: the end of a lock, by its token. And how a token is given.

use std::io::Read;
use std::str::FromStr;

use clap::Args;
use leasehold::Token;
use serde_json::json;

use crate::client::replies::ReleaseReply;
use crate::client::{ANSWER_TIMEOUT, Client, ServerArgs};
use crate::exit::Failure;
use crate::output::print_line;

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReleaseArgs {
    /// Which lock
    key: String,

    #[command(flatten)]
    token: TokenArgs,

    /// Print what the server answers
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: ServerArgs,
}

const EXAMPLES: &str = "\
Done twice it does no harm: it prints `released`, or `already gone` where there was nothing to release any more.

Examples:
  LEASEHOLD_LOCK_TOKEN=$token leasehold release order:42
  leasehold release order:42 - < token-file";

/// The proof of holding a lock.
#[derive(Args, Debug)]
pub(crate) struct TokenArgs {
    /// The token that the acquire printed; `-` reads it from stdin. Others can see it in the list of processes, unlike
    /// LEASEHOLD_LOCK_TOKEN
    #[arg(value_name = "TOKEN", env = "LEASEHOLD_LOCK_TOKEN", hide_env_values = true)]
    token: String,
}

impl TokenArgs {
    /// # Errors
    /// `Usage` if it is no token. It is not repeated: it may almost be one.
    pub(crate) fn read(&self) -> Result<Token, Failure> {
        let wrong = |why: &str| Failure::Usage(format!("the token (LEASEHOLD_LOCK_TOKEN): {why}"));
        let mut text = self.token.clone();
        if text == "-" {
            text.clear();
            std::io::stdin().lock().read_to_string(&mut text).map_err(|why| wrong(&why.to_string()))?;
        }
        Token::from_str(text.trim()).map_err(|_| wrong("it is not a UUID"))
    }
}

/// Releases a lock.
///
/// # Errors
/// Somebody else holds it, or whether it was released is not known.
pub(crate) async fn release(args: ReleaseArgs) -> Result<(), Failure> {
    let client = Client::new(&args.server)?;
    let body = json!({ "key": args.key, "token": args.token.read()?.to_string() });
    let text = client.post("/release", &body, ANSWER_TIMEOUT).await?;
    if args.json {
        return print_line(&text);
    }
    let ReleaseReply { outcome } = client.read(&text)?;
    // It is done, whoever reads that.
    let _ = print_line(&outcome.replace('_', " "));
    Ok(())
}
