//! One log line for each connection that was held while a model was thinking, and at most
//! ten a second: what comes on top is summed up, so that a storm stays readable.
//!
//! The counters have every overlap; this is for finding the place in the code.

use std::time::Duration;

use forebay_pool::overlap::{HoldKind, Overlap};
use forebay_seam::time::{self, Instant};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

/// Lines in one window.
const LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(1);

/// Logs what comes out of `events`, until their sender is gone.
pub async fn run(mut events: Receiver<Overlap>) {
    let mut rate = Rate::default();
    loop {
        let event = match rate.until {
            Some(until) => {
                let left = until.saturating_duration_since(time::now());
                time::timeout(left, events.recv()).await
            }
            None => Ok(events.recv().await),
        };
        match event {
            Ok(Ok(overlap)) if rate.may_log(time::now()) => log(&overlap),
            Ok(Ok(overlap)) => rate.suppress(overlap.duration),
            Ok(Err(RecvError::Lagged(missed))) => rate.missed(missed),
            Ok(Err(RecvError::Closed)) => break,
            Err(_) => rate.close(),
        }
    }
    rate.close();
}

/// How many lines the present window has had.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rate {
    /// The end of the window, while there is one.
    until: Option<Instant>,
    lines: u32,
    suppressed: u64,
    suppressed_time: Duration,
}

impl Rate {
    fn may_log(&mut self, now: Instant) -> bool {
        if self.until.is_some_and(|until| until <= now) {
            self.close();
        }
        self.until.get_or_insert_with(|| now + WINDOW);
        self.lines += 1;
        self.lines <= LINES
    }

    fn suppress(&mut self, duration: Duration) {
        self.suppressed += 1;
        self.suppressed_time += duration;
    }

    fn missed(&mut self, count: u64) {
        self.until.get_or_insert_with(|| time::now() + WINDOW);
        self.suppressed += count;
    }

    /// The window is over: says what was left out, and forgets it.
    fn close(&mut self) {
        if self.suppressed > 0 {
            tracing::warn!(
                overlaps = self.suppressed,
                seconds = self.suppressed_time.as_secs_f64(),
                "more transactions were open and idle during outbound calls; see \
                 forebay_overlaps_total"
            );
        }
        *self = Self::default();
    }
}

fn log(overlap: &Overlap) {
    macro_rules! line {
        ($level:ident, $message:literal) => {
            tracing::$level!(
                feature = %overlap.feature,
                class = %overlap.class,
                statement = %overlap.statement,
                destination = %overlap.destination,
                operation = %overlap.operation,
                seconds = overlap.duration.as_secs_f64(),
                held_before = overlap.held_before.as_secs_f64(),
                database = %overlap.database,
                user = %overlap.user,
                tenant = %overlap.tenant,
                trace = %overlap.trace,
                $message
            )
        };
    }
    match overlap.kind {
        HoldKind::Held => {
            line!(warn, "a transaction held its connection, idle, during an outbound call");
        }
        HoldKind::Parked => line!(info, "a transaction was parked during an outbound call"),
        HoldKind::Deferred => {
            line!(info, "a transaction had begun, without a connection, before an outbound call");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use forebay_pool::overlap::{IdleTransaction, OutboundCall, Overlaps};
    use forebay_pool::{ClassName, Request, TraceId};
    use forebay_seam::sync::Mutex;
    use serde_json::Value;

    use super::*;

    /// Keeps what is logged.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Kept {
        fn lines(&self) -> Vec<Value> {
            let text = String::from_utf8(self.0.lock().clone()).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_overlap_is_logged_with_all_that_finds_it_in_the_code() {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_writer(move || writer.clone())
            .finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let overlaps = Arc::new(Overlaps::default());
        let events = overlaps.events();
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let request = Request::new("default".into(), TraceId::from_traceparent(trace).unwrap());
        for _ in 0..12 {
            let idling = overlaps.transaction_idles(
                &request,
                IdleTransaction {
                    kind: HoldKind::Held,
                    class: ClassName::new("ai-read"),
                    feature: "answer".into(),
                    statement: "SELECT ?".into(),
                    database: "app".into(),
                    user: "agent".into(),
                    since: time::now(),
                },
            );
            let call = OutboundCall { destination: "llm".into(), operation: "POST /chat".into() };
            let calling = overlaps.call_begins(&request, call);
            time::sleep(Duration::from_secs(2)).await;
            drop((calling, idling));
        }
        drop(overlaps);
        run(events).await;

        let lines = kept.lines();
        let [first, .., last] = &lines[..] else { panic!("several lines") };
        for (field, value) in [
            ("feature", "answer"),
            ("class", "ai-read"),
            ("statement", "SELECT ?"),
            ("destination", "llm"),
            ("operation", "POST /chat"),
            ("trace", "4bf92f3577b34da6a3ce929d0e0e4736"),
            ("level", "WARN"),
        ] {
            assert_eq!(first[field], value, "{field}");
        }
        assert_eq!(first["seconds"], 2.0);
        assert_eq!(lines.len(), 11, "ten, and one for the rest");
        assert_eq!((&last["overlaps"], &last["seconds"]), (&Value::from(2), &Value::from(4.0)));
    }

    #[tokio::test(start_paused = true)]
    async fn ten_lines_a_second_and_the_rest_is_summed_up() {
        let mut rate = Rate::default();
        let logged = (0..25).filter(|_| rate.may_log(time::now())).count();
        assert_eq!(logged, 10);
        (0..15).for_each(|_| rate.suppress(Duration::from_secs(2)));
        assert_eq!((rate.suppressed, rate.suppressed_time), (15, Duration::from_secs(30)));
        time::sleep(WINDOW).await;
        assert!(rate.may_log(time::now()), "a new window");
        assert_eq!(rate.suppressed, 0, "what was left out was told and forgotten");
    }
}
