//! What clients brought with their logins that proves to one server who they are.
//!
//! A client that logs in by SCRAM or by its password brings what its user's server connections
//! need, where the configuration has nothing. Always true: what is kept of a user is the
//! latest, and of the last users that came.

use std::num::NonZeroUsize;
use std::sync::Arc;

use forebay_seam::secret::ExposeSecret;
use forebay_seam::sync::Mutex;
use lru::LruCache;

use super::secret::same;
use crate::server::proof::Proof;

/// Users whose proofs are remembered.
const USERS: NonZeroUsize = NonZeroUsize::new(65_536).expect("65536 is not zero");

/// Proofs by user.
pub(crate) struct Brought(Mutex<LruCache<Arc<str>, Proof>>);

/// Whether a proof was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Is {
    Known,
    New,
}

fn is_same(a: &Proof, b: &Proof) -> bool {
    match (a, b) {
        (Proof::Password(a), Proof::Password(b)) | (Proof::Md5Hash(a), Proof::Md5Hash(b)) => {
            same(a.expose_secret().as_bytes(), b.expose_secret().as_bytes())
        }
        (Proof::ScramKeys(a), Proof::ScramKeys(b)) => {
            same(&a.client_key, &b.client_key) && a.salt == b.salt && a.iterations == b.iterations
        }
        (Proof::Password(_) | Proof::Md5Hash(_) | Proof::ScramKeys(_), _) => false,
    }
}

impl Default for Brought {
    fn default() -> Self {
        // It takes memory for as many as there are, not for as many as there may be.
        let mut proofs = LruCache::unbounded();
        proofs.resize(USERS);
        Self(Mutex::new(proofs))
    }
}

impl Brought {
    /// What `user` brought last.
    pub(crate) fn of(&self, user: &str) -> Option<Proof> {
        self.0.lock().get(user).cloned()
    }

    /// `user` has proved who it is, and brought `proof`. Is that another one than before?
    pub(crate) fn bring(&self, user: &Arc<str>, proof: Proof) -> Is {
        let mut proofs = self.0.lock();
        let known = proofs.get(user).is_some_and(|known| is_same(known, &proof));
        proofs.put(Arc::clone(user), proof);
        if known { Is::Known } else { Is::New }
    }
}

#[cfg(test)]
mod tests {
    use forebay_seam::secret::SecretString;

    use super::*;

    #[test]
    fn what_a_client_brings_serves_until_another_brings_better() {
        let brought = Brought::default();
        let bring = |user: &str, text: &str| {
            let proof = Proof::Password(SecretString::from(text.to_owned()));
            brought.bring(&Arc::from(user), proof)
        };
        let shown = |user: &str| match brought.of(user) {
            Some(Proof::Password(password)) => Some(password.expose_secret().to_owned()),
            Some(Proof::ScramKeys(_) | Proof::Md5Hash(_)) | None => None,
        };
        assert_eq!(shown("bob"), None);
        assert_eq!(bring("bob", "first"), Is::New);
        assert_eq!(bring("bob", "second"), Is::New);
        assert_eq!(bring("bob", "second"), Is::Known);
        assert_eq!((shown("bob"), shown("ann")), (Some("second".into()), None));
    }
}
