//! Who is calling, and whether they may.
//!
//! What proves it is `roll`'s: keys, certificates and users; how an agent came, `arrival`
//! says; who guesses, `throttle` remembers. Always true: the tenant comes from what was
//! proven, never from a field that an agent can write as it likes; a key that opens Forebay
//! is not forwarded to anyone, whichever field it came in.
//!
//! Without tenants everybody who reaches the port may call, so web pages are kept out:
//! a browser would otherwise carry any page's calls here (cross-site requests, DNS
//! rebinding), to be paid with the operator's credentials.

mod arrival;
mod roll;
mod throttle;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use forebay_seam::time;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::problem::{Problem, Reason};
use crate::secrets::{Digest, Digester};
use crate::settings::TenantSettings;
use arrival::From;
use roll::Roll;
use throttle::Throttle;

pub(crate) use arrival::Arrival;
pub(crate) use roll::{RollError, Who, check, problems};

/// The field that is read before all others, and alone if it is there.
const KEY: HeaderName = HeaderName::from_static("x-forebay-key");
/// Fields of other people's services in which SDKs send the key that they were given.
static API_KEYS: [HeaderName; 3] = [
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
];
/// The tenant of everybody, where none is configured.
const DEFAULT: &str = "default";

/// Everybody who may call.
pub(crate) struct Tenants {
    digester: Digester,
    roll: Roll,
    throttle: Throttle,
    everybody: Option<Arc<str>>,
}

/// Who calls, and in which fields the key came that proves it.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) who: Who,
    ours: Ours,
}

/// Which fields carry keys of ours, which stay here (`x-forebay-key` always does).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Ours {
    authorization: bool,
    api_keys: [bool; 3],
}

impl Caller {
    /// The tenant.
    pub(crate) fn tenant(&self) -> &Arc<str> {
        &self.who.tenant
    }

    /// Takes out of `headers` what was said to Forebay alone.
    pub(crate) fn strip(&self, headers: &mut HeaderMap) {
        if self.ours.authorization {
            headers.remove(header::AUTHORIZATION);
        }
        for (name, is_ours) in API_KEYS.iter().zip(self.ours.api_keys) {
            if is_ours {
                headers.remove(name);
            }
        }
    }
}

/// A key that was found in a call.
struct Found {
    who: Who,
    digest: Digest,
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
    /// Reads the keys, and follows them. Inside a runtime.
    pub(crate) fn new(
        settings: &BTreeMap<String, TenantSettings>,
        digester: &Digester,
    ) -> Result<Self, RollError> {
        let everybody = settings.is_empty().then(|| DEFAULT.into());
        let roll = Roll::read(settings, digester)?;
        Ok(Self { digester: digester.clone(), roll, throttle: Throttle::default(), everybody })
    }

    /// The tenant of those who need no key.
    pub(crate) fn everybody(&self) -> Option<&Arc<str>> {
        self.everybody.as_ref()
    }

    /// Says who calls `host` with `headers` on a connection that came as `arrival` says.
    pub(crate) fn admit(
        &self,
        headers: &HeaderMap,
        arrival: &Arrival,
        host: Host<'_>,
    ) -> Result<Caller, Problem> {
        if let Some(everybody) = &self.everybody {
            keep_web_pages_out(headers, arrival, host)?;
            let who = Who { tenant: Arc::clone(everybody), agent: None };
            return Ok(Caller { who, ours: Ours::default() });
        }
        let (said, ours) = self.said(headers);
        let address = match arrival.from {
            From::Address(address) => Some(address),
            From::User(_) => None,
        };
        let who = match (self.shown(arrival), said) {
            (_, Said::Wrong) | (None, Said::Unknown) => {
                let rest = address.and_then(|address| self.throttle.wrong(address, time::now()));
                return Err(rest.map_or_else(wrong_key, throttled));
            }
            (None, Said::Nothing) => {
                let detail = "send the tenant's key as `x-forebay-key: KEY` or \
                              `Authorization: Bearer KEY`";
                return Err(Problem::new(Reason::Unauthorized, detail));
            }
            (None, Said::Key(found)) => {
                let rest = address
                    .and_then(|address| self.throttle.right(address, &found.digest, time::now()));
                match rest {
                    Some(rest) => return Err(throttled(rest)),
                    None => found.who,
                }
            }
            (Some(shown), Said::Key(found)) if shown.tenant != found.who.tenant => {
                let detail = "the connection belongs to one tenant, and the key to another one";
                return Err(Problem::new(Reason::Unauthorized, detail));
            }
            // Both are right: the one that says more counts.
            (Some(shown), Said::Key(found)) if shown.agent.is_none() => found.who,
            // What is unknown means the service.
            (Some(shown), Said::Key(_) | Said::Unknown | Said::Nothing) => shown,
        };
        Ok(Caller { who, ours })
    }

    /// Whom the connection itself proves to be at its other end.
    fn shown(&self, arrival: &Arrival) -> Option<Who> {
        let by_user = match arrival.from {
            From::User(uid) => self.roll.uids.get(&uid),
            From::Address(_) => None,
        };
        let by_name = || arrival.names.iter().find_map(|name| self.roll.names.get(name));
        by_user.or_else(by_name).cloned()
    }

    /// Whom the keys in `headers` prove, and which fields they stand in.
    fn said(&self, headers: &HeaderMap) -> (Said, Ours) {
        let keys = self.roll.keys.now();
        let find = |key: &[u8]| {
            let digest = self.digester.of([key]);
            keys.get(&digest).map(|who| Found { who: who.clone(), digest })
        };
        let mut bearers = headers.get_all(header::AUTHORIZATION).iter().filter_map(bearer);
        let by_bearer = bearers.find_map(find);
        let mut ours = Ours { authorization: by_bearer.is_some(), ..Ours::default() };
        let mut found = by_bearer;
        for (name, is_ours) in API_KEYS.iter().zip(&mut ours.api_keys) {
            let mut values = headers.get_all(name).iter();
            if let Some(by_name) = values.find_map(|value| find(value.as_bytes())) {
                *is_ours = true;
                found = found.or(Some(by_name));
            }
        }
        let mut own = headers.get_all(&KEY).iter();
        let said = match (own.next(), own.next(), found) {
            (Some(key), None, _) => find(key.as_bytes()).map_or(Said::Wrong, Said::Key),
            (Some(_), Some(_), _) => Said::Wrong,
            (None, _, Some(found)) => Said::Key(found),
            (None, _, None) if is_anything_said(headers) => Said::Unknown,
            (None, _, None) => Said::Nothing,
        };
        (said, ours)
    }
}

/// What the fields of a call say of the caller.
enum Said {
    Nothing,
    /// Something that may be a wrong key, or mean the service.
    Unknown,
    /// A key that opens nothing, where only one for us can stand.
    Wrong,
    Key(Found),
}

/// Whether any field is there in which a key for us could have come.
fn is_anything_said(headers: &HeaderMap) -> bool {
    headers.contains_key(header::AUTHORIZATION)
        || API_KEYS.iter().any(|name| headers.contains_key(name))
}

fn wrong_key() -> Problem {
    let detail = "no tenant has this key: send one as `x-forebay-key: KEY` or \
                  `Authorization: Bearer KEY`";
    Problem::new(Reason::Unauthorized, detail)
}

fn throttled(rest: std::time::Duration) -> Problem {
    let detail = "too many wrong keys came from your address: correct the key, then come again";
    Problem::new(Reason::Throttled, detail).not_before(rest)
}

/// The token of `Bearer TOKEN` (RFC 6750, 2.1).
pub(crate) fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

fn keep_web_pages_out(
    headers: &HeaderMap,
    arrival: &Arrival,
    host: Host<'_>,
) -> Result<(), Problem> {
    if headers.contains_key(header::ORIGIN) {
        let detail = "a web page calls (`Origin` is set): configure tenants, and give it a key";
        return Err(Problem::new(Reason::ForeignOrigin, detail));
    }
    // Images and the like come without an `Origin`. `none` is what somebody typed, and nothing
    // but browsers says where from.
    let sites = headers.get_all("sec-fetch-site");
    if sites.iter().any(|site| !site.as_bytes().eq_ignore_ascii_case(b"none")) {
        let detail = "a web page calls (`Sec-Fetch-Site` is set): configure tenants, and give it \
                      a key";
        return Err(Problem::new(Reason::ForeignOrigin, detail));
    }
    // No web page reaches a Unix socket.
    if !arrival.local.is_some_and(|local| local.ip().is_loopback()) {
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
mod tests;
