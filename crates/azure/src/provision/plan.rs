//! What there is, held against what there has to be. Nothing is changed here.
//!
//! *Invariant*: what [`Plan::blockers`] names is found before the first change is made; `up` then makes none.

use azure_core::http::Method;
use precedent_core::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use super::arm::Arm;
use super::definition::{By, Resource, Type, absent, definition, rule};
use super::names::folded_location;
use super::poll::{is_passing, state};
use super::settings::{Service, Settings, Store};

/// What `up` would do with a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is not there, and is made.
    Create,
    /// It is there, and differs.
    Change,
    /// It is there as it has to be.
    Nothing,
    /// Azure is at work on it; `up` waits, and then compares.
    Wait,
    /// It is there, and not ours: used as it is, never changed, never deleted.
    Use,
}

impl Action {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Change => "change",
            Self::Nothing => "nothing",
            Self::Wait => "wait",
            Self::Use => "use",
        }
    }
}

/// A value that is not what it has to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Where, in dots.
    pub path: String,
    /// What is there; `null` if there is nothing.
    pub actual: Value,
    /// What has to be there; `null` if there must be nothing.
    pub wanted: Value,
    /// Whether the resource would have to be made anew for it.
    pub is_fixed: bool,
}

/// One resource of the plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Its type.
    pub kind: Type,
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// What `up` would do.
    pub action: Action,
    /// Where it differs.
    pub changes: Vec<Change>,
    /// Why `up` would do nothing at all.
    pub blocked: Option<String>,
    /// What is to be known besides.
    pub note: Option<String>,
}

/// Every resource, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The resources.
    pub steps: Vec<Step>,
    /// The provider that the subscription has to be registered for first.
    pub register: Option<String>,
    /// What is to be known besides.
    pub notes: Vec<String>,
}

impl Plan {
    /// Whether `up` would change something.
    pub fn has_changes(&self) -> bool {
        let idle = |step: &Step| matches!(step.action, Action::Nothing | Action::Use);
        self.register.is_some() || !self.steps.iter().all(idle)
    }

    /// Everything that is in the way of `up`, each in a sentence.
    pub fn blockers(&self) -> Vec<String> {
        let mut blockers = Vec::new();
        for step in &self.steps {
            let what = format!("the {} '{}'", step.kind.noun(), step.name);
            blockers.extend(step.blocked.iter().map(|why| format!("{what}: {why}")));
            blockers.extend(step.changes.iter().filter(|change| change.is_fixed).map(|change| {
                format!(
                    "{what}: {} is {}, has to be {}, and cannot be changed once it is there",
                    change.path,
                    shown(&change.actual),
                    shown(&change.wanted)
                )
            }));
        }
        blockers
    }
}

/// A value in a line.
pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => "(not set)".to_owned(),
        other => other.to_string(),
    }
}

/// The provider of a service.
pub(crate) fn provider(service: Service) -> (&'static str, &'static str, Type) {
    match service {
        Service::Cosmos => ("Microsoft.DocumentDB", "databaseAccounts", Type::CosmosAccount),
        Service::Table => ("Microsoft.Storage", "storageAccounts", Type::StorageAccount),
    }
}

const PROVIDERS_VERSION: &str = "2021-04-01";

/// Compares. Only reads.
///
/// # Errors
/// What Azure says: `unauthorized`, `not_found` for the subscription, `unavailable`.
pub async fn plan(arm: &Arm, settings: &Settings) -> Result<Plan> {
    let resources = definition(settings);
    let mut plan = Plan { steps: Vec::new(), register: None, notes: notes(settings) };
    let (namespace, type_name, account) = provider(settings.service());
    let answer = arm.call(Method::Get, &["providers", namespace], PROVIDERS_VERSION, None).await?;
    let mut regions: Option<Vec<String>> = None;
    if answer.status == 403 {
        plan.notes.push(format!(
            "whether the subscription is registered for {namespace} cannot be seen with these credentials"
        ));
    } else {
        let provider = answer.ok()?.body;
        if !provider["registrationState"]
            .as_str()
            .is_some_and(|state| state.eq_ignore_ascii_case("Registered"))
        {
            plan.register = Some(namespace.to_owned());
        }
        let types = provider["resourceTypes"].as_array().into_iter().flatten();
        let mut ours = types
            .filter(|t| t["resourceType"].as_str().is_some_and(|name| name.eq_ignore_ascii_case(type_name)));
        regions = ours
            .next()
            .and_then(|t| t["locations"].as_array())
            .map(|locations| locations.iter().filter_map(Value::as_str).map(folded_location).collect());
    }
    // What is in something that is not there, or is going away, is not there either.
    let mut there: Vec<bool> = Vec::new();
    for resource in &resources {
        let parent_is_there = resource.parent.is_none_or(|parent| there[parent]);
        let actual = if parent_is_there { look(arm, resource).await? } else { None };
        let going = actual.as_ref().and_then(state).is_some_and(|s| s.eq_ignore_ascii_case("Deleting"));
        let mut step = step(arm, resource, actual.as_ref());
        if resource.kind == account {
            if let Some(regions) = &regions {
                step.blocked = strange_region(settings, regions, namespace);
            }
            let group_goes = resource.parent.is_some_and(|parent| plan.steps[parent].action == Action::Wait);
            if actual.is_none() && !group_goes {
                match name_taken(arm, settings).await? {
                    Name::Free => step.note = Some("the name is free".into()),
                    Name::Taken(why) => step.blocked = Some(why),
                    Name::Unseen => {
                        step.note =
                            Some("whether the name is free cannot be seen with these credentials".into());
                    }
                }
            }
        }
        there.push(actual.is_some() && !going);
        plan.steps.push(step);
    }
    Ok(plan)
}

/// What the settings mean, which nobody sees in the resources.
fn notes(settings: &Settings) -> Vec<String> {
    let mut notes = Vec::new();
    if let Store::Cosmos { locations, multiple_write_locations, .. } = &settings.store
        && locations.len() > 1
    {
        let home = &locations[0];
        notes.push(match multiple_write_locations {
            true => format!(
                "every one of the {} locations takes writes, and Azure drops one of two that collide without an error; \
                 so a log has one home, the region it is first written through, and is written there only: the others \
                 have copies of it and can have logs of their own",
                locations.len()
            ),
            false => format!(
                "only {home} takes writes: it is the home of every log, and the other locations have copies"
            ),
        });
    }
    notes
}

fn strange_region(settings: &Settings, regions: &[String], namespace: &str) -> Option<String> {
    let strange = settings.locations().iter().find(|location| !regions.contains(location))?;
    let mut known: Vec<&str> = regions.iter().map(String::as_str).collect();
    known.sort_unstable();
    Some(format!("{namespace} has no location '{strange}'; it has {}", known.join(", ")))
}

enum Name {
    Free,
    Taken(String),
    Unseen,
}

async fn name_taken(arm: &Arm, settings: &Settings) -> Result<Name> {
    let account = &settings.account;
    let taken = |why: &str| {
        Name::Taken(format!(
            "the name is taken{why}; it is unique in the whole cloud: --account NAME gives another"
        ))
    };
    match settings.service() {
        Service::Cosmos => {
            let is_taken = arm.is_cosmos_name_taken(account, Type::CosmosAccount.api_version()).await;
            match is_taken {
                Ok(true) => Ok(taken("")),
                Ok(false) => Ok(Name::Free),
                Err(error)
                    if error.kind() == ErrorKind::Unauthorized
                        && error.message().contains("AuthorizationFailed") =>
                {
                    Ok(Name::Unseen)
                }
                Err(error) => Err(error),
            }
        }
        Service::Table => {
            let path = ["providers", "Microsoft.Storage", "checkNameAvailability"];
            let body = json!({"name": account, "type": Type::StorageAccount.arm()});
            let answer =
                arm.call(Method::Post, &path, Type::StorageAccount.api_version(), Some(&body)).await?;
            if answer.status == 403 {
                return Ok(Name::Unseen);
            }
            let body = answer.ok()?.body;
            match body["nameAvailable"].as_bool() {
                Some(true) => Ok(Name::Free),
                Some(false) if body["reason"] == "AccountNameInvalid" => Ok(Name::Taken(format!(
                    "Azure does not take the name: {}",
                    super::arm::one_line(body["message"].as_str().unwrap_or("it does not say why"))
                ))),
                Some(false) => Ok(taken("")),
                None => {
                    Err(Error::new(ErrorKind::Unavailable, "Azure does not say whether the name is free"))
                }
            }
        }
    }
}

/// The resource as it is; `None` if it is not there.
pub(crate) async fn look(arm: &Arm, resource: &Resource) -> Result<Option<Value>> {
    let answer = arm.resource(Method::Get, resource, &[], None).await?;
    if answer.is_absent() {
        return match resource.kind {
            Type::CosmosRole | Type::StorageRole => same_role(arm, resource).await,
            _ => Ok(None),
        };
    }
    let mut body = answer.ok()?.body;
    if resource.kind == Type::SqlDatabase && resource.body["properties"].get("options").is_some() {
        body["properties"]["options"] = throughput(arm, resource).await?;
    }
    Ok(Some(body))
}

/// The throughput of a database in the shape it is asked for in; `null` if it has none of its own.
async fn throughput(arm: &Arm, database: &Resource) -> Result<Value> {
    let answer = arm.resource(Method::Get, database, &["throughputSettings", "default"], None).await?;
    if answer.is_absent() {
        return Ok(Value::Null);
    }
    let settings = &answer.ok()?.body["properties"]["resource"];
    Ok(match &settings["autoscaleSettings"]["maxThroughput"] {
        Value::Null => json!({"throughput": settings["throughput"]}),
        most => json!({"autoscaleSettings": {"maxThroughput": most}}),
    })
}

/// The same role for the same identity in the same scope, if somebody assigned it under another name.
async fn same_role(arm: &Arm, resource: &Resource) -> Result<Option<Value>> {
    let path: Vec<&str> = resource.path[..resource.path.len() - 1].iter().map(String::as_str).collect();
    let wanted = arm.filled(&resource.body);
    let filter;
    let query: &[(&str, &str)] = match (resource.kind, wanted["properties"]["principalId"].as_str()) {
        (Type::StorageRole, Some(principal)) => {
            filter = format!("principalId eq '{principal}'");
            &[("$filter", filter.as_str())]
        }
        _ => &[],
    };
    let roles = arm.list(&path, resource.kind.api_version(), query).await?;
    let same = |role: &Value, key: &str| {
        let text = |value: &Value| value["properties"][key].as_str().map(str::to_ascii_lowercase);
        text(role) == text(&wanted)
    };
    // One that is assigned further up gives the same right.
    let scope =
        resource.id().replace(super::definition::SUBSCRIPTION, arm.subscription()).to_ascii_lowercase();
    let in_scope = |role: &Value| match role["properties"]["scope"].as_str() {
        Some(at) => scope.starts_with(&format!("{}/", at.trim_end_matches('/').to_ascii_lowercase())),
        None => true,
    };
    Ok(roles
        .into_iter()
        .find(|role| same(role, "roleDefinitionId") && same(role, "principalId") && in_scope(role)))
}

fn step(arm: &Arm, resource: &Resource, actual: Option<&Value>) -> Step {
    let mut step = Step {
        kind: resource.kind,
        name: resource.name.clone(),
        id: resource.id().replace(super::definition::SUBSCRIPTION, arm.subscription()),
        action: Action::Create,
        changes: Vec::new(),
        blocked: None,
        note: None,
    };
    let Some(actual) = actual else { return step };
    if let Some(state) = state(actual).filter(|state| is_passing(state)) {
        step.action = Action::Wait;
        step.note = Some(format!("Azure is at work on it: {}", super::arm::one_line(state)));
        return step;
    }
    if resource.kind == Type::Group && !is_tagged(actual) {
        step.action = Action::Use;
        step.note = Some(
            "it is there, and was not made by this program: it is used, and neither changed nor deleted"
                .into(),
        );
        return step;
    }
    if has_failed(actual) {
        step.action = Action::Create;
        step.note = Some("Azure failed to make it the last time: it is made again".into());
    }
    step.changes = compare(arm, resource, actual);
    if !has_failed(actual) {
        step.action = if step.changes.is_empty() { Action::Nothing } else { Action::Change };
    }
    step
}

/// Whether making it ended badly.
pub(crate) fn has_failed(actual: &Value) -> bool {
    state(actual).is_some_and(|state| {
        !is_passing(state) && !state.eq_ignore_ascii_case("Succeeded") && !state.eq_ignore_ascii_case("Ready")
    })
}

/// Whether a resource group carries our tag.
pub(crate) fn is_tagged(group: &Value) -> bool {
    let (key, value) = super::definition::TAG;
    group["tags"]
        .as_object()
        .is_some_and(|tags| tags.iter().any(|(k, v)| k.eq_ignore_ascii_case(key) && v == value))
}

/// Where a resource differs from its definition.
pub(crate) fn compare(arm: &Arm, resource: &Resource, actual: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    let wanted = arm.filled(&resource.body);
    match resource.kind {
        Type::SqlDatabase => {
            let mut wanted = wanted;
            let options =
                wanted["properties"].as_object_mut().and_then(|properties| properties.remove("options"));
            differ(resource.kind, "", &wanted, actual, &mut changes);
            if let Some(options) = options {
                throughput_differs(&options, &actual["properties"]["options"], &mut changes);
            }
        }
        // An assignment that somebody else made has the same role and identity, or it would not have been found.
        Type::CosmosRole | Type::StorageRole => {}
        Type::CosmosAccount => {
            differ(resource.kind, "", &wanted, actual, &mut changes);
            let names = |account: &Value| -> Vec<Value> {
                let list = account["properties"]["capabilities"].as_array().into_iter().flatten();
                list.map(|capability| capability["name"].clone())
                    .filter(|name| name == "EnableServerless")
                    .collect()
            };
            if names(&wanted).is_empty() && !names(actual).is_empty() {
                changes.push(Change {
                    path: "properties.capabilities".into(),
                    actual: json!(names(actual)),
                    wanted: json!([]),
                    is_fixed: true,
                });
            }
        }
        _ => differ(resource.kind, "", &wanted, actual, &mut changes),
    }
    for (path, _) in absent(resource.kind) {
        let there = path.split('.').fold(actual, |value, key| &value[key]);
        if !there.is_null() {
            changes.push(Change {
                path: (*path).into(),
                actual: there.clone(),
                wanted: Value::Null,
                is_fixed: false,
            });
        }
    }
    changes
}

/// A database that was made without throughput of its own never gets any.
fn throughput_differs(wanted: &Value, actual: &Value, changes: &mut Vec<Change>) {
    const PATH: &str = "properties.options";
    if wanted == actual {
        return;
    }
    let number = |options: &Value| options["throughput"].as_u64();
    let change = match (number(wanted), number(actual)) {
        (Some(wanted), Some(actual)) => Change {
            path: format!("{PATH}.throughput"),
            actual: json!(actual),
            wanted: json!(wanted),
            is_fixed: false,
        },
        _ => Change {
            path: PATH.into(),
            actual: actual.clone(),
            wanted: wanted.clone(),
            is_fixed: actual.is_null(),
        },
    };
    changes.push(change);
}

fn differ(kind: Type, path: &str, wanted: &Value, actual: &Value, changes: &mut Vec<Change>) {
    let rule = rule(kind, path);
    let mut change = |at: String, actual: Value, wanted: Value, is_fixed: bool| {
        changes.push(Change { path: at, actual, wanted, is_fixed });
    };
    let none = Vec::new();
    let list = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
    match wanted {
        Value::Object(fields) => {
            for (key, wanted) in fields {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                differ(kind, &below, wanted, &actual[key], changes);
            }
        }
        Value::Array(wanted_items) => match rule.by {
            By::Regions => {
                let name =
                    |region: &Value| folded_location(region["locationName"].as_str().unwrap_or_default());
                let actual = actual.as_array().unwrap_or(&none);
                for region in wanted_items {
                    let at = format!("{path}[{}]", name(region));
                    match actual.iter().find(|other| name(other) == name(region)) {
                        None => change(
                            at,
                            Value::Null,
                            json!({"failoverPriority": region["failoverPriority"]}),
                            false,
                        ),
                        Some(other) if other["failoverPriority"] != region["failoverPriority"] => change(
                            format!("{at}.failoverPriority"),
                            other["failoverPriority"].clone(),
                            region["failoverPriority"].clone(),
                            true,
                        ),
                        Some(_) => {}
                    }
                }
                for region in actual {
                    if !wanted_items.iter().any(|other| name(other) == name(region)) {
                        let priority = &region["failoverPriority"];
                        // Without it another region would become the one that is written to.
                        let is_first = priority.as_u64() == Some(0);
                        let at = format!("{path}[{}]", name(region));
                        change(at, json!({"failoverPriority": priority}), Value::Null, is_first);
                    }
                }
            }
            By::Paths => {
                let paths = |items: &[Value]| -> Vec<String> {
                    let paths = items.iter().filter_map(|item| item["path"].as_str()).map(str::to_owned);
                    paths.filter(|path| path != "/\"_etag\"/?").collect()
                };
                let (wanted, actual) = (paths(wanted_items), paths(&list(actual)));
                for missing in wanted.iter().filter(|path| !actual.contains(path)) {
                    change(format!("{path}[{missing}]"), Value::Null, json!("there"), rule.is_fixed);
                }
                for extra in actual.iter().filter(|path| !wanted.contains(path)) {
                    change(format!("{path}[{extra}]"), json!("there"), Value::Null, rule.is_fixed);
                }
            }
            By::AtLeast => {
                let actual_items = list(actual);
                let missing = wanted_items
                    .iter()
                    .any(|item| !actual_items.iter().any(|other| other["name"] == item["name"]));
                if missing {
                    change(path.into(), actual.clone(), wanted.clone(), rule.is_fixed);
                }
            }
            _ if wanted != actual => change(path.into(), actual.clone(), wanted.clone(), rule.is_fixed),
            _ => {}
        },
        _ => {
            let same = match (rule.by, wanted.as_str(), actual.as_str()) {
                (By::FoldedCase, Some(wanted), Some(actual)) => wanted.eq_ignore_ascii_case(actual),
                (By::Region, Some(wanted), Some(actual)) => {
                    folded_location(wanted) == folded_location(actual)
                }
                _ => wanted == actual,
            };
            if !same {
                change(path.into(), actual.clone(), wanted.clone(), rule.is_fixed);
            }
        }
    }
}
