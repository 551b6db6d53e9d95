//! Log lines, on stderr. At `info` a request writes none.
//!
//! A thread of its own writes them: a terminal or a pipe that nobody reads holds up no request. What cannot be written,
//! or comes faster than it can be, is dropped and counted. So are the words of a panic, which would be written by the
//! thread that panics.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::settings::LogFormat;

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

/// What the writing thread is sent.
enum Message {
    Line(Vec<u8>),
    /// To be answered when all before it is written.
    Flush(SyncSender<()>),
}

/// The way to the writing thread.
#[derive(Clone)]
pub(crate) struct Log(SyncSender<Message>);

impl Log {
    /// A thread that writes to `to` whatever comes, until the process ends.
    fn writing(to: impl Write + Send + 'static) -> Self {
        let (sender, receiver) = sync_channel(WAITING_LINES);
        // Without a thread all lines are dropped, which is counted.
        let _ = std::thread::Builder::new().name("leasehold-log".to_owned()).spawn(move || write(&receiver, to));
        Self(sender)
    }

    fn send(&self, line: &[u8]) {
        match self.0.try_send(Message::Line(line.to_vec())) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => drop(DROPPED_FULL.fetch_add(1, Ordering::Relaxed)),
            Err(TrySendError::Disconnected(_)) => drop(DROPPED_FAILED.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// Waits until what was logged is written, but not for long.
    pub(crate) fn flush(&self) {
        let (sender, receiver) = sync_channel(1);
        if self.0.try_send(Message::Flush(sender)).is_ok() {
            // A reader who does not read does not hold up the end.
            let _ = receiver.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

fn write(messages: &Receiver<Message>, mut to: impl Write) {
    for message in messages {
        match message {
            Message::Line(line) => {
                if to.write_all(&line).is_err() {
                    DROPPED_FAILED.fetch_add(1, Ordering::Relaxed);
                }
            }
            // Whoever waited for it may have gone.
            Message::Flush(sender) => drop(sender.try_send(())),
        }
    }
}

/// Each line comes by one call of `write`, and is taken whole.
impl Write for &Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.send(line);
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
