//! One service: where it is, what may be open there, on whose behalf, with which credential.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use forebay_pool::{ClassId, ClassName, ClassSettings, Mode, Pool, class, timetable};

use crate::SettingsError;
use crate::addresses::{Addresses, Allowed, Network, NoNetwork, Private};
use crate::limits::{self, Toll};
use crate::meter::Meter;
use crate::operation::Works;
use crate::settings::{ConnectionSettings, DestinationSettings, HttpSettings, RetrySettings};
use crate::site::Site;
use crate::stats::ConnectionsSnapshot;
use crate::target::Target;
use crate::tls::Trust;
use crate::upstream::Opener;
use crate::wallet::{self, Wallet};

mod prepared;
mod seats;

pub(crate) use prepared::{Before, Prepared};
use seats::{AI_SHARE, budget, classes};

/// A service behind the gateway.
pub(crate) struct Destination {
    pub(crate) name: Arc<str>,
    pub(crate) target: Arc<Target>,
    pub(crate) pool: Pool<Opener>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) toll: Arc<Toll>,
    pub(crate) works: Arc<Works>,
    pub(crate) first_byte_timeout: Duration,
    pub(crate) chunk_timeout: Duration,
    pub(crate) total_timeout: Option<Duration>,
    pub(crate) retry: RetrySettings,
    pub(crate) wallet: Arc<Wallet>,
    classes: HashMap<String, ClassId>,
    default_class: ClassId,
}

impl Destination {
    /// As many connections may be open as was set by hand; `None`: as is configured.
    pub(crate) fn set_budget(&self, budget: Option<u32>) {
        self.pool.set_budget(self.pool.connector().set_budget(budget));
    }

    /// Replaces all connections: what is on them ends there.
    pub(crate) fn renew(&self) {
        self.pool.connector().leave_all();
        self.pool.renew();
    }

    /// Its connections, now.
    pub(crate) fn connections(&self) -> ConnectionsSnapshot {
        self.pool.connector().snapshot(Arc::clone(&self.name))
    }

    /// The class called `wanted`, if agents may choose it, or else the default.
    pub(crate) fn class(&self, wanted: Option<&str>) -> ClassId {
        let chosen = wanted.and_then(|name| self.classes.get(name));
        chosen.copied().unwrap_or(self.default_class)
    }
}

/// `core`, as for all untagged work; where that is not configured, the first.
fn default_class(classes: &[(ClassName, ClassSettings)]) -> ClassName {
    let mut names = classes.iter().map(|(name, _)| name);
    let core = names.clone().find(|name| name.as_str() == ClassName::CORE);
    core.or_else(|| names.next()).cloned().unwrap_or_else(|| ClassName::new(ClassName::CORE))
}

/// Where the service is, and whom its name may lead to.
fn site(target: &Target, settings: &ConnectionSettings) -> Result<Site, (String, String)> {
    let mut networks = Vec::new();
    for network in &settings.allow_networks {
        let network = network.parse();
        networks
            .push(network.map_err(|e: NoNetwork| ("allow_networks".to_owned(), e.to_string()))?);
    }
    let private = match settings.allow_private {
        true => Private::Allowed,
        false => Private::Listed,
    };
    let addresses = Addresses::new(
        &target.host,
        target.port,
        Allowed::of(&target.host, private, &networks),
        settings.resolve_interval,
        settings.eject_after,
    );
    Ok(Site::new(addresses, settings.max_calls.unwrap_or(u32::MAX)))
}

/// Checks the settings of destination `name` without opening anything.
pub(crate) fn check(
    name: &str,
    settings: &DestinationSettings,
    http: &HttpSettings,
    trust: &mut Trust,
) -> Result<(), SettingsError> {
    let place = format!("http.destinations.{name}");
    let invalid =
        |key: &str, reason: String| Err(SettingsError { at: format!("{place}.{key}"), reason });
    let letters = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if name.is_empty() || !name.bytes().all(letters) || name.bytes().all(|b| b == b'.') {
        let reason = format!("`{name}` stands in a path: write letters, digits, `-`, `_` or `.`");
        return Err(SettingsError { at: place, reason });
    }
    if let Err(error) = Target::parse(&settings.url) {
        return invalid("url", error.to_string());
    }
    if let Err(error) = trust.outfit(settings.ca_file.as_deref()) {
        return invalid("ca_file", error.to_string());
    }
    if settings.budget == Some(0) {
        return invalid("budget", "at least one connection is needed".to_owned());
    }
    if settings.documented_limit == Some(0) {
        return invalid("documented_limit", "a service without connections is none".to_owned());
    }
    if let (Some(budget), Some(limit)) = (settings.budget, settings.documented_limit)
        && budget > limit
    {
        let reason = format!("{budget} connections are above the documented limit of {limit}");
        return invalid("budget", reason);
    }
    if settings.warm_up > 100 {
        return invalid("warm_up", "write percent of the budget, 0 to 100".to_owned());
    }
    if let Err(error) = timetable::check(&settings.timetable, &classes(settings), AI_SHARE) {
        return invalid(&error.place(), error.reason);
    }
    if let Err(error) = class::check(&classes(settings), budget(settings), AI_SHARE) {
        return invalid("classes", error.to_string());
    }
    let parks = settings.classes.iter().find(|(_, class)| class.parking != Mode::Off);
    if let Some((class, _)) = parks {
        let reason = "only transactions of a database are parked".to_owned();
        return invalid(&format!("classes.{class}.parking"), reason);
    }
    check_connections(&settings.connections)
        .or_else(|(key, reason)| invalid(&format!("connections.{key}"), reason))?;
    limits::check(&settings.limits, &http.tenants)
        .or_else(|(key, reason)| invalid(&format!("limits.{key}"), reason))?;
    check_durations(settings).or_else(|key| invalid(key, "must be more than 0s".to_owned()))?;
    wallet::check(settings, &http.tenants, trust).or_else(|(key, reason)| invalid(&key, reason))
}

fn check_connections(settings: &ConnectionSettings) -> Result<(), (String, String)> {
    let invalid = |key: &str, reason: &str| Err((key.to_owned(), reason.to_owned()));
    if settings.streams == 0 {
        return invalid("streams", "a connection carries at least one call: write 1 or more");
    }
    if settings.concurrent_connects == Some(0) {
        return invalid("concurrent_connects", "no connection would ever be opened");
    }
    if settings.max_calls == Some(0) {
        return invalid("max_calls", "a connection serves at least one call");
    }
    if settings.resolve_interval < Duration::from_millis(100) {
        return invalid("resolve_interval", "names cannot be resolved more often than each 100ms");
    }
    for network in &settings.allow_networks {
        if let Err(error) = network.parse::<Network>() {
            return invalid("allow_networks", &error.to_string());
        }
    }
    match settings.probe_path.as_deref().map(seats::probe_path) {
        Some(None) => invalid("probe_path", "write a path that begins with a slash: `/healthz`"),
        Some(Some(_)) | None => Ok(()),
    }
}

fn check_durations(settings: &DestinationSettings) -> Result<(), &'static str> {
    let durations = [
        ("connect_timeout", settings.connect_timeout),
        ("checkout_timeout", settings.checkout_timeout),
        ("first_byte_timeout", settings.first_byte_timeout),
        ("chunk_timeout", settings.chunk_timeout),
        ("lifetime", settings.lifetime),
        ("total_timeout", settings.total_timeout.unwrap_or(Duration::MAX)),
    ];
    durations.into_iter().find(|(_, d)| d.is_zero()).map_or(Ok(()), |(key, _)| Err(key))
}
