//! A byte stream to a client or a server: TCP or a Unix socket, with or without TLS.
//!
//! The TLS variants exist only after their handshake and take the plaintext stream by value:
//! bytes that came before belong to nobody after.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use forebay_seam::net::{self, Socket, TcpStream};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::{StartHandshake, TlsAcceptor, TlsConnector, client, server};

use crate::census::{Cipher, Ends, Place};
use crate::tls::{ALPN, Binding, ClientSide};

/// Bytes asked of a socket at once where many come.
const CHUNK: usize = 16 * 1024;
/// Bytes asked of a socket before anything has come: most messages are shorter.
const FIRST: usize = 4 * 1024;
/// Buffers grow by no more than they need up to here: most of them are never longer.
const EXACT: usize = 64 * 1024;

pub(crate) enum Stream {
    Plain(Socket),
    /// TLS with a client, as its server.
    Accepted(Box<Accepted>),
    /// TLS with a server, as its client.
    Connected(Box<client::TlsStream<TcpStream>>),
}

/// A TLS session with a client.
pub(crate) struct Accepted {
    tls: server::TlsStream<TcpStream>,
    /// Of the certificate that it was shown.
    binding: Option<Binding>,
}

impl Stream {
    /// The TLS session of a client that asked for one.
    pub(crate) async fn accept(tcp: TcpStream, tls: &ClientSide) -> io::Result<Self> {
        let session = TlsAcceptor::from(Arc::clone(tls.config())).accept(tcp).await?;
        Ok(Self::Accepted(Box::new(Accepted { tls: session, binding: tls.binding() })))
    }

    /// The TLS session of a client that began one without asking (direct TLS, PostgreSQL 17).
    /// `begun` are the bytes that it began with.
    ///
    /// # Errors
    /// What went wrong in the handshake; `InvalidData` when it did not say that it speaks
    /// PostgreSQL inside: it might speak another protocol, and be made to by somebody else.
    pub(crate) async fn accept_direct(
        mut tcp: TcpStream,
        tls: &ClientSide,
        begun: &mut BytesMut,
    ) -> io::Result<Self> {
        let mut acceptor = Acceptor::default();
        let accepted = loop {
            while begun.has_remaining() {
                acceptor.read_tls(&mut begun.reader())?;
            }
            match acceptor.accept() {
                Ok(Some(accepted)) => break accepted,
                Ok(None) => {}
                Err((error, mut alert)) => {
                    let mut told = Vec::new();
                    alert.write_all(&mut told)?;
                    tcp.write_all(&told).await?;
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            }
            if tcp.read_buf(begun).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let config = Arc::clone(tls.config());
        let mut session = StartHandshake::from_parts(accepted, tcp).into_stream(config).await?;
        if session.get_ref().1.alpn_protocol() != Some(ALPN) {
            session.shutdown().await?;
            let reason = "direct TLS without ALPN, which has to name `postgresql`";
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        Ok(Self::Accepted(Box::new(Accepted { tls: session, binding: tls.binding() })))
    }

    /// A TLS session with a server that agreed to one.
    pub(crate) async fn connect(
        tcp: TcpStream,
        tls: Arc<rustls::ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Self> {
        Ok(Self::Connected(Box::new(TlsConnector::from(tls).connect(name, tcp).await?)))
    }

    /// Its socket, as far as people are shown it.
    pub(crate) fn ends(&self) -> Ends {
        let (tcp, tls) = match self {
            Self::Plain(Socket::Tcp(tcp)) => (tcp, None),
            Self::Plain(Socket::Unix(unix)) => {
                let (theirs, ours) = (Place::Local, Place::Local);
                let pid = unix.peer_cred().ok().and_then(|of| of.pid());
                let process = pid.and_then(|pid| u32::try_from(pid).ok());
                return Ends { fd: unix.as_raw_fd(), theirs, ours, tls: None, process };
            }
            Self::Accepted(accepted) => {
                let (tcp, session) = accepted.tls.get_ref();
                (tcp, cipher(session))
            }
            Self::Connected(tls) => {
                let (tcp, session) = tls.get_ref();
                (tcp, cipher(session))
            }
        };
        let (theirs, ours) = (tcp.peer_addr().ok().into(), tcp.local_addr().ok().into());
        Ends { fd: tcp.as_raw_fd(), theirs, ours, tls, process: None }
    }

    /// How long what is sent may stay unacknowledged ([`net::Tuning::user_timeout`]).
    pub(crate) fn set_user_timeout(&self, limit: Option<Duration>) {
        let tcp = match self {
            Self::Plain(Socket::Unix(_)) => return,
            Self::Plain(Socket::Tcp(tcp)) => tcp,
            Self::Accepted(accepted) => accepted.tls.get_ref().0,
            Self::Connected(tls) => tls.get_ref().0,
        };
        // It fails where the connection has ended, which is noticed soon enough.
        drop(net::set_user_timeout(tcp, limit));
    }

    /// Has the other side said that it speaks PostgreSQL inside TLS?
    pub(crate) fn speaks_postgres(&self) -> bool {
        let said = match self {
            Self::Plain(_) => None,
            Self::Accepted(accepted) => accepted.tls.get_ref().1.alpn_protocol(),
            Self::Connected(tls) => tls.get_ref().1.alpn_protocol(),
        };
        said == Some(ALPN)
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }

    /// Does it stay on this machine, out of everybody's sight?
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Self::Plain(Socket::Unix(_)))
    }

    /// What binds a login to this TLS session (`tls-server-end-point`, RFC 5929): the hash of
    /// the certificate that its server showed, which is we towards clients. `None` without TLS,
    /// and for a certificate whose signature names no hash.
    pub(crate) fn channel_binding(&self) -> Option<Binding> {
        match self {
            Self::Plain(_) => None,
            Self::Accepted(accepted) => accepted.binding.clone(),
            Self::Connected(_) => Binding::of(self.peer_certificate()?),
        }
    }

    /// The certificate that the other side has shown, and that was checked as the settings say.
    pub(crate) fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Self::Plain(_) => None,
            Self::Accepted(accepted) => accepted.tls.get_ref().1.peer_certificates()?.first(),
            Self::Connected(tls) => tls.get_ref().1.peer_certificates()?.first(),
        }
    }

    /// Reads what is there, behind what `buffer` holds. `Ok(0)`: the other side has closed.
    /// A short message takes as much memory as it is long, and none before it comes.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        if buffer.capacity() - buffer.len() >= FIRST {
            return tokio_util::io::poll_read_buf(Pin::new(self), cx, buffer);
        }
        if let Self::Plain(socket) = self {
            // Mostly there is nothing yet, and that is known without a place to read to.
            ready!(socket.poll_read_ready(cx))?;
        }
        if buffer.try_reclaim(CHUNK) {
            return tokio_util::io::poll_read_buf(Pin::new(self), cx, buffer);
        }
        let mut first = [const { MaybeUninit::uninit() }; FIRST];
        let mut first = ReadBuf::uninit(&mut first);
        ready!(Pin::new(self).poll_read(cx, &mut first))?;
        if first.remaining() == 0 {
            // More will follow.
            make_room(buffer, FIRST + CHUNK);
        }
        buffer.extend_from_slice(first.filled());
        Poll::Ready(Ok(first.filled().len()))
    }

    /// As [`Stream::poll_fill`], waiting.
    ///
    /// # Cancel safety
    /// What was read is in `buffer`.
    pub(crate) async fn fill(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill(cx, buffer)).await
    }

    /// Is it known, without asking the system, that nothing has come?
    pub(crate) fn is_silent(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.is_silent(),
            Self::Accepted(_) | Self::Connected(_) => false,
        }
    }

    /// Is it known, without asking the system, that the other side will send nothing more? What
    /// it has sent before may still be unread.
    pub(crate) fn has_ended(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.has_ended(),
            Self::Accepted(accepted) => net::has_ended(accepted.tls.get_ref().0),
            Self::Connected(tls) => net::has_ended(tls.get_ref().0),
        }
    }

    /// Reads until `buffer` is not empty; while it waits, an empty buffer keeps no memory, so
    /// that ten thousand idle clients hold none.
    pub(crate) fn poll_fill_idle(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let polled = self.poll_fill(cx, buffer);
        if polled.is_pending() && buffer.is_empty() {
            *buffer = BytesMut::new();
        }
        polled
    }

    /// Writes `bytes` as far as the socket takes them; ready when all are gone, also those
    /// that an earlier call took and a TLS session still holds as records.
    pub(crate) fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut BytesMut,
    ) -> Poll<io::Result<()>> {
        if bytes.is_empty() && matches!(self, Self::Plain(_)) {
            return Poll::Ready(Ok(()));
        }
        while bytes.has_remaining() {
            let n = ready!(self.poll_write_some(cx, bytes))?;
            bytes.advance(n);
        }
        ready!(Pin::new(&mut *self).poll_flush(cx))?;
        Poll::Ready(Ok(()))
    }

    /// Writes a part of `bytes`, at least one.
    pub(crate) fn poll_write_some(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(self).poll_write(cx, bytes))? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            n => Poll::Ready(Ok(n)),
        }
    }

    /// As [`Stream::poll_drain`], waiting.
    ///
    /// # Cancel safety
    /// What was not written yet is still in `bytes`.
    pub(crate) async fn drain(&mut self, bytes: &mut BytesMut) -> io::Result<()> {
        poll_fn(|cx| self.poll_drain(cx, bytes)).await
    }

    /// Reads at least one more byte.
    ///
    /// # Errors
    /// `UnexpectedEof` when the other side has closed.
    pub(crate) async fn fill_more(&mut self, buffer: &mut BytesMut) -> io::Result<()> {
        match self.fill(buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Ends our side, so that the other reads everything and then the end.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut *self).poll_shutdown(cx)).await
    }
}

/// Room for `more` bytes. What is short grows by just that, and what is long to twice its size.
fn make_room(buffer: &mut BytesMut, more: usize) {
    if buffer.len() >= EXACT || buffer.try_reclaim(more) {
        return buffer.reserve(more);
    }
    let mut grown = BytesMut::with_capacity(buffer.len() + more);
    grown.extend_from_slice(buffer);
    *buffer = grown;
}

fn cipher(session: &rustls::CommonState) -> Option<Cipher> {
    let suite = session.negotiated_cipher_suite()?.suite();
    Some(Cipher { version: session.protocol_version()?, suite })
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Accepted(accepted) => Pin::new(&mut accepted.tls).poll_read(cx, buf),
            Self::Connected(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Accepted(accepted) => Pin::new(&mut accepted.tls).poll_write(cx, buf),
            Self::Connected(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Accepted(accepted) => Pin::new(&mut accepted.tls).poll_flush(cx),
            Self::Connected(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Accepted(accepted) => Pin::new(&mut accepted.tls).poll_shutdown(cx),
            Self::Connected(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    use crate::settings::ClientTls;
    use crate::tls::Encryption;

    /// Both ends of a TLS connection.
    async fn pair() -> (Stream, Stream) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let settings = format!("{{\"cert\": {cert:?}, \"key\": {key:?}}}");
        let settings: ClientTls = serde_json::from_str(&settings).unwrap();
        let acceptor = ClientSide::new(&settings).unwrap().unwrap();
        let server = "{\"address\": \"localhost\", \"sslmode\": \"require\"}";
        let server = serde_json::from_str(server).unwrap();
        let connector = Encryption::new("main", &server).unwrap().config().unwrap();
        let listener = net::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let (near, far) = tokio::join!(
            async {
                let tcp = net::connect(&[address]).await.unwrap();
                Stream::connect(tcp, connector, name).await.unwrap()
            },
            async {
                let (tcp, _) = listener.accept().await.unwrap();
                Stream::accept(tcp, &acceptor).await.unwrap()
            }
        );
        (near, far)
    }

    /// A TLS session takes bytes that its socket does not: they must not stay there.
    #[tokio::test]
    async fn what_tls_has_taken_is_sent_though_nothing_follows_it() {
        let (mut near, mut far) = pair().await;
        let mut sent = 0;
        let mut bytes = BytesMut::new();
        loop {
            bytes.extend_from_slice(&[b'x'; 10_000]);
            sent += 10_000;
            let drained = poll_fn(|cx| Poll::Ready(near.poll_drain(cx, &mut bytes))).await;
            if drained.is_pending() && bytes.is_empty() {
                break;
            }
            assert!(drained.is_ready(), "the session takes more than the socket does");
        }
        let reads = async {
            let mut read = vec![0; sent];
            far.read_exact(&mut read).await.unwrap();
        };
        let (drained, ()) = tokio::join!(near.drain(&mut bytes), reads);
        drained.unwrap();
    }
}
