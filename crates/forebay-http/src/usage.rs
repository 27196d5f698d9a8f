//! How many tokens an answer says it used, read as it passes.
//!
//! Looks for the key `"usage"` and reads the object behind it: OpenAI's `prompt_tokens`,
//! `completion_tokens` and `total_tokens`, Anthropic's `input_tokens` and `output_tokens`, in
//! a JSON answer or in events. Inside JSON strings quotes are escaped, so what a model writes
//! is not mistaken for it. Always true: at most 2 KiB are kept, however long the answer is.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::Deserialize;

const KEY: &[u8] = b"\"usage\"";
static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(KEY));
/// The largest usage that is read; known ones have some 400 bytes.
const OBJECT: usize = 2 * 1024;
/// No answer used more than this, whatever it says.
const MOST: u64 = 1_000_000_000;

/// Reads one answer.
#[derive(Debug)]
pub(crate) struct UsageReader {
    place: Place,
    object: Vec<u8>,
    seen: Usage,
}

/// Where in the answer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the key, of which so many bytes have just been seen.
    Outside { matched: usize },
    /// Behind the key: a colon comes.
    Key,
    /// Behind the colon: an object comes, or `null`.
    Colon,
    /// In the object.
    Object { depth: u32 },
    /// In a string in the object.
    Text { depth: u32 },
    /// Behind a backslash in such a string.
    Escape { depth: u32 },
}

const OUTSIDE: Place = Place::Outside { matched: 0 };

/// The numbers that were said. Events repeat them as they grow, so the largest counts.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Usage {
    total_tokens: Option<u64>,
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
}

impl Usage {
    fn merge(&mut self, said: &Self) {
        self.total_tokens = self.total_tokens.max(said.total_tokens);
        self.prompt_tokens = self.prompt_tokens.max(said.prompt_tokens);
        self.completion_tokens = self.completion_tokens.max(said.completion_tokens);
        self.input_tokens = self.input_tokens.max(said.input_tokens);
        self.output_tokens = self.output_tokens.max(said.output_tokens);
        self.cache_creation_input_tokens =
            self.cache_creation_input_tokens.max(said.cache_creation_input_tokens);
    }

    /// The sum of what was said; `None`, if nothing was.
    fn total(&self) -> Option<u64> {
        let parts = [
            self.prompt_tokens.or(self.input_tokens),
            self.completion_tokens.or(self.output_tokens),
            self.cache_creation_input_tokens,
        ];
        let said = parts.iter().flatten().copied().reduce(u64::saturating_add);
        self.total_tokens.max(said).map(|total| total.min(MOST))
    }
}

impl UsageReader {
    /// Before the first byte.
    pub(crate) fn new() -> Self {
        Self { place: OUTSIDE, object: Vec::new(), seen: Usage::default() }
    }

    /// Tokens used, as far as was said.
    pub(crate) fn total(&self) -> Option<u64> {
        self.seen.total()
    }

    /// Reads the next bytes of the answer.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.place == OUTSIDE {
                let Some(at) = FINDER.find(bytes) else {
                    self.place = Place::Outside { matched: begun(bytes) };
                    return;
                };
                self.place = Place::Key;
                bytes = bytes.get(at + KEY.len()..).unwrap_or_default();
                continue;
            }
            self.step(byte);
            bytes = rest;
        }
    }

    fn step(&mut self, byte: u8) {
        self.place = match (self.place, byte) {
            (Place::Outside { matched }, _) => match (KEY.get(matched), byte) {
                (Some(expected), byte) if *expected == byte && matched + 1 == KEY.len() => {
                    Place::Key
                }
                (Some(expected), byte) if *expected == byte => {
                    Place::Outside { matched: matched + 1 }
                }
                (_, b'"') => Place::Outside { matched: 1 },
                _ => OUTSIDE,
            },
            (place @ (Place::Key | Place::Colon), b' ' | b'\t' | b'\r' | b'\n') => place,
            (Place::Key, b':') => Place::Colon,
            (Place::Colon, b'{') => {
                self.object.clear();
                Place::Object { depth: 1 }
            }
            (Place::Key | Place::Colon, b'"') => Place::Outside { matched: 1 },
            (Place::Key | Place::Colon, _) => OUTSIDE,
            (Place::Object { depth }, b'"') => Place::Text { depth },
            (Place::Object { depth }, b'{') => Place::Object { depth: depth + 1 },
            (Place::Object { depth: 1 }, b'}') => {
                self.object.push(byte);
                self.understand();
                self.place = OUTSIDE;
                return;
            }
            (Place::Object { depth }, b'}') => Place::Object { depth: depth - 1 },
            (Place::Text { depth }, b'"') => Place::Object { depth },
            (Place::Text { depth }, b'\\') => Place::Escape { depth },
            (Place::Escape { depth }, _) => Place::Text { depth },
            (place @ (Place::Object { .. } | Place::Text { .. }), _) => place,
        };
        if let Place::Object { .. } | Place::Text { .. } | Place::Escape { .. } = self.place {
            if self.object.len() == OBJECT {
                self.place = OUTSIDE;
            } else {
                self.object.push(byte);
            }
        }
    }

    fn understand(&mut self) {
        if let Ok(said) = serde_json::from_slice(&self.object) {
            self.seen.merge(&said);
        }
    }
}

/// How much of the key stands at the end of `bytes`.
fn begun(bytes: &[u8]) -> usize {
    let whole = (1..KEY.len()).rev();
    whole.into_iter().find(|len| KEY.get(..*len).is_some_and(|k| bytes.ends_with(k))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn total(answer: &str) -> Option<u64> {
        let mut reader = UsageReader::new();
        reader.read(answer.as_bytes());
        reader.total()
    }

    const OPENAI: &str = r#"{"choices":[{"message":{"content":"{\"usage\": {\"total_tokens\":1}}"}}],
        "usage" : {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29,
        "prompt_tokens_details": {"cached_tokens": 0, "x": "}\""}}, "service_tier": "usage"}"#;

    const ANTHROPIC: &str = concat!(
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":",
        "{\"input_tokens\":25,\"output_tokens\":1}}}\n\n",
        "event: content_block_delta\ndata: {\"delta\":{\"text\":\"\\\"usage\\\":{\"}}\n\n",
        "event: message_delta\ndata: {\"delta\":{},\"usage\":{\"output_tokens\":15}}\n\n",
    );

    #[test]
    fn a_whole_answer_says_what_it_used() {
        assert_eq!(total(OPENAI), Some(29));
        let anthropic = r#"{"usage":{"input_tokens":2095,"output_tokens":503}}"#;
        assert_eq!(total(anthropic), Some(2_598));
    }

    #[test]
    fn events_say_it_in_pieces() {
        assert_eq!(total(ANTHROPIC), Some(40));
        let openai = "data: {\"usage\":null}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\
                      \"completion_tokens\":4}}\n\ndata: [DONE]\n\n";
        assert_eq!(total(openai), Some(7));
    }

    #[test]
    fn what_is_no_usage_says_nothing() {
        for answer in [
            "",
            "\"usage\"",
            "{\"usage\":null}",
            "{\"usage\":\"usage\"}",
            "{\"usage\":{}}",
            "{\"usage\":{\"total_tokens\":-1}}",
            "{\"usage\":{\"total_tokens\":\"many\"}}",
            "{\"usage\":{\"total_tokens\":3",
        ] {
            assert_eq!(total(answer), None, "{answer}");
        }
        assert_eq!(total("{\"usage\":{\"total_tokens\":18446744073709551615}}"), Some(MOST));
    }

    #[test]
    fn a_usage_without_end_is_not_kept() {
        let mut reader = UsageReader::new();
        reader.read(b"{\"usage\":{\"a\":\"");
        for _ in 0..10_000 {
            reader.read(b"endless and endless and endless");
            assert!(reader.object.len() <= OBJECT);
        }
        reader.read(OPENAI.as_bytes());
        assert_eq!(reader.total(), Some(29));
    }

    proptest! {
        #[test]
        fn however_an_answer_is_cut_it_says_the_same(cuts in proptest::collection::vec(0..400_usize, 0..9)) {
            for (answer, tokens) in [(OPENAI, 29), (ANTHROPIC, 40)] {
                let mut reader = UsageReader::new();
                let mut rest = answer.as_bytes();
                for cut in &cuts {
                    let (piece, after) = rest.split_at(cut % (rest.len() + 1));
                    reader.read(piece);
                    rest = after;
                }
                reader.read(rest);
                prop_assert_eq!(reader.total(), Some(tokens));
            }
        }

        #[test]
        fn no_answer_breaks_the_reader(bytes in proptest::collection::vec(
            prop_oneof![Just(b"\"usage\":{".to_vec()), Just(b"\"".to_vec()), Just(b"}".to_vec()), any::<u8>().prop_map(|b| vec![b])],
            0..200,
        )) {
            let mut reader = UsageReader::new();
            bytes.iter().for_each(|piece| reader.read(piece));
            prop_assert!(reader.object.len() <= OBJECT);
        }
    }
}
