//! One client, from its first statement to its end.
//!
//! A session is one task. It reads what the client sends ([`outward`]), links a server
//! connection when a statement needs one ([`link`]), reads what the server answers
//! ([`inward`]), and gives the connection back when its transaction is over. In between, bytes
//! move in both directions at once ([`exchange`]).
//!
//! Dropped at any await point, it loses the client and nothing else: the lease goes home in
//! unknown state, and the engine cancels, reads, rolls back and clears it.

mod exchange;
mod extended;
mod failed;
mod greet;
mod heal;
mod inward;
mod link;
mod local;
mod lookout;
mod notify;
mod outward;
mod parking;
mod portals;
mod recent;
mod reload;
mod rest;
mod rows;
mod unnamed;
mod watch;
mod work;

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use forebay_pool::{Condition, Lease};
use forebay_seam::time;

use crate::cancel::{Begun, Registration};
use crate::census::{ClientEntry, Newcomer, Replication};
use crate::comings;
use crate::fault::{Fault, Outcome};
use crate::gateway::{Bell, Course, Inner, Plan};
use crate::greeting::Arrival;
use crate::held::Holding;
use crate::line::Line;
use crate::listener::mailbox::Attention;
use crate::params::{Reported, Settings};
use crate::pins::Pins;
use crate::prepared::Statement;
use crate::route::Who;
use crate::server::connector::Postgres;
use crate::stream::Stream;
use crate::timeouts::Limits;
use crate::wire::TxStatus;
use crate::wire::backend::Severity;

use exchange::{Ear, Moved};

/// Bytes held for one direction before the other side is no longer read.
const HIGH_WATER: usize = 16 * 1024;
/// How long the reason of an ending may take to reach the client.
const FAREWELL: Duration = Duration::from_secs(1);
/// Why a client is gone that said no goodbye, as PgBouncer says it.
const UNEXPECTED_EOF: &str = "client unexpected eof";

/// Why a session ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The client said goodbye.
    Left,
    /// The client is not there any more.
    Vanished,
    /// The client was told why.
    Fault(Fault),
    /// The server told the client why.
    ServerSaid,
    /// In the middle of a message for the client: nothing can be said behind half of it.
    Midway(Fault),
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
    /// DISCARD ALL, which has committed at once: nothing takes it back.
    Discarded,
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
    /// The configuration in force when the client came, or rested last.
    plan: Arc<Plan>,
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
    /// Whether it is there while nobody reads from it.
    lookout: lookout::Lookout,
    /// To the client; what the server's inbox passes on comes behind it.
    outbox: BytesMut,
    /// What the client got and may not have read.
    line: Line,
    registration: Registration,
    /// What the console shows of it.
    pub(crate) card: ClientEntry,
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
    portals: portals::Portals,
    /// As the client was told last.
    status: TxStatus,
    /// A BEGIN that was answered and not sent.
    begin: Option<Box<[u8]>>,
    intake: Intake,
    link: Option<Lease<Postgres>>,
    pins: Pins,
    /// Settings that the client has set to values that only the server knows.
    learns: Option<Box<rest::Learns>>,
    /// The message that the connection was linked for has still to be sent.
    unsent: bool,
    /// Others see what its transaction began with.
    shows_beginning: bool,
    /// What the client listens to, where connections are shared.
    listening: Option<Box<notify::Listening>>,
    /// The server has said why it ends the connection.
    server_said_goodbye: bool,
    work: work::Work,
    followed: work::Followed,
    watch: Option<Box<watch::Watch>>,
    /// What parking knows of the open transaction; nothing where nothing parks.
    parking: Option<Box<parking::Parking>>,
}

/// What came of the greeting.
enum Greeted {
    Well,
    AndEnded,
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

impl Session {
    pub(crate) fn new(gateway: Arc<Inner>, arrival: Arrival, registration: Registration) -> Self {
        let Arrival { client, inbox, plan, who, settings, .. } = arrival;
        let limits = Limits::of(&plan.settings, &who.database, &who.identity.user);
        let watch = watch::Watch::new(limits, plan.settings.cancel_wait_timeout);
        let card = gateway.census.enters(Newcomer {
            id: registration.number(&gateway.census),
            database: &who.database,
            user: &who.identity.user,
            application: &who.application,
            ends: client.ends(),
            replication: Replication::None,
        });
        Self {
            held: Holding::nothing(&gateway.held),
            gateway,
            plan,
            who,
            client,
            inbox,
            batch: 0,
            needs: 0,
            dropping: 0,
            lookout: lookout::Lookout::default(),
            outbox: BytesMut::new(),
            line: Line::default(),
            registration,
            card,
            cancels_due: Begun::Yes,
            reported: Reported::default(),
            wanted_at_start: Settings::default(),
            wanted: settings,
            uncommitted: Vec::new(),
            failed: false,
            statements: HashMap::new(),
            unnamed: None,
            told: heal::Told::Nothing,
            path: unnamed::Path::Settled,
            portals: portals::Portals::default(),
            status: TxStatus::Idle,
            begin: None,
            intake: Intake::Normal,
            link: None,
            pins: Pins::default(),
            learns: None,
            unsent: false,
            shows_beginning: false,
            listening: None,
            server_said_goodbye: false,
            work: work::Work::default(),
            followed: work::Followed::Nothing,
            watch,
            parking: None,
        }
    }

    /// Greets the client, serves it to its end, and tells it why.
    pub(crate) async fn run(mut self: Box<Self>, mut bell: Bell) {
        // Boxed is what takes a small part of a client's time, and none while it asks nothing.
        if let Greeted::Well = Box::pin(self.begin()).await {
            let end = self.serve(&mut bell).await;
            self.ends(end);
        }
        Box::pin(self.farewell()).await;
    }

    async fn begin(&mut self) -> Greeted {
        self.is_served_here().await;
        match self.greet().await {
            Ok(()) => return Greeted::Well,
            Err(End::Fault(fault)) => {
                comings::client_left(&self.card, fault.reason());
                comings::client_failed(&self.card, &fault);
                fault.write_at_login(&mut self.outbox);
            }
            Err(end) => self.ends(end),
        }
        Greeted::AndEnded
    }

    /// What the client is told at the end, and what it leaves.
    fn ends(&mut self, end: End) {
        let card = &self.card;
        match end {
            End::Left => comings::client_left(card, "client close request"),
            End::Vanished => comings::client_left(card, UNEXPECTED_EOF),
            End::Io(error) => {
                tracing::debug!(client = card.id, %error, "a client was lost");
                comings::client_left(card, UNEXPECTED_EOF);
            }
            End::ServerSaid => comings::client_left(card, "server conn crashed?"),
            End::Fault(fault) => {
                comings::client_left(card, fault.reason());
                comings::client_failed(card, &fault);
                self.keep_passed();
                if !self.is_midway() {
                    fault.write(&mut self.outbox, Severity::Fatal);
                }
            }
            End::Midway(fault) => {
                comings::client_left(card, fault.reason());
                comings::client_failed(card, &fault);
            }
        }
        self.followed = work::Followed::Nothing;
        self.part_with_server();
        self.card.parts();
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

    async fn serve(&mut self, bell: &mut Bell) -> End {
        self.is_served_here().await;
        loop {
            let mut hears = bell.clone();
            let mut rings = std::pin::pin!(hears.rings());
            let mut ear = Ear::new(bell, rings.as_mut());
            loop {
                let next = match self.outward() {
                    Ok(next) => next,
                    Err(end) => return end,
                };
                match next {
                    Next::Leave => return End::Left,
                    Next::Link => {
                        if let Err(end) = Box::pin(self.link()).await {
                            return end;
                        }
                        continue;
                    }
                    Next::Exchange => {}
                }
                if let Err(full) = self.held.set(self.inbox.len()) {
                    return Fault::TooMuchHeld(full).into();
                }
                self.look_at_clock();
                match self.exchange(&mut ear).await {
                    Ok(Moved::Bell) => break,
                    Ok(Moved::Look) => Box::pin(self.look_at_rest()).await,
                    Ok(moved) => {
                        if let Err(end) = self.digest(moved) {
                            return end;
                        }
                    }
                    Err(error) => return End::Io(error),
                }
            }
            match bell.answer() {
                Course::Stopping => return Fault::Stopping.into(),
                Course::Serving => {}
            }
            if let Err(fault) = self.rests_under_plan() {
                return fault.into();
            }
        }
    }

    /// Looks at what an exchange of bytes brought.
    fn digest(&mut self, moved: Moved) -> Result<(), End> {
        match moved {
            Moved::Client | Moved::Bell | Moved::Look => Ok(()),
            Moved::Settled => {
                self.cancels_due = Begun::Yes;
                self.inward()
            }
            Moved::Server => self.inward(),
            Moved::Mail => {
                if self.attention() != Attention::Channels
                    && let Err(why) = self.tell_notifications()
                {
                    return Err(Fault::Listen(why).into());
                }
                Ok(())
            }
            Moved::ClientGone => Err(End::Vanished),
            Moved::ServerGone => Err(self.server_gone()),
            Moved::Killed => Err(Fault::Killed.into()),
            Moved::Late(late) => self.is_late(late),
        }
    }

    /// Who is to be sent away is told by waking this task.
    async fn is_served_here(&self) {
        poll_fn(|cx| {
            self.registration.client.is_served_by(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// Has the client got a part of a message, and waits for its rest?
    fn is_midway(&mut self) -> bool {
        self.link.as_mut().is_some_and(|lease| lease.connection().passing > 0)
    }

    fn server_gone(&mut self) -> End {
        let sent = self.link.as_mut().is_some_and(|lease| !lease.connection().awaited.is_empty());
        let outcome = if sent { Outcome::Unknown } else { Outcome::NotSent };
        self.keep_passed();
        let is_midway = self.is_midway();
        if let Some(lease) = self.link.take() {
            lease.give_back(Condition::Broken);
        }
        if is_midway {
            End::Midway(Fault::ServerLost { outcome })
        } else if self.server_said_goodbye {
            End::ServerSaid
        } else {
            Fault::ServerLost { outcome }.into()
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
