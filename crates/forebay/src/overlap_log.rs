//! The log line of a connection that was held while a model was thinking.
//!
//! One line for each overlap, once its transaction is over: then all of it is known.

use std::time::Duration;

use forebay_pool::overlap::{HoldKind, Overlap, Phase};

use crate::log_limit::{LeftOut, Logged};

/// What is told of an overlap, in streams.
pub(crate) const fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Begins => "overlap_begins",
        Phase::Changes => "overlap_changes",
        Phase::Ends => "overlap_ends",
        Phase::Released => RELEASED,
    }
}

/// The one that is logged.
pub(crate) const RELEASED: &str = "overlap_released";

impl Logged for Overlap {
    fn kind(&self) -> &'static str {
        name(self.phase)
    }

    fn lasted(&self) -> Duration {
        self.duration
    }

    fn has_line(&self) -> bool {
        self.phase == Phase::Released
    }

    fn log(&self) {
        write(self);
    }

    fn log_rest(_: &'static str, left: LeftOut) {
        tracing::warn!(
            overlaps = left.count,
            seconds = left.lasted.as_secs_f64(),
            "more transactions were open and idle during outbound calls; see \
             forebay_overlaps_total"
        );
    }
}

fn write(overlap: &Overlap) {
    macro_rules! line {
        ($level:ident, $message:literal) => {
            tracing::$level!(
                feature = %overlap.feature,
                class = %overlap.class,
                statement = %overlap.statement,
                destination = %overlap.destination,
                operation = %overlap.operation,
                calls = overlap.subject.as_ref().map(|subject| &**subject.name()),
                seconds = overlap.duration.as_secs_f64(),
                held_before = overlap.held_before.as_secs_f64(),
                held_during = overlap.held_during.as_secs_f64(),
                held_after = overlap.held_after.map(|after| after.as_secs_f64()),
                database = %overlap.database,
                user = %overlap.user,
                application_name = %overlap.application,
                client = overlap.client,
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
    use forebay_seam::time;
    use serde_json::Value;

    use super::*;
    use crate::log_limit;

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
                    application: "worker".into(),
                    client: 1,
                    since: time::now(),
                },
            );
            let call = OutboundCall::new("llm", "POST /chat");
            let calling = overlaps.call_begins(Some(&request), call);
            time::sleep(Duration::from_secs(2)).await;
            drop((calling, idling));
        }
        drop(overlaps);
        log_limit::run(events).await;

        let lines = kept.lines();
        let [first, .., last] = &lines[..] else { panic!("several lines") };
        for (field, value) in [
            ("feature", "answer"),
            ("class", "ai-read"),
            ("statement", "SELECT ?"),
            ("destination", "llm"),
            ("operation", "POST /chat"),
            ("trace", "4bf92f3577b34da6a3ce929d0e0e4736"),
            ("application_name", "worker"),
            ("level", "WARN"),
        ] {
            assert_eq!(first[field], value, "{field}");
        }
        assert_eq!((&first["seconds"], &first["held_after"]), (&2.0.into(), &0.0.into()));
        assert_eq!(lines.len(), 11, "ten, and one for the rest");
        assert_eq!((&last["overlaps"], &last["seconds"]), (&Value::from(2), &Value::from(4.0)));
    }
}
