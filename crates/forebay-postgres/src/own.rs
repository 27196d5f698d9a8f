//! What clients tell us and not the server: `forebay.class` and its kin, as startup options
//! or by SET, and the same names with `_` in the tags of a statement.
//!
//! Values come from clients: each is bounded, and what cannot be read is an error that says
//! what to write.

use std::sync::Arc;
use std::time::Duration;

use forebay_pool::{Attempt, TraceId};

use crate::params::Settings;
use crate::sql::effect::Effect;
use crate::sql::token::{Token, Tokens};

/// Settings with this prefix are ours.
const PREFIX: &str = "forebay.";
/// Characters of a feature's name that are kept.
const FEATURE: usize = 64;
/// The longest time that work may be declared to take.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Connections that a request may be declared to need at once.
const MOST: u32 = 1_000;
/// Characters of a wrong value that are repeated in the error.
const REPEATED: usize = 32;

/// Is `name` (in lower case) a setting of ours?
pub(crate) fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// What a session says of all its work.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Own {
    /// `forebay.class`
    pub(crate) class: Option<Box<str>>,
    /// `forebay.feature`
    pub(crate) feature: Option<Arc<str>>,
    /// `forebay.traceparent` or `forebay.request`
    pub(crate) trace: Option<TraceId>,
    /// `forebay.cost`: the connection time that a transaction takes.
    pub(crate) cost: Option<Duration>,
    /// `forebay.needs`: connections that a request holds at the same time. 0: not said.
    pub(crate) needs: u32,
}

/// A value that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid value for parameter \"{name}\": \"{value}\"")]
pub(crate) struct Nonsense {
    name: &'static str,
    value: String,
    /// What to write instead.
    pub(crate) hint: &'static str,
}

impl Nonsense {
    fn new(name: &'static str, value: &str, hint: &'static str) -> Self {
        let harmless = |c: &char| c.is_alphanumeric() || " .,:_+-".contains(*c);
        Self { name, value: value.chars().filter(harmless).take(REPEATED).collect(), hint }
    }

    /// A statement that fails on the server with this error, where the server has to see one
    /// fail: in a transaction, or in its place in a batch.
    pub(crate) fn statement(&self) -> String {
        let hint = self.hint.replace('\'', "''");
        format!(
            "DO $forebay$BEGIN RAISE SQLSTATE '22023' USING MESSAGE = '{self}', \
             HINT = '{hint}'; END$forebay$"
        )
    }
}

impl Own {
    /// Takes our settings out of a client's startup options.
    pub(crate) fn take_from(settings: &mut Settings) -> Result<Self, Nonsense> {
        let mut own = Self::default();
        for (name, value) in settings.iter().filter(|(name, _)| is_ours(name)) {
            own.set(name, value)?;
        }
        settings.retain(|name| !is_ours(name));
        Ok(own)
    }

    /// `SET name = value`; names that mean nothing to us are set to no effect, as custom
    /// settings are in PostgreSQL.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), Nonsense> {
        match name {
            "forebay.class" => self.class = Some(value.into()),
            "forebay.feature" => self.feature = Some(feature(value).into()),
            "forebay.traceparent" => self.trace = TraceId::from_traceparent(value),
            "forebay.request" => self.trace = TraceId::of_request(value),
            "forebay.cost" => self.cost = Some(cost(value)?),
            "forebay.needs" => self.needs = needs(value)?,
            _ => {}
        }
        Ok(())
    }

    /// What `SHOW name` shows; nothing if it was not said.
    pub(crate) fn value(&self, name: &str) -> String {
        let value = match name {
            "forebay.class" => self.class.as_deref().map(str::to_owned),
            "forebay.feature" => self.feature.as_deref().map(str::to_owned),
            "forebay.traceparent" | "forebay.request" => self.trace.map(|trace| trace.to_string()),
            "forebay.cost" => self
                .cost
                .map(|cost| humantime_serde::re::humantime::format_duration(cost).to_string()),
            "forebay.needs" => (self.needs > 0).then(|| self.needs.to_string()),
            _ => None,
        };
        value.unwrap_or_default()
    }

    /// `RESET name`: back to what was said at the start.
    pub(crate) fn reset(&mut self, name: &str, start: &Self) {
        match name {
            "forebay.class" => self.class.clone_from(&start.class),
            "forebay.feature" => self.feature.clone_from(&start.feature),
            "forebay.traceparent" | "forebay.request" => self.trace = start.trace,
            "forebay.cost" => self.cost = start.cost,
            "forebay.needs" => self.needs = start.needs,
            _ => {}
        }
    }
}

/// The setting of ours that `text` shows, and nothing else.
pub(crate) fn shown(text: &[u8]) -> Option<&'static str> {
    const NAMES: [&str; 6] = ["class", "feature", "traceparent", "request", "cost", "needs"];
    const WHOLE: [&str; 6] = [
        "forebay.class",
        "forebay.feature",
        "forebay.traceparent",
        "forebay.request",
        "forebay.cost",
        "forebay.needs",
    ];
    let mut tokens = Tokens::new(text).filter(|token| *token != Token::Mark(b';'));
    let is_ours = tokens.next()?.is("show")
        && tokens.next()?.is("forebay")
        && tokens.next()? == Token::Mark(b'.');
    let name = tokens.next().filter(|_| is_ours && tokens.next().is_none())?;
    NAMES.iter().zip(WHOLE).find_map(|(known, whole)| name.is(known).then_some(whole))
}

/// What is wrong with a SET of ours that is a whole message.
pub(crate) fn nonsense(effects: &[Effect]) -> Option<Nonsense> {
    let [Effect::Set { name, value }] = effects else { return None };
    Own::default().set(name, value).err()
}

/// A feature's name, without what would disturb a log or a label.
pub(crate) fn feature(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).take(FEATURE).collect()
}

/// A time such as `150ms`, `2s` or `0.5`, which are seconds; more than none and at most a day.
pub(crate) fn cost(text: &str) -> Result<Duration, Nonsense> {
    let hint = "Write a time such as 150ms, 2s or 1min, at most a day.";
    let wrong = || Nonsense::new("forebay.cost", text, hint);
    let trimmed = text.trim();
    let unit_at = trimmed.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(unit_at);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" | "" => 1.0,
        "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.trim_end().parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * seconds)
        .ok()
        .filter(|cost| !cost.is_zero() && *cost <= LONGEST)
        .ok_or_else(wrong)
}

/// Connections at once, 1 to 1,000.
pub(crate) fn needs(text: &str) -> Result<u32, Nonsense> {
    let hint = "Write how many connections a request holds at the same time, 1 to 1000.";
    let needs = text.trim().parse().ok().filter(|needs| (1..=MOST).contains(needs));
    needs.ok_or_else(|| Nonsense::new("forebay.needs", text, hint))
}

/// The how-manieth try it is: 1 is the first, more are retries.
pub(crate) fn attempt(text: &str) -> Result<Attempt, Nonsense> {
    let hint = "Write 1 for the first try, 2 for the first retry, and so on.";
    match text.trim().parse::<u32>() {
        Ok(1) => Ok(Attempt::First),
        Ok(2..) => Ok(Attempt::Retry),
        Ok(0) | Err(_) => Err(Nonsense::new("forebay_attempt", text, hint)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cost_is_a_time_and_bare_numbers_are_seconds() {
        for (text, millis) in [
            ("150ms", 150),
            ("2s", 2_000),
            (" 0.5 ", 500),
            ("1.5 s", 1_500),
            ("1min", 60_000),
            ("3h", 10_800_000),
        ] {
            assert_eq!(cost(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for bad in ["", "fast", "-1s", "0", "0ms", "NaN", "inf", "2d", "1e400", "25h", "1 s s"] {
            assert!(cost(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tries_and_connections_are_counted_from_one() {
        assert_eq!(attempt("1").unwrap(), Attempt::First);
        assert_eq!(attempt("7").unwrap(), Attempt::Retry);
        assert_eq!(needs(" 3 ").unwrap(), 3);
        for bad in ["", "0", "-1", "x", "1001", "99999999999"] {
            assert!(needs(bad).is_err(), "{bad}");
        }
        assert!(attempt("0").is_err() && attempt("first").is_err());
    }

    #[test]
    fn a_request_may_be_named_in_place_of_a_trace() {
        let mut own = Own::default();
        own.set("forebay.request", "4bf92f35-77b3-4da6-a3ce-929d0e0e4736").unwrap();
        assert_eq!(own.value("forebay.request"), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(shown(b"SHOW forebay.request"), Some("forebay.request"));
        own.reset("forebay.request", &Own::default());
        assert_eq!(own.trace, None);
    }

    #[test]
    fn what_was_said_at_the_start_comes_back_by_reset() {
        let mut settings = Settings::from([("forebay.cost", "2s"), ("timezone", "UTC")]);
        let start = Own::take_from(&mut settings).unwrap();
        assert_eq!(settings.iter().count(), 1);
        let mut own = start.clone();
        own.set("forebay.cost", "5").unwrap();
        own.set("forebay.needs", "2").unwrap();
        own.reset("forebay.cost", &start);
        assert_eq!((own.cost, own.needs), (Some(Duration::from_secs(2)), 2));
    }

    proptest! {
        #[test]
        fn no_value_escapes_the_statement_that_fails_with_it(value: String) {
            if let Err(nonsense) = cost(&value) {
                let statement = nonsense.statement();
                prop_assert_eq!(statement.matches("$forebay$").count(), 2);
                prop_assert_eq!(statement.matches('\'').count(), 6);
                prop_assert!(!statement.contains('\\') && statement.len() < 400);
            }
        }
    }
}
