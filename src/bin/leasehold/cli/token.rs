//! `leasehold token new`: a bearer token for a client, and its entry in the server's list.
//!
//! The list gets the token's SHA-256 and nothing else: the token itself is printed once and kept nowhere. The entry is
//! put before the list's last bracket, so that the rest of the file stays as it was written. What others see of the
//! file is the old list or the new one, never a part; of two that add at once each finds the other's entry.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use leasehold::http::Access;
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::exit::Failure;
use crate::output::{notice, print_line};

#[derive(Subcommand, Debug)]
pub(crate) enum TokenCommand {
    /// Make a bearer token, add it to the server's list, and print it
    New(NewArgs),
}

/// What the token allows.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct NewArgs {
    /// Whose it is: the name in the server's log and metrics
    name: String,

    /// The list: the file of `serve --tokens-file`; made if there is none
    #[arg(long, env = "LEASEHOLD_TOKENS_FILE", value_name = "FILE")]
    tokens_file: PathBuf,

    /// What it allows, with commas between them
    #[arg(long, value_name = "RIGHTS", default_value = "acquire,read", value_delimiter = ',')]
    rights: Vec<Right>,

    /// The beginnings of the keys that it may use, with commas between them [default: all keys]
    #[arg(long, value_name = "PREFIXES", value_delimiter = ',')]
    namespaces: Option<Vec<String>>,
}

/// What a token may do.
#[derive(Clone, Copy, Debug, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
enum Right {
    /// Acquire, keep and release locks
    Acquire,
    /// See locks, events and totals
    Read,
    /// Take a lock from whoever holds it
    Force,
}

const EXAMPLES: &str = "\
The list keeps the token's SHA-256 alone, so what is printed cannot be printed again. A server that runs sees the new
list by itself within seconds, or at once on SIGHUP.

Examples:
  (umask 077; leasehold token new jobs --tokens-file tokens.json --namespaces cron: > jobs.token)
  leasehold token new oncall --tokens-file tokens.json --rights read,force";

/// Makes a token.
///
/// # Errors
/// `Usage` if the entry or the list makes no sense, or the file cannot be read or written; the list is as it was then.
pub(crate) fn token(TokenCommand::New(args): TokenCommand) -> Result<(), Failure> {
    let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let entry = entry(&args, &secret);
    let path = &args.tokens_file;
    let refused = |why: String| Failure::Usage(format!("{}: {why}", path.display()));
    let failed = |why: io::Error| refused(why.to_string());
    let mut list = List::open(path).map_err(failed)?;
    let text = list.with(&entry).map_err(refused)?;
    let new = list.beside(&text).map_err(failed)?;
    // Before the list knows it: a token that nobody has seen would stay in there.
    if let Err(why) = print_line(&secret) {
        drop(new);
        return Err(why);
    }
    new.replace(&list.path).map_err(failed)?;
    notice(format_args!("{:?} is in {}", args.name, path.display()));
    Ok(())
}

/// The line of the list.
fn entry(args: &NewArgs, secret: &str) -> String {
    let digest: String = Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut entry = json!({ "name": args.name, "token_sha256": digest, "rights": args.rights });
    if let Some(namespaces) = &args.namespaces {
        entry["namespaces"] = json!(namespaces);
    }
    entry.to_string()
}

/// The list as it is, locked against others who add to it.
struct List {
    file: File,
    path: PathBuf,
    was_made: bool,
}

impl List {
    fn open(path: &Path) -> io::Result<Self> {
        loop {
            let was_made = !path.exists();
            let mut options = OpenOptions::new();
            options.read(true).append(true).create(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let file = options.open(path)?;
            file.lock()?;
            // Who had the lock before has put another file in its place.
            if is_at(&file, path) {
                // A link stays one: what it leads to is replaced.
                return Ok(Self { file, path: fs::canonicalize(path)?, was_made });
            }
        }
    }

    /// Its text with another entry. The errors are the server's own.
    fn with(&mut self, entry: &str) -> Result<String, String> {
        let mut text = String::new();
        self.file.read_to_string(&mut text).map_err(|why| why.to_string())?;
        let has_none = ["", "[]"].contains(&text.split_whitespace().collect::<String>().as_str());
        let text = if has_none {
            format!("[\n  {entry}\n]\n")
        } else {
            let _ = Access::from_json(&text).map_err(|why| why.to_string())?;
            let before = text.trim_end().strip_suffix(']').unwrap_or(&text).trim_end();
            format!("{before},\n  {entry}\n]\n")
        };
        let _ = Access::from_json(&text).map_err(|why| why.to_string())?;
        Ok(text)
    }

    /// A file with this text beside it, which has its rights and its owner.
    fn beside(&self, text: &str) -> io::Result<NewList> {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{}", Uuid::new_v4().simple()));
        let new = NewList { path: PathBuf::from(name) };
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&new.path)?;
        let about = self.file.metadata()?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let ours = file.metadata()?;
            if (ours.uid(), ours.gid()) != (about.uid(), about.gid()) {
                std::os::unix::fs::fchown(&file, Some(about.uid()), Some(about.gid()))?;
            }
        }
        file.set_permissions(about.permissions())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(new)
    }
}

impl Drop for List {
    /// An empty file is no list; one that was made for nothing goes. It is locked still.
    fn drop(&mut self) {
        if self.was_made && self.file.metadata().is_ok_and(|about| about.len() == 0) && is_at(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A list that has not taken its place yet; it goes if it never does.
struct NewList {
    path: PathBuf,
}

impl NewList {
    fn replace(self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)
    }
}

impl Drop for NewList {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether the path leads to this file.
fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let number = |about: fs::Metadata| (about.dev(), about.ino());
        file.metadata().ok().map(number) == fs::metadata(path).ok().map(number)
    }
    #[cfg(not(unix))]
    {
        let _ = (file, path);
        true
    }
}
