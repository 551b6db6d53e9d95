//! The lock server and its command line.
//!
//! `leasehold` alone is `leasehold serve`.

mod args;
mod bounds;
mod exit;
mod logs;
mod metrics;
mod patience;
mod serve;
mod signals;
mod sockets;
mod store;
mod tls;
mod tokens;

use std::process::ExitCode;

use args::{Cli, Command};
use clap::Parser;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(why) => {
            // Help and version come here as well. There is nobody to tell if they cannot be printed.
            let _ = why.print();
            return if why.use_stderr() { exit::USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    let Command::Serve(args) = cli.into_command();
    match serve::run(args) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("leasehold: {why}");
            why.code().into()
        }
    }
}
