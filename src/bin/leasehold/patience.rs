//! A connection that is not waited for without end.
//!
//! actix-web bounds the time for the head of a connection's first request and the idle time between requests. It does
//! not bound the head of a later request: a client that sent half of one would keep its connection, and many such
//! clients all connections, so that no holder could come to release. Here a connection ends when nothing was written
//! to it for longer than any request may take.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_rt::net::{ActixStream, Ready, TcpStream};
use actix_rt::time::{Instant, Sleep, sleep_until};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection, and until when something must have been written to it.
pub(crate) struct Patient {
    io: TcpStream,
    limit: Duration,
    last_write: Instant,
    /// Rings at or before the time that is up; whoever reads looks at it. Moved only when it rings.
    alarm: Pin<Box<Sleep>>,
    /// Whether the alarm knows whom to wake. A connection is one task, whoever in it reads.
    is_armed: bool,
}

impl Patient {
    pub(crate) fn new(io: TcpStream, limit: Duration) -> Self {
        let last_write = Instant::now();
        Self { io, limit, last_write, alarm: Box::pin(sleep_until(last_write + limit)), is_armed: false }
    }

    pub(crate) fn peer_addr(&self) -> Option<SocketAddr> {
        self.io.peer_addr().ok()
    }

    fn poll_time_up(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        // Every wait for a request comes by here.
        if self.is_armed && !self.alarm.is_elapsed() {
            return Poll::Pending;
        }
        while self.alarm.as_mut().poll(cx).is_ready() {
            let due = self.last_write + self.limit;
            if due <= Instant::now() {
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            self.alarm.as_mut().reset(due);
        }
        self.is_armed = true;
        Poll::Pending
    }

    fn wrote(&mut self, done: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(1..)) = done {
            self.last_write = Instant::now();
        }
        done
    }
}

impl AsyncRead for Patient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending => self.poll_time_up(cx).map(Err),
        }
    }
}

impl AsyncWrite for Patient {
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

impl ActixStream for Patient {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_read_ready(&self.io, cx)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_write_ready(&self.io, cx)
    }
}
