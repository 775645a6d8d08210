//! The Azure resources of a store: planned, made, checked, removed, and exported for the tools of others.
//!
//! | module | responsible for |
//! |---|---|
//! | `settings` | what people ask for: options over a file over defaults |
//! | `names` | what names and numbers Azure takes |
//! | `definition` | the resources, once |
//! | `arm` | calls of Resource Manager, their errors and retries |
//! | `poll` | waiting for what Azure goes on doing |
//! | `plan` | what there is, held against the definition |
//! | `apply` | making it so |
//! | `outputs` | what is needed to use the store |
//! | `destroy` | deleting the resource group |
//! | `identity` | who calls, and in which subscription |
//! | `export` | the definition for the tools of others, one file a format |
//!
//! *Invariants*: nothing is changed before everything that can be checked has been. Every operation can be done again,
//! and going on after an interruption is doing it again. There is no state but Azure's.

mod apply;
mod arm;
mod definition;
mod destroy;
mod export;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod identity;
mod names;
mod outputs;
mod plan;
mod poll;
mod settings;
#[cfg(test)]
mod tests;

pub use apply::{Listener, Progress, up};
pub use arm::{Arm, Connection, Pace, RealTime};
#[cfg(test)]
pub(crate) use definition::INDEXED;
pub use definition::{Resource, TAG, Type, definition};
pub use destroy::{Demolition, Doomed, destroy, inspect};
pub use export::{Export, FORMATS, Format, export};
pub use identity::{caller, cli_subscription};
pub use names::SKUS;
pub use outputs::{Output, Outputs, Shown, outputs};
pub use plan::{Action, Change, Plan, Step, plan, shown};
pub use settings::{File, PartitionKey, Principal, Service, Settings, Store, Throughput, Wishes};
