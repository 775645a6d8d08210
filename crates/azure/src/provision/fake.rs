//! An Azure Resource Manager that is played in the process, behind the transport of the pipeline.
//!
//! It keeps what it was given, refuses what Azure refuses, goes on with operations after it has answered (in each of the
//! three styles), throttles, fails and goes away. Time is played too: waiting takes none.
//!
//! What it knows of Azure is what the REST references and the notes on this crate's modules say; it was never compared with
//! Azure itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::http::headers::{HeaderName, Headers};
use azure_core::http::{AsyncRawResponse, Body, HttpClient, Method, Request, StatusCode, Transport};
use azure_core::time::OffsetDateTime;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::arm::{Arm, Connection, Pace};
use crate::cloud::Cloud;

/// The subscription there is.
pub const SUBSCRIPTION: &str = "11111111-2222-3333-4444-555555555555";
/// Who calls.
pub const CALLER: &str = "99999999-8888-7777-6666-555555555555";
/// The key that every account has. No output may hold it unless somebody asked to see it.
pub const KEY: &str = "c2VjcmV0IG9mIHRoZSBmYWtl";

/// The regions: as Azure names them, and as it shows them.
const REGIONS: &[(&str, &str)] = &[
    ("eastus", "East US"),
    ("westeurope", "West Europe"),
    ("northeurope", "North Europe"),
    ("usgovvirginia", "USGov Virginia"),
];

/// How an operation that goes on after its answer is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// `Azure-AsyncOperation`.
    Operation,
    /// 202 and `Location`; what is being made is not seen until it is there.
    Location,
    /// `provisioningState` alone.
    State,
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The connection cannot be made; nothing happens.
    NoConnection,
    /// It happens, and the answer is lost.
    LostAnswer,
    /// Nothing happens, and the answer is 500.
    ServerError,
}

/// What goes wrong.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// These calls (numbered from 1), and what happens to them.
    pub trouble: Option<(std::ops::Range<usize>, Option<Trouble>)>,
    /// Every so many calls is answered 429, with so many seconds to wait.
    pub throttle: Option<(usize, u64)>,
    /// The token has expired.
    pub expired: bool,
    /// The subscription is in another tenant.
    pub other_tenant: bool,
    /// Nothing may be written.
    pub forbidden: bool,
    /// No more accounts may be made.
    pub quota: bool,
    /// A lock is on everything.
    pub locked: bool,
    /// Links lead to another host.
    pub foreign_links: bool,
    /// The next operation that goes on after its answer ends badly.
    pub fails_later: Option<(&'static str, &'static str)>,
}

/// Where accounts keep their data, and their key: emulators, which answer for whatever account is made.
#[derive(Debug, Clone)]
pub struct DataPlanes {
    /// The endpoint of a Cosmos DB account.
    pub cosmos: String,
    /// Its key.
    pub cosmos_key: String,
    /// The endpoint of a storage account's tables.
    pub table: String,
    /// Its key.
    pub table_key: String,
}

#[derive(Debug)]
struct Operation {
    ends: Duration,
    /// The resource, and what it is at the end; `None` deletes everything in the path.
    path: String,
    then: Option<Value>,
    failure: Option<(&'static str, &'static str)>,
    ended: bool,
}

#[derive(Debug)]
struct World {
    style: Style,
    script: Script,
    /// By path, in lower case.
    resources: BTreeMap<String, Value>,
    operations: Vec<Operation>,
    registered: BTreeSet<String>,
    taken: BTreeSet<String>,
    data_planes: Option<DataPlanes>,
    calls: Vec<String>,
    strangers: Vec<String>,
}

/// The played Resource Manager.
#[derive(Debug)]
pub struct Fake {
    cloud: Cloud,
    world: Mutex<World>,
    time: Arc<FakeTime>,
}

/// Time that passes when somebody waits.
#[derive(Debug, Default)]
pub struct FakeTime {
    now: Mutex<Duration>,
    waits: Mutex<Vec<Duration>>,
}

impl FakeTime {
    /// Every wait so far.
    pub fn waits(&self) -> Vec<Duration> {
        locked(&self.waits).clone()
    }
}

impl Pace for FakeTime {
    fn sleep(&self, duration: Duration) -> BoxFuture<'_, ()> {
        *locked(&self.now) += duration;
        locked(&self.waits).push(duration);
        Box::pin(std::future::ready(()))
    }

    fn elapsed(&self) -> Duration {
        *locked(&self.now)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Who gives the tokens.
#[derive(Debug)]
struct FakeCredential;

#[async_trait::async_trait]
impl TokenCredential for FakeCredential {
    async fn get_token(
        &self,
        scopes: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let claims = json!({"oid": CALLER, "idtyp": "user", "aud": scopes[0]});
        let token = format!("e30.{}.signature", URL_SAFE_NO_PAD.encode(claims.to_string()));
        Ok(AccessToken::new(token, OffsetDateTime::now_utc() + azure_core::time::Duration::hours(1)))
    }
}

/// An answer that is being put together.
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Value,
}

impl Reply {
    fn new(status: u16, body: Value) -> Self {
        Self { status, headers: Vec::new(), body }
    }

    fn error(status: u16, code: &str, message: impl Into<String>) -> Self {
        let message: String = message.into();
        Self::new(status, json!({"error": {"code": code, "message": message}}))
    }
}

/// The api-versions that are known, by what they are for.
const VERSIONS: &[(&str, &[&str])] = &[
    ("microsoft.documentdb", &["2025-10-15"]),
    ("microsoft.storage", &["2024-01-01"]),
    ("microsoft.authorization", &["2022-04-01"]),
    ("", &["2021-04-01", "2024-03-01"]),
];

impl Fake {
    /// A subscription with nothing in it, registered for nothing.
    pub fn new(cloud: Cloud, style: Style) -> Arc<Self> {
        Arc::new(Self {
            cloud,
            time: Arc::default(),
            world: Mutex::new(World {
                style,
                script: Script::default(),
                resources: BTreeMap::new(),
                operations: Vec::new(),
                registered: BTreeSet::new(),
                taken: BTreeSet::new(),
                data_planes: None,
                calls: Vec::new(),
                strangers: Vec::new(),
            }),
        })
    }

    /// How to reach it.
    pub fn connection(self: &Arc<Self>) -> Connection {
        Connection {
            cloud: self.cloud,
            credential: Arc::new(FakeCredential),
            transport: Transport::new(self.clone()),
            pace: self.time.clone(),
        }
    }

    /// A client of it.
    pub fn arm(self: &Arc<Self>) -> Arm {
        Arm::new(self.connection(), SUBSCRIPTION).expect("the subscription is a GUID")
    }

    /// What goes wrong from now on.
    pub fn script(&self, script: Script) {
        locked(&self.world).script = script;
    }

    /// Somebody else in the cloud has an account of this name.
    pub fn take(&self, name: &str) {
        locked(&self.world).taken.insert(name.to_owned());
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<String> {
        locked(&self.world).calls.clone()
    }

    /// Requests to hosts that are not those of Resource Manager.
    pub fn strangers(&self) -> Vec<String> {
        locked(&self.world).strangers.clone()
    }

    /// Forgets the calls so far; they are numbered from 1 again.
    pub fn forget_calls(&self) {
        locked(&self.world).calls.clear();
    }

    /// The time it plays.
    pub fn time(&self) -> &FakeTime {
        &self.time
    }

    /// The resource whose path ends so, changed as somebody else would.
    ///
    /// # Panics
    /// If there is none.
    pub fn meddle(&self, end: &str, change: impl FnOnce(&mut Value)) {
        let end = end.to_ascii_lowercase();
        let mut world = locked(&self.world);
        let found = world.resources.iter_mut().find(|(path, _)| path.ends_with(&end));
        change(found.unwrap_or_else(|| panic!("there is no {end}")).1);
    }

    /// Puts something there, as somebody else would; `path` is from the subscription on.
    pub fn put(&self, path: &str, value: Value) {
        let path = format!("/subscriptions/{SUBSCRIPTION}/{path}").to_ascii_lowercase();
        locked(&self.world).resources.insert(path, value);
    }

    /// Somebody deletes what has this name and puts something else there.
    pub fn rename(&self, name: &str, path: &str, value: Value) {
        let mut world = locked(&self.world);
        world.resources.retain(|path, _| !path.ends_with(&format!("/{name}")));
        world.resources.insert(path.to_ascii_lowercase(), value);
    }

    /// The paths of everything there is.
    pub fn paths(&self) -> Vec<String> {
        locked(&self.world).resources.keys().cloned().collect()
    }

    /// What there is at one of the [paths](Fake::paths).
    pub fn resource(&self, path: &str) -> Option<Value> {
        locked(&self.world).resources.get(path).cloned()
    }

    /// Accounts made from now on keep their data there.
    pub fn keep_data_in(&self, planes: DataPlanes) {
        locked(&self.world).data_planes = Some(planes);
    }

    fn answer(&self, request: &Request) -> Result<Reply, azure_core::Error> {
        let mut world = locked(&self.world);
        let url = request.url().clone();
        let host = url.host_str().unwrap_or_default().to_owned();
        let path = url.path().to_owned();
        world.calls.push(format!("{} {path}", request.method()));
        let number = world.calls.len();
        if format!("https://{host}") != self.cloud.resource_manager {
            world.strangers.push(url.to_string());
            return Ok(Reply::error(403, "Stranger", "this is another host"));
        }
        let trouble = match &world.script.trouble {
            Some((calls, trouble)) if calls.contains(&number) => *trouble,
            _ => None,
        };
        let gone =
            || azure_core::Error::with_message(azure_core::error::ErrorKind::Io, "the connection was reset");
        match trouble {
            Some(Trouble::NoConnection) => return Err(gone()),
            Some(Trouble::ServerError) => return Ok(Reply::error(500, "InternalServerError", "try again")),
            _ => {}
        }
        if let Some((every, seconds)) = world.script.throttle
            && number.is_multiple_of(every)
        {
            let mut reply = Reply::error(429, "TooManyRequests", "slow down");
            reply.headers.push(("retry-after", seconds.to_string()));
            return Ok(reply);
        }
        let now = self.time.elapsed();
        world.settle(now);
        let body = match request.body() {
            Body::Bytes(bytes) if !bytes.is_empty() => serde_json::from_slice(bytes).unwrap_or(Value::Null),
            _ => Value::Null,
        };
        let reply = self
            .admit(&world, request)
            .unwrap_or_else(|| world.route(request.method(), &url, &path, &body, now, self.cloud));
        match trouble {
            Some(_) => Err(gone()),
            None => Ok(reply),
        }
    }

    /// Who may call at all.
    fn admit(&self, world: &World, request: &Request) -> Option<Reply> {
        let url = request.url();
        let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
        let authorization = request.headers().get_optional_str(&HeaderName::from_static("authorization"));
        let claims = authorization
            .and_then(|value| value.strip_prefix("Bearer "))
            .and_then(|token| token.split('.').nth(1))
            .and_then(|claims| URL_SAFE_NO_PAD.decode(claims).ok())
            .and_then(|claims| serde_json::from_slice::<Value>(&claims).ok());
        let Some(claims) = claims else {
            return Some(Reply::error(401, "AuthenticationFailed", "the 'Authorization' header is missing"));
        };
        if claims["aud"] != self.cloud.resource_manager_scope {
            return Some(Reply::error(401, "InvalidAuthenticationToken", "the audience is another"));
        }
        if world.script.expired {
            return Some(Reply::error(
                401,
                "ExpiredAuthenticationToken",
                "The access token expiry UTC time is earlier than now.",
            ));
        }
        if world.script.other_tenant {
            return Some(Reply::error(
                401,
                "InvalidAuthenticationTokenTenant",
                "The access token is from the wrong issuer.",
            ));
        }
        let Some(version) = query.get("api-version") else {
            // The links that are given out carry one too.
            return Some(Reply::error(
                400,
                "MissingApiVersionParameter",
                "The api-version query parameter is required.",
            ));
        };
        let path = url.path().to_ascii_lowercase();
        let namespace = path.rsplit("/providers/").next().filter(|_| path.contains("/providers/"));
        // A provider itself, and what leads out of it, is looked at with the versions of Resource Manager.
        let namespace = namespace
            .and_then(|rest| rest.split_once('/'))
            .filter(|(_, rest)| *rest != "register")
            .map_or("", |(namespace, _)| namespace);
        let known = VERSIONS.iter().find(|(of, _)| *of == namespace).map(|(_, versions)| *versions);
        if !known.is_some_and(|known| known.contains(&version.as_str())) {
            return Some(Reply::error(
                400,
                "InvalidApiVersionParameter",
                format!("the api-version '{version}' is invalid"),
            ));
        }
        let tenant_wide = path.starts_with("/providers/");
        if !tenant_wide && !path.starts_with(&format!("/subscriptions/{SUBSCRIPTION}/")) {
            return Some(Reply::error(404, "SubscriptionNotFound", "The subscription could not be found."));
        }
        let reads = matches!(request.method(), Method::Get | Method::Head);
        if world.script.forbidden && !reads {
            return Some(Reply::error(
                403,
                "AuthorizationFailed",
                "The client does not have authorization to perform action.",
            ));
        }
        if world.script.locked && request.method() == Method::Delete {
            return Some(Reply::error(
                409,
                "ScopeLocked",
                "The scope cannot perform delete because it is locked.",
            ));
        }
        None
    }
}

#[async_trait::async_trait]
impl HttpClient for Fake {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let reply = self.answer(request)?;
        let mut headers = Headers::new();
        for (name, value) in reply.headers {
            headers.insert(HeaderName::from_static(name), value);
        }
        let body = if reply.body.is_null() { String::new() } else { reply.body.to_string() };
        Ok(AsyncRawResponse::from_bytes(StatusCode::from(reply.status), headers, body))
    }
}

fn shown_region(name: &str) -> Option<&'static str> {
    let folded = super::names::folded_location(name);
    REGIONS.iter().find(|(region, _)| *region == folded).map(|(_, shown)| *shown)
}

impl World {
    fn settle(&mut self, now: Duration) {
        for at in 0..self.operations.len() {
            if self.operations[at].ended || self.operations[at].ends > now {
                continue;
            }
            let Operation { path, then, failure, ended, .. } = &mut self.operations[at];
            *ended = true;
            match (failure.is_some(), then.take()) {
                (true, Some(mut value)) => {
                    value["properties"]["provisioningState"] = json!("Failed");
                    self.resources.insert(path.clone(), value);
                }
                (true, None) => {}
                (false, Some(mut value)) => {
                    value["properties"]["provisioningState"] = json!("Succeeded");
                    self.resources.insert(path.clone(), value);
                }
                (false, None) => {
                    let inside = format!("{path}/");
                    let path = path.clone();
                    self.resources.retain(|other, _| *other != path && !other.starts_with(&inside));
                }
            }
        }
    }

    fn is_busy(&self, path: &str) -> bool {
        self.operations.iter().any(|operation| !operation.ended && operation.path == path)
    }

    fn route(
        &mut self,
        method: Method,
        url: &url::Url,
        path: &str,
        body: &Value,
        now: Duration,
        cloud: Cloud,
    ) -> Reply {
        let decoded: Vec<String> = url.path_segments().into_iter().flatten().map(percent_decoded).collect();
        let segments: Vec<&str> = decoded.iter().map(String::as_str).collect();
        let path = path.to_ascii_lowercase();
        match (method, segments.as_slice()) {
            (Method::Head, ["providers", "Microsoft.DocumentDB", "databaseAccountNames", name]) => {
                Reply::new(if self.has_account(name) { 200 } else { 404 }, Value::Null)
            }
            (Method::Get, ["subscriptions", _, "providers", namespace]) => {
                let registered = self.registered.contains(&namespace.to_ascii_lowercase());
                let regions: Vec<&str> = REGIONS.iter().map(|(_, shown)| *shown).collect();
                let types: Vec<Value> = ["databaseAccounts", "storageAccounts"]
                    .iter()
                    .map(|name| json!({"resourceType": name, "locations": regions}))
                    .collect();
                let state = if registered { "Registered" } else { "NotRegistered" };
                Reply::new(
                    200,
                    json!({"namespace": namespace, "registrationState": state, "resourceTypes": types}),
                )
            }
            (Method::Post, ["subscriptions", _, "providers", namespace, "register"]) => {
                self.registered.insert(namespace.to_ascii_lowercase());
                Reply::new(200, json!({"registrationState": "Registering"}))
            }
            (
                Method::Post,
                ["subscriptions", _, "providers", "Microsoft.Storage", "checkNameAvailability"],
            ) => {
                let free = !self.has_account(body["name"].as_str().unwrap_or_default());
                let reason = if free { Value::Null } else { json!("AlreadyExists") };
                Reply::new(200, json!({"nameAvailable": free, "reason": reason}))
            }
            (Method::Get, ["subscriptions", _, "operations", number]) => {
                let Some(operation) = self.operation(number) else {
                    return Reply::error(404, "OperationNotFound", "the operation is not known any more");
                };
                let body = match (operation.ended, operation.failure) {
                    (false, _) => json!({"status": "InProgress"}),
                    (true, None) => json!({"status": "Succeeded"}),
                    (true, Some((code, message))) => {
                        json!({"status": "Failed", "error": {"code": code, "message": message}})
                    }
                };
                let mut reply = Reply::new(200, body);
                reply.headers.push(("retry-after", "15".into()));
                reply
            }
            (Method::Get, ["subscriptions", _, "results", number]) => {
                let Some(operation) = self.operation(number) else {
                    return Reply::error(404, "OperationNotFound", "the operation is not known any more");
                };
                match (operation.ended, operation.failure) {
                    (false, _) => {
                        let mut reply = Reply::new(202, Value::Null);
                        reply.headers.push(("retry-after", "17".into()));
                        reply
                    }
                    (true, None) => Reply::new(200, Value::Null),
                    (true, Some((code, message))) => Reply::error(409, code, message),
                }
            }
            (Method::Get, ["subscriptions", _, "resourceGroups", group, "resources"]) => {
                let prefix = format!(
                    "/subscriptions/{SUBSCRIPTION}/resourcegroups/{}/providers/",
                    group.to_lowercase()
                );
                let all: Vec<Value> = self
                    .resources
                    .iter()
                    // Accounts, and nothing that is in one.
                    .filter(|(path, _)| {
                        path.strip_prefix(&prefix).is_some_and(|rest| rest.split('/').count() == 3)
                    })
                    .map(|(path, value)| json!({"id": path, "name": value["name"], "type": value["type"]}))
                    .collect();
                // One a page.
                let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
                let at: usize =
                    query.get("$skiptoken").and_then(|token| token.parse().ok()).unwrap_or_default();
                let mut page = json!({"value": all.get(at).into_iter().collect::<Vec<_>>()});
                if at + 1 < all.len() {
                    let host = self.host(cloud);
                    page["nextLink"] =
                        json!(format!("{host}{}?api-version=2021-04-01&$skiptoken={}", url.path(), at + 1));
                }
                Reply::new(200, page)
            }
            (method, ["subscriptions", _, "resourceGroups", group]) => {
                self.group(method, &path, group, body, now, cloud)
            }
            (method, ["subscriptions", _, "resourceGroups", group, "providers", rest @ ..]) => {
                let group = format!("/subscriptions/{SUBSCRIPTION}/resourcegroups/{}", group.to_lowercase());
                match self.resources.get(&group) {
                    None => Reply::error(404, "ResourceGroupNotFound", "Resource group could not be found."),
                    Some(group)
                        if method != Method::Get
                            && group["properties"]["provisioningState"] == "Deleting" =>
                    {
                        Reply::error(409, "ResourceGroupBeingDeleted", "The resource group is being deleted.")
                    }
                    Some(_) => self.resource(method, &path, rest, body, now, cloud),
                }
            }
            _ => Reply::error(404, "NotFound", format!("nothing is known at {path}")),
        }
    }

    fn host(&self, cloud: Cloud) -> &'static str {
        match self.script.foreign_links {
            true => "https://elsewhere.example",
            false => cloud.resource_manager,
        }
    }

    fn operation(&self, number: &str) -> Option<&Operation> {
        self.operations.get(number.parse::<usize>().ok()?)
    }

    fn has_account(&self, name: &str) -> bool {
        let end = format!("accounts/{name}");
        self.taken.contains(name) || self.resources.keys().any(|path| path.ends_with(&end))
    }

    fn group(
        &mut self,
        method: Method,
        path: &str,
        name: &str,
        body: &Value,
        now: Duration,
        cloud: Cloud,
    ) -> Reply {
        let there = self.resources.get(path).cloned();
        match (method, there) {
            (Method::Get, Some(group)) => Reply::new(200, group),
            (Method::Put, there) => {
                if body["location"].as_str().is_none_or(|location| shown_region(location).is_none()) {
                    return Reply::error(
                        400,
                        "LocationNotAvailableForResourceGroup",
                        "The provided location is not available.",
                    );
                }
                if let Some(there) = &there {
                    if there["properties"]["provisioningState"] == "Deleting" {
                        return Reply::error(
                            409,
                            "ResourceGroupBeingDeleted",
                            "The resource group is being deleted.",
                        );
                    }
                    if there["location"] != body["location"] {
                        return Reply::error(
                            409,
                            "InvalidResourceGroupLocation",
                            "The group exists in another location.",
                        );
                    }
                }
                let mut group = body.clone();
                group["name"] = json!(name);
                group["properties"] = json!({"provisioningState": "Succeeded"});
                self.resources.insert(path.to_owned(), group.clone());
                Reply::new(if there.is_some() { 200 } else { 201 }, group)
            }
            (Method::Delete, Some(mut group)) => {
                group["properties"]["provisioningState"] = json!("Deleting");
                self.resources.insert(path.to_owned(), group);
                let number = self.begin(path, None, now);
                let mut reply = Reply::new(202, Value::Null);
                let host = self.host(cloud);
                reply.headers.push((
                    "location",
                    format!("{host}/subscriptions/{SUBSCRIPTION}/results/{number}?api-version=2021-04-01"),
                ));
                reply.headers.push(("retry-after", "15".into()));
                reply
            }
            _ => Reply::error(
                404,
                "ResourceGroupNotFound",
                format!("Resource group '{name}' could not be found."),
            ),
        }
    }

    fn begin(&mut self, path: &str, then: Option<Value>, now: Duration) -> usize {
        let failure = self.script.fails_later.take();
        let ends = now + Duration::from_secs(40);
        self.operations.push(Operation { ends, path: path.to_owned(), then, failure, ended: false });
        self.operations.len() - 1
    }

    /// A resource that is written, and is as it was said only later.
    fn write(&mut self, path: &str, value: Value, now: Duration, cloud: Cloud) -> Reply {
        let is_new = !self.resources.contains_key(path);
        let mut seen = value.clone();
        seen["properties"]["provisioningState"] = json!(if is_new { "Creating" } else { "Updating" });
        let style = self.style;
        if !(is_new && style == Style::Location) {
            self.resources.insert(path.to_owned(), seen.clone());
        }
        let number = self.begin(path, Some(value), now);
        let host = self.host(cloud);
        let link =
            |of: &str| format!("{host}/subscriptions/{SUBSCRIPTION}/{of}/{number}?api-version=2021-04-01");
        match style {
            Style::Operation => {
                let mut reply = Reply::new(if is_new { 201 } else { 200 }, seen);
                reply.headers.push(("azure-asyncoperation", link("operations")));
                reply.headers.push(("retry-after", "15".into()));
                reply
            }
            Style::Location => {
                let mut reply = Reply::new(202, Value::Null);
                reply.headers.push(("location", link("results")));
                reply.headers.push(("retry-after", "17".into()));
                reply
            }
            Style::State => Reply::new(if is_new { 201 } else { 200 }, seen),
        }
    }

    fn resource(
        &mut self,
        method: Method,
        path: &str,
        rest: &[&str],
        body: &Value,
        now: Duration,
        cloud: Cloud,
    ) -> Reply {
        let namespace = rest[0].to_ascii_lowercase();
        let there = self.resources.get(path).cloned();
        if method != Method::Get && !self.registered.contains(&namespace) {
            return Reply::error(
                409,
                "MissingSubscriptionRegistration",
                format!("The subscription is not registered to use {namespace}."),
            );
        }
        if method != Method::Get && self.is_busy(path) {
            return Reply::error(
                409,
                "AnotherOperationInProgress",
                "There is already an operation in progress.",
            );
        }
        // `…/accounts/NAME/…`: what is in an account needs it.
        let account = path.match_indices('/').nth(8).map(|(at, _)| path[..at].to_owned());
        if method != Method::Get && account.is_some_and(|account| !self.resources.contains_key(&account)) {
            return Reply::error(404, "ParentResourceNotFound", "The parent resource does not exist.");
        }
        match (method, rest) {
            (Method::Get, [_, "databaseAccounts", _, "sqlRoleAssignments"])
            | (Method::Get, [.., "Microsoft.Authorization", "roleAssignments"]) => {
                let inside = format!("{path}/");
                let roles: Vec<&Value> = self
                    .resources
                    .iter()
                    .filter(|(path, _)| path.starts_with(&inside))
                    .map(|(_, v)| v)
                    .collect();
                Reply::new(200, json!({"value": roles}))
            }
            (Method::Get, _) => match there {
                Some(there) => Reply::new(200, there),
                None => Reply::error(404, "ResourceNotFound", "The resource was not found."),
            },
            (Method::Post, [_, "databaseAccounts", _, "listKeys"]) => {
                let key = self.data_planes.as_ref().map_or(KEY, |planes| &planes.cosmos_key);
                Reply::new(200, json!({"primaryMasterKey": key, "secondaryMasterKey": "x"}))
            }
            (Method::Post, [_, "storageAccounts", _, "listKeys"]) => {
                let key = self.data_planes.as_ref().map_or(KEY, |planes| &planes.table_key);
                Reply::new(200, json!({"keys": [{"keyName": "key1", "value": key, "permissions": "FULL"}]}))
            }
            (Method::Put | Method::Patch, [_, "databaseAccounts", name]) => {
                self.cosmos_account(method, path, name, there, body, now, cloud)
            }
            (Method::Put | Method::Patch, [_, "storageAccounts", name]) => {
                self.storage_account(method, path, name, there, body, now, cloud)
            }
            (Method::Put, [_, "databaseAccounts", _, "sqlDatabases", name]) => {
                self.database(path, name, there, body, now, cloud)
            }
            (
                _,
                [_, "databaseAccounts", _, "sqlDatabases", _, "throughputSettings", "default", action @ ..],
            ) => self.throughput(method, path, action, body, now, cloud),
            (Method::Put, [_, "databaseAccounts", _, "sqlDatabases", _, "containers", name]) => {
                self.container(path, name, there, body, now, cloud)
            }
            (Method::Put, [_, "storageAccounts", _, "tableServices", "default", "tables", name]) => {
                if super::names::table(name).is_err() {
                    return Reply::error(
                        400,
                        "InvalidResourceName",
                        "The specified resource name is not valid.",
                    );
                }
                let value = json!({"name": name, "properties": {"tableName": name}});
                self.resources.insert(path.to_owned(), value.clone());
                Reply::new(200, value)
            }
            (
                Method::Put,
                [_, "databaseAccounts", _, "sqlRoleAssignments", _] | [.., "roleAssignments", _],
            ) => self.role(path, there, body),
            _ => Reply::error(404, "NotFound", format!("nothing is known at {path}")),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the whole of a request")]
    fn cosmos_account(
        &mut self,
        method: Method,
        path: &str,
        name: &str,
        there: Option<Value>,
        body: &Value,
        now: Duration,
        cloud: Cloud,
    ) -> Reply {
        let bad = |message: &str| Reply::error(400, "BadRequest", message);
        let properties = &body["properties"];
        let locations = properties["locations"].as_array();
        for location in locations.into_iter().flatten() {
            if location["locationName"].as_str().and_then(shown_region).is_none() {
                return Reply::error(
                    400,
                    "LocationNotAvailableForResourceType",
                    "The provided location is not available.",
                );
            }
        }
        let mut account = match (there, method) {
            (None, Method::Patch) => {
                return Reply::error(404, "ResourceNotFound", "The account was not found.");
            }
            (None, _) => {
                if super::names::cosmos_account(name).is_err() {
                    return bad("The account name is not valid.");
                }
                if self.has_account(name) {
                    return Reply::error(
                        409,
                        "DatabaseAccountNameExists",
                        format!("The account name {name} exists already."),
                    );
                }
                if self.script.quota {
                    return Reply::error(409, "QuotaExceeded", "The subscription has its 50 accounts.");
                }
                if properties["databaseAccountOfferType"] != "Standard" || locations.is_none_or(Vec::is_empty)
                {
                    return bad("databaseAccountOfferType and locations are required.");
                }
                let endpoint = self.data_planes.as_ref().map(|planes| planes.cosmos.clone());
                let endpoint =
                    endpoint.unwrap_or_else(|| format!("https://{name}.{}:443/", cloud.cosmos_suffix));
                json!({"name": name, "type": "Microsoft.DocumentDB/databaseAccounts", "location": body["location"],
                    "kind": body["kind"], "properties": {"documentEndpoint": endpoint}})
            }
            (Some(there), _) => {
                let folded = |account: &Value| -> Vec<(String, Value)> {
                    let list = account["properties"]["locations"].as_array().into_iter().flatten();
                    list.map(|l| {
                        (
                            super::names::folded_location(l["locationName"].as_str().unwrap_or_default()),
                            l["failoverPriority"].clone(),
                        )
                    })
                    .collect()
                };
                let moves = locations.is_some() && folded(body) != folded(&there);
                let changes = properties
                    .as_object()
                    .into_iter()
                    .flatten()
                    .any(|(key, value)| key != "locations" && there["properties"][key] != *value);
                if moves && changes {
                    return bad("Regions cannot be changed together with other properties.");
                }
                for key in ["location", "kind"] {
                    if method == Method::Put && there[key] != body[key] {
                        return bad(&format!("{key} cannot be changed."));
                    }
                }
                there
            }
        };
        for (key, value) in properties.as_object().into_iter().flatten() {
            account["properties"][key] = value.clone();
        }
        for location in account["properties"]["locations"].as_array_mut().into_iter().flatten() {
            if let Some(shown) = location["locationName"].as_str().and_then(shown_region) {
                location["locationName"] = json!(shown);
                location["isZoneRedundant"] = json!(false);
            }
        }
        let serverless = account["properties"]["capabilities"][0]["name"] == "EnableServerless";
        let regions = account["properties"]["locations"].as_array().map_or(0, Vec::len);
        if serverless && (regions > 1 || account["properties"]["enableMultipleWriteLocations"] == true) {
            return bad("A serverless account has one region.");
        }
        self.write(path, account, now, cloud)
    }

    #[allow(clippy::too_many_arguments, reason = "the whole of a request")]
    fn storage_account(
        &mut self,
        method: Method,
        path: &str,
        name: &str,
        there: Option<Value>,
        body: &Value,
        now: Duration,
        cloud: Cloud,
    ) -> Reply {
        let mut account = match (there, method) {
            (None, Method::Patch) => {
                return Reply::error(404, "ResourceNotFound", "The account was not found.");
            }
            (None, _) => {
                if super::names::storage_account(name).is_err() {
                    return Reply::error(
                        400,
                        "AccountNameInvalid",
                        format!("{name} is not a valid storage account name."),
                    );
                }
                if self.has_account(name) {
                    return Reply::error(
                        409,
                        "StorageAccountAlreadyTaken",
                        format!("The storage account named {name} is already taken."),
                    );
                }
                if self.script.quota {
                    return Reply::error(
                        409,
                        "MaxStorageAccountsCountPerSubscriptionExceeded",
                        "The subscription has its 250 accounts.",
                    );
                }
                if body["location"].as_str().and_then(shown_region).is_none() {
                    return Reply::error(
                        400,
                        "LocationNotAvailableForResourceType",
                        "The provided location is not available.",
                    );
                }
                let endpoint = self.data_planes.as_ref().map(|planes| planes.table.clone());
                let endpoint =
                    endpoint.unwrap_or_else(|| format!("https://{name}.table.{}/", cloud.storage_suffix));
                json!({"name": name, "type": "Microsoft.Storage/storageAccounts", "location": body["location"], "kind": body["kind"],
                    "properties": {"primaryEndpoints": {"table": endpoint}}})
            }
            (Some(there), Method::Put)
                if there["location"] != body["location"] || there["kind"] != body["kind"] =>
            {
                return Reply::error(
                    409,
                    "StorageAccountPropertyCannotBeUpdated",
                    "location and kind cannot be changed.",
                );
            }
            (Some(there), _) => there,
        };
        if let Some(sku) = body.get("sku") {
            if !super::names::SKUS.iter().any(|known| sku["name"] == *known) {
                return Reply::error(400, "InvalidSku", "The SKU is not valid.");
            }
            account["sku"] = json!({"name": sku["name"], "tier": "Standard"});
        }
        for (key, value) in body["properties"].as_object().into_iter().flatten() {
            account["properties"][key] = value.clone();
        }
        self.write(path, account, now, cloud)
    }

    fn database(
        &mut self,
        path: &str,
        name: &str,
        there: Option<Value>,
        body: &Value,
        now: Duration,
        cloud: Cloud,
    ) -> Reply {
        if body["properties"]["resource"]["id"] != name {
            return Reply::error(400, "BadRequest", "The id of the resource has to be its name.");
        }
        let options = &body["properties"]["options"];
        let value =
            json!({"name": name, "properties": {"resource": {"id": name, "_rid": "x", "_etag": "y"}}});
        // What is there keeps its throughput, whatever the request says.
        if there.is_none() && options.as_object().is_some_and(|options| !options.is_empty()) {
            if options["throughput"].as_u64().is_some_and(|units| units < 400) {
                return Reply::error(400, "BadRequest", "The throughput has to be at least 400.");
            }
            let settings = json!({"properties": {"resource": options}});
            self.resources.insert(format!("{path}/throughputsettings/default"), settings);
        }
        self.write(path, value, now, cloud)
    }

    fn throughput(
        &mut self,
        method: Method,
        path: &str,
        action: &[&str],
        body: &Value,
        now: Duration,
        cloud: Cloud,
    ) -> Reply {
        let path = path
            .trim_end_matches("/migratetoautoscale")
            .trim_end_matches("/migratetomanualthroughput")
            .to_owned();
        let Some(mut settings) = self.resources.get(&path).cloned() else {
            return Reply::error(404, "NotFound", "The database has no throughput of its own.");
        };
        let resource = &mut settings["properties"]["resource"];
        let is_autoscale = !resource["autoscaleSettings"].is_null();
        match (method, action) {
            (Method::Post, ["migrateToAutoscale"]) if !is_autoscale => {
                *resource = json!({"throughput": 400, "autoscaleSettings": {"maxThroughput": 4000}});
            }
            (Method::Post, ["migrateToManualThroughput"]) if is_autoscale => {
                *resource = json!({"throughput": 4000});
            }
            (Method::Put, []) => {
                let wanted = &body["properties"]["resource"];
                if is_autoscale == wanted["autoscaleSettings"].is_null() {
                    return Reply::error(
                        400,
                        "BadRequest",
                        "Migrate between manual and autoscale throughput first.",
                    );
                }
                *resource = wanted.clone();
            }
            _ => return Reply::error(400, "BadRequest", "There is nothing to migrate."),
        }
        self.write(&path, settings, now, cloud)
    }

    fn container(
        &mut self,
        path: &str,
        name: &str,
        there: Option<Value>,
        body: &Value,
        now: Duration,
        cloud: Cloud,
    ) -> Reply {
        let bad = |message: &str| Reply::error(400, "BadRequest", message);
        let database = path.split("/containers/").next().unwrap_or_default();
        if !self.resources.contains_key(database) {
            return Reply::error(404, "NotFound", "The database does not exist.");
        }
        let resource = &body["properties"]["resource"];
        if resource["id"] != name {
            return bad("The id of the resource has to be its name.");
        }
        if resource["partitionKey"]["paths"].as_array().is_none_or(Vec::is_empty) {
            return bad("A partition key is required.");
        }
        if there
            .is_some_and(|there| there["properties"]["resource"]["partitionKey"] != resource["partitionKey"])
        {
            return bad("The partition key cannot be changed.");
        }
        let policy = &resource["indexingPolicy"];
        let has_root = ["includedPaths", "excludedPaths"]
            .iter()
            .any(|key| policy[key].as_array().into_iter().flatten().any(|path| path["path"] == "/*"));
        if !policy.is_null() && !has_root {
            return bad("The special mandatory path '/*' is missing.");
        }
        if resource.as_object().into_iter().flatten().any(|(key, _)| key.starts_with('_')) {
            return bad("Read-only properties were sent.");
        }
        let mut value = json!({"name": name, "properties": {"resource": resource}});
        value["properties"]["resource"]["_rid"] = json!("x");
        if let Some(excluded) =
            value["properties"]["resource"]["indexingPolicy"]["excludedPaths"].as_array_mut()
        {
            excluded.retain(|path| path["path"] != "/\"_etag\"/?");
            excluded.push(json!({"path": "/\"_etag\"/?"}));
        }
        self.write(path, value, now, cloud)
    }

    fn role(&mut self, path: &str, there: Option<Value>, body: &Value) -> Reply {
        let same = |role: &Value| {
            ["principalId", "roleDefinitionId"]
                .iter()
                .all(|key| role["properties"][*key] == body["properties"][*key])
        };
        if there.is_none() && self.resources.values().any(same) {
            return Reply::error(409, "RoleAssignmentExists", "The role assignment already exists.");
        }
        if there.is_some_and(|there| !same(&there)) {
            return Reply::error(
                400,
                "RoleAssignmentUpdateNotPermitted",
                "Tenant ID, application ID, principal ID, and scope are not allowed to be updated.",
            );
        }
        self.resources.insert(path.to_owned(), body.clone());
        Reply::new(201, body.clone())
    }
}

fn percent_decoded(segment: &str) -> String {
    url::form_urlencoded::parse(format!("x={}", segment.replace('+', "%2B")).as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}
