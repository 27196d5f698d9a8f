//! What the system has to do with it: sockets of the service manager, users, signals.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::{User, getuid};
use tokio::runtime::Runtime;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use crate::bench::{Folder, cluster, free_port, psql, until};

fn come(runtime: &Runtime, to: &str) -> Client {
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(to, NoTls).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        client.simple_query("SELECT 1").await.unwrap();
        client
    })
}

#[test]
fn it_listens_at_what_the_service_manager_has_opened_and_says_when_it_is_ready() {
    cluster();
    let folder = Folder::new();
    let opened = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = opened.local_addr().unwrap().port();
    let manager = UnixDatagram::bind(folder.path("notify")).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // As systemd does it: the first socket is number 3, and the process knows that it is meant.
    let script = "export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" pgbouncer minimal.ini 3<&0";
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_forebay"));
    command.current_dir(folder.path("")).stdin(OwnedFd::from(opened));
    command.env("NOTIFY_SOCKET", folder.path("notify"));
    let mut running = folder.start("stderr", &mut command);
    let mut heard = [0; 64];
    let length = manager.recv(&mut heard).unwrap();
    let expected = format!("READY=1\nMAINPID={}", running.id());
    assert_eq!(std::str::from_utf8(&heard[..length]).unwrap(), expected);
    let to = format!("host=127.0.0.1 port={port} user=forebay dbname=postgres");
    assert!(psql(&to, "SELECT 1").status.success());
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, folder.port)).is_err());
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait(), Some(0));
    let length = manager.recv(&mut heard).unwrap();
    assert_eq!(&heard[..length], b"STOPPING=1");
}

#[test]
fn it_runs_as_the_user_that_it_is_told_to() {
    let folder = Folder::new();
    let Some(nobody) = User::from_name("nobody").unwrap() else { return };
    if !getuid().is_root() {
        let refused = folder.forebay(&["pgbouncer", "-u", "nobody", "minimal.ini"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains("only root may change it"), "{said}");
        return;
    }
    fs::set_permissions(folder.path(""), fs::Permissions::from_mode(0o777)).unwrap();
    let running = folder.run(&["pgbouncer", "-u", "nobody", "minimal.ini"]);
    let status = fs::read_to_string(format!("/proc/{}/status", running.id())).unwrap();
    let ids = format!("Uid:\t{0}\t{0}\t{0}\t{0}\n", nobody.uid);
    assert!(status.contains(&ids), "{status}");
    assert!(psql(&folder.to("postgres", "forebay"), "SELECT 1").status.success());
    assert!(!folder.said().contains("running as root"), "{}", folder.said());
}

#[test]
fn sigint_waits_for_servers_and_a_second_sigterm_for_nobody() {
    let folder = Folder::new();
    let ini = fs::read_to_string(folder.path("minimal.ini")).unwrap();
    folder.write("i.ini", &format!("{ini}pool_mode = transaction\n"));
    let runtime = Runtime::new().unwrap();
    let to = folder.to("postgres", "forebay");
    let mut running = folder.run(&["pgbouncer", "i.ini"]);
    let (busy, idle) = (come(&runtime, &to), come(&runtime, &to));
    runtime.block_on(busy.batch_execute("BEGIN")).unwrap();
    runtime.block_on(busy.simple_query("SELECT 1")).unwrap();
    running.signal(Signal::SIGINT);
    running.logged("waiting for all server connections");
    // Nobody new comes in, what runs comes to its end, and who only idles is not waited for.
    until(|| TcpStream::connect((Ipv4Addr::LOCALHOST, folder.port)).is_err());
    runtime.block_on(busy.batch_execute("SELECT 2; COMMIT")).unwrap();
    assert_eq!(running.wait(), Some(0));
    assert!(runtime.block_on(idle.simple_query("SELECT 1")).is_err());

    let mut running = folder.run(&["pgbouncer", "i.ini"]);
    let _idle = come(&runtime, &to);
    running.signal(Signal::SIGTERM);
    running.logged("waiting for all clients to leave");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait(), Some(0));
}

#[test]
fn a_cancel_request_that_comes_to_a_peer_finds_its_client() {
    let folder = Folder::new();
    let ports = [folder.port, free_port()];
    for (number, port) in ports.iter().enumerate() {
        let id = number + 1;
        fs::create_dir(folder.path(&id.to_string())).unwrap();
        folder.write(
            &format!("{id}.ini"),
            &format!(
                "[databases]\npostgres = host=127.0.0.1 port=@SERVER@\n[peers]\n\
                 1 = host=127.0.0.1 port={}\n2 = host=127.0.0.1 port={}\n[pgbouncer]\n\
                 peer_id = {id}\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
                 unix_socket_dir = @DIR@/{id}\nauth_type = trust\nauth_file = @DIR@/userlist.txt\n",
                ports[0], ports[1]
            ),
        );
    }
    let _first = folder.run(&["pgbouncer", "1.ini"]);
    let second = folder.beside("stderr2", &["pgbouncer", "2.ini"]);
    second.logged("Forebay listens");
    let runtime = Runtime::new().unwrap();
    let client = come(&runtime, &folder.to("postgres", "forebay"));
    let token = client.cancel_token();
    let error = runtime.block_on(async {
        let sleeps = client.simple_query("SELECT pg_sleep(20)");
        let cancels = async {
            loop {
                forebay_seam::time::sleep(Duration::from_millis(100)).await;
                let second = SocketAddr::from((Ipv4Addr::LOCALHOST, ports[1]));
                let other = forebay_seam::net::connect(&[second]).await.unwrap();
                token.cancel_query_raw(other, NoTls).await.unwrap();
            }
        };
        tokio::select! {
            slept = sleeps => slept.unwrap_err(),
            () = cancels => unreachable!(),
        }
    });
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED), "{error:?}");
}
