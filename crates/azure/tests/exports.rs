//! The exports, read back with the readers of others: each value of the definition is in each of them.
//!
//! `PRECEDENT_PULUMI_PYTHON` names a Python that has `pulumi` and `pulumi-azure-native`: then the Python export is run under
//! Pulumi's own mocks. Where `PRECEDENT_ARM_SCHEMAS` names a copy of Azure's published template schemas and that Python has
//! `jsonschema`, the template is held against them. Without, that is said. `terraform` is asked where it is installed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use precedent_azure::cloud::CLOUDS;
use precedent_azure::provision::{
    Export, FORMATS, Format, Principal, Resource, Service, Settings, Type, Wishes, definition, export,
};
use saphyr::LoadableYamlNode;
use serde_json::{Value, json};

const SUBSCRIPTION: &str = "11111111-2222-3333-4444-555555555555";
const PRINCIPAL: &str = "99999999-8888-7777-6666-555555555555";
const KEY: &str = "c2VjcmV0IG9mIHRoZSBtb2Nrcw==";

/// Everything that can be asked for, once.
fn all() -> Vec<Settings> {
    let wishes = Wishes::default;
    let locations = Some(vec!["eastus".to_owned(), "westeurope".to_owned()]);
    let mut all = Vec::new();
    for (service, wishes) in [
        (Service::Cosmos, wishes()),
        (Service::Cosmos, Wishes { entra: Some(true), locations, autoscale: Some(4000), ..wishes() }),
        (
            Service::Cosmos,
            Wishes { serverless: Some(true), partition_key: Some("/eventType,/period".into()), ..wishes() },
        ),
        (Service::Table, wishes()),
        (Service::Table, Wishes { entra: Some(true), sku: Some("Standard_RAGZRS".into()), ..wishes() }),
    ] {
        let principal = Principal { id: PRINCIPAL.into(), kind: Some("User") };
        let caller = wishes.entra.unwrap_or_default().then_some(principal);
        let settings = Settings::new(service, CLOUDS[0], Some(SUBSCRIPTION.into()), &wishes, caller);
        all.push(settings.expect("possible wishes"));
    }
    all
}

fn written(settings: &Settings, format: Format) -> Export {
    export(settings, format).unwrap_or_else(|error| panic!("{}: {error}", format.name()))
}

/// A value by a path in dots.
fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(value, |value, key| match key.parse::<usize>() {
        Ok(index) if value.is_array() => &value[index],
        _ => &value[key],
    })
}

/// Each value of a resource, with `stands_for` where the subscription's id is.
fn owned(resource: &Resource, stands_for: impl Fn(&str, &str) -> String) -> Vec<(String, Value)> {
    let expected = |value: &Value| match value.as_str().and_then(|text| text.split_once("{subscription}")) {
        Some((before, after)) => json!(stands_for(before, after)),
        None => value.clone(),
    };
    resource.owned().into_iter().map(|(path, value)| (path, expected(value))).collect()
}

#[test]
fn the_template_has_every_value_at_its_place() {
    for settings in all() {
        let export = written(&settings, Format::Arm);
        let template: Value = serde_json::from_str(&export.files[0].1).expect("it is JSON");
        let deployment = &template["resources"][1];
        let inner = &deployment["properties"]["template"]["resources"];
        let resources: Vec<&Value> =
            [&template["resources"][0]].into_iter().chain(inner.as_array().into_iter().flatten()).collect();
        let definition = definition(&settings);
        assert_eq!(resources.len(), definition.len());
        for resource in &definition {
            let found: Vec<&&Value> = resources.iter().filter(|r| r["type"] == resource.kind.arm()).collect();
            let [found] = found.as_slice() else { panic!("one {}", resource.kind.noun()) };
            assert_eq!(found["apiVersion"], resource.kind.api_version());
            let name = found["name"].as_str().expect("a name");
            match resource.kind.arm().matches('/').count() {
                1 => assert_eq!(name, resource.name),
                // As many parts in a name as in its type: `account/database/container`.
                parts => {
                    assert_eq!(name.matches('/').count() + 1, parts, "{name}");
                    assert!(name.ends_with(&format!(", '{}')]", resource.name)), "{name}");
                }
            }
            let subscription = |before: &str, after: &str| {
                format!("[concat('{before}', subscription().subscriptionId, '{after}')]")
            };
            for (path, value) in owned(resource, subscription) {
                assert_eq!(at(found, &path), &value, "{path} of {name}");
            }
            let needs = found["dependsOn"].as_array().map_or(0, Vec::len);
            let in_account = resource.parent.is_some_and(|parent| definition[parent].kind != Type::Group);
            assert_eq!(needs, usize::from(in_account), "{name}");
        }
        assert_eq!(template["contentVersion"], "1.0.0.0");
        assert!(
            template["$schema"]
                .as_str()
                .is_some_and(|url| url.ends_with("/subscriptionDeploymentTemplate.json#"))
        );
        assert_eq!(deployment["properties"]["mode"], "Incremental");
        let outputs = deployment["properties"]["template"]["outputs"].as_object().expect("some");
        assert!(outputs.keys().eq(template["outputs"].as_object().expect("some").keys()));
        assert!(!export.files[0].1.contains("listKeys"), "outputs of deployments are kept in plain text");
    }
}

/// What azure-native is given for a resource of the definition.
fn pulumi_inputs(
    resource: &Resource,
    settings: &Settings,
    of_group: &str,
) -> (String, BTreeMap<String, Value>) {
    let (token, name) = match resource.kind {
        Type::Group => ("resources:ResourceGroup", "resourceGroupName"),
        Type::CosmosAccount => ("cosmosdb:DatabaseAccount", "accountName"),
        Type::SqlDatabase => ("cosmosdb:SqlResourceSqlDatabase", "databaseName"),
        Type::SqlContainer => ("cosmosdb:SqlResourceSqlContainer", "containerName"),
        Type::CosmosRole => ("cosmosdb:SqlResourceSqlRoleAssignment", "roleAssignmentId"),
        Type::StorageAccount => ("storage:StorageAccount", "accountName"),
        Type::Table => ("storage:Table", "tableName"),
        Type::StorageRole => ("authorization:RoleAssignment", "roleAssignmentName"),
    };
    let mut inputs = BTreeMap::from([(name.to_owned(), json!(resource.name))]);
    if !matches!(resource.kind, Type::Group | Type::StorageRole) {
        inputs.insert("resourceGroupName".into(), json!(of_group));
    }
    if matches!(resource.kind, Type::SqlDatabase | Type::SqlContainer | Type::CosmosRole | Type::Table) {
        inputs.insert("accountName".into(), json!(settings.account));
    }
    for (key, value) in resource.body.as_object().into_iter().flatten() {
        match (key.as_str(), value.as_object()) {
            ("properties", Some(properties)) => inputs.extend(properties.clone()),
            _ => {
                inputs.insert(key.clone(), value.clone());
            }
        }
    }
    if let Some(value) = inputs.remove("supportsHttpsTrafficOnly") {
        inputs.insert("enableHttpsTrafficOnly".into(), value);
    }
    (format!("azure-native:{token}"), inputs)
}

fn json_of(yaml: &saphyr::Yaml<'_>) -> Value {
    if let Some(items) = yaml.as_sequence() {
        return items.iter().map(json_of).collect();
    }
    if let Some(fields) = yaml.as_mapping() {
        let key = |key: &saphyr::Yaml<'_>| key.as_str().expect("keys are text").to_owned();
        return fields
            .iter()
            .map(|(name, value)| (key(name), json_of(value)))
            .collect::<serde_json::Map<_, _>>()
            .into();
    }
    if let Some(text) = yaml.as_str() {
        return json!(text);
    }
    yaml.as_bool().map(|b| json!(b)).or(yaml.as_integer().map(|n| json!(n))).unwrap_or(Value::Null)
}

#[test]
fn the_pulumi_yaml_has_every_value_at_its_place() {
    for settings in all() {
        let export = written(&settings, Format::PulumiYaml);
        let documents = saphyr::Yaml::load_from_str(&export.files[0].1).expect("it is YAML");
        let program = json_of(&documents[0]);
        assert_eq!(program["runtime"], "yaml");
        let definition = definition(&settings);
        let resources = program["resources"].as_object().expect("some");
        assert_eq!(resources.len(), definition.len());
        for resource in &definition {
            let (token, mut inputs) = pulumi_inputs(resource, &settings, "${group.name}");
            if resource.kind != Type::StorageAccount && resource.kind != Type::CosmosAccount {
                inputs.entry("accountName".into()).and_modify(|name| *name = json!("${account.name}"));
            }
            if resource.kind == Type::SqlContainer {
                inputs.insert("databaseName".into(), json!("${database.name}"));
            }
            if resource.kind == Type::StorageRole {
                inputs.insert("scope".into(), json!("${account.id}"));
            }
            let inputs = json!(inputs).to_string().replace("{subscription}", "${client.subscriptionId}");
            let inputs: Value = serde_json::from_str(&inputs).expect("it was JSON");
            let found = resources.values().find(|found| found["type"] == token.as_str());
            assert_eq!(found.expect(&token)["properties"], inputs, "{token}");
        }
        let outputs = program["outputs"].as_object().expect("some");
        let names: Vec<&str> = outputs.keys().map(String::as_str).collect();
        let wanted: &[&str] = match (settings.service(), settings.entra.is_some()) {
            (Service::Cosmos, false) => &["cosmosdb_endpoint", "primary_master_key"],
            (Service::Cosmos, true) => &["cosmosdb_endpoint"],
            (Service::Table, false) => &["primary_storage_connection_string", "table_name"],
            (Service::Table, true) => &["primary_table_endpoint", "table_name"],
        };
        assert_eq!(names, wanted);
    }
}

#[test]
fn the_terraform_has_every_value() {
    for settings in all() {
        let export = written(&settings, Format::Terraform);
        let program: Value = hcl::from_str(&export.files[0].1).expect("it is HCL");
        assert_eq!(program["provider"]["azurerm"]["subscription_id"], SUBSCRIPTION);
        for resource in definition(&settings) {
            let found = program["resource"]
                .as_object()
                .into_iter()
                .flatten()
                .filter_map(|(_, named)| named.as_object()?.values().next())
                .find(|block| block["name"] == resource.name.as_str())
                .unwrap_or_else(|| panic!("no {}", resource.name));
            let mut values = Vec::new();
            scalars(found, &mut values);
            let subscription = |before: &str, after: &str| {
                format!("{before}${{data.azurerm_client_config.client.subscription_id}}{after}")
            };
            for (path, value) in owned(&resource, subscription) {
                match path.as_str() {
                    // azurerm has no place for it: it is always so.
                    "properties.resource.indexingPolicy.automatic" => assert_eq!(value, true),
                    "sku.name" => {
                        let sku = format!("{}_{}", found["account_tier"], found["account_replication_type"]);
                        assert_eq!(sku.replace('"', ""), value.as_str().expect("text"));
                    }
                    _ => {
                        let at = values.iter().position(|there| **there == value);
                        values.remove(at.unwrap_or_else(|| panic!("{path} = {value} in {found:#}")));
                    }
                }
            }
        }
        let outputs = program["output"].as_object().expect("some");
        for (name, output) in outputs {
            let is_secret =
                ["primary_master_key", "primary_storage_connection_string"].contains(&name.as_str());
            assert_eq!(output["sensitive"] == true, is_secret, "{name}");
        }
    }
}

fn scalars<'a>(value: &'a Value, out: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => fields.values().for_each(|value| scalars(value, out)),
        Value::Array(items) => items.iter().for_each(|value| scalars(value, out)),
        _ => out.push(value),
    }
}

#[test]
fn the_bicep_has_every_value_and_its_blocks_close() {
    for settings in all() {
        let export = written(&settings, Format::Bicep);
        let [(_, main), (_, store)] = export.files.as_slice() else { panic!("two files") };
        assert!(main.contains("targetScope = 'subscription'") && main.contains("module store 'store.bicep'"));
        for text in [main, store] {
            for (open, close) in [('{', '}'), ('[', ']'), ('(', ')')] {
                assert_eq!(text.matches(open).count(), text.matches(close).count(), "{text}");
            }
            assert!(text.matches('\'').count().is_multiple_of(2));
        }
        for resource in definition(&settings) {
            let file = if resource.kind == Type::Group { main } else { store };
            let declared = format!("'{}@{}' = {{\n", resource.kind.arm(), resource.kind.api_version());
            let block = file.split(&declared).nth(1).unwrap_or_else(|| panic!("no {declared}"));
            let block = block.split("\n}\n").next().unwrap_or_default();
            assert!(block.contains(&format!("  name: '{}'", resource.name)), "{block}");
            let subscription =
                |before: &str, after: &str| format!("{before}${{subscription().subscriptionId}}{after}");
            for (path, value) in owned(&resource, subscription) {
                let value = match &value {
                    Value::String(text) => format!("'{text}'"),
                    other => other.to_string(),
                };
                let key = path.rsplit('.').next().unwrap_or_default();
                let line = match key.parse::<usize>() {
                    Ok(_) => format!("  {value}\n"),
                    Err(_) => format!("  {key}: {value}\n"),
                };
                assert!(format!("{block}\n").contains(&line), "{line} in {block}");
            }
        }
    }
}

#[test]
fn no_export_holds_a_secret_or_needs_azure() {
    for settings in all() {
        let settings = Settings { subscription: None, ..settings };
        for format in FORMATS {
            let export = written(&settings, *format);
            assert!(
                export.files.iter().all(|(_, text)| text.ends_with('\n') && !text.contains(SUBSCRIPTION))
            );
        }
    }
}

#[test]
fn in_a_sovereign_cloud_the_exports_lead_there() {
    for (cloud, environment) in [(CLOUDS[1], "usgovernment"), (CLOUDS[2], "china")] {
        for settings in all() {
            let settings = Settings { cloud, ..settings };
            for format in [Format::PulumiYaml, Format::PulumiPython, Format::Terraform] {
                let text: String =
                    written(&settings, format).files.into_iter().map(|(_, text)| text).collect();
                assert!(text.contains(environment), "{text}");
                assert!(!text.contains(CLOUDS[0].storage_suffix), "{text}");
            }
        }
    }
}

fn python() -> Option<std::ffi::OsString> {
    std::env::var_os("PRECEDENT_PULUMI_PYTHON").filter(|python| !python.is_empty())
}

fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("it can be started");
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn under_pulumis_mocks_the_python_export_makes_the_same_resources() {
    let Some(python) = python() else {
        eprintln!(
            "skipped: the Pulumi export is not run: PRECEDENT_PULUMI_PYTHON names no Python that has pulumi-azure-native"
        );
        return;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pulumi_mocks.py");
    for settings in all() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("__main__.py");
        std::fs::write(&program, &written(&settings, Format::PulumiPython).files[0].1).expect("written");
        let told = run(Command::new(&python).arg(&script).arg(&program).args([SUBSCRIPTION, KEY]));
        let told: Value =
            serde_json::from_str(told.lines().last().unwrap_or_default()).expect("a line of JSON");
        let made = told["made"].as_array().expect("a list");
        let definition = definition(&settings);
        assert_eq!(made.len(), definition.len(), "{made:#?}");
        for resource in &definition {
            let (token, mut inputs) = pulumi_inputs(resource, &settings, &settings.group);
            match resource.kind {
                Type::SqlContainer => {
                    inputs.insert("databaseName".into(), json!(definition[2].name));
                }
                Type::StorageRole => {
                    inputs.insert("scope".into(), json!("account-id"));
                }
                _ => {}
            }
            let inputs = json!(inputs).to_string().replace("{subscription}", SUBSCRIPTION);
            let inputs: Value = serde_json::from_str(&inputs).expect("it was JSON");
            let found = made.iter().find(|made| made["type"] == token.as_str()).expect(&token);
            let mut found = without_floats(&found["inputs"]);
            if resource.kind == Type::CosmosAccount {
                // The provider says itself what Azure takes for granted.
                assert_eq!(
                    found.as_object_mut().and_then(|inputs| inputs.remove("createMode")),
                    Some(json!("Default"))
                );
            }
            assert_eq!(found, inputs, "{token}");
        }
        let (outputs, secrets) = (&told["outputs"], &told["outputs"]["secrets"]);
        match (settings.service(), settings.entra.is_some()) {
            (Service::Cosmos, keyless) => {
                assert_eq!(outputs["cosmosdb_endpoint"], "https://endpoint.example/");
                assert_eq!(outputs["primary_master_key"], if keyless { Value::Null } else { json!(KEY) });
                assert_eq!(secrets["primary_master_key"] == true, !keyless);
            }
            (Service::Table, keyless) => {
                assert_eq!(outputs["table_name"], "eventsTable");
                let account = &settings.account;
                let connection = format!(
                    "DefaultEndpointsProtocol=https;AccountName={account};AccountKey={KEY};EndpointSuffix=core.windows.net"
                );
                let wanted = if keyless { Value::Null } else { json!(connection) };
                assert_eq!(outputs["primary_storage_connection_string"], wanted);
                assert_eq!(secrets["primary_storage_connection_string"] == true, !keyless);
            }
        }
    }
}

/// Pulumi's numbers are floating: 400.0 is 400.
fn without_floats(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(without_floats).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), without_floats(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Number(number) if number.is_f64() => {
            json!(number.as_f64().map(|n| n as i64))
        }
        other => other.clone(),
    }
}

#[test]
fn terraform_finds_the_file_well_formed_and_in_its_own_format() {
    let found = Command::new("terraform")
        .arg("version")
        .env_remove("TF_CLI_CONFIG_FILE")
        .stdin(Stdio::null())
        .output();
    if !found.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: the Terraform export is read by hcl-rs only: terraform is not installed");
        return;
    }
    for settings in all() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("main.tf");
        std::fs::write(&file, &written(&settings, Format::Terraform).files[0].1).expect("written");
        let mut command = Command::new("terraform");
        run(command.args(["fmt", "-check", "-diff"]).arg(&file).env_remove("TF_CLI_CONFIG_FILE"));
    }
}

#[test]
fn the_template_is_valid_by_the_published_schemas() {
    let schemas = std::env::var_os("PRECEDENT_ARM_SCHEMAS").filter(|folder| !folder.is_empty());
    let (Some(schemas), Some(python)) = (schemas, python()) else {
        eprintln!(
            "skipped: the template is not held against Azure's schemas: PRECEDENT_ARM_SCHEMAS names no copy of them, or \
             PRECEDENT_PULUMI_PYTHON no Python"
        );
        return;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/arm_schemas.py");
    for settings in all() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("template.json");
        std::fs::write(&file, &written(&settings, Format::Arm).files[0].1).expect("written");
        let told = run(Command::new(&python).arg(&script).arg(&schemas).arg(&file));
        assert_eq!(told.trim(), definition(&settings).len().to_string());
    }
}
