//! Agent runs whose messages are OpenAI's, as events. `docs/import.md` has the mapping.
//!
//! A run is a JSON object with its messages under `traj` or `messages`, or the bare array of messages. What is
//! recorded is text cut out of the file: only white space outside of strings is left out, so numbers, escapes
//! and the order of members stay as they were written.
//!
//! *Invariant*: a run is checked whole before its first event is made, and the events depend on nothing but
//! the run, its place in the file and how often its task came before: importing again makes the same events.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use precedent::{Event, Tag};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Who says so: the import, since the file names no producer.
const SOURCE: &str = "urn:precedent:import:openai-messages";

/// Under which of these a run names its task, in the order of preference.
const TASK_NAMES: [&str; 4] = ["task_id", "run_id", "conversation_id", "id"];
/// Under which of these it has its messages.
const MESSAGES_NAMES: [&str; 2] = ["traj", "messages"];
/// What belongs to every request of the run, if it is there.
const REQUEST_NAMES: [&str; 4] = ["model", "tools", "functions", "parallel_tool_calls"];

/// How often each task came without the number of its trial.
#[derive(Default)]
pub(super) struct Trials(HashMap<String, u64>);

impl Trials {
    fn next(&mut self, task: &str) -> u64 {
        let count = self.0.entry(task.to_owned()).or_default();
        *count += 1;
        *count - 1
    }
}

/// Where an event comes from.
pub(super) struct Place {
    run: u64,
    stream: Arc<str>,
    message: Option<usize>,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "run {} ({})", self.run, self.stream)?;
        self.message.map_or(Ok(()), |message| write!(f, ", message {message}"))
    }
}

/// One run, ready to be told as events.
pub(super) struct Run {
    index: u64,
    stream: Arc<str>,
    task: String,
    trial: String,
    messages: Vec<Message>,
    /// Members of every request besides the messages, each with a comma in front.
    request_rest: String,
    outcome: Option<String>,
    passed_over: Vec<String>,
    /// The message whose turn it is; one past the last is the outcome.
    next: usize,
    /// The messages before it, joined by commas.
    before: String,
    /// The first message after the last one of the assistant.
    unanswered: usize,
    /// By tool call id, the latest: who called, and the call.
    calls: HashMap<String, (usize, String)>,
}

enum Role {
    Asks,
    Assistant { calls: Vec<(String, String)> },
    Tool { call_id: Option<String>, name: Option<String> },
}

struct Message {
    role: Role,
    /// Without the white space between its tokens.
    json: String,
}

impl Run {
    /// Reads one run, the one of this index in the file.
    pub(super) fn parse(json: &[u8], index: u64, trials: &mut Trials) -> Result<Self, String> {
        let not_json = |error: serde_json::Error| format!("not the JSON of a run: {error}");
        let value: &RawValue = serde_json::from_slice(json).map_err(not_json)?;
        let mut members: Vec<(String, &RawValue)> = match value.get().as_bytes().first() {
            Some(b'[') => vec![("messages".to_owned(), value)],
            Some(b'{') => object(value.get())?,
            _ => return Err(format!("'{}' is not a run: expected an object", shown(value.get()))),
        };
        if members.iter().any(|(name, _)| name == "role") {
            return Err("this is a message, not a run: expected an object with 'traj' or 'messages'".into());
        }
        let mut take = |names: &[&str]| take(&mut members, names);
        let messages = take(&MESSAGES_NAMES).ok_or("it has neither 'traj' nor 'messages'")?;
        let messages = messages_of(messages.get())?;
        let task = match take(&TASK_NAMES) {
            Some(task) => name_of(task.get()).map_err(|e| format!("its task id is {e}"))?,
            None => index.to_string(),
        };
        let trial = match take(&["trial"]) {
            Some(trial) => name_of(trial.get()).map_err(|e| format!("its trial is {e}"))?,
            None => trials.next(&task).to_string(),
        };
        let outcome = take(&["reward"]).map(|reward| {
            let info =
                take(&["info"]).map_or(String::new(), |info| format!(",\"info\":{}", compact(info.get())));
            format!("{{\"reward\":{}{info}}}", compact(reward.get()))
        });
        let request_rest = REQUEST_NAMES
            .iter()
            .filter_map(|name| Some(format!(",\"{name}\":{}", compact(take(&[name])?.get()))))
            .collect();
        let last_answer = messages.iter().rposition(|m| matches!(m.role, Role::Assistant { .. }));
        Ok(Self {
            index,
            stream: format!("run/{}/{}", in_path(&task), in_path(&trial)).into(),
            task,
            trial,
            request_rest,
            outcome,
            passed_over: members.into_iter().map(|(name, _)| name).collect(),
            next: 0,
            before: String::new(),
            unanswered: last_answer.map_or(0, |at| at + 1),
            messages,
            calls: HashMap::new(),
        })
    }

    /// The names of the members that no event holds.
    pub(super) fn take_passed_over(&mut self) -> Vec<String> {
        std::mem::take(&mut self.passed_over)
    }

    /// The next event, and the message it comes from.
    pub(super) fn next_event(&mut self) -> Option<(precedent::Result<Event>, Place)> {
        loop {
            let at = self.next;
            self.next += 1;
            if at == self.messages.len() {
                let outcome = self.outcome.take()?;
                let event = self.event(at, "outcome", "ai.outcome.observed", outcome, None, None);
                return Some((event, self.place(None)));
            }
            let message = self.messages.get(at)?;
            let event = match &message.role {
                Role::Asks if at >= self.unanswered => {
                    let data = format!("{{\"message\":{}}}", message.json);
                    Some(self.event(at, "input", "ai.input.received", data, None, None))
                }
                Role::Asks => None,
                Role::Assistant { .. } => {
                    let data = format!(
                        "{{\"request\":{{\"messages\":[{}]{}}},\"response\":{}}}",
                        self.before, self.request_rest, message.json
                    );
                    Some(self.event(at, "model", "ai.model.called", data, None, None))
                }
                Role::Tool { call_id, name } => {
                    let call = call_id.as_ref().and_then(|id| self.calls.get(id));
                    let data = match call {
                        Some((_, call)) => format!("{{\"call\":{call},\"result\":{}}}", message.json),
                        None => format!("{{\"result\":{}}}", message.json),
                    };
                    let caller = call.map(|(caller, _)| *caller);
                    Some(self.event(at, "tool", "ai.tool.called", data, name.as_deref(), caller))
                }
            };
            self.pass(at);
            if let Some(event) = event {
                return Some((event, self.place(Some(at))));
            }
        }
    }

    /// Makes the message one of those before the next.
    fn pass(&mut self, at: usize) {
        let message = &self.messages[at];
        if !self.before.is_empty() {
            self.before.push(',');
        }
        self.before.push_str(&message.json);
        if let Role::Assistant { calls } = &message.role {
            self.calls.extend(calls.iter().map(|(id, call)| (id.clone(), (at, call.clone()))));
        }
    }

    fn place(&self, message: Option<usize>) -> Place {
        Place { run: self.index, stream: self.stream.clone(), message }
    }

    fn event(
        &self,
        at: usize,
        kind: &str,
        event_type: &str,
        data: String,
        tool: Option<&str>,
        caller: Option<usize>,
    ) -> precedent::Result<Event> {
        let stream = &self.stream;
        let mut event = Event::builder(SOURCE, format!("{stream}/{at}/{kind}"), event_type)
            .stream(&**stream)
            .tags([("task", &*self.task), ("trial", &*self.trial)].into_iter().filter_map(|(k, v)| tag(k, v)))
            .tags(tool.and_then(|tool| tag("tool", tool)))
            .datacontenttype("application/json")
            .data(data);
        if let Some(caller) = caller {
            event = event.attribute("causationid", format!("{stream}/{caller}/model"));
        }
        event.build()
    }
}

/// Takes out the member with the first of these names that is there; null is as good as none.
fn take<'a>(members: &mut Vec<(String, &'a RawValue)>, names: &[&str]) -> Option<&'a RawValue> {
    let found = names.iter().find_map(|name| members.iter().position(|(other, _)| other == name))?;
    Some(members.remove(found).1).filter(|value| value.get() != "null")
}

/// The tag, unless its value cannot be one: it is a convenience, the data has everything.
fn tag(key: &str, value: &str) -> Option<Tag> {
    (!value.chars().any(char::is_control)).then(|| Tag::new(key, value).ok()).flatten()
}

/// Members of an object in their order; none stands twice.
fn object(json: &str) -> Result<Vec<(String, &RawValue)>, String> {
    struct Members<'a>(Vec<(String, &'a RawValue)>);
    impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl<'de> serde::de::Visitor<'de> for Visitor {
                type Value = Members<'de>;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("a run: a JSON object")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(
                    self,
                    mut map: A,
                ) -> Result<Self::Value, A::Error> {
                    let mut members: Vec<(String, &'de RawValue)> = Vec::new();
                    while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                        if members.iter().any(|(other, _)| *other == name) {
                            let twice = format!("'{}' stands twice", shown(&name));
                            return Err(serde::de::Error::custom(twice));
                        }
                        members.push((name, value));
                    }
                    Ok(Members(members))
                }
            }
            deserializer.deserialize_map(Visitor)
        }
    }
    let Members(members) =
        serde_json::from_str(json).map_err(|error| format!("not the JSON of a run: {error}"))?;
    Ok(members)
}

fn messages_of(json: &str) -> Result<Vec<Message>, String> {
    let messages: Vec<&RawValue> =
        serde_json::from_str(json).map_err(|_| "its messages are not a list".to_owned())?;
    let parse = |(index, message): (usize, &&RawValue)| {
        message_of(message.get()).map_err(|error| format!("message {index}: {error}"))
    };
    messages.iter().enumerate().map(parse).collect()
}

#[derive(Deserialize)]
struct MessageJson<'a> {
    #[serde(borrow)]
    role: Option<Cow<'a, str>>,
    #[serde(borrow)]
    tool_calls: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    function_call: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_call_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct CallJson<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
}

/// Where calls from before there were ids are kept: a run has one of them open at a time.
const CALL_WITHOUT_ID: &str = "";

fn message_of(json: &str) -> Result<Message, String> {
    if !json.starts_with('{') {
        return Err(format!("'{}' is not a message: expected an object", shown(json)));
    }
    let message: MessageJson<'_> = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let owned = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned);
    let role = match message.role.as_deref() {
        Some("system" | "developer" | "user") => Role::Asks,
        Some("assistant") => {
            let mut calls = Vec::new();
            for call in message.tool_calls.unwrap_or_default() {
                let parsed: CallJson<'_> = serde_json::from_str(call.get())
                    .map_err(|_| format!("'{}' is not a tool call", shown(call.get())))?;
                calls.extend(parsed.id.map(|id| (id.into_owned(), compact(call.get()))));
            }
            if let Some(call) = message.function_call {
                let call = format!("{{\"type\":\"function\",\"function\":{}}}", compact(call.get()));
                calls.push((CALL_WITHOUT_ID.to_owned(), call));
            }
            Role::Assistant { calls }
        }
        Some("tool") => Role::Tool { call_id: owned(message.tool_call_id), name: owned(message.name) },
        Some("function") => {
            Role::Tool { call_id: Some(CALL_WITHOUT_ID.to_owned()), name: owned(message.name) }
        }
        Some(other) => {
            return Err(format!(
                "the role '{}' is not known: expected system, developer, user, assistant, tool or function",
                shown(other)
            ));
        }
        None => return Err("it has no 'role'".into()),
    };
    Ok(Message { role, json: compact(json) })
}

/// A whole number or text that names something, as it was written.
fn name_of(json: &str) -> Result<String, String> {
    let name = match json.as_bytes().first() {
        Some(b'"') => serde_json::from_str(json).unwrap_or_default(),
        Some(b'-' | b'0'..=b'9') if !json.contains(['.', 'e', 'E']) => json.to_owned(),
        _ => String::new(),
    };
    match name.is_empty() {
        true => Err(format!("'{}', expected text or a whole number", shown(json))),
        false => Ok(name),
    }
}

/// A name as one segment of a path, so that no two runs can have the same stream.
fn in_path(name: &str) -> Cow<'_, str> {
    let special = |c: char| c == '/' || c == '%' || c.is_control();
    if !name.contains(special) {
        return Cow::Borrowed(name);
    }
    let mut out = String::with_capacity(name.len() + 8);
    for c in name.chars() {
        match special(c) {
            true => c.encode_utf8(&mut [0; 4]).bytes().for_each(|b| out.push_str(&format!("%{b:02X}"))),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// JSON without the white space between its tokens; nothing else changes.
fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut in_string, mut escape) = (false, false);
    // Pieces are copied whole: they end at ASCII characters, so never inside another one.
    let mut copied = 0;
    for (at, byte) in json.bytes().enumerate() {
        if in_string {
            match byte {
                _ if escape => escape = false,
                b'\\' => escape = true,
                b'"' => in_string = false,
                _ => {}
            }
        } else if byte == b'"' {
            in_string = true;
        } else if byte.is_ascii_whitespace() {
            out.push_str(&json[copied..at]);
            copied = at + 1;
        }
    }
    out.push_str(&json[copied..]);
    out
}

/// The beginning of a stranger's text, for a message.
fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(48).collect();
    if out.len() < text.len() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(json: &str) -> Vec<Event> {
        let mut run = Run::parse(json.as_bytes(), 7, &mut Trials::default()).unwrap();
        std::iter::from_fn(|| run.next_event()).map(|(event, _)| event.unwrap()).collect()
    }

    fn told(json: &str) -> Vec<(String, String, String)> {
        let text = |event: &Event| String::from_utf8(event.data().unwrap().to_vec()).unwrap();
        events(json).iter().map(|e| (e.event_type().to_owned(), e.id().to_owned(), text(e))).collect()
    }

    const RUN: &str = r#"{ "task_id": 3, "trial": 1, "reward": 1.0, "info": {"n": 1e2}, "traj": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a  b"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "c", "function": {"name": "f", "arguments": "{}"}, "type": "function"}]},
        {"role": "tool", "tool_call_id": "c", "name": "f", "content": "1.50"},
        {"role": "assistant", "content": "done"},
        {"role": "user", "content": "\u0041 ###STOP###"} ] }"#;

    #[test]
    fn every_turn_is_an_event_with_all_it_was_given_as_it_was_written() {
        let told = told(RUN);
        let call = r#"{"id":"c","function":{"name":"f","arguments":"{}"},"type":"function"}"#;
        let asked = r#"{"role":"system","content":"s"},{"role":"user","content":"a  b"}"#;
        let answered = format!(r#"{{"role":"assistant","content":null,"tool_calls":[{call}]}}"#);
        let result = r#"{"role":"tool","tool_call_id":"c","name":"f","content":"1.50"}"#;
        let event = |event_type: &str, place: &str, data: String| {
            (event_type.to_owned(), format!("run/3/1/{place}"), data)
        };
        assert_eq!(
            told,
            [
                event(
                    "ai.model.called",
                    "2/model",
                    format!(r#"{{"request":{{"messages":[{asked}]}},"response":{answered}}}"#)
                ),
                event("ai.tool.called", "3/tool", format!(r#"{{"call":{call},"result":{result}}}"#)),
                event(
                    "ai.model.called",
                    "4/model",
                    format!(
                        r#"{{"request":{{"messages":[{asked},{answered},{result}]}},"response":{{"role":"assistant","content":"done"}}}}"#
                    )
                ),
                event(
                    "ai.input.received",
                    "5/input",
                    r#"{"message":{"role":"user","content":"\u0041 ###STOP###"}}"#.into()
                ),
                event("ai.outcome.observed", "6/outcome", r#"{"reward":1.0,"info":{"n":1e2}}"#.into()),
            ]
        );
        let events = events(RUN);
        assert_eq!(events[1].attribute("causationid"), Some("run/3/1/2/model"));
        let tags: Vec<&str> = events[1].tags().iter().map(Tag::as_str).collect();
        assert_eq!(tags, ["task=3", "trial=1", "tool=f"]);
        assert!(events.iter().all(|e| e.stream() == Some("run/3/1") && e.source() == SOURCE));
    }

    #[test]
    fn a_repeated_tool_call_id_means_the_latest_call() {
        let json = r#"[{"role":"assistant","tool_calls":[{"id":"c","n":1}]},{"role":"tool","tool_call_id":"c"},
            {"role":"assistant","tool_calls":[{"id":"c","n":2}]},{"role":"tool","tool_call_id":"c"},
            {"role":"tool","tool_call_id":"other"}]"#;
        let data: Vec<String> =
            told(json).into_iter().filter(|(t, ..)| t == "ai.tool.called").map(|(.., data)| data).collect();
        assert!(data[0].starts_with(r#"{"call":{"id":"c","n":1}"#), "{}", data[0]);
        assert!(data[1].starts_with(r#"{"call":{"id":"c","n":2}"#), "{}", data[1]);
        assert!(data[2].starts_with(r#"{"result":"#), "{}", data[2]);
    }

    #[test]
    fn other_ways_to_write_a_run_are_understood() {
        let first = |json: &str| events(json)[0].id().to_owned();
        assert_eq!(first(r#"{"messages":[{"role":"user"}]}"#), "run/7/0/0/input");
        assert_eq!(first(r#"{"id":"a/b","messages":[{"role":"user"}]}"#), "run/a%2Fb/0/0/input");
        assert_eq!(first(r#"{"task_id":"t","trial":"x","traj":[],"reward":true}"#), "run/t/x/0/outcome");
        let mut trials = Trials::default();
        let json = br#"{"task_id":1,"messages":[]}"#;
        let streams: Vec<_> =
            (0..2).map(|i| Run::parse(json, i, &mut trials).unwrap().stream.to_string()).collect();
        assert_eq!(streams, ["run/1/0", "run/1/1"]);
        let model = r#"{"model":"m","tools":[ ],"messages":[{"role":"assistant"}]}"#;
        assert!(told(model)[0].2.starts_with(r#"{"request":{"messages":[],"model":"m","tools":[]},"#));
        let function =
            r#"[{"role":"assistant","function_call":{"name":"f"}},{"role":"function","name":"f"}]"#;
        assert!(told(function)[1].2.starts_with(r#"{"call":{"type":"function","function":{"name":"f"}},"#));
    }

    #[test]
    fn what_is_no_run_is_refused_with_what_is_wrong() {
        for (json, says) in [
            ("7", "'7' is not a run"),
            ("{", "not the JSON"),
            ("{}", "neither 'traj' nor 'messages'"),
            (r#"{"role":"user","content":"x"}"#, "a message, not a run"),
            (r#"{"traj":{}}"#, "not a list"),
            (r#"{"traj":[1]}"#, "message 0: '1' is not a message"),
            (r#"{"traj":[{"role":"user"},{"content":"x"}]}"#, "message 1: it has no 'role'"),
            (r#"{"traj":[{"role":"robot"}]}"#, "'robot'"),
            (r#"{"traj":[{"role":7}]}"#, "message 0"),
            (r#"{"traj":[{"role":"assistant","tool_calls":[7]}]}"#, "'7' is not a tool call"),
            (r#"{"traj":[],"task_id":1.5}"#, "task id is '1.5'"),
            (r#"{"traj":[],"trial":{}}"#, "trial is '{}'"),
            (r#"{"traj":[],"traj":[]}"#, "twice"),
        ] {
            let error = Run::parse(json.as_bytes(), 0, &mut Trials::default()).err().unwrap();
            assert!(error.contains(says), "{json}: {error}");
        }
    }

    #[test]
    fn compact_json_differs_in_nothing_but_white_space() {
        let json = "{ \"a b\" :\t[ 1.50 , \"\\\" ]\\\\\" ,\n\"ä  €\" ] }";
        assert_eq!(compact(json), "{\"a b\":[1.50,\"\\\" ]\\\\\",\"ä  €\"]}");
    }

    #[test]
    fn no_file_makes_the_reader_panic_or_run_for_ever() {
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut below = |n: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % n as u64) as usize
        };
        for _ in 0..3_000 {
            let mut file = format!("[{RUN},\n{RUN}]").into_bytes();
            for _ in 0..=below(4) {
                let at = below(file.len().max(1));
                match below(3) {
                    _ if file.len() < 2 => break,
                    0 => file[at] = b"{}[]\",:\\\n 0a\xff"[below(13)],
                    1 => drop(file.remove(at)),
                    _ => file.truncate(at.max(1)),
                }
            }
            let length = file.len();
            let mut values = crate::json_values::JsonValues::new(&file[..], 1 << 16);
            let (mut count, mut trials) = (0, Trials::default());
            while let Ok(Some(value)) = values.next_value() {
                count += 1;
                assert!(count <= length, "more values than bytes");
                let Ok(mut run) = Run::parse(&value.bytes, count as u64, &mut trials) else { continue };
                while let Some((event, _)) = run.next_event() {
                    if let Ok(event) = event {
                        serde_json::from_slice::<serde_json::Value>(event.data().unwrap()).unwrap();
                    }
                }
            }
        }
    }
}
