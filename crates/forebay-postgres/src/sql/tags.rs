//! sqlcommenter tags: the last comment of a statement, `key='value',…`, values
//! percent-encoded (google.github.io/sqlcommenter/spec). Drivers add some that encode twice
//! (`%%3A`), leave integers bare, or write `key:value`; those are read too.

use std::borrow::Cow;

use super::token::block_comment;

/// Tags read at the most; what comes after is ignored.
const MOST: usize = 32;

/// What a statement's comment says about the work it belongs to, as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tags<'a> {
    pub(crate) traceparent: Option<Cow<'a, str>>,
    /// `forebay_class`
    pub(crate) class: Option<Cow<'a, str>>,
    /// `forebay_feature`, else the first of `route` and `action`.
    pub(crate) feature: Option<Cow<'a, str>>,
    /// `forebay_cost`
    pub(crate) cost: Option<Cow<'a, str>>,
    /// `forebay_attempt`
    pub(crate) attempt: Option<Cow<'a, str>>,
    /// `forebay_needs`
    pub(crate) needs: Option<Cow<'a, str>>,
}

/// Splits the trailing comment off `text`: the statement (with its semicolon, if one stood
/// behind or before the comment) and the comment's inside. Only a comment that holds tags
/// is split off; optimizer hints and remarks stay.
pub(crate) fn split(text: &[u8]) -> Option<(Cow<'_, [u8]>, Tags<'_>)> {
    // Most statements have no comment: the last bytes tell.
    let trimmed = trim_end(text);
    let (body, semicolon) = match trimmed.strip_suffix(b";") {
        Some(body) => (trim_end(body), true),
        None => (trimmed, false),
    };
    if !body.ends_with(b"*/") {
        return None;
    }
    let start = last_comment(body)?;
    let (statement, comment) = body.split_at(start);
    let inside = comment.strip_prefix(b"/*")?.strip_suffix(b"*/")?;
    // A comment within it that opens and does not close would leave it open, too.
    if count(comment, b"/*") != count(comment, b"*/") {
        return None;
    }
    let tags = read(std::str::from_utf8(inside).ok()?)?;
    if !semicolon {
        return Some((Cow::Borrowed(trim_end(statement)), tags));
    }
    // A line's end may be that of a remark, and the semicolon does not belong to it.
    let blanks = statement.iter().rev().take_while(|byte| **byte == b' ').count();
    let mut whole = statement.get(..statement.len() - blanks).unwrap_or_default().to_vec();
    whole.push(b';');
    Some((Cow::Owned(whole), tags))
}

/// How often `pair` stands in `text`.
fn count(text: &[u8], pair: &[u8]) -> usize {
    text.windows(pair.len()).filter(|window| *window == pair).count()
}

fn trim_end(text: &[u8]) -> &[u8] {
    text.trim_ascii_end()
}

/// Where the comment that ends `text` begins. It must not stand inside a string: quotes
/// before it have to be balanced, which the caller's server would complain about otherwise.
fn last_comment(text: &[u8]) -> Option<usize> {
    let mut tokens = super::token::Tokens::new(text);
    let mut end_of_last = 0;
    while tokens.next().is_some() {
        end_of_last = text.len() - tokens.remaining();
    }
    // Behind the last token only blanks and comments are left: the last of them counts.
    let mut at = end_of_last;
    let mut last = None;
    while let Some(rest) = text.get(at..)
        && !rest.is_empty()
    {
        if rest.starts_with(b"/*") {
            last = Some(at);
            at += block_comment(rest);
        } else if rest.starts_with(b"--") {
            at += rest.iter().take_while(|b| **b != b'\n').count();
        } else {
            at += 1;
        }
    }
    last
}

fn read(inside: &str) -> Option<Tags<'_>> {
    let mut tags = Tags::default();
    let mut found = 0;
    for pair in inside.split(',').take(MOST) {
        let (key, value) = pair.split_once(['=', ':'])?;
        let key = key.trim();
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.%".contains(&b))
        {
            return None;
        }
        found += 1;
        let value = decode(value.trim().trim_matches('\''));
        match key {
            "traceparent" => tags.traceparent = Some(value),
            "forebay_class" => tags.class = Some(value),
            "forebay_feature" => tags.feature = Some(value),
            "route" | "action" if tags.feature.is_none() => tags.feature = Some(value),
            "forebay_cost" => tags.cost = Some(value),
            "forebay_attempt" => tags.attempt = Some(value),
            "forebay_needs" => tags.needs = Some(value),
            _ => {}
        }
    }
    (found > 0).then_some(tags)
}

/// Percent-decoding that takes `%%3A` as `%3A`, and what is no code as it is.
fn decode(value: &str) -> Cow<'_, str> {
    if !value.bytes().any(|byte| matches!(byte, b'%' | b'\\')) {
        return Cow::Borrowed(value);
    }
    let value = value.replace("%%", "%").replace("\\'", "'");
    let bytes = value.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let code = value.get(at + 1..at + 3).filter(|_| *byte == b'%');
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(decoded) => {
                out.push(decoded);
                at += 3;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03";

    fn split_text(text: &str) -> Option<(String, Tags<'_>)> {
        split(text.as_bytes()).map(|(s, tags)| (String::from_utf8(s.into_owned()).unwrap(), tags))
    }

    #[test]
    fn tags_are_split_off_as_open_telemetry_writes_them() {
        let text = format!(
            "select 1 /*db_driver='psycopg%%3A3.3.9',dbapi_threadsafety=2,route='%2Fask',traceparent='{TRACE}'*/"
        );
        let (statement, tags) = split_text(&text).unwrap();
        assert_eq!(statement, "select 1");
        assert_eq!(tags.traceparent.as_deref(), Some(TRACE));
        assert_eq!(tags.feature.as_deref(), Some("/ask"));
    }

    #[test]
    fn a_semicolon_before_or_behind_the_comment_stays_one() {
        assert_eq!(split_text("select 1 /*route='a'*/;").unwrap().0, "select 1;");
        assert_eq!(split_text("select 1; /*route='a'*/").unwrap().0, "select 1;");
    }

    #[test]
    fn comments_that_are_no_tags_stay() {
        for text in [
            "select 1 /* why */",
            "select 1 /*+ IndexScan(t) */",
            "select '/*route=''a''*/",
            "/*route='a'*/ select 1",
            "select 1",
            "select ' /*route=1*/",
        ] {
            assert_eq!(split_text(text), None, "{text}");
        }
    }

    #[test]
    fn a_feature_named_outright_wins_over_a_route() {
        let (_, tags) =
            split_text("q /*forebay_feature='f',route='r',forebay_class='ai-read'*/").unwrap();
        assert_eq!((tags.feature.as_deref(), tags.class.as_deref()), (Some("f"), Some("ai-read")));
    }

    #[test]
    fn tags_are_found_behind_whatever_looks_like_one() {
        let tagged = [
            "select '/*' /*route='a'*/",
            "select 'it''s --' /*route='a'*/ ;",
            "select E'\\'/*' /*route='a'*/",
            "select $q$ /*route='b'*/ $q$ /*route='a'*/",
            "select \"/*\" /*route='a'*/",
            "/*+ SeqScan(t) */ select 1 /* why */ /*route='a'*/",
            "select 1 -- /* never closed\n/*route='a'*/",
            "select 1 /* a /* nested */ one */ /*route='a'*/",
            "select 1 /*route='b'*/ /*route='a'*/",
        ];
        for text in tagged {
            let (statement, tags) = split_text(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(tags.feature.as_deref(), Some("a"), "{text}");
            let before = text.split("/*route='a'*/").next().unwrap();
            assert_eq!(statement.trim_end_matches(';'), before.trim_end(), "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_tags_stays() {
        for text in [
            "select 1 -- /*route='a'*/",
            "select $q$ /*route='a'*/",
            "select $q$ /*route='a'*/ $q$",
            "select \"/*route='a'*/",
            "select 1 /*+route='a'*/",
            "select 1 /*+ Set(enable_seqscan=off) */",
            "select 1 /* x /*route='a'*/ */",
            "select 1 /* x /*route='a'*/",
            "/*route='a'*/ select 1 /* b */",
        ] {
            assert_eq!(split_text(text), None, "{text}");
        }
    }

    proptest! {
        /// What is split off is a comment to PostgreSQL, so the statement is the same.
        #[test]
        fn a_statement_keeps_its_tokens(
            text in "(a|'|''|\"|E'|\\\\|\\$q\\$|/\\*|\\*/|--|\n| |;|=|k='v'|,|\\+){0,14}(/\\*k='v'\\*/)?;?",
        ) {
            if let Some((statement, _)) = split(text.as_bytes()) {
                let tokens = |text| crate::sql::token::Tokens::new(text).collect::<Vec<_>>();
                prop_assert_eq!(tokens(&statement), tokens(text.as_bytes()));
            }
        }

        #[test]
        fn no_text_breaks_the_reader(text: Vec<u8>) {
            if let Some((statement, _)) = split(&text) {
                prop_assert!(statement.len() <= text.len());
            }
        }
    }
}
