//! What is printed about a wait while it goes on: why it does not come to an end, and on a terminal who is in the way.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use crate::output;
use crate::print::{plain, span};

/// After this time a failure that goes on is printed again.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// How often the line on a terminal is drawn anew.
const REDRAW_EVERY: Duration = Duration::from_secs(2);

/// How much is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verbosity {
    Quiet,
    Normal,
}

/// The notices of one wait, or of several in a row.
pub(crate) struct Progress {
    verbosity: Verbosity,
    last_failure: Cell<Option<Instant>>,
    /// The key that is being waited for.
    key: RefCell<String>,
}

/// What is in the way of a wait.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct InTheWay {
    pub(crate) owner: Option<String>,
    /// For how long it has been held, if that is known.
    pub(crate) age: Option<Duration>,
    /// How many waiters are ahead of this one, if that is known.
    pub(crate) before: Option<usize>,
}

impl Progress {
    pub(crate) fn new(verbosity: Verbosity) -> Self {
        Self { verbosity, last_failure: Cell::new(None), key: RefCell::default() }
    }

    /// This key is being waited for from now on.
    pub(crate) fn begin(&self, key: &str) {
        self.key.replace(key.to_owned());
    }

    /// Tells that a wait goes on although something failed: at once, then once a minute.
    pub(crate) fn failing(&self, key: &str, why: &dyn Display) {
        let is_news = self.last_failure.get().is_none_or(|last| last.elapsed() >= AGAIN_AFTER);
        if self.verbosity == Verbosity::Normal && is_news {
            self.last_failure.set(Some(Instant::now()));
            output::notice(format_args!("{}: still waiting: {why}", plain(key)));
        }
    }

    /// Keeps a line about a wait up to date, on a terminal whose foreground this process is in. Never ends.
    ///
    /// # Cancel safety
    /// Dropping it leaves the line; [`output::clear_line`] takes it away.
    pub(crate) async fn show(&self, look: impl AsyncFn(&str) -> Option<InTheWay>) {
        if self.verbosity == Verbosity::Quiet || !io::stderr().is_terminal() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(REDRAW_EVERY).await;
            if in_foreground() {
                let key = self.key.borrow().clone();
                let found = look(&key).await;
                output::line(&line(&key, found.as_ref()), columns());
            }
        }
    }
}

fn line(key: &str, found: Option<&InTheWay>) -> String {
    let mut line = format!("waiting for {}", plain(key));
    let Some(InTheWay { owner, age, before }) = found else { return line };
    line.push_str(", held");
    if let Some(owner) = owner {
        line.push_str(&format!(" by {}", plain(owner)));
    }
    if let Some(age) = age.filter(|age| *age >= Duration::from_secs(1)) {
        line.push_str(&format!(" for {}", span(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))));
    }
    if let Some(before) = before {
        line.push_str(&format!(", {before} before you"));
    }
    line
}

/// The width of the terminal; 80 if it does not tell.
fn columns() -> usize {
    terminal_size::terminal_size_of(io::stderr()).map_or(80, |(width, _)| usize::from(width.0))
}

#[cfg(unix)]
fn in_foreground() -> bool {
    nix::unistd::tcgetpgrp(io::stderr()).is_ok_and(|group| group == nix::unistd::getpgrp())
}

#[cfg(not(unix))]
fn in_foreground() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_is_known() {
        let known = InTheWay { owner: Some("ba\u{7}ck".into()), age: Some(Duration::from_secs(180)), before: Some(2) };
        assert_eq!(line("k", Some(&known)), "waiting for k, held by ba\\u{7}ck for 3m, 2 before you");
        assert_eq!(line("k", Some(&InTheWay::default())), "waiting for k, held");
        assert_eq!(line("k", None), "waiting for k");
    }
}
