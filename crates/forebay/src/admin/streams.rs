//! What has no end: events as they happen, and the pressure as it moves (server-sent events,
//! WHATWG HTML, section 9.2).
//!
//! Always true: at most `PLACES` clients listen at once, so that others are answered; nothing
//! is kept for one who is slow but the newest; all streams end when the program does.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use forebay_seam::task::Stop;
use forebay_seam::time;
use futures_util::stream;
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::Look;
use crate::events::{Events, Happened};
use crate::pressure::{self, Pressure};

/// Clients that listen at once, of the connections that there may be.
const PLACES: usize = 16;
/// How often the pressure is looked at while somebody listens.
const LOOK: Duration = Duration::from_secs(1);
/// How often a client hears that the stream is alive. Shorter than what proxies allow.
const ALIVE: Duration = Duration::from_secs(15);
/// How long a client whose stream ended waits before it comes again.
const COME_AGAIN: Duration = Duration::from_secs(2);

/// The streams and those who listen.
#[derive(Clone)]
pub(super) struct Streams {
    places: Arc<Semaphore>,
    stop: Stop,
    events: Events,
    look: Look,
    pressures: watch::Sender<Arc<[Pressure]>>,
}

impl Streams {
    pub(super) fn new(look: Look, events: Events, stop: Stop) -> Self {
        let places = Arc::new(Semaphore::new(PLACES));
        let pressures = watch::Sender::new(Arc::from([]));
        Self { places, stop, events, look, pressures }
    }

    /// Looks at the pressure once a second for all who listen, until the stop.
    pub(super) async fn watch_pressure(mut self) {
        loop {
            tokio::select! {
                biased;
                () = self.stop.told() => return,
                () = time::sleep(LOOK) => {}
            }
            if self.pressures.receiver_count() > 0 {
                self.pressures.send_replace(pressure::of(&(self.look)()).into());
            }
        }
    }

    /// Events from now on.
    pub(super) fn events(&self) -> Response {
        let Some(place) = self.enter() else { return crowded() };
        let listening =
            Listening { heard: self.events.listen(), stop: self.stop.clone(), _place: place };
        respond(stream::unfold(listening, Listening::next))
    }

    /// All classes now, and from then on those whose pressure moves.
    pub(super) fn pressure(&self) -> Response {
        let Some(place) = self.enter() else { return crowded() };
        let watching = Watching {
            // What was seen for those before is old news.
            seen: self.pressures.subscribe(),
            first: Some(self.pressures_now()),
            told: Vec::new(),
            stop: self.stop.clone(),
            _place: place,
        };
        respond(stream::unfold(watching, Watching::next))
    }

    /// All classes now.
    pub(super) fn pressures_now(&self) -> Vec<Pressure> {
        pressure::of(&(self.look)())
    }

    fn enter(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }
}

fn crowded() -> Response {
    let body = format!("{PLACES} clients listen already\n");
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "10")], body).into_response()
}

fn respond(
    events: impl stream::Stream<Item = Result<Event, axum::Error>> + Send + 'static,
) -> Response {
    let alive = KeepAlive::new().interval(ALIVE).event(Event::default().retry(COME_AGAIN));
    ([("x-accel-buffering", "no")], Sse::new(events).keep_alive(alive)).into_response()
}

/// One who hears of events.
struct Listening {
    heard: Receiver<Happened>,
    stop: Stop,
    _place: OwnedSemaphorePermit,
}

impl Listening {
    async fn next(mut self) -> Option<(Result<Event, axum::Error>, Self)> {
        let heard = tokio::select! {
            biased;
            () = self.stop.told() => return None,
            heard = self.heard.recv() => heard,
        };
        let event = match heard {
            Ok(happened) => Event::default().event(happened.name()).json_data(&happened),
            Err(RecvError::Lagged(missed)) => {
                Event::default().event("lagged").json_data(json!({ "missed": missed }))
            }
            Err(RecvError::Closed) => return None,
        };
        Some((event, self))
    }
}

/// One who watches the pressure.
struct Watching {
    seen: watch::Receiver<Arc<[Pressure]>>,
    first: Option<Vec<Pressure>>,
    /// What was told last of each class.
    told: Vec<Pressure>,
    stop: Stop,
    _place: OwnedSemaphorePermit,
}

impl Watching {
    async fn next(mut self) -> Option<(Result<Event, axum::Error>, Self)> {
        if let Some(first) = self.first.take() {
            let event = pressure_event(&first);
            self.told = first;
            return Some((event, self));
        }
        loop {
            tokio::select! {
                biased;
                () = self.stop.told() => return None,
                changed = self.seen.changed() => changed.ok()?,
            }
            let now = Arc::clone(&self.seen.borrow_and_update());
            let news = self.tell(&now);
            if !news.is_empty() {
                return Some((pressure_event(&news), self));
            }
        }
    }

    /// Those of `now` that are worth telling. There are always the same classes.
    fn tell(&mut self, now: &[Pressure]) -> Vec<Pressure> {
        let pairs = self.told.iter_mut().zip(now);
        let news = pairs.filter(|(told, now)| pressure::is_news(told, now));
        news.map(|(told, now)| {
            told.clone_from(now);
            now.clone()
        })
        .collect()
    }
}

fn pressure_event(classes: &[Pressure]) -> Result<Event, axum::Error> {
    Event::default().event("pressure").json_data(json!({ "classes": classes }))
}

#[cfg(test)]
mod tests {
    use forebay_pool::overlap::{HoldKind, IdleTransaction, OutboundCall, Overlaps};
    use forebay_pool::{ClassName, Request, TraceId};
    use forebay_seam::task::Stopper;
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::logging::Lines;
    use crate::suspects::Suspects;
    use crate::view::{ProgramSnapshot, Viewer};

    fn look(overlaps: &Arc<Overlaps>) -> impl Fn() -> ProgramSnapshot + Send + Sync + use<> {
        let suspects = Arc::new(Suspects::new(Arc::clone(overlaps)));
        let viewer = Viewer::new(None, None, suspects, Arc::default(), Lines::default());
        move || viewer.snapshot()
    }

    fn overlap(overlaps: &Arc<Overlaps>) {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let request = Request::new("default".into(), TraceId::from_traceparent(trace).unwrap());
        let idle = IdleTransaction {
            kind: HoldKind::Held,
            class: ClassName::new("ai-read"),
            feature: "answer".into(),
            statement: "SELECT ?".into(),
            database: "app".into(),
            user: "agent".into(),
            application: "worker".into(),
            client: 1,
            since: time::now(),
        };
        let call = OutboundCall::new("llm", "POST /chat");
        let idling = overlaps.transaction_idles(&request, idle);
        drop((overlaps.call_begins(Some(&request), call), idling));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_listener_misses_the_oldest_and_is_told_how_many() {
        let overlaps = Arc::new(Overlaps::default());
        let events = Events::gather(None, None, &overlaps);
        let (_stopper, stop) = Stopper::new();
        let streams = Streams::new(Arc::new(look(&overlaps)), events, stop);
        let mut body = streams.events().into_body();
        // The events themselves are passed on by a task.
        // Three of each overlap.
        for _ in 0..342 {
            overlap(&overlaps);
            tokio::task::yield_now().await;
        }
        let mut frames = Vec::new();
        for _ in 0..2 {
            let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
            frames.push(String::from_utf8(frame.to_vec()).unwrap());
        }
        assert_eq!(frames[0], "event: lagged\ndata: {\"missed\":2}\n\n");
        assert!(
            frames[1].starts_with("event: overlap_released\ndata: {\"event\":\"overlap_released\""),
            "{frames:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn streams_end_at_the_stop_and_a_place_is_free_when_its_client_has_left() {
        let overlaps = Arc::new(Overlaps::default());
        let events = Events::gather(None, None, &overlaps);
        let (stopper, stop) = Stopper::new();
        let streams = Streams::new(Arc::new(look(&overlaps)), events, stop);
        let mut bodies: Vec<_> = (0..PLACES).map(|_| streams.pressure().into_body()).collect();
        assert_eq!(streams.events().status(), StatusCode::SERVICE_UNAVAILABLE);
        bodies.pop();
        let body = streams.events().into_body();
        stopper.stop();
        assert!(body.collect().await.unwrap().to_bytes().is_empty());
    }
}
