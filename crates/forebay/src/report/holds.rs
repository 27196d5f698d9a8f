//! The report on holds as text and as Markdown: the worst feature first, what it costs, where
//! in the code it is, and what would save it; then what is only suspected.

use forebay_pool::overlap::{FeatureAdvice, HoldReport, WorstPlace};
use serde::Deserialize;

/// What the admin port says at `/api/v1/holds`, as far as it is shown.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    report: HoldReport,
    suspected: Vec<Suspected>,
}

#[derive(Debug, Deserialize)]
struct Suspected {
    client: u64,
    database: String,
    user: String,
    application: String,
    seconds: f64,
    call: Option<SuspectedCall>,
}

#[derive(Debug, Deserialize)]
struct SuspectedCall {
    destination: String,
    operation: String,
    basis: String,
    candidates: usize,
}

/// A number of things, with as many digits as it takes to tell it from nothing.
fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 1.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

fn period(seconds: f64) -> String {
    if seconds < 120.0 { format!("{seconds:.0} s") } else { format!("{:.0} min", seconds / 60.0) }
}

fn call(place: &WorstPlace) -> String {
    let subject = place.subject.as_ref().map(|subject| format!(" ({})", subject.name()));
    format!("{} {}{}", place.destination, place.operation, subject.unwrap_or_default())
}

/// What splitting and parking are worth, as a sentence.
fn savings(feature: &FeatureAdvice) -> String {
    let (saves, saved) = (feature.parking_saves.connections, feature.parking_saved.connections);
    let parking = match (saves > 0.0, saved > 0.0) {
        (true, true) => {
            format!("parking would save {} more, and saves {}", number(saves), number(saved))
        }
        (true, false) => format!("parking would save {}", number(saves)),
        (false, true) => format!("parking saves {} besides", number(saved)),
        (false, false) => {
            "what parking would save is known once a class observes it (`parking = \"observe\"`)"
                .to_owned()
        }
    };
    format!(
        "Ending the transaction before the call saves {} connections; {parking}.",
        number(feature.splitting_saves.connections)
    )
}

fn title(report: &HoldReport) -> String {
    format!("Holds of the last {}, the worst first", period(report.covered))
}

const NOTHING: &str = "No transaction idled during an outbound call of its request.";
const UNTAGGED: &str = "Requests are known by trace ids: without them there are only suspicions \
                        (docs/holds.md).";

/// What is only suspected, one line each.
fn suspicions(page: &Page) -> impl Iterator<Item = String> {
    page.suspected.iter().map(|one| {
        let Suspected { client, database, user, application, seconds, .. } = one;
        let waits = match &one.call {
            None => "no call of its program was found".to_owned(),
            Some(call) => {
                let SuspectedCall { destination, operation, basis, candidates } = call;
                format!("may wait for {destination} {operation} (by {basis}, 1 of {candidates})")
            }
        };
        format!(
            "client {client} ({application}, {user} at {database}) has idled in a transaction \
             for {seconds:.0} s: {waits}"
        )
    })
}

/// For a terminal.
pub(super) fn text(page: &Page) -> String {
    let mut text = format!("{}\n", title(&page.report));
    if page.report.features.is_empty() {
        text.push_str(&format!("\n{NOTHING}\n{UNTAGGED}\n"));
    }
    for (n, one) in page.report.features.iter().enumerate() {
        let name = if one.feature.is_empty() { "(no name)" } else { &*one.feature };
        text.push_str(&format!(
            "\n{}. {name}\n   {} connections occupied on average: {} transactions an hour, each \
             {} s beside calls\n   ({} connection-seconds an hour; {} s held before the call, {} \
             s after)\n",
            n + 1,
            number(one.cost.connections),
            number(one.transactions_per_hour),
            number(one.hold),
            number(one.cost.connection_seconds_per_hour),
            number(one.before),
            number(one.after),
        ));
        for place in &one.worst {
            text.push_str(&format!(
                "   - {} an hour, {} s: {}\n     after {}\n",
                number(place.overlaps_per_hour),
                number(place.connection_seconds_per_hour),
                call(place),
                place.statement
            ));
        }
        text.push_str(&format!("   {}\n", savings(one)));
    }
    if !page.suspected.is_empty() {
        text.push_str("\nSuspected, not proven, now\n\n");
        suspicions(page).for_each(|line| text.push_str(&format!("- {line}\n")));
    }
    harmless(text)
}

/// Names come from clients: none of them commands a terminal.
fn harmless(mut text: String) -> String {
    text.retain(|c| c == '\n' || !c.is_control());
    text
}

/// A statement as a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('`', "'").replace(['\n', '\r'], " ")
}

/// For a ticket.
pub(super) fn markdown(page: &Page) -> String {
    let mut text = format!("# {}\n", title(&page.report));
    if page.report.features.is_empty() {
        text.push_str(&format!("\n{NOTHING} {UNTAGGED}\n"));
    }
    for one in &page.report.features {
        let name = if one.feature.is_empty() { "(no name)" } else { &*one.feature };
        text.push_str(&format!(
            "\n## {}\n\n\
             | connections occupied | transactions an hour | s beside calls | s before | s after \
             | connection-seconds an hour |\n|---|---|---|---|---|---|\n\
             | {} | {} | {} | {} | {} | {} |\n\n",
            cell(name),
            number(one.cost.connections),
            number(one.transactions_per_hour),
            number(one.hold),
            number(one.before),
            number(one.after),
            number(one.cost.connection_seconds_per_hour),
        ));
        text.push_str("| call | statement before it | an hour | s an hour |\n|---|---|---|---|\n");
        for place in &one.worst {
            text.push_str(&format!(
                "| {} | `{}` | {} | {} |\n",
                cell(&call(place)),
                cell(&place.statement),
                number(place.overlaps_per_hour),
                number(place.connection_seconds_per_hour)
            ));
        }
        text.push_str(&format!("\n{}\n", savings(one)));
    }
    if !page.suspected.is_empty() {
        text.push_str("\n## Suspected, not proven, now\n\n");
        suspicions(page).for_each(|line| text.push_str(&format!("- {}\n", cell(&line))));
    }
    harmless(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn page() -> Page {
        let occupied = |seconds: f64| json!({"connection_seconds_per_hour": seconds, "connections": seconds / 3600.0});
        serde_json::from_value(json!({
            "holds": [],
            "suspected": [{
                "client": 7, "database": "app", "user": "agent", "application": "worker",
                "server": "main", "seconds": 31.4,
                "call": {
                    "destination": "llm", "operation": "POST /v1/chat", "feature": "",
                    "basis": "process", "candidates": 2,
                },
            }],
            "report": {
                "covered": 3540.0,
                "features": [{
                    "feature": "/answer", "transactions_per_hour": 1020.0, "hold": 11.24,
                    "before": 0.02, "after": 0.3, "cost": occupied(11_520.0),
                    "splitting_saves": occupied(11_520.0), "parking_saves": occupied(9_000.0),
                    "parking_saved": occupied(0.0),
                    "worst": [{
                        "statement": "select a | b from notes", "destination": "openai",
                        "operation": "POST /v1/chat/completions", "model": "small",
                        "overlaps_per_hour": 1020.0, "connection_seconds_per_hour": 11_520.0,
                    }],
                }],
            },
        }))
        .unwrap()
    }

    #[test]
    fn the_text_says_what_it_costs_where_it_is_and_what_would_save_it() {
        let text = text(&page());
        for part in [
            "Holds of the last 59 min, the worst first",
            "1. /answer",
            "3.2 connections occupied on average: 1020 transactions an hour, each 11.2 s",
            "(11520 connection-seconds an hour; 0.02 s held before the call, 0.30 s after)",
            "openai POST /v1/chat/completions (small)\n     after select a | b from notes",
            "before the call saves 3.2 connections; parking would save 2.5.",
            "Suspected, not proven, now\n\n- client 7 (worker, agent at app)",
            "may wait for llm POST /v1/chat (by process, 1 of 2)",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn in_markdown_a_statement_breaks_no_table() {
        let text = markdown(&page());
        assert!(text.contains("| `select a \\| b from notes` | 1020 | 11520 |"), "{text}");
        assert!(text.contains("\n## Suspected, not proven, now\n"), "{text}");
    }

    #[test]
    fn where_nothing_was_seen_the_report_says_why_that_may_be() {
        let none = r#"{"suspected": [], "report": {"covered": 60.0, "features": []}}"#;
        let page: Page = serde_json::from_str(none).unwrap();
        assert!(text(&page).contains(NOTHING) && markdown(&page).contains(UNTAGGED));
    }
}
