//! The data that is measured with: JSON chat events of invented text, each of exactly the size asked for.
//!
//! A store that keeps repeated content once, or compresses, must not be flattered: no two events are alike, no
//! sentence comes twice, and there is as much in a byte as in real text. The words are made of syllables, short
//! ones are frequent as in a language (Zipf), and ids, numbers, times and marks stand between them. `zstd -1`
//! over blocks of 64 KiB makes 2.7 times less of events of 1 KiB, as it does of real chats about code.
//!
//! The same number and size give the same bytes on every machine. Nothing but the standard library is used
//! here, so that the peers in `bench/` are measured with this very file.

use std::sync::OnceLock;

/// Events of a stream that stand next to each other in a loaded log.
const RUN: u64 = 10;
/// Events of each stream in a loaded log.
pub(crate) const STREAM_EVENTS: u64 = 1_000;
/// The type that about one event in a hundred of a loaded log has.
pub(crate) const RARE_TYPE: &str = "ai.decision.made";
const TYPES: [&str; 4] =
    ["ai.model.requested", "ai.model.called", "ai.tool.called", "ai.retrieval.performed"];

/// The stream of the event with this number in a log with so many events: streams of [`STREAM_EVENTS`], scattered
/// over the whole log in runs of [`RUN`].
pub(crate) fn stream(number: u64, events: u64) -> String {
    stream_name(number / RUN % streams(events))
}

/// The stream with this number.
pub(crate) fn stream_name(number: u64) -> String {
    format!("session/{number}")
}

/// How many streams a log with so many events has.
pub(crate) fn streams(events: u64) -> u64 {
    (events / STREAM_EVENTS).max(1)
}

/// The type of the event with this number: [`RARE_TYPE`] in one of a hundred, without a pattern.
pub(crate) fn event_type(number: u64) -> &'static str {
    match mixed(number) % 100 {
        0 => RARE_TYPE,
        other => TYPES[other as usize % TYPES.len()],
    }
}

/// How many of the first `events` events have [`RARE_TYPE`].
pub(crate) fn rare(events: u64) -> u64 {
    (0..events).filter(|&number| event_type(number) == RARE_TYPE).count() as u64
}

/// The data of the event with this number: JSON of exactly `bytes` bytes, which are at least 64.
pub(crate) fn chat(number: u64, bytes: usize) -> Vec<u8> {
    let words = Words::get();
    let mut random = Random(mixed(number ^ (bytes as u64) << 40) | 1);
    let mut text = String::with_capacity(bytes + 64);
    match bytes {
        ..200 => text.push_str(&format!("{{\"n\":{number},\"content\":\"")),
        _ => text.push_str(&format!(
            "{{\"id\":\"msg_{:016x}\",\"session\":\"{:08x}\",\"role\":\"{}\",\"model\":\"atlas-{}\",\
             \"usage\":{{\"input\":{},\"output\":{}}},\"content\":\"",
            random.next(),
            random.next() as u32,
            ["assistant", "user", "tool"][random.below(3)],
            random.below(4),
            random.below(16_000),
            random.below(2_000),
        )),
    }
    let end = bytes.saturating_sub(2);
    let topic = random.next();
    while text.len() < end {
        sentence(words, topic, &mut random, &mut text);
    }
    text.truncate(end);
    // Half an escape would end the string's end instead of the string.
    if text.ends_with('\\') {
        text.pop();
        text.push('.');
    }
    text.push_str("\"}");
    text.into_bytes()
}

fn sentence(words: &Words, topic: u64, random: &mut Random, text: &mut String) {
    let length = 5 + random.below(14);
    let begin = text.len();
    let mut last = topic;
    for place in 0..length {
        if place > 0 {
            text.push(' ');
        }
        // One number is enough for everything about a word.
        let drawn = random.next();
        match drawn >> 57 {
            0 => number(drawn & 0x1fff, text),
            1 => {
                number(drawn & 0x3ff, text);
                text.push_str(".5");
                number(drawn >> 16 & 7, text);
            }
            2 => text.push_str(&format!("{:06x}", drawn & 0xff_ffff)),
            3 => {
                text.push('`');
                text.push_str(words.pick(drawn));
                text.push('_');
                text.push_str(words.pick(drawn >> 24));
                text.push('`');
            }
            _ => {
                last = match drawn >> 44 & 15 {
                    // What a text is about comes again and again in it.
                    0..TOPICAL => topic.rotate_right((drawn >> 32) as u32 & TOPIC_MASK),
                    // A word is often followed by one of a few.
                    TOPICAL..HABITUAL => mixed(last % Words::DRAWN as u64 + (drawn >> 32 & 1)),
                    _ => drawn,
                };
                text.push_str(words.pick(last));
            }
        }
        if place + 1 < length && (drawn >> 50) & 0xff < 22 {
            text.push(',');
        }
    }
    if let Some(first) = text.get_mut(begin..begin + 1) {
        first.make_ascii_uppercase();
    }
    text.push_str(match random.below(16) {
        0 => "? ",
        1 => ".\\n\\n",
        2 => ":\\n- ",
        3 => ".\\n- ",
        _ => ". ",
    });
}

fn number(mut value: u64, text: &mut String) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    digits[at..].iter().for_each(|&digit| text.push(char::from(digit)));
}

/// The invented language: its words, and how often each is used.
struct Words {
    words: Vec<String>,
    /// Indexes of words, the frequent ones often.
    drawn: Vec<u16>,
}

impl Words {
    const COUNT: usize = 6_000;
    const DRAWN: usize = 1 << 15;

    fn get() -> &'static Self {
        static WORDS: OnceLock<Words> = OnceLock::new();
        WORDS.get_or_init(Self::invent)
    }

    fn invent() -> Self {
        const FIRST: [&str; 24] = [
            "b", "c", "d", "f", "g", "h", "l", "m", "n", "p", "r", "s", "t", "v", "w", "st", "tr", "pr",
            "ch", "th", "", "", "", "",
        ];
        const VOWEL: [&str; 10] = ["a", "e", "i", "o", "u", "e", "a", "ea", "io", "ou"];
        const LAST: [&str; 14] = ["n", "r", "s", "t", "l", "d", "m", "", "", "", "", "nt", "ng", "ck"];
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut words: Vec<String> = Vec::with_capacity(Self::COUNT);
        let mut seen = std::collections::HashSet::new();
        while words.len() < Self::COUNT {
            // The word used most has one syllable, the rare ones have up to four.
            let syllables = match words.len() {
                ..60 => 1,
                60..600 => 1 + random.below(2),
                _ => 2 + random.below(3),
            };
            let mut word = String::new();
            for _ in 0..syllables {
                word.push_str(FIRST[random.below(FIRST.len())]);
                word.push_str(VOWEL[random.below(VOWEL.len())]);
                word.push_str(LAST[random.below(LAST.len())]);
            }
            if seen.insert(word.clone()) {
                words.push(word);
            }
        }
        let weight = |rank: usize| 1.0 / (rank as f64 + 2.7).powf(EXPONENT);
        let total: f64 = (0..Self::COUNT).map(weight).sum();
        let mut drawn = Vec::with_capacity(Self::DRAWN);
        let mut sum = 0.0;
        for rank in 0..Self::COUNT {
            sum += weight(rank);
            let until = (sum / total * Self::DRAWN as f64) as usize;
            drawn.resize(until.clamp(drawn.len(), Self::DRAWN), rank as u16);
        }
        drawn.resize(Self::DRAWN, 0);
        Self { words, drawn }
    }

    /// The word that a drawn number stands for.
    fn pick(&self, drawn: u64) -> &str {
        &self.words[usize::from(self.drawn[drawn as usize % Self::DRAWN])]
    }
}

/// How much more often a frequent word is used than a rare one.
const EXPONENT: f64 = 1.35;
/// Of 16 words, those that belong to what the text is about, and, up to the second number, those that the word
/// before them brings.
const TOPICAL: u64 = 9;
const HABITUAL: u64 = 13;
/// Picks a word of the topic.
const TOPIC_MASK: u32 = 7;

/// The same numbers in every run (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (((self.next() >> 32) * n as u64) >> 32) as usize
    }
}

/// A number that says nothing of its neighbours (the end of splitmix64).
fn mixed(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chat_is_json_of_exactly_the_size_asked_for_and_the_same_in_every_run() {
        for bytes in [64, 65, 199, 200, 256, 300, 1024, 8192] {
            for number in (0..300).chain([u64::MAX / 2]) {
                let data = chat(number, bytes);
                assert_eq!(data.len(), bytes);
                serde_json::from_slice::<serde_json::Value>(&data)
                    .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&data)));
            }
            assert_eq!(chat(7, bytes), chat(7, bytes));
        }
    }

    #[test]
    fn no_two_chats_share_a_sentence() {
        let mut seen = std::collections::HashSet::new();
        for number in 0..2_000 {
            let text = String::from_utf8(chat(number, 1024)).unwrap();
            let content = text.split("\"content\":\"").nth(1).unwrap();
            for sentence in content.split(['.', '?', ':']).filter(|s| s.len() > 40) {
                assert!(seen.insert(sentence.to_owned()), "twice: {sentence}");
            }
        }
    }

    #[test]
    fn a_stream_of_a_loaded_log_has_a_thousand_events_scattered_over_it() {
        let events = 20_000;
        let of: Vec<u64> = (0..events).filter(|&n| stream(n, events) == stream_name(3)).collect();
        assert_eq!(of.len() as u64, STREAM_EVENTS);
        assert_eq!(streams(events), 20);
        assert!(of[0] < 200 && of[999] > events - 200);
        assert_eq!(streams(10), 1);
        let rare = rare(events);
        assert!((150..250).contains(&rare), "{rare} of {events}");
    }
}
