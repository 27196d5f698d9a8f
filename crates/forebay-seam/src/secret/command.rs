//! Programs that print secrets: what they print is bounded, and so is the time they take.
//!
//! A program runs in a process group of its own, without input; whoever is too slow or says
//! too much is killed with all that it started. What it complains of is not kept: it may
//! repeat the secret.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::{LONGEST, SecretError};

/// How long a program may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether a program that has closed its output has ended.
const LOOK: Duration = Duration::from_millis(5);
/// How long it may take for that.
const LOOKS: u32 = 200;

/// What `command` prints, split at white space: no shell is involved.
pub(super) fn run(command: &str) -> Result<String, SecretError> {
    run_within(command, PATIENCE)
}

fn run_within(command: &str, patience: Duration) -> Result<String, SecretError> {
    let mut words = command.split_whitespace();
    let program = words.next().unwrap_or_default();
    let failed = |reason: String| SecretError::Command { program: program.to_owned(), reason };
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let outcome = printed(&mut child, patience).and_then(|printed| {
        let status = ended(&mut child).ok_or("it does not end")?;
        if status.success() { Ok(printed) } else { Err(status.to_string()) }
    });
    if outcome.is_err() {
        end(&mut child);
    }
    String::from_utf8(outcome.map_err(&failed)?).map_err(|_| failed("its output is no text".into()))
}

/// All that it prints, up to the end of its output.
fn printed(child: &mut Child, patience: Duration) -> Result<Vec<u8>, String> {
    let output = child.stdout.take().ok_or("it has no output")?;
    let (tell, told) = sync_channel(1);
    let reading = thread::Builder::new().name("forebay-secret".to_owned()).spawn(move || {
        let mut text = Vec::new();
        let read = output.take(LONGEST + 1).read_to_end(&mut text);
        // Nobody listens any more when it took too long.
        drop(tell.send(read.map(|_| text)));
    });
    drop(reading.map_err(|error| error.to_string())?);
    match told.recv_timeout(patience) {
        Ok(Ok(text)) if u64::try_from(text.len()).is_ok_and(|length| length > LONGEST) => {
            Err(format!("it prints more than {} KiB", LONGEST / 1024))
        }
        Ok(Ok(text)) => Ok(text),
        Ok(Err(error)) => Err(error.to_string()),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            Err(format!("it took longer than {} s", patience.as_secs_f64()))
        }
    }
}

/// How it ended, if it did.
fn ended(child: &mut Child) -> Option<ExitStatus> {
    for _ in 0..LOOKS {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) => thread::sleep(LOOK),
            Err(_) => return None,
        }
    }
    None
}

/// Ends it, and what it started.
fn end(child: &mut Child) {
    if let Ok(group) = i32::try_from(child.id()) {
        // It may have ended by itself.
        killpg(Pid::from_raw(group), Signal::SIGKILL).unwrap_or_default();
    }
    drop(child.wait());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_does_not_end_is_ended_and_so_is_what_it_started() {
        let error = run_within("sleep 60", Duration::from_millis(20)).unwrap_err();
        assert!(error.to_string().contains("took longer than 0.02 s"), "{error}");
    }

    #[test]
    fn a_program_that_prints_without_end_is_ended() {
        let error = run("yes hunter2").unwrap_err().to_string();
        assert!(error.contains("more than 64 KiB") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn what_a_program_complains_of_is_not_told() {
        let error = run("ls --hunter2").unwrap_err().to_string();
        assert!(error.contains("exit status") && !error.contains("hunter2"), "{error}");
    }
}
