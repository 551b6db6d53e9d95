//! The server's file of settings: TOML, made into flags, and printed as a file that says the same.

use clap::{CommandFactory, FromArgMatches, Parser};

#[path = "../../../src/bin/leasehold/settings/mod.rs"]
#[allow(dead_code, reason = "the properties do not need all of it")]
pub(super) mod room;

use room::{ServeArgs, file, print};

/// The settings as the verb `serve` has them.
#[derive(Debug, Parser)]
#[command(name = "serve")]
pub(super) struct Settings {
    #[command(flatten)]
    pub(super) serve: ServeArgs,
}

impl Settings {
    /// Reads flags, as they stand in a file.
    pub(super) fn read(flags: impl IntoIterator<Item = impl Into<std::ffi::OsString>>) -> Result<Self, String> {
        let words = ["serve".into()].into_iter().chain(flags.into_iter().map(Into::into));
        let matches = Self::command().try_get_matches_from(words).map_err(|why| file::refusal(&why))?;
        Self::from_arg_matches(&matches).map_err(|why| file::refusal(&why))
    }

    /// Reads a file: the settings, and the flags that it stands for.
    fn read_file(text: &str) -> Result<(Self, Vec<std::ffi::OsString>), String> {
        let flags = file::flags(text, &Self::command(), |_| false)?;
        Ok((Self::read(flags.clone())?, flags))
    }
}

pub(super) fn hold(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Settings::read_file(text) {
        Ok((settings, flags)) => {
            let none = Settings::command().try_get_matches_from(["serve"]).expect("there are defaults");
            let printed = print::printed(&Settings::command(), &none, &flags);
            assert!(
                !settings.serve.store.contains('@') || !printed.contains(&settings.serve.store),
                "it shows a password"
            );
            let (mut again, _) = Settings::read_file(&printed).unwrap_or_else(|why| panic!("{why}: {printed}"));
            if settings.serve.store.contains('@') {
                again.serve.store.clone_from(&settings.serve.store);
            }
            let (mine, theirs) = (&mut again.serve.store_settings, &settings.serve.store_settings);
            mine.store_sentinel_password.clone_from(&theirs.store_sentinel_password);
            assert_eq!(format!("{again:?}"), format!("{settings:?}"), "it was printed as\n{printed}");
        }
        Err(why) => {
            // It calls settings by name, and quotes values but that of a store.
            let is_store = |line: &str| line.split_once('=').is_some_and(|(name, _)| name.trim() == "store");
            let quoted = text.lines().any(|line| line.contains(super::SECRET) && !is_store(line));
            assert!(!why.is_empty() && !why.chars().any(char::is_control), "no line: {why:?}");
            assert!(quoted || !why.contains(super::SECRET), "it tells a secret: {why:?}");
        }
    }
}
