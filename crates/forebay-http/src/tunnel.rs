//! Bytes of another protocol, both ways, once a service has agreed to it.
//!
//! Knows nothing of what they mean. Always true: the lease and the agent's seat are held until
//! both sides are done, one of them breaks, nothing has moved for too long, or a drain is over;
//! then the connection is closed, never used again.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use forebay_seam::task::Spawner;
use forebay_seam::time;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};

use crate::agent::Line;
use crate::answer::Exchange;

/// Bytes on their way in each direction.
const BUFFER: usize = 16 * 1024;

/// Both ends of a tunnel, which may not be there yet.
pub(crate) struct Tunnel {
    pub(crate) agent: OnUpgrade,
    pub(crate) service: OnUpgrade,
    /// What it was asked for with.
    pub(crate) exchange: Box<Exchange>,
    /// How long nothing may move.
    pub(crate) pause: Duration,
}

/// Why a tunnel ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("an end was not there: {0}")]
    Absent(#[from] hyper::Error),
    #[error("an end broke: {0}")]
    Broken(#[from] io::Error),
    #[error("nothing has moved for {} s", .0.as_secs())]
    Still(Duration),
    #[error("the drain is over")]
    Cut,
}

impl Tunnel {
    /// Begins to relay, for the agent on `line`, as soon as that has its answer.
    pub(crate) fn begin(self, line: Arc<Line>) {
        let open = line.understood.becomes_tunnel();
        Spawner::current().spawn(async move {
            let Self { agent, service, exchange, pause } = self;
            let mut cut = line.cut.clone();
            let relayed = tokio::select! {
                relayed = relay(agent, service, pause) => relayed,
                () = cut.told() => Err(Ended::Cut),
            };
            if let Err(error) = relayed {
                tracing::debug!(destination = &*exchange.destination, %error, "a tunnel ended");
            }
            exchange.ends_for_good();
            drop((open, line));
        });
    }
}

async fn relay(agent: OnUpgrade, service: OnUpgrade, pause: Duration) -> Result<(), Ended> {
    let (agent, service) = tokio::try_join!(agent, service)?;
    let moved = Moved { began: time::now(), last: AtomicU64::new(0) };
    let mut agent = TokioIo::new(agent);
    let mut service = Watched { io: TokioIo::new(service), moved: &moved };
    let mut copying =
        std::pin::pin!(copy_bidirectional_with_sizes(&mut agent, &mut service, BUFFER, BUFFER));
    loop {
        let deadline = moved.last() + pause;
        if time::now() >= deadline {
            return Err(Ended::Still(pause));
        }
        tokio::select! {
            copied = &mut copying => return Ok(copied.map(drop)?),
            () = time::sleep_until(deadline) => {}
        }
    }
}

/// When something last moved, in milliseconds since the beginning.
struct Moved {
    began: Instant,
    last: AtomicU64,
}

impl Moved {
    fn last(&self) -> Instant {
        self.began + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    fn now(&self) {
        let elapsed = time::now().saturating_duration_since(self.began).as_millis();
        self.last.store(u64::try_from(elapsed).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// One end: what passes it, passes the tunnel.
struct Watched<'m> {
    io: TokioIo<Upgraded>,
    moved: &'m Moved,
}

impl AsyncRead for Watched<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.moved.now();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.moved.now();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
