//! A thousand requests by script, over real sockets: some hold a transaction during a call and
//! some do not. Every overlap is found once, with its feature, statement and call; none is
//! invented.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use forebay_http::{Gateway, HttpSettings};
use forebay_pool::overlap::{HoldKind, Overlap, Overlaps, Phase};
use forebay_seam::net::{self, TcpStream};
use forebay_seam::task::Stopper;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::broadcast::Receiver;
use tokio::task::JoinHandle;

use crate::bench::{Bench, until};
use crate::client::Client;

const REQUESTS: u32 = 1_000;
const WORKERS: u32 = 25;

/// What is to be found of a request, and what was: kind, feature, statement, operation, model
/// or tool.
type Found = BTreeMap<String, Vec<(HoldKind, String, String, String, Option<String>)>>;

/// A service that answers each call at once.
async fn service() -> SocketAddr {
    let listener = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                while read_message(&mut stream).await.is_some() {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Reads a head and the body that it announces.
async fn read_message(stream: &mut TcpStream) -> Option<()> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
            if bytes.len() >= end + 4 + length {
                return Some(());
            }
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

/// An agent: a database connection and one for calls, both through Forebay.
struct Agent {
    database: Client,
    calls: TcpStream,
}

impl Agent {
    async fn call(&mut self, path: &str, headers: &str, body: &str) {
        let length = body.len();
        let call = format!(
            "POST /llm{path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n{headers}\r\n{body}"
        );
        self.calls.write_all(call.as_bytes()).await.unwrap();
        read_message(&mut self.calls).await.unwrap();
    }

    /// One request; what is to be found of it.
    async fn request(&mut self, n: u32, expected: &mut Found) {
        let (hex, other) = (format!("{:032x}", n + 1), format!("{:032x}", n + 1_000_000));
        let trace = |hex: &str| format!("00-{hex}-00f067aa0ba902b7-01");
        let header = |hex: &str| format!("traceparent: {}\r\n", trace(hex));
        let (feature, path) = (format!("/f{}", n % 10), format!("/v1/op{}x", n % 7));
        let tags = format!("/*traceparent='{}',route='%2Ff{}'*/", trace(&hex), n % 10);
        let (select, shape) = match n % 3 {
            0 => (format!("SELECT {n} AS a {tags}"), "SELECT ? AS a"),
            1 => (format!("SELECT {n}, 'b' {tags}"), "SELECT ?, ?"),
            _ => (format!("SELECT upper('{n}') {tags}"), "SELECT upper(?)"),
        };
        let held = |subject: Option<&str>| {
            let (shape, operation) = (shape.to_owned(), format!("POST {path}"));
            (HoldKind::Held, feature.clone(), shape, operation, subject.map(str::to_owned))
        };
        let model = r#"{"messages":[],"model":"small"}"#;
        let mut holds = Vec::new();
        match n % 9 {
            // Holds.
            0 | 1 => {
                self.run(&["BEGIN", &select]).await;
                self.call(&path, &header(&hex), model).await;
                self.run(&["COMMIT"]).await;
                holds.push(held(Some("small")));
            }
            // Holds, twice, and is found by MCP's _meta.
            2 => {
                self.run(&["BEGIN", &select]).await;
                let tool = format!(
                    "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":\
                     {{\"name\":\"find\",\"_meta\":{{\"traceparent\":\"{}\"}}}}}}",
                    trace(&hex)
                );
                self.call(&path, "", &tool).await;
                self.call(&path, &header(&hex), "{}").await;
                self.run(&["ROLLBACK"]).await;
                holds.extend([held(Some("find")), held(None)]);
            }
            // Has begun, and nothing else; the session says whose it is.
            3 => {
                let said = format!("SET forebay.request = '{hex}'");
                let named = format!("SET forebay.feature = '{feature}'");
                self.run(&[&said, &named, "BEGIN"]).await;
                self.call(&path, &format!("x-forebay-request: {hex}\r\n"), model).await;
                self.run(&["COMMIT", "RESET forebay.request", "RESET forebay.feature"]).await;
                let (_, feature, _, operation, subject) = held(Some("small"));
                holds.push((HoldKind::Deferred, feature, "BEGIN".to_owned(), operation, subject));
            }
            // Has ended its transaction before.
            4 => {
                self.run(&["BEGIN", &select, "COMMIT"]).await;
                self.call(&path, &header(&hex), model).await;
            }
            // Had none.
            5 => {
                self.run(&[&select]).await;
                self.call(&path, &header(&hex), model).await;
            }
            // Another request's call, and one of none.
            6 => {
                self.run(&["BEGIN", &select]).await;
                self.call(&path, &header(&other), model).await;
                self.call(&path, "", model).await;
                self.run(&["COMMIT"]).await;
            }
            // A query that runs beside a call.
            7 => {
                let query = format!("SELECT pg_sleep(0.005) {tags}");
                let (database, calls) = (&mut self.database, &mut self.calls);
                let call = format!(
                    "POST /llm{path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n{}\r\n",
                    header(&hex)
                );
                let calling = async {
                    calls.write_all(call.as_bytes()).await.unwrap();
                    read_message(calls).await.unwrap();
                };
                tokio::join!(database.query(&query), calling);
            }
            // A transaction of no request.
            _ => {
                self.run(&["BEGIN", "SELECT 1"]).await;
                self.call(&path, &header(&hex), model).await;
                self.run(&["COMMIT"]).await;
            }
        }
        if !holds.is_empty() {
            expected.insert(hex, holds);
        }
    }

    async fn run(&mut self, statements: &[&str]) {
        for statement in statements {
            let answer = self.database.query(statement).await;
            assert!(!answer.contains("ERROR"), "{statement}: {answer}");
        }
    }
}

/// Collects all that is told, until every overlap that began is over.
fn collect(mut events: Receiver<Overlap>, wanted: usize) -> JoinHandle<Vec<Overlap>> {
    tokio::spawn(async move {
        let mut told = Vec::new();
        let mut released = 0;
        while released < wanted {
            let overlap = events.recv().await.expect("nothing is missed");
            released += usize::from(overlap.phase == Phase::Released);
            told.push(overlap);
        }
        told
    })
}

/// How many overlaps the script has.
fn scripted() -> usize {
    (0..REQUESTS).map(|n| [1, 1, 2, 1, 0, 0, 0, 0, 0][n as usize % 9]).sum()
}

fn serve_calls(
    overlaps: &Arc<Overlaps>,
    service: SocketAddr,
    stopper: &mut Vec<Stopper>,
) -> SocketAddr {
    let text = format!("[destinations.llm]\nurl = \"http://{service}\"\nbudget = 50\n");
    let settings: HttpSettings = toml::from_str(&text).unwrap();
    let gateway = Gateway::new(settings, Arc::clone(overlaps), Arc::default()).unwrap();
    let listener = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, told) = Stopper::new();
    stopper.push(stop);
    drop(tokio::spawn(async move { gateway.serve(listener.into(), told).await }));
    address
}

#[tokio::test]
async fn of_a_thousand_requests_each_hold_is_found_once_and_none_is_invented() {
    let bench = Bench::start(20).await;
    let mut stoppers = Vec::new();
    let calls = serve_calls(&bench.overlaps, service().await, &mut stoppers);
    let told = collect(bench.overlaps.events(), scripted());
    let mut workers = Vec::new();
    for worker in 0..WORKERS {
        let database = bench.client().await;
        let calls = net::connect(&[calls]).await.unwrap();
        workers.push(tokio::spawn(async move {
            let (mut agent, mut expected) = (Agent { database, calls }, Found::new());
            for n in (0..REQUESTS).filter(|n| n % WORKERS == worker) {
                agent.request(n, &mut expected).await;
            }
            expected
        }));
    }
    let mut expected = Found::new();
    for worker in workers {
        expected.extend(worker.await.unwrap());
    }
    bench.all_home().await;
    let told = told.await.unwrap();
    let mut found = Found::new();
    for overlap in told.iter().filter(|overlap| overlap.phase == Phase::Ends) {
        assert_eq!(overlap.kind == HoldKind::Held, !overlap.held_during.is_zero());
        found.entry(overlap.trace.to_string()).or_default().push((
            overlap.kind,
            overlap.feature.to_string(),
            overlap.statement.to_string(),
            overlap.operation.to_string(),
            overlap.subject.as_ref().map(|subject| subject.name().to_string()),
        ));
    }
    assert_eq!(found, expected);
    let count = |phase| told.iter().filter(|overlap| overlap.phase == phase).count();
    let phases = [Phase::Begins, Phase::Changes, Phase::Ends, Phase::Released].map(count);
    assert_eq!(phases, [scripted(), 0, scripted(), scripted()]);
    let counts = bench.overlaps.counts();
    assert_eq!(counts.iter().map(|count| count.begun).sum::<u64>(), scripted() as u64);
    let report = bench.overlaps.report();
    assert_eq!(report.features.len(), 10, "each feature is told of");
    until("nothing idles", async || bench.overlaps.holds().is_empty()).await;
}
