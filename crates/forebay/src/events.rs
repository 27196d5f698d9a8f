//! What happens, in every pool of every gateway, as one stream: for the log and for whoever
//! listens on the admin port.
//!
//! Counts nothing; the counters have it all. Always true: nobody who listens holds anybody
//! up. A listener that falls behind misses the oldest, and hears how many.

use forebay_pool::event::{Event, Told};
use forebay_pool::overlap::{Overlap, Overlaps};
use forebay_seam::task::Spawner;
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{self, Receiver, Sender};

use crate::log_limit::{LeftOut, Logged};
use crate::overlap_log;
use crate::suspects::{SuspectedHold, Suspects, Suspicion};

/// Events that are kept for a slow listener before it misses the oldest.
const KEPT: usize = 1_024;

/// The event of a suspicion that begins.
const SUSPECTED: &str = "suspected_hold";
/// And of one that is over: it has no line of its own in the log.
const SUSPECTED_ENDS: &str = "suspected_hold_ends";

/// Something that happened.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Happened {
    /// In a pool.
    Pool {
        /// Of which gateway: `postgres` or `http`.
        gateway: &'static str,
        /// What, and in which pool.
        #[serde(flatten)]
        told: Told,
    },
    /// A transaction is open and idle during an outbound call of its request.
    Overlap {
        /// `overlap_begins`, `overlap_changes`, `overlap_ends` or `overlap_released`.
        event: &'static str,
        /// Which, and what was called.
        #[serde(flatten)]
        overlap: Overlap,
    },
    /// A client idles in a transaction, and may wait for a call: nothing is proven.
    Suspected {
        /// `suspected_hold`, `suspected_hold_named` or `suspected_hold_ends`.
        event: &'static str,
        /// Who, and what may be called.
        #[serde(flatten)]
        hold: SuspectedHold,
    },
}

impl Happened {
    /// What kind of event it is.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pool { told, .. } => told.event.name(),
            Self::Overlap { event, .. } | Self::Suspected { event, .. } => event,
        }
    }
}

/// Everything that happens. Cheap to clone.
#[derive(Clone)]
pub struct Events(Sender<Happened>);

impl Events {
    /// The events of these gateways, from now on. Inside a runtime.
    pub fn gather(
        postgres: Option<&forebay_postgres::Gateway>,
        http: Option<&forebay_http::Gateway>,
        overlaps: &Overlaps,
    ) -> Self {
        let (sender, _) = broadcast::channel(KEPT);
        let spawner = Spawner::current();
        let postgres = postgres.map(|gateway| ("postgres", gateway.events()));
        let http = http.map(|gateway| ("http", gateway.events()));
        let told = |overlap: Overlap| Happened::Overlap {
            event: overlap_log::name(overlap.phase),
            overlap,
        };
        spawner.spawn(forward(overlaps.events(), sender.clone(), told));
        let events = Self(sender);
        for (gateway, pools) in postgres.into_iter().chain(http) {
            pools.into_iter().for_each(|pool| events.follow(gateway, pool));
        }
        events
    }

    /// What happens in one more pool of `gateway`. Inside a runtime.
    pub fn follow(&self, gateway: &'static str, pool: Receiver<Told>) {
        let told = move |told| Happened::Pool { gateway, told };
        Spawner::current().spawn(forward(pool, self.0.clone(), told));
    }

    /// Suspicions, too. Inside a runtime.
    pub fn follow_suspects(&self, suspects: &Suspects) {
        let told = |suspicion| {
            let (event, hold) = match suspicion {
                Suspicion::Begins(hold) => (SUSPECTED, hold),
                Suspicion::Named(hold) => ("suspected_hold_named", hold),
                Suspicion::Ends(hold) => (SUSPECTED_ENDS, hold),
            };
            Happened::Suspected { event, hold }
        };
        Spawner::current().spawn(forward(suspects.events(), self.0.clone(), told));
    }

    /// What happens from now on. Who falls 1,024 behind misses the oldest.
    pub fn listen(&self) -> Receiver<Happened> {
        self.0.subscribe()
    }
}

/// Passes on what comes, until its sender is gone.
async fn forward<E: Clone>(
    mut from: Receiver<E>,
    to: Sender<Happened>,
    happened: impl Fn(E) -> Happened,
) {
    loop {
        match from.recv().await {
            // No listener is no error.
            Ok(event) => drop(to.send(happened(event))),
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "events came too fast to be passed on; counters have them");
            }
            Err(RecvError::Closed) => return,
        }
    }
}

impl Logged for Happened {
    fn kind(&self) -> &'static str {
        self.name()
    }

    fn lasted(&self) -> std::time::Duration {
        match self {
            Self::Pool { .. } | Self::Suspected { .. } => std::time::Duration::ZERO,
            Self::Overlap { overlap, .. } => overlap.lasted(),
        }
    }

    fn has_line(&self) -> bool {
        match self {
            Self::Pool { .. } => true,
            Self::Overlap { overlap, .. } => overlap.has_line(),
            Self::Suspected { event, .. } => *event != SUSPECTED_ENDS,
        }
    }

    fn log(&self) {
        match self {
            Self::Pool { gateway, told } => log(gateway, told),
            Self::Overlap { overlap, .. } => overlap.log(),
            Self::Suspected { event, hold } => log_suspicion(event, hold),
        }
    }

    fn log_rest(kind: &'static str, left: LeftOut) {
        if kind == overlap_log::RELEASED {
            Overlap::log_rest(kind, left);
        } else {
            tracing::warn!(event = kind, events = left.count, "more events of this kind");
        }
    }
}

fn log_suspicion(event: &'static str, hold: &SuspectedHold) {
    let call = hold.call.as_ref();
    tracing::warn!(
        event,
        client = hold.client,
        server = %hold.server,
        database = %hold.database,
        user = %hold.user,
        application_name = %hold.application,
        statement = hold.statement.as_deref(),
        seconds = hold.seconds,
        destination = call.map(|call| &*call.destination),
        operation = call.map(|call| &*call.operation),
        calls = call.and_then(|call| call.subject.as_ref()).map(|subject| &**subject.name()),
        basis = call.map(|call| call.basis.name()),
        candidates = call.map(|call| call.candidates),
        "suspected, not proven: a client idles in a transaction and may wait for a call"
    );
}

fn log(gateway: &'static str, told: &Told) {
    let destination = &*told.destination;
    macro_rules! line {
        ($level:ident, $($field:tt)*) => {
            tracing::$level!(event = told.event.name(), gateway, destination, $($field)*)
        };
    }
    match &told.event {
        Event::LongHold { class, feature, operation, request, held } => line!(
            warn,
            %class,
            feature = feature.as_deref(),
            operation = operation.as_deref(),
            request,
            seconds = held.as_secs_f64(),
            "a connection has been on lease for longer than the hold limit"
        ),
        Event::FanOutJump { feature, before, now } => line!(
            warn,
            %feature,
            before,
            now,
            "requests of a feature take far more connections than they used to"
        ),
        Event::Deadlock { class, feature, held } => line!(
            warn,
            %class,
            feature = feature.as_deref(),
            held,
            "requests waited for each other's connections, and one of them failed"
        ),
        Event::BreakerOpened { class } => {
            line!(warn, %class, "work of a class keeps failing: its breaker opened");
        }
        Event::BreakerClosed { class } => {
            line!(info, %class, "a trial succeeded: the breaker of a class closed");
        }
        Event::Down { error } => line!(warn, error, "a destination does not answer"),
        Event::Up => line!(info, "a destination answers again"),
        Event::Renewed => line!(info, "all connections to a destination are replaced"),
        Event::Window { budget } => match budget {
            Some(budget) => line!(info, budget, "a window of the timetable began"),
            None => line!(info, "the window of the timetable is over"),
        },
        Event::Advised { advice } => line!(
            info,
            budget = advice.budget,
            because = ?advice.because,
            "demand asks for another budget"
        ),
        Event::Borne { budget } => match budget {
            Some(budget) => line!(warn, budget, "a destination bears fewer connections"),
            None => line!(info, "a destination bears all connections again"),
        },
        Event::Resized { from, to } => line!(info, from, to, "the budget of a destination changed"),
        _ => line!(info, "something happened in a pool"),
    }
}

#[cfg(test)]
mod tests {
    use forebay_pool::ClassName;
    use forebay_pool::stats::{Advice, Because};
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_says_where_it_happened_and_what_kind_it_is() {
        let event = Event::LongHold {
            class: ClassName::new("ai-read"),
            feature: Some("answer".into()),
            operation: None,
            request: None,
            held: std::time::Duration::from_millis(16_500),
        };
        let told = Told { destination: "main".into(), event };
        let happened = Happened::Pool { gateway: "postgres", told };
        assert_eq!(
            serde_json::to_value(&happened).unwrap(),
            json!({
                "gateway": "postgres", "destination": "main", "event": "long_hold",
                "class": "ai-read", "feature": "answer", "operation": null, "request": null,
                "held": 16.5,
            })
        );
        assert_eq!(happened.name(), "long_hold");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_forwarded_is_heard_and_the_end_is_passed_on() {
        let (pool, from) = broadcast::channel(4);
        let (to, mut heard) = broadcast::channel(4);
        let told = |event| Told { destination: "main".into(), event };
        pool.send(told(Event::Up)).unwrap();
        drop(pool);
        forward(from, to, |told| Happened::Pool { gateway: "http", told }).await;
        assert_eq!(heard.recv().await.unwrap().name(), "up");
        assert_eq!(heard.recv().await.unwrap_err(), RecvError::Closed);
    }

    #[test]
    fn an_event_has_one_name_wherever_it_is_told() {
        let class = || ClassName::new("ai-read");
        let advice = Advice { budget: 8, because: Because::Trend };
        for event in [
            Event::LongHold {
                class: class(),
                feature: None,
                operation: None,
                request: None,
                held: std::time::Duration::from_secs(16),
            },
            Event::FanOutJump { feature: "answer".into(), before: 3.0, now: 30.0 },
            Event::Deadlock { class: class(), feature: None, held: 1 },
            Event::BreakerOpened { class: class() },
            Event::BreakerClosed { class: class() },
            Event::Down { error: "refused".to_owned() },
            Event::Up,
            Event::Renewed,
            Event::Window { budget: None },
            Event::Advised { advice },
            Event::Borne { budget: Some(3) },
            Event::Resized { from: 1, to: 2 },
        ] {
            let told = Told { destination: "main".into(), event };
            let json = serde_json::to_value(&told).unwrap();
            assert_eq!(json["event"], told.event.name());
            assert_eq!(json["destination"], "main");
        }
    }
}
