//! Real instrumentations from PyPI against a provider that is played here: what they send arrives complete.
//!
//! The scripts are those of `examples/`, and the guides of `docs/capture.md` are parts of them. They run in an environment that this
//! test makes once, in the target folder. Without Python, or without its package index, it says so and counts as skipped;
//! `PRECEDENT_PYTHON` names another Python.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use precedent_capture::view::{Dialect, Fidelity, FinishReason, Kind, ModelCall, View};
use precedent_core::*;
use precedent_server::bind;
use serde_json::{Value, json};
use support::{Trouble, config};
use tokio::sync::oneshot;

const EXAMPLES: [&str; 6] =
    ["openai_official", "openllmetry", "openinference", "langgraph", "proxy", "plain"];

/// How long packages may take to be installed, the first time.
const INSTALL_PATIENCE: Duration = Duration::from_secs(300);
/// How long a script may take.
const SCRIPT_PATIENCE: Duration = Duration::from_secs(60);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

#[test]
fn the_guides_are_parts_of_the_scripts_that_are_run() {
    let page = std::fs::read_to_string(root().join("docs/capture.md")).unwrap();
    for example in EXAMPLES {
        let script = std::fs::read_to_string(root().join("examples").join(example).join("main.py")).unwrap();
        let part = script.split("# guide\n").nth(1).and_then(|rest| rest.split("# end of guide\n").next());
        let block = format!("<!-- guide: {example} -->\n```python\n{}```\n", part.expect("a guide"));
        assert!(page.contains(&block), "docs/capture.md lacks the guide of {example}:\n{block}");
    }
}

#[test]
fn the_curl_of_the_guide_records_an_event() {
    if let Err(why) = run(Command::new("curl").arg("--version"), SCRIPT_PATIENCE) {
        eprintln!("skipped: the guide with curl is not run: curl is not there: {why}");
        return;
    }
    let page = std::fs::read_to_string(root().join("docs/capture.md")).unwrap();
    let block = page.split("```sh\n").find(|block| block.starts_with("curl ")).expect("a guide with curl");
    let command = block.split("```").next().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let store = Trouble::none();
    let server = runtime.block_on(bind(Arc::new(store.clone()), config())).unwrap();
    let command = command.replace("http://127.0.0.1:7373", &server.url());
    let running = runtime.spawn(server.run(std::future::pending()));
    let output = run(Command::new("sh").args(["-c", command.as_str()]), SCRIPT_PATIENCE).unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("\"status\":\"recorded\""), "{said}");
    running.abort();
    let page = runtime.block_on(store.inner.read(&LogName::default(), &Read::default())).unwrap();
    let event = &page.events[0].event;
    assert_eq!((event.event_type(), event.stream()), ("ai.decision.made", Some("application/42")));
    assert_eq!(event.attribute("decisionid"), Some("d-1"));
}

/// Runs a command to its end, or kills it.
fn run(command: &mut Command, patience: Duration) -> Result<Output, String> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.map_err(|e| e.to_string())?;
    let pid = child.id();
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    match ended.recv_timeout(patience) {
        Ok(output) => output.map_err(|e| e.to_string()),
        Err(_) => {
            let _ = Command::new("kill").arg(pid.to_string()).status();
            Err(format!("it was not done after {} seconds", patience.as_secs()))
        }
    }
}

/// A Python that has what the examples need, or the reason why there is none.
fn python() -> Result<PathBuf, String> {
    let python = std::env::var_os("PRECEDENT_PYTHON").unwrap_or_else(|| "python3".into());
    let version = run(
        Command::new(&python).args(["-c", "import sys; print(sys.version_info >= (3, 10))"]),
        SCRIPT_PATIENCE,
    );
    match version.map(|output| output.stdout) {
        Ok(answer) if answer.starts_with(b"True") => {}
        Ok(_) => return Err("Python 3.10 or later is not there".to_owned()),
        Err(error) => return Err(format!("Python is not there: {error}")),
    }
    let requirements: Vec<PathBuf> = EXAMPLES
        .iter()
        .map(|example| root().join("examples").join(example).join("requirements.txt"))
        .collect();
    let wanted: String = requirements.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("instrumentations");
    let (bin, ready) = (place.join("bin"), place.join("ready"));
    if std::fs::read_to_string(&ready).is_ok_and(|had| had == wanted) {
        return Ok(bin.join("python"));
    }
    let _ = std::fs::remove_dir_all(&place);
    let told = |what: &str, output: Result<Output, String>| match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(format!("{what}: {}", text.lines().last().unwrap_or("no reason given")))
        }
        Err(error) => Err(format!("{what}: {error}")),
    };
    let venv = run(Command::new(&python).args(["-m", "venv"]).arg(&place), INSTALL_PATIENCE);
    told("an environment cannot be made", venv)?;
    let mut install = Command::new(bin.join("python"));
    install.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--retries",
        "1",
        "--timeout",
        "10",
    ]);
    for file in &requirements {
        install.arg("-r").arg(file);
    }
    told("packages cannot be installed", run(&mut install, INSTALL_PATIENCE))?;
    std::fs::write(ready, wanted).unwrap();
    Ok(bin.join("python"))
}

const ANSWER: &str = "Your order #W2378156 was shipped – on 2024-05-14.";

/// A provider that calls a tool first and answers then, streams if it is asked to, and does not have every model.
fn provider() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || while serve_one(&stream).is_some() {});
        }
    });
    address
}

fn serve_one(mut stream: &TcpStream) -> Option<()> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 8192];
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        match stream.read(&mut chunk).ok()? {
            0 => return None,
            n => bytes.extend_from_slice(&chunk[..n]),
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).to_ascii_lowercase();
    let length: usize =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    while bytes.len() < head_end + length {
        match stream.read(&mut chunk).ok()? {
            0 => return None,
            n => bytes.extend_from_slice(&chunk[..n]),
        }
    }
    let asked: Value = serde_json::from_slice(&bytes[head_end..head_end + length]).ok()?;
    let answer = |status: &str, media_type: &str, body: &str| {
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: {media_type}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let usage = json!({"prompt_tokens": 812, "completion_tokens": 21, "total_tokens": 833, "prompt_tokens_details": {"cached_tokens": 768}});
    let common = json!({"id": "chatcmpl-9x1", "created": 1_763_780_000, "model": "gpt-4o-2024-08-06", "system_fingerprint": "fp_1"});
    let with = |object: &str, choices: Value, usage: Option<&Value>| {
        let mut whole = common.clone();
        whole["object"] = json!(object);
        whole["choices"] = choices;
        if let Some(usage) = usage {
            whole["usage"] = usage.clone();
        }
        whole
    };
    let answered = asked["messages"].as_array()?.iter().any(|message| message["role"] == "tool");
    let call = json!({"id": "call_abc123", "type": "function",
        "function": {"name": "get_order_details", "arguments": "{\"order_id\":\"#W2378156\"}"}});
    let text = if asked["model"] == "no-such-model" {
        let body = json!({"error": {"message": "no such model", "type": "invalid_request_error", "code": "model_not_found"}});
        answer("404 Not Found", "application/json", &body.to_string())
    } else if asked["stream"] == true {
        let middle = ANSWER.len() / 2;
        let middle = (0..=middle).rev().find(|at| ANSWER.is_char_boundary(*at))?;
        let mut body = String::new();
        for delta in [
            json!({"role": "assistant", "content": ""}),
            json!({"content": &ANSWER[..middle]}),
            json!({"content": &ANSWER[middle..]}),
        ] {
            let piece = with(
                "chat.completion.chunk",
                json!([{"index": 0, "delta": delta, "finish_reason": null}]),
                None,
            );
            body.push_str(&format!("data: {piece}\n\n"));
        }
        let last =
            with("chat.completion.chunk", json!([{"index": 0, "delta": {}, "finish_reason": "stop"}]), None);
        let counts = with("chat.completion.chunk", json!([]), Some(&usage));
        body.push_str(&format!("data: {last}\n\ndata: {counts}\n\ndata: [DONE]\n\n"));
        answer("200 OK", "text/event-stream", &body)
    } else {
        let (message, reason) = match answered {
            true => (json!({"role": "assistant", "content": ANSWER}), "stop"),
            false => (json!({"role": "assistant", "content": null, "tool_calls": [call]}), "tool_calls"),
        };
        let body = with(
            "chat.completion",
            json!([{"index": 0, "message": message, "finish_reason": reason}]),
            Some(&usage),
        );
        answer("200 OK", "application/json", &body.to_string())
    };
    stream.write_all(text.as_bytes()).ok()
}

/// The events that a script leaves in a store of its own.
fn record(
    python: &Path,
    example: &str,
    provider: SocketAddr,
    variables: &[(&str, &str)],
) -> (String, Vec<RecordedEvent>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let store = Trouble::none();
    let mut config = config();
    config.capture.otlp_http = Some(config.listen);
    config.capture.otlp_grpc = Some(config.listen);
    config.capture.upstreams = vec![format!("openai=http://{provider}").parse().unwrap()];
    config.capture.fail_closed = true;
    let server = runtime.block_on(bind(Arc::new(store.clone()), config)).unwrap();
    let main = server.url();
    let otlp = match example {
        "openllmetry" => server.otlp_grpc_url().unwrap(),
        _ => server.otlp_http_url().unwrap(),
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let running = runtime.spawn(server.run(async {
        let _ = stopped.await;
    }));
    let base = match example {
        "proxy" => format!("{main}/proxy/openai/v1"),
        _ => format!("http://{provider}/v1"),
    };
    let mut command = Command::new(python);
    command
        .arg(root().join("examples").join(example).join("main.py"))
        .current_dir(env!("CARGO_TARGET_TMPDIR"));
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(name);
    }
    command
        .env("OPENAI_API_KEY", "sk-test-0123456789abcdefghijklmnop")
        .env("OPENAI_BASE_URL", base)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", otlp)
        .env("OTEL_SERVICE_NAME", example)
        .env("PRECEDENT_URL", main)
        .env("LANGSMITH_TRACING", "false")
        .envs(variables.iter().copied());
    let output = run(&mut command, SCRIPT_PATIENCE).unwrap_or_else(|error| panic!("{example}: {error}"));
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{example}: {said}\n{complained}");
    drop(stop);
    runtime.block_on(running).unwrap().unwrap();
    let page = runtime.block_on(store.inner.read(&LogName::default(), &Read::default())).unwrap();
    (said.into_owned(), page.events)
}

/// What is to be seen of the two steps and the refusal, whoever tells it.
fn check(name: &str, calls: &[ModelCall], dialect: Dialect) {
    assert_eq!(calls.len(), 3, "{name}: {calls:#?}");
    for call in calls {
        assert_eq!(call.dialect, dialect, "{name}");
        let least = if dialect == Dialect::OpenAiHttp { Fidelity::Exact } else { Fidelity::Reconstructable };
        assert_eq!(call.fidelity, least, "{name}: {call:#?}");
        assert!(call.times.started.is_some() && call.times.ended.is_some(), "{name}");
    }
    let (first, second, third) = (&calls[0], &calls[1], &calls[2]);
    assert_eq!(first.model_requested.as_deref(), Some("gpt-4o"), "{name}");
    assert_eq!(first.system.as_ref().unwrap()[0].text(), Some("You are a retail agent."), "{name}");
    assert_eq!(
        first.messages.as_ref().unwrap()[0].text().as_deref(),
        Some("Where is my order #W2378156?"),
        "{name}"
    );
    assert_eq!(first.tools.as_ref().unwrap()[0].name.as_deref(), Some("get_order_details"), "{name}");
    let call = first.tool_calls().next().unwrap_or_else(|| panic!("{name}: {first:#?}"));
    assert_eq!(
        (call.id.as_deref(), call.name.as_deref()),
        (Some("call_abc123"), Some("get_order_details")),
        "{name}"
    );
    assert_eq!(call.arguments.as_ref().unwrap().as_str(), "{\"order_id\":\"#W2378156\"}", "{name}");
    assert_eq!(first.finish_reasons, Some(vec![FinishReason::ToolCall]), "{name}");
    assert_eq!((first.usage.input, first.usage.output), (Some(812), Some(21)), "{name}");
    // The second was streamed, and its history has the call and its result.
    assert_eq!(second.messages.as_ref().unwrap().len(), 3, "{name}: {second:#?}");
    assert_eq!(second.output_text().as_deref(), Some(ANSWER), "{name}: {second:#?}");
    assert_eq!(second.finish_reasons, Some(vec![FinishReason::Stop]), "{name}");
    assert_eq!(second.model_served.as_deref(), Some("gpt-4o-2024-08-06"), "{name}");
    assert_eq!((second.usage.input, second.usage.output), (Some(812), Some(21)), "{name}");
    // The third was refused.
    assert!(third.error.is_some(), "{name}: {third:#?}");
    assert_eq!(third.output.as_deref().unwrap_or(&[]), [], "{name}");
}

#[test]
fn real_instrumentations_arrive_complete() {
    let python = match python() {
        Ok(python) => python,
        Err(why) => {
            eprintln!("skipped: real instrumentations are not run: {why}");
            return;
        }
    };
    let provider = provider();
    let content = |value| [("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", value)];
    // Each starts an interpreter of its own, and most of that is waiting.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for value in ["EVENT_ONLY", "SPAN_ONLY"] {
                let (said, events) = record(&python, "openai_official", provider, &content(value));
                assert!(said.contains(ANSWER) && said.contains("refused: 404"), "{said}");
                check(value, &View::of(&events).calls, Dialect::SemanticConventions);
            }
        });
        scope.spawn(|| {
            let (_, events) = record(&python, "openllmetry", provider, &[]);
            check("openllmetry", &View::of(&events).calls, Dialect::OpenLlmetry);
            let (_, events) = record(&python, "plain", provider, &[]);
            let types: Vec<&str> = events.iter().map(|e| e.event.event_type()).collect();
            assert_eq!(types, ["ai.decision.made", "ai.outcome.observed"]);
        });
        scope.spawn(|| {
            let (_, events) = record(&python, "openinference", provider, &[]);
            check("openinference", &View::of(&events).calls, Dialect::OpenInference);
            let (said, events) = record(&python, "proxy", provider, &[]);
            assert!(said.contains(ANSWER) && said.contains("refused: 404"), "{said}");
            check("proxy", &View::of(&events).calls, Dialect::OpenAiHttp);
            let held = events
                .iter()
                .any(|e| e.event.data().is_some_and(|d| String::from_utf8_lossy(d).contains("sk-test")));
            assert!(!held, "the provider's key is not recorded");
        });
        scope.spawn(|| {
            let (said, events) = record(&python, "langgraph", provider, &[]);
            assert!(said.contains(ANSWER), "{said}");
            let view = View::of(&events);
            assert_eq!(view.unread, []);
            assert_eq!(view.calls.len(), 2, "{:#?}", view.calls);
            assert!(view.calls.iter().all(|call| call.fidelity == Fidelity::Reconstructable));
            assert_eq!(view.calls.iter().flat_map(ModelCall::tool_calls).count(), 1);
            let tools: Vec<_> =
                view.activities.iter().filter(|activity| activity.kind == Kind::Tool).collect();
            assert_eq!(
                tools.iter().map(|tool| tool.name.as_deref()).collect::<Vec<_>>(),
                [Some("get_order_details")]
            );
            assert!(view.activities.iter().any(|activity| activity.kind == Kind::Agent));
        });
    });
}
