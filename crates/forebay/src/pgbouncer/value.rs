//! Values of `[pgbouncer]`, read as PgBouncer reads them: whole numbers as C does (also `0x10`
//! and `0777`), times in seconds with a fraction, names whatever their case.
//!
//! Stricter than PgBouncer in one thing: a number that it would silently bend to its 32 bits
//! is refused.

use std::time::Duration;

/// What a value of `[pgbouncer]` looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A whole number.
    Number,
    /// 0 or 1.
    Flag,
    /// Seconds; a fraction is allowed.
    Seconds,
    /// One of these names.
    Choice(&'static [&'static str]),
    /// Names with commas between them.
    List,
    /// Anything.
    Text,
}

/// What PgBouncer's times count up to here: longer ones are as good as none.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

impl Kind {
    /// Is `value` one that PgBouncer reads?
    ///
    /// # Errors
    /// What would be right.
    pub(super) fn check(self, value: &str) -> Result<(), String> {
        match self {
            Self::Number => number(value).map(drop),
            Self::Flag => flag(value).map(drop),
            Self::Seconds => seconds(value).map(drop),
            Self::Choice(names) => match choice(value, names) {
                Some(_) => Ok(()),
                None => Err(format!("expected one of {}", names.join(", "))),
            },
            Self::List | Self::Text => Ok(()),
        }
    }
}

impl Kind {
    /// `value`, which was checked, as `SHOW CONFIG` shows it.
    pub(super) fn shown(self, value: &str) -> String {
        let shown = match self {
            Self::Number | Self::Flag => number(value).ok().map(|number| number.to_string()),
            Self::Seconds => seconds(value).ok().map(|seconds| seconds.as_secs_f64().to_string()),
            Self::Choice(names) => choice(value, names).map(str::to_owned),
            Self::List | Self::Text => None,
        };
        shown.unwrap_or_else(|| value.to_owned())
    }
}

/// A whole number, as C's `strtol` reads it.
pub(super) fn number(value: &str) -> Result<i64, String> {
    let wrong = || format!("expected a whole number{}", hint(value));
    let text = value.trim_start();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, digits.get(2..).unwrap_or_default()),
        [b'0', _, ..] => (8, digits),
        _ => (10, digits),
    };
    if digits.starts_with(['+', '-']) {
        return Err(wrong());
    }
    let number = i64::from_str_radix(digits, radix).map_err(|_| wrong())?;
    let number = if negative { -number } else { number };
    let in_range = (i64::from(i32::MIN)..=i64::from(u32::MAX)).contains(&number);
    in_range.then_some(number).ok_or_else(|| "the number is too large".to_owned())
}

/// 0 for no, any other number for yes.
pub(super) fn flag(value: &str) -> Result<bool, String> {
    number(value)
        .map(|number| number != 0)
        .map_err(|_| "expected 0 or 1 (PgBouncer knows no `true`, `yes` or `on`)".to_owned())
}

/// Seconds, with a fraction.
pub(super) fn seconds(value: &str) -> Result<Duration, String> {
    let text = value.trim_start();
    let whole = text.starts_with("0x").then(|| number(text).ok()).flatten();
    let seconds = match whole.and_then(|whole| u32::try_from(whole).ok()) {
        Some(whole) => f64::from(whole),
        None => text
            .parse::<f64>()
            .ok()
            .filter(|seconds| *seconds >= 0.0)
            .ok_or_else(|| format!("expected seconds, such as 5 or 0.5{}", hint(value)))?,
    };
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or(FOR_EVER).min(FOR_EVER))
}

/// The name among `names` that `value` is, whatever its case.
pub(super) fn choice(value: &str, names: &[&'static str]) -> Option<&'static str> {
    names.iter().copied().find(|name| name.eq_ignore_ascii_case(value))
}

/// Names with commas between them.
pub(super) fn list(value: &str) -> Vec<&str> {
    value.split(',').map(str::trim).filter(|name| !name.is_empty()).collect()
}

/// A number of a connection string. PgBouncer takes the digits at its beginning and nothing
/// where there are none (`atoi`), so that a mistake becomes 0: here it is an error.
pub(super) fn pair_number(value: &str) -> Result<i64, String> {
    let number = value.trim().parse::<i32>().map(i64::from);
    number.map_err(|_| "expected a whole number".to_owned())
}

/// Why a value that looks right to people is wrong.
fn hint(value: &str) -> &'static str {
    if value.is_empty() {
        "; to have the default, leave the line out"
    } else if value.contains([';', '#']) {
        "; a comment stands in a line of its own"
    } else if value.ends_with(|c: char| c.is_ascii_alphabetic()) {
        ", without a unit"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_c_reads_them() {
        for (text, value) in [("20", 20), (" +5", 5), ("-3", -3), ("0x10", 16), ("0777", 511)] {
            assert_eq!(number(text), Ok(value), "{text}");
        }
        for text in ["", "5s", "1.5", "08", "0x", "--5", "5 ; why", "99999999999"] {
            assert!(number(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_seconds_without_a_unit() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(seconds("1e2"), Ok(Duration::from_secs(100)));
        assert_eq!(seconds("0x10"), Ok(Duration::from_secs(16)));
        assert_eq!(seconds("inf"), Ok(FOR_EVER));
        for text in ["", "-1", "5s", "5 ; why"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_mistake_says_what_would_be_right() {
        assert!(flag("true").unwrap_err().contains("0 or 1"));
        assert!(seconds("5min").unwrap_err().ends_with("without a unit"));
        assert!(number("5 ; pools").unwrap_err().ends_with("a line of its own"));
        let modes = Kind::Choice(&["session", "transaction"]);
        assert_eq!(modes.check("Transaction"), Ok(()));
        assert_eq!(modes.check("x"), Err("expected one of session, transaction".to_owned()));
    }
}
