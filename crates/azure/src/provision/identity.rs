//! Who calls, and in which subscription.

use std::process::Stdio;
use std::time::Duration;

use precedent_core::{Error, Result};

use super::arm::Arm;
use super::settings::Principal;

/// The identity that calls are made as, from the claims of its token.
///
/// # Errors
/// `unauthorized` without a token; `invalid` if the token does not say.
pub async fn caller(arm: &Arm) -> Result<Principal> {
    let claims = arm.claims().await?;
    let id = claims["oid"]
        .as_str()
        .ok_or_else(|| Error::invalid("the token does not say whose it is: --principal OBJECT_ID does"))?;
    let id = super::names::guid("the identity's object id", id)?;
    let kind = match claims["idtyp"].as_str() {
        Some("app") => Some("ServicePrincipal"),
        Some("user") => Some("User"),
        _ => None,
    };
    Ok(Principal { id, kind })
}

/// The subscription that the Azure CLI has as its default; `None` without one, or without the Azure CLI.
pub async fn cli_subscription() -> Option<String> {
    // On Windows it is a script, which only a shell starts.
    let mut command = match cfg!(windows) {
        true => {
            let mut shell = tokio::process::Command::new("cmd");
            shell.args(["/C", "az"]);
            shell
        }
        false => tokio::process::Command::new("az"),
    };
    command.args(["account", "show", "--query", "id", "--output", "tsv"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(20), command.output()).await.ok()?.ok()?;
    let id = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    super::names::guid("the subscription", id.trim()).ok()
}
