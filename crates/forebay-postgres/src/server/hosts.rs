//! The hosts of a server: which one a new connection goes to, and whether a connection still
//! leads where it should.
//!
//! What is decided, [`book`] decides; here it is asked and carried out. Always true: a
//! connection is used only after its server has said what it is, where that matters; one to a
//! host that is no longer wanted, or to an address that its name no longer has, is not lent
//! again.

mod book;
pub(crate) mod watch;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use forebay_seam::net::Address;
use forebay_seam::sync::Mutex;
use forebay_seam::time;
use serde::Serialize;
use tokio::sync::{Notify, watch as channel};

use book::{Book, Consequence, Findings, History, Trouble, Verdict, Wanted};

use super::login::{Login, Reach, Target};
use super::names::{Name, shuffle};
use super::role::{Fit, Role};
use super::{Server, ServerFailure};
use crate::settings::{LoadBalance, SessionAttrs};

/// Whoever waits while the primary moves may go on for so long; then nobody is kept waiting
/// for what may never come.
const MOVE_PATIENCE: Duration = Duration::from_secs(60);
/// What is seen again within this time has lasted.
const SAME_OUTAGE: Duration = Duration::from_secs(10);

/// A primary's cluster and timeline, as an ordinary role may ask. The last checkpoint's
/// timeline is behind after a promotion; the name of the log file that is written is not.
const HISTORY: &str = "SELECT (SELECT system_identifier FROM pg_catalog.pg_control_system()) \
     || ' ' || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8)";
/// How far a standby is behind, milliseconds: nothing while it has replayed all that it got,
/// from a sender that is there. One that has replayed nothing yet is as old as its process.
const LAG: &str = "SELECT CASE WHEN pg_catalog.pg_last_wal_replay_lsn() >= \
     pg_catalog.pg_last_wal_receive_lsn() AND EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver) \
     THEN 0 ELSE (extract(epoch FROM pg_catalog.clock_timestamp() - COALESCE(\
     pg_catalog.pg_last_xact_replay_timestamp(), pg_catalog.pg_postmaster_start_time())) \
     * 1000)::bigint END::text";

/// One host.
pub(crate) struct Host {
    /// As the operator wrote it.
    pub(crate) label: Arc<str>,
    number: usize,
    pub(crate) name: Arc<Name>,
    /// Connections from before the last change are replaced.
    epoch: AtomicU32,
    /// Nothing more is sent there.
    fenced: AtomicBool,
    /// Connections of ours.
    live: AtomicU32,
    doubt: Arc<Notify>,
}

/// Where a connection leads.
pub(crate) struct Berth {
    host: Arc<Host>,
    address: Address,
    epoch: u32,
    vanishings: u32,
    role: Option<Role>,
}

impl Berth {
    /// What its server said does not go with what it is: the hosts are to be looked at.
    pub(crate) fn is_doubtful(&self) {
        self.host.doubt.notify_one();
    }

    /// May the next connection to the host lead to another address, as far as its name tells?
    pub(crate) fn is_one_of_several(&self) -> bool {
        self.host.name.may_turn_from(&self.address)
    }

    /// A primary that another has replaced: nothing more may be sent.
    pub(crate) fn is_fenced(&self) -> bool {
        self.host.fenced.load(Ordering::Relaxed)
    }
}

impl Drop for Berth {
    fn drop(&mut self) {
        self.host.live.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is wanted of hosts, and how they are tried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    pub(crate) attrs: SessionAttrs,
    pub(crate) spread: LoadBalance,
    pub(crate) max_lag: Option<Duration>,
    /// How often hosts are looked at.
    pub(crate) rhythm: Duration,
    pub(crate) watched: Watched,
}

/// Whether hosts are looked at while nobody asks for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watched {
    /// Also one that need only answer: others ask whether it does.
    Always,
    /// Where it matters which host it is, or what.
    IfChoosy,
}

/// All hosts of one server.
pub(crate) struct Hosts {
    list: Vec<Arc<Host>>,
    choice: Choice,
    book: Mutex<Book>,
    turn: AtomicUsize,
    trouble: Mutex<Outage>,
    usable: channel::Sender<bool>,
    /// Told when connections are to be replaced.
    pub(crate) news: Arc<Notify>,
    /// Told when the hosts should be looked at.
    doubt: Arc<Notify>,
    /// Told when they are of no interest any more.
    pub(crate) left: Notify,
}

/// Since when no host can be used, and when that was seen last.
#[derive(Debug, Default)]
struct Outage(Option<(time::Instant, time::Instant)>);

impl Outage {
    /// It is seen now; how long does it last?
    fn lasts(&mut self, now: time::Instant) -> Duration {
        let before = self.0.filter(|(_, seen)| now < *seen + SAME_OUTAGE);
        let since = before.map_or(now, |(since, _)| since);
        self.0 = Some((since, now));
        now.saturating_duration_since(since)
    }
}

/// A host at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct HostSnapshot {
    /// As the operator wrote it.
    pub host: String,
    /// Addresses that its name had last.
    pub addresses: Vec<String>,
    /// `primary`, `read-only-primary`, `standby`, or `unknown` before it was asked.
    pub role: &'static str,
    /// `up`, `down`, `full`, `wrong-role`, `fenced` or `behind`.
    pub state: &'static str,
    /// The timeline that it wrote when it was a primary.
    pub timeline: Option<u32>,
    /// How far it is behind, seconds, where that is asked.
    pub lag_seconds: Option<f64>,
    /// Connections of ours.
    pub connections: u32,
    /// How often its name came to lead elsewhere.
    pub dns_changes: u64,
}

/// The hosts of a server at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct HostsSnapshot {
    /// The server.
    pub server: String,
    /// Its hosts, as they are written.
    pub hosts: Vec<HostSnapshot>,
    /// Whether any of them can be used, as far as anybody knows.
    pub usable: bool,
    /// How often another host became the primary, since start.
    pub failovers: u64,
    /// How often a primary was fenced because another had replaced it, since start.
    pub fenced: u64,
}

impl Hosts {
    /// Hosts with what the operator calls them.
    pub(crate) fn new(names: Vec<(String, Arc<Name>)>, choice: Choice, news: Arc<Notify>) -> Self {
        let wanted = Wanted { attrs: choice.attrs, max_lag: choice.max_lag };
        let book = Book::new(wanted, names.len());
        let doubt = Arc::new(Notify::new());
        let host = |(number, (label, name)): (usize, (String, Arc<Name>))| {
            Arc::new(Host {
                label: label.into(),
                number,
                name,
                epoch: AtomicU32::new(0),
                fenced: AtomicBool::new(false),
                live: AtomicU32::new(0),
                doubt: Arc::clone(&doubt),
            })
        };
        let list = names.into_iter().enumerate().map(host).collect();
        Self {
            list,
            choice,
            book: Mutex::new(book),
            turn: AtomicUsize::new(0),
            trouble: Mutex::default(),
            usable: channel::Sender::new(true),
            news,
            doubt,
            left: Notify::new(),
        }
    }

    /// Others take their place, or nobody: who waits for something of theirs looks around.
    pub(crate) fn are_left(&self) {
        for waited_for in [&*self.news, &*self.doubt, &self.left] {
            waited_for.notify_one();
        }
    }

    /// Do connections lead to several hosts at the same time, or several addresses of one name?
    pub(crate) fn are_spread_over(&self) -> bool {
        let is_spread = |host: &Arc<Host>| host.name.known().len() > 1;
        self.choice.spread != LoadBalance::Disable
            && (self.list.len() > 1 || self.list.iter().any(is_spread))
    }

    /// Does anything depend on what hosts say of themselves?
    pub(crate) fn is_choosy(&self) -> bool {
        self.list.len() > 1
            || self.choice.watched == Watched::Always
            || self.choice.attrs != SessionAttrs::Any
            || self.choice.max_lag.is_some()
    }

    /// How often they are to be looked at.
    pub(crate) fn rhythm(&self) -> Duration {
        self.choice.rhythm
    }

    pub(crate) fn list(&self) -> &[Arc<Host>] {
        &self.list
    }

    /// A connection to a host that fits, logged in: hosts are tried in order, those in trouble
    /// last.
    pub(crate) async fn connect(
        &self,
        targets: &[Target],
        patience: Duration,
        login: &Login<'_>,
    ) -> Result<Server, ServerFailure> {
        let mut second_best = None;
        let mut told = Vec::new();
        for number in self.order() {
            let found = (self.list.get(number), targets.get(number));
            let (Some(host), Some(target)) = found else { continue };
            match self.try_host(host, target, patience, login).await {
                Ok((server, Fit::Wanted)) => {
                    *self.trouble.lock() = Outage::default();
                    return Ok(server);
                }
                Ok((server, Fit::Acceptable | Fit::Not)) => {
                    second_best.get_or_insert(server);
                }
                // Another host would say the same, as in libpq.
                Err(failure) if is_about_us(&failure) => return Err(failure),
                Err(failure) => told.push((Arc::clone(&host.label), failure)),
            }
        }
        if let Some(server) = second_best {
            *self.trouble.lock() = Outage::default();
            return Ok(server);
        }
        Err(self.none_fits(told))
    }

    fn reach<'a>(&self, host: &'a Host, patience: Duration) -> Reach<'a> {
        Reach { name: &host.name, spread: self.choice.spread, patience }
    }

    fn order(&self) -> Vec<usize> {
        let mut order: Vec<_> = (0..self.list.len()).collect();
        match self.choice.spread {
            LoadBalance::Disable => {}
            LoadBalance::Random => shuffle(&mut order),
            LoadBalance::RoundRobin => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                order.rotate_left(turn % self.list.len().max(1));
            }
        }
        self.book.lock().sort(&mut order, time::now());
        order
    }

    /// A connection to `host`, if it fits.
    async fn try_host(
        &self,
        host: &Arc<Host>,
        target: &Target,
        patience: Duration,
        login: &Login<'_>,
    ) -> Result<(Server, Fit), ServerFailure> {
        let (epoch, vanishings) = (host.epoch.load(Ordering::Acquire), host.name.vanishings());
        let attempt = async {
            let mut server = target.connect(&self.reach(host, patience), login).await?;
            let findings = self.ask(&mut server).await?;
            Ok((server, findings))
        };
        let attempt = match self.list.len() {
            // The pool has a limit of its own for what it opens.
            1 => attempt.await,
            _ => {
                time::timeout(patience, attempt).await.unwrap_or_else(|_| Err(timed_out(patience)))
            }
        };
        let (mut server, findings) = match attempt {
            Ok(answered) => answered,
            Err(failure) => {
                self.host_failed(host, &failure);
                return Err(failure);
            }
        };
        let role = findings.role;
        match self.found(host, findings) {
            Verdict::Use(fit) => {
                host.live.fetch_add(1, Ordering::Relaxed);
                let (host, address) = (Arc::clone(host), server.key.door.address.clone());
                server.berth = Some(Berth { host, address, epoch, vanishings, role });
                Ok((server, fit))
            }
            Verdict::Refuse(trouble) => Err(ServerFailure::Unfit(unfit(trouble, role))),
        }
    }

    /// What `server` says of itself, as far as it matters.
    async fn ask(&self, server: &mut Server) -> Result<Findings, ServerFailure> {
        let mut findings = Findings { role: None, history: None, lag: None };
        if !self.is_choosy() {
            findings.role = Role::reported(&server.settings);
            return Ok(findings);
        }
        findings.role = Role::of_server(server).await?;
        match findings.role {
            Some(Role::Primary | Role::ReadOnlyPrimary)
                if self.choice.attrs.asks_primaries_for_history() && self.list.len() > 1 =>
            {
                findings.history = willing(server.ask(HISTORY).await)?.as_deref().and_then(history);
            }
            Some(Role::Standby) if self.choice.max_lag.is_some() => {
                let lag = willing(server.ask(LAG).await)?;
                let lag = lag.and_then(|lag| lag.parse::<i64>().ok());
                findings.lag = lag.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0)));
            }
            Some(_) | None => {}
        }
        Ok(findings)
    }

    /// Waits for a doubt about any host.
    pub(crate) async fn doubted(&self) {
        self.doubt.notified().await;
    }

    /// Logs in to host `number` only to see what it is.
    pub(crate) async fn look(
        &self,
        number: usize,
        target: &Target,
        patience: Duration,
        login: &Login<'_>,
    ) {
        let Some(host) = self.list.get(number) else { return };
        let attempt = async {
            let mut server = target.connect(&self.reach(host, patience), login).await?;
            self.ask(&mut server).await
        };
        let seen = time::timeout(patience, attempt);
        match seen.await.unwrap_or_else(|_| Err(timed_out(patience))) {
            Ok(findings) => {
                let _verdict = self.found(host, findings);
            }
            Err(failure) => self.host_failed(host, &failure),
        }
    }

    fn host_failed(&self, host: &Host, failure: &ServerFailure) {
        if is_about_us(failure) {
            return;
        }
        let trouble = if is_full(failure) { Trouble::Full } else { Trouble::Down };
        let mut book = self.book.lock();
        let consequences = book.failed(host.number, trouble, time::now());
        self.tell_use(&book);
        drop(book);
        self.carry_out(&consequences);
    }

    fn found(&self, host: &Host, findings: Findings) -> Verdict {
        let mut book = self.book.lock();
        let (verdict, consequences) = book.found(host.number, findings, time::now());
        self.tell_use(&book);
        drop(book);
        self.carry_out(&consequences);
        verdict
    }

    fn carry_out(&self, consequences: &[Consequence]) {
        for consequence in consequences {
            let (number, fences) = match *consequence {
                Consequence::Replace(number) => (number, None),
                Consequence::Fence(number) => (number, Some(true)),
                Consequence::Release(number) => (number, Some(false)),
            };
            let Some(host) = self.list.get(number) else { continue };
            host.epoch.fetch_add(1, Ordering::Release);
            if let Some(fenced) = fences {
                host.fenced.store(fenced, Ordering::Release);
            }
            match consequence {
                Consequence::Replace(_) if host.live.load(Ordering::Relaxed) > 0 => {
                    tracing::info!(host = %host.label, "connections to this host are replaced");
                }
                Consequence::Replace(_) => {}
                Consequence::Fence(_) => tracing::warn!(
                    host = %host.label,
                    "this host claims to be the primary, and another one has replaced it: \
                     nothing more is sent there"
                ),
                Consequence::Release(_) => {
                    tracing::info!(host = %host.label, "this host may be used again");
                }
            }
            self.news.notify_one();
        }
    }

    /// Does the connection at `berth` still lead where it should?
    pub(crate) fn is_current(&self, berth: &mut Berth) -> bool {
        let host = &berth.host;
        if host.epoch.load(Ordering::Acquire) != berth.epoch {
            return false;
        }
        let vanishings = host.name.vanishings();
        if vanishings != berth.vanishings {
            if !host.name.known().contains(&berth.address) {
                return false;
            }
            berth.vanishings = vanishings;
        }
        true
    }

    /// The server at `berth` has said something new of its role.
    pub(crate) fn hear(&self, berth: &mut Berth, role: Option<Role>) {
        let is_standby = |role| role == Some(Role::Standby);
        if role.is_some() && is_standby(role) != is_standby(berth.role) {
            berth.role = role;
            tracing::info!(
                host = %berth.host.label, role = role.map_or("unknown", Role::name),
                "the role of this host has changed"
            );
            let _verdict = self.found(&berth.host, Findings { role, history: None, lag: None });
        }
        self.look_soon();
    }

    /// Something is not as it was: the hosts are looked at.
    pub(crate) fn look_soon(&self) {
        self.doubt.notify_one();
    }

    /// Others take their place: who waits for news of them should ask again whose.
    pub(crate) fn retire(&self) {
        self.news.notify_one();
        self.doubt.notify_one();
    }

    /// By hand: all hosts are judged anew.
    pub(crate) fn forget(&self) {
        let mut book = self.book.lock();
        book.forget();
        self.tell_use(&book);
        drop(book);
        for host in &self.list {
            host.fenced.store(false, Ordering::Release);
        }
        self.look_soon();
    }

    fn none_fits(&self, mut told: Vec<(Arc<str>, ServerFailure)>) -> ServerFailure {
        self.look_soon();
        let lasts = self.trouble.lock().lasts(time::now());
        match told.as_slice() {
            [(_, failure)] if !matches!(failure, ServerFailure::Unfit(_)) => {
                return told.remove(0).1;
            }
            several if !several.is_empty() && several.iter().all(|(_, f)| is_full(f)) => {
                return told.remove(0).1;
            }
            _ => {}
        }
        let each: Vec<_> = told.iter().map(|(host, why)| format!("{host}: {why}")).collect();
        let why = format!("no host can be used: {}", each.join("; "));
        // Who wants a replica does not wait for one: there may be none for long.
        let moves = matches!(
            self.choice.attrs,
            SessionAttrs::Any | SessionAttrs::ReadWrite | SessionAttrs::Primary
        );
        match moves && self.choice.watched == Watched::IfChoosy && lasts < MOVE_PATIENCE {
            true => ServerFailure::Moving(why),
            false => ServerFailure::Unfit(why),
        }
    }

    fn tell_use(&self, book: &Book) {
        let usable = book.is_usable();
        self.usable.send_if_modified(|told| std::mem::replace(told, usable) != usable);
    }

    /// Is there a host that can be used, as far as anybody knows?
    pub(crate) fn is_usable(&self) -> bool {
        *self.usable.borrow()
    }

    /// Ends when there is none.
    pub(crate) async fn unusable(&self) {
        let mut told = self.usable.subscribe();
        // It lasts as long as the hosts, which are borrowed.
        drop(told.wait_for(|usable| !usable).await);
    }

    /// One picture.
    pub(crate) fn snapshot(&self, server: &str) -> HostsSnapshot {
        let book = self.book.lock();
        let hosts = self.list.iter().zip(&book.hosts).map(|(host, known)| HostSnapshot {
            host: host.label.to_string(),
            addresses: host.name.known().iter().map(ToString::to_string).collect(),
            role: known.role.map_or("unknown", Role::name),
            state: known.trouble.map_or("up", |(trouble, _)| trouble.name()),
            timeline: known.timeline,
            lag_seconds: known.lag.map(|lag| lag.as_secs_f64()),
            connections: host.live.load(Ordering::Relaxed),
            dns_changes: host.name.changes(),
        });
        HostsSnapshot {
            server: server.to_owned(),
            hosts: hosts.collect(),
            usable: book.is_usable(),
            failovers: book.failovers,
            fenced: book.fenced,
        }
    }
}

/// Would another host of the same cluster say the same?
fn is_about_us(failure: &ServerFailure) -> bool {
    match failure {
        ServerFailure::Refused(said) => {
            !matches!(said.code.as_str(), "53300" | "57P01" | "57P02" | "57P03")
        }
        ServerFailure::Auth(_) => true,
        ServerFailure::Io(_)
        | ServerFailure::Protocol(_)
        | ServerFailure::Tls(_)
        | ServerFailure::Unfit(_)
        | ServerFailure::Moving(_) => false,
    }
}

fn is_full(failure: &ServerFailure) -> bool {
    matches!(failure, ServerFailure::Refused(said) if said.code == "53300")
}

fn timed_out(patience: Duration) -> ServerFailure {
    ServerFailure::Io(io::Error::new(
        io::ErrorKind::TimedOut,
        format!("no login within {patience:?}"),
    ))
}

fn unfit(trouble: Trouble, role: Option<Role>) -> String {
    match (trouble, role) {
        (Trouble::Stale, _) => "a primary that another has replaced".into(),
        (Trouble::Behind, _) => "a standby too far behind".into(),
        (_, Some(role)) => format!("it is a {}", role.name()),
        (_, None) => "it does not say what it is".into(),
    }
}

/// A server that will not say it, is not asked too much of.
fn willing(answer: Result<Option<String>, ServerFailure>) -> Result<Option<String>, ServerFailure> {
    match answer {
        Err(ServerFailure::Refused(said)) => {
            tracing::debug!(error = said.text, "a server does not say what it is asked");
            Ok(None)
        }
        answer => answer,
    }
}

fn history(answer: &str) -> Option<History> {
    let (cluster, timeline) = answer.split_once(' ')?;
    let timeline = u32::from_str_radix(timeline, 16).ok()?;
    Some(History { cluster: cluster.to_owned(), timeline })
}

#[cfg(test)]
mod tests;
