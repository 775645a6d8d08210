//! A Pulumi program in YAML.

use std::fmt::Write;

use serde_json::Value;

use super::super::definition::Resource;
use super::super::settings::{Settings, Store};
use super::pulumi::{Argument, arguments, environment, token};
use super::{Export, around_subscription, heading, symbol};

pub(super) fn write(settings: &Settings, resources: &[Resource]) -> Export {
    let mut out = format!("# {}\n", heading(settings));
    let _ = writeln!(out, "name: precedent-{}\nruntime: yaml", settings.service().name());
    if let Some(environment) = environment(settings) {
        let _ = writeln!(out, "config:\n  azure-native:environment:\n    value: {environment}");
    }
    let keyless = settings.entra.is_some();
    let list = match &settings.store {
        Store::Cosmos { .. } => "azure-native:cosmosdb:listDatabaseAccountKeys",
        Store::Table { .. } => "azure-native:storage:listStorageAccountKeys",
    };
    out.push_str("variables:\n");
    match keyless {
        true => {
            out.push_str(
                "  client:\n    fn::invoke:\n      function: azure-native:authorization:getClientConfig\n",
            );
        }
        false => {
            let _ = write!(
                out,
                "  keys:\n    fn::invoke:\n      function: {list}\n      arguments:\n        resourceGroupName: ${{group.name}}\n        \
                 accountName: ${{account.name}}\n"
            );
        }
    }
    out.push_str("resources:\n");
    for resource in resources {
        let (module, name) = token(resource.kind);
        let _ = writeln!(out, "  {}:\n    type: azure-native:{module}:{name}", symbol(resource.kind));
        out.push_str("    properties:\n");
        for (key, argument) in arguments(resource) {
            let _ = write!(out, "      {key}:");
            match argument {
                Argument::Value(value) => yaml(&mut out, value, 3),
                Argument::Name(name) => {
                    let _ = writeln!(out, " {}", string(name));
                }
                Argument::NameOf(kind) => {
                    let _ = writeln!(out, " ${{{}.name}}", symbol(kind));
                }
                Argument::IdOf(kind) => {
                    let _ = writeln!(out, " ${{{}.id}}", symbol(kind));
                }
            }
        }
    }
    out.push_str("outputs:\n");
    match &settings.store {
        Store::Cosmos { .. } => {
            out.push_str("  cosmosdb_endpoint: ${account.documentEndpoint}\n");
            if !keyless {
                out.push_str("  primary_master_key:\n    fn::secret: ${keys.primaryMasterKey}\n");
            }
        }
        Store::Table { .. } => {
            match keyless {
                true => out.push_str("  primary_table_endpoint: ${account.primaryEndpoints.table}\n"),
                false => {
                    let _ = writeln!(
                        out,
                        "  primary_storage_connection_string:\n    fn::secret: \
                         DefaultEndpointsProtocol=https;AccountName=${{account.name}};AccountKey=${{keys.keys[0].value}};EndpointSuffix={}",
                        settings.cloud.storage_suffix
                    );
                }
            }
            out.push_str("  table_name: ${table.name}\n");
        }
    }
    Export { files: vec![("Pulumi.yaml", out)], command: "pulumi up".to_owned() }
}

/// A value below a key, in block style.
fn yaml(out: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth + 1);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            out.push('\n');
            for (key, value) in fields {
                let _ = write!(out, "{indent}{key}:");
                yaml(out, value, depth + 1);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            for item in items {
                let _ = write!(out, "{indent}-");
                match item {
                    Value::Object(fields) => {
                        for (at, (key, value)) in fields.iter().enumerate() {
                            let lead = if at == 0 { " ".to_owned() } else { format!("{indent}  ") };
                            let _ = write!(out, "{lead}{key}:");
                            yaml(out, value, depth + 2);
                        }
                    }
                    other => yaml(out, other, depth + 1),
                }
            }
        }
        Value::String(text) => {
            let _ = writeln!(out, " {}", string(text));
        }
        other => {
            let _ = writeln!(out, " {other}");
        }
    }
}

/// Quoted always: nothing then is a number, a date or a truth by accident.
fn string(text: &str) -> String {
    let text = text.replace('$', "$$");
    let text = match around_subscription(&text) {
        Some((before, after)) => format!("{before}${{client.subscriptionId}}{after}"),
        None => text,
    };
    Value::String(text).to_string()
}
