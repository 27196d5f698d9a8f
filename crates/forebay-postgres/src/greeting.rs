//! From a client's first byte to the end of its authentication: startup, TLS, cancel
//! requests, and the proof of who it is.
//!
//! The order is fixed by types: bytes → [`First`] → startup → proven → [`Who`]. Nothing that
//! a client says is applied before it has proved who it is.

mod opening;

use std::sync::Arc;

use bytes::BytesMut;
use forebay_seam::net::{Peer, Socket};
use forebay_seam::time::{self, Instant};

use crate::auth::conversation::{Conversation, Failure};
use crate::auth::hba::{Replicates, Wish};
use crate::auth::{Caller, Proven};
use crate::cancel::key::{Form, Request};
use crate::comings::Claim;
use crate::console::{self, Door, Rank, Visitor};
use crate::fault::Fault;
use crate::gateway::{Inner, Plan};
use crate::own::Own;
use crate::params::{Settings, is_fact};
use crate::replication::Parameters;
use crate::route::Who;
use crate::settings::PoolMode;
use crate::stream::Stream;
use crate::timeouts::Kind;
use crate::wire::backend;
use crate::wire::startup::{self, Startup};
use opening::Start;

/// What came out of a greeting.
pub(crate) enum Greeted {
    In(Box<Arrival>),
    /// Wants to speak to us and not to a server.
    Visits(Box<Visitor>),
    /// A cancel request: no session. Its client waits for the end of the connection, which
    /// says that the request was dealt with.
    Cancel {
        client: Stream,
        request: Request,
    },
    /// Nobody there, or gone again.
    Gone,
    /// Told why not; the reason is still to be written.
    Refused {
        client: Stream,
        outbox: BytesMut,
        claim: Claim,
        fault: Fault,
    },
}

/// A client that has proved who it is.
pub(crate) struct Arrival {
    pub(crate) client: Stream,
    pub(crate) inbox: BytesMut,
    /// The configuration in force when it came.
    pub(crate) plan: Arc<Plan>,
    pub(crate) who: Who,
    /// What it asked for at its start, without settings of ours.
    pub(crate) settings: Settings,
    /// Which keys for cancel requests it takes.
    pub(crate) keys: Form,
    /// Set for one that wants to replicate.
    pub(crate) replicates: Option<Parameters>,
}

/// For whom there is room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    ForAll,
    /// As many clients as may be are here: only who cancels may come, as with PostgreSQL.
    ForCancels,
}

/// When a greeting has to be over.
#[derive(Clone, Copy)]
struct Deadline(Instant);

impl Deadline {
    /// What `step` comes to, if it does in time.
    ///
    /// # Cancel safety
    /// `step` is dropped at the deadline.
    async fn keeps<T>(self, step: impl Future<Output = T>) -> Result<T, Fault> {
        let left = self.0.saturating_duration_since(time::now());
        time::timeout(left, step).await.map_err(|_| Fault::LoginTimeout)
    }
}

/// Greets a client that has just connected, within `login_timeout`.
pub(crate) async fn greet(gateway: &Inner, socket: Socket, from: Peer, room: Room) -> Greeted {
    let plan = gateway.plan();
    let deadline = Deadline(time::now() + plan.settings.login_timeout);
    let (inbox, outbox) = (BytesMut::new(), BytesMut::new());
    let mut greeting = Greeting { gateway, plan, deadline, inbox, outbox };
    let (mut client, startup) = match greeting.first(Stream::Plain(socket)).await {
        Ok(Start::Session(client, startup)) if room == Room::ForCancels => {
            return greeting.refuse(client, Claim::of(&startup), Fault::TooManyClients);
        }
        Ok(Start::Session(client, startup)) => (client, startup),
        Ok(Start::Cancel { client, request }) => return Greeted::Cancel { client, request },
        Ok(Start::Gone) => return Greeted::Gone,
        Err((client, fault)) => return greeting.refuse(client, Claim::default(), fault),
    };
    let keys = if startup.has_long_keys() { Form::Long } else { Form::Short };
    let identified = deadline.keeps(greeting.identify(&mut client, from, &startup)).await;
    match identified.unwrap_or_else(|late| Err(late.into())) {
        Ok(Identified::Operator { user, door, rank, application }) => {
            let Greeting { inbox, .. } = greeting;
            let visitor = Visitor { client, inbox, user, door, rank, application, keys };
            Greeted::Visits(Box::new(visitor))
        }
        Ok(Identified::Application(who, settings)) => {
            let Greeting { inbox, plan, .. } = greeting;
            let wants = startup.wants_replication() == Ok(true);
            let replicates = wants.then(|| startup.into_parameters());
            Greeted::In(Box::new(Arrival { client, inbox, plan, who, settings, keys, replicates }))
        }
        Err(Failure::Fault(fault)) => greeting.refuse(client, Claim::of(&startup), fault),
        Err(Failure::Gone) => Greeted::Gone,
    }
}

/// Who has proved to be whom they say.
enum Identified {
    Application(Who, Settings),
    Operator { user: Arc<str>, door: Door, rank: Rank, application: Arc<str> },
}

struct Greeting<'a> {
    gateway: &'a Inner,
    plan: Arc<Plan>,
    deadline: Deadline,
    inbox: BytesMut,
    outbox: BytesMut,
}

impl Greeting<'_> {
    fn refuse(self, client: Stream, claim: Claim, fault: Fault) -> Greeted {
        let Self { gateway, mut outbox, .. } = self;
        if let Fault::LoginTimeout = fault {
            gateway.timeouts.count(Kind::Login);
        }
        fault.write_at_login(&mut outbox);
        Greeted::Refused { client, outbox, claim, fault }
    }

    async fn identify(
        &mut self,
        client: &mut Stream,
        from: Peer,
        startup: &Startup,
    ) -> Result<Identified, Failure> {
        if let Some(version) = startup.negotiated() {
            let unknown: Vec<_> = startup.options.iter().map(String::as_bytes).collect();
            backend::negotiate_protocol_version(&mut self.outbox, version, &unknown);
        }
        let user = startup.get("user").filter(|user| !user.is_empty()).ok_or(Fault::NoUser)?;
        let database = startup.get("database").filter(|name| !name.is_empty()).unwrap_or(user);
        let replicates = match (startup.wants_replication(), startup.get("replication")) {
            (Ok(true), Some(value)) if value.eq_ignore_ascii_case("database") => {
                Replicates::Database
            }
            (Ok(true), _) => Replicates::Server,
            (Ok(false) | Err(_), _) => Replicates::No,
        };
        if let Some(door) = Door::of(database)
            && Door::of(user).is_some()
            && console::is_our_own(from)
        {
            // Whoever runs us may do what we do.
            return Ok(operator(user.into(), door, Rank::Admin, startup));
        }
        let wish = Wish { user, database, replicates };
        let caller = Caller::new(client, from);
        let (inbox, outbox) = (&mut self.inbox, &mut self.outbox);
        let mut talk = Conversation { client, inbox, outbox };
        let guard = &self.gateway.door;
        let proven = self.plan.auth.authenticate(guard, &caller, wish, &mut talk).await?;
        client.drain(&mut self.outbox).await.map_err(|_| Failure::Gone)?;
        if let Some(door) = Door::of(database) {
            let user = proven.user();
            let rank = Rank::of(user, &self.plan.settings);
            if rank == Rank::Nobody {
                let (user, database) = (user.to_string(), door.name());
                return Err(Fault::NoOperator { user, database }.into());
            }
            return Ok(operator(Arc::clone(user), door, rank, startup));
        }
        let (who, settings) = self.who(proven, database, from, startup)?;
        Ok(Identified::Application(who, settings))
    }

    /// What a client that has proved who it is wants.
    fn who(
        &self,
        mut proven: Proven,
        name: &str,
        from: Peer,
        startup: &Startup,
    ) -> Result<(Who, Settings), Fault> {
        let route = self.plan.route(name, proven.user());
        let route = route.ok_or_else(|| Fault::UnknownDatabase(name.to_owned()))?;
        if startup.wants_replication().map_err(Fault::ReplicationValue)?
            && route.mode == PoolMode::Transaction
        {
            return Err(Fault::ReplicationMode { database: name.to_owned() });
        }
        let mut settings = Settings::default();
        let options = startup.get("options").unwrap_or_default();
        for (name, value) in startup::options(options).map_err(Fault::StartupOption)? {
            settings.set(&name.to_ascii_lowercase(), &value);
        }
        for (name, value) in &startup.parameters {
            if !matches!(name.as_str(), "user" | "database" | "options" | "replication") {
                settings.set(&name.to_ascii_lowercase(), value);
            }
        }
        let own = Own::take_from(&mut settings)?;
        settings.retain(|name| !is_fact(name));
        // As PostgreSQL does: bytes that are no printable ASCII become question marks.
        let printable = |c| if (' '..='~').contains(&c) { c } else { '?' };
        let called = settings.get("application_name").map(|called| called.chars().map(printable));
        let called: Option<String> = called.map(|called| called.take(63).collect());
        let called = if self.plan.settings.application_name_add_host {
            Some(with_host(called.as_deref(), from))
        } else {
            called
        };
        if let Some(called) = &called {
            settings.set("application_name", called);
        }
        let user = Arc::clone(proven.user());
        let tenant = self.plan.tenant(&user);
        if let Some(proof) = proven.take_brought() {
            route.backend.bring(&user, &route.identity, proof);
        }
        let mut who = Who {
            database: Arc::clone(&route.identity.name),
            user,
            identity: route.identity,
            backend: route.backend,
            mode: route.mode,
            tenant,
            ruled: None,
            own,
            own_at_start: None,
            application: Arc::from(""),
        };
        who.own_starts();
        who.set_application_name(&called.unwrap_or_default());
        Ok((who, settings))
    }
}

/// What an application is called, with where it is, as PgBouncer writes it.
fn with_host(called: Option<&str>, from: Peer) -> String {
    let called: String = called.filter(|name| !name.is_empty()).unwrap_or("app").into();
    let called: String = called.chars().take(30).collect();
    match from {
        Peer::Tcp(address) => format!("{called} - {address}"),
        Peer::Unix { pid: Some(pid), .. } => format!("{called} - unix({pid})"),
        Peer::Unix { pid: None, .. } => format!("{called} - unix"),
    }
}

/// One who may be in the console.
fn operator(user: Arc<str>, door: Door, rank: Rank, startup: &Startup) -> Identified {
    let application = startup.get("application_name").unwrap_or_default();
    let application = application.chars().take(63).collect::<String>().into();
    Identified::Operator { user, door, rank, application }
}
