//! Linking a server connection: the place in line is taken, and the connection gets the
//! client's settings and its waiting BEGIN in the same write as its statement.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use forebay_pool::{Ask, CheckoutError, Condition, Lease};
use forebay_seam::time;

use super::reload::Followed;
use super::{End, HIGH_WATER, Session};
use crate::cancel::Linked;
use crate::fault::Fault;
use crate::params::Stakes;
use crate::replicas::To;
use crate::server::answers::{Awaited, Purpose};
use crate::server::connector::{Identity, Postgres};
use crate::server::{Gate, Sets};
use crate::tally::Figure;
use crate::wire::TxStatus;
use crate::wire::frontend;

impl Session {
    /// Links a server for the message at hand. A client that cannot have one is told, and
    /// goes on; the error is for a session that ends.
    pub(super) async fn link(&mut self) -> Result<(), End> {
        self.follow_plan()?;
        let checkout = loop {
            if let Err(fault) = self.can_resume() {
                break Err(fault);
            }
            let ask = self.ask();
            let checkout = self.check_out(&ask).await?;
            self.keep_ask(ask);
            match checkout {
                // A pool that closes for a reload has another one in its place.
                Err(Fault::Stopping) if self.follow_plan()? == Followed::Another => {}
                Err(Fault::Stopping) => return Err(Fault::Stopping.into()),
                checkout => break checkout,
            }
        };
        let checkout = checkout.and_then(|lease| match self.leads_where_it_was(&lease) {
            Ok(()) => Ok(lease),
            Err(fault) => {
                lease.give_back(Condition::Clean);
                self.registration.client.rests();
                Err(fault)
            }
        });
        let checkout = match checkout {
            Ok(lease) => lease,
            Err(fault) => {
                let fault = self.cannot_resume(fault);
                // It has been told T for its BEGIN, so it is in a transaction, which failed.
                if self.begin.take().is_some() {
                    self.status = TxStatus::Failed;
                }
                self.refuse_batch(&fault);
                self.settle_listening();
                return Ok(());
            }
        };
        self.link = Some(checkout);
        self.work_is_linked();
        self.unsent = true;
        self.resumes();
        self.prepare_link();
        Ok(())
    }

    /// Settings and BEGIN go ahead of the first statement.
    pub(super) fn prepare_link(&mut self) {
        let Some(lease) = &mut self.link else { return };
        let since = self.gateway.census.moment(lease.since());
        let server = &mut **lease.connection();
        server.gate = Gate::Open;
        server.sets = Sets::Nothing;
        server.catalogue.look_up(&mut server.seen);
        self.card.links(server.card.as_deref(), since);
        if !self.replay_settings() {
            self.tell_reported();
        }
        if let Some(begin) = self.begin.take() {
            self.note_begin(&begin);
            let Some(lease) = &mut self.link else { return };
            let server = &mut **lease.connection();
            frontend::message(&mut server.outbox, b'Q', |out| frontend::cstr(out, &begin));
            server.unnamed = None;
            let failed = self.status == TxStatus::Failed;
            let purpose = if failed { Purpose::FailedBegin } else { Purpose::Begin };
            server.awaited.push_back(Awaited::OwnQuery(purpose));
            server.pipeline.ends_batch();
            // Without it, SET TRANSACTION would be taken that was too late before.
            if !failed && self.parking.as_ref().is_some_and(|parking| parking.had_queried()) {
                // A cancel is for the client's statement behind it.
                self.registration.client.prepares();
                frontend::write_query(&mut server.outbox, "SELECT 1");
                server.awaited.push_back(Awaited::OwnQuery(Purpose::Queried));
                server.pipeline.ends_batch();
            }
        }
    }

    /// Sends what the connection lacks of the client's settings; `false` if it lacks nothing.
    pub(super) fn replay_settings(&mut self) -> bool {
        let Some(lease) = &mut self.link else { return false };
        let server = &mut **lease.connection();
        let Some(replay) = server.settings.replay_of(&self.wanted) else { return false };
        frontend::write_query(&mut server.outbox, &replay.sql);
        // A statement that runs under another path, role or time zone than its client's may
        // do harm, so it is not sent before these are certain.
        if replay.stakes == Stakes::Meaning {
            server.gate = Gate::UntilAnswered;
        }
        server.unnamed = None;
        if server.awaited.is_empty() {
            self.registration.client.prepares();
        }
        server.awaited.push_back(Awaited::OwnQuery(Purpose::Settings));
        server.pipeline.ends_batch();
        true
    }

    /// A connection where the work belongs: to the server itself, or to its replicas. Where
    /// none of these can be used, the primary may do their work, unless a parked transaction goes
    /// on.
    pub(super) async fn check_out(
        &mut self,
        ask: &Ask<Identity>,
    ) -> Result<Result<Lease<Postgres>, Fault>, End> {
        if let Some(to) = self.resumes_at() {
            return self.wait_for(to, ask).await;
        }
        let replicas = self.who.backend.replicas.as_ref();
        if let Some(to @ To::Replicas(class)) = replicas.map(|replicas| replicas.to(ask.class)) {
            let backend = Arc::clone(&self.who.backend);
            let given_up = async {
                match &backend.replicas {
                    Some(replicas) => replicas.given_up().await,
                    None => std::future::pending().await,
                }
            };
            let elsewhere = Ask { class, ..ask.clone() };
            tokio::select! {
                biased;
                checkout = self.wait_for(to, &elsewhere) => return checkout,
                () = given_up => {}
            }
        }
        self.wait_for(To::Own, ask).await
    }

    /// Waits in line. Meanwhile the client may leave, cancel, or send more.
    async fn wait_for(
        &mut self,
        to: To,
        ask: &Ask<Identity>,
    ) -> Result<Result<Lease<Postgres>, Fault>, End> {
        let pool = match (to, &self.who.backend.replicas) {
            (To::Replicas(_), Some(replicas)) => &replicas.backend.pool,
            (To::Own | To::Replicas(_), _) => &self.who.backend.pool,
        };
        let mut checkout = std::pin::pin!(pool.checkout(ask));
        let cancelable = &self.registration.client;
        let stillness = &self.gateway.stillness;
        let (card, census) = (&self.card, &self.gateway.census);
        let mut since = None;
        let (client, inbox, outbox) = (&mut self.client, &mut self.inbox, &mut self.outbox);
        let lookout = &mut self.lookout;
        let waited = poll_fn(|cx| {
            use std::future::Future;
            if cancelable.is_ended() {
                return Poll::Ready(Waited::Killed);
            }
            if let Some(round) = stillness.round() {
                return match client.poll_drain(cx, outbox) {
                    Poll::Ready(Err(error)) => Poll::Ready(Waited::Lost(error)),
                    Poll::Ready(Ok(())) => {
                        cancelable.is_still(round);
                        stillness.one_more();
                        Poll::Pending
                    }
                    Poll::Pending => Poll::Pending,
                };
            }
            if let Poll::Ready(result) = checkout.as_mut().poll(cx) {
                let mut lease = match result {
                    Ok(lease) => lease,
                    Err(error) => return Poll::Ready(Waited::InVain(error)),
                };
                // What it asked for when it waited, nobody would get the answer of.
                if since.is_some() && client.has_ended() {
                    lease.give_back(Condition::Clean);
                    return Poll::Ready(Waited::Left);
                }
                let server = &**lease.connection();
                return Poll::Ready(match cancelable.links(&server.key, &server.in_flight) {
                    Linked::Yes => Waited::Over(lease),
                    Linked::Cancelled => {
                        lease.give_back(Condition::Clean);
                        Waited::Cancelled
                    }
                });
            }
            if since.is_none() {
                since = Some(census.moment(time::now()));
                card.waits(since.unwrap_or_default());
            }
            // Who gets a connection at once cannot be cancelled before.
            if cancelable.poll_wait(cx).is_ready() {
                return Poll::Ready(Waited::Cancelled);
            }
            if let Poll::Ready(Err(error)) = client.poll_drain(cx, outbox) {
                return Poll::Ready(Waited::Lost(error));
            }
            while inbox.len() < HIGH_WATER {
                match client.poll_fill(cx, inbox) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Waited::Left),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Waited::Lost(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            lookout.poll_end(cx, client).map(|()| Waited::Left)
        })
        .await;
        if let Some(since) = since {
            let waited = census.moment(time::now()).saturating_sub(since);
            card.tally.add(Figure::WaitTime, waited / 1_000);
            card.rests();
        }
        match waited {
            Waited::Over(lease) => Ok(Ok(lease)),
            Waited::InVain(error) => {
                self.registration.client.rests();
                let is_closed = matches!(error, CheckoutError::Closed { .. });
                Ok(Err(if is_closed { Fault::Stopping } else { error.into() }))
            }
            Waited::Cancelled => {
                self.registration.client.rests();
                Ok(Err(Fault::Cancelled))
            }
            Waited::Killed => Err(Fault::Killed.into()),
            Waited::Left => Err(End::Vanished),
            Waited::Lost(error) => Err(End::Io(error)),
        }
    }
}

enum Waited {
    Over(Lease<Postgres>),
    InVain(CheckoutError),
    Cancelled,
    Killed,
    Left,
    Lost(std::io::Error),
}
