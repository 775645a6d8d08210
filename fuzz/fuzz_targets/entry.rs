//! An entry of any bytes decodes or is refused, and one in its canonical encoding has no other.

#![no_main]

use libfuzzer_sys::fuzz_target;
use precedent_core::ErrorKind;
use precedent_core::entry::{EncodedEnvelope, Entry, LogFields};

fuzz_target!(|bytes: &[u8]| {
    let entry = match Entry::decode(bytes) {
        Ok(entry) => entry,
        Err(error) => {
            let kind = error.kind();
            assert!(
                // `invalid` comes from a time that no calendar has.
                matches!(kind, ErrorKind::Damaged | ErrorKind::UnsupportedFormat | ErrorKind::Invalid),
                "{error:?}"
            );
            return;
        }
    };
    let fields = LogFields {
        log: entry.log,
        position: entry.position,
        recorded: entry.recorded,
        version: entry.version.map(|version| (version, entry.previous)),
    };
    let envelope = EncodedEnvelope::new(&entry.event, &entry.parts);
    let mut canonical = Vec::new();
    envelope.write(&fields, &mut canonical);
    assert!(canonical.len() <= envelope.entry_bytes_max(), "the bound of an entry does not hold");
    assert_eq!(entry.is_canonical(bytes), canonical == bytes);
    if canonical.len() <= precedent_core::entry::ENTRY_BYTES_MAX {
        let again = Entry::decode(&canonical).expect("what was encoded decodes");
        assert_eq!(again, entry, "an entry does not come back as it was");
    }
});
