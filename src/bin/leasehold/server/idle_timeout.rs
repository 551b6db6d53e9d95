//! A connection with bounds on how long it may idle or be stuck, and on how large the head of a request may be.
//!
//! actix-web bounds the time for the head of a connection's first request, and by a timer after each answer the idle
//! time until the next. It does not bound the head of a later request: a client that sent half of one would keep its
//! connection, and many such clients all connections, so that no holder could come to release. Nor can its bound on the
//! bytes of a head be set: 128 KB, of which thousands of clients would keep half a gigabyte. Here a connection ends
//! when it idles for too long, when a head takes too long or is too large, and when nothing was written to it for
//! longer than any request may take.
//!
//! A timer for each answer, and a reading of the clock for each write, would cost a good part of what a request costs.
//! So reads and writes only set flags, and a timer that fires a few times within the shortest of the times looks at
//! them.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_rt::time::{Instant, Sleep, sleep_until};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connections::{Activity, flush_and_shutdown_of_io};

/// How often the timer fires within the shortest of the times. A connection may last longer than its time by one such
/// part.
const LOOKS: u32 = 4;

/// What a head ends with.
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// The answer to a head that is too large.
const HEAD_TOO_LARGE: &str = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\
content-type: application/problem+json\r\ncontent-length: 137\r\n\r\n\
{\"status\":431,\"title\":\"Request Header Fields Too Large\",\"detail\":\"the head of the request is longer than taken\",\
\"code\":\"head_too_large\"}\n";

/// What a client may keep a connection with.
#[derive(Debug)]
pub(crate) struct IdleTimeout {
    /// How long it may be silent after an answer.
    pub(crate) idle: Duration,
    /// How long a head may take.
    pub(crate) head: Duration,
    /// How long it may be without an answer, or a piece of one, while a request comes in or is at work.
    pub(crate) busy: Duration,
    /// How many bytes a head may have.
    pub(crate) max_head_bytes: u64,
    /// How many of a body may come together with its head.
    pub(crate) max_body_bytes: u64,
}

/// A connection, and until when something must have happened on it.
pub(crate) struct TimedConnection<T> {
    io: T,
    idle_timeout: Arc<IdleTimeout>,
    activity: Activity,
    /// Whether what passed last was a piece of an answer, and nothing from the client.
    is_answered: bool,
    /// Whether the last write is stuck: the client does not read its answer.
    is_clogged: bool,
    /// Whether something was written since the timer fired last.
    has_written: bool,
    /// When the timer last found that something had been written.
    last_write: Instant,
    /// When the timer first found the head that is coming in.
    head_since: Option<Instant>,
    /// How many bytes have come since the last request began, and how many requests had begun then.
    came: u64,
    begun: u32,
    /// Whether the end of a head was among them: the rest is its body.
    has_head_ended: bool,
    /// The timer.
    alarm: Pin<Box<Sleep>>,
    /// Whether `alarm` was polled, and so has the waker. A connection is one task, so once is enough.
    is_armed: bool,
}

/// What may come behind that which was read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// There was no room for more.
    More,
    Nothing,
}

/// Why a connection's time is up.
enum TimeUp {
    Idle,
    Busy,
}

/// A head is larger than taken.
#[derive(Debug, thiserror::Error)]
#[error("the head of a request is larger than taken")]
pub(crate) struct HeadTooLarge;

impl<T> TimedConnection<T> {
    pub(crate) fn new(io: T, idle_timeout: Arc<IdleTimeout>, activity: Activity) -> Self {
        let now = Instant::now();
        let alarm = Box::pin(sleep_until(now + idle_timeout.look()));
        Self {
            io,
            idle_timeout,
            activity,
            is_answered: false,
            is_clogged: false,
            has_written: false,
            last_write: now,
            head_since: None,
            came: 0,
            begun: 0,
            has_head_ended: false,
            alarm,
            is_armed: false,
        }
    }

    pub(crate) fn get_ref(&self) -> &T {
        &self.io
    }

    fn poll_time_up(&mut self, cx: &mut Context<'_>) -> Poll<TimeUp> {
        // Each wait for a request passes here: most end at this line.
        if self.is_armed && !self.alarm.is_elapsed() {
            return Poll::Pending;
        }
        while self.alarm.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if std::mem::take(&mut self.has_written) {
                (self.last_write, self.head_since) = (now, None);
            }
            let (due, up) = match (self.activity.is_idle() && !self.is_clogged, self.is_answered) {
                (true, true) => (self.last_write + self.idle_timeout.idle, TimeUp::Idle),
                (true, false) => (*self.head_since.get_or_insert(now) + self.idle_timeout.head, TimeUp::Busy),
                (false, _) => {
                    self.head_since = None;
                    (self.last_write + self.idle_timeout.busy, TimeUp::Busy)
                }
            };
            if due <= now {
                return Poll::Ready(up);
            }
            self.alarm.as_mut().reset(due.min(now + self.idle_timeout.look()));
        }
        self.is_armed = true;
        Poll::Pending
    }

    /// Counts what has come, as long as no request has begun with it. All that has come is read before a request begins,
    /// its body too.
    fn came(&mut self, bytes: &[u8], then: Then) -> Result<(), HeadTooLarge> {
        let (begun, declared) = self.activity.begun();
        if self.begun != begun {
            (self.begun, self.came, self.has_head_ended) = (begun, 0, false);
        }
        self.came = self.came.saturating_add(bytes.len() as u64);
        // Not looked for in small requests, which are most.
        if then == Then::More && !self.has_head_ended {
            self.has_head_ended = bytes.windows(END_OF_HEAD.len()).any(|end| end == END_OF_HEAD);
        }
        // The rest of a body that was refused before it had come is no head.
        let body = declared.max(if self.has_head_ended { self.idle_timeout.max_body_bytes } else { 0 });
        let most = self.idle_timeout.max_head_bytes.saturating_add(body);
        if self.came > most && self.activity.is_idle() { Err(HeadTooLarge) } else { Ok(()) }
    }

    fn wrote(&mut self, done: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.is_clogged = done.is_pending();
        if let Poll::Ready(Ok(1..)) = done {
            (self.has_written, self.is_answered) = (true, true);
        }
        done
    }
}

impl IdleTimeout {
    fn look(&self) -> Duration {
        self.idle.min(self.head).min(self.busy) / LOOKS
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for TimedConnection<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let had = buf.filled().len();
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Ready(done) => {
                self.is_answered = false;
                let then = if buf.remaining() == 0 { Then::More } else { Then::Nothing };
                if let Err(why) = self.came(&buf.filled()[had..], then) {
                    // Only as much as can be written without a wait.
                    let told = Pin::new(&mut self.io).poll_write(cx, HEAD_TOO_LARGE.as_bytes());
                    let _ = told.is_ready() && Pin::new(&mut self.io).poll_flush(cx).is_ready();
                    return Poll::Ready(Err(io::Error::other(why)));
                }
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

impl<T: AsyncWrite + Unpin> AsyncWrite for TimedConnection<T> {
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

    flush_and_shutdown_of_io!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_large_head_is_as_long_as_it_says() {
        let (head, body) = HEAD_TOO_LARGE.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{}", body.len());
        assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["code"], "head_too_large");
    }
}
