//! The resources, once: everything that plans, makes, compares or exports them reads this list.
//!
//! A resource is a type with a fixed api-version, a name, what it is in, and the body Azure is sent. Every value in a body
//! is *owned*: `plan` compares it and every export carries it. What is not in a body is nobody's business here and is left
//! as it is, with the exceptions of [`absent`]. What cannot be changed once it is there says [`rule`].
//!
//! *Invariant*: no other module holds a value that Azure is to have.
//!
//! Sources: the REST references of Microsoft.Resources 2024-03-01, Microsoft.DocumentDB 2025-10-15, Microsoft.Storage
//! 2024-01-01 and Microsoft.Authorization 2022-04-01.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::settings::{PartitionKey, Principal, Settings, Store, Throughput};

/// The tag of a resource group that was made here, and that `destroy` may therefore delete.
pub const TAG: (&str, &str) = ("precedent", "managed");

/// Stands in the definition where the subscription's id belongs: an export does not know it.
pub(crate) const SUBSCRIPTION: &str = "{subscription}";

/// The type of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// A resource group.
    Group,
    /// An account of Cosmos DB.
    CosmosAccount,
    /// A database of Cosmos DB for NoSQL.
    SqlDatabase,
    /// A container in it.
    SqlContainer,
    /// A role in the data plane of Cosmos DB.
    CosmosRole,
    /// A storage account.
    StorageAccount,
    /// A table in it.
    Table,
    /// A role on a storage account.
    StorageRole,
}

impl Type {
    /// As Azure names it.
    pub fn arm(self) -> &'static str {
        match self {
            Self::Group => "Microsoft.Resources/resourceGroups",
            Self::CosmosAccount => "Microsoft.DocumentDB/databaseAccounts",
            Self::SqlDatabase => "Microsoft.DocumentDB/databaseAccounts/sqlDatabases",
            Self::SqlContainer => "Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers",
            Self::CosmosRole => "Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments",
            Self::StorageAccount => "Microsoft.Storage/storageAccounts",
            Self::Table => "Microsoft.Storage/storageAccounts/tableServices/tables",
            Self::StorageRole => "Microsoft.Authorization/roleAssignments",
        }
    }

    /// The version of its interface that the bodies here are written for.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Group => "2024-03-01",
            Self::CosmosAccount | Self::SqlDatabase | Self::SqlContainer | Self::CosmosRole => "2025-10-15",
            Self::StorageAccount | Self::Table => "2024-01-01",
            Self::StorageRole => "2022-04-01",
        }
    }

    /// For people.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Group => "resource group",
            Self::CosmosAccount => "Cosmos DB account",
            Self::SqlDatabase => "database",
            Self::SqlContainer => "container",
            Self::CosmosRole | Self::StorageRole => "role assignment",
            Self::StorageAccount => "storage account",
            Self::Table => "table",
        }
    }
}

/// A resource as it has to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Its type.
    pub kind: Type,
    /// Its own name.
    pub name: String,
    /// Where it is, from the subscription on, in whole segments, not percent-encoded.
    pub path: Vec<String>,
    /// What it is in, by its place in the list; the group is in nothing.
    pub parent: Option<usize>,
    /// What Azure is sent. `{subscription}` stands for the subscription's id.
    pub body: Value,
}

impl Resource {
    /// Its id, with `{subscription}` in it.
    pub fn id(&self) -> String {
        format!("/subscriptions/{SUBSCRIPTION}/{}", self.path.join("/"))
    }

    /// Every value of the body that is not an object or a list, by its path in dots and list indexes.
    pub fn owned(&self) -> Vec<(String, &Value)> {
        let mut leaves = Vec::new();
        leaves_of(&self.body, String::new(), &mut leaves);
        leaves
    }
}

fn leaves_of<'a>(value: &'a Value, path: String, leaves: &mut Vec<(String, &'a Value)>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| leaves_of(value, below(key), leaves)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, value)| leaves_of(value, below(&at.to_string()), leaves));
        }
        _ => leaves.push((path, value)),
    }
}

/// How a value is compared, and whether it can be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    /// How the two values are compared.
    pub(crate) by: By,
    /// Whether the resource would have to be made anew for another value.
    pub is_fixed: bool,
}

/// How two values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// They are the same.
    Value,
    /// They are the same but for upper and lower case: ids and names of kinds.
    FoldedCase,
    /// They are the same region, however it is written.
    Region,
    /// Lists of regions with their priorities, in any order. That one more or less is there can be changed, another
    /// priority cannot: it would move where a log is written.
    Regions,
    /// Lists of things with a `path`, in any order; Azure's own `/"_etag"/?` does not count.
    Paths,
    /// A list that has at least these.
    AtLeast,
}

const CHANGES: Rule = Rule { by: By::Value, is_fixed: false };
const FIXED: Rule = Rule { by: By::Value, is_fixed: true };
const FIXED_FOLDED: Rule = Rule { by: By::FoldedCase, is_fixed: true };
const FIXED_REGION: Rule = Rule { by: By::Region, is_fixed: true };
const FOLDED: Rule = Rule { by: By::FoldedCase, is_fixed: false };

/// What is not compared value by value, or cannot be changed. Everything that begins with the path is meant.
const RULES: &[(Type, &str, Rule)] = &[
    (Type::Group, "location", FIXED_REGION),
    (Type::CosmosAccount, "location", FIXED_REGION),
    (Type::CosmosAccount, "kind", FIXED_FOLDED),
    (Type::CosmosAccount, "properties.databaseAccountOfferType", FIXED_FOLDED),
    (Type::CosmosAccount, "properties.locations", Rule { by: By::Regions, is_fixed: false }),
    (Type::CosmosAccount, "properties.capabilities", Rule { by: By::AtLeast, is_fixed: true }),
    (Type::SqlDatabase, "properties.resource.id", FIXED),
    (Type::SqlContainer, "properties.resource.id", FIXED),
    (Type::SqlContainer, "properties.resource.partitionKey", FIXED),
    (Type::SqlContainer, "properties.resource.indexingPolicy.indexingMode", FOLDED),
    (
        Type::SqlContainer,
        "properties.resource.indexingPolicy.includedPaths",
        Rule { by: By::Paths, is_fixed: false },
    ),
    (
        Type::SqlContainer,
        "properties.resource.indexingPolicy.excludedPaths",
        Rule { by: By::Paths, is_fixed: false },
    ),
    (Type::CosmosRole, "", FIXED_FOLDED),
    (Type::StorageAccount, "location", FIXED_REGION),
    (Type::StorageAccount, "kind", FIXED_FOLDED),
    (Type::StorageAccount, "sku", FOLDED),
    (Type::StorageRole, "", FIXED_FOLDED),
];

/// The rule for the value at a path.
pub(crate) fn rule(kind: Type, path: &str) -> Rule {
    let covers = |rule: &&(Type, &str, Rule)| {
        rule.0 == kind
            && path
                .strip_prefix(rule.1)
                .is_some_and(|rest| rest.is_empty() || rule.1.is_empty() || rest.starts_with('.'))
    };
    RULES.iter().find(covers).map_or(CHANGES, |(.., rule)| *rule)
}

/// What must not be there, by its path, and why.
pub(crate) fn absent(kind: Type) -> &'static [(&'static str, &'static str)] {
    match kind {
        Type::SqlContainer => &[("properties.resource.defaultTtl", "it would delete events of the log")],
        _ => &[],
    }
}

/// Paths in documents that are indexed. Nothing else is: the bodies of frames and the data of events cost nothing then.
pub(crate) const INDEXED: &[&str] = &[
    "/eventType/?",
    "/eventId/?",
    "/source/?",
    "/stream/?",
    "/version/?",
    "/position/?",
    "/time/?",
    "/recordedtime/?",
    "/tags/*",
    "/sequence/?",
];

/// The built-in role of Cosmos DB that reads and writes data.
const COSMOS_CONTRIBUTOR: &str = "00000000-0000-0000-0000-000000000002";
/// "Storage Table Data Contributor".
const TABLE_CONTRIBUTOR: &str = "0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3";

/// The resources in the order they have to be made in: what something is in comes before it.
pub fn definition(settings: &Settings) -> Vec<Resource> {
    let group = &settings.group;
    let location = &settings.locations()[0];
    let in_group = |segments: &[&str]| {
        let head = ["resourceGroups", group.as_str(), "providers"];
        head.iter().chain(segments).map(|segment| (*segment).to_owned()).collect::<Vec<_>>()
    };
    let mut resources = vec![Resource {
        kind: Type::Group,
        name: group.clone(),
        path: vec!["resourceGroups".into(), group.clone()],
        parent: None,
        body: json!({"location": location, "tags": {TAG.0: TAG.1}}),
    }];
    let account = settings.account.as_str();
    match &settings.store {
        Store::Cosmos {
            locations,
            multiple_write_locations,
            database,
            container,
            throughput,
            partition_key,
        } => {
            let path = |rest: &[&str]| {
                in_group(&[&["Microsoft.DocumentDB", "databaseAccounts", account], rest].concat())
            };
            let regions: Vec<Value> = (0..)
                .zip(locations)
                .map(|(priority, name): (u32, _)| json!({"locationName": name, "failoverPriority": priority}))
                .collect();
            let mut properties = json!({
                "databaseAccountOfferType": "Standard",
                "locations": regions,
                "consistencyPolicy": {"defaultConsistencyLevel": "Session"},
                "enableMultipleWriteLocations": multiple_write_locations,
            });
            if *throughput == Throughput::Serverless {
                properties["capabilities"] = json!([{"name": "EnableServerless"}]);
            }
            if settings.entra.is_some() {
                properties["disableLocalAuth"] = json!(true);
            }
            resources.push(Resource {
                kind: Type::CosmosAccount,
                name: account.to_owned(),
                path: path(&[]),
                parent: Some(0),
                body: json!({"location": location, "kind": "GlobalDocumentDB", "properties": properties}),
            });
            let mut properties = json!({"resource": {"id": database}});
            match throughput {
                Throughput::Manual(units) => properties["options"] = json!({"throughput": units}),
                Throughput::Autoscale(units) => {
                    properties["options"] = json!({"autoscaleSettings": {"maxThroughput": units}});
                }
                Throughput::Serverless => {}
            }
            resources.push(Resource {
                kind: Type::SqlDatabase,
                name: database.clone(),
                path: path(&["sqlDatabases", database]),
                parent: Some(1),
                body: json!({"properties": properties}),
            });
            resources.push(Resource {
                kind: Type::SqlContainer,
                name: container.clone(),
                path: path(&["sqlDatabases", database, "containers", container]),
                parent: Some(2),
                body: json!({"properties": {"resource": {
                    "id": container,
                    "partitionKey": partition_key_body(*partition_key),
                    "indexingPolicy": {
                        "indexingMode": "consistent",
                        "automatic": true,
                        "includedPaths": INDEXED.iter().map(|path| json!({"path": path})).collect::<Vec<_>>(),
                        "excludedPaths": [{"path": "/*"}],
                    },
                }}}),
            });
            if let Some(principal) = &settings.entra {
                let scope = resources[1].id();
                let role = format!("{scope}/sqlRoleDefinitions/{COSMOS_CONTRIBUTOR}");
                let name = assignment_name(&scope, &role, principal);
                resources.push(Resource {
                    kind: Type::CosmosRole,
                    path: path(&["sqlRoleAssignments", &name]),
                    name,
                    parent: Some(1),
                    body: json!({"properties": {
                        "roleDefinitionId": role,
                        "scope": scope,
                        "principalId": principal.id,
                    }}),
                });
            }
        }
        Store::Table { location, sku, table } => {
            let path = |rest: &[&str]| {
                in_group(&[&["Microsoft.Storage", "storageAccounts", account], rest].concat())
            };
            let mut properties = json!({
                "minimumTlsVersion": "TLS1_2",
                "supportsHttpsTrafficOnly": true,
                "allowBlobPublicAccess": false,
            });
            if settings.entra.is_some() {
                properties["allowSharedKeyAccess"] = json!(false);
            }
            resources.push(Resource {
                kind: Type::StorageAccount,
                name: account.to_owned(),
                path: path(&[]),
                parent: Some(0),
                body: json!({
                    "location": location,
                    "kind": "StorageV2",
                    "sku": {"name": sku},
                    "properties": properties,
                }),
            });
            resources.push(Resource {
                kind: Type::Table,
                name: table.clone(),
                path: path(&["tableServices", "default", "tables", table]),
                parent: Some(1),
                body: json!({}),
            });
            if let Some(principal) = &settings.entra {
                let scope = resources[1].id();
                let role = format!(
                    "/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Authorization/roleDefinitions/{TABLE_CONTRIBUTOR}"
                );
                let name = assignment_name(&scope, &role, principal);
                let mut properties = json!({"roleDefinitionId": role, "principalId": principal.id});
                if let Some(kind) = principal.kind {
                    // Without it Azure refuses an identity that was made a moment ago and is not known everywhere yet.
                    properties["principalType"] = json!(kind);
                }
                resources.push(Resource {
                    kind: Type::StorageRole,
                    path: path(&["providers", "Microsoft.Authorization", "roleAssignments", &name]),
                    name,
                    parent: Some(1),
                    body: json!({"properties": properties}),
                });
            }
        }
    }
    resources
}

fn partition_key_body(key: PartitionKey) -> Value {
    let kind = match key.paths() {
        [_] => "Hash",
        _ => "MultiHash",
    };
    json!({"paths": key.paths(), "kind": kind, "version": 2})
}

/// A role assignment is named by a GUID. This one is always the same for the same role, so that it is found again.
fn assignment_name(scope: &str, role: &str, principal: &Principal) -> String {
    let hash = Sha256::digest(format!("{scope}\n{role}\n{}", principal.id).to_lowercase());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::settings::{Service, Wishes};
    use super::*;
    use crate::cloud::CLOUDS;

    pub(crate) const SUB: &str = "11111111-2222-3333-4444-555555555555";
    pub(crate) const PRINCIPAL: &str = "99999999-8888-7777-6666-555555555555";

    pub(crate) fn settings(service: Service, wishes: Wishes) -> Settings {
        let principal = Principal { id: PRINCIPAL.into(), kind: Some("User") };
        let caller = (wishes.entra == Some(true)).then_some(principal);
        Settings::new(service, CLOUDS[0], Some(SUB.into()), &wishes, caller).expect("possible wishes")
    }

    #[test]
    fn the_default_of_cosmos_is_exact() {
        let resources = definition(&settings(Service::Cosmos, Wishes::default()));
        let bodies: Vec<_> =
            resources.iter().map(|resource| (resource.name.as_str(), &resource.body)).collect();
        assert_eq!(bodies.len(), 4);
        assert_eq!(bodies[0].1, &json!({"location": "eastus", "tags": {"precedent": "managed"}}));
        assert_eq!(
            bodies[1].1,
            &json!({"location": "eastus", "kind": "GlobalDocumentDB", "properties": {
                "databaseAccountOfferType": "Standard",
                "locations": [{"locationName": "eastus", "failoverPriority": 0}],
                "consistencyPolicy": {"defaultConsistencyLevel": "Session"},
                "enableMultipleWriteLocations": true,
            }})
        );
        assert_eq!(
            bodies[2],
            (
                "eventSourcingDb",
                &json!({"properties": {"resource": {"id": "eventSourcingDb"}, "options": {"throughput": 400}}})
            )
        );
        assert_eq!(bodies[3].0, "eventsContainer");
        assert_eq!(
            bodies[3].1["properties"]["resource"]["partitionKey"],
            json!({"paths": ["/eventType"], "kind": "Hash", "version": 2})
        );
    }

    #[test]
    fn the_default_of_tables_is_exact() {
        let resources = definition(&settings(Service::Table, Wishes::default()));
        let bodies: Vec<_> =
            resources.iter().map(|resource| (resource.name.as_str(), &resource.body)).collect();
        assert_eq!(
            bodies,
            [
                ("ai-event-sourcing-rg", &json!({"location": "eastus", "tags": {"precedent": "managed"}})),
                (
                    "aieventsourcingstorage",
                    &json!({"location": "eastus", "kind": "StorageV2", "sku": {"name": "Standard_LRS"},
                        "properties": {"minimumTlsVersion": "TLS1_2", "supportsHttpsTrafficOnly": true,
                            "allowBlobPublicAccess": false}})
                ),
                ("eventsTable", &json!({})),
            ]
        );
        assert_eq!(
            resources[2].id(),
            "/subscriptions/{subscription}/resourceGroups/ai-event-sourcing-rg/providers/Microsoft.Storage/\
             storageAccounts/aieventsourcingstorage/tableServices/default/tables/eventsTable"
        );
    }

    #[test]
    fn with_entra_keys_are_off_and_the_role_has_always_the_same_name() {
        let wishes = Wishes { entra: Some(true), ..Wishes::default() };
        for (service, key, off) in
            [(Service::Cosmos, "disableLocalAuth", true), (Service::Table, "allowSharedKeyAccess", false)]
        {
            let once = definition(&settings(service, wishes.clone()));
            assert_eq!(once[1].body["properties"][key], json!(off));
            let role = once.last().expect("some");
            assert_eq!(role.body["properties"]["principalId"], PRINCIPAL);
            assert_eq!(once, definition(&settings(service, wishes.clone())));
            assert_eq!(role.name.len(), 36);
        }
    }

    #[test]
    fn what_something_is_in_comes_before_it() {
        for service in [Service::Cosmos, Service::Table] {
            for entra in [false, true] {
                let wishes = Wishes { entra: Some(entra), ..Wishes::default() };
                for (at, resource) in definition(&settings(service, wishes)).iter().enumerate() {
                    assert!(resource.parent.is_none_or(|parent| parent < at), "{resource:?}");
                }
            }
        }
    }
}
