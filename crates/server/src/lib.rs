//! The HTTP interface of Precedent, over any store.
//!
//! [`bind`] takes a store and a [`Config`] and listens; [`Server::run`] answers until it is told to stop. The
//! paths, headers and problems are described in `docs/http.md` and, for programs, at `/openapi.json`.
//!
//! | module | responsible for |
//! |---|---|
//! | `config` | what a server is told when it starts, and what it refuses to start with |
//! | `listen` | connections, TLS, the end |
//! | `guard` | Host, Origin and token |
//! | `app` | what all requests share, and how much is taken on at once |
//! | `routes` | the table of paths, and one file for each |
//! | `call`, `body` | a request, taken apart within the limits |
//! | `pager` | reads as bodies, page by page |
//! | `problem` | errors on the wire |
//! | `metrics` | counters |
//!
//! **Invariants.** No backend is named here: a server has an `Arc<dyn Store>` and adds nothing to its promises.
//! An answer that begins with 200 is whole or visibly broken off. Nothing a client sends takes more memory than
//! the limits say.

mod app;
mod body;
mod call;
mod config;
mod guard;
mod listen;
mod metrics;
mod pager;
mod problem;
mod routes;

pub use config::{Config, ServerLimits, Tls};
pub use listen::{Server, bind};
pub use problem::{CODES, Code, Written};
