//! What is wrong is said: what it is, and what to do; and no credential with it.

use precedent_emulators::azurite;
use precedent_emulators::cosmos::{Container, KEY};

use crate::common::Place;
use crate::services::{CONTAINER, Cosmos, DATABASE, azurite, fresh_table};

const SECRET: &str = "c2VjcmV0IG9mIGEgdGVzdA==";

/// Reading and recording at this URL both end with 2, and stderr has these texts and no key.
#[track_caller]
fn refused(url: &str, environment: &[(&str, &str)], texts: &[&str]) {
    let place = Place::new();
    let store = ["--store", url];
    for line in [&["append", "--type", "t"][..], &["read"], &["verify"], &["doctor"], &["head"]] {
        let mut command = place.command(line.iter().chain(&store));
        command.envs(environment.iter().copied());
        let output = command.output().unwrap();
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{url}, {line:?}: {said}");
        for text in texts {
            assert!(said.contains(text), "{url}, {line:?}: '{text}' is not in: {said}");
        }
        assert!(said.lines().count() < 6, "{said}");
        for secret in [SECRET, KEY, azurite::KEY, "SharedKey", "sig="] {
            assert!(!said.contains(secret), "{url}, {line:?}: {said}");
        }
    }
}

#[test]
fn a_container_that_is_not_what_a_log_needs() {
    let cosmos = Cosmos::with(&Container::default());
    let other = Container { partition_key: vec!["/source"], ..Container::default() };
    cosmos.emulator.create_container(DATABASE, "other", &other);
    refused(
        &cosmos.url(DATABASE, "nothing"),
        &[],
        &["eventSourcingDb/nothing", "precedent provision cosmos up"],
    );
    refused(
        &cosmos.url("nowhere", CONTAINER),
        &[],
        &["nowhere/eventsContainer", "precedent provision cosmos up"],
    );
    refused(&cosmos.url(DATABASE, "other"), &[], &["/source", "/eventType"]);
}

#[test]
fn a_table_that_is_not_there_or_does_not_let_us_in() {
    let Some(azurite) = azurite() else { return };
    refused(&azurite.url("nothing"), &[], &["'nothing'", "precedent provision table up"]);
    let url = fresh_table(azurite);
    let wrong = format!("AccountName={};AccountKey={SECRET}", azurite::ACCOUNT);
    refused(&url, &[("AZURE_STORAGE_CONNECTION_STRING", &wrong)], &["403", azurite::ACCOUNT]);
    let other = format!("AccountName=another;AccountKey={SECRET}");
    refused(&url, &[("AZURE_STORAGE_CONNECTION_STRING", &other)], &["another", azurite::ACCOUNT]);
    let unknown = url.replace(azurite::ACCOUNT, "nobody");
    refused(&unknown, &[], &["nobody"]);
}

#[test]
fn where_nobody_answers() {
    // The address is taken and nobody listens there.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    drop(socket);
    refused(&format!("table+http://127.0.0.1:{port}/devstoreaccount1/events"), &[], &["127.0.0.1"]);
    refused(&format!("cosmos+http://127.0.0.1:{port}/db/container"), &[], &["127.0.0.1"]);
}

#[test]
fn urls_that_make_no_sense() {
    for (url, text) in [
        ("cosmos://account/database", "cosmos://ACCOUNT/DATABASE/CONTAINER"),
        ("cosmos://account/database/container/more", "cosmos://ACCOUNT/DATABASE/CONTAINER"),
        ("cosmos+http://example.org:80/database/container", "example.org"),
        ("table://account", "table://ACCOUNT/TABLE"),
        ("table+http://example.org:80/account/table", "example.org"),
        ("table://account/table?item_bytes=many", "item_bytes"),
        ("table://account/ta-ble", "ta-ble"),
        ("cosmos://key:c2VjcmV0IG9mIGEgdGVzdA==@account/d/c", "credential"),
        ("table://key:c2VjcmV0IG9mIGEgdGVzdA==@account/t", "credential"),
    ] {
        refused(url, &[], &[text]);
    }
}
