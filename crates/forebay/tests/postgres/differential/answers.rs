//! What must be the same on both sides, and how it is shown where it is not.

use std::collections::BTreeMap;

use super::play::SIDES;
use crate::client::{Message, show};

/// Why nothing more was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// All has come that was to come.
    Complete,
    /// The server has closed the connection.
    Closed,
    /// Something is missing, and nothing comes any more.
    Silence,
}

/// What a client got for one turn.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) messages: Vec<Message>,
    pub(super) ending: Ending,
    /// All that the client was told of its session so far.
    pub(super) parameters: BTreeMap<String, String>,
}

impl Answer {
    /// The status that the last ReadyForQuery told.
    pub(super) fn status(&self) -> Option<u8> {
        let last = self.messages.iter().rev().find(|message| message.tag == b'Z');
        last.and_then(|message| message.body.first().copied())
    }

    pub(super) fn is_as(&self, other: &Self) -> bool {
        self.says_as(other) && self.parameters == other.parameters
    }

    /// As [`Answer::is_as`], whatever was told of the session's parameters.
    pub(super) fn says_as(&self, other: &Self) -> bool {
        self.ending == other.ending
            && self.messages.len() == other.messages.len()
            && self.messages.iter().zip(&other.messages).all(is_same)
    }

    /// All of it on one line, long rows cut.
    pub(super) fn shown(&self) -> String {
        let shown = show(&self.messages);
        let shown: Vec<_> = shown.split(' ').map(cut).collect();
        format!("{} ({:?})", shown.join(" "), self.ending)
    }

    /// What differs from `other`, bytes as they came.
    pub(super) fn apart_from(&self, other: &Self) -> String {
        let both = self.messages.iter().zip(&other.messages);
        let at = both.take_while(|pair| is_same(*pair)).count();
        let bytes = |answer: &Self| match answer.messages.get(at) {
            Some(message) => {
                let body = String::from_utf8_lossy(&comparable(message)).into_owned();
                format!("{} {}", char::from(message.tag), cut(&format!("{body:?}")))
            }
            None => "nothing".into(),
        };
        let told = |answer: &Self, other: &Self| {
            let differs =
                |(name, value): &(&String, &String)| other.parameters.get(*name) != Some(*value);
            let told: Vec<_> = answer.parameters.iter().filter(differs).collect();
            format!("{told:?}")
        };
        format!(
            "message {at}: {} instead of {}\ntold besides: {} instead of {}",
            bytes(self),
            bytes(other),
            told(self, other),
            told(other, self)
        )
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(300) {
        Some((at, _)) => format!("{}… ({} bytes)", &text[..at], text.len()),
        None => text.to_owned(),
    }
}

fn is_same((one, other): (&Message, &Message)) -> bool {
    one.tag == other.tag && comparable(one) == comparable(other)
}

/// The body of a message, apart from what pooling or two schemas must change.
fn comparable(message: &Message) -> Vec<u8> {
    let body = match message.tag {
        b'T' => without_oids(&message.body),
        b'E' | b'N' => without_places(&message.body),
        // A long row is compared as it is.
        b'D' | b'd' if message.body.len() > 4096 => return message.body.clone(),
        _ => message.body.clone(),
    };
    replaced(&body, SIDES[0].as_bytes(), SIDES[1].as_bytes())
}

fn replaced(body: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = body.to_vec();
    let mut at = 0;
    while let Some(found) = out[at..].windows(from.len()).position(|window| window == from) {
        out[at + found..at + found + from.len()].copy_from_slice(to);
        at += found + from.len();
    }
    out
}

/// An ErrorResponse without the lines of PostgreSQL's own source that raised it.
fn without_places(body: &[u8]) -> Vec<u8> {
    let fields = body.split(|byte| *byte == 0);
    let kept = fields.filter(|field| !matches!(field.first(), Some(b'F' | b'L' | b'R')));
    kept.collect::<Vec<_>>().join(&0)
}

/// A RowDescription without the OIDs of tables, which differ from side to side.
fn without_oids(body: &[u8]) -> Vec<u8> {
    let (count, mut rest) = body.split_at(2);
    let mut out = count.to_vec();
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        let (name, column) = rest.split_at(end + 1);
        let (column, after) = column.split_at(18);
        out.extend([name, &column[4..]].concat());
        rest = after;
    }
    out
}
