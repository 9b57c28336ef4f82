//! A connection's socket: plain or TLS, counted for as long as it is open, with a deadline on stalled writes.
//!
//! The count lives in the socket itself because an upgraded connection leaves hyper: wherever the socket goes, the
//! place it takes under the cap goes with it, and is free again exactly when it is closed.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::telemetry::metrics::Held;

/// A stream under the cap.
pub(super) struct Socket<S> {
    stream: S,
    write_timeout: Duration,
    /// Runs while a write makes no progress.
    stalled: Option<Pin<Box<Sleep>>>,
    _place: (OwnedSemaphorePermit, Held),
}

impl<S> Socket<S> {
    /// Takes a place under the cap with it.
    pub(super) fn new(
        stream: S,
        write_timeout: Duration,
        place: (OwnedSemaphorePermit, Held),
    ) -> Self {
        Self {
            stream,
            write_timeout,
            stalled: None,
            _place: place,
        }
    }

    /// Turns a write that waits into an error once it has waited for too long.
    fn watch<T>(
        &mut self,
        result: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stalled = None;
            return result;
        }
        let deadline = Instant::now() + self.write_timeout;
        let sleep = self
            .stalled
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl<S> fmt::Debug for Socket<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").finish_non_exhaustive()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(result, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(result, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(result, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(result, context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Semaphore;

    use super::*;
    use crate::telemetry::metrics::Gauge;

    #[tokio::test(start_paused = true)]
    async fn a_stalled_write_ends_and_gives_its_place_back() {
        let places = Arc::new(Semaphore::new(1));
        let open = Gauge::default();
        let place = (places.clone().try_acquire_owned().unwrap(), open.hold());
        let (stream, mut reader) = tokio::io::duplex(8);
        let mut socket = Socket::new(stream, Duration::from_secs(30), place);

        // Progress, however slow, is no stall.
        for _ in 0..3 {
            socket.write_all(b"12345678").await.unwrap();
            tokio::time::advance(Duration::from_secs(29)).await;
            reader.read_exact(&mut [0; 8]).await.unwrap();
        }
        let started = Instant::now();
        let error = socket.write_all(b"123456789").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed().as_secs(), 30);

        assert_eq!((places.available_permits(), open.get()), (0, 1));
        drop(socket);
        assert_eq!((places.available_permits(), open.get()), (1, 0));
    }
}
