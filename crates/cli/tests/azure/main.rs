//! The binary on the services of Azure, as people use it there.

#[path = "../common/mod.rs"]
mod common;
mod live;
mod moving;
mod provisioned;
mod refusals;
mod services;
mod sharing;
