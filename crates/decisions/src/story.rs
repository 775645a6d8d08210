//! A record as people read it: lines, each with its position, the same on a terminal and in a page.
//!
//! No line is shortened here and nothing escaped: whoever shows a line does both. A line is [`Line::detail`] if a reader asks for it
//! rather than reads it.

use std::borrow::Cow;

use precedent_capture::json::{self, Json};
use precedent_capture::view::{Activity, CallError, Message, Missing, ModelCall, Part, ToolCall};
use precedent_core::Position;

use crate::key::By;
use crate::record::{Content, Record, Said, Step, StepKind, Sum, duration_us, first_output_us, shortened};

/// Characters of a title.
const TITLE_CHARS: usize = 300;

/// What a line is, for colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Recorded content.
    Content,
    /// What is said about it.
    About,
    /// What a reader has to know: an error, something missing, something not shown.
    Warning,
}

/// One line; its text can hold line breaks, as it was recorded.
#[derive(Debug, Clone)]
pub struct Line<'a> {
    /// The event it is of.
    pub position: Option<Position>,
    /// What it is: `user`, `system`, `→ tool`.
    pub label: Cow<'a, str>,
    /// The text.
    pub text: Cow<'a, str>,
    /// What it is.
    pub tone: Tone,
    /// Whether it is only shown to who asks for everything.
    pub detail: bool,
}

/// One thing that happened.
#[derive(Debug, Clone)]
pub struct Scene<'a> {
    /// The step it shows.
    pub step: &'a Step,
    /// In a few words, on one line.
    pub title: String,
    /// By what it belongs, if that is not what the record is of.
    pub by: Option<By>,
    /// Its lines.
    pub lines: Vec<Line<'a>>,
}

/// The whole.
#[derive(Debug, Clone)]
pub struct Story<'a> {
    /// What comes first: decisions, overrides, outcomes, versions, sums, notes.
    pub head: Vec<Line<'a>>,
    /// What happened.
    pub scenes: Vec<Scene<'a>>,
}

impl Record {
    /// The record as people read it.
    pub fn story(&self) -> Story<'_> {
        Story { head: self.head(), scenes: self.steps.iter().map(|step| self.scene(step)).collect() }
    }

    fn head(&self) -> Vec<Line<'_>> {
        let mut lines = Vec::new();
        let told = [
            (StepKind::Decision, "decided"),
            (StepKind::Override, "overridden"),
            (StepKind::Outcome, "outcome"),
            (StepKind::Feedback, "feedback"),
        ];
        for (kind, label) in told {
            for step in self.steps.iter().filter(|step| step.kind == kind) {
                lines.push(Line {
                    position: Some(step.position),
                    label: label.into(),
                    text: gist(step),
                    tone: Tone::Content,
                    detail: false,
                });
            }
        }
        let named = self.live.versions.iter().any(|version| version.named);
        for version in self.live.versions.iter().filter(|version| version.named || !named).take(12) {
            let mut text = version.of.as_str().to_owned();
            for part in [&version.name, &version.version].into_iter().flatten() {
                text.push(' ');
                text.push_str(part);
            }
            if let Some(environment) = &version.environment {
                text.push_str(&format!(" in {environment}"));
            }
            text.push_str(&format!(", since {}", version.recorded));
            if !version.named {
                text.push_str(" (this record does not name it)");
            }
            let position = Some(version.since);
            lines.push(Line {
                position,
                label: "live then".into(),
                text: text.into(),
                tone: Tone::Content,
                detail: false,
            });
        }
        if let Some(left_out) = &self.live.left_out {
            lines.push(warning(None, "live then", left_out.as_str()));
        }
        for one in &self.live.unreadable {
            lines.push(warning(Some(one.position), "unreadable", one.detail.as_str()));
        }
        let totals = &self.totals;
        let of = |sum: Sum| match sum.calls == totals.calls {
            true => String::new(),
            false => format!(" ({} of {} calls say it)", sum.calls, totals.calls),
        };
        let counts = [
            ("given", totals.input_tokens),
            ("answered", totals.output_tokens),
            ("in all", totals.total_tokens),
            ("of those given from a cache", totals.cache_read_tokens),
        ];
        let counts: Vec<String> = counts
            .iter()
            .filter_map(|(what, sum)| sum.map(|sum| format!("{} {what}{}", sum.sum, of(sum))))
            .collect();
        if !counts.is_empty() {
            lines.push(about(None, "tokens", counts.join(", ")));
        }
        if let Some(sum) = totals.model_us {
            lines.push(about(None, "model time", format!("{}{}", seconds(sum.sum), of(sum))));
        }
        if totals.calls > 0 {
            let failed = match totals.failed {
                0 => String::new(),
                failed => format!(", {failed} failed"),
            };
            lines.push(about(None, "calls", format!("{}{failed}", totals.calls)));
        }
        for key in &self.also {
            let mut line = about(None, key.by.as_str(), key.value.as_str());
            line.detail = self.also.len() > 6;
            lines.push(line);
        }
        if self.also.len() > 6 {
            let count = self.also.len() + self.also_more;
            lines.push(about(None, "names", format!("{count} correlations, traces and streams besides")));
        }
        if self.also_more > 0 {
            let text =
                format!("{} correlations, traces and streams more, which its events name", self.also_more);
            let mut line = warning(None, "not shown", text);
            line.detail = true;
            lines.push(line);
        }
        for note in &self.notes {
            lines.push(warning(None, "note", note.as_str()));
        }
        for one in &self.unreadable {
            lines.push(warning(Some(one.position), "unreadable", one.detail.as_str()));
        }
        for one in &self.left_out {
            lines.push(warning(None, "not shown", one.detail.as_str()));
        }
        lines
    }

    fn scene<'a>(&'a self, step: &'a Step) -> Scene<'a> {
        let mut lines = Vec::new();
        let mut title = match &step.content {
            Content::Call { call, .. } => {
                self.call(step, call, &mut lines);
                call_title(call)
            }
            Content::Activity(activity) => {
                self.activity(step, activity, &mut lines);
                activity.name.clone().or_else(|| activity.operation.clone()).unwrap_or_default()
            }
            Content::Said(said) => said_lines(step, said, &mut lines),
            Content::Opaque { media_type, bytes, text, unread } => {
                if let Some(why) = unread {
                    lines.push(warning(Some(step.position), "unread", why.as_str()));
                }
                if let Some(text) = text {
                    lines.push(content(step.position, "data", text.as_str()));
                }
                let media_type = media_type.as_deref().unwrap_or("no media type");
                format!("{media_type}, {bytes} bytes")
            }
            Content::Empty(_) => "no data".to_owned(),
            Content::Erased(_) => "its data has been erased".to_owned(),
        };
        // A title is a short line; one that is not stands below it too, as it was recorded.
        let short = shortened(&title.replace(['\n', '\r', '\t'], " "), TITLE_CHARS);
        if short != title {
            lines.insert(0, content(step.position, "in full", std::mem::replace(&mut title, short)));
        }
        for note in &step.notes {
            lines.push(warning(Some(step.position), "note", note.as_str()));
        }
        for event in &step.events {
            let mut text = format!("{} {} from {}", event.event_type, event.id, event.source);
            for tag in &event.tags {
                text.push_str(&format!(" [{tag}]"));
            }
            for (name, value) in &event.attributes {
                text.push_str(&format!(" {name}={value}"));
            }
            lines.push(detail(event.position, "event", text));
        }
        if let Some(time) = &step.time {
            lines.push(detail(step.position, "time", time.as_str()));
        }
        let by = step
            .events
            .iter()
            .map(|event| event.by)
            .min()
            .filter(|by| *by != self.key.by && self.key.by != By::Position);
        Scene { step, title, by, lines }
    }

    fn call<'a>(&'a self, step: &'a Step, call: &'a ModelCall, lines: &mut Vec<Line<'a>>) {
        let at = step.position;
        let Content::Call { repeats, .. } = &step.content else { return };
        let mut facts = vec![call.fidelity.to_string(), call.dialect.to_string()];
        facts.extend(call.operation.clone());
        facts.extend(call.provider.clone());
        let mut tokens = Vec::new();
        for (what, count) in [
            ("given", call.usage.input),
            ("answered", call.usage.output),
            ("in all", call.usage.total),
            ("from a cache", call.usage.cache_read),
            ("into a cache", call.usage.cache_write),
            ("of reasoning", call.usage.reasoning),
        ] {
            tokens.extend(count.map(|count| format!("{count} {what}")));
        }
        if !tokens.is_empty() {
            facts.push(format!("tokens: {}", tokens.join(", ")));
        }
        facts.extend(duration_us(&call.times).map(|us| format!("took {}", seconds(us))));
        facts.extend(first_output_us(&call.times).map(|us| format!("first output after {}", seconds(us))));
        lines.push(about(Some(at), "call", facts.join(" · ")));
        let (known, same_system, same_tools) = match repeats {
            Some(repeats) => {
                let mut what = Vec::new();
                if repeats.system {
                    what.push("the instructions".to_owned());
                }
                if repeats.tools {
                    what.push("the tools".to_owned());
                }
                match repeats.messages {
                    0 => {}
                    1 => what.push("the first message".to_owned()),
                    n => what.push(format!("the first {n} messages")),
                }
                lines.push(about(
                    Some(at),
                    "given",
                    format!("{}: as shown up to {}", what.join(", "), repeats.position),
                ));
                (repeats.messages, repeats.system, repeats.tools)
            }
            None => (0, false, false),
        };
        if let Some(tools) = call.tools.as_ref().filter(|_| !same_tools) {
            let names: Vec<&str> =
                tools.iter().map(|tool| tool.name.as_deref().unwrap_or("(no name)")).collect();
            lines.push(about(Some(at), "tools", names.join(", ")));
            lines.push(detail(at, "tools", Json::of(tools).to_string()));
        }
        for (name, value) in &call.parameters {
            let mut line = about(Some(at), "with", format!("{name} {value}"));
            line.detail = value.as_str().len() > 80;
            lines.push(line);
        }
        if let Some(system) = call.system.as_ref().filter(|_| !same_system) {
            system.iter().for_each(|part| self.part(at, "system", part, lines));
        }
        for message in call.messages.iter().flatten().skip(known) {
            self.message(at, message, lines);
        }
        for message in call.output.iter().flatten() {
            self.answer(at, message, lines);
        }
        if let Some(reasons) = &call.finish_reasons {
            let reasons: Vec<&str> = reasons.iter().map(|reason| reason.as_str()).collect();
            lines.push(detail(at, "finished", reasons.join(", ")));
        }
        if let Some(error) = &call.error {
            lines.push(warning(Some(at), "error", error_text(error)));
        }
        for missing in &call.missing {
            let what = match missing {
                Missing::Messages => "the messages it was given",
                Missing::ToolDefinitions => "the definitions of its tools",
                Missing::Output => "what it answered",
                Missing::EndOfOutput => "the end of its answer",
                Missing::DroppedAttributes => "attributes that the sender dropped",
            };
            lines.push(warning(Some(at), "missing", format!("{what}: not recorded")));
        }
        for note in &call.notes {
            lines.push(warning(Some(at), "note", note.as_str()));
        }
        for (name, value) in [
            ("response id", &call.response_id),
            ("conversation", &call.conversation),
            ("user", &call.user),
            ("service", &call.service),
            ("server", &call.server),
            ("span", &call.span),
        ] {
            lines.extend(value.as_deref().map(|value| detail(at, name, value)));
        }
        for (name, value) in &call.details {
            lines.push(detail(at, "detail", format!("{name} {value}")));
        }
        for (name, value) in &call.unmapped {
            lines.push(besides(at, name, value));
        }
    }

    fn activity<'a>(&'a self, step: &'a Step, activity: &'a Activity, lines: &mut Vec<Line<'a>>) {
        let at = step.position;
        if let Some(us) = duration_us(&activity.times) {
            lines.push(about(Some(at), "took", seconds(us)));
        }
        lines.extend(activity.input.as_ref().map(|json| content(at, "given", text_of(json))));
        lines.extend(activity.output.as_ref().map(|json| content(at, "gave", text_of(json))));
        if let Some(error) = &activity.error {
            lines.push(warning(Some(at), "error", error_text(error)));
        }
        for (name, value) in [
            ("call id", &activity.call_id),
            ("conversation", &activity.conversation),
            ("service", &activity.service),
        ] {
            lines.extend(value.as_deref().map(|value| detail(at, name, value)));
        }
        for (name, value) in &activity.unmapped {
            lines.push(besides(at, name, value));
        }
    }

    fn message<'a>(&'a self, at: Position, message: &'a Message, lines: &mut Vec<Line<'a>>) {
        let role = message.role.as_deref().unwrap_or("(no role)");
        if message.parts.is_empty() {
            lines.push(content(at, role, ""));
        }
        message.parts.iter().for_each(|part| self.part(at, role, part, lines));
    }

    fn answer<'a>(&'a self, at: Position, message: &'a Message, lines: &mut Vec<Line<'a>>) {
        let role = message.role.as_deref().filter(|role| *role != "assistant").unwrap_or("answer");
        message.parts.iter().for_each(|part| self.part(at, role, part, lines));
    }

    fn part<'a>(&'a self, at: Position, role: &'a str, part: &'a Part, lines: &mut Vec<Line<'a>>) {
        match part {
            Part::Text { content: text } if text.is_empty() => {}
            Part::Text { content: text } => lines.push(content(at, role, text.as_str())),
            Part::Reasoning { content: text } => lines.push(content(at, "reasoning", text.as_str())),
            Part::ToolCall(call) => lines.push(content(at, "→ calls", tool_call(call))),
            Part::ToolResult { result, .. } => match self.result_at(part, at) {
                Some(position) => lines.push(about(Some(at), "result", format!("as at {position}"))),
                None => lines.push(content(at, "result", text_of(result))),
            },
            Part::Media { modality, mime_type, content: where_it_is } => {
                let kind = modality.as_deref().or(mime_type.as_deref()).unwrap_or("media");
                lines.push(content(at, role, format!("[{kind}] {where_it_is}")));
            }
            Part::Other { content: json } => lines.push(content(at, role, json.as_str())),
        }
    }

    /// Where the same result of the same tool call stands as a step of its own, before `at`.
    fn result_at(&self, part: &Part, at: Position) -> Option<Position> {
        let Part::ToolResult { id: Some(id), result } = part else { return None };
        let before = self.steps.iter().rev().skip_while(|step| step.position >= at);
        before
            .filter(|step| step.kind == StepKind::Tool)
            .find(|step| match &step.content {
                Content::Activity(tool) => {
                    tool.call_id.as_ref() == Some(id) && tool.output.as_ref() == Some(result)
                }
                _ => false,
            })
            .map(|step| step.position)
    }
}

fn call_title(call: &ModelCall) -> String {
    match (&call.model_requested, &call.model_served) {
        (Some(asked), Some(served)) if asked != served => format!("{asked}, served by {served}"),
        (Some(model), _) | (None, Some(model)) => model.clone(),
        (None, None) => "the model is not named".to_owned(),
    }
}

/// A step in a line.
fn gist(step: &Step) -> Cow<'_, str> {
    match &step.content {
        Content::Said(said) => match &said.headline {
            Some(line) => line.as_str().into(),
            None => said.data.as_str().into(),
        },
        Content::Erased(_) => "(its data has been erased)".into(),
        Content::Empty(_) => "(no data)".into(),
        Content::Opaque { bytes, .. } => format!("({bytes} bytes that are no JSON)").into(),
        Content::Call { call, .. } => call_title(call).into(),
        Content::Activity(activity) => activity.name.clone().unwrap_or_default().into(),
    }
}

fn said_lines<'a>(step: &'a Step, said: &'a Said, lines: &mut Vec<Line<'a>>) -> String {
    let at = step.position;
    if let Some(message) = &said.message {
        let role = message.role.as_deref().unwrap_or("message");
        for part in &message.parts {
            match part {
                Part::Text { content: text } => lines.push(content(at, role, text.as_str())),
                other => lines.push(content(at, role, Json::of(other).to_string())),
            }
        }
    }
    if !said.data.as_str().starts_with('{') {
        lines.push(content(at, "data", text_of(&said.data)));
    }
    for (name, value) in json::members(said.data.as_str()) {
        if said.told.iter().any(|told| *told == name) {
            continue;
        }
        let text = json::unquoted(value).map_or(Cow::Borrowed(value), Cow::Owned);
        lines.push(Line { position: Some(at), label: name, text, tone: Tone::Content, detail: false });
    }
    said.headline.clone().unwrap_or_default()
}

fn tool_call(call: &ToolCall) -> String {
    let name = call.name.as_deref().unwrap_or("(no name)");
    let arguments = call.arguments.as_ref().map(Json::as_str).unwrap_or_default();
    format!("{name}({arguments})")
}

fn error_text(error: &CallError) -> String {
    let parts: Vec<&str> = [error.kind.as_deref(), error.message.as_deref()].into_iter().flatten().collect();
    match parts.is_empty() {
        true => "the sender says that it failed, and not why".to_owned(),
        false => parts.join(": "),
    }
}

/// The content of a string, the JSON of anything else.
fn text_of(json: &Json) -> Cow<'_, str> {
    json.string().map_or(Cow::Borrowed(json.as_str()), Cow::Owned)
}

/// Microseconds, for people: `1.234 s`.
fn seconds(us: u64) -> String {
    format!("{}.{:03} s", us / 1_000_000, us / 1_000 % 1_000)
}

fn line<'a>(
    position: Option<Position>,
    label: impl Into<Cow<'a, str>>,
    text: impl Into<Cow<'a, str>>,
    tone: Tone,
) -> Line<'a> {
    Line { position, label: label.into(), text: text.into(), tone, detail: false }
}

fn content<'a>(at: Position, label: impl Into<Cow<'a, str>>, text: impl Into<Cow<'a, str>>) -> Line<'a> {
    line(Some(at), label, text, Tone::Content)
}

fn about<'a>(
    at: Option<Position>,
    label: impl Into<Cow<'a, str>>,
    text: impl Into<Cow<'a, str>>,
) -> Line<'a> {
    line(at, label, text, Tone::About)
}

fn warning<'a>(
    at: Option<Position>,
    label: impl Into<Cow<'a, str>>,
    text: impl Into<Cow<'a, str>>,
) -> Line<'a> {
    line(at, label, text, Tone::Warning)
}

fn detail<'a>(at: Position, label: impl Into<Cow<'a, str>>, text: impl Into<Cow<'a, str>>) -> Line<'a> {
    Line { detail: true, ..line(Some(at), label, text, Tone::About) }
}

/// What was sent and is not understood, under its own name.
fn besides<'a>(at: Position, name: &'a str, value: &'a Json) -> Line<'a> {
    line(Some(at), "besides", format!("{name} = {}", text_of(value)), Tone::About)
}
