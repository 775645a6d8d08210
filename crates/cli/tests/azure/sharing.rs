//! Several processes on one log, a server over it, and the documents that others can change.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use azure_data_cosmos::{FeedScope, PartitionKey};
use futures_util::TryStreamExt as _;
use precedent_azure::table::client::Query;
use serde_json::Value;

use crate::common::{Place, Running};
use crate::services::{
    CONTAINER, Cosmos, DATABASE, Service, azurite, emulators, fresh_table, runtime, table,
};

const EVENTS: usize = 200;

/// Events of one stream, as lines.
fn lines(stream: &str) -> String {
    let line = |n: usize| {
        format!(
            r#"{{"specversion":"1.0","id":"{stream}-{n}","source":"s","type":"t","subject":"{stream}","data":{n}}}"#
        )
    };
    (0..EVENTS).map(|n| line(n) + "\n").collect()
}

/// Two machines write to one log, and a third follows it.
pub(crate) fn machines_write_at_once(service: &Service) {
    let (name, url) = (service.name, &service.log("shared"));
    let machines = [service.machine(), service.machine()];
    let reader = service.machine();
    reader.run(&format!("append --type first --store {url}")).ends(0);
    let mut follow = reader.command(["read", "--json", "--follow", "--store", url]);
    let mut follow = Running(follow.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let seen = BufReader::new(follow.0.stdout.take().unwrap()).lines();
    std::thread::scope(|scope| {
        for (place, stream) in machines.iter().zip(["a", "b"]) {
            scope.spawn(move || {
                let all = lines(stream);
                let all: Vec<&str> = all.lines().collect();
                // Small imports, so that they get in each other's way again and again.
                for part in all.chunks(20) {
                    place.run_with(["import", "-", "--store", url], part.join("\n").as_bytes()).ends(0);
                }
            });
        }
    });
    let seen: Vec<Value> = seen
        .take(1 + 2 * EVENTS)
        .map(|line| serde_json::from_str(&line.expect("it goes on")).unwrap())
        .collect();
    for (position, event) in seen.iter().enumerate() {
        assert_eq!(event["position"], position.to_string(), "{name}");
    }
    for stream in ["a", "b"] {
        let of: Vec<&Value> = seen.iter().filter(|event| event["subject"] == stream).collect();
        assert_eq!(of.len(), EVENTS, "{name}");
        for (n, event) in of.iter().enumerate() {
            assert_eq!((&event["data"], &event["version"]), (&n.into(), &n.to_string().into()));
        }
    }
    for place in [&reader, &machines[0]] {
        place.run(&format!("verify --store {url}")).ends(0);
    }
}

/// A server over the service, and somebody who writes beside it.
pub(crate) fn served(service: &Service) {
    let name = service.name;
    let (place, other) = (service.machine(), service.machine());
    let mut serve = place.command(["serve", "--listen", "127.0.0.1:0", "--store", &service.url]);
    let mut server = Running(serve.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let server_url = line.trim().strip_prefix("listening on ").expect("it says where it listens");
    // It serves every log.
    let url = &format!("{server_url}?log={}served", service.prefix);
    place.run(&format!("append --type t --store {url}")).ends(0);
    other.run(&format!("append --type t --store {}", service.log("served"))).ends(0);
    // What was recorded beside it is there when it is asked for the end of the log.
    assert_eq!(place.run(&format!("head --json --store {url}")).ends(0).json()["size"], 2, "{name}");
    assert_eq!(place.run(&format!("read --json --store {url}")).ends(0).lines().len(), 2, "{name}");
    server.interrupt();
    assert_eq!(server.end(), 0, "{name}");
}

#[test]
fn machines_that_write_at_once_lose_nothing_and_who_follows_sees_everything_once() {
    emulators().iter().for_each(machines_write_at_once);
}

#[test]
fn a_server_over_a_service_serves_what_others_record_there() {
    emulators().iter().for_each(served);
}

#[test]
fn a_document_that_somebody_edited_is_named_by_verify() {
    let record = |url: &str| {
        let place = Place::new();
        for decision in ["approve", "deny"] {
            let data = format!(r#"{{"decision":"{decision}"}}"#);
            let line = ["append", "--type", "ai.decision.made", "--data", &data, "--store", url];
            place.run_with(line, b"").ends(0);
        }
        place.run(&format!("verify --store {url}")).ends(0);
        place
    };
    let named = |place: &Place, url: &str| {
        let done = place.run(&format!("verify --store {url}")).ends(1);
        let said = done.out() + &done.err();
        assert!(said.contains("document") && said.contains("position 1"), "{said}");
    };

    let cosmos = Cosmos::with(&Default::default());
    let url = cosmos.url(DATABASE, CONTAINER);
    let place = record(&url);
    runtime().block_on(async {
        let client = cosmos.emulator.client().await;
        let container = client.database_client(DATABASE).container_client(CONTAINER, None).await.unwrap();
        let key = || PartitionKey::from("ai.decision.made");
        let query = "SELECT * FROM c WHERE c.eventType = 'ai.decision.made' ORDER BY c.position";
        let found = container.query_items::<Value>(query, FeedScope::partition(key()), None).await.unwrap();
        let mut documents: Vec<Value> = found.try_collect().await.unwrap();
        assert_eq!(documents.len(), 2, "the plain query finds them");
        let mut edited = documents.pop().unwrap();
        assert_eq!(edited["data"]["decision"], "deny");
        edited["data"]["decision"] = "approve".into();
        let id = edited["id"].as_str().unwrap().to_owned();
        container.replace_item(key(), &id, &edited, None).await.unwrap();
    });
    named(&place, &url);

    let Some(azurite) = azurite() else { return };
    let url = fresh_table(azurite);
    let place = record(&url);
    runtime().block_on(async {
        let client = table(&url);
        let client = client.client();
        let filter = "PartitionKey eq 'type:ai.decision.made'".to_owned();
        let found = client.query(&Query { filter, ..Query::default() }, None).await.unwrap();
        assert_eq!(found.rows.len(), 2, "the plain query finds them");
        let row = &found.rows[1];
        client.delete(&row.key).await.unwrap();
    });
    let done = place.run(&format!("verify --store {url}")).ends(1);
    let said = done.out() + &done.err();
    assert!(said.contains("missing") && said.contains("position 1"), "{said}");
}
