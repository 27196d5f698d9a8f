//! The features of each pool. Their names come from clients; the engine keeps a thousand of
//! each destination, and all further ones as `other`.

use std::fmt;

use forebay_pool::stats::{FeatureSnapshot, Figure};

use super::{Labels, Pools, Sheet, of, with};
use crate::metrics::sheet::Spread;

/// Features with their labels.
type Features<'s> = [(Labels<'s>, &'s FeatureSnapshot)];

pub(super) fn features(pools: &Pools<'_>, sheet: &mut Sheet<'_>) -> fmt::Result {
    let all: Vec<_> = pools
        .iter()
        .flat_map(|(gateway, pool)| pool.features.iter().map(move |f| (*gateway, *pool, f)))
        .map(|(gateway, pool, feature)| {
            (with(of(gateway, pool), "feature", &feature.feature), feature)
        })
        .collect();
    leases(&all, sheet)?;
    requests(&all, sheet)
}

fn leases(all: &Features<'_>, sheet: &mut Sheet<'_>) -> fmt::Result {
    sheet.counter(
        "forebay_feature_checkouts",
        "Leases given to a feature",
        all.iter().map(|(labels, feature)| (labels.clone(), feature.checkouts)),
    )?;
    sheet.spread(
        "forebay_feature_wait",
        "How long leases of a feature were waited for, zero included",
        all.iter().map(|(labels, feature)| (labels.clone(), Spread::of_feature(&feature.wait))),
    )?;
    sheet.spread(
        "forebay_feature_hold",
        "How long a feature had its connections on lease",
        all.iter().map(|(labels, feature)| (labels.clone(), Spread::of_feature(&feature.hold))),
    )
}

fn requests(all: &Features<'_>, sheet: &mut Sheet<'_>) -> fmt::Result {
    sheet.counter(
        "forebay_feature_requests",
        "Requests of a feature that are over",
        all.iter().map(|(labels, feature)| (labels.clone(), feature.requests)),
    )?;
    sheet.counter(
        "forebay_feature_fan_out_jumps",
        "How often requests of a feature began to take far more leases than before",
        all.iter().map(|(labels, feature)| (labels.clone(), feature.fan_out_jumps)),
    )?;
    let mut figure = |name: &str, help: &str, figure: fn(&FeatureSnapshot) -> Figure| {
        sheet.measure(
            name,
            help,
            all.iter().filter(|(_, feature)| feature.requests > 0).flat_map(|(labels, feature)| {
                let Figure { mean, p95, most } = figure(feature);
                [("mean", mean), ("p95", p95), ("most", most)]
                    .map(|(figure, value)| (with(labels.clone(), "figure", figure), value))
            }),
        )
    };
    figure("forebay_feature_fan_out", "Leases of a request of a feature", |f| f.leases)?;
    figure(
        "forebay_feature_connection_seconds",
        "Connection time of a request of a feature, all its leases together",
        |f| f.used,
    )?;
    figure(
        "forebay_feature_request_seconds",
        "From the first lease of a request of a feature to its last return",
        |f| f.residence,
    )?;
    figure("forebay_feature_peak", "Leases of a request at the same time", |f| f.peak)?;
    figure(
        "forebay_feature_nested",
        "Connections that a request needed at the same time to go on",
        |f| f.nested,
    )
}
