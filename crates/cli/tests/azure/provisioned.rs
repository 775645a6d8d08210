//! What `provision up` made can be used at once, at the URL and with the environment it prints.
//!
//! Resource Manager is played; what it made is made at the emulators too, as Azure does.

use precedent_azure::cloud::CLOUDS;
use precedent_azure::provision::fake::{DataPlanes, Fake, SUBSCRIPTION, Style};
use precedent_azure::provision::{
    Output, Outputs, Principal, Service, Settings, Shown, Wishes, outputs, plan, up,
};
use precedent_emulators::azurite;
use precedent_emulators::cosmos::{Account, Container, KEY};
use serde_json::Value;

use crate::common::Place;
use crate::services::{self, Cosmos, runtime, table};

/// Makes everything; answers what it is called, and what there is, by path.
fn provision(service: Service, wishes: &Wishes, planes: DataPlanes) -> (Outputs, Vec<(String, Value)>) {
    let fake = Fake::new(CLOUDS[0], Style::Operation);
    fake.keep_data_in(planes);
    let nobody: Option<Principal> = None;
    let settings = Settings::new(service, CLOUDS[0], Some(SUBSCRIPTION.into()), wishes, nobody).unwrap();
    let arm = fake.arm();
    let found = runtime().block_on(async {
        let plan = plan(&arm, &settings).await.unwrap();
        up(&arm, &settings, &plan, &|_| ()).await.unwrap();
        outputs(&arm, &settings, true).await.unwrap()
    });
    let made = fake.paths().into_iter().map(|path| (path.clone(), fake.resource(&path).unwrap())).collect();
    (found, made)
}

/// Records the first event and reads it, in the environment that was printed and no other.
fn works(found: &Outputs) {
    let place = Place::new();
    let run = |line: &[&str]| {
        let mut command = place.command(line);
        for Output { name, value } in &found.environment {
            let value = match value {
                Shown::Plain(text) => text.clone(),
                Shown::Secret(secret) => secret.as_ref().expect("it was asked for").secret().to_owned(),
            };
            command.env(name, value);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{line:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    };
    run(&["append", "--type", "ai.decision.made", "--data", r#"{"decision":"approve"}"#]);
    let read: Value = serde_json::from_str(&run(&["read", "--json"])).unwrap();
    assert_eq!((&read["position"], &read["data"]["decision"]), (&"0".into(), &"approve".into()));
    run(&["read", "--json", "--store", &found.url]);
    run(&["verify"]);
    run(&["doctor"]);
}

fn planes(cosmos: &str, table: &str) -> DataPlanes {
    DataPlanes {
        cosmos: cosmos.to_owned(),
        cosmos_key: KEY.to_owned(),
        table: table.to_owned(),
        table_key: azurite::KEY.to_owned(),
    }
}

#[test]
fn a_container_that_was_provisioned_takes_the_first_event() {
    for partition_key in ["/eventType", "/eventType,/period"] {
        let cosmos = Cosmos::start(Account::default());
        let wishes = Wishes { partition_key: Some(partition_key.into()), ..Wishes::default() };
        let (found, made) =
            provision(Service::Cosmos, &wishes, planes(&cosmos.endpoint, "http://127.0.0.1:1/nobody/"));
        let (_, container) =
            made.iter().find(|(path, _)| path.contains("/containers/")).expect("there is a container");
        let resource = |path_part: &str| {
            let of =
                |(path, _): &&(String, Value)| path.contains(path_part) && !path.contains("/containers/");
            made.iter().find(of).map(|(_, made)| made["name"].as_str().unwrap().to_owned()).unwrap()
        };
        let database = resource("/sqldatabases/");
        cosmos.emulator.create_database(&database);
        let resource = &container["properties"]["resource"];
        let paths = resource["partitionKey"]["paths"].as_array().unwrap();
        let paths: Vec<&'static str> =
            paths.iter().map(|path| &*path.as_str().unwrap().to_owned().leak()).collect();
        assert_eq!(paths.join(","), partition_key);
        let config = Container { partition_key: paths, ..Container::default() };
        cosmos.emulator.create_container(&database, resource["id"].as_str().unwrap(), &config);

        assert_eq!(found.url, cosmos.url("eventSourcingDb", "eventsContainer"));
        works(&found);
    }
}

#[test]
fn a_table_that_was_provisioned_takes_the_first_event() {
    let Some(azurite) = services::azurite() else { return };
    let name = azurite.fresh_name();
    let wishes =
        Wishes { account: Some(azurite::ACCOUNT.into()), table: Some(name.clone()), ..Wishes::default() };
    let (found, made) =
        provision(Service::Table, &wishes, planes("https://nobody.example/", &azurite.endpoint()));
    let made = made.iter().filter(|(path, _)| path.contains("/tables/"));
    let names: Vec<&str> = made.map(|(_, table)| table["name"].as_str().unwrap()).collect();
    assert_eq!(names, [name.as_str()]);
    assert_eq!(found.url, azurite.url(&name));
    assert!(runtime().block_on(async { table(&found.url).client().create_table().await }).unwrap());
    works(&found);
}
