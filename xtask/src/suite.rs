//! What `check` and `test` consist of.

use std::path::PathBuf;
use std::process::Command;
use std::{fs, io};

use crate::output::{Tests, run, run_tests};
use crate::steps::{self, Outcome, Step};
use crate::workspace::Workspace;
use crate::{left_out, licences, readme, tidy};

const FORMAT: Step = Step { name: "format", run: format };
const TIDY: Step = Step { name: "tidy", run: tidy::look };
const LICENCES: Step = Step { name: "licences", run: licences::look };
const CLIPPY: Step = Step { name: "clippy", run: clippy };

/// The quick part.
const CHECK: &[Step] = &[FORMAT, TIDY, LICENCES, CLIPPY];

/// Everything, what fails fastest first.
pub(crate) const TEST: &[Step] = &[
    FORMAT,
    TIDY,
    LICENCES,
    CLIPPY,
    Step { name: "tests", run: tests },
    Step { name: "doctests", run: doctests },
    Step { name: "docs", run: docs },
    Step { name: "readme", run: readme::check },
];

/// `cargo xtask check`.
pub(crate) fn check(workspace: &Workspace) -> bool {
    steps::run(workspace, CHECK, |_| {})
}

/// `cargo xtask test`.
pub(crate) fn test(workspace: &Workspace) -> bool {
    // The README shows this summary; `cargo xtask readme` takes it from here, since a run cannot hold itself.
    steps::run(workspace, TEST, |summary| {
        // Not being able to keep it only means that the README keeps the one it has.
        if let Ok(kept) = readme::kept_summary(workspace) {
            let _ = kept.parent().map(fs::create_dir_all);
            let _ = fs::write(kept, summary);
        }
    })
}

fn has(workspace: &Workspace, tool: &str) -> bool {
    workspace.cargo(&[tool, "--version"]).output().is_ok_and(|out| out.status.success())
}

fn format(workspace: &Workspace) -> Outcome {
    if !has(workspace, "fmt") {
        return Outcome::Skipped("rustfmt is not installed: rustup component add rustfmt".into());
    }
    // The fuzz targets and the peers are workspaces of their own.
    let nested = |manifest| run(&mut workspace.cargo(&["fmt", "--manifest-path", manifest, "--check"]));
    let ours = run(&mut workspace.cargo(&["fmt", "--all", "--check"]));
    let all = [ours, nested("fuzz/Cargo.toml"), nested("bench/Cargo.toml")];
    all.into_iter().collect::<Result<(), _>>().map(|()| String::new()).into()
}

fn clippy(workspace: &Workspace) -> Outcome {
    if !has(workspace, "clippy") {
        return Outcome::Skipped("clippy is not installed: rustup component add clippy".into());
    }
    let args =
        ["clippy", "--workspace", "--all-targets", "--all-features", "--quiet", "--", "-D", "warnings"];
    run(&mut workspace.cargo(&args)).map(|()| String::new()).into()
}

fn tests(workspace: &Workspace) -> Outcome {
    // nextest runs tests of all crates side by side; without it the same tests take longer.
    let mut command = match has(workspace, "nextest") {
        true => workspace.cargo(&["nextest", "run", "--no-fail-fast"]),
        false => workspace.cargo(&["test", "--all-targets", "--no-fail-fast"]),
    };
    command.args(["--workspace", "--all-features"]);
    let folder = match TestFolder::make() {
        Ok(folder) => folder,
        Err(error) => return Err(format!("no directory for what tests write: {error}")).into(),
    };
    folder.is_used_by(&mut command);
    left_out::forget(workspace);
    let counted = run_tests(&mut command).and_then(|mut tests| {
        let left_out = left_out::read(workspace);
        left_out.lines().for_each(|line| println!("   {line}"));
        tests.leave_out(left_out.tests());
        some(tests)
    });
    counted.into()
}

/// Where tests make their temporary directories, and browsers theirs. What a test leaves behind, which ends while its stores
/// still write, or is killed, goes with it.
struct TestFolder(PathBuf);

impl TestFolder {
    fn make() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("precedent-{}", std::process::id()));
        // By one with the same number that was killed.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn is_used_by(&self, command: &mut Command) {
        for name in ["TMPDIR", "TMP", "TEMP"] {
            command.env(name, &self.0);
        }
    }
}

impl Drop for TestFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn doctests(workspace: &Workspace) -> Outcome {
    let mut command = workspace.cargo(&["test", "--doc", "--workspace", "--all-features", "--no-fail-fast"]);
    run_tests(&mut command).and_then(some).into()
}

/// No tests at all is not a success: something was spelled wrong.
fn some(tests: Tests) -> Result<String, String> {
    match tests.passed {
        0 => Err("not one test ran".into()),
        _ => Ok(tests.words()),
    }
}

fn docs(workspace: &Workspace) -> Outcome {
    let mut command =
        workspace.cargo(&["doc", "--workspace", "--lib", "--no-deps", "--all-features", "--quiet"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    run(&mut command).map(|()| String::new()).into()
}
