//! Azure Resource Manager: calls, their errors, their retries.
//!
//! Over the pipeline of azure_core, which adds the token. Retries are done here and not by its policy, because every
//! call made here can be repeated, and because time is given: [`Pace`].
//!
//! *Invariants*: a token is sent to the endpoint of Resource Manager and to nobody else. Names become whole,
//! percent-encoded segments of a URL. No error holds a token or a key.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::error::ErrorKind as AzureErrorKind;
use azure_core::http::headers::{HeaderName, Headers};
use azure_core::http::policies::auth::BearerTokenAuthorizationPolicy;
use azure_core::http::{
    ClientOptions, Context, Method, Pipeline, PipelineSendOptions, Request, RetryOptions, Transport, Url,
};
use azure_core::time::OffsetDateTime;
use futures_util::future::BoxFuture;
use precedent_core::{Error, ErrorKind, Result};
use serde_json::Value;

use super::definition::{Resource, SUBSCRIPTION};
use crate::cloud::Cloud;

/// Where time passes: for real, or in a test at once.
pub trait Pace: Send + Sync + fmt::Debug {
    /// Waits.
    fn sleep(&self, duration: Duration) -> BoxFuture<'_, ()>;
    /// How long it has been since this was made.
    fn elapsed(&self) -> Duration;
}

/// The time of this machine.
#[derive(Debug)]
pub struct RealTime(Instant);

impl Default for RealTime {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Pace for RealTime {
    fn sleep(&self, duration: Duration) -> BoxFuture<'_, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// How to reach Resource Manager.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The cloud.
    pub cloud: Cloud,
    /// Who calls.
    pub credential: Arc<dyn TokenCredential>,
    /// What carries the requests.
    pub transport: Transport,
    /// Where time passes.
    pub pace: Arc<dyn Pace>,
}

/// Resource Manager, for one subscription.
#[derive(Debug, Clone)]
pub struct Arm {
    pipeline: Pipeline,
    connection: Connection,
    endpoint: Url,
    subscription: String,
}

/// An answer of Resource Manager, whatever it says.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// `null` if there was none, or if it was no JSON.
    pub(crate) body: Value,
    pub(crate) operation: Option<String>,
    pub(crate) location: Option<String>,
    pub(crate) retry_after: Option<Duration>,
}

/// A call is tried again so often.
const TRIES: u32 = 7;
/// No single wait is longer, whatever Azure says.
const WAIT_MAX: Duration = Duration::from_secs(120);

const ASYNC_OPERATION: HeaderName = HeaderName::from_static("azure-asyncoperation");
const LOCATION: HeaderName = HeaderName::from_static("location");
const RETRY_AFTER: HeaderName = HeaderName::from_static("retry-after");

impl Arm {
    /// Resource Manager as the connection reaches it. Nothing is asked of it yet.
    ///
    /// # Errors
    /// `invalid` if the subscription is no GUID; `internal` if the cloud's endpoint is no URL.
    pub fn new(connection: Connection, subscription: &str) -> Result<Self> {
        let subscription = super::names::guid("the subscription", subscription)?;
        let endpoint = Url::parse(connection.cloud.resource_manager)
            .map_err(|error| Error::new(ErrorKind::Internal, format!("the cloud's endpoint: {error}")))?;
        let scope = connection.cloud.resource_manager_scope;
        let authorization = BearerTokenAuthorizationPolicy::new(connection.credential.clone(), [scope]);
        let options = ClientOptions {
            retry: RetryOptions::none(),
            transport: Some(connection.transport.clone()),
            ..ClientOptions::default()
        };
        let (name, version) = (option_env!("CARGO_PKG_NAME"), option_env!("CARGO_PKG_VERSION"));
        let pipeline = Pipeline::new(name, version, options, Vec::new(), vec![Arc::new(authorization)], None);
        Ok(Self { pipeline, connection, endpoint, subscription })
    }

    /// The subscription.
    pub fn subscription(&self) -> &str {
        &self.subscription
    }

    /// The cloud.
    pub fn cloud(&self) -> Cloud {
        self.connection.cloud
    }

    pub(crate) fn pace(&self) -> &dyn Pace {
        self.connection.pace.as_ref()
    }

    /// A body as it is sent: with the id of the subscription in it.
    pub(crate) fn filled(&self, body: &Value) -> Value {
        match body {
            Value::String(text) => Value::String(text.replace(SUBSCRIPTION, &self.subscription)),
            Value::Array(items) => items.iter().map(|item| self.filled(item)).collect(),
            Value::Object(fields) => {
                fields.iter().map(|(key, value)| (key.clone(), self.filled(value))).collect()
            }
            other => other.clone(),
        }
    }

    /// The URL of what is in the subscription.
    fn url(&self, path: &[&str], api_version: &str, query: &[(&str, &str)]) -> Result<Url> {
        let path = [&["subscriptions", self.subscription.as_str()], path].concat();
        self.global_url(&path, api_version, query)
    }

    fn global_url(&self, path: &[&str], api_version: &str, query: &[(&str, &str)]) -> Result<Url> {
        let mut url = self.endpoint.clone();
        let odd = path.iter().find(|segment| segment.is_empty() || **segment == "." || **segment == "..");
        if let Some(odd) = odd {
            return Err(Error::invalid(format!("'{odd}' cannot be a part of a resource's id")));
        }
        match url.path_segments_mut() {
            Ok(mut segments) => {
                segments.clear().extend(path);
            }
            Err(()) => return Err(Error::new(ErrorKind::Internal, "the cloud's endpoint takes no path")),
        }
        url.query_pairs_mut().append_pair("api-version", api_version).extend_pairs(query);
        Ok(url)
    }

    /// A call for something in the subscription.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &[&str],
        api_version: &str,
        body: Option<&Value>,
    ) -> Result<Answer> {
        self.send(method, self.url(path, api_version, &[])?, body).await
    }

    /// A call for a resource of the definition, or for something in it: `below` is put after its path.
    pub(crate) async fn resource(
        &self,
        method: Method,
        resource: &Resource,
        below: &[&str],
        body: Option<&Value>,
    ) -> Result<Answer> {
        let path: Vec<&str> = resource.path.iter().map(String::as_str).chain(below.iter().copied()).collect();
        self.call(method, &path, resource.kind.api_version(), body).await
    }

    /// Whether somebody in the cloud has an account of Cosmos DB with this name.
    pub(crate) async fn is_cosmos_name_taken(&self, name: &str, api_version: &str) -> Result<bool> {
        let path = ["providers", "Microsoft.DocumentDB", "databaseAccountNames", name];
        let answer = self.send(Method::Head, self.global_url(&path, api_version, &[])?, None).await?;
        match answer.status {
            200..=299 => Ok(true),
            404 => Ok(false),
            _ => Err(answer.error()),
        }
    }

    /// Everything of a list that comes in pages.
    pub(crate) async fn list(
        &self,
        path: &[&str],
        api_version: &str,
        query: &[(&str, &str)],
    ) -> Result<Vec<Value>> {
        let mut url = self.url(path, api_version, query)?;
        let mut items = Vec::new();
        // Bounded: a list that leads back to itself is a defect of the service, and ends.
        for _ in 0..1_000 {
            let answer = self.send(Method::Get, url, None).await?.ok()?;
            items.extend(answer.body["value"].as_array().into_iter().flatten().cloned());
            match answer.body["nextLink"].as_str().filter(|link| !link.is_empty()) {
                None => return Ok(items),
                Some(link) => {
                    url = self.ours(link).ok_or_else(|| {
                        Error::new(
                            ErrorKind::Unavailable,
                            "a list of Azure goes on at another host than that of Resource Manager; the token is not \
                             sent there",
                        )
                    })?;
                }
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "a list of Azure has more than 1000 pages"))
    }

    /// A URL that Azure gave, if it leads to where the token may go.
    pub(crate) fn ours(&self, link: &str) -> Option<Url> {
        let url = Url::parse(link).ok()?;
        let plain = url.username().is_empty() && url.password().is_none();
        (plain && url.origin() == self.endpoint.origin()).then_some(url)
    }

    /// Looks at a URL that [`ours`](Self::ours) answered.
    pub(crate) async fn get(&self, url: Url) -> Result<Answer> {
        self.send(Method::Get, url, None).await
    }

    /// Sends a request, again where that makes sense, and answers whatever Azure finally says.
    async fn send(&self, method: Method, url: Url, body: Option<&Value>) -> Result<Answer> {
        let place = format!("{method} {}", url.path());
        let mut wait = Duration::from_secs(1);
        for attempt in 1.. {
            let mut request = Request::new(url.clone(), method);
            request.insert_header("accept", "application/json");
            match body {
                Some(body) => {
                    request.insert_header("content-type", "application/json");
                    request.set_body(self.filled(body).to_string());
                }
                // Resource Manager refuses these without a length.
                None if matches!(method, Method::Post | Method::Put) => {
                    request.insert_header("content-length", "0");
                }
                None => {}
            }
            let options = PipelineSendOptions { skip_checks: true, ..PipelineSendOptions::default() };
            let sent = self.pipeline.send(&Context::new(), &mut request, Some(options)).await;
            let (failed, after) = match sent {
                Ok(response) => {
                    let (status, headers, body) = response.deconstruct();
                    let answer = Answer::new(*status, &headers, &body);
                    if !answer.is_worth_a_retry() {
                        return Ok(answer);
                    }
                    let after = answer.retry_after;
                    (answer.error(), after)
                }
                Err(error) => match error.kind() {
                    AzureErrorKind::Io | AzureErrorKind::Connection => {
                        (Error::new(ErrorKind::Unavailable, format!("{} does not answer", self.host())), None)
                    }
                    AzureErrorKind::Credential => {
                        return Err(Error::new(ErrorKind::Unauthorized, one_line(&error.to_string())));
                    }
                    _ => return Err(Error::new(ErrorKind::Io, one_line(&error.to_string())).context(place)),
                },
            };
            if attempt >= TRIES {
                return Err(failed.context(format!("{place}, after {TRIES} tries")));
            }
            self.pace().sleep(after.unwrap_or(wait).clamp(Duration::from_secs(1), WAIT_MAX)).await;
            wait *= 2;
        }
        Err(Error::new(ErrorKind::Internal, "the tries of a call ended without an answer"))
    }

    fn host(&self) -> &str {
        self.endpoint.host_str().unwrap_or_default()
    }

    /// The claims of the token that calls are made with: who calls, as Entra ID says it.
    ///
    /// # Errors
    /// `unauthorized` without a token; `invalid` if it is none whose claims can be read.
    pub async fn claims(&self) -> Result<Value> {
        claims(self.connection.credential.as_ref(), self.cloud()).await
    }
}

/// The claims of the token that a credential gives.
pub(crate) async fn claims(credential: &dyn TokenCredential, cloud: Cloud) -> Result<Value> {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    let options: Option<TokenRequestOptions<'_>> = None;
    let token: AccessToken = credential
        .get_token(&[cloud.resource_manager_scope], options)
        .await
        .map_err(|error| Error::new(ErrorKind::Unauthorized, one_line(&error.to_string())))?;
    let payload = token.token.secret().split('.').nth(1).unwrap_or_default();
    URL_SAFE_NO_PAD
        .decode(payload.trim_end_matches('='))
        .ok()
        .and_then(|json| serde_json::from_slice(&json).ok())
        .ok_or_else(|| Error::invalid("the token does not say whose it is: --principal OBJECT_ID does"))
}

impl Answer {
    fn new(status: u16, headers: &Headers, body: &[u8]) -> Self {
        let text = |name: &HeaderName| headers.get_optional_str(name).map(str::to_owned);
        Self {
            status,
            body: serde_json::from_slice(body).unwrap_or(Value::Null),
            operation: text(&ASYNC_OPERATION),
            location: text(&LOCATION),
            retry_after: text(&RETRY_AFTER).and_then(|value| retry_after(&value)),
        }
    }

    /// The code and the message of Azure's error, wherever they are.
    fn said(&self) -> (String, String) {
        let error = match &self.body["error"] {
            Value::Null => &self.body,
            error => error,
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (mut code, mut message) = (text(&error["code"]), text(&error["message"]));
        // What was wrong stands in the first detail where the error itself only says that something was.
        if let Some(detail) = error["details"].as_array().and_then(|details| details.first())
            && let Some(inner) = detail["code"].as_str()
        {
            message = format!("{message} ({inner}: {})", text(&detail["message"]));
            if SPEAKING.iter().any(|(codes, ..)| codes.contains(&inner)) {
                inner.clone_into(&mut code);
            }
        }
        (code, one_line(&message))
    }

    fn is_worth_a_retry(&self) -> bool {
        match self.status {
            408 | 429 | 500 | 502 | 504 => true,
            // A region without room is not a service that is away for a moment.
            503 => !self.said().1.contains("high demand"),
            409 | 412 => {
                let (code, message) = self.said();
                IN_THE_WAY.contains(&code.as_str()) || message.contains("operation in progress")
            }
            _ => false,
        }
    }

    /// This answer, if it is a good one.
    pub(crate) fn ok(self) -> Result<Self> {
        match self.status {
            200..=299 => Ok(self),
            _ => Err(self.error()),
        }
    }

    /// What is wrong, and what to do about it.
    pub(crate) fn error(&self) -> Error {
        let (code, message) = self.said();
        explained(self.status, &code, &message)
    }

    pub(crate) fn code(&self) -> String {
        self.said().0
    }

    /// Whether the thing is not there. A subscription that is not there is something else.
    pub(crate) fn is_absent(&self) -> bool {
        self.status == 404
            && !["SubscriptionNotFound", "InvalidSubscriptionId"].contains(&self.code().as_str())
    }
}

/// Azure's answer while another operation on the same thing is under way.
const IN_THE_WAY: &[&str] = &[
    "AnotherOperationInProgress",
    "OperationInProgress",
    "StorageAccountOperationInProgress",
    "ResourceGroupBeingDeleted",
];

/// Azure's error codes that mean something to do, which is said after Azure's own words.
const SPEAKING: &[(&[&str], ErrorKind, &str)] = &[
    (
        &[
            "ExpiredAuthenticationToken",
            "InvalidAuthenticationToken",
            "AuthenticationFailed",
            "InvalidAuthenticationInfo",
        ],
        ErrorKind::Unauthorized,
        "sign in again, with 'az login' or new credentials",
    ),
    (
        &["InvalidAuthenticationTokenTenant"],
        ErrorKind::Unauthorized,
        "the subscription belongs to another tenant than the identity: 'az login --tenant TENANT', or set AZURE_TENANT_ID",
    ),
    (
        &["AuthorizationFailed", "LinkedAuthorizationFailed"],
        ErrorKind::Unauthorized,
        "the identity needs the role Contributor on the subscription or the resource group; with --entra also the right to assign roles",
    ),
    (
        &["SubscriptionNotFound", "InvalidSubscriptionId", "SubscriptionNotRegistered"],
        ErrorKind::NotFound,
        "--subscription ID names another; 'az account list' shows which there are",
    ),
    (
        &[
            "StorageAccountAlreadyTaken",
            "StorageAccountAlreadyExists",
            "AccountNameInUse",
            "DatabaseAccountNameExists",
        ],
        ErrorKind::AlreadyExists,
        "the name is unique in the whole cloud: --account NAME gives another",
    ),
    (
        &[
            "LocationNotAvailableForResourceType",
            "LocationNotAvailableForResourceGroup",
            "InvalidLocation",
            "NoRegisteredProviderFound",
        ],
        ErrorKind::Invalid,
        "another location takes it; 'az account list-locations' shows which there are",
    ),
    (
        &[
            "QuotaExceeded",
            "MaxStorageAccountsCountPerSubscriptionExceeded",
            "SubscriptionRequestsThrottled",
            "OperationNotAllowed",
            "RegionCapacityExceeded",
        ],
        ErrorKind::LimitExceeded,
        "a quota of the subscription is used up: have it raised, or use another location",
    ),
    (
        &["ServiceUnavailable"],
        ErrorKind::Unavailable,
        "where a region has no room for new accounts, another location takes it",
    ),
    (
        &["RequestDisallowedByPolicy"],
        ErrorKind::Invalid,
        "a policy of the subscription forbids it: ask who administers it",
    ),
    (
        &["ScopeLocked"],
        ErrorKind::ReadOnly,
        "a lock is on it, on its resource group or on the subscription; 'az lock list' shows it",
    ),
    (
        &[
            "AnotherOperationInProgress",
            "OperationInProgress",
            "StorageAccountOperationInProgress",
            "ResourceGroupBeingDeleted",
        ],
        ErrorKind::Unavailable,
        "Azure is at work on it: the same again later goes on from there",
    ),
    (&["ReadOnlyDisabledSubscription"], ErrorKind::ReadOnly, "the subscription is disabled"),
];

/// An error of Azure as one of ours: Azure's code and words, then what to do.
pub(crate) fn explained(status: u16, code: &str, message: &str) -> Error {
    let known = SPEAKING.iter().find(|(codes, ..)| codes.contains(&code));
    let kind = known.map_or_else(
        || match status {
            401 | 403 => ErrorKind::Unauthorized,
            404 => ErrorKind::NotFound,
            429 => ErrorKind::Overloaded,
            408 | 500..=599 => ErrorKind::Unavailable,
            _ => ErrorKind::Invalid,
        },
        |(_, kind, _)| *kind,
    );
    let code = if code.is_empty() { format!("status {status}") } else { code.escape_debug().to_string() };
    let message = if message.is_empty() { "it does not say why" } else { message };
    let remedy = known.map_or(String::new(), |(.., remedy)| format!("; {remedy}"));
    Error::new(kind, format!("Azure says {code}: {}{remedy}", message.trim_end_matches('.')))
}

/// `Retry-After`, in seconds or as a date.
fn retry_after(value: &str) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let until = azure_core::time::parse_rfc7231(value).ok()? - OffsetDateTime::now_utc();
    Some(Duration::from_secs(until.whole_seconds().try_into().unwrap_or_default()))
}

/// A message of others as one line of bounded length.
pub(crate) fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(600) {
        None => line,
        Some((at, _)) => format!("{}…", &line[..at]),
    }
}
