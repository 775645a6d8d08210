//! Events on the move: import, export, copy; nothing lost, nothing invented, nothing twice.

mod common;

use std::collections::BTreeMap;

use common::{Place, agent_runs};
use serde_json::{Value, json};

/// What every shape of data looks like as a line.
const EVENTS: &str = concat!(
    r#"{"specversion":"1.0","id":"1","source":"s","type":"t","subject":"q","data":{ "a" : 1.00, "b":[1e2,"\u00e9"] }}"#,
    "\n",
    r#"{"specversion":"1.0","id":"2","source":"s","type":"t","subject":"q","datacontenttype":"text/plain","data":"line\nbreak"}"#,
    "\n",
    r#"{"specversion":"1.0","id":"3","source":"s","type":"t","data_base64":"AP8=","tags":"a=1%2C2,b=x","position":"mine"}"#,
    "\r\n\n",
    r#"{"specversion":"1.0","id":"4","source":"s","type":"t","time":"2026-11-22T10:00:00.120+01:00","partitionkey":"p"}"#,
    "\n"
);

#[test]
fn importing_twice_records_nothing_new_and_says_so() {
    let place = Place::new();
    place.write("events.ndjson", EVENTS);
    let first = place.run("import --json --format cloudevents events.ndjson").ends(0).json();
    assert_eq!((&first["recorded"], &first["existing"], &first["size"]), (&json!(4), &json!(0), &json!(4)));
    let again = place.run("import --json --format cloudevents events.ndjson").ends(0).json();
    assert_eq!((&again["recorded"], &again["existing"]), (&json!(0), &json!(4)));
    assert_eq!(again["root"], first["root"]);
    assert!(place.run("import events.ndjson").ends(0).out().contains("nothing new"));
    place.run_with(["import", "--format", "cloudevents", "-"], EVENTS.as_bytes()).ends(0);
    assert_eq!(place.run("head --json").json()["size"], 4);
}

#[test]
fn an_array_and_lines_are_the_same_to_import() {
    let place = Place::new();
    let lines: Vec<&str> = EVENTS.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    place.write("batch.json", format!("[\n {}\n]\n", lines.join("\n ,")));
    place.run("import --store ./a batch.json").ends(0);
    place.write("events.ndjson", EVENTS);
    place.run("import --store ./b events.ndjson").ends(0);
    assert_eq!(content(&place, "./a"), content(&place, "./b"));
}

#[test]
fn events_in_the_native_shape_are_imported_too_more_than_one_append_takes() {
    let place = Place::new();
    let mut lines = String::from(concat!(
        r#"{"specversion":"1.0","id":"c","source":"s","type":"t"}"#,
        "\n",
        r#"{"id":"n","source":"s","type":"t","stream":"q","tags":["a=b"],"data":{"x": 1}}"#,
        "\n"
    ));
    for n in 0..10_001 {
        lines += &format!("{{\"id\":\"{n}\",\"source\":\"s\",\"type\":\"t\"}}\n");
    }
    place.write("events.ndjson", &lines);
    let refused = place.run("append events.ndjson").ends(2);
    assert!(refused.err().contains("precedent import"), "{}", refused.err());
    let imported = place.run("import --json events.ndjson").ends(0).json();
    assert_eq!((&imported["recorded"], &imported["size"]), (&json!(10_003), &json!(10_003)));
    let native = place.run("read --json --stream q").ends(0).json();
    assert_eq!(
        (&native["id"], &native["tags"], &native["data"]),
        (&json!("n"), &json!("a=b"), &json!({"x": 1}))
    );
    let wrong = place.run_with(["import", "-"], br#"{"id":"1","source":"s"}"#).ends(2);
    assert!(wrong.err().contains("line 1") && wrong.err().contains("'type'"), "{}", wrong.err());
}

/// The events of a store as an export has them, without what the log added.
fn content(place: &Place, store: &str) -> Vec<String> {
    let exported = place.run(&format!("export --store {store}")).ends(0).out();
    exported.lines().map(without_ours).collect()
}

/// The text of the line but for the attributes of the log: the data stays as it is.
fn without_ours(line: &str) -> String {
    let mut line = line.to_owned();
    for name in ["position", "version", "recordedtime", "leafhash", "precedentlog"] {
        let mark = format!("\"{name}\":\"");
        if let Some(from) = line.find(&mark) {
            let to = from + mark.len() + line[from + mark.len()..].find('"').unwrap() + 1;
            line.replace_range(from..=to, "");
        }
    }
    line
}

#[test]
fn an_export_imported_elsewhere_is_the_same_events_byte_for_byte() {
    let place = Place::new();
    place.write("events.ndjson", EVENTS);
    place.run("import --store ./a events.ndjson").ends(0);
    place.run("export --store ./a --output out.ndjson").ends(0);
    place.run("import --store ./b out.ndjson").ends(0);
    let (a, b) = (content(&place, "./a"), content(&place, "./b"));
    assert_eq!(a.len(), 4);
    assert_eq!(a, b);
    assert!(a[0].contains(r#""data":{ "a" : 1.00, "b":[1e2,"\u00e9"] }"#), "{}", a[0]);
    assert!(a[2].contains(r#""producerposition":"mine""#), "{}", a[2]);
    // Nothing is overwritten, and stdout has the same bytes.
    place.run("export --store ./b --output out.ndjson").ends(2).says("is there already");
    let file = std::fs::read_to_string(place.path().join("out.ndjson")).unwrap();
    assert_eq!(file, place.run("export --store ./a").ends(0).out());
    place.run("export --store ./a --output nowhere/out.ndjson").ends(2).says("nowhere");
    let left: Vec<_> = std::fs::read_dir(place.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 4, "{left:?}");
}

#[test]
fn a_bad_line_is_named_and_everything_before_it_is_recorded() {
    let good = |n: u32| format!("{{\"specversion\":\"1.0\",\"id\":\"{n}\",\"source\":\"s\",\"type\":\"t\"}}");
    let long =
        format!("{{\"specversion\":\"1.0\",\"id\":\"{}\",\"source\":\"s\",\"type\":\"t\"}}", "x".repeat(600));
    for (bad, code, says) in [
        ("nonsense", 2, "not the JSON"),
        ("{\"specversion\":\"1.0\"", 2, "line 3"),
        ("{\"specversion\":\"1.0\",\"id\":\"cut", 2, "does not end"),
        ("{\"id\":\"3\",\"source\":\"s\"}", 2, "'type'"),
        ("{\"specversion\":\"0.3\",\"id\":\"3\",\"source\":\"s\",\"type\":\"t\"}", 2, "0.3"),
        (long.as_str(), 2, "600"),
        (
            "{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\",\"type\":\"other\"}",
            1,
            "already at position 0",
        ),
    ] {
        let place = Place::new();
        place.write("events.ndjson", format!("{}\n{}\n{bad}\n{}\n", good(1), good(2), good(4)));
        let done = place.run("import events.ndjson").ends(code).says("line 3").says(says);
        assert!(done.err().contains("2 events recorded before it"), "{bad}: {}", done.err());
        let ids: Vec<Value> =
            place.run("read --json").ends(0).lines().into_iter().map(|mut e| e["id"].take()).collect();
        assert_eq!(ids, ["1", "2"], "{bad}");
        // Once the line is right, the same import goes on.
        place.write("events.ndjson", format!("{}\n{}\n{}\n{}\n", good(1), good(2), good(3), good(4)));
        let done = place.run("import --json events.ndjson").ends(0).json();
        assert_eq!((&done["recorded"], &done["existing"]), (&json!(2), &json!(2)));
    }
}

#[test]
fn files_that_are_not_what_they_should_be_are_refused() {
    let place = Place::new();
    place.write("open.json", "[{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\",\"type\":\"t\"}");
    place.run("import open.json").ends(2).says("cut off").says("1 event recorded before it");
    place.run("import nowhere.json").ends(2).says("nowhere.json");
    place.run("import .").ends(2).says("directory");
    place.run("import --format csv x").ends(2).says("csv");
    place.run("import").ends(2);
    place.write("empty", "");
    assert_eq!(place.run("import --json --format cloudevents empty").ends(0).json()["recorded"], 0);
    place.run("import --format openai-messages empty").ends(2).says("no runs");
    place.write("runs.json", r#"[{"task_id":1,"traj":[{"role":"user"},{"role":"robot"}]}]"#);
    place
        .run("import --format openai-messages runs.json")
        .ends(2)
        .says("run 0")
        .says("message 1")
        .says("robot");
    place.write(
        "runs.jsonl",
        "{\"id\":\"a\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}\n{\"id\":\"b\"}\n",
    );
    place
        .run("import --format openai-messages runs.jsonl")
        .ends(2)
        .says("run 1 (line 2)")
        .says("1 event recorded before it");
}

#[test]
fn more_than_one_batch_keeps_its_order() {
    let place = Place::new();
    let lines: String = (0..2_500)
        .map(|n| {
            format!(
                "{{\"specversion\":\"1.0\",\"id\":\"{n}\",\"source\":\"s\",\"type\":\"t\",\"data\":{n}}}\n"
            )
        })
        .collect();
    let done = place.run_with(["import", "--json", "-"], lines.as_bytes()).ends(0).json();
    assert_eq!(done["recorded"], 2_500);
    let read = place.run("read --json").ends(0).lines();
    assert_eq!(read.len(), 2_500);
    for (n, event) in read.iter().enumerate() {
        assert_eq!(event["data"], n);
        assert_eq!(event["position"], n.to_string());
    }
}

#[test]
fn a_copy_has_the_same_root_goes_on_where_it_stood_and_is_read_only_until_promoted() {
    let place = Place::new();
    place.write("events.ndjson", EVENTS);
    place.run("import --store ./a events.ndjson").ends(0);
    let first = place.run("copy --from ./a --to ./b --json").ends(0).json();
    assert_eq!((&first["copied"], &first["size"]), (&json!(4), &json!(4)));
    assert_eq!(first["root"], place.run("head --json --store ./a").json()["root"]);
    let again = place.run("copy --from ./a --to ./b --json").ends(0).json();
    assert_eq!(again["copied"], 0);
    place.run("append --type t --store ./b").ends(2).says("copy");
    place.run("append --type t --stream q --store ./a").ends(0);
    assert_eq!(place.run("copy --store ./a --to ./b --json").ends(0).json()["copied"], 1);
    let root = |store: &str| place.run(&format!("head --json --store {store}")).json()["root"].clone();
    assert_eq!(root("./a"), root("./b"));
    place.run("verify --store ./b").ends(0);

    place.run("copy --from ./a --to ./b --promote").ends(0);
    place.run("append --type t --store ./b").ends(0);
    // Now they are two histories.
    place.run("append --type t --store ./a").ends(0);
    place.run("append --type t --store ./c").ends(0);
    place.run("copy --from ./a --to ./b").ends(2);
    place.run("copy --from ./a --to ./c").ends(2);
    place.run("copy --from ./a").ends(2).says("--to");
    place.run("copy --from ./nowhere --to ./d").ends(2).says("no store at ./nowhere");
    assert!(!place.path().join("d").exists());
}

#[test]
fn a_file_of_agent_runs_is_imported_counted_copied_exported_and_imported_again() {
    let Some(file) = agent_runs() else { return };
    let place = Place::new();
    let import =
        ["import", "--json", "--format", "openai-messages", file.to_str().unwrap(), "--store", "./a"];
    let done = place.run_with(import, b"").ends(0).json();
    assert_eq!(
        done["types"],
        json!({"ai.model.called": 2454, "ai.tool.called": 1164, "ai.outcome.observed": 200, "ai.input.received": 149})
    );
    assert_eq!((&done["runs"], &done["recorded"]), (&json!(200), &json!(3967)));
    let again = place.run_with(import, b"").ends(0).json();
    assert_eq!((&again["recorded"], &again["existing"]), (&json!(0), &json!(3967)));
    let root = done["root"].as_str().unwrap();
    place.run(&format!("verify --store ./a --expect 3967:{root}")).ends(0);

    assert_eq!(place.run("copy --from ./a --to ./b --json").ends(0).json()["root"], *root);
    place.run(&format!("verify --store ./b --expect 3967:{root}")).ends(0);
    place.run("export --store ./b --output runs.ndjson").ends(0);
    assert_eq!(place.run("import --store ./c --json runs.ndjson").ends(0).json()["recorded"], 3967);
    assert!(content(&place, "./a") == content(&place, "./c"), "the events differ");

    // Every message of the file is there, and in the last request of its run as it was.
    let runs: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let mut longest: BTreeMap<String, Value> = BTreeMap::new();
    for event in place.run("read --store ./a --json --type ai.model.called").ends(0).lines() {
        assert_eq!(event["source"], "urn:precedent:import:openai-messages");
        longest.insert(event["subject"].as_str().unwrap().to_owned(), event["data"].clone());
    }
    assert_eq!(longest.len(), 200);
    for run in runs.as_array().unwrap() {
        let data = &longest[&format!("run/{}/{}", run["task_id"], run["trial"])];
        let asked = data["request"]["messages"].as_array().unwrap();
        let messages = run["traj"].as_array().unwrap();
        assert_eq!(asked[..], messages[..asked.len()]);
        assert_eq!(data["response"], messages[asked.len()]);
    }
}
