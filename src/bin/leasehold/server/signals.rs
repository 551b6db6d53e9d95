//! The signals that end the server, and the one that has it read its files again.

use std::io;

/// Hears SIGTERM and SIGINT (elsewhere than on Unix: Ctrl-C).
pub(crate) struct Signals {
    #[cfg(unix)]
    terminate: actix_rt::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: actix_rt::signal::unix::Signal,
}

impl Signals {
    /// From here on the signals no longer end the process by themselves.
    #[cfg(unix)]
    pub(crate) fn listen() -> io::Result<Self> {
        use actix_rt::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    #[cfg(not(unix))]
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {})
    }

    /// The next one, by name.
    ///
    /// # Cancel safety
    /// Dropping it loses no signal.
    #[cfg(unix)]
    pub(crate) async fn next(&mut self) -> &'static str {
        use std::future::poll_fn;
        use std::task::Poll;
        poll_fn(|cx| {
            if self.terminate.poll_recv(cx).is_ready() {
                return Poll::Ready("SIGTERM");
            }
            self.interrupt.poll_recv(cx).map(|_| "SIGINT")
        })
        .await
    }

    #[cfg(not(unix))]
    pub(crate) async fn next(&mut self) -> &'static str {
        match actix_rt::signal::ctrl_c().await {
            Ok(()) => "Ctrl-C",
            // Nothing will ever be heard; the process is then ended by other means.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Hears SIGHUP, which elsewhere than on Unix never comes.
pub(crate) struct Hangup {
    #[cfg(unix)]
    hangup: actix_rt::signal::unix::Signal,
}

impl Hangup {
    /// From here on the signal no longer ends the process.
    #[cfg(unix)]
    pub(crate) fn listen() -> io::Result<Self> {
        use actix_rt::signal::unix::{SignalKind, signal};
        Ok(Self { hangup: signal(SignalKind::hangup())? })
    }

    #[cfg(not(unix))]
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {})
    }

    /// The next one.
    ///
    /// # Cancel safety
    /// Dropping it loses no signal.
    #[cfg(unix)]
    pub(crate) async fn next(&mut self) {
        self.hangup.recv().await;
    }

    #[cfg(not(unix))]
    pub(crate) async fn next(&mut self) {
        std::future::pending().await
    }
}
