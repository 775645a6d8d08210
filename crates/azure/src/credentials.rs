//! Who we are to Azure: Entra ID, from what is at hand.

use std::sync::Arc;

use azure_core::credentials::TokenCredential;
use precedent_core::{Error, ErrorKind, Result};

/// The credential of Entra ID that this process has.
///
/// # Errors
/// `unauthorized` if none can be made.
pub fn entra() -> Result<Arc<dyn TokenCredential>> {
    let credential = azure_identity::DeveloperToolsCredential::new(None);
    Ok(credential.map_err(|error| Error::new(ErrorKind::Unauthorized, error.to_string()))?)
}
