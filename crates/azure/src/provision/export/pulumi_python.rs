//! A Pulumi program in Python: `__main__.py`, its project file and what it requires.

use std::fmt::Write;

use serde_json::Value;

use super::super::definition::Resource;
use super::super::settings::{Settings, Store};
use super::pulumi::{Argument, arguments, environment, token};
use super::{Export, around_subscription, heading, snake, symbol};

pub(super) fn write(settings: &Settings, resources: &[Resource]) -> Export {
    let mut out =
        format!("\"\"\"{}.\"\"\"\n\nimport pulumi\nimport pulumi_azure_native as azure\n", heading(settings));
    let keyless = settings.entra.is_some();
    if keyless {
        out.push_str("\nclient = azure.authorization.get_client_config()\n");
    }
    for resource in resources {
        let (module, name) = token(resource.kind);
        let symbol = symbol(resource.kind);
        let _ = writeln!(out, "\n{symbol} = azure.{module}.{name}(\n    \"{symbol}\",");
        for (key, argument) in arguments(resource) {
            let _ = write!(out, "    {}=", snake(key));
            match argument {
                Argument::Value(value) => literal(&mut out, value, 1, key != "tags"),
                Argument::Name(name) => out.push_str(&string(name)),
                Argument::NameOf(kind) => {
                    let _ = write!(out, "{}.name", super::symbol(kind));
                }
                Argument::IdOf(kind) => {
                    let _ = write!(out, "{}.id", super::symbol(kind));
                }
            }
            out.push_str(",\n");
        }
        out.push_str(")\n");
    }
    out.push('\n');
    let arguments = "account_name=account.name, resource_group_name=group.name";
    match &settings.store {
        Store::Cosmos { .. } => {
            out.push_str("pulumi.export(\"cosmosdb_endpoint\", account.document_endpoint)\n");
            if !keyless {
                let _ = write!(
                    out,
                    "keys = azure.cosmosdb.list_database_account_keys_output({arguments})\n\
                     pulumi.export(\"primary_master_key\", pulumi.Output.secret(keys.primary_master_key))\n"
                );
            }
        }
        Store::Table { .. } => {
            match keyless {
                true => out.push_str(
                    "pulumi.export(\"primary_table_endpoint\", account.primary_endpoints.apply(lambda found: found[\"table\"]))\n",
                ),
                false => {
                    let _ = write!(
                        out,
                        "keys = azure.storage.list_storage_account_keys_output({arguments})\n\
                         connection_string = pulumi.Output.format(\n    \
                         \"DefaultEndpointsProtocol=https;AccountName={{0}};AccountKey={{1}};EndpointSuffix={}\",\n    \
                         account.name,\n    keys.keys.apply(lambda listed: listed[0][\"value\"]),\n)\n\
                         pulumi.export(\"primary_storage_connection_string\", pulumi.Output.secret(connection_string))\n",
                        settings.cloud.storage_suffix
                    );
                }
            }
            out.push_str("pulumi.export(\"table_name\", table.name)\n");
        }
    }
    let mut project = format!("name: precedent-{}\nruntime: python\n", settings.service().name());
    if let Some(environment) = environment(settings) {
        let _ = writeln!(project, "config:\n  azure-native:environment:\n    value: {environment}");
    }
    Export {
        files: vec![
            ("__main__.py", out),
            ("Pulumi.yaml", project),
            ("requirements.txt", "pulumi>=3.0,<4.0\npulumi-azure-native>=3.0,<4.0\n".to_owned()),
        ],
        command: "pulumi up".to_owned(),
    }
}

fn literal(out: &mut String, value: &Value, depth: usize, snakes: bool) {
    let indent = "    ".repeat(depth + 1);
    let end = "    ".repeat(depth);
    match value {
        Value::Object(fields) => {
            out.push_str("{\n");
            for (key, value) in fields {
                let key = if snakes { snake(key) } else { key.clone() };
                let _ = write!(out, "{indent}{}: ", string(&key));
                literal(out, value, depth + 1, snakes);
                out.push_str(",\n");
            }
            let _ = write!(out, "{end}}}");
        }
        Value::Array(items) => {
            out.push_str("[\n");
            for item in items {
                out.push_str(&indent);
                literal(out, item, depth + 1, snakes);
                out.push_str(",\n");
            }
            let _ = write!(out, "{end}]");
        }
        Value::String(text) => out.push_str(&string(text)),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Null => out.push_str("None"),
        Value::Number(number) => {
            let _ = write!(out, "{number}");
        }
    }
}

/// A JSON string is one of Python.
fn string(text: &str) -> String {
    let quoted = |text: &str| Value::String(text.to_owned()).to_string();
    match around_subscription(text) {
        None => quoted(text),
        Some((before, after)) => {
            format!("{} + client.subscription_id + {}", quoted(before), quoted(after))
        }
    }
}
