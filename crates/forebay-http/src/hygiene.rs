//! What may pass from one side to the other.
//!
//! Nothing is forwarded that was not parsed: heads are rebuilt from their parts, bodies are
//! framed anew. Here is what hyper's parser lets through and a gateway must not, and which
//! fields belong to one connection and stay there (RFC 9110, 7.6.1).

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri, Version};

use crate::problem::{Problem, Reason};

/// Fields that mean one connection, whether `Connection` names them or not. `Expect` is
/// among them, since it was answered here: a body is asked for once there is a connection
/// to take it.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::EXPECT,
];

/// Prefix of the fields that agents say to Forebay alone.
const OURS: &str = "x-forebay-";

/// Refuses what has more than one reading, and ways of calling that we do not offer.
pub(crate) fn screen<B>(request: &Request<B>) -> Result<(), Problem> {
    let (method, uri, headers) = (request.method(), request.uri(), request.headers());
    let malformed = |detail: &str| Err(Problem::new(Reason::Malformed, detail));
    if method == Method::CONNECT || uri.authority().is_some() {
        return Err(Problem::new(
            Reason::Unsupported,
            "Forebay is no forward proxy: call `http://HOST:PORT/DESTINATION/…` as the base URL",
        ));
    }
    if headers.contains_key(header::UPGRADE) {
        let detail = "connections cannot be upgraded (WebSocket) through Forebay yet";
        return Err(Problem::new(Reason::Unsupported, detail));
    }
    if headers.get_all(header::HOST).iter().count() > 1 {
        return malformed("more than one `Host`");
    }
    if request.version() == Version::HTTP_11 && !headers.contains_key(header::HOST) {
        return malformed("no `Host`");
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if headers.contains_key(header::CONTENT_LENGTH) {
            return malformed("both `Content-Length` and `Transfer-Encoding`");
        }
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return malformed("a `Transfer-Encoding` other than `chunked`");
        }
    }
    Ok(())
}

/// Where the body of a call ends, as the service is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// By what the agent said: a length, or nothing at all.
    AsSaid,
    /// In chunks, since its length is not known.
    Chunked,
}

/// Makes an agent's head one for the service at `authority`. The credential comes later, so
/// that nothing here can take it away or double it.
pub(crate) fn for_service(
    headers: &mut HeaderMap,
    uri: &mut Uri,
    target: Uri,
    authority: &HeaderValue,
    framing: Framing,
) {
    strip_hop_by_hop(headers);
    headers.remove(header::TRANSFER_ENCODING);
    let ours: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(OURS)).cloned().collect();
    for name in ours {
        headers.remove(name);
    }
    headers.insert(header::HOST, authority.clone());
    if framing == Framing::Chunked {
        // Said outright, because hyper takes a GET without a length for one without a body.
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    *uri = target;
}

/// Makes a service's head one for the agent. A length stays, except beside a transfer
/// coding, which overrules it.
pub(crate) fn for_agent(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    if headers.remove(header::TRANSFER_ENCODING).is_some() {
        headers.remove(header::CONTENT_LENGTH);
    }
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        // These two are framing, not ours to drop on request.
        .filter(|name| *name != header::CONTENT_LENGTH && *name != header::TRANSFER_ENCODING)
        .collect();
    for name in nominated.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::new(());
        for (name, value) in fields {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        request
    }

    fn refused(request: &Request<()>) -> Reason {
        screen(request).unwrap_err().reason
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        let host = ("host", "localhost");
        assert_eq!(refused(&request(&[])), Reason::Malformed);
        assert_eq!(refused(&request(&[host, host])), Reason::Malformed);
        let chunked = ("transfer-encoding", "chunked");
        assert_eq!(refused(&request(&[host, chunked, ("content-length", "3")])), Reason::Malformed);
        assert_eq!(refused(&request(&[host, chunked, chunked])), Reason::Malformed);
        let gzip = ("transfer-encoding", "gzip, chunked");
        assert_eq!(refused(&request(&[host, gzip])), Reason::Malformed);
        assert!(screen(&request(&[host, chunked])).is_ok());
    }

    #[test]
    fn upgrades_and_forward_proxying_are_refused() {
        let upgrade = request(&[("host", "localhost"), ("upgrade", "websocket")]);
        assert_eq!(refused(&upgrade), Reason::Unsupported);
        let absolute = Request::get("http://api.test/x").header("host", "api.test").body(());
        assert_eq!(refused(&absolute.unwrap()), Reason::Unsupported);
        let connect = Request::connect("api.test:443").header("host", "api.test").body(());
        assert_eq!(refused(&connect.unwrap()), Reason::Unsupported);
    }

    #[test]
    fn fields_of_one_connection_stay_there() {
        let mut fields = request(&[
            ("connection", "close, X-Hop"),
            ("connection", "x-second"),
            ("x-hop", "1"),
            ("x-second", "2"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("proxy-authorization", "Basic secret"),
            ("expect", "100-continue"),
            ("x-forebay-key", "secret"),
            ("x-forebay-feature", "search"),
            ("transfer-encoding", "chunked"),
            ("host", "127.0.0.1:6480"),
            ("x-stays", "3"),
        ]);
        let authority = HeaderValue::from_static("api.test");
        let target = Uri::from_static("/v1");
        let mut uri = Uri::from_static("/llm");
        for_service(fields.headers_mut(), &mut uri, target, &authority, Framing::AsSaid);
        let mut left: Vec<_> = fields.headers().keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["host", "x-stays"]);
        assert_eq!(fields.headers()["host"], "api.test");
        assert_eq!(uri, "/v1");
    }

    #[test]
    fn an_answers_length_stays_unless_a_transfer_coding_overrules_it() {
        let mut plain = request(&[("content-length", "3"), ("connection", "content-length")]);
        for_agent(plain.headers_mut());
        assert_eq!(plain.headers()["content-length"], "3");
        let mut both = request(&[("content-length", "3"), ("transfer-encoding", "chunked")]);
        for_agent(both.headers_mut());
        assert!(both.headers().is_empty());
    }
}
