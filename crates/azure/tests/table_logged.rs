//! What is logged while a table is refused or not reached, at every level, holds no credential.
//!
//! In a binary of its own: the subscriber is that of the whole process.

mod support;

use std::sync::Arc;
use std::time::Duration;

use precedent_azure::cloud::CLOUDS;
use precedent_azure::remote::Remote;
use precedent_azure::table::client::Retries;
use precedent_azure::table::{Options, Settings, TableRemote};

fn settings(url: &str, connection: &str) -> Settings {
    let read = |name: &str| (name == "AZURE_STORAGE_CONNECTION_STRING").then(|| connection.to_owned());
    let settings = Settings::parse_with(url, Options::default(), CLOUDS[0], read).expect("settings");
    let retries = Retries { tries_max: 2, first_wait: Duration::from_millis(1), ..Retries::default() };
    Settings { retries, ..settings }
}

/// Keeps everything that is logged, at every level.
#[derive(Default)]
struct Logged(std::sync::Mutex<String>);

impl tracing::Subscriber for Logged {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        span.record(&mut Noted(&mut self.0.lock().unwrap()));
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        values.record(&mut Noted(&mut self.0.lock().unwrap()));
    }
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut Noted(&mut self.0.lock().unwrap()));
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

struct Noted<'a>(&'a mut String);

impl tracing::field::Visit for Noted<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0.push_str(&format!("{field}={value:?}\n"));
    }
}

#[tokio::test]
async fn no_credential_is_logged_at_any_level() {
    let Some(azurite) = support::azurite::azurite() else { return };
    let secret = "c2lnbmF0dXJlLXNpZ25hdHVyZQ";
    let logged = Arc::new(Logged::default());
    tracing::subscriber::set_global_default(logged.clone()).expect("there is none yet");
    for credential in
        [format!("SharedAccessSignature=sv=2020-12-06&sig={secret}"), format!("AccountKey={secret}==")]
    {
        let connection = format!("AccountName=devstoreaccount1;{credential}");
        for url in [azurite.url("events"), "table+http://127.0.0.1:1/devstoreaccount1/events".to_owned()] {
            let remote = TableRemote::new(&settings(&url, &connection)).expect("a remote");
            remote.logs().await.expect_err("refused or not reached");
        }
    }
    let logged = logged.0.lock().unwrap();
    assert!(logged.contains("sending request"), "the subscriber saw the pipeline: {logged}");
    let shown: Vec<&str> =
        logged.lines().filter(|line| line.contains(secret) || line.contains("SharedKeyLite devst")).collect();
    assert!(shown.is_empty(), "{shown:?}");
}
