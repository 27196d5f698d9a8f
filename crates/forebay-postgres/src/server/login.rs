//! Connecting and logging in to a server ("Message Flow, Start-up"; libpq's `sslmode`).

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use forebay_seam::secret::ExposeSecret;
use md5::{Digest, Md5};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::message::frontend;
use tokio::task::spawn_blocking;

use super::entrance::{Encrypt, Entrance};
use super::names::Name;
use super::proof::{Proof, ScramKeys};
use super::sasl::{Exchange, SCRAM, SCRAM_PLUS, Said, SaslError};
use super::{Server, ServerFailure};
use crate::cancel::{Door, ServerKey};
use crate::settings::{ChannelBinding, LoadBalance, ProtocolVersion, SslMode};
use crate::wire::backend::ServerError;
use crate::wire::{Fields, Malformed, TxStatus};

/// Where a server is, and how to speak to it.
pub(crate) struct Target {
    pub(crate) entrance: Arc<Entrance>,
    pub(crate) protocol: ProtocolVersion,
    pub(crate) max_prepared: NonZeroUsize,
}

/// As whom to log in.
pub(crate) struct Login<'a> {
    pub(crate) user: &'a str,
    pub(crate) database: &'a str,
    pub(crate) proof: Option<&'a Proof>,
    /// Further startup parameters.
    pub(crate) parameters: &'a [(String, String)],
}

/// A host and how its addresses are tried.
pub(crate) struct Reach<'a> {
    pub(crate) name: &'a Arc<Name>,
    pub(crate) spread: LoadBalance,
    /// What all of them together get.
    pub(crate) patience: Duration,
}

const V3_0: i32 = 0x0003_0000;
const V3_2: i32 = 0x0003_0002;
/// Bytes of a key for cancel requests (BackendKeyData, protocol 3.2).
const LONGEST_KEY: usize = 256;

impl Target {
    /// A connection to what `reach` leads to, logged in and idle.
    pub(crate) async fn connect(
        &self,
        reach: &Reach<'_>,
        login: &Login<'_>,
    ) -> Result<Server, ServerFailure> {
        match self.entrance.encryption.sslmode {
            SslMode::Allow => match self.attempt(reach, login, Encrypt::Never).await {
                // Only a refusal can be about encryption.
                Err(ServerFailure::Refused(_)) => self.attempt(reach, login, Encrypt::Must).await,
                other => other,
            },
            SslMode::Disable => self.attempt(reach, login, Encrypt::Never).await,
            SslMode::Prefer => self.attempt(reach, login, Encrypt::IfOffered).await,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
                self.attempt(reach, login, Encrypt::Must).await
            }
        }
    }

    async fn attempt(
        &self,
        reach: &Reach<'_>,
        login: &Login<'_>,
        encrypt: Encrypt,
    ) -> Result<Server, ServerFailure> {
        let (socket, address) = reach.name.connect(reach.spread, reach.patience).await?;
        let stream = self.entrance.open(socket, encrypt).await?;
        let encrypted = stream.is_encrypted().then(|| Arc::clone(&self.entrance));
        let door = Door { address, encrypted };
        let mut server = Server::new(stream, ServerKey::none(door), self.max_prepared);
        let who = [("user", login.user), ("database", login.database)];
        let parameters = login.parameters.iter().map(|(name, value)| (&**name, &**value));
        frontend::startup_message(who.into_iter().chain(parameters), &mut server.outbox)?;
        if let ProtocolVersion::V3_2 = self.protocol
            && let Some(version) = server.outbox.get_mut(4..8)
        {
            version.copy_from_slice(&V3_2.to_be_bytes());
        }
        server.send().await?;
        let mut negotiation = Negotiation::of(self.protocol);
        let binding = self.entrance.encryption.channel_binding;
        server.authenticate(login, binding, &mut negotiation).await?;
        server.greeted().await?;
        Ok(server)
    }
}

/// What may still be said of the protocol's version ("NegotiateProtocolVersion").
#[derive(Clone, Copy, PartialEq, Eq)]
enum Negotiation {
    /// A newer one than 3.0 was asked for: the server may say that it has none.
    Open,
    Closed,
}

impl Negotiation {
    fn of(asked: ProtocolVersion) -> Self {
        match asked {
            ProtocolVersion::V3_0 => Self::Closed,
            ProtocolVersion::V3_2 => Self::Open,
        }
    }

    /// Once, to an older version, without options, since none were asked for.
    fn take(&mut self, mut fields: Fields<'_>) -> Result<(), ServerFailure> {
        let (version, options) = (fields.i32()?, fields.i32()?);
        let is_older = (V3_0..V3_2).contains(&version) && options == 0;
        if std::mem::replace(self, Self::Closed) == Self::Closed || !is_older {
            return Err(unexpected(b'v'));
        }
        Ok(())
    }
}

impl Server {
    async fn authenticate(
        &mut self,
        login: &Login<'_>,
        binding: ChannelBinding,
        negotiation: &mut Negotiation,
    ) -> Result<(), ServerFailure> {
        let mut proven = Proven::Not;
        loop {
            let (tag, body) = self.receive().await?;
            let mut fields = Fields::new(&body);
            match (tag, if tag == b'R' { fields.i32()? } else { 0 }) {
                (b'R', 0) if proven != Proven::Bound && binding == ChannelBinding::Require => {
                    return Err(unbound());
                }
                (b'R', 0) => return Ok(()),
                (b'R', _) if proven != Proven::Not => return Err(unexpected(tag)),
                (b'R', 3 | 5) if binding == ChannelBinding::Require => return Err(unbound()),
                (b'R', 3) if self.stream.is_encrypted() || self.stream.is_local() => {
                    let password = password(login)?;
                    frontend::password_message(password.as_bytes(), &mut self.outbox)?;
                    proven = Proven::Alone;
                }
                (b'R', 3) => {
                    let why = "the server wants the password in clear text over plaintext";
                    return Err(ServerFailure::Auth(why.into()));
                }
                (b'R', 5) => {
                    let salt = fields.bytes(4)?;
                    let answer = md5_answer(login, salt)?;
                    frontend::password_message(answer.as_bytes(), &mut self.outbox)?;
                    proven = Proven::Alone;
                }
                (b'R', 10) => {
                    proven = self.scram(login, binding, fields.rest()).await?;
                    continue;
                }
                (b'R', method) => {
                    let why = format!("the server wants method {method}, which is not supported");
                    return Err(ServerFailure::Auth(why));
                }
                (b'E', _) => return Err(ServerFailure::Refused(ServerError::read(&body))),
                (b'v', _) => {
                    negotiation.take(fields)?;
                    continue;
                }
                (b'N', _) => continue,
                _ => return Err(unexpected(tag)),
            }
            self.send().await?;
        }
    }

    /// SCRAM-SHA-256 as the client (RFC 5802), with what the server `offers`.
    async fn scram(
        &mut self,
        login: &Login<'_>,
        binding: ChannelBinding,
        offers: &[u8],
    ) -> Result<Proven, ServerFailure> {
        let failed = |error: SaslError| ServerFailure::Auth(error.to_string());
        let offers = |mechanism: &str| offers.split(|b| *b == 0).any(|m| m == mechanism.as_bytes());
        let possible = match binding {
            ChannelBinding::Disable => None,
            ChannelBinding::Prefer | ChannelBinding::Require => self.stream.channel_binding(),
        };
        let said = match possible {
            Some(binding) if offers(SCRAM_PLUS) => Said::Bound(binding),
            _ if binding == ChannelBinding::Require => return Err(unbound()),
            Some(_) => Said::NotOffered,
            None => Said::Nothing,
        };
        if !offers(said.mechanism()) {
            let why = format!("the server offers no {SCRAM}");
            return Err(ServerFailure::Auth(why));
        }
        let proven = if let Said::Bound(_) = said { Proven::Bound } else { Proven::Alone };
        let known = match login.proof {
            Some(Proof::ScramKeys(keys)) => Known::Keys(keys.clone()),
            _ => Known::Password(password(login)?.to_owned().into_bytes()),
        };
        let mechanism = said.mechanism();
        let exchange = Exchange::new(said);
        let first = exchange.first();
        frontend::sasl_initial_response(mechanism, first.as_bytes(), &mut self.outbox)?;
        self.send().await?;
        let challenge = exchange.challenge(&self.sasl_data(11).await?).map_err(failed)?;
        let (challenge, keys) = match known {
            Known::Keys(keys) => (challenge, keys),
            // Thousands of hashes, as many as the server likes: others are served meanwhile.
            Known::Password(password) => {
                let hash = move || {
                    let keys = Box::new(challenge.keys_of(&password));
                    (challenge, keys)
                };
                spawn_blocking(hash).await.map_err(std::io::Error::other)?
            }
        };
        let (last, expected) = challenge.answer(&keys).map_err(failed)?;
        frontend::sasl_response(last.as_bytes(), &mut self.outbox)?;
        self.send().await?;
        expected.check(&self.sasl_data(12).await?).map_err(failed)?;
        Ok(proven)
    }

    async fn sasl_data(&mut self, code: i32) -> Result<Vec<u8>, ServerFailure> {
        let (tag, body) = self.receive().await?;
        let mut fields = Fields::new(&body);
        match tag {
            b'E' => Err(ServerFailure::Refused(ServerError::read(&body))),
            b'R' if fields.i32()? == code => Ok(fields.rest().to_vec()),
            tag => Err(unexpected(tag)),
        }
    }

    /// From AuthenticationOk to the first ReadyForQuery.
    async fn greeted(&mut self) -> Result<(), ServerFailure> {
        loop {
            let (tag, body) = self.receive().await?;
            let mut fields = Fields::new(&body);
            match tag {
                b'K' => {
                    let (pid, secret) = (fields.i32()?, fields.rest());
                    if !(4..=LONGEST_KEY).contains(&secret.len()) {
                        return Err(Malformed::Value.into());
                    }
                    let door = self.key.door.clone();
                    self.key = Arc::new(ServerKey { door, pid, secret: secret.into() });
                }
                b'S' => self.take_parameter(&body)?,
                b'Z' => {
                    self.status = TxStatus::Idle;
                    self.settings.settle();
                    return Ok(());
                }
                b'N' => {}
                b'E' => return Err(ServerFailure::Refused(ServerError::read(&body))),
                tag => return Err(unexpected(tag)),
            }
        }
    }
}

pub(super) fn unexpected(tag: u8) -> ServerFailure {
    let tag = char::from(tag).escape_default();
    ServerFailure::Auth(format!("the server sent an unexpected message `{tag}`"))
}

/// What has been proved to the server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Proven {
    Not,
    Alone,
    /// And it has proved that nobody stands between.
    Bound,
}

fn unbound() -> ServerFailure {
    let why = "`channel_binding` is `require`, and the server does not offer to bind the login \
               to TLS (SCRAM-SHA-256-PLUS)";
    ServerFailure::Auth(why.into())
}

/// What a SCRAM exchange begins with.
enum Known {
    Password(Vec<u8>),
    Keys(Box<ScramKeys>),
}

/// The password itself, which some methods need.
fn password<'a>(login: &Login<'a>) -> Result<&'a str, ServerFailure> {
    let user = login.user;
    let why = match login.proof {
        Some(Proof::Password(password)) => return Ok(password.expose_secret()),
        None => format!(
            "the server wants a password for `{user}`, and none is configured: set \
             `server_password` (a stored verifier is not enough)"
        ),
        Some(Proof::ScramKeys(_)) => format!(
            "the server wants the password of `{user}` itself, and only the keys of its SCRAM \
             login are known: let the server ask for scram-sha-256, or set `server_password`"
        ),
        Some(Proof::Md5Hash(_)) => format!(
            "the server wants the password of `{user}` itself, and only its md5 hash is known: \
             let the server ask for md5, or set `server_password`"
        ),
    };
    Err(ServerFailure::Auth(why))
}

/// What answers a request for md5 ("Message Flow, AuthenticationMD5Password").
fn md5_answer(login: &Login<'_>, salt: &[u8]) -> Result<String, ServerFailure> {
    let salt: [u8; 4] = salt.try_into().unwrap_or_default();
    if let Some(Proof::Md5Hash(hash)) = login.proof {
        let digits = hash.expose_secret().strip_prefix("md5").unwrap_or_default();
        let answer = Md5::new().chain_update(digits).chain_update(salt).finalize();
        let answer = answer.iter().map(|byte| format!("{byte:02x}"));
        return Ok(format!("md5{}", answer.collect::<String>()));
    }
    Ok(md5_hash(login.user.as_bytes(), password(login)?.as_bytes(), salt))
}
