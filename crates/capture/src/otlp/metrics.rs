//! Metrics: counted, not recorded, but for what a sender says it lost.
//!
//! SDKs and collectors count what they drop. Those counters are the only way to learn of telemetry that was never sent, so
//! they become gaps.

use precedent_core::{Event, Result};

use super::event::resource_text;
use super::{Encoding, Item};
use crate::funnel::source;
use crate::gap::{Gap, Reason};
use crate::json;
use crate::redact::Rules;
use crate::value::{self, Attributes, Value};
use crate::wire::{Fields, Wire};

/// Counters of loss: the metric, the attribute that has to be there for a point to mean loss, what is lost.
const LOSSES: &[(&str, Option<&str>, &str)] = &[
    ("otel.sdk.processor.span.processed", Some("error.type"), "spans"),
    ("otel.sdk.processor.log.processed", Some("error.type"), "log records"),
    ("otel.sdk.exporter.span.exported", Some("error.type"), "spans"),
    ("otel.sdk.exporter.log.exported", Some("error.type"), "log records"),
    ("otelcol_exporter_send_failed_spans", None, "spans"),
    ("otelcol_exporter_send_failed_log_records", None, "log records"),
    ("otelcol_exporter_enqueue_failed_spans", None, "spans"),
    ("otelcol_exporter_enqueue_failed_log_records", None, "log records"),
    ("otelcol_processor_dropped_spans", None, "spans"),
    ("otelcol_processor_dropped_log_records", None, "log records"),
    ("otelcol_receiver_refused_spans", None, "spans"),
    ("otelcol_receiver_refused_log_records", None, "log records"),
];

/// What a metric holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counted {
    /// Its data points.
    pub points: u64,
    /// What it says was lost.
    pub gaps: Vec<Event>,
}

/// Counts the data points of a metric, and reads those that count what was lost.
///
/// # Errors
/// `invalid` if a gap's event cannot be built, which is a defect.
pub fn count(item: &Item<'_>, rules: &Rules) -> Result<Counted> {
    let mut counted = Counted::default();
    let (name, points) = match item.encoding() {
        Encoding::Protobuf => read(item.raw()),
        Encoding::Json => read_json(std::str::from_utf8(item.raw()).unwrap_or_default()),
    };
    counted.points = points.count;
    let Some((name, mark, unit)) = LOSSES.iter().find(|(loss, _, _)| *loss == name) else {
        return Ok(counted);
    };
    for point in points.sums {
        let marked = mark.is_none_or(|mark| point.attributes.iter().any(|(name, _)| name == mark));
        if !marked || point.value == 0 {
            continue;
        }
        let attributes: Vec<String> =
            point.attributes.iter().map(|(name, value)| format!("{name}={}", value.to_json())).collect();
        let gap = Gap {
            reason: Reason::SenderDropped,
            producer: source("otlp", resource_text(&item.resource().attributes, "service.name")),
            count: Some(point.value),
            unit,
            // The start of the count tells one life of the sender from the next; a count that has not grown is no news.
            detail: format!(
                "the sender's counter {name}{{{}}} since {} is {}",
                attributes.join(","),
                point.start,
                point.value
            ),
            ..Gap::default()
        };
        counted.gaps.push(gap.event(rules)?);
    }
    Ok(counted)
}

#[derive(Default)]
struct Points {
    count: u64,
    sums: Vec<Point>,
}

#[derive(Default)]
struct Point {
    attributes: Attributes,
    start: u64,
    value: u64,
}

/// No more points of a counter of losses are looked at.
const POINTS_MAX: usize = 64;

/// Metric: name=1, gauge=5, sum=7, histogram=9, exponential histogram=10, summary=11, each with data_points=1.
fn read(metric: &[u8]) -> (String, Points) {
    let (mut name, mut points) = (String::new(), Points::default());
    for field in Fields::new(metric).flatten() {
        match (field.number, field.value) {
            (1, Wire::Bytes(text)) => name = String::from_utf8_lossy(text).into_owned(),
            (kind @ (5 | 7 | 9 | 10 | 11), Wire::Bytes(data)) => {
                for point in Fields::new(data).flatten().filter(|field| field.number == 1) {
                    points.count += 1;
                    let Some(message) = point.value.bytes() else { continue };
                    if kind == 7 && points.sums.len() < POINTS_MAX {
                        points.sums.push(read_point(message));
                    }
                }
            }
            _ => {}
        }
    }
    (name, points)
}

/// NumberDataPoint: start=2, as_double=4, as_int=6, attributes=7.
fn read_point(message: &[u8]) -> Point {
    let mut point = Point::default();
    for field in Fields::new(message).flatten() {
        match (field.number, field.value) {
            (2, value) => point.start = value.number().unwrap_or(0),
            (4, Wire::Fixed64(bits)) => {
                point.value = Value::Double(f64::from_bits(bits)).count().unwrap_or(0)
            }
            (6, Wire::Fixed64(n)) => point.value = u64::try_from(n as i64).unwrap_or(0),
            (7, Wire::Bytes(pair)) => point.attributes.push(value::pair(pair)),
            _ => {}
        }
    }
    point
}

fn read_json(metric: &str) -> (String, Points) {
    let mut points = Points::default();
    for kind in ["gauge", "sum", "histogram", "exponentialHistogram", "summary"] {
        let list =
            json::member(metric, kind).and_then(|data| json::member(data, "dataPoints")).unwrap_or("[]");
        for point in json::elements(list) {
            points.count += 1;
            if kind == "sum" && points.sums.len() < POINTS_MAX {
                points.sums.push(Point {
                    attributes: json::member(point, "attributes").map(value::pairs_json).unwrap_or_default(),
                    start: json::member(point, "startTimeUnixNano").and_then(value::number).unwrap_or(0),
                    value: json::member(point, "asInt").and_then(value::number).unwrap_or(0),
                });
            }
        }
    }
    (json::member(metric, "name").and_then(json::unquoted).unwrap_or_default(), points)
}
