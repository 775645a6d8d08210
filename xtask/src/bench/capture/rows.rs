//! What was measured as rows, and the tables made from them.

use serde_json::{Value, json};

use super::super::page::{NOTHING, named, table};
use super::super::rows::{about_of, grouped};
use super::super::workload::{quantile, rounded, sorted};

/// One server in one round.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Measurement {
    pub(super) round: usize,
    pub(super) system: &'static str,
    /// Of the spans it was given.
    pub(super) sent: usize,
    pub(super) answered: usize,
    pub(super) answered_seconds: f64,
    pub(super) visible: usize,
    pub(super) visible_seconds: f64,
    /// On the disk, beyond what an empty store takes.
    pub(super) bytes: u64,
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    /// Spans a second until the last answer.
    Answered,
    /// Spans a second until a query that finds all of them begins.
    Visible,
    /// Bytes on the disk for each visible span.
    Disk,
}

impl Measure {
    const ALL: [Self; 3] = [Self::Answered, Self::Visible, Self::Disk];

    fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Visible => "visible",
            Self::Disk => "disk",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::Disk => "bytes",
            _ => "spans/s",
        }
    }

    /// How many spans it is about, and the figure; none where there is nothing to divide.
    fn of(self, measured: &Measurement) -> (usize, Option<f64>) {
        let over = |count: usize, seconds: f64| (count, (seconds > 0.0).then(|| count as f64 / seconds));
        match self {
            Self::Answered => over(measured.answered, measured.answered_seconds),
            Self::Visible => over(measured.visible, measured.visible_seconds),
            // What is answered and not visible may be stored until the server has ended, and then nobody knows how much is.
            Self::Disk => {
                let spans = measured.visible;
                let all = spans > 0 && spans == measured.answered;
                (spans, all.then(|| measured.bytes as f64 / spans as f64))
            }
        }
    }

    /// How many times better `ours` is.
    fn times(self, ours: f64, theirs: f64) -> f64 {
        match self {
            Self::Disk => theirs / ours,
            _ => ours / theirs,
        }
    }
}

/// All rounds of one server and one measure.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::bench) struct Row {
    pub(super) system: String,
    pub(super) measure: String,
    /// Of the spans it was given in a round.
    pub(super) sent: u64,
    /// Of those that were answered, or visible, in the round with the fewest.
    pub(super) spans: u64,
    pub(super) rounds: u64,
    pub(super) median: f64,
    pub(super) lowest: f64,
    pub(super) highest: f64,
    /// How many times better Precedent was with the same spans in the same round: the median.
    pub(super) precedent_times: Option<f64>,
    pub(super) unit: String,
}

/// What an answer of 200 means, as far as it was seen.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::bench) struct Answers {
    pub(super) system: String,
    pub(super) version: String,
    /// How it opens its database, if it has one of SQLite's.
    pub(super) journal_mode: Option<String>,
    pub(super) synchronous: Option<u64>,
    pub(super) sqlite: Option<String>,
    /// Requests that were sent one after the other under strace, if there was one.
    pub(super) requests: Option<u64>,
    /// Of those, how many had a file forced to the device between their first byte and their answer.
    pub(super) synced: Option<u64>,
    /// How often that happened until all was visible.
    pub(super) syncs: Option<u64>,
}

/// A whole run.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::bench) struct Captured {
    pub(in crate::bench) about: Vec<(String, String)>,
    pub(in crate::bench) answers: Vec<Answers>,
    pub(in crate::bench) rows: Vec<Row>,
}

/// One row a server, a number of spans and a measure: servers as they were first seen, the most spans first.
pub(super) fn merged(measured: &[Measurement]) -> Vec<Row> {
    let mut kinds: Vec<(&'static str, usize)> = Vec::new();
    for one in measured {
        if !kinds.contains(&(one.system, one.sent)) {
            kinds.push((one.system, one.sent));
        }
    }
    let seen = kinds.clone();
    let first = |system: &str| seen.iter().position(|(of, _)| *of == system);
    kinds.sort_by_key(|(system, sent)| (first(system), std::cmp::Reverse(*sent)));
    let of = |(system, sent)| Measure::ALL.map(|measure| row(measured, system, sent, measure));
    kinds.into_iter().flat_map(of).flatten().collect()
}

fn row(measured: &[Measurement], system: &str, sent: usize, measure: Measure) -> Option<Row> {
    let rounds: Vec<&Measurement> =
        measured.iter().filter(|one| one.system == system && one.sent == sent).collect();
    let figures = sorted(rounds.iter().filter_map(|one| measure.of(one).1));
    let (lowest, highest) = (*figures.first()?, *figures.last()?);
    let times = rounds.iter().filter(|_| system != OURS).filter_map(|theirs| {
        let same = |one: &&Measurement| (one.system, one.round, one.sent) == (OURS, theirs.round, sent);
        let ours = measured.iter().find(same)?;
        Some(measure.times(measure.of(ours).1?, measure.of(theirs).1?))
    });
    let times = sorted(times);
    Some(Row {
        system: system.to_owned(),
        measure: measure.name().to_owned(),
        sent: sent as u64,
        spans: rounds.iter().map(|one| measure.of(one).0).min().unwrap_or_default() as u64,
        rounds: rounds.len() as u64,
        median: rounded(quantile(&figures, 0.5)),
        lowest: rounded(lowest),
        highest: rounded(highest),
        precedent_times: (!times.is_empty()).then(|| rounded(quantile(&times, 0.5))),
        unit: measure.unit().to_owned(),
    })
}

/// The system that the others are compared with.
pub(super) const OURS: &str = "precedent";

/// What is kept: a line about the run, one for what the answers of each server mean, then a row a line.
pub(in crate::bench) fn text(captured: &Captured) -> String {
    let about: Vec<Value> = captured.about.iter().map(|(name, value)| json!([name, value])).collect();
    let mut text = format!("{}\n", json!({ "about": about }));
    for of in &captured.answers {
        let line = json!({
            "system": of.system, "version": of.version, "journal_mode": of.journal_mode,
            "synchronous": of.synchronous, "sqlite": of.sqlite, "requests": of.requests, "synced": of.synced,
            "syncs": of.syncs,
        });
        text.push_str(&format!("{line}\n"));
    }
    for row in &captured.rows {
        let line = json!({
            "system": row.system, "measure": row.measure, "sent": row.sent, "spans": row.spans,
            "rounds": row.rounds, "median": row.median, "lowest": row.lowest, "highest": row.highest,
            "precedent_times": row.precedent_times, "unit": row.unit,
        });
        text.push_str(&format!("{line}\n"));
    }
    text
}

/// What [`text`] wrote.
pub(in crate::bench) fn parse(text: &str) -> Result<Captured, String> {
    let (first, rest) = text.split_once('\n').ok_or("there are no rows")?;
    let mut captured = Captured { about: about_of(first)?, answers: Vec::new(), rows: Vec::new() };
    for line in rest.lines() {
        let value: Value = serde_json::from_str(line).map_err(|e| format!("not a row: {e}: {line}"))?;
        let missing = |name: &str| format!("a row has no '{name}': {line}");
        let text = |name: &str| value[name].as_str().map(str::to_owned).ok_or_else(|| missing(name));
        let number = |name: &str| value[name].as_f64().ok_or_else(|| missing(name));
        let count = |name: &str| value[name].as_u64().ok_or_else(|| missing(name));
        match value.get("measure") {
            None => captured.answers.push(Answers {
                system: text("system")?,
                version: text("version")?,
                journal_mode: value["journal_mode"].as_str().map(str::to_owned),
                synchronous: value["synchronous"].as_u64(),
                sqlite: value["sqlite"].as_str().map(str::to_owned),
                requests: value["requests"].as_u64(),
                synced: value["synced"].as_u64(),
                syncs: value["syncs"].as_u64(),
            }),
            Some(_) => captured.rows.push(Row {
                system: text("system")?,
                measure: text("measure")?,
                sent: count("sent")?,
                spans: count("spans")?,
                rounds: count("rounds")?,
                median: number("median")?,
                lowest: number("lowest")?,
                highest: number("highest")?,
                precedent_times: value["precedent_times"].as_f64(),
                unit: text("unit")?,
            }),
        }
    }
    Ok(captured)
}

/// The tables, by the names of their markers.
pub(in crate::bench) fn tables(captured: &Captured) -> Vec<(&'static str, String)> {
    let about = captured.about.iter().map(|(name, value)| vec![name.clone(), value.clone()]);
    let about = table(&["measured on".into(), String::new()], &about.collect::<Vec<_>>());
    vec![
        ("capture about", about.replace("---:", "---")),
        ("capture", figures(captured)),
        ("capture answers", answers(captured)),
    ]
}

fn figures(captured: &Captured) -> String {
    let head = [
        "median (lowest to highest)",
        "spans sent",
        "answered, spans/s",
        "visible, spans/s",
        "bytes a span",
        "Precedent: times as many answered",
        "times as many visible",
        "times smaller",
    ]
    .map(str::to_owned);
    let mut kinds: Vec<(&str, u64)> = Vec::new();
    for row in &captured.rows {
        if !kinds.contains(&(&row.system, row.sent)) {
            kinds.push((&row.system, row.sent));
        }
    }
    let body = kinds.into_iter().map(|(system, sent)| {
        let find = |measure: Measure| {
            captured
                .rows
                .iter()
                .find(|row| row.system == system && row.sent == sent && row.measure == measure.name())
        };
        let figure = |measure: Measure| {
            find(measure).map_or(NOTHING.to_owned(), |row| {
                let [median, lowest, highest] = [row.median, row.lowest, row.highest].map(grouped);
                let some = match row.spans < row.sent && measure != Measure::Disk {
                    true => format!(", {} of them", grouped(row.spans as f64)),
                    false => String::new(),
                };
                format!("{median} ({lowest} to {highest}){some}")
            })
        };
        let times = |measure: Measure| {
            let times = find(measure).and_then(|row| row.precedent_times);
            times.map_or(NOTHING.to_owned(), |times| match times < 10.0 {
                true => format!("{times:.1}"),
                false => grouped(times),
            })
        };
        let mut cells = vec![named(system), grouped(sent as f64)];
        cells.extend(Measure::ALL.map(figure));
        cells.extend(Measure::ALL.map(times));
        cells
    });
    table(&head, &body.collect::<Vec<_>>())
}

fn answers(captured: &Captured) -> String {
    let head = [
        "",
        "version",
        "SQLite opened with",
        "requests answered after a sync",
        "syncs until all was visible",
    ]
    .map(str::to_owned);
    let body = captured.answers.iter().map(|of| {
        let opened = match (&of.journal_mode, of.synchronous, &of.sqlite) {
            (Some(mode), Some(synchronous), Some(version)) => {
                let synchronous = match synchronous {
                    0 => "OFF",
                    1 => "NORMAL",
                    2 => "FULL",
                    _ => "EXTRA",
                };
                format!("`journal_mode={mode}`, `synchronous={synchronous}` (SQLite {version})")
            }
            _ => NOTHING.to_owned(),
        };
        let not_seen = "not looked at: no strace".to_owned();
        let synced = match (of.synced, of.requests) {
            (Some(synced), Some(requests)) => format!("{synced} of {requests}"),
            _ => not_seen.clone(),
        };
        let syncs = of.syncs.map_or(not_seen, |syncs| syncs.to_string());
        vec![named(&of.system), of.version.clone(), opened, synced, syncs]
    });
    table(&head, &body.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(round: usize, system: &'static str, sent: usize, seconds: [f64; 2], bytes: u64) -> Measurement {
        let [answered_seconds, visible_seconds] = seconds;
        Measurement {
            round,
            system,
            sent,
            answered: sent,
            answered_seconds,
            visible: sent,
            visible_seconds,
            bytes,
        }
    }

    /// Three rounds of ours with all spans and with some, and two peers with some: one that is slow to show, and one
    /// that did not get through in the last.
    fn sample() -> Captured {
        let mut measured = Vec::new();
        for (round, factor) in [1.0, 2.0, 0.5].into_iter().enumerate() {
            measured.push(one(round, "phoenix", 800, [0.8 * factor, 8.0 * factor * factor], 8_000_000));
            measured.push(one(round, OURS, 2_454, [0.5, 0.6], 2_454_000));
            measured.push(one(round, OURS, 800, [0.1 * factor, 0.2 * factor], 1_600_000));
            measured.push(one(round, "mlflow", 800, [4.0 * factor, 4.0 * factor], 16_000_000));
        }
        let last = measured.last_mut().unwrap();
        (last.answered, last.visible) = (600, 400);
        let answers = |system: &str, synced: Option<u64>| Answers {
            system: system.to_owned(),
            version: "1.2.3".to_owned(),
            journal_mode: (system != OURS).then(|| "wal".to_owned()),
            synchronous: (system != OURS).then_some(0),
            sqlite: (system != OURS).then(|| "3.54.1".to_owned()),
            requests: synced.map(|_| 4),
            synced,
            syncs: synced,
        };
        Captured {
            about: vec![("machine".into(), "2 cores".into())],
            answers: vec![answers(OURS, Some(4)), answers("phoenix", Some(0)), answers("mlflow", None)],
            rows: merged(&measured),
        }
    }

    fn find(captured: &Captured, system: &str, sent: u64, measure: &str) -> Row {
        let row = captured
            .rows
            .iter()
            .find(|row| (row.system.as_str(), row.sent, row.measure.as_str()) == (system, sent, measure));
        row.unwrap().clone()
    }

    #[test]
    fn rounds_become_medians_and_a_peer_is_held_against_the_same_spans_of_its_round() {
        let captured = sample();
        assert_eq!(captured.rows.len(), 12);
        let answered = find(&captured, "phoenix", 800, "answered");
        // 1,000, 500 and 2,000 a second, beside 8,000, 4,000 and 16,000.
        assert_eq!((answered.lowest, answered.median, answered.highest), (500.0, 1_000.0, 2_000.0));
        assert_eq!((answered.precedent_times, answered.rounds, answered.spans), (Some(8.0), 3, 800));
        // 100, 25 and 400 a second, beside 4,000, 2,000 and 8,000: 40, 80 and 20 times.
        let visible = find(&captured, "phoenix", 800, "visible");
        assert_eq!((visible.median, visible.precedent_times), (100.0, Some(40.0)));
        // 10,000 bytes a span, beside 2,000.
        let disk = find(&captured, "phoenix", 800, "disk");
        assert_eq!((disk.median, disk.precedent_times), (10_000.0, Some(5.0)));
        // Ours is not compared with itself, and all spans are a row of their own.
        assert_eq!(find(&captured, OURS, 800, "visible").precedent_times, None);
        let all = find(&captured, OURS, 2_454, "disk");
        assert_eq!((all.median, all.spans, all.precedent_times), (1_000.0, 2_454, None));
    }

    #[test]
    fn spans_that_were_not_answered_or_not_visible_do_not_count() {
        let captured = sample();
        let answered = find(&captured, "mlflow", 800, "answered");
        // 200, 100, and 600 in two seconds.
        assert_eq!((answered.sent, answered.spans), (800, 600));
        assert_eq!((answered.lowest, answered.median, answered.highest), (100.0, 200.0, 300.0));
        let visible = find(&captured, "mlflow", 800, "visible");
        assert_eq!((visible.spans, visible.highest), (400, 200.0));
        // Bytes are divided among spans only where it is known how many there are.
        let disk = find(&captured, "mlflow", 800, "disk");
        assert_eq!((disk.median, disk.highest), (20_000.0, 20_000.0));
    }

    #[test]
    fn what_shows_nothing_has_no_figure() {
        let mut nothing = one(0, "phoenix", 800, [0.8, 60.0], 4_096);
        nothing.visible = 0;
        let rows = merged(&[nothing, one(0, OURS, 800, [0.1, 0.2], 1_600_000)]);
        let of = |measure: &str| rows.iter().find(|row| row.system == "phoenix" && row.measure == measure);
        let visible = of("visible").unwrap();
        assert_eq!((visible.spans, visible.median), (0, 0.0));
        assert!(of("disk").is_none());
    }

    #[test]
    fn what_is_kept_comes_back() {
        let captured = sample();
        assert_eq!(parse(&text(&captured)).unwrap(), captured);
        for (text, says) in [
            ("", "no rows"),
            ("x\n", "not JSON"),
            ("{\"about\":[]}\n{}\n", "no 'system'"),
            ("{\"about\":[]}\n{\"system\":\"x\",\"measure\":\"disk\"}\n", "no 'sent'"),
            ("{\"about\":[]}\nx\n", "not a row"),
        ] {
            assert!(parse(text).unwrap_err().contains(says), "{text}");
        }
    }

    #[test]
    fn the_tables_say_what_was_seen_and_what_was_not() {
        let tables = tables(&sample());
        assert_eq!(
            tables.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            ["capture about", "capture", "capture answers"]
        );
        let all: String = tables.into_iter().map(|(_, table)| table).collect();
        for line in [
            "| machine | 2 cores |",
            "| **precedent** | 2,454 | 4,908 (4,908 to 4,908) | 4,090 (4,090 to 4,090) | 1,000 (1,000 to 1,000) | – | – | – |",
            "| phoenix | 800 | 1,000 (500 to 2,000) | 100 (25 to 400) | 10,000 (10,000 to 10,000) | 8.0 | 40 | 5.0 |",
            "| mlflow | 800 | 200 (100 to 300), 600 of them | 200 (100 to 200), 400 of them | 20,000 (20,000 to 20,000) |",
            "| **precedent** | 1.2.3 | – | 4 of 4 | 4 |",
            "| phoenix | 1.2.3 | `journal_mode=wal`, `synchronous=OFF` (SQLite 3.54.1) | 0 of 4 | 0 |",
            "| mlflow | 1.2.3 | `journal_mode=wal`, `synchronous=OFF` (SQLite 3.54.1) | not looked at: no strace |",
        ] {
            assert!(all.contains(line), "{line}\n{all}");
        }
    }
}
