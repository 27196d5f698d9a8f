//! One service: where it is, what may be open there, on whose behalf, with which credential.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use forebay_pool::rate::Account;
use forebay_pool::{
    Budget, ClassId, ClassName, ClassSettings, Kind, Pool, PoolSettings, Timetable, class,
    timetable,
};

use crate::SettingsError;
use crate::credential::{self, Credential, CredentialError, Registry};
use crate::limits::{self, Toll};
use crate::meter::Meter;
use crate::operation::Works;
use crate::settings::{CredentialSettings, DestinationSettings, HttpSettings};
use crate::target::{Scheme, Target};
use crate::tls::Trust;
use crate::upstream::{Identity, Opener};

/// The budget where nothing is known.
const BUDGET: u32 = 50;
/// What of a documented limit we take, in percent: the rest is for whoever else calls.
const OF_DOCUMENTED: u64 = 70;
/// Settings speak of the budget alone: HTTP knows no AI share unless classes say so.
const AI_SHARE: u8 = 100;

/// A service behind the gateway.
pub(crate) struct Destination {
    pub(crate) name: Arc<str>,
    pub(crate) target: Arc<Target>,
    pub(crate) pool: Pool<Opener>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) toll: Arc<Toll>,
    pub(crate) works: Works,
    pub(crate) first_byte_timeout: Duration,
    pub(crate) chunk_timeout: Duration,
    sharing: Sharing,
    /// The credential of tenants that have none of their own.
    common: Option<Credential>,
    own: HashMap<String, Credential>,
    classes: HashMap<String, ClassId>,
    default_class: ClassId,
}

/// Who may use whose connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sharing {
    /// Those with the same credential.
    ByCredential,
    /// Every tenant every other's.
    Everybody,
}

impl Destination {
    /// A destination called `name`, as `settings` say, which were checked. Reads its secrets
    /// and starts warming up.
    pub(crate) fn open(
        name: &str,
        settings: &DestinationSettings,
        everybody: Option<&Arc<str>>,
        registry: &mut Registry,
        trust: &mut Trust,
    ) -> Result<Self, SettingsError> {
        let at = |key: &str| format!("http.destinations.{name}.{key}");
        let invalid = |key: &str, reason: String| SettingsError { at: at(key), reason };
        let target = Target::parse(&settings.url).map_err(|e| invalid("url", e.to_string()))?;
        let target = Arc::new(target);
        let tls = trust
            .connector(settings.ca_file.as_deref())
            .map_err(|e| invalid("ca_file", e.to_string()))?;
        let mut credential = |place: &str, settings: &CredentialSettings| {
            registry.credential(settings, trust).map_err(|CredentialError { key, reason }| {
                invalid(&format!("{place}.{key}"), reason)
            })
        };
        let common = settings.auth.as_ref().map(|auth| credential("auth", auth)).transpose()?;
        let mut own = HashMap::new();
        for (tenant, auth) in &settings.tenants {
            own.insert(tenant.clone(), credential(&format!("tenants.{tenant}"), auth)?);
        }
        if target.scheme == Scheme::Plain
            && !target.is_loopback()
            && (common.is_some() || !own.is_empty())
        {
            tracing::warn!(destination = name, "its credential travels in the clear: use https");
        }
        let toll = Toll::open(&settings.limits)
            .map_err(|(key, reason)| invalid(&format!("limits.{key}"), reason))?;
        let timetable = Timetable::new(&settings.timetable)
            .map_err(|error| invalid(&error.place(), error.reason))?;
        let pool_settings = PoolSettings { timetable, ..pool_settings(name, settings) };
        let default_class = default_class(&pool_settings.classes);
        let pool = Pool::new(Opener::new(Arc::clone(&target), tls), pool_settings);
        let missing = || invalid("classes", "at most 16 classes are possible".to_owned());
        let default_class = pool.class(default_class.as_str()).ok_or_else(missing)?;
        // Agents may lower their own rank, never raise it: `core` is theirs only where the
        // rules give it to them, and none but the default does.
        let classes = settings
            .classes
            .iter()
            .filter(|(_, class)| class.kind == Kind::Ai)
            .filter_map(|(class, _)| Some((class.to_string(), pool.class(class.as_str())?)))
            .collect();
        let sharing = match settings.share_connections {
            true => Sharing::Everybody,
            false => Sharing::ByCredential,
        };
        let destination = Self {
            name: name.into(),
            target,
            pool,
            meter: Arc::new(Meter::default()),
            toll,
            works: Works::default(),
            first_byte_timeout: settings.first_byte_timeout,
            chunk_timeout: settings.chunk_timeout,
            sharing,
            common,
            own,
            classes,
            default_class,
        };
        if settings.warm_up > 0 {
            destination.pool.warm_up(destination.known_identities(everybody));
        }
        Ok(destination)
    }

    /// Those whose connections can be opened before anybody calls: they have credentials, or
    /// there is but one tenant.
    fn known_identities(&self, everybody: Option<&Arc<str>>) -> Vec<Identity> {
        if self.common.is_some() || self.sharing == Sharing::Everybody {
            return vec![Identity::Common];
        }
        let mut names: Vec<Arc<str>> = self.own.keys().map(|name| name.as_str().into()).collect();
        names.extend(everybody.filter(|name| !self.own.contains_key(name.as_ref())).cloned());
        names.sort_unstable();
        names.into_iter().map(Identity::Tenant).collect()
    }

    /// On whose behalf connections for `tenant` are opened.
    pub(crate) fn identity(&self, tenant: &Arc<str>) -> Identity {
        let common = match self.sharing {
            Sharing::Everybody => true,
            Sharing::ByCredential => {
                self.common.is_some() && !self.own.contains_key(tenant.as_ref())
            }
        };
        if common { Identity::Common } else { Identity::Tenant(Arc::clone(tenant)) }
    }

    /// With whose account the service counts the calls of `tenant`: whose credential it is.
    pub(crate) fn account(&self, tenant: &Arc<str>) -> Account {
        match self.common.is_some() && !self.own.contains_key(tenant.as_ref()) {
            true => Account::Destination,
            false => Account::Tenant(Arc::clone(tenant)),
        }
    }

    /// The credential to send for `tenant`; without one the agent's own passes.
    pub(crate) fn credential(&self, tenant: &str) -> Option<&Credential> {
        self.own.get(tenant).or(self.common.as_ref())
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

fn budget(settings: &DestinationSettings) -> u32 {
    let documented = |limit: u32| {
        let ours = u64::from(limit) * OF_DOCUMENTED / 100;
        u32::try_from(ours).unwrap_or(u32::MAX).max(1)
    };
    settings.budget.or(settings.documented_limit.map(documented)).unwrap_or(BUDGET)
}

fn classes(settings: &DestinationSettings) -> Vec<(ClassName, ClassSettings)> {
    if settings.classes.is_empty() {
        let whole = ClassSettings::whole_budget(settings.checkout_timeout);
        return vec![(ClassName::new(ClassName::CORE), whole)];
    }
    settings.classes.iter().map(|(name, class)| (name.clone(), class.clone())).collect()
}

fn pool_settings(name: &str, settings: &DestinationSettings) -> PoolSettings {
    let budget = budget(settings);
    PoolSettings {
        forecast: settings.forecast,
        ai_share: AI_SHARE,
        classes: classes(settings),
        idle_ttl: settings.idle_ttl,
        lifetime: settings.lifetime,
        warm_up: settings.warm_up,
        probe_interval: settings.probe_interval,
        connect_timeout: settings.connect_timeout,
        queue_factor: settings.queue_factor,
        shed_from: settings.shed_from,
        hold_limit: settings.hold_limit,
        lend_max_hold: settings.lend_max_hold,
        // Services take connections more easily than databases, which start a process for
        // each: the engine's pace would leave half a budget closed in a storm's first second.
        opens_per_second: Some(budget.max(10)),
        concurrent_opens: Some((budget / 4).clamp(2, 16)),
        ..PoolSettings::new(name, Budget::Fixed(budget))
    }
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
    if let Err(error) = trust.connector(settings.ca_file.as_deref()) {
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
    limits::check(&settings.limits, &http.tenants)
        .or_else(|(key, reason)| invalid(&format!("limits.{key}"), reason))?;
    check_durations(settings).or_else(|key| invalid(key, "must be more than 0s".to_owned()))?;
    check_credentials(settings, &http.tenants, trust).or_else(|(key, reason)| invalid(&key, reason))
}

fn check_durations(settings: &DestinationSettings) -> Result<(), &'static str> {
    let durations = [
        ("connect_timeout", settings.connect_timeout),
        ("checkout_timeout", settings.checkout_timeout),
        ("first_byte_timeout", settings.first_byte_timeout),
        ("chunk_timeout", settings.chunk_timeout),
        ("lifetime", settings.lifetime),
    ];
    durations.into_iter().find(|(_, d)| d.is_zero()).map_or(Ok(()), |(key, _)| Err(key))
}

fn check_credentials<T>(
    settings: &DestinationSettings,
    tenants: &BTreeMap<String, T>,
    trust: &mut Trust,
) -> Result<(), (String, String)> {
    if let Some(auth) = &settings.auth {
        credential::check(auth, trust).map_err(|e| (format!("auth.{}", e.key), e.reason))?;
    }
    for (tenant, auth) in &settings.tenants {
        if !tenants.contains_key(tenant) {
            let known: Vec<_> = tenants.keys().map(String::as_str).collect();
            let reason = match known.is_empty() {
                true => format!("there is no tenant `{tenant}`: write `[http.tenants.{tenant}]`"),
                false => {
                    format!("there is no tenant `{tenant}`, there are: {}", known.join(", "))
                }
            };
            return Err((format!("tenants.{tenant}"), reason));
        }
        credential::check(auth, trust)
            .map_err(|e| (format!("tenants.{tenant}.{}", e.key), e.reason))?;
    }
    Ok(())
}
