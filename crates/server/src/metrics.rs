//! Counters for `/metrics`, in the Prometheus text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use precedent_core::{Appended, Status};

use crate::app::App;

/// How many requests were answered, by method and status.
type Answers = BTreeMap<(&'static str, u16), u64>;

/// What the server has done since it started.
#[derive(Default)]
pub(crate) struct Metrics {
    /// By route.
    requests: Mutex<BTreeMap<String, Answers>>,
    pub(crate) events_appended: AtomicU64,
    pub(crate) socket_appends: AtomicU64,
    pub(crate) body_bytes_received: AtomicU64,
    pub(crate) event_bytes_sent: AtomicU64,
    pub(crate) streams_aborted: AtomicU64,
    pub(crate) connections: AtomicI64,
    pub(crate) requests_open: AtomicI64,
}

/// A method as the counters name it: what a stranger writes there must not make them grow.
pub(crate) fn counted(method: &str) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH"];
    KNOWN.into_iter().find(|known| *known == method).unwrap_or("other")
}

/// Requests, or appends over a WebSocket, that are under way until this is dropped.
pub(crate) struct Open(Arc<App>, i64);

impl Open {
    pub(crate) fn new(app: &Arc<App>, count: usize) -> Self {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        app.metrics.requests_open.fetch_add(count, Ordering::Relaxed);
        Self(app.clone(), count)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics.requests_open.fetch_sub(self.1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counts what an append recorded.
    pub(crate) fn appended(&self, appended: &Appended) {
        let recorded = appended.events.iter().filter(|event| event.status == Status::Recorded).count();
        self.events_appended.fetch_add(recorded as u64, Ordering::Relaxed);
    }

    pub(crate) fn answered(&self, route: &str, method: &'static str, status: u16) {
        let mut requests = self.requests.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let of_route = match requests.get_mut(route) {
            Some(known) => known,
            None => requests.entry(route.to_owned()).or_default(),
        };
        *of_route.entry((method, status)).or_default() += 1;
    }

    /// Everything as text; `logs` are names and sizes, `streams` the reads and followers that are under way, `sockets` the
    /// WebSockets that are open.
    pub(crate) fn render(&self, logs: &[(String, u64)], streams: usize, sockets: usize) -> String {
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
            let rows = requests.iter().flat_map(|(route, counts)| {
                counts.iter().map(move |((method, status), n)| {
                    let labels = format!("{{route=\"{route}\",method=\"{method}\",status=\"{status}\"}}");
                    (labels, n.to_string())
                })
            });
            rows.collect()
        };
        family("precedent_requests_total", "counter", "Requests answered, by route and status.", &requests);
        family(
            "precedent_requests_open",
            "gauge",
            "Requests, and appends over WebSockets, whose answer has not begun.",
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
        family("precedent_sockets_open", "gauge", "WebSockets.", &one(sockets.to_string()));
        family(
            "precedent_connections_open",
            "gauge",
            "Connections, without WebSockets.",
            &gauge(&self.connections),
        );
        family(
            "precedent_events_appended_total",
            "counter",
            "Events recorded through this server.",
            &counter(&self.events_appended),
        );
        family(
            "precedent_socket_appends_total",
            "counter",
            "Appends that came over WebSockets.",
            &counter(&self.socket_appends),
        );
        family(
            "precedent_body_bytes_received_total",
            "counter",
            "Bytes of request bodies, and of messages.",
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
