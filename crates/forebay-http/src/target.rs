//! Where a destination is, and how an agent's path becomes one there.
//!
//! Knows no sockets. Always true: the scheme, the host and the base path come from the
//! configuration alone; nothing in a call can change or leave them.

use std::sync::Arc;

use http::uri::{InvalidUri, PathAndQuery, Uri};
use http::{HeaderValue, header::InvalidHeaderValue};
use rustls::pki_types::ServerName;

use crate::connection::Addressee;

/// How the bytes travel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// `http://`
    Plain,
    /// `https://`, to a server that proves to have this name.
    Tls(ServerName<'static>),
}

/// A configured URL, taken apart.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) scheme: Scheme,
    /// A name or an address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// What stands in `Host`.
    pub(crate) authority: HeaderValue,
    /// The base path, without a slash at its end.
    base: String,
    addressee: Arc<Addressee>,
}

/// Why a URL is no target.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum TargetError {
    #[error("`{0}` is no URL: write `https://host[:port][/base]`")]
    NotAUrl(String),
    #[error("the scheme must be `https` or `http`, not `{0}`")]
    Scheme(String),
    #[error("a URL with user and password shows the secret: use `auth` instead")]
    UserInfo,
    #[error("the URL must have no query and no fragment: agents add theirs")]
    Query,
    #[error("`{0}` is neither a host name nor an address")]
    Host(String),
}

/// Why an agent's path is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum PathError {
    #[error(
        "the path contains `.` or `..` segments, which could leave the destination's base path"
    )]
    DotSegment,
    #[error("the path is no valid request target")]
    Malformed,
}

impl Target {
    /// Takes `url` apart.
    pub(crate) fn parse(url: &str) -> Result<Self, TargetError> {
        let no_url = || TargetError::NotAUrl(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| no_url())?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(no_url());
        };
        if authority.as_str().contains('@') {
            return Err(TargetError::UserInfo);
        }
        if uri.query().is_some() || url.contains('#') {
            return Err(TargetError::Query);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let bad_host = || TargetError::Host(host.clone());
        let name = ServerName::try_from(host.clone()).map_err(|_| bad_host())?;
        let (scheme, default_port) = match scheme {
            "https" => (Scheme::Tls(name), 443),
            "http" => (Scheme::Plain, 80),
            other => return Err(TargetError::Scheme(other.to_owned())),
        };
        let port = match authority.port() {
            Some(port) => port.as_str().parse().map_err(|_| no_url())?,
            None if authority.as_str().ends_with(':') => return Err(no_url()),
            None => default_port,
        };
        let shown = if port == default_port {
            authority.host().to_owned()
        } else {
            format!("{}:{port}", authority.host())
        };
        let named = shown.parse().map_err(|_: InvalidUri| bad_host())?;
        let authority: HeaderValue = shown.parse().map_err(|_: InvalidHeaderValue| bad_host())?;
        let base = uri.path().trim_end_matches('/').to_owned();
        let written = match scheme {
            Scheme::Plain => http::uri::Scheme::HTTP,
            Scheme::Tls(_) => http::uri::Scheme::HTTPS,
        };
        let addressee = Arc::new(Addressee::new(written, named, authority.clone()));
        Ok(Self { scheme, host, port, authority, base, addressee })
    }

    /// The request target at the destination of `rest`, what stands behind the destination's
    /// name in the agent's path (empty, or beginning with a slash), and `query`.
    pub(crate) fn join(&self, rest: &str, query: Option<&str>) -> Result<Uri, PathError> {
        if rest.split('/').any(is_dot_segment) {
            return Err(PathError::DotSegment);
        }
        let path = match (self.base.as_str(), rest) {
            ("", "") => "/",
            (base, "") => base,
            ("", rest) => rest,
            (base, rest) => &[base, rest].concat(),
        };
        let joined: PathAndQuery = match query {
            Some(query) => format!("{path}?{query}").try_into(),
            None => path.try_into(),
        }
        .map_err(|_| PathError::Malformed)?;
        Ok(Uri::from(joined))
    }

    /// Whom calls are addressed to.
    pub(crate) fn addressee(&self) -> Arc<Addressee> {
        Arc::clone(&self.addressee)
    }

    /// Whether the other end is this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

/// `.` and `..`, also written as `%2e` (RFC 3986, 6.2.2.3: they would be taken out), and
/// behind a backslash, which some servers take for a slash, or before a semicolon, which
/// others take off with what follows.
fn is_dot_segment(segment: &str) -> bool {
    // Nothing else begins or ends one, and most segments have none of these.
    if !segment.bytes().any(|byte| matches!(byte, b'.' | b'%')) {
        return false;
    }
    let plain = segment.to_ascii_lowercase().replace("%2e", ".").replace("%5c", "\\");
    let plain = plain.replace("%2f", "\\").replace("%3b", ";");
    plain.split('\\').any(|part| {
        let name = part.split(';').next().unwrap_or_default();
        name == "." || name == ".."
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn joined(url: &str, rest: &str, query: Option<&str>) -> String {
        Target::parse(url).unwrap().join(rest, query).unwrap().to_string()
    }

    #[test]
    fn the_agents_path_is_joined_to_the_base_path() {
        assert_eq!(joined("https://api.test/v1", "/chat", None), "/v1/chat");
        assert_eq!(joined("https://api.test/v1/", "/chat", Some("a=b?c")), "/v1/chat?a=b?c");
        assert_eq!(joined("https://api.test", "", None), "/");
        assert_eq!(joined("https://api.test/v1", "", None), "/v1");
        assert_eq!(joined("https://api.test/v1", "/", None), "/v1/");
        assert_eq!(joined("https://api.test", "/a%20b//c", None), "/a%20b//c");
        assert_eq!(joined("https://api.test", "//evil.test/", None), "//evil.test/");
    }

    #[test]
    fn no_path_leaves_the_base_path() {
        let target = Target::parse("https://api.test/v1").unwrap();
        for bad in [
            "/../admin",
            "/a/%2E%2e/b",
            "/.",
            "/a/.%2e",
            "/..%2fadmin",
            "/a/..%5cb",
            "/..\\",
            "/..;/manager/html",
            "/a/%2e.;x=1/b",
            "/..%3B/admin",
            "/a/.;/..%3bx",
            "/..;%2fadmin",
        ] {
            assert_eq!(target.join(bad, None).unwrap_err(), PathError::DotSegment, "{bad}");
        }
        for good in ["/..a/b..", "/a;v=1.0/b;..", "/a..;x"] {
            assert!(target.join(good, None).is_ok(), "{good}");
        }
    }

    proptest! {
        #[test]
        fn whatever_path_an_agent_thinks_up_stays_below_the_base_path(
            rest in "(/[a-z.;%2eE5fFcC3bB\\\\]{0,6}){0,5}", query in proptest::option::of("[ -~]{0,9}"),
        ) {
            let target = Target::parse("https://api.test/v1").unwrap();
            if let Ok(joined) = target.join(&rest, query.as_deref()) {
                prop_assert!(joined.path().starts_with("/v1"));
                prop_assert!(joined.authority().is_none() && joined.scheme().is_none());
                let plain = joined.path().to_lowercase().replace("%2e", ".").replace("%3b", ";");
                let mut names = plain.split('/').filter_map(|segment| segment.split(';').next());
                prop_assert!(!names.any(|name| name == "." || name == ".."), "{}", joined);
            }
        }
    }

    #[test]
    fn the_default_port_is_left_out_of_host() {
        let authority = |url| Target::parse(url).unwrap().authority;
        assert_eq!(authority("https://api.test:443/"), "api.test");
        assert_eq!(authority("http://api.test:443/"), "api.test:443");
        assert_eq!(authority("https://[::1]:8443"), "[::1]:8443");
        assert_eq!(Target::parse("https://[::1]:8443").unwrap().host, "::1");
    }

    #[test]
    fn what_is_no_target_says_what_would_be() {
        let error = |url| Target::parse(url).unwrap_err();
        assert!(matches!(error("api.test"), TargetError::NotAUrl(_)));
        assert!(matches!(error("/path"), TargetError::NotAUrl(_)));
        assert_eq!(error("ftp://api.test"), TargetError::Scheme("ftp".into()));
        assert_eq!(error("https://u:p@api.test"), TargetError::UserInfo);
        assert_eq!(error("https://api.test?key=1"), TargetError::Query);
        assert!(matches!(error("https://a_b!.test"), TargetError::Host(_)));
    }
}
