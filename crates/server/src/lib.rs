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
//! | `append` | appends on their way into the store, and their answers |
//! | `sockets` | the threads on which WebSockets are read and answered |
//! | `pager` | reads as bodies, page by page |
//! | `capture` | what the ways of capture share: the one append, redaction, gaps |
//! | `otlp` | OpenTelemetry's protocol, over HTTP and gRPC |
//! | `proxy` | the recording proxy in front of model providers |
//! | `problem` | errors on the wire |
//! | `metrics` | counters |
//!
//! **Invariants.** No backend is named here: a server has an `Arc<dyn Store>` and adds nothing to its promises.
//! An answer that begins with 200 is whole or visibly broken off. Nothing a client sends takes more memory than
//! the limits say.

mod app;
mod append;
mod body;
mod call;
mod capture;
mod config;
mod guard;
mod listen;
mod metrics;
mod otlp;
mod pager;
mod problem;
mod proxy;
mod routes;
mod sockets;

pub use config::{CaptureConfig, Config, ServerLimits, Tls, Upstream};
pub use listen::{Server, bind};
/// What is taken out of captured content before it is recorded.
pub use precedent_capture::Rules;
pub use problem::{CODES, Code, Written};
