//! Chromium without a window, driven over two pipes by its DevTools protocol.
//!
//! The protocol is [public](https://chromedevtools.github.io/devtools-protocol/); over pipes each message is JSON that ends with a
//! zero. The browser is Debian's package `chromium`; `PRECEDENT_CHROMIUM` names another.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use base64::Engine;
use serde_json::{Value, json};

/// How long the browser may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one tab; it ends with this.
pub struct Browser {
    child: Child,
    input: std::fs::File,
    answers: Receiver<Value>,
    session: String,
    last: u64,
    _dir: tempfile::TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a page is looked at.
#[derive(Clone, Copy)]
pub struct Look {
    pub width: u32,
    pub height: u32,
    pub dark: bool,
}

pub const WIDE: Look = Look { width: 1280, height: 900, dark: false };
pub const NARROW: Look = Look { width: 390, height: 844, dark: false };

impl Browser {
    /// Starts one; without one, says so, which counts as skipped.
    pub fn start() -> Option<Self> {
        let program = std::env::var_os("PRECEDENT_CHROMIUM").unwrap_or_else(|| "chromium".into());
        let version = Command::new(&program).arg("--version").output();
        if !version.is_ok_and(|output| output.status.success()) {
            let program = program.display();
            eprintln!("skipped: {program} is not installed; PRECEDENT_CHROMIUM names another browser");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let pipe = |name: &str| {
            let path = dir.path().join(name);
            assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
            path
        };
        let (to, from) = (pipe("to"), pipe("from"));
        // It reads from the file descriptor 3 and writes to 4.
        let mut child = Command::new("sh");
        child.args(["-c", r#"exec "$@" 3<"$TO" 4>"$FROM""#, "sh"]).arg(&program).args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--hide-scrollbars",
            "--force-color-profile=srgb",
            "--remote-debugging-pipe",
        ]);
        child.arg(format!("--user-data-dir={}", dir.path().join("profile").display()));
        child
            .env("TO", &to)
            .env("FROM", &from)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = child.spawn().unwrap();
        let input = std::fs::OpenOptions::new().write(true).open(&to).unwrap();
        let output = std::fs::File::open(&from).unwrap();
        let (send, answers) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(output).split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice::<Value>(&message) else { return };
                if message.get("id").is_some() && send.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self { child, input, answers, session: String::new(), last: 0, _dir: dir };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        browser.session =
            browser.call("Target.attachToTarget", attach)["sessionId"].as_str().unwrap().to_owned();
        browser.look(WIDE);
        Some(browser)
    }

    /// Asks the browser, and answers with what it says; `Err` with its reason.
    fn asked(&mut self, method: &str, params: Value) -> Result<Value, String> {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.input.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let answer = self.answers.recv_timeout(PATIENCE).expect("the browser answers");
            if answer["id"] == self.last {
                return match answer.get("error") {
                    Some(error) => Err(error.to_string()),
                    None => Ok(answer["result"].clone()),
                };
            }
        }
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.asked(method, params).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// From now on, pages have this size and these colours.
    pub fn look(&mut self, look: Look) {
        let size = json!({"width": look.width, "height": look.height, "deviceScaleFactor": 1, "mobile": look.width < 500});
        self.call("Emulation.setDeviceMetricsOverride", size);
        let scheme = if look.dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// Opens a page and waits until it is there.
    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url}));
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'");
    }

    /// The value of an expression; `Err` where the page has none, as while it changes.
    pub fn value_of(&mut self, expression: &str) -> Result<Value, String> {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.asked("Runtime.evaluate", params)?;
        match answer.get("exceptionDetails") {
            Some(details) => Err(details["exception"]["description"].to_string()),
            None => Ok(answer["result"]["value"].clone()),
        }
    }

    pub fn text_of(&mut self, expression: &str) -> String {
        let value = self.value_of(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    }

    /// Asks again and again until an expression holds, a bounded time.
    #[track_caller]
    pub fn wait_for(&mut self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let value = self.value_of(expression);
            if value == Ok(Value::Bool(true)) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{expression}: {value:?}\n{:?}",
                self.value_of("document.body.innerText")
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Presses a key, as on a keyboard: a letter, or a name such as `Enter`.
    pub fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            "Tab" => (9, ""),
            "Escape" => (27, ""),
            letter => (letter.to_ascii_uppercase().as_bytes()[0], letter),
        };
        let mut down = json!({"type": "keyDown", "key": key, "windowsVirtualKeyCode": code});
        if !text.is_empty() {
            down["text"] = json!(text);
        }
        self.call("Input.dispatchKeyEvent", down);
        self.call(
            "Input.dispatchKeyEvent",
            json!({"type": "keyUp", "key": key, "windowsVirtualKeyCode": code}),
        );
    }

    /// Types a text into what has the focus.
    pub fn types(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
    }

    /// Writes what the page looks like into `target/screenshots/NAME.png`, whole if it is no longer than four windows.
    pub fn screenshot(&mut self, name: &str) -> PathBuf {
        let size = self.call("Page.getLayoutMetrics", json!({}))["cssContentSize"].clone();
        let width = self.value_of("innerWidth").unwrap();
        let limit = self.value_of("4 * innerHeight").unwrap().as_f64().unwrap();
        let least = self.value_of("innerHeight").unwrap().as_f64().unwrap();
        let height = size["height"].as_f64().unwrap().clamp(least, limit);
        let clip = json!({"x": 0, "y": 0, "width": width, "height": height, "scale": 1});
        let shot = self.call(
            "Page.captureScreenshot",
            json!({"format": "png", "clip": clip, "captureBeyondViewport": true}),
        );
        let bytes = base64::engine::general_purpose::STANDARD.decode(shot["data"].as_str().unwrap()).unwrap();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("screenshots");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("{name}.png"));
        std::fs::write(&path, bytes).unwrap();
        path
    }
}
