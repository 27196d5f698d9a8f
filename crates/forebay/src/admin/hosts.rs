//! Which names the admin server may be called by.
//!
//! It asks nobody who they are, so a web page must not be able to read it through the
//! browser of somebody who can reach it. A page can point its own name at our address (DNS
//! rebinding), but it cannot make the browser say another name: IP addresses, `localhost`
//! and the configured names are good, every other name is refused. What a browser sends for
//! a page of another origin is refused as well.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// The names that are good, in lower case.
pub(super) struct Hosts(Vec<String>);

impl Hosts {
    pub(super) fn new(configured: &[String]) -> Self {
        Self(configured.iter().map(|name| name.trim_end_matches('.').to_lowercase()).collect())
    }

    /// Is `host`, without its port, good?
    fn know(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_lowercase();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        address.is_ok()
            || host == "localhost"
            || host.ends_with(".localhost")
            || self.0.contains(&host)
    }

    /// May a call with these headers be answered? `origin` is what a browser says of the
    /// page that calls. No host is HTTP/1.0, which no browser speaks.
    fn admit(&self, host: Option<&str>, origin: Option<&str>) -> Result<(), &'static str> {
        let authority = match host {
            Some(host) => {
                let authority: Authority =
                    host.parse().map_err(|_| "the Host header is malformed")?;
                if !self.know(authority.host()) {
                    return Err("this name may not be used here; add it to `admin.hosts`");
                }
                Some(host)
            }
            None => None,
        };
        let page = origin.map(|origin| origin.split_once("://").map(|(_, page)| page));
        match page {
            None => Ok(()),
            Some(page) if page.is_some() && page == authority => Ok(()),
            Some(_) => Err("pages of other origins may not call this"),
        }
    }
}

/// Answers 403 for what [`Hosts`] does not admit.
pub(super) async fn guard(State(hosts): State<Arc<Hosts>>, call: Request, next: Next) -> Response {
    match admit(&hosts, &call) {
        Ok(()) => next.run(call).await,
        Err(reason) => (StatusCode::FORBIDDEN, format!("{reason}\n")).into_response(),
    }
}

fn admit(hosts: &Hosts, call: &Request) -> Result<(), &'static str> {
    let text = |name| call.headers().get(name).map(|value| value.to_str().unwrap_or_default());
    // An absolute target counts before the header (RFC 9112, 3.2.2).
    let target = call.uri().authority().map(|authority| authority.as_str());
    hosts.admit(target.or_else(|| text(header::HOST)), text(header::ORIGIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(host: &str, origin: Option<&str>) -> bool {
        Hosts::new(&["Forebay.internal".to_owned()]).admit(Some(host), origin).is_ok()
    }

    #[test]
    fn addresses_localhost_and_configured_names_are_good() {
        for host in ["127.0.0.1:6490", "[::1]:6490", "10.0.0.7", "LOCALHOST:1", "forebay.internal"]
        {
            assert!(admit(host, None), "{host}");
        }
        assert!(Hosts::new(&[]).admit(None, None).is_ok(), "HTTP/1.0");
    }

    #[test]
    fn a_name_that_a_page_could_have_pointed_here_is_refused() {
        for host in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:6490", "", "a b"]
        {
            assert!(!admit(host, None), "{host}");
        }
    }

    #[test]
    fn a_page_of_another_origin_is_refused() {
        assert!(admit("127.0.0.1:6490", Some("http://127.0.0.1:6490")));
        for origin in ["http://evil.example", "http://127.0.0.1:3000", "null", ""] {
            assert!(!admit("127.0.0.1:6490", Some(origin)), "{origin}");
        }
    }
}
