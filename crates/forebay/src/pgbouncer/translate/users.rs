//! `[users]`: limits of their own.

use super::{Work, pool_mode, time};

pub(super) fn translate(work: &mut Work<'_>) {
    let file = work.file;
    for line in &file.users {
        let table = &["postgres", "users", line.name.as_str()][..];
        let place = Some(&line.place);
        if let Some(mode) = line.text("pool_mode") {
            work.document.set(table, "pool_mode", pool_mode(Some(mode))).from(place);
        }
        for (theirs, ours) in [
            ("pool_size", "pool_size"),
            ("reserve_pool_size", "reserve_pool_size"),
            ("max_user_connections", "max_connections"),
            ("max_user_client_connections", "max_client_connections"),
        ] {
            if let Some(number) = line.number(theirs) {
                work.document.set(table, ours, number).from(place);
            }
        }
        for name in [
            "query_timeout",
            "transaction_timeout",
            "idle_transaction_timeout",
            "client_idle_timeout",
        ] {
            if let Some(timeout) = line.seconds(name) {
                work.document.set(table, name, time(timeout)).from(place);
            }
        }
    }
}
