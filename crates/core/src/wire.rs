//! What a server and its client say to each other: the JSON shapes and the binary bodies, in and out.
//!
//! The shapes are those of the HTTP interface, described in `docs/http.md`. Both directions stand here side
//! by side, so that they cannot drift apart; nothing in this module knows HTTP itself.
//!
//! **Events, binary.** The entry goes over as its exact bytes, so that a client computes the leaf itself:
//!
//! ```text
//! "PRE1", then records, each beginning with one byte:
//!   1  an event    entry length u16 | entry | data: 0 none, 1 follows, 2 erased | length u32 | data
//!   2  damage      position u64 | length u32 | message, UTF-8
//!   0  the end     next: 0 none, 1 follows | next u64 | size u64
//! ```
//!
//! **An append, binary.** The data goes over as it is, neither escaped nor looked at:
//!
//! ```text
//! "PRA1" | length u32 | conditions, the JSON list of an append, or nothing
//!   then for every event: length u32 | attributes | data: 0 none, 1 follows: length u32 | data
//! ```
//!
//! The attributes are a JSON object in the native shape without data, or, which is read several times as quickly, a map in
//! deterministic CBOR: fields 4 to 6 as they stand in an [entry](crate::entry). The first byte tells them apart.
//!
//! **Several appends, binary.** For every append its length as u32, and its binary form.
//!
//! **Frames, binary.** For every frame its length as u32, and its bytes. Numbers are little-endian.

mod answer;
mod append;
mod page;
mod query;

use bytes::{Buf, Bytes};

use crate::limits::{Durability, Limits};

pub use answer::{error_members, examination_json, head_json, parse_error, parse_examination, parse_head};
pub use append::{
    check_appends, join_appends, parse_append, parse_batch, parse_binary_append, split_appends, write_append,
};
pub use page::{begin_events, end_events, parse_frames, parse_page, write_damage, write_event, write_frame};
pub use query::{ReadRequest, parse_read, parse_time_field, write_read};

/// The media type of events in binary form.
pub const EVENTS_MEDIA_TYPE: &str = "application/vnd.precedent.events";
/// The media type of an append in binary form.
pub const APPEND_MEDIA_TYPE: &str = "application/vnd.precedent.append";
/// The media type of several appends in binary form.
pub const APPENDS_MEDIA_TYPE: &str = "application/vnd.precedent.appends";
/// The media type of frames.
pub const FRAMES_MEDIA_TYPE: &str = "application/vnd.precedent.frames";

/// The most appends that go over together.
pub const APPENDS_MAX: usize = 1024;
/// The most bytes that an append has as a message of a WebSocket. It is in memory before anything can be said of it.
pub const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Bytes before each of them.
pub const APPEND_LENGTH_BYTES: usize = 4;

/// Of an event's data in binary form: whether it is there.
const DATA_NONE: u8 = 0;
const DATA_PRESENT: u8 = 1;
const DATA_ERASED: u8 = 2;

fn limits() -> Limits {
    Limits::new(Durability::None)
}

fn take(body: &mut Bytes, len: usize) -> Option<Bytes> {
    (body.len() >= len).then(|| body.split_to(len))
}

/// What stands behind its length.
fn take_sized(body: &mut Bytes) -> Option<Bytes> {
    let len = take(body, 4)?.get_u32_le();
    take(body, len as usize)
}
