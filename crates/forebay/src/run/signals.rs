//! What tells the program to end, and how: signals of the system, and whoever has an [`Ender`].
//!
//! The other signals are obeyed on the way: SIGHUP reloads; in PgBouncer's manners SIGUSR1
//! pauses all databases and SIGUSR2 resumes them.

use std::fmt;
use std::future::pending;
use std::io;

use forebay_postgres::Gateway;
use forebay_seam::task::Spawner;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::handover::Staying;
use crate::reload::{Cause, Reloader};

/// What signals mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manners {
    /// SIGTERM and SIGINT end the program when running work has finished.
    Forebay,
    /// As PgBouncer: SIGTERM waits for clients, SIGINT for server connections, SIGQUIT for
    /// nothing.
    PgBouncer,
}

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Idle clients are sent away, running work may finish until the deadline.
    Drain,
    /// Nobody new is let in; it ends when all clients have left.
    ClientsLeft,
    /// Nobody new is let in, all databases are paused; it ends when no server connection is
    /// left.
    ServersReleased,
    /// At once.
    Now,
    /// Another process has the sockets. Clients may stay for half of `stop_timeout`, so that who
    /// has just come can do what it came for; then as [`Ending::Drain`].
    HandedOver,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Drain => "running work",
            Self::ClientsLeft => "all clients to leave",
            Self::ServersReleased => "all server connections",
            Self::Now => "nobody",
            Self::HandedOver => "clients to leave, for a while",
        })
    }
}

/// Ends the program. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ender(mpsc::Sender<Ending>);

impl Ender {
    /// Ends it, as a signal would. While an end is under way, another one ends it at once.
    pub fn end(&self, how: Ending) {
        if self.0.try_send(how).is_err() {
            tracing::debug!("the end is under way already");
        }
    }
}

/// The signals that mean something to us.
pub(super) struct Signals {
    manners: Manners,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    quit: Signal,
    first: Signal,
    second: Signal,
    ender: Ender,
    asked: mpsc::Receiver<Ending>,
}

impl Signals {
    pub(super) fn new(manners: Manners) -> io::Result<Self> {
        let (sender, asked) = mpsc::channel(2);
        Ok(Self {
            manners,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            first: signal(SignalKind::user_defined1())?,
            second: signal(SignalKind::user_defined2())?,
            ender: Ender(sender),
            asked,
        })
    }

    /// How this process ends when another one has its sockets, and for how long its clients may
    /// stay. PgBouncer gives its clients away as well: they never notice.
    pub(super) fn when_handed_over(&self) -> (Ending, Staying) {
        match self.manners {
            Manners::Forebay => (Ending::HandedOver, Staying::Briefly),
            Manners::PgBouncer => (Ending::ClientsLeft, Staying::AsTheyLike),
        }
    }

    pub(super) fn ender(&self) -> Ender {
        self.ender.clone()
    }

    /// Waits for something that says stop: its name, and how.
    pub(super) async fn stop(
        &mut self,
        reloader: &Reloader,
        gateway: Option<&Gateway>,
    ) -> (&'static str, Ending) {
        let (terminate, interrupt) = match self.manners {
            Manners::Forebay => (Ending::Drain, Ending::Drain),
            Manners::PgBouncer => (Ending::ClientsLeft, Ending::ServersReleased),
        };
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return ("SIGTERM", terminate),
                _ = self.interrupt.recv() => return ("SIGINT", interrupt),
                _ = self.quit.recv() => return ("SIGQUIT", Ending::Now),
                Some(how) = self.asked.recv() => return ("SHUTDOWN", how),
                _ = self.hangup.recv() => {
                    let reloader = reloader.clone();
                    // What came of it is in the log.
                    let reload = async move { drop(reloader.reload(Cause::Signal).await) };
                    Spawner::current().spawn(reload);
                }
                () = pausing(&mut self.first, self.manners) => {
                    if let Some(gateway) = gateway.cloned() {
                        Spawner::current().spawn(async move { pause(&gateway).await });
                    }
                }
                () = pausing(&mut self.second, self.manners) => {
                    if let Some(Err(error)) = gateway.map(|gateway| gateway.resume(None)) {
                        tracing::warn!(%error, "SIGUSR2: nothing to resume");
                    }
                }
            }
        }
    }
}

/// A signal that pauses or resumes, where signals do.
async fn pausing(signal: &mut Signal, manners: Manners) {
    match manners {
        Manners::Forebay => pending().await,
        Manners::PgBouncer => drop(signal.recv().await),
    }
}

pub(super) async fn pause(gateway: &Gateway) {
    if let Err(error) = gateway.pause(None).await {
        tracing::warn!(%error, "the pause did not come to its end");
    }
}
