//! A connection that is not waited for without end.
//!
//! actix-web bounds the time for the head of a connection's first request, and by a timer after each answer the idle
//! time until the next. It does not bound the head of a later request: a client that sent half of one would keep its
//! connection, and many such clients all connections, so that no holder could come to release. Here a connection ends
//! when it idles for too long, and when nothing was written to it for longer than any request may take.
//!
//! A timer for each answer, and a look at the clock for each write, would be a fair share of a request's cost. What
//! happens is only noted, and looked at a few times while a client may be silent.

use std::cell::Cell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_rt::time::{Instant, Sleep, sleep_until};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How often it is looked within the shorter of the times: a connection may be silent for longer by that part of it.
const LOOKS: u32 = 4;

/// How long a client may be silent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// After an answer.
    pub(crate) idle: Duration,
    /// While a request comes in or is at work: since the last answer, or piece of one.
    pub(crate) busy: Duration,
}

/// What a connection has under way; its requests and its socket share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work(Rc<Load>);

#[derive(Debug, Default)]
struct Load {
    requests: Cell<u32>,
    streams: Cell<bool>,
}

/// A request under way.
pub(crate) struct Busy(Work);

impl Work {
    pub(crate) fn begin(&self) -> Busy {
        let Self(load) = self;
        load.requests.set(load.requests.get() + 1);
        Busy(self.clone())
    }

    fn is_done(&self) -> bool {
        let Self(load) = self;
        load.requests.get() == 0 && !load.streams.get()
    }
}

impl Busy {
    /// Its answer has no end, and the connection no other use.
    pub(crate) fn streams(&self) {
        let Self(Work(load)) = self;
        load.streams.set(true);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let Self(Work(load)) = self;
        load.requests.set(load.requests.get() - 1);
    }
}

/// A connection, and until when something must have happened on it.
pub(crate) struct Patient<T> {
    io: T,
    patience: Patience,
    work: Work,
    /// Whether the last that came or went was an answer.
    is_answered: bool,
    /// Something was written since the last look.
    has_written: bool,
    /// The look before which something was written last.
    last_write: Instant,
    /// Rings at the next look; whoever reads hears it.
    alarm: Pin<Box<Sleep>>,
    /// Whether the alarm knows whom to wake. A connection is one task, whoever in it reads.
    is_armed: bool,
}

/// Why a connection's time is up.
enum TimeUp {
    Idle,
    Busy,
}

impl<T> Patient<T> {
    pub(crate) fn new(io: T, patience: Patience) -> Self {
        let now = Instant::now();
        let alarm = Box::pin(sleep_until(now + patience.look()));
        Self {
            io,
            patience,
            work: Work::default(),
            is_answered: false,
            has_written: false,
            last_write: now,
            alarm,
            is_armed: false,
        }
    }

    pub(crate) fn work(&self) -> Work {
        self.work.clone()
    }

    fn poll_time_up(&mut self, cx: &mut Context<'_>) -> Poll<TimeUp> {
        // Every wait for a request comes by here.
        if self.is_armed && !self.alarm.is_elapsed() {
            return Poll::Pending;
        }
        while self.alarm.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if std::mem::take(&mut self.has_written) {
                self.last_write = now;
            }
            let (limit, up) = match self.is_answered && self.work.is_done() {
                true => (self.patience.idle, TimeUp::Idle),
                false => (self.patience.busy, TimeUp::Busy),
            };
            let due = self.last_write + limit;
            if due <= now {
                return Poll::Ready(up);
            }
            self.alarm.as_mut().reset(due.min(now + self.patience.look()));
        }
        self.is_armed = true;
        Poll::Pending
    }

    fn wrote(&mut self, done: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(1..)) = done {
            (self.has_written, self.is_answered) = (true, true);
        }
        done
    }
}

impl Patience {
    fn look(self) -> Duration {
        self.idle.min(self.busy) / LOOKS
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Patient<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Ready(done) => {
                self.is_answered = false;
                Poll::Ready(done)
            }
            Poll::Pending => self.poll_time_up(cx).map(|up| match up {
                // As if the client had closed it: nothing is cut off.
                TimeUp::Idle => Ok(()),
                TimeUp::Busy => Err(io::ErrorKind::TimedOut.into()),
            }),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Patient<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.io).poll_write(cx, buf);
        self.wrote(done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.wrote(done)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
