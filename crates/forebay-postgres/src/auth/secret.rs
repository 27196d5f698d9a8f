//! What is known of a user's password: what a client's proof is checked against.
//!
//! Nothing here has `Debug`, `Display` or `Serialize`. What convinces servers is a [`Proof`].

use std::sync::{Arc, OnceLock};

use aws_lc_rs::constant_time;
use forebay_seam::random;
use forebay_seam::secret::{ExposeSecret, SecretString};
use md5::{Digest, Md5};

use super::scram::{Salted, Salting, Verifier};
use crate::server::proof::Proof;

/// What a client's proof is checked against.
#[derive(Clone)]
pub(crate) enum Secret {
    /// The password itself.
    Plain(Arc<Plain>),
    /// `md5` and the MD5 of password and user, as pg_authid has it.
    Md5(Md5Hash),
    /// A SCRAM verifier, as pg_authid has it.
    Scram(Arc<Verifier>),
}

/// A password, and the verifier that we make of it once.
pub(crate) struct Plain {
    pub(crate) password: SecretString,
    verifier: OnceLock<Arc<Verifier>>,
}

impl Plain {
    /// The verifier, if it was made.
    pub(crate) fn verifier(&self) -> Option<Arc<Verifier>> {
        self.verifier.get().cloned()
    }

    /// Makes the verifier. Blocks for milliseconds, unless it was made before.
    pub(crate) fn make_verifier(&self) -> Arc<Verifier> {
        let make = || {
            let salting = Salting::usual(random::bytes());
            Arc::new(Salted::new(&self.password, &salting).verifier(salting))
        };
        Arc::clone(self.verifier.get_or_init(make))
    }
}

/// What is wrong with a stored secret. Never says what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "it begins like a SCRAM verifier, and is none: write \
     SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY"
)]
pub(crate) struct NoVerifier;

impl Secret {
    /// What `text` is, by how it looks: as PostgreSQL and PgBouncer tell them apart.
    pub(crate) fn read(text: SecretString) -> Result<Self, NoVerifier> {
        let shown = text.expose_secret();
        if shown.starts_with(Verifier::PREFIX) {
            let verifier = Verifier::parse(shown).ok_or(NoVerifier)?;
            return Ok(Self::Scram(Arc::new(verifier)));
        }
        Ok(match Md5Hash::parse(shown) {
            Some(hash) => Self::Md5(hash),
            None => Self::Plain(Arc::new(Plain { password: text, verifier: OnceLock::new() })),
        })
    }

    /// What a server can be told without anybody's proof.
    pub(crate) fn proof(&self) -> Option<Proof> {
        match self {
            Self::Plain(plain) => Some(Proof::Password(plain.password.clone())),
            Self::Md5(hash) => Some(Proof::Md5Hash(hash.stored())),
            Self::Scram(_) => None,
        }
    }

    /// The same secret?
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Plain(a), Self::Plain(b)) => {
                same(a.password.expose_secret().as_bytes(), b.password.expose_secret().as_bytes())
            }
            (Self::Md5(a), Self::Md5(b)) => a == b,
            (Self::Scram(a), Self::Scram(b)) => a == b,
            (Self::Plain(_) | Self::Md5(_) | Self::Scram(_), _) => false,
        }
    }
}

/// The MD5 of a password and its user, in hexadecimal, without `md5`.
#[derive(Clone, PartialEq, Eq, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub(crate) struct Md5Hash(String);

impl Md5Hash {
    fn parse(text: &str) -> Option<Self> {
        let hash = text.strip_prefix("md5").filter(|hash| hash.len() == 32)?;
        let is_hex = hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| Self(hash.to_ascii_lowercase()))
    }

    /// What pg_authid would store of `password`.
    pub(crate) fn of(user: &str, password: &SecretString) -> Self {
        Self(hex(&[password.expose_secret().as_bytes(), user.as_bytes()]))
    }

    /// As pg_authid has it.
    pub(crate) fn stored(&self) -> SecretString {
        SecretString::from(format!("md5{}", self.0))
    }

    /// The hash of somebody who does not exist.
    pub(crate) fn of_nobody(secret: &[u8; 32], user: &str) -> Self {
        Self(hex(&[secret, user.as_bytes()]))
    }

    /// What is sent where `salt` was asked for (AuthenticationMD5Password).
    pub(crate) fn answer(&self, salt: [u8; 4]) -> SecretString {
        SecretString::from(format!("md5{}", hex(&[self.0.as_bytes(), &salt])))
    }

    /// Is `answer` what is sent where `salt` was asked for?
    pub(crate) fn is_answered(&self, salt: [u8; 4], answer: &[u8]) -> bool {
        same(self.answer(salt).expose_secret().as_bytes(), answer)
    }

    /// Is it the hash of `password`?
    pub(crate) fn fits(&self, user: &str, password: &SecretString) -> bool {
        same(self.0.as_bytes(), Self::of(user, password).0.as_bytes())
    }
}

/// Are both the same? Says nothing of where they differ.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

fn hex(parts: &[&[u8]]) -> String {
    let mut hash = Md5::new();
    parts.iter().for_each(|part| hash.update(part));
    let digit = |n: u8| char::from_digit(u32::from(n), 16).unwrap_or('0');
    hash.finalize().iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use postgres_protocol::authentication::md5_hash;

    use super::*;

    fn secret(text: &str) -> SecretString {
        SecretString::from(text.to_owned())
    }

    #[test]
    fn an_md5_answer_is_the_one_of_every_driver() {
        let (salt, password) = ([1, 2, 3, 4], secret("pässword"));
        let driver = md5_hash(b"bob", "pässword".as_bytes(), salt);
        let hash = Md5Hash::of("bob", &password);
        assert!(hash.is_answered(salt, driver.as_bytes()) && hash.fits("bob", &password));
        assert!(!hash.is_answered([0; 4], driver.as_bytes()));
        assert!(!hash.is_answered(salt, b"") && !hash.fits("bob", &secret("x")));
    }

    #[test]
    fn a_secret_is_told_by_its_looks() {
        let kind = |text: &str| match Secret::read(secret(text)) {
            Ok(Secret::Plain(_)) => "plain",
            Ok(Secret::Md5(_)) => "md5",
            Ok(Secret::Scram(_)) => "scram",
            Err(NoVerifier) => "broken",
        };
        assert_eq!(kind("hunter2"), "plain");
        assert_eq!(kind("md5A5b7e9f2d3c1b0a99887766554433221"), "md5");
        assert_eq!(kind("md5 is no good password"), "plain");
        assert_eq!(kind(&postgres_protocol::password::scram_sha_256(b"x")), "scram");
        assert_eq!(kind("SCRAM-SHA-256$x"), "broken");
    }
}
