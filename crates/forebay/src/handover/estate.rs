//! The sockets of this process: inherited or bound, and left to whoever comes after.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forebay_postgres::{Gateway, PostgresSettings, SettingsError};
use forebay_seam::net::{Leaver, Listener, Permissions, TcpListener, UnixListener};
use forebay_seam::time;

use super::given::Given;
use super::{Heirlooms, Inheritance, Successor, give_away};
use crate::config::RestartSettings;
use crate::view::Viewer;

/// How long to get ready before it is done regardless: the predecessor does not wait for ever.
const UNTIL_READY: Duration = Duration::from_secs(60);
const GLANCE: Duration = Duration::from_millis(20);
/// The setting of the socket where successors ask.
const RESTART: &str = "restart.socket";

/// Whether there may be a process to take over from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// If there is one, it is taken over from.
    TakenOver,
    /// If there is one, this one cannot start.
    Nobody,
}

/// What this process listens at.
#[derive(Default)]
pub struct Estate {
    inherited: Option<Inheritance>,
    given: Given,
    heirlooms: Heirlooms,
    /// Leave the files of Unix sockets.
    leavers: Vec<Leaver>,
    door: Option<UnixListener>,
    is_offered: bool,
}

impl Estate {
    /// Asks whether there is a process to take over from, where there may be one. Blocks.
    ///
    /// # Errors
    /// When there is one and it does not answer.
    pub fn ask(settings: &RestartSettings, before: Before) -> io::Result<Self> {
        let given = Given::take();
        let Some(path) = &settings.socket else { return Ok(Self { given, ..Self::default() }) };
        let inherited = match before {
            Before::TakenOver => Inheritance::ask(path)?,
            Before::Nobody => None,
        };
        if inherited.is_some() {
            tracing::info!(socket = %path.display(), "taking over from the process that runs");
        }
        Ok(Self { inherited, given, is_offered: true, ..Self::default() })
    }

    /// The socket that listens at `address` as `at` says, if it was left to us, or the service
    /// manager has opened it.
    pub fn take(&mut self, at: &str, address: &str) -> Option<OwnedFd> {
        let inherited = self.inherited.as_mut().and_then(|inherited| inherited.take(at, address));
        inherited.or_else(|| self.given.at(address))
    }

    /// What the service manager has opened and nobody has taken, as what `at` says; a successor
    /// gets it, too. Inside a runtime.
    ///
    /// # Errors
    /// When the runtime does not take it.
    pub fn given(&mut self, at: &str) -> io::Result<Vec<Listener>> {
        let given = self.given.rest()?;
        for listener in &given {
            self.leave(at, listener.address()?.to_string(), listener)?;
        }
        Ok(given)
    }

    /// A successor gets `socket`, too.
    ///
    /// # Errors
    /// When no file descriptor is left.
    pub fn leave(&mut self, at: &str, address: String, socket: impl AsFd) -> io::Result<()> {
        if self.is_offered {
            self.heirlooms.add(at, address, socket)?;
        }
        Ok(())
    }

    /// Listens at `address` as `bind` does. Inside a runtime.
    ///
    /// # Errors
    /// What the system says.
    pub fn tcp(
        &mut self,
        at: &str,
        address: SocketAddr,
        bind: impl FnOnce(SocketAddr) -> io::Result<TcpListener>,
    ) -> io::Result<TcpListener> {
        let listener = match self.take(at, &address.to_string()) {
            Some(socket) => inherited_tcp(socket)?,
            None => bind(address)?,
        };
        self.leave(at, address.to_string(), &listener)?;
        Ok(listener)
    }

    /// Listens at the Unix socket `path`. Inside a runtime.
    ///
    /// # Errors
    /// What the system says.
    pub fn unix(
        &mut self,
        at: &str,
        path: &Path,
        permissions: &Permissions,
    ) -> io::Result<UnixListener> {
        let name = path.display().to_string();
        let inherited = self.inherited.as_mut().and_then(|inherited| inherited.take(at, &name));
        let listener = match (inherited, self.given.at(&name)) {
            (Some(socket), _) => UnixListener::inherited(socket.into(), path)?,
            (None, Some(socket)) => {
                let listener = UnixListener::inherited(socket.into(), path)?;
                // The file is the service manager's.
                listener.leaver().leave();
                listener
            }
            (None, None) => UnixListener::bind(path, permissions)?,
        };
        self.leave(at, name, &listener)?;
        self.leavers.push(listener.leaver());
        Ok(listener)
    }

    /// Opens the door at which successors ask. Inside a runtime.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(&mut self, settings: &RestartSettings) -> io::Result<()> {
        if let Some(path) = &settings.socket {
            // Who gets our sockets is us.
            let permissions = Permissions { mode: 0o600, group: None };
            self.door = Some(self.unix(RESTART, path, &permissions)?);
        }
        Ok(())
    }

    /// A gateway made by `make` that opens no more than the predecessor leaves of its budgets.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn furnish(
        &self,
        settings: PostgresSettings,
        tenant: Option<Arc<str>>,
        make: impl FnOnce(PostgresSettings, Option<Arc<str>>) -> Result<Gateway, SettingsError>,
    ) -> Result<Gateway, SettingsError> {
        let Some(inherited) = &self.inherited else { return make(settings, tenant) };
        // One connection to each server, until it is said how many there may be.
        let mut bare = settings.clone();
        bare.servers.values_mut().for_each(|server| server.warm_up = 0);
        let gateway = make(bare, tenant.clone())?;
        inherited.leave_room(&gateway);
        gateway.apply(settings, tenant)?;
        Ok(gateway)
    }

    /// Waits until what was opened is ready, and takes over from the predecessor, if there is
    /// one; `ready` is called just before.
    pub async fn enter(
        &mut self,
        viewer: &Viewer,
        gateway: Option<&Gateway>,
        ready: impl FnOnce(),
    ) {
        let Some(inherited) = self.inherited.take() else { return ready() };
        let latest = time::now() + UNTIL_READY;
        while !viewer.snapshot().not_ready.is_empty() && time::now() < latest {
            time::sleep(GLANCE).await;
        }
        ready();
        if let Err(error) = inherited.enter(gateway.cloned()) {
            tracing::warn!(%error, "the process to take over from is gone");
        }
    }

    /// Waits until a successor has all and is ready; for ever, if none can ask.
    pub async fn give_away(&mut self, gateway: Option<Gateway>) -> Successor {
        let Some(door) = &self.door else { return std::future::pending().await };
        let heirlooms = std::mem::take(&mut self.heirlooms);
        let successor = give_away(door, heirlooms, gateway).await;
        self.leavers.iter().for_each(Leaver::leave);
        successor
    }
}

/// A listener that another process has made.
pub(crate) fn inherited_tcp(socket: OwnedFd) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}
