//! The services that the binary is run against: Azurite, and the emulator in Microsoft's driver behind a port.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::sync::{OnceLock, mpsc};

use precedent_azure::cloud::CLOUDS;
use precedent_azure::cosmos::{self, CosmosRemote};
use precedent_azure::remote::Remote;
use precedent_azure::table::{self, TableRemote};
use precedent_emulators::azurite::Azurite;
use precedent_emulators::cosmos::host::Host;
use precedent_emulators::cosmos::{Account, Container, Emulator};
use tokio::runtime::Runtime;

use crate::common::{Place, azure_variables};

pub(crate) const DATABASE: &str = "eventSourcingDb";
pub(crate) const CONTAINER: &str = "eventsContainer";

/// An account of Cosmos DB, with nothing in it.
pub(crate) struct Cosmos {
    pub(crate) emulator: Emulator,
    /// Its endpoint, with a `/` at the end.
    pub(crate) endpoint: String,
}

impl Cosmos {
    pub(crate) fn start(account: Account) -> Self {
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            runtime().block_on(async move {
                let host = Host::bind(0, account).await.expect("a free port");
                tell.send((host.emulator.clone(), host.url.clone())).expect("somebody waits");
                host.serve().await
            })
        });
        let (emulator, endpoint) = told.recv().expect("it starts");
        Self { emulator, endpoint }
    }

    /// With the database and a container.
    pub(crate) fn with(container: &Container) -> Self {
        let cosmos = Self::start(Account::default());
        cosmos.emulator.create_database(DATABASE);
        cosmos.emulator.create_container(DATABASE, CONTAINER, container);
        cosmos
    }

    /// The URL of a container, which need not be there.
    pub(crate) fn url(&self, database: &str, container: &str) -> String {
        format!("{}{database}/{container}", self.endpoint.replace("http:", "cosmos+http:"))
    }
}

/// Azurite for this process, or `None` after the reason was said.
pub(crate) fn azurite() -> Option<&'static Azurite> {
    static STARTED: OnceLock<Option<Azurite>> = OnceLock::new();
    STARTED.get_or_init(|| Azurite::start(Path::new(env!("CARGO_TARGET_TMPDIR")))).as_ref()
}

/// Makes a table; answers its URL.
pub(crate) fn fresh_table(azurite: &Azurite) -> String {
    let url = azurite.url(&azurite.fresh_name());
    let made = runtime().block_on(async { table(&url).client().create_table().await });
    assert!(made.expect("it answers"), "the name is a new one");
    url
}

pub(crate) fn table(url: &str) -> TableRemote {
    let settings = table::Settings::parse_with(url, table::Options::default(), CLOUDS[0], |_| None);
    TableRemote::new(&settings.expect("the URL of an emulator")).expect("a remote")
}

/// The service behind a URL of an emulator, without the binary.
pub(crate) async fn remote(url: &str) -> Box<dyn Remote> {
    match url.starts_with("table") {
        true => Box::new(table(url)),
        false => {
            let settings = cosmos::Settings::new(url, |_| None).expect("the URL of an emulator");
            let options = cosmos::Options::default();
            Box::new(CosmosRemote::connect(settings, options).await.expect("it answers"))
        }
    }
}

/// Where logs can be kept.
pub(crate) struct Service {
    pub(crate) name: &'static str,
    /// Its URL, without a log.
    pub(crate) url: String,
    /// What the names of logs begin with.
    pub(crate) prefix: String,
    environment: Vec<(OsString, OsString)>,
}

impl Service {
    fn emulated(name: &'static str, url: String) -> Self {
        Self { name, url, prefix: String::new(), environment: Vec::new() }
    }

    /// The account that a variable names, with whatever else this process is told of Azure; `None` after that was said.
    pub(crate) fn live(name: &'static str, variable: &str) -> Option<Self> {
        let Some(url) = std::env::var(variable).ok().filter(|url| !url.is_empty()) else {
            let told = format!("skipped: {name} is not tried on Azure: {variable} is not set\n");
            let _ = std::io::stderr().write_all(told.as_bytes());
            return None;
        };
        let since = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_millis();
        Some(Self { name, url, prefix: format!("live-{since}-"), environment: azure_variables() })
    }

    /// The URL of one of its logs.
    pub(crate) fn log(&self, name: &str) -> String {
        format!("{}?log={}{name}", self.url, self.prefix)
    }

    /// A machine that reaches it, with a cache of its own.
    pub(crate) fn machine(&self) -> Place {
        Place::with(self.environment.clone())
    }
}

/// An empty place on each emulator that is there. Enough throughput that nothing has to wait for it.
pub(crate) fn emulators() -> Vec<Service> {
    let cosmos = Cosmos::with(&Container { throughput: 1_000_000, ..Container::default() });
    let mut services = vec![Service::emulated("Cosmos DB", cosmos.url(DATABASE, CONTAINER))];
    services.extend(azurite().map(|azurite| Service::emulated("Table Storage", fresh_table(azurite))));
    services
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}
