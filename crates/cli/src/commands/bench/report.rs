//! The measurements as rows: one for the rate, one for the time an append or a read takes, or one for bytes.

use super::workload::{micros, quantile, rounded, sorted};
use super::{Cell, Syncs, System};
use crate::text::{counted, grouped};

/// One row of `bench --json`.
#[derive(Debug, Clone, serde::Serialize)]
pub(super) struct Row {
    system: &'static str,
    workload: String,
    event_bytes: u32,
    /// What an answer means: `device`, the bytes have been forced to the device; `none`, nothing was recorded.
    durability: &'static str,
    /// Whether commitments and the Merkle tree were computed.
    tree: bool,
    rounds: u32,
    /// `events/s`: of the rounds. `us`: of all appends or reads. `bytes`: of an event.
    median: f64,
    /// `events/s`: what 99 % of the rounds reach. `us`: what 99 % of all appends or reads stay within.
    p99: f64,
    /// The median beside that of the bare loop, where there is one.
    ratio_to_bare: Option<f64>,
    unit: &'static str,
}

/// All rows.
pub(super) struct Table {
    pub(super) rows: Vec<Row>,
}

const RATE: &str = "events/s";
const TIME: &str = "us";
const BYTES: &str = "bytes";

impl Table {
    pub(super) fn of(cells: &[Cell], rounds: u32) -> Self {
        let rates = |cell: &Cell| sorted(cell.samples.iter().map(|s| s.rate));
        let times = |cell: &Cell| sorted(cell.samples.iter().flat_map(|s| s.latencies.iter().map(micros)));
        let mut rows = Vec::new();
        // What one workload was measured with stands together, in the order of the first.
        let place = |cell: &Cell| {
            cells.iter().position(|c| (c.event_bytes, c.workload) == (cell.event_bytes, cell.workload))
        };
        let mut ordered: Vec<&Cell> = cells.iter().collect();
        ordered.sort_by_key(|cell| place(cell));
        for cell in ordered {
            let bare = cells.iter().find(|other| {
                other.system == System::Bare(Syncs::Shared)
                    && (other.workload, other.event_bytes) == (cell.workload, cell.event_bytes)
            });
            let ratio = |median: f64, of: &dyn Fn(&Cell) -> Vec<f64>| {
                let bare = quantile(&of(bare?), 0.5);
                (bare > 0.0).then(|| rounded(median / bare))
            };
            let row = |unit, median: f64, p99: f64, ratio_to_bare| Row {
                system: cell.system.name(),
                workload: cell.workload.name(),
                event_bytes: cell.event_bytes,
                durability: cell.system.durability(),
                tree: cell.system.tree(),
                rounds,
                median: rounded(median),
                p99: rounded(p99),
                ratio_to_bare,
                unit,
            };
            if let Some(bytes) = cell.bytes {
                rows.push(row(BYTES, bytes, bytes, None));
                continue;
            }
            let (rate, time) = (rates(cell), times(cell));
            let (median, typical) = (quantile(&rate, 0.5), quantile(&time, 0.5));
            if median > 0.0 {
                rows.push(row(RATE, median, quantile(&rate, 0.01), ratio(median, &rates)));
            }
            rows.push(row(TIME, typical, quantile(&time, 0.99), ratio(typical, &times)));
        }
        Self { rows }
    }

    /// As a table for people, at most 100 columns wide.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines =
            vec![line(["workload", "system", "bytes", "events/s", "of bare", "median us", "p99 us"])];
        let mut rest = self.rows.iter().peekable();
        let mut last = String::new();
        while let Some(row) = rest.next() {
            let mut cells = [const { String::new() }; 4];
            match row.unit {
                RATE => {
                    cells[0] = grouped(row.median.round() as u64);
                    cells[1] = row.ratio_to_bare.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
                    if let Some(time) = rest.next_if(|next| next.unit == TIME) {
                        (cells[2], cells[3]) = (time_of(time.median), time_of(time.p99));
                    }
                }
                TIME => (cells[2], cells[3]) = (time_of(row.median), time_of(row.p99)),
                _ => cells[0] = format!("{} B", grouped(row.median.round() as u64)),
            }
            if !last.is_empty() && last != row.workload {
                lines.push(String::new());
            }
            last.clone_from(&row.workload);
            let bytes = row.event_bytes.to_string();
            let [rate, ratio, median, p99] = &cells;
            lines.push(line([&row.workload, row.system, &bytes, rate, ratio, median, p99]));
        }
        if let Some(row) = self.rows.first() {
            lines.push(String::new());
            lines.push(format!(
                "medians of {}; every answer after a sync to the device; 'bare' writes and syncs the same",
                counted(row.rounds.into(), "round")
            ));
            lines.push(
                "bytes, for all that wait at once, and does nothing else; 'precedent' computes commitments and".into(),
            );
            lines.push(
                "tree besides, which 'hashes' does alone, recording nothing; 'precedent-server' is the same over".into(),
            );
            lines.push(
                "HTTP, client and server on this machine, '-each' with a client for every appender".into(),
            );
        }
        lines
    }
}

fn time_of(micros: f64) -> String {
    grouped(micros.round() as u64)
}

fn line([workload, system, bytes, rate, ratio, median, p99]: [&str; 7]) -> String {
    let line = format!("{workload:<28} {system:<21} {bytes:>7} {rate:>10} {ratio:>8} {median:>9} {p99:>10}");
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Workload;
    use super::super::workload::{Appends, Reads, Samples};
    use super::*;

    fn cell(system: System, workload: Workload, rates: &[f64], us: &[u64]) -> Cell {
        let mut cell = Cell::new(system, workload, 1024);
        for &rate in rates {
            let latencies = us.iter().map(|&us| Duration::from_micros(us)).collect();
            cell.samples.push(Samples { latencies, rate });
        }
        cell
    }

    #[test]
    fn a_ratio_is_to_the_bare_loop_of_the_same_workload_and_missing_where_there_is_none() {
        let [one, many] = [Workload::Appends(Appends::ALL[0]), Workload::Appends(Appends::ALL[2])];
        let stream = Workload::Reads(Reads::Stream);
        let mut disk = Cell::new(System::Precedent, Workload::Reads(Reads::Disk), 1024);
        disk.bytes = Some(1_100.25);
        let open = cell(System::Precedent, Workload::Reads(Reads::OpenClean), &[0.0], &[900, 1_100]);
        let table = Table::of(
            &[
                cell(System::Bare(Syncs::Shared), one, &[5_000.0, 4_000.0, 6_000.0], &[200]),
                cell(System::Precedent, one, &[4_500.0, 4_000.0, 5_000.0], &[200, 250, 300]),
                cell(System::Bare(Syncs::Shared), many, &[100_000.0], &[600]),
                cell(System::Precedent, stream, &[1e6], &[600]),
                open,
                disk,
            ],
            3,
        );
        let of = |at: usize| {
            let row = &table.rows[at];
            (row.system, row.unit, row.median, row.p99, row.ratio_to_bare)
        };
        assert_eq!(of(0), ("bare", "events/s", 5_000.0, 4_000.0, Some(1.0)));
        assert_eq!(of(2), ("precedent", "events/s", 4_500.0, 4_000.0, Some(0.9)));
        assert_eq!(of(3), ("precedent", "us", 250.0, 300.0, Some(1.25)));
        assert_eq!(of(6), ("precedent", "events/s", 1e6, 1e6, None));
        assert_eq!(of(8), ("precedent", "us", 900.0, 1_100.0, None));
        assert_eq!(of(9), ("precedent", "bytes", 1_100.25, 1_100.25, None));
        assert!(!table.rows[0].tree && table.rows[2].tree);
        let lines = table.lines();
        assert!(lines.iter().all(|line| line.chars().count() <= 100), "{lines:#?}");
        assert!(
            lines.iter().any(|line| line.contains("4,500") && line.contains("0.90") && line.contains("250"))
        );
        assert!(lines.iter().any(|line| line.contains("1,100 B")));
    }
}
