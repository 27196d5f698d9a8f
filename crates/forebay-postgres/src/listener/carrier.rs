//! The connection that listens in one database: opened for the first channel, closed when
//! nothing was listened to for as long as an idle connection lives.
//!
//! It asks nothing but LISTEN, UNLISTEN and empty queries, each a transaction of its own, so
//! it never holds the server's queue of notifications up. It belongs to no class and to no
//! budget: it does no work for anybody. Always true: when its task ends, by whatever, its hub
//! is closed, and nobody waits for what will not come.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use forebay_seam::time::{self, Instant};

use super::hub::{Errand, Hub};
use super::{Key, ListenError, Listeners};
use crate::server::connector::Identity;
use crate::server::{Server, ServerFailure};
use crate::wire::backend::{Notification, ServerError, Severity};
use crate::wire::frontend::write_query;
use crate::wire::{HEADER, Header, Malformed};

/// Longer than any message that such a connection gets.
const LONGEST: usize = 1 << 20;
/// It is nobody's work, and not to be ended as an idle application's would be.
const SETUP: &str = "SET application_name = 'forebay listener'; \
     SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings \
     WHERE name = 'idle_session_timeout'";

/// Starts the task of `hub`.
pub(super) fn start(listeners: Listeners, key: Key, identity: Identity, hub: Arc<Hub>) {
    let carrying = Carrying { listeners, key, hub, ending: lost("its task ended") };
    drop(tokio::spawn(carry(carrying, identity)));
}

fn lost(reason: impl Into<String>) -> ListenError {
    ListenError::Lost { reason: reason.into() }
}

/// Closes the hub when dropped.
struct Carrying {
    listeners: Listeners,
    key: Key,
    hub: Arc<Hub>,
    ending: ListenError,
}

impl Drop for Carrying {
    fn drop(&mut self) {
        self.listeners.remove(&self.key, &self.hub, &self.ending);
    }
}

async fn carry(mut carrying: Carrying, identity: Identity) {
    let Key { database, encoding } = &carrying.key;
    let shared = &carrying.listeners.shared;
    let opening = async {
        let mut server = shared.pool.connector().open(&identity).await?;
        server.run(SETUP).await?;
        if server.settings.now.get("client_encoding") != Some(encoding) {
            let encoding = encoding.replace('\'', "''");
            server.run(&format!("SET client_encoding = '{encoding}'")).await?;
        }
        Ok::<_, ServerFailure>(server)
    };
    let opened = time::timeout(shared.terms.load().pace.connect_timeout, opening).await;
    let server = match opened {
        Ok(Ok(server)) => server,
        Ok(Err(failure)) => {
            tracing::warn!(%database, error = %failure, "cannot listen");
            carrying.ending = match failure {
                ServerFailure::Refused(said) => ListenError::Refused(said),
                ServerFailure::Io(_)
                | ServerFailure::Protocol(_)
                | ServerFailure::Tls(_)
                | ServerFailure::Unfit(_)
                | ServerFailure::Moving(_)
                | ServerFailure::Auth(_) => {
                    ListenError::Unreachable { reason: failure.to_string() }
                }
            };
            return;
        }
        Err(_) => {
            tracing::warn!(%database, "cannot listen: the server did not answer in time");
            let reason = "the server did not answer in time".into();
            carrying.ending = ListenError::Unreachable { reason };
            return;
        }
    };
    carrying.hub.serves();
    tracing::debug!(%database, "listening");
    let mut line = Line {
        server,
        hub: &carrying.hub,
        owed: VecDeque::new(),
        refused: None,
        heard: Heard::Something,
    };
    match line.serve(&carrying).await {
        Ok(()) => carrying.ending = ListenError::Stopping,
        Err(failure) => {
            let reason = failure.to_string();
            tracing::warn!(%database, error = %reason, "the connection that listens was lost");
            carrying.ending = lost(reason);
        }
    }
}

/// What the server has still to answer.
enum Owed {
    Errand(Errand),
    Probe,
}

/// Whether the server has said anything since the last look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heard {
    Nothing,
    Something,
}

/// The connection at work.
struct Line<'a> {
    server: Server,
    hub: &'a Hub,
    owed: VecDeque<Owed>,
    /// What the server said against the errand at the front.
    refused: Option<ServerError>,
    heard: Heard,
}

impl Line<'_> {
    /// Serves until the hub is closed.
    async fn serve(&mut self, carrying: &Carrying) -> Result<(), ServerFailure> {
        let pace = carrying.listeners.shared.terms.load().pace;
        let period = pace.probe_interval.min(pace.idle_ttl);
        let mut look = std::pin::pin!(time::sleep(period));
        let mut unused_since: Option<Instant> = None;
        while !self.hub.is_closed() {
            for errand in self.hub.errands() {
                write_query(&mut self.server.outbox, &errand.sql());
                self.owed.push_back(Owed::Errand(errand));
            }
            tokio::select! {
                read = self.server.read_and_write() => {
                    read?;
                    self.heard = Heard::Something;
                    self.digest()?;
                }
                () = self.hub.changed() => {}
                () = &mut look => {
                    look.set(time::sleep(period));
                    let connector = carrying.listeners.shared.pool.connector();
                    if !connector.leads_right(&mut self.server) {
                        return Err(ServerFailure::Unfit("its host is used no more".into()));
                    }
                    self.probe()?;
                    let now = time::now();
                    if self.hub.channels() > 0 {
                        unused_since = None;
                    } else if *unused_since.get_or_insert(now) + pace.idle_ttl <= now {
                        carrying.listeners.remove_if_unused(&carrying.key, &carrying.hub);
                    }
                }
            }
        }
        Ok(())
    }

    /// A server that is silent may have nothing to say, or be gone.
    fn probe(&mut self) -> Result<(), ServerFailure> {
        if self.owed.is_empty() {
            write_query(&mut self.server.outbox, "");
            self.owed.push_back(Owed::Probe);
        } else if self.heard == Heard::Nothing {
            return Err(ServerFailure::Io(std::io::ErrorKind::TimedOut.into()));
        }
        self.heard = Heard::Nothing;
        Ok(())
    }

    fn digest(&mut self) -> Result<(), ServerFailure> {
        while let Some(header) = Header::read(&self.server.inbox)? {
            if header.body > LONGEST {
                return Err(Malformed::Length(i32::MAX).into());
            }
            if self.server.inbox.len() < header.whole() {
                break;
            }
            let message = self.server.inbox.split_to(header.whole());
            let body = message.get(HEADER..).unwrap_or_default();
            match header.tag {
                b'A' => {
                    let channel = Notification::read(body)?.channel;
                    // As long as it is, and not as long as the buffer it came in.
                    let message = Bytes::copy_from_slice(&message);
                    let channel = std::str::from_utf8(channel).map_err(|_| Malformed::Value)?;
                    self.hub.hand_out(channel, &message);
                }
                b'E' => {
                    let said = ServerError::read(body);
                    if said.severity == Severity::Fatal {
                        return Err(ServerFailure::Refused(said));
                    }
                    self.refused = Some(said);
                }
                b'Z' => match self.owed.pop_front() {
                    Some(Owed::Errand(errand)) => {
                        let refused = self.refused.take().map(ListenError::Refused);
                        self.hub.done(&errand, refused.as_ref());
                    }
                    Some(Owed::Probe) => self.refused = None,
                    None => return Err(Malformed::Value.into()),
                },
                b'S' => self.server.take_parameter(body)?,
                b'C' | b'I' | b'N' => {}
                _ => return Err(Malformed::Value.into()),
            }
        }
        Ok(())
    }
}
