//! The one way from captured content to an event: masked, then named by what it is, then built.
//!
//! Nothing that capture records is built anywhere else, so a rule of [`Rules`] applies to everything or to nothing.

use precedent_core::{AttributeValue, Event, Limits, Result, Tag};
use sha2::{Digest, Sha256};

use crate::redact::{Form, Redacted, Rules};

/// The longest stream name, id and type.
const NAME_BYTES_MAX: usize = Limits::new(precedent_core::Durability::None).name_bytes_max as usize;
const TAG_BYTES_MAX: usize = Limits::new(precedent_core::Durability::None).tag_bytes_max as usize;

/// An event before it is masked and named.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) source: String,
    /// What stands before the hash of the data in the event's id.
    pub(crate) name: String,
    pub(crate) event_type: &'static str,
    pub(crate) stream: Option<String>,
    pub(crate) time: Option<String>,
    pub(crate) media_type: &'static str,
    pub(crate) schema: &'static str,
    pub(crate) tags: Vec<(&'static str, String)>,
    pub(crate) attributes: Vec<(&'static str, AttributeValue)>,
    pub(crate) data: Vec<u8>,
    pub(crate) form: Form,
    /// What was masked before, in content that stands in the data in another form.
    pub(crate) redacted: Redacted,
}

/// Masks, names and builds. The id is `<name>-<16 hexadecimal digits of the SHA-256 of the data>`: the same content has the
/// same id however often and in whatever company it is sent.
///
/// # Errors
/// `invalid` if an attribute cannot stand in an event; a defect of whoever made the draft.
pub(crate) fn seal(draft: Draft, rules: &Rules) -> Result<Event> {
    let Draft { mut data, mut redacted, .. } = draft;
    rules.mask(&mut data, draft.form, &mut redacted);
    let mut masked = |mut text: String| {
        rules.text(&mut text, &mut redacted);
        text
    };
    let name = masked(draft.name);
    let source = masked(draft.source);
    let stream = draft.stream.map(&mut masked);
    let tags: Vec<(&str, String)> = draft.tags.into_iter().map(|(key, value)| (key, masked(value))).collect();
    let attributes: Vec<(&str, AttributeValue)> = draft
        .attributes
        .into_iter()
        .map(|(name, value)| match value {
            AttributeValue::String(text) => (name, masked(text).into()),
            value => (name, value),
        })
        .collect();
    let mut event = Event::builder(source, format!("{name}-{}", hash(&data)), draft.event_type)
        .datacontenttype(draft.media_type)
        .dataschema(draft.schema);
    if let Some(stream) = stream {
        event = event.stream(stream);
    }
    if let Some(time) = draft.time {
        event = event.time(time);
    }
    event = event.tags(tags.iter().filter_map(|(key, value)| tag(key, value)));
    for (name, value) in attributes {
        event = event.attribute(name, value);
    }
    if redacted.total() > 0 {
        let total = i32::try_from(redacted.total()).unwrap_or(i32::MAX);
        event =
            event.attribute("redacted", total).attribute("redactedby", shortened(&redacted.summary(), 1_024));
    }
    event.data(data).build()
}

/// The first 16 hexadecimal digits of the SHA-256.
pub(crate) fn hash(data: &[u8]) -> String {
    Sha256::digest(data)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A tag, if the value can be one: what a stranger sends must not keep an event from being recorded.
fn tag(key: &str, value: &str) -> Option<Tag> {
    if value.is_empty() || !is_clean(value) || key.len() + 1 + value.len() > TAG_BYTES_MAX {
        return None;
    }
    Tag::new(key, value).ok()
}

/// The stream `<kind>/<id>`, if that can name one.
pub(crate) fn stream(kind: &str, id: &str) -> Option<String> {
    let name = format!("{kind}/{id}");
    (!id.is_empty() && name.len() <= NAME_BYTES_MAX && is_clean(id)).then_some(name)
}

/// Whether CloudEvents allows all characters of a text in an attribute.
pub(crate) fn is_clean(text: &str) -> bool {
    let forbidden =
        |c: char| c.is_control() || (c as u32 & 0xfffe) == 0xfffe || ('\u{fdd0}'..='\u{fdef}').contains(&c);
    !text.contains(forbidden)
}

/// At most so many bytes of a text, whole characters.
pub(crate) fn shortened(text: &str, bytes_max: usize) -> String {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// A source: a relative URI of these parts, percent-encoded.
pub(crate) fn source(kind: &str, name: Option<&str>) -> String {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    const KEPT: &percent_encoding::AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    match name.map(|name| shortened(name, 256)).filter(|name| !name.is_empty()) {
        Some(name) => format!("{kind}/{}", utf8_percent_encode(&name, KEPT)),
        None => kind.to_owned(),
    }
}
