//! SCRAM-SHA-256 towards clients (RFC 5802, RFC 7677), against stored verifiers.
//!
//! A verifier holds no password: `H(proof xor HMAC(StoredKey, AuthMessage)) == StoredKey`.
//! A user who does not exist gets a verifier that nobody can satisfy, with a salt that is
//! the same each time, so the exchange looks and lasts the same.

use aws_lc_rs::{constant_time, digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use forebay_seam::random;

/// What the client is offered.
pub(crate) const MECHANISM: &str = "SCRAM-SHA-256";
/// PostgreSQL's default (scram_iterations).
const ITERATIONS: u32 = 4096;
const KEY: usize = 32;
/// A longer nonce serves nobody.
const LONGEST_NONCE: usize = 256;

/// `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`, as in pg_authid.
pub(crate) struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: [u8; KEY],
    server_key: [u8; KEY],
}

/// Why an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScramError {
    /// SQLSTATE 08P01.
    #[error("malformed SCRAM message: {0}")]
    Malformed(&'static str),
    /// SQLSTATE 28P01.
    #[error("the proof does not fit")]
    WrongPassword,
}

impl Verifier {
    /// Reads a stored verifier; `None` if `text` is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("SCRAM-SHA-256$")?;
        let (head, keys) = rest.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        let key = |text| BASE64.decode(text).ok()?.try_into().ok();
        Some(Self {
            iterations: iterations.parse().ok().filter(|n| *n > 0)?,
            salt: BASE64.decode(salt).ok().filter(|s| !s.is_empty())?,
            stored_key: key(stored)?,
            server_key: key(server)?,
        })
    }

    /// For a user who does not exist: nobody knows its key, and its salt is always the same.
    pub(crate) fn of_nobody(secret: &[u8; KEY], user: &str) -> Self {
        let salt = mac(secret, user.as_bytes()).into_iter().take(16).collect();
        let stored_key = mac(secret, b"no client key has this hash");
        Self { iterations: ITERATIONS, salt, stored_key, server_key: stored_key }
    }
}

fn mac(key: &[u8], text: &[u8]) -> [u8; KEY] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
    let mut out = [0; KEY];
    out.copy_from_slice(tag.as_ref());
    out
}

fn hash(bytes: &[u8]) -> [u8; KEY] {
    let mut out = [0; KEY];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// The exchange after the client's first message was answered.
pub(crate) struct Challenge {
    verifier: Verifier,
    gs2_header: String,
    client_first_bare: String,
    server_first: String,
    nonce: String,
}

impl Challenge {
    /// Answers the client's first message: `n,,n=user,r=nonce`.
    pub(crate) fn new(
        verifier: Verifier,
        client_first: &[u8],
    ) -> Result<(Self, String), ScramError> {
        let ours = BASE64.encode(random::bytes::<18>());
        Self::with_nonce(verifier, client_first, &ours)
    }

    fn with_nonce(
        verifier: Verifier,
        client_first: &[u8],
        ours: &str,
    ) -> Result<(Self, String), ScramError> {
        let text = text(client_first)?;
        let mut parts = text.splitn(3, ',');
        let (binding, authzid, bare) = (parts.next(), parts.next(), parts.next());
        let (Some(binding @ ("n" | "y")), Some(authzid), Some(bare)) = (binding, authzid, bare)
        else {
            return Err(ScramError::Malformed("no channel binding was offered"));
        };
        if !authzid.is_empty() {
            return Err(ScramError::Malformed("an authorization identity is not supported"));
        }
        let mut attributes = bare.split(',');
        let (user, nonce) = (attributes.next(), attributes.next());
        if user.is_none_or(|user| !user.starts_with("n=")) {
            return Err(ScramError::Malformed("the user is missing"));
        }
        let theirs = nonce
            .and_then(|nonce| nonce.strip_prefix("r="))
            .filter(|nonce| (1..=LONGEST_NONCE).contains(&nonce.len()) && nonce.is_ascii())
            .ok_or(ScramError::Malformed("the nonce is missing or too long"))?;
        let nonce = format!("{theirs}{ours}");
        let salt = BASE64.encode(&verifier.salt);
        let server_first = format!("r={nonce},s={salt},i={}", verifier.iterations);
        let challenge = Self {
            gs2_header: format!("{binding},,"),
            client_first_bare: bare.to_owned(),
            server_first: server_first.clone(),
            nonce,
            verifier,
        };
        Ok((challenge, server_first))
    }

    /// Checks the client's final message; the answer proves that we know the verifier.
    pub(crate) fn finish(self, client_final: &[u8]) -> Result<String, ScramError> {
        let text = text(client_final)?;
        let (without_proof, proof) =
            text.rsplit_once(",p=").ok_or(ScramError::Malformed("the proof is missing"))?;
        let mut attributes = without_proof.split(',');
        let binding = attributes.next().and_then(|c| c.strip_prefix("c="));
        if binding != Some(BASE64.encode(&self.gs2_header).as_str()) {
            return Err(ScramError::Malformed("the channel binding changed"));
        }
        if attributes.next().and_then(|r| r.strip_prefix("r=")) != Some(self.nonce.as_str()) {
            return Err(ScramError::Malformed("the nonce changed"));
        }
        let proof: [u8; KEY] = BASE64
            .decode(proof)
            .ok()
            .and_then(|proof| proof.try_into().ok())
            .ok_or(ScramError::Malformed("the proof has no length of 32 bytes"))?;
        let auth_message =
            format!("{},{},{without_proof}", self.client_first_bare, self.server_first);
        let signature = mac(&self.verifier.stored_key, auth_message.as_bytes());
        let mut client_key = proof;
        client_key.iter_mut().zip(signature).for_each(|(key, byte)| *key ^= byte);
        constant_time::verify_slices_are_equal(&hash(&client_key), &self.verifier.stored_key)
            .map_err(|_| ScramError::WrongPassword)?;
        let server_signature = mac(&self.verifier.server_key, auth_message.as_bytes());
        Ok(format!("v={}", BASE64.encode(server_signature)))
    }
}

fn text(message: &[u8]) -> Result<&str, ScramError> {
    std::str::from_utf8(message).map_err(|_| ScramError::Malformed("it is no text"))
}

#[cfg(test)]
mod tests {
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
    use proptest::prelude::*;

    use super::*;

    /// Logs in with libpq's counterpart in Rust against `verifier`.
    fn log_in(verifier: Verifier, password: &str) -> Result<(), ScramError> {
        let mut client = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        let (challenge, first) = Challenge::new(verifier, client.message())?;
        client.update(first.as_bytes()).unwrap();
        let last = challenge.finish(client.message())?;
        client.finish(last.as_bytes()).unwrap();
        Ok(())
    }

    #[test]
    fn the_right_password_gets_in_and_no_other() {
        let stored = postgres_protocol::password::scram_sha_256("pässword".as_bytes());
        let verifier = || Verifier::parse(&stored).unwrap();
        assert_eq!(log_in(verifier(), "pässword"), Ok(()));
        assert_eq!(log_in(verifier(), "password"), Err(ScramError::WrongPassword));
    }

    #[test]
    fn a_verifier_that_postgres_stored_is_understood() {
        let stored = postgres_protocol::password::scram_sha_256(b"hunter2");
        assert_eq!(log_in(Verifier::parse(&stored).unwrap(), "hunter2"), Ok(()));
        for bad in ["", "md5abc", "SCRAM-SHA-256$0:AA==$AA==:AA==", "SCRAM-SHA-256$4096:$x:y"] {
            assert!(Verifier::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn nobody_logs_in_as_nobody_and_the_salt_is_steady() {
        let secret = random::bytes();
        let salt = |user| Verifier::of_nobody(&secret, user).salt;
        assert_eq!(salt("a"), salt("a"));
        assert_ne!(salt("a"), salt("b"));
        assert_eq!(log_in(Verifier::of_nobody(&secret, "a"), ""), Err(ScramError::WrongPassword));
    }

    proptest! {
        #[test]
        fn no_message_breaks_the_exchange(first: Vec<u8>, last: Vec<u8>, nonce in "[ -~]{0,40}") {
            let nobody = || Verifier::of_nobody(&[7; 32], "x");
            prop_assert!(Challenge::new(nobody(), &first).is_err());
            let good = format!("n,,n=,r=x{}", nonce.replace(',', ""));
            let (challenge, _) = Challenge::new(nobody(), good.as_bytes()).unwrap();
            prop_assert!(challenge.finish(&last).is_err());
        }
    }
}
