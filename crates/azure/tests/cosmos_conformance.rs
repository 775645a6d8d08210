//! Every promise of a store, on Cosmos DB: the emulator in this process, with its faults.

#[path = "support/conformance.rs"]
mod conformance;

use std::sync::Arc;

use azure_data_cosmos::PartitionKey;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use precedent_azure::cosmos::{CosmosRemote, KEY_VARIABLE, Options, Settings, Transport};
use precedent_azure::remote::Remote;
use precedent_core::conformance::{Failure, assert_conforms};
use precedent_core::{LogName, Position, Result};
use precedent_emulators::cosmos::{
    Account, Container, Emulator, Fault, FaultRule, KEY, Operation, answer, fault,
};
use serde_json::Value;

use self::conformance::{OnService, Service};

const DATABASE: &str = "eventSourcingDb";
const CONTAINER: &str = "eventsContainer";
/// Boundaries are crossed in the middle of everything.
const BUCKET_BITS: u32 = 3;

struct Cosmos {
    emulator: Emulator,
    refuse: Arc<FaultRule>,
    lose: Arc<FaultRule>,
    /// Everything that would settle what was lost.
    silence: Vec<Arc<FaultRule>>,
}

impl Cosmos {
    fn new(partition_key: Vec<&'static str>) -> Self {
        let emulator = Emulator::new(Account::default());
        emulator.create_database(DATABASE);
        // Parts are paced by the throughput: with little of it the largest events take minutes, as they do there.
        let container = Container { partition_key, throughput: 1_000_000, ..Container::default() };
        emulator.create_container(DATABASE, CONTAINER, &container);
        let refuse = answer("refuse", Operation::BatchItem, 403, 0, 1);
        let lose = fault("lose", Operation::BatchItem, Fault::ResponseTimeoutAfterService, 1);
        let operations =
            [Operation::BatchItem, Operation::ReadItem, Operation::QueryItem, Operation::CreateItem];
        let silence = operations.into_iter().enumerate().map(|(index, operation)| {
            fault(&format!("silence {index}"), operation, Fault::ConnectionError, u32::MAX)
        });
        let cosmos = Self { emulator, refuse, lose, silence: silence.collect() };
        cosmos.recover();
        cosmos
    }

    fn rules(&self) -> Vec<Arc<FaultRule>> {
        [&self.refuse, &self.lose].into_iter().chain(&self.silence).cloned().collect()
    }
}

impl Service for Cosmos {
    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn Remote>>> {
        async move {
            let url = format!("cosmos://{}/{DATABASE}/{CONTAINER}", self.emulator.host());
            let settings = Settings::new(&url, |name| (name == KEY_VARIABLE).then(|| KEY.to_owned()))?;
            let runtime = Some(self.emulator.runtime(self.rules()).await);
            let transport = Transport { runtime, http: Some(self.emulator.http()) };
            let options = Options { item_bytes: Some(100_000), region: None };
            let remote = CosmosRemote::connect_through(settings, options, transport).await?;
            Ok(Arc::new(remote.with_bucket_bits(BUCKET_BITS)) as Arc<dyn Remote>)
        }
        .boxed()
    }

    fn fail_next(&self, failure: Failure) {
        match failure {
            Failure::Write => self.refuse.enable(),
            Failure::Sync => {
                self.lose.enable();
                self.silence.iter().for_each(|rule| rule.enable());
            }
        }
    }

    fn recover(&self) {
        self.rules().iter().for_each(|rule| rule.disable());
    }

    fn damage<'a>(&'a self, log: &'a LogName, position: Position) -> BoxFuture<'a, ()> {
        async move {
            let remote = self.connect().await.expect("it can be opened");
            let id = remote.log(log).await.expect("it answers").expect("it is there").id;
            let client = self.emulator.client().await;
            let container = client.database_client(DATABASE).container_client(CONTAINER, None).await;
            let container = container.expect("it is there");
            // Each frame has one event.
            let (partition, item) =
                (format!("~log/{id}/{}", position.0 >> BUCKET_BITS), format!("{:020}", position.0));
            let key = || PartitionKey::from(partition.clone());
            let read = container.read_item(key(), &item, None).await.expect("the frame is there");
            let mut frame: Value = read.into_model().expect("it is JSON");
            let flip = |body: &Value| {
                let mut bytes = BASE64_STANDARD.decode(body.as_str().expect("a body")).expect("in base64");
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0x10;
                Value::from(BASE64_STANDARD.encode(bytes))
            };
            if frame.get("body").is_some() {
                frame["body"] = flip(&frame["body"]);
                container.replace_item(key(), &item, &frame, None).await.expect("it can be replaced");
                return;
            }
            let parts = format!("~part/{id}/{}", frame["frame"].as_str().expect("an id"));
            let key = || PartitionKey::from(parts.clone());
            let read = container.read_item(key(), "000000", None).await.expect("the part is there");
            let mut part: Value = read.into_model().expect("it is JSON");
            part["body"] = flip(&part["body"]);
            container.replace_item(key(), "000000", &part, None).await.expect("it can be replaced");
        }
        .boxed()
    }
}

#[test]
fn a_log_in_a_container_keeps_the_promises() {
    assert_conforms(&OnService::new(async || Cosmos::new(vec!["/eventType"])));
}
