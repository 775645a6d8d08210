//! An immutable sorted piece of the index, covering a range of whole frames.
//!
//! ```text
//! page 0       header
//! pages 1 …    groups of up to 32,640 terms, ascending; each:
//!                postings    1,023 positions u32 a page, relative to the run's first position
//!                directory   255 terms a page, ordered:  term u64 | count u32 | value u32
//!                            value is the position if count is 1, else an index into the group's postings
//!                filter      a Bloom filter over the group's terms, in blocks of 64 bytes, 63 a page
//! pages …      groups: 204 a page:  first term u64 | first page u32 | pages of postings u32 | terms u32
//! ```
//!
//! A page has 4,096 bytes, the last four of which are the CRC-32 of the others. Runs are written without a
//! sync; a page that fails its checksum, or a header that does not fit the log, and the run is made again
//! from the log.
//!
//! A group is written when it is full, so a run of any length is written and merged in one pass, in the memory of
//! one group. Terms are hashes, so they lie evenly: the page of a group that holds one is guessed from its value, and
//! nothing but the list of groups is in memory. All bits of a term are in one block of the filter: whether a run has a
//! term costs one page, and nothing once the page is held.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use precedent_core::{Hash, LogId};

use super::TERMS_AT_ONCE;
use super::table::Table;
use super::term::Term;
use crate::io::{Io, IoFile, Mode, read_full};

pub(super) const PAGE: usize = 4096;

/// A page in memory.
pub(super) type Page = Box<[u8; PAGE]>;

const BODY: usize = PAGE - 4;
const MAGIC: &[u8; 4] = b"PRI2";
const ENTRIES_PER_PAGE: usize = 255;
const ENTRY_BYTES: usize = 16;
const POSTINGS_PER_PAGE: usize = 1023;
const GROUP_PAGES_MAX: usize = 128;
const GROUP_TERMS_MAX: usize = GROUP_PAGES_MAX * ENTRIES_PER_PAGE;
const GROUP_BYTES: usize = 20;
const GROUPS_PER_PAGE: usize = BODY / GROUP_BYTES;
const FILTER_BITS_PER_TERM: u64 = 10;
const FILTER_PROBES: u32 = 6;
const BLOCK_BYTES: usize = 64;
const BLOCKS_PER_PAGE: u64 = (BODY / BLOCK_BYTES) as u64;
/// Pages that are read or written at once where one comes after the other.
const PAGES_AT_ONCE: usize = 16;

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

/// Where the terms from one on are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Group {
    first: Term,
    /// The number of its first page.
    start: u32,
    /// Pages of postings.
    postings: u32,
    terms: u32,
    /// Pages of filters of the groups before it.
    filters_before: u32,
}

impl Group {
    fn directory(&self) -> u64 {
        u64::from(self.terms).div_ceil(ENTRIES_PER_PAGE as u64)
    }

    fn blocks(&self) -> u64 {
        (u64::from(self.terms) * FILTER_BITS_PER_TERM).div_ceil(BLOCK_BYTES as u64 * 8)
    }

    fn filter(&self) -> u64 {
        self.blocks().div_ceil(BLOCKS_PER_PAGE)
    }

    fn postings_at(&self) -> u64 {
        u64::from(self.start)
    }

    fn directory_at(&self) -> u64 {
        self.postings_at() + u64::from(self.postings)
    }

    fn filter_at(&self) -> u64 {
        self.directory_at() + self.directory()
    }

    fn end(&self) -> u64 {
        self.filter_at() + self.filter()
    }

    /// Whether an entry of the directory names postings that are there.
    fn holds(&self, entry: &DirectoryEntry) -> bool {
        let end = u64::from(entry.value) + u64::from(entry.count);
        entry.count == 1 || (entry.count > 1 && end <= u64::from(self.postings) * POSTINGS_PER_PAGE as u64)
    }
}

/// An open run.
pub(crate) struct Run {
    pub(crate) coverage: Coverage,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    file: Arc<dyn IoFile>,
    groups: Arc<[Group]>,
    filter: Option<Filter>,
}

/// Pages of a filter that stay in memory once they were read.
struct Filter(Box<[OnceLock<Page>]>);

/// The positions of one term in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    None,
    One(u32),
    /// This many, from this index in the postings that begin with page `page` on.
    Many {
        page: u64,
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

fn seal(page: &mut [u8]) {
    let crc = crc32fast::hash(&page[..BODY]);
    page[BODY..].copy_from_slice(&crc.to_le_bytes());
}

fn is_sealed(page: &[u8]) -> bool {
    page.len() == PAGE && crc32fast::hash(&page[..BODY]) == u32_at(page, BODY)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// The posting with this index on a page.
pub(super) fn posting_on(page: &Page, index: u32) -> u32 {
    u32_at(&page[..], index as usize * 4)
}

/// The block of a filter that has a term's bits.
fn block_of(term: Term, blocks: u64) -> u64 {
    ((term & 0xffff_ffff) * blocks) >> 32
}

/// The bits that a term sets in its block.
fn bits_of(term: Term) -> impl Iterator<Item = usize> {
    let mixed = term.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (1..=FILTER_PROBES).map(move |i| (mixed >> (64 - 9 * i)) as usize & 511)
}

/// The bytes of a block on its page.
fn block_on(page: &[u8; PAGE], block: u64) -> &[u8; BLOCK_BYTES] {
    let at = (block % BLOCKS_PER_PAGE) as usize * BLOCK_BYTES;
    page[at..].first_chunk().expect("blocks end before the checksum")
}

/// Whether a block has all bits of a term. Without a branch for each: which is the first that is missing cannot be foreseen.
fn has_bits(block: &[u8; BLOCK_BYTES], term: Term) -> bool {
    bits_of(term).fold(true, |all, bit| all & ((block[bit / 8] >> (bit % 8)) & 1 == 1))
}

impl Run {
    /// Opens a run; `None` if it is not whole or not of this log. Reads its header and its list of groups.
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
        let (count, list_at) = (u64_at(header, 88), u64_at(header, 96));
        let bytes = file.len().ok()?;
        let pages = bytes / PAGE as u64;
        let list = pages.checked_sub(list_at)?;
        if !bytes.is_multiple_of(PAGE as u64)
            || count.div_ceil(GROUPS_PER_PAGE as u64) != list
            || coverage.first_position > coverage.end_position
        {
            return None;
        }
        let mut groups: Vec<Group> = Vec::with_capacity(usize::try_from(count).ok()?);
        let (mut start, mut filters_before) = (1, 0);
        for page in list_at..pages {
            let page = read_page(&*file, page)?;
            let left = count as usize - groups.len();
            for bytes in page[..BODY].chunks_exact(GROUP_BYTES).take(left.min(GROUPS_PER_PAGE)) {
                let group = Group {
                    first: u64_at(bytes, 0),
                    start: u32_at(bytes, 8),
                    postings: u32_at(bytes, 12),
                    terms: u32_at(bytes, 16),
                    filters_before,
                };
                let follows = groups.last().is_none_or(|before| before.first < group.first);
                let fits = (1..=GROUP_TERMS_MAX as u32).contains(&group.terms)
                    && u64::from(group.start) == start
                    && group.end() <= list_at;
                if !follows || !fits {
                    return None;
                }
                start = group.end();
                filters_before = u32::try_from(u64::from(filters_before) + group.filter()).ok()?;
                groups.push(group);
            }
        }
        let path = path.to_owned();
        (start == list_at).then(|| Self { coverage, path, bytes, file, groups: groups.into(), filter: None })
    }

    /// Pages of its filter, all groups together.
    pub(super) fn filter_pages(&self) -> u64 {
        self.groups.last().map_or(0, |last| u64::from(last.filters_before) + last.filter())
    }

    /// Whether pages of its filter stay in memory once they were read.
    pub(super) fn holds_filter(&self) -> bool {
        self.filter.is_some()
    }

    /// The same run, which holds pages of its filter or does not.
    pub(super) fn holding_filter(&self, holds: bool) -> Self {
        Self {
            coverage: self.coverage,
            path: self.path.clone(),
            bytes: self.bytes,
            file: self.file.clone(),
            groups: self.groups.clone(),
            filter: holds.then(|| Filter((0..self.filter_pages()).map(|_| OnceLock::new()).collect())),
        }
    }

    /// Pages of its filter that are in memory.
    #[cfg(test)]
    pub(super) fn filter_pages_held(&self) -> u64 {
        self.filter.iter().flat_map(|f| &f.0).filter(|page| page.get().is_some()).count() as u64
    }

    /// Whether it has positions that could not be read: their term is the lowest.
    pub(super) fn has_unreadable(&self) -> bool {
        self.groups.first().is_some_and(|group| group.first == super::UNREADABLE)
    }

    fn bad(&self) -> BadRun {
        let Coverage { first_sequence, end_sequence, .. } = self.coverage;
        BadRun { first_sequence, end_sequence }
    }

    fn page(&self, number: u64) -> Result<Page, BadRun> {
        read_page(&*self.file, number).ok_or_else(|| self.bad())
    }

    /// The group in whose range a term lies.
    fn group_of(&self, term: Term) -> Option<usize> {
        self.groups.partition_point(|group| group.first <= term).checked_sub(1)
    }

    /// Whether the run can have a term: nearly never if it has not.
    fn may_have(&self, term: Term) -> Result<bool, BadRun> {
        self.group_of(term).map_or(Ok(false), |index| self.group_may_have(&self.groups[index], term))
    }

    /// Adds to `may` which of these terms, at most [`TERMS_AT_ONCE`], it may have.
    pub(super) fn may_have_each(&self, terms: &[Term], may: &mut [bool]) {
        let mut blocks = [None; TERMS_AT_ONCE];
        for (term, block) in terms.iter().zip(&mut blocks) {
            *block = self.held_block(*term);
        }
        // All are fetched at once, before the first is looked at: nearly all the time goes to waiting for them. A block can
        // lie across two lines of a cache.
        let ends = |block: &[u8; BLOCK_BYTES]| block[0] ^ block[BLOCK_BYTES - 1];
        std::hint::black_box(blocks.iter().flatten().fold(0, |sum, block| sum ^ ends(block)));
        for ((term, block), may) in terms.iter().zip(blocks).zip(may) {
            *may = *may
                || match block {
                    Some(block) => has_bits(block, *term),
                    // A run that cannot answer may have everything.
                    None => self.may_have(*term).unwrap_or(true),
                };
        }
    }

    /// The block with the bits of a term, if it is in memory.
    fn held_block(&self, term: Term) -> Option<&[u8; BLOCK_BYTES]> {
        let group = &self.groups[self.group_of(term)?];
        let block = block_of(term, group.blocks());
        Some(block_on(self.held_page(group, block)?.get()?, block))
    }

    /// Where the page with a block of a group stays, if pages of the filter stay in memory.
    fn held_page(&self, group: &Group, block: u64) -> Option<&OnceLock<Page>> {
        let number = u64::from(group.filters_before) + block / BLOCKS_PER_PAGE;
        Some(&self.filter.as_ref()?.0[number as usize])
    }

    fn group_may_have(&self, group: &Group, term: Term) -> Result<bool, BadRun> {
        let block = block_of(term, group.blocks());
        let number = block / BLOCKS_PER_PAGE;
        let Some(held) = self.held_page(group, block) else {
            return Ok(has_bits(block_on(&*self.page(group.filter_at() + number)?, block), term));
        };
        if let Some(page) = held.get() {
            return Ok(has_bits(block_on(page, block), term));
        }
        let page = self.page(group.filter_at() + number)?;
        Ok(has_bits(block_on(held.get_or_init(|| page), block), term))
    }

    /// The positions of a term.
    pub(crate) fn find(&self, term: Term) -> Result<Found, BadRun> {
        let Some(index) = self.group_of(term) else { return Ok(Found::None) };
        let group = &self.groups[index];
        if !self.group_may_have(group, term)? {
            return Ok(Found::None);
        }
        // Terms lie evenly between the first of this group and the first of the next.
        let next = self.groups.get(index + 1).map_or(u64::MAX, |next| next.first);
        let pages = group.directory();
        let guess =
            u128::from(term - group.first) * u128::from(pages) / u128::from((next - group.first).max(1));
        let (mut low, mut high, mut at) = (0, pages, (guess as u64).min(pages - 1));
        let mut near = true;
        while low < high {
            let page = self.page(group.directory_at() + at)?;
            let entries = (group.terms as usize - at as usize * ENTRIES_PER_PAGE).min(ENTRIES_PER_PAGE);
            let entry = |index: usize| DirectoryEntry::decode(&page[index * ENTRY_BYTES..]);
            let neighbour = if term < entry(0).term {
                high = at;
                high.saturating_sub(1)
            } else if term > entry(entries - 1).term {
                low = at + 1;
                low
            } else {
                return self.find_on(group, entries, entry, term);
            };
            // A wrong guess is nearly always wrong by one page; if it is not, halving ends it soon.
            at = if near { neighbour } else { low + (high - low) / 2 };
            near = false;
        }
        Ok(Found::None)
    }

    fn find_on(
        &self,
        group: &Group,
        entries: usize,
        entry: impl Fn(usize) -> DirectoryEntry,
        term: Term,
    ) -> Result<Found, BadRun> {
        let (mut low, mut high) = (0, entries);
        while low < high {
            let middle = (low + high) / 2;
            let found = entry(middle);
            match found.term.cmp(&term) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal if !group.holds(&found) => return Err(self.bad()),
                std::cmp::Ordering::Equal if found.count == 1 => return Ok(Found::One(found.value)),
                std::cmp::Ordering::Equal => {
                    let DirectoryEntry { count, value: start, .. } = found;
                    return Ok(Found::Many { page: group.postings_at(), start, count });
                }
            }
        }
        Ok(Found::None)
    }

    /// A page of postings.
    pub(super) fn postings_page(&self, number: u64) -> Result<Page, BadRun> {
        self.page(number)
    }

    /// All terms, in order.
    fn entries(&self) -> Entries<'_> {
        Entries { run: self, group: 0, next: 0, pages: Vec::new(), postings: None }
    }
}

/// Postings on a page.
pub(crate) const fn postings_per_page() -> u32 {
    POSTINGS_PER_PAGE as u32
}

fn read_page(file: &dyn IoFile, number: u64) -> Option<Page> {
    let mut page: Page = Box::new([0; PAGE]);
    let n = read_full(file, &mut page[..], number * PAGE as u64).ok()?;
    (n == PAGE && is_sealed(&page[..])).then_some(page)
}

/// Writes pages one after the other.
struct PageWriter<'a> {
    file: &'a dyn IoFile,
    /// The number of the first page that is not written yet.
    first: u64,
    /// Whole pages that wait, then the one that is filled.
    buffer: Vec<u8>,
}

impl PageWriter<'_> {
    /// The number of the page that is filled next.
    fn next(&self) -> u64 {
        self.first + (self.buffer.len() / PAGE) as u64
    }

    /// Bytes on the page that is filled.
    fn filled(&self) -> usize {
        self.buffer.len() % PAGE
    }

    /// Adds an item; a page that has no room for another of this size is sealed.
    fn put(&mut self, item: &[u8]) -> std::io::Result<()> {
        self.buffer.extend_from_slice(item);
        if self.filled() + item.len() > BODY { self.end_page() } else { Ok(()) }
    }

    /// Seals the page that is filled, if anything is on it.
    fn end_page(&mut self) -> std::io::Result<()> {
        if self.filled() == 0 {
            return Ok(());
        }
        self.buffer.resize(self.buffer.len().next_multiple_of(PAGE), 0);
        let at = self.buffer.len() - PAGE;
        seal(&mut self.buffer[at..]);
        if self.buffer.len() >= PAGES_AT_ONCE * PAGE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if !self.buffer.is_empty() {
            self.file.write_at(&self.buffer, self.first * PAGE as u64)?;
            self.first += (self.buffer.len() / PAGE) as u64;
            self.buffer.clear();
        }
        Ok(())
    }
}

/// Writes a run term by term. What it holds in memory is one group and the list of groups.
struct RunWriter<'a> {
    pages: PageWriter<'a>,
    groups: Vec<Group>,
    /// The page with which this group begins.
    start: u64,
    /// The directory of this group.
    entries: Vec<u8>,
    /// Postings in this group.
    postings: u32,
}

impl<'a> RunWriter<'a> {
    fn new(file: &'a dyn IoFile) -> Self {
        let pages = PageWriter { file, first: 1, buffer: Vec::with_capacity((PAGES_AT_ONCE + 1) * PAGE) };
        Self { pages, groups: Vec::new(), start: 1, entries: Vec::new(), postings: 0 }
    }

    /// Begins a term, higher than those before it; [`Self::position`] follows `count` times.
    fn term(&mut self, term: Term, count: u32) -> std::io::Result<()> {
        if self.entries.len() == GROUP_TERMS_MAX * ENTRY_BYTES || self.postings.checked_add(count).is_none() {
            self.end_group()?;
        }
        self.entries.extend_from_slice(&term.to_le_bytes());
        self.entries.extend_from_slice(&count.to_le_bytes());
        self.entries.extend_from_slice(&self.postings.to_le_bytes());
        Ok(())
    }

    /// Adds a position to the term that was begun last, higher than those before it.
    fn position(&mut self, position: u32) -> std::io::Result<()> {
        let at = self.entries.len() - 8;
        if u32_at(&self.entries, at) == 1 {
            self.entries[at + 4..].copy_from_slice(&position.to_le_bytes());
            return Ok(());
        }
        self.postings += 1;
        self.pages.put(&position.to_le_bytes())
    }

    fn end_group(&mut self) -> std::io::Result<()> {
        if self.entries.is_empty() {
            return Ok(());
        }
        self.pages.end_page()?;
        let too_long = || std::io::Error::from(std::io::ErrorKind::FileTooLarge);
        let group = Group {
            first: u64_at(&self.entries, 0),
            start: u32::try_from(self.start).map_err(|_| too_long())?,
            postings: self.postings.div_ceil(POSTINGS_PER_PAGE as u32),
            terms: (self.entries.len() / ENTRY_BYTES) as u32,
            filters_before: 0,
        };
        for entry in self.entries.chunks_exact(ENTRY_BYTES) {
            self.pages.put(entry)?;
        }
        self.pages.end_page()?;
        let mut blocks = vec![[0u8; BLOCK_BYTES]; group.blocks() as usize];
        for entry in self.entries.chunks_exact(ENTRY_BYTES) {
            let term = u64_at(entry, 0);
            let block = &mut blocks[block_of(term, group.blocks()) as usize];
            bits_of(term).for_each(|bit| block[bit / 8] |= 1 << (bit % 8));
        }
        for block in &blocks {
            self.pages.put(block)?;
        }
        self.pages.end_page()?;
        self.groups.push(group);
        self.entries.clear();
        (self.start, self.postings) = (self.pages.next(), 0);
        Ok(())
    }

    fn finish(mut self, coverage: &Coverage) -> std::io::Result<()> {
        self.end_group()?;
        let list_at = self.pages.next();
        for group in &self.groups {
            let mut item = [0; GROUP_BYTES];
            item[..8].copy_from_slice(&group.first.to_le_bytes());
            for (at, number) in [(8, group.start), (12, group.postings), (16, group.terms)] {
                item[at..at + 4].copy_from_slice(&number.to_le_bytes());
            }
            self.pages.put(&item)?;
        }
        self.pages.end_page()?;
        self.pages.flush()?;
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
        header[88..96].copy_from_slice(&(self.groups.len() as u64).to_le_bytes());
        header[96..104].copy_from_slice(&list_at.to_le_bytes());
        seal(&mut header);
        self.pages.file.write_at(&header, 0)
    }
}

fn create<E: From<std::io::Error>>(
    io: &dyn Io,
    dir: &Path,
    coverage: &Coverage,
    write: impl FnOnce(&mut RunWriter<'_>) -> Result<(), E>,
) -> Result<PathBuf, E> {
    let path = dir.join(file_name(coverage));
    let temporary = path.with_extension("run.tmp");
    let _ = io.remove(&temporary);
    let file = io.open(&temporary, Mode::Create)?;
    let mut writer = RunWriter::new(&*file);
    write(&mut writer)?;
    writer.finish(coverage)?;
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
    create(io, dir, coverage, |writer| {
        for (term, positions) in table.sorted() {
            writer.term(term, positions.len() as u32)?;
            positions.iter().try_for_each(|position| writer.position(*position))?;
        }
        Ok(())
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

/// Merges adjacent runs, oldest first, into one of the next level, in one pass. Memory is a few pages a run and a
/// group of the new one, however many terms there are and however many positions a term has.
pub(crate) fn merge(io: &dyn Io, dir: &Path, runs: &[Arc<Run>]) -> Result<PathBuf, MergeError> {
    let (first, last) = (&runs[0].coverage, &runs[runs.len() - 1].coverage);
    let coverage = Coverage {
        level: runs.iter().map(|r| r.coverage.level).max().unwrap_or(0) + 1,
        end_sequence: last.end_sequence,
        end_position: last.end_position,
        last_frame: last.last_frame,
        ..*first
    };
    let shift = |run: &Run| (run.coverage.first_position - coverage.first_position) as u32;
    let mut cursors: Vec<(Entries<'_>, u32)> = runs.iter().map(|run| (run.entries(), shift(run))).collect();
    let mut heads = cursors.iter_mut().map(|(entries, _)| entries.next()).collect::<Result<Vec<_>, _>>()?;
    create(io, dir, &coverage, |writer| {
        while let Some(term) = heads.iter().flatten().map(|e| e.term).min() {
            let with_it = |head: &Option<DirectoryEntry>| head.filter(|e| e.term == term);
            let count = heads.iter().filter_map(with_it).fold(0, |sum: u32, e| sum.saturating_add(e.count));
            writer.term(term, count)?;
            for (head, (entries, shift)) in heads.iter_mut().zip(&mut cursors) {
                if let Some(entry) = with_it(head) {
                    entries.positions(&entry, |position| writer.position(position.wrapping_add(*shift)))?;
                    *head = entries.next()?;
                }
            }
        }
        Ok(())
    })
}

#[derive(Debug, Clone, Copy)]
struct DirectoryEntry {
    term: Term,
    count: u32,
    value: u32,
    /// The first page of the postings that `value` is an index into; known where it matters.
    postings_at: u64,
}

impl DirectoryEntry {
    fn decode(bytes: &[u8]) -> Self {
        Self { term: u64_at(bytes, 0), count: u32_at(bytes, 8), value: u32_at(bytes, 12), postings_at: 0 }
    }
}

/// Goes through a run's terms.
struct Entries<'a> {
    run: &'a Run,
    group: usize,
    /// The index of the next term in its group.
    next: usize,
    /// Pages of the group's directory, from the one with the next term on, or a few before it.
    pages: Vec<u8>,
    postings: Option<(u64, Page)>,
}

impl Entries<'_> {
    fn next(&mut self) -> Result<Option<DirectoryEntry>, BadRun> {
        let Some(group) = self.run.groups.get(self.group) else { return Ok(None) };
        let (page, in_page) = (self.next / ENTRIES_PER_PAGE, self.next % ENTRIES_PER_PAGE);
        if in_page == 0 && page % PAGES_AT_ONCE == 0 {
            let count = (group.directory() as usize - page).min(PAGES_AT_ONCE);
            self.pages.resize(count * PAGE, 0);
            let at = (group.directory_at() + page as u64) * PAGE as u64;
            let n = read_full(&*self.run.file, &mut self.pages, at).map_err(|_| self.run.bad())?;
            if n < self.pages.len() || !self.pages.chunks(PAGE).all(is_sealed) {
                return Err(self.run.bad());
            }
        }
        let at = page % PAGES_AT_ONCE * PAGE + in_page * ENTRY_BYTES;
        let mut entry = DirectoryEntry::decode(&self.pages[at..]);
        entry.postings_at = group.postings_at();
        if !group.holds(&entry) {
            return Err(self.run.bad());
        }
        self.next += 1;
        if self.next == group.terms as usize {
            (self.group, self.next) = (self.group + 1, 0);
        }
        Ok(Some(entry))
    }

    fn positions(
        &mut self,
        entry: &DirectoryEntry,
        mut each: impl FnMut(u32) -> std::io::Result<()>,
    ) -> Result<(), MergeError> {
        if entry.count == 1 {
            return Ok(each(entry.value)?);
        }
        for index in entry.value..entry.value.saturating_add(entry.count) {
            let number = entry.postings_at + u64::from(index / postings_per_page());
            if self.postings.as_ref().is_none_or(|(n, _)| *n != number) {
                self.postings = Some((number, self.run.postings_page(number)?));
            }
            let (_, page) = self.postings.as_ref().expect("the page was just read");
            each(posting_on(page, index % postings_per_page()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
