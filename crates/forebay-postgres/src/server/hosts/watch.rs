//! Looking after the hosts of a server while nobody asks for a connection: their roles, their
//! names, and connections that no longer lead where they should.
//!
//! It logs in as somebody who has logged in before, and keeps no connection. Always true: a
//! host that does not answer delays the look at no other.

use std::time::Duration;

use forebay_pool::Pool;
use forebay_seam::task::Stop;
use forebay_seam::time;
use tokio::task::JoinSet;

use crate::server::connector::Postgres;

/// Two looks are at least so far apart, however many doubts there are.
const LEAST_PAUSE: Duration = Duration::from_millis(500);

/// How often to look, and to ask for names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rhythm {
    pub(crate) look: Duration,
    pub(crate) names: Duration,
}

/// Looks after the hosts of `pool` until `stop` is told.
pub(crate) async fn watch(pool: Pool<Postgres>, rhythm: Rhythm, mut stop: Stop) {
    let all = async { tokio::join!(replace(&pool), names(&pool, rhythm), look(&pool, rhythm)) };
    tokio::select! {
        _never = all => {}
        () = stop.told() => {}
    }
}

/// Connections that lead elsewhere are replaced as soon as that is known.
async fn replace(pool: &Pool<Postgres>) {
    loop {
        pool.connector().hosts.news.notified().await;
        pool.replace_outdated();
    }
}

/// Names are asked for again, so that a change is noticed while nothing is opened.
async fn names(pool: &Pool<Postgres>, rhythm: Rhythm) {
    loop {
        time::sleep(rhythm.names.max(LEAST_PAUSE)).await;
        for host in pool.connector().hosts.list() {
            // Those that nobody has used yet need no answer.
            if !host.target.name.known().is_empty() {
                drop(host.target.name.addresses().await);
            }
        }
    }
}

async fn look(pool: &Pool<Postgres>, rhythm: Rhythm) {
    let hosts = &pool.connector().hosts;
    if !hosts.is_choosy() {
        return;
    }
    loop {
        drop(time::timeout(rhythm.look.max(LEAST_PAUSE), hosts.doubted()).await);
        let mut looks = JoinSet::new();
        for number in 0..hosts.list().len() {
            let pool = pool.clone();
            looks.spawn(async move { pool.connector().look(number).await });
        }
        tokio::join!(time::sleep(LEAST_PAUSE), looks.join_all());
    }
}
