//! What is made of files, and made anew when they change.
//!
//! Always true: what was made last stays in force until the files make sense again, and what is
//! in use is not touched.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::spawn_blocking;

use crate::time;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// A value made of files. Cheap to ask.
pub struct Fresh<T> {
    now: ArcSwap<T>,
}

impl<T: Send + Sync + 'static> Fresh<T> {
    /// Makes it now, and again whenever one of `files` is another one, for as long as somebody
    /// has it. `towards` whom it is, the log says. Inside a runtime.
    ///
    /// # Errors
    /// When it cannot be made now.
    pub fn new(
        towards: impl Into<String>,
        files: Vec<PathBuf>,
        load: impl Fn() -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, String> {
        // Looked at before they are read: what changes meanwhile is read again.
        let seen = stamps(&files);
        let fresh = Arc::new(Self { now: ArcSwap::from_pointee(load()?) });
        if !files.is_empty() {
            let follower = Follower { files, seen, failed: None, load: Arc::new(load) };
            drop(tokio::spawn(follower.follow(towards.into(), Arc::downgrade(&fresh))));
        }
        Ok(fresh)
    }

    /// What is in force.
    pub fn now(&self) -> Arc<T> {
        self.now.load_full()
    }
}

/// Looks at the files of one value.
struct Follower<L> {
    files: Vec<PathBuf>,
    seen: Vec<Option<Stamp>>,
    /// Why they could not be used the last time.
    failed: Option<String>,
    load: Arc<L>,
}

impl<L> Follower<L> {
    async fn follow<T>(mut self, towards: String, whose: Weak<Fresh<T>>)
    where
        T: Send + Sync + 'static,
        L: Fn() -> Result<T, String> + Send + Sync + 'static,
    {
        loop {
            time::sleep(LOOK).await;
            // A file may be on a slow disk.
            let looked = spawn_blocking(move || {
                let made = self.look();
                (self, made)
            });
            let Ok((follower, made)) = looked.await else { return };
            self = follower;
            let Some(fresh) = whose.upgrade() else { return };
            match made {
                None => {}
                Some(Ok(made)) => {
                    fresh.now.store(Arc::new(made));
                    tracing::info!(towards, "certificates have changed and are in force");
                }
                Some(Err(reason)) => tracing::warn!(
                    towards,
                    reason,
                    "certificates have changed and cannot be used; those before stay in force"
                ),
            }
        }
    }

    /// What the files make by now, if they have changed; why not, once.
    fn look<T>(&mut self) -> Option<Result<T, String>>
    where
        L: Fn() -> Result<T, String>,
    {
        let found = stamps(&self.files);
        if found == self.seen && self.failed.is_none() {
            return None;
        }
        self.seen = found;
        match (self.load)() {
            Ok(made) => {
                self.failed = None;
                Some(Ok(made))
            }
            Err(reason) if self.failed.as_ref() == Some(&reason) => None,
            Err(reason) => {
                self.failed = Some(reason.clone());
                Some(Err(reason))
            }
        }
    }
}

/// Tells one state of a file from the next: device, inode, length, and when it was changed.
type Stamp = (u64, u64, u64, i64, i64);

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    files.iter().map(|file| stamp(file)).collect()
}

fn stamp(file: &Path) -> Option<Stamp> {
    let file = std::fs::metadata(file).ok()?;
    Some((file.dev(), file.ino(), file.len(), file.ctime(), file.ctime_nsec()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    async fn becomes(fresh: &Fresh<String>, text: &str) {
        for _ in 0..200 {
            if *fresh.now() == text {
                return;
            }
            time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it stayed `{}`", fresh.now());
    }

    fn reading(file: &Path) -> impl Fn() -> Result<String, String> + Send + Sync + 'static {
        let file = file.to_owned();
        move || {
            let text = fs::read_to_string(&file).map_err(|error| error.to_string())?;
            if text == "broken" { Err("it is broken".into()) } else { Ok(text) }
        }
    }

    #[tokio::test]
    async fn a_file_that_changes_or_is_replaced_is_read_again_and_a_broken_one_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "one").unwrap();
        let fresh = Fresh::new("tests", vec![file.clone()], reading(&file)).unwrap();
        let first = fresh.now();
        fs::write(&file, "two").unwrap();
        becomes(&fresh, "two").await;
        fs::write(&file, "broken").unwrap();
        time::sleep(LOOK + LOOK / 2).await;
        assert_eq!(*fresh.now(), "two");
        fs::write(folder.path().join("new"), "six").unwrap();
        fs::rename(folder.path().join("new"), &file).unwrap();
        becomes(&fresh, "six").await;
        assert_eq!(*first, "one", "who has the old one keeps it");
    }

    #[tokio::test]
    async fn what_cannot_be_made_at_first_is_an_error() {
        let file = PathBuf::from("/no/such/file");
        assert!(Fresh::new("tests", vec![file.clone()], reading(&file)).is_err());
    }
}
