//! Cuts a request at its spans and records, at the level of bytes.

use std::sync::Arc;

use precedent_core::{Error, Result};

use super::decode::{Record, Resource, ScopeInfo};
use super::{Encoding, Signal};
use crate::json;
use crate::wire::{Fields, Wire, bytes_len, put_bytes, put_head};

/// The fields of a request, of what it holds for a resource, and of what that holds for a scope: in all three
/// signals the list has these numbers.
const RESOURCES: u32 = 1;
const SCOPES: u32 = 2;
const RECORDS: u32 = 2;

/// What stands around the records of one scope: everything of the request but other resources, scopes and records.
#[derive(Debug)]
struct Around {
    /// What a resource has beside its scopes, as bytes that the list of scopes can follow. Shared: a resource can
    /// be large and its scopes many.
    resource: Arc<Vec<u8>>,
    /// What a scope has beside its records, likewise.
    scope: Vec<u8>,
}

/// One span, log record or metric, as it stands in its request.
#[derive(Debug, Clone)]
pub struct Item<'a> {
    signal: Signal,
    encoding: Encoding,
    raw: &'a [u8],
    around: Arc<Around>,
    resource: Arc<Resource>,
    scope: Arc<ScopeInfo>,
}

impl<'a> Item<'a> {
    /// The record's own bytes.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// How it is written down.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// What the resource says of itself.
    pub fn resource(&self) -> &Arc<Resource> {
        &self.resource
    }

    /// Reads the record. What cannot be read in it is marked, and its bytes stay.
    pub fn record(&self) -> Record {
        Record::read(self.signal, self.encoding, self.raw, self.resource.clone(), self.scope.clone())
    }

    /// How many bytes [`data`](Self::data) has, about.
    pub fn data_len(&self) -> usize {
        self.raw.len() + self.around.resource.len() + self.around.scope.len() + 64
    }

    /// A request that holds this record alone, with its resource and scope: all their bytes as they came.
    pub fn data(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.data_len());
        let around = &self.around;
        match self.encoding {
            Encoding::Protobuf => {
                let scope_len = around.scope.len() + bytes_len(RECORDS, self.raw.len());
                let resource_len = around.resource.len() + bytes_len(SCOPES, scope_len);
                put_head(RESOURCES, resource_len, &mut out);
                out.extend_from_slice(&around.resource);
                put_head(SCOPES, scope_len, &mut out);
                out.extend_from_slice(&around.scope);
                put_bytes(RECORDS, self.raw, &mut out);
            }
            Encoding::Json => {
                let [resources, scopes, records] = self.signal.json_names();
                let mut list = |name: &str, before: &[u8]| {
                    out.push(b'{');
                    out.extend_from_slice(before);
                    if !before.is_empty() {
                        out.push(b',');
                    }
                    out.extend_from_slice(format!("\"{name}\":[").as_bytes());
                };
                list(resources, b"");
                list(scopes, &around.resource);
                list(records, &around.scope);
                out.extend_from_slice(self.raw);
                out.extend_from_slice(b"]}]}]}");
            }
        }
        out
    }
}

/// Refuses a body that is no request: broken off, not protobuf, not JSON, or of another shape. Answers how many
/// records it has. Nothing is allocated for what it holds.
///
/// # Errors
/// `invalid`, with what is wrong and where.
pub fn check(signal: Signal, encoding: Encoding, body: &[u8]) -> Result<u64> {
    match encoding {
        Encoding::Protobuf => check_protobuf(body),
        Encoding::Json => check_json(signal, body),
    }
}

fn check_protobuf(body: &[u8]) -> Result<u64> {
    let mut records = 0;
    for field in Fields::new(body) {
        let field = field?;
        let Some(resource) = list_item(field.number, field.value, RESOURCES, "the list of resources")? else {
            continue;
        };
        for field in Fields::new(resource) {
            let field = field?;
            let Some(scope) = list_item(field.number, field.value, SCOPES, "the list of scopes")? else {
                continue;
            };
            for field in Fields::new(scope) {
                let field = field?;
                if let Some(record) = list_item(field.number, field.value, RECORDS, "the list of records")? {
                    Fields::new(record).try_for_each(|field| field.map(drop))?;
                    records += 1;
                }
            }
        }
    }
    Ok(records)
}

fn list_item<'a>(number: u32, value: Wire<'a>, wanted: u32, what: &str) -> Result<Option<&'a [u8]>> {
    match value {
        Wire::Bytes(bytes) if number == wanted => Ok(Some(bytes)),
        _ if number == wanted => {
            Err(Error::invalid(format!("{what} holds a number where a message belongs")))
        }
        _ => Ok(None),
    }
}

fn check_json(signal: Signal, body: &[u8]) -> Result<u64> {
    let text = std::str::from_utf8(body)
        .map_err(|e| Error::invalid(format!("the JSON is not UTF-8 at byte {}", e.valid_up_to())))?;
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        return Err(Error::invalid(format!("the body is not JSON: {error}")));
    }
    let [resources, scopes, records] = signal.json_names();
    let mut count = 0;
    for resource in list(text, resources)? {
        for scope in list(resource, scopes)? {
            for record in list(scope, records)? {
                object(record, records)?;
                count += 1;
            }
        }
    }
    Ok(count)
}

fn object<'a>(value: &'a str, what: &str) -> Result<&'a str> {
    match value.trim_ascii_start().starts_with('{') {
        true => Ok(value),
        false => Err(Error::invalid(format!("'{what}' holds something else than objects"))),
    }
}

fn list<'a>(of: &'a str, name: &str) -> Result<json::Elements<'a>> {
    match json::member(object(of, name)?, name) {
        None | Some("null") => Ok(json::elements("[]")),
        Some(list) if list.starts_with('[') => Ok(json::elements(list)),
        Some(_) => Err(Error::invalid(format!("'{name}' is no list"))),
    }
}

/// Goes through a request that [`check`] has found to be one.
pub fn items(signal: Signal, encoding: Encoding, body: &[u8]) -> Items<'_> {
    let resources = match encoding {
        Encoding::Protobuf => Level::Protobuf(Fields::new(body), RESOURCES),
        Encoding::Json => Level::json(text(body), signal.json_names()[0]),
    };
    Items {
        signal,
        encoding,
        resources,
        resource: None,
        scopes: Level::None,
        scope: None,
        records: Level::None,
    }
}

/// Text that was checked before.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// One of the three nested lists.
#[derive(Debug)]
enum Level<'a> {
    None,
    Protobuf(Fields<'a>, u32),
    Json(json::Elements<'a>),
}

impl<'a> Level<'a> {
    fn json(of: &'a str, name: &str) -> Self {
        Self::Json(json::elements(json::member(of, name).unwrap_or("[]")))
    }

    fn next(&mut self) -> Option<&'a [u8]> {
        match self {
            Self::None => None,
            Self::Json(elements) => elements.next().map(str::as_bytes),
            Self::Protobuf(fields, number) => fields.find_map(|field| {
                let field = field.ok()?;
                field.value.bytes().filter(|_| field.number == *number)
            }),
        }
    }
}

/// The records of a request, in their order.
#[derive(Debug)]
pub struct Items<'a> {
    signal: Signal,
    encoding: Encoding,
    resources: Level<'a>,
    resource: Option<(Arc<Vec<u8>>, Arc<Resource>)>,
    scopes: Level<'a>,
    scope: Option<(Arc<Around>, Arc<ScopeInfo>)>,
    records: Level<'a>,
}

impl<'a> Items<'a> {
    /// The bytes beside a list, in their order.
    fn beside(&self, message: &'a [u8], number: u32, name: &str) -> Vec<u8> {
        let mut out = Vec::new();
        match self.encoding {
            Encoding::Protobuf => {
                for field in Fields::new(message).flatten().filter(|field| field.number != number) {
                    out.extend_from_slice(field.raw);
                }
            }
            Encoding::Json => {
                for (member, value) in json::members(text(message)).filter(|(member, _)| member != name) {
                    if !out.is_empty() {
                        out.push(b',');
                    }
                    out.extend_from_slice(json::Json::text(&member).as_str().as_bytes());
                    out.push(b':');
                    out.extend_from_slice(value.as_bytes());
                }
            }
        }
        out
    }

    fn level(&self, message: &'a [u8], number: u32, name: &str) -> Level<'a> {
        match self.encoding {
            Encoding::Protobuf => Level::Protobuf(Fields::new(message), number),
            Encoding::Json => Level::json(text(message), name),
        }
    }

    /// Steps to the next scope that has a record, or to the end.
    fn step(&mut self) -> Option<&'a [u8]> {
        let [_, scopes, records] = self.signal.json_names();
        loop {
            if let Some(raw) = self.records.next() {
                return Some(raw);
            }
            if let (Some(scope), Some((beside, _))) = (self.scopes.next(), &self.resource) {
                let around = Around { resource: beside.clone(), scope: self.beside(scope, RECORDS, records) };
                self.scope = Some((Arc::new(around), Arc::new(ScopeInfo::read(self.encoding, scope))));
                self.records = self.level(scope, RECORDS, records);
                continue;
            }
            let resource = self.resources.next()?;
            let beside = self.beside(resource, SCOPES, scopes);
            self.resource = Some((Arc::new(beside), Arc::new(Resource::read(self.encoding, resource))));
            self.scopes = self.level(resource, SCOPES, scopes);
        }
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        let raw = self.step()?;
        let ((around, scope), (_, resource)) = (self.scope.clone()?, self.resource.as_ref()?);
        let (signal, encoding, resource) = (self.signal, self.encoding, resource.clone());
        Some(Item { signal, encoding, raw, around, resource, scope })
    }
}
