//! Plays requests on the real ledger, under a clock that jumps from event to event.
//!
//! It knows clients, queries and a server that takes its time; everything that is decided
//! about connections it asks the engine ([`DryPool`]), so what a table shows is what the
//! product does. Always true: the same [`Scenario`] gives the same [`Figures`], and what the
//! clients and the server do by chance does not depend on what the pool decides.

mod chance;
mod clients;
mod figures;
mod scenario;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::time::{Duration, Instant};

use forebay_pool::dry::{Answer, Connection, DryPool, Fitness, News, Place, Why};
use forebay_pool::{Ask, Condition, ConnectFailure, FailureKind};
use forebay_seam::random::Dice;
use forebay_seam::time;
use slotmap::SlotMap;

pub use chance::{Arrivals, Times};
use clients::{Query, QueryKey, QueryState, RequestKey, Source};
pub use figures::{Figures, Reason, Slice, Spread, StreamFigures};
pub use scenario::{Client, Disorder, Naming, Queries, Scenario, Server, Stream, Trouble};

/// How long a refused connect takes.
const REFUSAL: Duration = Duration::from_millis(1);

/// What happens at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A request comes.
    Arrive { stream: usize },
    /// A request begins its next try.
    Try(RequestKey),
    /// A request asks for its next query.
    Continue(RequestKey),
    /// A query is done.
    Served(QueryKey),
    /// A client has no more patience.
    GiveUp(QueryKey),
    /// The deadline of a place in line.
    Expire(Place),
    /// A connect ends.
    Connected(Connection),
    /// The server is away from now on.
    Away,
    /// The ledger wants to look around.
    Tick,
}

/// A run in progress.
struct Run<'a> {
    scenario: &'a Scenario,
    pool: DryPool,
    began: Instant,
    now: Duration,
    agenda: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    /// Events of the same moment happen in the order in which they were planned.
    planned: u64,
    /// The next [`Event::Tick`] that is planned.
    tick: Option<Duration>,
    dice: Dice,
    sources: Vec<Source>,
    requests: SlotMap<RequestKey, clients::Live>,
    queries: SlotMap<QueryKey, Query>,
    places: HashMap<Place, QueryKey>,
    /// Connections, and in which life of the server each was opened.
    connections: HashMap<Connection, u32>,
    life: u32,
    /// Leases and their time, for the utilisation.
    leased: u32,
    leased_since: Duration,
    leased_time: f64,
    figures: Vec<StreamFigures>,
    timeline: Vec<Slice>,
    connects: Vec<Duration>,
}

impl Scenario {
    /// Plays it.
    ///
    /// # Panics
    /// Where a stream names a class that the pool does not have.
    pub fn play(&self) -> Figures {
        Run::new(self).play()
    }
}

impl<'a> Run<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let began = time::now();
        let pool = DryPool::new(scenario.pool.clone(), began);
        let mut dice = Dice::new(scenario.seed);
        let sources = scenario.streams.iter().map(|stream| {
            let class = pool.class(stream.class).expect("a stream's class is one of its pool's");
            Source::new(stream, class, dice.next_u64())
        });
        let sources: Vec<_> = sources.collect();
        Self {
            scenario,
            pool,
            began,
            now: Duration::ZERO,
            agenda: BinaryHeap::new(),
            planned: 0,
            tick: None,
            dice,
            sources,
            requests: SlotMap::with_key(),
            queries: SlotMap::with_key(),
            places: HashMap::new(),
            connections: HashMap::new(),
            life: 0,
            leased: 0,
            leased_since: Duration::ZERO,
            leased_time: 0.0,
            figures: scenario.streams.iter().map(|s| StreamFigures::new(s.name)).collect(),
            timeline: Vec::new(),
            connects: Vec::new(),
        }
    }

    fn play(mut self) -> Figures {
        self.begin();
        while let Some(Reverse((at, _, event))) = self.agenda.pop() {
            if at >= self.scenario.length {
                break;
            }
            self.turn_to(at);
            self.happen(event);
            self.hear();
        }
        self.turn_to(self.scenario.length.saturating_sub(Duration::from_nanos(1)));
        self.close_slice();
        self.now = self.scenario.length;
        self.note_leases();
        let seconds = self.scenario.length.saturating_sub(self.scenario.settle).as_secs_f64();
        let snapshot = self.pool.snapshot(self.moment());
        Figures {
            streams: self.figures,
            seconds,
            utilisation: self.leased_time / seconds / f64::from(snapshot.budget),
            timeline: self.timeline,
            connects: self.connects,
            snapshot,
        }
    }

    fn begin(&mut self) {
        self.timeline.push(Slice::default());
        self.pool.warm_up(0, self.began);
        self.hear();
        for stream in 0..self.sources.len() {
            for at in self.sources[stream].first_arrivals() {
                self.plan(at, Event::Arrive { stream });
            }
        }
        for trouble in &self.scenario.server.troubles {
            if trouble.what == Disorder::Away {
                self.plan(trouble.from, Event::Away);
            }
        }
    }

    /// The clock jumps to `at`; slices that end on the way are closed.
    fn turn_to(&mut self, at: Duration) {
        self.now = at;
        let slice = self.scenario.slice.max(Duration::from_millis(1));
        let passed = usize::try_from(at.as_nanos() / slice.as_nanos()).unwrap_or(usize::MAX);
        while self.timeline.len() <= passed {
            self.close_slice();
            self.timeline.push(Slice::default());
        }
    }

    fn close_slice(&mut self) {
        let open = u32::try_from(self.connections.len()).unwrap_or(u32::MAX);
        let waiting = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        let slice = self.slice();
        slice.open = open;
        slice.waiting = waiting;
    }

    fn slice(&mut self) -> &mut Slice {
        self.timeline.last_mut().expect("there is a slice from the start")
    }

    fn plan(&mut self, at: Duration, event: Event) {
        self.planned += 1;
        self.agenda.push(Reverse((at, self.planned, event)));
    }

    fn moment(&self) -> Instant {
        self.began + self.now
    }

    fn counts(&self) -> bool {
        self.now >= self.scenario.settle
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { stream } => self.arrive(stream),
            Event::Try(request) => self.begin_try(request),
            Event::Continue(request) => self.ask(request),
            Event::Served(query) => self.served(query),
            Event::GiveUp(query) => self.give_up(query),
            Event::Expire(place) => self.pool.expire(place, self.moment()),
            Event::Connected(connection) => self.connected(connection),
            Event::Away => self.go_away(),
            Event::Tick => {
                self.tick = None;
                if self.pool.due() <= self.moment() {
                    self.pool.tick(self.moment());
                }
            }
        }
    }

    /// Does what the pool wants, until it wants nothing more, and plans its next look around.
    fn hear(&mut self) {
        while let Some(news) = self.pool.news() {
            match news {
                News::Granted(place, connection) => {
                    if let Some(query) = self.places.remove(&place) {
                        self.granted(query, connection);
                    }
                }
                News::Refused(place, why) => {
                    if let Some(query) = self.places.remove(&place) {
                        self.lose(query, why.into());
                    }
                }
                News::Open(connection) => self.connect(connection),
                News::Closed(connection) => {
                    self.connections.remove(&connection);
                }
                News::Reset(connection) => {
                    let fitness = self.look_after(connection);
                    self.pool.reset_ended(connection, fitness, self.moment());
                }
                News::Probe(connection) => {
                    let fitness = self.look_after(connection);
                    self.pool.probe_ended(connection, fitness, self.moment());
                }
            }
        }
        let due = self.pool.due().saturating_duration_since(self.began).max(self.now);
        if self.tick.is_none_or(|planned| due < planned) {
            self.tick = Some(due);
            self.plan(due, Event::Tick);
        }
    }

    fn look_after(&mut self, connection: Connection) -> Fitness {
        if self.is_alive(connection) {
            Fitness::Fit
        } else {
            self.connections.remove(&connection);
            Fitness::Dead
        }
    }

    fn connect(&mut self, connection: Connection) {
        self.slice().connects += 1;
        self.connects.push(self.now);
        let server = &self.scenario.server;
        let takes = if server.is_away(self.now) {
            REFUSAL
        } else {
            server.connect.draw(&mut self.dice).mul_f64(server.slowness(self.now))
        };
        self.plan(self.now + takes, Event::Connected(connection));
    }

    fn connected(&mut self, connection: Connection) {
        let moment = self.moment();
        if self.scenario.server.is_away(self.now) {
            let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
            let failure = ConnectFailure::new(FailureKind::Unreachable, refused);
            self.pool.open_failed(connection, failure, moment);
        } else {
            self.connections.insert(connection, self.life);
            self.pool.opened(connection, moment);
        }
    }

    fn is_alive(&self, connection: Connection) -> bool {
        self.connections.get(&connection) == Some(&self.life)
    }

    /// All connections break; who uses one hears of it at once, the pool when it looks.
    fn go_away(&mut self) {
        self.life += 1;
        let running = self.queries.iter().filter_map(|(key, query)| match query.state {
            QueryState::Running { connection, .. } => Some((key, connection)),
            QueryState::Asking | QueryState::Waiting(_) => None,
        });
        for (query, connection) in running.collect::<Vec<_>>() {
            self.end_lease(query, connection, Condition::Broken);
            self.lose(query, Reason::Unreachable);
        }
    }

    /// A request asks for one more connection.
    fn ask(&mut self, request: RequestKey) {
        let Some(live) = self.requests.get_mut(request) else { return };
        let stream = live.stream;
        let key = self.queries.insert(Query {
            request: Some(request),
            stream,
            asked: self.now,
            service: self.scenario.streams[stream].service.draw(&mut live.dice),
            attempt: live.attempt(),
            state: QueryState::Asking,
        });
        live.asks_for(key);
        let ask = self.asking(request, key);
        if self.counts() {
            self.figures[stream].asked += 1;
        }
        let answer = self.pool.ask(&ask, self.moment());
        self.answered(key, answer);
        if let Some(patience) = self.scenario.streams[stream].client.patience {
            self.plan(self.now + patience, Event::GiveUp(key));
        }
    }

    /// What the engine is told of `query`.
    fn asking(&self, request: RequestKey, query: QueryKey) -> Ask<u32> {
        let live = &self.requests[request];
        let source = &self.sources[live.stream];
        Ask {
            request: live.name.clone(),
            operation: Some(source.operation.clone()),
            attempt: self.queries[query].attempt,
            ..Ask::new(0, source.class)
        }
    }

    fn answered(&mut self, query: QueryKey, answer: Answer) {
        match answer {
            Answer::Granted(connection) => self.granted(query, connection),
            Answer::Waiting(place, deadline) => {
                self.places.insert(place, query);
                self.queries[query].state = QueryState::Waiting(place);
                let at = deadline.saturating_duration_since(self.began);
                self.plan(at, Event::Expire(place));
            }
            Answer::Refused(why) => self.lose(query, why.into()),
        }
    }

    fn granted(&mut self, key: QueryKey, connection: Connection) {
        let query = &self.queries[key];
        let (asked, stream, service) = (query.asked, query.stream, query.service);
        if !self.is_alive(connection) {
            self.connections.remove(&connection);
            let (since, moment) = (self.began + asked, self.moment());
            let answer = match query.request {
                Some(request) => {
                    let ask = self.asking(request, key);
                    self.pool.was_dead(connection, &ask, since, moment)
                }
                None => Answer::Refused(Why::Closed),
            };
            return self.answered(key, answer);
        }
        self.note_leases();
        self.leased += 1;
        self.slice().granted += 1;
        if self.counts() {
            self.figures[stream].granted += 1;
            self.figures[stream].wait.record(self.now.saturating_sub(asked));
        }
        self.queries[key].state = QueryState::Running { connection, since: self.now };
        let takes = service.mul_f64(self.scenario.server.slowness(self.now));
        self.plan(self.now + takes, Event::Served(key));
    }

    /// Adds what is on lease to the sum, before that changes.
    fn note_leases(&mut self) {
        let from = self.leased_since.max(self.scenario.settle);
        let time = self.now.saturating_sub(from).as_secs_f64();
        self.leased_time += f64::from(self.leased) * time;
        self.leased_since = self.now;
    }
}

#[cfg(test)]
mod tests;
