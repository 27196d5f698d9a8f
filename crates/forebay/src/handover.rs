//! One process takes over from another: the listening sockets change hands, so that nobody who
//! connects meanwhile is refused.
//!
//! The successor asks at `[restart] socket`, gets the sockets and how many connections to each
//! server are open, opens its own pools with what is left of their budgets, and says when it is
//! ready. Then it accepts, and the predecessor does not any more; it tells what it has open
//! until nothing is, and still hears of cancel requests for clients of its own. Always true: the predecessor serves until its successor has said that it
//! is ready; the connections of both stay within the budget, but for one to each server whose
//! budget is all in use while the successor sees whether the server is there.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use forebay_postgres::Gateway;
use forebay_seam::net::{Permissions, UnixListener, handover};
use forebay_seam::task::Spawner;
use forebay_seam::time;
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

mod estate;
mod given;

pub(crate) use estate::inherited_tcp;
pub use estate::{Before, Estate};

const QUESTION: &str = "forebay take-over 1\n";
const READY: &str = "ready\n";
/// How long either side may take for an answer that needs no work.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a successor may take to get ready.
const UNTIL_READY: Duration = Duration::from_secs(120);
/// How often the predecessor says what it has open.
const ROUND: Duration = Duration::from_millis(50);
/// Longest message, bytes.
const LONGEST: usize = 16 << 10;

/// Connections that are open, by server.
type Open = BTreeMap<String, u32>;

/// What comes with the sockets.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Letter {
    /// Of each socket, in their order: the key of its setting, and the address as set there.
    sockets: Vec<(String, String)>,
    open: Open,
    /// The Unix socket at which cancel requests for clients that stay are taken.
    #[serde(default)]
    cancels: Option<PathBuf>,
}

/// What becomes of the clients of a process that another one takes over from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Staying {
    /// They leave soon: what comes home is closed, so that the successor has it.
    Briefly,
    /// They stay as long as they like, and may have half of each budget.
    AsTheyLike,
}

impl Staying {
    /// The connections that those who stay may have, of `configured`, when `leased` are in use.
    fn share(self, configured: u32, leased: u32) -> u32 {
        match self {
            Self::Briefly => leased.max(1),
            Self::AsTheyLike => (configured / 2).max(leased).max(1),
        }
    }
}

/// Sockets that can be given away.
#[derive(Default)]
pub struct Heirlooms {
    names: Vec<(String, String)>,
    sockets: Vec<OwnedFd>,
}

impl Heirlooms {
    /// Also `socket`, which listens at `address` as the setting `at` says.
    ///
    /// # Errors
    /// When no file descriptor is left.
    pub fn add(&mut self, at: &str, address: String, socket: impl AsFd) -> io::Result<()> {
        self.sockets.push(socket.as_fd().try_clone_to_owned()?);
        self.names.push((at.to_owned(), address));
        Ok(())
    }
}

/// Waits at `listener` until a successor has the `heirlooms` and is ready. Servers' budgets are
/// `gateway`'s to halve.
///
/// # Cancel safety
/// A successor that was asking is left without an answer.
pub async fn give_away(
    listener: &UnixListener,
    heirlooms: Heirlooms,
    gateway: Option<Gateway>,
) -> Successor {
    let heirlooms = Arc::new(heirlooms);
    loop {
        let asked = match listener.accept().await {
            Ok((stream, _)) => stream.into_std(),
            Err(error) => Err(error),
        };
        let cancels = gateway.as_ref().and_then(|_| for_cancels(listener.path()));
        let given = match asked {
            Ok(stream) => {
                let (heirlooms, gateway) = (Arc::clone(&heirlooms), gateway.clone());
                let at = cancels.as_ref().map(|cancels| cancels.path().to_owned());
                let giving = move || give(stream, &heirlooms, gateway.as_ref(), at);
                Spawner::current().block(giving).await.unwrap_or(Err(io::ErrorKind::Other.into()))
            }
            Err(error) => {
                time::sleep(ROUND).await;
                Err(error)
            }
        };
        match given {
            Ok(stream) => return Successor { stream, cancels },
            Err(error) => {
                if let Some(gateway) = &gateway {
                    share(gateway, |_| None);
                }
                tracing::warn!(%error, "a process that wanted to take over did not; all goes on");
            }
        }
    }
}

/// Where the successor sends cancel requests on to, beside the socket `door`.
fn for_cancels(door: &Path) -> Option<UnixListener> {
    let mut path = door.as_os_str().to_owned();
    path.push(format!(".{}", std::process::id()));
    let bound = UnixListener::bind(Path::new(&path), &Permissions { mode: 0o600, group: None });
    bound
        .inspect_err(|error| {
            tracing::warn!(%error, "cancel requests for clients that stay will not reach them");
        })
        .ok()
}

fn give(
    stream: UnixStream,
    heirlooms: &Heirlooms,
    gateway: Option<&Gateway>,
    cancels: Option<PathBuf>,
) -> io::Result<UnixStream> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    expect(&mut reader, QUESTION)?;
    tracing::info!("another process takes over: it gets the listening sockets");
    if let Some(gateway) = gateway {
        // The successor needs one to see that the server is there.
        share(gateway, |budget| Some((budget - 1).max(1)));
    }
    let letter = Letter { sockets: heirlooms.names.clone(), open: open(gateway), cancels };
    let mut text = serde_json::to_vec(&letter)?;
    text.push(b'\n');
    let sockets: Vec<BorrowedFd<'_>> = heirlooms.sockets.iter().map(AsFd::as_fd).collect();
    handover::send(&stream, &text, &sockets)?;
    stream.set_read_timeout(Some(UNTIL_READY))?;
    expect(&mut reader, READY)?;
    Ok(stream)
}

fn expect(reader: &mut impl BufRead, wanted: &str) -> io::Result<()> {
    let mut line = String::new();
    io::Read::take(reader, 64).read_line(&mut line)?;
    if line == wanted {
        return Ok(());
    }
    let why = format!("expected `{}`, got `{}`", wanted.trim_end(), line.trim_end().escape_debug());
    Err(io::Error::new(io::ErrorKind::InvalidData, why))
}

/// What is open now.
fn open(gateway: Option<&Gateway>) -> Open {
    let pools = gateway.map(|gateway| gateway.snapshot().pools).unwrap_or_default();
    let open =
        |pool: &forebay_pool::Snapshot| pool.idle + pool.leased + pool.opening + pool.cleaning;
    pools.iter().map(|pool| (pool.destination.to_string(), open(pool))).collect()
}

/// Sets the budget of each server by what is configured.
fn share(gateway: &Gateway, of: impl Fn(u32) -> Option<u32>) {
    for pool in gateway.snapshot().pools {
        gateway.set_budget(&pool.destination, of(pool.wanted.configured));
    }
}

/// The process that serves from now on.
pub struct Successor {
    stream: UnixStream,
    cancels: Option<UnixListener>,
}

impl Successor {
    /// The socket at which cancel requests come from now on; once.
    pub fn cancels(&mut self) -> Option<UnixListener> {
        self.cancels.take()
    }

    /// Tells it what is open, until it is gone or nobody asks any more; of what comes home
    /// meanwhile, as much is kept as those may have who stay.
    pub async fn keep_informed(self, gateway: Option<Gateway>, staying: Staying) {
        let Self { mut stream, .. } = self;
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        loop {
            if let Some(gateway) = &gateway {
                for pool in gateway.snapshot().pools {
                    let share = staying.share(pool.wanted.configured, pool.leased);
                    gateway.set_budget(&pool.destination, Some(share));
                }
            }
            let Ok(mut line) = serde_json::to_vec(&open(gateway.as_ref())) else { return };
            line.push(b'\n');
            if stream.write_all(&line).is_err() {
                return;
            }
            time::sleep(ROUND).await;
        }
    }
}

/// What a predecessor has left.
pub struct Inheritance {
    stream: UnixStream,
    sockets: Vec<((String, String), OwnedFd)>,
    open: Open,
    cancels: Option<PathBuf>,
}

impl Inheritance {
    /// Asks at `path`; nothing if nobody is there. Blocks.
    ///
    /// # Errors
    /// When there is somebody who does not answer as agreed, or the socket is another user's.
    pub fn ask(path: &Path) -> io::Result<Option<Self>> {
        look_whose_it_is(path)?;
        let mut stream = match UnixStream::connect(path) {
            Ok(stream) => stream,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(QUESTION.as_bytes())?;
        let mut bytes = vec![0; LONGEST];
        let (length, sockets) = handover::receive(&stream, &mut bytes)?;
        let text = bytes.get(..length).unwrap_or_default();
        let letter: Letter = serde_json::from_slice(text)?;
        let sockets = letter.sockets.into_iter().zip(sockets).collect();
        Ok(Some(Self { stream, sockets, open: letter.open, cancels: letter.cancels }))
    }

    /// The socket that listens at `address` as the setting `at` says, if it was left.
    pub fn take(&mut self, at: &str, address: &str) -> Option<OwnedFd> {
        let of = |(name, _): &((String, String), OwnedFd)| name.0 == at && name.1 == address;
        let place = self.sockets.iter().position(of)?;
        Some(self.sockets.swap_remove(place).1)
    }

    /// `gateway` opens no more than the predecessor leaves.
    pub fn leave_room(&self, gateway: &Gateway) {
        leave_room(gateway, &self.open);
    }

    /// We are ready: from now on we accept, and the predecessor does not. Its connections count
    /// until it has none.
    ///
    /// # Errors
    /// When it is gone; then all is ours as well.
    pub fn enter(self, gateway: Option<Gateway>) -> io::Result<()> {
        let Self { mut stream, cancels, .. } = self;
        if let Some(gateway) = &gateway {
            gateway.send_cancels_on(cancels.as_deref());
        }
        stream.write_all(READY.as_bytes())?;
        // Its end is its exit.
        stream.set_read_timeout(None)?;
        let Some(gateway) = gateway else { return Ok(()) };
        drop(std::thread::Builder::new().name("forebay-heir".to_owned()).spawn(move || {
            for line in BufReader::new(stream).lines() {
                let Ok(line) = line else { break };
                if let Ok(open) = serde_json::from_str(&line) {
                    leave_room(&gateway, &open);
                }
            }
            share(&gateway, |_| None);
            gateway.send_cancels_on(None);
            // It has removed the socket, unless it was killed.
            drop(cancels.map(std::fs::remove_file));
            tracing::info!("the process before has ended: the budgets are all ours");
        })?);
        Ok(())
    }
}

/// What comes from a socket that another user has made is not to be trusted.
fn look_whose_it_is(path: &Path) -> io::Result<()> {
    let Ok(file) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if file.uid() == geteuid().as_raw() || file.uid() == 0 {
        return Ok(());
    }
    let why = format!("`{}` is another user's", path.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

fn leave_room(gateway: &Gateway, open: &Open) {
    for pool in gateway.snapshot().pools {
        let taken = open.get(&*pool.destination).copied().unwrap_or(0);
        let left = pool.wanted.configured.saturating_sub(taken).max(1);
        let budget = (taken > 0).then_some(left);
        gateway.set_budget(&pool.destination, budget);
    }
}
