//! JSON of any bytes is an event or is refused, and an event that goes out comes back as it was.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use precedent_core::cloudevents::{Shape, parse_batch, parse_event, write_event};
use precedent_core::{LogId, Position, RecordedEvent, Time, Version};

fuzz_target!(|json: &[u8]| {
    for shape in [Shape::CloudEvents, Shape::Native] {
        let _ = parse_batch(json, shape);
        let Ok(event) = parse_event(json, shape) else { continue };
        let recorded = RecordedEvent {
            log: LogId([7; 16]),
            position: Position(3),
            version: event.stream().map(|_| Version(1)),
            recorded: Time::default(),
            event,
            erased: false,
            entry: Bytes::new(),
        };
        for out in [Shape::CloudEvents, Shape::Native] {
            let mut line = Vec::new();
            write_event(&recorded, out, &mut line);
            assert!(!line.contains(&b'\n'), "an event is one line");
            let again = parse_event(&line, out).expect("what was written is read");
            assert_eq!(again, recorded.event, "{}", String::from_utf8_lossy(&line));
        }
    }
});
