//! An environment of Python with the peers in it, made once in the target folder. Nothing is installed elsewhere.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::output::{Captured, capture, run};
use crate::workspace::Workspace;

/// What is installed, in exact versions, and what that needs in turn.
const FILES: [&str; 2] = ["bench/capture-peers/requirements.txt", "bench/capture-peers/constraints.txt"];

/// The oldest Python that all of it is there for.
const OLDEST: &str = "3.11";
/// What prints the version, or nothing where it is older than [`OLDEST`].
const VERSION: &str = "import sys; print(sys.version.split()[0] if sys.version_info >= (3, 11) else '')";

/// How long an empty environment may take, and a question.
const PATIENCE: Duration = Duration::from_secs(180);

/// The Python of the environment, and what is in it.
#[derive(Debug)]
pub(super) struct Environment {
    pub(super) python: PathBuf,
    pub(super) version: String,
    pub(super) phoenix: String,
    pub(super) mlflow: String,
}

/// The environment in `place`, made if it is not there or not of these versions. `PRECEDENT_PYTHON` names another Python.
pub(super) fn environment(workspace: &Workspace, place: &Path) -> Result<Environment, String> {
    let python = std::env::var_os("PRECEDENT_PYTHON").unwrap_or_else(|| "python3".into());
    let version = version(&python)?;
    let mut wanted = format!("Python {version}\n");
    for file in FILES {
        wanted += &fs::read_to_string(workspace.root().join(file)).map_err(|e| format!("{file}: {e}"))?;
    }
    let inside = place.join("bin/python");
    let ready = place.join("ready");
    if !fs::read_to_string(&ready).is_ok_and(|had| had == wanted) {
        let _ = fs::remove_dir_all(place);
        println!("   Phoenix and MLflow are installed into {} once: 1.5 GB, some minutes", place.display());
        make(workspace, &python, place, &inside)?;
        fs::write(&ready, wanted).map_err(|e| format!("{}: {e}", ready.display()))?;
    }
    let asked = "import importlib.metadata as m, json; \
                 print(json.dumps([m.version('arize-phoenix'), m.version('mlflow')]))";
    let said = capture(Command::new(&inside).args(["-c", asked]), PATIENCE).and_then(ended)?;
    let versions: Value =
        serde_json::from_str(&said).map_err(|e| format!("{}: {e}: {said}", inside.display()))?;
    let of = |at: usize| versions[at].as_str().map(str::to_owned).ok_or(format!("no version in {said}"));
    Ok(Environment { python: inside, version, phoenix: of(0)?, mlflow: of(1)? })
}

fn version(python: &OsString) -> Result<String, String> {
    let named = python.to_string_lossy();
    let said = capture(Command::new(python).args(["-c", VERSION]), PATIENCE)
        .and_then(ended)
        .map_err(|e| format!("the peers need Python {OLDEST} or later, PRECEDENT_PYTHON names one: {e}"))?;
    match said.trim() {
        "" => Err(format!(
            "the peers need Python {OLDEST} or later, and {named} is older; PRECEDENT_PYTHON names another"
        )),
        version => Ok(version.to_owned()),
    }
}

fn make(workspace: &Workspace, python: &OsString, place: &Path, inside: &Path) -> Result<(), String> {
    capture(Command::new(python).args(["-m", "venv"]).arg(place), PATIENCE)
        .and_then(ended)
        .map_err(|e| format!("an environment for the peers cannot be made in {}: {e}", place.display()))?;
    let mut install = Command::new(inside);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]);
    run(install.arg(workspace.root().join(FILES[0])))
        .map_err(|e| format!("pip could not install what {} names: {e}", FILES[0]))
}

/// What a command printed, if it ended well; otherwise the last it said.
pub(super) fn ended(captured: Captured) -> Result<String, String> {
    match captured.code {
        Some(0) => Ok(captured.stdout),
        code => {
            let said = if captured.stderr.trim().is_empty() { &captured.stdout } else { &captured.stderr };
            let last = said.trim().lines().last().unwrap_or("it said nothing");
            let code = code.map_or("a signal".to_owned(), |code| format!("exit code {code}"));
            Err(format!("{last} ({code})"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_python_it_is_said_what_is_needed_and_how_to_name_one() {
        let error = version(&OsString::from("no-such-python")).unwrap_err();
        assert!(error.contains("need Python 3.11") && error.contains("PRECEDENT_PYTHON"), "{error}");
        assert!(error.contains("no-such-python"), "{error}");
    }

    #[test]
    fn a_command_that_fails_is_quoted_with_its_last_line() {
        let said = |code, stdout: &str, stderr: &str| {
            ended(Captured { code, stdout: stdout.to_owned(), stderr: stderr.to_owned() })
        };
        assert_eq!(said(Some(0), "x\n", "warning").unwrap(), "x\n");
        assert_eq!(
            said(Some(1), "x", "a\nNo module named venv\n").unwrap_err(),
            "No module named venv (exit code 1)"
        );
        assert_eq!(said(None, "x", "").unwrap_err(), "x (a signal)");
        assert_eq!(said(Some(2), "", "").unwrap_err(), "it said nothing (exit code 2)");
    }

    /// The versions that are pinned are those the page names.
    #[test]
    fn the_requirements_are_exact() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for file in FILES {
            let text = fs::read_to_string(root.join(file)).unwrap();
            let named = text.lines().filter(|line| !line.starts_with(['#', '-']) && !line.is_empty());
            for line in named {
                let (name, version) = line.split_once("==").unwrap_or_else(|| panic!("{file}: {line}"));
                assert!(
                    !name.is_empty() && version.starts_with(|c: char| c.is_ascii_digit()),
                    "{file}: {line}"
                );
            }
        }
    }
}
