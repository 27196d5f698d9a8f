//! What another connection sees of a transaction that idles: its id, its snapshot, its locks.
//!
//! One question for all that are looked at, since reading locks takes every partition of the
//! lock table. Only what speaks against parking comes back, and rows without such a lock show
//! that the backend was seen at all.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use crate::cancel::ServerKey;
use crate::parking::Reason;
use crate::server::Server;
use crate::server::inquiry::Row;

/// A backend to be looked at.
pub(crate) struct Look {
    pub(super) key: Arc<ServerKey>,
    pub(super) snapshots: Snapshots,
}

impl Look {
    pub(super) fn pid(&self) -> i32 {
        self.key.pid
    }

    /// Is it one of the server that `witness` leads to? Process ids say nothing elsewhere.
    pub(super) fn is_at(&self, witness: &Server) -> bool {
        self.key.door.address == witness.key.door.address
    }
}

/// Whether a snapshot speaks against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Snapshots {
    Count,
    /// A portal that is done keeps one until it is closed, and it was not closed.
    MayBeAPortals,
}

/// One row for each lock that a transaction which holds nothing has not, and at least one for
/// each backend; `$1`: their process ids.
pub(super) const OUTSIDE: &str = "SELECT a.pid, a.state, a.backend_xid IS NOT NULL, \
     a.backend_xmin IS NOT NULL, l.locktype, l.mode, l.relkind, l.relpersistence, \
     l.relrowsecurity, l.nspname, l.relname \
     FROM pg_catalog.pg_stat_activity a LEFT JOIN (SELECT k.pid, k.locktype, k.mode, c.relkind, \
     c.relpersistence, c.relrowsecurity, n.nspname, c.relname \
     FROM pg_catalog.pg_locks k LEFT JOIN pg_catalog.pg_class c ON k.locktype = 'relation' AND \
     c.oid = k.relation AND k.database IN (0, (SELECT d.oid FROM pg_catalog.pg_database d WHERE \
     d.datname = pg_catalog.current_database())) \
     LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE k.pid = ANY ($1::pg_catalog.int4[]) \
     AND NOT (k.locktype = 'virtualxid' AND k.mode = 'ExclusiveLock' AND k.granted) \
     AND (k.locktype = 'relation' AND k.mode = 'AccessShareLock' AND k.granted AND c.relkind IN \
     ('r', 'p', 'i', 'I', 'm', 't') AND c.relpersistence <> 't' AND NOT c.relrowsecurity) IS NOT \
     TRUE) l ON l.pid = a.pid \
     WHERE a.pid = ANY ($1::pg_catalog.int4[])";

/// The value of `$1`.
pub(super) fn pids(looks: impl Iterator<Item = i32>) -> String {
    let mut list = String::from("{");
    for pid in looks {
        if list.len() > 1 {
            list.push(',');
        }
        write!(list, "{pid}").expect("writing to a string succeeds");
    }
    list.push('}');
    list
}

/// What was seen, by process id.
pub(super) struct Seen(HashMap<i32, Vec<Row>>);

impl Seen {
    pub(super) fn read(rows: Vec<Row>) -> Self {
        let mut seen: HashMap<i32, Vec<Row>> = HashMap::new();
        for row in rows {
            let pid = row.first().and_then(|pid| pid.as_ref()?.parse().ok());
            if let Some(pid) = pid {
                seen.entry(pid).or_default().push(row);
            }
        }
        Self(seen)
    }

    /// Does `look` show that nothing is held, where the operator knows `relations`?
    pub(super) fn judge(&self, look: &Look, relations: &[String]) -> Result<(), Reason> {
        self.judge_backend(look.pid(), look.snapshots, relations)
    }

    fn judge_backend(
        &self,
        pid: i32,
        snapshots: Snapshots,
        relations: &[String],
    ) -> Result<(), Reason> {
        let rows = self.0.get(&pid).ok_or(Reason::Unseen)?;
        rows.iter().try_for_each(|row| judge(row, snapshots, relations))
    }

    /// Is what a backend does shown to us at all?
    pub(super) fn shows(&self, pid: i32) -> bool {
        let state = |row: &Row| row.get(1).is_some_and(Option::is_some);
        self.0.get(&pid).is_some_and(|rows| rows.iter().all(state))
    }
}

fn judge(row: &Row, snapshots: Snapshots, relations: &[String]) -> Result<(), Reason> {
    let column = |at: usize| row.get(at).and_then(Option::as_deref);
    // Without `track_activities` there is no state to be seen; ids and snapshots are.
    if !matches!(column(1), Some("idle in transaction" | "disabled")) {
        return Err(Reason::Unseen);
    }
    if column(2) != Some("f") {
        return Err(Reason::TransactionId);
    }
    if column(3) != Some("f") && snapshots == Snapshots::Count {
        return Err(Reason::Snapshot);
    }
    let Some(kind) = column(4) else { return Ok(()) };
    if kind == "advisory" || kind == "userlock" {
        return Err(Reason::AdvisoryLock);
    }
    if kind != "relation" || column(5) != Some("AccessShareLock") {
        return Err(Reason::Lock);
    }
    if let (Some(schema), Some(name)) = (column(9), column(10))
        && column(7) != Some("t")
        && relations.iter().any(|known| is_called(known, schema, name))
    {
        return Ok(());
    }
    Err(match (column(6), column(7), column(8)) {
        (_, Some("t"), _) => Reason::TemporaryTable,
        (Some("v"), _, _) => Reason::View,
        (Some("f"), _, _) => Reason::ForeignTable,
        (Some("r" | "p"), _, Some("t")) => Reason::RowSecurity,
        _ => Reason::Relation,
    })
}

fn is_called(known: &str, schema: &str, name: &str) -> bool {
    known.strip_prefix(schema).and_then(|rest| rest.strip_prefix('.')) == Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row as the server sends it; `-` for NULL.
    fn row(columns: &str) -> Row {
        let column = |text: &str| (text != "-").then(|| text.replace('_', " "));
        columns.split(' ').map(column).collect()
    }

    fn verdict(rows: &[&str]) -> Result<(), Reason> {
        let seen = Seen::read(rows.iter().map(|columns| row(columns)).collect());
        seen.judge_backend(7, Snapshots::Count, &["app.known".to_owned()])
    }

    #[test]
    fn what_is_seen_speaks_for_parking_only_if_nothing_speaks_against_it() {
        let idle = "7 idle_in_transaction f f";
        for (rest, reason) in [
            ("- - - - - - -", None),
            ("relation AccessShareLock v p f app known", None),
            ("relation AccessShareLock r p t app known", None),
            ("relation AccessShareLock v p f app other", Some(Reason::View)),
            ("relation AccessShareLock r p t app other", Some(Reason::RowSecurity)),
            ("relation AccessShareLock f p f app other", Some(Reason::ForeignTable)),
            ("relation AccessShareLock r t f app known", Some(Reason::TemporaryTable)),
            ("relation AccessShareLock S p f app other", Some(Reason::Relation)),
            ("relation AccessShareLock - - - - -", Some(Reason::Relation)),
            ("relation RowShareLock r p f app known", Some(Reason::Lock)),
            ("advisory ExclusiveLock - - - - -", Some(Reason::AdvisoryLock)),
            ("transactionid ExclusiveLock - - - - -", Some(Reason::Lock)),
        ] {
            let expected = reason.map_or(Ok(()), Err);
            assert_eq!(verdict(&[&format!("{idle} {rest}")]), expected, "{rest}");
            let nothing = format!("{idle} - - - - - - -");
            assert_eq!(verdict(&[&nothing, &format!("{idle} {rest}")]), expected, "{rest}");
        }
        let rest = "- - - - - - -";
        assert_eq!(verdict(&[]), Err(Reason::Unseen));
        for (state, reason) in [
            ("8 idle_in_transaction f f", Reason::Unseen),
            ("7 - f f", Reason::Unseen),
            ("7 active f f", Reason::Unseen),
            ("7 idle_in_transaction_(aborted) f f", Reason::Unseen),
            ("7 idle_in_transaction t f", Reason::TransactionId),
            ("7 idle_in_transaction - f", Reason::TransactionId),
            ("7 idle_in_transaction f t", Reason::Snapshot),
        ] {
            assert_eq!(verdict(&[&format!("{state} {rest}")]), Err(reason), "{state}");
        }
    }

    #[test]
    fn process_ids_are_a_list() {
        assert_eq!(pids([].into_iter()), "{}");
        assert_eq!(pids([1, 22].into_iter()), "{1,22}");
    }
}
