//! What the program writes, in one place: notices to stderr, and what was asked for to stdout.
//!
//! Whoever started the program may have closed both, sent them to a full disk, or stopped reading. A notice is
//! therefore written by a thread of its own: it never fails, never blocks the caller and never stops the process
//! (`stty tostop`). One that cannot be written in time is dropped. Text that was asked for is the purpose of its verb:
//! if it cannot be written, the verb fails with a code of its own; a reader that has gone ends it quietly.
//!
//! Lints forbid the macros of the standard library in this binary: they panic when a write fails.

use std::fmt::Display;
use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::exit::Failure;
use crate::print::cut;
use crate::writer::Writer;

/// How many notices may wait to be written; later ones are dropped.
const WAITING_NOTICES: usize = 64;
/// How long the end of the program waits for its last notices to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The thread that writes to stderr, from the first notice on.
static WRITER: LazyLock<Writer> = LazyLock::new(|| Writer::start("notices", WAITING_NOTICES, write_to_stderr));

fn write_to_stderr() -> impl FnMut(&[u8]) {
    // A process in the background that writes to its terminal may be stopped for it, and its command would run on. One
    // that failed to become another program is ended by a closed pipe.
    #[cfg(unix)]
    {
        use nix::sys::signal::{SigSet, Signal};
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGTTOU);
        signals.add(Signal::SIGPIPE);
        // If they cannot be blocked, a write has the effect that it would have without this thread.
        let _ = signals.thread_block();
    }
    // There is nobody to tell that it cannot be written.
    |text| drop(io::stderr().write_all(text))
}

/// Writes a text to stderr as it is, as a line that is drawn again and again.
pub(crate) fn status(text: String) {
    // Full: nobody reads.
    let _ = WRITER.write(text.into_bytes());
}

/// Whether the last line on the terminal is to be drawn again.
static LINE: AtomicBool = AtomicBool::new(false);
/// To the first column, and nothing to the right of it.
const REDRAW: &str = "\r\x1b[K";

/// Tells people something, as a line on stderr.
pub(crate) fn notice(text: impl Display) {
    let redraw = if LINE.swap(false, Ordering::Relaxed) { REDRAW } else { "" };
    status(format!("{redraw}leasehold: {text}\n"));
}

/// Draws the last line of a terminal of this width anew.
pub(crate) fn line(text: &str, columns: usize) {
    LINE.store(true, Ordering::Relaxed);
    // One column is left to the cursor.
    status(format!("{REDRAW}{}", cut(text, columns.saturating_sub(1))));
}

/// Takes that line away.
pub(crate) fn clear_line() {
    if LINE.swap(false, Ordering::Relaxed) {
        status(REDRAW.to_owned());
    }
}

/// Waits, for a second at most, until the notices are written. The last step of the program.
pub(crate) fn flush() {
    WRITER.flush(FLUSH_TIMEOUT);
}

/// Tells of a panic as of anything else: the standard library's hook blocks while nobody reads stderr.
pub(crate) fn panic_hook(panic: &PanicHookInfo<'_>) {
    let backtrace = std::backtrace::Backtrace::capture();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("without a name").to_owned();
    match backtrace.status() {
        std::backtrace::BacktraceStatus::Captured => notice(format_args!("in thread {thread}: {panic}\n{backtrace}")),
        _ => notice(format_args!("in thread {thread}: {panic}")),
    }
}

/// Writes what was asked for to stdout, and sees to it that it has arrived.
///
/// # Errors
/// `NobodyReads` if the reader has gone, `Output` if it cannot be written for another reason.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|why| match why.kind() {
        io::ErrorKind::BrokenPipe => Failure::NobodyReads,
        _ => Failure::Output(why),
    })
}

/// Writes one line to stdout.
///
/// # Errors
/// As for [`print`].
pub(crate) fn print_line(text: &str) -> Result<(), Failure> {
    print(&format!("{text}\n"))
}
