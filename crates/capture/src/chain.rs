//! Which calls are one conversation.
//!
//! Nearly nobody sends a conversation's id, and every call without an application's span has a trace of its own. But a
//! conversation gives itself away: each call is given all that was said before. So a call continues another if its messages begin
//! with the other's messages and answer. The id stands where one was sent; the prefix decides where not.
//!
//! **What it cannot know.** Two conversations that are the same word for word are one here, up to where they part. A
//! conversation whose history is rewritten (compacted, cut) begins anew.

use std::collections::HashMap;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::view::{Message, ModelCall, Part};

/// How the calls of a conversation were found to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// The sender names the conversation.
    Named,
    /// Each call begins with what was said before.
    Prefix,
    /// There is only one call.
    Single,
}

/// Calls that are one conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conversation {
    /// The sender's id, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// How that was found.
    pub evidence: Evidence,
    /// The calls, as indices, in the order of their times.
    pub calls: Vec<usize>,
}

type Node = [u8; 32];

/// Sorts calls into conversations, in the order in which those begin.
pub fn conversations(calls: &[ModelCall]) -> Vec<Conversation> {
    let mut order: Vec<usize> = (0..calls.len()).collect();
    order.sort_by_key(|&at| (calls[at].times.started.or(calls[at].times.ended), at));
    let mut found: Vec<Conversation> = Vec::new();
    let mut named: HashMap<&str, usize> = HashMap::new();
    // What the history of a continuing call begins with, and the conversation that is at that point.
    let mut answered: HashMap<Node, usize> = HashMap::new();
    let mut unanswered: HashMap<Node, usize> = HashMap::new();
    for at in order {
        let call = &calls[at];
        let nodes = nodes(call);
        let by_name = call.conversation.as_deref().and_then(|id| named.get(id).copied());
        let by_prefix = || {
            // The longest history first. A call with the same messages and no more is another try, or another
            // person who says the same: that is not told apart, so it is not joined.
            let inner = nodes.len().saturating_sub(1);
            (1..inner)
                .rev()
                .find_map(|len| answered.get(&nodes[len]).or_else(|| unanswered.get(&nodes[len])))
                .copied()
        };
        let conversation = match &call.conversation {
            Some(_) => by_name,
            None => by_prefix(),
        };
        let conversation = conversation.unwrap_or_else(|| {
            found.push(Conversation {
                id: call.conversation.clone(),
                evidence: Evidence::Single,
                calls: Vec::new(),
            });
            found.len() - 1
        });
        if let Some(id) = call.conversation.as_deref() {
            named.insert(id, conversation);
        }
        if let Some(last) = nodes.last().filter(|_| nodes.len() > 1) {
            match call.output.as_ref().and_then(|output| output.first()) {
                Some(answer) => answered.insert(step(last, answer), conversation),
                None => unanswered.insert(*last, conversation),
            };
        }
        let entry = &mut found[conversation];
        entry.calls.push(at);
        entry.evidence = match (&entry.id, entry.calls.len()) {
            (Some(_), _) => Evidence::Named,
            (None, 1) => Evidence::Single,
            (None, _) => Evidence::Prefix,
        };
    }
    found
}

/// The nodes of a call's history: nothing but the instructions, then one more for each message.
fn nodes(call: &ModelCall) -> Vec<Node> {
    let Some(messages) = &call.messages else { return Vec::new() };
    let mut start = Sha256::new();
    for part in call.system.iter().flatten() {
        put_part(&mut start, part);
    }
    let mut nodes = vec![start.finalize().into()];
    for message in messages {
        let last = nodes[nodes.len() - 1];
        nodes.push(step(&last, message));
    }
    nodes
}

fn step(last: &Node, message: &Message) -> Node {
    let mut hash = Sha256::new();
    hash.update(last);
    put(&mut hash, message.role.as_deref().unwrap_or(""));
    message.parts.iter().for_each(|part| put_part(&mut hash, part));
    hash.finalize().into()
}

fn put(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text);
}

/// A part by what it means: how a sender spells the JSON of arguments differs from call to call.
fn put_part(hash: &mut Sha256, part: &Part) {
    let meaning =
        |json: &crate::view::Json| json.value().map_or_else(|| json.to_string(), |value| value.to_string());
    match part {
        // Some senders say "" beside a tool call, and others nothing.
        Part::Text { content } if content.is_empty() => {}
        Part::Text { content } => put(hash, content),
        // Reasoning is shown in answers and seldom sent back.
        Part::Reasoning { .. } => {}
        Part::ToolCall(call) => {
            put(hash, call.id.as_deref().unwrap_or(""));
            put(hash, call.name.as_deref().unwrap_or(""));
            put(hash, &call.arguments.as_ref().map(meaning).unwrap_or_default());
        }
        Part::ToolResult { id, result } => {
            put(hash, id.as_deref().unwrap_or(""));
            put(hash, &meaning(result));
        }
        Part::Media { content, .. } => put(hash, content),
        Part::Other { content } => put(hash, &meaning(content)),
    }
}
