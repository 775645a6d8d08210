//! Why a peer is ahead, where it is: the last column of the table that says so.

/// Entry and data of an event lie apart in its frame.
const TWO_PLACES: &str =
    "entry and data of an event lie apart in a frame: two calls each, where a row or a record is one";
/// What the server reads from after a restart.
const UNPACKED: &str = "the server reads packs: 16 KiB are unpacked for each place; the peer keeps what was written, uncompressed";
const ONE_BY_ONE: &str =
    "a scan of packs unpacks everything, and a page is asked for when the one before was taken";
const CHECKED: &str = "every event is summed, its entry taken apart and copied out of the page cache once";

/// Workload, peer, and why. A peer that is ahead without a row here is shown all the same.
const REASONS: &[(&str, &str, &str)] = &[
    ("stream of 1000", "sqlite", TWO_PLACES),
    ("stream of 1000", "tephra", TWO_PLACES),
    ("stream of 1000", "redis", UNPACKED),
    ("stream of 1000", "tephra-server", UNPACKED),
    ("stream of 1000", "umadb-server", UNPACKED),
    ("type at 1 %", "sqlite", TWO_PLACES),
    ("type at 1 %", "fjall", TWO_PLACES),
    ("type at 1 %", "tephra-server", UNPACKED),
    ("scan", "sqlite", CHECKED),
    ("scan", "tephra", CHECKED),
    ("scan", "redis", ONE_BY_ONE),
    ("scan", "tephra-server", ONE_BY_ONE),
    ("scan", "umadb-server", ONE_BY_ONE),
];

/// What there is to say about it.
pub(super) fn reason(workload: &str, peer: &str) -> &'static str {
    let found = REASONS.iter().find(|(of, by, _)| (*of, *by) == (workload, peer));
    found.map_or("not looked into yet", |(_, _, why)| why)
}
