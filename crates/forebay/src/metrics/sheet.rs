//! Metric families written down one after the other: a name, a help text, and samples with
//! labels. Families without a sample are left out, as Prometheus's own clients do.

use std::fmt;

use forebay_pool::stats::{Buckets, SpreadSnapshot};
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// Label names and their values.
pub(super) type Labels<'s> = Vec<(&'static str, &'s str)>;

/// Writes families.
pub(super) struct Sheet<'e>(pub(super) DescriptorEncoder<'e>);

impl Sheet<'_> {
    /// Whole numbers that go up and down.
    pub(super) fn gauge<'s>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'s>, u32)>,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        samples.try_for_each(|(labels, value)| {
            family.encode_family(&labels)?.encode_gauge(&i64::from(value))
        })
    }

    /// One whole number that goes up and down.
    pub(super) fn number(&mut self, name: &str, help: &str, value: u32) -> fmt::Result {
        self.0
            .encode_descriptor(name, help, None, MetricType::Gauge)?
            .encode_gauge(&i64::from(value))
    }

    /// Seconds that go up and down.
    pub(super) fn seconds_now(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let unit = Some(&Unit::Seconds);
        self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// Figures that go up and down and are no whole numbers; a unit is part of `name`.
    pub(super) fn measure<'s>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'s>, f64)>,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        samples.try_for_each(|(labels, value)| family.encode_family(&labels)?.encode_gauge(&value))
    }

    /// Events since the start; `_total` is added to `name`.
    pub(super) fn counter<'s>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'s>, u64)>,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        samples.try_for_each(|(labels, value)| {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
        })
    }

    /// One number of events since the start; `_total` is added to `name`.
    pub(super) fn count(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.0
            .encode_descriptor(name, help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    /// Seconds since the start; `_seconds_total` is added to `name`.
    pub(super) fn seconds_total<'s>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'s>, f64)>,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let unit = Some(&Unit::Seconds);
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        samples.try_for_each(|(labels, value)| {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None)
        })
    }

    /// How times are spread; `_seconds` is added to `name`.
    pub(super) fn spread<'s>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'s>, Spread)>,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let unit = Some(&Unit::Seconds);
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Histogram)?;
        samples.try_for_each(|(labels, spread)| {
            let buckets = spread.buckets();
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                spread.sum,
                spread.count,
                &buckets,
                None,
            )
        })
    }
}

/// Times of one or several classes, or of a feature.
#[derive(Debug, Default)]
pub(super) struct Spread {
    count: u64,
    sum: f64,
    /// Upper bound in seconds, count at or below.
    below: Vec<(f64, u64)>,
}

impl Spread {
    pub(super) fn of(snapshot: &SpreadSnapshot) -> Self {
        Self::all([snapshot])
    }

    pub(super) fn of_feature(times: &Buckets) -> Self {
        Self { count: times.count, sum: times.sum, below: times.buckets.clone() }
    }

    /// The sum of `snapshots`, which have the same bounds.
    pub(super) fn all<'s>(snapshots: impl IntoIterator<Item = &'s SpreadSnapshot>) -> Self {
        let mut all = Self::default();
        for snapshot in snapshots {
            all.count += snapshot.count;
            all.sum += snapshot.sum;
            if all.below.is_empty() {
                all.below.clone_from(&snapshot.buckets);
            } else {
                for (sum, (_, count)) in all.below.iter_mut().zip(&snapshot.buckets) {
                    sum.1 += count;
                }
            }
        }
        all
    }

    /// What falls between each bound and the one before it; the last has no upper bound.
    fn buckets(&self) -> Vec<(f64, u64)> {
        let mut before = 0;
        let all = self.below.iter().copied().chain([(f64::INFINITY, self.count)]);
        all.map(|(bound, below)| {
            let inside = below.saturating_sub(before);
            before = before.max(below);
            (bound, inside)
        })
        .collect()
    }
}
