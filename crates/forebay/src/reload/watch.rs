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

/// Watches as long as the runtime lives.
pub async fn watch(reloader: Reloader) {
    let mut known = look(&reloader).await;
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
            // It may name other files by now.
            (known, seen) = (look(&reloader).await, None);
        } else {
            seen = Some(now);
        }
    }
}

async fn look(reloader: &Reloader) -> Vec<(PathBuf, Stamp)> {
    let files = reloader.in_force().files.clone();
    let look = move || files.into_iter().map(|file| (file.clone(), stamp(&file))).collect();
    reloader.spawner().block(look).await.unwrap_or_default()
}

fn stamp(file: &Path) -> Stamp {
    let found = fs::metadata(file).ok()?;
    Some((found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
}
