//! What proves to a server who we are. It is never shown: no `Debug`, no `Display`.

use forebay_seam::secret::{ExposeSecret, SecretString};

/// What we know of a user's password.
#[derive(Clone)]
pub(crate) enum Proof {
    /// The password: enough for every method.
    Password(SecretString),
    /// What a client's own SCRAM login left: enough for SCRAM-SHA-256 at a server that stores
    /// the same verifier.
    ScramKeys(Box<ScramKeys>),
    /// `md5` and 32 hexadecimal digits, as pg_authid stores it: enough for md5.
    Md5Hash(SecretString),
}

impl Proof {
    /// Of what stands in a configuration as a password: the hash that pg_authid stores for md5
    /// is taken for what it is, as PostgreSQL and PgBouncer take it.
    pub(crate) fn of_configured(password: SecretString) -> Self {
        let digits = password.expose_secret().strip_prefix("md5").unwrap_or_default();
        let is_hash = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hash { Self::Md5Hash(password) } else { Self::Password(password) }
    }
}

/// The keys of one password with one salt (RFC 5802, section 3).
#[derive(Clone)]
pub(crate) struct ScramKeys {
    pub(crate) client_key: [u8; 32],
    pub(crate) server_key: [u8; 32],
    /// Of the verifier that they belong to: a server with another one does not take them.
    pub(crate) salt: Vec<u8>,
    pub(crate) iterations: u32,
}
