//! SHOW CONFIG as PgBouncer has it: its keys, and of those that we have by another name, what
//! they are set to.
//!
//! Always true: no value is a secret. NULL stands where we have nothing of the kind.

use std::path::Path;
use std::time::Duration;

use super::KnownSetting;
use super::table::{Cell, Row};
use crate::row;
use crate::settings::{AuthQuerySettings, ClientTlsMode, PoolMode, PostgresSettings};

/// One row for each of `known`.
pub(super) fn rows(known: &[KnownSetting], settings: &PostgresSettings) -> Vec<Row> {
    let changes = |known: &KnownSetting| if known.changeable { "yes" } else { "no" };
    known
        .iter()
        .map(|known| {
            let value = match &known.value {
                Some(value) => value.as_str().into(),
                None => value(known.name, settings),
            };
            row![known.name, value, known.default, changes(known)]
        })
        .collect()
}

fn value(key: &str, settings: &PostgresSettings) -> Cell {
    match key {
        "admin_users" => settings.admin_users.join(",").into(),
        "stats_users" => settings.stats_users.join(",").into(),
        "auth_type" => settings.auth.name().into(),
        "auth_file" => path(settings.users_file.as_deref()),
        "auth_hba_file" => path(settings.hba_file.as_deref()),
        "auth_ident_file" => path(settings.ident_file.as_deref()),
        "query_timeout" => seconds(settings.query_timeout),
        "query_wait_timeout" => seconds(settings.query_wait_timeout),
        "transaction_timeout" => seconds(settings.transaction_timeout),
        "idle_transaction_timeout" => seconds(settings.idle_transaction_timeout),
        "client_idle_timeout" => seconds(settings.client_idle_timeout),
        "cancel_wait_timeout" => seconds(settings.cancel_wait_timeout),
        "client_login_timeout" => seconds(settings.login_timeout),
        "client_tls_cert_file" => {
            settings.tls.as_ref().map(|tls| tls.cert.display().to_string()).into()
        }
        "client_tls_key_file" => {
            settings.tls.as_ref().map(|tls| tls.key.display().to_string()).into()
        }
        "client_tls_sslmode" => match settings.tls.as_ref().and_then(|tls| tls.mode().ok()) {
            None | Some(ClientTlsMode::Disable) => "disable".into(),
            Some(ClientTlsMode::Allow) => "allow".into(),
            Some(ClientTlsMode::Prefer) => "prefer".into(),
            Some(ClientTlsMode::Require) => "require".into(),
            Some(ClientTlsMode::VerifyCa) => "verify-ca".into(),
            Some(ClientTlsMode::VerifyFull) => "verify-full".into(),
        },
        "listen_addr" => {
            let tcp = settings.listen.tcp();
            tcp.map(|address| address.ip().to_string()).collect::<Vec<_>>().join(",").into()
        }
        "listen_port" => settings.listen.port().to_string().into(),
        "unix_socket_dir" => settings.listen.folder().into(),
        "max_client_conn" => settings.max_clients.to_string().into(),
        "max_packet_size" => settings.max_message.to_string().into(),
        "max_prepared_statements" => settings.max_prepared_statements.to_string().into(),
        "pool_mode" => match settings.pool_mode {
            PoolMode::Transaction => "transaction".into(),
            PoolMode::Session => "session".into(),
        },
        "stats_period" => seconds(settings.stats_period),
        "suspend_timeout" => seconds(settings.suspend_timeout),
        "dns_max_ttl" => seconds(settings.dns_max_ttl),
        "default_pool_size" if settings.pool_size.is_some() => settings.pool_size.into(),
        "min_pool_size" => settings.min_pool_size.into(),
        "reserve_pool_size" => settings.reserve_pool_size.into(),
        "reserve_pool_timeout" => seconds(settings.reserve_pool_timeout),
        "max_db_connections" => settings.max_database_connections.into(),
        "max_user_connections" => settings.max_user_connections.into(),
        "max_db_client_connections" => settings.max_database_client_connections.into(),
        "max_user_client_connections" => settings.max_user_client_connections.into(),
        "auth_user" => lookup(settings, |query| Some(query.user.clone())),
        "auth_query" => lookup(settings, |query| Some(query.query.clone())),
        "auth_dbname" => lookup(settings, |query| query.database.clone()),
        "peer_id" => settings.fleet.as_ref().map_or(0, |fleet| fleet.id).into(),
        "client_tls_ca_file" => path(settings.tls.as_ref().and_then(|tls| tls.ca_file.as_deref())),
        "unix_socket_group" => settings.unix_socket_group.clone().into(),
        _ => of_server(key, settings),
    }
}

/// What each server has of its own, where there is but one, or all are alike.
fn of_server(key: &str, settings: &PostgresSettings) -> Cell {
    let mut values = settings.servers.values().map(|server| match key {
        "default_pool_size" => server.budget.into(),
        "server_connect_timeout" => seconds(server.connect_timeout),
        "server_idle_timeout" => seconds(server.idle_ttl),
        "server_lifetime" => seconds(server.lifetime),
        "server_check_delay" => seconds(server.probe_interval),
        _ => Cell::Null,
    });
    let Some(first) = values.next() else { return Cell::Null };
    if values.all(|value| value == first) { first } else { Cell::Null }
}

fn lookup(
    settings: &PostgresSettings,
    of: impl FnOnce(&AuthQuerySettings) -> Option<String>,
) -> Cell {
    settings.auth_query.as_ref().and_then(of).into()
}

fn path(path: Option<&Path>) -> Cell {
    path.map(|path| path.display().to_string()).into()
}

fn seconds(duration: Duration) -> Cell {
    match duration.subsec_millis() {
        0 => duration.as_secs().to_string().into(),
        _ => duration.as_secs_f64().to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tools_look_up_is_a_number() {
        for name in ["max_client_conn", "max_user_connections"] {
            let known = [KnownSetting { name, value: None, default: None, changeable: true }];
            let row = rows(&known, &PostgresSettings::default()).remove(0);
            assert!(row[1].text().unwrap().parse::<f64>().is_ok(), "{name}");
        }
    }
}
