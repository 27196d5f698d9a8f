//! What an operator sets for how clients prove who they are.

use std::time::Duration;

use forebay_seam::secret::SecretRef;
use schemars::JsonSchema;
use serde::Deserialize;

/// How applications prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAuth {
    /// By password, which never crosses the wire (RFC 5802, RFC 7677), bound to the TLS session
    /// where the client can (SCRAM-SHA-256-PLUS).
    #[default]
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// By password, hashed with MD5, which is weak; by SCRAM where a SCRAM verifier is stored.
    Md5,
    /// By password in clear text: over TLS and Unix sockets only, unless
    /// `cleartext_without_tls`.
    Password,
    /// By a TLS client certificate whose common name is the user, or is mapped to it by the map
    /// `cert` of `ident_file`, where that has one.
    Cert,
    /// By the name of the process's user on this machine, over Unix sockets; mapped by the map
    /// `peer` of `ident_file`, where that has one.
    Peer,
    /// As the first line of `hba_file` says that fits the client.
    Hba,
    /// Not at all: whoever reaches the port is who they say. Where users are known
    /// (`[postgres.users]`, `users_file`, `[postgres.auth_query]`) it must be one of them.
    Trust,
    /// Not at all, and whoever they say.
    Any,
}

impl ClientAuth {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::ScramSha256 => "scram-sha-256",
            Self::Md5 => "md5",
            Self::Password => "password",
            Self::Cert => "cert",
            Self::Peer => "peer",
            Self::Hba => "hba",
            Self::Trust => "trust",
            Self::Any => "any",
        }
    }

    /// Does it need to know users' passwords, or what is stored of them?
    pub fn needs_secrets(self) -> bool {
        match self {
            Self::ScramSha256 | Self::Md5 | Self::Password => true,
            Self::Cert | Self::Peer | Self::Hba | Self::Trust | Self::Any => false,
        }
    }
}

/// `[postgres.auth_query]`: users that are in no list are looked up on the server.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthQuerySettings {
    /// As whom to ask. It needs to read pg_authid, or to call a function that does.
    pub user: String,
    /// Its password. Default: that of `[postgres.users.USER]` or of `users_file`.
    #[serde(default)]
    pub password: Option<SecretRef>,
    /// What to ask, with the user's name as `$1`: one row of the name and what is stored of the
    /// password, which is NULL for who may not log in. Names are looked up in `pg_catalog`
    /// only, so write the schema. Default: pg_authid, without users that may not log in or
    /// whose password has expired.
    #[serde(default = "AuthQuerySettings::default_query")]
    pub query: String,
    /// In which of our databases to ask. Default: the one the client wants; `postgres` where
    /// no databases are configured.
    #[serde(default)]
    pub database: Option<String>,
    /// How long an answer counts while the server does not give another one: a login waits a
    /// quarter of a second for that. Default 60s.
    #[serde(default = "cache_ttl", with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub cache_ttl: Duration,
}

impl AuthQuerySettings {
    /// How long an answer counts where nothing else is set.
    pub(crate) const TTL: Duration = Duration::from_secs(60);

    /// What is asked where nothing else is set: what PgBouncer asks since 1.25, with every
    /// name's schema.
    pub(crate) fn default_query() -> String {
        "SELECT rolname, CASE WHEN rolvaliduntil OPERATOR(pg_catalog.<) pg_catalog.now() \
         THEN NULL ELSE rolpassword END FROM pg_catalog.pg_authid \
         WHERE rolname OPERATOR(pg_catalog.=) $1 AND rolcanlogin"
            .into()
    }
}

fn cache_ttl() -> Duration {
    AuthQuerySettings::TTL
}
