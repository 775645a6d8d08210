//! `up`: makes what is not there and mends what differs, one resource after the other.
//!
//! Each resource is looked at again right before anything is done with it. So a second `up` after an interruption goes on
//! where the first one stood: there is no record of progress that could be wrong.
//!
//! *Invariant*: nothing is ever deleted, and no resource is changed beyond what the definition owns.

use azure_core::http::Method;
use precedent_core::{Error, ErrorKind, Result};
use serde_json::{Map, Value, json};

use super::arm::Arm;
use super::definition::{Resource, Type, definition};
use super::plan::{Change, Plan, compare, has_failed, is_tagged, look, provider, shown};
use super::poll;
use super::settings::Settings;

/// What `up` is doing.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// It begins with something: a sentence, and which one of how many.
    Begins {
        /// What is done.
        what: &'a str,
        /// Which one, from 1.
        at: usize,
        /// Of how many.
        of: usize,
    },
    /// Azure is at work, since so many seconds.
    Waits {
        /// How long already.
        seconds: u64,
    },
    /// What was begun has been done.
    Did {
        /// What was done.
        what: &'a str,
    },
}

/// Told what is being done.
pub type Listener<'a> = &'a (dyn Fn(Progress<'_>) + Send + Sync);

/// How often a resource is changed before it is an error that it still differs.
const ROUNDS: usize = 4;

/// Makes everything as it has to be. `plan` is what was shown to whoever said yes.
///
/// # Errors
/// `invalid` if the plan has blockers: nothing was changed then. Else what Azure says; what was made stays, and another
/// `up` goes on from there.
pub async fn up(arm: &Arm, settings: &Settings, plan: &Plan, tell: Listener<'_>) -> Result<()> {
    if let [first, rest @ ..] = plan.blockers().as_slice() {
        let more = if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) };
        return Err(Error::invalid(format!("{first}{more}; nothing was changed")));
    }
    if plan.register.is_some() {
        register(arm, provider(settings.service()).0, tell).await?;
    }
    let resources = definition(settings);
    for (at, resource) in resources.iter().enumerate() {
        let of = resources.len();
        bring(arm, resource, &|what| tell(Progress::Begins { what, at: at + 1, of }), tell)
            .await
            .map_err(|error| error.context(format!("the {} '{}'", resource.kind.noun(), resource.name)))?;
    }
    Ok(())
}

/// The subscription is registered for a provider, once and for all.
async fn register(arm: &Arm, namespace: &str, tell: Listener<'_>) -> Result<()> {
    let what = format!("registering the subscription for {namespace}");
    tell(Progress::Begins { what: &what, at: 0, of: 0 });
    let version = "2021-04-01";
    let failed = |error: Error| error.context(&what);
    let answer = arm.call(Method::Post, &["providers", namespace, "register"], version, None).await;
    answer.and_then(super::arm::Answer::ok).map_err(failed)?;
    for _ in 0..180 {
        let answer = arm.call(Method::Get, &["providers", namespace], version, None).await;
        let answer = answer.and_then(super::arm::Answer::ok).map_err(failed)?;
        if answer.body["registrationState"].as_str().is_some_and(|s| s.eq_ignore_ascii_case("Registered")) {
            tell(Progress::Did { what: &what });
            return Ok(());
        }
        arm.pace().sleep(std::time::Duration::from_secs(10)).await;
    }
    Err(failed(Error::new(ErrorKind::Unavailable, "it is not done after 30 minutes; another 'up' goes on")))
}

async fn bring(
    arm: &Arm,
    resource: &Resource,
    begins: &(dyn Fn(&str) + Send + Sync),
    tell: Listener<'_>,
) -> Result<()> {
    let waiting = |waited: std::time::Duration| tell(Progress::Waits { seconds: waited.as_secs() });
    let named = |verb: &str| format!("{verb} the {} '{}'", resource.kind.noun(), resource.name);
    let mut left = Vec::new();
    for round in 0..ROUNDS {
        let actual = look(arm, resource).await?;
        if actual.as_ref().and_then(poll::state).is_some_and(poll::is_passing) {
            begins(&named("waiting for"));
            poll::settled(arm, resource, &waiting).await?;
            continue;
        }
        let what = match actual {
            Some(actual) if resource.kind == Type::Group && !is_tagged(&actual) => return Ok(()),
            Some(actual) if !has_failed(&actual) => {
                left = compare(arm, resource, &actual);
                if left.is_empty() {
                    return Ok(());
                }
                if let Some(fixed) = left.iter().find(|change| change.is_fixed) {
                    return Err(differs(fixed, "and cannot be changed once it is there"));
                }
                let what = named("changing");
                begins(&what);
                change(arm, resource, &actual, &left, &waiting).await?;
                what
            }
            // Making it failed, here or before: it is asked for once more, and then the failure is the answer.
            Some(_) if round > 1 => {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    "Azure fails to make it, and does not say why",
                ));
            }
            _ => {
                let what = named("making");
                begins(&what);
                let answer = arm.resource(Method::Put, resource, &[], Some(&resource.body)).await?;
                let is_role = matches!(resource.kind, Type::CosmosRole | Type::StorageRole);
                if is_role && answer.code() == "RoleAssignmentExists" {
                    tell(Progress::Did { what: &what });
                    return Ok(());
                }
                poll::finish(arm, resource, answer, &waiting).await?;
                what
            }
        };
        tell(Progress::Did { what: &what });
    }
    Err(match left.first() {
        Some(change) => differs(change, "although it was changed"),
        None => Error::new(ErrorKind::Unavailable, "it was made, and is not there"),
    })
}

fn differs(change: &Change, why: &str) -> Error {
    let Change { path, actual, wanted, .. } = change;
    Error::invalid(format!("{path} is {}, has to be {}, {why}", shown(actual), shown(wanted)))
}

async fn change(
    arm: &Arm,
    resource: &Resource,
    actual: &Value,
    changes: &[Change],
    waiting: poll::Waiting<'_>,
) -> Result<()> {
    match resource.kind {
        Type::CosmosAccount => {
            let (regions, others): (Vec<&Change>, Vec<&Change>) =
                changes.iter().partition(|change| change.path.starts_with("properties.locations"));
            // Azure refuses regions and anything else in one request.
            for changes in [others, regions].into_iter().filter(|changes| !changes.is_empty()) {
                patch(arm, resource, &changes, waiting).await?;
            }
            Ok(())
        }
        Type::StorageAccount => patch(arm, resource, &changes.iter().collect::<Vec<_>>(), waiting).await,
        Type::SqlDatabase => throughput(arm, resource, actual, waiting).await,
        Type::SqlContainer => {
            // There is no PATCH: what is not ours is sent back as it is.
            let mut body = json!({"properties": {"resource": actual["properties"]["resource"]}});
            let kept = &mut body["properties"]["resource"];
            if let Some(fields) = kept.as_object_mut() {
                fields.retain(|key, _| !key.starts_with('_') && key != "statistics");
                for (path, _) in super::definition::absent(resource.kind) {
                    fields.remove(path.rsplit('.').next().unwrap_or_default());
                }
            }
            overlay(kept, &resource.body["properties"]["resource"]);
            let answer = arm.resource(Method::Put, resource, &[], Some(&body)).await?;
            poll::finish(arm, resource, answer, waiting).await.map(drop)
        }
        Type::Group | Type::Table | Type::CosmosRole | Type::StorageRole => Err(Error::new(
            ErrorKind::Internal,
            format!("a {} has nothing that can be changed", resource.kind.noun()),
        )),
    }
}

/// Sends what differs, and nothing else: what an account has besides stays as it is.
async fn patch(
    arm: &Arm,
    resource: &Resource,
    changes: &[&Change],
    waiting: poll::Waiting<'_>,
) -> Result<()> {
    let mut body = Map::new();
    for change in changes {
        let path = change.path.split('[').next().unwrap_or_default();
        let mut keys = path.split('.');
        match (keys.next(), keys.next()) {
            (Some("properties"), Some(key)) => {
                let properties = body.entry("properties").or_insert_with(|| json!({}));
                properties[key] = resource.body["properties"][key].clone();
            }
            (Some(key), _) => {
                body.insert(key.to_owned(), resource.body[key].clone());
            }
            (None, _) => {}
        }
    }
    let answer = arm.resource(Method::Patch, resource, &[], Some(&Value::Object(body))).await?;
    poll::finish(arm, resource, answer, waiting).await.map(drop)
}

/// Throughput is a resource of its own once its database is there, and its two kinds have to be migrated between.
async fn throughput(
    arm: &Arm,
    database: &Resource,
    actual: &Value,
    waiting: poll::Waiting<'_>,
) -> Result<()> {
    let wanted = &database.body["properties"]["options"];
    let is_autoscale = |options: &Value| !options["autoscaleSettings"].is_null();
    let settings = Resource {
        path: [&database.path[..], &["throughputSettings".to_owned(), "default".to_owned()]].concat(),
        ..database.clone()
    };
    let to = match (is_autoscale(wanted), is_autoscale(&actual["properties"]["options"])) {
        (true, false) => Some("migrateToAutoscale"),
        (false, true) => Some("migrateToManualThroughput"),
        _ => None,
    };
    if let Some(migrate) = to {
        let answer = arm.resource(Method::Post, &settings, &[migrate], None).await?;
        poll::finish(arm, &settings, answer, waiting).await?;
    }
    let body = json!({"properties": {"resource": wanted}});
    let answer = arm.resource(Method::Put, &settings, &[], Some(&body)).await?;
    poll::finish(arm, &settings, answer, waiting).await.map(drop)
}

/// Puts the values of one over those of the other; lists are replaced as a whole.
fn overlay(under: &mut Value, over: &Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                overlay(under.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over.clone(),
    }
}
