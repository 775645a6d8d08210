//! Every command as people use it: its answers, its exit codes, and what it says to input that is wrong.

mod common;

use std::process::Stdio;

use common::Place;
use serde_json::json;

#[test]
fn alone_it_prints_help_and_every_command_has_its_own() {
    let place = Place::new();
    let help = place.run("").ends(0).out();
    for command in "serve demo append read head import export verify copy doctor bench".split_whitespace() {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is not in\n{help}");
        let own = place.run(&format!("{command} --help")).ends(0).out();
        for option in ["--store <URL>", "--json", "PRECEDENT_URL", "file:./precedent-data"] {
            assert!(own.contains(option), "{command} --help lacks {option}:\n{own}");
        }
    }
    assert!(place.run("--version").ends(0).out().starts_with("precedent "));
    place.run("remember").ends(2).says("remember");
    place.run("head --loudly").ends(2).says("--loudly");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "nothing of this makes anything");
}

#[test]
fn what_was_appended_with_flags_is_read_back_as_it_was_sent() {
    let place = Place::new();
    let appended = place
        .run_with(
            [
                "append",
                "--type",
                "ai.decision.made",
                "--source",
                "https://loans.example",
                "--stream",
                "loan/1",
                "--id",
                "d-1",
                "--time",
                "2026-11-22T10:00:00+01:00",
                "--tag",
                "model=risk-7",
                "--tag",
                "eu=yes",
                "--attribute",
                "decisionid=dec-1",
                "--data",
                r#"{"score": 0.310, "approve":false}"#,
                "--json",
            ],
            b"",
        )
        .ends(0);
    assert_eq!(
        appended.json(),
        json!({"events": [{"position": 0, "version": 0, "status": "recorded"}], "size": 1})
    );
    let read = place.run("read --json").ends(0);
    let line = read.out();
    assert!(line.contains(r#""data":{"score": 0.310, "approve":false}"#), "{line}");
    let event = &read.lines()[0];
    for (name, value) in [
        ("specversion", "1.0"),
        ("id", "d-1"),
        ("source", "https://loans.example"),
        ("type", "ai.decision.made"),
        ("subject", "loan/1"),
        ("time", "2026-11-22T10:00:00+01:00"),
        ("tags", "model=risk-7,eu=yes"),
        ("decisionid", "dec-1"),
        ("position", "0"),
        ("version", "0"),
    ] {
        assert_eq!(event[name], value, "{name}");
    }
    // Again: the same fact, and another under its name.
    let again = |data: &str| {
        place.run_with(["append", "--type", "t", "--source", "s", "--id", "i", "--data", data, "--json"], b"")
    };
    assert_eq!(again("1").ends(0).json()["events"][0]["status"], "recorded");
    assert_eq!(again("1").ends(0).json()["events"][0]["status"], "existing");
    again("2").ends(1).says("already at position 1");
    assert_eq!(place.run("head --json").ends(0).json()["size"], 2);
}

#[test]
fn defaults_of_append_are_an_id_of_its_own_and_the_command_line_as_the_source() {
    let place = Place::new();
    place.run("append --type note.taken").ends(0);
    place.run("append --type note.taken").ends(0);
    let events = place.run("read --json").ends(0).lines();
    assert_eq!(events.len(), 2);
    assert_ne!(events[0]["id"], events[1]["id"]);
    assert_eq!(events[0]["id"].as_str().unwrap().len(), 36);
    assert_eq!(events[0]["source"], "urn:precedent:cli");
    assert!(events[0].get("data").is_none() && events[0].get("version").is_none());
}

#[test]
fn data_comes_from_the_line_a_file_or_stdin() {
    let place = Place::new();
    place.write("data.json", "\n{\"from\": \"file\"}\n");
    place.write("data.bin", [0, 255, 10]);
    place.run("append --type t --data @data.json").ends(0);
    place.run_with(["append", "--type", "t", "--data", "-"], b" [1, 2.50] \n").ends(0);
    place.run("append --type t --data @data.bin --content-type application/octet-stream").ends(0);
    place.run_with(["append", "--type", "t", "--data", "-5"], b"").ends(0);
    let events = place.run("read --json").ends(0);
    let text = events.out();
    assert!(text.contains(r#""data":{"from": "file"}"#) && text.contains(r#""data":[1, 2.50]"#), "{text}");
    assert_eq!(events.lines()[2]["data_base64"], "AP8K");
    assert_eq!(events.lines()[3]["data"], -5);
    place.run("append --type t --data @nothing.json").ends(2).says("nothing.json");
    place.run("append --type t --data {").ends(2).says("not JSON").says("hint");
    assert_eq!(place.run("head --json").json()["size"], 4);
}

#[test]
fn data_that_would_be_left_on_stdin_is_refused() {
    let place = Place::new();
    for input in ["{\"x\":1}\n", &"x".repeat(1 << 20)] {
        place
            .run_with(["append", "--type", "t"], input.as_bytes())
            .ends(2)
            .says("stdin has data")
            .says("--data -");
    }
    let file = place.write("data.json", "{}");
    let with = |stdin: Stdio| {
        let mut command = place.command(["append", "--type", "t"]);
        command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().code()
    };
    assert_eq!(with(std::fs::File::open(&file).unwrap().into()), Some(2));
    assert!(!place.path().join("precedent-data").exists(), "nothing of this makes a store");

    // What has nothing in it, or nothing yet, is no data.
    assert_eq!(with(Stdio::null()), Some(0));
    let empty = place.write("empty", "");
    assert_eq!(with(std::fs::File::open(empty).unwrap().into()), Some(0));
    let (idle, _writer) = std::io::pipe().unwrap();
    assert_eq!(with(idle.into()), Some(0));
    place.run_with(["append", "--type", "t", "--data", "1"], b"2").ends(0);
    assert_eq!(place.run("head --json").json()["size"], 4);
}

#[test]
fn events_as_json_are_one_batch_or_nothing() {
    let place = Place::new();
    let lines = concat!(
        r#"{"specversion":"1.0","id":"1","source":"s","type":"t","subject":"q","data":{"n":1.00}}"#,
        "\n\n",
        r#"{"id":"2","source":"s","type":"t","stream":"q","tags":["a=b,c"]}"#,
        "\n"
    );
    let done = place.run_with(["append", "--json"], lines.as_bytes()).ends(0);
    assert_eq!(done.json()["events"][1], json!({"position": 1, "version": 1, "status": "recorded"}));
    let array = place
        .write("batch.json", r#"[{"id":"3","source":"s","type":"t"}, {"id":"4","source":"s","type":"t"}]"#);
    place.run_with(["append", array.to_str().unwrap()], b"").ends(0);
    assert_eq!(place.run("head --json").json()["size"], 4);

    for (input, says) in [
        ("", "no events"),
        ("{}\n", "line 1: the attribute 'id' is missing"),
        ("{\"id\":\"9\",\"source\":\"s\",\"type\":\"t\"}\nnonsense\n", "line 2"),
        ("{\"id\":\"9\",\"source\":\"s\",\"type\":\"~ours\"}\n", "~"),
        ("{\"id\":\"9\",\"source\":\"s\",\"type\":\"t\",\"time\":\"noon\"}\n", "RFC 3339"),
        ("{\"id\":\"9\",\"source\":\"s\",\"type\":7}\n", "'type' is 7"),
        ("[{\"id\":\"9\",\"source\":\"s\",\"type\":\"t\"}", "cut off"),
    ] {
        place.run_with(["append", "-"], input.as_bytes()).ends(2).says(says);
    }
    let long = format!("{{\"id\":\"{}\",\"source\":\"s\",\"type\":\"t\"}}", "x".repeat(513));
    place.run_with(["append"], long.as_bytes()).ends(2).says("513").says("512");
    place.run("append - --type t").ends(2);
    place.run("append nowhere.json").ends(2).says("nowhere.json");
    let many = "{\"id\":\"9\",\"source\":\"s\",\"type\":\"t\"}\n".repeat(10_001);
    place.run_with(["append"], many.as_bytes()).ends(2).says("10000").says("import");
    assert_eq!(place.run("head --json").json()["size"], 4, "nothing of these was recorded");
}

#[test]
fn an_expected_version_that_does_not_hold_is_a_no() {
    let place = Place::new();
    place.run("append --type t --stream q --expect-version none").ends(0);
    place.run("append --type t --stream q --expect-version none").ends(1).says("is at version 0");
    place.run("append --type t --stream q --expect-version 0").ends(0);
    place.run("append --type t --stream q --expect-version 5").ends(1).says("expected version 5");
    place.run("append --type t --stream q --expect-version soon").ends(2).says("soon");
    place.run("append --type t --expect-version 1").ends(2).says("one stream");
    assert_eq!(place.run("head --json").json()["size"], 2);
}

fn ten_events(place: &Place) {
    let line = |n: u32| {
        format!(
            "{{\"id\":\"{n}\",\"source\":\"s\",\"type\":\"t{}\",\"stream\":\"q{}\",\"tags\":[\"n={n}\",\"odd={}\"],\"correlationid\":\"c{}\",\
             \"traceparent\":\"00-0af7651916cd43dd8448eb211c80319{}-b7ad6b7169203331-01\",\"time\":\"2026-01-0{}T00:00:00Z\"}}\n",
            n % 3,
            n % 2,
            n % 2,
            n % 4,
            n % 2,
            1 + n % 9
        )
    };
    let lines: String = (0..10).map(line).collect();
    place.run_with(["append"], lines.as_bytes()).ends(0);
}

#[test]
fn read_finds_what_it_is_asked_for_and_nothing_else() {
    let place = Place::new();
    ten_events(&place);
    for (arguments, expected) in [
        ("", "0123456789"),
        ("--stream q1", "13579"),
        ("--type t0 --type t1", "0134679"),
        ("--tag odd=1 --tag n=3", "3"),
        ("--correlation c2", "26"),
        ("--trace 0af7651916cd43dd8448eb211c803191", "13579"),
        ("--decision none", ""),
        ("--after 3 --before 6", "45"),
        ("--after 9", ""),
        ("--limit 3", "012"),
        ("--backward --limit 2", "98"),
        ("--backward --before 3", "210"),
        ("--by time --since 2026-01-03T00:00:00Z --until 2026-01-05T00:00:00Z", "23"),
        ("--until 2020-01-01T00:00:00Z", ""),
        ("--since 2020-01-01T00:00:00Z --stream q0 --type t2", "28"),
    ] {
        let found: String = place
            .run(&format!("read --json {arguments}"))
            .ends(0)
            .lines()
            .iter()
            .map(|event| event["position"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(found, expected, "read {arguments}");
    }
    for (arguments, says) in [
        ("--after 10", "0 to 9"),
        ("--after 5 --before 5", "after 5 and before 5"),
        ("--after -1", "'-1' is not a position"),
        ("--before -1", "'-1' is not a position"),
        ("--after x", "x"),
        ("--limit 0", "0"),
        ("--tag odd", "key=value"),
        ("--stream=", "empty stream"),
        ("--since yesterday", "RFC 3339"),
        ("--by position", "position"),
        ("--follow --backward", "--backward"),
        ("--follow --until 2030-01-01T00:00:00Z", "--until"),
    ] {
        place.run(&format!("read {arguments}")).ends(2).says(says);
    }
}

#[test]
fn recorded_text_cannot_command_the_terminal() {
    let place = Place::new();
    let line =
        r#"{"id":"1","source":"s","type":"t\u202eevil","stream":"q\u2066","data":{"content":"\u001b[31m"}}"#;
    place.run_with(["append"], line.as_bytes()).ends(0);
    let raw = "{\"id\":\"2\",\"source\":\"s\",\"type\":\"ai.input.received\",\"data\":{\"content\":\"a\\u001b[2Jb\\u202ec\"}}";
    place.run_with(["append"], raw.as_bytes()).ends(0);
    let text = place.run("read").ends(0).out();
    assert!(!text.contains(['\u{1b}', '\u{202e}', '\u{2066}']), "{text:?}");
    assert!(text.contains("\\u{202e}evil") && text.contains("a\\u{1b}[2Jb\\u{202e}c"), "{text}");
    let json = place.run("read --json").ends(0).out();
    assert!(json.contains(r#""data":{"content":"\u001b[31m"}"#), "{json}");
}

#[test]
fn reading_never_makes_a_store() {
    let place = Place::new();
    for command in ["read", "head", "export", "verify", "doctor", "read --follow", "copy --to file:./other"] {
        place.run(command).ends(2).says("there is no store at ./precedent-data").says("hint");
    }
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    std::fs::create_dir(place.path().join("notes")).unwrap();
    place.write("notes/diary.txt", "dear diary");
    for command in ["read", "append --type t", "serve --listen 127.0.0.1:0"] {
        place.run(&format!("{command} --store ./notes")).ends(2).says("not a store");
    }
    assert_eq!(std::fs::read_dir(place.path().join("notes")).unwrap().count(), 1);
    for url in ["ftp://x", "cosmos://a/d/c", "file:./x?lgo=main", "http:"] {
        place.run(&format!("head --store {url}")).ends(2).says("error: ");
    }
    place.run("head --store http://127.0.0.1:1").ends(2);
}

#[test]
fn a_store_that_cannot_be_opened_is_named_with_the_reason() {
    let place = Place::new();
    place.write("a-file", "text");
    for command in ["head", "append --type t", "serve --listen 127.0.0.1:0"] {
        let said = place.run(&format!("{command} --store ./a-file")).ends(2).err();
        assert!(said.contains("./a-file is not a directory"), "{command}: {said}");
    }
    let said = place.run("append --type t --store /proc/precedent-nowhere").ends(2).err();
    assert!(said.contains("/proc/precedent-nowhere") && !said.contains("makes a store"), "{said}");
}

#[cfg(unix)]
#[test]
fn a_limit_on_the_size_of_files_is_an_error_and_no_signal() {
    let place = Place::new();
    place.run("append --type t --data 1").ends(0);
    let size = place.run("head --json").ends(0).json();
    place.write("large.json", format!("\"{}\"", "x".repeat(4 << 20)));
    let limited =
        format!("ulimit -f 64; exec {} append --type t --data @large.json", env!("CARGO_BIN_EXE_precedent"));
    let done = std::process::Command::new("sh")
        .args(["-c", &limited])
        .current_dir(place.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(2), "{said}");
    assert!(said.contains("error: ") && said.contains("make room"), "{said}");
    assert_eq!(place.run("head --json").ends(0).json(), size, "what was there before is still there");
}

#[test]
fn the_head_for_programs_is_a_size_and_a_root_in_this_order() {
    let place = Place::new();
    ten_events(&place);
    let root = place.run("verify --json").ends(0).json()["root"].as_str().unwrap().to_owned();
    assert_eq!(place.run("head --json").ends(0).out(), format!("{{\"size\":10,\"root\":\"{root}\"}}\n"));
}

#[test]
fn the_environment_names_the_store_and_the_flag_wins() {
    let place = Place::new();
    place.run("append --type t --store file:./a").ends(0);
    let mut head = place.command(["head", "--json"]);
    let done = head.env("PRECEDENT_URL", "file:./a").output().unwrap();
    assert_eq!(done.status.code(), Some(0));
    let mut head = place.command(["head", "--json", "--store", "./b"]);
    assert_eq!(head.env("PRECEDENT_URL", "file:./a").output().unwrap().status.code(), Some(2));
    place.run("append --type t --store file:./a?log=second").ends(0);
    place.run("append --type t --store file:./a?log=second").ends(0);
    assert_eq!(place.run("head --json --store file:./a?log=second").json()["size"], 2);
    assert_eq!(place.run("head --json --store file:./a").json()["size"], 1);
    place.run("head --store file:./a?log=third").ends(2).says("third");
}

#[test]
fn verify_says_yes_no_and_why() {
    let place = Place::new();
    ten_events(&place);
    let head = place.run("head --json").ends(0).json();
    let root = head["root"].as_str().unwrap().to_owned();
    assert_eq!(root.len(), 64);
    let verified = place.run("verify --json").ends(0).json();
    assert_eq!(
        (&verified["ok"], &verified["size"], &verified["root"]),
        (&json!(true), &json!(10), &json!(root))
    );
    place.run(&format!("verify --expect 10:{root}")).ends(0);
    let other = "0".repeat(64);
    let no = place.run(&format!("verify --expect 10:{other}")).ends(1);
    assert!(no.out().contains(&root) && no.out().contains(&other), "{}", no.out());
    let no = place.run(&format!("verify --json --expect 11:{root}")).ends(1).json();
    assert_eq!(no["ok"], false);
    assert!(no["problems"][0]["message"].as_str().unwrap().contains("11 events were expected, 10 are there"));
    for bad in ["10", "10:xyz", "x:00"] {
        place.run(&format!("verify --expect {bad}")).ends(2).says("SIZE:ROOT");
    }

    // One byte of an entry, somewhere in the middle.
    let folder = place.path().join("precedent-data/logs/main");
    let segment = std::fs::read_dir(&folder)
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|e| e == "seg"))
        .unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(4).position(|w| w == b"odd=").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    let no = place.run("verify").ends(1);
    assert!(!no.out().trim().is_empty(), "the damage is named");
    let no = place.run("verify --json").ends(1).json();
    assert_eq!(no["ok"], false);
    assert!(!no["problems"].as_array().unwrap().is_empty());
    let read = place.run("read --json").ends(2);
    assert!(read.err().contains("error: "), "{}", read.err());
}

#[test]
fn doctor_has_the_promised_shape_and_says_that_nobody_witnesses_the_log() {
    let place = Place::new();
    ten_events(&place);
    let report = place.run("doctor --json").ends(0).json();
    assert_eq!(report["events"], 10);
    assert_eq!(report["log"], "main");
    assert!(report["store"].as_str().unwrap().starts_with("file:"));
    for bytes in ["data_bytes", "log_bytes", "index_bytes"] {
        assert!(report[bytes].is_u64(), "{bytes}");
    }
    let finding = report["findings"].as_array().unwrap().iter().find(|f| f["code"] == "unwitnessed").unwrap();
    assert!(["info", "warning"].contains(&finding["severity"].as_str().unwrap()));
    assert!(place.run("doctor").ends(0).out().contains("unwitnessed"));
}

#[test]
fn the_demo_runs_twice_verifies_and_never_touches_a_log_of_other_things() {
    let place = Place::new();
    let first = place.run("demo").ends(0).out();
    for part in [
        "ai.input.received",
        "ai.retrieval.performed",
        "ai.model.requested",
        "ai.model.called",
        "ai.tool.called",
        "ai.decision.made",
        "ai.decision.overridden",
        "ai.outcome.observed",
        "Verified  10 events",
        "precedent serve",
    ] {
        assert!(first.contains(part), "{part} is not in\n{first}");
    }
    assert!(!first.contains('\u{1b}'), "no colours in a pipe");
    assert!(place.run("demo").ends(0).out().contains("Verified  20 events"));
    // What it offers next works as it stands there.
    let offered = |word: &str| {
        let line = first.lines().find(|l| l.contains(word)).unwrap();
        line.trim().strip_prefix("precedent ").unwrap().to_owned()
    };
    let record = place.run(&format!("{} --json", offered("show decision-"))).ends(0).json();
    assert_eq!(record["steps"].as_array().unwrap().len(), 10);
    place.run(&offered("verify --expect")).ends(0);

    let busy = Place::new();
    busy.run("append --type t").ends(0);
    let beside = busy.run("demo --json").ends(0).says("precedent-data").json();
    assert_eq!(beside["store"], "file:./precedent-demo");
    assert_eq!(beside["verified"], true);
    assert_eq!(busy.run("head --json").json()["size"], 1);
    let named = busy.run("demo --dir here --json").ends(0).json();
    assert_eq!((&named["store"], &named["recorded"]), (&json!("file:here"), &json!(10)));
    busy.run("demo --store file:./there").ends(0);
    assert_eq!(busy.run("head --json --store file:./there").json()["size"], 10);
}
