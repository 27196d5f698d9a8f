//! LISTEN in transaction pooling: one connection for each database listens for all clients,
//! and hands on what it hears.
//!
//! [`Listeners`] knows the databases of one server that are listened to. What each client
//! listens to is decided in [`hub`], the connection is driven by [`carrier`], and what a
//! client has not been told yet lies in its [`mailbox`]. When it is told is the session's
//! business.
//!
//! Always true: a database without a listener has no connection here for longer than an idle
//! connection lives; every hub that can be found has a task that serves it.

mod carrier;
pub(crate) mod hub;
pub(crate) mod mailbox;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use forebay_pool::Pool;
use forebay_seam::sync::Mutex;
use serde::Serialize;

use crate::server::connector::{Identity, Postgres};
use crate::settings::{NotificationSettings, ServerSettings};
use crate::wire::backend::ServerError;
use hub::{Hub, Standing};
use mailbox::Mailbox;

/// Why a client cannot listen, or no longer.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ListenError {
    /// SQLSTATE 54000.
    #[error("a client may listen to {limit} channels")]
    ChannelsOfClient { limit: usize },
    /// SQLSTATE 54000.
    #[error("{limit} channels of this database are listened to already")]
    ChannelsOfDatabase { limit: usize },
    /// SQLSTATE 53300.
    #[error("{limit} connections listen on this server already")]
    Connections { limit: usize },
    /// The server's own words and SQLSTATE.
    #[error("{}", .0.text)]
    Refused(ServerError),
    /// SQLSTATE 57P03.
    #[error("the connection that listens cannot be opened: {reason}")]
    Unreachable { reason: String },
    /// Notifications may be missing: the session ends. SQLSTATE 08006.
    #[error("the connection that listens for this client was lost: {reason}")]
    Lost { reason: String },
    /// Notifications are missing: the session ends. SQLSTATE 53400.
    #[error("more than {limit} bytes of notifications wait for this client")]
    Overflow { limit: usize },
    /// The session ends. SQLSTATE 0A000.
    #[error("a notification cannot be converted to the client_encoding of now")]
    Encoding,
    /// SQLSTATE 57P01.
    #[error("terminating connection because the server is shutting down")]
    Stopping,
}

/// What became of notifications on one server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NotificationCounts {
    /// The server's name in the configuration.
    pub server: Arc<str>,
    /// Connections that listen.
    pub connections: u32,
    /// Channels that are listened to, each counted once for its database.
    pub channels: u32,
    /// Clients that listen.
    pub clients: u32,
    /// Notifications told to clients since start.
    pub delivered: u64,
    /// Clients that were sent away because they did not read theirs, since start.
    pub overflowed: u64,
    /// Clients that were sent away because the connection that listens was lost, since start.
    pub lost: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    clients: AtomicU32,
    delivered: AtomicU64,
    overflowed: AtomicU64,
    lost: AtomicU64,
}

impl Counters {
    pub(crate) fn delivered(&self, notifications: u64) {
        self.delivered.fetch_add(notifications, Ordering::Relaxed);
    }

    fn overflowed(&self) {
        self.overflowed.fetch_add(1, Ordering::Relaxed);
    }

    fn lost(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }
}

/// A database, and the encoding in which its notifications come.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) database: Arc<str>,
    pub(crate) encoding: Arc<str>,
}

/// Times of a connection that listens: those of the server's other connections.
#[derive(Debug, Clone, Copy)]
struct Pace {
    connect_timeout: Duration,
    probe_interval: Duration,
    idle_ttl: Duration,
}

/// What is listened to on one server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Listeners {
    shared: Arc<Shared>,
}

struct Shared {
    hubs: Mutex<HashMap<Key, Arc<Hub>>>,
    counters: Arc<Counters>,
    pool: Pool<Postgres>,
    terms: ArcSwap<Terms>,
}

/// What the configuration says of listening.
struct Terms {
    pace: Pace,
    limits: NotificationSettings,
}

impl Terms {
    fn new(server: &ServerSettings, limits: NotificationSettings) -> Self {
        let pace = Pace {
            connect_timeout: server.connect_timeout,
            probe_interval: server.probe_interval,
            idle_ttl: server.idle_ttl,
        };
        Self { pace, limits }
    }
}

impl Listeners {
    /// Connections are opened as `pool` opens its own.
    pub(crate) fn new(
        pool: Pool<Postgres>,
        server: &ServerSettings,
        limits: NotificationSettings,
    ) -> Self {
        let terms = ArcSwap::from_pointee(Terms::new(server, limits));
        let (hubs, counters) = (Mutex::default(), Arc::default());
        Self { shared: Arc::new(Shared { hubs, counters, pool, terms }) }
    }

    /// The configuration says something else from now on. Connections that listen keep the
    /// times with which they were opened.
    pub(crate) fn change(&self, server: &ServerSettings, limits: NotificationSettings) {
        self.shared.terms.store(Arc::new(Terms::new(server, limits)));
    }

    /// The server is another one. What is notified there is not heard here any more, so who
    /// listens is told.
    pub(crate) fn start_over(&self) {
        let reason = "the configuration names another server";
        let hubs: Vec<_> = self.shared.hubs.lock().drain().collect();
        for (_, hub) in hubs {
            hub.close(&ListenError::Lost { reason: reason.into() });
        }
    }

    /// `mailbox` gets what is notified on `channel`; a connection is opened as `identity` if
    /// there is none.
    ///
    /// # Errors
    /// There are as many channels or connections as may be.
    pub(crate) fn join(
        &self,
        key: &Key,
        identity: &Identity,
        channel: &Arc<str>,
        mailbox: &Arc<Mailbox>,
    ) -> Result<(Arc<Hub>, Standing), ListenError> {
        let Shared { hubs, counters, terms, .. } = &*self.shared;
        let Terms { limits, .. } = &**terms.load();
        let mut hubs = hubs.lock();
        let limit = limits.channels_per_database;
        if let Some(hub) = hubs.get(key) {
            let standing = hub.join(channel, mailbox, limit)?;
            return Ok((Arc::clone(hub), standing));
        }
        if hubs.len() >= limits.connections {
            return Err(ListenError::Connections { limit: limits.connections });
        }
        let hub = Arc::new(Hub::new(Arc::clone(counters)));
        let standing = hub.join(channel, mailbox, limit)?;
        hubs.insert(key.clone(), Arc::clone(&hub));
        carrier::start(self.clone(), key.clone(), identity.clone(), Arc::clone(&hub));
        Ok((hub, standing))
    }

    /// A mailbox for one more client that listens.
    pub(crate) fn mailbox(&self) -> Arc<Mailbox> {
        self.shared.counters.clients.fetch_add(1, Ordering::Relaxed);
        Arc::new(Mailbox::new(self.shared.terms.load().limits.queue))
    }

    /// A client listens no longer.
    pub(crate) fn client_left(&self) {
        self.shared.counters.clients.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Channels that one client may listen to.
    pub(crate) fn channels_per_client(&self) -> usize {
        self.shared.terms.load().limits.channels_per_client
    }

    /// `hub` serves nobody any more; its members are told `why`.
    fn remove(&self, key: &Key, hub: &Arc<Hub>, why: &ListenError) {
        let mut hubs = self.shared.hubs.lock();
        if hubs.get(key).is_some_and(|known| Arc::ptr_eq(known, hub)) {
            hubs.remove(key);
        }
        // While nobody can find it: who has joined is told.
        hub.close(why);
    }

    /// Removes `hub` if nothing is listened to there.
    fn remove_if_unused(&self, key: &Key, hub: &Arc<Hub>) {
        let mut hubs = self.shared.hubs.lock();
        if hub.channels() == 0 {
            hubs.remove(key);
            hub.close(&ListenError::Stopping);
        }
    }

    /// Ends all of it.
    pub(crate) fn close(&self) {
        for (_, hub) in self.shared.hubs.lock().drain() {
            hub.close(&ListenError::Stopping);
        }
    }

    pub(crate) fn counts(&self, server: &str) -> NotificationCounts {
        let hubs = self.shared.hubs.lock();
        let channels: usize = hubs.values().map(|hub| hub.channels()).sum();
        let counters = &self.shared.counters;
        NotificationCounts {
            server: Arc::from(server),
            connections: u32::try_from(hubs.len()).unwrap_or(u32::MAX),
            channels: u32::try_from(channels).unwrap_or(u32::MAX),
            clients: counters.clients.load(Ordering::Relaxed),
            delivered: counters.delivered.load(Ordering::Relaxed),
            overflowed: counters.overflowed.load(Ordering::Relaxed),
            lost: counters.lost.load(Ordering::Relaxed),
        }
    }
}
