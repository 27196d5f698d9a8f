//! What a configuration comes to: the effective settings, for `forebay check`.
//!
//! Shows where secrets are, never what they are.

use std::fmt;
use std::time::Duration;

use forebay_http::HttpSettings;
use forebay_http::settings::{DestinationSettings, LimitSettings};
use forebay_pool::class::{self, ClassSettings};
use forebay_pool::policy::Policy;
use forebay_pool::{ClassName, Kind, Mode};
use forebay_postgres::PostgresSettings;
use forebay_postgres::settings::{ClientTlsMode, PoolMode, ServerSettings};

use super::Config;
use super::rules::server_classes;

/// The effective settings of a configuration, one line a thing.
pub struct Summary<'c>(pub &'c Config);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(settings) = &self.0.postgres {
            postgres(f, settings)?;
        }
        if let Some(settings) = &self.0.http {
            http(f, settings)?;
        }
        writeln!(f, "admin on {}", self.0.admin.listen)
    }
}

fn postgres(f: &mut fmt::Formatter<'_>, settings: &PostgresSettings) -> fmt::Result {
    let auth = settings.auth.name();
    let tls = match &settings.tls {
        None => "no TLS",
        Some(tls) => match tls.mode() {
            Ok(ClientTlsMode::Disable) | Err(_) => "no TLS",
            Ok(ClientTlsMode::Allow | ClientTlsMode::Prefer) => "TLS possible",
            Ok(ClientTlsMode::Require) => "TLS required",
            Ok(ClientTlsMode::VerifyCa | ClientTlsMode::VerifyFull) => {
                "TLS required, with a certificate"
            }
        },
    };
    let mode = match settings.pool_mode {
        PoolMode::Transaction => "transaction",
        PoolMode::Session => "session",
    };
    writeln!(
        f,
        "postgres on {}: {mode} pooling, auth {auth}, {tls}, {} users",
        settings.listen,
        settings.users.len()
    )?;
    for (name, server) in &settings.servers {
        write!(f, "  server {name} ({}): ", server.address)?;
        match server.budget {
            Some(budget) => {
                writeln!(f, "budget {budget}")?;
                seats(f, &server_classes(server), budget, server.ai_share)?;
            }
            None => {
                writeln!(f, "budget 70 % of its max_connections, 10 until that is read")?;
                shares(f, server)?;
            }
        }
    }
    Ok(())
}

fn http(f: &mut fmt::Formatter<'_>, settings: &HttpSettings) -> fmt::Result {
    let tenants = match settings.tenants.len() {
        0 => "whoever reaches the port may call".to_owned(),
        count => format!("{count} tenants"),
    };
    writeln!(f, "http on {}: {tenants}", settings.listen)?;
    for (name, destination) in &settings.destinations {
        let own = destination.tenants.len() + destination.agents.len();
        let auth = match (&destination.auth, own) {
            (None, 0) => "the agents' own credentials",
            (None, _) => "credentials by tenant",
            (Some(auth), _) => auth.noun(),
        };
        let budget = http_budget(destination);
        writeln!(f, "  destination {name} ({}): budget {budget}, {auth}", destination.url)?;
        limits(f, &destination.limits)?;
        let classes: Vec<_> = destination.classes.clone().into_iter().collect();
        seats(f, &classes, budget, 100)?;
    }
    Ok(())
}

/// Rate limits, where there are any.
fn limits(f: &mut fmt::Formatter<'_>, limits: &LimitSettings) -> fmt::Result {
    let LimitSettings { mode, per, .. } = limits;
    let each = &limits.each_tenant;
    let amounts = [
        (limits.requests, "requests"),
        (limits.tokens, "tokens"),
        (each.requests, "requests of each tenant"),
        (each.tokens, "tokens of each tenant"),
    ];
    let amounts: Vec<_> =
        amounts.iter().filter_map(|(n, of)| Some(format!("{} {of}", (*n)?))).collect();
    if amounts.is_empty() {
        return Ok(());
    }
    let does = match mode {
        Mode::Off => "off",
        Mode::Observe => "observed",
        Mode::Enforce => "enforced",
    };
    let per = humantime_serde::re::humantime::format_duration(*per);
    writeln!(f, "    {} per {per}, {does}", amounts.join(", "))
}

/// Connections that we may open to a service: what is set, 70 % of what it documents, or 50.
pub(super) fn http_budget(destination: &DestinationSettings) -> u32 {
    let documented = destination
        .documented_limit
        .map(|limit| u32::try_from(u64::from(limit) * 70 / 100).unwrap_or(u32::MAX).max(1));
    destination.budget.or(documented).unwrap_or(50)
}

fn seats(
    f: &mut fmt::Formatter<'_>,
    classes: &[(ClassName, ClassSettings)],
    budget: u32,
    ai_share: u8,
) -> fmt::Result {
    let settings: Vec<_> = classes.iter().map(|(_, class)| class.clone()).collect();
    let limits = class::resolve(&settings, budget, class::ai_ceiling(budget, budget, ai_share));
    for ((name, class), limits) in classes.iter().zip(limits) {
        line(f, name, class, &limits.guarantee, &limits.ceiling)?;
    }
    Ok(())
}

fn shares(f: &mut fmt::Formatter<'_>, server: &ServerSettings) -> fmt::Result {
    for (name, class) in server_classes(server) {
        let ceiling = match (class.ceiling, class.kind) {
            (Some(ceiling), _) => ceiling.to_string(),
            (None, Kind::Core) => "100%".to_owned(),
            (None, Kind::Ai) => format!("{}% of max_connections", server.ai_share),
        };
        line(f, &name, &class, &class.guarantee, &ceiling)?;
    }
    Ok(())
}

fn line(
    f: &mut fmt::Formatter<'_>,
    name: &ClassName,
    class: &ClassSettings,
    guarantee: &dyn fmt::Display,
    ceiling: &dyn fmt::Display,
) -> fmt::Result {
    let kind = match class.kind {
        Kind::Core => "core",
        Kind::Ai => "ai",
    };
    let requests = class.max_requests.map(|most| format!(", {most} requests at most"));
    writeln!(
        f,
        "    class {:<12} {kind:<4} guarantee {guarantee}, ceiling {ceiling}, waits at most {}{}; {}",
        name.as_str(),
        time(class.checkout_timeout),
        requests.unwrap_or_default(),
        modes(class)
    )
}

/// What its policies may do: the mode of the class, and those that have one of their own.
fn modes(class: &ClassSettings) -> String {
    let own: Vec<_> = Policy::ALL
        .iter()
        .filter_map(|policy| Some(format!("{} {}", policy.name(), policy.own(class)?.name())))
        .collect();
    let mode = class.mode.name();
    if own.is_empty() { mode.to_owned() } else { format!("{mode} ({})", own.join(", ")) }
}

/// A duration as it would be written.
fn time(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{}s", duration.as_secs()),
        _ => format!("{}ms", duration.as_millis()),
    }
}
