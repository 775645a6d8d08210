//! Typed builders of the events that people record by hand: a decision, an override, an outcome, and what led to them.
//!
//! Each knows its event type and what it cannot do without. What identifies the event goes into its constructor; what it says is set by
//! name, since texts in a row are easily swapped, and a swapped record stays for ever. [`build`](Fact::build) refuses, by its name, what
//! is missing. What has no setter goes in by [`with`](Fact::with): the data is a JSON object, and nothing of it is lost.
//!
//! ```
//! use precedent_decisions::facts::{Fact, decision, outcome, overridden};
//! // A classical model, and what came of its decision.
//! let made = decision("urn:scoring", "loan-42")
//!     .decided("decline").score(0.31).threshold(0.5).model("risk", "7")
//!     .features(&serde_json::json!({"income": 3400, "amount": 12000}))
//!     .stream("application/42")
//!     .build()?;
//! assert_eq!(made.event_type(), "ai.decision.made");
//! assert_eq!(made.attribute("decisionid"), Some("loan-42"));
//! let other = overridden("urn:desk", "override-1", "loan-42").person("officer-12").to("approve").reason("new income").build()?;
//! let late = outcome("urn:crm", "repaid-42", "loan-42").value("repaid", true).build()?;
//! let missing = overridden("urn:desk", "override-2", "loan-42").to("approve").build().unwrap_err();
//! assert!(missing.message().contains("'person'"));
//! # Ok::<(), precedent_core::Error>(())
//! ```

use precedent_core::{Error, Event, EventBuilder, Result, Time};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::types;

/// An event that is being put together.
#[derive(Debug, Clone)]
#[must_use]
pub struct Fact {
    event: EventBuilder,
    event_type: &'static str,
    /// What cannot be missing: of each list one.
    required: &'static [&'static [&'static str]],
    data: Map<String, Value>,
    failed: Option<Error>,
}

impl Fact {
    fn new(
        source: &str,
        id: &str,
        event_type: &'static str,
        required: &'static [&'static [&'static str]],
    ) -> Self {
        let event = Event::builder(source, id, event_type);
        Self { event, event_type, required, data: Map::new(), failed: None }
    }

    fn of_decision(mut self, decision: &str) -> Self {
        if decision.is_empty() {
            let what = self.event_type;
            self.failed
                .get_or_insert_with(|| Error::invalid(format!("{what}: the id of the decision is empty")));
        }
        self.event = self.event.attribute("decisionid", decision);
        self
    }

    /// A member of the data.
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        let what = self.event_type;
        match serde_json::to_value(value) {
            // A number that is none, such as the score of a division by zero, would become null.
            Ok(Value::Null) => {
                self.failed.get_or_insert_with(|| {
                    Error::invalid(format!("{what}: '{name}' is null, or a number that JSON does not have"))
                });
            }
            Ok(value) => {
                self.data.insert(name.to_owned(), value);
            }
            Err(error) => {
                self.failed.get_or_insert_with(|| {
                    Error::invalid(format!("{what}: '{name}' cannot be JSON: {error}"))
                });
            }
        }
        self
    }

    /// The same as [`with`](Self::with), for an outcome: what was observed, and its value.
    pub fn value(self, name: &str, value: impl Serialize) -> Self {
        self.with(name, value)
    }

    /// What was decided.
    pub fn decided(self, decision: &str) -> Self {
        self.with("decision", decision)
    }

    /// The score it was decided by.
    pub fn score(self, score: f64) -> Self {
        self.with("score", score)
    }

    /// What the score was held against.
    pub fn threshold(self, threshold: f64) -> Self {
        self.with("threshold", threshold)
    }

    /// What a classical model was given.
    pub fn features(self, features: &impl Serialize) -> Self {
        self.with("features", features)
    }

    /// What else could have been decided.
    pub fn alternatives(self, alternatives: &impl Serialize) -> Self {
        self.with("alternatives", alternatives)
    }

    /// Why.
    pub fn reason(self, reason: &str) -> Self {
        self.with("reason", reason)
    }

    /// Whether no person took part.
    pub fn automated(self, automated: bool) -> Self {
        self.with("automated", automated)
    }

    /// The model and its version; also the tag `model`.
    pub fn model(mut self, name: &str, version: &str) -> Self {
        self.event = self.event.tag("model", name);
        self.with("model", name).with("version", version)
    }

    /// The prompt and its version; also the tag `prompt`.
    pub fn prompt(mut self, name: &str, version: &str) -> Self {
        self.event = self.event.tag("prompt", &format!("{name}@{version}"));
        self.with("prompt", format!("{name}@{version}"))
    }

    /// The policy and its version; also the tag `policy`.
    pub fn policy(mut self, name: &str, version: &str) -> Self {
        self.event = self.event.tag("policy", &format!("{name}@{version}"));
        self.with("policy", format!("{name}@{version}"))
    }

    /// Who decided otherwise: a surrogate and no name, since it stays in the clear.
    pub fn person(self, person: &str) -> Self {
        self.with("person", person)
    }

    /// By which authority.
    pub fn authority(self, authority: &str) -> Self {
        self.with("authority", authority)
    }

    /// What had been decided.
    pub fn from(self, decision: &str) -> Self {
        self.with("from", decision)
    }

    /// What is decided instead.
    pub fn to(self, decision: &str) -> Self {
        self.with("to", decision)
    }

    /// Who rated it.
    pub fn rater(self, rater: &str) -> Self {
        self.with("rater", rater)
    }

    /// Where a version was put in place.
    pub fn environment(self, environment: &str) -> Self {
        self.with("environment", environment)
    }

    /// Who approved.
    pub fn approver(self, approver: &str) -> Self {
        self.with("approver", approver)
    }

    /// The stream of the event.
    pub fn stream(mut self, stream: &str) -> Self {
        self.event = self.event.stream(stream);
        self
    }

    /// When it happened.
    pub fn at(mut self, time: Time) -> Self {
        self.event = self.event.at(time);
        self
    }

    /// A tag.
    pub fn tag(mut self, key: &str, value: &str) -> Self {
        self.event = self.event.tag(key, value);
        self
    }

    /// The W3C `traceparent` it happened in: joins what telemetry captured.
    pub fn traceparent(mut self, parent: &str) -> Self {
        self.event = self.event.attribute("traceparent", parent);
        self
    }

    /// The correlation it belongs to: what one job, request or session has in common.
    pub fn correlation(mut self, correlation: &str) -> Self {
        self.event = self.event.attribute("correlationid", correlation);
        self
    }

    /// The decision it belongs to, for what is not told by its constructor.
    pub fn decision(self, decision: &str) -> Self {
        self.of_decision(decision)
    }

    /// The id of the event that led to it.
    pub fn caused_by(mut self, id: &str) -> Self {
        self.event = self.event.attribute("causationid", id);
        self
    }

    /// The event.
    ///
    /// # Errors
    /// `invalid` for what is missing, naming it, and for what no event can have.
    pub fn build(self) -> Result<Event> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let empty = |value: &Value| value.as_str().is_some_and(str::is_empty);
        for names in self.required {
            let said = match names {
                [] => !self.data.is_empty(),
                names => names.iter().any(|name| self.data.get(*name).is_some_and(|value| !empty(value))),
            };
            if !said {
                let what = match names {
                    [] => "a value".to_owned(),
                    names => names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(" or "),
                };
                return Err(Error::invalid(format!(
                    "{} needs {what}, and it was not given",
                    self.event_type
                )));
            }
        }
        self.event.json(&Value::Object(self.data)).build()
    }
}

/// A decision that was made; the event has the id of the decision. Needs what was decided.
pub fn decision(source: &str, decision: &str) -> Fact {
    Fact::new(source, decision, types::DECISION, &[&["decision"]]).of_decision(decision)
}

/// Somebody decided otherwise. Needs who, and what is decided instead.
pub fn overridden(source: &str, id: &str, decision: &str) -> Fact {
    Fact::new(source, id, types::OVERRIDE, &[&["person"], &["to"]]).of_decision(decision)
}

/// What came of a decision, whenever it is known. Needs at least one [`value`](Fact::value).
pub fn outcome(source: &str, id: &str, decision: &str) -> Fact {
    Fact::new(source, id, types::OUTCOME, &[&[]]).of_decision(decision)
}

/// Somebody rated a decision: `value` or `text`, and by whom if that is known.
pub fn feedback(source: &str, id: &str, decision: &str) -> Fact {
    Fact::new(source, id, types::FEEDBACK, &[&["value", "text"]]).of_decision(decision)
}

/// Something was given, for a decision to be made of it. Needs `content`, `message` or `features`.
pub fn input(source: &str, id: &str) -> Fact {
    Fact::new(source, id, "ai.input.received", &[&["content", "message", "features"]])
}

/// A model was called. Needs `request`, in the JSON of a provider, and `response` or `error`.
pub fn call(source: &str, id: &str, request: &impl Serialize) -> Fact {
    Fact::new(source, id, "ai.model.called", &[&["request"], &["response", "error"]]).with("request", request)
}

/// A tool was called. Needs `result` or `error`.
pub fn tool(source: &str, id: &str, name: &str, arguments: &impl Serialize) -> Fact {
    Fact::new(source, id, "ai.tool.called", &[&["name"], &["result", "error"]])
        .with("name", name)
        .with("arguments", arguments)
}

/// Something was looked up. Needs `documents`, which may be an empty list.
pub fn retrieval(source: &str, id: &str, query: &str) -> Fact {
    Fact::new(source, id, "ai.retrieval.performed", &[&["query"], &["documents"]]).with("query", query)
}

/// A version of a model was put in place.
pub fn model_deployed(source: &str, id: &str, name: &str, version: &str) -> Fact {
    Fact::new(source, id, "ai.model.deployed", &[&["model"], &["version"]]).model(name, version)
}

/// A version of a model is not used any more.
pub fn model_retired(source: &str, id: &str, name: &str, version: &str) -> Fact {
    Fact::new(source, id, "ai.model.retired", &[&["model"], &["version"]]).model(name, version)
}

/// A version of a prompt was published. Its text goes in by [`with`](Fact::with) as `template`.
pub fn prompt_published(source: &str, id: &str, name: &str, version: &str) -> Fact {
    let fact = Fact::new(source, id, "ai.prompt.published", &[&["prompt"], &["version"]]);
    fact.tag("prompt", name).with("prompt", name).with("version", version)
}

/// A version of a policy was published.
pub fn policy_published(source: &str, id: &str, name: &str, version: &str) -> Fact {
    let fact = Fact::new(source, id, "ai.policy.published", &[&["policy"], &["version"]]);
    fact.tag("policy", name).with("policy", name).with("version", version)
}
