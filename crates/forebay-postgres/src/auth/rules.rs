//! What the settings and their files say of how clients prove who they are.

use std::sync::Arc;

use super::hba::{Demand, Hba};
use super::ident::Maps;
use super::method::Method;
use super::userlist;
use crate::gateway::SettingsError;
use crate::settings::{ClientAuth, PostgresSettings};

/// The maps that `auth = "cert"` and `auth = "peer"` go by, where they are there.
const CERT_MAP: &str = "cert";
const PEER_MAP: &str = "peer";

/// Which demand a client meets.
pub(super) enum Rules {
    /// The same for all.
    One(Demand),
    Lines(Hba),
}

/// How `settings` want clients to prove who they are.
///
/// # Errors
/// A file that is missing, cannot be read or is wrong.
pub(super) fn rules(settings: &PostgresSettings) -> Result<(Rules, Maps), SettingsError> {
    let wrong = |key: &str, reason: String| SettingsError { at: format!("postgres.{key}"), reason };
    let maps = settings.ident_file.as_deref().map(Maps::read).transpose();
    let maps = maps.map_err(|error| wrong("ident_file", error.to_string()))?.unwrap_or_default();
    let map = |name: &str| maps.has(name).then(|| Arc::from(name));
    let rules = match settings.auth {
        ClientAuth::Hba => {
            let file = settings.hba_file.as_deref().ok_or_else(|| {
                wrong("hba_file", "`auth = \"hba\"` needs a file of rules: write `hba_file`".into())
            })?;
            let hba = Hba::read(file).map_err(|error| wrong("hba_file", error.to_string()))?;
            let maps_used =
                hba.rules().filter_map(|rule| Some((rule.line, rule.demand.map.clone()?)));
            for (line, used) in maps_used {
                if !maps.has(&used) {
                    let file = file.display();
                    let reason = format!("{file}, line {line}: `ident_file` has no map `{used}`");
                    return Err(wrong("hba_file", reason));
                }
            }
            Rules::Lines(hba)
        }
        ClientAuth::Trust => Rules::One(Demand::of(Method::Trust)),
        ClientAuth::Any => Rules::One(Demand::of(Method::Any)),
        ClientAuth::Password => Rules::One(Demand::of(Method::Password)),
        ClientAuth::Md5 => Rules::One(Demand::of(Method::Md5)),
        ClientAuth::ScramSha256 => Rules::One(Demand::of(Method::ScramSha256)),
        ClientAuth::Cert => Rules::One(Demand { map: map(CERT_MAP), ..Demand::of(Method::Cert) }),
        ClientAuth::Peer => Rules::One(Demand { map: map(PEER_MAP), ..Demand::of(Method::Peer) }),
    };
    Ok((rules, maps))
}

/// Checks what `settings` say of authentication: files are read, secrets of the configuration
/// are not.
///
/// # Errors
/// The first setting that cannot be carried out.
pub(crate) fn check(settings: &PostgresSettings) -> Result<(), SettingsError> {
    rules(settings)?;
    if let Some(file) = &settings.users_file {
        userlist::read(file).map_err(|error| SettingsError {
            at: "postgres.users_file".into(),
            reason: error.to_string(),
        })?;
    }
    let nobody =
        settings.users.is_empty() && settings.users_file.is_none() && settings.auth_query.is_none();
    if settings.auth.needs_secrets() && nobody {
        let reason = "nobody may log in: add [postgres.users.NAME] with a `password`, a \
                      `users_file` or [postgres.auth_query], or set `auth = \"trust\"`";
        return Err(SettingsError { at: "postgres.users".into(), reason: reason.into() });
    }
    Ok(())
}
