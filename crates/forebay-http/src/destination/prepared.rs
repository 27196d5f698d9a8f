//! A destination that could be opened, or changed: all that can fail has been tried.
//!
//! Always true: until it takes its place, nothing of a destination in use is different.

use std::sync::Arc;

use forebay_pool::{ClassId, Kind, Pool, Roster};

use super::{Destination, default_class, seats, site};
use crate::SettingsError;
use crate::credential::Registry;
use crate::limits::Toll;
use crate::meter::Meter;
use crate::operation::Works;
use crate::settings::{DestinationSettings, HttpSettings};
use crate::site::Site;
use crate::target::{Scheme, Target};
use crate::tls::{Outfit, Trust};
use crate::upstream::{Opener, Terms};
use crate::wallet::{Identity, Wallet};

/// Classes that a pool has in its life, at the most.
const CLASSES: usize = 16;

/// What a destination will be.
pub(crate) struct Prepared<'s> {
    name: Arc<str>,
    settings: &'s DestinationSettings,
    wallet: Arc<Wallet>,
    terms: Terms,
    toll: Arc<Toll>,
    warm: Vec<Identity>,
    pool: Plan,
}

/// Whose connections it uses.
enum Plan {
    /// Its own, which are yet to be opened.
    Open { target: Arc<Target>, site: Box<Site>, outfit: Arc<Outfit> },
    /// Those that it had under its name before.
    Keep(Arc<Destination>, Lent),
}

/// What connections that are open are worth to whoever they were opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lent {
    /// As much as ever.
    Still,
    /// Nothing any more: credentials are other ones, or others may share.
    NoMore,
}

impl Lent {
    fn between(before: &DestinationSettings, now: &DestinationSettings) -> Self {
        let is_same = before.auth == now.auth
            && before.tenants == now.tenants
            && before.agents == now.agents
            && before.share_connections == now.share_connections;
        if is_same { Self::Still } else { Self::NoMore }
    }
}

/// What is there already.
pub(crate) struct Before<'b> {
    pub(crate) settings: &'b HttpSettings,
    pub(crate) destination: Arc<Destination>,
}

impl<'s> Prepared<'s> {
    /// A destination called `name`, as `settings` say, which were checked, in place of the one
    /// `before`. Reads its secrets.
    pub(crate) fn new(
        name: &str,
        settings: &'s DestinationSettings,
        before: Option<Before<'_>>,
        everybody: Option<&Arc<str>>,
        registry: &Registry,
        trust: &mut Trust,
    ) -> Result<Self, SettingsError> {
        let at = |key: &str| format!("http.destinations.{name}.{key}");
        let invalid = |key: &str, reason: String| SettingsError { at: at(key), reason };
        let target = Target::parse(&settings.url).map_err(|e| invalid("url", e.to_string()))?;
        let earlier = before.as_ref().map(|before| &*before.destination.wallet);
        let wallet = Arc::new(Wallet::open(name, settings, earlier, registry, trust)?);
        if target.scheme == Scheme::Plain && !target.is_loopback() && !wallet.is_empty() {
            tracing::warn!(destination = name, "its credential travels in the clear: use https");
        }
        let in_seats =
            seats::of(name, settings).map_err(|error| invalid(&error.place(), error.reason))?;
        let habits = seats::habits(settings);
        let terms = Terms { wallet: Arc::clone(&wallet), habits, in_seats };
        let earlier = before.as_ref().and_then(|b| b.settings.destinations.get(name));
        let toll = match (&before, earlier) {
            (Some(before), Some(earlier)) if earlier.limits == settings.limits => {
                Arc::clone(&before.destination.toll)
            }
            _ => Toll::open(&settings.limits)
                .map_err(|(key, reason)| invalid(&format!("limits.{key}"), reason))?,
        };
        let kept = earlier.filter(|earlier| {
            earlier.url == settings.url
                && earlier.ca_file == settings.ca_file
                && earlier.connections == settings.connections
        });
        let pool = match (before, kept) {
            (Some(before), Some(kept)) => {
                let known = before.destination.pool.snapshot().classes;
                let known = known.iter().map(|class| class.class.as_str());
                let new = seats::classes(settings);
                let new = new.iter().map(|(class, _)| class.as_str());
                let all: std::collections::BTreeSet<&str> = known.chain(new).collect();
                if all.len() > CLASSES {
                    let reason = "at most 16 classes are possible, and those of before count";
                    return Err(invalid("classes", reason.to_owned()));
                }
                Plan::Keep(before.destination, Lent::between(kept, settings))
            }
            (Some(_) | None, _) => {
                let outfit = trust
                    .outfit(settings.ca_file.as_deref())
                    .map_err(|e| invalid("ca_file", e.to_string()))?;
                let site = site(&target, &settings.connections)
                    .map_err(|(key, reason)| invalid(&format!("connections.{key}"), reason))?;
                Plan::Open { target: Arc::new(target), site: Box::new(site), outfit }
            }
        };
        let warm = match settings.warm_up {
            0 => Vec::new(),
            _ => wallet.known_identities(everybody),
        };
        Ok(Self { name: name.into(), settings, wallet, terms, toll, warm, pool })
    }

    /// Takes its place, and starts warming up. Inside a runtime.
    pub(crate) fn stand(self, roster: &Arc<Roster>) -> Destination {
        let Self { name, settings, wallet, terms, toll, warm, pool } = self;
        let (target, pool, meter, works) = match pool {
            Plan::Open { target, site, outfit } => {
                let first = (terms.in_seats)(1);
                let opener = Opener::new((Arc::clone(&target), *site), outfit, terms);
                let pool = Pool::new(opener, first);
                pool.connector().serve(pool.downgrade());
                pool.join(roster);
                (target, pool, Arc::new(Meter::default()), Arc::new(Works::default()))
            }
            Plan::Keep(before, lent) => {
                let pool = before.pool.clone();
                if let Err(error) = pool.apply(pool.connector().follow(terms)) {
                    tracing::error!(destination = &*name, %error, "a pool cannot be changed");
                }
                if lent == Lent::NoMore {
                    pool.connector().leave_all();
                    pool.renew();
                }
                let target = Arc::clone(&before.target);
                (target, pool, Arc::clone(&before.meter), Arc::clone(&before.works))
            }
        };
        // Agents may lower their own rank, never raise it: `core` is theirs only where the
        // rules give it to them, and none but the default does.
        let chosen = settings.classes.iter().filter(|(_, class)| class.kind == Kind::Ai);
        let classes =
            chosen.filter_map(|(class, _)| Some((class.to_string(), pool.class(class.as_str())?)));
        let classes = classes.collect();
        let default_class = default_class(&seats::classes(settings));
        let default_class = pool.class(default_class.as_str()).unwrap_or(ClassId::FIRST);
        if !warm.is_empty() {
            pool.warm_up(warm);
        }
        Destination {
            name,
            target,
            pool,
            meter,
            toll,
            works,
            first_byte_timeout: settings.first_byte_timeout,
            chunk_timeout: settings.chunk_timeout,
            total_timeout: settings.total_timeout,
            retry: settings.retry,
            wallet,
            classes,
            default_class,
        }
    }
}
