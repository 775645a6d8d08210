//! The tables of `docs/performance.md`: each stands between `<!-- table: NAME -->` and `<!-- end -->`.

use super::reasons::reason;
use super::rows::{Measured, Row, grouped};
use super::workload::{Appends, Reads};
use super::{EVENT_BYTES, OTHER_BYTES, UNHASHED};

const BEGIN: &str = "<!-- table: ";
const END: &str = "<!-- end -->";

/// The systems that run in the process that uses them, as rows of a table.
const IN_PROCESS: [&str; 9] =
    ["bare", "bare-own-syncs", "bare-tasks", "hashes", "precedent", UNHASHED, "sqlite", "fjall", "tephra"];
/// Those that are servers.
const SERVERS: [&str; 5] = ["precedent-server", EACH, "redis", "tephra-server", "umadb-server"];
/// Where every appender has a client of its own, as those of the peers have.
const EACH: &str = "precedent-server-each";
/// Precedent, and those that do the same in the same place.
const PEERS: [(&str, [&str; 3]); 3] = [
    ("precedent", ["sqlite", "fjall", "tephra"]),
    ("precedent-server", ["redis", "tephra-server", "umadb-server"]),
    (EACH, ["redis", "tephra-server", "umadb-server"]),
];
/// Those whose logs are read.
const READERS: [&str; 9] = [
    "precedent",
    "precedent-packed",
    "sqlite",
    "fjall",
    "tephra",
    "precedent-server",
    "redis",
    "tephra-server",
    "umadb-server",
];

type Make = fn(&Measured) -> String;

/// Every table there is.
const TABLES: [(&str, Make); 9] = [
    ("about", about),
    ("appends in process", |measured| rates(measured, &IN_PROCESS)),
    ("appends through a server", |measured| rates(measured, &SERVERS)),
    ("append times", times),
    ("sizes", sizes),
    ("reads", reads),
    ("packing", packing),
    ("aims", aims),
    ("behind", behind),
];

/// Those of a run on another device, which measures appends alone.
const TABLES_ELSEWHERE: [(&str, Make); 5] = [
    ("device", about),
    ("device: appends in process", |measured| rates(measured, &IN_PROCESS)),
    ("device: appends through a server", |measured| rates(measured, &SERVERS)),
    ("device: aims", aims),
    ("device: behind", behind),
];

/// The page with these tables, each where its marker is.
pub(super) fn filled(page: &str, tables: &[(&str, String)]) -> Result<String, String> {
    let mut out = String::with_capacity(page.len());
    let mut rest = page;
    while let Some(at) = rest.find(BEGIN) {
        let (before, marker) = rest.split_at(at);
        let (name, after) =
            marker[BEGIN.len()..].split_once(" -->").ok_or("a marker of a table does not end")?;
        let (_, table) = tables
            .iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| format!("there is no table '{name}'"))?;
        let (_, after) = after.split_once(END).ok_or_else(|| format!("the table '{name}' does not end"))?;
        out.push_str(&format!("{before}{BEGIN}{name} -->\n{table}{END}"));
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// Every table made from these rows, with the name of its marker.
pub(super) fn tables(measured: &Measured) -> Vec<(&'static str, String)> {
    TABLES.map(|(name, make)| (name, make(measured))).into()
}

/// The same of a run on another device.
pub(super) fn tables_elsewhere(measured: &Measured) -> Vec<(&'static str, String)> {
    TABLES_ELSEWHERE.map(|(name, make)| (name, make(measured))).into()
}

fn find<'a>(measured: &'a Measured, system: &str, workload: &str, bytes: u64, unit: &str) -> Option<&'a Row> {
    let of = |row: &&Row| {
        (row.system.as_str(), row.workload.as_str(), row.event_bytes, row.unit.as_str())
            == (system, workload, bytes, unit)
    };
    measured.rows.iter().find(of)
}

pub(super) fn table(head: &[String], body: &[Vec<String>]) -> String {
    let line = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let ruler: Vec<String> =
        head.iter().enumerate().map(|(n, _)| if n == 0 { "---" } else { "---:" }.to_owned()).collect();
    let body = body.iter().map(|cells| line(cells));
    [line(head), format!("|{}|\n", ruler.join("|"))].into_iter().chain(body).collect()
}

/// Ours is what the page is about.
pub(super) fn named(system: &str) -> String {
    match system.starts_with("precedent") {
        true => format!("**{system}**"),
        false => system.to_owned(),
    }
}

fn about(measured: &Measured) -> String {
    let lines = measured.about.iter().map(|(name, value)| vec![name.clone(), value.clone()]);
    table(&["measured on".into(), String::new()], &lines.collect::<Vec<_>>()).replace("---:", "---")
}

/// Nothing at all, where nothing was measured.
pub(super) const NOTHING: &str = "–";

fn rates(measured: &Measured, systems: &[&str]) -> String {
    let workloads = Appends::ALL.map(Appends::name);
    let head: Vec<String> =
        std::iter::once("events/s (of the bare loop)".to_owned()).chain(workloads.clone()).collect();
    let cell = |system: &str, workload: &String| {
        let Some(row) = find(measured, system, workload, EVENT_BYTES, "events/s") else {
            return NOTHING.to_owned();
        };
        match row.ratio_to_bare {
            Some(ratio) => format!("{} ({ratio:.2})", grouped(row.median)),
            None => grouped(row.median),
        }
    };
    let body = systems.iter().map(|system| {
        std::iter::once(named(system))
            .chain(workloads.iter().map(|workload| cell(system, workload)))
            .collect()
    });
    table(&head, &body.collect::<Vec<_>>())
}

fn times(measured: &Measured) -> String {
    let workloads = Appends::ALL.map(Appends::name);
    let head: Vec<String> =
        std::iter::once("median / p99 of an append".to_owned()).chain(workloads.clone()).collect();
    let cell = |system: &str, workload: &String| {
        let row = find(measured, system, workload, EVENT_BYTES, "us");
        row.map_or(NOTHING.to_owned(), |row| format!("{} / {}", time(row.median), time(row.p99)))
    };
    let body = IN_PROCESS.iter().chain(&SERVERS).map(|system| {
        std::iter::once(named(system))
            .chain(workloads.iter().map(|workload| cell(system, workload)))
            .collect()
    });
    table(&head, &body.collect::<Vec<_>>())
}

/// A time in the unit that suits it.
fn time(micros: f64) -> String {
    match micros {
        ..1_000.0 => format!("{micros:.0} µs"),
        ..100_000.0 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{} ms", grouped(micros / 1e3)),
    }
}

fn sizes(measured: &Measured) -> String {
    let mut bytes = [OTHER_BYTES[0], EVENT_BYTES, OTHER_BYTES[1]];
    bytes.sort_unstable();
    let mut head = vec!["events/s (of the bare loop)".to_owned()];
    for bytes in bytes {
        head.extend(
            ["precedent", "precedent-server"].map(|system| format!("{system}, {} B", grouped(bytes as f64))),
        );
    }
    let cell = |system: &str, workload: &str, bytes: u64| {
        let row = find(measured, system, workload, bytes, "events/s")?;
        let ratio = row.ratio_to_bare.map(|ratio| format!(" ({ratio:.2})")).unwrap_or_default();
        Some(format!("{}{ratio}", grouped(row.median)))
    };
    let reads = [Reads::Stream, Reads::Type, Reads::Scan].map(|reads| reads.name().to_owned());
    let body = Appends::ALL.map(Appends::name).into_iter().chain(reads).map(|workload| {
        let mut cells = vec![workload.clone()];
        for bytes in bytes {
            for system in ["precedent", "precedent-server"] {
                cells.push(cell(system, &workload, bytes).unwrap_or(NOTHING.to_owned()));
            }
        }
        cells
    });
    table(&head, &body.collect::<Vec<_>>())
}

fn reads(measured: &Measured) -> String {
    let head = [
        "",
        "stream of 1000, median / p99",
        "type at 1 %, median / p99",
        "scan, events/s",
        "open, clean",
        "open, killed",
        "bytes an event",
    ]
    .map(str::to_owned);
    let body = READERS.iter().filter_map(|system| {
        let of = |reads: Reads, unit: &str| find(measured, system, reads.name(), EVENT_BYTES, unit);
        let both = |row: &Row| format!("{} / {}", time(row.median), time(row.p99));
        let one = |row: &Row| time(row.median);
        let whole = |row: &Row| grouped(row.median);
        let cells = [
            of(Reads::Stream, "us").map(both),
            of(Reads::Type, "us").map(both),
            of(Reads::Scan, "events/s").map(whole),
            of(Reads::OpenClean, "us").map(one),
            of(Reads::OpenKilled, "us").map(one),
            of(Reads::Disk, "bytes").map(whole),
        ];
        // Where nothing was packed there is nothing to be read from packs.
        let is_there = cells.iter().any(Option::is_some) || *system != "precedent-packed";
        let cells = cells.into_iter().map(|cell| cell.unwrap_or(NOTHING.to_owned()));
        is_there.then(|| std::iter::once(named(system)).chain(cells).collect::<Vec<_>>())
    });
    table(&head, &body.collect::<Vec<_>>())
}

fn packing(measured: &Measured) -> String {
    let head = ["append while the log is packed", "events/s", "median / p99", "median / p99 otherwise"]
        .map(str::to_owned);
    let body = Appends::ALL.map(Appends::name).into_iter().filter_map(|workload| {
        let of = |system: &str, unit: &str| find(measured, system, &workload, EVENT_BYTES, unit);
        let both = |row: &Row| format!("{} / {}", time(row.median), time(row.p99));
        let rate = of("precedent-packing", "events/s")?;
        let beside = of("precedent-packing", "us").map_or(NOTHING.to_owned(), both);
        let alone = of("precedent", "us").map_or(NOTHING.to_owned(), both);
        Some(vec![workload.clone(), grouped(rate.median), beside, alone])
    });
    let body: Vec<_> = body.collect();
    match body.is_empty() {
        true => "Nothing was packed in this run.\n".to_owned(),
        false => table(&head, &body),
    }
}

/// What was to be reached, in process: the share of the bare loop, a time in microseconds, events a second, or bytes.
const AIMS: [(&str, &str, &str, f64); 11] = [
    ("precedent", "1 appender", "of bare", 0.95),
    ("precedent", "64 appenders", "of bare", 0.8),
    ("precedent", "batches of 100", "of bare", 0.45),
    ("precedent", "batches of 100, 4 in flight", "of bare", 0.7),
    ("precedent", "batches of 1000", "of bare", 0.25),
    ("precedent", "batches of 1000, 4 in flight", "of bare", 0.45),
    ("precedent", "stream of 1000", "us", 600.0),
    ("precedent", "type at 1 %", "us", 10_000.0),
    ("precedent", "scan", "events/s", 4_000_000.0),
    ("precedent", "open, clean", "us", 100_000.0),
    ("precedent-packed", "bytes an event", "bytes", 600.0),
];
/// The same through the server: what it was to reach of a peer.
const AIMS_BESIDE: [(&str, &str, f64); 7] = [
    ("1 appender", "redis", 1.0),
    ("1 appender", "tephra-server", 1.0),
    ("64 appenders", "tephra-server", 1.5),
    ("batches of 100", "redis", 1.0),
    ("batches of 100, 4 in flight", "redis", 1.0),
    ("batches of 1000", "redis", 1.0),
    ("batches of 1000, 4 in flight", "redis", 1.0),
];

/// The bare loop that an aim is a share of: where several batches are in flight it was set as a share of the one that writes
/// them one after the other.
fn bare_of(workload: &str) -> &str {
    workload.strip_suffix(", 4 in flight").unwrap_or(workload)
}

fn aims(measured: &Measured) -> String {
    let in_process = AIMS.iter().filter_map(|(system, workload, kind, aim)| {
        let unit = if *kind == "of bare" { "events/s" } else { kind };
        let row = find(measured, system, workload, EVENT_BYTES, unit)?;
        let (reached, more_is_better) = match *kind {
            "of bare" if bare_of(workload) != *workload => {
                (row.median / find(measured, "bare", bare_of(workload), EVENT_BYTES, unit)?.median, true)
            }
            "of bare" => (row.ratio_to_bare?, true),
            "events/s" => (row.median, true),
            _ => (row.median, false),
        };
        let shown = |value: f64| match *kind {
            "of bare" if bare_of(workload) != *workload => {
                format!("{value:.2} of bare, {}", bare_of(workload))
            }
            "of bare" => format!("{value:.2} of bare"),
            "events/s" => format!("{}/s", grouped(value)),
            "us" => time(value),
            _ => format!("{} B", grouped(value)),
        };
        let is_met = if more_is_better { reached >= *aim } else { reached <= *aim };
        Some([(*workload).to_owned(), named(system), shown(*aim), shown(reached), yes(is_met)].to_vec())
    });
    let beside = AIMS_BESIDE.iter().filter_map(|(workload, peer, aim)| {
        let rate = |system: &str| Some(find(measured, system, workload, EVENT_BYTES, "events/s")?.median);
        let reached = rate("precedent-server")? / rate(peer)?;
        let shown = |value: f64| format!("{value:.2} of {peer}");
        let ours = named("precedent-server");
        Some([(*workload).to_owned(), ours, shown(*aim), shown(reached), yes(reached >= *aim)].to_vec())
    });
    let head = ["workload", "system", "aim", "reached", "met"].map(str::to_owned);
    table(&head, &in_process.chain(beside).collect::<Vec<_>>())
}

fn yes(is_met: bool) -> String {
    if is_met { "yes" } else { "no" }.to_owned()
}

/// Everything a peer does better than Precedent in the same place.
fn behind(measured: &Measured) -> String {
    let head = ["workload", "peer", "its figure", "ours", "times better", "why"].map(str::to_owned);
    let rated = Appends::ALL.map(Appends::name).into_iter().map(|name| (name, "events/s"));
    let timed = [Reads::Stream, Reads::Type, Reads::OpenClean, Reads::OpenKilled].map(|reads| (reads, "us"));
    let others = [(Reads::Scan, "events/s"), (Reads::Disk, "bytes")];
    let read = timed.into_iter().chain(others).map(|(reads, unit)| (reads.name().to_owned(), unit));
    let mut body = Vec::new();
    let mut compared = 0;
    for (workload, unit) in rated.chain(read) {
        for (ours, peers) in PEERS {
            // What the files take up is one figure, whoever reads them.
            let ours = match unit {
                "bytes" if ours == EACH => continue,
                "bytes" => "precedent",
                _ => ours,
            };
            let Some(our) = find(measured, ours, &workload, EVENT_BYTES, unit) else { continue };
            for peer in peers {
                let Some(row) = find(measured, peer, &workload, EVENT_BYTES, unit) else { continue };
                compared += 1;
                let times =
                    if unit == "events/s" { row.median / our.median } else { our.median / row.median };
                if times > 1.0 {
                    let figure = |row: &Row| match unit {
                        "us" => time(row.median),
                        "bytes" => format!("{} B", grouped(row.median)),
                        _ => format!("{}/s", grouped(row.median)),
                    };
                    let why = reason(&workload, peer).to_owned();
                    let each = if ours == EACH { ", a client each" } else { "" };
                    let peer = (*peer).to_owned();
                    body.push(vec![
                        workload.clone(),
                        peer,
                        figure(row),
                        format!("{}{each}", figure(our)),
                        format!("{times:.2}"),
                        why,
                    ]);
                }
            }
        }
    }
    match body.is_empty() {
        true if compared == 0 => "No peer was measured in this run.\n".to_owned(),
        true => "In this run no peer was ahead anywhere.\n".to_owned(),
        false => table(&head, &body),
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::tests::sample;
    use super::*;

    #[test]
    fn every_table_stands_where_its_marker_is_and_the_rest_of_the_page_stays() {
        let page =
            "# x\n\n<!-- table: reads -->\nold\n<!-- end -->\n\ntext\n\n<!-- table: about --><!-- end -->\n";
        let new = filled(page, &tables(&sample())).unwrap();
        assert!(new.starts_with("# x\n\n<!-- table: reads -->\n| "), "{new}");
        assert!(new.contains("<!-- end -->\n\ntext\n\n<!-- table: about -->\n| measured on"), "{new}");
        assert!(!new.contains("old"), "{new}");
        assert!(new.contains("2 cores \\| of some kind"), "{new}");
        assert_eq!(filled(&new, &tables(&sample())).unwrap(), new);
        for (page, says) in [
            ("<!-- table: reads", "does not end"),
            ("<!-- table: raeds --><!-- end -->", "no table 'raeds'"),
            ("<!-- table: reads -->", "'reads' does not end"),
        ] {
            assert!(filled(page, &tables(&sample())).unwrap_err().contains(says), "{page}");
        }
    }

    #[test]
    fn figures_stand_in_the_unit_that_suits_them() {
        let all: String = tables(&sample()).into_iter().map(|(_, table)| table).collect();
        for part in [
            "| **precedent** | 4,500 (0.90) | – |",
            "| **precedent** | 600 µs / 1.2 ms |",
            "1,250",
            "200 µs / 400 µs",
        ] {
            assert!(all.contains(part), "{part}:\n{all}");
        }
        assert_eq!(
            (time(99.6), time(1_234.0), time(8_600_000.0)),
            ("100 µs".into(), "1.2 ms".into(), "8,600 ms".into())
        );
    }

    #[test]
    fn a_peer_that_is_ahead_is_named_and_one_that_is_not_is_not() {
        let behind = behind(&sample());
        let lines: Vec<&str> = behind.lines().skip(2).collect();
        let why = reason("1 appender", "redis");
        assert_eq!(lines, [format!("| 1 appender | redis | 4,100/s | 2,000/s | 2.05 | {why} |")]);
        // Nobody is told that we are ahead of those who were not there.
        let mut alone = sample();
        alone.rows.retain(|row| row.system.starts_with("precedent"));
        assert_eq!(super::behind(&alone), "No peer was measured in this run.\n");
    }
}
