//! Terraform, with the provider azurerm 4: it names nearly everything otherwise than Azure does.
//!
//! *Invariant*: each value of the definition is taken from it exactly once. One that is left over has no row here, and is an
//! error: the definition cannot grow past this export.

use std::collections::BTreeMap;
use std::fmt::Write;

use precedent_core::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use super::super::definition::{Resource, Type};
use super::super::settings::{Settings, Store};
use super::{Export, around_subscription, heading, symbol};

/// What stands in a block.
enum Item {
    /// `name = expression`
    Set(&'static str, String),
    /// `name { … }`
    Block(&'static str, Vec<Item>),
}

/// Azure's values with one place in azurerm each: type, path, attribute; `block.attribute` is in a block.
const ROWS: &[(Type, &str, &str)] = &[
    (Type::Group, "location", "location"),
    (Type::CosmosAccount, "location", "location"),
    (Type::CosmosAccount, "kind", "kind"),
    (Type::CosmosAccount, "properties.databaseAccountOfferType", "offer_type"),
    (Type::CosmosAccount, "properties.enableMultipleWriteLocations", "multiple_write_locations_enabled"),
    (Type::CosmosAccount, "properties.disableLocalAuth", "local_authentication_disabled"),
    (
        Type::CosmosAccount,
        "properties.consistencyPolicy.defaultConsistencyLevel",
        "consistency_policy.consistency_level",
    ),
    (Type::SqlDatabase, "properties.options.throughput", "throughput"),
    (
        Type::SqlDatabase,
        "properties.options.autoscaleSettings.maxThroughput",
        "autoscale_settings.max_throughput",
    ),
    (Type::SqlContainer, "properties.resource.partitionKey.kind", "partition_key_kind"),
    (Type::SqlContainer, "properties.resource.partitionKey.version", "partition_key_version"),
    (Type::CosmosRole, "properties.principalId", "principal_id"),
    (Type::CosmosRole, "properties.roleDefinitionId", "role_definition_id"),
    (Type::CosmosRole, "properties.scope", "scope"),
    (Type::StorageAccount, "location", "location"),
    (Type::StorageAccount, "kind", "account_kind"),
    (Type::StorageAccount, "properties.minimumTlsVersion", "min_tls_version"),
    (Type::StorageAccount, "properties.supportsHttpsTrafficOnly", "https_traffic_only_enabled"),
    (Type::StorageAccount, "properties.allowBlobPublicAccess", "allow_nested_items_to_be_public"),
    (Type::StorageAccount, "properties.allowSharedKeyAccess", "shared_access_key_enabled"),
    (Type::StorageRole, "properties.principalId", "principal_id"),
    (Type::StorageRole, "properties.principalType", "principal_type"),
    (Type::StorageRole, "properties.roleDefinitionId", "role_definition_id"),
];

fn resource_type(kind: Type) -> &'static str {
    match kind {
        Type::Group => "azurerm_resource_group",
        Type::CosmosAccount => "azurerm_cosmosdb_account",
        Type::SqlDatabase => "azurerm_cosmosdb_sql_database",
        Type::SqlContainer => "azurerm_cosmosdb_sql_container",
        Type::CosmosRole => "azurerm_cosmosdb_sql_role_assignment",
        Type::StorageAccount => "azurerm_storage_account",
        Type::Table => "azurerm_storage_table",
        Type::StorageRole => "azurerm_role_assignment",
    }
}

fn attribute(kind: Type, name: &str) -> String {
    format!("{}.{}.{name}", resource_type(kind), symbol(kind))
}

pub(super) fn write(settings: &Settings, resources: &[Resource]) -> Result<Export> {
    let mut out = format!("# {}\n", heading(settings));
    out.push_str(
        "\nterraform {\n  required_providers {\n    azurerm = {\n      source  = \"hashicorp/azurerm\"\n      version = \"~> 4.0\"\n    }\n  }\n}\n",
    );
    let mut provider = Vec::new();
    match settings.cloud.name {
        "AzureUSGovernment" => provider.push(Item::Set("environment", quoted("usgovernment"))),
        "AzureChinaCloud" => provider.push(Item::Set("environment", quoted("china"))),
        _ => {}
    }
    if let Some(subscription) = &settings.subscription {
        provider.push(Item::Set("subscription_id", quoted(subscription)));
    }
    let is_table = matches!(settings.store, Store::Table { .. });
    if settings.entra.is_some() && is_table {
        // Without keys the provider has to reach tables as whoever runs it.
        provider.push(Item::Set("storage_use_azuread", "true".into()));
    }
    provider.push(Item::Block("features", Vec::new()));
    out.push_str("\nprovider \"azurerm\" {\n");
    block(&mut out, &provider, 1);
    out.push_str("}\n");
    if settings.entra.is_some() {
        out.push_str("\ndata \"azurerm_client_config\" \"client\" {}\n");
    }
    for resource in resources {
        let _ =
            writeln!(out, "\nresource \"{}\" \"{}\" {{", resource_type(resource.kind), symbol(resource.kind));
        block(&mut out, &items(resource)?, 1);
        out.push_str("}\n");
    }
    let keyless = settings.entra.is_some();
    let mut output = |name: &str, value: String, is_secret: bool| {
        let _ = write!(out, "\noutput \"{name}\" {{\n");
        let mut items = vec![Item::Set("value", value)];
        if is_secret {
            items.push(Item::Set("sensitive", "true".into()));
        }
        block(&mut out, &items, 1);
        out.push_str("}\n");
    };
    match is_table {
        false => {
            output("cosmosdb_endpoint", attribute(Type::CosmosAccount, "endpoint"), false);
            if !keyless {
                output("primary_master_key", attribute(Type::CosmosAccount, "primary_key"), true);
            }
        }
        true => {
            match keyless {
                true => output(
                    "primary_table_endpoint",
                    attribute(Type::StorageAccount, "primary_table_endpoint"),
                    false,
                ),
                false => output(
                    "primary_storage_connection_string",
                    attribute(Type::StorageAccount, "primary_connection_string"),
                    true,
                ),
            }
            output("table_name", attribute(Type::Table, "name"), false);
        }
    }
    Ok(Export { files: vec![("main.tf", out)], command: "terraform init && terraform apply".to_owned() })
}

fn items(resource: &Resource) -> Result<Vec<Item>> {
    let kind = resource.kind;
    let mut left: BTreeMap<String, &Value> = resource.owned().into_iter().collect();
    let mut items = vec![Item::Set("name", quoted(&resource.name))];
    let within: &[(&str, Type, &str)] = match kind {
        Type::Group => &[],
        Type::CosmosAccount | Type::StorageAccount => &[("resource_group_name", Type::Group, "name")],
        Type::SqlDatabase | Type::CosmosRole => {
            &[("resource_group_name", Type::Group, "name"), ("account_name", Type::CosmosAccount, "name")]
        }
        Type::SqlContainer => &[
            ("resource_group_name", Type::Group, "name"),
            ("account_name", Type::CosmosAccount, "name"),
            ("database_name", Type::SqlDatabase, "name"),
        ],
        Type::Table => &[("storage_account_name", Type::StorageAccount, "name")],
        Type::StorageRole => &[("scope", Type::StorageAccount, "id")],
    };
    for (name, kind, of) in within {
        items.push(Item::Set(name, attribute(*kind, of)));
    }
    let mut blocks = Vec::new();
    for (_, path, place) in ROWS.iter().filter(|(of, ..)| *of == kind) {
        let Some(value) = left.remove(*path) else { continue };
        match place.split_once('.') {
            None => items.push(Item::Set(place, expression(value))),
            Some((block, name)) => blocks.push(Item::Block(block, vec![Item::Set(name, expression(value))])),
        }
    }
    let body = &resource.body["properties"];
    let mut take = |prefix: &str| {
        left.retain(|path, _| {
            !path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
    };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    // What is not one value in one place.
    match kind {
        Type::Group => {
            let tags = resource.body["tags"].as_object().into_iter().flatten();
            let tags: Vec<String> =
                tags.map(|(key, value)| format!("    {} = {}\n", quoted(key), expression(value))).collect();
            items.push(Item::Set("tags", format!("{{\n{}  }}", tags.concat())));
            take("tags");
        }
        Type::CosmosAccount => {
            for region in list(&body["locations"]) {
                blocks.push(Item::Block(
                    "geo_location",
                    vec![
                        Item::Set("location", expression(&region["locationName"])),
                        Item::Set("failover_priority", expression(&region["failoverPriority"])),
                    ],
                ));
            }
            take("properties.locations");
            for capability in list(&body["capabilities"]) {
                let name = Item::Set("name", expression(&capability["name"]));
                blocks.push(Item::Block("capabilities", vec![name]));
            }
            take("properties.capabilities");
        }
        Type::SqlContainer => {
            items.push(Item::Set(
                "partition_key_paths",
                expression(&body["resource"]["partitionKey"]["paths"]),
            ));
            take("properties.resource.partitionKey.paths");
            let policy = &body["resource"]["indexingPolicy"];
            // Azure returns what was sent in lower case; azurerm takes it in lower case too.
            let mut indexing = vec![Item::Set("indexing_mode", expression(&policy["indexingMode"]))];
            take("properties.resource.indexingPolicy.indexingMode");
            // azurerm indexes automatically always, and has no place to say so.
            if policy["automatic"] == json!(true) {
                take("properties.resource.indexingPolicy.automatic");
            }
            for (key, name) in [("includedPaths", "included_path"), ("excludedPaths", "excluded_path")] {
                for path in list(&policy[key]) {
                    indexing.push(Item::Block(name, vec![Item::Set("path", expression(&path["path"]))]));
                }
                take(&format!("properties.resource.indexingPolicy.{key}"));
            }
            blocks.push(Item::Block("indexing_policy", indexing));
        }
        Type::StorageAccount => {
            let sku = resource.body["sku"]["name"].as_str().unwrap_or_default();
            if let Some((tier, replication)) = sku.split_once('_') {
                items.push(Item::Set("account_tier", quoted(tier)));
                items.push(Item::Set("account_replication_type", quoted(replication)));
                take("sku.name");
            }
        }
        _ => {}
    }
    // The name says it already.
    if matches!(kind, Type::SqlDatabase | Type::SqlContainer)
        && body["resource"]["id"] == resource.name.as_str()
    {
        take("properties.resource.id");
    }
    if let Some(path) = left.keys().next() {
        return Err(Error::new(
            ErrorKind::Internal,
            format!("the Terraform export has no place for {path} of the {}", kind.noun()),
        ));
    }
    items.extend(blocks);
    Ok(items)
}

/// As `terraform fmt` writes it: the `=` of attributes that follow each other are in line, blocks have room.
fn block(out: &mut String, items: &[Item], depth: usize) {
    let indent = "  ".repeat(depth);
    let in_line = |item: &Item| matches!(item, Item::Set(_, value) if !value.contains('\n'));
    let mut at = 0;
    while at < items.len() {
        if at > 0 && (!in_line(&items[at]) || !in_line(&items[at - 1])) {
            out.push('\n');
        }
        match &items[at] {
            Item::Block(name, inner) if inner.is_empty() => {
                let _ = writeln!(out, "{indent}{name} {{}}");
                at += 1;
            }
            Item::Block(name, inner) => {
                let _ = writeln!(out, "{indent}{name} {{");
                block(out, inner, depth + 1);
                let _ = writeln!(out, "{indent}}}");
                at += 1;
            }
            Item::Set(name, value) if value.contains('\n') => {
                let _ = writeln!(out, "{indent}{name} = {value}");
                at += 1;
            }
            Item::Set(..) => {
                let run = items[at..].iter().take_while(|item| in_line(item)).count();
                let run = &items[at..at + run];
                let width = |item: &Item| match item {
                    Item::Set(name, _) => name.len(),
                    Item::Block(..) => 0,
                };
                let widest = run.iter().map(width).max().unwrap_or_default();
                for item in run {
                    if let Item::Set(name, value) = item {
                        let _ = writeln!(out, "{indent}{name:<widest$} = {value}");
                    }
                }
                at += run.len();
            }
        }
    }
}

fn expression(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(expression).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}

/// A JSON string is one of Terraform, but for the beginnings of its templates.
fn quoted(text: &str) -> String {
    let text = text.replace("${", "$${").replace("%{", "%%{");
    let text = match around_subscription(&text) {
        Some((before, after)) => {
            format!("{before}${{data.azurerm_client_config.client.subscription_id}}{after}")
        }
        None => text,
    };
    Value::String(text).to_string()
}
