//! What may pass from one side to the other.
//!
//! Nothing is forwarded that was not parsed: heads are rebuilt from their parts, bodies are
//! framed anew. Here is what hyper's parser lets through and a gateway must not, and which
//! fields belong to one connection and stay there (RFC 9110, 7.6.1).

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri, Version};

use crate::agent::HEAD_FIELDS;
use crate::doorstep::Clarity;
use crate::problem::{Problem, Reason};

/// Fields that mean one connection, whether `Connection` names them or not. `Expect` is
/// among them, since it was answered here: a body is asked for once there is a connection
/// to take it. `Trailer` is not: trailers pass.
static HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::UPGRADE,
    header::EXPECT,
];

/// Fields that say something of a message which must be known before its end (RFC 9110,
/// 6.5.1), so they have no business behind it.
static NO_TRAILERS: [HeaderName; 18] = [
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::HOST,
    header::LOCATION,
    header::MAX_FORWARDS,
    header::RANGE,
    header::RETRY_AFTER,
    header::SET_COOKIE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::VARY,
    header::WWW_AUTHENTICATE,
    HeaderName::from_static("forwarded"),
];

/// Prefix of the fields that agents say to Forebay alone.
const OURS: &str = "x-forebay-";

/// Refuses what has more than one reading, and ways of calling that we do not offer.
pub(crate) fn screen<B>(request: &Request<B>, clarity: Clarity) -> Result<(), Problem> {
    let (uri, headers) = (request.uri(), request.headers());
    let malformed = |detail: &str| Err(Problem::new(Reason::Malformed, detail));
    if clarity == Clarity::Doubtful {
        return malformed(
            "where the request ends could be read in two ways (lengths, `Transfer-Encoding`, \
             line ends)",
        );
    }
    if headers.len() > HEAD_FIELDS {
        let detail = format!("at most {HEAD_FIELDS} header fields are read");
        return Err(Problem::new(Reason::HeadTooLarge, detail));
    }
    if request.method() == Method::CONNECT && request.version() != Version::HTTP_2 {
        return Err(Problem::new(Reason::Unsupported, NO_TUNNELS));
    }
    if let Some(authority) = uri.authority() {
        if authority.as_str().contains('@') {
            return malformed("a host with user and password");
        }
        if !matches!(uri.scheme_str(), None | Some("http" | "https")) {
            return malformed("a scheme other than `http` and `https`");
        }
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    match (uri.authority(), hosts.next(), hosts.next()) {
        (_, _, Some(_)) => return malformed("more than one `Host`"),
        (Some(authority), Some(host), None) => {
            // Two hosts are two destinations, perhaps (RFC 9113, 8.3.1; RFC 9112, 3.2.2).
            if !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) {
                return malformed("`Host` is another one than that of the target");
            }
        }
        (None, None, None) if request.version() != Version::HTTP_10 => {
            return malformed("no `Host`");
        }
        (Some(_), None, None) | (None, _, None) => {}
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if request.version() != Version::HTTP_11 {
            return malformed("only HTTP/1.1 knows `Transfer-Encoding`");
        }
        if headers.contains_key(header::CONTENT_LENGTH) {
            return malformed("both `Content-Length` and `Transfer-Encoding`");
        }
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return malformed("a `Transfer-Encoding` other than `chunked`");
        }
    }
    Ok(())
}

/// What is said to who wants a tunnel.
pub(crate) const NO_TUNNELS: &str = "Forebay opens no tunnels to hosts: call \
                                     `http://HOST:PORT/DESTINATION/…` as the base URL";

/// The host that a call names, and the port if it names one: of its target where that has
/// one, else of `Host`.
pub(crate) fn authority<B>(request: &Request<B>) -> Option<&str> {
    let of_target = request.uri().authority().map(|authority| authority.as_str());
    of_target.or_else(|| request.headers().get(header::HOST)?.to_str().ok())
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
    let takes_trailers = takes_trailers(headers);
    strip(headers, |name| {
        is_hop_by_hop(name) || *name == header::TRANSFER_ENCODING || is_ours(name)
    });
    headers.insert(header::HOST, authority.clone());
    if framing == Framing::Chunked {
        // Said outright, because hyper takes a GET without a length for one without a body.
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if takes_trailers {
        // Said anew for the next hop: trailers pass here (RFC 9110, 10.1.4).
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    *uri = target;
}

fn takes_trailers(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::TE).iter();
    let mut codings = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Makes trailers ones that may pass, in either direction.
pub(crate) fn trailers(fields: &mut HeaderMap) {
    strip(fields, |name| is_hop_by_hop(name) || NO_TRAILERS.contains(name) || is_ours(name));
}

/// Makes a service's head one for the agent. A length stays, except beside a transfer
/// coding, which overrules it.
pub(crate) fn for_agent(headers: &mut HeaderMap) {
    strip(headers, is_hop_by_hop);
    if headers.remove(header::TRANSFER_ENCODING).is_some() {
        headers.remove(header::CONTENT_LENGTH);
    }
}

fn is_ours(name: &HeaderName) -> bool {
    name.as_str().starts_with(OURS)
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(name)
}

/// Takes out what `Connection` names, and the fields whose names are `out`. Looks at each that
/// is there once, which most often are few: a field that is taken out has to be found first.
fn strip(headers: &mut HeaderMap, out: impl Fn(&HeaderName) -> bool) {
    let mut connection = headers.get_all(header::CONNECTION).iter().peekable();
    let nominated: Vec<HeaderName> = match connection.peek() {
        None => Vec::new(),
        Some(_) => connection
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            // These two are framing, not ours to drop on request.
            .filter(|name| *name != header::CONTENT_LENGTH && *name != header::TRANSFER_ENCODING)
            .collect(),
    };
    let found = headers.keys().filter(|name| out(name)).cloned();
    for name in found.collect::<Vec<_>>().iter().chain(&nominated) {
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
        screen(request, Clarity::Clear).unwrap_err().reason
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
        assert!(screen(&request(&[host, chunked]), Clarity::Clear).is_ok());
        assert!(screen(&request(&[host]), Clarity::Doubtful).is_err());
    }

    #[test]
    fn a_call_names_one_host() {
        let absolute = |uri, host| Request::get(uri).header("host", host).body(()).unwrap();
        assert!(screen(&absolute("http://api.test/x", "API.test"), Clarity::Clear).is_ok());
        assert_eq!(refused(&absolute("http://api.test/x", "b.test")), Reason::Malformed);
        assert_eq!(refused(&absolute("http://u@api.test/x", "u@api.test")), Reason::Malformed);
        assert_eq!(refused(&absolute("ftp://api.test/x", "api.test")), Reason::Malformed);
        let connect = Request::connect("api.test:443").header("host", "api.test:443").body(());
        assert_eq!(refused(&connect.unwrap()), Reason::Unsupported);
        assert_eq!(authority(&absolute("http://api.test:1/x", "api.test:1")), Some("api.test:1"));
        assert_eq!(authority(&request(&[("host", "b.test")])), Some("b.test"));
    }

    #[test]
    fn trailers_say_nothing_that_belongs_into_a_head() {
        let mut fields = request(&[
            ("grpc-status", "0"),
            ("content-length", "3"),
            ("authorization", "Bearer x"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("x-forebay-class", "core"),
        ]);
        trailers(fields.headers_mut());
        assert_eq!(fields.headers().len(), 1);
        assert_eq!(fields.headers()["grpc-status"], "0");
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
        assert_eq!(left, ["connection", "host", "te", "x-stays"]);
        assert_eq!(
            (&fields.headers()["te"], &fields.headers()["connection"]),
            (&HeaderValue::from_static("trailers"), &HeaderValue::from_static("te"),)
        );
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
