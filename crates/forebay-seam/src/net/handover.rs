//! Sockets given from one process to another (`SCM_RIGHTS`, unix(7)): both have the same
//! socket then, so whoever connects is accepted by either and refused by none.
//!
//! Blocks: for a thread that may.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Sockets in one message at the most.
pub const MOST: usize = 64;

/// Sends `bytes`, which are few, and `sockets` with them.
///
/// # Errors
/// More than [`MOST`] sockets; what the system says.
pub fn send(to: &UnixStream, bytes: &[u8], sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many sockets"));
    }
    let sent = sendmsg(to, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    if sent < bytes.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(())
}

/// Some bytes into `bytes`, and the sockets that come with them, which no child inherits.
///
/// # Errors
/// What the system says.
pub fn receive(from: &UnixStream, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(bytes)];
    let received = recvmsg(from, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut sockets = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(came) = message {
            sockets.extend(came);
        }
    }
    Ok((received.bytes, sockets))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::os::fd::AsFd;

    use super::*;
    use crate::net;

    #[tokio::test]
    async fn a_listener_that_was_given_away_accepts_what_the_first_would_have() {
        let listener = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = [listener.local_addr().unwrap()];
        let (here, there) = UnixStream::pair().unwrap();
        send(&here, b"one\n", &[listener.as_fd()]).unwrap();
        let mut bytes = [0; 16];
        let (length, sockets) = receive(&there, &mut bytes).unwrap();
        assert_eq!((&bytes[..length], sockets.len()), (&b"one\n"[..], 1));
        let _waits = net::connect(&address).await.unwrap();
        drop(listener);
        let again = std::net::TcpListener::from(sockets.into_iter().next().unwrap());
        again.set_nonblocking(true).unwrap();
        let again = net::TcpListener::from_std(again).unwrap();
        again.accept().await.unwrap();
    }
}
