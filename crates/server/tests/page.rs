//! The page: what was recorded is text in it, a token is asked for and never given away, and a browser sees what comes live.
//!
//! The browser is Chromium, Debian's package `chromium`; `PRECEDENT_CHROMIUM` names another. Without it this says so and counts as skipped.

mod support;

use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::Ordering;

use serde_json::json;
use support::{Request, Served, config, eventually, serve, serve_with};

const HOSTILE: &str = "<script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\"> \u{202e}evil \u{1b}[31m";

async fn hostile(served: &Served) {
    let event = |id: &str, kind: &str, data: serde_json::Value| json!({"id": id, "source": "urn:t", "type": kind, "stream": "<b>s</b>", "decisionid": "d<i>", "data": data});
    let events = json!({"events": [
        event("1", "ai.input.received", json!({"message": {"role": "user", "content": HOSTILE}})),
        event("2", "ai.decision.made", json!({"decision": HOSTILE, "reason": "r"})),
        event("3", "ai.tool.called", json!({"name": "find", "result": "w ".repeat(1 << 20)})),
        event("4", "ai.decision.overridden", json!({"from": "a", "to": "b", "person": "p", "reason": "later"})),
    ]});
    assert_eq!(served.append(events).await.status, 200);
}

#[tokio::test]
async fn recorded_text_is_text_in_every_page() {
    let served = serve().await;
    hostile(&served).await;
    for path in [
        "/",
        "/decisions",
        "/show?of=d%3Ci%3E",
        "/show?of=1&at=3",
        "/show?of=d%3Ci%3E&whole=1.0",
        "/?type=%3Cimg%3E",
    ] {
        let reply = served.get(path).await;
        assert_eq!(
            (reply.status, reply.header("content-type")),
            (200, Some("text/html; charset=utf-8")),
            "{path}"
        );
        let policy = reply.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        let html = reply.text().to_owned();
        let main = html.split("<main").nth(1).unwrap().split("</main>").next().unwrap();
        for bad in ["<script", "<img", "<b>s", "d<i>", "\u{202e}", "\u{1b}"] {
            assert!(!main.contains(bad), "{path}: {bad}");
        }
    }
    let shown = served.get("/show?of=d%3Ci%3E").await.text().to_owned();
    assert!(shown.contains("\\u{202e}") && shown.contains("all of it, ") && shown.len() < 200_000);
    let then = served.get("/show?of=d%3Ci%3E&at=2").await.text().to_owned();
    assert!(!then.contains("a → b") && !then.contains("when overridden"), "nothing later than position 2");
    assert_eq!(served.get("/show?of=nobody").await.status, 404);
    assert_eq!(served.get("/show?of=d&at=yesterday").await.status, 400);
    let one = served.get("/v1/decisions/d%3Ci%3E?at=1").await.json();
    assert_eq!((one["steps"].as_array().unwrap().len(), &one["as_of"]["position"]), (2, &json!(1)));
    let list = served.get("/v1/decisions").await.json();
    assert_eq!(
        (list["decisions"].as_array().unwrap().len(), &list["decisions"][0]["position"]),
        (1, &json!(1))
    );
}

#[tokio::test]
async fn without_the_token_a_page_is_a_form_and_nothing_of_the_log() {
    let mut config = config();
    config.token = Some("s3cret-token".into());
    let served = serve_with(config).await;
    for path in ["/", "/decisions", "/show?of=1"] {
        let reply = served.get(path).await;
        assert_eq!(reply.status, 401);
        assert!(reply.text().contains("id=sign") && !reply.text().contains("s3cret"), "{path}");
        let with = Request::new("GET", path).header("Authorization", "Bearer s3cret-token");
        let reply = served.send(with).await;
        assert!(
            reply.status != 401 && !reply.text().contains("s3cret") && reply.header("set-cookie").is_none()
        );
    }
    assert_eq!(served.get("/v1/decisions").await.header("content-type"), Some("application/problem+json"));
}

/// Chromium without a window, or the reason why there is none.
fn chromium(arguments: &[&str]) -> Option<Command> {
    let program = std::env::var_os("PRECEDENT_CHROMIUM").unwrap_or_else(|| "chromium".into());
    let there = Command::new(&program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !there {
        eprintln!(
            "skipped: {} is not installed; PRECEDENT_CHROMIUM names another browser",
            program.display()
        );
        return None;
    }
    let profile =
        std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chromium-{}", arguments.len()));
    let mut command = Command::new(program);
    command.args([
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
    ]);
    command.arg(format!("--user-data-dir={}", profile.display())).args(arguments).stdin(Stdio::null());
    Some(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_runs_nothing_that_was_recorded() {
    let served = serve().await;
    hostile(&served).await;
    let url = format!("{}/show?of=d%3Ci%3E", served.url);
    let Some(mut command) = chromium(&["--dump-dom", &url]) else { return };
    let output: Output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(dom.contains("<title>decision d&lt;i&gt;"), "{}", &dom[..dom.len().min(400)]);
    assert!(!dom.contains("<title>pwned") && !dom.contains("<img"));
    assert!(dom.contains("id=\"p3\""), "every step has a place of its own");
}

struct Browser(Child);

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_sees_what_comes_while_it_looks() {
    let served = serve().await;
    served.fill(3).await;
    let url = format!("{}/", served.url);
    let Some(mut command) = chromium(&["--remote-debugging-port=0", "--window-size=900,700", &url]) else {
        return;
    };
    let _browser = Browser(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    // Its script follows the log at the end.
    eventually("the page follows", async || served.store.waiting.load(Ordering::SeqCst) > 0).await;
    let asked = async || {
        let reply = served.get("/metrics").await;
        let metrics = reply.text();
        let line = metrics.lines().find(|line| line.contains("route=\"/\"")).map(str::to_owned);
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or_default()
    };
    let before = asked().await;
    served.append(json!({"events": [{"id": "live", "source": "urn:t", "type": "t", "data": 1}]})).await;
    eventually("the page is made again", async || asked().await > before).await;
}
