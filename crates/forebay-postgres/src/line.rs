//! How long a peer may leave unacknowledged what was sent to it: a dead one is noticed while
//! something is under way, and one that merely does not read is left alone.
//!
//! Linux counts a window that stays closed like an acknowledgement that does not come, so
//! `TCP_USER_TIMEOUT` alone would cut off who works on a row and reads no other meanwhile. But
//! [`FITS`] bytes fit into any window. Always true: the limit holds while no more than that may
//! be unread, and is lifted when more is sent, until the peer has shown that it has read all.

use std::time::Duration;

use crate::stream::Stream;

/// Bytes that a peer takes even if its program reads none of them.
const FITS: usize = 16 * 1024;

/// What is on its way to one peer.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// Bytes that its program may not have read yet.
    unread: usize,
}

impl Line {
    /// `bytes` more were given to `stream`, where `limit` holds; zero: there is none.
    pub(crate) fn carries(&mut self, stream: &Stream, bytes: usize, limit: Duration) {
        let before = self.unread;
        self.unread = before.saturating_add(bytes);
        if before <= FITS && self.unread > FITS && !limit.is_zero() {
            stream.set_user_timeout(None);
        }
    }

    /// The peer has read everything: it has answered, or asked for more.
    pub(crate) fn is_read(&mut self, stream: &Stream, limit: Duration) {
        if std::mem::take(&mut self.unread) > FITS && !limit.is_zero() {
            stream.set_user_timeout(Some(limit));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use forebay_seam::net::{self, Socket, TcpStream};
    use socket2::SockRef;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(15);

    fn limit_of(stream: &Stream) -> Option<Duration> {
        let Stream::Plain(Socket::Tcp(tcp)) = stream else { return None };
        SockRef::from(tcp).tcp_user_timeout().unwrap()
    }

    async fn watched() -> (Stream, TcpStream) {
        let listener = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = [listener.local_addr().unwrap()];
        let (near, far) = tokio::join!(net::connect(&address), listener.accept());
        let near = Stream::Plain(Socket::Tcp(near.unwrap()));
        near.set_user_timeout(Some(LIMIT));
        (near, far.unwrap().0)
    }

    #[tokio::test]
    async fn the_limit_is_lifted_while_more_is_unread_than_any_window_takes() {
        let ((near, _far), mut line) = (watched().await, Line::default());
        line.carries(&near, FITS, LIMIT);
        assert_eq!(limit_of(&near), Some(LIMIT));
        line.carries(&near, 1, LIMIT);
        assert_eq!(limit_of(&near), None);
        line.carries(&near, 10 * FITS, LIMIT);
        line.is_read(&near, LIMIT);
        assert_eq!(limit_of(&near), Some(LIMIT));
        line.carries(&near, FITS, LIMIT);
        assert_eq!(limit_of(&near), Some(LIMIT));
    }

    #[tokio::test]
    async fn where_no_limit_is_set_none_is_set_later() {
        let ((near, _far), mut line) = (watched().await, Line::default());
        near.set_user_timeout(None);
        line.carries(&near, 2 * FITS, Duration::ZERO);
        line.is_read(&near, Duration::ZERO);
        assert_eq!(limit_of(&near), None);
    }
}
