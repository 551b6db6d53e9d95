//! A socket that can be closed to make room for another.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use actix_rt::net::{ActixStream, Ready, TcpStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::ConnectionPermit;

/// What a writer that wraps another, its field `io`, has that one do: all that writes nothing.
macro_rules! flush_and_shutdown_of_io {
    () => {
        fn is_write_vectored(&self) -> bool {
            self.io.is_write_vectored()
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.io).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.io).poll_shutdown(cx)
        }
    };
}
pub(in crate::server) use flush_and_shutdown_of_io;

/// A socket that ends, as if its client had closed it, when its place is taken while it idles.
pub(crate) struct Evictable {
    io: TcpStream,
    place: Arc<ConnectionPermit>,
    /// Whether the waker is registered, for an eviction to wake. A connection is one task, so once is enough.
    has_waker: bool,
}

impl Evictable {
    pub(crate) fn new(io: TcpStream, place: ConnectionPermit) -> Self {
        Self { io, place: Arc::new(place), has_waker: false }
    }

    pub(crate) fn place(&self) -> &Arc<ConnectionPermit> {
        &self.place
    }

    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.io.peer_addr().ok()
    }
}

impl AsyncRead for Evictable {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // What has come already is read first.
        if let Poll::Ready(done) = Pin::new(&mut self.io).poll_read(cx, buf) {
            return Poll::Ready(done);
        }
        let state = &self.place.activity.0;
        if !self.has_waker {
            state.waker.register(cx.waker());
        }
        if state.is_evicted.load(Ordering::Relaxed) && self.place.activity.is_idle() {
            return Poll::Ready(Ok(()));
        }
        self.has_waker = true;
        Poll::Pending
    }
}

impl AsyncWrite for Evictable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    flush_and_shutdown_of_io!();
}

impl ActixStream for Evictable {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_read_ready(&self.io, cx)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_write_ready(&self.io, cx)
    }
}
