//! From the first byte to the packet that starts a session: TLS, asked for or begun at once,
//! requests for GSS, and cancel requests.
//!
//! Always true: nothing that came in plaintext is read as part of an encrypted session.

use std::sync::Arc;

use bytes::{Buf, BytesMut};
use forebay_seam::net::{Socket, TcpStream};

use super::Greeting;
use crate::cancel::key::Request;
use crate::fault::Fault;
use crate::stream::Stream;
use crate::timeouts::Kind;
use crate::tls::ClientSide;
use crate::wire::Malformed;
use crate::wire::startup::{self, First, Startup};

/// The first byte of a TLS handshake. No first packet begins with it: it would be too long.
const HANDSHAKE: u8 = 0x16;

/// What a client has come for.
pub(super) enum Start {
    Session(Stream, Startup),
    Cancel { client: Stream, request: Request },
    Gone,
}

impl Greeting<'_> {
    /// First packets, until one starts a session. TLS and GSS may each be asked for once.
    pub(super) async fn first(&mut self, client: Stream) -> Result<Start, (Stream, Fault)> {
        let Some(mut client) = self.direct(client).await? else { return Ok(Start::Gone) };
        for _ in 0..3 {
            let deadline = self.deadline;
            let body = match deadline.keeps(self.packet(&mut client)).await {
                Ok(Ok(Some(body))) => body,
                Ok(Ok(None)) => return Ok(Start::Gone),
                Ok(Err(malformed)) => return Err((client, malformed.into())),
                Err(late) => return Err((client, late)),
            };
            let first = match startup::read(&body) {
                Ok(first) => first,
                Err(malformed) => return Err((client, malformed.into())),
            };
            match first {
                First::Cancel(request) => return Ok(Start::Cancel { client, request }),
                First::Unsupported { major, minor } => {
                    return Err((client, Fault::UnsupportedProtocol { major, minor }));
                }
                First::Startup(startup) => {
                    if self.needs_tls() && !client.is_encrypted() && !client.is_local() {
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

    /// Are those refused that come in plaintext?
    fn needs_tls(&self) -> bool {
        let tls = self.plan.settings.tls.as_ref();
        tls.is_some_and(|tls| tls.mode().is_ok_and(|mode| mode.is_required()))
    }

    /// TLS with `client`, as the files are now. None on a Unix socket, where nobody listens in
    /// (nor has PostgreSQL).
    fn tls(&self, client: &Stream) -> Option<Arc<ClientSide>> {
        self.plan.tls.as_ref().filter(|_| !client.is_local()).map(|tls| tls.now())
    }

    /// The TLS session of a client that begins one at once; `None` when that fails, or nothing
    /// comes.
    async fn direct(&mut self, mut client: Stream) -> Result<Option<Stream>, (Stream, Fault)> {
        match self.deadline.keeps(client.fill_more(&mut self.inbox)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Ok(None),
            Err(late) => return Err((client, late)),
        }
        if self.inbox.first() != Some(&HANDSHAKE) {
            return Ok(Some(client));
        }
        // Where there is none, it is a packet like others, and is told so.
        let Some(tls) = self.tls(&client) else { return Ok(Some(client)) };
        let Some(tcp) = plain_tcp(client) else { return Ok(None) };
        let accepting = Stream::accept_direct(tcp, &tls, &mut self.inbox);
        let accepted = self.deadline.keeps(accepting).await;
        Ok(self.in_time(accepted))
    }

    /// A TLS session, unless its handshake failed or took too long: who is in the middle of one
    /// could not read a reason.
    fn in_time(&self, accepted: Result<std::io::Result<Stream>, Fault>) -> Option<Stream> {
        match accepted {
            Ok(accepted) => accepted.inspect_err(told).ok(),
            Err(_) => {
                self.gateway.timeouts.count(Kind::Login);
                None
            }
        }
    }

    async fn encrypt(&mut self, mut client: Stream) -> Result<Option<Stream>, (Stream, Fault)> {
        // What stands behind the request was sent in plaintext, and must not be read as part
        // of the encrypted session (CVE-2021-23214).
        if !self.inbox.is_empty() || client.is_encrypted() {
            return Err((client, Malformed::Trailing(self.inbox.len()).into()));
        }
        let Some(tls) = self.tls(&client) else {
            return Ok(self.answer(&mut client, b'N').await.ok().map(|()| client));
        };
        if self.answer(&mut client, b'S').await.is_err() {
            return Ok(None);
        }
        let Some(tcp) = plain_tcp(client) else { return Ok(None) };
        Ok(self.in_time(self.deadline.keeps(Stream::accept(tcp, &tls)).await))
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
}

fn plain_tcp(client: Stream) -> Option<TcpStream> {
    match client {
        Stream::Plain(Socket::Tcp(tcp)) => Some(tcp),
        Stream::Plain(Socket::Unix(_)) | Stream::Accepted(_) | Stream::Connected(_) => None,
    }
}

fn told(error: &std::io::Error) {
    tracing::info!(%error, "TLS handshake with a client failed");
}
