//! How long the client's statement, transaction or pause lasts, where that is limited.
//!
//! One timer for a session: it is armed for the earliest moment at which something may be too
//! long, and armed anew only when it rings or something earlier comes up, so a statement that
//! is over in time has touched no timer. It never rings far in the future. Always true: a
//! session without limits has no watch, and a statement is cancelled once.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use forebay_pool::Condition;
use forebay_seam::time::{self, Instant, Sleep};

use super::{End, Session};
use crate::fault::{Fault, QUERY_TIMEOUT};
use crate::server::emptiness::Inside;
use crate::timeouts::{Kind, Limits};
use crate::wire::TxStatus;

/// The timer is set to this at the most: wheels of timers are made for the near future.
const FARTHEST: Duration = Duration::from_secs(3_600);

/// What the client does, as far as a limit is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// Nothing, outside of transactions.
    Rests,
    /// Nothing, within one.
    Idles,
    /// A statement of it runs.
    Runs,
}

/// What was asked of the server about the statement that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cancelled {
    No,
    /// To end it; it should have by then.
    By(Instant),
}

/// What has lasted too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    Query,
    Disobeyed,
    Transaction,
    IdleTransaction,
    ClientIdle,
}

pub(super) struct Watch {
    limits: Limits,
    /// How long the server may take to obey a cancel.
    obedience: Duration,
    /// Since when what is done; nothing while nobody has looked.
    doing: Option<(Doing, Instant)>,
    /// Since when a transaction is open.
    transaction: Option<Instant>,
    cancelled: Cancelled,
    /// What a server would allow the transaction at hand, which was parked there.
    servers: Servers,
    timer: Option<(Instant, Pin<Box<Sleep>>)>,
}

/// What a server allows a transaction.
#[derive(Debug, Clone, Copy, Default)]
struct Servers {
    transaction: Option<Duration>,
    idle_transaction: Option<Duration>,
}

impl Watch {
    /// For a client that may take as much as `limits` say; none if all may last for ever.
    pub(super) fn new(limits: Limits, obedience: Duration) -> Option<Box<Self>> {
        limits.is_any().then(|| {
            Box::new(Self {
                limits,
                obedience,
                doing: None,
                transaction: None,
                cancelled: Cancelled::No,
                servers: Servers::default(),
                timer: None,
            })
        })
    }

    /// A statement has ended, and with status `I` its transaction.
    pub(super) fn ends(&mut self, status: TxStatus) {
        self.doing = None;
        self.cancelled = Cancelled::No;
        if status == TxStatus::Idle {
            self.transaction = None;
            self.servers = Servers::default();
        }
    }

    /// Was the statement that runs cancelled because it took too long?
    pub(super) fn has_cancelled(&self) -> bool {
        self.cancelled != Cancelled::No
    }

    /// The transaction is on a server again, which counts its pauses itself, by what it allows
    /// then.
    pub(super) fn resumes(&mut self) {
        self.servers.idle_transaction = None;
    }

    /// Does it count how long a transaction lasts in a server's place? The server counts what is
    /// left of it only.
    pub(super) fn counts_for_server(&self) -> bool {
        self.servers.transaction.is_some()
    }

    /// What the server allows the transaction may be something else now.
    pub(super) fn leaves_to_server(&mut self) {
        self.servers.transaction = None;
    }

    /// The client does this now, and may have done so before.
    fn sees(&mut self, doing: Doing) {
        if self.doing.is_some_and(|(before, _)| before == doing) {
            return;
        }
        let now = time::now();
        self.doing = Some((doing, now));
        match doing {
            Doing::Rests => {
                self.transaction = None;
                self.servers = Servers::default();
            }
            Doing::Idles | Doing::Runs => {
                self.transaction.get_or_insert(now);
            }
        }
    }

    /// What will be late next, and when.
    fn next(&self) -> Option<(Instant, Late)> {
        let (doing, since) = self.doing?;
        let of_doing = match (doing, self.cancelled) {
            (Doing::Runs, Cancelled::By(at)) => Some((at, Late::Disobeyed)),
            (Doing::Runs, Cancelled::No) => {
                self.limits.query.map(|limit| (since + limit, Late::Query))
            }
            (Doing::Idles, _) => {
                let limits = [self.limits.idle_transaction, self.servers.idle_transaction];
                let limit = limits.into_iter().flatten().min();
                limit.map(|limit| (since + limit, Late::IdleTransaction))
            }
            (Doing::Rests, _) => {
                self.limits.client_idle.map(|limit| (since + limit, Late::ClientIdle))
            }
        };
        let limits = [self.limits.transaction, self.servers.transaction];
        let of_transaction = self
            .transaction
            .zip(limits.into_iter().flatten().min())
            .map(|(since, limit)| (since + limit, Late::Transaction));
        match (of_doing, of_transaction) {
            (Some(one), Some(other)) => Some(if other.0 < one.0 { other } else { one }),
            (one, other) => one.or(other),
        }
    }

    /// Ready when something has lasted too long.
    pub(super) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Late> {
        let Some((at, late)) = self.next() else { return Poll::Pending };
        loop {
            match &mut self.timer {
                Some((armed, timer)) if *armed <= at => {
                    if timer.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    let now = time::now();
                    if at <= now {
                        return Poll::Ready(late);
                    }
                    *armed = at.min(now + FARTHEST);
                    time::reset(timer.as_mut(), *armed);
                }
                Some((armed, timer)) => {
                    *armed = at.min(time::now() + FARTHEST);
                    time::reset(timer.as_mut(), *armed);
                }
                None => {
                    let first = at.min(time::now() + FARTHEST);
                    self.timer = Some((first, Box::pin(time::sleep_until(first))));
                }
            }
        }
    }
}

impl Session {
    /// The plan says how long things may last.
    pub(super) fn watches_under_plan(&mut self) {
        let settings = &self.plan.settings;
        let limits = Limits::of(settings, &self.who.database, &self.who.identity.user);
        match &mut self.watch {
            Some(watch) if limits.is_any() => {
                (watch.limits, watch.obedience) = (limits, settings.cancel_wait_timeout);
            }
            Some(_) | None => self.watch = Watch::new(limits, settings.cancel_wait_timeout),
        }
    }

    /// The watch looks at what the client does.
    pub(super) fn look_at_clock(&mut self) {
        if self.watch.is_none() {
            return;
        }
        let runs = self.link.as_mut().is_some_and(|lease| !lease.connection().is_quiet());
        let doing = match (runs, self.status) {
            (true, _) => Doing::Runs,
            (false, TxStatus::Idle) => Doing::Rests,
            (false, TxStatus::Open | TxStatus::Failed) => Doing::Idles,
        };
        if let Some(watch) = &mut self.watch {
            watch.sees(doing);
        }
    }

    /// The transaction at hand has no server that would end it when it idles or lasts for too
    /// long: it has begun at `begun`, and idles since `rests`.
    pub(super) fn watches_in_place_of_server(
        &mut self,
        inside: &Inside,
        begun: Instant,
        rests: Instant,
    ) {
        let servers = Servers {
            transaction: inside.transaction_timeout,
            idle_transaction: inside.idle_timeout,
        };
        if servers.transaction.is_none() && servers.idle_transaction.is_none() {
            return;
        }
        let obedience = self.plan.settings.cancel_wait_timeout;
        let watch = self.watch.get_or_insert_with(|| {
            Box::new(Watch {
                limits: Limits::default(),
                obedience,
                doing: None,
                transaction: None,
                cancelled: Cancelled::No,
                servers,
                timer: None,
            })
        });
        watch.servers = servers;
        watch.doing = Some((Doing::Idles, rests));
        watch.transaction.get_or_insert(begun);
    }

    /// Something has lasted too long: a statement is cancelled, and the session goes on;
    /// everything else ends it.
    pub(super) fn is_late(&mut self, late: Late) -> Result<(), End> {
        let (kind, fault) = match late {
            Late::Query => {
                self.gateway.timeouts.count(Kind::Query);
                if let Some(watch) = &mut self.watch {
                    watch.cancelled = Cancelled::By(time::now() + watch.obedience);
                }
                self.registration.cancel_late();
                return Ok(());
            }
            Late::Disobeyed => {
                // What it does is not known, so nobody else gets the connection.
                self.keep_passed();
                let is_midway = self.is_midway();
                if let Some(mut lease) = self.link.take() {
                    self.registration.client.rests();
                    if let Some(card) = &lease.connection().card {
                        card.is_closed(QUERY_TIMEOUT);
                    }
                    lease.give_back(Condition::Broken);
                }
                if is_midway {
                    self.gateway.timeouts.count(Kind::Disobeyed);
                    return Err(End::Midway(Fault::QueryDisobeyed));
                }
                (Kind::Disobeyed, Fault::QueryDisobeyed)
            }
            Late::Transaction => (Kind::Transaction, Fault::TransactionTimeout),
            Late::IdleTransaction => (Kind::IdleTransaction, Fault::IdleTransactionTimeout),
            Late::ClientIdle => (Kind::ClientIdle, Fault::ClientIdleTimeout),
        };
        self.gateway.timeouts.count(kind);
        Err(fault.into())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn armed(watch: &Watch) -> Option<Instant> {
        watch.timer.as_ref().map(|(at, _)| *at)
    }

    #[tokio::test(start_paused = true)]
    async fn trap_52_a_timer_is_never_armed_far_in_the_future() {
        let month = Duration::from_secs(30 * 24 * 3_600);
        let limits = Limits { client_idle: Some(month), ..Limits::default() };
        let mut watch = Watch::new(limits, Duration::ZERO).unwrap();
        watch.sees(Doing::Rests);
        let start = time::now();
        let late = poll_fn(|cx| {
            let late = watch.poll_late(cx);
            assert!(armed(&watch).unwrap() <= time::now() + FARTHEST);
            late
        });
        assert_eq!(late.await, Late::ClientIdle);
        let took = time::now() - start;
        assert!((month..month + Duration::from_secs(1)).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_server_counts_itself_is_not_counted_for_it() {
        let second = Duration::from_secs;
        let limits = Limits { transaction: Some(second(600)), ..Limits::default() };
        let mut watch = Watch::new(limits, Duration::ZERO).unwrap();
        let limits = (Some(second(60)), Some(second(10)));
        watch.servers = Servers { transaction: limits.0, idle_transaction: limits.1 };
        watch.sees(Doing::Idles);
        let start = time::now();
        assert_eq!(watch.next(), Some((start + second(10), Late::IdleTransaction)));
        watch.resumes();
        assert!(watch.counts_for_server());
        assert_eq!(watch.next(), Some((start + second(60), Late::Transaction)));
        watch.leaves_to_server();
        assert_eq!(watch.next(), Some((start + second(600), Late::Transaction)));
    }

    #[tokio::test(start_paused = true)]
    async fn statements_that_are_over_in_time_touch_no_timer() {
        let second = Duration::from_secs;
        let limits =
            Limits { query: Some(second(10)), client_idle: Some(second(60)), ..Limits::default() };
        let mut watch = Watch::new(limits, second(1)).unwrap();
        let look = async |watch: &mut Watch, doing| {
            watch.sees(doing);
            poll_fn(|cx| Poll::Ready(watch.poll_late(cx).is_pending())).await
        };
        look(&mut watch, Doing::Runs).await;
        let first = armed(&watch);
        for _ in 0..9_000 {
            assert!(look(&mut watch, Doing::Runs).await);
            watch.ends(TxStatus::Idle);
            assert!(look(&mut watch, Doing::Rests).await);
            time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(armed(&watch), first);
        // And the next one has its whole time.
        watch.sees(Doing::Runs);
        let start = time::now();
        assert_eq!(poll_fn(|cx| watch.poll_late(cx)).await, Late::Query);
        assert!(time::now() - start >= second(10));
    }
}
