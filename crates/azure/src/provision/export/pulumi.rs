//! What the two Pulumi exports have in common: the provider azure-native takes the properties of a resource beside its
//! name, and names one of them otherwise.

use serde_json::Value;

use super::super::definition::{Resource, Type};
use super::super::settings::Settings;

/// An argument of a resource.
pub(super) enum Argument<'a> {
    /// A value of the definition.
    Value(&'a Value),
    /// A name that is given here.
    Name(&'a str),
    /// The name of another resource of the export.
    NameOf(Type),
    /// The id of another resource of the export.
    IdOf(Type),
}

/// The module and the type in azure-native.
pub(super) fn token(kind: Type) -> (&'static str, &'static str) {
    match kind {
        Type::Group => ("resources", "ResourceGroup"),
        Type::CosmosAccount => ("cosmosdb", "DatabaseAccount"),
        Type::SqlDatabase => ("cosmosdb", "SqlResourceSqlDatabase"),
        Type::SqlContainer => ("cosmosdb", "SqlResourceSqlContainer"),
        Type::CosmosRole => ("cosmosdb", "SqlResourceSqlRoleAssignment"),
        Type::StorageAccount => ("storage", "StorageAccount"),
        Type::Table => ("storage", "Table"),
        Type::StorageRole => ("authorization", "RoleAssignment"),
    }
}

/// The argument that names a resource, and those that say what it is in.
fn place(kind: Type) -> (&'static str, &'static [(&'static str, Type)]) {
    use Type::{CosmosAccount, Group, SqlDatabase, StorageAccount};
    match kind {
        Type::Group => ("resourceGroupName", &[]),
        Type::CosmosAccount | Type::StorageAccount => ("accountName", &[("resourceGroupName", Group)]),
        Type::SqlDatabase => {
            ("databaseName", &[("resourceGroupName", Group), ("accountName", CosmosAccount)])
        }
        Type::SqlContainer => (
            "containerName",
            &[("resourceGroupName", Group), ("accountName", CosmosAccount), ("databaseName", SqlDatabase)],
        ),
        Type::CosmosRole => {
            ("roleAssignmentId", &[("resourceGroupName", Group), ("accountName", CosmosAccount)])
        }
        Type::Table => ("tableName", &[("resourceGroupName", Group), ("accountName", StorageAccount)]),
        Type::StorageRole => ("roleAssignmentName", &[]),
    }
}

/// Where azure-native names a property otherwise than Azure does.
pub(super) fn renamed(kind: Type, key: &str) -> &str {
    match (kind, key) {
        (Type::StorageAccount, "supportsHttpsTrafficOnly") => "enableHttpsTrafficOnly",
        _ => key,
    }
}

/// The arguments of a resource, in the order they are written in.
pub(super) fn arguments(resource: &Resource) -> Vec<(&str, Argument<'_>)> {
    let (name, within) = place(resource.kind);
    let mut arguments: Vec<_> = within.iter().map(|(key, kind)| (*key, Argument::NameOf(*kind))).collect();
    if resource.kind == Type::StorageRole {
        arguments.push(("scope", Argument::IdOf(Type::StorageAccount)));
    }
    arguments.push((name, Argument::Name(&resource.name)));
    for (key, value) in resource.body.as_object().into_iter().flatten() {
        match (key.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                for (key, value) in properties {
                    arguments.push((renamed(resource.kind, key), Argument::Value(value)));
                }
            }
            (key, value) => arguments.push((key, Argument::Value(value))),
        }
    }
    arguments
}

/// What the provider calls the cloud, if it is not the public one.
pub(super) fn environment(settings: &Settings) -> Option<&'static str> {
    match settings.cloud.name {
        "AzureUSGovernment" => Some("usgovernment"),
        "AzureChinaCloud" => Some("china"),
        _ => None,
    }
}
