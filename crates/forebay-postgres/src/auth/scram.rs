//! SCRAM-SHA-256 (RFC 5802, RFC 7677) towards clients: the keys, and what a verifier is; the
//! exchange is in `server`. Towards servers it is in `server::sasl`.
//!
//! Knows no sockets. Keys have no `Debug` and are wiped when dropped. Always true: nothing here
//! hashes a password but [`Salted::new`], which a caller runs off the threads that serve.

pub(crate) mod server;

use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use forebay_seam::secret::{ExposeSecret, SecretString};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// What is offered without channel binding.
pub(crate) const MECHANISM: &str = "SCRAM-SHA-256";
/// What is offered besides, where a TLS session can be bound to.
pub(crate) const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";
/// The only kind of binding that PostgreSQL knows (RFC 5929).
const BINDING: &str = "tls-server-end-point";
/// PostgreSQL's default (scram_iterations).
pub(crate) const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("4096 is not zero");
/// Length of each key.
pub(crate) const KEY: usize = 32;
/// Length of a salt that we choose: PostgreSQL's.
const SALT: usize = 16;
/// A verifier with a longer salt or more iterations than these is a mistake or an attack.
const LONGEST_SALT: usize = 1024;
const MOST_ITERATIONS: u32 = 10_000_000;

/// One of the protocol's keys.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Key([u8; KEY]);

impl Key {
    fn mac(&self, text: &[u8]) -> [u8; KEY] {
        mac(&self.0, text)
    }

    /// What a client's proof is: the key, hidden by a signature; and back.
    fn xor(&self, signature: [u8; KEY]) -> Self {
        let mut bytes = signature;
        bytes.iter_mut().zip(self.0).for_each(|(byte, key)| *byte ^= key);
        Self(bytes)
    }

    fn hash(&self) -> [u8; KEY] {
        let mut out = [0; KEY];
        out.copy_from_slice(digest::digest(&digest::SHA256, &self.0).as_ref());
        out
    }
}

fn mac(key: &[u8], text: &[u8]) -> [u8; KEY] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
    let mut out = [0; KEY];
    out.copy_from_slice(tag.as_ref());
    out
}

/// How a password is salted.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Salting {
    pub(crate) salt: Vec<u8>,
    pub(crate) iterations: NonZeroU32,
}

impl Salting {
    /// PostgreSQL's usual way, with `salt` of ours.
    pub(crate) fn usual(salt: [u8; SALT]) -> Self {
        Self { salt: salt.to_vec(), iterations: ITERATIONS }
    }
}

/// A salted password: what all keys are made of.
pub(crate) struct Salted(Key);

impl Salted {
    /// Thousands of hashes: blocks for milliseconds.
    pub(crate) fn new(password: &SecretString, salting: &Salting) -> Self {
        let text = password.expose_secret();
        // As PostgreSQL does: what cannot be prepared is taken as it is.
        let mut prepared = stringprep::saslprep(text)
            .map_or_else(|_| text.as_bytes().to_vec(), |text| text.as_bytes().to_vec());
        let mut out = [0; KEY];
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::derive(algorithm, salting.iterations, &salting.salt, &prepared, &mut out);
        prepared.zeroize();
        Self(Key(out))
    }

    fn client_key(&self) -> Key {
        Key(self.0.mac(b"Client Key"))
    }

    fn server_key(&self) -> Key {
        Key(self.0.mac(b"Server Key"))
    }

    /// What a server would store of it.
    pub(crate) fn verifier(&self, salting: Salting) -> Verifier {
        let stored_key = self.client_key().hash();
        Verifier { salting, stored_key, server_key: self.server_key() }
    }
}

/// What is stored of a password: enough to check a proof, not enough to give one.
/// `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`, as in pg_authid.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Verifier {
    pub(crate) salting: Salting,
    stored_key: [u8; KEY],
    server_key: Key,
}

impl Verifier {
    /// How a stored verifier begins.
    pub(crate) const PREFIX: &str = "SCRAM-SHA-256$";

    /// Reads a stored verifier; `None` if `text` is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(Self::PREFIX)?;
        let (head, keys) = rest.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        let key = |text| BASE64.decode(text).ok()?.try_into().ok();
        let iterations = iterations.parse().ok().filter(|n: &u32| *n <= MOST_ITERATIONS)?;
        let salt = BASE64.decode(salt).ok();
        Some(Self {
            salting: Salting {
                salt: salt.filter(|salt| (1..=LONGEST_SALT).contains(&salt.len()))?,
                iterations: NonZeroU32::new(iterations)?,
            },
            stored_key: key(stored)?,
            server_key: Key(key(server)?),
        })
    }

    /// For a user who does not exist: nobody knows its key, and its salt is always the same.
    pub(crate) fn of_nobody(secret: &[u8; KEY], user: &str) -> Self {
        let mut salt = [0; SALT];
        salt.iter_mut().zip(mac(secret, user.as_bytes())).for_each(|(to, from)| *to = from);
        let stored_key = mac(secret, b"no client key has this hash");
        Self { salting: Salting::usual(salt), stored_key, server_key: Key(stored_key) }
    }

    /// Is it made of this password?
    pub(crate) fn fits(&self, salted: &Salted) -> bool {
        let stored_key = salted.client_key().hash();
        aws_lc_rs::constant_time::verify_slices_are_equal(&stored_key, &self.stored_key).is_ok()
    }
}

/// Why an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScramError {
    /// SQLSTATE 08P01.
    #[error("malformed SCRAM message: {0}")]
    Malformed(&'static str),
    /// What one side offers and the other uses do not fit: somebody stands between. SQLSTATE
    /// 28000.
    #[error("SCRAM channel binding negotiation error")]
    Downgrade,
    /// The binding is to another TLS session: somebody stands between. SQLSTATE 28000.
    #[error("SCRAM channel binding check failed")]
    Binding,
    /// SQLSTATE 28P01.
    #[error("the proof does not fit")]
    WrongPassword,
}

fn text(message: &[u8]) -> Result<&str, ScramError> {
    std::str::from_utf8(message).map_err(|_| ScramError::Malformed("it is no text"))
}

#[cfg(test)]
mod tests;
