//! What belongs to a decision, as it was at any moment: projections over any store.
//!
//! | module | responsible for |
//! |---|---|
//! | [`key`] | what holds events together: decision, correlation, trace, stream |
//! | [`gather`] | finds the events of one key, and what belongs to them, within bounds |
//! | [`record`] | makes the record of a decision of them: steps, versions then live, sums |
//! | [`story`] | the record as people read it, line by line |
//! | [`live`] | which version of a model, prompt or policy was live at a position |
//! | [`list`] | lists decisions, newest first, page by page |
//! | `belonging` | what was said of a decision, found as a record finds it, within the bounds of a row |
//! | [`facts`] | typed builders of the events that people record by hand |
//! | [`text`] | recorded text that is safe to show |
//!
//! **Invariants.** Nothing here is stored; everything is made again from events on every look. A record *at* a position is made
//! of events at or before it, and of nothing else: every read has that bound. What was not recorded is absent, and no zero
//! stands in its place. What could not be read, or was left out for its size, is named.

mod belonging;
pub mod facts;
pub mod gather;
pub mod key;
pub mod list;
pub mod live;
pub mod record;
pub mod story;
pub mod text;

pub use gather::Bounds;
pub use key::{By, Key};
pub use record::{Ask, At, Record, Shown, show};

/// The types of the vocabulary that concern decisions.
pub mod types {
    /// A decision was made.
    pub const DECISION: &str = "ai.decision.made";
    /// A person, or another authority, decided otherwise.
    pub const OVERRIDE: &str = "ai.decision.overridden";
    /// What came of a decision.
    pub const OUTCOME: &str = "ai.outcome.observed";
    /// Somebody rated it.
    pub const FEEDBACK: &str = "ai.feedback.received";
}
