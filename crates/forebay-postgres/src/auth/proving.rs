//! The proof itself: what is asked of a client, and whether its answer is right.
//!
//! Always true: who cannot be let in (unknown, without a password, throttled) is asked the same
//! things, and what it answers costs the same work, as of a user that it is not.

use std::sync::Arc;

use forebay_seam::random;
use forebay_seam::secret::SecretString;

use super::conversation::{Conversation, Failure, Say};
use super::hashing::Hashing;
use super::scram::server::{Challenge, Chosen};
use super::scram::{MECHANISM, MECHANISM_PLUS, ScramError, Verifier};
use super::secret::{Md5Hash, Plain, Secret};
use crate::server::proof::Proof;
use crate::wire::{Fields, Malformed};

/// By what a password is proved on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    Cleartext,
    Md5,
    Scram,
}

/// What an answer showed.
pub(crate) enum Shown {
    /// It is who it says; with what its server connections may use.
    Right {
        brought: Option<Proof>,
        last: Option<String>,
    },
    Wrong,
}

/// One proof.
pub(crate) struct Proving<'a> {
    pub(crate) hashing: &'a Hashing,
    /// Makes what is asked of users that do not exist.
    pub(crate) nobody: &'a [u8; 32],
    /// What SCRAM can be bound to.
    pub(crate) binding: Option<&'a [u8]>,
    pub(crate) user: &'a str,
    /// What the answer is checked against; nothing where no answer can be right.
    pub(crate) secret: Option<&'a Secret>,
}

impl Proving<'_> {
    /// Asks by `wire`, and judges the answer.
    pub(crate) async fn prove(
        &self,
        wire: Wire,
        talk: &mut Conversation<'_>,
    ) -> Result<Shown, Failure> {
        match wire {
            Wire::Cleartext => self.cleartext(talk).await,
            Wire::Md5 => self.md5(talk).await,
            Wire::Scram => self.scram(talk).await,
        }
    }

    async fn cleartext(&self, talk: &mut Conversation<'_>) -> Result<Shown, Failure> {
        talk.say(Say::Cleartext);
        let said = talk.password().await?;
        let Ok(said) = std::str::from_utf8(&said) else { return Ok(Shown::Wrong) };
        let said = SecretString::from(said.to_owned());
        // Whatever is stored, one password is hashed, as long as for anybody else.
        let verifier = self.verifier().await;
        let salting = verifier.salting.clone();
        let Some(salted) = self.hashing.salt(said.clone(), salting).await else {
            return Err(Failure::Gone);
        };
        let fits_verifier = verifier.fits(&salted);
        let fits_hash = match self.secret {
            Some(Secret::Md5(hash)) => hash.fits(self.user, &said),
            Some(Secret::Plain(_) | Secret::Scram(_)) => fits_verifier,
            None => false,
        };
        Ok(if fits_hash {
            Shown::Right { brought: Some(Proof::Password(said)), last: None }
        } else {
            Shown::Wrong
        })
    }

    async fn md5(&self, talk: &mut Conversation<'_>) -> Result<Shown, Failure> {
        let salt = random::bytes();
        talk.say(Say::Md5 { salt });
        let said = talk.password().await?;
        let (hash, counts) = match self.secret {
            Some(Secret::Md5(hash)) => (hash.clone(), true),
            Some(Secret::Plain(plain)) => (Md5Hash::of(self.user, &plain.password), true),
            Some(Secret::Scram(_)) | None => (Md5Hash::of_nobody(self.nobody, self.user), false),
        };
        let is_right = hash.is_answered(salt, &said) && counts;
        let brought = self.secret.and_then(Secret::proof);
        Ok(if is_right { Shown::Right { brought, last: None } } else { Shown::Wrong })
    }

    async fn scram(&self, talk: &mut Conversation<'_>) -> Result<Shown, Failure> {
        let verifier = self.verifier().await;
        let binding = self.binding;
        // What is offered is what can be done (trap 49): PLUS only over TLS.
        let mut offer = Vec::new();
        for mechanism in binding.map(|_| MECHANISM_PLUS).into_iter().chain([MECHANISM]) {
            offer.extend_from_slice(mechanism.as_bytes());
            offer.push(0);
        }
        offer.push(0);
        talk.say(Say::Sasl(&offer));
        let body = talk.sasl().await?;
        let mut fields = Fields::new(&body);
        let mechanism = fields.cstr()?;
        let chosen = match binding {
            Some(hash) if mechanism == MECHANISM_PLUS.as_bytes() => Chosen::Plus(hash),
            Some(_) if mechanism == MECHANISM.as_bytes() => Chosen::WithoutBinding,
            None if mechanism == MECHANISM.as_bytes() => Chosen::Only,
            _ => return Err(ScramError::Malformed("the mechanism was not offered").into()),
        };
        let length = usize::try_from(fields.i32()?).map_err(|_| Malformed::Value)?;
        let first = fields.bytes(length)?;
        fields.end()?;
        let (challenge, answer) = Challenge::new(verifier, chosen, first)?;
        talk.say(Say::SaslContinue(&answer));
        let body = talk.sasl().await?;
        match challenge.finish(&body) {
            Ok((last, keys)) if self.has_verifier() => {
                let brought = Some(Proof::ScramKeys(Box::new(keys)));
                Ok(Shown::Right { brought, last: Some(last) })
            }
            Ok(_) | Err(ScramError::WrongPassword) => Ok(Shown::Wrong),
            Err(error) => Err(error.into()),
        }
    }

    /// Can SCRAM be judged by what is stored?
    fn has_verifier(&self) -> bool {
        match self.secret {
            Some(Secret::Plain(_) | Secret::Scram(_)) => true,
            Some(Secret::Md5(_)) | None => false,
        }
    }

    /// The user's, or one that nobody can satisfy.
    async fn verifier(&self) -> Arc<Verifier> {
        let known = match self.secret {
            Some(Secret::Scram(verifier)) => Some(Arc::clone(verifier)),
            Some(Secret::Plain(plain)) => self.made(plain).await,
            Some(Secret::Md5(_)) | None => None,
        };
        known.unwrap_or_else(|| Arc::new(Verifier::of_nobody(self.nobody, self.user)))
    }

    /// The verifier of a password; made now where it was looked up just now.
    async fn made(&self, plain: &Arc<Plain>) -> Option<Arc<Verifier>> {
        match plain.verifier() {
            Some(verifier) => Some(verifier),
            None => self.hashing.make_verifier(Arc::clone(plain)).await,
        }
    }
}
