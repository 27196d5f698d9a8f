//! Who is here: every client and every server connection, with what each does now.
//!
//! A card for each, which its owner writes with relaxed stores and the console reads. Knows no
//! sessions and ends none. Always true: a card is listed as long as its owner has the entry,
//! whichever way the owner goes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use forebay_seam::sync::Mutex;
use forebay_seam::time::{self, Instant};

use crate::cancel::InFlight;
use crate::comings;
use crate::server::connector::Identity;
use crate::tally::{Figure, Meter, Rest, Tallies, Tally};

/// All cards, the figures of all pairs, and the clock that both go by.
pub(crate) struct Census {
    started: Instant,
    started_wall: SystemTime,
    next: AtomicU64,
    clients: Mutex<HashMap<u64, Arc<ClientCard>>>,
    servers: Mutex<HashMap<u64, Arc<ServerCard>>>,
    pub(crate) tallies: Tallies,
}

impl Default for Census {
    fn default() -> Self {
        Self {
            started: time::now(),
            started_wall: time::wall_now(),
            // 0 is nobody.
            next: AtomicU64::new(1),
            clients: Mutex::default(),
            servers: Mutex::default(),
            tallies: Tallies::default(),
        }
    }
}

/// One end of a connection; small, because there are thousands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A socket in the file system, or one that is broken.
    Local,
    V4(std::net::Ipv4Addr, u16),
    V6(Box<SocketAddr>),
}

impl From<Option<SocketAddr>> for Place {
    fn from(address: Option<SocketAddr>) -> Self {
        match address {
            None => Self::Local,
            Some(SocketAddr::V4(v4)) => Self::V4(*v4.ip(), v4.port()),
            Some(v6) => Self::V6(Box::new(v6)),
        }
    }
}

impl Place {
    /// As PgBouncer shows it.
    pub(crate) fn host(&self) -> String {
        match self {
            Self::Local => "unix".to_owned(),
            Self::V4(ip, _) => ip.to_string(),
            Self::V6(address) => address.ip().to_string(),
        }
    }

    /// The address, if it has one.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Local => None,
            Self::V4(ip, port) => Some(SocketAddr::from((*ip, *port))),
            Self::V6(address) => Some(**address),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Local => 0,
            Self::V4(_, port) => *port,
            Self::V6(address) => address.port(),
        }
    }
}

/// A connection's socket, as far as it is shown.
#[derive(Debug, Clone)]
pub(crate) struct Ends {
    pub(crate) fd: i32,
    pub(crate) theirs: Place,
    pub(crate) ours: Place,
    pub(crate) tls: Option<Cipher>,
    /// The process at the other end of a Unix socket.
    pub(crate) process: Option<u32>,
}

/// The TLS of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cipher {
    pub(crate) version: rustls::ProtocolVersion,
    pub(crate) suite: rustls::CipherSuite,
}

impl Cipher {
    /// `TLSv1.3/TLS13_AES_256_GCM_SHA384`.
    pub(crate) fn shown(self) -> String {
        let version = self.version.as_str().unwrap_or("TLS").replace('_', ".");
        format!("{version}/{}", self.suite.as_str().unwrap_or("unknown"))
    }
}

/// Whether a client replicates, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replication {
    None,
    Logical,
    Physical,
}

impl Replication {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Logical => "logical",
            Self::Physical => "physical",
        }
    }
}

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientState {
    /// It has no server connection and asks for none.
    Idle,
    Waiting,
    /// It has a server connection.
    Active,
}

/// What a server connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerState {
    /// It logs in.
    New,
    Idle,
    Active,
    /// It is being reset or probed.
    Tested,
}

/// One client. Moments are nanoseconds since the census began.
pub(crate) struct ClientCard {
    census: Arc<Census>,
    pub(crate) id: u64,
    pub(crate) tally: Arc<Tally>,
    /// What it did since that was added up.
    pub(crate) meter: Meter,
    pub(crate) ends: Ends,
    pub(crate) connected: u64,
    pub(crate) replication: Replication,
    state: AtomicU8,
    asked: AtomicU64,
    /// Since when it idles in a transaction; 0: it does not.
    idles: AtomicU64,
    waits_since: AtomicU64,
    link: AtomicU64,
    statements: AtomicU32,
    words: Mutex<Words>,
}

/// What is shown of a client in its own words.
struct Words {
    application: Arc<str>,
    /// The statement that it took its connection with, where that is known.
    began: Option<Arc<str>>,
}

impl ClientCard {
    pub(crate) fn state(&self) -> ClientState {
        match self.state.load(Ordering::Relaxed) {
            0 => ClientState::Idle,
            1 => ClientState::Waiting,
            _ => ClientState::Active,
        }
    }

    fn set(&self, state: ClientState) {
        let state = match state {
            ClientState::Idle => 0,
            ClientState::Waiting => 1,
            ClientState::Active => 2,
        };
        self.state.store(state, Ordering::Relaxed);
    }

    /// It waits in line since `now`.
    pub(crate) fn waits(&self, now: u64) {
        self.waits_since.store(now, Ordering::Relaxed);
        self.set(ClientState::Waiting);
    }

    /// It has `server` since `now`: what it asks for runs from then on.
    pub(crate) fn links(&self, server: Option<&ServerCard>, now: u64) {
        self.asks(now);
        if let Some(server) = server {
            server.link.store(self.id, Ordering::Relaxed);
            server.linked.store(now, Ordering::Relaxed);
            server.set(ServerState::Active);
            self.link.store(server.id, Ordering::Relaxed);
        }
        self.set(ClientState::Active);
        self.tally.add(Figure::Assignments, 1);
    }

    /// It has no connection and waits for none.
    pub(crate) fn rests(&self) {
        self.link.store(0, Ordering::Relaxed);
        self.idles.store(0, Ordering::Relaxed);
        self.set(ClientState::Idle);
    }

    /// It asks for something, and is owed nothing.
    pub(crate) fn asks(&self, now: u64) {
        self.meter.begins(now);
        self.asked.store(now, Ordering::Relaxed);
        self.idles.store(0, Ordering::Relaxed);
    }

    /// All that it asked for is answered, and its transaction is open.
    pub(crate) fn idles(&self) {
        self.idles.store(self.meter.last_answer(), Ordering::Relaxed);
    }

    /// Since when it has idled in a transaction, if it does.
    pub(crate) fn idles_since(&self) -> Option<u64> {
        Some(self.idles.load(Ordering::Relaxed)).filter(|since| *since > 0)
    }

    /// An answer is complete.
    pub(crate) fn answered(&self, now: u64, rest: Rest) {
        self.meter.answered(now, rest, &self.tally);
    }

    /// What it did is for others to see by now.
    pub(crate) fn adds_up(&self) {
        if self.meter.is_full() {
            self.meter.add_up(&self.tally);
        }
    }

    /// Its transaction, if there was one, is over.
    pub(crate) fn parts(&self) {
        self.idles.store(0, Ordering::Relaxed);
        self.meter.parts(&self.tally);
    }

    /// It has so many prepared statements.
    pub(crate) fn has_statements(&self, count: usize) {
        self.statements.store(u32::try_from(count).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// It calls itself `application`.
    pub(crate) fn is_called(&self, application: &Arc<str>) {
        self.words.lock().application = Arc::clone(application);
    }

    /// When it asked for something last; `None`: never.
    pub(crate) fn asked(&self) -> Option<u64> {
        Some(self.asked.load(Ordering::Relaxed)).filter(|asked| *asked > 0)
    }

    /// Since when it has waited, if it waits.
    pub(crate) fn waits_since(&self) -> Option<u64> {
        (self.state() == ClientState::Waiting).then(|| self.waits_since.load(Ordering::Relaxed))
    }

    /// How long it has been here.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        Duration::from_nanos(self.census.moment(now).saturating_sub(self.connected))
    }

    /// The id of the server connection that it has; 0: none.
    pub(crate) fn link(&self) -> u64 {
        self.link.load(Ordering::Relaxed)
    }

    pub(crate) fn statements(&self) -> u32 {
        self.statements.load(Ordering::Relaxed)
    }

    pub(crate) fn began(&self) -> Option<Arc<str>> {
        self.words.lock().began.clone()
    }

    /// It takes its connections with this statement, without literals; `None`: what it does with
    /// the one that it keeps is not known.
    pub(crate) fn begins_with(&self, statement: Option<&Arc<str>>) {
        self.words.lock().began = statement.cloned();
    }

    pub(crate) fn application(&self) -> Arc<str> {
        Arc::clone(&self.words.lock().application)
    }
}

/// One server connection.
#[derive(Debug)]
pub(crate) struct ServerCard {
    pub(crate) id: u64,
    /// The server's name in the configuration.
    pub(crate) server: Arc<str>,
    pub(crate) identity: Identity,
    pub(crate) opened: u64,
    pub(crate) replication: Replication,
    known: Mutex<Option<Known>>,
    /// Why we close it, if it is us.
    closed: Mutex<Option<&'static str>>,
    state: AtomicU8,
    link: AtomicU64,
    /// When a client got it last.
    linked: AtomicU64,
    statements: AtomicU32,
}

/// What is known of a server connection once it has logged in.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) ends: Ends,
    pub(crate) pid: i32,
    /// Cancel requests on their way to it.
    pub(crate) in_flight: Arc<InFlight>,
}

impl ServerCard {
    pub(crate) fn state(&self) -> ServerState {
        match self.state.load(Ordering::Relaxed) {
            0 => ServerState::New,
            1 => ServerState::Idle,
            2 => ServerState::Active,
            _ => ServerState::Tested,
        }
    }

    fn set(&self, state: ServerState) {
        let state = match state {
            ServerState::New => 0,
            ServerState::Idle => 1,
            ServerState::Active => 2,
            ServerState::Tested => 3,
        };
        self.state.store(state, Ordering::Relaxed);
    }

    /// It has logged in.
    pub(crate) fn is_open(&self, known: Known) {
        *self.known.lock() = Some(known);
        self.set(ServerState::Idle);
        comings::server_came(self);
    }

    /// We close it, for this `reason`; the first one counts.
    pub(crate) fn is_closed(&self, reason: &'static str) {
        self.closed.lock().get_or_insert(reason);
    }

    /// It is at rest, and has so many prepared statements.
    pub(crate) fn rests(&self, statements: usize) {
        self.statements.store(u32::try_from(statements).unwrap_or(u32::MAX), Ordering::Relaxed);
        self.link.store(0, Ordering::Relaxed);
        self.set(ServerState::Idle);
    }

    /// It is being reset or probed.
    pub(crate) fn is_tested(&self) {
        self.link.store(0, Ordering::Relaxed);
        self.set(ServerState::Tested);
    }

    /// The id of the client that has it; 0: none.
    pub(crate) fn link(&self) -> u64 {
        self.link.load(Ordering::Relaxed)
    }

    pub(crate) fn statements(&self) -> u32 {
        self.statements.load(Ordering::Relaxed)
    }

    pub(crate) fn known(&self) -> Option<Known> {
        self.known.lock().clone()
    }
}

/// A client that is listed until this is dropped.
pub(crate) struct ClientEntry(Arc<ClientCard>);

impl Deref for ClientEntry {
    type Target = ClientCard;

    fn deref(&self) -> &ClientCard {
        &self.0
    }
}

impl Drop for ClientEntry {
    fn drop(&mut self) {
        self.0.census.clients.lock().remove(&self.0.id);
        self.0.parts();
    }
}

/// A server connection that is listed until this is dropped.
pub(crate) struct ServerEntry {
    census: Arc<Census>,
    card: Arc<ServerCard>,
}

impl ServerEntry {
    /// How long ago it began to be opened.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        Duration::from_nanos(self.census.moment(now).saturating_sub(self.opened))
    }

    /// How long no client has got it.
    pub(crate) fn unused(&self, now: Instant) -> Duration {
        let used = self.linked.load(Ordering::Relaxed).max(self.opened);
        Duration::from_nanos(self.census.moment(now).saturating_sub(used))
    }
}

impl Deref for ServerEntry {
    type Target = ServerCard;

    fn deref(&self) -> &ServerCard {
        &self.card
    }
}

impl Drop for ServerEntry {
    fn drop(&mut self) {
        self.census.servers.lock().remove(&self.card.id);
        let reason = self.closed.lock().unwrap_or("server conn crashed?");
        comings::server_left(self, reason, self.age(time::now()));
    }
}

/// What is known of a client when it comes.
pub(crate) struct Newcomer<'a> {
    /// Its number ([`Census::number`]).
    pub(crate) id: u64,
    pub(crate) database: &'a Arc<str>,
    pub(crate) user: &'a Arc<str>,
    pub(crate) application: &'a Arc<str>,
    pub(crate) ends: Ends,
    pub(crate) replication: Replication,
}

impl Census {
    /// A client has logged in.
    pub(crate) fn enters(self: &Arc<Self>, newcomer: Newcomer<'_>) -> ClientEntry {
        let tally = self.tallies.of(newcomer.database, newcomer.user);
        tally.add(Figure::Logins, 1);
        let card = Arc::new(ClientCard {
            census: Arc::clone(self),
            id: newcomer.id,
            tally,
            meter: Meter::default(),
            ends: newcomer.ends,
            connected: self.moment(time::now()),
            replication: newcomer.replication,
            state: AtomicU8::new(0),
            asked: AtomicU64::new(0),
            idles: AtomicU64::new(0),
            waits_since: AtomicU64::new(0),
            link: AtomicU64::new(0),
            statements: AtomicU32::new(0),
            words: Mutex::new(Words { application: Arc::clone(newcomer.application), began: None }),
        });
        self.clients.lock().insert(card.id, Arc::clone(&card));
        ClientEntry(card)
    }

    /// A connection to `server` is being opened.
    pub(crate) fn opens(
        self: &Arc<Self>,
        server: &Arc<str>,
        identity: &Identity,
        replication: Replication,
    ) -> ServerEntry {
        let card = Arc::new(ServerCard {
            id: self.number(),
            server: Arc::clone(server),
            identity: identity.clone(),
            opened: self.moment(time::now()),
            replication,
            known: Mutex::new(None),
            closed: Mutex::new(None),
            state: AtomicU8::new(0),
            link: AtomicU64::new(0),
            linked: AtomicU64::new(0),
            statements: AtomicU32::new(0),
        });
        self.servers.lock().insert(card.id, Arc::clone(&card));
        ServerEntry { census: Arc::clone(self), card }
    }

    /// A number that nobody has had: clients and server connections are told apart by it.
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// All clients, the oldest first.
    pub(crate) fn clients(&self) -> Vec<Arc<ClientCard>> {
        let mut clients: Vec<_> = self.clients.lock().values().map(Arc::clone).collect();
        clients.sort_by_key(|client| client.id);
        clients
    }

    /// All server connections, the oldest first.
    pub(crate) fn servers(&self) -> Vec<Arc<ServerCard>> {
        let mut servers: Vec<_> = self.servers.lock().values().map(Arc::clone).collect();
        servers.sort_by_key(|server| server.id);
        servers
    }

    /// Server connections that clients have, with their clients.
    pub(crate) fn linked(&self) -> Vec<(Arc<ServerCard>, Arc<ClientCard>)> {
        let servers = self.servers();
        let clients = self.clients.lock();
        let linked = servers.into_iter().filter_map(|server| {
            let client = Arc::clone(clients.get(&server.link())?);
            Some((server, client))
        });
        linked.collect()
    }

    /// A moment of the cards' clock.
    pub(crate) fn instant(&self, moment: u64) -> Instant {
        self.started + Duration::from_nanos(moment.saturating_sub(1))
    }

    /// `at` on the clock of the cards: nanoseconds, never 0.
    #[inline]
    pub(crate) fn moment(&self, at: Instant) -> u64 {
        let passed = at.saturating_duration_since(self.started);
        passed.as_secs() * 1_000_000_000 + u64::from(passed.subsec_nanos()) + 1
    }

    /// A moment of that clock by the wall, as far as nobody has set that since.
    pub(crate) fn wall(&self, moment: u64) -> SystemTime {
        self.started_wall + Duration::from_nanos(moment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> Ends {
        Ends { fd: 3, theirs: Place::Local, ours: Place::Local, tls: None, process: None }
    }

    #[test]
    fn a_client_is_listed_until_its_entry_is_gone() {
        let census = Arc::new(Census::default());
        let (database, user, application) = ("app".into(), "ann".into(), "".into());
        let newcomer = || Newcomer {
            id: census.number(),
            database: &database,
            user: &user,
            application: &application,
            ends: ends(),
            replication: Replication::None,
        };
        let (one, two) = (census.enters(newcomer()), census.enters(newcomer()));
        assert_eq!(census.clients().len(), 2);
        assert!(one.id < two.id);
        drop(one);
        assert_eq!(census.clients().len(), 1);
        assert_eq!(two.tally.figures().get(Figure::Logins), 2);
    }

    #[test]
    fn a_link_is_seen_from_both_sides() {
        let census = Arc::new(Census::default());
        let identity = Identity { name: "app".into(), database: "app".into(), user: "ann".into() };
        let server = census.opens(&"main".into(), &identity, Replication::None);
        assert_eq!(server.state(), ServerState::New);
        let (database, user, application) = ("app".into(), "ann".into(), "".into());
        let client = census.enters(Newcomer {
            id: census.number(),
            database: &database,
            user: &user,
            application: &application,
            ends: ends(),
            replication: Replication::None,
        });
        client.waits(5);
        assert_eq!(client.waits_since(), Some(5));
        client.links(Some(&server), 7);
        assert_eq!((client.link(), server.link()), (server.id, client.id));
        assert_eq!((client.state(), client.waits_since()), (ClientState::Active, None));
        client.rests();
        server.rests(1);
        assert_eq!((client.link(), server.link()), (0, 0));
    }

    #[test]
    fn a_card_is_small() {
        let size = size_of::<ClientCard>();
        assert!(size <= 208, "{size}");
    }
}
