//! The embedded store.
use std::path::Path;
use precedent_core::{Error, Result, memory::Clock, MemoryStore, *};
/// How a store is opened.
#[derive(Clone)]
pub struct Options {
    /// Whether it may be written to.
    pub access: Access,
    /// Make the store if the directory is empty or absent.
    pub create: bool,
    /// Go on although the clock is behind the log; this is recorded in the log.
    pub accept_clock: bool,
    /// The clock.
    pub clock: Clock,
}
/// Read and write, or read only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Takes the lock.
    ReadWrite,
    /// Takes no lock: beside a writer, sees what it has published.
    ReadOnly,
}
