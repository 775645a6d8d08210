//! The plot of the appends: bars, each as long as what a system reaches of the bare loop, in two panels.
//!
//! Drawn here, without a library and without scripts. Its colours suit a light page and a dark one: an image cannot
//! ask the page around it, but it can ask what its reader prefers.

use std::fmt::Write;

use super::EVENT_BYTES;
use super::rows::{Row, grouped};

/// What is shown: the workloads that say most.
const WORKLOADS: [&str; 5] = [
    "1 appender",
    "64 appenders",
    "batches of 100",
    "batches of 100, 4 in flight",
    "batches of 1000, 4 in flight",
];
const PANELS: [(&str, [&str; 4]); 2] = [
    ("in process", ["precedent", "sqlite", "fjall", "tephra"]),
    (
        "through a server, client and server on the same cores",
        ["precedent-server", "redis", "tephra-server", "umadb-server"],
    ),
];

const WIDTH: f64 = 900.0;
/// Where the bars begin, and how far they may reach.
const LEFT: f64 = 270.0;
const RIGHT: f64 = 780.0;
const BAR: f64 = 15.0;
const GAP: f64 = 14.0;
const HEAD: f64 = 44.0;

const STYLE: &str = "\
text{font:12px ui-sans-serif,system-ui,sans-serif;fill:#24292f}\
.title{font-weight:600;font-size:13px}.quiet{fill:#57606a}.end{text-anchor:end}\
.peer{fill:#9aa4af}.ours{fill:#0a6ebd}.bare{stroke:#57606a;stroke-dasharray:3 3}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.quiet{fill:#9da7b3}.peer{fill:#6b7684}\
.ours{fill:#4aa8f0}.bare{stroke:#9da7b3}}";

/// The image.
pub(super) fn svg(rows: &[Row]) -> String {
    let found = |system: &str, workload: &str| {
        rows.iter().find(|row| {
            (row.system.as_str(), row.workload.as_str(), row.unit.as_str()) == (system, workload, "events/s")
                && row.event_bytes == EVENT_BYTES
        })
    };
    let ratio = |system: &str, workload: &str| found(system, workload).and_then(|row| row.ratio_to_bare);
    let all = PANELS.iter().flat_map(|(_, systems)| systems).flat_map(|s| WORKLOADS.map(|w| ratio(s, w)));
    let most = all.flatten().fold(1.0_f64, f64::max);
    let long = |ratio: f64| ratio / most * (RIGHT - LEFT);

    let mut body = String::new();
    let mut y = 20.0;
    let text = |body: &mut String, class: &str, x: f64, y: f64, text: &str| {
        let _ = writeln!(body, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escaped(text));
    };
    let title = format!(
        "Durable appends of {} bytes, as a share of the bare loop of writes and syncs",
        grouped(EVENT_BYTES as f64)
    );
    text(&mut body, "title", 10.0, y, &title);
    for (name, systems) in PANELS {
        y += HEAD;
        text(&mut body, "title", 10.0, y - 14.0, name);
        let from = y - 8.0;
        for workload in WORKLOADS {
            text(&mut body, "", 10.0, y + BAR - 3.0, workload);
            for system in systems {
                text(&mut body, "quiet end", LEFT - 8.0, y + BAR - 3.0, short(system));
                let (ratio, row) = (ratio(system, workload), found(system, workload));
                let length = ratio.map_or(0.0, long);
                let class = if system.starts_with("precedent") { "ours" } else { "peer" };
                let _ = writeln!(
                    body,
                    "<rect class=\"{class}\" x=\"{LEFT:.1}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{:.1}\"/>",
                    BAR - 2.0
                );
                let figure = match (row, ratio) {
                    (Some(row), Some(ratio)) => format!("{}/s · {ratio:.2}", grouped(row.median)),
                    _ => "not measured".to_owned(),
                };
                text(&mut body, "quiet", LEFT + length + 6.0, y + BAR - 3.0, &figure);
                y += BAR;
            }
            y += GAP;
        }
        let x = LEFT + long(1.0);
        let to = y - GAP + 4.0;
        let _ = writeln!(
            body,
            "<line class=\"bare\" x1=\"{x:.1}\" y1=\"{from:.1}\" x2=\"{x:.1}\" y2=\"{to:.1}\"/>"
        );
        text(&mut body, "quiet end", x, from - 3.0, "bare loop");
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {y:.0}\" width=\"{WIDTH:.0}\" \
         height=\"{y:.0}\" role=\"img\" aria-label=\"{}\">\n<style>{STYLE}</style>\n{body}</svg>\n",
        escaped(&title)
    )
}

/// As the bars name it.
fn short(system: &str) -> &str {
    system.strip_suffix("-server").unwrap_or(system)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::rows::tests::sample;
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_share_and_none_leaves_the_image() {
        let svg = svg(&sample().rows);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("<rect ").count(), 40);
        let bars: Vec<f64> = svg
            .lines()
            .filter_map(|line| {
                line.strip_prefix("<rect ")?.split("width=\"").nth(1)?.split('"').next()?.parse().ok()
            })
            .collect();
        assert_eq!((bars[0], bars[1], bars[2]), (459.0, 408.0, 0.0));
        assert!(bars.iter().all(|&length| length <= RIGHT - LEFT));
        assert!(svg.contains(">4,500/s · 0.90<") && svg.contains("not measured"));
        assert_eq!(escaped("<a & \"b\""), "&lt;a &amp; &quot;b&quot;");
    }
}
