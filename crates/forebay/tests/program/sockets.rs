//! Unix sockets that the program makes, and what it leaves of them.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::running::{Running, file, forebay};

fn postgres(folder: &Path) -> String {
    format!(
        "[postgres]\nlisten = [\"127.0.0.1:0\", \"unix:{}\"]\nunix_socket_mode = \"0750\"\n\
         auth = \"trust\"\n[postgres.servers.main]\naddress = \"127.0.0.1:1\"\n",
        folder.display()
    )
}

/// Somebody listens at `path` who knows the protocol.
fn answers(path: &Path) -> bool {
    let Ok(mut stream) = UnixStream::connect(path) else { return false };
    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).unwrap();
    let mut answer = [0];
    stream.read_exact(&mut answer).unwrap();
    answer == *b"N"
}

#[test]
fn a_unix_socket_is_there_while_the_program_runs_and_is_nobody_elses() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".s.PGSQL.6432");
    let nobody: SocketAddr = ([127, 0, 0, 1], 1).into();
    let mut running = Running::with(&postgres(folder.path()), nobody, "");
    assert!(answers(&path));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o750);
    // Another one must not take it over.
    let other = file(&format!("[admin]\nlisten = \"127.0.0.1:0\"\n{}", postgres(folder.path())));
    let second = forebay().arg("run").arg(&other.path).output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success());
    assert!(said.contains(".s.PGSQL.6432") && said.contains("postgres.listen"), "{said}");
    assert!(answers(&path));
    running.signal(Signal::SIGTERM);
    assert!(running.wait().success() && !path.exists());
}
