//! A deployment template at the scope of a subscription: the group, and in it a deployment of everything else.
//!
//! There is no output for a key: Azure keeps the outputs of a deployment in plain text.

use serde_json::{Value, json};

use super::super::definition::{Resource, Type};
use super::super::settings::{Service, Settings, Store};
use super::{Export, around_subscription, heading, names};

const DEPLOYMENT: &str = "precedent";

pub(super) fn write(settings: &Settings, resources: &[Resource]) -> Export {
    let [group, inner @ ..] = resources else { return Export { files: Vec::new(), command: String::new() } };
    let account = format!("resourceId('{}', '{}')", inner[0].kind.arm(), inner[0].name);
    let reference = format!("reference({account}, '{}')", inner[0].kind.api_version());
    let outputs = match (&settings.store, settings.service()) {
        (Store::Table { table, .. }, _) => json!({
            "primary_table_endpoint":
                {"type": "string", "value": format!("[{reference}.primaryEndpoints.table]")},
            "table_name": {"type": "string", "value": table},
        }),
        (Store::Cosmos { .. }, _) => json!({
            "cosmosdb_endpoint": {"type": "string", "value": format!("[{reference}.documentEndpoint]")},
        }),
    };
    let outer_outputs: serde_json::Map<String, Value> = outputs
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| {
            let deployment = format!(
                "extensionResourceId(concat(subscription().id, '/resourceGroups/{}'), 'Microsoft.Resources/deployments', '{DEPLOYMENT}')",
                group.name
            );
            let value = format!("[reference({deployment}, '2024-03-01').outputs.{name}.value]");
            (name.clone(), json!({"type": "string", "value": value}))
        })
        .collect();
    let template = json!({
        "$schema": "https://schema.management.azure.com/schemas/2018-05-01/subscriptionDeploymentTemplate.json#",
        "contentVersion": "1.0.0.0",
        "metadata": {"description": heading(settings)},
        "resources": [
            declared(resources, group),
            {
                "type": "Microsoft.Resources/deployments",
                "apiVersion": "2024-03-01",
                "name": DEPLOYMENT,
                "resourceGroup": group.name,
                "dependsOn": [format!("[subscriptionResourceId('{}', '{}')]", group.kind.arm(), group.name)],
                "properties": {
                    "mode": "Incremental",
                    "expressionEvaluationOptions": {"scope": "inner"},
                    "template": {
                        "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
                        "contentVersion": "1.0.0.0",
                        "resources": inner.iter().map(|r| declared(resources, r)).collect::<Vec<_>>(),
                        "outputs": outputs,
                    },
                },
            },
        ],
        "outputs": outer_outputs,
    });
    let location = &settings.locations()[0];
    let name = match settings.service() {
        Service::Cosmos => "cosmos.json",
        Service::Table => "table.json",
    };
    Export {
        files: vec![(name, format!("{template:#}\n"))],
        command: format!("az deployment sub create --location {location} --template-file {name}"),
    }
}

fn declared(resources: &[Resource], resource: &Resource) -> Value {
    let mut out = json!({"type": resource.kind.arm(), "apiVersion": resource.kind.api_version()});
    out["name"] = match resource.kind {
        Type::Group | Type::StorageRole => json!(resource.name),
        _ => match names(resource).as_slice() {
            [name] => json!(name),
            // The published schemas have the rule for the last part only, and so take several as an expression.
            names => {
                let places: Vec<String> = (0..names.len()).map(|at| format!("{{{at}}}")).collect();
                let quoted: Vec<String> = names.iter().map(|name| format!(", '{name}'")).collect();
                json!(format!("[format('{}'{})]", places.join("/"), quoted.concat()))
            }
        },
    };
    let parent = resource.parent.map(|parent| &resources[parent]).filter(|parent| parent.kind != Type::Group);
    if let Some(parent) = parent {
        let names: Vec<String> = names(parent).iter().map(|name| format!(", '{name}'")).collect();
        let id = format!("[resourceId('{}'{})]", parent.kind.arm(), names.concat());
        if resource.kind == Type::StorageRole {
            out["scope"] = json!(id);
        }
        out["dependsOn"] = json!([id]);
    }
    for (key, value) in resource.body.as_object().into_iter().flatten() {
        out[key] = expressed(value);
    }
    if out.get("properties").is_none() {
        out["properties"] = json!({});
    }
    out
}

/// A value of the definition as the template has it: with an expression where the subscription's id is.
pub(super) fn expressed(value: &Value) -> Value {
    match value {
        Value::String(text) => match around_subscription(text) {
            Some((before, after)) => {
                json!(format!("[concat('{before}', subscription().subscriptionId, '{after}')]"))
            }
            // What begins with a bracket would be an expression.
            None if text.starts_with('[') => json!(format!("[{text}")),
            None => value.clone(),
        },
        Value::Array(items) => items.iter().map(expressed).collect(),
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), expressed(value))).collect(),
        other => other.clone(),
    }
}
