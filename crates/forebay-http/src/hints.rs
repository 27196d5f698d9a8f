//! What an agent may say about its call, for the engine: what it costs, whether it is a
//! retry, how long anybody waits for it; and for which class, feature and request it is. All
//! found in one walk over the head's fields.
//!
//! Hints are optional and come from outside. One that cannot be read is left out and
//! counted: a wrong hint is no reason to fail a call.

use std::time::Duration;

use forebay_pool::{Attempt, TraceId};
use http::{HeaderMap, HeaderValue};
use humantime_serde::re::humantime;

/// The most that a call may claim to cost, or to wait.
const MOST: Duration = Duration::from_secs(3_600);
/// The most tokens that a call may claim to use.
const MOST_TOKENS: u64 = 100_000_000;
/// Characters of a feature's name that are kept.
const FEATURE: usize = 64;

/// A field as far as it was seen.
#[derive(Debug, Default, Clone, Copy)]
enum Field<'h> {
    #[default]
    Absent,
    Once(&'h HeaderValue),
    /// The first of several.
    Repeated(&'h HeaderValue),
}

impl<'h> Field<'h> {
    fn see(&mut self, value: &'h HeaderValue) {
        *self = match *self {
            Self::Absent => Self::Once(value),
            Self::Once(first) | Self::Repeated(first) => Self::Repeated(first),
        };
    }

    /// Its value, if it is there once.
    fn one(self) -> Option<&'h str> {
        match self {
            Self::Once(value) => value.to_str().ok(),
            Self::Absent | Self::Repeated(_) => None,
        }
    }

    /// The first value. What is no text is read as an empty hint, which is none.
    fn say(self) -> Option<&'h str> {
        match self {
            Self::Absent => None,
            Self::Once(value) | Self::Repeated(value) => {
                Some(value.to_str().unwrap_or_default().trim())
            }
        }
    }
}

/// The fields of a head that say something to Forebay about its call.
#[derive(Debug, Default)]
pub(crate) struct Words<'h> {
    class: Field<'h>,
    feature: Field<'h>,
    baggage: Field<'h>,
    request: Field<'h>,
    traceparent: Field<'h>,
    cost: Field<'h>,
    tokens: Field<'h>,
    attempt: Field<'h>,
    retries: Field<'h>,
    deadline: Field<'h>,
    grpc_timeout: Field<'h>,
}

impl<'h> Words<'h> {
    /// Finds them in `headers`.
    pub(crate) fn of(headers: &'h HeaderMap) -> Self {
        let mut words = Self::default();
        for (name, value) in headers {
            let field = match name.as_str() {
                "x-forebay-class" => &mut words.class,
                "x-forebay-feature" => &mut words.feature,
                "baggage" => &mut words.baggage,
                "x-forebay-request" => &mut words.request,
                "traceparent" => &mut words.traceparent,
                "x-forebay-cost" => &mut words.cost,
                "x-forebay-tokens" => &mut words.tokens,
                "x-forebay-attempt" => &mut words.attempt,
                "x-stainless-retry-count" => &mut words.retries,
                "x-forebay-deadline-ms" => &mut words.deadline,
                "grpc-timeout" => &mut words.grpc_timeout,
                _ => continue,
            };
            field.see(value);
        }
        words
    }

    /// The class that the call asks for.
    pub(crate) fn class(&self) -> Option<&'h str> {
        self.class.one()
    }

    /// The request that the call belongs to: `x-forebay-request`, or that of its `traceparent`.
    pub(crate) fn trace(&self) -> Option<TraceId> {
        let named = self.request.one().and_then(TraceId::of_request);
        named.or_else(|| TraceId::from_traceparent(self.traceparent.one()?))
    }

    /// The feature that the call is made for: `x-forebay-feature`, or the member
    /// `forebay.feature` of `baggage` (W3C Baggage 3.3). Empty where none is named. `headers`
    /// are those that were walked.
    pub(crate) fn feature(&self, headers: &HeaderMap) -> String {
        let of_baggage = || match self.baggage {
            Field::Absent => None,
            Field::Once(_) | Field::Repeated(_) => member(headers),
        };
        let said = self.feature.one().or_else(of_baggage);
        let shown = said.unwrap_or_default().trim().chars().filter(|c| !c.is_control());
        shown.take(FEATURE).collect()
    }

    /// What the call says for the engine.
    pub(crate) fn hints(&self) -> Hints {
        read(self)
    }
}

/// The member `forebay.feature` of `baggage`, which may stand in several fields.
fn member(headers: &HeaderMap) -> Option<&str> {
    let members = headers.get_all("baggage").iter().filter_map(|value| value.to_str().ok());
    members.flat_map(|list| list.split(',')).find_map(|member| {
        let (name, value) = member.split_once('=')?;
        let value = value.split(';').next()?;
        (name.trim() == "forebay.feature").then_some(value)
    })
}

/// What was said.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hints {
    /// The connection time it takes.
    pub(crate) cost: Option<Duration>,
    /// Whether it was tried before.
    pub(crate) attempt: Attempt,
    /// How long it is waited for, from now.
    pub(crate) patience: Option<Duration>,
    /// The tokens it uses.
    pub(crate) tokens: Option<u64>,
    /// Hints that could not be read.
    pub(crate) ignored: u64,
}

fn read(words: &Words<'_>) -> Hints {
    let mut hints = Hints::default();
    let mut ignored = 0;
    if let Some(cost) = words.cost.say() {
        hints.cost = duration(cost).filter(|cost| !cost.is_zero());
        ignored += u64::from(hints.cost.is_none());
    }
    if let Some(tokens) = words.tokens.say() {
        hints.tokens = tokens.parse().ok().filter(|tokens| *tokens <= MOST_TOKENS);
        ignored += u64::from(hints.tokens.is_none());
    }
    // Ours counts tries from 1, the SDKs' counts retries from 0.
    let tries = words.attempt.say().map(|n| n.parse::<u32>().ok().filter(|n| *n > 0));
    let retries = words.retries.say().map(|n| n.parse::<u32>().ok());
    hints.attempt = match (tries, retries) {
        (Some(Some(1)), _) | (None, Some(Some(0))) => Attempt::First,
        (Some(Some(_)), _) | (None, Some(Some(_))) => Attempt::Retry,
        (Some(None), _) | (None, Some(None)) => {
            ignored += 1;
            Attempt::Unknown
        }
        (None, None) => Attempt::Unknown,
    };
    if let Some(millis) = words.deadline.say() {
        hints.patience = millis.parse().ok().map(Duration::from_millis).map(|d| d.min(MOST));
        ignored += u64::from(hints.patience.is_none());
    } else if let Some(timeout) = words.grpc_timeout.say() {
        hints.patience = grpc_timeout(timeout).map(|d| d.min(MOST));
        ignored += u64::from(hints.patience.is_none());
    }
    hints.ignored = ignored;
    hints
}

/// `0.15` (seconds), `150ms`, `2s`; an hour at the most.
fn duration(text: &str) -> Option<Duration> {
    let duration = match text.parse() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok()?,
        Err(_) => humantime::parse_duration(text).ok()?,
    };
    (duration <= MOST).then_some(duration)
}

/// `100m`: up to eight digits and a unit (gRPC over HTTP/2, "Requests", Timeout).
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3_600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fields: &[(&'static str, &'static str)]) -> Hints {
        let fields = fields.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap()));
        Words::of(&fields.collect::<HeaderMap>()).hints()
    }

    #[test]
    fn a_cost_is_seconds_or_a_duration() {
        let cost = |text| of(&[("x-forebay-cost", text)]).cost;
        assert_eq!(cost("0.15"), Some(Duration::from_millis(150)));
        assert_eq!(cost("150ms"), Some(Duration::from_millis(150)));
        assert_eq!(cost("2s"), Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_hint_that_cannot_be_meant_is_ignored_and_counted() {
        for cost in ["", "0", "-1", "much", "2h", "1e300", "inf", "NaN"] {
            let hints = of(&[("x-forebay-cost", cost)]);
            assert_eq!((hints.cost, hints.ignored), (None, 1), "{cost}");
        }
        let attempt = of(&[("x-forebay-attempt", "0"), ("x-stainless-retry-count", "1")]);
        assert_eq!((attempt.attempt, attempt.ignored), (Attempt::Unknown, 1));
        assert_eq!(of(&[("x-forebay-tokens", "99999999999")]).ignored, 1);
        assert_eq!(of(&[("grpc-timeout", "123456789S")]).ignored, 1);
        assert_eq!(of(&[("grpc-timeout", "é")]).ignored, 1);
        assert_eq!(of(&[]), Hints::default());
    }

    #[test]
    fn the_sdks_retry_count_says_whether_it_is_a_retry() {
        assert_eq!(of(&[("x-stainless-retry-count", "0")]).attempt, Attempt::First);
        assert_eq!(of(&[("x-stainless-retry-count", "2")]).attempt, Attempt::Retry);
        assert_eq!(of(&[("x-forebay-attempt", "1")]).attempt, Attempt::First);
        assert_eq!(of(&[("x-forebay-attempt", "2")]).attempt, Attempt::Retry);
    }

    #[test]
    fn a_deadline_comes_from_us_or_from_grpc() {
        let patience = |name, value| of(&[(name, value)]).patience.map(|d| d.as_millis());
        assert_eq!(patience("x-forebay-deadline-ms", "1500"), Some(1_500));
        assert_eq!(patience("x-forebay-deadline-ms", "18446744073709551615"), Some(3_600_000));
        assert_eq!(patience("grpc-timeout", "100m"), Some(100));
        assert_eq!(patience("grpc-timeout", "2S"), Some(2_000));
    }
}
