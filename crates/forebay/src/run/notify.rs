//! What the service manager is told of us (sd_notify(3)), where it asks to be told.
//!
//! Never waits and never fails: a manager that does not listen is no reason not to serve.

use std::io;
use std::os::unix::net::UnixDatagram;

/// The variable with the manager's socket.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// We serve; also where another process served before.
pub(super) fn ready() {
    tell(&format!("READY=1\nMAINPID={}", std::process::id()));
}

/// We are about to end.
pub(super) fn stopping() {
    tell("STOPPING=1");
}

fn tell(news: &str) {
    let Ok(socket) = std::env::var(VARIABLE) else { return };
    if let Err(error) = send(&socket, news.as_bytes()) {
        tracing::debug!(%error, socket, "the service manager does not listen");
    }
}

fn send(to: &str, news: &[u8]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    #[cfg(target_os = "linux")]
    if let Some(name) = to.strip_prefix('@') {
        use std::os::linux::net::SocketAddrExt as _;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
        return socket.send_to_addr(news, &address).map(drop);
    }
    socket.send_to(news, to).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_hears_at_a_file_or_a_name_and_its_absence_is_no_trouble() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let path = path.to_str().unwrap();
        assert!(send(path, b"READY=1").is_err());
        let manager = UnixDatagram::bind(path).unwrap();
        send(path, b"READY=1").unwrap();
        let mut heard = [0; 32];
        let length = manager.recv(&mut heard).unwrap();
        assert_eq!(&heard[..length], b"READY=1");
    }
}
