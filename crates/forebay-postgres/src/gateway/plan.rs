//! What a configuration comes to: the servers with their pools, the databases that lead to
//! them, and the proofs that users give.
//!
//! A plan never changes; a reload makes the next one, which takes over the pools of servers
//! that keep their names. A client takes the plan in force when it logs in, and the next one
//! when it rests ([`crate::session`]).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use forebay_pool::{ClassName, Roster, timetable};

use super::SettingsError;
use super::backend::{Carried, Draft, classes, hosts};
use super::lookups::{self, lookups};
use super::reload::Changes;
use crate::auth::{self, Authentication};
use crate::cancel::fleet::Fleet;
use crate::census::Census;
use crate::console::Door;
use crate::replicas::Replicas;
use crate::route::Backend;
use crate::server::connector::Identity;
use crate::server::place::Place;
use crate::settings::{PoolMode, PostgresSettings, ReplicaSettings, ServerSettings};
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

/// A database name and what is behind it.
pub(crate) struct Route {
    pub(crate) backend: Arc<Backend>,
    /// Its name on the server.
    pub(crate) database: Arc<str>,
    pub(crate) mode: PoolMode,
}

enum Routes {
    /// These names only.
    Named(HashMap<String, Route>),
    /// Every name, on one server.
    Any(Arc<Backend>),
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
        census: &Arc<Census>,
        default_tenant: Option<Arc<str>>,
        before: Option<&Self>,
    ) -> Result<(Self, Changes), SettingsError> {
        check(&settings)?;
        let tls = settings.tls.as_ref().map(ClientSide::following).transpose();
        let tls = tls.map_err(|reason| SettingsError { at: "postgres.tls".into(), reason })?;
        let tls = tls.flatten();
        let fleet = settings.fleet.as_ref().map(Fleet::new).transpose();
        let fleet = fleet.map_err(|(key, reason)| of_fleet(&key, reason))?.unwrap_or_default();
        let auth = Authentication::new(&settings, before.map(|before| &before.auth))?;
        let servers = settings.servers.iter();
        let drafts = servers
            .map(|(name, server)| {
                Ok((name, Draft::new(name, server, &settings, auth.secrets(), census)?))
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
            let Route { backend, database, .. } = routes.route(database, &settings)?;
            Some((backend, database))
        });
        let auth = auth.looking_up(lookups);
        let plan = Self { settings, tls, fleet, backends, routes, auth, default_tenant };
        Ok((plan, changes))
    }

    /// Warms what is known before anybody asks: configured databases of configured users.
    pub(super) fn warm_up(&self) {
        let Routes::Named(named) = &self.routes else { return };
        for route in named.values() {
            let access = route.backend.pool.connector().access();
            let users = self.settings.users.keys();
            // Of a verifier alone nobody can log in: its clients bring what is missing.
            let users = users.filter(|user| {
                access.credentials.contains_key(user.as_str()) && !self.auth.needs_its_client(user)
            });
            route.backend.pool.warm_up(users.map(|user| Identity {
                database: Arc::clone(&route.database),
                user: Arc::from(user.as_str()),
            }));
        }
    }

    /// Parts with connections of databases and users that are served no more.
    pub(super) fn part_with_others(&self) {
        for backend in self.backends.values() {
            backend.pool.keep(|identity| {
                let database = match &self.routes {
                    Routes::Named(named) => named.values().any(|route| {
                        route.database == identity.database && route.backend.leads_to(backend)
                    }),
                    Routes::Any(_) => true,
                };
                database && self.auth.may_know(&identity.user)
            });
        }
    }

    /// Does `user` keep its session under this plan, having had it under `before`?
    pub(crate) fn keeps_user(&self, user: &str, before: &Self) -> bool {
        !before.auth.lists(user) || self.auth.may_know(user)
    }

    pub(crate) fn route(&self, database: &str) -> Option<Route> {
        self.routes.route(database, &self.settings)
    }

    /// The server behind `database`, and its name there.
    pub(crate) fn behind(&self, database: &str) -> Option<(String, Arc<str>)> {
        let route = self.route(database)?;
        let is_behind =
            |(_, backend): &(&String, &Arc<Backend>)| Arc::ptr_eq(backend, &route.backend);
        let (server, _) = self.backends.iter().find(is_behind)?;
        Some((server.clone(), route.database))
    }

    /// What clients call `database` of `server`, where they do so by a name.
    pub(crate) fn called(&self, server: &str, database: &str) -> Option<&str> {
        let Routes::Named(named) = &self.routes else { return None };
        let backend = self.backends.get(server)?;
        let mut names: Vec<_> = named
            .iter()
            .filter(|(_, route)| {
                Arc::ptr_eq(&route.backend, backend) && &*route.database == database
            })
            .map(|(name, _)| name.as_str())
            .collect();
        names.sort_unstable();
        names.first().copied()
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
    fn route(&self, database: &str, settings: &PostgresSettings) -> Option<Route> {
        match self {
            Self::Named(named) => named.get(database).map(|route| Route {
                backend: Arc::clone(&route.backend),
                database: Arc::clone(&route.database),
                mode: route.mode,
            }),
            Self::Any(backend) => Some(Route {
                backend: Arc::clone(backend),
                database: Arc::from(database),
                mode: settings.pool_mode,
            }),
        }
    }
}

fn routes(settings: &PostgresSettings, backends: &BTreeMap<String, Arc<Backend>>) -> Routes {
    let mut named = HashMap::new();
    for (name, database) in &settings.databases {
        // That there is one was checked.
        let Ok(server) = server_of(settings, database.server.as_deref()) else { continue };
        let Some(backend) = backends.get(server) else { continue };
        let route = Route {
            backend: Arc::clone(backend),
            database: Arc::from(database.database.as_deref().unwrap_or(name)),
            mode: database.pool_mode.unwrap_or(settings.pool_mode),
        };
        named.insert(name.clone(), route);
    }
    match server_of(settings, None).ok().and_then(|only| backends.get(only)) {
        Some(only) if named.is_empty() => Routes::Any(Arc::clone(only)),
        _ => Routes::Named(named),
    }
}

/// Checks `settings` without opening a connection; files of certificates are read,
/// secrets are not.
///
/// # Errors
/// The first setting that cannot be carried out.
pub(super) fn check(settings: &PostgresSettings) -> Result<(), SettingsError> {
    let error = |at: String, reason: String| SettingsError { at, reason };
    if settings.servers.is_empty() {
        let reason = "no server: add [postgres.servers.NAME] with its `address`";
        return Err(error("postgres.servers".into(), reason.into()));
    }
    auth::check(settings)?;
    lookups::check(settings)?;
    if let Some(client_tls) = &settings.tls {
        ClientSide::new(client_tls).map_err(|reason| error("postgres.tls".into(), reason))?;
    }
    if let Some(fleet) = &settings.fleet {
        Fleet::check(fleet).map_err(|(key, reason)| of_fleet(&key, reason))?;
        if settings.max_clients > MOST_CLIENTS_IN_FLEET {
            let reason =
                format!("an instance of a fleet has names for {MOST_CLIENTS_IN_FLEET} clients");
            return Err(error("postgres.max_clients".into(), reason));
        }
    }
    for (name, server) in &settings.servers {
        let at = |key: &str| format!("postgres.servers.{name}.{key}");
        check_hosts(server).map_err(|(key, reason)| error(at(&key), reason))?;
        Encryption::check(server).map_err(|(key, reason)| error(at(key), reason))?;
        if let Some(budget) = server.budget {
            let classes = classes(server);
            forebay_pool::class::check(&classes, budget, server.ai_share)
                .map_err(|reason| error(at("classes"), reason.to_string()))?;
        }
        if let Some(replicas) = &server.replicas {
            check_replicas(replicas, name, settings)
                .map_err(|(key, reason)| error(at(&format!("replicas.{key}")), reason))?;
        }
        let known = classes(server);
        let unknown = |name: &&ClassName| !known.iter().any(|(class, _)| class == *name);
        if let Some(name) = server.name_unnamed.iter().find(unknown) {
            let reason = format!("there is no class `{name}` in `classes`");
            return Err(error(at("name_unnamed"), reason));
        }
        timetable::check(&server.timetable, &classes(server), server.ai_share)
            .map_err(|wrong| error(at(&wrong.place()), wrong.reason))?;
    }
    for (name, database) in &settings.databases {
        if Door::of(name).is_some() {
            let reason = format!("`{name}` is the console: choose another name");
            return Err(error(format!("postgres.databases.{name}"), reason));
        }
        let at = format!("postgres.databases.{name}.server");
        server_of(settings, database.server.as_deref()).map_err(|reason| error(at, reason))?;
    }
    if settings.databases.is_empty() {
        server_of(settings, None).map_err(|reason| error("postgres.databases".into(), reason))?;
    }
    Ok(())
}

fn of_fleet(key: &str, reason: String) -> SettingsError {
    SettingsError { at: format!("postgres.fleet.{key}"), reason }
}

/// Where its hosts are, and how they are chosen from.
fn check_hosts(server: &ServerSettings) -> Result<(), (String, String)> {
    match (server.address.is_empty(), server.hosts.is_empty()) {
        (true, true) => {
            let reason = "no `address`: write `host`, `host:port`, `[v6]:port` or the folder of \
                          a Unix socket, or several of them as `hosts`";
            return Err(("address".into(), reason.into()));
        }
        (false, false) => {
            let reason = "both `address` and `hosts`: put all of them into `hosts`";
            return Err(("hosts".into(), reason.into()));
        }
        (true, false) | (false, true) => {}
    }
    for (key, host) in hosts(server) {
        Place::parse(host).map_err(|reason| (key, reason))?;
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
