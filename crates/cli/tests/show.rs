//! What `show` and `decisions` print of real runs, of the same call recorded in every way, and of what is wrong.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;

use common::{Place, agent_runs, serve};
use serde_json::{Value, json};

#[test]
fn an_imported_run_reads_like_its_story_and_its_middle_knows_nothing_later() {
    let Some(file) = agent_runs() else { return };
    let runs: Vec<Value> = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let place = Place::new();
    place.run_with(["import", "--format", "openai-messages", file.to_str().unwrap()], b"").ends(0);
    let story = place.run("show run/0/0 --full").ends(0).out();
    let trajectory = runs[0]["traj"].as_array().unwrap();
    // Every message of the run stands in it once, in its order, whole.
    let mut rest = story.as_str();
    for message in trajectory {
        let first = |text: &str| text.lines().find(|line| line.len() > 12).unwrap_or(text).to_owned();
        for line in message["content"].as_str().map(first).into_iter().filter(|line| !line.is_empty()) {
            let at = rest.find(&line).unwrap_or_else(|| panic!("not in its place: {line}"));
            rest = &rest[at + line.len()..];
        }
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            let name = call["function"]["name"].as_str().unwrap();
            let at = rest.find(name).unwrap_or_else(|| panic!("not in its place: {name}"));
            rest = &rest[at + name.len()..];
        }
    }
    assert!(rest.contains("outcome  reward 0.0"), "{rest}");

    // In the middle: exactly the messages the model had, and nothing that came later.
    let steps = place.run("show run/0/0 --json").ends(0).json()["steps"].as_array().unwrap().clone();
    let calls: Vec<&Value> = steps.iter().filter(|step| step["kind"] == "call").collect();
    let answers: Vec<usize> =
        (0..trajectory.len()).filter(|at| trajectory[*at]["role"] == "assistant").collect();
    assert_eq!(calls.len(), answers.len());
    let middle = calls.len() / 2;
    let position = calls[middle]["position"].to_string();
    let then = place.run(&format!("show run/0/0 --json --at {position}")).ends(0);
    let record = then.json();
    let last = record["steps"].as_array().unwrap().last().unwrap();
    let given = last["call"]["messages"].as_array().unwrap();
    assert_eq!(last["call"]["system"][0]["content"], trajectory[0]["content"]);
    assert_eq!(given.len(), answers[middle] - 1, "all but the instructions");
    for (shown, sent) in given.iter().zip(&trajectory[1..]) {
        assert_eq!(shown["role"], sent["role"]);
        let parts = shown["parts"].as_array().unwrap();
        let text: String =
            parts.iter().filter_map(|p| p["content"].as_str().or(p["result"].as_str())).collect();
        assert_eq!(text, sent["content"].as_str().unwrap_or_default());
        let calls: Vec<&Value> = parts.iter().filter(|part| part["type"] == "tool_call").collect();
        let asked = sent["tool_calls"].as_array().map_or(&[][..], |calls| calls);
        assert_eq!(calls.len(), asked.len());
        for (call, asked) in calls.iter().zip(asked) {
            let arguments: Value =
                serde_json::from_str(asked["function"]["arguments"].as_str().unwrap()).unwrap();
            assert_eq!((&call["name"], &call["arguments"]), (&asked["function"]["name"], &arguments));
        }
    }
    for later in trajectory[answers[middle] + 1..].iter().filter_map(|m| m["content"].as_str()) {
        let line = later.lines().next().unwrap_or_default();
        let before = trajectory[..=answers[middle]]
            .iter()
            .any(|m| m["content"].as_str().is_some_and(|c| c.contains(line)));
        assert!(before || line.len() < 20 || !then.out().contains(line), "{line}");
    }
    assert!(
        record["milestones"]["outcomes"].as_array().unwrap().is_empty() && !then.out().contains("reward")
    );

    let rewarded =
        |value: &str| place.run(&format!("decisions --json --outcome reward={value}")).ends(0).lines();
    assert_eq!((rewarded("1").len(), rewarded("1.0").len(), rewarded("1e0").len()), (84, 84, 84));
    let names: Vec<String> = rewarded("1").iter().map(|row| row["key"]["value"].to_string()).collect();
    for (index, run) in runs.iter().enumerate() {
        let trial = runs[..index].iter().filter(|other| other["task_id"] == run["task_id"]).count();
        let trial = run["trial"].as_u64().unwrap_or(trial as u64);
        let name = format!("\"run/{}/{trial}\"", run["task_id"]);
        assert_eq!(names.contains(&name), run["reward"] == 1.0, "{name}");
    }
    assert_eq!(place.run("decisions --json").ends(0).lines().len(), 200);
    assert_eq!(place.run("decisions --json --tag task=3").ends(0).lines().len(), 4);
}

fn post(host: &str, path: &str, media_type: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(host).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

const ASKED: &str = "Where is my order #W2378156?";
const TELLS: &str = "Your order #W2378156 was shipped on 2024-05-14.";

/// The two calls as a provider has them: what is asked, and the whole answer.
fn two_calls(result: &str) -> [(Value, Value); 2] {
    let system = json!({"role": "system", "content": "You are a retail agent."});
    let user = json!({"role": "user", "content": ASKED});
    let call = json!({"id": "call_abc123", "type": "function",
        "function": {"name": "get_order_details", "arguments": "{\"order_id\":\"#W2378156\"}"}});
    let asks = json!({"role": "assistant", "content": null, "tool_calls": [call]});
    let found = json!({"role": "tool", "tool_call_id": "call_abc123", "content": result});
    let tools = json!([{"type": "function", "function": {"name": "get_order_details", "description": "Get an order", "parameters":
        {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]}}}]);
    let request = |messages: Value| json!({"model": "gpt-4o", "temperature": 0.0, "messages": messages, "tools": tools});
    let answer = |message: &Value, reason: &str| {
        json!({"id": "chatcmpl-9x1", "object": "chat.completion", "model": "gpt-4o-2024-08-06",
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": {"prompt_tokens": 812, "completion_tokens": 21}})
    };
    let tells = json!({"role": "assistant", "content": TELLS});
    [
        (request(json!([system, user])), answer(&asks, "tool_calls")),
        (request(json!([system, user, asks, found])), answer(&tells, "stop")),
    ]
}

/// A provider that gives these answers, one after the other.
fn provider(answers: Vec<Value>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (stream, answer) in listener.incoming().flatten().zip(answers) {
            let mut reader = BufReader::new(&stream);
            let (mut line, mut length) = (String::new(), 0);
            while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
                let lower = line.to_ascii_lowercase();
                length = lower
                    .strip_prefix("content-length: ")
                    .and_then(|n| n.trim().parse().ok())
                    .unwrap_or(length);
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let body = answer.to_string();
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
            (&stream)
                .write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes())
                .unwrap();
        }
    });
    address
}

/// What was said of the calls in this store: what a reader reads of it, and what a program does.
fn read_back(place: &Place) -> (Vec<Vec<String>>, Vec<Value>) {
    let mut rows = place.run("decisions --json --type ai.model.called").ends(0).lines();
    rows.reverse();
    let (mut lines, mut calls) = (Vec::new(), Vec::new());
    for row in rows {
        let (name, by) = (row["key"]["value"].as_str().unwrap(), row["key"]["by"].as_str().unwrap());
        let record = place.run_with(["show", name, "--as", by, "--json"], b"").ends(0).json();
        calls.extend(
            record["steps"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|s| s["kind"] == "call")
                .map(|s| s["call"].clone()),
        );
        let shown = place.run_with(["show", name, "--as", by], b"").ends(0).out();
        lines.push(
            shown
                .lines()
                .filter_map(|line| line.trim_start().split_once("  "))
                .filter(|(position, _)| position.parse::<u64>().is_ok())
                .map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>().join(" "))
                .filter(|line| {
                    ["system ", "user ", "→ calls ", "result ", "answer "]
                        .iter()
                        .any(|label| line.starts_with(label))
                })
                .collect(),
        );
    }
    (lines, calls)
}

fn captures() -> Option<PathBuf> {
    let runs = agent_runs()?;
    let folder = runs.parent()?.parent()?.join("otlp-captures");
    if !folder.is_dir() {
        eprintln!("skipped: {} is not there", folder.display());
        return None;
    }
    Some(folder)
}

#[test]
fn the_same_two_calls_are_shown_alike_whatever_way_they_came_in() {
    let mut ways: Vec<(String, Place)> = Vec::new();
    let mut result = "{\"status\": \"shipped\"}".to_owned();
    if let Some(captures) = captures() {
        for dialect in ["genai_span", "genai_event", "tl", "oi", "v2_content"] {
            let place = Place::new();
            let server = serve(&place, &[]);
            let mut files: Vec<PathBuf> = std::fs::read_dir(captures.join(dialect))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            files.retain(|file| file.extension().is_some_and(|extension| extension == "bin"));
            files.sort();
            for file in files {
                let path = if file.to_str().unwrap().contains("traces") { "/v1/traces" } else { "/v1/logs" };
                post(&server.otlp, path, "application/x-protobuf", &std::fs::read(&file).unwrap());
            }
            drop(server);
            let (_, calls) = read_back(&place);
            result = calls[1]["messages"][2]["parts"][0]["result"].as_str().unwrap().to_owned();
            ways.push((dialect.to_owned(), place));
        }
    }
    let calls = two_calls(&result);

    let place = Place::new();
    let provider = provider(calls.iter().map(|(_, answer)| answer.clone()).collect());
    let server = serve(&place, &["--proxy", &format!("openai=http://{provider}"), "--proxy-fail-closed"]);
    for (request, _) in &calls {
        post(
            &server.http,
            "/proxy/openai/v1/chat/completions",
            "application/json",
            request.to_string().as_bytes(),
        );
    }
    drop(server);
    ways.push(("the proxy".into(), place));

    let place = Place::new();
    let server = serve(&place, &[]);
    for (n, (request, answer)) in calls.iter().enumerate() {
        let event = json!({"specversion": "1.0", "id": n.to_string(), "source": "urn:app", "type": "ai.model.called",
            "correlationid": format!("call-{n}"), "data": {"request": request, "response": answer}});
        post(&server.http, "/v1/events", "application/cloudevents+json", event.to_string().as_bytes());
    }
    drop(server);
    ways.push(("CloudEvents".into(), place));

    let place = Place::new();
    for (n, (request, answer)) in calls.iter().enumerate() {
        // As the typed builders write it: the message alone, and what else is known beside it.
        let choice = &answer["choices"][0];
        let data = json!({"request": request, "response": choice["message"], "finish_reason": choice["finish_reason"],
            "model_served": answer["model"], "usage": {"input": 812, "output": 21}});
        let line = json!({"specversion": "1.0", "id": n.to_string(), "source": "urn:app", "type": "ai.model.called",
            "subject": format!("call/{n}"), "data": data});
        place.run_with(["import", "-"], line.to_string().as_bytes()).ends(0);
    }
    ways.push(("by hand".into(), place));

    let squeezed = result.split_whitespace().collect::<Vec<_>>().join(" ");
    let first = vec![
        "system You are a retail agent.".to_owned(),
        format!("user {ASKED}"),
        "→ calls get_order_details({\"order_id\":\"#W2378156\"})".to_owned(),
    ];
    let second = vec![
        first[0].clone(),
        first[1].clone(),
        first[2].clone(),
        format!("result {squeezed}"),
        format!("answer {TELLS}"),
    ];
    let mut reference: Option<Vec<Value>> = None;
    for (way, place) in &ways {
        let (lines, calls) = read_back(place);
        assert_eq!(lines, [first.clone(), second.clone()], "{way}");
        let telling = |call: &Value| {
            let names = [
                "system",
                "messages",
                "output",
                "finish_reasons",
                "model_requested",
                "model_served",
                "parameters",
            ];
            let mut kept: serde_json::Map<String, Value> =
                names.iter().map(|name| ((*name).to_owned(), call[*name].clone())).collect();
            kept.insert("tokens".into(), json!([call["usage"]["input"], call["usage"]["output"]]));
            Value::Object(kept)
        };
        let calls: Vec<Value> = calls.iter().map(telling).collect();
        match &reference {
            None => reference = Some(calls),
            Some(reference) => assert_eq!(&calls, reference, "{way}"),
        }
    }
}

#[test]
fn what_is_hostile_is_shown_and_not_obeyed() {
    let place = Place::new();
    let hostile = "\u{1b}[31mred\u{7} \u{202e}evil\u{2066}\nnext <b>line</b>\r\nthird";
    let event = json!({"specversion": "1.0", "id": "1", "source": "urn:t", "type": "ai.decision.made", "decisionid": "d",
        "data": {"decision": hostile, "reason": hostile, "long": "x".repeat(100_000)}});
    place.run_with(["import", "-"], event.to_string().as_bytes()).ends(0);
    for command in ["show d", "show d --full", "decisions", "show 0"] {
        let out = place.run(command).ends(0).out();
        assert!(
            !out.chars().any(|c| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{2069}').contains(&c)),
            "{out:?}"
        );
        assert!(out.contains("\\u{1b}[31mred"), "{out}");
    }
    // A title stays one short line, however much was decided.
    let event = json!({"specversion": "1.0", "id": "2", "source": "urn:t", "type": "ai.decision.made", "decisionid": "long",
        "data": {"decision": "yes\n".repeat(1 << 20)}});
    place.run_with(["import", "-"], event.to_string().as_bytes()).ends(0);
    let out = place.run("show long").ends(0).out();
    assert!(out.len() < 10_000 && out.lines().all(|line| line.len() < 700), "{} bytes", out.len());
    assert!(out.contains("in full") && out.contains("more characters; --full shows them"), "{out}");
    let short = place.run("show d").out();
    assert!(short.contains("more characters; --full shows them") && short.len() < 10_000, "{}", short.len());
    assert!(place.run("show d --full").out().contains(&"x".repeat(100_000)));
    assert_eq!(place.run("show d --json").json()["steps"][0]["said"]["data"]["decision"], hostile);
}

#[test]
fn what_is_not_there_ends_with_no_and_what_is_unclear_with_a_question() {
    let place = Place::new();
    place.run("show d").ends(2).says("no store");
    let event = |id: &str| {
        json!({"specversion": "1.0", "id": id, "source": "urn:t", "type": "ai.decision.made", "decisionid": id,
            "data": {"decision": "x"}})
    };
    place.run_with(["import", "-"], format!("{}\n{}\n", event("1"), event("d")).as_bytes()).ends(0);
    place.run("show nobody").ends(1).says("no event has 'nobody'");
    place.run("show d --at 0").ends(1).says("up to position 0");
    place.run("show d --at 2001-01-01T00:00:00Z").ends(1).says("nothing was recorded at or before");
    place.run("show d --at 9").ends(1).says("position 9 is not in the log");
    place.run("show d --at yesterday").ends(2).says("RFC 3339");
    place.run("show d --at -1").ends(2).says("'-1' is not");
    place.run_with(["show", ""], b"").ends(2).says("nothing is named");
    place.run("show 99999999999999999999999").ends(1).says("no event has '99999999999999999999999'");
    place.run("show 7 --as position").ends(1).says("position 7 is not in the log, which holds 2 events");
    place.run("show 1").ends(2).says("--as position");
    assert_eq!(place.run("show 1 --as decision --json").ends(0).json()["key"]["value"], "1");
    assert_eq!(place.run("show 1 --as position --json").ends(0).json()["key"]["value"], "d");
    let none = place.run("decisions --outcome a=1").ends(0);
    assert_eq!(none.out(), "");
    place.run("decisions --outcome reward").ends(2).says("name=value");
    assert_eq!(place.run("decisions --limit 1 --json").ends(0).lines().len(), 1);
}

#[cfg(unix)]
#[test]
fn a_reader_that_leaves_is_no_error() {
    let place = Place::new();
    let events: String = (0..3_000)
        .map(|n| {
            let event = json!({"specversion": "1.0", "id": n.to_string(), "source": "urn:t", "type": "ai.tool.called",
                "decisionid": "d", "data": {"name": "find", "result": "x".repeat(200)}});
            format!("{event}\n")
        })
        .collect();
    place.run_with(["import", "-"], events.as_bytes()).ends(0);
    let mut child =
        place.command(["show", "d"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success() && ended.stderr.is_empty(), "{}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn what_is_shown_of_a_run_at_a_position_is_what_a_log_that_ends_there_shows() {
    let Some(file) = agent_runs() else { return };
    let runs: Vec<Value> = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let whole = Place::new();
    let some = whole.write("runs.json", Value::from(runs[..3].to_vec()).to_string());
    whole.run_with(["import", "--format", "openai-messages", some.to_str().unwrap()], b"").ends(0);
    let events = whole.run("read --json").ends(0);
    let events: Vec<&str> = Box::leak(events.out().into_boxed_str()).lines().collect();
    let cut = Place::new();
    let mut shown = 0;
    for (last, event) in events.iter().enumerate() {
        cut.run_with(["import", "-"], event.as_bytes()).ends(0);
        for run in ["run/0/0", "run/1/0", "run/2/0"] {
            let then = whole.run(&format!("show {run} --json --at {last}"));
            let now = cut.run(&format!("show {run} --json"));
            assert_eq!(then.code(), now.code(), "{run} at {last}: {}", then.err());
            if then.code() == 0 {
                assert_eq!(timeless(then.json()), timeless(now.json()), "{run} at {last}");
                shown += 1;
            }
        }
    }
    assert!(shown > events.len(), "{shown} of {}", events.len());
}

/// A record without what says when the log recorded it, and that a moment was asked for.
fn timeless(mut value: Value) -> Value {
    match &mut value {
        Value::Object(members) => {
            for name in ["recorded", "asked"] {
                members.remove(name);
            }
            members.values_mut().for_each(|member| *member = timeless(member.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = timeless(item.take())),
        _ => {}
    }
    value
}
