//! Plays a script: through a gateway, and beside it with PostgreSQL itself.
//!
//! Each client has a twin that is connected directly and does the same. A client whose
//! transaction is open, as its twin was told, holds one of the gateway's two connections; who
//! would have to wait for one is left out of the round, so that nothing hangs.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use forebay_pool::ClassName;
use forebay_seam::time;
use futures_util::future;
use tokio::io::AsyncReadExt;

use super::answers::{Answer, Ending};
use super::chance::Chance;
use super::message::{Kind, Message, Names};
use super::pieces::Pieces;
use super::script::{Arrival, Round, Script, Turn, Unnamed, Until};
use super::talk::{CLOSES, Ear, End, Mouth, split};
use crate::bench::Bench;
use crate::client::{Client, cancel_request};

/// Server connections of the gateway.
const CONNECTIONS: usize = 2;
/// The schemas' names are of one length, so that positions in errors are the same.
pub(super) const SIDES: [&str; 2] = ["thru", "real"];

/// Where the two sides went apart.
#[derive(Debug)]
pub(super) struct Difference {
    pub(super) round: usize,
    pub(super) client: usize,
    pub(super) through: Answer,
    pub(super) direct: Answer,
}

/// One client, on one side.
struct Player {
    ear: Ear,
    mouth: Mouth,
    names: Names,
    address: SocketAddr,
    key: Vec<u8>,
}

/// A client and its twin.
struct Pair {
    through: Player,
    direct: Player,
    /// As the twin was told last.
    status: u8,
    standing: Standing,
    is_pinned: bool,
}

/// Where a client's last turn has left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Idle,
    MidBatch,
    /// It was not answered, as its twin was not: it may hold a connection for ever.
    Unanswered,
    Gone,
}

impl Pair {
    fn holds(&self) -> bool {
        let may_hold = matches!(self.standing, Standing::MidBatch | Standing::Unanswered);
        self.status != b'I' || may_hold || self.is_pinned
    }

    /// The bytes that make the end of `turn` known, and how it is known.
    fn end_of(&self, turn: &Turn) -> (Vec<Message>, End) {
        let closes = (0..CLOSES).map(|_| Message::Close(Kind::Portal, "nobody's"));
        match (turn.until, turn.readies()) {
            (Until::Flushed, _) => (closes.chain([Message::Flush]).collect(), End::ClosesOrError),
            (_, Some(readies)) if self.standing == Standing::Idle => {
                (Vec::new(), End::Readies(readies))
            }
            // Whatever state it is in: a COPY fails, a batch ends, a failed one is over.
            _ => {
                let first = [Message::CopyFail, Message::Sync];
                let all = first.into_iter().chain(closes).chain([Message::Sync]);
                (all.collect(), End::ClosesAndReady)
            }
        }
    }
}

impl Player {
    async fn new(address: SocketAddr, database: &str, names: Names) -> Self {
        let start = [("application_name", "scripted"), ("options", "-c app.start=kept")];
        let mut client = Client::connect(address, database, &start).await.unwrap();
        let (schema, table) = (&names.schema, &names.table);
        let tables = format!(
            "CREATE SCHEMA IF NOT EXISTS {schema}; \
             CREATE TABLE {schema}.{table} (n int, t text); \
             CREATE TABLE {schema}.{table}_once (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)"
        );
        let made = client.query(&tables).await;
        assert!(made.ends_with("C[CREATE TABLE] Z[I]"), "{made}");
        let key = client.key.clone();
        let (ear, mouth) = split(client);
        Self { ear, mouth, names, address, key }
    }
}

/// Plays `script` to its end, or to the first difference. `name` is nobody else's; `patience`
/// is longer than any answer takes.
pub(super) async fn play(
    bench: &Bench,
    script: &Script,
    name: &str,
    patience: Duration,
) -> Option<Difference> {
    let pieces = match script.arrival {
        Arrival::AsSent => None,
        Arrival::InPieces => Some(Pieces::before(bench.server)),
    };
    let server = pieces.as_ref().map_or(bench.server, |pieces| pieces.address);
    let gateway = Bench::before(server, &bench.database, 2, |settings| {
        settings.max_prepared_statements = script.most_statements;
        if script.unnamed == Unnamed::Named {
            let server = settings.servers.get_mut("main").unwrap();
            server.name_unnamed = vec![ClassName::new("core")];
        }
    });
    let mut watch = bench.direct().await;
    let mut pairs = Vec::new();
    for client in 0..script.clients {
        let names = |side: &str| Names {
            schema: format!("{side}_{name}"),
            table: format!("t{client}"),
            client,
            mark: String::new(),
        };
        pairs.push(Pair {
            through: Player::new(gateway.address, &bench.database, names(SIDES[0])).await,
            direct: Player::new(bench.server, &bench.database, names(SIDES[1])).await,
            status: b'I',
            standing: Standing::Idle,
            is_pinned: false,
        });
    }
    let mut difference = None;
    for (number, round) in script.rounds.iter().enumerate() {
        difference = play_round(&mut watch, &mut pairs, round, number, patience).await;
        if difference.is_some() {
            break;
        }
    }
    drop(pairs);
    if difference.is_none() {
        gateway.all_home().await;
    }
    gateway.gateway.drain(time::now() + Duration::from_secs(1)).await;
    difference
}

/// The turns of `round` that can be played now.
fn playable<'a>(pairs: &[Pair], round: &'a Round) -> Vec<&'a Turn> {
    let mut holders = pairs.iter().filter(|pair| pair.holds()).count();
    let (mut turns, mut waits): (Vec<&Turn>, _) = (Vec::new(), false);
    for turn in &round.turns {
        let pair = &pairs[turn.client];
        let is_there = !matches!(pair.standing, Standing::Unanswered | Standing::Gone);
        if !is_there || !turn.is_fair(pair.status == b'T' && pair.standing == Standing::Idle) {
            continue;
        }
        if pair.holds() {
            turns.push(turn);
            continue;
        }
        // Who keeps a connection beyond its turn must leave one for the others.
        let keeps = turn.may_stay_open() || turn.may_pin();
        let needed = if keeps && waits { 2 } else { 1 };
        if holders + needed <= CONNECTIONS {
            turns.push(turn);
            holders += usize::from(keeps);
            waits = true;
        }
    }
    turns
}

async fn play_round(
    watch: &mut Client,
    pairs: &mut [Pair],
    round: &Round,
    number: usize,
    patience: Duration,
) -> Option<Difference> {
    let turns = playable(pairs, round);
    let mut chance = Chance::new(round.weave);
    let (mut through, mut direct) = (Side::default(), Side::default());
    let mut marks = Vec::new();
    for (n, pair) in pairs.iter_mut().enumerate() {
        let Some(turn) = turns.iter().find(|turn| turn.client == n) else { continue };
        let (last, end) = pair.end_of(turn);
        for player in [&mut pair.through, &mut pair.direct] {
            player.names.mark = format!("{}_{number}_{n}", player.names.schema);
            if turn.until == Until::Cancelled {
                let mark = player.names.mark.clone();
                marks.push(Sleeper { mark, address: player.address, key: player.key.clone() });
            }
        }
        let said = turn.messages.iter().chain(&last);
        let bytes = |names| said.clone().flat_map(|message| message.bytes(names)).collect();
        let (whole, parts) = (bytes(&pair.direct.names), bytes(&pair.through.names));
        through.add(cut(&mut chance, parts), &mut pair.through, end);
        direct.add(vec![whole], &mut pair.direct, end);
    }
    through.weave(&mut chance);
    direct.weave(&mut chance);
    let heard = Cell::new(Heard::Waits);
    let hear = async {
        let answers = future::join(through.play(patience), direct.play(patience)).await;
        heard.set(Heard::All);
        answers
    };
    let ((through, direct), ()) = future::join(hear, cancel(watch, marks, &heard)).await;
    let mut answers = through.into_iter().zip(direct);
    let mut difference = None;
    for (n, pair) in pairs.iter_mut().enumerate() {
        let Some(turn) = turns.iter().find(|turn| turn.client == n) else { continue };
        let Some((through, direct)) = answers.next() else { break };
        pair.status = direct.status().unwrap_or(pair.status);
        pair.is_pinned |= turn.may_pin();
        pair.standing = match (direct.ending, turn.until) {
            (Ending::Complete, Until::Flushed) => Standing::MidBatch,
            (Ending::Complete, Until::Answered | Until::Cancelled) => Standing::Idle,
            (Ending::Silence, _) => Standing::Unanswered,
            (Ending::Closed, _) => Standing::Gone,
        };
        if difference.is_none() && !through.is_as(&direct) {
            difference = Some(Difference { round: number, client: n, through, direct });
        }
    }
    difference
}

/// What is said and heard on one side in one round.
#[derive(Default)]
struct Side<'a> {
    /// Parts of what each client says.
    parts: Vec<std::vec::IntoIter<Vec<u8>>>,
    mouths: Vec<&'a mut Mouth>,
    ears: Vec<(&'a mut Ear, End)>,
    /// Whose part is next.
    order: Vec<usize>,
}

impl<'a> Side<'a> {
    fn add(&mut self, parts: Vec<Vec<u8>>, player: &'a mut Player, end: End) {
        self.order.extend(parts.iter().map(|_| self.parts.len()));
        self.parts.push(parts.into_iter());
        self.mouths.push(&mut player.mouth);
        self.ears.push((&mut player.ear, end));
    }

    fn weave(&mut self, chance: &mut Chance) {
        for n in (1..self.order.len()).rev() {
            self.order.swap(n, chance.below(n + 1));
        }
    }

    async fn play(self, patience: Duration) -> Vec<Answer> {
        let Self { mut parts, mut mouths, ears, order } = self;
        let say = async {
            for client in order {
                let part = parts[client].next().unwrap();
                mouths[client].say(&part).await;
                // Others may run, so that a part is perhaps seen alone.
                tokio::task::yield_now().await;
            }
        };
        let hear = future::join_all(ears.into_iter().map(|(ear, end)| ear.hear(end, patience)));
        future::join(say, hear).await.1
    }
}

/// Cuts at places by chance, anywhere in a message.
fn cut(chance: &mut Chance, bytes: Vec<u8>) -> Vec<Vec<u8>> {
    let mut parts = vec![bytes];
    for _ in 0..chance.below(4) {
        let last = parts.last_mut().unwrap();
        if last.len() < 2 {
            break;
        }
        let rest = last.split_off(1 + chance.below(last.len() - 1));
        parts.push(rest);
    }
    parts
}

/// Who is cancelled once its statement sleeps.
struct Sleeper {
    mark: String,
    address: SocketAddr,
    key: Vec<u8>,
}

/// Whether all answers of a round are there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heard {
    Waits,
    All,
}

/// Cancels each of `sleepers` as soon as the server says that its statement sleeps, and waits
/// until the request was dealt with: PostgreSQL signals twice, and the second signal may come
/// after the answer.
async fn cancel(watch: &mut Client, mut sleepers: Vec<Sleeper>, heard: &Cell<Heard>) {
    while let Some(last) = sleepers.pop() {
        let sleeping = format!(
            "SELECT count(*) FROM pg_stat_activity \
             WHERE wait_event = 'PgSleep' AND strpos(query, '{}') > 0",
            last.mark
        );
        if watch.value(&sleeping).await == "0" {
            if heard.get() == Heard::All {
                return;
            }
            sleepers.insert(0, last);
            time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        let mut request = Client::bare(last.address).await;
        request.send(&cancel_request(&last.key)).await;
        drop(request.stream.read_u8().await);
    }
}

impl Difference {
    /// Of one kind: what is missing is no answer that is wrong, and what only the session's
    /// parameters tell is neither.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.through.ending == other.through.ending
            && self.direct.ending == other.direct.ending
            && self.through.says_as(&self.direct) == other.through.says_as(&other.direct)
    }

    pub(super) fn shown(&self) -> String {
        format!(
            "round {}, client {}\nthrough the gateway: {}\nPostgreSQL itself:   {}\n{}",
            self.round,
            self.client,
            self.through.shown(),
            self.direct.shown(),
            self.through.apart_from(&self.direct)
        )
    }
}
