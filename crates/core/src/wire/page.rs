//! Pages of events, and frames, in binary form.

use bytes::{Buf, Bytes};

use super::{DATA_ERASED, DATA_NONE, DATA_PRESENT};
use crate::entry::{Content, DATA_PART, Entry, Outline};
use crate::error::{Error, Result};
use crate::frame::{FRAME_BYTES_MAX, Frame};
use crate::ids::Position;
use crate::store::{Damage, Page, RecordedEvent};

const MAGIC: &[u8; 4] = b"PRE1";
const RECORD_END: u8 = 0;
const RECORD_EVENT: u8 = 1;
const RECORD_DAMAGE: u8 = 2;

/// Begins a binary page.
pub fn begin_events(out: &mut Vec<u8>) {
    out.extend_from_slice(MAGIC);
}

/// Adds an event to a binary page.
pub fn write_event(event: &RecordedEvent, out: &mut Vec<u8>) {
    let data = event.event.data();
    let state = match data {
        Some(_) => DATA_PRESENT,
        None if event.erased => DATA_ERASED,
        None => DATA_NONE,
    };
    let data = data.map_or(&[][..], |data| data);
    out.push(RECORD_EVENT);
    out.extend_from_slice(&(event.entry.len() as u16).to_le_bytes());
    out.extend_from_slice(&event.entry);
    out.push(state);
    out.extend_from_slice(&(data.len() as u32).to_le_bytes());
    out.extend_from_slice(data);
}

/// Adds an event that could not be read to a binary page.
pub fn write_damage(damage: &Damage, out: &mut Vec<u8>) {
    let message = damage.error.message();
    out.push(RECORD_DAMAGE);
    out.extend_from_slice(&damage.position.0.to_le_bytes());
    out.extend_from_slice(&(message.len() as u32).to_le_bytes());
    out.extend_from_slice(message.as_bytes());
}

/// Ends a binary page.
pub fn end_events(next: Option<Position>, size: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&[RECORD_END, u8::from(next.is_some())]);
    out.extend_from_slice(&next.map_or(0, |p| p.0).to_le_bytes());
    out.extend_from_slice(&size.to_le_bytes());
}

/// Reads a binary page. What is cut off or does not agree with itself is [`damaged`](crate::ErrorKind::Damaged).
pub fn parse_page(mut body: Bytes) -> Result<Page> {
    let cut = || Error::damaged("a page of events that ends too early");
    let mut take = |len: usize| (body.len() >= len).then(|| body.split_to(len)).ok_or_else(cut);
    if take(4)?[..] != MAGIC[..] {
        return Err(Error::damaged("no page of events begins here"));
    }
    let (mut events, mut damaged) = (Vec::new(), Vec::new());
    loop {
        match take(1)?.get_u8() {
            RECORD_EVENT => {
                let entry_len = take(2)?.get_u16_le();
                let entry = take(entry_len.into())?;
                let state = take(1)?.get_u8();
                let data_len = take(4)?.get_u32_le();
                let data = take(data_len as usize)?;
                events.push(event_of(entry, state, data)?);
            }
            RECORD_DAMAGE => {
                let position = Position(take(8)?.get_u64_le());
                let len = take(4)?.get_u32_le();
                let message = take(len as usize)?;
                damaged.push(Damage { position, error: Error::damaged(String::from_utf8_lossy(&message)) });
            }
            RECORD_END => {
                let more = take(1)?.get_u8() != 0;
                let (next, size) = (take(8)?.get_u64_le(), take(8)?.get_u64_le());
                if !body.is_empty() {
                    let message = format!("{} bytes behind the end of a page of events", body.len());
                    return Err(Error::damaged(message));
                }
                return Ok(Page { events, damaged, next: more.then_some(Position(next)), size });
            }
            other => return Err(Error::damaged(format!("a page of events with a record of kind {other}"))),
        }
    }
}

fn event_of(bytes: Bytes, state: u8, data: Bytes) -> Result<RecordedEvent> {
    let outline = Outline::of(&bytes)?;
    let position = outline.position();
    let promised = match outline.content() {
        Content::None => None,
        Content::Data(length) => Some(length),
        Content::Other => {
            let parts = Entry::decode_shared(&bytes)?.parts;
            parts.iter().find(|part| part.name == DATA_PART).map(|part| part.length)
        }
    };
    let data = match (state, promised) {
        (DATA_PRESENT, Some(length)) if length == data.len() as u64 => Some(data),
        (DATA_ERASED, Some(_)) | (DATA_NONE, None) if data.is_empty() => None,
        _ => {
            return Err(Error::damaged(format!(
                "the data sent for position {position} is not what its entry names"
            )));
        }
    };
    let mut recorded = outline.recorded(bytes, data);
    recorded.erased = state == DATA_ERASED;
    Ok(recorded)
}

/// Adds a frame to a body of frames.
pub fn write_frame(frame: &Frame, out: &mut Vec<u8>) {
    out.extend_from_slice(&(frame.bytes().len() as u32).to_le_bytes());
    out.extend_from_slice(frame.bytes());
}

/// Reads a body of frames.
pub fn parse_frames(mut body: Bytes) -> Result<Vec<Frame>> {
    let mut frames = Vec::new();
    while !body.is_empty() {
        let number = frames.len();
        let short = |needs: usize, left: usize| {
            Error::invalid(format!("frame {number} of the body needs {needs} bytes, {left} are left"))
        };
        if body.len() < 4 {
            return Err(short(4, body.len()));
        }
        let len = body.get_u32_le() as usize;
        if len > FRAME_BYTES_MAX {
            let what = format!("frame {number} of the body");
            return Err(Error::limit(what, len as u64, FRAME_BYTES_MAX as u64, "bytes"));
        }
        if body.len() < len {
            return Err(short(len, body.len()));
        }
        let frame = Frame::decode(body.split_to(len));
        frames.push(frame.map_err(|e| e.context(format!("frame {number} of the body")))?);
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::event::Event;
    use crate::ids::LogName;
    use crate::memory::MemoryStore;
    use crate::store::{Append, Read, Store};
    use futures_util::FutureExt;
    use proptest::prelude::*;

    fn page_of(events: Vec<Event>) -> Page {
        let (store, log) = (MemoryStore::new(), LogName::default());
        store.append(&log, Append::new(events)).now_or_never().unwrap().unwrap();
        store.read(&log, &Read::default()).now_or_never().unwrap().unwrap()
    }

    fn encoded(page: &Page) -> Vec<u8> {
        let mut out = Vec::new();
        begin_events(&mut out);
        page.events.iter().for_each(|e| write_event(e, &mut out));
        page.damaged.iter().for_each(|d| write_damage(d, &mut out));
        end_events(page.next, page.size, &mut out);
        out
    }

    fn sample() -> Page {
        let event = |id: &str| Event::builder("s", id, "t").stream("x").tag("k", "v");
        let mut page = page_of(vec![
            event("1").data("[1]").build().unwrap(),
            event("2").data("").build().unwrap(),
            event("3").attribute("stream", "mine").attribute("n", 7).build().unwrap(),
        ]);
        page.damaged.push(Damage { position: Position(9), error: Error::damaged("frame 3 is damaged") });
        page.next = Some(Position(2));
        page
    }

    #[test]
    fn a_page_of_events_comes_back_byte_for_byte() {
        let page = sample();
        let again = parse_page(encoded(&page).into()).unwrap();
        assert_eq!(again.events, page.events);
        assert_eq!((again.next, again.size), (page.next, page.size));
        assert_eq!(again.damaged[0].position, Position(9));
        assert_eq!(again.damaged[0].error.message(), "frame 3 is damaged");
    }

    #[test]
    fn a_page_that_is_cut_off_anywhere_is_damaged() {
        let bytes = Bytes::from(encoded(&sample()));
        for cut in 0..bytes.len() {
            assert_eq!(
                parse_page(bytes.slice(..cut)).unwrap_err().kind(),
                ErrorKind::Damaged,
                "cut at {cut}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_page(Bytes::from(bytes.clone()));
            let _ = parse_frames(Bytes::from(bytes));
        }

        #[test]
        fn a_page_with_a_changed_byte_never_panics(at in 0usize..600, bits in 1u8..) {
            let mut bytes = encoded(&sample());
            let at = at % bytes.len();
            bytes[at] ^= bits;
            let _ = parse_page(bytes.into());
        }
    }
}
