//! Wishes to speak something else than HTTP on a connection: WebSocket and its kin.
//!
//! An agent of HTTP/1.1 says `Upgrade` (RFC 9110, 7.8), one of HTTP/2 `CONNECT` with a
//! protocol (RFC 8441); a service is asked over HTTP/1.1. Always true: nothing passes before
//! the service has agreed to what was asked, in so many words (CVE-2026-2833); who sends a body
//! along may mean a call by it, and is refused (CVE-2026-58055). Knows no sockets.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use forebay_seam::random;
use http::header::{self, HeaderMap, HeaderName};
use http::{HeaderValue, Method, Request, StatusCode, Version, response};
use hyper::body::Body;
use hyper::ext::Protocol;
use hyper::upgrade::{self, OnUpgrade};

use crate::hygiene;
use crate::problem::{Problem, Reason};

const KEY: HeaderName = header::SEC_WEBSOCKET_KEY;
const ACCEPT: HeaderName = header::SEC_WEBSOCKET_ACCEPT;
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
/// What is appended to a key (RFC 6455, 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What an agent wants to speak.
pub(crate) struct Wish {
    protocol: HeaderValue,
    speech: Speech,
    agent: OnUpgrade,
}

/// How the agent has said it.
enum Speech {
    Http1,
    /// The key that we ask the service with in its place.
    Http2 {
        key: String,
    },
}

/// What `request` wants to speak, if not HTTP. A wish that we do not know is none: it is an
/// offer that nobody has to take (RFC 9110, 7.8).
pub(crate) fn wish<B: Body>(request: &mut Request<B>) -> Result<Option<Wish>, Problem> {
    let (protocol, speech) = match request.version() {
        Version::HTTP_11 => match offered(request.headers()) {
            Some(protocol) => (protocol, Speech::Http1),
            None => return Ok(None),
        },
        Version::HTTP_2 if request.method() == Method::CONNECT => {
            match request.extensions().get::<Protocol>() {
                Some(protocol) if protocol.as_str().eq_ignore_ascii_case("websocket") => {
                    let key = STANDARD.encode(random::bytes::<16>());
                    (WEBSOCKET, Speech::Http2 { key })
                }
                Some(_) => {
                    let detail = "of protocols in HTTP/2, only `websocket` is known here";
                    return Err(Problem::new(Reason::Unsupported, detail));
                }
                None => return Err(Problem::new(Reason::Unsupported, hygiene::NO_TUNNELS)),
            }
        }
        _ => return Ok(None),
    };
    if request.body().size_hint().exact() != Some(0) {
        let detail = "an upgrade with a body could be read as a call";
        return Err(Problem::new(Reason::Malformed, detail));
    }
    Ok(Some(Wish { protocol, speech, agent: upgrade::on(request) }))
}

/// The one protocol that `Upgrade` offers and that is no version of HTTP.
fn offered(headers: &HeaderMap) -> Option<HeaderValue> {
    let tokens = |name| {
        let values = headers.get_all(name).into_iter();
        values.flat_map(|value: &HeaderValue| value.as_bytes().split(|byte| *byte == b','))
    };
    let is_meant =
        tokens(header::CONNECTION).any(|t| t.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
    let mut offers = tokens(header::UPGRADE).map(<[u8]>::trim_ascii).filter(|token| {
        let token = token.to_ascii_lowercase();
        !token.is_empty()
            && token != b"h2c"
            && token != b"h2"
            && !token.starts_with(b"http/")
            && !token.starts_with(b"tls/")
    });
    let first = offers.next().filter(|_| is_meant)?;
    if offers.next().is_some() { None } else { HeaderValue::from_bytes(first).ok() }
}

impl Wish {
    /// Makes a head that is otherwise ready one that asks a service of HTTP/1.1 for it.
    pub(crate) fn ask(&self, method: &mut Method, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.remove(header::TE);
        headers.insert(header::UPGRADE, self.protocol.clone());
        if let Speech::Http2 { key } = &self.speech {
            *method = Method::GET;
            headers.remove(ACCEPT);
            if let Ok(key) = HeaderValue::from_str(key) {
                headers.insert(KEY, key);
            }
        }
    }

    /// Did the service agree to just this, in `answer` with status 101? Makes that one for the
    /// agent, and says when the agent has it.
    pub(crate) fn granted(self, answer: &mut response::Parts) -> Result<OnUpgrade, Problem> {
        let mut named = answer.headers.get_all(header::UPGRADE).iter();
        let is_it = match (named.next(), named.next()) {
            (Some(one), None) => one.as_bytes().eq_ignore_ascii_case(self.protocol.as_bytes()),
            (_, Some(_)) | (None, None) => false,
        };
        let broken = |detail| Err(Problem::new(Reason::BrokenAnswer, detail));
        if !is_it {
            return broken("the service switches to another protocol than it was asked for");
        }
        answer.headers.remove(header::CONTENT_LENGTH);
        hygiene::for_agent(&mut answer.headers);
        match &self.speech {
            Speech::Http1 => {
                answer.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
                answer.headers.insert(header::UPGRADE, self.protocol);
            }
            Speech::Http2 { key } => {
                let accept = answer.headers.remove(ACCEPT);
                if accept.is_none_or(|accept| accept.as_bytes() != accepting(key).as_bytes()) {
                    return broken("the service agrees to a WebSocket that nobody asked for");
                }
                answer.status = StatusCode::OK;
            }
        }
        Ok(self.agent)
    }
}

/// What agrees to `key` (RFC 6455, 4.2.2).
fn accepting(key: &str) -> String {
    let text = [key, GUID].concat();
    STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http_body_util::{Empty, Full};

    fn request(fields: &[(&'static str, &'static str)]) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        for (name, value) in fields {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        request
    }

    fn wished(fields: &[(&'static str, &'static str)]) -> Option<String> {
        let wish = wish(&mut request(fields)).unwrap()?;
        Some(wish.protocol.to_str().unwrap().to_owned())
    }

    #[test]
    fn an_upgrade_counts_where_the_connection_names_it() {
        let meant = ("connection", "keep-alive, Upgrade");
        assert_eq!(wished(&[meant, ("upgrade", "WebSocket")]).as_deref(), Some("WebSocket"));
        assert_eq!(wished(&[("upgrade", "websocket")]), None);
        assert_eq!(wished(&[meant]), None);
        // Java's client offers it with every call.
        assert_eq!(wished(&[meant, ("upgrade", "h2c")]), None);
        assert_eq!(wished(&[meant, ("upgrade", "TLS/1.2, HTTP/2.0")]), None);
        assert_eq!(wished(&[meant, ("upgrade", "websocket, spdy/3.1")]), None);
    }

    #[test]
    fn an_upgrade_with_a_body_is_refused() {
        let mut request = request(&[("connection", "upgrade"), ("upgrade", "websocket")])
            .map(|_| Full::new(Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n")));
        assert_eq!(wish(&mut request).err().unwrap().reason, Reason::Malformed);
    }

    #[test]
    fn only_what_was_asked_for_is_granted() {
        let granted = |fields: &[(&'static str, &'static str)]| {
            let mut asked = request(&[("connection", "upgrade"), ("upgrade", "websocket")]);
            let (mut parts, ()) = response::Response::new(()).into_parts();
            parts.headers = request(fields).headers().clone();
            let wish = wish(&mut asked).unwrap().unwrap();
            wish.granted(&mut parts).map(|_| parts.headers).ok()
        };
        let head = granted(&[("upgrade", "WebSocket"), ("sec-websocket-accept", "x")]).unwrap();
        assert_eq!(head["upgrade"], "websocket");
        assert_eq!(head["sec-websocket-accept"], "x");
        assert!(granted(&[("upgrade", "h2c")]).is_none());
        assert!(granted(&[]).is_none());
    }

    #[test]
    fn a_key_is_accepted_as_the_standard_says() {
        // The example of RFC 6455, 1.3.
        assert_eq!(accepting("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
