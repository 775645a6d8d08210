//! A log that moves between a directory and a service, and one that is recorded there directly.

use std::process::Stdio;

use serde_json::json;

use crate::common::{Place, Running, agent_runs, within};
use crate::services::{Service, emulators, remote, runtime};

/// The agent runs go to a service and back, and are recorded there directly.
pub(crate) fn there_and_back(service: &Service) {
    let Some(file) = agent_runs() else { return };
    let counts = json!({"ai.model.called": 2454, "ai.tool.called": 1164, "ai.outcome.observed": 200, "ai.input.received": 149});
    let (name, url) = (service.name, service.log("moved"));
    let import = |place: &Place, store: &str| {
        let format = ["import", "--json", "--format", "openai-messages"];
        let line = format.into_iter().chain([file.to_str().unwrap(), "--store", store]);
        place.run_with(line, b"").ends(0).json()
    };
    let place = service.machine();
    let root = import(&place, "./a")["root"].as_str().unwrap().to_owned();
    let copied = place.run(&format!("copy --from ./a --to {url} --json")).ends(0).json();
    assert_eq!((&copied["copied"], &copied["root"]), (&json!(3967), &json!(root)), "{name}");
    place.run(&format!("verify --store {url} --expect 3967:{root}")).ends(0);
    assert_eq!(place.run(&format!("copy --from ./a --to {url} --json")).ends(0).json()["copied"], 0);
    for line in ["read --json --stream run/0/0", "read --json --type ai.outcome.observed"] {
        let [there, here] =
            [url.as_str(), "./a"].map(|store| place.run(&format!("{line} --store {store}")).ends(0).out());
        assert!(!here.is_empty() && there == here, "{name}: {line}");
    }
    // Another machine brings it home.
    let other = service.machine();
    let back = other.run(&format!("copy --from {url} --to ./b --json")).ends(0).json();
    assert_eq!((&back["copied"], &back["root"]), (&json!(3967), &json!(root)), "{name}");
    other.run(&format!("verify --store ./b --expect 3967:{root}")).ends(0);

    let direct = service.log("direct");
    let imported = import(&other, &direct);
    assert_eq!((&imported["recorded"], &imported["types"]), (&json!(3967), &counts), "{name}");
    assert_eq!(import(&place, &direct)["existing"], 3967);
    other.run(&format!("verify --store {direct}")).ends(0);
    let seen = place.run(&format!("doctor --store {direct} --json")).ends(0).json();
    assert_eq!(seen["events"], 3967, "{name}: {seen}");
    let findings = seen["findings"].as_array().unwrap();
    assert!(!findings.iter().any(|finding| finding["severity"] == "error"), "{name}: {seen}");
}

#[test]
fn the_agent_runs_go_there_and_back_and_are_what_they_were() {
    emulators().iter().for_each(there_and_back);
}

#[test]
fn a_copy_that_was_killed_goes_on_where_it_stood() {
    let Some(file) = agent_runs() else { return };
    for service in emulators() {
        let (name, url, source) = (service.name, &service.url, service.machine());
        let import = ["import", "--format", "openai-messages", file.to_str().unwrap(), "--store", "./a"];
        source.run_with(import, b"").ends(0);
        let copy = ["copy", "--from", "./a", "--to", url, "--json"];
        let mut command = source.command(copy);
        let mut copying = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let runtime = runtime();
        let (remote, main) = (runtime.block_on(remote(url)), "main".parse().unwrap());
        let has_frames = async || {
            let log = remote.log(&main).await.expect("it answers")?;
            remote.has_frame(log.id, 1).await.expect("it answers").then_some(())
        };
        within(|| {
            assert!(copying.0.try_wait().unwrap().is_none(), "{name}: it was done before it was killed");
            runtime.block_on(has_frames())
        });
        drop(copying);
        let had = source.run(&format!("head --json --store {url}")).ends(0).json()["size"].as_u64().unwrap();
        assert!((1..3967).contains(&had), "{name}: {had}");
        let rest = source.run_with(copy, b"").ends(0).json();
        assert_eq!(rest["copied"], 3967 - had, "{name}");
        assert_eq!(rest["root"], source.run("head --json --store ./a").ends(0).json()["root"]);
        source.run(&format!("verify --store {url}")).ends(0);
    }
}
