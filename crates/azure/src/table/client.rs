//! A thin client of Table Storage, over the pipeline of the Azure SDK.
//!
//! It knows entities, pages and transactions, and nothing of logs. What the service does not take is refused before it
//! is sent, also where an emulator takes it. A call is tried again while that makes sense, within bounds of number and
//! time ([`Retries`]), waiting as long as the service asks for; each try is signed anew, since signatures hold the time.
//!
//! *Lost answers.* A write whose answer was lost may have been carried out, and a later try of it meets what the
//! first one did. So every answer to a write says whether an earlier try may have had an effect
//! ([`Written::ambiguous`]), and an error says so too ([`Error::may_have_been_written`]); what it means is decided by
//! whoever knows what was written.
//!
//! *Invariant*: no message, no `Debug` output and no cause of an error holds a credential. The errors of the HTTP
//! client hold the URL, which can hold a signature: they are put into words here and dropped.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use azure_core::credentials::Secret;
use azure_core::error::ErrorKind as AzureKind;
use azure_core::hmac::hmac_sha256;
use azure_core::http::headers::{HeaderName, Headers};
use azure_core::http::policies::{Policy, PolicyResult, auth::BearerTokenAuthorizationPolicy};
use azure_core::http::{
    Body, ClientOptions, Context, Method, Pipeline, PipelineStreamOptions, Request, RetryOptions, Transport,
};
use azure_core::time::{OffsetDateTime, parse_rfc7231, to_rfc7231};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use precedent_core::{Error, ErrorKind, Result, Time};
use serde_json::{Map, Value as Json};
use url::Url;

use super::batch::{self, Operation};
use super::entity::{Entity, Row};
use super::keys::Key;
use super::settings::{Credential, Settings, is_loopback};

/// The version of the service's interface that is spoken: the first that takes tokens of Entra ID for tables.
const SERVICE_VERSION: &str = "2020-12-06";
/// The scope of tokens, the same in every cloud.
const SCOPE: &str = "https://storage.azure.com/.default";
/// An answer longer than this is not read to its end.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// What stays as it is in a key or a filter within a URL.
const UNESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// The service gives a request up after 30 seconds, and says so.
const READ_PATIENCE: Duration = Duration::from_secs(40);
const TRY_PATIENCE: Duration = Duration::from_secs(90);

/// How long a call is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// Tries of one call, the first included.
    pub tries_max: u32,
    /// The wait after the first try; it doubles with each, and up to half of it is taken off by chance.
    pub first_wait: Duration,
    /// The longest wait, unless the service asks for a longer one.
    pub wait_max: Duration,
    /// From the first try on: no wait goes beyond it.
    pub patience: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            tries_max: 8,
            first_wait: Duration::from_millis(100),
            wait_max: Duration::from_secs(5),
            patience: Duration::from_secs(60),
        }
    }
}

impl Retries {
    fn wait(&self, tries: u32) -> Duration {
        let doubled = self.first_wait.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(self.wait_max);
        doubled.mul_f64(1.0 - rand::random::<f64>() / 2.0)
    }
}

/// What came of writing one entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// It is written; the ETag it has now, if the service said it.
    Done(Option<String>),
    /// There is one already.
    Exists,
    /// The one that is there has another ETag.
    Stale,
    /// There is none to replace.
    Missing,
}

/// What came of a write, and how far that can be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written<T> {
    /// What the last try was answered.
    pub outcome: T,
    /// Whether an earlier try, whose answer was lost, may have been carried out.
    pub ambiguous: bool,
}

/// What came of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transaction {
    /// All of it is written; the ETags the entities have now.
    Done(Vec<Option<String>>),
    /// Nothing of it is, because of the operation with this index.
    Not(usize, Write),
}

/// Where a query goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuation {
    partition: String,
    row: Option<String>,
}

/// Some of the entities of a query. There may be none although there are more.
#[derive(Debug)]
pub struct Page {
    /// The entities, by PartitionKey and RowKey.
    pub rows: Vec<Row>,
    /// Where to go on, if there may be more.
    pub next: Option<Continuation>,
    /// Bytes of the answer.
    pub bytes: usize,
}

/// What to read.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// The filter, as the service understands it. [`Query::range`] makes one.
    pub filter: String,
    /// Only these properties; all of them, if empty.
    pub select: Vec<&'static str>,
    /// At most this many entities in a page.
    pub top: Option<usize>,
}

impl Query {
    /// The rows of a partition from `from` on, and below `below` if there is one.
    pub fn range(partition: &str, from: &str, below: Option<&str>) -> Self {
        let quoted = |text: &str| text.replace('\'', "''");
        let mut filter = format!("PartitionKey eq '{}' and RowKey ge '{}'", quoted(partition), quoted(from));
        if let Some(below) = below {
            filter.push_str(&format!(" and RowKey lt '{}'", quoted(below)));
        }
        Self { filter, ..Self::default() }
    }
}

/// A client of one table.
pub struct Client {
    pipeline: Pipeline,
    endpoint: Url,
    account: String,
    table: String,
    credential: &'static str,
    /// Appended to every URL.
    signature: Option<Secret>,
    retries: Retries,
    clock: Mutex<Option<(Time, Time)>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({}{}, by {})", self.endpoint, self.table, self.credential)
    }
}

/// Signs each try with the key of the account. Source: *Authorize with Shared Key*, Shared Key Lite for tables.
#[derive(Debug)]
struct SharedKeyLite {
    account: String,
    key: Secret,
}

impl SharedKeyLite {
    /// What is signed: the time, and which resource of which account. The path is signed as it is sent, encoded; of
    /// the query only `comp` would be, which no call of ours has.
    fn authorization(&self, date: &str, path: &str) -> azure_core::Result<String> {
        let signed = format!("{date}\n/{}{path}", self.account);
        Ok(format!("SharedKeyLite {}:{}", self.account, hmac_sha256(&signed, &self.key)?))
    }
}

#[async_trait]
impl Policy for SharedKeyLite {
    async fn send(&self, context: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        let date = to_rfc7231(&OffsetDateTime::now_utc());
        let authorization = self.authorization(&date, request.url().path())?;
        request.insert_header("x-ms-date", date);
        request.insert_header("authorization", authorization);
        next[0].send(context, request, &next[1..]).await
    }
}

/// What is asked of the service.
struct Call<'a> {
    /// What it is for, in messages: `reading partition p, row r`.
    what: &'a str,
    method: Method,
    url: Url,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    writes: bool,
}

/// What the service answered.
struct Answer {
    status: u16,
    headers: Headers,
    body: Bytes,
    ambiguous: bool,
}

impl Answer {
    fn header(&self, name: &'static str) -> Option<String> {
        self.headers.get_optional_string(&HeaderName::from_static(name))
    }

    fn etag(&self) -> Option<String> {
        self.header("etag")
    }
}

/// The code and the message of an error of the service.
#[derive(Debug, Default, PartialEq, Eq)]
struct Refusal {
    code: String,
    message: String,
}

impl Refusal {
    fn parse(header: Option<String>, body: &[u8]) -> Self {
        #[derive(serde::Deserialize)]
        struct Outer {
            #[serde(rename = "odata.error")]
            error: Inner,
        }
        #[derive(serde::Deserialize)]
        struct Inner {
            code: String,
            message: Option<Message>,
        }
        #[derive(serde::Deserialize)]
        struct Message {
            value: String,
        }
        let Ok(Outer { error }) = serde_json::from_slice(body) else {
            return Self { code: header.unwrap_or_default(), message: String::new() };
        };
        Self { code: error.code, message: error.message.map(|message| message.value).unwrap_or_default() }
    }

    /// The operation that failed, where the message says so: `3:The specified entity already exists.`
    fn index(&self) -> Option<usize> {
        self.message.split_once(':')?.0.parse().ok()
    }

    /// The first line of the message, so that it can stand in one of ours.
    fn shown(&self) -> String {
        let line = self.message.lines().next().unwrap_or_default();
        let line: String = line.chars().take(200).collect::<String>().escape_debug().to_string();
        [self.code.as_str(), line.as_str()]
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect::<Vec<_>>()
            .join(": ")
    }
}

/// What may have come of a try that failed.
enum Failure {
    /// It makes no sense to try again.
    Final(Error),
    /// It does, after that long if the service said so; whether it may have been carried out all the same.
    Passing(Error, Option<Duration>, bool),
}

impl Client {
    /// A client of the table, with what else is to see each try: after it was signed, before it is sent.
    ///
    /// # Errors
    /// `unauthorized` if there is no credential; `internal` if the HTTP client cannot be made.
    pub fn new(settings: &Settings, policies: Vec<Arc<dyn Policy>>) -> Result<Self> {
        // Whoever installed one before us is right too.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_PATIENCE)
            .read_timeout(READ_PATIENCE)
            .timeout(TRY_PATIENCE)
            .redirect(reqwest::redirect::Policy::none());
        if is_loopback(&settings.endpoint) {
            http = http.no_proxy();
        }
        let http = http.build().map_err(|error| {
            Error::new(ErrorKind::Internal, format!("the HTTP client cannot be made: {}", cause_of(&error)))
        })?;
        let mut signing: Vec<Arc<dyn Policy>> = Vec::new();
        let mut signature = None;
        match &settings.credential {
            Credential::Key(key) => {
                signing.push(Arc::new(SharedKeyLite { account: settings.account.clone(), key: key.clone() }));
            }
            Credential::Signature(parameters) => signature = Some(parameters.clone()),
            Credential::Entra => {
                let credential = crate::credentials::entra()?;
                signing.push(Arc::new(BearerTokenAuthorizationPolicy::new(credential, [SCOPE])));
            }
        }
        let options = ClientOptions {
            per_try_policies: policies,
            // Tries are counted here, where it is known what a lost answer means.
            retry: RetryOptions::none(),
            transport: Some(Transport::new(Arc::new(http))),
            ..ClientOptions::default()
        };
        let version = option_env!("CARGO_PKG_VERSION");
        let pipeline = Pipeline::new(Some("precedent"), version, options, Vec::new(), signing, None);
        Ok(Self {
            pipeline,
            endpoint: settings.endpoint.clone(),
            account: settings.account.clone(),
            table: settings.table.clone(),
            credential: settings.credential.kind(),
            signature,
            retries: settings.retries,
            clock: Mutex::new(None),
        })
    }

    /// The time of the service, as its last answer had it, and this machine's when that came.
    pub fn clock(&self) -> Option<(Time, Time)> {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an entity that is not there.
    ///
    /// # Errors
    /// What the module says; `limit_exceeded` and `invalid` before anything is sent.
    pub async fn insert(&self, entity: &Entity) -> Result<Written<Write>> {
        entity.check()?;
        let what = format!("writing {}", entity.key);
        let mut headers = json_headers();
        headers.push(("prefer", "return-no-content".to_owned()));
        let answer = self
            .send(Call {
                what: &what,
                method: Method::Post,
                url: self.url(&self.table, "")?,
                headers,
                body: entity.to_json().into(),
                writes: true,
            })
            .await?;
        let outcome = match answer.status {
            200..300 => Write::Done(answer.etag()),
            _ => self.write_of(&answer, &what)?,
        };
        Ok(Written { outcome, ambiguous: answer.ambiguous })
    }

    /// Puts an entity in the place of the one that has this ETag.
    ///
    /// # Errors
    /// As [`Client::insert`].
    pub async fn replace(&self, entity: &Entity, etag: &str) -> Result<Written<Write>> {
        entity.check()?;
        let what = format!("replacing {}", entity.key);
        let mut headers = json_headers();
        headers.push(("if-match", etag.to_owned()));
        let answer = self
            .send(Call {
                what: &what,
                method: Method::Put,
                url: self.entity_url(&entity.key, "")?,
                headers,
                body: entity.to_json().into(),
                writes: true,
            })
            .await?;
        let outcome = match answer.status {
            200..300 => Write::Done(answer.etag()),
            404 if !self.says_no_table(&answer) => Write::Missing,
            _ => self.write_of(&answer, &what)?,
        };
        Ok(Written { outcome, ambiguous: answer.ambiguous })
    }

    /// Deletes an entity, whatever its ETag. No log needs it: it is for those who tidy up.
    ///
    /// # Errors
    /// As [`Client::insert`].
    pub async fn delete(&self, key: &Key) -> Result<()> {
        let what = format!("deleting {key}");
        let answer = self
            .send(Call {
                what: &what,
                method: Method::Delete,
                url: self.entity_url(key, "")?,
                headers: vec![("if-match", "*".to_owned())],
                body: Bytes::new(),
                writes: true,
            })
            .await?;
        match answer.status {
            200..300 => Ok(()),
            404 if !self.says_no_table(&answer) => Ok(()),
            _ => Err(self.refused(&answer, &what)),
        }
    }

    /// Reads an entity, or these properties of it.
    ///
    /// # Errors
    /// What the module says.
    pub async fn get(&self, key: &Key, select: &[&'static str]) -> Result<Option<Row>> {
        let what = format!("reading {key}");
        let query = match select {
            [] => String::new(),
            names => format!("$select={}", escaped(&names.join(","))),
        };
        let url = self.entity_url(key, &query)?;
        let answer = self.read(&what, url).await?;
        match answer.status {
            200 => {
                let fields: Map<String, Json> = serde_json::from_slice(&answer.body)
                    .map_err(|error| not_understood(&what, &error.to_string()))?;
                Row::from_json(fields, answer.etag()).map(Some)
            }
            404 if !self.says_no_table(&answer) => Ok(None),
            _ => Err(self.refused(&answer, &what)),
        }
    }

    /// Reads one page of a query. A page may be empty although there are more.
    ///
    /// # Errors
    /// What the module says; `limit_exceeded` for a page of more than 64 MiB.
    pub async fn query(&self, query: &Query, from: Option<&Continuation>) -> Result<Page> {
        #[derive(serde::Deserialize)]
        struct Listed {
            value: Vec<Map<String, Json>>,
        }
        let what = format!("reading where {}", query.filter.escape_debug());
        let mut parameters = vec![("$filter", query.filter.clone())];
        if !query.select.is_empty() {
            parameters.push(("$select", query.select.join(",")));
        }
        if let Some(top) = query.top {
            parameters.push(("$top", top.to_string()));
        }
        if let Some(Continuation { partition, row }) = from {
            parameters.push(("NextPartitionKey", partition.clone()));
            parameters.extend(row.clone().map(|row| ("NextRowKey", row)));
        }
        let parameters: Vec<String> =
            parameters.into_iter().map(|(name, value)| format!("{name}={}", escaped(&value))).collect();
        let url = self.url(&format!("{}()", self.table), &parameters.join("&"))?;
        let answer = self.read(&what, url).await?;
        if answer.status != 200 {
            return Err(self.refused(&answer, &what));
        }
        let listed: Listed = serde_json::from_slice(&answer.body)
            .map_err(|error| not_understood(&what, &error.to_string()))?;
        let rows = listed.value.into_iter().map(|fields| Row::from_json(fields, None));
        let next = answer
            .header("x-ms-continuation-nextpartitionkey")
            .map(|partition| Continuation { partition, row: answer.header("x-ms-continuation-nextrowkey") });
        Ok(Page { rows: rows.collect::<Result<_>>()?, next, bytes: answer.body.len() })
    }

    /// Carries several operations out, all of them or none.
    ///
    /// # Errors
    /// As [`Client::insert`].
    pub async fn transact(&self, operations: &[Operation]) -> Result<Written<Transaction>> {
        let encoded = batch::encode(operations, |operation| match operation {
            Operation::Insert(_) => self.bare_url(&self.table),
            Operation::Replace(entity, _) => self.bare_url(&self.entity_path(&entity.key)),
        })?;
        let partition = operations.first().map_or("", |operation| operation.entity().key.partition.as_str());
        let what = format!("a transaction in partition {}", partition.escape_debug());
        let mut headers = headers();
        headers.push(("content-type", encoded.content_type));
        let answer = self
            .send(Call {
                what: &what,
                method: Method::Post,
                url: self.url("$batch", "")?,
                headers,
                body: encoded.body.into(),
                writes: true,
            })
            .await?;
        if answer.status != 202 {
            return Err(self.refused(&answer, &what));
        }
        let ambiguous = answer.ambiguous;
        let inner = batch::parse(&answer.body, operations.len()).map_err(|error| {
            // It was carried out or not: the answer does not tell.
            Error::new(ErrorKind::Unavailable, format!("{what}: the answer is {error}")).maybe_written()
        })?;
        let failed = inner.iter().find(|answer| !(200..300).contains(&answer.status));
        let Some(failed) = failed else {
            let etags = inner.into_iter().map(|answer| answer.etag).collect();
            return Ok(Written { outcome: Transaction::Done(etags), ambiguous });
        };
        let refusal = Refusal::parse(None, &failed.body);
        let index = refusal.index().unwrap_or(0);
        let write = match failed.status {
            404 if !is_no_table(&refusal.code) => Write::Missing,
            409 if refusal.code == "EntityAlreadyExists" => Write::Exists,
            412 => Write::Stale,
            status => {
                let error = self.error_of(status, &refusal, &what);
                return Err(if ambiguous { error.maybe_written() } else { error });
            }
        };
        Ok(Written { outcome: Transaction::Not(index, write), ambiguous })
    }

    /// Makes the table, if it is not there. Answers whether it was made.
    ///
    /// # Errors
    /// What the module says.
    pub async fn create_table(&self) -> Result<bool> {
        let what = format!("making the table {}", self.table);
        let mut headers = json_headers();
        headers.push(("prefer", "return-no-content".to_owned()));
        let body = serde_json::json!({ "TableName": self.table }).to_string();
        let url = self.url("Tables", "")?;
        let call = Call { what: &what, method: Method::Post, url, headers, body: body.into(), writes: true };
        let answer = self.send(call).await?;
        match answer.status {
            200..300 => Ok(true),
            409 => Ok(false),
            _ => Err(self.refused(&answer, &what)),
        }
    }

    async fn read(&self, what: &str, url: Url) -> Result<Answer> {
        self.send(Call {
            what,
            method: Method::Get,
            url,
            headers: headers(),
            body: Bytes::new(),
            writes: false,
        })
        .await
    }

    /// Sends a call until it is answered or the bounds are reached.
    async fn send(&self, call: Call<'_>) -> Result<Answer> {
        let begun = Instant::now();
        let mut ambiguous = false;
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_once(&call).await {
                Ok(answer) => return Ok(Answer { ambiguous, ..answer }),
                Err(Failure::Final(error)) => {
                    return Err(if ambiguous { error.maybe_written() } else { error });
                }
                Err(Failure::Passing(error, asked, may_have_happened)) => {
                    ambiguous |= may_have_happened && call.writes;
                    let wait = self.retries.wait(tries).max(asked.unwrap_or_default());
                    if tries >= self.retries.tries_max || begun.elapsed() + wait > self.retries.patience {
                        let error = match tries {
                            1 => error,
                            _ => error.context(format!("after {tries} tries")),
                        };
                        return Err(if ambiguous { error.maybe_written() } else { error });
                    }
                    tracing::debug!(target: "precedent_azure", "{}: {error}; trying again", call.what);
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    async fn try_once(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        let mut request = Request::new(call.url.clone(), call.method);
        for (name, value) in &call.headers {
            request.insert_header(*name, value.clone());
        }
        request.set_body(Body::from(call.body.clone()));
        let options = PipelineStreamOptions { skip_checks: true, ..PipelineStreamOptions::default() };
        let sent = self.pipeline.stream(&Context::new(), &mut request, Some(options)).await;
        let (status, headers, mut body) = sent.map_err(|error| self.not_sent(&error, call))?.deconstruct();
        let mut bytes = BytesMut::new();
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| self.not_sent(&error, call))?;
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                let error = Error::new(
                    ErrorKind::LimitExceeded,
                    format!("{}: the answer is longer than {ANSWER_BYTES_MAX} bytes", call.what),
                );
                return Err(Failure::Final(if call.writes { error.maybe_written() } else { error }));
            }
            bytes.extend_from_slice(&chunk);
        }
        let answer = Answer { status: status.into(), headers, body: bytes.freeze(), ambiguous: false };
        self.note_clock(&answer);
        match answer.status {
            408 | 429 | 500 | 502 | 503 | 504 => {
                let refusal = Refusal::parse(answer.header("x-ms-error-code"), &answer.body);
                // Only these two say that nothing was done.
                let refused = answer.status == 429 || refusal.code == "ServerBusy";
                let asked = answer.header("retry-after").and_then(|text| text.trim().parse().ok());
                let mut error = self.error_of(answer.status, &refusal, call.what);
                if let Some(seconds) = asked {
                    error = error.retry_after(seconds);
                }
                let asked = asked.map(|seconds| Duration::from_secs(seconds.into()));
                Err(Failure::Passing(error, asked, !refused))
            }
            _ => Ok(answer),
        }
    }

    fn note_clock(&self, answer: &Answer) {
        let date = answer.header("date").and_then(|text| parse_rfc7231(&text).ok());
        let theirs = date.and_then(|date| u64::try_from(date.unix_timestamp()).ok());
        if let Some(theirs) =
            theirs.and_then(|seconds| Time::from_micros(seconds.checked_mul(1_000_000)?).ok())
        {
            let ours = Time::from_system(SystemTime::now());
            *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = Some((theirs, ours));
        }
    }

    /// Puts into words why there is no answer.
    fn not_sent(&self, error: &azure_core::Error, call: &Call<'_>) -> Failure {
        let host = self.endpoint.authority();
        let cause = cause_of(error);
        match error.kind() {
            AzureKind::Credential => {
                let message = format!("no token of Entra ID for the account '{}': {cause}", self.account);
                Failure::Final(Error::new(ErrorKind::Unauthorized, message))
            }
            AzureKind::Connection if is_about_a_certificate(error) => {
                let message = format!(
                    "{host} does not prove that it is {host}: {cause}; a proxy that opens TLS, or a certificate \
                     authority this machine does not know?"
                );
                Failure::Final(Error::new(ErrorKind::Unavailable, message))
            }
            AzureKind::Connection => {
                let message = format!("{host} cannot be reached, {}: {cause}", call.what);
                Failure::Passing(Error::new(ErrorKind::Unavailable, message), None, false)
            }
            AzureKind::Io => {
                let message = format!("{host} did not answer, {}: {cause}", call.what);
                Failure::Passing(Error::new(ErrorKind::Unavailable, message), None, true)
            }
            _ => {
                let message = format!("the request to {host} cannot be made, {}: {cause}", call.what);
                Failure::Final(Error::new(ErrorKind::Internal, message))
            }
        }
    }

    fn says_no_table(&self, answer: &Answer) -> bool {
        is_no_table(&Refusal::parse(answer.header("x-ms-error-code"), &answer.body).code)
    }

    /// The outcome of a write that a status means, or the error.
    fn write_of(&self, answer: &Answer, what: &str) -> Result<Write> {
        let refusal = Refusal::parse(answer.header("x-ms-error-code"), &answer.body);
        match answer.status {
            409 if refusal.code == "EntityAlreadyExists" => Ok(Write::Exists),
            412 => Ok(Write::Stale),
            _ => Err(self.refused(answer, what)),
        }
    }

    fn refused(&self, answer: &Answer, what: &str) -> Error {
        let refusal = Refusal::parse(answer.header("x-ms-error-code"), &answer.body);
        let error = self.error_of(answer.status, &refusal, what);
        if answer.ambiguous { error.maybe_written() } else { error }
    }

    fn error_of(&self, status: u16, refusal: &Refusal, what: &str) -> Error {
        let code = refusal.code.as_str();
        let (account, table) = (&self.account, &self.table);
        let said = match refusal.shown() {
            said if said.is_empty() => status.to_string(),
            said => format!("{status} {said}"),
        };
        let (kind, message) = match status {
            // What the service says to these can hold what was signed: only its code is shown.
            401 | 403 => {
                let code = if code.is_empty() { String::new() } else { format!(" {code}") };
                let advice = match self.credential {
                    "the Entra ID credential" => {
                        "the identity needs the role 'Storage Table Data Contributor' on the account"
                            .to_owned()
                    }
                    _ => format!(
                        "check {} and {}",
                        super::settings::CONNECTION_STRING_VARIABLE,
                        super::settings::KEY_VARIABLE
                    ),
                };
                let late = match self.clock() {
                    Some((theirs, ours)) if theirs.as_micros().abs_diff(ours.as_micros()) > 300_000_000 => {
                        format!("; it is {theirs} there and {ours} here, and a signature holds 15 minutes")
                    }
                    _ => String::new(),
                };
                let message = format!(
                    "the account '{account}' refuses {} ({status}{code}), {what}: {advice}{late}",
                    self.credential
                );
                (ErrorKind::Unauthorized, message)
            }
            404 if is_no_table(code) => (
                ErrorKind::NotFound,
                format!(
                    "the account '{account}' has no table '{table}': `precedent provision table up` makes it"
                ),
            ),
            404 => (ErrorKind::NotFound, format!("the service does not find it, {what}: {said}")),
            507 => (ErrorKind::Full, format!("the account '{account}' is full, {what}: {said}")),
            _ if code.contains("Quota") || code.contains("CapacityExceeded") => {
                (ErrorKind::Full, format!("the account '{account}' is full, {what}: {said}"))
            }
            413 => (ErrorKind::LimitExceeded, format!("too large for the service, {what}: {said}")),
            400 if code.ends_with("TooLarge") => {
                (ErrorKind::LimitExceeded, format!("too large for the service, {what}: {said}"))
            }
            429 => (ErrorKind::Overloaded, format!("the account '{account}' is throttled, {what}: {said}")),
            503 if code == "ServerBusy" => {
                (ErrorKind::Overloaded, format!("the account '{account}' is throttled, {what}: {said}"))
            }
            408 | 500..600 => (ErrorKind::Unavailable, format!("the service failed, {what}: {said}")),
            300..400 => {
                (ErrorKind::NotAStore, format!("{} is not Table Storage: it redirects", self.endpoint))
            }
            _ => (ErrorKind::Invalid, format!("the service refuses it, {what}: {said}")),
        };
        Error::new(kind, message)
    }

    fn entity_path(&self, key: &Key) -> String {
        let quoted = |text: &str| escaped(&text.replace('\'', "''"));
        format!("{}(PartitionKey='{}',RowKey='{}')", self.table, quoted(&key.partition), quoted(&key.row))
    }

    fn entity_url(&self, key: &Key, query: &str) -> Result<Url> {
        self.url(&self.entity_path(key), query)
    }

    /// A URL without the signature, which the outer request of a transaction has.
    fn bare_url(&self, path: &str) -> Result<Url> {
        let text = format!("{}{path}", self.endpoint);
        Url::parse(&text)
            .map_err(|error| Error::invalid(format!("not a URL under {}: {error}", self.endpoint)))
    }

    fn url(&self, path: &str, query: &str) -> Result<Url> {
        let mut url = self.bare_url(path)?;
        let signature = self.signature.as_ref().map_or("", |signature| signature.secret());
        let both: Vec<&str> = [query, signature].into_iter().filter(|part| !part.is_empty()).collect();
        if !both.is_empty() {
            url.set_query(Some(&both.join("&")));
        }
        Ok(url)
    }
}

fn is_no_table(code: &str) -> bool {
    matches!(code, "TableNotFound" | "TableDoesNotExist" | "TableBeingDeleted")
}

fn headers() -> Vec<(&'static str, String)> {
    vec![
        ("accept", "application/json;odata=minimalmetadata".to_owned()),
        ("x-ms-version", SERVICE_VERSION.to_owned()),
        ("dataserviceversion", "3.0".to_owned()),
        ("maxdataserviceversion", "3.0;NetFx".to_owned()),
    ]
}

fn json_headers() -> Vec<(&'static str, String)> {
    let mut headers = headers();
    headers.push(("content-type", "application/json".to_owned()));
    headers
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, UNESCAPED).to_string()
}

fn not_understood(what: &str, why: &str) -> Error {
    Error::new(ErrorKind::NotAStore, format!("{what}: the answer is not that of Table Storage: {why}"))
}

/// An error and its causes. An `io::Error` does not name what it wraps as its cause.
fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| match error.downcast_ref::<std::io::Error>() {
        Some(io) => io.get_ref().map(|inner| inner as _),
        None => error.source(),
    })
}

/// What lies deepest, in words. The outer errors of the HTTP client are left out: they name the URL.
fn cause_of(error: &(dyn std::error::Error + 'static)) -> String {
    let timed_out = |error: &reqwest::Error| error.is_timeout();
    if chain(error).filter_map(|error| error.downcast_ref()).any(timed_out) {
        return "it took too long".to_owned();
    }
    let deepest = chain(error).filter(|error| !error.is::<reqwest::Error>()).last();
    let text = deepest.map_or_else(|| "no reason given".to_owned(), ToString::to_string);
    text.lines().next().unwrap_or_default().chars().take(300).collect::<String>().escape_debug().to_string()
}

fn is_about_a_certificate(error: &(dyn std::error::Error + 'static)) -> bool {
    use rustls::Error::{InvalidCertificate, NoCertificatesPresented};
    chain(error)
        .any(|error| matches!(error.downcast_ref(), Some(InvalidCertificate(_) | NoCertificatesPresented)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_one_that_another_implementation_makes() {
        let policy =
            SharedKeyLite { account: "acct1".to_owned(), key: Secret::new("c2VjcmV0LXNlY3JldC1zZWNyZXQ=") };
        let date = "Thu, 26 Nov 2026 10:00:00 GMT";
        let path = "/events(PartitionKey='type%3Aa',RowKey='1')";
        // printf '%s\n/acct1%s' DATE PATH | openssl dgst -sha256 -hmac secret-secret-secret -binary | base64
        let expected = "SharedKeyLite acct1:t3ooAj0fLXB+2B4R5FO8ADPccFX5T9Ruq/clfuDmSI0=";
        assert_eq!(policy.authorization(date, path).expect("a key in base64"), expected);
    }

    #[test]
    fn an_error_of_the_service_is_read_whatever_it_looks_like() {
        let body = br#"{"odata.error":{"code":"EntityAlreadyExists","message":{"lang":"en-US","value":"3:The specified entity already exists.\nRequestId:1"}}}"#;
        let refusal = Refusal::parse(None, body);
        assert_eq!((refusal.code.as_str(), refusal.index()), ("EntityAlreadyExists", Some(3)));
        assert_eq!(refusal.shown(), "EntityAlreadyExists: 3:The specified entity already exists.");
        for hostile in [
            &b""[..],
            b"<xml>",
            b"{}",
            b"{\"odata.error\":[]}",
            &[0xff; 10],
            b"{\"odata.error\":{\"code\":1}}",
        ] {
            assert_eq!(Refusal::parse(Some("FromHeader".into()), hostile).code, "FromHeader");
        }
        assert_eq!(Refusal::default().index(), None);
    }

    #[test]
    fn waits_grow_and_are_bounded() {
        let retries = Retries::default();
        for tries in 1..100 {
            let wait = retries.wait(tries);
            assert!(wait <= retries.wait_max && wait >= retries.first_wait / 2, "{tries}: {wait:?}");
        }
    }
}
