//! What a configuration must be beyond well-formed: names that exist, promises that can be
//! kept, files that can be read, doors that are not left open by mistake.
//!
//! Each room checks its own settings again when it opens; here all mistakes are found in one
//! pass, and those between rooms. Reads secrets and certificates, opens no socket.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use forebay_pool::ClassName;
use forebay_pool::class::{self, ClassError, ClassSettings, Share};
use forebay_seam::net::Address;
use forebay_seam::secret::{SecretRef, SecretString};
use tracing_subscriber::EnvFilter;

use super::{Config, Problem, wording};

mod http;
mod postgres;

pub(super) use postgres::server_classes;

/// Everything that is wrong with `config`.
pub(super) fn check(config: &Config) -> Vec<Problem> {
    let mut found = Findings::default();
    if config.postgres.is_none() && config.http.is_none() {
        found.add(
            "",
            "nothing to do: configure `[postgres.servers.NAME]`, `[http.destinations.NAME]` \
             or both",
        );
    }
    if config.worker_threads == Some(0) {
        found.add("worker_threads", "at least one thread has to work");
    }
    if let Some(settings) = &config.postgres {
        postgres::check(settings, config.http.as_ref(), &mut found);
        for error in forebay_postgres::Gateway::check(settings) {
            found.also(error.at, error.reason);
        }
    }
    if let Some(settings) = &config.http {
        http::check(settings, &mut found);
        if let Err(error) = forebay_http::Gateway::check(settings) {
            found.also(error.at, error.reason);
        }
    }
    for (number, host) in config.admin.hosts.iter().enumerate() {
        if host.is_empty() || host.contains([':', '/', '*']) {
            found.add(
                format!("admin.hosts[{number}]"),
                "expected a host name alone, without port, path or `*`",
            );
        }
    }
    if let Err(error) = EnvFilter::builder().parse(&config.log.level) {
        found.add("log.level", format!("expected a level such as `info`: {error}"));
    }
    listeners(config, &mut found);
    found.0
}

/// Two listeners cannot share a port on the same address.
fn listeners(config: &Config, found: &mut Findings) {
    let tcp = |name, addresses: &[Address]| {
        let tcp = addresses.iter().filter_map(move |address| match address {
            Address::Tcp(address) => Some((name, *address)),
            Address::Unix(_) => None,
        });
        tcp.collect::<Vec<_>>()
    };
    let postgres = config.postgres.iter();
    let postgres = postgres.flat_map(|p| tcp("postgres.listen", p.listen.addresses()));
    let http = config.http.iter().flat_map(|h| tcp("http.listen", h.listen.addresses()));
    let admin = ("admin.listen", config.admin.listen);
    let listeners: Vec<_> = postgres.chain(http).chain([admin]).collect();
    for (number, (name, address)) in listeners.iter().enumerate() {
        for (other, taken) in listeners.iter().take(number) {
            if clash(*address, *taken) {
                found.add(*name, format!("{address} is already taken by `{other}` ({taken})"));
            }
        }
    }
}

fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let everywhere = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && (everywhere || a.ip() == b.ip())
}

/// What was found so far.
#[derive(Default)]
struct Findings(Vec<Problem>);

impl Findings {
    fn add(&mut self, at: impl Into<String>, reason: impl Into<String>) {
        self.0.push(Problem::new(at, reason));
    }

    /// What a room itself says, unless the same was found already.
    fn also(&mut self, at: String, reason: String) {
        if self.0.iter().all(|problem| problem.at != at) {
            self.add(at, reason);
        }
    }

    fn percent(&mut self, at: String, percent: u8) {
        if percent > 100 {
            self.add(at, "expected a percentage from 0 to 100");
        }
    }

    fn at_least_one(&mut self, at: String, value: Option<u32>) {
        if value == Some(0) {
            self.add(at, "expected 1 or more");
        }
    }

    /// What both gateways set of the policies of a pool.
    fn thresholds(&mut self, at: &str, shed_from: u8, hold_limit: Duration, lend: Duration) {
        if !(1..=99).contains(&shed_from) {
            self.add(format!("{at}.shed_from"), "expected a percentage from 1 to 99");
        }
        self.some_time(format!("{at}.hold_limit"), hold_limit);
        self.some_time(format!("{at}.lend_max_hold"), lend);
    }

    /// A certificate file that must be there; its content is the room's to judge.
    fn file(&mut self, at: String, path: &Path) {
        if let Err(error) = File::open(path) {
            self.add(at, format!("cannot read `{}`: {error}", path.display()));
        }
    }

    /// A secret that must be readable; gives it, where it is.
    fn secret(&mut self, at: String, secret: &SecretRef) -> Option<SecretString> {
        match secret.read() {
            Ok(secret) => Some(secret),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|e| format!(": {e}"));
                self.add(at, format!("{error}{}", cause.unwrap_or_default()));
                None
            }
        }
    }

    /// A time that may not be zero: nothing could ever happen within it.
    fn some_time(&mut self, at: String, duration: Duration) {
        if duration.is_zero() {
            self.add(at, "expected more than 0s");
        }
    }

    /// A name that must be among `known`; `what` says of what kind it is.
    fn known<'k>(
        &mut self,
        at: String,
        what: &str,
        name: &str,
        known: impl Iterator<Item = &'k str>,
    ) {
        let known: Vec<_> = known.collect();
        if !known.contains(&name) {
            self.add(at, format!("no {what} is called `{name}`{}", wording::instead(name, known)));
        }
    }

    /// Promises to classes that can be kept under `budget`; while that is unknown, those in
    /// percent.
    fn classes(
        &mut self,
        at: &str,
        classes: &[(ClassName, ClassSettings)],
        budget: Option<u32>,
        ai_share: u8,
    ) {
        for (name, class) in classes {
            let at = |key: &str| format!("{at}.classes.{name}.{key}");
            self.at_least_one(at("weight"), Some(class.weight));
            self.at_least_one(at("max_requests"), class.max_requests);
            self.at_least_one(at("max_parallel"), Some(class.max_parallel));
        }
        let known: Vec<_> = match budget {
            Some(_) => classes.to_vec(),
            None => classes.iter().map(|(name, c)| (name.clone(), in_percent(c))).collect(),
        };
        if let Err(error) = class::check(&known, budget.unwrap_or(100), ai_share) {
            let at = if let ClassError::GuaranteeAboveCeiling { class, .. } = &error {
                format!("{at}.classes.{class}.guarantee")
            } else {
                format!("{at}.classes")
            };
            self.add(at, error.to_string());
        }
    }
}

/// `class` without the numbers that only mean something beside a known budget.
fn in_percent(class: &ClassSettings) -> ClassSettings {
    let relative = |share: &Share| !matches!(share, Share::Seats(_));
    ClassSettings {
        guarantee: Some(class.guarantee).filter(relative).unwrap_or(Share::Seats(0)),
        ceiling: class.ceiling.filter(relative),
        ..class.clone()
    }
}
