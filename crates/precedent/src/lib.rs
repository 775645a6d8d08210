//! Precedent: the event store for AI models and agents, as a library.
//!
//! [`open`] answers with the [`Log`] behind a URL, whatever keeps it: a directory, this process's memory, or
//! a Precedent server. Everything else is in the core, which is re-exported here whole.
//!
//! | URL | what keeps the log |
//! |---|---|
//! | `file:PATH`, or a bare path | a directory; if a server has it open, that server is asked |
//! | `memory:` | this process: a new, empty store |
//! | `http://HOST[:PORT]`, `https://HOST[:PORT]` | a Precedent server |
//! | `cosmos://ACCOUNT/DATABASE/CONTAINER` | Azure Cosmos DB; `cosmos+http://127.0.0.1:PORT/…` its emulator |
//! | `table://ACCOUNT/TABLE` | Azure Table Storage; `table+http://127.0.0.1:PORT/ACCOUNT/TABLE` its emulator |
//!
//! `?log=NAME` picks the log; without it, it is `main`.
//!
//! ```
//! use futures_util::StreamExt;
//! use precedent::{Event, OpenOptions, Query, Read};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> precedent::Result<()> {
//! let log = precedent::open("memory:", OpenOptions::default()).await?;
//! let decision = Event::builder("https://loans.example/scoring", "decision-42", "ai.decision.made")
//!     .stream("application/42")
//!     .attribute("decisionid", "decision-42")
//!     .json(&serde_json::json!({"approve": false, "score": 0.31}))
//!     .build()?;
//! let appended = log.append(decision).await?;
//! assert_eq!(appended.size, 1);
//!
//! let mut events = log.read(Read::matching(Query::stream("application/42"))).boxed();
//! while let Some(recorded) = events.next().await {
//!     let recorded = recorded?;
//!     println!("{} {}", recorded.position, recorded.event.event_type());
//! }
//! # Ok(())
//! # }
//! ```

mod http;
mod open;

pub use http::{CA_FILE_VARIABLE, HttpStore};
pub use open::{Access, OpenOptions, Opened, open, open_store};
pub use precedent_core::*;
