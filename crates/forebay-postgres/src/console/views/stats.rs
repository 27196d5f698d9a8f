//! What clients did: by database, and in all.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Scene;
use crate::console::period;
use crate::console::table::{Cell, Row};
use crate::tally::{Figure, Figures};

/// Figures since the start, and in a second of the last period.
#[derive(Default)]
struct Sum {
    total: Figures,
    grown: Figures,
}

/// Sums by database, as clients call it.
fn by_database(scene: &Scene<'_>) -> BTreeMap<Arc<str>, Sum> {
    let mut sums = BTreeMap::<_, Sum>::new();
    for tally in scene.census().tallies.all() {
        let sum = sums.entry(Arc::clone(&tally.database)).or_default();
        sum.total = sum.total.plus(&tally.figures());
        sum.grown = sum.grown.plus(&tally.grown());
    }
    sums
}

fn cells(figures: Figures) -> impl Iterator<Item = Cell> {
    Figure::ALL.into_iter().map(move |figure| figures.get(figure).into())
}

pub(super) fn stats(scene: &Scene<'_>) -> Vec<Row> {
    let period = period(&scene.plan);
    let row = |(database, sum): (&Arc<str>, &Sum)| {
        let name = std::iter::once(Cell::from(database));
        name.chain(cells(sum.total)).chain(cells(sum.grown.average(period))).collect()
    };
    by_database(scene).iter().map(row).collect()
}

pub(super) fn totals_of_each(scene: &Scene<'_>) -> Vec<Row> {
    let row = |(database, sum): (&Arc<str>, &Sum)| {
        std::iter::once(Cell::from(database)).chain(cells(sum.total)).collect()
    };
    by_database(scene).iter().map(row).collect()
}

pub(super) fn averages_of_each(scene: &Scene<'_>) -> Vec<Row> {
    let period = period(&scene.plan);
    let row = |(database, sum): (&Arc<str>, &Sum)| {
        std::iter::once(Cell::from(database)).chain(cells(sum.grown.average(period))).collect()
    };
    by_database(scene).iter().map(row).collect()
}

/// As PgBouncer names it here, and nowhere else.
fn name(figure: Figure) -> &'static str {
    match figure {
        Figure::Assignments => "server_assignment_count",
        Figure::Transactions => "xact_count",
        Figure::Queries => "query_count",
        Figure::Received => "client_bytes",
        Figure::Sent => "server_bytes",
        Figure::TransactionTime => "xact_time",
        Figure::QueryTime => "query_time",
        Figure::WaitTime => "wait_time",
        Figure::ClientParses => "ps_client_parse_count",
        Figure::ServerParses => "ps_server_parse_count",
        Figure::Binds => "ps_bind_count",
        Figure::Logins => "client_login_count",
    }
}

pub(super) fn totals(scene: &Scene<'_>) -> Vec<Row> {
    let mut all = Sum::default();
    for sum in by_database(scene).values() {
        all.total = all.total.plus(&sum.total);
        all.grown = all.grown.plus(&sum.grown);
    }
    let average = all.grown.average(period(&scene.plan));
    [("total", all.total), ("avg", average)]
        .into_iter()
        .flat_map(|(kind, figures)| {
            let row = move |figure: Figure| {
                vec![format!("{kind}_{}", name(figure)).into(), figures.get(figure).into()]
            };
            Figure::ALL.into_iter().map(row)
        })
        .collect()
}
