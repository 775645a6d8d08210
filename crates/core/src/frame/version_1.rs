//! Frames as version 1 had them, for tests: nothing writes them any more, and all are still read.

use super::{END_MARK, FORMAT_APART, Frame, HEADER_BYTES, ROW_BYTES};
use crate::error::Result;

impl Frame {
    /// The same frame in version 1, with the mask it has: all entries, then all parts. Without padding.
    ///
    /// # Errors
    /// `damaged` if an event is.
    pub fn of_version_1(&self) -> Result<Vec<u8>> {
        let header = &self.header;
        let (rows_at, events_at) = (header.edge_end(), header.prelude_len());
        let mut out = self.bytes()[..events_at].to_vec();
        header.unmask(&mut out[HEADER_BYTES..], HEADER_BYTES);
        let stored = (0..self.len()).map(|index| self.event(index)).collect::<Result<Vec<_>>>()?;
        stored.iter().for_each(|event| out.extend_from_slice(&event.entry));
        let (mut entry_at, mut parts_at) = (events_at, out.len());
        stored.iter().for_each(|event| out.extend_from_slice(&event.parts));
        header.unmask(&mut out[events_at..], events_at);
        for (event, row_at) in stored.iter().zip((rows_at..).step_by(ROW_BYTES)) {
            let (entry_end, parts_end) = (entry_at + event.entry.len(), parts_at + event.parts.len());
            let crc = crc32fast::hash(&[&out[entry_at..entry_end], &out[parts_at..parts_end]].concat());
            out[row_at + 6..row_at + ROW_BYTES].copy_from_slice(&crc.to_le_bytes());
            (entry_at, parts_at) = (entry_end, parts_end);
        }
        header.unmask(&mut out[HEADER_BYTES..events_at], HEADER_BYTES);
        out.extend_from_slice(END_MARK);
        out[4..6].copy_from_slice(&FORMAT_APART.to_le_bytes());
        let crc = crc32fast::hash(&out[HEADER_BYTES..events_at]);
        out[32..36].copy_from_slice(&crc.to_le_bytes());
        out[36..40].fill(0);
        let crc = crc32fast::hash(&out[..HEADER_BYTES]);
        out[36..40].copy_from_slice(&crc.to_le_bytes());
        Ok(out)
    }
}
