//! The same on accounts of Azure, where variables name them. What is recorded there stays: use a container and a table for tests.
//!
//! `PRECEDENT_LIVE_COSMOS=cosmos://ACCOUNT/DATABASE/CONTAINER`, `PRECEDENT_LIVE_TABLE=table://ACCOUNT/TABLE`, and the variables
//! with credentials that `docs/backends.md` names.

use crate::services::Service;
use crate::{moving, sharing};

fn everything(service: &Service) {
    moving::there_and_back(service);
    sharing::machines_write_at_once(service);
    sharing::served(service);
}

#[test]
fn cosmos_db_on_azure() {
    Service::live("Cosmos DB", "PRECEDENT_LIVE_COSMOS").iter().for_each(everything);
}

#[test]
fn table_storage_on_azure() {
    Service::live("Table Storage", "PRECEDENT_LIVE_TABLE").iter().for_each(everything);
}
