//! Listening at a Unix socket, and the file that it leaves in a folder.
//!
//! Always true: nobody sees the socket before it has its mode and its group; what is replaced
//! is a socket that nobody listens at; what is removed at the end is our own.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::unistd::Group;
use socket2::{Domain, SockAddr, Type};

use super::{BACKLOG, Peer, UnixStream};

/// Who may connect to a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permissions {
    /// Bits of chmod; to connect takes the right to write.
    pub mode: u32,
    /// The name of the group that gets it; else it is the process's.
    pub group: Option<String>,
}

impl Default for Permissions {
    /// Everybody, as PostgreSQL does: who it is, is asked later.
    fn default() -> Self {
        Self { mode: 0o777, group: None }
    }
}

/// Listens at a Unix socket. Dropped, it removes the socket's file, unless it was told to leave
/// it or the file is another one by now.
#[derive(Debug)]
pub struct UnixListener {
    listener: tokio::net::UnixListener,
    file: File,
}

/// The file of a socket: its name, and which it is.
#[derive(Debug)]
struct File {
    path: PathBuf,
    /// Device and inode; `None`: it is another's to remove.
    ours: Option<(u64, u64)>,
    left: Arc<AtomicBool>,
}

/// Leaves the file of a listener that is elsewhere by now.
#[derive(Debug, Clone)]
pub struct Leaver(Arc<AtomicBool>);

impl Leaver {
    /// The file stays when the listener is gone: another process listens there.
    pub fn leave(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl File {
    /// The one that is at `path`.
    fn of(path: PathBuf) -> Self {
        Self { ours: identity(&path), path, left: Arc::default() }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let is_left = self.left.load(Ordering::Acquire);
        if !is_left && self.ours.is_some() && self.ours == identity(&self.path) {
            // It may be gone in this moment, and that is just as well.
            drop(fs::remove_file(&self.path));
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

impl UnixListener {
    /// Listens at `path`. A socket that a program has left there is replaced; one at which
    /// somebody listens is not, and neither is any other file. Inside a runtime.
    ///
    /// # Errors
    /// `AddrInUse` when somebody listens there, `AlreadyExists` when the file is no socket,
    /// `NotFound` when there is no such folder or group; what the system says.
    pub fn bind(path: &Path, permissions: &Permissions) -> io::Result<Self> {
        look_whether_free(path)?;
        let group = permissions.group.as_deref().map(group_id).transpose()?;
        // Under another name until it is what it has to be, and then in one step.
        let name = format!(".fb{}", process::id());
        let prepared = path.with_file_name(name);
        if identity(&prepared).is_some() {
            fs::remove_file(&prepared)?;
        }
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM.cloexec(), None)?;
        socket.set_nonblocking(true)?;
        // Both names must be short enough.
        SockAddr::unix(path)?;
        socket.bind(&SockAddr::unix(&prepared)?)?;
        let mut file = File::of(prepared);
        if let Some(group) = group {
            chown(&file.path, None, Some(group))?;
        }
        fs::set_permissions(&file.path, fs::Permissions::from_mode(permissions.mode))?;
        socket.listen(BACKLOG)?;
        let listener = tokio::net::UnixListener::from_std(socket.into())?;
        fs::rename(&file.path, path)?;
        file.path = path.to_owned();
        Ok(Self { listener, file })
    }

    /// A listener that another process has made, at `path`, whose file stays.
    ///
    /// # Errors
    /// When the runtime does not take it.
    pub fn inherited(listener: std::os::unix::net::UnixListener, path: &Path) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        Ok(Self { listener, file: File::of(path.to_owned()) })
    }

    /// What leaves its file to whoever listens at it later.
    pub fn leaver(&self) -> Leaver {
        Leaver(Arc::clone(&self.file.left))
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// The next connection and whose it is.
    ///
    /// # Errors
    /// Usually that no file descriptor is left.
    pub async fn accept(&self) -> io::Result<(UnixStream, Peer)> {
        let (stream, _) = self.listener.accept().await?;
        let of = stream.peer_cred()?;
        Ok((stream, Peer::Unix { uid: of.uid(), gid: of.gid(), pid: of.pid() }))
    }
}

impl std::os::fd::AsFd for UnixListener {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Is nothing at `path`, or only a socket at which nobody listens?
fn look_whether_free(path: &Path) -> io::Result<()> {
    let Ok(there) = fs::symlink_metadata(path) else { return Ok(()) };
    if !there.file_type().is_socket() {
        let reason = "there is a file of that name, and it is no socket";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, reason));
    }
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM.cloexec(), None)?;
    // A full backlog must not make us wait.
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(()) | Err(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

fn group_id(name: &str) -> io::Result<u32> {
    match Group::from_name(name).map_err(io::Error::from)? {
        Some(group) => Ok(group.gid.as_raw()),
        None => Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no group `{name}`"))),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::net::{Address, Listener, reach};

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[tokio::test]
    async fn whoever_connects_is_known_by_the_kernel() {
        let folder = folder();
        let path = folder.path().join(".s.PGSQL.6432");
        let permissions = Permissions { mode: 0o770, group: None };
        let listener = Listener::from(UnixListener::bind(&path, &permissions).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o770);
        assert_eq!(listener.address().unwrap(), Address::Unix(path.as_path().into()));
        let there = [Address::Unix(path.as_path().into())];
        let (asked, accepted) = tokio::join!(reach(&there), listener.accept());
        let ((mut asked, _), (mut accepted, from)) = (asked.unwrap(), accepted.unwrap());
        let me = nix::unistd::geteuid().as_raw();
        assert!(matches!(from, Peer::Unix { uid, .. } if uid == me), "{from:?}");
        asked.write_all(b"hello").await.unwrap();
        let mut heard = [0; 5];
        accepted.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
        drop(listener);
        assert!(!path.exists() && fs::read_dir(folder.path()).unwrap().next().is_none());
    }

    #[tokio::test]
    async fn a_socket_that_nobody_listens_at_is_replaced_and_any_other_file_is_not() {
        let folder = folder();
        let path = folder.path().join("socket");
        let all = Permissions::default();
        // What a program leaves that was killed.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = UnixListener::bind(&path, &all).unwrap();
        let second = UnixListener::bind(&path, &all).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        fs::write(&path, "dear").unwrap();
        let third = UnixListener::bind(&path, &all).unwrap_err();
        assert_eq!(third.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "dear");
    }

    #[tokio::test]
    async fn a_file_that_is_anothers_by_now_is_not_removed() {
        let folder = folder();
        let path = folder.path().join("socket");
        let all = Permissions::default();
        let first = UnixListener::bind(&path, &all).unwrap();
        fs::remove_file(&path).unwrap();
        let second = UnixListener::bind(&path, &all).unwrap();
        drop(first);
        assert!(path.exists());
        let mut second = second;
        second.leave();
        drop(second);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_group_or_a_folder_that_is_not_there_is_told_and_nothing_stays() {
        let folder = folder();
        let no_group = Permissions { mode: 0o777, group: Some("no such group".into()) };
        let error = UnixListener::bind(&folder.path().join("socket"), &no_group).unwrap_err();
        assert!(error.to_string().contains("no group `no such group`"), "{error}");
        let lost = folder.path().join("lost/socket");
        assert!(UnixListener::bind(&lost, &Permissions::default()).is_err());
        let long = folder.path().join("x".repeat(120));
        assert!(UnixListener::bind(&long, &Permissions::default()).is_err());
        assert!(fs::read_dir(folder.path()).unwrap().next().is_none());
    }
}
