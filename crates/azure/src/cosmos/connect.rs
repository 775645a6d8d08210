//! Opening a container: the account's regions and clock, the client, the definition of the container, its throughput.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use azure_core::credentials::Secret;
use azure_core::hmac::hmac_sha256;
use azure_core::http::{HttpClient, Method, Request};
use azure_core::time::{OffsetDateTime, parse_rfc7231, to_rfc7231};
use azure_data_cosmos::models::{ContainerProperties, ThroughputProperties, TimeToLive};
use azure_data_cosmos::options::{
    AvailabilityStrategy, ExcludedRegions, OperationOptionsBuilder, ReadConsistencyStrategy, Region,
    ThrottlingRetryOptionsBuilder,
};
use azure_data_cosmos::{
    AccountEndpoint, AccountReference, ContainerClient, CosmosClientBuilder, CosmosRuntime, RoutingStrategy,
};
use precedent_core::{Error, ErrorKind, Result, Time};
use serde::Deserialize;

use super::errors::from_cosmos;
use super::settings::{Credential, Options, Settings, not_a_store};

/// How often a call that is throttled is tried again, and how long that takes at most. The SDK's own bounds are minutes,
/// in which whoever appends hears nothing.
const THROTTLED_TRIES: u32 = 9;
const THROTTLED_WAIT: Duration = Duration::from_secs(10);

/// What requests go through; tests put an emulator here.
#[derive(Debug, Clone, Default)]
pub struct Transport {
    /// The SDK's runtime, if not its usual one.
    pub runtime: Option<CosmosRuntime>,
    /// What sends the request for the account's regions, if not the usual client.
    pub http: Option<Arc<dyn HttpClient>>,
}

/// What the account says of itself.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AccountDocument {
    writable_locations: Vec<Location>,
    #[serde(default)]
    readable_locations: Vec<Location>,
    #[serde(default)]
    enable_multiple_write_locations: bool,
}

#[derive(Debug, Deserialize)]
struct Location {
    name: String,
}

/// An open container.
pub(super) struct Opened {
    pub(super) container: ContainerClient,
    pub(super) region: String,
    pub(super) several_write_regions: bool,
    pub(super) hierarchical: bool,
    pub(super) throughput: Option<u64>,
    /// Whether the throughput is the most of what follows the load.
    pub(super) autoscale: bool,
    pub(super) clock: Option<(Time, Time)>,
    /// The request units that opening took, as far as the SDK says: not those of reading the throughput.
    pub(super) units: f64,
}

pub(super) async fn open(settings: &Settings, options: &Options, transport: Transport) -> Result<Opened> {
    // The SDK leaves the choice of cryptography to the program. Whoever chose before us is right.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let kind = settings.credential.kind();
    let (account, clock) = account(settings, &transport).await?;
    let writable: Vec<&str> = account.writable_locations.iter().map(|l| l.name.as_str()).collect();
    let several = account.enable_multiple_write_locations && writable.len() > 1;
    let region = match &options.region {
        None => (*writable.first().ok_or_else(|| not_a_store("the account has no write region".into()))?)
            .to_owned(),
        Some(wished) => {
            let wish = Region::from(wished.clone());
            let found = writable.iter().find(|name| Region::from((**name).to_owned()) == wish);
            (*found.ok_or_else(|| {
                Error::invalid(format!(
                    "the account takes no writes in '{wished}': in {}",
                    writable.join(", ")
                ))
            })?)
            .to_owned()
        }
    };
    let home = Region::from(region.clone());
    let others = writable.iter().copied().chain(account.readable_locations.iter().map(|l| l.name.as_str()));
    let excluded: ExcludedRegions =
        others.map(|name| Region::from(name.to_owned())).filter(|other| *other != home).collect();
    let throttled = ThrottlingRetryOptionsBuilder::new()
        .with_max_retry_count(THROTTLED_TRIES)
        .with_max_retry_wait_time(THROTTLED_WAIT)
        .build();
    let operations = OperationOptionsBuilder::new()
        .with_throttling_retry_options(throttled)
        .with_read_consistency_strategy(ReadConsistencyStrategy::LatestCommitted)
        .with_excluded_regions(excluded)
        .with_hedging_enabled(false)
        .with_availability_strategy(AvailabilityStrategy::Disabled)
        .build();
    let endpoint = AccountEndpoint::from(settings.endpoint.clone());
    let account = match &settings.credential {
        Credential::Key(key) => AccountReference::with_authentication_key(endpoint, key.clone()),
        Credential::Entra => AccountReference::with_credential(endpoint, crate::credentials::entra()?),
    };
    let mut builder = CosmosClientBuilder::new().with_default_operation_options(operations);
    if let Some(runtime) = transport.runtime {
        builder = builder.with_runtime(runtime);
    }
    let place = || format!("{}/{}", settings.database, settings.container);
    let failed = |error: &_| from_cosmos(error, &place(), kind);
    let client = builder
        .build(account, RoutingStrategy::PreferredRegions(vec![home]))
        .await
        .map_err(|e| failed(&e))?;
    let database = client.database_client(settings.database.as_str());
    let container =
        database.container_client(settings.container.as_str(), None).await.map_err(|e| failed(&e))?;
    let answer = container.read(None).await.map_err(|e| failed(&e))?;
    let units = answer.headers().request_charge().map_or(0.0, |charge| charge.value());
    let properties: ContainerProperties = answer.into_model().map_err(|e| failed(&e))?;
    let hierarchical = hierarchical(&properties)?;
    // Only an account key may read the throughput, and in a shared database it stands there.
    let throughput = match container.read_throughput(None).await {
        Ok(Some(found)) => Some(found),
        _ => database.read_throughput(None).await.ok().flatten(),
    };
    let (throughput, autoscale) = throughput.as_ref().map_or((None, false), provisioned);
    Ok(Opened {
        container,
        region,
        several_write_regions: several,
        hierarchical,
        throughput,
        autoscale,
        clock,
        units,
    })
}

/// The request units a second, and whether they follow the load. Then the most counts: what it is now, it is only now.
fn provisioned(throughput: &ThroughputProperties) -> (Option<u64>, bool) {
    match throughput.autoscale_maximum() {
        Some(most) => (Some(most), true),
        None => (throughput.throughput(), false),
    }
}

fn hierarchical(properties: &ContainerProperties) -> Result<bool> {
    let paths: Vec<&str> = properties.partition_key.paths().iter().map(AsRef::as_ref).collect();
    let hierarchical = match paths[..] {
        ["/eventType"] => false,
        ["/eventType", "/period"] => true,
        _ => {
            return Err(not_a_store(format!(
                "the container has the partition key {}, a log needs /eventType, or /eventType with /period: \
                 `precedent provision cosmos` makes one",
                paths.join(", ")
            )));
        }
    };
    if let TimeToLive::Seconds(seconds) = properties.default_ttl {
        return Err(not_a_store(format!(
            "the container deletes items after {seconds} seconds (its default time to live), a log needs one that \
             does not: `precedent provision cosmos` makes one"
        )));
    }
    Ok(hierarchical)
}

/// Asks the account for its regions. The SDK asks the same and keeps the answer to itself; this way we also hear what
/// time it is there.
async fn account(
    settings: &Settings,
    transport: &Transport,
) -> Result<(AccountDocument, Option<(Time, Time)>)> {
    let host = settings.endpoint.host_str().unwrap_or_default();
    let date = to_rfc7231(&OffsetDateTime::now_utc());
    let token = match &settings.credential {
        Credential::Key(key) => {
            let signed = hmac_sha256(&format!("get\n\n\n{}\n\n", date.to_lowercase()), key)
                .map_err(|_| Error::new(ErrorKind::Unauthorized, "the account key is not base64"))?;
            format!("type=master&ver=1.0&sig={signed}")
        }
        Credential::Entra => {
            let scope = format!("https://{host}/.default");
            let token = crate::credentials::entra()?.get_token(&[&scope], None).await;
            let token = token.map_err(|_| Error::new(ErrorKind::Unauthorized, "Entra ID gave no token"))?;
            format!("type=aad&ver=1.0&sig={}", token.token.secret())
        }
    };
    let escaped: String = url::form_urlencoded::byte_serialize(token.as_bytes()).collect();
    let mut request = Request::new(settings.endpoint.clone(), Method::Get);
    request.insert_header("authorization", Secret::new(escaped).secret().to_owned());
    request.insert_header("x-ms-date", date);
    request.insert_header("x-ms-version", "2018-12-31");
    request.insert_header("accept", "application/json");
    let http = transport.http.clone().unwrap_or_else(|| azure_core::http::new_http_client(None));
    let unreachable = |error: azure_core::Error| {
        let mut reason = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            reason = format!("{reason}: {inner}");
            source = inner.source();
        }
        Error::new(ErrorKind::Unavailable, format!("the account {host} cannot be reached: {reason}"))
    };
    let answer = http.execute_request(&request).await.map_err(unreachable)?;
    let heard = Time::from_system(SystemTime::now());
    let (status, headers, body) = answer.deconstruct();
    let clock = headers
        .get_optional_str(&"date".into())
        .and_then(|text| parse_rfc7231(text).ok())
        .and_then(|time| u64::try_from(time.unix_timestamp_nanos() / 1000).ok())
        .and_then(|micros| Time::from_micros(micros).ok())
        .map(|there| (there, heard));
    match u16::from(status) {
        200 => {}
        401 | 403 => {
            let kind = settings.credential.kind();
            let message =
                format!("the account {host} answered {}: the {kind} was refused", u16::from(status));
            return Err(Error::new(ErrorKind::Unauthorized, message));
        }
        other => {
            return Err(Error::new(ErrorKind::Unavailable, format!("the account {host} answered {other}")));
        }
    }
    let bytes = body.collect().await.map_err(unreachable)?;
    let document = serde_json::from_slice(&bytes)
        .map_err(|_| not_a_store(format!("{host} does not answer as an account of Cosmos DB")))?;
    Ok((document, clock))
}

#[cfg(test)]
mod tests {
    use azure_data_cosmos::models::ThroughputProperties;

    use super::provisioned;

    #[test]
    fn of_a_throughput_that_follows_the_load_the_most_counts() {
        assert_eq!(provisioned(&ThroughputProperties::manual(700)), (Some(700), false));
        assert_eq!(provisioned(&ThroughputProperties::autoscale(4_000, Some(10))), (Some(4_000), true));
        // As the service writes an offer that scales: with what it is at the moment beside the most.
        let offer = serde_json::json!({
            "id": "o", "_rid": "o", "_self": "offers/o/", "_etag": "e", "_ts": 1, "offerVersion": "V2",
            "offerType": "Invalid", "resource": "dbs/d/colls/c/", "offerResourceId": "c",
            "content": {
                "offerThroughput": 400, "offerIsRUPerMinuteThroughputEnabled": false,
                "offerAutopilotSettings": { "tier": 0, "maximumTierThroughput": 0, "autoUpgrade": false, "maxThroughput": 4000 }
            }
        });
        let offer: ThroughputProperties = serde_json::from_value(offer).expect("an offer");
        assert_eq!(provisioned(&offer), (Some(4_000), true));
    }
}
