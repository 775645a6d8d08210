//! The in-memory emulator of Cosmos DB that comes with Microsoft's driver, for tests of our own.
//!
//! What it emulates sits below the SDK's HTTP client: routing, sessions, retries and failover above it are the code
//! that runs in production. Its feature is internal to the driver and may change with any release, so the driver is
//! pinned exactly and this module is the only place that names the emulator.
//!
//! | what | where |
//! |---|---|
//! | an account in this process, with regions, faults, throttling and splits | [`Emulator`] |
//! | the same behind a port of the loopback interface, for programs | [`host`] and the binary `precedent-cosmos-emulator` |
//!
//! *Not emulated*: authorization (any key is taken), expiry by time to live, and the real price of a request (the
//! charges follow a simple model, see `RequestUnitChargingModel` of the driver).

pub mod host;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::credentials::Secret;
use azure_core::http::{AsyncRawResponse, HttpClient, Request, StatusCode};
use azure_data_cosmos::models::PartitionKeyDefinition;
use azure_data_cosmos::options::Region;
use azure_data_cosmos::{
    AccountEndpoint, AccountReference, CosmosClient, CosmosClientBuilder, CosmosRuntime,
    CosmosRuntimeBuilder, RoutingStrategy,
};
use azure_data_cosmos_driver::fault_injection::{
    CustomResponseBuilder, FaultInjectionConditionBuilder, FaultInjectionResultBuilder,
    FaultInjectionRuleBuilder,
};
pub use azure_data_cosmos_driver::fault_injection::{
    FaultInjectionErrorType as Fault, FaultInjectionRule as FaultRule, FaultOperationType as Operation,
};
use azure_data_cosmos_driver::in_memory_emulator::{
    ContainerConfig, InMemoryEmulatorHttpClient, ReplicationConfig, VirtualAccountConfig, VirtualRegion,
    WriteMode,
};
use url::Url;

/// The account key that every emulator of Cosmos DB uses; Microsoft publishes it.
pub const KEY: &str =
    "C2y6yDjf5/R+ob0N8A7Cgv30VRDJIWEHLM+4QDU5DE2nQ9nDuVTqobD4b8mGGyPMbIZnqyMsEcaGQy67XIw/Jw==";

/// What kind of account to emulate.
#[derive(Debug, Clone)]
pub struct Account {
    /// The names of its regions, the first one the write region.
    pub regions: Vec<&'static str>,
    /// Whether every region takes writes.
    pub several_write_regions: bool,
    /// Whether a partition that has used up its throughput answers 429.
    pub throttling: bool,
    /// How long a write takes to reach the other regions.
    pub replication: Duration,
}

impl Default for Account {
    /// One region, no throttling.
    fn default() -> Self {
        Self {
            regions: vec!["East US"],
            several_write_regions: false,
            throttling: false,
            replication: Duration::ZERO,
        }
    }
}

/// What kind of container to make.
#[derive(Debug, Clone)]
pub struct Container {
    /// The paths of its partition key: one, or several of a hierarchical one.
    pub partition_key: Vec<&'static str>,
    /// Its provisioned throughput in request units a second, at least 400.
    pub throughput: u64,
    /// How many physical partitions it starts with.
    pub partitions: u32,
}

impl Default for Container {
    /// `/eventType`, 400 RU/s, one physical partition.
    fn default() -> Self {
        Self { partition_key: vec!["/eventType"], throughput: 400, partitions: 1 }
    }
}

/// An emulated account.
#[derive(Debug, Clone)]
pub struct Emulator {
    client: Arc<InMemoryEmulatorHttpClient>,
    endpoint: Url,
    home: &'static str,
}

impl Emulator {
    /// Makes an account in this process. Its endpoint is a name that nothing resolves: only clients of
    /// [`Emulator::runtime`] reach it.
    ///
    /// # Panics
    /// If the account makes no sense: no region, or one twice.
    pub fn new(account: Account) -> Self {
        let host =
            |region: &str| format!("https://{}.emulator.local/", region.replace(' ', "").to_lowercase());
        let urls = account.regions.iter().map(|region| (*region, host(region))).collect();
        Self::with_regions(&account, urls)
    }

    /// Makes an account of one region whose endpoint is `base`, for a server that forwards to it.
    ///
    /// # Panics
    /// If `base` is not a URL.
    pub fn hosted(base: &str, account: Account) -> Self {
        let region = account.regions[0];
        Self::with_regions(&account, vec![(region, base.to_owned())])
    }

    fn with_regions(account: &Account, urls: Vec<(&'static str, String)>) -> Self {
        let parse = |url: &str| url.parse::<Url>().expect("the endpoint of a region is a URL");
        let (home, endpoint) = (urls[0].0, parse(&urls[0].1));
        let regions = urls.iter().map(|(name, url)| VirtualRegion::new(name, parse(url))).collect();
        let mode = if account.several_write_regions { WriteMode::Multi } else { WriteMode::Single };
        let replication = match account.replication {
            Duration::ZERO => ReplicationConfig::immediate(),
            delay => ReplicationConfig::fixed(delay),
        };
        let config = VirtualAccountConfig::new(regions)
            .expect("the regions of a test are distinct")
            .with_write_mode(mode)
            .with_replication_config(replication)
            .with_throttling_enabled(account.throttling);
        Self { client: Arc::new(InMemoryEmulatorHttpClient::new(config)), endpoint, home }
    }

    /// The endpoint of the account.
    pub fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    /// The host of the endpoint.
    pub fn host(&self) -> &str {
        self.endpoint.host_str().expect("the endpoint of an emulated account has a host")
    }

    /// Makes a database.
    pub fn create_database(&self, database: &str) {
        self.client.store().create_database(database);
    }

    /// Makes a container in a database that is there.
    ///
    /// # Panics
    /// If the container makes no sense: a throughput under 400, or no partitions.
    pub fn create_container(&self, database: &str, container: &str, made: &Container) {
        let paths = made.partition_key.iter().map(|path| (*path).into()).collect();
        let config =
            ContainerConfig::new().with_throughput(made.throughput).with_partition_count(made.partitions);
        let config = config.build().expect("the container of a test can be made");
        let key = PartitionKeyDefinition::new(paths);
        self.client.store().create_container_with_config(database, container, key, config);
    }

    /// Splits a physical partition in two, which answers 410 for as long as `locked`. Needs a tokio runtime.
    pub fn split(&self, database: &str, container: &str, partition: u32, locked: Duration) {
        self.client.store().split_partition(database, container, partition, locked);
    }

    /// Stops or resumes what is replicated to a region.
    pub fn replicate_to(&self, region: &str, on: bool) {
        let store = self.client.store();
        if on { store.resume_replication(region) } else { store.pause_replication(region) }
    }

    /// A runtime of the SDK whose requests come here, through these rules, the first that applies first.
    pub async fn runtime(&self, rules: Vec<Arc<FaultRule>>) -> CosmosRuntime {
        let builder = if rules.is_empty() {
            self.client.runtime_builder()
        } else {
            self.client.runtime_builder_with_fault_rules(rules)
        };
        CosmosRuntimeBuilder::from(builder)
            .build()
            .await
            .expect("the runtime of the emulator is made of nothing")
    }

    /// A plain client of the SDK, with which anything can be done to the account.
    pub async fn client(&self) -> CosmosClient {
        let account = AccountReference::with_authentication_key(
            AccountEndpoint::from(self.endpoint.clone()),
            Secret::new(KEY),
        );
        let home = Region::from(self.home);
        let builder = CosmosClientBuilder::new().with_runtime(self.runtime(Vec::new()).await);
        let built = builder.build(account, RoutingStrategy::PreferredRegions(vec![home])).await;
        built.expect("the emulated account answers")
    }

    /// An HTTP client whose requests come here, for those that are not the SDK's.
    pub fn http(&self) -> Arc<dyn HttpClient> {
        Arc::new(self.clone())
    }

    /// Answers a request as the account would.
    ///
    /// # Errors
    /// If the request is not for this account, or its region is down.
    pub async fn answer(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        self.client.execute_request(request).await.map_err(azure_core::Error::from)
    }
}

#[async_trait]
impl HttpClient for Emulator {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        self.answer(request).await
    }
}

/// A rule: what `fault` says happens to this operation, this often. `id` tells it from other rules.
pub fn fault(id: &str, operation: Operation, fault: Fault, times: u32) -> Arc<FaultRule> {
    rule(id, operation, FaultInjectionResultBuilder::new().with_error(fault), times)
}

/// A rule: this operation is answered so, this often, without being carried out.
///
/// # Panics
/// If there is no such status.
pub fn answer(id: &str, operation: Operation, status: u16, substatus: u16, times: u32) -> Arc<FaultRule> {
    let status = StatusCode::from(status);
    let response = CustomResponseBuilder::new(status).with_sub_status(substatus).with_body("{}").build();
    rule(id, operation, FaultInjectionResultBuilder::new().with_custom_response(response), times)
}

/// A rule: this operation takes at least so long, always. The account itself answers at once, as none does that is far away.
pub fn delay(id: &str, operation: Operation, delay: Duration) -> Arc<FaultRule> {
    rule(id, operation, FaultInjectionResultBuilder::new().with_delay(delay), u32::MAX)
}

fn rule(id: &str, operation: Operation, result: FaultInjectionResultBuilder, times: u32) -> Arc<FaultRule> {
    let condition = FaultInjectionConditionBuilder::new().with_operation_type(operation).build();
    let rule =
        FaultInjectionRuleBuilder::new(id, result.build()).with_condition(condition).with_hit_limit(times);
    Arc::new(rule.build())
}
