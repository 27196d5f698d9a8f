//! What happened that somebody may want to hear of as it happens. The counters have it, too.
//!
//! Bounded on both sides: the ledger keeps at most `KEPT` untold events, a reader that falls
//! behind misses the oldest.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::class::ClassName;
use crate::forecast::Advice;

/// Events that wait to be told; what happens beyond is counted only.
pub(crate) const KEPT: usize = 64;

/// An event of one pool.
#[derive(Debug, Clone, Serialize)]
pub struct Told {
    /// The destination.
    pub destination: Arc<str>,
    /// What happened there.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A connection has been on lease for longer than the hold limit (C1). Told once for
    /// each lease.
    LongHold {
        /// The class.
        class: ClassName,
        /// The feature, where it is known.
        feature: Option<Arc<str>>,
        /// The operation it was taken for, or does now.
        operation: Option<Arc<str>>,
        /// The tenant and trace id of its request, where they are known.
        request: Option<String>,
        /// For how long so far. In JSON in seconds, as all times.
        #[serde(serialize_with = "seconds")]
        held: Duration,
    },
    /// Requests of a feature take far more leases than they used to.
    FanOutJump {
        /// The feature.
        feature: Arc<str>,
        /// Leases of a request, before.
        before: f64,
        /// Leases of a request, now.
        now: f64,
    },
    /// Requests waited for each other in a circle, and one of them failed.
    Deadlock {
        /// The class of the one that failed.
        class: ClassName,
        /// Its feature, where it is known.
        feature: Option<Arc<str>>,
        /// Connections that its request holds.
        held: u32,
    },
    /// Work of a class keeps failing, and is refused until a trial succeeds.
    BreakerOpened {
        /// The class.
        class: ClassName,
    },
    /// A trial succeeded: the class takes work again.
    BreakerClosed {
        /// The class.
        class: ClassName,
    },
    /// The destination does not answer.
    Down {
        /// What the last attempt said.
        error: String,
    },
    /// It answers again.
    Up,
    /// Its connections died with it: all that were opened before are replaced.
    Renewed,
    /// A window of the timetable began, or the last one ended: then there is no budget.
    Window {
        /// Connections.
        budget: Option<u32>,
    },
    /// Demand asks for another budget than before, whether it may have it or not.
    Advised {
        /// Which budget, and why.
        #[serde(flatten)]
        advice: Advice,
    },
    /// The destination shows that it bears no more than a part of what is wanted, whether
    /// that counts or not; without a budget it bears all again.
    Borne {
        /// Connections.
        budget: Option<u32>,
    },
    /// The budget changed.
    Resized {
        /// Connections, before.
        from: u32,
        /// Connections, now.
        to: u32,
    },
}

impl Event {
    /// What kind of event it is: `long_hold`, `down`, …
    pub fn name(&self) -> &'static str {
        match self {
            Self::LongHold { .. } => "long_hold",
            Self::FanOutJump { .. } => "fan_out_jump",
            Self::Deadlock { .. } => "deadlock",
            Self::BreakerOpened { .. } => "breaker_opened",
            Self::BreakerClosed { .. } => "breaker_closed",
            Self::Down { .. } => "down",
            Self::Up => "up",
            Self::Renewed => "renewed",
            Self::Window { .. } => "window",
            Self::Advised { .. } => "advised",
            Self::Borne { .. } => "borne",
            Self::Resized { .. } => "resized",
        }
    }
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
