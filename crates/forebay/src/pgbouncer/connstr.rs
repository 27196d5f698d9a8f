//! Connection strings of `[databases]`, `[users]` and `[peers]`: `key=value` pairs, as
//! PgBouncer splits them.
//!
//! Pairs are separated by spaces, and by nothing else; a value may stand in single quotes, in
//! which two of them are one; a value is never empty. Knows no key.

/// Why a text is no connection string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ConnStrError {
    /// A word stands alone.
    #[error("expected `key=value` pairs with spaces between them")]
    NoValue,
    /// Nothing stands behind the `=`.
    #[error("a value is empty: leave the key out instead")]
    EmptyValue,
    /// A quote is not closed.
    #[error("a `'` is not closed; write two of them for one inside of quotes")]
    OpenQuote,
    /// Something follows a closing quote at once.
    #[error("expected a space after a closing `'`")]
    GluedQuote,
    /// PgBouncer takes the tab for a part of the value.
    #[error("a tab does not separate pairs; write spaces")]
    Tab,
}

/// The pairs of `text`, in their order.
pub(super) fn pairs(text: &str) -> Result<Vec<(&str, String)>, ConnStrError> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start_matches(' ');
    while !rest.is_empty() {
        let end = rest.find(['=', ' ']).ok_or(ConnStrError::NoValue)?;
        let (key, after) = rest.split_at(end);
        let after = after.trim_start_matches(' ').strip_prefix('=');
        let after = after.filter(|_| !key.is_empty()).ok_or(ConnStrError::NoValue)?;
        let (value, after) = value(after.trim_start_matches(' '))?;
        if value.is_empty() {
            return Err(ConnStrError::EmptyValue);
        }
        pairs.push((key, value));
        rest = after.trim_start_matches(' ');
    }
    Ok(pairs)
}

fn value(text: &str) -> Result<(String, &str), ConnStrError> {
    let Some(mut rest) = text.strip_prefix('\'') else {
        let (value, rest) = text.split_once(' ').unwrap_or((text, ""));
        if value.contains('\t') {
            return Err(ConnStrError::Tab);
        }
        return Ok((value.to_owned(), rest));
    };
    let mut value = String::new();
    loop {
        let (part, after) = rest.split_once('\'').ok_or(ConnStrError::OpenQuote)?;
        value.push_str(part);
        let Some(more) = after.strip_prefix('\'') else {
            if !after.is_empty() && !after.starts_with(' ') {
                return Err(ConnStrError::GluedQuote);
            }
            return Ok((value, after));
        };
        value.push('\'');
        rest = more;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        match pairs(text) {
            Ok(pairs) => pairs.iter().map(|(key, value)| format!("{key}:{value};")).collect(),
            Err(error) => format!("{error:?}"),
        }
    }

    #[test]
    fn pairs_may_have_spaces_anywhere_and_values_quotes() {
        assert_eq!(read(""), "");
        assert_eq!(read("  host=h  port = 5432 "), "host:h;port:5432;");
        assert_eq!(read("password='a''b' dbname= 'x = y'"), "password:a'b;dbname:x = y;");
        assert_eq!(read("password=a'b=c"), "password:a'b=c;");
    }

    #[test]
    fn what_pgbouncer_refuses_or_misreads_is_refused() {
        for (text, error) in [
            ("host", "NoValue"),
            ("host=h x", "NoValue"),
            ("=h", "NoValue"),
            ("host=", "EmptyValue"),
            ("host=''", "EmptyValue"),
            ("host='h", "OpenQuote"),
            ("host='h'port=1", "GluedQuote"),
            ("host=h\tport=1", "Tab"),
        ] {
            assert_eq!(read(text), error, "{text:?}");
        }
    }
}
