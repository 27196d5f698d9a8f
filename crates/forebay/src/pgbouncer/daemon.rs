//! Into the background, without forking: the program starts itself anew, in a session of its
//! own.
//!
//! The first process waits until the second listens, and ends as that would have ended; so
//! whoever starts it knows whether it runs. PgBouncer returns before it listens.

use std::env;
use std::io::{self, Read as _, Write as _};
use std::process::{Command, ExitCode, Stdio};

use nix::unistd::{dup2_stdout, setsid};

/// Set for the process in the background.
const MARK: &str = "FOREBAY_PGBOUNCER_DAEMON";
/// What it says once it listens.
const LISTENS: &[u8] = b"listens\n";

/// Which of the two processes this is.
pub(super) fn is_background() -> bool {
    env::var_os(MARK).is_some()
}

/// Starts this program anew in the background and waits until it listens: the code to exit
/// with.
///
/// # Errors
/// When it cannot be started.
pub(super) fn start() -> io::Result<ExitCode> {
    let mut child = Command::new(env::current_exe()?)
        .args(env::args_os().skip(1))
        .env(MARK, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = Vec::new();
    if let Some(mut stdout) = child.stdout.take() {
        // Ends when the child lets go of it: when it listens, or when it has ended.
        stdout.read_to_end(&mut said)?;
    }
    if said == LISTENS {
        return Ok(ExitCode::SUCCESS);
    }
    let code = child.wait()?.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.filter(|code| *code != 0).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Leaves the terminal's session. In the background only.
///
/// # Errors
/// What the system says.
pub(super) fn detach() -> io::Result<()> {
    setsid()?;
    Ok(())
}

/// Tells the first process that we listen, and lets go of its pipe.
///
/// # Errors
/// What the system says.
pub(super) fn listens() -> io::Result<()> {
    let mut out = io::stdout();
    // Nobody may be left to hear it.
    drop(out.write_all(LISTENS).and_then(|()| out.flush()));
    let nowhere = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    dup2_stdout(&nowhere)?;
    nix::unistd::dup2_stderr(&nowhere)?;
    Ok(())
}
