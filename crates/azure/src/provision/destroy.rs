//! Deleting the resource group, and with it everything in it.
//!
//! *Invariants*: only a group that carries our tag, looked at right before; and with anything in it that the definition
//! does not name, only if that was said to be meant.

use azure_core::http::Method;
use precedent_core::{Error, ErrorKind, Result};
use serde_json::Value;

use super::arm::{Arm, one_line};
use super::definition::{Resource, SUBSCRIPTION, TAG, definition};
use super::plan::is_tagged;
use super::poll;
use super::settings::Settings;

/// Something in the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doomed {
    /// Its type, as Azure names it.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Whether the definition names it.
    pub ours: bool,
}

/// What deleting would delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Demolition {
    /// There is no such group.
    Nothing,
    /// The group is being deleted already.
    UnderWay,
    /// The group, with these in it. Azure does not list databases, containers and tables: they go with their account.
    Group(Vec<Doomed>),
}

/// Looks at what deleting would delete.
///
/// # Errors
/// `read_only` if the group does not carry our tag.
pub async fn inspect(arm: &Arm, settings: &Settings) -> Result<Demolition> {
    let resources = definition(settings);
    let group = &resources[0];
    let Some(actual) = ours(arm, group).await? else { return Ok(Demolition::Nothing) };
    if poll::state(&actual).is_some_and(|state| state.eq_ignore_ascii_case("Deleting")) {
        return Ok(Demolition::UnderWay);
    }
    let listed = arm.list(&["resourceGroups", &group.name, "resources"], "2021-04-01", &[]).await?;
    let named: Vec<String> = resources
        .iter()
        .map(|resource| resource.id().replace(SUBSCRIPTION, arm.subscription()).to_ascii_lowercase())
        .collect();
    let doomed = listed.iter().map(|item| {
        let text = |key: &str| one_line(item[key].as_str().unwrap_or("(without a name)"));
        Doomed {
            kind: text("type"),
            name: text("name"),
            ours: item["id"].as_str().is_some_and(|id| named.contains(&id.to_ascii_lowercase())),
        }
    });
    Ok(Demolition::Group(doomed.collect()))
}

/// The group, if it is there and carries our tag.
async fn ours(arm: &Arm, group: &Resource) -> Result<Option<Value>> {
    let answer = arm.resource(Method::Get, group, &[], None).await?;
    if answer.is_absent() {
        return Ok(None);
    }
    let actual = answer.ok()?.body;
    match is_tagged(&actual) {
        true => Ok(Some(actual)),
        false => Err(Error::new(
            ErrorKind::ReadOnly,
            format!(
                "the resource group '{}' does not carry the tag {}={}, so it was not made by this program and is not \
                 deleted by it; nothing was deleted",
                group.name, TAG.0, TAG.1
            ),
        )),
    }
}

/// Deletes the group and waits until it is gone. One that is not there is no error.
///
/// # Errors
/// `read_only` if the group does not carry our tag, or a lock is on it; else what Azure says. What Azure has begun to
/// delete it goes on deleting; doing the same again waits for it.
pub async fn destroy(
    arm: &Arm,
    settings: &Settings,
    waiting: &(dyn Fn(std::time::Duration) + Send + Sync),
) -> Result<()> {
    let resources = definition(settings);
    let group = &resources[0];
    if ours(arm, group).await?.is_none() {
        return Ok(());
    }
    let answer = arm.resource(Method::Delete, group, &[], None).await?;
    poll::gone(arm, group, answer, waiting)
        .await
        .map_err(|error| error.context(format!("the resource group '{}'", group.name)))
}
