//! A refresh token that its issuer replaces with each use (RFC 6749, section 6; RFC 9700,
//! section 4.14.2: one that comes back after it was replaced may end the whole grant).
//!
//! Always true: the newest one is used, by one exchange at a time, whatever credentials it
//! stands in; where a file keeps it, the file has it before it is used for the first time. A
//! new configured token overrules what is kept. Which credentials share one, the registry of
//! credentials knows.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use aws_lc_rs::digest::{SHA256, digest};
use forebay_seam::secret::{ExposeSecret, SecretString};
use forebay_seam::sync::Mutex;
use serde::Deserialize;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Bytes of the file, at the most.
const KEPT: u64 = 64 * 1024;

/// The newest refresh token.
pub(crate) struct RefreshToken {
    /// The digest of the configured one, from which this one descends.
    origin: String,
    now: Mutex<SecretString>,
    /// Where it is kept, as long as the credentials that say so are there.
    files: Mutex<Vec<Weak<Path>>>,
    turn: Semaphore,
}

/// The right to use the token. Dropped, the next one has it.
pub(crate) struct Turn<'t> {
    /// Where the token was kept when it began.
    pub(crate) files: Vec<Arc<Path>>,
    /// None never: nobody closes it.
    _permit: Option<SemaphorePermit<'t>>,
}

/// What stands in the file.
#[derive(Deserialize)]
struct Kept {
    origin: String,
    refresh_token: SecretString,
}

impl RefreshToken {
    /// `configured`, as long as nothing newer is known.
    pub(crate) fn new(configured: &SecretString) -> Self {
        let (files, turn) = (Mutex::default(), Semaphore::new(1));
        Self { origin: origin(configured), now: Mutex::new(configured.clone()), files, turn }
    }

    /// From now on `file` has the newest; what it has already counts if nothing newer than the
    /// configured one is known here. Blocks on the file.
    pub(crate) fn keep_in(&self, file: &Arc<Path>) {
        let mut files = self.files.lock();
        files.retain(|known| known.strong_count() > 0);
        let is_known = files.iter().filter_map(Weak::upgrade).any(|known| known == *file);
        files.push(Arc::downgrade(file));
        if is_known {
            return;
        }
        let kept = match kept(file) {
            Ok(kept) => Some(kept).filter(|kept| kept.origin == self.origin),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let file = file.display().to_string();
                tracing::warn!(file, %error, "the refresh token that was kept cannot be read");
                None
            }
        };
        let mut now = self.now.lock();
        let is_configured = origin(&now) == self.origin;
        match kept {
            Some(kept) if is_configured => *now = kept.refresh_token,
            Some(_) | None if is_configured => {}
            Some(_) | None => keep_or_tell(file, &self.origin, &now),
        }
    }

    /// The right to use it, which one has at a time.
    ///
    /// # Cancel safety
    /// Dropped, the place in line is given up.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        let permit = self.turn.acquire().await.ok();
        Turn { files: self.files(), _permit: permit }
    }

    /// The newest.
    pub(crate) fn now(&self) -> SecretString {
        self.now.lock().clone()
    }

    /// The issuer gave `newer` in its place, in a turn that began with `files`. Blocks on them.
    pub(crate) fn replace(&self, newer: SecretString, mut files: Vec<Arc<Path>>) {
        files.extend(self.files());
        files.sort_unstable();
        files.dedup();
        for file in &files {
            keep_or_tell(file, &self.origin, &newer);
        }
        *self.now.lock() = newer;
    }

    fn files(&self) -> Vec<Arc<Path>> {
        self.files.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

fn origin(configured: &SecretString) -> String {
    let hash = digest(&SHA256, configured.expose_secret().as_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn keep_or_tell(file: &Path, origin: &str, newer: &SecretString) {
    if let Err(error) = keep(file, origin, newer) {
        let file = file.display().to_string();
        tracing::error!(file, %error, "a new refresh token cannot be kept: a restart loses it");
    }
}

fn kept(file: &Path) -> io::Result<Kept> {
    let mut text = String::new();
    fs::File::open(file)?.take(KEPT).read_to_string(&mut text)?;
    // What the parser complains of may be the token.
    serde_json::from_str(&text).map_err(|_| io::Error::other("it was not written by us"))
}

/// Written beside it and put in its place, so that one of both is always whole.
fn keep(file: &Path, origin: &str, newer: &SecretString) -> io::Result<()> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let token = newer.expose_secret();
    let text = serde_json::json!({ "origin": origin, "refresh_token": token }).to_string();
    if let Err(error) = fs::remove_file(&beside)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut written =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    written.write_all(text.as_bytes())?;
    written.sync_all()?;
    fs::rename(&beside, file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_newest_token_outlives_a_restart_and_a_new_configured_one_overrules_it() {
        let folder = tempfile::tempdir().unwrap();
        let file: Arc<Path> = folder.path().join("kept").into();
        let open = |configured: &str| {
            let token = RefreshToken::new(&configured.into());
            token.keep_in(&file);
            token
        };
        let first = open("first");
        assert_eq!(first.now().expose_secret(), "first");
        first.replace("second".into(), Vec::new());
        first.replace("third".into(), Vec::new());
        assert_eq!(open("first").now().expose_secret(), "third");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(open("other").now().expose_secret(), "other");
        fs::write(&file, "{").unwrap();
        assert_eq!(open("first").now().expose_secret(), "first");
    }

    #[test]
    fn a_file_that_is_named_later_has_the_newest_and_one_that_is_named_no_more_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let [old, new]: [Arc<Path>; 2] = ["old", "new"].map(|name| folder.path().join(name).into());
        let token = RefreshToken::new(&"first".into());
        token.keep_in(&old);
        token.replace("second".into(), Vec::new());
        token.keep_in(&new);
        let in_file = |file: &Path| kept(file).unwrap().refresh_token.expose_secret().to_owned();
        assert_eq!(in_file(&new), "second");
        let left = old.to_path_buf();
        drop(old);
        token.replace("third".into(), Vec::new());
        assert_eq!((in_file(&left), in_file(&new)), ("second".to_owned(), "third".to_owned()));
    }
}
