//! The classical model of `examples/classical`, with scikit-learn from PyPI: recorded, and shown as it was before and after a person
//! overrode it.
//!
//! Its packages are installed once, in the target folder. Without Python, or without its package index, this says so and counts as
//! skipped; `PRECEDENT_PYTHON` names another Python.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{Place, serve};
use serde_json::Value;

/// How long packages may take to be installed, the first time.
const INSTALL_PATIENCE: Duration = Duration::from_secs(420);
/// How long the script may take.
const SCRIPT_PATIENCE: Duration = Duration::from_secs(120);

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/classical")
}

/// Runs a command to its end, or kills it.
fn run(command: &mut Command, patience: Duration) -> Result<Output, String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| e.to_string())?;
    let deadline = Instant::now() + patience;
    while child.try_wait().map_err(|e| e.to_string())?.is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("it was not done after {} seconds", patience.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    match output.status.success() {
        true => Ok(output),
        false => {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(text.lines().last().unwrap_or("no reason given").to_owned())
        }
    }
}

/// A Python that has what the example needs, or the reason why there is none.
fn python() -> Result<PathBuf, String> {
    let python = std::env::var_os("PRECEDENT_PYTHON").unwrap_or_else(|| "python3".into());
    let requirements = example().join("requirements.txt");
    let wanted = std::fs::read_to_string(&requirements).unwrap();
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("classical");
    let (there, ready) = (place.join("bin/python"), place.join("ready"));
    if std::fs::read_to_string(&ready).is_ok_and(|had| had == wanted) {
        return Ok(there);
    }
    let _ = std::fs::remove_dir_all(&place);
    let told = |what: &str, error: String| format!("{what}: {error}");
    run(Command::new(&python).args(["-m", "venv"]).arg(&place), INSTALL_PATIENCE)
        .map_err(|error| told("an environment of Python cannot be made", error))?;
    let mut install = Command::new(&there);
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
        "-r",
    ]);
    run(install.arg(&requirements), INSTALL_PATIENCE)
        .map_err(|error| told("packages cannot be installed", error))?;
    std::fs::write(ready, wanted).unwrap();
    Ok(there)
}

#[test]
fn a_classical_decision_is_shown_as_it_was_before_and_after_it_was_overridden() {
    let python = match python() {
        Ok(python) => python,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let place = Place::new();
    let server = serve(&place, &[]);
    let mut script = Command::new(python);
    script.arg(example().join("main.py")).arg("1000").env("PRECEDENT_URL", format!("http://{}", server.http));
    script.env_remove("PRECEDENT_TOKEN");
    let output = run(&mut script, SCRIPT_PATIENCE).unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let look_at = said["look_at"].as_str().unwrap();
    let overridden_at = said["overridden_at"].as_u64().unwrap();
    drop(server);

    // Before: what the model was given, by which version it decided, and nothing of the person or of what came of it.
    let before = place.run(&format!("show {look_at} --at {} --json", overridden_at - 1)).ends(0).json();
    assert_eq!(before["steps"].as_array().unwrap().len(), 1);
    let data = &before["steps"][0]["said"]["data"];
    assert_eq!((&data["decision"], &data["threshold"]), (&Value::from("decline"), &Value::from(0.6)));
    let score = data["score"].as_f64().unwrap();
    assert!((0.5..0.6).contains(&score), "{score}");
    assert_eq!(data["features"].as_object().unwrap().len(), 5);
    assert!(data["features"]["income"].as_f64().unwrap() > 0.0);
    let live: Vec<(&Value, &Value, &Value)> = before["live"]["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|version| (&version["name"], &version["version"], &version["named"]))
        .collect();
    let (risk, credit) = (Value::from("risk"), Value::from("credit"));
    assert!(live.contains(&(&risk, &Value::from("7"), &Value::from(true))), "{live:?}");
    assert!(live.contains(&(&credit, &Value::from("2026-10"), &Value::from(true))), "{live:?}");
    let text = place.run(&format!("show {look_at} --at {}", overridden_at - 1)).ends(0).out();
    assert!(
        text.contains("decline · score 0.5") && text.contains("live then   model risk 7 in production"),
        "{text}"
    );
    assert!(!text.contains("officer") && !text.contains("repaid"), "{text}");

    // After: the override where it stands, then what came of it.
    let then = place.run(&format!("show {look_at} --at {overridden_at}")).ends(0).out();
    assert!(then.contains("decline → approve · officer-") && !then.contains("repaid"), "{then}");
    let now = place.run(&format!("show {look_at}")).ends(0).out();
    assert!(now.contains("decline → approve · officer-") && now.contains("repaid"), "{now}");
    let record = place.run(&format!("show {look_at} --json")).ends(0).json();
    assert_eq!(record["milestones"]["overrides"], Value::from(vec![overridden_at]));
    assert_eq!(record["milestones"]["outcomes"].as_array().unwrap().len(), 1);

    // All of them are listed, and found by what came of them.
    let count = |line: &str| place.run(line).ends(0).lines().len() as u64;
    assert_eq!(count("decisions --json"), said["decisions"].as_u64().unwrap());
    let (repaid, not) =
        (count("decisions --json --outcome repaid=true"), count("decisions --json --outcome repaid=false"));
    assert_eq!(repaid + not, said["outcomes"].as_u64().unwrap());
    assert!(repaid > not && not > 0, "{repaid} {not}");
    assert_eq!(count("decisions --json --model risk --tag decision=decline"), {
        let all = place.run("decisions --json").ends(0).lines();
        all.iter().filter(|row| row["decision"]["what"].as_str().unwrap().starts_with("decline")).count()
            as u64
    });
}
