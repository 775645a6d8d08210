//! `cargo xtask`: the developer's manual, as a program.
//!
//! This file knows the verbs and maps what they find to exit codes: 0 everything is well, 1 something is
//! not, 2 the question was not understood. Each verb is a module; [`steps`] runs what consists of several.
//! Nothing here is part of what Precedent does, and it needs nothing but Rust.

mod bench;
mod left_out;
mod licences;
mod long;
mod markdown;
mod million;
mod normal;
mod output;
mod readme;
mod show;
mod spdx;
mod steps;
mod suite;
mod tidy;
mod workspace;

use std::process::ExitCode;

use workspace::Workspace;

const MANUAL: &str = "\
cargo xtask VERB: the developer's manual of Precedent

  check                 the quick part of `test`: format, tidy, licences, clippy
  test                  everything that has to hold before a commit; needs nothing but Rust
  readme [--check]      puts the real output of its commands into README.md and docs/, or says what is stale
  licences              the licence of every crate that is built, against the list of those allowed
  demo [ARGS]           records and verifies a small agent run: cargo run --release -- demo
  bench [ARGS]          measures this machine: cargo run --release -- bench
  bench --peers         measures other stores beside it, about 25 minutes, and puts the figures into
                        docs/performance.md; with --quick it prints rough ones; --tables only makes the page again;
                        with --on DIR it measures the appends alone, there, for tables of another device
  bench --capture-peers sends recorded calls as OTLP to Precedent, Arize Phoenix and MLflow, about 8 minutes, and puts the
                        figures there too; --quick as above. Python 3.11 and pip are needed, and the tau-bench runs
  million [EVENTS]      what a log of many events (default 1000000) costs to open and to read
  growth [EVENTS]       what of that grows, and how: a tenth of the events (default 10000000), then all
  show [EVENTS]         what it costs to look at a decision in a log of many events (default 1000000), and to list them
  crash [ROUNDS]        the crash and kill tests, with many rounds (default 200)
  fuzz [ITERATIONS]     the seeded mutation tests of every decoder, for longer (default 1000000)

One test: cargo test -p precedent-core the_name_of_the_test
Exit: 0 everything is well, 1 something is not, 2 the question was not understood.
CONTRIBUTING.md says where things go.
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let workspace = match Workspace::find() {
        Ok(workspace) => workspace,
        Err(error) => return misunderstood(&error),
    };
    let Some((verb, rest)) = args.split_first() else {
        print!("{MANUAL}");
        return ExitCode::SUCCESS;
    };
    match (verb.as_str(), rest) {
        ("help" | "--help" | "-h", _) => {
            print!("{MANUAL}");
            ExitCode::SUCCESS
        }
        ("check", []) => answer(suite::check(&workspace)),
        ("test", []) => answer(suite::test(&workspace)),
        ("licences", []) => answer(steps::alone(licences::list(&workspace))),
        ("readme", []) => answer(steps::alone(readme::regenerate(&workspace))),
        ("readme", [flag]) if flag == "--check" => answer(steps::alone(readme::check(&workspace))),
        ("demo", rest) => answer(long::run_binary(&workspace, verb, rest)),
        ("bench", rest) => answer(bench::bench(&workspace, rest)),
        ("crash", []) => answer(long::crash(&workspace, 200)),
        ("fuzz", []) => answer(long::fuzz(&workspace, 1_000_000)),
        ("million", []) => answer(million::million(&workspace, 1_000_000)),
        ("show", []) => answer(show::show(&workspace, 1_000_000)),
        ("growth", []) => answer(million::growth(&workspace, 10_000_000)),
        ("crash" | "fuzz" | "million" | "growth" | "show", [count]) => match count.parse() {
            Ok(0) | Err(_) => misunderstood(&format!("'{count}' is not a number of at least 1")),
            Ok(count) if verb == "million" => answer(million::million(&workspace, count)),
            Ok(count) if verb == "show" => answer(show::show(&workspace, count)),
            Ok(count) if verb == "growth" => answer(million::growth(&workspace, count)),
            Ok(count) if verb == "crash" => answer(long::crash(&workspace, count)),
            Ok(count) => answer(long::fuzz(&workspace, count)),
        },
        (
            "check" | "test" | "licences" | "readme" | "crash" | "fuzz" | "million" | "growth" | "show",
            rest,
        ) => misunderstood(&format!("`{verb}` does not take '{}'", rest.join(" "))),
        _ => misunderstood(&format!("there is no verb '{verb}'")),
    }
}

fn answer(well: bool) -> ExitCode {
    if well { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn misunderstood(message: &str) -> ExitCode {
    eprintln!("error: {message}\n\n{MANUAL}");
    ExitCode::from(2)
}
