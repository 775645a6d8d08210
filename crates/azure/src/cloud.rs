//! The clouds of Azure: where their services are.
//!
//! Sources: the endpoints documented for Azure Government and for Azure operated by 21Vianet.

use precedent_core::{Error, Result};

/// The environment variable that names the cloud; without it, the public one.
pub const CLOUD_VARIABLE: &str = "AZURE_CLOUD";

/// One of them. Everything that differs between them is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cloud {
    /// Its name in [`CLOUD_VARIABLE`], as the Azure CLI says it.
    pub name: &'static str,
    /// The endpoint of Azure Resource Manager.
    pub resource_manager: &'static str,
    /// The scope of tokens for it.
    pub resource_manager_scope: &'static str,
    /// Where accounts of Cosmos DB are: `ACCOUNT.` and this.
    pub cosmos_suffix: &'static str,
    /// The suffix of storage endpoints: `ACCOUNT.table.` and this.
    pub storage_suffix: &'static str,
}

/// All of them, the public one first.
pub const CLOUDS: &[Cloud] = &[
    Cloud {
        name: "AzureCloud",
        resource_manager: "https://management.azure.com",
        resource_manager_scope: "https://management.azure.com/.default",
        cosmos_suffix: "documents.azure.com",
        storage_suffix: "core.windows.net",
    },
    Cloud {
        name: "AzureUSGovernment",
        resource_manager: "https://management.usgovcloudapi.net",
        resource_manager_scope: "https://management.usgovcloudapi.net/.default",
        cosmos_suffix: "documents.azure.us",
        storage_suffix: "core.usgovcloudapi.net",
    },
    Cloud {
        name: "AzureChinaCloud",
        resource_manager: "https://management.chinacloudapi.cn",
        resource_manager_scope: "https://management.chinacloudapi.cn/.default",
        cosmos_suffix: "documents.azure.cn",
        storage_suffix: "core.chinacloudapi.cn",
    },
];

impl Cloud {
    /// The cloud of this name, in whatever case.
    pub fn named(name: &str) -> Result<Self> {
        let found = CLOUDS.iter().find(|cloud| cloud.name.eq_ignore_ascii_case(name));
        found.copied().ok_or_else(|| {
            let names: Vec<_> = CLOUDS.iter().map(|cloud| cloud.name).collect();
            Error::invalid(format!(
                "there is no cloud '{}': they are {}",
                name.escape_debug(),
                names.join(", ")
            ))
        })
    }

    /// The cloud that [`CLOUD_VARIABLE`] names, or the public one.
    pub fn from_environment() -> Result<Self> {
        match std::env::var(CLOUD_VARIABLE) {
            Ok(name) if !name.is_empty() => Self::named(&name).map_err(|error| error.context(CLOUD_VARIABLE)),
            _ => Ok(CLOUDS[0]),
        }
    }
}
