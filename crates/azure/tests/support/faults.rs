//! A policy between the client and the service that loses answers, holds requests back or makes answers up.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use azure_core::error::ErrorKind;
use azure_core::http::headers::Headers;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{AsyncRawResponse, Context, Method, Request, StatusCode};

/// What happens to a request.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The service acts, and its answer is lost.
    LoseAnswer,
    /// The service does not get it, until [`Faults::release`] lets it go; nobody is told.
    Hold,
    /// The connection cannot be made.
    NoConnection,
    /// The service does not get it, and this is answered: status, headers, body.
    Answer(u16, Vec<(&'static str, String)>, &'static str),
    /// A query gets pages of this many rows.
    Top(usize),
    /// A query gets an empty page, and goes on where it was.
    EmptyPage,
    /// A header of the answer is another one.
    Header(&'static str, String),
}

impl Fault {
    /// An error of the service.
    pub(crate) fn error(status: u16, code: &'static str) -> Self {
        Self::Answer(status, vec![("x-ms-error-code", code.to_owned())], "")
    }
}

#[derive(Debug)]
struct Rule {
    method: Option<Method>,
    path: &'static str,
    times: usize,
    fault: Fault,
}

/// A request, and who would have got it.
type Held = (Request, Vec<Arc<dyn Policy>>);

/// The policy. Without rules everything passes.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    rules: Mutex<Vec<Rule>>,
    held: Mutex<Vec<Held>>,
    /// How many requests there were.
    pub(crate) requests: AtomicUsize,
}

impl Faults {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The next `times` requests of this method, if one is named, whose path and query contain `path`.
    pub(crate) fn next(&self, times: usize, method: Option<Method>, path: &'static str, fault: Fault) {
        self.rules.lock().unwrap().push(Rule { method, path, times, fault });
    }

    /// From now on everything passes.
    pub(crate) fn clear(&self) {
        self.rules.lock().unwrap().clear();
    }

    /// How many requests there were since this was asked last.
    pub(crate) fn count(&self) -> usize {
        self.requests.swap(0, Ordering::SeqCst)
    }

    /// Lets the requests go that were held; answers the bodies of what the service said to them.
    pub(crate) async fn release(&self) -> Vec<String> {
        let held = std::mem::take(&mut *self.held.lock().unwrap());
        let mut said = Vec::new();
        for (mut request, next) in held {
            let answer = next[0].send(&Context::new(), &mut request, &next[1..]).await.expect("an answer");
            said.push(answer.into_body().collect_string().await.expect("text"));
        }
        said
    }

    fn fault_of(&self, request: &Request) -> Option<Fault> {
        let mut rules = self.rules.lock().unwrap();
        let text = request.path_and_query();
        let rule = rules.iter_mut().find(|rule| {
            rule.times > 0
                && rule.method.is_none_or(|method| method == request.method())
                && text.contains(rule.path)
        })?;
        rule.times -= 1;
        Some(rule.fault.clone())
    }
}

/// What a query that got an empty page goes on with.
const AGAIN: &str = "again";

fn keep_query(request: &mut Request, keep: impl Fn(&str) -> bool, more: Option<String>) {
    let query = request.url().query().unwrap_or_default().to_owned();
    let kept = query.split('&').filter(|part| keep(part)).map(str::to_owned);
    let query = kept.chain(more).collect::<Vec<_>>().join("&");
    request.url_mut().set_query((!query.is_empty()).then_some(&*query));
}

fn failed(kind: ErrorKind) -> azure_core::Error {
    azure_core::Error::with_message(kind, "made to fail")
}

fn headers(pairs: &[(&'static str, String)]) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in pairs {
        headers.insert(*name, value.clone());
    }
    headers
}

#[async_trait]
impl Policy for Faults {
    async fn send(&self, context: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let fault = self.fault_of(request);
        keep_query(request, |part| part != format!("NextPartitionKey={AGAIN}"), None);
        match fault {
            None => next[0].send(context, request, &next[1..]).await,
            Some(Fault::LoseAnswer) => {
                let answer = next[0].send(context, request, &next[1..]).await?;
                answer.into_body().collect().await?;
                Err(failed(ErrorKind::Io))
            }
            Some(Fault::Hold) => {
                self.held.lock().unwrap().push((request.clone(), next.to_vec()));
                Err(failed(ErrorKind::Io))
            }
            Some(Fault::NoConnection) => Err(failed(ErrorKind::Connection)),
            Some(Fault::Answer(status, pairs, body)) => {
                Ok(AsyncRawResponse::from_bytes(StatusCode::from(status), headers(&pairs), body))
            }
            Some(Fault::Top(rows)) => {
                keep_query(request, |part| !part.starts_with("$top="), Some(format!("$top={rows}")));
                next[0].send(context, request, &next[1..]).await
            }
            Some(Fault::EmptyPage) => {
                let next = [("x-ms-continuation-nextpartitionkey", AGAIN.to_owned())];
                Ok(AsyncRawResponse::from_bytes(StatusCode::Ok, headers(&next), r#"{"value":[]}"#))
            }
            Some(Fault::Header(name, value)) => {
                let answer = next[0].send(context, request, &next[1..]).await?;
                let (status, mut headers, body) = answer.deconstruct();
                headers.insert(name, value);
                Ok(AsyncRawResponse::from_bytes(status, headers, body.collect().await?))
            }
        }
    }
}
