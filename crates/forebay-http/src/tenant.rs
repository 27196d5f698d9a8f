//! Who is calling, and whether they may.
//!
//! Keys are kept as keyed digests and looked up by digest: comparing takes the same time
//! whatever is right about a wrong key. Always true: a key that opens Forebay is not
//! forwarded to anyone, whichever field it came in.
//!
//! Without tenants everybody who reaches the port may call, so web pages are kept out:
//! a browser would otherwise carry any page's calls here (cross-site requests, DNS
//! rebinding), to be paid with the operator's credentials.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use aws_lc_rs::hmac;
use forebay_seam::random;
use forebay_seam::secret::{ExposeSecret, SecretError};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::problem::{Problem, Reason};
use crate::settings::TenantSettings;

const KEY: HeaderName = HeaderName::from_static("x-forebay-key");
/// The tenant of everybody, where none is configured.
const DEFAULT: &str = "default";

type Digest = [u8; 32];

/// Everybody who may call.
pub(crate) struct Tenants {
    key: hmac::Key,
    by_digest: HashMap<Digest, Arc<str>>,
    everybody: Option<Arc<str>>,
}

/// What became of the agent's `Authorization`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Authorization {
    /// There is none, or it is the agent's own and means the service.
    Agents,
    /// It is a key for Forebay: it stays here.
    Ours,
}

/// Who calls.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) tenant: Arc<str>,
    pub(crate) authorization: Authorization,
}

/// Where a call came in.
pub(crate) struct Door<'c> {
    /// Our end of its connection; nothing for a Unix socket.
    pub(crate) local: Option<SocketAddr>,
    pub(crate) host: Host<'c>,
}

/// Whom a call names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Host<'c> {
    /// Nobody.
    None,
    /// A destination, by a host name that is configured for it.
    Configured,
    /// This host.
    Other(&'c str),
}

impl Tenants {
    /// Reads the keys. An error names the tenant.
    pub(crate) fn new(
        settings: &BTreeMap<String, TenantSettings>,
    ) -> Result<Self, (String, TenantError)> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &random::bytes::<32>());
        let everybody = settings.is_empty().then(|| DEFAULT.into());
        let mut tenants = Self { key, by_digest: HashMap::new(), everybody };
        for (name, tenant) in settings {
            let at = |error| (name.clone(), error);
            let secret = tenant.key.read().map_err(|error| at(error.into()))?;
            let digest = tenants.digest(secret.expose_secret().as_bytes());
            if let Some(other) = tenants.by_digest.insert(digest, name.as_str().into()) {
                return Err(at(TenantError::SameKey(other.to_string())));
            }
        }
        Ok(tenants)
    }

    /// The tenant of those who need no key.
    pub(crate) fn everybody(&self) -> Option<&Arc<str>> {
        self.everybody.as_ref()
    }

    /// Says who calls with `headers` through `door`.
    pub(crate) fn admit(&self, headers: &HeaderMap, door: &Door<'_>) -> Result<Caller, Problem> {
        if let Some(everybody) = &self.everybody {
            keep_web_pages_out(headers, door.local, door.host)?;
            let tenant = Arc::clone(everybody);
            return Ok(Caller { tenant, authorization: Authorization::Agents });
        }
        let mut bearers = headers.get_all(header::AUTHORIZATION).iter().filter_map(bearer);
        let by_bearer = bearers.find_map(|key| self.lookup(key));
        let authorization = match by_bearer {
            Some(_) => Authorization::Ours,
            None => Authorization::Agents,
        };
        let tenant = match headers.get(&KEY) {
            Some(key) => self.lookup(key.as_bytes()),
            None => by_bearer,
        };
        tenant.map(|tenant| Caller { tenant: Arc::clone(tenant), authorization }).ok_or_else(|| {
            let detail = "send the tenant's key as `x-forebay-key: KEY` or \
                          `Authorization: Bearer KEY`";
            Problem::new(Reason::Unauthorized, detail)
        })
    }

    fn lookup(&self, key: &[u8]) -> Option<&Arc<str>> {
        self.by_digest.get(&self.digest(key))
    }

    fn digest(&self, key: &[u8]) -> Digest {
        let mut digest = Digest::default();
        let tag = hmac::sign(&self.key, key);
        for (to, from) in digest.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        digest
    }
}

/// Why a tenant cannot be known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TenantError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the key is also the key of tenant `{0}`: each needs its own")]
    SameKey(String),
}

/// The token of `Bearer TOKEN` (RFC 6750, 2.1).
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

fn keep_web_pages_out(
    headers: &HeaderMap,
    local: Option<SocketAddr>,
    host: Host<'_>,
) -> Result<(), Problem> {
    if headers.contains_key(header::ORIGIN) {
        let detail = "a web page calls (`Origin` is set): configure tenants, and give it a key";
        return Err(Problem::new(Reason::ForeignOrigin, detail));
    }
    // No web page reaches a Unix socket.
    if !local.is_some_and(|local| local.ip().is_loopback()) {
        return Ok(());
    }
    match host {
        Host::Other(name) if !is_loopback_name(name) => {
            let detail = "on a loopback address `Host` must be `localhost`, a loopback address or \
                          one of a destination's `hosts`; for other names configure tenants";
            Err(Problem::new(Reason::Misdirected, detail))
        }
        Host::Other(_) | Host::Configured | Host::None => Ok(()),
    }
}

/// `localhost`, `127.0.0.1:6480`, `[::1]`, …
fn is_loopback_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_seam::secret::SecretRef;

    fn tenants(keys: &[(&str, &str)]) -> Tenants {
        let settings = keys
            .iter()
            .map(|(name, key)| ((*name).into(), TenantSettings { key: SecretRef::new(*key) }))
            .collect();
        Tenants::new(&settings).map_err(|(_, error)| error).unwrap()
    }

    fn admit(tenants: &Tenants, fields: &[(&'static str, &str)]) -> Result<Caller, Problem> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(*name, value.parse().unwrap());
        }
        tenants.admit(&headers, &loopback(&headers))
    }

    fn loopback(headers: &HeaderMap) -> Door<'_> {
        let host = headers.get("host").map(|host| Host::Other(host.to_str().unwrap()));
        let local = Some(SocketAddr::from(([127, 0, 0, 1], 6480)));
        Door { local, host: host.unwrap_or(Host::None) }
    }

    #[test]
    fn a_key_names_its_tenant_in_either_field() {
        let tenants = tenants(&[("acme", "key-a"), ("zeta", "key-z")]);
        let by_own = admit(&tenants, &[("x-forebay-key", "key-z")]).unwrap();
        assert_eq!((&*by_own.tenant, by_own.authorization), ("zeta", Authorization::Agents));
        let by_bearer = admit(&tenants, &[("authorization", "bearer key-a")]).unwrap();
        assert_eq!((&*by_bearer.tenant, by_bearer.authorization), ("acme", Authorization::Ours));
    }

    #[test]
    fn a_wrong_or_missing_key_is_refused() {
        let tenants = tenants(&[("acme", "key-a")]);
        let cases: [&[(&'static str, &str)]; 5] = [
            &[],
            &[("x-forebay-key", "key-b")],
            &[("x-forebay-key", "key-b"), ("authorization", "Bearer key-a")],
            &[("authorization", "Basic key-a")],
            &[("authorization", "é")],
        ];
        for fields in cases {
            assert_eq!(admit(&tenants, fields).unwrap_err().reason, Reason::Unauthorized);
        }
    }

    #[test]
    fn another_tenants_key_in_authorization_is_recognised_and_stays_here() {
        let tenants = tenants(&[("acme", "key-a"), ("zeta", "key-z")]);
        let fields = [("x-forebay-key", "key-a"), ("authorization", "Bearer key-z")];
        let caller = admit(&tenants, &fields).unwrap();
        assert_eq!((&*caller.tenant, caller.authorization), ("acme", Authorization::Ours));
    }

    #[test]
    fn a_key_behind_another_credential_stays_here_too() {
        let tenants = tenants(&[("acme", "key-a")]);
        let mut headers = HeaderMap::new();
        headers.append("authorization", HeaderValue::from_static("Bearer mine"));
        headers.append("authorization", HeaderValue::from_static("Bearer key-a"));
        let caller = tenants.admit(&headers, &loopback(&headers)).unwrap();
        assert_eq!(caller.authorization, Authorization::Ours);
    }

    #[test]
    fn without_tenants_everybody_may_call_but_web_pages() {
        let nobody = tenants(&[]);
        assert_eq!(&*admit(&nobody, &[("host", "localhost:6480")]).unwrap().tenant, "default");
        assert!(admit(&nobody, &[("host", "[::1]:6480")]).is_ok());
        let page = admit(&nobody, &[("host", "localhost"), ("origin", "https://evil.test")]);
        assert_eq!(page.unwrap_err().reason, Reason::ForeignOrigin);
        let rebound = admit(&nobody, &[("host", "evil.test:6480")]);
        assert_eq!(rebound.unwrap_err().reason, Reason::Misdirected);
    }

    #[test]
    fn two_tenants_with_one_key_are_an_error() {
        let key = || TenantSettings { key: SecretRef::new("same") };
        let settings = BTreeMap::from([("acme".into(), key()), ("zeta".into(), key())]);
        let Err((tenant, error)) = Tenants::new(&settings) else { panic!("an error") };
        assert_eq!(tenant, "zeta");
        assert!(error.to_string().contains("acme") && !error.to_string().contains("same\""));
    }
}
