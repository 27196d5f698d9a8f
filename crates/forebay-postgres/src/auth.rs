//! By which a client proves who it is.
//!
//! A login goes: wish (what the startup packet says) → demand (by setting or HBA line) →
//! look-up of the secret → proof → [`Proven`]. Types carry the order: only a proof makes a
//! [`Proven`], and only that has a session. Always true: wrong passwords, unknown users, users
//! that may not log in and those that come too often are told the same, after the same work.

pub(crate) mod brought;
mod caller;
pub(crate) mod conversation;
mod doorkeeper;
mod hashing;
pub(crate) mod hba;
mod ident;
mod lines;
pub(crate) mod lookup;
mod proving;
pub(crate) mod scram;
pub(crate) mod secret;
mod secrets;
mod throttle;
mod userlist;

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use forebay_seam::secret::{SecretRef, SecretString};

pub(crate) use caller::Caller;
use conversation::{Conversation, Failure, Say};
pub(crate) use doorkeeper::Doorkeeper;
use hba::{Certificate, Demand, Hba, Wish};
use ident::Maps;
use lookup::Lookups;
use proving::{Proving, Shown, Wire};
use secret::Secret;
pub(crate) use secrets::Secrets;
use throttle::Verdict;

use crate::fault::Fault;
use crate::gateway::SettingsError;
use crate::server::proof::Proof;
use crate::settings::{ClientAuth, PostgresSettings};

/// The maps that `auth = "cert"` and `auth = "peer"` go by, where they are there.
const CERT_MAP: &str = "cert";
const PEER_MAP: &str = "peer";

/// How a client has to prove who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Method {
    /// It need not; but it must be somebody we know, where we know anybody.
    Trust,
    /// It need not, and may be anybody.
    Any,
    Reject,
    Password,
    Md5,
    ScramSha256,
    Cert,
    Peer,
    /// One of PostgreSQL's that is not offered here.
    Unsupported(Arc<str>),
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trust => "trust",
            Self::Any => "any",
            Self::Reject => "reject",
            Self::Password => "password",
            Self::Md5 => "md5",
            Self::ScramSha256 => "scram-sha-256",
            Self::Cert => "cert",
            Self::Peer => "peer",
            Self::Unsupported(name) => name,
        })
    }
}

/// A client that has proved who it is. Nothing else makes one.
pub(crate) struct Proven {
    user: Arc<str>,
    brought: Option<Proof>,
}

impl Proven {
    /// Who it is.
    pub(crate) fn user(&self) -> &Arc<str> {
        &self.user
    }

    /// What it brought that logs in to a server, if it did.
    pub(crate) fn take_brought(&mut self) -> Option<Proof> {
        self.brought.take()
    }
}

/// What look-up found.
enum Account {
    /// The user is there, and has a secret or none.
    Known(Option<Secret>),
    Unknown,
}

impl Account {
    fn secret(&self) -> Option<&Secret> {
        match self {
            Self::Known(secret) => secret.as_ref(),
            Self::Unknown => None,
        }
    }
}

/// How clients of one configuration prove who they are.
pub(crate) struct Authentication {
    rules: Rules,
    maps: Maps,
    secrets: Secrets,
    password_of_query: Option<SecretString>,
    lookups: Lookups,
    kinds: Kinds,
    cleartext: Cleartext,
}

enum Rules {
    /// The same for all.
    One(Demand),
    Lines(Hba),
}

/// Where a password may be sent in clear text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cleartext {
    /// Over TLS and Unix sockets.
    Guarded,
    Anywhere,
}

/// Which kinds of secrets there are: what a user that does not exist seems to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Kinds {
    md5: bool,
    scram: bool,
}

impl Authentication {
    /// Reads the files that `settings` name. Blocks, as [`Secrets::read`] does.
    ///
    /// # Errors
    /// The first setting that cannot be carried out, or file that cannot be read.
    pub(crate) fn new(
        settings: &PostgresSettings,
        before: Option<&Self>,
    ) -> Result<Self, SettingsError> {
        let (rules, maps) = rules(settings)?;
        let secrets = Secrets::read(settings, before.map(|before| &before.secrets))?;
        let mut kinds = Kinds::default();
        for secret in secrets.secrets() {
            match secret {
                Secret::Plain(_) | Secret::Md5(_) => kinds.md5 = true,
                Secret::Scram(_) => kinds.scram = true,
            }
        }
        let cleartext = match settings.cleartext_without_tls {
            true => Cleartext::Anywhere,
            false => Cleartext::Guarded,
        };
        let password = settings.auth_query.as_ref().and_then(|query| query.password.as_ref());
        let password_of_query = password.map(SecretRef::read).transpose().map_err(|error| {
            SettingsError { at: "postgres.auth_query.password".into(), reason: error.to_string() }
        })?;
        let lookups = Lookups::default();
        Ok(Self { rules, maps, secrets, password_of_query, lookups, kinds, cleartext })
    }

    /// Looks up there who is in no list.
    pub(crate) fn looking_up(self, lookups: Lookups) -> Self {
        Self { lookups, ..self }
    }

    /// Is `user` in a list?
    pub(crate) fn lists(&self, user: &str) -> bool {
        self.secrets.of(user).is_some()
    }

    /// Is what is listed of `user` not enough to log in to a server?
    pub(crate) fn needs_its_client(&self, user: &str) -> bool {
        let has_proof = self.secrets.credentials_of(user).is_some_and(|c| c.proof.is_some());
        let is_verifier = matches!(self.secrets.of(user), Some(Some(Secret::Scram(_))));
        is_verifier && !has_proof
    }

    /// May `user` be one of ours? Where nobody is listed anybody may, and where users are
    /// looked up, only a login shows it.
    pub(crate) fn may_know(&self, user: &str) -> bool {
        self.lists(user) || self.secrets.is_empty() || !self.lookups.is_empty()
    }

    /// The password of who looks users up, where it is not listed.
    pub(crate) fn password_of_query(&self) -> Option<&SecretString> {
        self.password_of_query.as_ref()
    }

    /// The users that are listed.
    pub(crate) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// From the startup packet to the proof. What the client hears last, AuthenticationOk, is
    /// not said yet.
    ///
    /// # Cancel safety
    /// Dropped at any point, nobody has logged in, and nothing waits.
    pub(crate) async fn authenticate(
        &self,
        door: &Doorkeeper,
        caller: &Caller,
        wish: Wish<'_>,
        talk: &mut Conversation<'_>,
    ) -> Result<Proven, Failure> {
        let demand = self.demand(caller, wish)?;
        check_certificate(caller, demand.certificate)?;
        let proven = |brought| Proven { user: Arc::from(wish.user), brought };
        match &demand.method {
            Method::Any => Ok(proven(None)),
            Method::Trust => self.is_known(wish).await.map(|()| proven(None)),
            Method::Cert | Method::Peer => {
                self.check_name(caller, demand, wish).await?;
                self.is_known(wish).await.map(|()| proven(None))
            }
            Method::Password | Method::Md5 | Method::ScramSha256 => {
                if demand.certificate == Certificate::Named {
                    self.check_name(caller, demand, wish).await?;
                }
                let brought = self.prove(door, caller, &demand.method, wish, talk).await?;
                Ok(proven(brought))
            }
            Method::Reject => Err(Fault::Rejected(Barred::new(caller, wish)).into()),
            Method::Unsupported(_) => {
                Err(Fault::MethodUnsupported(demand.method.to_string()).into())
            }
        }
    }

    fn demand(&self, caller: &Caller, wish: Wish<'_>) -> Result<&Demand, Fault> {
        match &self.rules {
            Rules::One(demand) => Ok(demand),
            Rules::Lines(hba) => match hba.rule(caller.from, wish) {
                Some(rule) => Ok(&rule.demand),
                None => Err(Fault::NoHbaEntry(Barred::new(caller, wish))),
            },
        }
    }

    /// Must be somebody we know, where we know anybody.
    async fn is_known(&self, wish: Wish<'_>) -> Result<(), Failure> {
        if self.secrets.is_empty() && self.lookups.is_empty() {
            return Ok(());
        }
        match self.look_up(wish).await {
            Account::Known(_) => Ok(()),
            Account::Unknown => Err(Fault::WrongPassword(wish.user.to_owned()).into()),
        }
    }

    /// Lists first; who has no secret in them is looked up.
    async fn look_up(&self, wish: Wish<'_>) -> Account {
        let listed = self.secrets.of(wish.user);
        if let Some(Some(secret)) = listed {
            return Account::Known(Some(secret.clone()));
        }
        let looked_up = match self.lookups.of(wish.database) {
            Some(lookup) => lookup.account(wish.user).await,
            None => Account::Unknown,
        };
        match (looked_up, listed) {
            (Account::Unknown, Some(_)) => Account::Known(None),
            (account, _) => account,
        }
    }

    /// Does the name that the connection itself proves belong to the user?
    async fn check_name(
        &self,
        caller: &Caller,
        demand: &Demand,
        wish: Wish<'_>,
    ) -> Result<(), Fault> {
        let is_peer = demand.method == Method::Peer;
        let name = if is_peer { caller.process_user().await } else { caller.common_name() };
        let map = demand.map.as_deref();
        match name {
            Some(name) if self.maps.allows(map, &name, wish.user) => Ok(()),
            found => {
                tracing::info!(
                    user = wish.user, method = %demand.method, name = found.as_deref(), map,
                    "the name that the connection proves may not log in as this user"
                );
                Err(Fault::NotThatName { method: demand.method.clone(), user: wish.user.into() })
            }
        }
    }

    /// By password, in one way or another.
    async fn prove(
        &self,
        door: &Doorkeeper,
        caller: &Caller,
        method: &Method,
        wish: Wish<'_>,
        talk: &mut Conversation<'_>,
    ) -> Result<Option<Proof>, Failure> {
        let is_plain = matches!(caller.from, hba::From::Plain(_));
        if *method == Method::Password && is_plain && self.cleartext == Cleartext::Guarded {
            return Err(Fault::CleartextWithoutTls.into());
        }
        let visit = door.throttle.admit(caller.from.address(), wish.user);
        let account = match visit.is_admitted() {
            true => self.look_up(wish).await,
            false => Account::Unknown,
        };
        let wire = match method {
            Method::Password => Wire::Cleartext,
            Method::Md5 => self.md5_or_scram(&door.nobody, wish.user, account.secret()),
            _ => Wire::Scram,
        };
        let proving = Proving {
            hashing: &door.hashing,
            nobody: &door.nobody,
            binding: caller.binding.as_deref(),
            user: wish.user,
            secret: account.secret(),
        };
        let shown = proving.prove(wire, talk).await?;
        let verdict = match shown {
            Shown::Right { .. } => Verdict::Right,
            Shown::Wrong => Verdict::Wrong,
        };
        match (visit.settle(verdict).await, shown) {
            (Verdict::Right, Shown::Right { brought, last }) => {
                if let Some(last) = last {
                    talk.say(Say::SaslFinal(&last));
                }
                Ok(brought)
            }
            _ => Err(Fault::WrongPassword(wish.user.to_owned()).into()),
        }
    }

    /// As far as they are known: those of look-ups as they are seen.
    fn kinds(&self) -> Kinds {
        self.lookups.all().fold(self.kinds, |kinds, lookup| {
            let (md5, scram) = lookup.seen();
            Kinds { md5: kinds.md5 || md5, scram: kinds.scram || scram }
        })
    }

    /// What the method `md5` comes to: SCRAM where a SCRAM verifier is stored. Users without a
    /// secret seem to have one of those that others have, always the same.
    fn md5_or_scram(&self, nobody: &[u8; 32], user: &str, secret: Option<&Secret>) -> Wire {
        match (secret, self.kinds()) {
            (Some(Secret::Scram(_)), _) => Wire::Scram,
            (Some(Secret::Md5(_) | Secret::Plain(_)), _) => Wire::Md5,
            (None, Kinds { md5: false, .. }) => Wire::Scram,
            (None, Kinds { scram: false, .. }) => Wire::Md5,
            (None, Kinds { scram: true, md5: true }) => {
                let hash = [&nobody[..], b"md5 or scram", user.as_bytes()].concat();
                let hash = digest::digest(&digest::SHA256, &hash);
                let is_odd = hash.as_ref().first().is_some_and(|byte| byte & 1 == 1);
                if is_odd { Wire::Scram } else { Wire::Md5 }
            }
        }
    }
}

/// A client that no rule lets in, as PostgreSQL names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Barred {
    host: String,
    user: String,
    database: String,
    encryption: &'static str,
}

impl Barred {
    fn new(caller: &Caller, wish: Wish<'_>) -> Self {
        let encryption = match caller.from {
            hba::From::Tls(_) => "SSL encryption",
            hba::From::Local | hba::From::Plain(_) => "no encryption",
        };
        Self {
            host: caller.from.to_string(),
            user: wish.user.to_owned(),
            database: wish.database.to_owned(),
            encryption,
        }
    }
}

impl fmt::Display for Barred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, user, database, encryption } = self;
        write!(f, "host \"{host}\", user \"{user}\", database \"{database}\", {encryption}")
    }
}

fn check_certificate(caller: &Caller, wanted: Certificate) -> Result<(), Fault> {
    match wanted {
        Certificate::NotNeeded => Ok(()),
        Certificate::Trusted | Certificate::Named if caller.certificate.is_some() => Ok(()),
        Certificate::Trusted | Certificate::Named => Err(Fault::NoCertificate),
    }
}

/// How `settings` want clients to prove who they are.
///
/// # Errors
/// A file that is missing, cannot be read or is wrong.
fn rules(settings: &PostgresSettings) -> Result<(Rules, Maps), SettingsError> {
    let wrong = |key: &str, reason: String| SettingsError { at: format!("postgres.{key}"), reason };
    let maps = settings.ident_file.as_deref().map(Maps::read).transpose();
    let maps = maps.map_err(|error| wrong("ident_file", error.to_string()))?.unwrap_or_default();
    let map = |name: &str| maps.has(name).then(|| Arc::from(name));
    let rules = match settings.auth {
        ClientAuth::Hba => {
            let file = settings.hba_file.as_deref().ok_or_else(|| {
                wrong("hba_file", "`auth = \"hba\"` needs a file of rules: write `hba_file`".into())
            })?;
            let hba = Hba::read(file).map_err(|error| wrong("hba_file", error.to_string()))?;
            let maps_used =
                hba.rules().filter_map(|rule| Some((rule.line, rule.demand.map.clone()?)));
            for (line, used) in maps_used {
                if !maps.has(&used) {
                    let file = file.display();
                    let reason = format!("{file}, line {line}: `ident_file` has no map `{used}`");
                    return Err(wrong("hba_file", reason));
                }
            }
            Rules::Lines(hba)
        }
        ClientAuth::Trust => Rules::One(Demand::of(Method::Trust)),
        ClientAuth::Any => Rules::One(Demand::of(Method::Any)),
        ClientAuth::Password => Rules::One(Demand::of(Method::Password)),
        ClientAuth::Md5 => Rules::One(Demand::of(Method::Md5)),
        ClientAuth::ScramSha256 => Rules::One(Demand::of(Method::ScramSha256)),
        ClientAuth::Cert => Rules::One(Demand { map: map(CERT_MAP), ..Demand::of(Method::Cert) }),
        ClientAuth::Peer => Rules::One(Demand { map: map(PEER_MAP), ..Demand::of(Method::Peer) }),
    };
    Ok((rules, maps))
}

/// Checks what `settings` say of authentication: files are read, secrets of the configuration
/// are not.
///
/// # Errors
/// The first setting that cannot be carried out.
pub(crate) fn check(settings: &PostgresSettings) -> Result<(), SettingsError> {
    rules(settings)?;
    if let Some(file) = &settings.users_file {
        userlist::read(file).map_err(|error| SettingsError {
            at: "postgres.users_file".into(),
            reason: error.to_string(),
        })?;
    }
    let nobody =
        settings.users.is_empty() && settings.users_file.is_none() && settings.auth_query.is_none();
    if settings.auth.needs_secrets() && nobody {
        let reason = "nobody may log in: add [postgres.users.NAME] with a `password`, a \
                      `users_file` or [postgres.auth_query], or set `auth = \"trust\"`";
        return Err(SettingsError { at: "postgres.users".into(), reason: reason.into() });
    }
    Ok(())
}
