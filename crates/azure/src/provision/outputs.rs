//! What is needed to use the store: where it is, and its key unless there is none.
//!
//! *Invariant*: a key is fetched only where somebody asked to see it or to have it written to a file.

use azure_core::credentials::Secret;
use azure_core::http::{Method, Url};
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
    let endpoint = match settings.service() {
        Service::Cosmos => &properties["documentEndpoint"],
        Service::Table => &properties["primaryEndpoints"]["table"],
    };
    let endpoint = text(endpoint, "the account has no endpoint yet")?;
    let (mut values, mut environment) = (Vec::new(), Vec::new());
    match &settings.store {
        Store::Cosmos { .. } => {
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
            if keyless {
                values.push(plain("primary_table_endpoint", endpoint));
            } else {
                let connection = key.as_ref().map(|key| table_connection(settings, endpoint, key));
                values.push(secret("primary_storage_connection_string", connection.clone()));
                environment.push(secret("AZURE_STORAGE_CONNECTION_STRING", connection));
            }
            values.push(plain("table_name", table));
        }
    }
    let url = store_url(settings, endpoint)?;
    environment.push(plain("PRECEDENT_URL", &url));
    if settings.cloud != CLOUDS[0] {
        environment.push(plain(CLOUD_VARIABLE, settings.cloud.name));
    }
    Ok(Outputs { values, environment, url, keyless })
}

/// Whether an endpoint is the one that every account of the cloud has, and so says nothing.
fn is_usual(settings: &Settings, endpoint: &Url) -> bool {
    let (account, cloud) = (&settings.account, settings.cloud);
    let usual = match settings.service() {
        Service::Cosmos => format!("{account}.{}", cloud.cosmos_suffix),
        Service::Table => format!("{account}.table.{}", cloud.storage_suffix),
    };
    endpoint.scheme() == "https" && endpoint.host_str() == Some(&usual)
}

/// The URL of the store: the short one, unless Azure put the account elsewhere.
fn store_url(settings: &Settings, endpoint: &str) -> Result<String> {
    let url = parsed(endpoint)?;
    if is_usual(settings, &url) {
        return Ok(settings.url());
    }
    let (scheme, host) = match (url.scheme(), url.host_str(), url.port()) {
        ("https", Some(host), None) => ("", host.to_owned()),
        ("http", Some(host), Some(port)) => ("+http", format!("{host}:{port}")),
        _ => return Err(unknown_endpoint(endpoint)),
    };
    // An emulator has its accounts in the path.
    let path = url.path().trim_end_matches('/');
    Ok(match &settings.store {
        Store::Cosmos { database, container, .. } => {
            format!("cosmos{scheme}://{host}{path}/{database}/{container}")
        }
        Store::Table { table, .. } => format!("table{scheme}://{host}{path}/{table}"),
    })
}

/// The connection string of a storage account, as the tools of Azure print it.
fn table_connection(settings: &Settings, endpoint: &str, key: &Secret) -> String {
    let (account, key) = (&settings.account, key.secret());
    match parsed(endpoint) {
        Ok(url) if !is_usual(settings, &url) => {
            let scheme = url.scheme();
            format!(
                "DefaultEndpointsProtocol={scheme};AccountName={account};AccountKey={key};TableEndpoint={endpoint}"
            )
        }
        _ => {
            let suffix = settings.cloud.storage_suffix;
            format!(
                "DefaultEndpointsProtocol=https;AccountName={account};AccountKey={key};EndpointSuffix={suffix}"
            )
        }
    }
}

fn parsed(endpoint: &str) -> Result<Url> {
    Url::parse(endpoint).map_err(|_| unknown_endpoint(endpoint))
}

fn unknown_endpoint(endpoint: &str) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("the endpoint of the account, '{endpoint}', is not understood"),
    )
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
