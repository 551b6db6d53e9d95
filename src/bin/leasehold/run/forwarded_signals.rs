//! The signals that `leasehold run` gets: about its child, and those that are meant for the command.
//!
//! A signal that was ignored when the process began stays ignored: `nohup leasehold run` would otherwise take the
//! hangup away from its command, since a handler is not inherited and being ignored is.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use nix::sys::signal::Signal as Name;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What goes to the command as it came.
const FORWARDED: [Name; 7] =
    [Name::SIGTERM, Name::SIGINT, Name::SIGHUP, Name::SIGQUIT, Name::SIGUSR1, Name::SIGUSR2, Name::SIGWINCH];

/// What a signal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignalEvent {
    /// A child stopped, went on or ended.
    Child,
    /// This is for the command.
    Forward(Name),
}

/// Listens from its making on; the signals then no longer end the process by themselves.
pub(super) struct Signals {
    child: Signal,
    forwarded: Vec<(Name, Signal)>,
}

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        let ignored = ignored();
        let handled = FORWARDED.into_iter().filter(|name| ignored & (1 << (*name as u32 - 1)) == 0);
        let listen = |name: Name| Ok((name, signal(SignalKind::from_raw(name as i32))?));
        Ok(Self { child: signal(SignalKind::child())?, forwarded: handled.map(listen).collect::<io::Result<_>>()? })
    }

    /// The next one.
    ///
    /// Dropping the future loses none.
    pub(super) async fn next(&mut self) -> SignalEvent {
        poll_fn(|cx| {
            for (name, stream) in &mut self.forwarded {
                if stream.poll_recv(cx).is_ready() {
                    return Poll::Ready(SignalEvent::Forward(*name));
                }
            }
            self.child.poll_recv(cx).map(|_| SignalEvent::Child)
        })
        .await
    }

    /// The next one that would have ended the process.
    pub(super) async fn ended_by(&mut self) -> Name {
        loop {
            match self.next().await {
                SignalEvent::Forward(Name::SIGWINCH) | SignalEvent::Child => {}
                SignalEvent::Forward(name) => return name,
            }
        }
    }
}

/// The signals that were ignored when the process began, one bit each; none where the system does not tell.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
