//! Checks a sequence of frames, trusting nobody: not the index, not the headers, not the store.
//!
//! [`Verifier`] is given the frames of a log in order, and recomputes everything: every entry's encoding,
//! position, version and link to the stream's previous event, every commitment, the tree, the root in every
//! header, and the chain of headers. What does not match is a [`Problem`] with its place. After a problem it
//! goes on from the next frame that carries the tree's right edge, so that one damage is one finding.
//!
//! Memory: 56 bytes and a hash table slot for every stream; nothing else grows with the log.

use std::collections::HashMap;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::extents::{NoSources, Sources};
use crate::frame::{Chained, Frame};
use crate::ids::{FrameId, Hash, LogId, Position, Time, Version};
use crate::stored::{StoredEvent, StoredPart, check_commitments};
use crate::tree::{Tree, leaf_hash};

/// A statement from outside about what the log was: its first `size` events have this root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expect {
    /// The number of events.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Hash,
}

impl FromStr for Expect {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let parsed =
            text.split_once(':').and_then(|(size, root)| Some((size.parse().ok()?, root.parse().ok()?)));
        match parsed {
            Some((size, root)) => Ok(Self { size, root }),
            None => Err(Error::invalid(format!(
                "'{}' is not SIZE:ROOT, a number of events and 64 hexadecimal digits",
                crate::event::shown(text)
            ))),
        }
    }
}

/// Something that does not match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The frame's sequence number, if known.
    pub frame: Option<u64>,
    /// The event, if one is concerned.
    pub position: Option<Position>,
    /// Where it lies: file and offset, if there are files.
    pub place: Option<String>,
    /// What does not match.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(frame) = self.frame {
            write!(f, "frame {frame}: ")?;
        }
        if let Some(position) = self.position {
            write!(f, "position {position}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(place) = &self.place {
            write!(f, " ({place})")?;
        }
        Ok(())
    }
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The log's id, if it has any events.
    pub log: Option<LogId>,
    /// Events that were read.
    pub events: u64,
    /// Frames that were read.
    pub frames: u64,
    /// The number of events in the log.
    pub size: u64,
    /// The root over them, recomputed; `None` if damage made that impossible.
    pub root: Option<Hash>,
    /// Everything that does not match. Beyond [`PROBLEMS_MAX`] they are only counted.
    pub problems: Vec<Problem>,
    /// The number of problems, those not listed included.
    pub problem_count: u64,
}

/// How many problems a report lists.
pub const PROBLEMS_MAX: usize = 1_000;

impl Report {
    /// Whether everything matched.
    pub fn is_ok(&self) -> bool {
        self.problem_count == 0
    }
}

/// The end of a stream as it was last seen.
#[derive(Debug, Clone, Copy)]
struct Tip {
    version: Version,
    leaf: Hash,
}

/// A frame of which only what cannot be computed is stored.
#[derive(Debug, Clone, Copy)]
pub struct UnchainedFrame<'a> {
    /// The log.
    pub log: LogId,
    /// The frame's number.
    pub sequence: u64,
    /// The position of its first event.
    pub first: Position,
    /// The random id of the frame.
    pub id: FrameId,
    /// The random id of the handle that wrote it.
    pub writer: FrameId,
    /// Where it is stored: the hash of the frame before, and the tree after this one.
    pub stored: Option<(Hash, &'a Tree)>,
}

/// Recomputes a log frame by frame.
#[derive(Debug)]
pub struct Verifier {
    log: Option<LogId>,
    next_sequence: u64,
    size: u64,
    /// `None` from a problem until the next frame that carries the right edge.
    tree: Option<Tree>,
    last_frame: Option<Hash>,
    last_time: Time,
    /// By the first half of the SHA-256 of the stream's name.
    tips: HashMap<[u8; 16], Tip>,
    /// Whether events were lost to a problem, so that streams may have gaps that are not problems of their own.
    gaps: bool,
    expect: Option<Expect>,
    expected_root: Option<Hash>,
    report: Report,
}

impl Verifier {
    /// A verifier for a log from its first frame on.
    pub fn new(expect: Option<Expect>) -> Self {
        Self {
            log: None,
            next_sequence: 0,
            size: 0,
            tree: Some(Tree::new()),
            last_frame: Some(Hash::ZERO),
            last_time: Time::default(),
            tips: HashMap::new(),
            gaps: false,
            expected_root: expect.filter(|e| e.size == 0).map(|_| Tree::new().root()),
            expect,
            report: Report {
                log: None,
                events: 0,
                frames: 0,
                size: 0,
                root: None,
                problems: Vec::new(),
                problem_count: 0,
            },
        }
    }

    /// The sequence number the next frame should have.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// The number of events up to here.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Notes something that does not match, found by whoever reads the frames.
    pub fn problem(&mut self, problem: Problem) {
        self.report.problem_count += 1;
        if self.report.problems.len() < PROBLEMS_MAX {
            self.report.problems.push(problem);
        }
    }

    /// Notes that the next frame cannot be read. What follows is checked from the next right edge on.
    pub fn unreadable(&mut self, place: Option<String>, message: String) {
        self.problem(Problem { frame: Some(self.next_sequence), position: None, place, message });
        self.tree = None;
        self.last_frame = None;
        self.gaps = true;
        self.next_sequence = self.next_sequence.saturating_add(1);
    }

    /// Checks the next frame, whose events refer to no others.
    pub fn frame(&mut self, frame: &Frame, place: Option<&str>) {
        self.frame_with(frame, place, &mut NoSources);
    }

    /// Checks the next frame; `sources` is where the events it may refer to are found.
    pub fn frame_with(&mut self, frame: &Frame, place: Option<&str>, sources: &mut dyn Sources) {
        let chained = frame.chained().clone();
        let at = |message: &str| Problem {
            frame: Some(chained.sequence),
            position: None,
            place: place.map(str::to_owned),
            message: message.to_owned(),
        };
        self.begin(&chained.log, chained.sequence, chained.first, Some(chained.previous), place);
        let events = (0..frame.len()).map(|index| frame.event(index));
        self.events(&chained.log, chained.sequence, chained.first, events, place, sources);
        if let Some(tree) = &self.tree
            && tree.root() != chained.root
        {
            self.problem(at("the root in its header does not match the entries up to here"));
            self.tree = None;
        }
        if let Some(edge) = frame.tree() {
            if edge.root() != chained.root {
                self.problem(at("the right edge it carries does not match the root in its header"));
            } else if self.tree.as_ref().is_some_and(|tree| *tree != edge) {
                self.problem(at("the right edge it carries is not that of the tree"));
            } else if self.tree.is_none() {
                self.tree = Some(edge);
            }
        } else if frame.directory.edge.is_some() {
            self.problem(at("the right edge it carries has the wrong length"));
        }
        self.end(chained.sequence, chained.tree_size(), Some(chained.hash()));
    }

    /// Checks the next frame where its root and the hash it links to are not stored but follow from the rest.
    pub fn unchained(
        &mut self,
        frame: &UnchainedFrame<'_>,
        events: impl ExactSizeIterator<Item = Result<StoredEvent>>,
        place: Option<&str>,
        sources: &mut dyn Sources,
    ) {
        let UnchainedFrame { log, sequence, first, .. } = *frame;
        let count = events.len() as u32;
        let previous = frame.stored.map(|(previous, _)| previous);
        self.begin(&log, sequence, first, previous, place);
        self.last_frame = self.last_frame.or(previous);
        self.events(&log, sequence, first, events, place, sources);
        if let Some((_, edge)) = frame.stored {
            if self.tree.as_ref().is_some_and(|tree| tree != edge) {
                self.problem(Problem {
                    frame: Some(sequence),
                    position: None,
                    place: place.map(str::to_owned),
                    message: "the right edge stored with it is not that of the entries up to here".into(),
                });
            }
            self.tree = Some(edge.clone());
        }
        let chained = self.tree.as_ref().zip(self.last_frame).map(|(tree, previous)| Chained {
            log,
            id: frame.id,
            writer: frame.writer,
            sequence,
            first,
            count,
            root: tree.root(),
            previous,
        });
        self.end(sequence, first.0 + u64::from(count), chained.map(|chained| chained.hash()));
    }

    /// Holds what is stored of the log's end at this point, the hash of the last frame and the tree, against what was computed.
    pub fn check_end(&mut self, last_frame: Hash, tree: &Tree, place: Option<&str>) {
        let frame = self.next_sequence.checked_sub(1);
        let hash_differs = self.last_frame.is_some_and(|last| last != last_frame);
        let tree_differs = self.tree.as_ref().is_some_and(|computed| computed != tree);
        for (differs, what) in [(hash_differs, "hash of the last frame"), (tree_differs, "tree")] {
            if differs {
                let message = format!("the {what} stored for the end does not match what was computed");
                self.problem(Problem { frame, position: None, place: place.map(str::to_owned), message });
            }
        }
        self.last_frame = Some(last_frame);
        self.tree = Some(tree.clone());
    }

    /// Passes over frames that cannot be read, and have been named, up to this sequence number and position.
    pub fn skip_to(&mut self, sequence: u64, position: u64) {
        (self.tree, self.last_frame, self.gaps) = (None, None, true);
        (self.next_sequence, self.size) = (sequence, position);
    }

    /// The checks of a frame before its events.
    fn begin(
        &mut self,
        log: &LogId,
        sequence: u64,
        first: Position,
        previous: Option<Hash>,
        place: Option<&str>,
    ) {
        let at = |message: String| Problem {
            frame: Some(sequence),
            position: None,
            place: place.map(str::to_owned),
            message,
        };
        if *self.log.get_or_insert(*log) != *log {
            self.problem(at(format!("belongs to log {log}")));
        }
        if sequence != self.next_sequence {
            if self.last_frame.is_some() {
                self.problem(at(format!("frame {} was expected here", self.next_sequence)));
            }
            (self.tree, self.last_frame, self.gaps) = (None, None, true);
        }
        if self.last_frame.zip(previous).is_some_and(|(last, previous)| last != previous) {
            self.problem(at("does not follow the frame before it: the hash of its header differs".into()));
        }
        if first.0 != self.size {
            if self.tree.is_some() {
                self.problem(at(format!("begins at position {first}, expected {}", self.size)));
            }
            (self.tree, self.gaps) = (None, true);
        }
    }

    fn events(
        &mut self,
        log: &LogId,
        sequence: u64,
        first: Position,
        events: impl Iterator<Item = Result<StoredEvent>>,
        place: Option<&str>,
        sources: &mut dyn Sources,
    ) {
        for (index, stored) in events.enumerate() {
            let position = Position(first.0 + index as u64);
            match self.event(stored, position, log, sources) {
                Ok(leaf) => {
                    if let Some(tree) = &mut self.tree {
                        tree.push(leaf);
                        if self.expect.is_some_and(|e| e.size == tree.size()) {
                            self.expected_root = Some(tree.root());
                        }
                    }
                }
                Err((message, leaf)) => {
                    self.problem(Problem {
                        frame: Some(sequence),
                        position: Some(position),
                        place: place.map(str::to_owned),
                        message,
                    });
                    match (leaf, &mut self.tree) {
                        (Some(leaf), Some(tree)) => tree.push(leaf),
                        _ => {
                            self.tree = None;
                            self.gaps = true;
                        }
                    }
                }
            }
        }
    }

    fn end(&mut self, sequence: u64, size: u64, hash: Option<Hash>) {
        self.size = size;
        self.next_sequence = sequence.saturating_add(1);
        self.last_frame = hash;
        self.report.frames += 1;
    }

    /// Checks one event; answers its leaf, with an error too if the entry itself could be read.
    fn event(
        &mut self,
        stored: Result<StoredEvent>,
        position: Position,
        log: &LogId,
        sources: &mut dyn Sources,
    ) -> Result<Hash, (String, Option<Hash>)> {
        let stored = stored.map_err(|e| (e.to_string(), None))?;
        let leaf = leaf_hash(&stored.entry);
        self.report.events += 1;
        let fail = |message: String| Err((message, Some(leaf)));
        let entry = match Entry::decode(&stored.entry) {
            Ok(entry) => entry,
            Err(e) => return fail(e.to_string()),
        };
        let (version, previous) = (entry.version, entry.previous);
        // The tip moves on whatever else is wrong, so that one damage is one finding.
        let mut broken_stream = None;
        if let (Some(stream), Some(version)) = (entry.event.stream(), version) {
            let key: [u8; 16] = Sha256::digest(stream)[..16].try_into().expect("half of 32 bytes");
            let before = self.tips.insert(key, Tip { version, leaf });
            let follows = match before {
                None => version == Version(0) && previous.is_none(),
                Some(tip) => tip.version.0.checked_add(1) == Some(version.0) && previous == Some(tip.leaf),
            };
            if !follows && !self.gaps {
                broken_stream = Some(format!("does not follow the previous event of stream '{stream}'"));
            }
        }
        if !entry.is_canonical(&stored.entry) {
            return fail("the entry is not in its canonical encoding".into());
        }
        if entry.log != *log || entry.position != position {
            return fail(format!("the entry says log {}, position {}", entry.log, entry.position));
        }
        if entry.recorded < self.last_time {
            return fail(format!(
                "recorded at {}, before the event before it at {}",
                entry.recorded, self.last_time
            ));
        }
        self.last_time = entry.recorded;
        if let Some(message) = broken_stream {
            return fail(message);
        }
        let parts = match stored.parts(&entry, sources) {
            Ok(parts) => parts,
            Err(e) => return fail(e.to_string()),
        };
        if let Err(e) = check_commitments(&entry, &parts) {
            return fail(e.to_string());
        }
        // Nothing in this version erases, so nothing can vouch for it.
        if parts.iter().any(|part| matches!(part, StoredPart::Erased)) {
            return fail("its data is marked as erased, and nothing says by whom".into());
        }
        Ok(leaf)
    }

    /// The report, once all frames have been seen.
    pub fn finish(mut self) -> Report {
        self.report.log = self.log;
        self.report.size = self.size;
        self.report.root = self.tree.as_ref().filter(|tree| tree.size() == self.size).map(Tree::root);
        if let Some(expect) = self.expect {
            let message = match self.expected_root {
                _ if expect.size > self.size => Some(format!(
                    "{} events were expected, {} are there: the tail is missing",
                    expect.size, self.size
                )),
                Some(root) if root != expect.root => Some(format!(
                    "the root over the first {} events is {root}, expected {}",
                    expect.size, expect.root
                )),
                None => Some(format!("the root over the first {} events cannot be computed", expect.size)),
                Some(_) => None,
            };
            if let Some(message) = message {
                self.problem(Problem { frame: None, position: None, place: None, message });
            }
        }
        self.report
    }
}
