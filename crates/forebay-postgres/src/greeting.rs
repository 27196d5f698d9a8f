//! From a client's first byte to the end of its authentication: startup, TLS, cancel
//! requests, and the proof of who it is.
//!
//! The order is fixed by types: bytes → [`First`] → startup → proven → [`Who`]. Nothing that
//! a client says is applied before it has proved who it is.

use std::sync::Arc;

use bytes::{Buf, BytesMut};
use forebay_seam::net::Socket;

use crate::console::{Door, Rank, Visitor};
use crate::fault::{Fault, Limit};
use crate::gateway::{Inner, Plan};
use crate::own::Own;
use crate::params::{Settings, is_fact};
use crate::replication::Parameters;
use crate::route::Who;
use crate::scram::{self, Challenge, ScramError, Verifier};
use crate::server::connector::Identity;
use crate::settings::{ClientAuth, PoolMode};
use crate::stream::Stream;
use crate::wire::startup::{self, First, Startup};
use crate::wire::{Fields, HEADER, Header, Malformed, backend};

/// The longest SASL message that makes sense.
const LONGEST_SASL: usize = 4 * 1024;

/// What came out of a greeting.
pub(crate) enum Greeted {
    In(Box<Arrival>),
    /// Wants to speak to us and not to a server.
    Visits(Box<Visitor>),
    /// A cancel request: no session. Its client waits for the end of the connection, which
    /// says that the request was dealt with.
    Cancel {
        client: Stream,
        pid: i32,
        secret: i32,
    },
    /// Nobody there, or gone again.
    Gone,
    /// Told why not; the reason is still to be written.
    Refused {
        client: Stream,
        outbox: BytesMut,
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
    /// Set for one that wants to replicate.
    pub(crate) replicates: Option<Parameters>,
}

enum Failure {
    Fault(Fault),
    Io,
}

impl<T: Into<Fault>> From<T> for Failure {
    fn from(fault: T) -> Self {
        Self::Fault(fault.into())
    }
}

/// For whom there is room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    ForAll,
    /// As many clients as may be are here: only who cancels may come, as with PostgreSQL.
    ForCancels,
}

/// Greets a client that has just connected.
pub(crate) async fn greet(gateway: &Inner, socket: Socket, room: Room) -> Greeted {
    let mut greeting =
        Greeting { gateway, plan: gateway.plan(), inbox: BytesMut::new(), outbox: BytesMut::new() };
    let (mut client, startup) = match greeting.first(Stream::Plain(socket)).await {
        Ok(Start::Session(client, _)) if room == Room::ForCancels => {
            return greeting.refuse(client, Fault::TooManyClients);
        }
        Ok(Start::Session(client, startup)) => (client, startup),
        Ok(Start::Cancel { client, pid, secret }) => {
            return Greeted::Cancel { client, pid, secret };
        }
        Ok(Start::Gone) => return Greeted::Gone,
        Err((client, fault)) => return greeting.refuse(client, fault),
    };
    match greeting.identify(&mut client, &startup).await {
        Ok(Identified::Operator { user, door, rank, application }) => {
            let Greeting { inbox, .. } = greeting;
            Greeted::Visits(Box::new(Visitor { client, inbox, user, door, rank, application }))
        }
        Ok(Identified::Application(who, settings)) => {
            let Greeting { inbox, plan, .. } = greeting;
            let wants = startup.wants_replication() == Ok(true);
            let replicates = wants.then(|| startup.into_parameters());
            Greeted::In(Box::new(Arrival { client, inbox, plan, who, settings, replicates }))
        }
        Err(Failure::Fault(fault)) => greeting.refuse(client, fault),
        Err(Failure::Io) => Greeted::Gone,
    }
}

/// Who has proved to be whom they say.
enum Identified {
    Application(Who, Settings),
    Operator { user: Arc<str>, door: Door, rank: Rank, application: Arc<str> },
}

enum Start {
    Session(Stream, Startup),
    Cancel { client: Stream, pid: i32, secret: i32 },
    Gone,
}

struct Greeting<'a> {
    gateway: &'a Inner,
    plan: Arc<Plan>,
    inbox: BytesMut,
    outbox: BytesMut,
}

impl Greeting<'_> {
    fn refuse(self, client: Stream, fault: Fault) -> Greeted {
        let Self { mut outbox, .. } = self;
        fault.write_at_login(&mut outbox);
        Greeted::Refused { client, outbox, fault }
    }

    /// First packets, until one starts a session. TLS and GSS may each be asked for once.
    async fn first(&mut self, mut client: Stream) -> Result<Start, (Stream, Fault)> {
        for _ in 0..3 {
            let body = match self.packet(&mut client).await {
                Ok(Some(body)) => body,
                Ok(None) => return Ok(Start::Gone),
                Err(malformed) => return Err((client, malformed.into())),
            };
            let first = match startup::read(&body) {
                Ok(first) => first,
                Err(malformed) => return Err((client, malformed.into())),
            };
            match first {
                First::Cancel { pid, secret } => {
                    return Ok(Start::Cancel { client, pid, secret });
                }
                First::Unsupported { major, minor } => {
                    return Err((client, Fault::UnsupportedProtocol { major, minor }));
                }
                First::Startup(startup) => {
                    let settings = self.plan.settings.tls.as_ref();
                    let is_required = settings.is_some_and(|tls| tls.required);
                    if is_required && !client.is_encrypted() && !client.is_local() {
                        return Err((client, Fault::TlsRequired));
                    }
                    return Ok(Start::Session(client, startup));
                }
                First::Gss => {
                    // As behind a request for TLS: PostgreSQL refuses it, too.
                    if !self.inbox.is_empty() {
                        return Err((client, Malformed::Trailing(self.inbox.len()).into()));
                    }
                    if self.answer(&mut client, b'N').await.is_err() {
                        return Ok(Start::Gone);
                    }
                }
                First::Ssl => match self.encrypt(client).await {
                    Ok(Some(stream)) => client = stream,
                    Ok(None) => return Ok(Start::Gone),
                    Err(refused) => return Err(refused),
                },
            }
        }
        Err((client, Malformed::Value.into()))
    }

    async fn encrypt(&mut self, mut client: Stream) -> Result<Option<Stream>, (Stream, Fault)> {
        // What stands behind the request was sent in plaintext, and must not be read as part
        // of the encrypted session (CVE-2021-23214).
        if !self.inbox.is_empty() || client.is_encrypted() {
            return Err((client, Malformed::Trailing(self.inbox.len()).into()));
        }
        // Nobody listens in on a Unix socket; PostgreSQL has no TLS there, either.
        let Some(tls) = self.plan.tls.clone().filter(|_| !client.is_local()) else {
            return Ok(self.answer(&mut client, b'N').await.ok().map(|()| client));
        };
        if self.answer(&mut client, b'S').await.is_err() {
            return Ok(None);
        }
        let Stream::Plain(Socket::Tcp(tcp)) = client else { return Ok(None) };
        match Stream::accept(tcp, &tls).await {
            Ok(stream) => Ok(Some(stream)),
            Err(error) => {
                tracing::info!(%error, "TLS handshake with a client failed");
                Ok(None)
            }
        }
    }

    async fn answer(&mut self, client: &mut Stream, byte: u8) -> std::io::Result<()> {
        client.drain(&mut BytesMut::from(&[byte][..])).await
    }

    /// One packet without a tag; `None` when the client has gone.
    async fn packet(&mut self, client: &mut Stream) -> Result<Option<BytesMut>, Malformed> {
        loop {
            if let Some(length) = startup::length(&self.inbox)?
                && self.inbox.len() >= length
            {
                let mut packet = self.inbox.split_to(length);
                packet.advance(4);
                return Ok(Some(packet));
            }
            if client.fill_more(&mut self.inbox).await.is_err() {
                return Ok(None);
            }
        }
    }

    async fn identify(
        &mut self,
        client: &mut Stream,
        startup: &Startup,
    ) -> Result<Identified, Failure> {
        if startup.minor > 0 || !startup.options.is_empty() {
            let unknown: Vec<_> = startup.options.iter().map(String::as_bytes).collect();
            backend::negotiate_protocol_version(&mut self.outbox, &unknown);
        }
        let user = startup.get("user").filter(|user| !user.is_empty()).ok_or(Fault::NoUser)?;
        match self.plan.settings.auth {
            ClientAuth::Trust => {
                if !self.plan.settings.users.is_empty()
                    && !self.plan.settings.users.contains_key(user)
                {
                    return Err(Fault::WrongPassword(user.to_owned()).into());
                }
            }
            ClientAuth::ScramSha256 => self.scram(client, user).await?,
        }
        client.drain(&mut self.outbox).await.map_err(|_| Failure::Io)?;
        if let Some(door) = startup.get("database").and_then(Door::of) {
            return Ok(self.operator(user, door, startup)?);
        }
        let (who, settings) = self.who(user, startup)?;
        Ok(Identified::Application(who, settings))
    }

    /// One who has proved to be `user` and asks for us: most may not.
    fn operator(&self, user: &str, door: Door, startup: &Startup) -> Result<Identified, Fault> {
        let rank = Rank::of(user, &self.plan.settings);
        if rank == Rank::Nobody {
            return Err(Fault::NoOperator { user: user.to_owned(), database: door.name() });
        }
        let application = startup.get("application_name").unwrap_or_default();
        let application = application.chars().take(63).collect::<String>().into();
        Ok(Identified::Operator { user: user.into(), door, rank, application })
    }

    async fn scram(&mut self, client: &mut Stream, user: &str) -> Result<(), Failure> {
        let known = self.plan.verifier(user);
        let is_known = known.is_some();
        let verifier = known.unwrap_or_else(|| Verifier::of_nobody(&self.gateway.nobody, user));
        let wrong = || Fault::WrongPassword(user.to_owned());
        let mut mechanisms = scram::MECHANISM.as_bytes().to_vec();
        mechanisms.extend([0, 0]);
        backend::authentication(&mut self.outbox, 10, &mechanisms);
        let body = self.sasl(client).await?;
        let mut fields = Fields::new(&body);
        if fields.cstr()? != scram::MECHANISM.as_bytes() {
            return Err(Malformed::Value.into());
        }
        let length = usize::try_from(fields.i32()?).map_err(|_| Malformed::Value)?;
        let (challenge, first) = Challenge::new(verifier, fields.bytes(length)?)
            .map_err(|error| refuse(error, wrong))?;
        backend::authentication(&mut self.outbox, 11, first.as_bytes());
        let body = self.sasl(client).await?;
        let last = challenge.finish(&body).map_err(|error| refuse(error, wrong))?;
        if !is_known {
            return Err(wrong().into());
        }
        backend::authentication(&mut self.outbox, 12, last.as_bytes());
        Ok(())
    }

    /// Sends what is due and waits for the next SASL message.
    async fn sasl(&mut self, client: &mut Stream) -> Result<BytesMut, Failure> {
        client.drain(&mut self.outbox).await.map_err(|_| Failure::Io)?;
        loop {
            if let Some(header) = Header::read(&self.inbox)? {
                if header.tag != b'p' {
                    return Err(Fault::Unexpected { tag: header.tag, state: "during login" }.into());
                }
                if header.body > LONGEST_SASL {
                    return Err(Fault::TooLong {
                        length: header.body,
                        limit: Limit::Login(LONGEST_SASL),
                    }
                    .into());
                }
                if self.inbox.len() >= header.whole() {
                    let mut message = self.inbox.split_to(header.whole());
                    message.advance(HEADER);
                    return Ok(message);
                }
            }
            client.fill_more(&mut self.inbox).await.map_err(|_| Failure::Io)?;
        }
    }

    /// What a client that has proved to be `user` wants.
    fn who(&self, user: &str, startup: &Startup) -> Result<(Who, Settings), Fault> {
        let name = startup.get("database").filter(|name| !name.is_empty()).unwrap_or(user);
        let route = self.plan.route(name).ok_or_else(|| Fault::UnknownDatabase(name.to_owned()))?;
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
        if let Some(called) = &called {
            settings.set("application_name", called);
        }
        let mut who = Who {
            database: Arc::from(name),
            identity: Identity { database: Arc::clone(&route.database), user: Arc::from(user) },
            backend: Arc::clone(&route.backend),
            mode: route.mode,
            tenant: self.plan.tenant(user),
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

fn refuse(error: ScramError, wrong: impl Fn() -> Fault) -> Failure {
    match error {
        ScramError::WrongPassword => Failure::Fault(wrong()),
        ScramError::Malformed(_) => Failure::Fault(Malformed::Value.into()),
    }
}
