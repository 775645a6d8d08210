//! A read as a body: page by page from the store, in the form that was asked for.
//!
//! [`Pager`] walks through the pages and waits at the end if the read follows; [`respond`] writes them. A
//! body that cannot be completed is broken off, never ended as if it were complete.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use precedent_core::cloudevents::{self, Shape};
use precedent_core::store::beyond;
use precedent_core::wire::{self, ReadRequest};
use precedent_core::{
    Damage, Direction, Error, ErrorKind, LogName, Page, Position, Read, RecordedEvent, Result,
};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::app::{App, Room, blocking};
use crate::problem::Problem;

/// Events of a page in the native shape, if no limit is given.
pub(crate) const LIMIT_DEFAULT: usize = 1_000;

/// How long an event stream is silent before a comment shows that it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Bytes of events a page, and a piece of a body, are meant to have: what a slow reader pins in memory.
const PAGE_BYTES: usize = 1 << 20;
/// Bytes after which a binary page ends, which is where an embedded store ends its own.
const BINARY_BYTES: usize = 4 << 20;
/// Bytes that an answer takes at most before it is known how many: a page ends with the event that takes it
/// beyond 4 MiB, and an event has up to 15 MiB, which are written as 20 MiB of base64.
pub(crate) const ANSWER_BYTES_MAX: usize = 45 << 20;
/// Events in a page at most, and in the first one, when their size is not known yet.
const PAGE_EVENTS_MAX: usize = 1_000;
const PAGE_EVENTS_FIRST: usize = 16;

/// The forms in which events are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// CloudEvents, one a line.
    Lines,
    /// A JSON array of CloudEvents.
    Batch,
    /// `{"events":[…],"next":…,"size":…,"damaged":[…]}`.
    Native,
    /// Server-sent events.
    EventStream,
    /// One page, its entries as their exact bytes.
    Binary,
}

/// Every form with its media type; the first is given where anything is accepted.
pub(crate) const FORMS: [(&str, Form); 5] = [
    ("application/x-ndjson", Form::Lines),
    ("application/cloudevents-batch+json", Form::Batch),
    ("application/json", Form::Native),
    ("text/event-stream", Form::EventStream),
    (wire::EVENTS_MEDIA_TYPE, Form::Binary),
];

impl Form {
    /// The form an `Accept` header prefers: the highest quality, and of equals the first one named in full.
    pub(crate) fn accepted<'a>(headers: impl Iterator<Item = &'a HeaderValue>) -> Result<Self, Problem> {
        let mut best: Option<((f32, bool), Self)> = None;
        let mut any = true;
        for value in headers {
            let text = value.to_str().map_err(|_| Error::invalid("the Accept header is not ASCII text"))?;
            for range in text.split(',').map(str::trim).filter(|range| !range.is_empty()) {
                any = false;
                let mut fields = range.split(';').map(str::trim);
                let essence = fields.next().unwrap_or("").to_ascii_lowercase();
                let quality = fields.find_map(|f| f.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse().ok());
                let quality: f32 = quality
                    .ok_or_else(|| Error::invalid("the Accept header has a quality that is not a number"))?;
                let form = match essence.as_str() {
                    "*/*" => Some(Self::Lines),
                    "application/*" => Some(Self::Lines),
                    "text/*" => Some(Self::EventStream),
                    _ => FORMS.iter().find(|(name, _)| *name == essence).map(|(_, form)| *form),
                };
                let rank = (quality, !essence.ends_with('*'));
                if let Some(form) = form
                    && quality > 0.0
                    && best.is_none_or(|(best, _)| rank > best)
                {
                    best = Some((rank, form));
                }
            }
        }
        match best {
            Some((_, form)) => Ok(form),
            None if any => Ok(Self::Lines),
            None => {
                let names: Vec<&str> = FORMS.iter().map(|(name, _)| *name).collect();
                Err(Problem::http("not_acceptable", format!("events can be given as {}", names.join(", "))))
            }
        }
    }

    fn media_type(self) -> &'static str {
        FORMS.iter().find(|(_, form)| *form == self).map_or("", |(name, _)| name)
    }
}

/// Walks through the pages of a read.
struct Pager {
    app: Arc<App>,
    log: LogName,
    read: Read,
    follow: bool,
    /// Events still wanted.
    left: Option<usize>,
    /// The size of the log the first page was read from: a read that does not follow ends there.
    seen: Option<u64>,
    page_events: usize,
    done: bool,
    /// The room of the page that was read last; nobody who waits holds any.
    room: Option<Room>,
}

impl Pager {
    /// The next page; `None` at the end. A follower waits here, at most `patience` if there is one.
    async fn next(&mut self, patience: Option<Duration>) -> Result<Next> {
        if self.done || (self.left == Some(0) && self.seen.is_some()) {
            return Ok(Next::End);
        }
        self.room = None;
        self.room = Some(self.app.answer_room(ANSWER_BYTES_MAX).await?);
        self.read.limit = Some(self.left.map_or(self.page_events, |left| left.min(self.page_events)));
        let page = blocking(self.app.store.read(&self.log, &self.read)).await?;
        let piece = page.events.iter().map(written_max).max().unwrap_or_default() + PAGE_BYTES;
        if let Some(room) = &mut self.room {
            room.keep(page.events.iter().map(size_of_event).sum::<usize>() + piece);
        }
        // A long search with few matches must not keep others, or the news that the client has gone, waiting.
        tokio::task::yield_now().await;
        let size = *self.seen.get_or_insert(page.size);
        if !self.follow && self.read.direction == Direction::Forward {
            // Later pages may see a longer log; this read ends where the first page saw the end.
            let end = Position(size);
            self.read.before = Some(self.read.before.map_or(end, |before| before.min(end)));
        }
        self.left = self.left.map(|left| left.saturating_sub(page.events.len()));
        self.adapt(&page);
        match page.next {
            Some(covered) => self.go_on(covered),
            None if self.follow => {
                let ended = self.read.before.is_some_and(|before| before.0 <= page.size);
                if ended {
                    self.done = true;
                } else if page.size > 0 {
                    self.read = std::mem::take(&mut self.read).continued(Position(page.size - 1));
                    self.read.at_least = None;
                }
                if !ended && page.events.is_empty() && page.damaged.is_empty() {
                    return self.wait(page.size, patience).await;
                }
            }
            None => self.done = true,
        }
        Ok(Next::Page(page))
    }

    fn go_on(&mut self, covered: Position) {
        let forward = self.read.direction == Direction::Forward;
        self.done = match forward {
            true => self.read.before.is_some_and(|before| covered.0 + 1 >= before.0),
            false => covered.0 == 0,
        };
        self.read = std::mem::take(&mut self.read).continued(covered);
        self.read.at_least = None;
    }

    /// Asks for as many events a page as make about [`PAGE_BYTES`].
    fn adapt(&mut self, page: &Page) {
        let bytes: usize = page.events.iter().map(size_of_event).sum();
        if let Some(average) = bytes.checked_div(page.events.len()) {
            self.page_events = (PAGE_BYTES / average.max(1)).clamp(1, PAGE_EVENTS_MAX);
        }
    }

    async fn wait(&mut self, size: u64, patience: Option<Duration>) -> Result<Next> {
        self.room = None;
        let patience = async {
            match patience {
                Some(time) => tokio::time::sleep(time).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            grown = self.app.store.grown(&self.log, size) => grown.map(|_| Next::Grown),
            () = self.app.stopped() => Ok(Next::Stopping),
            () = patience => Ok(Next::Quiet),
        }
    }
}

/// Bytes of an answer with what they take up, which is given back when they have been sent.
pub(crate) fn held<T: Send + 'static>(bytes: Vec<u8>, taken: T) -> Bytes {
    struct Held<T> {
        bytes: Vec<u8>,
        _taken: T,
    }
    impl<T> AsRef<[u8]> for Held<T> {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    Bytes::from_owner(Held { bytes, _taken: taken })
}

/// Bytes an event takes in memory, near enough: its entry is there twice, as bytes and decoded.
pub(crate) fn size_of_event(event: &RecordedEvent) -> usize {
    2 * event.entry.len() + event.event.data().map_or(0, Bytes::len)
}

/// Bytes of the JSON of an event at most: data as base64, every byte of an attribute escaped, and the names.
pub(crate) fn written_max(event: &RecordedEvent) -> usize {
    event.event.data().map_or(0, Bytes::len).div_ceil(3) * 4 + 6 * event.entry.len() + 1_024
}

enum Next {
    Page(Page),
    /// There is more to read now.
    Grown,
    /// Nothing came for as long as the caller was ready to wait.
    Quiet,
    /// The server stops.
    Stopping,
    End,
}

/// Where a body stands.
struct Writer {
    pager: Pager,
    form: Form,
    first: Option<Page>,
    /// Events of the last page that are still to be written.
    pending: std::vec::IntoIter<RecordedEvent>,
    /// Whether an event has been written, so that the next one needs a comma.
    written: bool,
    began: bool,
    ended: bool,
    damaged: Vec<Damage>,
    next: Option<Position>,
    size: u64,
    /// Damage that breaks the body off once the events before it have been sent.
    failed: Option<Error>,
    /// What the events still to be written, and the piece made of them, take.
    room: Option<Arc<Room>>,
    /// Ends when the last piece has been dropped, which is when it has gone out.
    sent: Option<oneshot::Receiver<()>>,
    _permit: OwnedSemaphorePermit,
}

/// Answers a read. What is wrong with it from the start is a problem; what goes wrong later breaks the body off.
pub(crate) async fn respond(
    app: Arc<App>,
    log: LogName,
    request: ReadRequest,
    form: Form,
) -> Result<Response, Problem> {
    let permit = app.admit_stream()?;
    let ReadRequest { mut read, follow } = request;
    if follow && matches!(form, Form::Batch | Form::Native | Form::Binary) {
        return Err(Error::invalid(format!(
            "'follow' and {} contradict each other: only application/x-ndjson and text/event-stream can go on",
            form.media_type()
        ))
        .into());
    }
    if form == Form::Binary {
        return binary_page(&app, &log, &mut read, permit).await;
    }
    if form == Form::Native && read.limit.is_none() {
        read.limit = Some(LIMIT_DEFAULT);
    }
    let left = read.limit;
    let mut pager = Pager {
        app: app.clone(),
        log,
        read,
        follow,
        left,
        seen: None,
        page_events: PAGE_EVENTS_FIRST,
        done: false,
        room: None,
    };
    // A follower that has nothing to read yet is answered at once and waits in its body.
    let first = match pager.next(Some(Duration::ZERO)).await? {
        Next::Page(page) => Some(page),
        _ => None,
    };
    let size = pager.seen.unwrap_or_default();
    let writer = Writer {
        pager,
        form,
        first,
        pending: Vec::new().into_iter(),
        written: false,
        began: false,
        ended: false,
        damaged: Vec::new(),
        next: None,
        size,
        failed: None,
        room: None,
        sent: None,
        _permit: permit,
    };
    let body = stream::try_unfold(writer, |mut writer| async move {
        match writer.chunk().await {
            Ok(Some(chunk)) => Ok(Some((chunk, writer))),
            Ok(None) => Ok(None),
            Err(error) => {
                writer.pager.app.metrics.streams_aborted.fetch_add(1, Ordering::Relaxed);
                writer.sent().await;
                Err(io::Error::other(error))
            }
        }
    });
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(form.media_type()));
    Ok(response)
}

async fn binary_page(
    app: &App,
    log: &LogName,
    read: &mut Read,
    permit: OwnedSemaphorePermit,
) -> Result<Response, Problem> {
    let mut room = app.answer_room(ANSWER_BYTES_MAX).await?;
    let mut page = blocking(app.store.read(log, read)).await?;
    cut(&mut page, read.direction, BINARY_BYTES);
    let events: usize = page.events.iter().map(|e| size_of_event(e) + 8).sum();
    let damaged: usize = page.damaged.iter().map(|d| d.error.message().len() + 13).sum();
    room.keep(2 * events + damaged + 64);
    let mut out = Vec::with_capacity(events + damaged + 64);
    wire::begin_events(&mut out);
    page.events.iter().for_each(|event| wire::write_event(event, &mut out));
    page.damaged.iter().for_each(|damage| wire::write_damage(damage, &mut out));
    wire::end_events(page.next, page.size, &mut out);
    drop(page);
    room.keep(out.capacity());
    app.metrics.event_bytes_sent.fetch_add(out.len() as u64, Ordering::Relaxed);
    let mut response = Response::new(Body::from(held(out, (room, permit))));
    let media_type = HeaderValue::from_static(Form::Binary.media_type());
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    Ok(response)
}

/// Ends a page behind the event that makes it `bytes_max` long: a store may give longer ones.
fn cut(page: &mut Page, direction: Direction, bytes_max: usize) {
    let mut bytes = 0;
    let full = page.events.iter().position(|event| {
        bytes += size_of_event(event);
        bytes >= bytes_max
    });
    let Some(last) = full.filter(|full| full + 1 < page.events.len()) else { return };
    let covered = page.events[last].position;
    page.events.truncate(last + 1);
    page.damaged.retain(|damage| match direction {
        Direction::Forward => damage.position < covered,
        Direction::Backward => damage.position > covered,
    });
    page.next = Some(covered);
}

impl Writer {
    /// Waits until the last piece has gone out. A body has one piece in memory, and an error would overtake it
    /// and take it along.
    async fn sent(&mut self) {
        if let Some(sent) = self.sent.take() {
            // Nothing is ever said, only dropped. A client that takes nothing is let go, and the body with it.
            let _ = sent.await;
            tokio::task::yield_now().await;
        }
    }

    /// The next piece of the body; `None` at its end.
    async fn chunk(&mut self) -> Result<Option<Bytes>> {
        self.sent().await;
        if self.ended {
            return Ok(None);
        }
        let mut out = Vec::new();
        if !self.began {
            self.began = true;
            out.extend_from_slice(match self.form {
                Form::Batch => b"[",
                Form::Native => b"{\"events\":[",
                Form::EventStream => b": precedent\n\n",
                Form::Lines | Form::Binary => b"",
            });
        }
        loop {
            self.events(&mut out);
            if self.pending.len() > 0 || (!out.is_empty() && self.first.is_none()) {
                break;
            }
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            let patience = (self.form == Form::EventStream).then_some(KEEP_ALIVE);
            let next = match self.first.take() {
                Some(page) => Next::Page(page),
                None => {
                    self.room = None;
                    self.pager.next(patience).await?
                }
            };
            match next {
                Next::Page(page) => self.page(page),
                Next::Grown => {}
                Next::Quiet => out.extend_from_slice(b": \n\n"),
                Next::Stopping => {
                    // Without a bound, following never is complete, and ending it says nothing false.
                    if self.pager.left.is_some() || self.pager.read.before.is_some() {
                        return Err(Error::new(ErrorKind::Stopped, "the server stops"));
                    }
                    self.ended = true;
                    return Ok(None);
                }
                Next::End => {
                    self.end(&mut out);
                    if out.is_empty() {
                        return Ok(None);
                    }
                }
            }
        }
        self.pager.app.metrics.event_bytes_sent.fetch_add(out.len() as u64, Ordering::Relaxed);
        let (going, sent) = oneshot::channel::<()>();
        self.sent = Some(sent);
        let mut room = self.room.clone();
        if self.pending.len() == 0 {
            // The events are written: from now on only the piece takes room.
            self.room = None;
            if let Some(room) = room.as_mut().and_then(Arc::get_mut) {
                room.keep(out.capacity());
            }
        }
        Ok(Some(held(out, (room, going))))
    }

    /// Takes over a page: what is written of it, and whether the body is broken off behind that.
    fn page(&mut self, page: Page) {
        self.next = page.next.filter(|_| !self.pager.done);
        let (mut events, mut damaged) = (page.events, page.damaged);
        if self.form == Form::Native {
            self.damaged.append(&mut damaged);
        }
        let backward = self.pager.read.direction == Direction::Backward;
        let first_damage = match backward {
            false => damaged.into_iter().min_by_key(|d| d.position),
            true => damaged.into_iter().max_by_key(|d| d.position),
        };
        if let Some(damage) = first_damage {
            events.retain(|event| match backward {
                false => event.position < damage.position,
                true => event.position > damage.position,
            });
            self.failed = Some(damage.error);
        }
        self.pending = events.into_iter();
        self.room = self.pager.room.take().map(Arc::new);
    }

    /// Writes events of the page until the piece has its length. Its memory is taken at once and not grown.
    fn events(&mut self, out: &mut Vec<u8>) {
        let (mut count, mut bytes) = (0, 0);
        for event in self.pending.as_slice() {
            if bytes >= PAGE_BYTES {
                break;
            }
            bytes += written_max(event);
            count += 1;
        }
        out.reserve_exact(bytes);
        for _ in 0..count {
            if let Some(event) = self.pending.next() {
                self.event(&event, out);
            }
        }
    }

    fn event(&mut self, event: &RecordedEvent, out: &mut Vec<u8>) {
        let comma = std::mem::replace(&mut self.written, true);
        match self.form {
            Form::Lines => {
                cloudevents::write_event(event, Shape::CloudEvents, out);
                out.push(b'\n');
            }
            Form::EventStream => {
                out.extend_from_slice(format!("id: {}\ndata: ", event.position).as_bytes());
                cloudevents::write_event(event, Shape::CloudEvents, out);
                out.extend_from_slice(b"\n\n");
            }
            Form::Batch | Form::Native | Form::Binary => {
                if comma {
                    out.push(b',');
                }
                let shape = if self.form == Form::Batch { Shape::CloudEvents } else { Shape::Native };
                cloudevents::write_event(event, shape, out);
            }
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.ended = true;
        match self.form {
            Form::Batch => out.push(b']'),
            Form::Native => {
                let damaged: Vec<_> = self
                    .damaged
                    .iter()
                    .map(|d| json!({"position": d.position, "detail": d.error.message()}))
                    .collect();
                let next = json!(self.next);
                let damaged = json!(damaged);
                let tail = format!("],\"next\":{next},\"size\":{},\"damaged\":{damaged}}}", self.size);
                out.extend_from_slice(tail.as_bytes());
            }
            Form::Lines | Form::EventStream | Form::Binary => {}
        }
    }
}

/// The event at `position`.
pub(crate) async fn event_at(app: &App, log: &LogName, position: Position) -> Result<RecordedEvent> {
    let read = Read {
        after: position.0.checked_sub(1).map(Position),
        before: position.0.checked_add(1).map(Position),
        limit: Some(1),
        ..Read::default()
    };
    // A position beyond the end is refused by its own number, not by that of the one before it.
    let size = app.store.head(log).await?.size;
    if position.0 >= size {
        return Err(beyond(position, size));
    }
    let mut page = blocking(app.store.read(log, &read)).await?;
    if let Some(damage) = page.damaged.pop() {
        return Err(damage.error);
    }
    page.events.pop().ok_or_else(|| beyond(position, page.size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(value: &str) -> Result<Form, Problem> {
        Form::accepted([HeaderValue::from_str(value).unwrap()].iter())
    }

    #[test]
    fn the_form_is_the_one_most_wanted() {
        assert_eq!(Form::accepted([].iter()).unwrap(), Form::Lines);
        for (accept, form) in [
            ("*/*", Form::Lines),
            ("application/json", Form::Native),
            ("text/html, application/json;q=0.9, */*;q=0.1", Form::Native),
            ("application/json;q=0.2, text/event-stream", Form::EventStream),
            ("Application/CloudEvents-Batch+JSON; charset=utf-8", Form::Batch),
            ("text/html, */*;q=0.8", Form::Lines),
            ("*/*, application/json", Form::Native),
            ("application/vnd.precedent.events", Form::Binary),
        ] {
            assert_eq!(accepted(accept).unwrap(), form, "{accept}");
        }
        assert!(accepted("text/html").is_err());
        assert!(accepted("application/json;q=0").is_err());
        assert!(accepted("application/json;q=much").is_err());
    }
}
