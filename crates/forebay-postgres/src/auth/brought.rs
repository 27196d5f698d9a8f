//! What clients brought with their logins that proves to one server who they are.
//!
//! A client that logs in by SCRAM or by its password brings what its user's server connections
//! need, where the configuration has nothing. Always true: what is kept of a user is the
//! latest, and of the last users that came.

use std::num::NonZeroUsize;
use std::sync::Arc;

use forebay_seam::sync::Mutex;
use lru::LruCache;

use crate::server::proof::Proof;

/// Users whose proofs are remembered.
const USERS: NonZeroUsize = NonZeroUsize::new(65_536).expect("65536 is not zero");

/// Proofs by user.
pub(crate) struct Brought(Mutex<LruCache<Arc<str>, Proof>>);

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

    /// `user` has proved who it is, and brought `proof`.
    pub(crate) fn bring(&self, user: &Arc<str>, proof: Proof) {
        self.0.lock().put(Arc::clone(user), proof);
    }
}

#[cfg(test)]
mod tests {
    use forebay_seam::secret::{ExposeSecret, SecretString};

    use super::*;

    #[test]
    fn what_a_client_brings_serves_until_another_brings_better() {
        let brought = Brought::default();
        let bring = |user: &str, text: &str| {
            brought.bring(&Arc::from(user), Proof::Password(SecretString::from(text.to_owned())));
        };
        let shown = |user: &str| match brought.of(user) {
            Some(Proof::Password(password)) => Some(password.expose_secret().to_owned()),
            Some(Proof::ScramKeys(_) | Proof::Md5Hash(_)) | None => None,
        };
        assert_eq!(shown("bob"), None);
        bring("bob", "first");
        bring("bob", "second");
        assert_eq!((shown("bob"), shown("ann")), (Some("second".into()), None));
    }
}
