//! serde's messages in the words of an operator: what is expected, without the value that
//! was found (it may be secret; the line is shown anyway), and what was probably meant.

/// What stands between backticks in `text`, in order.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The key that serde does not know.
pub(super) fn unknown_key(message: &str) -> Option<&str> {
    message.strip_prefix("unknown field ").and_then(|rest| quoted(rest).next())
}

/// The key that serde misses.
pub(super) fn missing_key(message: &str) -> Option<&str> {
    message.strip_prefix("missing field ").and_then(|rest| quoted(rest).next())
}

/// Of `known`, what `word` was probably meant to be.
pub(crate) fn meant<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(word, name), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// `; did you mean …?` and what there is, for a `word` that is not among `known`.
pub(super) fn instead<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    let known: Vec<_> = known.into_iter().collect();
    let list: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
    match (meant(word, known.iter().copied()), &list[..]) {
        (_, []) => String::new(),
        (None, [only]) => format!("; possible is {only}"),
        (None, list) => format!("; possible are {}", list.join(", ")),
        (Some(name), [_]) => format!("; did you mean `{name}`?"),
        (Some(name), list) => {
            format!("; did you mean `{name}`? Possible are {}", list.join(", "))
        }
    }
}

/// serde's `message` for people.
pub(super) fn plain(message: &str) -> String {
    let message = message.trim();
    if let Some(key) = unknown_key(message) {
        return format!("unknown key `{key}`{}", instead(key, quoted(message).skip(1)));
    }
    if let Some(variant) = message.strip_prefix("unknown variant ") {
        let word = quoted(variant).next().unwrap_or_default();
        return format!("`{word}` is not possible{}", instead(word, quoted(variant).skip(1)));
    }
    if let Some(key) = missing_key(message) {
        return format!("the key `{key}` is missing");
    }
    if message == "invalid socket address syntax" {
        return "expected an IP address and a port, such as \"127.0.0.1:6432\"".to_owned();
    }
    let invalid = ["invalid type: ", "invalid value: "].iter().any(|p| message.starts_with(p));
    match message.rsplit_once(", expected ") {
        Some((_, expected)) if invalid => format!("expected {}", plain_type(expected)),
        _ => message.to_owned(),
    }
}

fn plain_type(expected: &str) -> &str {
    match expected {
        "a duration" => "a duration, such as \"500ms\", \"30s\" or \"5min\"",
        "a string" | "string" => "a text in quotes",
        "a boolean" => "true or false",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number, 0 or more",
        "a map" => "a table",
        "a sequence" => "a list in [ ]",
        table if table.starts_with("struct ") => "a table",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_comes_with_what_was_meant() {
        assert_eq!(
            plain("unknown field `pol_mode`, expected one of `listen`, `pool_mode`"),
            "unknown key `pol_mode`; did you mean `pool_mode`? Possible are `listen`, `pool_mode`"
        );
        assert_eq!(
            plain("unknown field `zz`, expected `listen`"),
            "unknown key `zz`; possible is `listen`"
        );
    }

    #[test]
    fn the_value_found_is_not_repeated() {
        assert_eq!(
            plain("invalid type: string \"hunter2, expected x\", expected u32"),
            "expected a whole number from 0 to 4294967295"
        );
        assert_eq!(
            plain("invalid value: string \"5x\", expected a duration"),
            "expected a duration, such as \"500ms\", \"30s\" or \"5min\""
        );
    }

    #[test]
    fn a_missing_key_is_named() {
        assert_eq!(plain("missing field `url`"), "the key `url` is missing");
    }
}
