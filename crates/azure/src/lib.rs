//! The stores of Precedent on Azure.
//!
//! | module | responsible for |
//! |---|---|
//! | `remote` | what a service has to be able to do so that a log can be kept in it |
//! | `store` | the protocol of a log over it |
//! | `credentials` | who we are to Azure |
//! | `cloud` | where its services are |
//! | `frame_set` | frames for which something has been done, by whichever writer |
//! | `packing` | the bytes of a frame in an item |
//! | `cosmos` | Cosmos DB |
//! | `table` | Table Storage |
//! | `provision` | the resources a store needs: planned, made, checked, removed |
//!
//! The protocol of a log (commit, settling, catching up, documents) is written once, over [`remote::Remote`]. Each
//! service is native behind that: they share credentials, packing and the mapping of errors, no more.

pub mod cloud;
pub mod cosmos;
pub mod credentials;
mod frame_set;
pub mod packing;
pub mod provision;
pub mod remote;
pub mod store;
pub mod table;

pub use store::{CatchingUp, Options, RemoteStore};
