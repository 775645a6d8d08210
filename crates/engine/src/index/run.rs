//! An immutable sorted piece of the index, covering a range of whole frames.
//!
//! ```text
//! page 0                header
//! pages 1 …             directory: 255 terms a page, ordered:  term u64 | count u32 | value u32
//!                       value is the position if count is 1, else an index into the postings
//! pages …               postings: 1,023 positions u32 a page, relative to the run's first position
//! pages …               filter: bits of a Bloom filter over the terms
//! pages …               fences: the first term of every directory page
//! ```
//!
//! A page has 4,096 bytes, the last four of which are the CRC-32 of the others. Runs are written without a
//! sync; a page that fails its checksum, or a header that does not fit the log, and the run is made again
//! from the log.
//!
//! Memory: the filter (ten bits a term) and the fences (a thirty-second of a byte a term).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use precedent_core::{Hash, LogId};

use super::table::Table;
use super::term::Term;
use crate::io::{Io, IoFile, Mode, read_full};

const PAGE: usize = 4096;

/// A page in memory.
type Page = Box<[u8; PAGE]>;

const BODY: usize = PAGE - 4;
const MAGIC: &[u8; 4] = b"PRI1";
const ENTRIES_PER_PAGE: usize = 255;
const ENTRY_BYTES: usize = 16;
const POSTINGS_PER_PAGE: usize = 1023;
const FENCES_PER_PAGE: usize = 511;
const FILTER_BITS_PER_TERM: u64 = 10;
const FILTER_PROBES: u32 = 6;

/// A run does not match its checksums.
#[derive(Debug)]
pub(crate) struct BadRun {
    /// The frames the run covers, which are its name.
    pub(crate) first_sequence: u64,
    pub(crate) end_sequence: u64,
}

/// What a run covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Coverage {
    pub(crate) log: LogId,
    pub(crate) level: u8,
    pub(crate) first_sequence: u64,
    pub(crate) end_sequence: u64,
    pub(crate) first_position: u64,
    pub(crate) end_position: u64,
    /// The hash of the last covered frame's chained part, by which the run is tied to the log.
    pub(crate) last_frame: Hash,
}

/// The number of pages of each section.
#[derive(Debug, Clone, Copy)]
struct Sections {
    terms: u64,
    directory: u64,
    postings: u64,
    filter: u64,
    fences: u64,
}

/// An open run.
pub(crate) struct Run {
    pub(crate) coverage: Coverage,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    file: Arc<dyn IoFile>,
    sections: Sections,
    filter: Vec<u8>,
    fences: Vec<Term>,
}

/// The positions of one term in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    None,
    One(u32),
    /// This many, from this index in the postings on.
    Many {
        start: u32,
        count: u32,
    },
}

/// The name of a run's file.
pub(crate) fn file_name(coverage: &Coverage) -> String {
    format!("{:016x}-{:016x}.run", coverage.first_sequence, coverage.end_sequence)
}

/// The range of frames that a file of this name covers.
pub(crate) fn range_of(name: &str) -> Option<(u64, u64)> {
    let (first, end) = name.strip_suffix(".run")?.split_once('-')?;
    let number = |text: &str| (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok())?;
    Some((number(first)?, number(end)?)).filter(|(first, end)| first < end)
}

fn seal(page: &mut [u8; PAGE]) {
    let crc = crc32fast::hash(&page[..BODY]);
    page[BODY..].copy_from_slice(&crc.to_le_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// The bits of the filter that a term sets, by double hashing (Kirsch and Mitzenmacher, 2006).
fn filter_bits(term: Term, bits: u64) -> impl Iterator<Item = u64> {
    let step = (term >> 32) | 1;
    (0..u64::from(FILTER_PROBES)).map(move |i| term.wrapping_add(i.wrapping_mul(step)) % bits)
}

impl Sections {
    fn for_terms(terms: u64, postings: u64) -> Self {
        let pages = |n: u64, per: usize| n.div_ceil(per as u64);
        let directory = pages(terms, ENTRIES_PER_PAGE);
        Self {
            terms,
            directory,
            postings: pages(postings, POSTINGS_PER_PAGE),
            filter: pages((terms * FILTER_BITS_PER_TERM).div_ceil(8), BODY).max(1),
            fences: pages(directory, FENCES_PER_PAGE),
        }
    }

    fn postings_at(&self) -> u64 {
        1 + self.directory
    }

    fn filter_at(&self) -> u64 {
        self.postings_at() + self.postings
    }

    fn fences_at(&self) -> u64 {
        self.filter_at() + self.filter
    }

    fn pages(&self) -> u64 {
        self.fences_at() + self.fences
    }

    /// Whether sections of these sizes make up a file of this many bytes. Nothing is computed from them before.
    fn fit(&self, bytes: u64) -> bool {
        let pages = bytes / PAGE as u64;
        bytes.is_multiple_of(PAGE as u64)
            && [self.directory, self.postings, self.filter, self.fences].iter().all(|n| *n <= pages)
            && self.pages() == pages
            && self.filter > 0
            && self.directory == self.terms.div_ceil(ENTRIES_PER_PAGE as u64)
            && self.fences == self.directory.div_ceil(FENCES_PER_PAGE as u64)
    }

    /// Whether an entry of the directory names postings that are there.
    fn holds(&self, entry: &DirectoryEntry) -> bool {
        let end = u64::from(entry.value) + u64::from(entry.count);
        entry.count == 1 || (entry.count > 1 && end <= self.postings * POSTINGS_PER_PAGE as u64)
    }

    fn filter_bits(&self) -> u64 {
        self.filter * BODY as u64 * 8
    }
}

impl Run {
    /// Opens a run; `None` if it is not whole or not of this log.
    pub(crate) fn open(io: &dyn Io, path: &Path, log: LogId) -> Option<Self> {
        let file = io.open(path, Mode::Read).ok()?;
        let header = &read_page(&*file, 0)?[..];
        if &header[..4] != MAGIC || header[8..24] != log.0 {
            return None;
        }
        let coverage = Coverage {
            log,
            level: header[4],
            first_sequence: u64_at(header, 24),
            end_sequence: u64_at(header, 32),
            first_position: u64_at(header, 40),
            end_position: u64_at(header, 48),
            last_frame: Hash::from_slice(&header[56..88])?,
        };
        let sections = Sections {
            terms: u64_at(header, 88),
            directory: u64_at(header, 96),
            postings: u64_at(header, 104),
            filter: u64_at(header, 112),
            fences: u64_at(header, 120),
        };
        let bytes = file.len().ok()?;
        if !sections.fit(bytes) || coverage.first_position > coverage.end_position {
            return None;
        }
        let mut filter = Vec::with_capacity(usize::try_from(sections.filter).ok()?.checked_mul(BODY)?);
        for page in 0..sections.filter {
            filter.extend_from_slice(&read_page(&*file, sections.filter_at() + page)?[..BODY]);
        }
        let mut fences = Vec::with_capacity(usize::try_from(sections.directory).ok()?);
        for page in 0..sections.fences {
            let left = sections.directory as usize - fences.len();
            let body = read_page(&*file, sections.fences_at() + page)?;
            fences.extend(body[..BODY].chunks_exact(8).take(left.min(FENCES_PER_PAGE)).map(|c| u64_at(c, 0)));
        }
        Some(Self { coverage, path: path.to_owned(), bytes, file, sections, filter, fences })
    }

    fn bad(&self) -> BadRun {
        let Coverage { first_sequence, end_sequence, .. } = self.coverage;
        BadRun { first_sequence, end_sequence }
    }

    fn page(&self, number: u64) -> Result<Page, BadRun> {
        read_page(&*self.file, number).ok_or_else(|| self.bad())
    }

    /// The positions of a term.
    pub(crate) fn find(&self, term: Term) -> Result<Found, BadRun> {
        let bits = self.sections.filter_bits();
        let set = |bit: u64| self.filter[(bit / 8) as usize] & (1 << (bit % 8)) != 0;
        if !filter_bits(term, bits).all(set) {
            return Ok(Found::None);
        }
        let Some(page_number) = self.fences.partition_point(|fence| *fence <= term).checked_sub(1) else {
            return Ok(Found::None);
        };
        let page = self.page(1 + page_number as u64)?;
        let before = page_number as u64 * ENTRIES_PER_PAGE as u64;
        let entries = (self.sections.terms.saturating_sub(before) as usize).min(ENTRIES_PER_PAGE);
        let (mut low, mut high) = (0, entries);
        while low < high {
            let middle = (low + high) / 2;
            let at = middle * ENTRY_BYTES;
            match u64_at(&page[..], at).cmp(&term) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => {
                    let entry = DirectoryEntry::decode(&page[at..]);
                    if !self.sections.holds(&entry) {
                        return Err(self.bad());
                    }
                    let DirectoryEntry { count, value, .. } = entry;
                    return Ok(if count == 1 {
                        Found::One(value)
                    } else {
                        Found::Many { start: value, count }
                    });
                }
            }
        }
        Ok(Found::None)
    }

    /// A page of postings, by its number among them.
    pub(crate) fn postings_page(&self, number: u32) -> Result<Vec<u32>, BadRun> {
        if u64::from(number) >= self.sections.postings {
            return Err(self.bad());
        }
        let page = self.page(self.sections.postings_at() + u64::from(number))?;
        Ok(page[..BODY].chunks_exact(4).map(|c| u32_at(c, 0)).collect())
    }

    /// All terms and their positions, in order, a page of the directory at a time.
    fn entries(&self) -> Entries<'_> {
        Entries { run: self, next: 0, page: None, postings: None }
    }
}

/// Postings on a page.
pub(crate) const fn postings_per_page() -> u32 {
    POSTINGS_PER_PAGE as u32
}

fn read_page(file: &dyn IoFile, number: u64) -> Option<Page> {
    let mut page: Page = Box::new([0; PAGE]);
    let n = read_full(file, &mut page[..], number * PAGE as u64).ok()?;
    (n == PAGE && crc32fast::hash(&page[..BODY]) == u32_at(&page[..], BODY)).then_some(page)
}

/// Writes pages of one section, from its first page on.
struct SectionWriter<'a> {
    file: &'a dyn IoFile,
    next_page: u64,
    page: Page,
    filled: usize,
    /// Bytes of a page that are used: a whole number of items.
    used: usize,
}

impl<'a> SectionWriter<'a> {
    fn new(file: &'a dyn IoFile, first_page: u64, used: usize) -> Self {
        Self { file, next_page: first_page, page: Box::new([0; PAGE]), filled: 0, used }
    }

    fn put(&mut self, item: &[u8]) -> std::io::Result<()> {
        self.page[self.filled..self.filled + item.len()].copy_from_slice(item);
        self.filled += item.len();
        if self.filled == self.used { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.filled > 0 {
            seal(&mut self.page);
            self.file.write_at(&self.page[..], self.next_page * PAGE as u64)?;
            self.next_page += 1;
            self.filled = 0;
            self.page.fill(0);
        }
        Ok(())
    }
}

/// Writes a run term by term; how many there will be is known beforehand.
struct RunWriter<'a> {
    sections: Sections,
    directory: SectionWriter<'a>,
    postings: SectionWriter<'a>,
    next_posting: u32,
    filter: Vec<u8>,
    fences: Vec<Term>,
    in_page: usize,
}

impl<'a> RunWriter<'a> {
    fn new(file: &'a dyn IoFile, terms: u64, postings: u64) -> Self {
        let sections = Sections::for_terms(terms, postings);
        Self {
            sections,
            directory: SectionWriter::new(file, 1, ENTRIES_PER_PAGE * ENTRY_BYTES),
            postings: SectionWriter::new(file, sections.postings_at(), BODY),
            next_posting: 0,
            filter: vec![0; sections.filter as usize * BODY],
            fences: Vec::new(),
            in_page: 0,
        }
    }

    fn put(&mut self, term: Term, count: u32, positions: impl Iterator<Item = u32>) -> std::io::Result<()> {
        for bit in filter_bits(term, self.sections.filter_bits()) {
            self.filter[(bit / 8) as usize] |= 1 << (bit % 8);
        }
        if self.in_page == 0 {
            self.fences.push(term);
        }
        self.in_page = (self.in_page + 1) % ENTRIES_PER_PAGE;
        let mut value = self.next_posting;
        for position in positions {
            if count == 1 {
                value = position;
            } else {
                self.postings.put(&position.to_le_bytes())?;
                self.next_posting += 1;
            }
        }
        let mut entry = [0; ENTRY_BYTES];
        entry[..8].copy_from_slice(&term.to_le_bytes());
        entry[8..12].copy_from_slice(&count.to_le_bytes());
        entry[12..].copy_from_slice(&value.to_le_bytes());
        self.directory.put(&entry)
    }

    fn finish(mut self, coverage: &Coverage) -> std::io::Result<()> {
        self.directory.flush()?;
        self.postings.flush()?;
        let file = self.directory.file;
        let mut filter = SectionWriter::new(file, self.sections.filter_at(), BODY);
        for chunk in self.filter.chunks(BODY) {
            filter.put(chunk)?;
        }
        let mut fences = SectionWriter::new(file, self.sections.fences_at(), FENCES_PER_PAGE * 8);
        for fence in &self.fences {
            fences.put(&fence.to_le_bytes())?;
        }
        fences.flush()?;
        let mut header = [0; PAGE];
        header[..4].copy_from_slice(MAGIC);
        header[4] = coverage.level;
        header[8..24].copy_from_slice(&coverage.log.0);
        let numbers =
            [coverage.first_sequence, coverage.end_sequence, coverage.first_position, coverage.end_position];
        for (i, number) in numbers.into_iter().enumerate() {
            header[24 + i * 8..32 + i * 8].copy_from_slice(&number.to_le_bytes());
        }
        header[56..88].copy_from_slice(&coverage.last_frame.0);
        let s = &self.sections;
        for (i, number) in [s.terms, s.directory, s.postings, s.filter, s.fences].into_iter().enumerate() {
            header[88 + i * 8..96 + i * 8].copy_from_slice(&number.to_le_bytes());
        }
        seal(&mut header);
        file.write_at(&header, 0)
    }
}

fn create(
    io: &dyn Io,
    dir: &Path,
    coverage: &Coverage,
    write: impl FnOnce(&dyn IoFile) -> std::io::Result<()>,
) -> std::io::Result<PathBuf> {
    let path = dir.join(file_name(coverage));
    let temporary = path.with_extension("run.tmp");
    let _ = io.remove(&temporary);
    let file = io.open(&temporary, Mode::Create)?;
    write(&*file)?;
    io.rename(&temporary, &path)?;
    Ok(path)
}

/// Writes a run of what a table holds.
pub(crate) fn write_table(
    io: &dyn Io,
    dir: &Path,
    table: &Table,
    coverage: &Coverage,
) -> std::io::Result<PathBuf> {
    let sorted = table.sorted();
    let postings = sorted.iter().map(|(_, p)| p.len() as u64).filter(|n| *n > 1).sum();
    create(io, dir, coverage, |file| {
        let mut writer = RunWriter::new(file, sorted.len() as u64, postings);
        for (term, positions) in &sorted {
            writer.put(*term, positions.len() as u32, positions.iter().copied())?;
        }
        writer.finish(coverage)
    })
}

/// Why a merge did not happen.
#[derive(Debug)]
pub(crate) enum MergeError {
    /// One of the runs is not whole.
    Bad(BadRun),
    /// The new run could not be written.
    Io,
}

impl From<BadRun> for MergeError {
    fn from(bad: BadRun) -> Self {
        Self::Bad(bad)
    }
}

impl From<std::io::Error> for MergeError {
    fn from(_: std::io::Error) -> Self {
        Self::Io
    }
}

/// Merges adjacent runs, oldest first, into one of the next level. Memory is a few pages a run and the new filter.
pub(crate) fn merge(io: &dyn Io, dir: &Path, runs: &[Arc<Run>]) -> Result<PathBuf, MergeError> {
    let (first, last) = (&runs[0].coverage, &runs[runs.len() - 1].coverage);
    let coverage = Coverage {
        level: runs.iter().map(|r| r.coverage.level).max().unwrap_or(0) + 1,
        end_sequence: last.end_sequence,
        end_position: last.end_position,
        last_frame: last.last_frame,
        ..*first
    };
    let (mut terms, mut postings) = (0, 0);
    each_merged(runs, |_, sources| {
        terms += 1;
        let count: u64 = sources.iter().map(|(_, e)| u64::from(e.count)).sum();
        postings += if count > 1 { count } else { 0 };
        Ok(())
    })?;
    let mut failed = None;
    let path = create(io, dir, &coverage, |file| {
        let mut writer = RunWriter::new(file, terms, postings);
        let merged = each_merged(runs, |term, sources| {
            let count = sources.iter().fold(0, |sum: u32, (_, e)| sum.saturating_add(e.count));
            let mut positions = Vec::with_capacity(count as usize);
            for (run, entry) in sources {
                let shift = (runs[*run].coverage.first_position - coverage.first_position) as u32;
                let mut cursors = runs[*run].entries();
                cursors.positions(entry, |position| positions.push(position.wrapping_add(shift)))?;
            }
            writer.put(term, count, positions.into_iter())?;
            Ok(())
        });
        if let Err(e) = merged {
            failed = Some(e);
            return Err(std::io::ErrorKind::Other.into());
        }
        writer.finish(&coverage)
    });
    match failed {
        Some(e) => Err(e),
        None => Ok(path?),
    }
}

/// Calls `each` for every term of the runs, in order, with the runs that have it, oldest first.
fn each_merged(
    runs: &[Arc<Run>],
    mut each: impl FnMut(Term, &[(usize, DirectoryEntry)]) -> Result<(), MergeError>,
) -> Result<(), MergeError> {
    let mut cursors: Vec<Entries<'_>> = runs.iter().map(|run| run.entries()).collect();
    let mut heads = cursors.iter_mut().map(Entries::next).collect::<Result<Vec<_>, _>>()?;
    let mut sources = Vec::with_capacity(runs.len());
    while let Some(term) = heads.iter().flatten().map(|e| e.term).min() {
        sources.clear();
        for (index, head) in heads.iter_mut().enumerate() {
            if let Some(entry) = head.filter(|e| e.term == term) {
                sources.push((index, entry));
                *head = cursors[index].next()?;
            }
        }
        each(term, &sources)?;
    }
    Ok(())
}

#[derive(Debug, Clone, Copy)]
struct DirectoryEntry {
    term: Term,
    count: u32,
    value: u32,
}

impl DirectoryEntry {
    fn decode(bytes: &[u8]) -> Self {
        Self { term: u64_at(bytes, 0), count: u32_at(bytes, 8), value: u32_at(bytes, 12) }
    }
}

/// Goes through a run's directory.
struct Entries<'a> {
    run: &'a Run,
    next: u64,
    page: Option<Page>,
    postings: Option<(u32, Vec<u32>)>,
}

impl Entries<'_> {
    fn next(&mut self) -> Result<Option<DirectoryEntry>, BadRun> {
        if self.next >= self.run.sections.terms {
            return Ok(None);
        }
        let in_page = (self.next % ENTRIES_PER_PAGE as u64) as usize;
        if in_page == 0 {
            self.page = Some(self.run.page(1 + self.next / ENTRIES_PER_PAGE as u64)?);
        }
        let page = self.page.as_ref().expect("the page was just read");
        self.next += 1;
        let at = in_page * ENTRY_BYTES;
        let entry = DirectoryEntry::decode(&page[at..]);
        if !self.run.sections.holds(&entry) {
            return Err(self.run.bad());
        }
        Ok(Some(entry))
    }

    fn positions(&mut self, entry: &DirectoryEntry, mut each: impl FnMut(u32)) -> Result<(), BadRun> {
        if entry.count == 1 {
            each(entry.value);
            return Ok(());
        }
        for index in entry.value..entry.value.saturating_add(entry.count) {
            let number = index / postings_per_page();
            if self.postings.as_ref().is_none_or(|(n, _)| *n != number) {
                self.postings = Some((number, self.run.postings_page(number)?));
            }
            let (_, page) = self.postings.as_ref().expect("the page was just read");
            each(page[(index % postings_per_page()) as usize]);
        }
        Ok(())
    }
}
