//! SCRAM-SHA-256 towards clients, against stored verifiers.
//!
//! A verifier holds no password: `H(proof xor HMAC(StoredKey, AuthMessage)) == StoredKey`.
//! Whoever gives the right proof gives the client's key with it, which is what a login to the
//! server needs. A user who does not exist gets a verifier that nobody can satisfy, so the
//! exchange looks and lasts the same.

use std::sync::Arc;

use aws_lc_rs::constant_time;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use forebay_seam::random;

use super::{BINDING, KEY, Key, ScramError, Verifier, mac, text};
use crate::server::proof::ScramKeys;

/// A longer nonce serves nobody.
const LONGEST_NONCE: usize = 256;

/// What the client chose of what was offered.
#[derive(Clone, Copy)]
pub(crate) enum Chosen<'a> {
    /// SCRAM-SHA-256, and nothing else was offered.
    Only,
    /// SCRAM-SHA-256, though PLUS was offered, too.
    WithoutBinding,
    /// SCRAM-SHA-256-PLUS, bound to the TLS session with this hash of its certificate.
    Plus(&'a [u8]),
}

/// The exchange after the client's first message was answered.
pub(crate) struct Challenge {
    verifier: Arc<Verifier>,
    /// What `c=` must be.
    binding: String,
    client_first_bare: String,
    server_first: String,
    nonce: String,
}

impl Challenge {
    /// Answers the client's first message: `n,,n=user,r=nonce`.
    pub(crate) fn new(
        verifier: Arc<Verifier>,
        chosen: Chosen<'_>,
        client_first: &[u8],
    ) -> Result<(Self, String), ScramError> {
        let ours = BASE64.encode(random::bytes::<18>());
        Self::with_nonce(verifier, chosen, client_first, &ours)
    }

    fn with_nonce(
        verifier: Arc<Verifier>,
        chosen: Chosen<'_>,
        client_first: &[u8],
        ours: &str,
    ) -> Result<(Self, String), ScramError> {
        let text = text(client_first)?;
        let mut parts = text.splitn(3, ',');
        let (flag, authzid, bare) = (parts.next(), parts.next(), parts.next());
        let (Some(flag), Some(authzid), Some(bare)) = (flag, authzid, bare) else {
            return Err(ScramError::Malformed("its header is not whole"));
        };
        let bound = check_flag(flag, chosen)?;
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
        let salt = BASE64.encode(&verifier.salting.salt);
        let server_first = format!("r={nonce},s={salt},i={}", verifier.salting.iterations);
        let challenge = Self {
            binding: BASE64.encode([format!("{flag},,").as_bytes(), bound].concat()),
            client_first_bare: bare.to_owned(),
            server_first: server_first.clone(),
            nonce,
            verifier,
        };
        Ok((challenge, server_first))
    }

    /// Checks the client's final message. What is said then proves that we know the verifier;
    /// the keys log in to the server.
    pub(crate) fn finish(self, client_final: &[u8]) -> Result<(String, ScramKeys), ScramError> {
        let text = text(client_final)?;
        let (without_proof, proof) =
            text.rsplit_once(",p=").ok_or(ScramError::Malformed("the proof is missing"))?;
        let mut attributes = without_proof.split(',');
        let binding = attributes.next().and_then(|c| c.strip_prefix("c="));
        if binding != Some(self.binding.as_str()) {
            return Err(ScramError::Binding);
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
        let client_key = Key(proof).xor(signature);
        constant_time::verify_slices_are_equal(&client_key.hash(), &self.verifier.stored_key)
            .map_err(|_| ScramError::WrongPassword)?;
        let server_key = &self.verifier.server_key;
        let last = format!("v={}", BASE64.encode(server_key.mac(auth_message.as_bytes())));
        let keys = ScramKeys {
            client_key: client_key.0,
            server_key: server_key.0,
            salt: self.verifier.salting.salt.clone(),
            iterations: self.verifier.salting.iterations.get(),
        };
        Ok((last, keys))
    }
}

/// The flag of the client's header against what was offered (RFC 5802, 6); what `c=` holds
/// besides the header.
fn check_flag<'a>(flag: &str, chosen: Chosen<'a>) -> Result<&'a [u8], ScramError> {
    match (flag, chosen) {
        ("n", Chosen::Only | Chosen::WithoutBinding) | ("y", Chosen::Only) => Ok(&[]),
        // It could, and believes that we cannot: somebody took PLUS out of what we offered.
        ("y", Chosen::WithoutBinding) => Err(ScramError::Downgrade),
        (flag, Chosen::Plus(hash)) => match flag.strip_prefix("p=") {
            Some(BINDING) => Ok(hash),
            Some(_) => Err(ScramError::Malformed("the kind of channel binding is not supported")),
            None => Err(ScramError::Malformed("PLUS was chosen, and nothing is bound")),
        },
        _ => Err(ScramError::Malformed("the flag of channel binding is wrong")),
    }
}
