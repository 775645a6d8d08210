//! What is to be provisioned, as people say it: options, over a TOML file, over defaults.
//!
//! The defaults are exact: a throughput of 400, the partition key `/eventType`, Session consistency, multiple write
//! locations; Standard_LRS, StorageV2.
//!
//! ```toml
//! cloud = "AzureCloud"
//! subscription = "00000000-0000-0000-0000-000000000000"
//!
//! [cosmos]
//! group = "precedent-cosmos-rg"
//! account = "my-precedent"
//! locations = ["eastus"]
//! throughput = 400
//!
//! [table]
//! account = "aieventsourcingstorage"
//! ```

use precedent_core::{Error, Result};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::names;
use crate::cloud::Cloud;

/// Which store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Cosmos DB for NoSQL.
    Cosmos,
    /// Table Storage.
    Table,
}

impl Service {
    /// As it stands on the command line and in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cosmos => "cosmos",
            Self::Table => "table",
        }
    }
}

/// How request units are paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Throughput {
    /// So many RU/s, always.
    Manual(u64),
    /// Up to so many RU/s, from a tenth of it.
    Autoscale(u64),
    /// By use; the account is made for it.
    Serverless,
}

/// The partition key of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionKey {
    /// `/eventType`.
    EventType,
    /// `/eventType`, `/period`: lifts the ceiling of 20 GB for one type.
    EventTypeAndPeriod,
}

impl PartitionKey {
    /// Its paths.
    pub fn paths(self) -> &'static [&'static str] {
        match self {
            Self::EventType => &["/eventType"],
            Self::EventTypeAndPeriod => &["/eventType", "/period"],
        }
    }

    fn parse(text: &str) -> Result<Self> {
        let paths: Vec<&str> = text.split(',').map(str::trim).collect();
        [Self::EventType, Self::EventTypeAndPeriod].into_iter().find(|key| key.paths() == paths).ok_or_else(
            || {
                Error::invalid(format!(
                    "a partition key of '{}': a store needs '/eventType' or '/eventType,/period'",
                    text.escape_debug()
                ))
            },
        )
    }
}

/// What was said of one service, on the command line or in a file; what is `None` was not said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wishes {
    /// The resource group.
    pub group: Option<String>,
    /// The account.
    pub account: Option<String>,
    /// The region of a table.
    pub location: Option<String>,
    /// The regions of Cosmos DB; the first has failover priority 0.
    pub locations: Option<Vec<String>>,
    /// Whether Entra ID is the only way in.
    pub entra: Option<bool>,
    /// The object id of the identity that gets the role.
    pub principal: Option<String>,
    /// Cosmos DB: whether every region takes writes.
    pub multiple_write_locations: Option<bool>,
    /// Cosmos DB: the database.
    pub database: Option<String>,
    /// Cosmos DB: the container.
    pub container: Option<String>,
    /// Cosmos DB: RU/s.
    pub throughput: Option<u64>,
    /// Cosmos DB: the most RU/s.
    pub autoscale: Option<u64>,
    /// Cosmos DB: by use.
    pub serverless: Option<bool>,
    /// Cosmos DB: `/eventType` or `/eventType,/period`.
    pub partition_key: Option<String>,
    /// Table Storage: the SKU.
    pub sku: Option<String>,
    /// Table Storage: the table.
    pub table: Option<String>,
}

/// A file of wishes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    /// The cloud.
    pub cloud: Option<String>,
    /// The subscription.
    pub subscription: Option<String>,
    /// What concerns Cosmos DB.
    pub cosmos: Wishes,
    /// What concerns Table Storage.
    pub table: Wishes,
}

impl File {
    /// Reads a file's text; `name` is how errors name the file.
    ///
    /// # Errors
    /// `invalid` with the line and the key, if the text is not TOML or holds a key that means nothing here.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        let file: Self = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1;
            Error::invalid(format!("{name}, line {line}: {}", error.message().trim()))
        })?;
        for (service, wishes) in [(Service::Cosmos, &file.cosmos), (Service::Table, &file.table)] {
            wishes.check(service, &|key| {
                let section = format!("[{}]", service.name());
                let lines = text.lines().enumerate().skip_while(|(_, line)| line.trim() != section);
                let at = lines.skip(1).find(|(_, line)| {
                    line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
                });
                match at {
                    Some((line, _)) => format!("{name}, line {}: {key}", line + 1),
                    None => format!("{name}: {section} {key}"),
                }
            })?;
        }
        Ok(file)
    }

    /// What the file says of a service.
    pub fn wishes(&self, service: Service) -> &Wishes {
        match service {
            Service::Cosmos => &self.cosmos,
            Service::Table => &self.table,
        }
    }
}

impl Wishes {
    /// These wishes, and where they are silent those of `other`. Throughput is one wish, however it is said.
    #[must_use]
    pub fn over(self, other: &Self) -> Self {
        let silent = self.throughput.is_none() && self.autoscale.is_none() && self.serverless != Some(true);
        let throughput = |mine: Option<u64>, theirs: Option<u64>| if silent { theirs } else { mine };
        let other = other.clone();
        Self {
            group: self.group.or(other.group),
            account: self.account.or(other.account),
            location: self.location.or(other.location),
            locations: self.locations.or(other.locations),
            entra: self.entra.or(other.entra),
            principal: self.principal.or(other.principal),
            multiple_write_locations: self.multiple_write_locations.or(other.multiple_write_locations),
            database: self.database.or(other.database),
            container: self.container.or(other.container),
            throughput: throughput(self.throughput, other.throughput),
            autoscale: throughput(self.autoscale, other.autoscale),
            serverless: if silent { self.serverless.or(other.serverless) } else { self.serverless },
            partition_key: self.partition_key.or(other.partition_key),
            sku: self.sku.or(other.sku),
            table: self.table.or(other.table),
        }
    }

    /// Whether everything wished for concerns the service.
    fn check(&self, service: Service, place: &dyn Fn(&str) -> String) -> Result<()> {
        let strange = match service {
            Service::Cosmos => [
                ("location", self.location.is_some(), "Cosmos DB has 'locations'"),
                ("sku", self.sku.is_some(), "it is of Table Storage"),
                ("table", self.table.is_some(), "it is of Table Storage"),
            ]
            .to_vec(),
            Service::Table => [
                ("locations", self.locations.is_some(), "Table Storage has one 'location'"),
                ("multiple_write_locations", self.multiple_write_locations.is_some(), "it is of Cosmos DB"),
                ("database", self.database.is_some(), "it is of Cosmos DB"),
                ("container", self.container.is_some(), "it is of Cosmos DB"),
                ("throughput", self.throughput.is_some(), "it is of Cosmos DB"),
                ("autoscale", self.autoscale.is_some(), "it is of Cosmos DB"),
                ("serverless", self.serverless.is_some(), "it is of Cosmos DB"),
                ("partition_key", self.partition_key.is_some(), "it is of Cosmos DB"),
            ]
            .to_vec(),
        };
        match strange.into_iter().find(|(_, said, _)| *said) {
            None => Ok(()),
            Some((key, _, why)) => Err(Error::invalid(why).context(place(key))),
        }
    }
}

/// What is provisioned besides the resource group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// An account of Cosmos DB with a database and a container.
    Cosmos {
        /// The regions, folded (`eastus`); the first has failover priority 0.
        locations: Vec<String>,
        /// Whether every region takes writes.
        multiple_write_locations: bool,
        /// The database.
        database: String,
        /// The container.
        container: String,
        /// Request units.
        throughput: Throughput,
        /// Its key.
        partition_key: PartitionKey,
    },
    /// A storage account with a table.
    Table {
        /// The region, folded.
        location: String,
        /// The SKU, as Azure writes it.
        sku: &'static str,
        /// The table.
        table: String,
    },
}

/// Everything that is to be, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The cloud.
    pub cloud: Cloud,
    /// The subscription's id; an export does without.
    pub subscription: Option<String>,
    /// The resource group.
    pub group: String,
    /// The account.
    pub account: String,
    /// `Some` if Entra ID is the only way in: the object id of the identity that gets the role, and what it is.
    pub entra: Option<Principal>,
    /// The rest.
    pub store: Store,
}

/// An identity of Entra ID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Its object id.
    pub id: String,
    /// `User` or `ServicePrincipal`, where it is known.
    pub kind: Option<&'static str>,
}

impl Settings {
    /// What the wishes come to. `principal` is the identity that calls, for where no other is named.
    ///
    /// # Errors
    /// `invalid` if a name, a number or a combination is not possible: nothing was asked of Azure then.
    pub fn new(
        service: Service,
        cloud: Cloud,
        subscription: Option<String>,
        wishes: &Wishes,
        principal: Option<Principal>,
    ) -> Result<Self> {
        wishes.check(service, &|key| format!("'{key}'"))?;
        let subscription = subscription.map(|id| names::guid("the subscription", &id)).transpose()?;
        let group = wishes.group.clone().unwrap_or_else(|| default_group(service).to_owned());
        names::group(&group)?;
        let store = match service {
            Service::Cosmos => cosmos(wishes)?,
            Service::Table => table(wishes)?,
        };
        let account = match (&wishes.account, service, &subscription) {
            (Some(account), ..) => account.clone(),
            (None, Service::Table, _) => "aieventsourcingstorage".to_owned(),
            (None, Service::Cosmos, Some(subscription)) => default_account(subscription, &group),
            (None, Service::Cosmos, None) => {
                return Err(Error::invalid(
                    "the Cosmos DB account has no name: --account NAME gives one, and --subscription ID a default \
                     made of the subscription and the resource group",
                ));
            }
        };
        match service {
            Service::Cosmos => names::cosmos_account(&account)?,
            Service::Table => names::storage_account(&account)?,
        }
        let entra = match (wishes.entra.unwrap_or_default(), &wishes.principal) {
            (false, None) => None,
            (false, Some(_)) => {
                return Err(Error::invalid("a principal is named, which only --entra has a role for"));
            }
            (true, Some(id)) => {
                let id = names::guid("the principal", id)?;
                let kind = principal.filter(|caller| caller.id == id).and_then(|caller| caller.kind);
                Some(Principal { id, kind })
            }
            (true, None) => Some(principal.ok_or_else(|| {
                Error::invalid("nobody is named who gets the role: --principal OBJECT_ID does")
            })?),
        };
        Ok(Self { cloud, subscription, group, account, entra, store })
    }

    /// Which service it is.
    pub fn service(&self) -> Service {
        match self.store {
            Store::Cosmos { .. } => Service::Cosmos,
            Store::Table { .. } => Service::Table,
        }
    }

    /// The regions, the first of them the one everything else is in.
    pub fn locations(&self) -> &[String] {
        match &self.store {
            Store::Cosmos { locations, .. } => locations,
            Store::Table { location, .. } => std::slice::from_ref(location),
        }
    }

    /// The URL of the store.
    pub fn url(&self) -> String {
        let account = &self.account;
        match &self.store {
            Store::Cosmos { database, container, .. } => format!("cosmos://{account}/{database}/{container}"),
            Store::Table { table, .. } => format!("table://{account}/{table}"),
        }
    }
}

fn default_group(service: Service) -> &'static str {
    match service {
        Service::Cosmos => "precedent-cosmos-rg",
        Service::Table => "ai-event-sourcing-rg",
    }
}

/// A name that is the same whenever it is asked for, and most likely nobody else's in the cloud.
fn default_account(subscription: &str, group: &str) -> String {
    let hash = Sha256::digest(format!("{subscription}/{}", group.to_lowercase()));
    let short: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("precedent-{short}")
}

fn cosmos(wishes: &Wishes) -> Result<Store> {
    let throughput = match (wishes.throughput, wishes.autoscale, wishes.serverless.unwrap_or_default()) {
        (None, None, false) => Throughput::Manual(400),
        (Some(units), None, false) => Throughput::Manual(units),
        (None, Some(units), false) => Throughput::Autoscale(units),
        (None, None, true) => Throughput::Serverless,
        _ => {
            return Err(Error::invalid(
                "throughput, autoscale and serverless exclude each other: one of them is enough",
            ));
        }
    };
    match throughput {
        Throughput::Manual(units) => names::throughput(units)?,
        Throughput::Autoscale(units) => names::autoscale(units)?,
        Throughput::Serverless => {}
    }
    let locations = match &wishes.locations {
        None => vec!["eastus".to_owned()],
        Some(named) => named.iter().map(|name| names::location(name)).collect::<Result<_>>()?,
    };
    if locations.is_empty() {
        return Err(Error::invalid(
            "an account of Cosmos DB needs a location, and the list of them is empty",
        ));
    }
    for (at, location) in locations.iter().enumerate() {
        if locations[..at].contains(location) {
            return Err(Error::invalid(format!("the location '{location}' is named twice")));
        }
    }
    let serverless = throughput == Throughput::Serverless;
    if serverless && locations.len() > 1 {
        return Err(Error::invalid(format!(
            "a serverless account has one location, and {} are named",
            locations.len()
        )));
    }
    if serverless && wishes.multiple_write_locations == Some(true) {
        return Err(Error::invalid("a serverless account has one location, and no multiple write locations"));
    }
    let database = wishes.database.clone().unwrap_or_else(|| "eventSourcingDb".to_owned());
    names::database(&database)?;
    let container = wishes.container.clone().unwrap_or_else(|| "eventsContainer".to_owned());
    names::container(&container)?;
    let partition_key =
        wishes.partition_key.as_deref().map_or(Ok(PartitionKey::EventType), PartitionKey::parse)?;
    Ok(Store::Cosmos {
        locations,
        multiple_write_locations: wishes.multiple_write_locations.unwrap_or(!serverless),
        database,
        container,
        throughput,
        partition_key,
    })
}

fn table(wishes: &Wishes) -> Result<Store> {
    let location = names::location(wishes.location.as_deref().unwrap_or("eastus"))?;
    let sku = names::sku(wishes.sku.as_deref().unwrap_or("Standard_LRS"))?;
    let table = wishes.table.clone().unwrap_or_else(|| "eventsTable".to_owned());
    names::table(&table)?;
    Ok(Store::Table { location, sku, table })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::CLOUDS;

    const SUBSCRIPTION: &str = "11111111-2222-3333-4444-555555555555";

    fn settings(service: Service, wishes: &Wishes) -> Result<Settings> {
        Settings::new(service, CLOUDS[0], Some(SUBSCRIPTION.into()), wishes, None)
    }

    #[test]
    fn a_key_that_means_nothing_is_named_with_its_line() {
        for (text, says) in [
            ("[cosmos]\nacount = \"x\"\n", "f.toml, line 2: unknown field `acount`"),
            ("clowd = \"x\"\n", "f.toml, line 1: unknown field `clowd`"),
            ("[cosmos]\n\nthroughput = \"x\"\n", "f.toml, line 3: "),
            ("[cosmos]\naccount = \n", "f.toml, line 2: "),
            (
                "[table]\naccount = \"x\"\nthroughput = 400\n",
                "f.toml, line 3: throughput: it is of Cosmos DB",
            ),
            ("[cosmos]\nsku = \"x\"\n", "f.toml, line 2: sku: it is of Table Storage"),
        ] {
            let error = File::parse(text, "f.toml").expect_err(text);
            assert!(error.message().starts_with(says), "{text}: {error}");
        }
    }

    #[test]
    fn options_win_over_the_file_and_the_file_over_the_defaults() {
        let file =
            File::parse("[cosmos]\ngroup = \"theirs\"\ndatabase = \"theirs\"\nautoscale = 4000\n", "f.toml")
                .expect("it is right");
        let options = Wishes { group: Some("mine".into()), throughput: Some(500), ..Wishes::default() };
        let settings = settings(Service::Cosmos, &options.over(&file.cosmos)).expect("possible");
        assert_eq!(settings.group, "mine");
        let Store::Cosmos { database, container, throughput, .. } = settings.store else { panic!("cosmos") };
        assert_eq!((database.as_str(), container.as_str()), ("theirs", "eventsContainer"));
        assert_eq!(throughput, Throughput::Manual(500), "one wish, however it is said");
    }

    #[test]
    fn what_cannot_be_is_refused_before_anything_is_asked() {
        let wishes = Wishes::default;
        for (wishes, says) in [
            (Wishes { throughput: Some(400), autoscale: Some(1000), ..wishes() }, "exclude each other"),
            (Wishes { throughput: Some(401), ..wishes() }, "multiple of 100"),
            (Wishes { locations: Some(vec![]), ..wishes() }, "needs a location"),
            (Wishes { locations: Some(vec!["East US".into(), "eastus".into()]), ..wishes() }, "named twice"),
            (
                Wishes {
                    serverless: Some(true),
                    locations: Some(vec!["eastus".into(), "westus".into()]),
                    ..wishes()
                },
                "has one location, and 2 are named",
            ),
            (
                Wishes { serverless: Some(true), multiple_write_locations: Some(true), ..wishes() },
                "no multiple write",
            ),
            (Wishes { partition_key: Some("/stream".into()), ..wishes() }, "needs '/eventType' or"),
            (Wishes { principal: Some(SUBSCRIPTION.into()), ..wishes() }, "only --entra"),
            (Wishes { entra: Some(true), ..wishes() }, "--principal OBJECT_ID"),
            (Wishes { sku: Some("Standard_LRS".into()), ..wishes() }, "Table Storage"),
        ] {
            let error = settings(Service::Cosmos, &wishes).expect_err(says);
            assert!(error.message().contains(says), "{error}");
        }
    }

    #[test]
    fn the_default_account_is_always_the_same_and_another_in_another_group() {
        let one = settings(Service::Cosmos, &Wishes::default()).expect("possible").account;
        assert_eq!(one, settings(Service::Cosmos, &Wishes::default()).expect("possible").account);
        let other = Wishes { group: Some("other".into()), ..Wishes::default() };
        assert_ne!(one, settings(Service::Cosmos, &other).expect("possible").account);
        let without = Settings::new(Service::Cosmos, CLOUDS[0], None, &Wishes::default(), None);
        assert!(without.expect_err("no name").message().contains("--account NAME"));
    }
}
