//! The doors of `serve` for what applications tell anyway: what was answered is there after the process is killed.
#![cfg(unix)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;

use common::{Place, Running};
use serde_json::{Value, json};

fn serve(place: &Place, arguments: &[&str]) -> (Running, Value) {
    let mut command = place.command(["--json", "serve", "--listen", "127.0.0.1:0"]);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = Running(command.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (server, serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}")))
}

fn post(url: &Value, path: &str, body: &Value) -> String {
    let host = url.as_str().unwrap().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/json\r\n"
    );
    stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn span(name: &str, content: &str) -> Value {
    let attribute = json!({"key": name, "value": {"stringValue": content}});
    json!({"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "01".repeat(16), "spanId": "02".repeat(8),
        "attributes": [attribute]}]}]}]})
}

#[test]
fn what_an_exporter_was_promised_is_there_after_the_server_is_killed() {
    let place = Place::new();
    let (server, said) = serve(&place, &["--otlp-http", "127.0.0.1:0", "--otlp-grpc", "127.0.0.1:0"]);
    assert!(said["otlp_grpc"].as_str().is_some_and(|url| !url.ends_with(":0")), "{said}");
    let answer = post(&said["otlp_http"], "/v1/traces", &span("gen_ai.request.model", "m"));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let answer = post(&said["otlp_http"], "/v1/traces", &span("http.method", "GET"));
    assert!(answer.contains("rejectedSpans"), "{answer}");
    drop(server);
    let events = place.run("read --json").ends(0).lines();
    assert_eq!(events.len(), 1);
    assert_eq!((&events[0]["type"], &events[0]["source"]), (&json!("ai.model.called"), &json!("otlp")));
    assert!(events[0]["id"].as_str().unwrap().starts_with(&format!(
        "{}-{}-",
        "01".repeat(16),
        "02".repeat(8)
    )));
    place.run("verify").ends(0);
}

#[test]
fn doors_can_be_closed_and_kept_wide_open_and_rules_are_the_users() {
    let place = Place::new();
    place.write("own.rules", "pattern house HOUSE-[0-9]+\n");
    let arguments =
        ["--otlp-http", "127.0.0.1:0", "--otlp-grpc", "off", "--keep-all-spans", "--redaction", "own.rules"];
    let (server, said) = serve(&place, &arguments);
    assert_eq!(said["otlp_grpc"], Value::Null);
    let answer =
        post(&said["otlp_http"], "/v1/traces", &span("note", "HOUSE-1234 sk-abcdefghijklmnopqrstuvwxyz"));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(server);
    let events = place.run("read --json").ends(0).lines();
    let text = events[0].to_string();
    assert!(text.contains("********** sk-abc"), "{text}");
    assert_eq!(events[0]["redactedby"], "house:1");
}

#[test]
fn doors_that_cannot_be_opened_are_told() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    place.run(&format!("serve --listen 127.0.0.1:0 --otlp-http {taken}")).ends(2).says(&taken.to_string());
    place.run("serve --listen 127.0.0.1:0 --otlp-http 0.0.0.0:0").ends(2).says("0.0.0.0");
    place.run("serve --otlp-http nowhere").ends(2).says("ADDRESS:PORT or off");
    place.run("serve --proxy openai").ends(2).says("NAME=URL");
    place
        .run("serve --proxy a=http://127.0.0.1:1 --proxy a=http://127.0.0.1:2")
        .ends(2)
        .says("two upstreams");
    place.run("serve --proxy-fail-closed").ends(2).says("--proxy");
    place.write("bad.rules", "forbid everything\n");
    place.run("serve --redaction bad.rules").ends(2).says("bad.rules, line 1");
    place.run("serve --redaction none.rules").ends(2).says("none.rules");
    assert!(!place.path().join("precedent-data").exists(), "no store is made for a server that cannot start");
}
