//! Counters for `/metrics`, in the Prometheus text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// What the server has done since it started.
#[derive(Default)]
pub(crate) struct Metrics {
    /// By route, method and status.
    requests: Mutex<BTreeMap<(String, String, u16), u64>>,
    pub(crate) events_appended: AtomicU64,
    pub(crate) body_bytes_received: AtomicU64,
    pub(crate) event_bytes_sent: AtomicU64,
    pub(crate) streams_aborted: AtomicU64,
    pub(crate) connections: AtomicI64,
    pub(crate) requests_open: AtomicI64,
}

impl Metrics {
    pub(crate) fn answered(&self, route: &str, method: &str, status: u16) {
        let mut requests = self.requests.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *requests.entry((route.to_owned(), method.to_owned(), status)).or_default() += 1;
    }

    /// Everything as text; `logs` are names and sizes, `streams` the reads and followers that are under way.
    pub(crate) fn render(&self, logs: &[(String, u64)], streams: usize) -> String {
        let mut out = String::new();
        let mut family = |name: &str, kind: &str, help: &str, rows: &[(String, String)]| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in rows {
                let _ = writeln!(out, "{name}{labels} {value}");
            }
        };
        let one = |value: String| [(String::new(), value)];
        let counter = |value: &AtomicU64| one(value.load(Ordering::Relaxed).to_string());
        let gauge = |value: &AtomicI64| one(value.load(Ordering::Relaxed).to_string());
        let requests: Vec<(String, String)> = {
            let requests = self.requests.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let row = |((route, method, status), n): (&(String, String, u16), &u64)| {
                (format!("{{route=\"{route}\",method=\"{method}\",status=\"{status}\"}}"), n.to_string())
            };
            requests.iter().map(row).collect()
        };
        family("precedent_requests_total", "counter", "Requests answered, by route and status.", &requests);
        family(
            "precedent_requests_open",
            "gauge",
            "Requests whose answer has not begun.",
            &gauge(&self.requests_open),
        );
        family(
            "precedent_streams_open",
            "gauge",
            "Reads, followers and long polls under way.",
            &one(streams.to_string()),
        );
        family(
            "precedent_streams_aborted_total",
            "counter",
            "Reads that were broken off because they could not be completed.",
            &counter(&self.streams_aborted),
        );
        family("precedent_connections_open", "gauge", "Connections.", &gauge(&self.connections));
        family(
            "precedent_events_appended_total",
            "counter",
            "Events recorded through this server.",
            &counter(&self.events_appended),
        );
        family(
            "precedent_body_bytes_received_total",
            "counter",
            "Bytes of request bodies.",
            &counter(&self.body_bytes_received),
        );
        family(
            "precedent_event_bytes_sent_total",
            "counter",
            "Bytes of events in answers.",
            &counter(&self.event_bytes_sent),
        );
        let logs: Vec<(String, String)> =
            logs.iter().map(|(name, size)| (format!("{{log=\"{name}\"}}"), size.to_string())).collect();
        family("precedent_log_events", "gauge", "Events in the log.", &logs);
        out
    }
}
