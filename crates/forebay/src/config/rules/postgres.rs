//! The rules for `[postgres]`.

use std::collections::BTreeSet;
use std::path::Path;

use forebay_http::HttpSettings;
use forebay_pool::{ClassName, ClassSettings, Kind};
use forebay_postgres::PostgresSettings;
use forebay_postgres::settings::{ClientAuth, ServerSettings};

use super::Findings;

/// The classes of a server: those configured, or the three standard ones. Core comes first:
/// guarantees are served in this order.
pub(in crate::config) fn server_classes(
    server: &ServerSettings,
) -> Vec<(ClassName, ClassSettings)> {
    if server.classes.is_empty() {
        return ClassSettings::defaults();
    }
    let mut classes: Vec<_> = server.classes.clone().into_iter().collect();
    classes.sort_by_key(|(_, class)| class.kind != Kind::Core);
    classes
}

pub(super) fn check(
    settings: &PostgresSettings,
    http: Option<&HttpSettings>,
    found: &mut Findings,
) {
    if settings.servers.is_empty() {
        found.add(
            "postgres",
            "no server: write `[postgres.servers.main]` and its `address = \"host:5432\"`",
        );
    }
    found.at_least_one("postgres.max_clients".to_owned(), Some(settings.max_clients));
    found.some_time("postgres.login_timeout".to_owned(), settings.login_timeout);
    if settings.max_message < 1024 {
        found.add("postgres.max_message", "expected at least 1024 bytes");
    }
    if settings.max_message_memory < settings.max_message {
        found.add(
            "postgres.max_message_memory",
            "expected at least `postgres.max_message`: one client may hold that much",
        );
    }
    if let Some(secret) = settings.fleet.as_ref().and_then(|fleet| fleet.secret.as_ref()) {
        found.secret("postgres.fleet.secret".to_owned(), secret);
    }
    if let Some(tls) = &settings.tls {
        found.file("postgres.tls.cert".to_owned(), &tls.cert);
        found.file("postgres.tls.key".to_owned(), &tls.key);
        if let Some(file) = &tls.ca_file {
            found.file("postgres.tls.ca_file".to_owned(), file);
        }
    }
    for (name, server) in &settings.servers {
        check_server(&format!("postgres.servers.{name}"), server, found);
    }
    databases(settings, found);
    users(settings, http, found);
    rules(settings, found);
}

fn check_server(at: &str, server: &ServerSettings, found: &mut Findings) {
    if let Err((key, reason)) = server.check_hosts() {
        found.add(format!("{at}.{key}"), reason);
    }
    let roots = server.sslrootcert.as_deref().filter(|file| *file != Path::new("system"));
    for (key, file) in [
        ("sslrootcert", roots),
        ("sslcert", server.sslcert.as_deref()),
        ("sslkey", server.sslkey.as_deref()),
        ("sslcrl", server.sslcrl.as_deref()),
    ] {
        let Some(file) = file else { continue };
        found.file(format!("{at}.{key}"), file);
    }
    found.at_least_one(format!("{at}.budget"), server.budget);
    found.some_time(format!("{at}.connect_timeout"), server.connect_timeout);
    found.some_time(format!("{at}.lifetime"), server.lifetime);
    found.percent(format!("{at}.ai_share"), server.ai_share);
    found.percent(format!("{at}.warm_up"), server.warm_up);
    found.some_time(format!("{at}.probe_interval"), server.probe_interval);
    found.thresholds(at, server.shed_from, server.hold_limit, server.lend_max_hold);
    let core = ClassName::new(ClassName::CORE);
    match server.classes.get(&core) {
        None if server.classes.is_empty() => {}
        None => found.add(
            format!("{at}.classes"),
            "the class `core` is missing: work that no rule and no tag names belongs to it",
        ),
        Some(class) if class.kind != Kind::Core => found.add(
            format!("{at}.classes.core"),
            "the class `core` is the product's own work: write `kind = \"core\"`",
        ),
        Some(_) => {}
    }
    found.classes(at, &server_classes(server), server.budget_of_classes(), server.ai_share);
}

fn databases(settings: &PostgresSettings, found: &mut Findings) {
    let several = settings.servers.len() > 1;
    if several && settings.databases.is_empty() {
        found.add(
            "postgres.servers",
            "there are several servers: say in `[postgres.databases.NAME]` which `server` has \
             each database",
        );
    }
    for (name, database) in &settings.databases {
        let at = format!("postgres.databases.{name}");
        match &database.server {
            Some(server) => {
                let servers = settings.servers.keys().map(String::as_str);
                found.known(format!("{at}.server"), "server", server, servers);
            }
            None if several => {
                found.add(at, "there are several servers: say which `server` has it");
            }
            None => {}
        }
    }
}

fn users(settings: &PostgresSettings, http: Option<&HttpSettings>, found: &mut Findings) {
    let elsewhere = settings.users_file.is_some() || settings.auth_query.is_some();
    let auth = settings.auth;
    if auth.needs_secrets() && settings.users.is_empty() && !elsewhere {
        found.add(
            "postgres.users",
            "nobody could log in: write `[postgres.users]` and \
             `NAME = { password = \"env:VARIABLE\" }` for each user",
        );
    }
    if matches!(auth, ClientAuth::Trust | ClientAuth::Any)
        && !settings.listen.is_local()
        && !settings.trust_everywhere
    {
        found.add(
            "postgres.auth",
            format!(
                "`{}` asks nobody for a password, so it is only possible where `listen` is a \
                 loopback address: use `scram-sha-256` here, or, where nobody else can reach it, \
                 add `trust_everywhere = true`",
                auth.name()
            ),
        );
    }
    if let Some(password) = settings.auth_query.as_ref().and_then(|query| query.password.as_ref()) {
        found.secret("postgres.auth_query.password".into(), password);
    }
    for (name, user) in &settings.users {
        let at = format!("postgres.users.{name}");
        match &user.password {
            Some(password) => {
                found.secret(format!("{at}.password"), password);
            }
            None if settings.auth.needs_secrets() && !elsewhere => {
                found.add(at.clone(), "without a `password` this user cannot log in");
            }
            None => {}
        }
        if let Some(password) = &user.server_password {
            found.secret(format!("{at}.server_password"), password);
        }
        if let (Some(tenant), Some(http)) = (&user.tenant, http) {
            let tenants = http.tenants.keys().map(String::as_str);
            let known = tenants.chain(http.tenants.is_empty().then_some("default"));
            found.known(format!("{at}.tenant"), "tenant in `[http.tenants]`", tenant, known);
        }
    }
}

fn rules(settings: &PostgresSettings, found: &mut Findings) {
    let names: BTreeSet<_> = settings
        .servers
        .values()
        .flat_map(|server| server_classes(server).into_iter().map(|(name, _)| name))
        .collect();
    for (number, rule) in settings.rules.iter().enumerate() {
        let known = names.iter().map(ClassName::as_str);
        found.known(format!("postgres.rules[{number}].class"), "class", rule.class.as_str(), known);
    }
}
