//! `forebay run`: load, listen, serve, stop.
//!
//! Ports are bound before anything is opened, so a port that is taken is told at once; or they
//! are those of the process that runs already ([`crate::handover`]). The first SIGTERM or SIGINT lets running work finish until the deadline, the second does not;
//! SIGHUP reloads.

mod notify;
mod signals;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use forebay_http::HttpSettings;
use forebay_pool::Roster;
use forebay_pool::overlap::Overlaps;
use forebay_postgres::{Gateway, PostgresSettings};
use forebay_seam::net::{self, Address, Listener, Permissions, TcpListener};
use forebay_seam::task::{Spawner, Stopper};
use forebay_seam::time;

use crate::admin;
use crate::config::{Config, ConfigError, Loaded};
use crate::console;
use crate::events::Events;
use crate::handover::{Before, Estate};
use crate::log_limit;
use crate::logging::{self, Level};
use crate::pgbouncer::Overrides;
use crate::reload::{self, Record, Reloader, Rooms, Source};
use crate::suspects::Suspects;
use crate::system;
use crate::view::{VERSION, Viewer};

pub use signals::{Ender, Ending, Manners};

use signals::Signals;

/// What ends this process when another one takes over.
const TAKE_OVER: &str = "take-over";
/// The exit code of wrong usage or a wrong configuration.
pub const EXIT_USAGE: u8 = 2;
/// Longer than anybody waits.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// How long before the deadline what still runs is counted as cut off.
const LAST_LOOK: Duration = Duration::from_millis(50);
/// How often is looked whether clients have left.
const LOOK: Duration = Duration::from_millis(50);
/// How long tasks that were cut off may take to notice.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why the program could not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Nothing can be logged as the settings say.
    #[error(transparent)]
    Log(#[from] logging::LogError),
    /// A gateway cannot carry its settings out.
    #[error("{at}: {reason}")]
    Settings {
        /// Path of the key.
        at: String,
        /// What is wrong.
        reason: String,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address} (`{at}`): {source}{}", hint(source))]
    Listen {
        /// Path of the key.
        at: &'static str,
        /// The address.
        address: Address,
        /// The reason.
        source: io::Error,
    },
    /// The system gives no threads or signals.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

fn hint(error: &io::Error) -> &'static str {
    let kind = error.kind();
    if kind == io::ErrorKind::AddrInUse {
        "; stop the program that has it, or choose another port"
    } else if kind == io::ErrorKind::AddrNotAvailable {
        "; the address is none of this machine's"
    } else if kind == io::ErrorKind::PermissionDenied {
        "; ports below 1024 need a privilege, choose a higher one, and a Unix socket needs the \
         right to write in its folder"
    } else {
        ""
    }
}

impl RunError {
    /// The code to exit with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::Log(_) | Self::Settings { .. } => ExitCode::from(EXIT_USAGE),
            Self::Listen { .. } | Self::System(_) => ExitCode::FAILURE,
        }
    }
}

impl From<forebay_postgres::SettingsError> for RunError {
    fn from(error: forebay_postgres::SettingsError) -> Self {
        Self::Settings { at: error.at, reason: error.reason }
    }
}

impl From<forebay_http::SettingsError> for RunError {
    fn from(error: forebay_http::SettingsError) -> Self {
        Self::Settings { at: error.at, reason: error.reason }
    }
}

/// Runs the gateways that `file` configures, until a signal says stop.
///
/// # Errors
/// When it cannot start; nothing was served then.
pub fn run(file: &Path) -> Result<(), RunError> {
    let file = file.to_owned();
    run_from(Arc::new(move || Config::read(&file)))
}

/// Runs the gateways that `source` configures, until a signal says stop; reads it again for
/// each reload.
///
/// # Errors
/// When it cannot start; nothing was served then.
pub fn run_from(source: Source) -> Result<(), RunError> {
    let conduct = Conduct {
        manners: Manners::Forebay,
        before: Before::TakenOver,
        listening: Box::new(|| {}),
        overrides: None,
    };
    run_as(source, conduct)
}

/// What is not a matter of the configuration.
pub struct Conduct {
    /// What signals mean.
    pub manners: Manners,
    /// Whether another process may have the ports.
    pub before: Before,
    /// Called once all ports are open and what is behind them is ready, just before the process
    /// that had them before, if there was one, accepts no more.
    pub listening: Box<dyn FnOnce()>,
    /// What `SET` at the console changes, where it changes something.
    pub overrides: Option<Overrides>,
}

/// As [`run_from`], in the way that `conduct` says.
///
/// # Errors
/// When it cannot start; nothing was served then.
pub fn run_as(source: Source, conduct: Conduct) -> Result<(), RunError> {
    let Conduct { manners, before, listening, overrides } = conduct;
    let loaded = source()?;
    let config = &loaded.config;
    let level = logging::start(&config.log)?;
    let lines = level.lines();
    loaded.tell();
    let room = system::prepare(config);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(config.worker_threads.unwrap_or_else(workers));
    let runtime = builder.thread_name("forebay").enable_all().build()?;
    let mut estate = Estate::ask(&config.restart, before)?;
    let address = config.admin.listen;
    let inherited = estate.take("admin.listen", &address.to_string());
    let admin = admin::Server::bind(&config.admin, inherited).map_err(|source| {
        RunError::Listen { at: "admin.listen", address: address.into(), source }
    })?;
    let admin_address = admin.address()?;
    estate.leave("admin.listen", address.to_string(), &admin)?;
    let opening = async { Program::open(loaded, source, level, manners, overrides, estate) };
    let program = runtime.block_on(opening)?;
    if let (Some(room), Some((_, gateway))) = (room, &program.postgres) {
        gateway.set_room(room);
    }
    let (viewer, holds) = (program.viewer.clone(), program.viewer.clone());
    let (events, pools) = (program.events.clone(), program.pools.clone());
    let reloader = program.reloader.clone();
    let admin =
        admin.start(move || viewer.snapshot(), move || holds.holds(), events, pools, reloader)?;
    let mut admin = Some(admin);
    // A successor answers there from now on.
    let handed_over = || {
        if let Some(admin) = admin.take() {
            admin.stop();
        }
    };
    runtime.block_on(program.serve(admin_address, listening, handed_over));
    if let Some(admin) = admin {
        admin.stop();
    }
    runtime.shutdown_timeout(LAST_WORDS);
    lines.settle();
    Ok(())
}

/// One for two cores: docs/decisions.md has the figures.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
}

/// Everything that listens, and what is behind it.
struct Program {
    estate: Estate,
    signals: Signals,
    postgres: Option<(Vec<Listener>, Gateway)>,
    http: Option<(Vec<Listener>, forebay_http::Gateway)>,
    viewer: Viewer,
    events: Events,
    pools: admin::ByHand,
    reloader: Reloader,
}

impl Program {
    /// Binds all ports, then opens the gateways. Inside a runtime.
    fn open(
        loaded: Loaded,
        source: Source,
        level: Level,
        manners: Manners,
        overrides: Option<Overrides>,
        mut estate: Estate,
    ) -> Result<Self, RunError> {
        let signals = Signals::new(manners)?;
        let config = loaded.config.clone();
        // What the service manager has opened and HTTP does not name is PostgreSQL's.
        let http_listeners = config.http.as_ref().map(|h| bind_http(h, &mut estate)).transpose()?;
        let postgres_listeners =
            config.postgres.as_ref().map(|p| bind_postgres(p, &mut estate)).transpose()?;
        estate.open(&config.restart)?;

        let overlaps = Arc::new(Overlaps::default());
        let roster = Arc::new(Roster::default());
        let default_tenant = reload::default_tenant(&config);
        let postgres = config
            .postgres
            .map(|settings| {
                let (overlaps, roster) = (Arc::clone(&overlaps), Arc::clone(&roster));
                estate.furnish(settings, default_tenant, |settings, tenant| {
                    Gateway::new(settings, overlaps, roster, tenant)
                })
            })
            .transpose()?;
        let http = config
            .http
            .map(|settings| {
                let (overlaps, roster) = (Arc::clone(&overlaps), Arc::clone(&roster));
                forebay_http::Gateway::new(settings, overlaps, roster)
            })
            .transpose()?;
        let events = Events::gather(postgres.as_ref(), http.as_ref(), &overlaps);
        Spawner::current().spawn(log_limit::run(events.listen()));
        let record = Arc::<Record>::default();
        let lines = level.lines();
        let rooms =
            Rooms { postgres: postgres.clone(), http: http.clone(), events: events.clone(), level };
        let suspects = Arc::new(Suspects::new(Arc::clone(&overlaps)));
        events.follow_suspects(&suspects);
        let shared = Arc::clone(&suspects);
        let (served, called, told) = (postgres.clone(), http.clone(), Arc::clone(&record));
        let viewer = Viewer::new(served, called, shared, told, lines);
        let reloader = Reloader::new(source, loaded, rooms, record);
        Spawner::current().spawn(reload::watch(reloader.clone()));
        if let Some(gateway) = &postgres {
            Spawner::current().spawn(suspects.clone().watch(gateway.clone(), reloader.clone()));
            gateway.open_office(Arc::new(console::Program {
                viewer: viewer.clone(),
                overlaps,
                suspects: Arc::clone(&suspects),
                roster,
                recent: console::Program::remember(&events),
                reloader: reloader.clone(),
                postgres: postgres.clone(),
                http: http.clone(),
                ender: signals.ender(),
                overrides,
            }));
        }
        Ok(Self {
            estate,
            signals,
            viewer,
            reloader,
            events,
            pools: admin::ByHand::new(postgres.clone(), http.clone()),
            postgres: postgres_listeners.zip(postgres),
            http: http_listeners.zip(http),
        })
    }

    /// Serves until a signal or a successor, then drains.
    async fn serve(
        mut self,
        admin: SocketAddr,
        listening: Box<dyn FnOnce()>,
        handed_over: impl FnOnce(),
    ) {
        let gateway = self.postgres.as_ref().map(|(_, gateway)| gateway);
        let listening = || {
            listening();
            notify::ready();
        };
        self.estate.enter(&self.viewer, gateway, listening).await;
        let all = |listeners: &[Listener]| {
            let addresses = listeners.iter().filter_map(|listener| listener.address().ok());
            addresses.map(|address| address.to_string()).collect::<Vec<_>>().join(", ")
        };
        tracing::info!(
            version = VERSION,
            postgres = self.postgres.as_ref().map(|(listeners, _)| all(listeners)),
            http = self.http.as_ref().map(|(listeners, _)| all(listeners)),
            admin = %admin,
            "Forebay listens"
        );
        let (stopper, stop) = Stopper::new();
        // Who listens ends before the clients do, where those are waited for.
        let (closer, close) = Stopper::new();
        let spawner = Spawner::current();
        let postgres = self.postgres.take().map(|(listeners, gateway)| {
            for listener in listeners {
                let (serving, stop, close) = (gateway.clone(), stop.clone(), close.clone());
                spawner.spawn(async move {
                    serving.serve_until_closed(listener, close, stop).await;
                });
            }
            gateway
        });
        let http = self.http.take().map(|(listeners, gateway)| {
            for listener in listeners {
                let (serving, stop) = (gateway.clone(), stop.clone());
                spawner.spawn(async move { serving.serve(listener, stop).await });
            }
            gateway
        });

        let (signal, how) = tokio::select! {
            told = self.signals.stop(&self.reloader, postgres.as_ref()) => told,
            mut successor = self.estate.give_away(postgres.clone()) => {
                handed_over();
                if let (Some(gateway), Some(cancels)) = (postgres.clone(), successor.cancels()) {
                    let stop = stop.clone();
                    spawner.spawn(async move { gateway.serve(cancels, stop).await });
                }
                let (how, staying) = self.signals.when_handed_over();
                spawner.spawn(successor.keep_informed(postgres.clone(), staying));
                (TAKE_OVER, how)
            }
        };
        self.viewer.drains();
        if signal != TAKE_OVER {
            notify::stopping();
        }
        closer.stop();
        let how = match (how, &postgres) {
            (Ending::Drain | Ending::Now, _) | (_, None) => how,
            (_, Some(gateway)) => self.wait(signal, how, gateway).await,
        };
        stopper.stop();
        if how == Ending::Now {
            return tracing::info!(signal, "Forebay has stopped at once");
        }
        let before = Running::of(&self.viewer);
        let stop_timeout = self.reloader.stop_timeout();
        let deadline = time::now() + stop_timeout;
        tracing::info!(
            signal,
            clients = before.clients,
            leases = before.leases,
            stop_timeout = stop_timeout.as_secs_f64(),
            "stopping: running work may finish"
        );
        let drained = async {
            tokio::join!(
                async {
                    if let Some(gateway) = &postgres {
                        gateway.drain(deadline).await;
                    }
                },
                async {
                    if let Some(gateway) = &http {
                        gateway.drain(deadline).await;
                    }
                },
            )
        };
        // What the deadline cuts off is closed by the time the drain ends.
        let last_look = deadline.checked_sub(LAST_LOOK).unwrap_or(deadline);
        let mut cut_off = None;
        let mut drained = pin!(drained);
        let outcome = loop {
            tokio::select! {
                ((), ()) = &mut drained => break match cut_off {
                    Some(_) => "the deadline cut off what still ran",
                    None => "all work had finished",
                },
                () = time::sleep_until(last_look), if cut_off.is_none() => {
                    cut_off = Some(Running::of(&self.viewer));
                }
                _ = self.signals.stop(&self.reloader, postgres.as_ref()) => {
                    cut_off = Some(Running::of(&self.viewer));
                    break "a second signal cut off what still ran";
                }
            }
        };
        let cut_off = cut_off.unwrap_or_default();
        tracing::info!(
            outcome,
            clients = before.clients.saturating_sub(cut_off.clients),
            leases = before.leases.saturating_sub(cut_off.leases),
            clients_cut_off = cut_off.clients,
            leases_cut_off = cut_off.leases,
            "Forebay has stopped"
        );
    }

    /// Waits for clients or server connections, nobody new being let in; how to end then.
    async fn wait(&mut self, signal: &str, how: Ending, gateway: &Gateway) -> Ending {
        tracing::info!(signal, clients = gateway.snapshot().clients, "stopping: waiting for {how}");
        let over = async {
            match how {
                Ending::ServersReleased => signals::pause(gateway).await,
                Ending::Drain | Ending::Now | Ending::ClientsLeft | Ending::HandedOver => {
                    while gateway.snapshot().clients > 0 {
                        time::sleep(LOOK).await;
                    }
                }
            }
        };
        let (patience, then) = match how {
            Ending::HandedOver => (self.reloader.stop_timeout() / 2, Ending::Drain),
            Ending::Drain | Ending::Now | Ending::ServersReleased | Ending::ClientsLeft => {
                (FOR_EVER, Ending::Now)
            }
        };
        tokio::select! {
            () = over => then,
            () = time::sleep(patience) => then,
            _ = self.signals.stop(&self.reloader, Some(gateway)) => Ending::Now,
        }
    }
}

/// Everything that `[postgres]` listens at.
fn bind_postgres(
    settings: &PostgresSettings,
    estate: &mut Estate,
) -> Result<Vec<Listener>, RunError> {
    let permissions = Permissions {
        mode: settings.unix_socket_mode.0,
        group: settings.unix_socket_group.clone(),
    };
    let at = "postgres.listen";
    let given = estate.given(at)?;
    if !given.is_empty() {
        tracing::info!("listening at what the service manager has opened, not at `{at}`");
        return Ok(given);
    }
    let bind = if settings.reuse_port { net::bind_shared } else { net::bind };
    bind_all(at, settings.listen.addresses(), &permissions, bind, estate)
}

/// Everything that `[http]` listens at.
fn bind_http(settings: &HttpSettings, estate: &mut Estate) -> Result<Vec<Listener>, RunError> {
    let permissions = Permissions {
        mode: settings.unix_socket_mode.0,
        group: settings.unix_socket_group.clone(),
    };
    bind_all("http.listen", settings.listen.addresses(), &permissions, net::bind, estate)
}

fn bind_all(
    at: &'static str,
    addresses: &[Address],
    permissions: &Permissions,
    bind: fn(SocketAddr) -> io::Result<TcpListener>,
    estate: &mut Estate,
) -> Result<Vec<Listener>, RunError> {
    let bound = addresses.iter().map(|address| {
        let bound = match address {
            Address::Tcp(address) => estate.tcp(at, *address, bind).map(Listener::from),
            Address::Unix(path) => estate.unix(at, path, permissions).map(Listener::from),
        };
        bound.map_err(|source| RunError::Listen { at, address: address.clone(), source })
    });
    bound.collect()
}

/// What would be cut off if the program ended now.
#[derive(Default)]
struct Running {
    clients: u32,
    leases: u32,
}

impl Running {
    fn of(viewer: &Viewer) -> Self {
        let snapshot = viewer.snapshot();
        let (postgres, http) = (snapshot.postgres.as_ref(), snapshot.http.as_ref());
        let pools =
            postgres.iter().flat_map(|p| &p.pools).chain(http.iter().flat_map(|h| &h.pools));
        Self {
            clients: postgres.map_or(0, |p| p.clients) + http.map_or(0, |h| h.clients),
            leases: pools.map(|pool| pool.leased).sum(),
        }
    }
}
