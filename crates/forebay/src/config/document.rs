//! The configuration as text with places: parses TOML, puts `${NAME}` in, finds the place of
//! a key, and reads settings out of it, with every mistake in one pass.
//!
//! Knows no setting by name, but for the few whose values are secret. serde stops at the
//! first mistake; so the entry that it named is taken out of the tree and the rest is read
//! again, until nothing is wrong or nothing can be taken out.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use super::problem::Problem;
use super::wording;

/// Values of these keys are never shown, unless they only say where the secret is.
const SECRET_KEYS: [&str; 5] = ["password", "server_password", "key", "secret", "client_secret"];
/// Mistakes told in one pass; a file with more is no configuration.
const MOST: usize = 50;

type Value<'t> = Spanned<DeValue<'t>>;
/// Texts with `${NAME}` replaced, by the start of the span where they stand.
pub(super) type Replaced = BTreeMap<usize, Replacement>;

/// A text with `${NAME}` in it.
pub(super) struct Replacement {
    original: String,
    full: String,
}

/// A parsed configuration.
pub(super) struct Document<'t> {
    root: Spanned<DeTable<'t>>,
    replaced: Option<&'t Replaced>,
    hidden: Vec<Range<usize>>,
}

/// A value that holds no others.
pub(super) enum Leaf<'v> {
    Text(&'v str),
    /// Unlike all that are not the same.
    Other(&'v str),
}

/// One step from the root of the tree to a value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

impl<'t> Document<'t> {
    /// Parses `text`.
    ///
    /// # Errors
    /// All that is no TOML, and the spans that must not be shown with it.
    pub(super) fn parse(text: &'t str) -> Result<Self, (Vec<Problem>, Vec<Range<usize>>)> {
        let (mut root, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            let problems = errors
                .iter()
                .take(MOST)
                .map(|e| Problem::new("", e.message().trim()).spanning(e.span()))
                .collect();
            return Err((problems, lines_with_secrets(text)));
        }
        let mut hidden = Vec::new();
        hide_secrets(root.get_mut(), &mut hidden);
        Ok(Self { root, replaced: None, hidden })
    }

    /// The texts with the values of the environment in place of `${NAME}`; `$${` stands for
    /// `${`.
    pub(super) fn replacements(
        &mut self,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> (Replaced, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut replaced = BTreeMap::new();
        walk(self.root.get_mut(), &mut Vec::new(), &mut |path, value| {
            let span = value.span();
            let DeValue::String(text) = value.get_ref() else { return };
            if !text.contains("${") {
                return;
            }
            match fill(text, environment) {
                Ok(full) => {
                    let replacement = Replacement { original: text.to_string(), full };
                    replaced.insert(span.start, replacement);
                }
                Err(reason) => {
                    problems.push(Problem::new(shown(path), reason).spanning(Some(span)));
                }
            }
        });
        (replaced, problems)
    }

    /// Puts `replaced` in.
    pub(super) fn fill_in(&mut self, replaced: &'t Replaced) {
        walk(self.root.get_mut(), &mut Vec::new(), &mut |_, value| {
            if let Some(replacement) = replaced.get(&value.span().start) {
                *value.get_mut() = DeValue::String(Cow::Borrowed(&replacement.full));
            }
        });
        self.replaced = Some(replaced);
    }

    /// Each value with the path of its key. What is hidden is among them.
    pub(super) fn leaves(&mut self, mut visit: impl FnMut(String, Leaf<'_>)) {
        walk(self.root.get_mut(), &mut Vec::new(), &mut |path, value| match value.get_ref() {
            DeValue::String(text) => visit(shown(path), Leaf::Text(text)),
            DeValue::Integer(number) => visit(shown(path), Leaf::Other(&number.to_string())),
            DeValue::Float(number) => visit(shown(path), Leaf::Other(&number.to_string())),
            DeValue::Boolean(value) => visit(shown(path), Leaf::Other(&value.to_string())),
            DeValue::Datetime(time) => visit(shown(path), Leaf::Other(&time.to_string())),
            // An empty one: others are not values but hold them.
            other @ (DeValue::Array(_) | DeValue::Table(_)) => {
                visit(shown(path), Leaf::Other(&format!("{other:?}")));
            }
        });
    }

    /// Reads settings out of the document: what could be read, and all that is wrong.
    pub(super) fn read<T: DeserializeOwned>(&mut self) -> (Option<T>, Vec<Problem>) {
        let mut root = self.root.clone();
        let mut problems = Vec::new();
        let mut removed: Vec<Vec<Step>> = Vec::new();
        let mut retyped = Vec::new();
        for _ in 0..MOST {
            let error = match T::deserialize(Deserializer::from(root.clone())) {
                Ok(settings) => return (problems.is_empty().then_some(settings), problems),
                Err(error) => error,
            };
            let Some(mut span) = error.span() else {
                problems.push(Problem::new("", error.message()));
                break;
            };
            let Some(mut path) = path_of(root.get_ref(), &span) else {
                // A key that the whole document lacks, or what an earlier removal left.
                if removed.is_empty() {
                    problems.push(Problem::new("", wording::plain(error.message())));
                }
                break;
            };
            // Inside an enum with a tag serde knows only the whole table.
            if let Some(key) = wording::unknown_key(error.message())
                && path.last() != Some(&Step::Key(key.to_owned()))
                && let Some(DeValue::Table(table)) =
                    find(root.get_ref(), &path).map(Spanned::get_ref)
                && let Some((name, _)) = table.get_key_value(key)
            {
                span = name.span();
                path.push(Step::Key(key.to_owned()));
            }
            if let Some(value) = self.as_number(root.get_ref(), &path)
                && !retyped.contains(&path)
            {
                set(root.get_mut(), &path, value);
                retyped.push(path);
                continue;
            }
            let missing = wording::missing_key(error.message());
            let follows = missing.is_some_and(|key| {
                let mut wanted = path.clone();
                wanted.push(Step::Key(key.to_owned()));
                removed.contains(&wanted)
            });
            if !follows {
                let reason = self.without_value(root.get_ref(), &path, error.message());
                if wording::unknown_key(error.message()).is_some()
                    && let Some(value) = find(root.get_ref(), &path)
                {
                    // It may be a misspelt password.
                    self.hidden.push(value.span());
                }
                problems.push(Problem::new(shown(&path), reason).spanning(Some(span)));
            }
            remove(root.get_mut(), &path);
            removed.push(path);
        }
        (None, problems)
    }

    /// The place of the key `at`, or of the nearest one above it that is there.
    pub(super) fn place(&self, at: &str) -> Option<Range<usize>> {
        let mut place = None;
        let mut rest = at;
        let mut table = self.root.get_ref();
        'key: while !rest.is_empty() {
            let entry = table
                .iter()
                .filter(|(key, _)| {
                    rest.strip_prefix(key.get_ref().as_ref())
                        .is_some_and(|after| after.is_empty() || after.starts_with(['.', '[']))
                })
                .max_by_key(|(key, _)| key.get_ref().len());
            let Some((key, mut value)) = entry else { break };
            rest = rest.get(key.get_ref().len()..).unwrap_or_default();
            place = Some(key.span());
            loop {
                match value.get_ref() {
                    DeValue::Table(inner) => {
                        rest = rest.strip_prefix('.').unwrap_or(rest);
                        table = inner;
                        continue 'key;
                    }
                    DeValue::Array(items) => {
                        let Some((item, after)) = index(rest)
                            .and_then(|(number, after)| Some((items.get(number)?, after)))
                        else {
                            break 'key;
                        };
                        (value, rest, place) = (item, after, Some(item.span()));
                    }
                    DeValue::String(_)
                    | DeValue::Integer(_)
                    | DeValue::Float(_)
                    | DeValue::Boolean(_)
                    | DeValue::Datetime(_) => {
                        place = Some(value.span());
                        break 'key;
                    }
                }
            }
        }
        place
    }

    /// Spans that must not be shown.
    pub(super) fn hidden(&self) -> &[Range<usize>] {
        &self.hidden
    }

    /// A number or a truth value that came as text out of the environment.
    fn as_number(&self, root: &DeTable<'t>, path: &[Step]) -> Option<DeValue<'t>> {
        let replacement = self.replaced?.get(&find(root, path)?.span().start)?;
        let parsed = DeValue::parse(&replacement.full).ok()?.into_inner();
        (parsed.is_integer() || parsed.is_float() || parsed.is_bool()).then_some(parsed)
    }

    /// serde's message in our words, without values that came from the environment.
    fn without_value(&self, root: &DeTable<'t>, path: &[Step], message: &str) -> String {
        let message = wording::plain(message);
        let start = find(root, path).map(|value| value.span().start);
        match start.and_then(|start| self.replaced?.get(&start)) {
            Some(Replacement { original, full }) => {
                message.replace(&format!("`{full}`"), &format!("`{original}`"))
            }
            None => message,
        }
    }
}

/// `[3]` or `.3` at the start of `rest`: the number, and what follows.
fn index(rest: &str) -> Option<(usize, &str)> {
    let (number, after) = match rest.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None => {
            let inner = rest.strip_prefix('.')?;
            inner.split_at(inner.find(['.', '[']).unwrap_or(inner.len()))
        }
    };
    Some((number.parse().ok()?, after))
}

/// Replaces every `${NAME}`.
fn fill(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut full = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(escaped) = before.strip_suffix('$') {
            full.push_str(escaped);
            full.push_str("${");
            rest = after;
            continue;
        }
        let name = after.split_once('}').map_or("", |(name, _)| name);
        let well_formed = !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if name.is_empty() || !well_formed {
            return Err("`${` begins the name of an environment variable: write `${NAME}`, or \
                        `$${` for the two characters themselves"
                .to_owned());
        }
        let value = environment(name)
            .ok_or_else(|| format!("the environment variable `{name}` is not set"))?;
        full.push_str(before);
        full.push_str(&value);
        rest = after.get(name.len() + 1..).unwrap_or_default();
    }
    full.push_str(rest);
    Ok(full)
}

type Visit<'v, 't> = &'v mut dyn FnMut(&[Step], &mut Value<'t>);

/// Calls `visit` for every value that is neither table nor array.
fn walk<'t>(table: &mut DeTable<'t>, path: &mut Vec<Step>, visit: Visit<'_, 't>) {
    for (key, value) in table.iter_mut() {
        path.push(Step::Key(key.get_ref().to_string()));
        walk_value(value, path, visit);
        path.pop();
    }
}

fn walk_value<'t>(value: &mut Value<'t>, path: &mut Vec<Step>, visit: Visit<'_, 't>) {
    match value.get_mut() {
        DeValue::Table(table) => walk(table, path, visit),
        DeValue::Array(items) => {
            for (number, item) in items.iter_mut().enumerate() {
                path.push(Step::Index(number));
                walk_value(item, path, visit);
                path.pop();
            }
        }
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => visit(path, value),
    }
}

fn hide_secrets(root: &mut DeTable<'_>, hidden: &mut Vec<Range<usize>>) {
    walk(root, &mut Vec::new(), &mut |path, value| {
        let keys: Vec<_> = path
            .iter()
            .filter_map(|step| match step {
                Step::Key(key) => Some(key.as_str()),
                Step::Index(_) => None,
            })
            .collect();
        // `tls.key` is the name of a file.
        let secret = !keys.ends_with(&["tls", "key"])
            && keys.last().is_some_and(|key| SECRET_KEYS.contains(key));
        let reference = matches!(value.get_ref(), DeValue::String(text)
            if text.starts_with("env:") || text.starts_with("file:") || is_variable(text));
        if secret && !reference {
            hidden.push(value.span());
        }
    });
}

/// Nothing but `${NAME}`.
fn is_variable(text: &str) -> bool {
    text.strip_prefix("${").is_some_and(|rest| rest.find('}') == Some(rest.len() - 1))
}

/// What may be secret in a text that could not be parsed: what follows the `=` of a line
/// with a telling word, and everything where texts may span lines.
fn lines_with_secrets(text: &str) -> Vec<Range<usize>> {
    if text.contains("\"\"\"") || text.contains("'''") {
        return vec![Range { start: 0, end: text.len() }];
    }
    let mut start = 0;
    let mut hidden = Vec::new();
    for line in text.split_inclusive('\n') {
        let lower = line.to_lowercase();
        let telling = ["pass", "secret", "key", "token"].iter().any(|word| lower.contains(word));
        let from = line.find('=').map_or(0, |equals| equals + 1);
        if telling {
            hidden.push(start + from..start + line.len());
        }
        start += line.len();
    }
    hidden
}

/// The way to the key or value with exactly this `span`, the deepest first.
fn path_of(table: &DeTable<'_>, span: &Range<usize>) -> Option<Vec<Step>> {
    table.iter().find_map(|(key, value)| {
        let mut path = match path_in(value, span) {
            Some(path) => path,
            None if key.span() == *span => Vec::new(),
            None => return None,
        };
        path.insert(0, Step::Key(key.get_ref().to_string()));
        Some(path)
    })
}

fn path_in(value: &Value<'_>, span: &Range<usize>) -> Option<Vec<Step>> {
    let inside = match value.get_ref() {
        DeValue::Table(table) => path_of(table, span),
        DeValue::Array(items) => items.iter().enumerate().find_map(|(number, item)| {
            let mut path = path_in(item, span)?;
            path.insert(0, Step::Index(number));
            Some(path)
        }),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => None,
    };
    inside.or_else(|| (value.span() == *span).then(Vec::new))
}

fn find<'r, 't>(root: &'r DeTable<'t>, path: &[Step]) -> Option<&'r Value<'t>> {
    let (Step::Key(first), rest) = path.split_first()? else { return None };
    rest.iter().try_fold(root.get(first.as_str())?, |value, step| match (value.get_ref(), step) {
        (DeValue::Table(table), Step::Key(key)) => table.get(key.as_str()),
        (DeValue::Array(items), Step::Index(number)) => items.get(*number),
        _ => None,
    })
}

fn find_mut<'r, 't>(root: &'r mut DeTable<'t>, path: &[Step]) -> Option<&'r mut Value<'t>> {
    let (Step::Key(first), rest) = path.split_first()? else { return None };
    rest.iter().try_fold(root.get_mut(first.as_str())?, |value, step| {
        match (value.get_mut(), step) {
            (DeValue::Table(table), Step::Key(key)) => table.get_mut(key.as_str()),
            (DeValue::Array(items), Step::Index(number)) => items.get_mut(*number),
            _ => None,
        }
    })
}

fn set<'t>(root: &mut DeTable<'t>, path: &[Step], new: DeValue<'t>) {
    if let Some(value) = find_mut(root, path) {
        *value.get_mut() = new;
    }
}

/// Takes the last step of `path` out of what holds it. An item of an array takes the whole
/// array's entry along: what comes after it would move up and be called by another number.
fn remove(root: &mut DeTable<'_>, path: &[Step]) {
    let keys = path.iter().rposition(|step| matches!(step, Step::Key(_)));
    let Some((Step::Key(key), above)) = keys.and_then(|last| path.get(..=last)?.split_last())
    else {
        return;
    };
    match (above, find_mut(root, above).map(Spanned::get_mut)) {
        ([], _) => drop(root.remove(key.as_str())),
        (_, Some(DeValue::Table(table))) => drop(table.remove(key.as_str())),
        _ => {}
    }
}

/// As an operator would write it.
fn shown(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => text.extend([".", key]),
            Step::Index(number) => text.push_str(&format!("[{number}]")),
        }
    }
    text
}
