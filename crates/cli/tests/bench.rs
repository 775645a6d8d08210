//! `bench`, with the real binary: its rows, what it refuses, and that it leaves nothing behind.

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::{Place, Running, within};
use serde_json::Value;

const APPENDS: [&str; 7] = [
    "1 appender",
    "16 appenders",
    "64 appenders",
    "batches of 100",
    "batches of 100, 4 in flight",
    "batches of 1000",
    "batches of 1000, 4 in flight",
];
const READS: [&str; 6] =
    ["stream of 1000", "type at 1 %", "scan", "open, clean", "open, killed", "bytes an event"];

fn names(path: &Path) -> BTreeSet<PathBuf> {
    std::fs::read_dir(path).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn find<'a>(rows: &'a [Value], system: &str, workload: &str, unit: &str) -> &'a Value {
    let of = |row: &&Value| row["system"] == system && row["workload"] == workload && row["unit"] == unit;
    let mut found = rows.iter().filter(of);
    let row = found.next().unwrap_or_else(|| panic!("no row for {system}, {workload}, {unit}"));
    assert!(found.next().is_none(), "two rows for {system}, {workload}, {unit}");
    row
}

#[test]
fn every_workload_has_its_rows_and_nothing_is_left_behind() {
    let place = Place::new();
    let line = "bench --json --seconds 1 --rounds 1 --event-bytes 256 --events 2000";
    let rows = place.run(line).ends(0).lines();
    let fields = [
        "durability",
        "event_bytes",
        "median",
        "p99",
        "ratio_to_bare",
        "rounds",
        "system",
        "tree",
        "unit",
        "workload",
    ];
    for row in &rows {
        assert!(row.as_object().unwrap().keys().eq(fields), "{row}");
        let (median, p99) = (row["median"].as_f64().unwrap(), row["p99"].as_f64().unwrap());
        assert!(median > 0.0 && p99 > 0.0, "{row}");
        let bare = row["system"].as_str().unwrap().starts_with("bare");
        assert_eq!(row["tree"], !bare, "{row}");
        assert_eq!((&row["event_bytes"], &row["rounds"]), (&256.into(), &1.into()), "{row}");
        // Whether anything was packed beside the appends is a matter of moments.
        if row["system"] != "precedent-packing" {
            let appends = APPENDS.contains(&row["workload"].as_str().unwrap());
            assert_eq!(row["ratio_to_bare"].is_number(), appends, "{row}");
        }
    }
    for workload in APPENDS {
        for system in ["bare", "precedent", "precedent-server"] {
            find(&rows, system, workload, "us");
            find(&rows, system, workload, "events/s");
        }
        if workload != "1 appender" && !["batches of 100", "batches of 1000"].contains(&workload) {
            find(&rows, "bare-own-syncs", workload, "events/s");
            find(&rows, "bare-tasks", workload, "events/s");
        }
    }
    for workload in READS {
        let (systems, unit) = match workload {
            "bytes an event" => (&["precedent"][..], "bytes"),
            _ => (&["precedent", "precedent-server"][..], "us"),
        };
        for system in systems {
            find(&rows, system, workload, unit);
        }
    }
    assert_eq!(names(place.path()), BTreeSet::new());
}

#[test]
fn what_is_measured_can_be_chosen_and_people_get_a_table() {
    let place = Place::new();
    let chosen = ["bench", "--seconds", "1", "--rounds", "2", "--system", "precedent", "--workload"];
    let done = place.run_with(chosen.iter().copied().chain(["batches of 100"]), b"").ends(0);
    let table = done.out();
    assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
    let of = |system: &str| table.lines().filter(|line| line.contains(system)).count();
    assert_eq!(table.lines().filter(|line| line.starts_with("batches of 100 ")).count(), 3, "{table}");
    assert_eq!(of(" hashes "), 1, "{table}");
    assert_eq!((of("precedent-server  "), of("scan")), (0, 0), "{table}");
    assert!(table.contains("medians of 2 rounds"), "{table}");
}

#[test]
fn what_cannot_be_measured_is_refused_before_anything_is_made() {
    let place = Place::new();
    place.run("bench --dir ./nowhere").ends(2).says("nowhere");
    place.run("bench --event-bytes 3").ends(2).says("3 is not in 64..=1048576");
    place.run("bench --event-bytes 1048577").ends(2).says("1048577");
    place.run("bench --event-bytes 1024,x").ends(2).says("'x'");
    place.run("bench --events 0").ends(2).says("0 is not in 1000..=100000000");
    place.run("bench --events -5").ends(2);
    place.run("bench --rounds 0").ends(2).says("0 is not in 1..=1000");
    place.run("bench --seconds 99999999999").ends(2).says("99999999999");
    place.run("bench --workload sacn").ends(2).says("there is no workload 'sacn'").says("'scan'");
    place.run("bench --system sqlite").ends(2).says("precedent and precedent-server");
    place.write("file", "");
    place.run("bench --dir file").ends(2).says("file");
    assert_eq!(names(place.path()).len(), 1);
}

#[test]
fn events_too_large_for_a_batch_leave_the_batch_out_and_say_so() {
    let place = Place::new();
    let line =
        "bench --json --seconds 1 --rounds 1 --event-bytes 1048576 --workload appends --system precedent";
    let done = place.run(line).ends(0);
    let rows = done.lines();
    find(&rows, "precedent", "1 appender", "us");
    assert!(!rows.iter().any(|row| row["workload"].as_str().unwrap().starts_with("batches")));
    done.says("'batches of 100' left out: 104857600 bytes").says("the limit here is 12582912");
}

#[cfg(unix)]
#[test]
fn an_interrupted_bench_leaves_nothing_behind() {
    // While the bare loop gets its file, beside appends in process and through the server, and while a log is read.
    for (workload, stores, signal, code) in [
        ("1 appender", 0, "INT", 130),
        ("1 appender", 1, "INT", 130),
        ("1 appender", 2, "INT", 130),
        ("scan", 0, "INT", 130),
        // As `timeout` does.
        ("1 appender", 2, "TERM", 143),
    ] {
        let place = Place::new();
        let arguments =
            ["bench", "--seconds", "3", "--rounds", "1", "--events", "1000", "--workload", workload];
        let mut command = place.command(arguments);
        let mut bench = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let mut seen = BTreeSet::new();
        within(|| {
            let folder = names(place.path()).pop_last()?;
            seen.extend(names(&folder));
            // With appends, one of them is the file of the bare loop.
            (seen.len() > stores).then_some(())
        });
        bench.signal(signal);
        assert_eq!(bench.end(), code, "{workload} after {stores} stores");
        assert_eq!(names(place.path()), BTreeSet::new(), "{workload} after {stores} stores");
    }
}
