//! The measurements as rows: one for the rate, one for the time an append takes.

use std::time::Duration;

use super::{Cell, Syncs, System};
use crate::text::grouped;

/// One row of `bench --json`.
#[derive(Debug, Clone, serde::Serialize)]
pub(super) struct Row {
    system: &'static str,
    workload: String,
    event_bytes: u32,
    /// What an answer means: `device`, the bytes have been forced to the device.
    durability: &'static str,
    /// Whether commitments and the Merkle tree were computed.
    tree: bool,
    rounds: u32,
    /// `events/s`: of the rounds. `us`: of all appends.
    median: f64,
    /// `events/s`: what 99 % of the rounds reach. `us`: what 99 % of all appends stay within.
    p99: f64,
    /// The median beside that of the bare loop.
    ratio_to_bare: f64,
    unit: &'static str,
}

/// All rows.
pub(super) struct Table {
    pub(super) rows: Vec<Row>,
}

/// The value that `share` of all values do not exceed; 0 if there are none.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).or(sorted.last()).copied().unwrap_or(0.0)
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values
}

fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

impl Table {
    pub(super) fn of(cells: &[Cell], rounds: u32) -> Self {
        let micros = |latency: &Duration| latency.as_secs_f64() * 1e6;
        let rates = |cell: &Cell| sorted(cell.samples.iter().map(|s| s.rate));
        let times = |cell: &Cell| sorted(cell.samples.iter().flat_map(|s| s.latencies.iter().map(micros)));
        let ratio = |value: f64, bare: f64| if bare > 0.0 { rounded(value / bare) } else { 0.0 };
        let mut rows = Vec::new();
        for cell in cells {
            let bare = cells.iter().find(|other| {
                other.system == System::Bare(Syncs::Shared)
                    && (other.workload, other.event_bytes) == (cell.workload, cell.event_bytes)
            });
            let (rate, time) = (rates(cell), times(cell));
            let bare_rate = bare.map_or(0.0, |bare| quantile(&rates(bare), 0.5));
            let bare_time = bare.map_or(0.0, |bare| quantile(&times(bare), 0.5));
            let row = |unit, median: f64, p99: f64, bare: f64| Row {
                system: cell.system.name(),
                workload: cell.workload.name(),
                event_bytes: cell.event_bytes,
                durability: "device",
                tree: cell.system == System::Precedent,
                rounds,
                median: rounded(median),
                p99: rounded(p99),
                ratio_to_bare: ratio(median, bare),
                unit,
            };
            rows.push(row("events/s", quantile(&rate, 0.5), quantile(&rate, 0.01), bare_rate));
            rows.push(row("us", quantile(&time, 0.5), quantile(&time, 0.99), bare_time));
        }
        Self { rows }
    }

    /// As a table for people.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{:<16} {:<16} {:>7} {:>12} {:>8} {:>12} {:>12}",
            "workload", "system", "bytes", "events/s", "of bare", "median us", "p99 us"
        )];
        for pair in self.rows.chunks_exact(2) {
            let [rate, time] = pair else { continue };
            lines.push(format!(
                "{:<16} {:<16} {:>7} {:>12} {:>8.2} {:>12.0} {:>12.0}",
                rate.workload,
                rate.system,
                rate.event_bytes,
                grouped(rate.median.round() as u64),
                rate.ratio_to_bare,
                time.median,
                time.p99
            ));
        }
        if let Some(row) = self.rows.first() {
            lines.push(String::new());
            lines.push(format!(
                "medians of {} rounds; every answer after a sync to the device; 'bare' writes and syncs the same bytes,",
                row.rounds
            ));
            lines.push("for all that wait at once, and does nothing else; 'precedent' computes commitments and tree besides".into());
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_value_that_was_measured() {
        let values = sorted([3.0, 1.0, 2.0, 4.0].into_iter());
        assert_eq!(quantile(&values, 0.5), 2.0);
        assert_eq!(quantile(&values, 0.99), 4.0);
        assert_eq!(quantile(&values, 0.01), 1.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
