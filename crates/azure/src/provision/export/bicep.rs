//! Bicep: `main.bicep` makes the resource group, `store.bicep` what is in it.

use std::fmt::Write;

use serde_json::Value;

use super::super::definition::{Resource, Type};
use super::super::settings::{Settings, Store};
use super::{Export, around_subscription, heading, symbol};

pub(super) fn write(settings: &Settings, resources: &[Resource]) -> Export {
    let mut main = format!("// {}\n\ntargetScope = 'subscription'\n", heading(settings));
    let mut store = format!("// {}: what is in the resource group\n", heading(settings));
    for resource in resources {
        let file = if resource.kind == Type::Group { &mut main } else { &mut store };
        declare(file, resources, resource);
    }
    let outputs: &[(&str, String)] = &match &settings.store {
        Store::Cosmos { .. } => vec![("cosmosdb_endpoint", "account.properties.documentEndpoint".to_owned())],
        Store::Table { .. } => vec![
            ("primary_table_endpoint", "account.properties.primaryEndpoints.table".to_owned()),
            ("table_name", "table.name".to_owned()),
        ],
    };
    main.push_str("\nmodule store 'store.bicep' = {\n  name: 'precedent'\n  scope: group\n}\n");
    for (name, value) in outputs {
        let _ = write!(store, "\noutput {name} string = {value}\n");
        let _ = write!(main, "\noutput {name} string = store.outputs.{name}\n");
    }
    let location = &settings.locations()[0];
    Export {
        files: vec![("main.bicep", main), ("store.bicep", store)],
        command: format!("az deployment sub create --location {location} --template-file main.bicep"),
    }
}

fn declare(out: &mut String, resources: &[Resource], resource: &Resource) {
    let kind = resource.kind;
    if kind == Type::Table {
        let _ = write!(
            out,
            "\nresource tableService 'Microsoft.Storage/storageAccounts/tableServices@{}' existing = {{\n  parent: account\n  \
             name: 'default'\n}}\n",
            kind.api_version()
        );
    }
    let _ = writeln!(out, "\nresource {} '{}@{}' = {{", symbol(kind), kind.arm(), kind.api_version());
    let parent = resource.parent.map(|parent| resources[parent].kind).filter(|parent| *parent != Type::Group);
    match (kind, parent) {
        (Type::Table, _) => out.push_str("  parent: tableService\n"),
        (Type::StorageRole, _) => out.push_str("  scope: account\n"),
        (_, Some(parent)) => {
            let _ = writeln!(out, "  parent: {}", symbol(parent));
        }
        (_, None) => {}
    }
    let _ = writeln!(out, "  name: {}", string(&resource.name));
    for (key, value) in resource.body.as_object().into_iter().flatten() {
        let _ = write!(out, "  {key}: ");
        literal(out, value, 1);
        out.push('\n');
    }
    out.push_str("}\n");
}

fn literal(out: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth + 1);
    match value {
        Value::Object(fields) => {
            out.push_str("{\n");
            for (key, value) in fields {
                let _ = write!(out, "{indent}{key}: ");
                literal(out, value, depth + 1);
                out.push('\n');
            }
            let _ = write!(out, "{}}}", "  ".repeat(depth));
        }
        Value::Array(items) => {
            out.push_str("[\n");
            for value in items {
                out.push_str(&indent);
                literal(out, value, depth + 1);
                out.push('\n');
            }
            let _ = write!(out, "{}]", "  ".repeat(depth));
        }
        Value::String(text) => match around_subscription(text) {
            None => out.push_str(&string(text)),
            Some((before, after)) => {
                let (before, after) = (escaped(before), escaped(after));
                let _ = write!(out, "'{before}${{subscription().subscriptionId}}{after}'");
            }
        },
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

fn string(text: &str) -> String {
    format!("'{}'", escaped(text))
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'").replace("${", "\\${")
}
