//! What services say about their own limits, read from the heads of their answers.
//!
//! Understood are `Retry-After` (RFC 9110, 10.2.3), `retry-after-ms`, OpenAI's
//! `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, Anthropic's
//! `anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-…`, the plain
//! `x-ratelimit-…`, and `RateLimit` with `RateLimit-Policy`
//! (draft-ietf-httpapi-ratelimit-headers). Everything else, and everything that cannot be
//! read, says nothing.

use std::time::{Duration, UNIX_EPOCH};

use forebay_pool::rate::{Announcement, Refill, Unit};
use http::{HeaderMap, StatusCode};
use humantime_serde::re::humantime;

/// How long a service that says "too many" and not until when is left alone.
const REST: Duration = Duration::from_secs(1);
/// Anthropic's "overloaded".
const OVERLOADED: u16 = 529;
/// Numbers from here on are times, not durations: seconds since 1970, and milliseconds.
const EPOCH_SECONDS: f64 = 1e9;
const EPOCH_MILLIS: f64 = 1e12;

/// What one answer said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Notice {
    /// How long the service wants no calls.
    pub(crate) rest: Option<Duration>,
    /// What it has left, at most one for each unit.
    pub(crate) left: Vec<Announcement>,
    /// Whether it said anything about limits at all.
    pub(crate) speaks: bool,
}

/// Three fields that belong together.
#[derive(Debug, Default, Clone, Copy)]
struct Trio {
    limit: Option<u64>,
    remaining: Option<u64>,
    reset: Option<Duration>,
}

impl Trio {
    fn hear(&mut self, field: &str, value: &str, now: u64) {
        match field {
            "limit" => self.limit = leading_number(value),
            "remaining" => self.remaining = leading_number(value),
            "reset" => self.reset = until(value, now),
            _ => {}
        }
    }

    fn announces(self, unit: Unit, refill: Refill) -> Option<Announcement> {
        let (remaining, reset) = (self.remaining?, self.reset?);
        Some(Announcement { unit, limit: self.limit, remaining, reset, refill })
    }
}

/// Reads the head of an answer that came at `now`, seconds since 1970.
pub(crate) fn read(status: StatusCode, headers: &HeaderMap, now: u64) -> Notice {
    let mut notice = Notice::default();
    let (mut requests, mut tokens) = (Trio::default(), Trio::default());
    let (mut input, mut output, mut plain) = (Trio::default(), Trio::default(), Trio::default());
    let (mut after, mut after_ms) = (None, None);
    for (name, value) in headers {
        let (name, Ok(value)) = (name.as_str(), value.to_str()) else { continue };
        if let Some(said) = name.strip_prefix("anthropic-ratelimit-") {
            notice.speaks = true;
            match said.rsplit_once('-') {
                Some(("requests", field)) => requests.hear(field, value, now),
                Some(("tokens", field)) => tokens.hear(field, value, now),
                Some(("input-tokens", field)) => input.hear(field, value, now),
                Some(("output-tokens", field)) => output.hear(field, value, now),
                _ => {}
            }
        } else if let Some(said) = name.strip_prefix("x-ratelimit-") {
            notice.speaks = true;
            match said.split_once('-') {
                Some((field, "requests")) => requests.hear(field, value, now),
                Some((field, "tokens")) => tokens.hear(field, value, now),
                Some(_) => {}
                None => plain.hear(said, value, now),
            }
        } else {
            match name {
                "ratelimit" => {
                    notice.speaks = true;
                    notice.left.extend(structured(headers, value));
                }
                "ratelimit-policy" => notice.speaks = true,
                "retry-after" => after = retry_after(value, now),
                "retry-after-ms" => after_ms = value.trim().parse().ok().and_then(millis),
                _ => match name.strip_prefix("ratelimit-") {
                    Some(said) => {
                        notice.speaks = true;
                        plain.hear(said, value, now);
                    }
                    None => continue,
                },
            }
        }
    }
    // Anthropic's `tokens` are the tightest of its limits; else the tighter one of two.
    let parts = [input, output].map(|trio| trio.announces(Unit::Tokens, Refill::Gradual));
    let tighter = parts.into_iter().flatten().min_by_key(|said| said.remaining);
    let found = [
        requests.announces(Unit::Requests, Refill::Gradual),
        tokens.announces(Unit::Tokens, Refill::Gradual).or(tighter),
        plain.announces(Unit::Requests, Refill::AtOnce),
    ];
    notice.left.extend(found.into_iter().flatten());
    notice.left = tightest(&notice.left);
    let said = after_ms.or(after);
    notice.rest = match status {
        StatusCode::TOO_MANY_REQUESTS => Some(said.unwrap_or(REST)),
        StatusCode::SERVICE_UNAVAILABLE => said,
        status if status.as_u16() == OVERLOADED => said,
        _ => None,
    };
    notice
}

/// One for each unit: the one with the least left.
fn tightest(all: &[Announcement]) -> Vec<Announcement> {
    let of = |unit| all.iter().filter(move |said| said.unit == unit).min_by_key(|s| s.remaining);
    [Unit::Requests, Unit::Tokens].into_iter().filter_map(of).copied().collect()
}

/// The items of a `RateLimit` field (structured fields, RFC 9651), of which names and whole
/// numbers are needed: `"default";r=50;t=30`. Their quotas are in `RateLimit-Policy`.
fn structured<'v>(
    headers: &'v HeaderMap,
    value: &'v str,
) -> impl Iterator<Item = Announcement> + 'v {
    items(value).filter_map(move |item| {
        let (name, remaining) = (item_name(item), parameter(item, "r")?);
        let reset = Duration::from_secs(parameter(item, "t")?);
        let policies = headers.get_all("ratelimit-policy").iter().filter_map(|v| v.to_str().ok());
        let policy = policies.flat_map(items).find(|policy| item_name(policy) == name);
        let limit = policy.and_then(|policy| parameter(policy, "q"));
        let unit = match name.to_ascii_lowercase() {
            name if name.contains("token") => Unit::Tokens,
            // What is counted here is neither.
            _ if policy.is_some_and(|policy| policy.contains("qu=\"content-bytes\"")) => {
                return None;
            }
            _ => Unit::Requests,
        };
        Some(Announcement { unit, limit, remaining, reset, refill: Refill::AtOnce })
    })
}

/// Members of a list, at most as many as any policy has.
fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').take(16)
}

fn item_name(item: &str) -> &str {
    item.split(';').next().unwrap_or_default().trim().trim_matches('"')
}

fn parameter(item: &str, wanted: &str) -> Option<u64> {
    item.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        (name.trim() == wanted).then(|| value.trim().parse().ok()).flatten()
    })
}

/// `Retry-After`: seconds, or a date.
pub(crate) fn retry_after(value: &str, now: u64) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = httpdate::parse_http_date(value).ok()?;
    let date = date.duration_since(UNIX_EPOCH).ok()?;
    Some(date.saturating_sub(Duration::from_secs(now)))
}

/// How long from `now` until a reset: `30`, `0.5`, `1767225600`, `6m0s`, `120ms` or
/// `2026-01-01T00:00:00Z`.
fn until(value: &str, now: u64) -> Option<Duration> {
    let value = value.trim();
    let since_now = |then: Duration| then.saturating_sub(Duration::from_secs(now));
    if let Ok(number) = value.parse::<f64>() {
        return match number {
            n if n >= EPOCH_MILLIS => millis(n).map(since_now),
            n if n >= EPOCH_SECONDS => Duration::try_from_secs_f64(n).ok().map(since_now),
            n => Duration::try_from_secs_f64(n).ok(),
        };
    }
    if let Some(duration) = compound(value) {
        return Some(duration);
    }
    let time = humantime::parse_rfc3339_weak(value).ok()?;
    Some(since_now(time.duration_since(UNIX_EPOCH).ok()?))
}

fn millis(number: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(number / 1_000.0).ok()
}

/// Durations as Go writes them: `1h2m3.5s`, `120ms`.
fn compound(mut text: &str) -> Option<Duration> {
    let mut sum = Duration::ZERO;
    while !text.is_empty() {
        let number = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, rest) = text.split_at(number);
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (unit, rest) = rest.split_at(unit);
        let seconds = match unit {
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        sum = sum.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        text = rest;
    }
    Some(sum)
}

/// `100` of `100`, and of `100, 100;w=60` as older drafts have it.
fn leading_number(value: &str) -> Option<u64> {
    let value = value.trim();
    let end = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    value.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2026-01-01T00:00:00Z.
    const NOW: u64 = 1_767_225_600;

    fn heard(status: u16, fields: &[(&'static str, &str)]) -> Notice {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        read(StatusCode::from_u16(status).unwrap(), &headers, NOW)
    }

    fn said(unit: Unit, limit: u64, remaining: u64, millis: u64, refill: Refill) -> Announcement {
        let reset = Duration::from_millis(millis);
        Announcement { unit, limit: Some(limit), remaining, reset, refill }
    }

    #[test]
    fn openai_says_it_in_durations() {
        let notice = heard(
            200,
            &[
                ("x-ratelimit-limit-requests", "60"),
                ("x-ratelimit-remaining-requests", "59"),
                ("x-ratelimit-reset-requests", "1s"),
                ("x-ratelimit-limit-tokens", "150000"),
                ("x-ratelimit-remaining-tokens", "149984"),
                ("x-ratelimit-reset-tokens", "6m0.5s"),
            ],
        );
        let expected = [
            said(Unit::Requests, 60, 59, 1_000, Refill::Gradual),
            said(Unit::Tokens, 150_000, 149_984, 360_500, Refill::Gradual),
        ];
        assert_eq!((notice.left.as_slice(), notice.rest), (&expected[..], None));
    }

    #[test]
    fn anthropic_says_it_in_times_and_the_tighter_limit_counts() {
        let notice = heard(
            200,
            &[
                ("anthropic-ratelimit-requests-limit", "50"),
                ("anthropic-ratelimit-requests-remaining", "0"),
                ("anthropic-ratelimit-requests-reset", "2026-01-01T00:01:00Z"),
                ("anthropic-ratelimit-input-tokens-limit", "40000"),
                ("anthropic-ratelimit-input-tokens-remaining", "40000"),
                ("anthropic-ratelimit-input-tokens-reset", "2026-01-01T00:00:00Z"),
                ("anthropic-ratelimit-output-tokens-limit", "8000"),
                ("anthropic-ratelimit-output-tokens-remaining", "1000"),
                ("anthropic-ratelimit-output-tokens-reset", "2026-01-01T00:00:30Z"),
            ],
        );
        let expected = [
            said(Unit::Requests, 50, 0, 60_000, Refill::Gradual),
            said(Unit::Tokens, 8_000, 1_000, 30_000, Refill::Gradual),
        ];
        assert_eq!(notice.left, expected);
    }

    #[test]
    fn the_drafts_fields_and_the_plain_ones_come_back_at_once() {
        let draft = heard(
            200,
            &[
                ("ratelimit-policy", "\"burst\";q=100;w=60, \"tokens\";q=9000;w=60"),
                ("ratelimit", "\"burst\";r=50;t=30, \"tokens\";r=7;t=20"),
            ],
        );
        let expected = [
            said(Unit::Requests, 100, 50, 30_000, Refill::AtOnce),
            said(Unit::Tokens, 9_000, 7, 20_000, Refill::AtOnce),
        ];
        assert_eq!(draft.left, expected);
        for reset in ["30", "1767225630", "1767225630000"] {
            let fields = [
                ("x-ratelimit-limit", "100, 100;w=60"),
                ("x-ratelimit-remaining", "4"),
                ("x-ratelimit-reset", reset),
            ];
            let plain = heard(200, &fields);
            assert_eq!(plain.left, [said(Unit::Requests, 100, 4, 30_000, Refill::AtOnce)]);
        }
    }

    #[test]
    fn a_service_that_says_too_many_is_left_alone() {
        let rest = |status, fields: &[_]| heard(status, fields).rest.map(|rest| rest.as_millis());
        assert_eq!(rest(429, &[]), Some(1_000));
        assert_eq!(rest(429, &[("retry-after", "20"), ("retry-after-ms", "150")]), Some(150));
        assert_eq!(rest(429, &[("retry-after", "Thu, 01 Jan 2026 00:00:07 GMT")]), Some(7_000));
        assert_eq!(rest(429, &[("retry-after", "soon")]), Some(1_000));
        assert_eq!(rest(503, &[]), None);
        assert_eq!(rest(503, &[("retry-after", "2")]), Some(2_000));
        assert_eq!(rest(529, &[("retry-after", "2")]), Some(2_000));
        assert_eq!(rest(200, &[("retry-after", "2")]), None);
    }

    proptest! {
        #[test]
        fn no_value_breaks_the_reader(value in "[ -~]{0,40}") {
            for name in [
                "ratelimit", "ratelimit-policy", "retry-after", "retry-after-ms",
                "x-ratelimit-reset", "x-ratelimit-reset-tokens", "x-ratelimit-remaining-requests",
                "anthropic-ratelimit-tokens-reset", "anthropic-ratelimit-",
            ] {
                let notice = heard(429, &[(name, &value), ("x-ratelimit-remaining-tokens", "1")]);
                prop_assert!(notice.rest.is_some());
            }
        }
    }
}
