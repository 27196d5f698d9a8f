//! The log line of a connection that was held while a model was thinking.

use std::time::Duration;

use forebay_pool::overlap::{HoldKind, Overlap};

use crate::log_limit::{LeftOut, Logged};

/// The kind of event, in logs and streams.
pub(crate) const KIND: &str = "overlap";

impl Logged for Overlap {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn lasted(&self) -> Duration {
        self.duration
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
                    since: time::now(),
                },
            );
            let call = OutboundCall { destination: "llm".into(), operation: "POST /chat".into() };
            let calling = overlaps.call_begins(&request, call);
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
            ("level", "WARN"),
        ] {
            assert_eq!(first[field], value, "{field}");
        }
        assert_eq!(first["seconds"], 2.0);
        assert_eq!(lines.len(), 11, "ten, and one for the rest");
        assert_eq!((&last["overlaps"], &last["seconds"]), (&Value::from(2), &Value::from(4.0)));
    }
}
