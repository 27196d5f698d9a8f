//! What lies in a socket that nobody has read yet.

use std::io;
use std::mem::MaybeUninit;

use socket2::SockRef;

use super::TcpStream;

/// What lies in a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lies {
    /// Nothing; it is open.
    Nothing,
    /// Bytes that nobody has read.
    Bytes,
    /// Its end: the other side has closed it, or it broke.
    End,
}

/// Looks into `stream`, which waits for nothing and takes nothing out: one system call. Tells a
/// close that the runtime has not heard of yet.
pub fn look(stream: &TcpStream) -> Lies {
    let mut byte = [MaybeUninit::uninit()];
    match SockRef::from(stream).peek(&mut byte) {
        Ok(0) => Lies::End,
        Ok(_) => Lies::Bytes,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Lies::Nothing,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Lies::Nothing,
        Err(_) => Lies::End,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::net::{bind, connect};

    #[tokio::test]
    async fn a_close_is_seen_before_anybody_reads() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = [listener.local_addr().unwrap()];
        let (ours, accepted) = tokio::join!(connect(&address), listener.accept());
        let (ours, (mut theirs, _)) = (ours.unwrap(), accepted.unwrap());
        assert_eq!(look(&ours), Lies::Nothing);
        theirs.write_all(b"x").await.unwrap();
        while look(&ours) == Lies::Nothing {
            tokio::task::yield_now().await;
        }
        assert_eq!((look(&ours), look(&ours)), (Lies::Bytes, Lies::Bytes));
        let mut byte = [0];
        tokio::io::AsyncReadExt::read_exact(&mut { ours }, &mut byte).await.unwrap();
    }

    #[tokio::test]
    async fn the_end_is_told_from_silence() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = [listener.local_addr().unwrap()];
        let (ours, accepted) = tokio::join!(connect(&address), listener.accept());
        let ours = ours.unwrap();
        drop(accepted.unwrap());
        while look(&ours) == Lies::Nothing {
            tokio::task::yield_now().await;
        }
        assert_eq!(look(&ours), Lies::End);
    }
}
