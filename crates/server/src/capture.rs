//! What the ways of capture share: the rules of redaction, the one append, the gaps, the counters.
//!
//! Everything that is captured is recorded by [`record`], and everything that could not be becomes a gap by
//! [`Capture::missed`]. An event of capture has the hash of its data in its id, so sending anything again is safe.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use precedent_capture::gap::Reason;
use precedent_capture::otlp::Signal;
use precedent_capture::{Gap, Rules};
use precedent_core::{Append, Error, ErrorKind, Event, LogName, Result, Status, Time};

use crate::app::App;
use crate::config::CaptureConfig;

/// Bytes of data in one append: requests are cut there, since their parts need not be recorded together.
pub(crate) const BATCH_BYTES: usize = 4 << 20;
/// Events in one append.
const BATCH_EVENTS: usize = 2_000;
/// Sources whose numbers are watched.
const SEQUENCES_MAX: usize = 10_000;
/// Kinds of gaps that wait to be recorded; beyond that, further producers are counted together.
const GAPS_MAX: usize = 256;

/// The state of capture.
pub(crate) struct Capture {
    pub(crate) rules: Rules,
    pub(crate) keep_all_spans: bool,
    pub(crate) counts: Counts,
    /// Gaps that are not recorded yet, by reason and producer.
    gaps: Mutex<BTreeMap<(Reason, String), Gap>>,
    /// The last number of each source that numbers its events.
    sequences: Mutex<BTreeMap<String, u64>>,
    /// Whoever holds it records all that wait.
    recording: tokio::sync::Mutex<()>,
}

/// What came of the spans, log records and data points of a signal.
#[derive(Default)]
pub(crate) struct SignalCounts {
    pub(crate) recorded: AtomicU64,
    pub(crate) existing: AtomicU64,
    pub(crate) not_kept: AtomicU64,
    pub(crate) rejected: AtomicU64,
}

/// What capture has done since the server started.
#[derive(Default)]
pub(crate) struct Counts {
    signals: [SignalCounts; 3],
    pub(crate) proxied: AtomicU64,
    pub(crate) proxied_incomplete: AtomicU64,
    pub(crate) decisions: AtomicU64,
    pub(crate) redacted: AtomicU64,
    pub(crate) gaps: AtomicU64,
    pub(crate) failures: AtomicU64,
}

impl Counts {
    pub(crate) fn signal(&self, signal: Signal) -> &SignalCounts {
        &self.signals[signal as usize]
    }
}

/// The sources and numbers of events that have them: the extension `sequence` of CloudEvents.
pub(crate) fn numbers(events: &[Event]) -> Vec<(String, u64)> {
    let number = |event: &Event| match event.attributes().get("sequence")? {
        precedent_core::AttributeValue::Integer(n) => u64::try_from(*n).ok(),
        precedent_core::AttributeValue::String(text) => text.parse().ok(),
        precedent_core::AttributeValue::Boolean(_) => None,
    };
    events.iter().filter_map(|event| Some((event.source().to_owned(), number(event)?))).collect()
}

/// What an append of captured events came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) new: u64,
    pub(crate) existing: u64,
}

impl Capture {
    pub(crate) fn new(config: &CaptureConfig) -> Self {
        Self {
            rules: config.rules.clone(),
            keep_all_spans: config.keep_all_spans,
            counts: Counts::default(),
            gaps: Mutex::default(),
            sequences: Mutex::default(),
            recording: tokio::sync::Mutex::new(()),
        }
    }

    fn add(&self, gap: Gap) {
        let mut gaps = self.gaps.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut key = (gap.reason, gap.producer.clone());
        if gaps.len() >= GAPS_MAX && !gaps.contains_key(&key) {
            key.1 = "several".to_owned();
        }
        match gaps.get_mut(&key) {
            None => {
                gaps.insert(key, gap);
            }
            // What happens over and over while a gap waits is one gap.
            Some(waiting) => {
                let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
                    (None, None) => None,
                    (a, b) => Some(a.unwrap_or(0).saturating_add(b.unwrap_or(0))),
                };
                waiting.count = sum(waiting.count, gap.count);
                waiting.bytes = sum(waiting.bytes, gap.bytes);
                if waiting.about != gap.about {
                    waiting.about = None;
                }
                if waiting.detail != gap.detail && !waiting.detail.ends_with("; and others") {
                    waiting.detail.push_str("; and others");
                }
            }
        }
    }

    fn take(&self) -> Vec<Gap> {
        let mut gaps = self.gaps.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        std::mem::take(&mut *gaps).into_values().collect()
    }

    /// How many gaps wait to be recorded.
    pub(crate) fn waiting(&self) -> usize {
        self.gaps.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).len()
    }

    /// Records that something is missing, now if that is possible. If the store cannot be written to, the gap waits
    /// for the next time that it can.
    pub(crate) async fn missed(&self, app: &Arc<App>, mut gap: Gap) {
        gap.noticed = Some(Time::from_system(std::time::SystemTime::now()).to_string());
        self.add(gap);
        self.record_gaps(app).await;
    }

    /// Looks at the numbers of events that have been recorded. A source whose next number is not the one after its last has lost
    /// something on the way, or sends out of order: the gap says what was missing when the later one came.
    pub(crate) async fn numbered(&self, app: &Arc<App>, numbers: Vec<(String, u64)>) {
        let mut missing = Vec::new();
        {
            let mut sequences = self.sequences.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            for (source, number) in numbers {
                let has_room = sequences.len() < SEQUENCES_MAX;
                match sequences.get_mut(&source) {
                    Some(last) => {
                        if number > last.saturating_add(1) {
                            missing.push((source.clone(), *last + 1, number - 1));
                        }
                        *last = number.max(*last);
                    }
                    None if has_room => {
                        sequences.insert(source, number);
                    }
                    None => {}
                }
            }
        }
        for (producer, from, to) in missing {
            let gap = Gap {
                reason: Reason::SequenceGap,
                count: Some(to - from + 1),
                unit: "events",
                from_to: Some((from, to)),
                detail: format!("the source numbers its events, and {from} to {to} have not come"),
                producer,
                ..Gap::default()
            };
            // It says the same whenever it is noticed, so it is one event.
            let recorded = match gap.event(&self.rules) {
                Ok(event) => append(app, vec![event]).await,
                Err(error) => Err(error),
            };
            match recorded {
                Ok(recorded) => drop(self.counts.gaps.fetch_add(recorded.new, Ordering::Relaxed)),
                Err(_) => self.add(gap),
            }
        }
    }

    /// Tries to record the gaps that wait.
    pub(crate) async fn record_gaps(&self, app: &Arc<App>) {
        if self.waiting() == 0 {
            return;
        }
        let _alone = self.recording.lock().await;
        let gaps = self.take();
        if gaps.is_empty() {
            return;
        }
        let events: Result<Vec<Event>> = gaps.iter().map(|gap| gap.event(&self.rules)).collect();
        let appended = match events {
            Ok(events) => append(app, events).await,
            Err(error) => Err(error),
        };
        match appended {
            Ok(_) => {
                self.counts.gaps.fetch_add(gaps.len() as u64, Ordering::Relaxed);
            }
            Err(_) => gaps.into_iter().for_each(|gap| self.add(gap)),
        }
    }

    /// The counters in the Prometheus text format.
    pub(crate) fn render(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "# HELP precedent_otlp_items_total Spans, log records and data points that came, by what became of them.\n\
             # TYPE precedent_otlp_items_total counter"
        );
        for signal in Signal::ALL {
            let counts = self.counts.signal(signal);
            for (outcome, count) in [
                ("recorded", &counts.recorded),
                ("existing", &counts.existing),
                ("not_kept", &counts.not_kept),
                ("rejected", &counts.rejected),
            ] {
                let count = count.load(Ordering::Relaxed);
                let _ = writeln!(
                    out,
                    "precedent_otlp_items_total{{signal=\"{signal}\",outcome=\"{outcome}\"}} {count}"
                );
            }
        }
        let counts = &self.counts;
        for (name, help, count) in [
            ("precedent_proxy_calls_total", "Calls that went through the proxy.", &counts.proxied),
            (
                "precedent_proxy_incomplete_total",
                "Calls through the proxy whose answer did not come through whole.",
                &counts.proxied_incomplete,
            ),
            (
                "precedent_policy_decisions_total",
                "Decisions of the Open Policy Agent recorded.",
                &counts.decisions,
            ),
            ("precedent_redactions_total", "Pieces of content that rules took out.", &counts.redacted),
            ("precedent_capture_gaps_total", "Gaps recorded.", &counts.gaps),
            (
                "precedent_capture_failures_total",
                "Captured events that could not be recorded.",
                &counts.failures,
            ),
        ] {
            let count = count.load(Ordering::Relaxed);
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {count}");
        }
        let _ = writeln!(
            out,
            "# HELP precedent_capture_gaps_waiting Gaps that could not be recorded yet.\n\
             # TYPE precedent_capture_gaps_waiting gauge\nprecedent_capture_gaps_waiting {}",
            self.waiting()
        );
        out
    }
}

/// Records captured events, in as many appends as their size asks for, and then the gaps that wait. It goes on in a task of its
/// own, so that a connection that is dropped leaves no append half considered.
///
/// # Errors
/// What the store says. Some of the events may be recorded; recording them again is safe.
pub(crate) async fn record(app: &Arc<App>, events: Vec<Event>) -> Result<Recorded> {
    let count = events.len() as u64;
    let redacted: u64 = events.iter().filter_map(redactions).sum();
    let (busy, state) = (app.busy(), app.clone());
    let task = tokio::spawn(async move {
        let recorded = append(&state, events).await;
        drop(busy);
        recorded
    });
    let recorded = task.await.unwrap_or_else(|e| {
        Err(Error::new(ErrorKind::Internal, format!("the append was broken off: {e}")).maybe_written())
    });
    match &recorded {
        Ok(recorded) => {
            if recorded.new > 0 {
                app.capture.counts.redacted.fetch_add(redacted, Ordering::Relaxed);
            }
            app.capture.record_gaps(app).await;
        }
        Err(_) => {
            app.capture.counts.failures.fetch_add(count, Ordering::Relaxed);
        }
    }
    recorded
}

fn redactions(event: &Event) -> Option<u64> {
    match event.attributes().get("redacted")? {
        precedent_core::AttributeValue::Integer(count) => u64::try_from(*count).ok(),
        _ => None,
    }
}

async fn append(app: &Arc<App>, events: Vec<Event>) -> Result<Recorded> {
    let mut recorded = Recorded::default();
    let mut seen = BTreeSet::new();
    let mut batch: Vec<Event> = Vec::new();
    let mut bytes = 0;
    for event in events {
        // The same record twice in one request is one event, as it is in two.
        if !seen.insert((event.source().to_owned(), event.id().to_owned())) {
            recorded.existing += 1;
            continue;
        }
        let len = event.data().map_or(0, |data| data.len());
        if !batch.is_empty() && (bytes + len > BATCH_BYTES || batch.len() >= BATCH_EVENTS) {
            append_batch(app, std::mem::take(&mut batch), &mut recorded).await?;
            bytes = 0;
        }
        bytes += len;
        batch.push(event);
    }
    append_batch(app, batch, &mut recorded).await?;
    app.metrics.events_appended.fetch_add(recorded.new, Ordering::Relaxed);
    Ok(recorded)
}

async fn append_batch(app: &Arc<App>, mut events: Vec<Event>, recorded: &mut Recorded) -> Result<()> {
    while !events.is_empty() {
        let appended = app.store.append(&LogName::default(), Append::new(events.clone())).await;
        match appended {
            Ok(appended) => {
                let new = appended.events.iter().filter(|e| e.status == Status::Recorded).count();
                recorded.new += new as u64;
                recorded.existing += (appended.events.len() - new) as u64;
                return Ok(());
            }
            // The id has the hash of the data, so what is there is this record, described by an earlier version of ours.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && !error.conflicts().is_empty() => {
                let there: BTreeSet<usize> =
                    error.conflicts().iter().map(|conflict| conflict.index).collect();
                let before = events.len();
                let mut at = 0;
                events.retain(|_| {
                    at += 1;
                    !there.contains(&(at - 1))
                });
                if events.len() == before {
                    return Err(error);
                }
                recorded.existing += (before - events.len()) as u64;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
