//! Notices that a file which the configuration was read from is another one.
//!
//! Looks at times, sizes and inodes instead of waiting for events: that also sees what is
//! swapped behind a symbolic link (Kubernetes' ConfigMaps and Secrets) or lies on a network file
//! system, and costs a few system calls each time. Always true: a file that is still being
//! written is not read; two looks must see the same.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forebay_seam::time;

use super::{Cause, Reloader};

/// How long to wait while nothing is to be watched, for a configuration that says otherwise.
const OFF: Duration = Duration::from_secs(1);

/// Which file it is, and when it was changed; `None`: it is not there.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// Watches as long as the runtime lives what changes from now on.
pub fn watch(reloader: Reloader) -> impl Future<Output = ()> + Send {
    let known = look_at(&reloader.in_force().files);
    watch_since(reloader, known)
}

async fn watch_since(reloader: Reloader, mut known: Vec<(PathBuf, Stamp)>) {
    let mut seen: Option<Vec<(PathBuf, Stamp)>> = None;
    loop {
        let period = reloader.in_force().config.reload.watch;
        if period.is_zero() {
            time::sleep(OFF).await;
            (known, seen) = (look(&reloader).await, None);
            continue;
        }
        time::sleep(period).await;
        let now = look(&reloader).await;
        if now == known {
            seen = None;
        } else if seen.as_ref() == Some(&now) {
            // What came of it is in the log, and a file that is wrong is not read again.
            drop(reloader.reload(Cause::File).await);
            // It may name other files by now. Of those that it named before, what was seen counts:
            // one that has changed since then may have been read too early.
            known = look(&reloader).await;
            for (file, stamp) in &mut known {
                if let Some((_, before)) = now.iter().find(|(other, _)| other == file) {
                    *stamp = *before;
                }
            }
            seen = None;
        } else {
            seen = Some(now);
        }
    }
}

async fn look(reloader: &Reloader) -> Vec<(PathBuf, Stamp)> {
    let files = reloader.in_force().files.clone();
    reloader.spawner().block(move || look_at(&files)).await.unwrap_or_default()
}

fn look_at(files: &[PathBuf]) -> Vec<(PathBuf, Stamp)> {
    files.iter().map(|file| (file.clone(), stamp(file))).collect()
}

fn stamp(file: &Path) -> Stamp {
    let found = fs::metadata(file).ok()?;
    Some((found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
}
