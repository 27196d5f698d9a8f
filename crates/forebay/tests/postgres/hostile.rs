//! Clients that send what nobody should: a gateway before a real PostgreSQL is none the worse
//! for it. Its pool stays at full size, others are served, memory stays bounded.

use std::time::Duration;

use forebay_seam::time;
use futures_util::future;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bench::Bench;
use crate::client::{Client, startup};
use crate::differential::chance::Chance;
use crate::differential::messages;

/// Clients in one run of the test command; `FOREBAY_HOSTILE` says otherwise.
const CLIENTS: u64 = 160;
/// Clients at once.
const AT_ONCE: u64 = 8;
/// What memory may grow by, over all that was held at a time before.
const GROWTH: u64 = 64 << 20;

/// Changes a few bytes of `stream`, or its order.
fn harm(chance: &mut Chance, stream: &mut Vec<u8>) {
    for _ in 0..chance.below(4) {
        let at = chance.below(stream.len().max(1)).min(stream.len());
        match chance.below(6) {
            0 => stream.truncate(at),
            1 => stream.insert(at, chance.next().to_be_bytes()[0]),
            2 => {
                let length = chance.one_of(&[0_u32, 3, 4, 5, 1 << 20, 0x3fff_ffff, u32::MAX]);
                let end = stream.len().min(at + 4);
                stream.splice(at..end, length.to_be_bytes());
            }
            3 => {
                let part = stream.split_off(at);
                stream.extend(part.repeat(2));
            }
            4 => stream.extend(std::iter::repeat_n(0, chance.below(1000))),
            _ => {
                if let Some(byte) = stream.get_mut(at) {
                    *byte ^= 1 << chance.below(8);
                }
            }
        }
    }
}

/// One client: what it says, and how it goes.
async fn attack(bench: &Bench, seed: u64) {
    let mut chance = Chance::new(seed);
    let mut client = if chance.one_in(6) {
        let mut client = Client::bare(bench.address).await;
        let mut first = startup(&[("user", "forebay"), ("database", &bench.database)]);
        harm(&mut chance, &mut first);
        drop(client.stream.write_all(&first).await);
        client
    } else {
        bench.client().await
    };
    let all = messages(seed);
    for _ in 0..1 + chance.below(3) {
        let first = chance.below(all.len());
        let some = all.iter().skip(first).take(1 + chance.below(8));
        let mut stream: Vec<u8> = some.flatten().copied().collect();
        harm(&mut chance, &mut stream);
        // Who is not read does not read either.
        let said = client.stream.write_all(&stream);
        drop(time::timeout(Duration::from_millis(30), said).await);
        let mut answer = vec![0; 64 * 1024];
        let heard = client.stream.read(&mut answer);
        drop(time::timeout(Duration::from_millis(30), heard).await);
    }
    if chance.one_in(2) {
        drop(client.stream.shutdown().await);
    }
}

/// Bytes of memory that this process has.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn clients_that_send_nonsense_harm_nobody() {
    let clients = std::env::var("FOREBAY_HOSTILE").ok().map(|n| n.parse().unwrap());
    let bench = Bench::start(2).await;
    let mut good = bench.client().await;
    good.query("CREATE TABLE hostile (n int, t text); CREATE TABLE hostile_once (n int)").await;
    let mut before = None;
    for first in (0..clients.unwrap_or(CLIENTS)).step_by(usize::try_from(AT_ONCE).unwrap()) {
        let seeds = first..first + AT_ONCE;
        future::join_all(seeds.map(|seed| attack(&bench, seed))).await;
        assert_eq!(good.query("SELECT 1").await, "T D[1] C[SELECT 1] Z[I]", "after {first}");
        if first == 5 * AT_ONCE {
            before = Some(memory());
        }
    }
    bench.all_home().await;
    let grown = memory().saturating_sub(before.unwrap());
    assert!(grown < GROWTH, "{grown} bytes more than early on");
    // Both connections serve, and there are no others.
    let mut other = bench.client().await;
    for client in [&mut good, &mut other] {
        assert_eq!(client.query("BEGIN").await, "C[BEGIN] Z[T]");
        assert_eq!(client.query("SELECT 1").await, "T D[1] C[SELECT 1] Z[T]");
    }
    let there = format!(
        "SELECT count(*) FROM pg_stat_activity \
         WHERE datname = '{}' AND pid <> pg_backend_pid()",
        bench.database
    );
    assert_eq!(bench.truth(&there).await, "2");
}
