//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS as the client (RFC 5802, RFC 7677, RFC 5929).
//!
//! The server may be hostile: every field is bounded before it is used, and it has to prove that
//! it knows the password as well.

use std::num::NonZeroU32;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use forebay_seam::random;

use super::proof::ScramKeys;
use crate::tls::Binding;

pub(super) const SCRAM: &str = "SCRAM-SHA-256";
pub(super) const SCRAM_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// A wrong server may ask for hashing without end (CVE-2026-6665's neighbour).
const MOST_ITERATIONS: u32 = 1_000_000;
/// Bytes of a message, a nonce, a salt that make sense.
const LONGEST_MESSAGE: usize = 2048;
const LONGEST_NONCE: usize = 512;
const LONGEST_SALT: usize = 512;
const KEY: usize = 32;

/// Why an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SaslError {
    #[error("the server's SCRAM challenge is not acceptable: {0}")]
    Challenge(&'static str),
    #[error("the server does not prove that it knows the password")]
    Stranger,
    #[error(
        "the server has another verifier of the password than the one the client logged in \
         with: the password was changed"
    )]
    OtherVerifier,
}

/// What is said of channel binding (`gs2-cbind-flag`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// Not possible, or not wanted.
    Nothing,
    /// Possible, and the server does not offer it: it notices if that was another's lie.
    NotOffered,
    Bound(Binding),
}

impl Said {
    pub(super) fn mechanism(&self) -> &'static str {
        match self {
            Self::Nothing | Self::NotOffered => SCRAM,
            Self::Bound(_) => SCRAM_PLUS,
        }
    }

    fn header(&self) -> &'static str {
        match self {
            Self::Nothing => "n,,",
            Self::NotOffered => "y,,",
            Self::Bound(_) => "p=tls-server-end-point,,",
        }
    }

    /// `c=`: the header, and what it binds to.
    fn encoded(&self) -> String {
        let mut bytes = self.header().as_bytes().to_vec();
        if let Self::Bound(binding) = self {
            bytes.extend_from_slice(binding.bytes());
        }
        BASE64.encode(bytes)
    }
}

/// An exchange before the server's challenge.
pub(super) struct Exchange {
    said: Said,
    bare: String,
    nonce: String,
}

impl Exchange {
    pub(super) fn new(said: Said) -> Self {
        let nonce = BASE64.encode(random::bytes::<18>());
        Self { said, bare: format!("n=,r={nonce}"), nonce }
    }

    pub(super) fn first(&self) -> String {
        format!("{}{}", self.said.header(), self.bare)
    }

    /// Reads the server's challenge.
    pub(super) fn challenge(self, message: &[u8]) -> Result<Challenge, SaslError> {
        let wrong = SaslError::Challenge;
        let text = Some(message).filter(|message| message.len() <= LONGEST_MESSAGE);
        let text = text.ok_or(wrong("it is too long"))?;
        let text = std::str::from_utf8(text).map_err(|_| wrong("it is no text"))?;
        let mut parts = text.split(',');
        let mut part = |name| parts.next().and_then(|part| part.strip_prefix(name));
        let nonce = part("r=").ok_or(wrong("the nonce is missing"))?;
        let ours = nonce.strip_prefix(&self.nonce).ok_or(wrong("the nonce is not ours"))?;
        if ours.is_empty() || nonce.len() > LONGEST_NONCE {
            return Err(wrong("the nonce has a wrong length"));
        }
        if !nonce.bytes().all(|byte| matches!(byte, b'!'..=b'~')) {
            return Err(wrong("the nonce is not printable"));
        }
        let salt = part("s=").ok_or(wrong("the salt is missing"))?;
        let salt = BASE64.decode(salt).map_err(|_| wrong("the salt is not base64"))?;
        if salt.is_empty() || salt.len() > LONGEST_SALT {
            return Err(wrong("the salt has a wrong length"));
        }
        let iterations = part("i=").ok_or(wrong("the iterations are missing"))?;
        let iterations: NonZeroU32 =
            iterations.parse().map_err(|_| wrong("the iterations are no number"))?;
        if iterations.get() > MOST_ITERATIONS {
            return Err(wrong("it asks for more iterations than 1000000"));
        }
        let without_proof = format!("c={},r={nonce}", self.said.encoded());
        let auth_message = format!("{},{text},{without_proof}", self.bare);
        Ok(Challenge { salt, iterations, without_proof, auth_message })
    }
}

/// An exchange after the server's challenge.
pub(super) struct Challenge {
    salt: Vec<u8>,
    iterations: NonZeroU32,
    without_proof: String,
    auth_message: String,
}

impl Challenge {
    /// The keys of `password`. Takes thousands of hashes.
    pub(super) fn keys_of(&self, password: &[u8]) -> ScramKeys {
        let prepared =
            std::str::from_utf8(password).ok().and_then(|p| stringprep::saslprep(p).ok());
        let password = prepared.as_ref().map_or(password, |prepared| prepared.as_bytes());
        let mut salted = [0; KEY];
        let hash = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::derive(hash, self.iterations, &self.salt, password, &mut salted);
        ScramKeys {
            client_key: mac(&salted, b"Client Key"),
            server_key: mac(&salted, b"Server Key"),
            salt: self.salt.clone(),
            iterations: self.iterations.get(),
        }
    }

    /// Our proof, and what the server has to prove in turn.
    pub(super) fn answer(&self, keys: &ScramKeys) -> Result<(String, Expected), SaslError> {
        if keys.salt != self.salt || keys.iterations != self.iterations.get() {
            return Err(SaslError::OtherVerifier);
        }
        let mut stored_key = [0; KEY];
        stored_key.copy_from_slice(digest::digest(&digest::SHA256, &keys.client_key).as_ref());
        let mut proof = mac(&stored_key, self.auth_message.as_bytes());
        proof.iter_mut().zip(keys.client_key).for_each(|(byte, key)| *byte ^= key);
        let last = format!("{},p={}", self.without_proof, BASE64.encode(proof));
        Ok((last, Expected(mac(&keys.server_key, self.auth_message.as_bytes()))))
    }
}

/// What a server that knows the password says last.
pub(super) struct Expected([u8; KEY]);

impl Expected {
    pub(super) fn check(&self, message: &[u8]) -> Result<(), SaslError> {
        let said = std::str::from_utf8(message).ok();
        let said = said.and_then(|text| text.split(',').next()?.strip_prefix("v="));
        let said = said.and_then(|said| BASE64.decode(said).ok()).unwrap_or_default();
        constant_time::verify_slices_are_equal(&said, &self.0).map_err(|_| SaslError::Stranger)
    }
}

fn mac(key: &[u8], text: &[u8]) -> [u8; KEY] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
    let mut out = [0; KEY];
    out.copy_from_slice(tag.as_ref());
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of RFC 7677, section 3.
    #[test]
    fn the_example_of_the_standard_comes_out() {
        let (nonce, bare) = ("rOprNGfwEbeRWgbNEkqO", "n=user,r=rOprNGfwEbeRWgbNEkqO");
        let exchange = Exchange { said: Said::Nothing, bare: bare.into(), nonce: nonce.into() };
        let challenge = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                         s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let challenge = exchange.challenge(challenge.as_bytes()).unwrap();
        let (last, expected) = challenge.answer(&challenge.keys_of(b"pencil")).unwrap();
        let proof = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                     p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(last, proof);
        let signature = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert_eq!(expected.check(signature.as_bytes()), Ok(()));
        for wrong in ["", "v=", "e=other-error", "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5="] {
            assert_eq!(expected.check(wrong.as_bytes()), Err(SaslError::Stranger));
        }
    }

    #[test]
    fn trap_49_a_challenge_that_makes_no_sense_is_refused() {
        let salt = "c2FsdA==";
        let (long, zeros) = ("x".repeat(600), "A".repeat(1600));
        for rest in [
            String::new(),
            format!("s={salt},i=4096"),
            format!("r=~,s={salt},i=0"),
            format!("r=~,s={salt},i=-1"),
            format!("r=~,s={salt},i=1000001"),
            format!("r=~,s={salt},i=99999999999999999999"),
            format!("r=~,s={salt}"),
            format!("r=~,s={salt},i="),
            "r=~,s=,i=4096".into(),
            "r=~,s=%%,i=4096".into(),
            "r=~,i=4096".into(),
            format!("r=~{long},s={salt},i=4096"),
            format!("r=~ ,s={salt},i=4096"),
            format!("r=~,s={zeros},i=4096"),
            format!("m=x,r=~,s={salt},i=4096"),
        ] {
            let exchange = Exchange::new(Said::Nothing);
            let message = rest.replace("r=~", &format!("r={}~", exchange.nonce));
            assert!(exchange.challenge(message.as_bytes()).is_err(), "{rest}");
        }
        let nonce = Exchange::new(Said::Nothing);
        let echo = format!("r={},s={salt},i=4096", nonce.nonce);
        assert!(nonce.challenge(echo.as_bytes()).is_err(), "our own nonce alone");
        let other = format!("r=other~,s={salt},i=4096");
        assert!(Exchange::new(Said::Nothing).challenge(other.as_bytes()).is_err());
    }

    #[test]
    fn keys_of_another_verifier_are_not_sent() {
        let exchange = Exchange::new(Said::Nothing);
        let challenge = format!("r={}~,s=c2FsdA==,i=4096", exchange.nonce);
        let challenge = exchange.challenge(challenge.as_bytes()).unwrap();
        let keys = challenge.keys_of(b"secret");
        let other = ScramKeys { iterations: 4097, ..keys.clone() };
        assert_eq!(challenge.answer(&other).err(), Some(SaslError::OtherVerifier));
        assert!(challenge.answer(&keys).is_ok());
    }

    proptest! {
        #[test]
        fn no_message_breaks_the_exchange(challenge: Vec<u8>, rest in "[ -~]{0,60}", last: Vec<u8>) {
            prop_assert!(Exchange::new(Said::Nothing).challenge(&challenge).is_err());
            let exchange = Exchange::new(Said::NotOffered);
            let begun = format!("r={}{rest}", exchange.nonce);
            drop(exchange.challenge(begun.as_bytes()));
            prop_assert!(Expected([7; KEY]).check(&last).is_err());
        }
    }
}
