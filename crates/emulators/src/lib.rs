//! Other people's emulators of the Azure services, for tests of our own. A development dependency, never part of the product.
//!
//! | service | emulator | where |
//! |---|---|---|
//! | Cosmos DB | the one in memory that comes with Microsoft's driver: in this process, or behind a port and as the binary `precedent-cosmos-emulator` | [`cosmos`] |
//! | Table Storage | Azurite, from npm, as a process on a loopback port | [`azurite`] |

pub mod azurite;
pub mod cosmos;
