//! Those who ask: requests, their queries, their tries, and when they lose patience.

use std::time::Duration;

use forebay_pool::dry::{Connection, Place};
use forebay_pool::{Attempt, ClassId, Condition, Operation, Request, TraceId};
use forebay_seam::random::Dice;
use slotmap::new_key_type;

use super::chance::Arrivals;
use super::figures::Reason;
use super::scenario::{Naming, Queries, Stream};
use super::{Event, Run};

new_key_type! {
    pub(super) struct RequestKey;
    pub(super) struct QueryKey;
}

/// Where the requests of one stream come from.
pub(super) struct Source {
    pub(super) class: ClassId,
    pub(super) operation: Operation,
    arrivals: Arrivals,
    queries: Queries,
    dice: Dice,
    /// Names given out so far.
    named: u64,
}

/// A request under way.
pub(super) struct Live {
    pub(super) stream: usize,
    /// Its own, so that what it does depends on nobody else.
    pub(super) dice: Dice,
    pub(super) name: Option<Request>,
    pub(super) tries: u32,
    out: Vec<QueryKey>,
    /// Queries of this try that were asked for, and the most of any try.
    asked: u32,
    asked_ever: u32,
    arrived: Duration,
    /// Queries of this try that are done.
    done: u32,
    /// Connection time of this try.
    used: Duration,
}

impl Live {
    /// Whether its next query was asked for in an earlier try.
    pub(super) fn attempt(&self) -> Attempt {
        if self.asked < self.asked_ever { Attempt::Retry } else { Attempt::First }
    }

    pub(super) fn asks_for(&mut self, query: QueryKey) {
        self.out.push(query);
        self.asked += 1;
        self.asked_ever = self.asked_ever.max(self.asked);
    }
}

/// A query that was asked for.
pub(super) struct Query {
    /// `None`: nobody waits for it any more.
    pub(super) request: Option<RequestKey>,
    pub(super) stream: usize,
    pub(super) asked: Duration,
    pub(super) service: Duration,
    pub(super) attempt: Attempt,
    pub(super) state: QueryState,
}

pub(super) enum QueryState {
    Asking,
    Waiting(Place),
    Running { connection: Connection, since: Duration },
}

impl Source {
    pub(super) fn new(stream: &Stream, class: ClassId, seed: u64) -> Self {
        Self {
            class,
            operation: Operation::new(stream.name, "query"),
            arrivals: stream.arrivals,
            queries: stream.queries,
            dice: Dice::new(seed),
            named: 0,
        }
    }

    pub(super) fn first_arrivals(&mut self) -> Vec<Duration> {
        match self.arrivals {
            Arrivals::Clients { clients, think } => {
                (0..clients).map(|_| think.draw(&mut self.dice)).collect()
            }
            Arrivals::Poisson { .. } | Arrivals::Bursts { .. } => {
                self.next_arrival(Duration::ZERO).into_iter().collect()
            }
        }
    }

    fn next_arrival(&mut self, now: Duration) -> Option<Duration> {
        self.arrivals.after(now, &mut self.dice)
    }

    fn name(&mut self, stream: usize) -> Option<Request> {
        self.named += 1;
        let trace = format!("00-{stream:016x}{:016x}-0000000000000001-01", self.named);
        TraceId::from_traceparent(&trace).map(|trace| Request::new("simulation".into(), trace))
    }
}

impl Run<'_> {
    pub(super) fn arrive(&mut self, stream: usize) {
        let source = &mut self.sources[stream];
        let dice = Dice::new(source.dice.next_u64());
        if let Some(next) = source.next_arrival(self.now) {
            self.plan(next, Event::Arrive { stream });
        }
        let name = match self.scenario.streams[stream].naming {
            Naming::ByRequest => self.sources[stream].name(stream),
            Naming::Unnamed | Naming::ByTry => None,
        };
        let request = self.requests.insert(Live {
            stream,
            dice,
            name,
            tries: 0,
            out: Vec::new(),
            asked: 0,
            asked_ever: 0,
            arrived: self.now,
            done: 0,
            used: Duration::ZERO,
        });
        self.slice().arrived += 1;
        if self.counts() {
            self.figures[stream].arrived += 1;
        }
        self.begin_try(request);
    }

    pub(super) fn begin_try(&mut self, request: RequestKey) {
        let Some(live) = self.requests.get_mut(request) else { return };
        let stream = live.stream;
        live.tries += 1;
        live.asked = 0;
        live.done = 0;
        live.used = Duration::ZERO;
        let this = live.tries;
        if self.scenario.streams[stream].naming == Naming::ByTry {
            live.name = self.sources[stream].name(stream);
        }
        self.slice().tries += 1;
        self.slice().retries += u32::from(this > 1);
        if self.counts() {
            self.figures[stream].tries += 1;
        }
        for _ in 0..self.sources[stream].queries.at_once() {
            // The first of them may have failed, and the try with it.
            if self.requests.get(request).is_some_and(|live| live.tries == this) {
                self.ask(request);
            }
        }
    }

    /// A query is done, if it is still running.
    pub(super) fn served(&mut self, key: QueryKey) {
        let Some(query) = self.queries.get(key) else { return };
        let QueryState::Running { connection, .. } = query.state else { return };
        let request = query.request;
        self.end_lease(key, connection, Condition::Clean);
        self.queries.remove(key);
        let Some((id, live)) = request.and_then(|id| Some((id, self.requests.get_mut(id)?))) else {
            return;
        };
        live.out.retain(|other| *other != key);
        live.done += 1;
        let stream = live.stream;
        let queries = self.sources[stream].queries;
        if live.done == queries.count() {
            return self.complete(id);
        }
        if let Queries::InTurn { pause, .. } = queries {
            let pause = pause.draw(&mut live.dice);
            self.plan(self.now + pause, Event::Continue(id));
        }
    }

    fn complete(&mut self, id: RequestKey) {
        let Some(live) = self.requests.remove(id) else { return };
        self.slice().completed += 1;
        if self.counts() {
            let figures = &mut self.figures[live.stream];
            figures.completed += 1;
            figures.useful += live.used.as_secs_f64();
            figures.duration.record(self.now.saturating_sub(live.arrived));
        }
        self.ask_again_later(live.stream);
    }

    /// A client that waited for its answer thinks, and comes again.
    fn ask_again_later(&mut self, stream: usize) {
        if let Arrivals::Clients { think, .. } = self.sources[stream].arrivals {
            let thought = think.draw(&mut self.sources[stream].dice);
            self.plan(self.now + thought, Event::Arrive { stream });
        }
    }

    /// The client has waited long enough for this query.
    pub(super) fn give_up(&mut self, key: QueryKey) {
        if self.queries.get(key).is_some_and(|query| query.request.is_some()) {
            self.lose(key, Reason::GivenUp);
        }
    }

    /// A query failed, and with it the try that it belongs to.
    pub(super) fn lose(&mut self, key: QueryKey, why: Reason) {
        let Some(query) = self.queries.get(key) else { return };
        let (stream, request) = (query.stream, query.request);
        let Some(request) = request else { return self.let_go(key) };
        self.slice().refused += 1;
        if why == Reason::Retries {
            let slice = self.slice();
            slice.retries = slice.retries.saturating_sub(1);
        }
        if self.counts() {
            *self.figures[stream].refused.entry(why).or_default() += 1;
        }
        let out = match self.requests.get_mut(request) {
            Some(live) => std::mem::take(&mut live.out),
            None => Vec::new(),
        };
        for query in out {
            self.let_go(query);
        }
        self.fail_try(request, why);
    }

    /// Nobody waits for the query any more: it leaves the line, or runs on for nobody.
    fn let_go(&mut self, key: QueryKey) {
        let Some(query) = self.queries.get_mut(key) else { return };
        match query.state {
            QueryState::Running { .. } => query.request = None,
            QueryState::Waiting(place) => {
                self.places.remove(&place);
                self.queries.remove(key);
                self.pool.abandon(place, self.moment());
            }
            QueryState::Asking => drop(self.queries.remove(key)),
        }
    }

    fn fail_try(&mut self, id: RequestKey, why: Reason) {
        let counts = self.counts();
        let Some(live) = self.requests.get_mut(id) else { return };
        let stream = live.stream;
        let client = self.scenario.streams[stream].client;
        if counts {
            self.figures[stream].wasted += live.used.as_secs_f64();
        }
        // Who is told that no retry is welcome has no better answer to expect.
        if live.tries < client.tries && why != Reason::Retries {
            let backoff = client.backoff.draw(&mut live.dice);
            return self.plan(self.now + backoff, Event::Try(id));
        }
        self.requests.remove(id);
        if counts {
            self.figures[stream].failed += 1;
        }
        self.ask_again_later(stream);
    }

    /// The connection of a query comes home, and its time is put down to its try.
    pub(super) fn end_lease(
        &mut self,
        key: QueryKey,
        connection: Connection,
        condition: Condition,
    ) {
        self.note_leases();
        self.leased -= 1;
        let query = &mut self.queries[key];
        let QueryState::Running { since, .. } = query.state else { return };
        query.state = QueryState::Asking;
        let held = self.now.saturating_sub(since);
        let (stream, request) = (query.stream, query.request);
        if let Some(live) = request.and_then(|id| self.requests.get_mut(id)) {
            live.used += held;
        } else if self.counts() {
            self.figures[stream].wasted += held.as_secs_f64();
        }
        if condition == Condition::Broken {
            self.connections.remove(&connection);
        }
        self.pool.give_back(connection, condition, self.moment());
    }
}
