//! TLS, towards applications and towards servers.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// `[postgres.tls]`: TLS towards applications. Its files are read anew when they change.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientTls {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
    /// Certificates that may sign those of applications, PEM. Applications are asked for a
    /// certificate then, and one that is shown must be good; without one they may come where
    /// `mode` is below `verify-ca`. Default: nobody is asked.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Who uses TLS. Default `prefer`, and `require` where `required` is true.
    #[serde(default)]
    pub mode: Option<ClientTlsMode>,
    /// The lowest version. Default 1.2.
    #[serde(default)]
    pub min_version: Option<TlsVersion>,
    /// The highest version. Default 1.3.
    #[serde(default)]
    pub max_version: Option<TlsVersion>,
    /// Cipher suites, the best first, by their names at IANA or in OpenSSL. A version of TLS
    /// for which none is named is not offered. Default: all that are safe.
    #[serde(default)]
    pub ciphers: Vec<String>,
    /// Older name of `mode = "require"`. Default false.
    #[serde(default)]
    pub required: bool,
}

impl ClientTls {
    /// Who uses TLS.
    ///
    /// # Errors
    /// When `required` says something else than `mode`.
    pub fn mode(&self) -> Result<ClientTlsMode, String> {
        match (self.mode, self.required) {
            (None, false) => Ok(ClientTlsMode::Prefer),
            (None, true) => Ok(ClientTlsMode::Require),
            (Some(mode), false) => Ok(mode),
            (Some(mode), true) if mode.is_required() => Ok(mode),
            (Some(_), true) => {
                Err("`required = true` contradicts `mode`: leave `required` out".to_owned())
            }
        }
    }
}

/// Who uses TLS towards us; as PgBouncer's `client_tls_sslmode`. Unix sockets have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClientTlsMode {
    /// Nobody.
    Disable,
    /// Who asks for it.
    Allow,
    /// Who asks for it.
    Prefer,
    /// Everybody.
    Require,
    /// Everybody, with a certificate that `ca_file` has signed.
    VerifyCa,
    /// As `verify-ca`.
    VerifyFull,
}

impl ClientTlsMode {
    /// Are those refused that use none?
    pub fn is_required(self) -> bool {
        match self {
            Self::Disable | Self::Allow | Self::Prefer => false,
            Self::Require | Self::VerifyCa | Self::VerifyFull => true,
        }
    }

    /// Are those refused that show no certificate?
    pub fn asks_for_certificate(self) -> bool {
        match self {
            Self::Disable | Self::Allow | Self::Prefer | Self::Require => false,
            Self::VerifyCa | Self::VerifyFull => true,
        }
    }
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    V1_3,
}

/// TLS towards a server: the names and meanings of libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only if the server refuses plaintext.
    Allow,
    /// If the server can; without looking at its certificate.
    #[default]
    Prefer,
    /// Always; without looking at its certificate, unless `sslrootcert` is set.
    Require,
    /// Always, and the certificate must be signed by a trusted authority.
    VerifyCa,
    /// Always, and the certificate must also be made out for the server's host name.
    VerifyFull,
}

/// How TLS with a server begins: libpq's `sslnegotiation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SslNegotiation {
    /// The server is asked first.
    #[default]
    Postgres,
    /// At once, a round trip sooner: PostgreSQL 17 and later.
    Direct,
}

/// Whether logins to a server are bound to its TLS session, so that nobody can stand between:
/// libpq's `channel_binding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Where the server offers it (SCRAM-SHA-256-PLUS).
    #[default]
    Prefer,
    /// Always: any other login fails.
    Require,
}

/// The newest protocol that a server is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
pub enum ProtocolVersion {
    /// 3.0: what every server and every pooler speaks.
    #[default]
    #[serde(rename = "3.0")]
    V3_0,
    /// 3.2: PostgreSQL 18 gives keys for cancel requests then that cannot be guessed. Older
    /// servers speak 3.0 all the same.
    #[serde(rename = "3.2")]
    V3_2,
}
