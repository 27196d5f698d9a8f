//! One process after the other, under load: nobody is refused, and who is there stays.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use nix::sys::signal::Signal;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use crate::bench::{Folder, psql, until};

/// Clients that come and go without end.
struct Crowd {
    runtime: tokio::runtime::Runtime,
    served: Arc<AtomicU32>,
    over: Arc<AtomicBool>,
    coming: Vec<tokio::task::JoinHandle<()>>,
}

impl Crowd {
    fn at(to: &str) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (served, over) = (Arc::<AtomicU32>::default(), Arc::<AtomicBool>::default());
        let coming = (0..8).map(|_| {
            let (to, served, over) = (to.to_owned(), Arc::clone(&served), Arc::clone(&over));
            runtime.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let client = come(&to).await;
                    client.simple_query("SELECT 1").await.unwrap();
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let coming = coming.collect();
        Self { runtime, served, over, coming }
    }

    /// Waits until some more have been served.
    fn goes_on(&self) {
        let now = self.served.load(Ordering::Relaxed);
        until(|| {
            assert!(!self.coming.iter().any(|one| one.is_finished()), "somebody was refused");
            self.served.load(Ordering::Relaxed) > now + 40
        });
    }

    fn ends(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for one in self.coming.drain(..) {
            self.runtime.block_on(one).unwrap();
        }
    }
}

async fn come(to: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(to, NoTls).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    client
}

fn ini(folder: &Folder, more: &str) -> String {
    format!(
        "[databases]\npostgres = host=127.0.0.1 port=@SERVER@\n[pgbouncer]\n\
         listen_addr = 127.0.0.1\nlisten_port = {}\nauth_type = trust\n\
         auth_file = @DIR@/userlist.txt\npool_mode = transaction\n{more}",
        folder.port
    )
}

#[test]
fn the_process_that_takes_over_refuses_nobody_and_drops_nobody() {
    let folder = Folder::new();
    folder.write("r.ini", &ini(&folder, "unix_socket_dir = @DIR@\npidfile = @DIR@/pid\n"));
    let mut first = folder.run(&["pgbouncer", "r.ini"]);
    first.logged("Forebay listens");
    let alone = folder.forebay(&["pgbouncer", "r.ini"]);
    assert!(!alone.status.success(), "without -R it is refused: {alone:?}");
    let to = folder.to("postgres", "forebay");
    let mut crowd = Crowd::at(&to);
    let stays = crowd.runtime.block_on(come(&to));
    crowd.runtime.block_on(stays.batch_execute("BEGIN; CREATE TEMP TABLE t (n int)")).unwrap();
    crowd.goes_on();

    let mut second = folder.beside("stderr2", &["pgbouncer", "-R", "r.ini"]);
    second.logged("Forebay listens");
    first.logged("waiting for all clients to leave");
    let pid = || fs::read_to_string(folder.path("pid")).unwrap();
    assert_eq!(pid(), format!("{}\n", second.id()));
    crowd.goes_on();

    // Who stays goes on where it was, and its cancel requests find it.
    crowd.runtime.block_on(stays.batch_execute("INSERT INTO t VALUES (1); COMMIT")).unwrap();
    let cancel = stays.cancel_token();
    let error = crowd.runtime.block_on(async {
        let sleeps = stays.simple_query("SELECT pg_sleep(20)");
        let cancels = async {
            loop {
                forebay_seam::time::sleep(std::time::Duration::from_millis(50)).await;
                cancel.cancel_query(NoTls).await.unwrap();
            }
        };
        tokio::select! {
            slept = sleeps => slept.unwrap_err(),
            () = cancels => unreachable!(),
        }
    });
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED), "{error:?}");

    // When it leaves, the first process ends; the next one takes over from the second.
    drop(stays);
    assert_eq!(first.wait(), Some(0));
    second.logged("the process before has ended");
    let third = folder.beside("stderr3", &["pgbouncer", "-R", "r.ini"]);
    third.logged("Forebay listens");
    crowd.goes_on();
    assert_eq!(second.wait(), Some(0));
    assert_eq!(pid(), format!("{}\n", third.id()));
    crowd.ends();
}

#[test]
fn processes_that_share_a_port_follow_each_other_without_a_gap() {
    let folder = Folder::new();
    for name in ["one", "two"] {
        fs::create_dir(folder.path(name)).unwrap();
        let more = format!("so_reuseport = 1\nunix_socket_dir = @DIR@/{name}\n");
        folder.write(&format!("{name}.ini"), &ini(&folder, &more));
    }
    let mut first = folder.run(&["pgbouncer", "one.ini"]);
    first.logged("Forebay listens");
    let mut crowd = Crowd::at(&folder.to("postgres", "forebay"));
    crowd.goes_on();
    let second = folder.beside("stderr2", &["pgbouncer", "two.ini"]);
    second.logged("Forebay listens");
    crowd.goes_on();
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait(), Some(0));
    crowd.goes_on();
    crowd.ends();
}

#[test]
fn where_nobody_runs_it_starts_as_ever() {
    let folder = Folder::new();
    let running = folder.run(&["pgbouncer", "-R", "minimal.ini"]);
    running.logged("Forebay listens");
}

#[test]
fn what_the_server_has_room_for_is_not_compared_with_what_nobody_has_set() {
    let folder = Folder::new();
    folder.write("b.ini", &ini(&folder, "unix_socket_dir =\nadmin_users = forebay\n"));
    let _running = folder.run(&["pgbouncer", "b.ini"]);
    assert!(psql(&folder.to("postgres", "forebay"), "SELECT 1").status.success());
    until(|| {
        let shown = psql(&folder.to("forebay", "forebay"), "SHOW BUDGETS");
        // The tenth column: what the server says it can take.
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        text.split('|').nth(9).is_some_and(|capacity| capacity.parse::<u32>().is_ok())
    });
    assert!(!folder.said().contains("less room"), "{}", folder.said());
}
