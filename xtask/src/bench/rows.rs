//! The rows of `precedent bench --json`: read, put together over rounds, written.

use serde_json::{Value, json};

use super::workload::{quantile, rounded, sorted};

/// One row; see `precedent bench --help`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) system: String,
    pub(super) workload: String,
    pub(super) event_bytes: u64,
    pub(super) durability: String,
    pub(super) tree: bool,
    pub(super) rounds: u64,
    pub(super) median: f64,
    pub(super) p99: f64,
    pub(super) ratio_to_bare: Option<f64>,
    pub(super) unit: String,
}

impl Row {
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(line).map_err(|e| format!("not a row: {e}: {line}"))?;
        let missing = |name: &str| format!("a row has no '{name}': {line}");
        let text = |name: &str| value[name].as_str().map(str::to_owned).ok_or_else(|| missing(name));
        let number = |name: &str| value[name].as_f64().ok_or_else(|| missing(name));
        let count = |name: &str| value[name].as_u64().ok_or_else(|| missing(name));
        Ok(Self {
            system: text("system")?,
            workload: text("workload")?,
            event_bytes: count("event_bytes")?,
            durability: text("durability")?,
            tree: value["tree"].as_bool().ok_or_else(|| missing("tree"))?,
            rounds: count("rounds")?,
            median: number("median")?,
            p99: number("p99")?,
            ratio_to_bare: value["ratio_to_bare"].as_f64(),
            unit: text("unit")?,
        })
    }

    fn json(&self) -> Value {
        json!({
            "system": self.system, "workload": self.workload, "event_bytes": self.event_bytes,
            "durability": self.durability, "tree": self.tree, "rounds": self.rounds, "median": self.median,
            "p99": self.p99, "ratio_to_bare": self.ratio_to_bare, "unit": self.unit,
        })
    }

    fn is_like(&self, other: &Self) -> bool {
        let key = |row: &Self| (row.system.clone(), row.workload.clone(), row.event_bytes, row.unit.clone());
        key(self) == key(other)
    }

    /// For whoever watches.
    pub(super) fn shown(&self) -> String {
        format!("{} {}/s", self.system, grouped(self.median))
    }
}

/// A run: what it was measured on, and its rows.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Measured {
    pub(super) about: Vec<(String, String)>,
    pub(super) rows: Vec<Row>,
}

/// What is kept: a line about the run, then a row a line.
pub(super) fn text(measured: &Measured) -> String {
    let about: Vec<Value> = measured.about.iter().map(|(name, value)| json!([name, value])).collect();
    let mut text = format!("{}\n", json!({ "about": about }));
    for row in &measured.rows {
        text.push_str(&format!("{}\n", row.json()));
    }
    text
}

/// What [`text`] wrote.
pub(super) fn parse(text: &str) -> Result<Measured, String> {
    let (first, rest) = text.split_once('\n').ok_or("there are no rows")?;
    let about = about_of(first)?;
    Ok(Measured { about, rows: rest.lines().map(Row::parse).collect::<Result<_, _>>()? })
}

/// What the first line says was measured on.
pub(super) fn about_of(line: &str) -> Result<Vec<(String, String)>, String> {
    let first: Value = serde_json::from_str(line).map_err(|e| format!("the first line is not JSON: {e}"))?;
    let pair = |pair: &Value| Some((pair[0].as_str()?.to_owned(), pair[1].as_str()?.to_owned()));
    let about = first["about"].as_array().and_then(|about| about.iter().map(pair).collect());
    about.ok_or_else(|| "the first line does not say what was measured on".to_owned())
}

/// One row for what was measured in several rounds: the median of the medians; of rates the lowest round, of times
/// the median of the 99th percentiles; and the median of what each round was of the bare loop in the same round.
pub(super) fn merged(rows: &[(usize, Row)]) -> Vec<Row> {
    let mut merged: Vec<Row> = Vec::new();
    for (_, first) in rows {
        if merged.iter().any(|row| row.is_like(first)) {
            continue;
        }
        let rounds: Vec<&(usize, Row)> = rows.iter().filter(|(_, row)| row.is_like(first)).collect();
        let medians = sorted(rounds.iter().map(|(_, row)| row.median));
        let p99s = sorted(rounds.iter().map(|(_, row)| row.p99));
        let ratios =
            sorted(rounds.iter().filter_map(|(round, row)| Some(row.median / bare(rows, *round, row)?)));
        merged.push(Row {
            rounds: rounds.iter().map(|(_, row)| row.rounds).sum(),
            median: quantile(&medians, 0.5),
            p99: quantile(&p99s, if first.unit == "events/s" { 0.0 } else { 0.5 }),
            ratio_to_bare: (!ratios.is_empty()).then(|| rounded(quantile(&ratios, 0.5))),
            ..first.clone()
        });
    }
    merged
}

/// The bare loop under the same workload in the same round.
fn bare(rows: &[(usize, Row)], round: usize, like: &Row) -> Option<f64> {
    let wanted = Row { system: "bare".to_owned(), ..like.clone() };
    let (_, row) = rows.iter().find(|(of, row)| *of == round && row.is_like(&wanted))?;
    (row.median > 0.0).then_some(row.median)
}

/// A whole number with separators.
pub(super) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A small run, for the tests of the page and the plot too.
    pub(crate) fn sample() -> Measured {
        let mut rows = Vec::new();
        let mut put = |system: &str, workload: &str, unit: &str, values: [f64; 3]| {
            for (round, value) in values.into_iter().enumerate() {
                let line = json!({"system": system, "workload": workload, "event_bytes": 1024,
                    "durability": "device", "tree": system.starts_with("precedent"), "rounds": 1,
                    "median": value, "p99": value * 2.0, "ratio_to_bare": null, "unit": unit});
                rows.push((round, Row::parse(&line.to_string()).unwrap()));
            }
        };
        put("bare", "1 appender", "events/s", [5_000.0, 4_000.0, 6_000.0]);
        put("precedent", "1 appender", "events/s", [4_500.0, 4_400.0, 4_800.0]);
        put("sqlite", "1 appender", "events/s", [4_000.0, 4_800.0, 4_000.0]);
        put("precedent-server", "1 appender", "events/s", [2_000.0, 2_100.0, 1_900.0]);
        put("redis", "1 appender", "events/s", [4_100.0, 4_000.0, 4_200.0]);
        put("precedent", "1 appender", "us", [200.0, 300.0, 100.0]);
        put("precedent", "stream of 1000", "us", [600.0, 700.0, 500.0]);
        put("sqlite", "stream of 1000", "us", [900.0, 800.0, 1_000.0]);
        put("precedent", "bytes an event", "bytes", [1_250.4; 3]);
        put("sqlite", "bytes an event", "bytes", [1_406.0; 3]);
        Measured { about: vec![("machine".into(), "2 cores | of some kind".into())], rows: merged(&rows) }
    }

    #[test]
    fn rounds_become_medians_and_a_ratio_is_to_the_bare_loop_of_its_round() {
        let rows = sample().rows;
        let of =
            |at: usize| (rows[at].system.as_str(), rows[at].median, rows[at].p99, rows[at].ratio_to_bare);
        assert_eq!(of(0), ("bare", 5_000.0, 8_000.0, Some(1.0)));
        // 0.9, 1.1, 0.8: not 4,500 of 5,000, but close to it.
        assert_eq!(of(1), ("precedent", 4_500.0, 8_800.0, Some(0.9)));
        // 0.8, 1.2, 0.667.
        assert_eq!(of(2), ("sqlite", 4_000.0, 8_000.0, Some(0.8)));
        assert_eq!(of(5), ("precedent", 200.0, 400.0, None));
        assert_eq!(rows[0].rounds, 3);
    }

    #[test]
    fn what_is_kept_comes_back() {
        let measured = sample();
        assert_eq!(parse(&text(&measured)).unwrap(), measured);
        for (text, says) in [
            ("", "no rows"),
            ("x\n", "not JSON"),
            ("{}\n", "does not say"),
            ("{\"about\":[]}\n{}\n", "no 'system'"),
            ("{\"about\":[]}\nx\n", "not a row"),
        ] {
            assert!(parse(text).unwrap_err().contains(says), "{text}");
        }
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(1_234_567.4), "1,234,567");
        assert_eq!(grouped(999.0), "999");
        assert_eq!(grouped(0.2), "0");
    }
}
