//! What a configuration comes to: the servers with their pools, the databases that lead to
//! them, and the proofs that users give.
//!
//! A plan never changes; a reload makes the next one, which takes over the pools of servers
//! that keep their names. A client takes the plan in force when it logs in, and the next one
//! when it rests ([`crate::session`]).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use forebay_pool::{Roster, timetable};

use super::SettingsError;
use super::additions;
use super::backend::{Carried, Draft, classes};
use super::lookups::{self, lookups};
use super::pairs::Pairs;
use super::reload::Changes;
use crate::auth::{self, Authentication};
use crate::cancel::fleet::Fleet;
use crate::census::Census;
use crate::console::Door;
use crate::replicas::Replicas;
use crate::route::Backend;
use crate::server::connector::Identity;
use crate::settings::{
    DatabaseSettings, PoolMode, PostgresSettings, ReplicaSettings, ServerSettings,
};
use crate::tls::{ClientSide, Encryption, Fresh};

/// The process id of a client's key names its instance, and has room for so many clients.
const MOST_CLIENTS_IN_FLEET: u32 = 100_000;

/// A configuration that is carried out.
pub(crate) struct Plan {
    pub(crate) settings: PostgresSettings,
    pub(crate) tls: Option<Arc<Fresh<ClientSide>>>,
    pub(crate) fleet: Fleet,
    pub(super) backends: BTreeMap<String, Arc<Backend>>,
    routes: Routes,
    pub(crate) auth: Authentication,
    default_tenant: Option<Arc<str>>,
}

/// Where the work of a client goes.
pub(crate) struct Route {
    pub(crate) backend: Arc<Backend>,
    /// Whose connections it takes.
    pub(crate) identity: Identity,
    pub(crate) mode: PoolMode,
}

/// What is behind a database name.
#[derive(Clone)]
struct Behind {
    backend: Arc<Backend>,
    /// Its name on the server. `None`: the same.
    database: Option<Arc<str>>,
    /// The user of all its connections. `None`: the client's.
    user: Option<Arc<str>>,
    mode: Option<PoolMode>,
}

/// Database names and what is behind them.
#[derive(Default)]
struct Routes {
    named: HashMap<String, Behind>,
    /// Behind every other name.
    others: Option<Behind>,
}

impl Plan {
    /// Carries `settings` out: reads secrets and certificates, makes a pool for each server that
    /// is new, and changes those that run `before`. Inside a runtime.
    ///
    /// # Errors
    /// The first setting that cannot be carried out, or secret that cannot be read; nothing
    /// has changed then.
    pub(super) fn new(
        settings: PostgresSettings,
        roster: &Arc<Roster>,
        pairs: &Arc<Pairs>,
        census: &Arc<Census>,
        default_tenant: Option<Arc<str>>,
        before: Option<&Self>,
    ) -> Result<(Self, Changes), SettingsError> {
        if let Some(first) = check(&settings).into_iter().next() {
            return Err(first);
        }
        let tls = settings.tls.as_ref().map(ClientSide::following).transpose();
        let tls = tls.map_err(|reason| SettingsError { at: "postgres.tls".into(), reason })?;
        let tls = tls.flatten();
        let fleet = settings.fleet.as_ref().map(Fleet::new).transpose();
        let fleet = fleet.map_err(|(key, reason)| of_fleet(&key, reason))?.unwrap_or_default();
        let auth = Authentication::new(&settings, before.map(|before| &before.auth))?;
        let servers = settings.servers.iter();
        let drafts = servers
            .map(|(name, server)| {
                Ok((name, Draft::new(name, server, &settings, auth.secrets(), pairs, census)?))
            })
            .collect::<Result<Vec<_>, SettingsError>>()?;
        // Nothing fails from here on.
        let mut changes = Changes::between(before.map(|before| &before.settings), &settings);
        let (mut backends, mut with_replicas) = (BTreeMap::new(), Vec::new());
        for (name, draft) in drafts {
            let running = before.and_then(|before| before.backends.get(name));
            let backend = match draft.carry_out(running.map(|backend| &**backend)) {
                Carried::Opened(backend) => {
                    backend.pool.join(roster);
                    changes.opened.push(name.clone());
                    backend
                }
                Carried::Kept(backend) => backend,
                Carried::Reconnected(backend) => {
                    changes.reconnected.push(name.clone());
                    backend
                }
            };
            match settings.servers.get(name).and_then(|server| server.replicas.as_ref()) {
                Some(replicas) => with_replicas.push((name.clone(), backend, replicas)),
                None => drop(backends.insert(name.clone(), Arc::new(backend))),
            }
        }
        for (name, mut backend, replicas) in with_replicas {
            backend.replicas = Replicas::new(replicas, &backend, &backends);
            backends.insert(name, Arc::new(backend));
        }
        let routes = routes(&settings, &backends);
        let lookups = lookups(&settings, &auth, &|database| {
            let behind = routes.behind(database)?;
            let there = behind.database.clone().unwrap_or_else(|| Arc::from(database));
            Some((Arc::clone(&behind.backend), there))
        });
        let auth = auth.looking_up(lookups);
        let plan = Self { settings, tls, fleet, backends, routes, auth, default_tenant };
        Ok((plan, changes))
    }

    /// Warms what is known before anybody asks: configured databases of configured users.
    pub(super) fn warm_up(&self) {
        for (name, behind) in &self.routes.named {
            if let Some(user) = &behind.user {
                let identity = behind.identity(name, user);
                behind.backend.pool.warm_up([identity.clone()]);
                behind.backend.pool.review_one(&identity);
                continue;
            }
            let access = behind.backend.pool.connector().access();
            let users = self.settings.users.keys();
            // Of a verifier alone nobody can log in: its clients bring what is missing.
            let users = users.filter(|user| {
                access.credentials.contains_key(user.as_str()) && !self.auth.needs_its_client(user)
            });
            behind.backend.pool.warm_up(users.map(|user| behind.identity(name, user)));
        }
    }

    /// Parts with connections of databases and users that are served no more.
    pub(super) fn part_with_others(&self) {
        for backend in self.backends.values() {
            backend.pool.keep(|identity| {
                let behind = self
                    .routes
                    .behind(&identity.name)
                    .filter(|behind| behind.backend.leads_to(backend) && behind.leads_to(identity));
                let may_know = || self.auth.may_know(&identity.user);
                behind.is_some_and(|behind| behind.user.is_some() || may_know())
            });
        }
    }

    /// Does `user` keep its session under this plan, having had it under `before`?
    pub(crate) fn keeps_user(&self, user: &str, before: &Self) -> bool {
        !before.auth.lists(user) || self.auth.may_know(user)
    }

    /// May applications ask for `database`?
    pub(crate) fn has(&self, database: &str) -> bool {
        self.routes.behind(database).is_some()
    }

    /// Where the work of `user` goes that asks for `database`.
    pub(crate) fn route(&self, database: &str, user: &str) -> Option<Route> {
        let behind = self.routes.behind(database)?;
        let identity = behind.identity(database, user);
        let of_user = self.settings.users.get(&*identity.user).and_then(|user| user.pool_mode);
        Some(Route {
            backend: Arc::clone(&behind.backend),
            identity,
            mode: of_user.or(behind.mode).unwrap_or(self.settings.pool_mode),
        })
    }

    /// The server behind `database`, and its name there.
    pub(crate) fn behind(&self, database: &str) -> Option<(String, Arc<str>)> {
        let behind = self.routes.behind(database)?;
        let is_behind =
            |(_, backend): &(&String, &Arc<Backend>)| Arc::ptr_eq(backend, &behind.backend);
        let (server, _) = self.backends.iter().find(is_behind)?;
        let name = behind.database.as_ref().map_or_else(|| Arc::from(database), Arc::clone);
        Some((server.clone(), name))
    }

    /// How `database` pools, where its users say nothing else.
    pub(crate) fn mode_of(&self, database: &str) -> PoolMode {
        let own = self.routes.behind(database).and_then(|behind| behind.mode);
        own.unwrap_or(self.settings.pool_mode)
    }

    /// How many connections `server` may have.
    pub(crate) fn budget(&self, server: &str) -> Option<u32> {
        Some(self.backends.get(server)?.pool.snapshot().budget)
    }

    /// The tenant whose requests a user's work belongs to.
    pub(crate) fn tenant(&self, user: &str) -> Option<Arc<str>> {
        let own = self.settings.users.get(user).and_then(|user| user.tenant.as_deref());
        own.map(Arc::from).or_else(|| self.default_tenant.clone())
    }
}

impl Routes {
    fn behind(&self, database: &str) -> Option<&Behind> {
        self.named.get(database).or(self.others.as_ref())
    }
}

impl Behind {
    /// Whose connections `user` takes who asks for `name`.
    fn identity(&self, name: &str, user: &str) -> Identity {
        let name = Arc::from(name);
        Identity {
            database: self.database.as_ref().map_or_else(|| Arc::clone(&name), Arc::clone),
            user: self.user.as_ref().map_or_else(|| Arc::from(user), Arc::clone),
            name,
        }
    }

    /// Does it lead to `identity`, whoever the client is?
    fn leads_to(&self, identity: &Identity) -> bool {
        let database = self.database.as_ref().unwrap_or(&identity.name);
        *database == identity.database
            && self.user.as_ref().is_none_or(|user| *user == identity.user)
    }
}

fn routes(settings: &PostgresSettings, backends: &BTreeMap<String, Arc<Backend>>) -> Routes {
    let mut routes = Routes::default();
    for (name, database) in &settings.databases {
        // That there is one was checked.
        let Ok(server) = server_of(settings, database.server.as_deref()) else { continue };
        let Some(backend) = backends.get(server) else { continue };
        let behind = Behind {
            backend: Arc::clone(backend),
            database: database.database.as_deref().map(Arc::from),
            user: database.force_user.as_deref().map(Arc::from),
            mode: database.pool_mode,
        };
        if name == DatabaseSettings::ALL_OTHERS {
            routes.others = Some(behind);
        } else {
            routes.named.insert(name.clone(), behind);
        }
    }
    if settings.databases.is_empty() {
        let only = server_of(settings, None).ok().and_then(|only| backends.get(only));
        routes.others = only.map(|only| Behind {
            backend: Arc::clone(only),
            database: None,
            user: None,
            mode: None,
        });
    }
    routes
}

/// What cannot be carried out of `settings`, found without opening a connection; files of
/// certificates are read, secrets are not.
pub(super) fn check(settings: &PostgresSettings) -> Vec<SettingsError> {
    let error = |at: String, reason: String| SettingsError { at, reason };
    let mut wrong = Vec::new();
    if settings.servers.is_empty() {
        let reason = "no server: add [postgres.servers.NAME] with its `address`";
        wrong.push(error("postgres.servers".into(), reason.into()));
    }
    let tuning = settings.check_tuning();
    wrong.extend(tuning.err().map(|(key, reason)| error(format!("postgres.{key}"), reason)));
    wrong.extend(auth::check(settings).err());
    wrong.extend(lookups::check(settings).err());
    if let Some(client_tls) = &settings.tls {
        let made = ClientSide::new(client_tls);
        wrong.extend(made.err().map(|reason| error("postgres.tls".into(), reason)));
    }
    if let Some(fleet) = &settings.fleet {
        wrong.extend(Fleet::check(fleet).err().map(|(key, reason)| of_fleet(&key, reason)));
        if settings.max_clients > MOST_CLIENTS_IN_FLEET {
            let reason =
                format!("an instance of a fleet has names for {MOST_CLIENTS_IN_FLEET} clients");
            wrong.push(error("postgres.max_clients".into(), reason));
        }
    }
    for (name, server) in &settings.servers {
        let found = check_server(name, server, settings).into_iter();
        let place = |(key, reason)| error(format!("postgres.servers.{name}.{key}"), reason);
        wrong.extend(found.map(place));
    }
    for (name, database) in &settings.databases {
        if Door::of(name).is_some() {
            let reason = format!("`{name}` is the console: choose another name");
            wrong.push(error(format!("postgres.databases.{name}"), reason));
        }
        wrong.extend(additions::parameters(name, database).err());
        let at = format!("postgres.databases.{name}.server");
        let server = server_of(settings, database.server.as_deref());
        wrong.extend(server.err().map(|reason| error(at, reason)));
    }
    if settings.databases.is_empty() && !settings.servers.is_empty() {
        let only = server_of(settings, None);
        wrong.extend(only.err().map(|reason| error("postgres.databases".into(), reason)));
    }
    wrong
}

/// What cannot be carried out of the server `name`: key and reason of each.
fn check_server(
    name: &str,
    server: &ServerSettings,
    settings: &PostgresSettings,
) -> Vec<(String, String)> {
    let mut wrong = Vec::new();
    wrong.extend(server.check_hosts().err());
    wrong.extend(Encryption::check(server).err().map(|(key, reason)| (key.into(), reason)));
    let classes = classes(server);
    if let Some(budget) = server.budget_of_classes() {
        let kept = forebay_pool::class::check(&classes, budget, server.ai_share);
        wrong.extend(kept.err().map(|reason| ("classes".into(), reason.to_string())));
    }
    if let Some(replicas) = &server.replicas {
        let there = check_replicas(replicas, name, settings);
        wrong.extend(there.err().map(|(key, reason)| (format!("replicas.{key}"), reason)));
    }
    wrong.extend(check_parking(server).err().map(|(key, reason)| (key.into(), reason)));
    for named in &server.name_unnamed {
        if !classes.iter().any(|(class, _)| class == named) {
            let reason = format!("there is no class `{named}` in `classes`");
            wrong.push(("name_unnamed".into(), reason));
        }
    }
    let windows = timetable::check(&server.timetable, &classes, server.ai_share);
    wrong.extend(windows.err().map(|wrong| (wrong.place(), wrong.reason)));
    wrong
}

fn of_fleet(key: &str, reason: String) -> SettingsError {
    SettingsError { at: format!("postgres.fleet.{key}"), reason }
}

/// Whether what parks can be proved to.
fn check_parking(server: &ServerSettings) -> Result<(), (&'static str, String)> {
    if !server.parks() {
        return Ok(());
    }
    if server.parking.connections == 0 {
        let reason = "a class parks: it takes a connection to look at its transactions from";
        return Err(("parking.connections", reason.into()));
    }
    if server.parking.proofs_per_second == 0 {
        let reason = "a class parks: without a proof nothing is parked, allow at least 1";
        return Err(("parking.proofs_per_second", reason.into()));
    }
    Ok(())
}

/// Which work goes to which replicas.
fn check_replicas(
    replicas: &ReplicaSettings,
    own: &str,
    settings: &PostgresSettings,
) -> Result<(), (&'static str, String)> {
    let there = match settings.servers.get(&replicas.server) {
        Some(_) if replicas.server == own => {
            return Err(("server", format!("`{own}` cannot stand for its own replicas")));
        }
        Some(there) if there.replicas.is_some() => {
            let reason = format!("`{}` has replicas itself", replicas.server);
            return Err(("server", reason));
        }
        Some(there) => there,
        None => {
            let reason =
                format!("no server is called `{0}`: add [postgres.servers.{0}]", replicas.server);
            return Err(("server", reason));
        }
    };
    let own = settings.servers.get(own);
    for class in &replicas.classes {
        for (server, what) in [(own, "this server"), (Some(there), replicas.server.as_str())] {
            let has = |server| classes(server).iter().any(|(name, _)| name == class);
            if !server.is_some_and(has) {
                return Err(("classes", format!("there is no class `{class}` in {what}")));
            }
        }
    }
    Ok(())
}

/// The server called `name`, or the only one.
fn server_of<'a>(settings: &'a PostgresSettings, name: Option<&str>) -> Result<&'a str, String> {
    let stands_for_replicas = |name: &str| {
        settings.servers.values().any(|s| s.replicas.as_ref().is_some_and(|r| r.server == name))
    };
    let known: Vec<_> = settings
        .servers
        .keys()
        .map(String::as_str)
        .filter(|known| name.is_some() || !stands_for_replicas(known))
        .collect();
    match (name, known.as_slice()) {
        (Some(name), known) => {
            known.iter().copied().find(|k| *k == name).ok_or_else(|| {
                format!("no server is called `{name}`: there are {}", known.join(", "))
            })
        }
        (None, [only]) => Ok(only),
        (None, known) => Err(format!(
            "there are several servers ({}): say which with `server`",
            known.join(", ")
        )),
    }
}
