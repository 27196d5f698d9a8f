//! Cleans up after this process when it cannot do so itself.
//!
//! A shell sits at the other end of a pipe. When this process is gone, however it ended,
//! the pipe closes; the shell ends the child and removes the folder. A process that lives
//! to clean up itself dismisses its keeper.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// `$1` is the child, `$2` the signal that ends it, `$3` the folder. Ctrl-C is meant for
/// the one who is kept, not for the keeper.
const SCRIPT: &str = r#"trap '' INT TERM HUP
cat >/dev/null
kill -s "$2" "$1" 2>/dev/null
tries=0
while kill -0 "$1" 2>/dev/null && [ $tries -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
kill -s KILL "$1" 2>/dev/null
rm -rf -- "$3""#;

/// Ends a child and removes a folder, should this process die first.
pub(crate) struct Keeper {
    shell: Child,
}

impl Keeper {
    /// Watches over the process `child`, which `signal` ends, and over `folder`.
    pub(crate) fn of(child: u32, signal: &str, folder: &Path) -> io::Result<Self> {
        let shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "forebay-keeper", &child.to_string(), signal])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0)
            .spawn()?;
        Ok(Self { shell })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // It may have been ended by somebody else, which is as good.
        drop(self.shell.kill());
        drop(self.shell.wait());
    }
}
