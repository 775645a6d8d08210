//! What is needed to use the store: where it is, and its key unless there is none.
//!
//! *Invariant*: a key is fetched only where somebody asked to see it or to have it written to a file.

use azure_core::credentials::Secret;
use azure_core::http::Method;
use precedent_core::{Error, ErrorKind, Result};
use serde_json::Value;

use super::arm::Arm;
use super::definition::{Resource, definition};
use super::settings::{Service, Settings, Store};
use crate::cloud::{CLOUD_VARIABLE, CLOUDS};

/// A value, or the place of one.
#[derive(Debug, Clone)]
pub enum Shown {
    /// Everybody may see it.
    Plain(String),
    /// It gives access to the store. `None` if it was not fetched.
    Secret(Option<Secret>),
}

/// A named value.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: Shown,
}

/// Everything.
#[derive(Debug, Clone)]
pub struct Outputs {
    /// The outputs, as infrastructure programs name them.
    pub values: Vec<Output>,
    /// The environment in which `precedent` finds the store.
    pub environment: Vec<Output>,
    /// The URL of the store.
    pub url: String,
    /// Whether keys are off, so that there is no secret.
    pub keyless: bool,
}

/// Reads the outputs; the secrets among them if asked to.
///
/// # Errors
/// `not_found` if the account is not there.
pub async fn outputs(arm: &Arm, settings: &Settings, with_secrets: bool) -> Result<Outputs> {
    let resources = definition(settings);
    let account = &resources[1];
    let answer = arm.resource(Method::Get, account, &[], None).await?;
    if answer.is_absent() {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!(
                "the {} '{}' is not there in the resource group '{}'; 'precedent provision {} up' makes it",
                account.kind.noun(),
                account.name,
                settings.group,
                settings.service().name()
            ),
        ));
    }
    let properties = answer.ok()?.body["properties"].take();
    let keyless = match settings.service() {
        Service::Cosmos => properties["disableLocalAuth"] == true,
        Service::Table => properties["allowSharedKeyAccess"] == false,
    };
    let key = match with_secrets && !keyless {
        true => Some(key(arm, account, settings.service()).await?),
        false => None,
    };
    let plain = |name, value: &str| Output { name, value: Shown::Plain(value.to_owned()) };
    let secret = |name, value: Option<String>| Output { name, value: Shown::Secret(value.map(Secret::new)) };
    let (mut values, mut environment) = (Vec::new(), Vec::new());
    match &settings.store {
        Store::Cosmos { .. } => {
            let endpoint = text(&properties["documentEndpoint"], "the account has no endpoint yet")?;
            values.push(plain("cosmosdb_endpoint", endpoint));
            if !keyless {
                let connection = key
                    .as_ref()
                    .map(|key| format!("AccountEndpoint={endpoint};AccountKey={};", key.secret()));
                values.push(secret("primary_master_key", key.as_ref().map(|key| key.secret().to_owned())));
                environment.push(secret("AZURE_COSMOS_CONNECTION_STRING", connection));
            }
        }
        Store::Table { table, .. } => {
            let endpoint = text(&properties["primaryEndpoints"]["table"], "the account has no endpoint yet")?;
            let suffix = endpoint
                .trim_end_matches('/')
                .strip_prefix("https://")
                .and_then(|host| host.split_once(".table."))
                .map_or(settings.cloud.storage_suffix, |(_, suffix)| suffix);
            if keyless {
                values.push(plain("primary_table_endpoint", endpoint));
            } else {
                let account = &settings.account;
                let connection = key.as_ref().map(|key| {
                    let key = key.secret();
                    format!(
                        "DefaultEndpointsProtocol=https;AccountName={account};AccountKey={key};EndpointSuffix={suffix}"
                    )
                });
                values.push(secret("primary_storage_connection_string", connection.clone()));
                environment.push(secret("AZURE_STORAGE_CONNECTION_STRING", connection));
            }
            values.push(plain("table_name", table));
        }
    }
    let url = settings.url();
    environment.push(plain("PRECEDENT_URL", &url));
    if settings.cloud != CLOUDS[0] {
        environment.push(plain(CLOUD_VARIABLE, settings.cloud.name));
    }
    Ok(Outputs { values, environment, url, keyless })
}

fn text<'a>(value: &'a Value, missing: &str) -> Result<&'a str> {
    value.as_str().ok_or_else(|| Error::new(ErrorKind::Unavailable, missing))
}

async fn key(arm: &Arm, account: &Resource, service: Service) -> Result<Secret> {
    let answer = arm.resource(Method::Post, account, &["listKeys"], None).await?.ok()?;
    let key = match service {
        Service::Cosmos => &answer.body["primaryMasterKey"],
        Service::Table => &answer.body["keys"][0]["value"],
    };
    text(key, "Azure lists no key of the account").map(|key| Secret::new(key.to_owned()))
}
