//! Every message about a name, known, unknown or taken, in every status of a transaction: the
//! answers are PostgreSQL's own, byte for byte, whether the server connection at hand has
//! the statement or not.

use crate::bench::Bench;
use crate::client::{Client, Message, bind, close, describe, execute, parse, query, show, sync};

/// Messages as they came, without the lines of PostgreSQL's source in errors.
pub(crate) fn exactly(messages: &[Message]) -> Vec<(char, String)> {
    let place = |field: &&[u8]| matches!(field.first(), Some(b'F' | b'L' | b'R'));
    let body = |message: &Message| match message.tag {
        b'E' | b'N' => {
            let fields = message.body.split(|byte| *byte == 0).filter(|field| !place(field));
            fields.collect::<Vec<_>>().join(&0)
        }
        _ => message.body.clone(),
    };
    let shown = messages.iter().filter(|message| message.tag != b'S');
    shown.map(|m| (char::from(m.tag), String::from_utf8_lossy(&body(m)).into_owned())).collect()
}

/// How a client gets into a status: batches, each with one ReadyForQuery.
const STATUSES: &[(&str, &[&str])] = &[
    ("idle", &[]),
    ("begun", &["BEGIN"]),
    ("open", &["BEGIN", "SELECT 1"]),
    ("failed", &["BEGIN", "SELECT 1/0"]),
];

fn probes() -> Vec<(String, Vec<u8>)> {
    let mut probes = Vec::new();
    let texts = ["SELECT 1", "SELECT 2", "SELEC", "SELECT * FROM nowhere", "ROLLBACK", "", "a; b"];
    for name in ["known", "end", "fresh", ""] {
        for text in texts {
            probes.push((format!("Parse {name:?} {text:?}"), parse(name, text)));
        }
    }
    for name in ["known", "writes", "end", "nothing", "takes", "nobody", ""] {
        for portal in ["", "p"] {
            let all = [bind(portal, name, &[]), execute(portal, 0)].concat();
            probes.push((format!("Bind, Execute {portal:?} {name:?}"), all));
        }
        let all = [bind("", name, &["1", "2"]), execute("", 0)].concat();
        probes.push((format!("Bind {name:?} with two values"), all));
        probes.push((format!("Close {name:?}"), close(b'S', name)));
    }
    for name in ["known", "end", "takes", "nobody", ""] {
        probes.push((format!("Describe {name:?}"), describe(b'S', name)));
    }
    for portal in ["nobody", ""] {
        probes.push((format!("Execute {portal:?}"), execute(portal, 0)));
        probes.push((format!("Describe portal {portal:?}"), describe(b'P', portal)));
        probes.push((format!("Close portal {portal:?}"), close(b'P', portal)));
    }
    probes
}

pub(crate) async fn answers(client: &mut Client, batch: &[Vec<u8>]) -> Vec<Message> {
    client.send(&batch.concat()).await;
    client.until_ready(batch.iter().filter(|m| matches!(m[0], b'S' | b'Q' | b'F')).count()).await
}

/// Whether the batches that lead to a status are answered before the probe is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    Stepwise,
    AtOnce,
}

/// Sends every probe in every status through the gateway and to PostgreSQL itself.
pub(crate) async fn probe_all(bench: &Bench, pace: Pace) {
    let prepared = [
        parse("known", "SELECT 1"),
        parse("writes", "INSERT INTO t VALUES (1)"),
        parse("end", "ROLLBACK"),
        parse("nothing", ""),
        parse("takes", "SELECT $1::int + $2::int"),
        sync(),
    ];
    let mut wrong = Vec::new();
    let (mut client, mut direct) = (bench.client().await, bench.direct().await);
    for (status, path) in STATUSES {
        for (what, probe) in probes() {
            let path: Vec<Vec<u8>> = path.iter().map(|sql| query(sql)).collect();
            let mut steps = vec![prepared.to_vec()];
            if matches!(pace, Pace::AtOnce) && *status != "failed" {
                continue;
            }
            let probe = vec![probe, sync()];
            match pace {
                Pace::Stepwise => {
                    steps.extend(path.into_iter().map(|step| vec![step]));
                    steps.push(probe);
                }
                Pace::AtOnce => steps.push([path, probe].concat()),
            }
            let mut after = vec![query("SELECT 3"), query("ROLLBACK")];
            after.extend([bind("", "known", &[]), execute("", 0), sync()]);
            let names = ["known", "writes", "end", "nothing", "takes", "fresh", ""];
            after.extend(names.iter().map(|name| close(b'S', name)).chain([sync()]));
            steps.push(after);
            for step in steps {
                let ours = answers(&mut client, &step).await;
                let real = answers(&mut direct, &step).await;
                if exactly(&ours) != exactly(&real) {
                    let (ours, real) = (show(&ours), show(&real));
                    wrong.push(format!(
                        "{status}: {what}\n  is:        {ours}\n  should be: {real}"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn names_are_answered_as_by_postgres_where_the_server_has_the_statement() {
    let bench = Bench::start(2).await;
    bench.direct().await.query("CREATE TABLE t (n int)").await;
    probe_all(&bench, Pace::Stepwise).await;
    bench.all_home().await;
}

#[tokio::test]
async fn names_are_answered_as_by_postgres_where_the_server_lacks_the_statement() {
    // One statement at a time: all others have to come back when they are needed.
    let bench = Bench::with(2, |settings| settings.max_prepared_statements = 1).await;
    bench.direct().await.query("CREATE TABLE t (n int)").await;
    probe_all(&bench, Pace::Stepwise).await;
    probe_all(&bench, Pace::AtOnce).await;
    bench.all_home().await;
}
