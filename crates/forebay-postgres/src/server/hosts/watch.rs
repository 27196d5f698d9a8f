//! Looking after the hosts of a server while nobody asks for a connection: their roles, their
//! names, and connections that no longer lead where they should.
//!
//! It logs in as somebody who has logged in before, and keeps no connection. Always true: a
//! host that does not answer delays the look at no other, and the watch ends with its pool.

use std::sync::Arc;
use std::time::Duration;

use forebay_pool::{Pool, WeakPool};
use forebay_seam::time;
use tokio::task::JoinSet;

use super::Hosts;
use crate::server::connector::Postgres;

/// Two looks are at least so far apart, however many doubts there are.
const LEAST_PAUSE: Duration = Duration::from_millis(500);
/// Who waits for news looks at least so often.
const ROUND: Duration = Duration::from_secs(60);

/// Looks after the hosts of `pool` as long as there is one.
pub(crate) fn start(pool: &Pool<Postgres>) {
    drop(tokio::spawn(replace(pool.downgrade())));
    drop(tokio::spawn(names(pool.downgrade())));
    drop(tokio::spawn(look(pool.downgrade())));
}

fn hosts(pool: &WeakPool<Postgres>) -> Option<Arc<Hosts>> {
    Some(Arc::clone(&pool.upgrade()?.connector().access().hosts))
}

/// Connections that lead elsewhere are replaced as soon as that is known.
async fn replace(pool: WeakPool<Postgres>) {
    while let Some(hosts) = hosts(&pool) {
        drop(time::timeout(ROUND, hosts.news.notified()).await);
        if let Some(pool) = pool.upgrade() {
            pool.replace_outdated();
        }
    }
}

/// Names are asked for again, so that a change is noticed while nothing is opened.
async fn names(pool: WeakPool<Postgres>) {
    while let Some(hosts) = hosts(&pool) {
        let mut pause = ROUND;
        for host in hosts.list() {
            pause = pause.min(host.name.ttl()).max(LEAST_PAUSE);
            // Those that nobody has used yet need no answer.
            if !host.name.known().is_empty() {
                drop(host.name.addresses().await);
            }
        }
        drop(time::timeout(pause, hosts.left.notified()).await);
    }
}

async fn look(pool: WeakPool<Postgres>) {
    while let Some(hosts) = hosts(&pool) {
        let pause = if hosts.is_choosy() { hosts.rhythm() } else { ROUND };
        drop(time::timeout(pause.max(LEAST_PAUSE), hosts.doubted()).await);
        if !hosts.is_choosy() {
            continue;
        }
        let mut looks = JoinSet::new();
        for number in 0..hosts.list().len() {
            let Some(pool) = pool.upgrade() else { return };
            looks.spawn(async move { pool.connector().look(number).await });
        }
        tokio::join!(time::sleep(LEAST_PAUSE), looks.join_all());
    }
}
