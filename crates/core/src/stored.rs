//! One event as it is stored: its entry, and its parts in one of three forms.
//!
//! A part stands literally, or as pieces of which some name earlier events ([`extents`]), or it has been erased.

use bytes::{Buf, Bytes};

use crate::commitment::{self, Salt};
use crate::entry::{Content, DATA_PART, Entry, Outline, Part};
use crate::error::{Error, ErrorKind, Result};
use crate::extents::{self, NoSources, Piece, Sources};
use crate::frame::{FORM_ERASED, FORM_EXTENTS, FORM_LITERAL, FRAME_BYTES_MAX, Frame};
use crate::ids::Position;
use crate::store::RecordedEvent;

/// Where the content of a literal part begins: behind its form and its salt.
const LITERAL_AT: usize = 1 + Salt::LEN;

/// One event as it is stored: its checksum matched, nothing else is known of it yet.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    /// The entry, exactly as it was hashed.
    pub entry: Bytes,
    /// Salts and contents, in the order of the entry's parts.
    pub parts: Bytes,
}

/// One part of an event, its content found.
#[derive(Debug, Clone)]
pub enum StoredPart {
    /// Salt and content.
    Present(Salt, Bytes),
    /// Both have been erased.
    Erased,
}

impl StoredEvent {
    /// Decodes an event that refers to no other; see [`Self::decode_with`].
    pub fn decode(&self) -> Result<RecordedEvent> {
        self.decode_with(&mut NoSources)
    }

    /// Decodes the entry and finds the content of its parts. Commitments are not recomputed here:
    /// [`Self::check_commitments`] does, and `verify` calls it.
    pub fn decode_with(&self, sources: &mut dyn Sources) -> Result<RecordedEvent> {
        if let Some((outline, has_data)) = self.plain()? {
            let data = has_data.then(|| self.parts.slice(LITERAL_AT..));
            return Ok(outline.recorded(self.entry.clone(), data));
        }
        let entry = Entry::decode_shared(&self.entry)?;
        let parts = self.parts(&entry, sources)?;
        let mut event = entry.event;
        let mut erased = false;
        for (part, stored) in entry.parts.iter().zip(parts) {
            if part.name == DATA_PART {
                match stored {
                    StoredPart::Present(_, content) => event.data = Some(content),
                    StoredPart::Erased => erased = true,
                }
            }
        }
        Ok(RecordedEvent {
            log: entry.log,
            position: entry.position,
            version: entry.version,
            recorded: entry.recorded,
            event,
            erased,
            entry: self.entry.clone(),
        })
    }

    /// As [`Self::decode_with`], for an event that is not needed any more in this form.
    pub fn into_recorded(mut self, sources: &mut dyn Sources) -> Result<RecordedEvent> {
        let Some((outline, has_data)) = self.plain()? else { return self.decode_with(sources) };
        let data = has_data.then(|| {
            self.parts.advance(LITERAL_AT);
            self.parts
        });
        Ok(outline.recorded(self.entry, data))
    }

    /// The outline of its entry and whether it has data, if the event is of the common kind: no parts, or literal data
    /// and no other. Such an event is decoded without allocating.
    fn plain(&self) -> Result<Option<(Outline, bool)>> {
        let outline = Outline::of(&self.entry)?;
        match outline.content() {
            Content::None if self.parts.is_empty() => Ok(Some((outline, false))),
            Content::Data(length)
                if self.parts.first() == Some(&FORM_LITERAL)
                    && length.checked_add(LITERAL_AT as u64) == Some(self.parts.len() as u64) =>
            {
                Ok(Some((outline, true)))
            }
            _ => Ok(None),
        }
    }

    /// Finds the content of every part the entry names.
    pub fn parts(&self, entry: &Entry, sources: &mut dyn Sources) -> Result<Vec<StoredPart>> {
        let mut found = Vec::with_capacity(entry.parts.len());
        self.walk(entry, |part, form| {
            found.push(match form {
                PartForm::Erased => StoredPart::Erased,
                PartForm::Literal(salt, content) => StoredPart::Present(salt, content),
                PartForm::Pieces(salt, pieces, literal) => {
                    let (scope, length) = (part.scope.as_deref(), part.length as usize);
                    let content = extents::assemble(&pieces, &literal, length, &part.name, scope, sources)?;
                    StoredPart::Present(salt, content)
                }
            });
            Ok(())
        })?;
        Ok(found)
    }

    /// The bytes that stand literally with this event, for each part that is not erased: what later events can
    /// refer to, with the name and the scope of the part.
    ///
    /// # Errors
    /// What `each` answers, and `damaged` if the parts are not what the entry says.
    pub fn literals(
        &self,
        entry: &Entry,
        mut each: impl FnMut(&str, Option<&str>, Bytes) -> Result<()>,
    ) -> Result<()> {
        self.walk(entry, |part, form| match form {
            PartForm::Erased => Ok(()),
            PartForm::Literal(_, literal) | PartForm::Pieces(_, _, literal) => {
                each(&part.name, part.scope.as_deref(), literal)
            }
        })
    }

    /// The bytes that stand literally with this event, of the part with this name: what [`Sources::literals`] answers.
    ///
    /// # Errors
    /// `damaged` if there is no such part, or it belongs to another scope.
    pub fn literal_of(&self, part: &str, scope: Option<&str>) -> Result<Bytes> {
        let entry = Entry::decode(&self.entry)?;
        let mut found = None;
        self.literals(&entry, |name, of, literal| {
            if name == part && found.is_none() {
                found = Some((of == scope, literal));
            }
            Ok(())
        })?;
        match found {
            Some((true, literal)) => Ok(literal),
            Some((false, _)) => Err(Error::damaged(format!("its {part} belongs to another scope"))),
            None => Err(Error::damaged(format!("it has no {part}"))),
        }
    }

    /// The pieces and the literal bytes of every part, in the order of the entry; an erased one has none.
    pub(crate) fn pieces(
        &self,
        entry: &Entry,
        mut each: impl FnMut(&Part, &[Piece], Bytes) -> Result<()>,
    ) -> Result<()> {
        self.walk(entry, |part, form| match form {
            PartForm::Erased => each(part, &[], Bytes::new()),
            PartForm::Literal(_, literal) => each(part, &[Piece::Literal(literal.len())], literal),
            PartForm::Pieces(_, pieces, literal) => each(part, &pieces, literal),
        })
    }

    /// Takes the parts apart, in the order of the entry.
    fn walk(&self, entry: &Entry, mut each: impl FnMut(&Part, PartForm) -> Result<()>) -> Result<()> {
        let mut rest = self.parts.clone();
        let short = || Error::damaged("the parts of an event are shorter than its entry says");
        for part in &entry.parts {
            let form = *rest.first().ok_or_else(short)?;
            let _ = rest.split_to(1);
            if form == FORM_ERASED {
                each(part, PartForm::Erased)?;
                continue;
            }
            if form != FORM_LITERAL && form != FORM_EXTENTS {
                return Err(Error::new(
                    ErrorKind::UnsupportedFormat,
                    format!(
                        "a part stored in form {form}; this program reads forms {FORM_LITERAL}, {FORM_EXTENTS} and {FORM_ERASED}"
                    ),
                ));
            }
            let salt = rest.get(..Salt::LEN).ok_or_else(short)?;
            let salt = Salt(salt.try_into().expect("a salt has 32 bytes"));
            let _ = rest.split_to(Salt::LEN);
            if form == FORM_LITERAL {
                let length =
                    usize::try_from(part.length).ok().filter(|n| *n <= rest.len()).ok_or_else(short)?;
                each(part, PartForm::Literal(salt, rest.split_to(length)))?;
                continue;
            }
            if part.length > FRAME_BYTES_MAX as u64 {
                return Err(Error::damaged(format!("a part of {} bytes", part.length)));
            }
            let (pieces, list_len) = extents::pieces(&rest, entry.position, part.length)?;
            let _ = rest.split_to(list_len);
            let literal_len = extents::literal_len(&pieces);
            if literal_len > rest.len() {
                return Err(short());
            }
            each(part, PartForm::Pieces(salt, pieces, rest.split_to(literal_len)))?;
        }
        if !rest.is_empty() {
            return Err(Error::damaged(format!("{} bytes behind the parts of an event", rest.len())));
        }
        Ok(())
    }

    /// Recomputes the commitments of all parts that are still there.
    pub fn check_commitments(&self, entry: &Entry, sources: &mut dyn Sources) -> Result<()> {
        check_commitments(entry, &self.parts(entry, sources)?)
    }

    /// The same event with all its content literally, as it travels between stores.
    pub(crate) fn literal(&self, entry: &Entry, sources: &mut dyn Sources) -> Result<Self> {
        let mut parts = Vec::with_capacity(self.parts.len());
        for part in self.parts(entry, sources)? {
            match part {
                StoredPart::Present(salt, content) => put_literal(&salt, &content, &mut parts),
                StoredPart::Erased => parts.push(FORM_ERASED),
            }
        }
        Ok(Self { entry: self.entry.clone(), parts: parts.into() })
    }
}

/// What the events of a frame refer to, when the log ends before it: earlier events of the frame, and those that
/// `before` finds.
pub struct WithFrame<'a> {
    /// The frame.
    pub frame: &'a Frame,
    /// Where the literal bytes of the log before it are found.
    pub before: &'a mut dyn Sources,
}

impl Sources for WithFrame<'_> {
    fn literals(&mut self, position: Position, part: &str, scope: Option<&str>) -> Result<Bytes> {
        match position.0.checked_sub(self.frame.chained().first.0) {
            None => self.before.literals(position, part, scope),
            Some(index) if index < self.frame.len() as u64 => {
                self.frame.event(index as usize)?.literal_of(part, scope)
            }
            Some(_) => Err(Error::damaged(format!("there is no event at position {position} yet"))),
        }
    }
}

/// How a part is stored.
enum PartForm {
    Literal(Salt, Bytes),
    Pieces(Salt, Vec<Piece>, Bytes),
    Erased,
}

/// Compares the contents of an event's parts with the commitments in its entry.
pub(crate) fn check_commitments(entry: &Entry, parts: &[StoredPart]) -> Result<()> {
    for (part, stored) in entry.parts.iter().zip(parts) {
        if let StoredPart::Present(salt, content) = stored
            && commitment::commit(salt, content) != part.commitment
        {
            let name = &part.name;
            return Err(Error::damaged(format!("the {name} does not match its commitment in the entry")));
        }
    }
    Ok(())
}

/// Appends a part that is stored as it is.
pub(crate) fn put_literal(salt: &Salt, content: &[u8], out: &mut Vec<u8>) {
    out.push(FORM_LITERAL);
    out.extend_from_slice(&salt.0);
    out.extend_from_slice(content);
}
