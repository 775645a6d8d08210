//! What is measured, with which data, and what a measurement yields.

use std::time::Duration;

use bytes::Bytes;

/// How events are appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Workload {
    /// So many at once, each one event after the other, each waiting for its answer.
    Appenders(usize),
    /// One, so many events at a time, waiting for the answer.
    Batches(usize),
}

impl Workload {
    /// Those of the table.
    pub(super) const ALL: [Self; 5] = [
        Self::Appenders(1),
        Self::Appenders(16),
        Self::Appenders(64),
        Self::Batches(100),
        Self::Batches(1_000),
    ];

    pub(super) fn name(self) -> String {
        match self {
            Self::Appenders(1) => "1 appender".to_owned(),
            Self::Appenders(n) => format!("{n} appenders"),
            Self::Batches(n) => format!("batches of {n}"),
        }
    }

    pub(super) fn appenders(self) -> usize {
        match self {
            Self::Appenders(n) => n,
            Self::Batches(_) => 1,
        }
    }

    pub(super) fn batch(self) -> usize {
        match self {
            Self::Appenders(_) => 1,
            Self::Batches(n) => n,
        }
    }
}

/// One measurement.
pub(super) struct Samples {
    /// How long each append took.
    pub(super) latencies: Vec<Duration>,
    /// Events a second.
    pub(super) rate: f64,
}

impl Samples {
    pub(super) fn new(latencies: Vec<Duration>, batch: usize, took: Duration) -> Self {
        let events = (latencies.len() * batch) as f64;
        Self { rate: events / took.as_secs_f64().max(f64::MIN_POSITIVE), latencies }
    }
}

const WORDS: [&str; 48] = [
    "the", "customer", "asks", "whether", "a", "refund", "for", "order", "is", "possible", "because", "it",
    "arrived", "late", "and", "policy", "says", "that", "within", "thirty", "days", "every", "return", "can",
    "be", "accepted", "if", "the", "item", "was", "not", "used", "so", "agent", "checks", "status", "before",
    "it", "answers", "with", "tool", "result", "of", "lookup", "then", "decides", "to", "escalate",
];

/// Chat turns as JSON, each of exactly `bytes` bytes, about 16 MiB of them and no two alike.
pub(super) fn chats(bytes: usize) -> Vec<Bytes> {
    let count = ((16 << 20) / bytes).clamp(64, 16_384);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    (0..count).map(|n| chat(n, bytes, &mut random)).collect()
}

fn chat(n: usize, bytes: usize, random: &mut Random) -> Bytes {
    let mut text = format!("{{\"n\":{n},\"role\":\"assistant\",\"content\":\"");
    let end = "\"}";
    while text.len() + end.len() < bytes {
        text.push_str(WORDS[random.below(WORDS.len())]);
        text.push(if random.below(12) == 0 { '.' } else { ' ' });
    }
    text.truncate(bytes - end.len());
    text.push_str(end);
    text.into()
}

/// The same text in every run (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chat_is_json_of_exactly_the_size_asked_for() {
        for bytes in [64, 256, 1024, 8192] {
            let chats = chats(bytes);
            assert!(chats.iter().all(|chat| chat.len() == bytes), "{bytes}");
            for chat in &chats[..64] {
                serde_json::from_slice::<serde_json::Value>(chat).unwrap();
            }
            assert_ne!(chats[0], chats[1]);
        }
    }
}
