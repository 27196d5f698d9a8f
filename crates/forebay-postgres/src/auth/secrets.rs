//! The secrets of users that are listed, in the configuration and in `users_file`: read once,
//! when a configuration is applied.
//!
//! Always true: what the configuration says of a user goes before what the file says.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;

use forebay_seam::secret::SecretRef;

use super::secret::{Plain, Secret};
use super::userlist;
use crate::gateway::SettingsError;
use crate::server::connector::Credentials;
use crate::server::proof::Proof;
use crate::settings::{ClientAuth, PostgresSettings};

/// What is listed.
#[derive(Default)]
pub(crate) struct Secrets(HashMap<Arc<str>, Listed>);

/// A user that is listed.
struct Listed {
    secret: Option<Secret>,
    at_server: Credentials,
}

impl Secrets {
    /// Reads what `settings` name. Blocks: on files, commands, and for some milliseconds of
    /// hashing for each password that is not among those of `before`.
    ///
    /// # Errors
    /// The first secret that cannot be read or used.
    pub(crate) fn read(
        settings: &PostgresSettings,
        before: Option<&Self>,
    ) -> Result<Self, SettingsError> {
        let mut listed = from_file(settings)?;
        for (name, user) in &settings.users {
            let at = |key: &str| format!("postgres.users.{name}.{key}");
            let read = |key: &str, secret: &Option<SecretRef>| {
                let read = secret.as_ref().map(SecretRef::read).transpose();
                read.map_err(|error| SettingsError { at: at(key), reason: error.to_string() })
            };
            let own = read("password", &user.password)?.map(Secret::read).transpose();
            let own = own
                .map_err(|wrong| SettingsError { at: at("password"), reason: wrong.to_string() })?;
            let secret = own.or_else(|| listed.remove(name.as_str())?.secret);
            let there = read("server_password", &user.server_password)?.map(Proof::of_configured);
            let proof = there.or_else(|| {
                secret.as_ref().filter(|_| user.server_user.is_none()).and_then(Secret::proof)
            });
            let server_user = user.server_user.clone().unwrap_or_else(|| name.clone());
            let at_server = Credentials { user: server_user, proof };
            listed.insert(Arc::from(name.as_str()), Listed { secret, at_server });
        }
        let mut secrets = Self(listed);
        if let Some(before) = before {
            secrets.take_over(before);
        }
        if !matches!(settings.auth, ClientAuth::Md5 | ClientAuth::Trust | ClientAuth::Any) {
            secrets.make_verifiers();
        }
        Ok(secrets)
    }

    /// What has not changed keeps the verifier that was made of it.
    fn take_over(&mut self, before: &Self) {
        for (name, listed) in &mut self.0 {
            let known = before.of(name).flatten();
            if let (Some(secret), Some(known)) = (&mut listed.secret, known)
                && secret.is(known)
            {
                *secret = known.clone();
            }
        }
    }

    /// Makes verifiers of passwords, so that no login has to: with all processors.
    fn make_verifiers(&self) {
        let all: Vec<&Plain> = self
            .0
            .values()
            .filter_map(|listed| match listed.secret.as_ref()? {
                Secret::Plain(plain) => Some(&**plain),
                Secret::Md5(_) | Secret::Scram(_) => None,
            })
            .filter(|plain| plain.verifier().is_none())
            .collect();
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let share = all.len().div_ceil(threads).max(1);
        thread::scope(|scope| {
            for share in all.chunks(share) {
                scope.spawn(move || {
                    for plain in share {
                        drop(plain.make_verifier());
                    }
                });
            }
        });
    }

    /// What is listed of `user`: nothing, a user without a secret, or its secret.
    pub(crate) fn of(&self, user: &str) -> Option<Option<&Secret>> {
        self.0.get(user).map(|listed| listed.secret.as_ref())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How `user` logs in to servers, where it is listed.
    pub(crate) fn credentials_of(&self, user: &str) -> Option<&Credentials> {
        self.0.get(user).map(|listed| &listed.at_server)
    }

    /// How the users log in to servers.
    pub(crate) fn credentials(&self) -> HashMap<Arc<str>, Credentials> {
        let of =
            |(user, listed): (&Arc<str>, &Listed)| (Arc::clone(user), listed.at_server.clone());
        self.0.iter().map(of).collect()
    }

    pub(crate) fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.0.values().filter_map(|listed| listed.secret.as_ref())
    }
}

fn from_file(settings: &PostgresSettings) -> Result<HashMap<Arc<str>, Listed>, SettingsError> {
    let Some(file) = &settings.users_file else { return Ok(HashMap::new()) };
    let wrong = |reason| SettingsError { at: "postgres.users_file".into(), reason };
    let entries = userlist::read(file).map_err(|error| wrong(error.to_string()))?;
    let mut listed = HashMap::new();
    for userlist::Entry { line, user, secret } in entries {
        let secret = secret.map(Secret::read).transpose();
        let secret =
            secret.map_err(|error| wrong(format!("{}, line {line}: {error}", file.display())))?;
        let proof = secret.as_ref().and_then(Secret::proof);
        let at_server = Credentials { user: user.clone(), proof };
        listed.insert(Arc::from(user), Listed { secret, at_server });
    }
    Ok(listed)
}
