//! The way into a server: its TLS, asked for in PostgreSQL's manner or begun at once, or none.
//!
//! Knows no logins: whoever connects goes in here, to log in or to cancel. Always true: nothing
//! that came in plaintext is read as part of an encrypted session.

use bytes::{Buf, BytesMut};
use forebay_seam::net::{Socket, Tuning};
use postgres_protocol::message::frontend;
use rustls::pki_types::ServerName;

use super::ServerFailure;
use super::place::Place;
use crate::settings::SslNegotiation;
use crate::stream::Stream;
use crate::tls::Encryption;

/// Where a server is, and how connections to it are encrypted.
pub(crate) struct Entrance {
    pub(crate) place: Place,
    pub(crate) encryption: Encryption,
    /// How they are watched over.
    pub(crate) tuning: Tuning,
}

/// Whether a connection is to be encrypted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encrypt {
    Never,
    IfOffered,
    Must,
}

impl Entrance {
    /// TLS over `socket`, where it is wanted; never over a Unix socket, as in libpq.
    pub(crate) async fn open(
        &self,
        socket: Socket,
        encrypt: Encrypt,
    ) -> Result<Stream, ServerFailure> {
        socket.tune(&self.tuning)?;
        let (tls, host) = match (encrypt, self.encryption.config(), &self.place) {
            (Encrypt::Never, _, _) | (_, None, _) | (_, _, Place::Socket(_)) => {
                return Ok(Stream::Plain(socket));
            }
            (_, Some(tls), Place::Host { host, .. }) => (tls, host),
        };
        let failed = |error: std::io::Error| ServerFailure::Tls(error.to_string());
        let name = ServerName::try_from(host.clone())
            .map_err(|error| ServerFailure::Tls(error.to_string()))?;
        let plain = match self.encryption.negotiation {
            SslNegotiation::Direct => Stream::Plain(socket),
            SslNegotiation::Postgres => match ask_for_tls(socket).await? {
                Asked::Agreed(plain) => plain,
                Asked::Refused(plain) if encrypt == Encrypt::IfOffered => return Ok(plain),
                Asked::Refused(_) => {
                    return Err(ServerFailure::Tls("the server does not offer it".into()));
                }
            },
        };
        let Stream::Plain(Socket::Tcp(tcp)) = plain else { return Ok(plain) };
        let stream = Stream::connect(tcp, tls, name).await.map_err(failed)?;
        if self.encryption.negotiation == SslNegotiation::Direct && !stream.speaks_postgres() {
            // Something else may listen there, and take what we say for its own protocol.
            let why = "the server does not say that it speaks PostgreSQL (ALPN): direct TLS \
                       needs PostgreSQL 17, set `sslnegotiation = \"postgres\"`";
            return Err(ServerFailure::Tls(why.into()));
        }
        Ok(stream)
    }
}

/// What a server says to a request for TLS.
enum Asked {
    Agreed(Stream),
    Refused(Stream),
}

/// SSLRequest ("Message Flow, SSL Session Encryption").
async fn ask_for_tls(socket: Socket) -> Result<Asked, ServerFailure> {
    let mut plain = Stream::Plain(socket);
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
    match answer.get_u8() {
        b'S' => Ok(Asked::Agreed(plain)),
        b'N' => Ok(Asked::Refused(plain)),
        _ => Err(ServerFailure::Tls("the server does not understand the request".into())),
    }
}
