//! How AI applications say what they do, as events of Precedent, and one view of it all.
//!
//! | module | responsible for |
//! |---|---|
//! | [`otlp`] | export requests of OpenTelemetry: spans and log records whose bytes are the sender's own |
//! | [`exchange`] | calls of providers that went through the proxy |
//! | [`opa`] | decision logs of the Open Policy Agent |
//! | [`gap`] | what is known not to have been recorded |
//! | [`redact`] | what is taken out before anything is recorded |
//! | [`view`] | the normalized views: what a model call was, whatever the dialect |
//! | [`stated`] | calls and tools that an application states itself, in the same view |
//! | [`chain`] | which calls are one conversation |
//! | [`coding`] | gzip, deflate and zstd, undone within a bound |
//! | [`json`], [`value`], [`wire`] | JSON, attributes and protobuf, looked into without being changed |
//!
//! **Invariants.** What was sent is recorded as it was sent, and only masked where a rule says so: nothing is decoded and
//! encoded again. What it means is decided on reading, by a normalizer with a version. Nothing here does I/O or knows a clock,
//! and no input makes it panic, recurse without bound, or allocate more than a small multiple of its length.

pub mod chain;
pub mod coding;
mod dialect;
pub mod exchange;
mod funnel;
pub mod gap;
pub mod json;
mod messages;
mod normalize;
pub mod opa;
pub mod otlp;
mod provider;
pub mod redact;
pub mod value;
pub mod view;
pub mod wire;

pub use gap::Gap;
pub use normalize::stated;
pub use redact::Rules;
pub use view::View;
