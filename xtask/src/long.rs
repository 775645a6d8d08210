//! The verbs that take their time: the demo and the measurements of the binary, and tests with many rounds.

use crate::output::{run, run_tests};
use crate::workspace::{BINARY_PACKAGE, Workspace};

/// The variable a crash test reads for its number of rounds.
const CRASH_ROUNDS: &str = "PRECEDENT_CRASH_ROUNDS";
/// The variable a mutation test reads for its number of iterations.
const FUZZ_ITERATIONS: &str = "PRECEDENT_FUZZ_ITERATIONS";

/// What the names of the tests that read [`CRASH_ROUNDS`] have in them.
const CRASH_WORDS: [&str; 4] = ["crash", "kill", "torn", "fault"];
/// What the names of the tests that read [`FUZZ_ITERATIONS`] have in them.
const FUZZ_WORDS: [&str; 3] = ["fuzz", "mutat", "hostile"];

/// Runs the release binary with this verb, where we were called: a store is looked for there.
pub(crate) fn run_binary(workspace: &Workspace, verb: &str, rest: &[String]) -> bool {
    let mut command = workspace.cargo(&["run", "--release", "--package", BINARY_PACKAGE, "--manifest-path"]);
    command.arg(workspace.root().join("Cargo.toml")).args(["--", verb]).args(rest);
    if let Ok(here) = std::env::current_dir() {
        command.current_dir(here);
    }
    said(run(&mut command))
}

/// The crash tests, `rounds` times each.
pub(crate) fn crash(workspace: &Workspace, rounds: u64) -> bool {
    many(workspace, &CRASH_WORDS, CRASH_ROUNDS, rounds)
}

/// The mutation tests, `iterations` times each, optimised.
pub(crate) fn fuzz(workspace: &Workspace, iterations: u64) -> bool {
    many(workspace, &FUZZ_WORDS, FUZZ_ITERATIONS, iterations)
}

fn many(workspace: &Workspace, words: &[&str], variable: &str, count: u64) -> bool {
    let mut command =
        workspace.cargo(&["test", "--release", "--workspace", "--all-features", "--no-fail-fast"]);
    command.args(["--lib", "--bins", "--tests", "--"]).args(words).env(variable, count.to_string());
    println!("   {variable}={count}");
    said(run_tests(&mut command).and_then(|tests| match tests.passed {
        0 => Err(format!("no test has one of these words in its name: {}", words.join(", "))),
        _ => {
            println!("{}", tests.words());
            Ok(())
        }
    }))
}

fn said(result: Result<(), String>) -> bool {
    if let Err(message) = &result {
        eprintln!("{message}");
    }
    result.is_ok()
}
