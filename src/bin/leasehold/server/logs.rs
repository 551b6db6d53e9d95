//! Log lines, on stderr. At `info` a request writes none.
//!
//! A thread of its own writes them: a terminal or a pipe that nobody reads holds up no request. What cannot be written,
//! or comes faster than it can be, is dropped and counted. So are the words of a panic, which would be written by the
//! thread that panics.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::settings::LogFormat;
use crate::writer::{Dropped, Writer};

/// What is written unless `RUST_LOG` says otherwise. actix's own start and stop say nothing that we do not.
const DEFAULT_FILTER: &str = "info";
/// What nobody wants who does not ask for it: what these say of connections is said by `bad_clients`, with the address.
const QUIET: [&str; 2] = ["actix_server=warn", "actix_http=off"];
/// How many lines may wait for being written.
const WAITING_LINES: usize = 4096;
/// How long the end of the process waits for the last of them.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Lines that came while as many waited as may.
static DROPPED_FULL: AtomicU64 = AtomicU64::new(0);
/// Lines that the system did not take.
static DROPPED_FAILED: AtomicU64 = AtomicU64::new(0);

/// How many lines were dropped, by reason.
pub(crate) fn dropped() -> [(&'static str, u64); 2] {
    [("full", &DROPPED_FULL), ("failed", &DROPPED_FAILED)]
        .map(|(reason, count)| (reason, count.load(Ordering::Relaxed)))
}

/// The way to the writing thread.
#[derive(Clone)]
pub(crate) struct Log(Writer);

impl Log {
    /// A thread that writes to `to` whatever comes, until the process ends.
    fn writing(mut to: impl Write + Send + 'static) -> Self {
        let write = move |line: &[u8]| {
            if to.write_all(line).is_err() {
                DROPPED_FAILED.fetch_add(1, Ordering::Relaxed);
            }
        };
        Self(Writer::start("leasehold-log", WAITING_LINES, || write))
    }

    /// Waits until what was logged is written, but not for long: a reader who does not read does not hold up the end.
    pub(crate) fn flush(&self) {
        self.0.flush(FLUSH_TIMEOUT);
    }
}

/// Each line comes by one call of `write`, and is taken whole.
impl Write for &Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.0.write(line.to_vec()) {
            Ok(()) => {}
            Err(Dropped::Full) => drop(DROPPED_FULL.fetch_add(1, Ordering::Relaxed)),
            Err(Dropped::Failed) => drop(DROPPED_FAILED.fetch_add(1, Ordering::Relaxed)),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

/// Starts logging.
pub(crate) fn start(format: LogFormat) -> Log {
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let filter = QUIET.iter().fold(filter, |filter, quiet| match (quiet.split_once('='), quiet.parse()) {
        (Some((library, _)), Ok(directive)) if !asked.contains(library) => filter.add_directive(directive),
        _ => filter,
    });
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let log = Log::writing(io::stderr());
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(log.clone());
    // Somebody has set a logger already only in tests of this binary.
    let _ = match format {
        LogFormat::Pretty => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        tracing::error!(thread = thread.name().unwrap_or("?"), "{panic}");
    }));
    log
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, sync_channel};

    use super::*;

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Takes nothing for as long as its other end is there.
    struct Stuck(Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_cannot_be_written_is_dropped_and_counted_and_holds_nobody_up() {
        let [(_, full), (_, failed)] = dropped();
        let broken = Log::writing(Broken);
        for _ in 0..3 {
            (&broken).write_all(b"a line\n").unwrap();
        }
        broken.flush();
        assert_eq!(dropped()[1], ("failed", failed + 3));
        let (reader, stuck) = sync_channel(0);
        let stuck = Log::writing(Stuck(stuck));
        // One may be with the writer.
        for _ in 0..WAITING_LINES + 11 {
            (&stuck).write_all(b"a line\n").unwrap();
        }
        stuck.flush();
        assert!(dropped()[0].1 >= full + 10, "{:?}", dropped());
        drop(reader);
    }
}
