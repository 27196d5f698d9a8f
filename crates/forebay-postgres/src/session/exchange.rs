//! Bytes between a client and its server: all directions at once, so neither side can block
//! the other, and no more of them held than the other side takes.
//!
//! Knows no messages; what the bytes mean is for [`super::outward`] and [`super::inward`].

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;

use super::watch::Late;
use super::{HIGH_WATER, Session, outward};
use crate::cancel::Begun;
use crate::gateway::Bell;
use crate::listener::mailbox::Attention;
use crate::wire::TxStatus;

/// Bytes from a server that are copied for the client rather than taken with their buffer.
pub(super) const COPIED: usize = 2 * 1024;

/// What an exchange of bytes brought.
pub(super) enum Moved {
    Client,
    Server,
    ClientGone,
    ServerGone,
    /// No cancel request is on its way any more.
    Settled,
    /// Notifications, or word of a channel that is waited for.
    Mail,
    /// Something lasts too long.
    Late(Late),
    /// The bell of all sessions rings, and the client runs nothing.
    Bell,
    /// The transaction idles for long: it is to be looked at.
    Look,
    /// An operator sends the client away.
    Killed,
}

/// Hears the bell of all sessions. Hearing for the first time takes the lock of all sessions,
/// so that is done once and not for each exchange.
pub(super) struct Ear<'a, T> {
    bell: &'a Bell,
    rings: Pin<&'a mut T>,
    /// The task that is woken by `rings`.
    woken: Option<Waker>,
}

impl<'a, T: Future<Output = ()>> Ear<'a, T> {
    /// `rings` ends when `bell` rings.
    pub(super) fn new(bell: &'a Bell, rings: Pin<&'a mut T>) -> Self {
        Self { bell, rings, woken: None }
    }

    fn hears(&mut self, cx: &mut Context<'_>) -> bool {
        if self.bell.rang() {
            return true;
        }
        if self.woken.as_ref().is_some_and(|woken| woken.will_wake(cx.waker())) {
            return false;
        }
        self.woken = Some(cx.waker().clone());
        self.rings.as_mut().poll(cx).is_ready()
    }
}

impl Session {
    /// Moves bytes in all directions until there are new ones to look at.
    ///
    /// # Cancel safety
    /// What was moved is where it belongs.
    pub(super) async fn exchange(
        &mut self,
        ear: &mut Ear<'_, impl Future<Output = ()>>,
    ) -> io::Result<Moved> {
        let may_hear = self.is_at_rest();
        let mut settling = self.settling();
        let attention = match self.listening {
            Some(_) => self.attention(),
            None => Attention::Channels,
        };
        poll_fn(|cx| {
            if self.registration.client.is_ended() {
                return Poll::Ready(Ok(Moved::Killed));
            }
            if let Some(round) = self.gateway.stillness.round() {
                return match self.poll_empty(cx) {
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    Poll::Ready(Ok(())) => {
                        self.registration.client.is_still(round);
                        self.gateway.stillness.one_more();
                        Poll::Pending
                    }
                    Poll::Pending => Poll::Pending,
                };
            }
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
            if moved.is_pending()
                && let Some(watch) = &mut self.watch
                && let Poll::Ready(late) = watch.poll_late(cx)
            {
                return Poll::Ready(Ok(Moved::Late(late)));
            }
            if moved.is_pending() && self.poll_look(cx).is_ready() {
                return Poll::Ready(Ok(Moved::Look));
            }
            if moved.is_pending() && may_hear && ear.hears(cx) {
                return Poll::Ready(Ok(Moved::Bell));
            }
            moved
        })
        .await
    }

    /// Writes out what was read, and reads nothing: ready when nothing is left.
    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut to_server = Poll::Ready(());
        self.keep_passed();
        if let Some(lease) = &mut self.link {
            let server = lease.connection();
            // A server that is gone is found when it is read again.
            to_server = server.stream.poll_drain(cx, &mut server.outbox).map(drop);
        }
        let to_client = self.client.poll_drain(cx, &mut self.outbox)?;
        match (to_server, to_client) {
            (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(Ok(())),
            (Poll::Pending, _) | (_, Poll::Pending) => Poll::Pending,
        }
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
    pub(super) fn is_at_rest(&mut self) -> bool {
        let quiet = self.link.as_mut().is_none_or(|lease| lease.connection().is_quiet());
        quiet && self.status == TxStatus::Idle
    }

    /// Whether more of the client's bytes may be held.
    fn has_room(&self) -> bool {
        self.inbox.len() < outward::LONGEST_BATCH.max(self.needs)
    }

    fn poll_exchange(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Moved>> {
        let has_room = self.has_room();
        let limit = self.plan.settings.tcp_user_timeout;
        let Some(lease) = &mut self.link else {
            let due = self.outbox.len();
            let flushed = self.client.poll_drain(cx, &mut self.outbox)?.is_ready();
            self.card.meter.sent(due - self.outbox.len());
            self.line.carries(&self.client, due - self.outbox.len(), limit);
            if flushed {
                self.outbox = BytesMut::new();
            }
            if has_room && let Poll::Ready(n) = self.client.poll_fill_idle(cx, &mut self.inbox)? {
                self.card.meter.received(n);
                if flushed {
                    self.line.is_read(&self.client, limit);
                }
                return Poll::Ready(Ok(if n == 0 { Moved::ClientGone } else { Moved::Client }));
            }
            return Poll::Pending;
        };
        let server = lease.connection();
        loop {
            let due = server.outbox.len();
            let drained = server.stream.poll_drain(cx, &mut server.outbox);
            server.line.carries(&server.stream, due - server.outbox.len(), limit);
            match drained {
                Poll::Ready(Ok(())) => {}
                // What it said last may still be in its socket: reading tells.
                Poll::Ready(Err(_)) => server.outbox.clear(),
                Poll::Pending => break,
            }
            if server.streaming == 0 || self.inbox.is_empty() {
                break;
            }
            server.stream_from(&mut self.inbox);
            if server.streaming == 0 {
                // What comes behind the long message may be there already.
                return Poll::Ready(Ok(Moved::Client));
            }
        }
        let due = self.outbox.len();
        let mut to_client = self.client.poll_drain(cx, &mut self.outbox)?;
        self.card.meter.sent(due - self.outbox.len());
        self.line.carries(&self.client, due - self.outbox.len(), limit);
        while to_client.is_ready() && server.passed > 0 {
            let ready = server.inbox.get(..server.passed).unwrap_or_default();
            match self.client.poll_write_some(cx, ready)? {
                Poll::Ready(n) => {
                    self.card.meter.sent(n);
                    self.line.carries(&self.client, n, limit);
                    server.inbox.advance(n);
                    server.passed -= n;
                }
                Poll::Pending => to_client = Poll::Pending,
            }
        }
        self.card.adds_up();
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
        // Of a long message, nothing is looked at any more: it is only on its way.
        let has_room = has_room && (server.streaming == 0 || self.inbox.len() < HIGH_WATER);
        if has_room && server.outbox.len() < HIGH_WATER {
            match self.client.poll_fill(cx, &mut self.inbox)? {
                Poll::Ready(0) => return Poll::Ready(Ok(Moved::ClientGone)),
                Poll::Ready(n) => {
                    self.card.meter.received(n);
                    if to_client.is_ready() && server.is_quiet() {
                        self.line.is_read(&self.client, limit);
                    }
                    return Poll::Ready(Ok(Moved::Client));
                }
                Poll::Pending => self.lookout.rests(),
            }
        } else if self.lookout.poll_end(cx, &self.client).is_ready() {
            return Poll::Ready(Ok(Moved::ClientGone));
        }
        Poll::Pending
    }

    /// What the server passed on and the client has not got yet is kept for it.
    pub(super) fn keep_passed(&mut self) {
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
