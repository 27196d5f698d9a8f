//! One client, from its first statement to its end.
//!
//! A session is one task. It reads what the client sends ([`outward`]), links a server
//! connection when a statement needs one ([`link`]), reads what the server answers
//! ([`inward`]), and gives the connection back when its transaction is over. Bytes move in
//! both directions at once ([`Session::exchange`]), so neither side can block the other.
//!
//! Dropped at any await point, it loses the client and nothing else: the lease goes home in
//! unknown state, and the engine cancels, reads, rolls back and clears it.

mod extended;
mod greet;
mod heal;
mod inward;
mod link;
mod local;
mod notify;
mod outward;
mod rest;
mod unnamed;
mod work;

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use forebay_pool::overlap::Idling;
use forebay_pool::{Condition, Lease};
use forebay_seam::task::Stop;
use forebay_seam::time;
use tokio::io::AsyncWrite;

use crate::cancel::{Begun, Registration};
use crate::fault::{Fault, Outcome};
use crate::gateway::Inner;
use crate::held::Holding;
use crate::listener::mailbox::Attention;
use crate::params::{Reported, Settings};
use crate::pins::Pins;
use crate::prepared::Statement;
use crate::route::Who;
use crate::server::connector::Postgres;
use crate::sql::effect::Effect;
use crate::stream::Stream;
use crate::wire::TxStatus;
use crate::wire::backend::Severity;

/// Bytes held for one direction before the other side is no longer read.
const HIGH_WATER: usize = 64 * 1024;
/// Bytes from a server that are copied for the client rather than taken with their buffer.
const COPIED: usize = 2 * 1024;
/// How long the reason of an ending may take to reach the client.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why a session ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The client said goodbye or vanished.
    Left,
    /// The client was told why.
    Fault(Fault),
    /// The server told the client why.
    ServerSaid,
    Io(io::Error),
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<crate::wire::Malformed> for End {
    fn from(malformed: crate::wire::Malformed) -> Self {
        Self::Fault(malformed.into())
    }
}

/// What is done with the client's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Intake {
    Normal,
    /// An extended-protocol message failed before it reached a server: the rest of its batch
    /// is read and dropped.
    SkipToSync,
}

/// What a command did to the session's settings; of use once its transaction commits.
#[derive(Debug)]
enum Change {
    Set {
        name: String,
        value: String,
    },
    Reset {
        name: String,
    },
    ResetAll,
    Learn {
        names: Box<[String]>,
    },
    /// Changes behind this one may be taken back.
    Savepoint {
        name: String,
    },
    /// Of the channels that are listened to.
    Listen(notify::ListenChange),
}

pub(crate) struct Session {
    gateway: Arc<Inner>,
    who: Who,
    client: Stream,
    /// From the client.
    inbox: BytesMut,
    /// What of it counts among all clients'.
    held: Holding,
    /// Bytes of `inbox` that belong to a batch that is complete.
    batch: usize,
    /// The inbox must be able to hold so much, or a long message would never be whole.
    needs: usize,
    /// Bytes of a message that is dropped while it still arrives.
    dropping: usize,
    /// To the client; what the server's inbox passes on comes behind it.
    outbox: BytesMut,
    registration: Registration,
    /// Whether something waits until no cancel request is on its way.
    cancels_due: Begun,
    /// What the client was told of its session.
    reported: Reported,
    /// What the client wants its session to be.
    wanted: Settings,
    /// What it wanted at its start: RESET goes back to that.
    wanted_at_start: Settings,
    /// What the open transaction did to settings.
    uncommitted: Vec<Change>,
    /// Something has failed since the last ReadyForQuery, and no transaction ended since.
    failed: bool,
    statements: HashMap<Bytes, Arc<Statement>>,
    unnamed: Option<Arc<Statement>>,
    told: heal::Told,
    path: unnamed::Path,
    /// What executing a portal does.
    portals: HashMap<Bytes, Effect>,
    /// As the client was told last.
    status: TxStatus,
    /// A BEGIN that was answered and not sent.
    begin: Option<Bytes>,
    intake: Intake,
    link: Option<Lease<Postgres>>,
    pins: Pins,
    /// Settings that the client has set to values that only the server knows.
    learns: Vec<String>,
    /// The message that the connection was linked for has still to be sent.
    unsent: bool,
    /// What the client listens to, where connections are shared.
    listening: Option<Box<notify::Listening>>,
    /// The server has said why it ends the connection.
    server_said_goodbye: bool,
    work: work::Work,
    idling: Option<Idling>,
}

/// What the digestion of input asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// More bytes, of either side.
    Exchange,
    /// A server connection.
    Link,
    Leave,
}

/// What an exchange of bytes brought.
enum Moved {
    Client,
    Server,
    ClientGone,
    ServerGone,
    /// No cancel request is on its way any more.
    Settled,
    /// Notifications, or word of a channel that is waited for.
    Mail,
    /// The program stops, and the client runs nothing.
    Stop,
}

impl Session {
    pub(crate) fn new(
        gateway: Arc<Inner>,
        who: Who,
        client: Stream,
        inbox: BytesMut,
        registration: Registration,
    ) -> Self {
        let wanted = who.settings.clone();
        Self {
            held: Holding::nothing(&gateway.held),
            gateway,
            who,
            client,
            inbox,
            batch: 0,
            needs: 0,
            dropping: 0,
            outbox: BytesMut::new(),
            registration,
            cancels_due: Begun::Yes,
            reported: Reported::default(),
            wanted_at_start: wanted.clone(),
            wanted,
            uncommitted: Vec::new(),
            failed: false,
            statements: HashMap::new(),
            unnamed: None,
            told: heal::Told::Nothing,
            path: unnamed::Path::Settled,
            portals: HashMap::new(),
            status: TxStatus::Idle,
            begin: None,
            intake: Intake::Normal,
            link: None,
            pins: Pins::default(),
            learns: Vec::new(),
            unsent: false,
            listening: None,
            server_said_goodbye: false,
            work: work::Work::default(),
            idling: None,
        }
    }

    /// Greets the client, serves it to its end, and tells it why.
    pub(crate) async fn run(mut self, mut stop: Stop) {
        let end = match self.greet().await {
            Ok(()) => self.serve(&mut stop).await,
            Err(End::Fault(fault)) => {
                tracing::info!(user = %self.who.user, database = %self.who.database, error = %fault, "login failed");
                fault.write_at_login(&mut self.outbox);
                return self.farewell().await;
            }
            Err(end) => end,
        };
        let (user, database) = (&self.who.user, &self.who.database);
        match end {
            End::Left => {}
            End::Io(error) => tracing::debug!(%user, %database, %error, "client lost"),
            End::ServerSaid => tracing::info!(%user, %database, "the server ended the session"),
            End::Fault(fault) => {
                tracing::info!(%user, %database, error = %fault, "session ended");
                self.keep_passed();
                fault.write(&mut self.outbox, Severity::Fatal);
            }
        }
        self.idling = None;
        self.part_with_server();
        self.farewell().await;
    }

    /// Sends a client away that has no session: `reason` is all it gets.
    pub(crate) async fn send_away(mut client: Stream, mut reason: BytesMut) {
        linger(&mut client, &mut reason).await;
    }

    /// The reason reaches the client before the end does: written, then our side closed, then
    /// what still comes is read away, so that no reset destroys it.
    async fn farewell(&mut self) {
        linger(&mut self.client, &mut self.outbox).await;
    }

    async fn serve(&mut self, stop: &mut Stop) -> End {
        // One for all exchanges: each that is made anew takes the lock of all sessions.
        let mut told = std::pin::pin!(stop.told());
        loop {
            let next = match self.outward() {
                Ok(next) => next,
                Err(end) => return end,
            };
            match next {
                Next::Leave => return End::Left,
                Next::Link => {
                    if let Err(end) = self.link().await {
                        return end;
                    }
                    continue;
                }
                Next::Exchange => {}
            }
            if let Err(full) = self.held.set(self.inbox.len()) {
                return Fault::TooMuchHeld(full).into();
            }
            match self.exchange(told.as_mut()).await {
                Ok(Moved::Client) => {}
                Ok(moved @ (Moved::Server | Moved::Settled)) => {
                    if let Moved::Settled = moved {
                        self.cancels_due = Begun::Yes;
                    }
                    if let Err(end) = self.inward() {
                        return end;
                    }
                }
                Ok(Moved::Mail) => {
                    if self.attention() != Attention::Channels
                        && let Err(why) = self.tell_notifications()
                    {
                        return Fault::Listen(why).into();
                    }
                }
                Ok(Moved::ClientGone) => return End::Left,
                Ok(Moved::ServerGone) => return self.server_gone(),
                Ok(Moved::Stop) => return Fault::Stopping.into(),
                Err(error) => return End::Io(error),
            }
        }
    }

    fn server_gone(&mut self) -> End {
        let sent = self.link.as_mut().is_some_and(|lease| !lease.connection().awaited.is_empty());
        let outcome = if sent { Outcome::Unknown } else { Outcome::NotSent };
        self.keep_passed();
        if let Some(lease) = self.link.take() {
            lease.give_back(Condition::Broken);
        }
        if self.server_said_goodbye {
            End::ServerSaid
        } else {
            Fault::ServerLost { outcome }.into()
        }
    }

    /// Moves bytes in all directions until there are new ones to look at.
    async fn exchange(
        &mut self,
        mut told: Pin<&mut impl Future<Output = ()>>,
    ) -> io::Result<Moved> {
        let may_stop = self.is_at_rest();
        let mut settling = self.settling();
        let attention = match self.listening {
            Some(_) => self.attention(),
            None => Attention::Channels,
        };
        poll_fn(|cx| {
            let moved = self.poll_exchange(cx);
            if moved.is_pending()
                && settling.as_mut().is_some_and(|settled| settled.as_mut().poll(cx).is_ready())
            {
                return Poll::Ready(Ok(Moved::Settled));
            }
            if moved.is_pending()
                && let Some(listening) = &self.listening
                && listening.poll_news(cx, &self.outbox, attention).is_ready()
            {
                return Poll::Ready(Ok(Moved::Mail));
            }
            if moved.is_pending() && may_stop && told.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(Moved::Stop));
            }
            moved
        })
        .await
    }

    /// Until the cancel requests that are on their way have arrived, if something waits for
    /// that.
    fn settling(&mut self) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        if self.cancels_due == Begun::Yes {
            return None;
        }
        let in_flight = &self.link.as_mut()?.connection().in_flight;
        let in_flight = Arc::clone(in_flight);
        Some(Box::pin(async move { in_flight.settled().await }))
    }

    /// The client runs nothing: no transaction is open, and nothing is owed.
    fn is_at_rest(&mut self) -> bool {
        let quiet = self.link.as_mut().is_none_or(|lease| lease.connection().is_quiet());
        quiet && self.status == TxStatus::Idle
    }

    /// Whether more of the client's bytes may be held.
    fn has_room(&self) -> bool {
        self.inbox.len() < outward::LONGEST_BATCH.max(self.needs)
    }

    fn poll_exchange(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Moved>> {
        let has_room = self.has_room();
        let Some(lease) = &mut self.link else {
            let flushed = self.client.poll_drain(cx, &mut self.outbox)?.is_ready();
            if flushed {
                self.outbox = BytesMut::new();
            }
            if has_room && let Poll::Ready(n) = self.client.poll_fill_idle(cx, &mut self.inbox)? {
                return Poll::Ready(Ok(if n == 0 { Moved::ClientGone } else { Moved::Client }));
            }
            return Poll::Pending;
        };
        let server = lease.connection();
        if let Poll::Ready(Err(_)) = server.stream.poll_drain(cx, &mut server.outbox) {
            // What it said last may still be in its socket: reading tells.
            server.outbox.clear();
        }
        let mut to_client = self.client.poll_drain(cx, &mut self.outbox)?;
        while to_client.is_ready() && server.passed > 0 {
            let ready = server.inbox.get(..server.passed).unwrap_or_default();
            match self.client.poll_write_some(cx, ready)? {
                Poll::Ready(n) => {
                    server.inbox.advance(n);
                    server.passed -= n;
                }
                Poll::Pending => to_client = Poll::Pending,
            }
        }
        if to_client.is_ready() {
            // With TLS, records may wait in the session until they are flushed.
            let _flushed = Pin::new(&mut self.client).poll_flush(cx)?;
        }
        if server.passed < HIGH_WATER && self.outbox.len() < HIGH_WATER {
            match server.stream.poll_fill(cx, &mut server.inbox) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Ok(Moved::ServerGone)),
                Poll::Ready(Ok(_)) => return Poll::Ready(Ok(Moved::Server)),
                Poll::Pending => {}
            }
        }
        if has_room && server.outbox.len() < HIGH_WATER {
            match self.client.poll_fill(cx, &mut self.inbox)? {
                Poll::Ready(0) => return Poll::Ready(Ok(Moved::ClientGone)),
                Poll::Ready(_) => return Poll::Ready(Ok(Moved::Client)),
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    /// What the server passed on and the client has not got yet is kept for it.
    fn keep_passed(&mut self) {
        if let Some(lease) = &mut self.link {
            let server = lease.connection();
            let passed = server.inbox.get(..server.passed).unwrap_or_default();
            if self.outbox.is_empty() && passed.len() > COPIED {
                self.outbox = server.inbox.split_to(server.passed);
            } else {
                // A buffer that two have a part of has memory besides.
                self.outbox.extend_from_slice(passed);
                server.inbox.advance(server.passed);
            }
            server.passed = 0;
        }
    }
}

async fn linger(client: &mut Stream, outbox: &mut BytesMut) {
    let goodbye = async {
        client.drain(outbox).await?;
        client.shutdown().await?;
        let mut unread = BytesMut::new();
        while client.fill(&mut unread).await? > 0 {
            unread.clear();
        }
        Ok::<_, io::Error>(())
    };
    drop(time::timeout(FAREWELL, goodbye).await);
}
