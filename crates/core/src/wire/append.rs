//! Appends: the JSON that is sent by hand, and the binary form.

use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::query::{condition_json, condition_of, is_null, list, unknown};
use super::{APPEND_LENGTH_BYTES, APPENDS_MAX, DATA_NONE, DATA_PRESENT, limits, take, take_sized};
use crate::cloudevents::{self, AtMost, Bounded, Name, Shape};
use crate::entry::{ENTRY_BYTES_MAX, entry_bytes_max, envelope_len, parse_attributes, put_attributes};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::query::Condition;
use crate::store::Append;

const MAGIC: &[u8; 4] = b"PRA1";

fn events_list() -> AtMost {
    AtMost { max: limits().batch_events_max, what: "events" }
}

fn events_of(list: &Bounded<'_>, shape: Shape) -> Result<Vec<Event>> {
    let max = limits().batch_events_max;
    if list.count > max {
        return Err(Error::limit("the batch", list.count, max, "events"));
    }
    let parse = |(index, event): (usize, &&RawValue)| {
        cloudevents::parse_event(event.get().as_bytes(), shape)
            .map_err(|e| e.context(format!("event {index}")))
    };
    list.items.iter().enumerate().map(parse).collect()
}

/// Reads a CloudEvents JSON batch that is to be appended: no more events than one append can have.
pub fn parse_batch(json: &[u8]) -> Result<Vec<Event>> {
    let bad = |e: serde_json::Error| Error::invalid(format!("not a JSON batch of CloudEvents: {e}"));
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let list = events_list().deserialize(&mut deserializer).map_err(bad)?;
    deserializer.end().map_err(bad)?;
    events_of(&list, Shape::CloudEvents)
}

/// The two members of an append. Events are many and large: they are found in the one pass over the body.
struct AppendJson<'a> {
    events: Bounded<'a>,
    conditions: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> serde::Deserialize<'de> for AppendJson<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AppendVisitor;
        impl<'de> Visitor<'de> for AppendVisitor {
            type Value = AppendJson<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with 'events'")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut events, mut conditions) = (None, None);
                while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
                    let again = match &*name {
                        "events" => events.replace(map.next_value_seed(events_list())?).is_some(),
                        "conditions" => conditions.replace(map.next_value::<&RawValue>()?).is_some(),
                        _ => {
                            let error = unknown(&name, "an append", "'events' and 'conditions'");
                            return Err(serde::de::Error::custom(error.message()));
                        }
                    };
                    if again {
                        return Err(serde::de::Error::custom(format!("'{name}' stands twice")));
                    }
                }
                let events = events.ok_or_else(|| serde::de::Error::custom("'events' is missing"))?;
                Ok(AppendJson { events, conditions })
            }
        }
        deserializer.deserialize_map(AppendVisitor)
    }
}

/// Reads an append: `{"events":[…],"conditions":[…]}`.
pub fn parse_append(json: &[u8]) -> Result<Append> {
    let append: AppendJson<'_> = serde_json::from_slice(json)
        .map_err(|e| Error::invalid(format!("not the JSON of an append: {e}")))?;
    let conditions = append.conditions.map_or(Ok(Vec::new()), conditions_of)?;
    Ok(Append { events: events_of(&append.events, Shape::Native)?, conditions })
}

fn conditions_of(conditions: &RawValue) -> Result<Vec<Condition>> {
    if is_null(conditions) {
        return Ok(Vec::new());
    }
    let list = list(conditions, "conditions", "the list of conditions", limits().conditions_max)?;
    let parse = |(index, condition): (usize, &&RawValue)| {
        condition_of(condition).map_err(|e| e.context(format!("condition {index}")))
    };
    list.iter().enumerate().map(parse).collect()
}

/// Writes an append in binary form.
pub fn write_append(append: &Append) -> Vec<u8> {
    /// About what the attributes of an event take.
    const ENVELOPE_BYTES: usize = 256;
    let data: usize = append.events.iter().map(|event| event.data().map_or(0, Bytes::len)).sum();
    let mut out = Vec::with_capacity(data + ENVELOPE_BYTES * (append.events.len() + 1));
    out.extend_from_slice(MAGIC);
    put_sized(&mut out, |out| {
        if !append.conditions.is_empty() {
            let conditions: Vec<Value> = append.conditions.iter().map(condition_json).collect();
            out.extend_from_slice(Value::from(conditions).to_string().as_bytes());
        }
    });
    for event in &append.events {
        put_sized(&mut out, |out| match entry_bytes_max(envelope_len(event)) <= ENTRY_BYTES_MAX {
            true => put_attributes(event, out),
            // More than an entry can hold: whoever keeps the limits says so.
            false => cloudevents::write_new_envelope(event, Shape::Native, out),
        });
        out.push(if event.data().is_some() { DATA_PRESENT } else { DATA_NONE });
        if let Some(data) = event.data() {
            put_sized(&mut out, |out| out.extend_from_slice(data));
        }
    }
    out
}

/// Appends what `put` appends, behind its length.
fn put_sized(out: &mut Vec<u8>, put: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    put(out);
    let len = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&len.to_le_bytes());
}

/// Reads an append in binary form. The data of its events shares the memory of `body`.
pub fn parse_binary_append(mut body: Bytes) -> Result<Append> {
    let max = limits().batch_events_max;
    if take(&mut body, 4).is_none_or(|magic| magic[..] != MAGIC[..]) {
        return Err(Error::invalid("no append in binary form begins here"));
    }
    let conditions = take_sized(&mut body).ok_or_else(|| cut_off("the list of conditions"))?;
    let conditions = match conditions.is_empty() {
        true => Vec::new(),
        false => conditions_of(
            serde_json::from_slice(&conditions)
                .map_err(|e| Error::invalid(format!("the list of conditions is not JSON: {e}")))?,
        )?,
    };
    let (mut events, mut count) = (Vec::new(), 0);
    while !body.is_empty() {
        let cut = || cut_off(&format!("event {count}"));
        let attributes = take_sized(&mut body).ok_or_else(cut)?;
        let data = match take(&mut body, 1).ok_or_else(cut)?[0] {
            DATA_NONE => None,
            DATA_PRESENT => Some(take_sized(&mut body).ok_or_else(cut)?),
            other => return Err(Error::invalid(format!("event {count}: data of kind {other}"))),
        };
        if count < max {
            let event = with_data(&attributes, data).map_err(|e| e.context(format!("event {count}")))?;
            events.push(event);
        }
        count += 1;
    }
    match count > max {
        true => Err(Error::limit("the batch", count, max, "events")),
        false => Ok(Append { events, conditions }),
    }
}

/// Puts appends in binary form together, each as [`write_append`] wrote it.
pub fn join_appends<'a>(appends: impl Iterator<Item = &'a [u8]> + Clone) -> Vec<u8> {
    let bytes = appends.clone().map(|append| APPEND_LENGTH_BYTES + append.len()).sum();
    let mut out = Vec::with_capacity(bytes);
    for append in appends {
        put_sized(&mut out, |out| out.extend_from_slice(append));
    }
    out
}

/// Takes several appends in binary form apart; each is yet to be [read](parse_binary_append).
///
/// # Errors
/// `invalid` if there is none, or the last is cut off; `limit_exceeded` if there are more than [`APPENDS_MAX`].
pub fn split_appends(mut body: Bytes) -> Result<Vec<Bytes>> {
    let mut appends = Vec::new();
    while !body.is_empty() {
        let append = take_sized(&mut body).ok_or_else(|| cut_off(&format!("append {}", appends.len())))?;
        appends.push(append);
        check_appends(appends.len())?;
    }
    match appends.is_empty() {
        true => Err(Error::invalid("no append stands in the body")),
        false => Ok(appends),
    }
}

/// Refuses more than [`APPENDS_MAX`].
pub fn check_appends(count: usize) -> Result<()> {
    match count > APPENDS_MAX {
        true => Err(Error::limit("the list of appends", count as u64, APPENDS_MAX as u64, "appends")),
        false => Ok(()),
    }
}

fn with_data(attributes: &Bytes, data: Option<Bytes>) -> Result<Event> {
    /// A map in CBOR begins with these bits.
    const MAP: u8 = 0b101;
    let mut event = match attributes.first().is_some_and(|first| first >> 5 == MAP) {
        true => parse_attributes(attributes)?,
        false => cloudevents::parse_event(attributes, Shape::Native)?,
    };
    if event.data.is_some() {
        return Err(Error::invalid("data stands among the attributes; in binary form it stands behind them"));
    }
    event.data = data;
    Ok(event)
}

fn cut_off(what: &str) -> Error {
    Error::invalid(format!("an append in binary form that ends in the middle of {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::event::Tag;
    use crate::ids::Position;
    use crate::query::{ExpectedVersion, Query};
    use crate::wire::query;
    use proptest::prelude::*;

    /// An append as other programs write it.
    fn append_json(append: &Append) -> Vec<u8> {
        let mut out = b"{\"events\":[".to_vec();
        for (index, event) in append.events.iter().enumerate() {
            out.extend_from_slice(if index > 0 { b"," } else { b"" });
            cloudevents::write_new_event(event, Shape::Native, &mut out);
        }
        let conditions: Value = append.conditions.iter().map(condition_json).collect();
        out.extend_from_slice(format!("],\"conditions\":{conditions}}}").as_bytes());
        out
    }

    #[test]
    fn data_in_a_binary_append_is_any_bytes_and_none_and_empty_are_different() {
        let event = |id: &str| Event::builder("s", id, "t").stream("x").tag("k", "v");
        let data = Bytes::from((0..=255u8).cycle().take(100_000).collect::<Vec<_>>());
        let append = Append::new(vec![
            event("1").build().unwrap(),
            event("2").data("").build().unwrap(),
            event("3").data(data.clone()).datacontenttype("text/plain").build().unwrap(),
            event("4").attribute("stream", "mine").attribute("data1", 7).build().unwrap(),
        ]);
        let again = parse_binary_append(write_append(&append).into()).unwrap();
        assert_eq!(again.events, append.events);
        assert_eq!(again.events[2].data(), Some(&data));
        assert!(again.conditions.is_empty());
    }

    #[test]
    fn a_binary_append_that_is_cut_off_or_not_one_says_so_and_names_the_event() {
        let event = |id: &str| Event::builder("s", id, "t").data("[1]").build().unwrap();
        let append = Append::new(vec![event("1"), event("2")]).when(Condition::stream_is_new("x"));
        let bytes = write_append(&append);
        let mut whole = 0;
        for cut in 0..bytes.len() {
            match parse_binary_append(Bytes::copy_from_slice(&bytes[..cut])) {
                // Between two events there is nothing to be seen of the rest: who sends it says how long it is.
                Ok(part) => whole += part.events.len() + 1,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Invalid, "cut at {cut}"),
            }
        }
        assert_eq!(whole, 3, "it can end before an event, and nowhere else");
        let refused = |bytes: &[u8], says: &str| {
            let error = parse_binary_append(Bytes::copy_from_slice(bytes)).unwrap_err();
            assert!(error.message().contains(says), "{error}");
        };
        refused(b"{\"events\":[]}", "no append in binary form");
        refused(&bytes[..bytes.len() - 1], "in the middle of event 1");
        refused(b"PRA1\x09\0\0\0[]", "in the middle of the list of conditions");
        refused(b"PRA1\x02\0\0\0{}", "'conditions' is an object");
        refused(b"PRA1\0\0\0\0\x02\0\0\0{}\x02", "event 0: data of kind 2");
        refused(b"PRA1\0\0\0\0\x02\0\0\0{}\x00", "event 0: the attribute 'id' is missing");
        let mut inside = b"PRA1\0\0\0\0".to_vec();
        put_sized(&mut inside, |out| {
            out.extend_from_slice(br#"{"id":"i","source":"s","type":"t","data":1}"#)
        });
        inside.push(DATA_NONE);
        refused(&inside, "event 0: data stands among the attributes");
        let mut many = b"PRA1\0\0\0\0".to_vec();
        let one = write_append(&Append::from(event("1")))[8..].to_vec();
        (0..10_002).for_each(|_| many.extend_from_slice(&one));
        let error = parse_binary_append(many.into()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        assert!(error.message().contains("10002") && error.message().contains("10000"), "{error}");
    }

    #[test]
    fn attributes_of_a_binary_append_are_json_or_cbor_and_mean_the_same() {
        let sent = |attributes: &[u8]| {
            let mut body = b"PRA1\0\0\0\0".to_vec();
            put_sized(&mut body, |out| out.extend_from_slice(attributes));
            body.push(DATA_NONE);
            parse_binary_append(body.into())
        };
        let event = Event::builder("urn:s", "1", "ai.decision.made")
            .stream("loan/1")
            .time("2026-11-22T10:00:00+01:00")
            .datacontenttype("text/plain")
            .dataschema("urn:schema")
            .tag("model", "risk-7")
            .attribute("zebra", 7)
            .attribute("ab", true)
            .attribute("dataperson", "ü")
            .build()
            .unwrap();
        let (mut json, mut cbor) = (Vec::new(), Vec::new());
        cloudevents::write_new_envelope(&event, Shape::Native, &mut json);
        put_attributes(&event, &mut cbor);
        assert_eq!(sent(&json).unwrap().events, std::slice::from_ref(&event));
        assert_eq!(sent(&cbor).unwrap().events, [event]);

        for cut in 0..cbor.len() {
            assert_eq!(sent(&cbor[..cut]).unwrap_err().kind(), ErrorKind::Invalid, "cut at {cut}");
        }
        let refused = |attributes: &[u8], says: &str| {
            let error = sent(attributes).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            assert!(error.message().contains("event 0") && error.message().contains(says), "{error}");
        };
        refused(&[&cbor[..], b"\0"].concat(), "bytes behind");
        refused(b"\xa2\x04\x61t\x05\xa1\x62id\x61i", "no source");
        refused(b"\xa2\x04\x61t\x05\xa2\x62id\x60\x66source\x61s", "'id' is empty");
        refused(b"\xa2\x04\x61t\x05\xa2\x66source\x61s\x62id\x61i", "out of order");
        refused(b"\xa2\x04\x61t\x05\xa3\x62ID\x61i\x62id\x61i\x66source\x61s", "'ID' cannot name");
        refused(b"\xa3\x04\x61t\x05\xa2\x62id\x61i\x66source\x61s\x06\x81\x61t", "not a tag");
        refused(b"\xa3\x04\x61t\x05\xa2\x62id\x61i\x66source\x61s\x06\x80", "an empty list of tags");
        // Nothing is made of more tags or attributes than an event can have.
        let event = |tags: usize, attributes: usize| {
            let event =
                Event::builder("s", "i", "t").tags((0..tags).map(|n| Tag::new("k", &n.to_string()).unwrap()));
            let add = |event: crate::EventBuilder, n: usize| event.attribute(format!("a{n}"), true);
            let mut out = Vec::new();
            put_attributes(&(0..attributes).fold(event, add).build().unwrap(), &mut out);
            out
        };
        assert!(sent(&event(128, 1_020)).is_ok());
        for (attributes, counted) in [(event(129, 0), "129 tags"), (event(0, 1_022), "1025 members")] {
            let error = sent(&attributes).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
            assert!(error.message().contains(counted), "{error}");
        }
        // What no entry can hold goes over too, to be refused by the limit it breaks.
        let long = Event::builder("s", "i", "t").attribute("long", "x".repeat(70_000)).build().unwrap();
        assert_eq!(
            parse_binary_append(write_append(&Append::from(long.clone())).into()).unwrap().events,
            [long]
        );
    }

    #[test]
    fn an_append_comes_back_as_it_was() {
        let event = Event::builder("s", "i", "t").attribute("stream", "a").attribute("precedentlog", "b");
        let append = Append::from(event.stream("x").data(vec![0, 1]).build().unwrap())
            .when(Condition::stream_is_new("x"))
            .when(Condition::stream_at("y", 7))
            .when(Condition::Stream { stream: "z".into(), expected: ExpectedVersion::Any })
            .when(Condition::fail_if(query::tests::sample(), None))
            .when(Condition::fail_if(Query::all(), Some(Position(4))));
        for again in [parse_append(&append_json(&append)), parse_binary_append(write_append(&append).into())]
        {
            let again = again.unwrap();
            assert_eq!((&again.events, &again.conditions), (&append.events, &append.conditions));
        }
    }

    #[test]
    fn what_nobody_could_mean_is_refused_by_name() {
        for (bad, says) in [
            ("[]", "append"),
            ("{}", "events"),
            (r#"{"events":[],"condition":[]}"#, "condition"),
            (r#"{"events":[7]}"#, "event 0"),
            (r#"{"events":[],"conditions":{}}"#, "'conditions' is an object"),
            (r#"{"events":[],"conditions":[{}]}"#, "condition 0"),
            (r#"{"events":[],"conditions":[{"stream":"s"}]}"#, "'version' is missing"),
            (r#"{"events":[],"conditions":[{"stream":"s","version":-1}]}"#, "-1"),
            (r#"{"events":[],"conditions":[{"stream":"s","version":1,"after":1}]}"#, "condition 0"),
            (r#"{"events":[],"conditions":[{"fail_if":{"item":[]}}]}"#, "'item'"),
            (r#"{"events":[],"conditions":[{"fail_if":{"items":[{"type":"t"}]}}]}"#, "query item 0: 'type'"),
            (r#"{"events":[],"conditions":[{"fail_if":{"items":[]},"after":"x"}]}"#, "'after'"),
        ] {
            let error = parse_append(bad.as_bytes()).unwrap_err();
            assert!(error.message().contains(says), "{bad}: {error}");
        }
        let many = format!("{{\"events\":[{}0]}}", "0,".repeat(10_000));
        let error = parse_append(many.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        assert!(error.message().contains("10001") && error.message().contains("10000"), "{error}");
    }

    #[test]
    fn lists_are_read_no_further_than_their_limits_and_counted_to_their_end() {
        let many = |element: &str, n: usize| vec![element; n].join(",");
        let event = r#"{"id":"i","source":"s","type":"t"}"#;
        for (bad, numbers) in [
            (format!(r#"{{"events":[{event}],"conditions":[{}]}}"#, many("{}", 65)), ["65", "64"]),
            (
                format!(r#"{{"events":[],"conditions":[{{"fail_if":{{"items":[{}]}}}}]}}"#, many("[]", 300)),
                ["300", "256"],
            ),
            (
                format!(r#"{{"events":[{{"id":"i","source":"s","type":"t","tags":[{}]}}]}}"#, many("7", 500)),
                ["500", "128"],
            ),
            (
                format!(
                    r#"{{"events":[{{"id":"i","source":"s","type":"t","tags":"{}"}}]}}"#,
                    many("a=b", 129)
                ),
                ["129", "128"],
            ),
        ] {
            let error = parse_append(bad.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
            assert!(numbers.iter().all(|n| error.message().contains(n)), "{error}");
        }
    }

    #[test]
    fn an_append_is_an_object_and_no_message_names_this_program_s_types() {
        for bad in
            [r#"[[],[]]"#, "7", r#"{"events":7}"#, r#"{"events":[[]]}"#, r#"{"events":[],"events":[]}"#]
        {
            let error = parse_append(bad.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            for name in ["Json", "struct", "Append", "Bounded", "Members", "RawValue"] {
                assert!(!error.message().contains(name), "{error}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_append(&bytes);
            let _ = parse_binary_append([&b"PRA1\0\0\0\0"[..], &bytes].concat().into());
        }
    }
}
