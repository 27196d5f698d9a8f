//! Connecting and logging in to a server ("Message Flow, Start-up"; libpq's `sslmode`).

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use forebay_seam::net::TcpStream;
use forebay_seam::secret::{ExposeSecret, SecretString};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use postgres_protocol::message::frontend;
use rustls::pki_types::ServerName;
use tokio::task::spawn_blocking;

use super::names::Name;
use super::{Server, ServerFailure};
use crate::cancel::ServerKey;
use crate::settings::{LoadBalance, SslMode};
use crate::stream::Stream;
use crate::wire::Fields;
use crate::wire::TxStatus;
use crate::wire::backend::ServerError;

/// Where a server is, and how to speak to it.
pub(crate) struct Target {
    pub(crate) host: String,
    /// Its addresses.
    pub(crate) name: Arc<Name>,
    /// In which order they are tried, and what all of them together get.
    pub(crate) spread: LoadBalance,
    pub(crate) patience: Duration,
    pub(crate) sslmode: SslMode,
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
    pub(crate) max_prepared: NonZeroUsize,
}

/// As whom to log in.
pub(crate) struct Login<'a> {
    pub(crate) user: &'a str,
    pub(crate) database: &'a str,
    pub(crate) password: Option<&'a SecretString>,
    /// Further startup parameters.
    pub(crate) parameters: &'a [(String, String)],
}

/// A wrong server may ask for hashing without end (CVE-2026-6665's neighbour).
const MOST_ITERATIONS: u32 = 1_000_000;

impl Target {
    /// A connection that is logged in and idle.
    pub(crate) async fn connect(&self, login: &Login<'_>) -> Result<Server, ServerFailure> {
        match self.sslmode {
            SslMode::Allow => match self.attempt(login, Encrypt::Never).await {
                // Only a refusal can be about encryption.
                Err(ServerFailure::Refused(_)) => self.attempt(login, Encrypt::Must).await,
                other => other,
            },
            SslMode::Disable => self.attempt(login, Encrypt::Never).await,
            SslMode::Prefer => self.attempt(login, Encrypt::IfOffered).await,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
                self.attempt(login, Encrypt::Must).await
            }
        }
    }

    async fn attempt(&self, login: &Login<'_>, encrypt: Encrypt) -> Result<Server, ServerFailure> {
        let (tcp, address) = self.name.connect(self.spread, self.patience).await?;
        let stream = self.open(tcp, encrypt).await?;
        // A cancel goes where the connection went, not where its name leads by then.
        let key = ServerKey { addresses: [address].into(), pid: 0, secret: 0 };
        let mut server = Server::new(stream, key, self.max_prepared);
        let who = [("user", login.user), ("database", login.database)];
        let parameters = login.parameters.iter().map(|(name, value)| (&**name, &**value));
        frontend::startup_message(who.into_iter().chain(parameters), &mut server.outbox)?;
        server.send().await?;
        server.authenticate(login).await?;
        server.greeted().await?;
        Ok(server)
    }

    async fn open(&self, tcp: TcpStream, encrypt: Encrypt) -> Result<Stream, ServerFailure> {
        let tls = match (encrypt, &self.tls) {
            (Encrypt::Never, _) | (_, None) => return Ok(Stream::Plain(tcp)),
            (Encrypt::IfOffered | Encrypt::Must, Some(tls)) => Arc::clone(tls),
        };
        let mut plain = Stream::Plain(tcp);
        let mut request = BytesMut::new();
        frontend::ssl_request(&mut request);
        plain.drain(&mut request).await?;
        let mut answer = BytesMut::with_capacity(1);
        plain.fill_more(&mut answer).await?;
        // Anything behind the one byte was sent before the handshake: it is nobody's
        // (CVE-2021-23222).
        if answer.len() != 1 {
            return Err(ServerFailure::Tls("plaintext came before the handshake".into()));
        }
        let Stream::Plain(tcp) = plain else { return Ok(plain) };
        match (answer.get_u8(), encrypt) {
            (b'S', _) => {
                let name = ServerName::try_from(self.host.clone())
                    .map_err(|error| ServerFailure::Tls(error.to_string()))?;
                Stream::connect(tcp, tls, name)
                    .await
                    .map_err(|error| ServerFailure::Tls(error.to_string()))
            }
            (b'N', Encrypt::IfOffered) => Ok(Stream::Plain(tcp)),
            (b'N', _) => Err(ServerFailure::Tls("the server does not offer it".into())),
            _ => Err(ServerFailure::Tls("the server does not understand the request".into())),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Encrypt {
    Never,
    IfOffered,
    Must,
}

impl Server {
    async fn authenticate(&mut self, login: &Login<'_>) -> Result<(), ServerFailure> {
        let password = || {
            login.password.map(|p| p.expose_secret().as_bytes()).ok_or_else(|| {
                let user = login.user;
                ServerFailure::Auth(format!(
                    "the server wants a password for `{user}`, and none is configured: set \
                     `server_password` (a stored verifier is not enough)"
                ))
            })
        };
        loop {
            let (tag, body) = self.receive().await?;
            let mut fields = Fields::new(&body);
            match (tag, if tag == b'R' { fields.i32()? } else { 0 }) {
                (b'R', 0) => return Ok(()),
                (b'R', 3) if self.stream.is_encrypted() => {
                    frontend::password_message(password()?, &mut self.outbox)?;
                }
                (b'R', 3) => {
                    let why = "the server wants the password in clear text over plaintext";
                    return Err(ServerFailure::Auth(why.into()));
                }
                (b'R', 5) => {
                    let salt = fields.bytes(4)?.try_into().unwrap_or_default();
                    let hashed = md5_hash(login.user.as_bytes(), password()?, salt);
                    frontend::password_message(hashed.as_bytes(), &mut self.outbox)?;
                }
                (b'R', 10) => {
                    let offered = fields.rest().split(|b| *b == 0).any(|m| m == b"SCRAM-SHA-256");
                    if !offered {
                        return Err(ServerFailure::Auth(
                            "the server offers no SCRAM-SHA-256".into(),
                        ));
                    }
                    self.scram(password()?).await?;
                    continue;
                }
                (b'R', method) => {
                    let why = format!("the server wants method {method}, which is not supported");
                    return Err(ServerFailure::Auth(why));
                }
                (b'E', _) => return Err(ServerFailure::Refused(ServerError::read(&body))),
                (b'N' | b'v', _) => continue,
                _ => return Err(unexpected(tag)),
            }
            self.send().await?;
        }
    }

    /// SCRAM-SHA-256 as the client (RFC 5802).
    async fn scram(&mut self, password: &[u8]) -> Result<(), ServerFailure> {
        let failed = |error: io::Error| ServerFailure::Auth(error.to_string());
        let mut scram = ScramSha256::new(password, ChannelBinding::unsupported());
        frontend::sasl_initial_response("SCRAM-SHA-256", scram.message(), &mut self.outbox)?;
        self.send().await?;
        let challenge = self.sasl_data(11).await?;
        if iterations(&challenge).is_none_or(|n| n > MOST_ITERATIONS) {
            return Err(ServerFailure::Auth(
                "the server's SCRAM challenge is not acceptable".into(),
            ));
        }
        // Thousands of hashes, as many as the server likes: others are served meanwhile.
        let hashed = spawn_blocking(move || scram.update(&challenge).map(|()| scram));
        let mut scram = hashed.await.map_err(io::Error::other)?.map_err(failed)?;
        frontend::sasl_response(scram.message(), &mut self.outbox)?;
        self.send().await?;
        let last = self.sasl_data(12).await?;
        scram.finish(&last).map_err(failed)
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
                    self.key.pid = fields.i32()?;
                    self.key.secret = fields.i32()?;
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

/// `i=` of a SCRAM challenge.
fn iterations(challenge: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(challenge).ok().filter(|text| text.len() < 1024)?;
    text.split(',').find_map(|part| part.strip_prefix("i="))?.parse().ok()
}
