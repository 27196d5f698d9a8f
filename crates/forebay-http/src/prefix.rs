//! What the beginning of a JSON body says of its call: the model, the MCP tool, and the trace
//! that MCP carries in `_meta` (Model Context Protocol, "General fields"; keys of W3C Trace
//! Context).
//!
//! Knows no sockets. Bodies come from outside and may end anywhere: what was understood before
//! the end of what is there counts, and what comes behind [`MOST`] bytes is not looked for.

use std::fmt;
use std::sync::Arc;

use forebay_pool::TraceId;
use forebay_pool::overlap::Subject;
use http::Method;
use http::header::{CONTENT_TYPE, EXPECT, HeaderMap};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

/// Bytes of a body that are looked at.
pub(crate) const MOST: usize = 16 * 1024;
/// What other media types of JSON end with (RFC 6839, 3.1).
const SUFFIX: &[u8] = b"+json";
/// Characters of a model's or tool's name that are kept.
const NAME: usize = 64;

/// What a body says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) trace: Option<TraceId>,
    pub(crate) subject: Option<Subject>,
}

/// Can a body behind this head say anything? One that is announced with `Expect` is not asked
/// for before it can be sent on.
pub(crate) fn may_say(method: &Method, headers: &HeaderMap) -> bool {
    let is_json = |value: &http::HeaderValue| {
        let media = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        let media = media.trim_ascii();
        let end = media.len().checked_sub(SUFFIX.len()).and_then(|begin| media.get(begin..));
        media.eq_ignore_ascii_case(b"application/json")
            || end.is_some_and(|end| end.eq_ignore_ascii_case(SUFFIX))
    };
    method == Method::POST
        && !headers.contains_key(EXPECT)
        && headers.get(CONTENT_TYPE).is_some_and(is_json)
}

/// Reads what is there of a body.
pub(crate) fn read(beginning: &[u8]) -> Said {
    let mut found = Found::default();
    let mut json = serde_json::Deserializer::from_slice(beginning);
    // The body may be cut off, or no JSON at all: what was found before counts.
    drop(Level { of: Of::Body, found: &mut found }.deserialize(&mut json));
    let name = |text: String| -> Option<Arc<str>> {
        let shown: String = text.chars().filter(|c| !c.is_control()).take(NAME).collect();
        (!shown.is_empty()).then(|| shown.into())
    };
    let tool = (found.method.as_deref() == Some("tools/call")).then_some(found.tool).flatten();
    let tool = tool.and_then(name).map(Subject::Tool);
    Said {
        trace: found.trace.as_deref().and_then(TraceId::from_traceparent),
        subject: tool.or_else(|| found.model.and_then(name).map(Subject::Model)),
    }
}

#[derive(Default)]
struct Found {
    model: Option<String>,
    method: Option<String>,
    tool: Option<String>,
    trace: Option<String>,
}

/// Which object is read.
#[derive(Clone, Copy)]
enum Of {
    Body,
    Params,
    Meta,
}

struct Level<'f> {
    of: Of,
    found: &'f mut Found,
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let found = self.found;
        while let Some(key) = map.next_key::<String>()? {
            match (self.of, key.as_str()) {
                (Of::Body, "model") => found.model = Some(map.next_value()?),
                (Of::Body, "method") => found.method = Some(map.next_value()?),
                (Of::Body, "params") => {
                    map.next_value_seed(Level { of: Of::Params, found: &mut *found })?;
                }
                (Of::Params, "name") => found.tool = Some(map.next_value()?),
                (Of::Params, "_meta") => {
                    map.next_value_seed(Level { of: Of::Meta, found: &mut *found })?;
                }
                (Of::Meta, "traceparent") => found.trace = Some(map.next_value()?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn tool_call() -> String {
        format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{{\"_meta\":\
             {{\"traceparent\":\"{TRACE}\"}},\"name\":\"search\",\"arguments\":{{\"name\":\"x\"}}}}}}"
        )
    }

    #[test]
    fn an_mcp_call_says_its_tool_and_its_trace() {
        let said = read(tool_call().as_bytes());
        assert_eq!(said.subject, Some(Subject::Tool("search".into())));
        assert_eq!(said.trace, TraceId::from_traceparent(TRACE));
    }

    #[test]
    fn a_call_of_a_model_says_which_wherever_it_stands_in_what_is_there() {
        let behind =
            br#"{"messages":[{"content":"{\"model\":\"no\"}"}],"model":"small","stream":tr"#;
        assert_eq!(read(behind).subject, Some(Subject::Model("small".into())));
        let other = br#"{"method":"prompts/get","params":{"name":"greeting"}}"#;
        assert_eq!(read(other), Said::default(), "a prompt is no tool");
    }

    #[test]
    fn only_json_that_is_posted_is_looked_at() {
        let mut headers = HeaderMap::new();
        assert!(!may_say(&Method::POST, &headers));
        for (value, may) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/vnd.api+json", true),
            ("text/plain", false),
        ] {
            headers.insert(CONTENT_TYPE, value.parse().unwrap());
            assert_eq!(may_say(&Method::POST, &headers), may, "{value}");
            assert!(!may_say(&Method::GET, &headers));
        }
        headers.insert(CONTENT_TYPE, "application/json".parse().unwrap());
        headers.insert(EXPECT, "100-continue".parse().unwrap());
        assert!(!may_say(&Method::POST, &headers));
    }

    proptest! {
        #[test]
        fn a_body_may_be_cut_off_or_be_nothing_at_all(cut in 0..200_usize, junk: Vec<u8>) {
            let whole = tool_call();
            let said = read(&whole.as_bytes()[..cut.min(whole.len())]);
            let right = Subject::Tool("search".into());
            prop_assert!(said.subject.is_none_or(|subject| subject == right));
            read(&junk);
            read(&[b"{\"model\":".as_slice(), &junk].concat());
        }
    }
}
