//! A line of HTTP/1.1 whose service is heard to its end, although it listens no more.
//!
//! A service may answer an upload early (413, 401 …) and hang up without having read the
//! rest: then writing fails while its answer lies in the socket, unread. Knows no HTTP. Always
//! true: a write that failed because the other side hung up is an error only once everything
//! that came has been read; nothing is written after it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Bytes;
use crate::berths::Socket;

/// The line, counted as open while it is.
pub(super) struct Heard {
    stream: Box<dyn Bytes>,
    writing: Writing,
    _open: Option<Socket>,
}

/// Whether the other side still listens.
enum Writing {
    Goes,
    /// It hung up; how, whoever reads to the end is told.
    Failed(Option<io::Error>),
}

impl Heard {
    /// What is said on `stream`. `socket` is kept until it is closed.
    pub(super) fn new(stream: Box<dyn Bytes>, socket: Option<Socket>) -> Self {
        Self { stream, writing: Writing::Goes, _open: socket }
    }

    /// Writes by `write`, until the other side hangs up: from then on that waits for ever.
    fn write<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut Box<dyn Bytes>>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Writing::Failed(_) = self.writing {
            return Poll::Pending;
        }
        match write(Pin::new(&mut self.stream), cx) {
            Poll::Ready(Err(error)) if is_of_a_peer_that_left(&error) => {
                self.writing = Writing::Failed(Some(error));
                // Whoever has looked for an answer before looks again.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            written @ (Poll::Ready(_) | Poll::Pending) => written,
        }
    }
}

fn is_of_a_peer_that_left(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset)
}

impl AsyncRead for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        match (&read, &mut self.writing) {
            // An end after a reset may be in the middle of something.
            (Poll::Ready(Ok(())), Writing::Failed(error)) if buf.filled().len() == before => {
                error.take().map_or(read, |error| Poll::Ready(Err(error)))
            }
            _ => read,
        }
    }
}

impl AsyncWrite for Heard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |stream, cx| stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A line that says its words, and does not take any.
    struct Deaf(&'static [u8]);

    impl AsyncRead for Deaf {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            buf.put_slice(std::mem::take(&mut self.0));
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Deaf {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_failed_write_is_told_behind_the_last_word_and_once() {
        let mut line = Heard::new(Box::new(Deaf(b"no!")), None);
        tokio::select! {
            biased;
            _ = line.write_all(b"please") => panic!("nobody took it"),
            () = std::future::ready(()) => {}
        }
        let mut space = [0; 8];
        assert_eq!(line.read(&mut space).await.unwrap(), 3);
        let end = line.read(&mut space).await.unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(line.read(&mut space).await.unwrap(), 0);
    }
}
