//! What proves to a server who we are. It is never shown: no `Debug`, no `Display`.

use forebay_seam::secret::SecretString;

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

/// The keys of one password with one salt (RFC 5802, section 3).
#[derive(Clone)]
pub(crate) struct ScramKeys {
    pub(crate) client_key: [u8; 32],
    pub(crate) server_key: [u8; 32],
    /// Of the verifier that they belong to: a server with another one does not take them.
    pub(crate) salt: Vec<u8>,
    pub(crate) iterations: u32,
}
