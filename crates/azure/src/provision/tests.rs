use std::sync::{Arc, Mutex};

use precedent_core::ErrorKind;
use serde_json::json;

use super::definition::tests::settings;
use super::fake::{CALLER, DataPlanes, Fake, KEY, SUBSCRIPTION, Script, Style, Trouble};
use super::*;
use crate::cloud::CLOUDS;
use crate::table;

const STYLES: [Style; 3] = [Style::Operation, Style::Location, Style::State];
const SERVICES: [Service; 2] = [Service::Cosmos, Service::Table];

fn fake(style: Style) -> Arc<Fake> {
    Fake::new(CLOUDS[0], style)
}

fn silent(_: Progress<'_>) {}

async fn up_all(arm: &Arm, settings: &Settings) -> precedent_core::Result<()> {
    let plan = plan(arm, settings).await?;
    up(arm, settings, &plan, &silent).await
}

fn defaults(service: Service) -> Settings {
    settings(service, Wishes::default())
}

fn actions(plan: &Plan) -> Vec<Action> {
    plan.steps.iter().map(|step| step.action).collect()
}

/// Everything there is, as it should be.
async fn done(style: Style, settings: &Settings) -> (Arc<Fake>, Arm) {
    let fake = fake(style);
    let arm = fake.arm();
    up_all(&arm, settings).await.expect("nothing is in the way");
    (fake, arm)
}

#[tokio::test]
async fn from_nothing_everything_is_made_and_then_there_is_nothing_to_do() {
    for style in STYLES {
        for service in SERVICES {
            for entra in [false, true] {
                let settings = settings(service, Wishes { entra: Some(entra), ..Wishes::default() });
                let fake = fake(style);
                let arm = fake.arm();
                let before = plan(&arm, &settings).await.expect("it can be looked at");
                assert!(before.has_changes() && before.register.is_some());
                assert!(actions(&before).iter().all(|action| *action == Action::Create), "{before:?}");
                assert!(fake.paths().is_empty(), "a plan changes nothing");
                assert!(fake.calls().iter().all(|call| {
                    ["GET ", "HEAD "].iter().any(|verb| call.starts_with(verb))
                        || call.ends_with("checkNameAvailability")
                }));
                up(&arm, &settings, &before, &silent).await.expect("nothing is in the way");
                let after = plan(&arm, &settings).await.expect("it can be looked at");
                assert!(!after.has_changes(), "{style:?} {service:?}: {after:?}");
                fake.forget_calls();
                up_all(&arm, &settings).await.expect("again");
                assert!(fake.calls().iter().all(|call| call.starts_with("GET ")), "{:?}", fake.calls());
            }
        }
    }
}

#[tokio::test]
async fn what_was_made_is_what_the_definition_says() {
    for service in SERVICES {
        let settings = defaults(service);
        let (_fake, arm) = done(Style::Operation, &settings).await;
        for resource in definition(&settings) {
            let actual =
                super::plan::look(&arm, &resource).await.expect("it can be seen").expect("it is there");
            assert_eq!(super::plan::compare(&arm, &resource, &actual), [], "{}", resource.name);
        }
    }
}

#[tokio::test]
async fn drift_is_shown_value_by_value_and_mended() {
    for style in STYLES {
        let settings = defaults(Service::Cosmos);
        let (fake, arm) = done(style, &settings).await;
        let account = format!("databaseaccounts/{}", settings.account);
        fake.meddle(&account, |account| {
            account["properties"]["consistencyPolicy"]["defaultConsistencyLevel"] = json!("Eventual");
            account["properties"]["enableMultipleWriteLocations"] = json!(false);
            account["properties"]["ipRules"] = json!([{"ipAddressOrRange": "10.0.0.1"}]);
            account["properties"]["locations"].as_array_mut().expect("a list").push(json!({
                "locationName": "West Europe", "failoverPriority": 1}));
        });
        fake.meddle("throughputsettings/default", |settings| {
            settings["properties"]["resource"] = json!({"throughput": 1000});
        });
        fake.meddle("containers/eventscontainer", |container| {
            let resource = &mut container["properties"]["resource"];
            resource["indexingPolicy"]["includedPaths"] = json!([{"path": "/*"}]);
            resource["defaultTtl"] = json!(3600);
            resource["conflictResolutionPolicy"] = json!({"mode": "LastWriterWins"});
        });
        let found = plan(&arm, &settings).await.expect("it can be looked at");
        assert!(found.blockers().is_empty(), "{:?}", found.blockers());
        let shown: Vec<String> = found
            .steps
            .iter()
            .flat_map(|step| &step.changes)
            .map(|change| format!("{}: {} → {}", change.path, shown(&change.actual), shown(&change.wanted)))
            .collect();
        for line in [
            "properties.consistencyPolicy.defaultConsistencyLevel: \"Eventual\" → \"Session\"",
            "properties.enableMultipleWriteLocations: false → true",
            "properties.locations[westeurope]: {\"failoverPriority\":1} → (not set)",
            "properties.options.throughput: 1000 → 400",
            "properties.resource.indexingPolicy.includedPaths[/eventType/?]: (not set) → \"there\"",
            "properties.resource.indexingPolicy.includedPaths[/*]: \"there\" → (not set)",
            "properties.resource.defaultTtl: 3600 → (not set)",
        ] {
            assert!(shown.iter().any(|shown| shown == line), "{line} in {shown:#?}");
        }
        up(&arm, &settings, &found, &silent).await.expect("all of it can be mended");
        assert!(!plan(&arm, &settings).await.expect("it can be looked at").has_changes());
        // What is not ours is as it was.
        fake.meddle(&account, |account| {
            assert_eq!(account["properties"]["ipRules"][0]["ipAddressOrRange"], "10.0.0.1")
        });
        fake.meddle("containers/eventscontainer", |container| {
            assert_eq!(
                container["properties"]["resource"]["conflictResolutionPolicy"]["mode"],
                "LastWriterWins"
            );
        });
    }
}

#[tokio::test]
async fn drift_of_a_storage_account_is_mended_and_what_is_not_ours_stays() {
    let settings = defaults(Service::Table);
    let (fake, arm) = done(Style::Operation, &settings).await;
    fake.meddle("aieventsourcingstorage", |account| {
        account["sku"]["name"] = json!("Standard_GRS");
        account["properties"]["minimumTlsVersion"] = json!("TLS1_0");
        account["properties"].as_object_mut().expect("an object").remove("allowBlobPublicAccess");
        account["properties"]["isHnsEnabled"] = json!(true);
    });
    let found = plan(&arm, &settings).await.expect("it can be looked at");
    let paths: Vec<&str> = found.steps[1].changes.iter().map(|change| change.path.as_str()).collect();
    assert_eq!(paths, ["properties.allowBlobPublicAccess", "properties.minimumTlsVersion", "sku.name"]);
    up(&arm, &settings, &found, &silent).await.expect("all of it can be mended");
    assert!(!plan(&arm, &settings).await.expect("it can be looked at").has_changes());
    fake.meddle("aieventsourcingstorage", |account| assert_eq!(account["properties"]["isHnsEnabled"], true));
}

#[tokio::test]
async fn throughput_changes_its_kind_both_ways() {
    let manual = defaults(Service::Cosmos);
    let autoscale = settings(Service::Cosmos, Wishes { autoscale: Some(4000), ..Wishes::default() });
    let (_fake, arm) = done(Style::Operation, &manual).await;
    for wanted in [&autoscale, &manual] {
        up_all(&arm, wanted).await.expect("it can be migrated");
        assert!(!plan(&arm, wanted).await.expect("it can be looked at").has_changes());
    }
}

#[tokio::test]
async fn regions_come_and_go_but_never_the_first() {
    let one = defaults(Service::Cosmos);
    let locations = |names: &[&str]| {
        let locations = Some(names.iter().map(|name| (*name).to_owned()).collect());
        settings(
            Service::Cosmos,
            Wishes { locations, account: Some(one.account.clone()), ..Wishes::default() },
        )
    };
    let (fake, arm) = done(Style::Operation, &one).await;
    let two = locations(&["eastus", "West Europe"]);
    let found = plan(&arm, &two).await.expect("it can be looked at");
    assert!(found.notes[0].contains("one home"), "what it means for a log is said: {:?}", found.notes);
    up_all(&arm, &two).await.expect("a region can be added");
    up_all(&arm, &one).await.expect("and removed");
    let moved = locations(&["westeurope", "eastus"]);
    let found = plan(&arm, &moved).await.expect("it can be looked at");
    assert!(
        found.blockers().iter().any(|why| why.contains("failoverPriority is 0, has to be 1")),
        "{:?}",
        found.blockers()
    );
    fake.forget_calls();
    up_all(&arm, &moved).await.expect_err("that would move where logs are written");
    assert!(fake.calls().iter().all(|call| call.starts_with("GET ")), "nothing was changed");
}

#[tokio::test]
async fn what_cannot_be_changed_is_named_with_both_values_before_anything_is() {
    let made = defaults(Service::Cosmos);
    let (fake, arm) = done(Style::Operation, &made).await;
    let wishes =
        |wishes: Wishes| settings(Service::Cosmos, Wishes { account: Some(made.account.clone()), ..wishes });
    for (wanted, says) in [
        (
            wishes(Wishes { partition_key: Some("/eventType,/period".into()), ..Wishes::default() }),
            "the container 'eventsContainer': properties.resource.partitionKey.kind is \"Hash\", has to be \"MultiHash\"",
        ),
        (
            wishes(Wishes { serverless: Some(true), ..Wishes::default() }),
            "properties.capabilities is (not set), has to be",
        ),
    ] {
        fake.forget_calls();
        let error = up_all(&arm, &wanted).await.expect_err("it cannot be");
        assert!(error.message().contains("nothing was changed"), "{error}");
        let found = plan(&arm, &wanted).await.expect("it can be looked at");
        assert!(found.blockers().iter().any(|why| why.contains(says)), "{says}: {:?}", found.blockers());
        assert!(fake.calls().iter().all(|call| call.starts_with("GET ")), "{:?}", fake.calls());
    }
    let storage = defaults(Service::Table);
    let (fake, arm) = done(Style::Operation, &storage).await;
    fake.meddle("aieventsourcingstorage", |account| {
        account["kind"] = json!("BlobStorage");
        account["location"] = json!("West Europe");
    });
    let found = plan(&arm, &storage).await.expect("it can be looked at").blockers();
    assert_eq!(
        found,
        [
            "the storage account 'aieventsourcingstorage': kind is \"BlobStorage\", has to be \"StorageV2\", and cannot be changed once it is there",
            "the storage account 'aieventsourcingstorage': location is \"West Europe\", has to be \"eastus\", and cannot be changed once it is there",
        ]
    );
}

#[tokio::test]
async fn a_database_without_throughput_and_a_serverless_account_are_what_they_are() {
    let serverless = settings(Service::Cosmos, Wishes { serverless: Some(true), ..Wishes::default() });
    let (_fake, arm) = done(Style::Operation, &serverless).await;
    assert!(!plan(&arm, &serverless).await.expect("it can be looked at").has_changes());
    let manual = defaults(Service::Cosmos);
    let found = plan(&arm, &manual).await.expect("it can be looked at").blockers();
    assert!(
        found
            .iter()
            .any(|why| why.contains("properties.capabilities is [\"EnableServerless\"], has to be []")),
        "{found:?}"
    );
    assert!(
        found
            .iter()
            .any(|why| why.contains("properties.options is (not set), has to be {\"throughput\":400}")),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_transient_failure_of_any_call_is_got_over() {
    for service in SERVICES {
        for trouble in [Trouble::NoConnection, Trouble::LostAnswer, Trouble::ServerError] {
            let settings = defaults(service);
            let (count, _) = (calls_of_up(&settings, Style::Operation).await, ());
            for call in 1..=count {
                let fake = fake(Style::Operation);
                fake.script(Script { trouble: Some((call..call + 1, Some(trouble))), ..Script::default() });
                let arm = fake.arm();
                up_all(&arm, &settings)
                    .await
                    .unwrap_or_else(|error| panic!("{trouble:?} at call {call}: {error}"));
                assert!(!plan(&arm, &settings).await.expect("it can be looked at").has_changes());
            }
        }
    }
}

async fn calls_of_up(settings: &Settings, style: Style) -> usize {
    let (fake, _) = done(style, settings).await;
    fake.calls().len()
}

#[tokio::test]
async fn after_an_interruption_at_any_call_a_second_up_finishes() {
    for style in STYLES {
        for service in SERVICES {
            let settings = settings(service, Wishes { entra: Some(true), ..Wishes::default() });
            let count = calls_of_up(&settings, style).await;
            assert!(count > 10, "there is something to interrupt");
            for trouble in [Trouble::NoConnection, Trouble::LostAnswer, Trouble::ServerError] {
                for call in 1..=count {
                    let fake = fake(style);
                    let arm = fake.arm();
                    fake.script(Script {
                        trouble: Some((call..usize::MAX, Some(trouble))),
                        ..Script::default()
                    });
                    let error = up_all(&arm, &settings).await.expect_err("Azure is away");
                    assert!(error.is_retryable(), "{error}");
                    assert!(!error.message().contains(KEY) && !error.message().contains("Bearer"), "{error}");
                    fake.script(Script::default());
                    up_all(&arm, &settings)
                        .await
                        .unwrap_or_else(|error| panic!("{style:?} {trouble:?} from call {call} on: {error}"));
                    let after = plan(&arm, &settings).await.expect("it can be looked at");
                    assert!(!after.has_changes(), "{style:?} {trouble:?} from call {call} on: {after:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn throttling_is_waited_out_as_long_as_azure_says() {
    for service in SERVICES {
        let fake = fake(Style::Operation);
        fake.script(Script { throttle: Some((3, 7)), ..Script::default() });
        let arm = fake.arm();
        let settings = defaults(service);
        up_all(&arm, &settings).await.expect("it is waited out");
        let waits = fake.time().waits();
        assert!(waits.iter().filter(|wait| wait.as_secs() == 7).count() > 2, "{waits:?}");
        assert!(
            waits.iter().any(|wait| wait.as_secs() == 15),
            "operations are looked at when Azure says: {waits:?}"
        );
        assert!(!plan(&arm, &settings).await.expect("it can be looked at").has_changes());
    }
}

#[tokio::test]
async fn the_token_never_goes_to_another_host() {
    for style in STYLES {
        let fake = fake(style);
        fake.script(Script { foreign_links: true, ..Script::default() });
        let arm = fake.arm();
        let settings = defaults(Service::Cosmos);
        up_all(&arm, &settings).await.expect("the resource itself says when it is done");
        assert!(!plan(&arm, &settings).await.expect("it can be looked at").has_changes());
        fake.put(
            &format!("resourcegroups/{}/providers/microsoft.web/sites/theirs", settings.group),
            json!({"name": "theirs", "type": "Microsoft.Web/sites"}),
        );
        let error = inspect(&arm, &settings).await.expect_err("the second page is elsewhere");
        assert!(error.message().contains("the token is not sent there"), "{error}");
        fake.script(Script::default());
        destroy(&arm, &settings, &|_| ()).await.expect("it is gone");
        assert_eq!(fake.strangers(), [""; 0]);
    }
    let arm = fake(Style::Operation).arm();
    for link in [
        "http://management.azure.com/x",
        "https://management.azure.com:444/x",
        "https://a@management.azure.com/x",
        "x",
    ] {
        assert!(arm.ours(link).is_none(), "{link}");
    }
    assert!(arm.ours("https://management.azure.com/x?y=z").is_some());
}

#[tokio::test]
async fn what_azure_refuses_is_said_with_what_to_do_and_nothing_is_half_changed() {
    let script = Script::default;
    for (script, kind, says, remedy) in [
        (
            Script { expired: true, ..script() },
            ErrorKind::Unauthorized,
            "ExpiredAuthenticationToken",
            "az login",
        ),
        (
            Script { other_tenant: true, ..script() },
            ErrorKind::Unauthorized,
            "InvalidAuthenticationTokenTenant",
            "--tenant",
        ),
        (
            Script { forbidden: true, ..script() },
            ErrorKind::Unauthorized,
            "AuthorizationFailed",
            "Contributor",
        ),
        (Script { quota: true, ..script() }, ErrorKind::LimitExceeded, "", "quota"),
        (
            Script { fails_later: Some(("ServiceUnavailable", "high demand in East US")), ..script() },
            ErrorKind::Unavailable,
            "ServiceUnavailable: high demand",
            "another location",
        ),
    ] {
        for service in SERVICES {
            let fake = fake(Style::Operation);
            fake.script(script.clone());
            let arm = fake.arm();
            let error = up_all(&arm, &defaults(service)).await.expect_err("it is refused");
            let message = error.message();
            assert_eq!(error.kind(), kind, "{message}");
            assert!(message.contains(says) && message.contains(remedy), "{message}");
            assert!(!message.contains("signature") && !message.contains("Bearer"), "{message}");
            fake.script(Script::default());
            up_all(&arm, &defaults(service)).await.expect("it goes on from there");
        }
    }
}

#[tokio::test]
async fn another_subscription_is_named_as_such_and_not_taken_for_an_empty_one() {
    let fake = fake(Style::Operation);
    let other = "00000000-0000-0000-0000-000000000000";
    let arm = Arm::new(fake.connection(), other).expect("a GUID");
    let error = plan(&arm, &defaults(Service::Cosmos)).await.expect_err("it is not there");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("--subscription ID names another"), "{error}");
    assert!(Arm::new(fake.connection(), "../x").is_err());
}

#[tokio::test]
async fn a_name_that_is_taken_and_a_region_that_is_not_there_are_in_the_plan() {
    for service in SERVICES {
        let settings = defaults(service);
        let fake = fake(Style::Operation);
        fake.take(&settings.account);
        let arm = fake.arm();
        let found = plan(&arm, &settings).await.expect("it can be looked at");
        assert!(found.blockers()[0].contains("the name is taken"), "{:?}", found.blockers());
        up(&arm, &settings, &found, &silent).await.expect_err("it is in the way");
        assert!(fake.paths().is_empty(), "not even the group was made");
    }
    let wishes = Wishes { locations: Some(vec!["atlantis".into()]), ..Wishes::default() };
    let fake = fake(Style::Operation);
    let arm = fake.arm();
    let found = plan(&arm, &settings(Service::Cosmos, wishes)).await.expect("it can be looked at").blockers();
    assert!(found[0].contains("no location 'atlantis'; it has eastus, "), "{found:?}");
}

#[tokio::test]
async fn a_free_name_is_said_to_be_free() {
    let arm = fake(Style::Operation).arm();
    for service in SERVICES {
        let found = plan(&arm, &defaults(service)).await.expect("it can be looked at");
        assert_eq!(found.steps[1].note.as_deref(), Some("the name is free"));
    }
}

#[tokio::test]
async fn a_group_that_is_not_ours_is_used_and_never_deleted() {
    let settings = defaults(Service::Table);
    let fake = fake(Style::Operation);
    let theirs = json!({"location": "westeurope", "name": settings.group, "tags": {"owner": "somebody"},
        "properties": {"provisioningState": "Succeeded"}});
    fake.put(&format!("resourcegroups/{}", settings.group), theirs.clone());
    let arm = fake.arm();
    let found = plan(&arm, &settings).await.expect("it can be looked at");
    assert_eq!(actions(&found), [Action::Use, Action::Create, Action::Create]);
    up_all(&arm, &settings).await.expect("it is used");
    assert!(!plan(&arm, &settings).await.expect("it can be looked at").has_changes());
    fake.meddle(&format!("resourcegroups/{}", settings.group), |group| assert_eq!(*group, theirs));
    for error in [
        inspect(&arm, &settings).await.expect_err("not ours"),
        destroy(&arm, &settings, &|_| ()).await.expect_err("not ours"),
    ] {
        assert_eq!(error.kind(), ErrorKind::ReadOnly);
        assert!(error.message().contains("nothing was deleted"), "{error}");
    }
    assert!(!fake.calls().iter().any(|call| call.starts_with("DELETE")));
}

#[tokio::test]
async fn destroying_says_what_goes_and_whose_it_is_and_can_be_done_again() {
    for style in STYLES {
        let settings = defaults(Service::Cosmos);
        let (fake, arm) = done(style, &settings).await;
        fake.put(
            &format!("resourcegroups/{}/providers/microsoft.web/sites/theirs", settings.group),
            json!({"name": "theirs", "type": "Microsoft.Web/sites"}),
        );
        let Demolition::Group(doomed) = inspect(&arm, &settings).await.expect("it is ours") else {
            panic!("it is there")
        };
        assert_eq!(doomed.len(), 2, "both pages: {doomed:?}");
        assert!(doomed.iter().any(|d| d.ours && d.name == settings.account), "{doomed:?}");
        assert!(doomed.iter().any(|d| !d.ours && d.name == "theirs"), "{doomed:?}");
        // Azure goes on although nobody waits.
        let count = fake.calls().len();
        fake.script(Script {
            trouble: Some((count + 3..usize::MAX, Some(Trouble::NoConnection))),
            ..Script::default()
        });
        destroy(&arm, &settings, &|_| ()).await.expect_err("Azure is away");
        fake.script(Script::default());
        assert!(matches!(
            inspect(&arm, &settings).await.expect("it can be looked at"),
            Demolition::Nothing | Demolition::UnderWay
        ));
        destroy(&arm, &settings, &|_| ()).await.expect("it is gone");
        assert!(fake.paths().is_empty(), "{:?}", fake.paths());
        destroy(&arm, &settings, &|_| ()).await.expect("there is nothing any more");
        assert_eq!(inspect(&arm, &settings).await.expect("it can be looked at"), Demolition::Nothing);
        up_all(&arm, &settings).await.expect("and it can be made again");
    }
}

#[tokio::test]
async fn while_the_group_is_being_deleted_up_waits_and_makes_it_again() {
    let settings = defaults(Service::Table);
    let (fake, arm) = done(Style::Operation, &settings).await;
    let group = definition(&settings).remove(0);
    arm.resource(azure_core::http::Method::Delete, &group, &[], None).await.expect("202");
    let found = plan(&arm, &settings).await.expect("it can be looked at");
    assert_eq!(actions(&found), [Action::Wait, Action::Create, Action::Create]);
    assert!(found.blockers().is_empty(), "its own name is not taken: {:?}", found.blockers());
    up(&arm, &settings, &found, &silent).await.expect("it waits");
    assert!(!plan(&arm, &settings).await.expect("it can be looked at").has_changes());
    drop(fake);
}

#[tokio::test]
async fn a_lock_is_named_and_nothing_is_deleted() {
    let settings = defaults(Service::Table);
    let (fake, arm) = done(Style::Operation, &settings).await;
    let before = fake.paths();
    fake.script(Script { locked: true, ..Script::default() });
    let error = destroy(&arm, &settings, &|_| ()).await.expect_err("it is locked");
    assert_eq!(error.kind(), ErrorKind::ReadOnly);
    assert!(error.message().contains("az lock list"), "{error}");
    assert_eq!(fake.paths(), before);
}

#[tokio::test]
async fn the_store_is_where_azure_put_the_account() {
    for (endpoint, url) in [
        ("https://acct.z12.table.storage.azure.net/", "table://acct.z12.table.storage.azure.net/eventsTable"),
        ("http://127.0.0.1:10002/acct/", "table+http://127.0.0.1:10002/acct/eventsTable"),
    ] {
        let settings = settings(Service::Table, Wishes { account: Some("acct".into()), ..Wishes::default() });
        let fake = fake(Style::Operation);
        fake.keep_data_in(DataPlanes {
            cosmos: "https://there.example/".into(),
            cosmos_key: KEY.into(),
            table: endpoint.into(),
            table_key: KEY.into(),
        });
        let arm = fake.arm();
        up_all(&arm, &settings).await.expect("nothing is in the way");
        let found = outputs(&arm, &settings, true).await.expect("they are there");
        assert_eq!(found.url, url);
        // What is printed is understood by whoever opens it.
        let environment = |name: &str| {
            found.environment.iter().find(|output| output.name == name).map(|output| match &output.value {
                Shown::Secret(secret) => secret.as_ref().expect("it was asked for").secret().to_owned(),
                Shown::Plain(text) => text.clone(),
            })
        };
        let connection = environment("AZURE_STORAGE_CONNECTION_STRING").expect("a connection string");
        assert!(connection.ends_with(&format!("TableEndpoint={endpoint}")), "{endpoint}");
        let opened =
            table::Settings::parse_with(&found.url, table::Options::default(), CLOUDS[0], environment);
        assert_eq!(opened.expect("a table").endpoint.as_str(), endpoint);
    }
}

#[tokio::test]
async fn outputs_have_their_names_and_keys_are_fetched_only_to_be_shown() {
    for (service, names) in [
        (Service::Cosmos, ["cosmosdb_endpoint", "primary_master_key"]),
        (Service::Table, ["primary_storage_connection_string", "table_name"]),
    ] {
        let settings = defaults(service);
        let (fake, arm) = done(Style::Operation, &settings).await;
        let hidden = outputs(&arm, &settings, false).await.expect("they are there");
        assert_eq!(hidden.values.iter().map(|output| output.name).collect::<Vec<_>>(), names);
        assert!(!format!("{hidden:?}").contains(KEY));
        assert!(!fake.calls().iter().any(|call| call.ends_with("listKeys")), "nobody asked for the key");
        let shown = outputs(&arm, &settings, true).await.expect("they are there");
        assert!(!format!("{shown:?}").contains(KEY), "not even where it is debugged");
        let secret = |name: &str| {
            let all = shown.values.iter().chain(&shown.environment);
            all.filter(|output| output.name == name)
                .find_map(|output| match &output.value {
                    Shown::Secret(secret) => secret.as_ref().map(|secret| secret.secret().to_owned()),
                    Shown::Plain(text) => Some(text.clone()),
                })
                .unwrap_or_default()
        };
        match service {
            Service::Cosmos => {
                let endpoint = format!("https://{}.documents.azure.com:443/", settings.account);
                assert_eq!(secret("cosmosdb_endpoint"), endpoint);
                assert_eq!(secret("primary_master_key"), KEY);
                assert_eq!(
                    secret("AZURE_COSMOS_CONNECTION_STRING"),
                    format!("AccountEndpoint={endpoint};AccountKey={KEY};")
                );
                assert_eq!(
                    shown.url,
                    format!("cosmos://{}/eventSourcingDb/eventsContainer", settings.account)
                );
            }
            Service::Table => {
                let connection = format!(
                    "DefaultEndpointsProtocol=https;AccountName=aieventsourcingstorage;AccountKey={KEY};EndpointSuffix=core.windows.net"
                );
                assert_eq!(secret("primary_storage_connection_string"), connection);
                assert_eq!(secret("AZURE_STORAGE_CONNECTION_STRING"), connection);
                assert_eq!(secret("table_name"), "eventsTable");
                assert_eq!(shown.url, "table://aieventsourcingstorage/eventsTable");
            }
        }
        assert_eq!(secret("PRECEDENT_URL"), shown.url);
    }
}

#[tokio::test]
async fn with_entra_there_is_no_secret_at_all() {
    for service in SERVICES {
        let settings = settings(service, Wishes { entra: Some(true), ..Wishes::default() });
        let (fake, arm) = done(Style::Operation, &settings).await;
        let found = outputs(&arm, &settings, true).await.expect("they are there");
        assert!(found.keyless);
        assert!(
            found
                .values
                .iter()
                .chain(&found.environment)
                .all(|output| matches!(output.value, Shown::Plain(_)))
        );
        assert!(!fake.calls().iter().any(|call| call.ends_with("listKeys")));
        assert_eq!(caller(&arm).await.expect("the token says").id, CALLER);
    }
}

#[tokio::test]
async fn a_role_that_somebody_assigned_under_another_name_is_found() {
    for service in SERVICES {
        let settings = settings(service, Wishes { entra: Some(true), ..Wishes::default() });
        let (fake, arm) = done(Style::Operation, &settings).await;
        let role = definition(&settings).pop().expect("it is the last");
        let path = role.id().to_ascii_lowercase();
        let other = path.replace(&role.name, "77777777-0000-0000-0000-000000000000");
        let body = arm.filled(&role.body);
        let kept = fake.paths();
        assert!(kept.iter().any(|there| there.ends_with(&role.name)));
        fake.rename(&role.name, &other.replace("{subscription}", SUBSCRIPTION), body);
        assert!(!plan(&arm, &settings).await.expect("it can be looked at").has_changes());
        up_all(&arm, &settings).await.expect("there is nothing to do");
    }
}

#[tokio::test]
async fn in_a_sovereign_cloud_everything_is_there_and_nothing_in_the_public_one() {
    for cloud in [CLOUDS[1], CLOUDS[2]] {
        for service in SERVICES {
            let settings = Settings { cloud, ..defaults(service) };
            let fake = Fake::new(cloud, Style::Operation);
            let arm = fake.arm();
            up_all(&arm, &settings).await.expect("nothing is in the way");
            assert_eq!(fake.strangers(), [""; 0]);
            let found = outputs(&arm, &settings, true).await.expect("they are there");
            let all: Vec<String> = found
                .values
                .iter()
                .chain(&found.environment)
                .map(|output| match &output.value {
                    Shown::Plain(text) => text.clone(),
                    Shown::Secret(secret) => secret.as_ref().expect("it was asked for").secret().to_owned(),
                })
                .collect();
            let suffix = match service {
                Service::Cosmos => cloud.cosmos_suffix,
                Service::Table => cloud.storage_suffix,
            };
            assert!(all.iter().any(|value| value.contains(suffix)), "{all:?}");
            assert!(
                all.iter().any(|value| value == cloud.name),
                "AZURE_CLOUD is in the environment: {all:?}"
            );
        }
    }
}

#[tokio::test]
async fn progress_is_told_and_every_thing_that_began_is_done() {
    let fake = fake(Style::Operation);
    let arm = fake.arm();
    let settings = defaults(Service::Cosmos);
    let told = Mutex::new(Vec::new());
    let tell = |progress: Progress<'_>| {
        let line = match progress {
            Progress::Begins { what, at, of } => format!("{at}/{of} {what}"),
            Progress::Waits { .. } => "waits".to_owned(),
            Progress::Did { what } => format!("did {what}"),
        };
        told.lock().expect("no panic").push(line);
    };
    let found = plan(&arm, &settings).await.expect("it can be looked at");
    up(&arm, &settings, &found, &tell).await.expect("nothing is in the way");
    let told = told.into_inner().expect("no panic");
    assert!(told.contains(&"4/4 making the container 'eventsContainer'".to_owned()), "{told:?}");
    assert!(told.contains(&"waits".to_owned()), "{told:?}");
    let begun = told.iter().filter(|line| line.contains('/')).count();
    assert_eq!(begun, told.iter().filter(|line| line.starts_with("did")).count(), "{told:?}");
}

#[tokio::test]
async fn a_name_cannot_lead_elsewhere_in_a_url() {
    let fake = fake(Style::Operation);
    let arm = fake.arm();
    let mut group = definition(&defaults(Service::Table)).remove(0);
    for name in ["a/../b", "a?b", "a#b", "a%2Fb", "ä b"] {
        group.path = vec!["resourceGroups".into(), name.into()];
        let answer = arm.resource(azure_core::http::Method::Get, &group, &[], None).await.expect("an answer");
        assert_eq!(answer.status, 404);
        let call = fake.calls().pop().expect("one call");
        assert_eq!(call.matches('/').count(), 4, "{call}");
    }
    for name in ["..", ".", ""] {
        group.path = vec!["resourceGroups".into(), name.into()];
        arm.resource(azure_core::http::Method::Get, &group, &[], None).await.expect_err("it is no name");
    }
}
