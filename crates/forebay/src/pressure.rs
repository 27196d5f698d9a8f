//! How close each class is to shedding: what orchestrators look at before they begin more.
//!
//! Reads the picture of the program, and decides only what is worth telling.

use std::sync::Arc;

use forebay_pool::policy::Policy;
use forebay_pool::stats::ClassSnapshot;
use forebay_pool::{ClassName, Mode, Snapshot};
use serde::Serialize;

use crate::view::ProgramSnapshot;

/// Where shedding begins.
const SHEDS_FROM: f64 = 0.5;
/// A change of the pressure that is worth telling.
const WORTH_TELLING: f64 = 0.05;

/// One class of one pool.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pressure {
    /// `postgres` or `http`.
    pub gateway: &'static str,
    /// The pool.
    pub destination: Arc<str>,
    /// The class.
    pub class: ClassName,
    /// 0 to 1: shedding begins at 0.5, at 1 all is shed that can be.
    pub pressure: f64,
    /// What is in use of what it can get, 0 to 1, averaged over a second.
    pub utilisation: f64,
    /// Callers who wait.
    pub waiting: u32,
    /// Whether anything is shed, or only counted.
    pub shedding: Mode,
    /// Above a pressure of 0.5: when one who is refused now had best come back, milliseconds.
    pub retry_after_ms: Option<u64>,
}

/// Every class of every pool of `program`, always in the same order.
pub fn of(program: &ProgramSnapshot) -> Vec<Pressure> {
    let postgres = program.postgres.iter().flat_map(|gateway| &gateway.pools);
    let http = program.http.iter().flat_map(|gateway| &gateway.pools);
    let pools = postgres.map(|pool| ("postgres", pool)).chain(http.map(|pool| ("http", pool)));
    pools
        .flat_map(|(gateway, pool)| pool.classes.iter().map(move |c| one(gateway, pool, c)))
        .collect()
}

fn one(gateway: &'static str, pool: &Snapshot, class: &ClassSnapshot) -> Pressure {
    let shedding = class.policies.iter().find(|policy| policy.policy == Policy::Shedding);
    Pressure {
        gateway,
        destination: Arc::clone(&pool.destination),
        class: class.class.clone(),
        pressure: rounded(class.pressure),
        utilisation: rounded(class.utilisation),
        waiting: class.waiting,
        shedding: shedding.map_or(Mode::Off, |policy| policy.mode),
        retry_after_ms: (class.pressure > SHEDS_FROM).then(|| millis(class.retry_after)),
    }
}

/// To three places: more would be noise.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "0.02 to 30 seconds, and a cast saturates"
)]
fn millis(seconds: f64) -> u64 {
    (seconds * 1e3).ceil() as u64
}

/// Has the pressure moved far enough since `told` to be told again, or reached an end?
pub fn is_news(told: &Pressure, now: &Pressure) -> bool {
    // What is rounded to three places is compared in their middle.
    let moved = (told.pressure - now.pressure).abs() > WORTH_TELLING - 5e-4;
    let began_or_ended = told.retry_after_ms.is_some() != now.retry_after_ms.is_some();
    let reached_an_end = told.pressure != now.pressure && matches!(now.pressure, 0.0 | 1.0);
    moved || began_or_ended || reached_an_end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pressure(pressure: f64) -> Pressure {
        Pressure {
            gateway: "postgres",
            destination: "main".into(),
            class: ClassName::new("ai-read"),
            pressure,
            utilisation: 0.8,
            waiting: 0,
            shedding: Mode::Enforce,
            retry_after_ms: (pressure > SHEDS_FROM).then_some(100),
        }
    }

    #[test]
    fn a_twentieth_is_news_and_so_are_both_ends_and_where_shedding_begins() {
        for (told, now, news) in [
            (0.2, 0.2, false),
            (0.2, 0.249, false),
            (0.2, 0.25, true),
            (0.25, 0.2, true),
            (0.49, 0.51, true),
            (0.51, 0.49, true),
            (0.51, 0.55, false),
            (0.96, 1.0, true),
            (0.01, 0.0, true),
            (1.0, 1.0, false),
        ] {
            assert_eq!(is_news(&pressure(told), &pressure(now)), news, "{told} → {now}");
        }
    }

    #[test]
    fn a_hint_is_in_whole_milliseconds() {
        assert_eq!([millis(0.02), millis(0.0201), millis(30.0)], [20, 21, 30_000]);
    }
}
