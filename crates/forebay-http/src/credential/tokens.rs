//! Tokens of one credential: one source for each set of secrets and each subject.
//!
//! When a secret is replaced, the next call asks the source of the new one: no token that was
//! had with the old secret is used beside it. Always true: the source for the secrets in force
//! is there from the beginning, so that a reload finds the one of before, and with it the token,
//! the newest refresh token and an exchange under way. Sources of agents' own tokens are
//! bounded; the ones that nobody uses go first.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use forebay_seam::secret::{ExposeSecret, SecretString};
use forebay_seam::sync::Mutex;
use forebay_seam::task::Spawner;
use lru::LruCache;

use super::registry::{Sources, TokenKey};
use crate::oauth::{Grant, Issuer, Terms};
use crate::problem::{Problem, Reason};
use crate::secrets::{Digest, Digester, Rotating, Unusable};
use crate::token::TokenSource;

/// Subjects of one credential whose tokens are kept.
const SUBJECTS: NonZeroUsize = NonZeroUsize::new(4_096).expect("4096 is not zero");

/// What an agent showed, for which tokens are exchanged.
#[derive(Clone)]
pub(crate) struct Subject {
    pub(crate) token: SecretString,
    pub(crate) digest: Digest,
    pub(crate) tenant: Arc<str>,
}

/// What is exchanged.
#[derive(Clone)]
pub(crate) enum Kind {
    ClientCredentials,
    /// A refresh token, and where the newest is kept.
    Refresh {
        keep_in: Option<Arc<Path>>,
    },
    /// A token that we hold.
    Ours,
    /// A token that the agent shows.
    Agents,
}

/// The secrets of a credential, which change together.
pub(crate) struct Secrets {
    client: Option<SecretString>,
    /// The refresh token, or the subject's token.
    main: Option<SecretString>,
    actor: Option<SecretString>,
    digests: [Digest; 3],
}

/// Which of the secrets there are, in the order in which they are read.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) client: Presence,
    pub(crate) main: Presence,
    pub(crate) actor: Presence,
}

/// Whether a secret is configured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Here,
    Absent,
}

impl<T> From<&Option<T>> for Presence {
    fn from(option: &Option<T>) -> Self {
        match option {
            Some(_) => Self::Here,
            None => Self::Absent,
        }
    }
}

impl Secrets {
    /// Of what was read, as `layout` says.
    pub(crate) fn read(
        secrets: &[SecretString],
        layout: Layout,
        digester: &Digester,
    ) -> Result<Self, Unusable> {
        one_line(secrets)?;
        let mut secrets = secrets.iter();
        let mut next = |presence| match presence {
            Presence::Here => secrets.next().cloned(),
            Presence::Absent => None,
        };
        let (client, main, actor) = (next(layout.client), next(layout.main), next(layout.actor));
        let digest = |secret: &Option<SecretString>| {
            digester.of(secret.iter().map(|secret| secret.expose_secret().as_bytes()))
        };
        let digests = [digest(&client), digest(&main), digest(&actor)];
        Ok(Self { client, main, actor, digests })
    }
}

/// Whether each of `secrets` is one line.
pub(super) fn one_line(secrets: &[SecretString]) -> Result<(), Unusable> {
    match secrets.iter().any(|s| s.expose_secret().chars().any(char::is_control)) {
        true => Err(Unusable::Shape(
            "the secret has line ends or other control characters: it must be one line",
        )),
        false => Ok(()),
    }
}

/// A source, and the secrets that it was made of.
#[derive(Clone)]
struct Made {
    of: Arc<Secrets>,
    source: Arc<TokenSource>,
}

/// The tokens of one credential.
pub(crate) struct Tokens {
    pub(super) terms: Arc<Terms>,
    /// What all its keys have in common.
    pub(super) key: TokenKey,
    pub(super) kind: Kind,
    pub(super) secrets: Arc<Rotating<Secrets>>,
    pub(super) sources: Arc<Sources>,
    pub(super) spawner: Spawner,
    made: Mutex<LruCache<Option<Digest>, Made>>,
}

impl Tokens {
    /// Those that are had already, by others or by the ones `before` in the same place. Blocks
    /// on the file of a refresh token.
    pub(super) fn new(
        terms: Arc<Terms>,
        key: TokenKey,
        kind: Kind,
        secrets: Arc<Rotating<Secrets>>,
        sources: Arc<Sources>,
        before: Option<&Self>,
    ) -> Self {
        let (made, spawner) = (Mutex::new(LruCache::new(SUBJECTS)), Spawner::current());
        let new = Self { terms, key, kind, secrets, sources, spawner, made };
        if !new.wants_subject() {
            let secrets = new.secrets.in_force();
            let source = new.make(&secrets, None);
            new.made.lock().put(None, Made { of: secrets, source });
        } else if let Some(before) = before.filter(|before| before.key == new.key) {
            // Held on to until their agents come again, who find them by their keys.
            let (before, mut made) = (before.made.lock(), new.made.lock());
            for (place, source) in before.iter().rev() {
                made.put(*place, source.clone());
            }
        }
        new
    }

    /// Whether they are exchanged for what agents show.
    pub(super) fn wants_subject(&self) -> bool {
        matches!(self.kind, Kind::Agents)
    }

    /// The issuer did not take the secrets: says whether others may come.
    pub(super) fn doubt(&self) -> bool {
        self.secrets.doubt()
    }

    /// Where tokens come from now, for `subject` if agents show one.
    pub(super) fn source(&self, subject: Option<&Subject>) -> Result<Arc<TokenSource>, Problem> {
        let subject = match (&self.kind, subject) {
            (Kind::Agents, None) => {
                let detail = "this destination takes calls on somebody's behalf: send the token \
                              that says whose as `Authorization: Bearer`, and the key for \
                              Forebay as `x-forebay-key`";
                return Err(Problem::new(Reason::Unauthorized, detail));
            }
            (Kind::Agents, subject) => subject,
            (Kind::ClientCredentials | Kind::Refresh { .. } | Kind::Ours, _) => None,
        };
        let secrets = self.secrets.now();
        let place = subject.map(|subject| subject.digest);
        let mut made = self.made.lock();
        if let Some(made) = made.get(&place)
            && Arc::ptr_eq(&made.of, &secrets)
        {
            return Ok(Arc::clone(&made.source));
        }
        let source = self.make(&secrets, subject);
        made.put(place, Made { of: secrets, source: Arc::clone(&source) });
        Ok(source)
    }

    fn make(&self, secrets: &Secrets, subject: Option<&Subject>) -> Arc<TokenSource> {
        let mut key = self.key.clone();
        key.secrets = secrets.digests;
        key.subject = subject.map(|subject| (Arc::clone(&subject.tenant), subject.digest));
        let main = || secrets.main.clone().unwrap_or_default();
        let grant = match (&self.kind, subject) {
            (Kind::ClientCredentials, _) => Grant::ClientCredentials,
            (Kind::Refresh { keep_in }, _) => {
                let token = self.sources.refresh_token(&key, &main());
                if let Some(file) = keep_in {
                    token.keep_in(file);
                }
                Grant::Refresh(token)
            }
            (Kind::Agents, Some(subject)) => {
                Grant::Exchange { subject: subject.token.clone(), actor: secrets.actor.clone() }
            }
            (Kind::Ours | Kind::Agents, _) => {
                Grant::Exchange { subject: main(), actor: secrets.actor.clone() }
            }
        };
        self.sources.find(key, || {
            let (terms, spawner) = (Arc::clone(&self.terms), self.spawner.clone());
            Issuer { terms, spawner, client_secret: secrets.client.clone(), grant }
        })
    }
}
