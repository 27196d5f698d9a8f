//! Secrets that we hold, and what is made of them: read at the start, and again when they
//! are replaced, without a restart.
//!
//! A file is looked at each second, a command is run again after five minutes of use, and
//! both at once when somebody whom we showed the secret did not take it. Always true: what
//! was made last stays in force until its successor makes sense; calls never wait for a file
//! or a command; no error says what a secret is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use forebay_seam::random;
use forebay_seam::secret::{Change, ExposeSecret, SecretError, SecretRef, SecretString, Stamp};
use forebay_seam::sync::Mutex;
use forebay_seam::task::Spawner;
use forebay_seam::time;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A command that is in use is run again after this.
const RERUN: Duration = Duration::from_secs(300);
/// Time between two readings because a secret was refused: a service that refuses everything
/// must not start a program with each call.
const BETWEEN_DOUBTS: Duration = Duration::from_secs(5);

/// A secret in a form that can be compared, under a key that nobody else has.
pub(crate) type Digest = [u8; 32];

/// Makes digests. Cheap to clone; those of one can be compared.
#[derive(Clone)]
pub(crate) struct Digester(Arc<hmac::Key>);

impl Digester {
    /// One with a key of its own.
    pub(crate) fn new() -> Self {
        Self(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &random::bytes::<32>())))
    }

    /// The digest of `parts`, which says where each of them ends.
    pub(crate) fn of<'p>(&self, parts: impl IntoIterator<Item = &'p [u8]>) -> Digest {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            context.update(part);
        }
        let mut digest = Digest::default();
        for (to, from) in digest.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        digest
    }
}

/// Why nothing can be made of a secret. Never says what it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    /// Which of several cannot be read.
    #[error("{error}{cause}", cause = cause(.error))]
    Unread { which: usize, error: SecretError },
    #[error("{0}")]
    Shape(&'static str),
    #[error("{0}")]
    Detail(String),
}

impl Unusable {
    /// Which of several secrets it is, the first if that is not known.
    pub(crate) fn which(&self) -> usize {
        match self {
            Self::Unread { which, .. } => *which,
            Self::Shape(_) | Self::Detail(_) => 0,
        }
    }
}

fn cause(error: &SecretError) -> String {
    std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default()
}

/// What is read: a line, or a text such as PEM.
#[derive(Clone)]
pub(crate) enum Source {
    Line(SecretRef),
    Text(SecretRef),
}

impl Source {
    fn place(&self) -> &SecretRef {
        match self {
            Self::Line(place) | Self::Text(place) => place,
        }
    }

    fn read(&self) -> Result<SecretString, SecretError> {
        match self {
            Self::Line(place) => place.read(),
            Self::Text(place) => place.read_text(),
        }
    }
}

type Make<T> = dyn Fn(&[SecretString]) -> Result<T, Unusable> + Send + Sync;

/// What is made of one or more secrets. Cheap to ask.
pub(crate) struct Rotating<T> {
    sources: Vec<Source>,
    make: Box<Make<T>>,
    now: ArcSwap<T>,
    used: AtomicBool,
    readings: Mutex<Readings>,
    digester: Digester,
    spawner: Spawner,
}

struct Readings {
    stamps: Vec<Stamp>,
    digest: Digest,
    at: Instant,
    doubted_at: Option<Instant>,
    under_way: bool,
    /// Why the last one was of no use.
    failed: Option<String>,
}

/// Reads `sources` and makes of them what `make` says, without following them: a check.
pub(crate) fn make_once<T>(
    sources: &[Source],
    make: impl FnOnce(&[SecretString]) -> Result<T, Unusable>,
) -> Result<T, Unusable> {
    make(&read(sources)?)
}

fn read(sources: &[Source]) -> Result<Vec<SecretString>, Unusable> {
    let read = sources
        .iter()
        .enumerate()
        .map(|(which, source)| source.read().map_err(|error| Unusable::Unread { which, error }));
    read.collect()
}

fn stamps(sources: &[Source]) -> Vec<Stamp> {
    sources.iter().map(|source| source.place().stamp()).collect()
}

/// What became of a secret that was read again.
enum News {
    Replaced,
    OfNoUse(String),
}

impl<T: Send + Sync + 'static> Rotating<T> {
    /// Makes it now, and again when one of `sources` is another one, for as long as somebody
    /// has it. Inside a runtime; blocks on files and commands.
    pub(crate) fn new(
        sources: Vec<Source>,
        digester: &Digester,
        make: impl Fn(&[SecretString]) -> Result<T, Unusable> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, Unusable> {
        // Looked at before they are read: what changes meanwhile is read again.
        let stamps = stamps(&sources);
        let secrets = read(&sources)?;
        let digest = digester.of(secrets.iter().map(|secret| secret.expose_secret().as_bytes()));
        let readings = Readings {
            stamps,
            digest,
            at: time::now(),
            doubted_at: None,
            under_way: false,
            failed: None,
        };
        let rotating = Arc::new(Self {
            now: ArcSwap::from_pointee(make(&secrets)?),
            sources,
            make: Box::new(make),
            used: AtomicBool::new(false),
            readings: Mutex::new(readings),
            digester: digester.clone(),
            spawner: Spawner::current(),
        });
        if rotating.may_change() {
            rotating.follow();
        }
        Ok(rotating)
    }

    /// What is in force.
    pub(crate) fn now(&self) -> Arc<T> {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        self.in_force()
    }

    /// What is in force, looked at without using it.
    pub(crate) fn in_force(&self) -> Arc<T> {
        self.now.load_full()
    }

    /// Whether `held` is what is in force.
    pub(crate) fn is_in_force(&self, held: &Arc<T>) -> bool {
        Arc::ptr_eq(&self.now.load(), held)
    }

    /// Whether it can ever be another one.
    pub(crate) fn may_change(&self) -> bool {
        self.sources.iter().any(|source| source.place().change() != Change::Never)
    }

    /// Somebody did not take it: reads it again, beside the calls. Says whether that was
    /// begun, so that another one may be in force soon.
    pub(crate) fn doubt(self: &Arc<Self>) -> bool {
        if !self.may_change() {
            return false;
        }
        let now = time::now();
        let mut readings = self.readings.lock();
        if readings.under_way {
            return true;
        }
        if readings.doubted_at.is_some_and(|at| now < at + BETWEEN_DOUBTS) {
            return false;
        }
        readings.doubted_at = Some(now);
        readings.under_way = true;
        drop(readings);
        let this = Arc::clone(self);
        self.spawner.spawn(async move {
            let (spawner, reader) = (this.spawner.clone(), Arc::clone(&this));
            this.tell(spawner.block(move || reader.read_again()).await.flatten());
        });
        true
    }

    /// Starts the task that looks whether it has changed.
    fn follow(self: &Arc<Self>) {
        let (spawner, followed) = (self.spawner.clone(), Arc::downgrade(self));
        self.spawner.spawn(async move {
            loop {
                time::sleep(LOOK).await;
                let Some(rotating) = followed.upgrade() else { return };
                // A file may be on a slow disk, and a command takes its time.
                let looker = Arc::clone(&rotating);
                rotating.tell(spawner.block(move || looker.look()).await.flatten());
            }
        });
    }

    fn look(&self) -> Option<News> {
        let is_command = |source: &Source| source.place().change() == Change::Command;
        let outworn = self.sources.iter().any(is_command)
            && time::now() >= self.readings.lock().at + RERUN
            && self.used.swap(false, Ordering::Relaxed);
        let changed = stamps(&self.sources) != self.readings.lock().stamps;
        let is_ours =
            (changed || outworn) && !std::mem::replace(&mut self.readings.lock().under_way, true);
        if is_ours { self.read_again() } else { None }
    }

    /// Reads it again; `under_way` was set by whoever calls.
    fn read_again(&self) -> Option<News> {
        let stamps = stamps(&self.sources);
        let made = read(&self.sources).and_then(|secrets| {
            let parts = secrets.iter().map(|secret| secret.expose_secret().as_bytes());
            let digest = self.digester.of(parts);
            if self.readings.lock().digest == digest {
                return Ok(None);
            }
            (self.make)(&secrets).map(|made| Some((made, digest)))
        });
        let mut readings = self.readings.lock();
        readings.under_way = false;
        readings.stamps = stamps;
        readings.at = time::now();
        match made {
            Ok(None) => {
                readings.failed = None;
                None
            }
            Ok(Some((made, digest))) => {
                readings.failed = None;
                readings.digest = digest;
                self.now.store(Arc::new(made));
                Some(News::Replaced)
            }
            Err(error) => {
                let reason = Some(error.to_string());
                let is_known = readings.failed == reason;
                readings.failed.clone_from(&reason);
                reason.filter(|_| !is_known).map(News::OfNoUse)
            }
        }
    }

    fn tell(&self, news: Option<News>) {
        let Some(news) = news else { return };
        let places: Vec<_> = self.sources.iter().map(|s| s.place().to_string()).collect();
        let secret = places.join(", ");
        match news {
            News::Replaced => tracing::info!(secret, "a secret was replaced"),
            News::OfNoUse(reason) => tracing::warn!(
                secret,
                reason,
                "a secret was replaced by one of no use; the one before stays in force"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotating(text: String) -> Arc<Rotating<String>> {
        let sources = vec![Source::Line(SecretRef::new(text))];
        Rotating::new(sources, &Digester::new(), |secrets| match secrets {
            [one] if one.expose_secret().starts_with("bad") => Err(Unusable::Shape("it is bad")),
            [one] => Ok(one.expose_secret().to_owned()),
            _ => Err(Unusable::Shape("there is one")),
        })
        .unwrap()
    }

    async fn becomes(rotating: &Rotating<String>, wanted: &str) {
        let begun = time::now();
        while *rotating.now() != wanted {
            assert!(time::now() < begun + Duration::from_secs(20), "{}", rotating.now());
            time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn a_file_that_is_replaced_is_in_force_and_one_of_no_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "first\n").unwrap();
        let rotating = rotating(format!("file:{}", file.display()));
        let first = rotating.now();
        assert_eq!(*first, "first");
        std::fs::write(&file, "bad one").unwrap();
        rotating.read_again();
        assert!(rotating.is_in_force(&first));
        std::fs::remove_file(&file).unwrap();
        rotating.read_again();
        assert!(rotating.is_in_force(&first));
        std::fs::write(&file, "second").unwrap();
        becomes(&rotating, "second").await;
        assert!(!rotating.is_in_force(&first));
    }

    #[tokio::test]
    async fn a_file_that_was_only_touched_changes_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "same").unwrap();
        let rotating = rotating(format!("file:{}", file.path().display()));
        let first = rotating.now();
        std::fs::write(&file, "same").unwrap();
        rotating.read_again();
        assert!(rotating.is_in_force(&first));
    }

    #[tokio::test]
    async fn a_command_that_is_doubted_runs_again_but_not_with_each_doubt() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("printed");
        std::fs::write(&file, "first\n").unwrap();
        let rotating = rotating(format!("cmd:cat {}", file.display()));
        std::fs::write(&file, "second\n").unwrap();
        assert!(rotating.doubt());
        becomes(&rotating, "second").await;
        assert!(!rotating.doubt());
    }

    #[tokio::test]
    async fn what_stands_in_the_configuration_is_never_another_one() {
        assert!(!rotating("inline".to_owned()).doubt());
    }

    #[test]
    fn parts_that_read_alike_together_have_different_digests() {
        let digester = Digester::new();
        let digest = |parts: &[&[u8]]| digester.of(parts.iter().copied());
        assert_eq!(digest(&[b"ab", b"c"]), digest(&[b"ab", b"c"]));
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
        assert_ne!(digest(&[b"ab"]), Digester::new().of([b"ab".as_slice()]));
    }
}
