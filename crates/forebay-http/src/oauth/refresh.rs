//! A refresh token that its issuer replaces with each use (RFC 6749, section 6; RFC 9700,
//! section 4.14.2: one that comes back after it was replaced may end the whole grant).
//!
//! Always true: the newest one is used; where a file keeps it, the file has it before it is
//! used for the first time. A new configured token overrules what is kept.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use forebay_seam::secret::{ExposeSecret, SecretString};
use forebay_seam::sync::Mutex;
use serde::Deserialize;

/// Bytes of the file, at the most.
const KEPT: u64 = 64 * 1024;

/// The newest refresh token.
pub(crate) struct RefreshToken {
    /// The digest of the configured one, from which this one descends.
    origin: String,
    now: Mutex<SecretString>,
    keep_in: Option<PathBuf>,
}

/// What stands in the file.
#[derive(Deserialize)]
struct Kept {
    origin: String,
    refresh_token: SecretString,
}

impl RefreshToken {
    /// The newest one that descends from `configured`. Blocks on the file.
    pub(crate) fn open(configured: &SecretString, keep_in: Option<PathBuf>) -> Self {
        let hash = digest(&SHA256, configured.expose_secret().as_bytes());
        let origin: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let kept = keep_in.as_deref().and_then(|file| match kept(file) {
            Ok(kept) => Some(kept),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let file = file.display().to_string();
                tracing::warn!(file, %error, "the refresh token that was kept cannot be read");
                None
            }
        });
        let now = kept
            .filter(|kept| kept.origin == origin)
            .map_or_else(|| configured.clone(), |kept| kept.refresh_token);
        Self { origin, now: Mutex::new(now), keep_in }
    }

    /// The newest.
    pub(crate) fn now(&self) -> SecretString {
        self.now.lock().clone()
    }

    /// The issuer gave `newer` in its place. Blocks on the file.
    pub(crate) fn replace(&self, newer: SecretString) {
        if let Some(file) = &self.keep_in
            && let Err(error) = keep(file, &self.origin, &newer)
        {
            let file = file.display().to_string();
            tracing::error!(file, %error, "a new refresh token cannot be kept: a restart loses it");
        }
        *self.now.lock() = newer;
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
        let file = folder.path().join("kept");
        let open = |configured: &str| RefreshToken::open(&configured.into(), Some(file.clone()));
        let first = open("first");
        assert_eq!(first.now().expose_secret(), "first");
        first.replace("second".into());
        first.replace("third".into());
        assert_eq!(open("first").now().expose_secret(), "third");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(open("other").now().expose_secret(), "other");
        fs::write(&file, "{").unwrap();
        assert_eq!(open("first").now().expose_secret(), "first");
    }
}
