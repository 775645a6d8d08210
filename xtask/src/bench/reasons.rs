//! Why a peer is ahead, where it is: the last column of the table that says so.

/// What a scattered event costs.
const A_CALL_EACH: &str =
    "a call for each place, most of it the kernel's, and an event's entry is taken apart";
/// What the server reads from after a restart.
const UNPACKED: &str = "the server reads packs: 16 KiB are unpacked for each place; the peer keeps what was written, uncompressed";
const ONE_BY_ONE: &str = "a scan of packs unpacks everything; the peer keeps what was written, uncompressed";
/// What opening reads.
const PROVED: &str = "before anything is answered the marks, the maps, the newest index run and the end of every segment are read and held against each other: some sixty small reads, and after a kill the frames behind the last index run";
const NOT_PACKED: &str = "before packing, which follows in the background: packed it takes the least of all, as the row below its own shows";
const CHECKED: &str = "every event is copied out of the page cache, nearly half of the time, then summed, and its entry taken apart";

/// Workload, peer, and why. A peer that is ahead without a row here is shown all the same.
const REASONS: &[(&str, &str, &str)] = &[
    ("stream of 1000", "sqlite", A_CALL_EACH),
    ("stream of 1000", "tephra", A_CALL_EACH),
    ("stream of 1000", "redis", UNPACKED),
    ("stream of 1000", "tephra-server", UNPACKED),
    ("stream of 1000", "umadb-server", UNPACKED),
    ("type at 1 %", "sqlite", A_CALL_EACH),
    ("type at 1 %", "fjall", A_CALL_EACH),
    ("type at 1 %", "tephra-server", UNPACKED),
    ("scan", "sqlite", CHECKED),
    ("scan", "tephra", CHECKED),
    ("scan", "redis", ONE_BY_ONE),
    ("scan", "tephra-server", ONE_BY_ONE),
    ("scan", "umadb-server", ONE_BY_ONE),
    ("open, clean", "sqlite", PROVED),
    ("open, clean", "umadb-server", PROVED),
    ("open, killed", "sqlite", PROVED),
    ("open, killed", "umadb-server", PROVED),
    ("bytes an event", "fjall", NOT_PACKED),
    ("bytes an event", "tephra", NOT_PACKED),
    ("bytes an event", "redis", NOT_PACKED),
    ("bytes an event", "tephra-server", NOT_PACKED),
    ("bytes an event", "umadb-server", NOT_PACKED),
];

/// The same of appends, which have one reason a kind: `docs/decisions/0022-what-an-append-costs.md`.
fn of_appends(workload: &str, peer: &str) -> Option<&'static str> {
    let batches = workload.starts_with("batches of ");
    let appenders = workload.ends_with(" appender") || workload.ends_with(" appenders");
    match peer {
        "sqlite" | "fjall" | "tephra" if batches => Some(
            "the processor: commitments and the tree, as the row precedent-unhashed shows, then unique keys, versions and links of streams, and repeats looked for; and that threads wait for each other",
        ),
        "sqlite" | "fjall" | "tephra" if workload == "1 appender" => Some(
            "the processor: 15 µs of ours beside a sync, told apart above; differences of this size are within noise",
        ),
        "sqlite" | "fjall" | "tephra" if appenders => Some(
            "the processor: while the answers are taken, and the next appends made, checked and hashed, 12 µs an event, the device waits",
        ),
        "redis" if batches => Some(
            "the processor: commitments, the tree, looking for repeats and reading what was sent, while both sides share two cores with it",
        ),
        "tephra-server" | "umadb-server" if batches => Some(
            "the processor: commitments, the tree, keys and repeats, while both sides share two cores with it",
        ),
        "redis" | "tephra-server" | "umadb-server" if appenders => Some(
            "the processor: reading, writing and waking on both sides of a connection cost several times what the log does; the peer's server does less with what it reads",
        ),
        _ => None,
    }
}

/// What there is to say about it.
pub(super) fn reason(workload: &str, peer: &str) -> &'static str {
    let found = REASONS.iter().find(|(of, by, _)| (*of, *by) == (workload, peer)).map(|(_, _, why)| *why);
    found.or_else(|| of_appends(workload, peer)).unwrap_or("not looked into yet")
}

#[cfg(test)]
mod tests {
    use super::super::workload::Appends;
    use super::*;

    #[test]
    fn every_kind_of_append_has_a_reason_and_what_nobody_looked_into_says_so() {
        for workload in Appends::ALL {
            assert_ne!(
                reason(&workload.name(), "tephra-server"),
                "not looked into yet",
                "{}",
                workload.name()
            );
        }
        assert_ne!(reason("1 appender", "fjall"), "not looked into yet");
        assert_eq!(reason("open, clean", "nobody"), "not looked into yet");
    }
}
