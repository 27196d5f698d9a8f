//! What stands behind a configured server: its pool, its classes, its listeners.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay_pool::{
    Budget, ClassName, ClassSettings, Kind, Pool, PoolSettings, Snapshot, Timetable,
};
use forebay_seam::{net, time};
use tokio::sync::watch;

use super::SettingsError;
use super::passwords::Password;
use crate::census::Census;
use crate::listener::Listeners;
use crate::replication::Replications;
use crate::route::Backend;
use crate::server::capacity::{Capacity, Surveyor};
use crate::server::catalogue::Catalogues;
use crate::server::connector::{Credentials, Postgres};
use crate::server::login::Target;
use crate::server::place::Place;
use crate::server::proof::Proof;
use crate::settings::{PostgresSettings, ServerSettings};
use crate::tls;

/// The budget until the first login has read what the server can take.
const BUDGET_UNTIL_KNOWN: u32 = 10;
/// Percent of what the server can take that is ours by default.
const BUDGET_PERCENT: u8 = 70;
/// How long a server may take to accept the connection that shows that it is there, and how
/// long until it is asked again.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
const ANSWER_PAUSE: Duration = Duration::from_secs(1);

/// The classes of a server: those configured, or the three of the design.
pub(super) fn classes(server: &ServerSettings) -> Vec<(ClassName, ClassSettings)> {
    if server.classes.is_empty() {
        return ClassSettings::defaults();
    }
    let mut classes: Vec<_> = server.classes.clone().into_iter().collect();
    // Where a budget shrinks below what is promised, the first are served first.
    classes.sort_by_key(|(_, class)| class.kind != Kind::Core);
    classes
}

/// Opens the pool of the server called `name`; its connections come when somebody asks.
pub(super) fn backend(
    name: &str,
    server: &ServerSettings,
    settings: &PostgresSettings,
    passwords: &HashMap<String, Password>,
    census: &Arc<Census>,
) -> Result<Backend, SettingsError> {
    let at = |key: &str, reason: String| SettingsError {
        at: format!("postgres.servers.{name}.{key}"),
        reason,
    };
    let place = Place::parse(&server.address).map_err(|reason| at("address", reason))?;
    let tls = tls::connector(server.sslmode, server.sslrootcert.as_deref())
        .map_err(|reason| at("sslrootcert", reason))?;
    let max_prepared =
        NonZeroUsize::new(settings.max_prepared_statements).unwrap_or(NonZeroUsize::MIN);
    let place_of_target = place.clone();
    let target = Target { place, sslmode: server.sslmode, tls, max_prepared };
    let credentials = settings
        .users
        .iter()
        .map(|(user, configured)| {
            let proof = passwords.get(user).and_then(|password| password.at_server.clone());
            let proof = proof.map(Proof::Password);
            let at_server = configured.server_user.clone().unwrap_or_else(|| user.clone());
            (Arc::from(user.as_str()), Credentials { user: at_server, proof })
        })
        .collect();
    let budget = match server.budget {
        Some(budget) => Budget::Fixed(budget),
        None => Budget::OfCapacity { percent: BUDGET_PERCENT, until_known: BUDGET_UNTIL_KNOWN },
    };
    let mut pool_settings = PoolSettings::new(name, budget);
    pool_settings.timetable =
        Timetable::new(&server.timetable).map_err(|error| at(&error.place(), error.reason))?;
    pool_settings.forecast = server.forecast;
    pool_settings.evidence = server.evidence;
    pool_settings.ai_share = server.ai_share;
    pool_settings.warm_up = server.warm_up;
    pool_settings.idle_ttl = server.idle_ttl;
    pool_settings.lifetime = server.lifetime;
    pool_settings.connect_timeout = server.connect_timeout;
    pool_settings.probe_interval = server.probe_interval;
    pool_settings.queue_factor = server.queue_factor;
    pool_settings.shed_from = server.shed_from;
    pool_settings.hold_limit = server.hold_limit;
    pool_settings.lend_max_hold = server.lend_max_hold;
    pool_settings.classes = classes(server);
    let class_settings = pool_settings.classes.clone();
    let (capacity, mut told) = watch::channel(None);
    let connector = Postgres {
        target,
        credentials,
        surveyor: Surveyor::new(capacity),
        catalogues: Catalogues::default(),
        name: Arc::from(name),
        census: Arc::clone(census),
    };
    let pool = Pool::new(connector, pool_settings);
    let ids: HashMap<_, _> = class_settings
        .iter()
        .filter_map(|(class, s)| {
            Some((class.as_str().to_owned(), (pool.class(class.as_str())?, s.kind)))
        })
        .collect();
    let default_class = ids.get(ClassName::CORE).map(|(id, _)| *id).ok_or_else(|| {
        at("classes", "there must be a class `core`: work that nobody names belongs to it".into())
    })?;
    let named = server.name_unnamed.iter().filter_map(|class| pool.class(class.as_str()));
    let named = named.collect();
    let resized = pool.clone();
    drop(tokio::spawn(async move {
        while told.changed().await.is_ok() {
            let capacity = *told.borrow_and_update();
            if let Some(capacity) = capacity {
                resized.set_capacity(capacity.all);
                look_for_room(capacity, &resized.snapshot());
            }
        }
    }));
    let answers = Arc::new(AtomicBool::new(false));
    drop(tokio::spawn(await_answer(place_of_target, Arc::clone(&answers))));
    let listeners = Listeners::new(pool.clone(), server, settings.notifications.clone());
    let replications = Replications::new(server.replication_connections, server.connect_timeout);
    let rules = settings.rules.clone().into();
    Ok(Backend {
        pool,
        listeners,
        replications,
        classes: ids,
        default_class,
        rules,
        named,
        answers,
    })
}

/// A budget that others leave no room for cannot be reached, and its owner should know.
fn look_for_room(Capacity { all, others }: Capacity, pool: &Snapshot) {
    if pool.budget.saturating_add(others) > all {
        tracing::warn!(
            server = %pool.destination, budget = pool.budget, capacity = all, others,
            "the server has less room than the budget: it leaves so many connections to \
             ordinary users, and others have some of them; lower `budget`, or the others"
        );
    }
}

/// Tries the server until it accepts a connection: where nothing can be warmed up, because
/// databases are not configured, that is what readiness means.
async fn await_answer(place: Place, answers: Arc<AtomicBool>) {
    loop {
        let attempt = async {
            let addresses = place.addresses().await?;
            net::reach(&addresses).await.map(drop)
        };
        if let Ok(Ok(_)) = time::timeout(ANSWER_PATIENCE, attempt).await {
            return answers.store(true, Ordering::Relaxed);
        }
        time::sleep(ANSWER_PAUSE).await;
    }
}
