//! What is measured, by name, and what a measurement yields.
//!
//! Nothing but the standard library is used here, so that the peers in `bench/` are measured with this very file.

use std::time::Duration;

/// How events are appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appends {
    /// So many at once, each waiting for its answer before its next append.
    pub(crate) appenders: usize,
    /// Events of one append.
    pub(crate) batch: usize,
    /// Appends that one appender has under way at once.
    pub(crate) in_flight: usize,
}

impl Appends {
    const fn of(appenders: usize, batch: usize, in_flight: usize) -> Self {
        Self { appenders, batch, in_flight }
    }

    /// Those of the tables.
    pub(crate) const ALL: [Self; 7] = [
        Self::of(1, 1, 1),
        Self::of(16, 1, 1),
        Self::of(64, 1, 1),
        Self::of(1, 100, 1),
        Self::of(1, 100, 4),
        Self::of(1, 1_000, 1),
        Self::of(1, 1_000, 4),
    ];

    pub(crate) fn name(self) -> String {
        match self {
            Self { appenders: 1, batch: 1, .. } => "1 appender".to_owned(),
            Self { batch: 1, appenders, .. } => format!("{appenders} appenders"),
            Self { batch, in_flight: 1, .. } => format!("batches of {batch}"),
            Self { batch, in_flight, .. } => format!("batches of {batch}, {in_flight} in flight"),
        }
    }

    /// Appends that are under way at once.
    pub(crate) fn at_once(self) -> usize {
        self.appenders * self.in_flight
    }

    /// How many events to have at hand for about so long: more than any store records. What is appended is
    /// made before the measurement, and never used twice in one store.
    pub(crate) fn events_for(self, duration: Duration, event_bytes: usize) -> usize {
        const BYTES_MAX: usize = 256 << 20;
        let rate = match self {
            Self { batch: 1, appenders: 1, .. } => 20_000,
            Self { batch: 1, .. } => 300_000,
            Self { batch: ..=100, .. } => 600_000,
            _ => 1_500_000,
        };
        let wanted = (f64::from(rate) * duration.as_secs_f64()) as usize;
        let bounds = (BYTES_MAX / event_bytes.max(1)).max(1);
        wanted.clamp((64 * self.batch).min(bounds), bounds)
    }
}

/// How a loaded log is read, and what else is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    /// A stream of a thousand events that are scattered over the log.
    Stream,
    /// The events of the one type that a hundredth has.
    Type,
    /// Everything.
    Scan,
    /// From opening the store to its first answer, after a clean stop.
    OpenClean,
    /// The same after the process was killed while it appended.
    OpenKilled,
    /// What an event takes up in the files, the index included.
    Disk,
}

impl Reads {
    /// Those of the tables.
    pub(crate) const ALL: [Self; 6] =
        [Self::Stream, Self::Type, Self::Scan, Self::OpenClean, Self::OpenKilled, Self::Disk];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream of 1000",
            Self::Type => "type at 1 %",
            Self::Scan => "scan",
            Self::OpenClean => "open, clean",
            Self::OpenKilled => "open, killed",
            Self::Disk => "bytes an event",
        }
    }
}

/// One measurement.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Samples {
    /// How long each append, or read, took.
    pub(crate) latencies: Vec<Duration>,
    /// Events a second; 0 where that says nothing.
    pub(crate) rate: f64,
}

impl Samples {
    /// So many events in so long.
    pub(crate) fn new(latencies: Vec<Duration>, events: u64, took: Duration) -> Self {
        Self { latencies, rate: events as f64 / took.as_secs_f64().max(f64::MIN_POSITIVE) }
    }

    /// The times alone.
    pub(crate) fn times(latencies: Vec<Duration>) -> Self {
        Self { latencies, rate: 0.0 }
    }
}

/// The value that `share` of all values do not exceed, one that was measured; 0 if there are none.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).or(sorted.last()).copied().unwrap_or(0.0)
}

/// In ascending order.
pub(crate) fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// In microseconds.
pub(crate) fn micros(duration: &Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// To three places, as the rows have it.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_value_that_was_measured() {
        let values = sorted([3.0, 1.0, 2.0, 4.0].into_iter());
        assert_eq!(quantile(&values, 0.5), 2.0);
        assert_eq!(quantile(&values, 0.99), 4.0);
        assert_eq!(quantile(&values, 0.01), 1.0);
        assert_eq!(quantile(&values, 1.0), 4.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }

    #[test]
    fn a_rate_counts_events_and_not_appends() {
        let samples = Samples::new(vec![Duration::from_millis(5); 4], 400, Duration::from_millis(20));
        assert_eq!(samples.rate, 20_000.0);
        assert_eq!(Samples::new(Vec::new(), 0, Duration::ZERO).rate, 0.0);
    }

    #[test]
    fn every_name_is_its_own_and_no_measurement_asks_for_more_memory_than_there_is() {
        let mut names: Vec<String> = Appends::ALL.iter().map(|w| w.name()).collect();
        names.extend(Reads::ALL.iter().map(|w| w.name().to_owned()));
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        for workload in Appends::ALL {
            for bytes in [64, 1_024, 1 << 20] {
                let events = workload.events_for(Duration::from_secs(86_400), bytes);
                assert!(events * bytes <= 256 << 20 && events > 0, "{} {bytes}", workload.name());
                assert!(workload.events_for(Duration::from_millis(1), 256) >= 64, "{}", workload.name());
            }
        }
    }
}
