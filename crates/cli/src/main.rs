//! `precedent`: record what AI models and agents saw and decided, read it back, prove it.
//!
//! This file parses, calls, and maps the outcome to an exit code: 0 yes, 1 the answer is no, 2 something
//! broke. stdout is data, stderr is talk. One file a command is in `commands`.

mod commands;
mod failure;
mod gist;
mod global;
mod input;
mod json_values;
mod output;
mod progress;
mod recorder;
mod text;

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};

use commands::Command;
use failure::Failure;
use global::Global;
use output::say;

/// The event store for AI models and agents.
///
/// Every input, call, tool result, decision, override and outcome is an immutable event: in order, durable,
/// provable, replayable.
#[derive(Parser)]
#[command(name = "precedent", bin_name = "precedent", version)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What a shell expects of a program that was interrupted.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A pipe that nobody reads any more is no reason to fail, here as everywhere.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let Some(command) = cli.command else {
        let _ = Cli::command().print_help();
        return ExitCode::SUCCESS;
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::new(format!("no threads could be started: {error}")).report(),
    };
    let code = runtime.block_on(async {
        survive_file_size_limits();
        run(command, cli.global).await
    });
    runtime.shutdown_timeout(Duration::from_millis(200));
    code
}

/// A write beyond `ulimit -f` raises SIGXFSZ, which ends a process without a word. Where the signal is caught,
/// the write fails instead, and that is an error like that of a full disk.
fn survive_file_size_limits() {
    // Its number on Linux, macOS and the BSDs. The few processors on which Linux numbers it otherwise stay as they are.
    #[cfg(all(unix, not(any(target_arch = "mips", target_arch = "mips64"))))]
    {
        const SIGXFSZ: i32 = 25;
        use tokio::signal::unix::{SignalKind, signal};
        // The handler stays when what listens to it is dropped.
        let _ = signal(SignalKind::from_raw(SIGXFSZ));
    }
}

/// The exit code, once somebody has told the program to end: by Ctrl-C, or as `timeout` and service managers do. A terminal that is
/// closed ends it at once: who listens to that would end under `nohup` too.
async fn told_to_end() -> i32 {
    let interrupted = async {
        match tokio::signal::ctrl_c().await {
            Ok(()) => i32::from(INTERRUPTED),
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let terminated = async {
            match signal(SignalKind::terminate()) {
                Ok(mut signal) => drop(signal.recv().await),
                Err(_) => std::future::pending().await,
            }
            128 + SignalKind::terminate().as_raw_value()
        };
        tokio::select! {
            code = interrupted => code,
            code = terminated => code,
        }
    }
    #[cfg(not(unix))]
    interrupted.await
}

/// So long after an interrupt whoever is to be dropped has come to where that can be.
const HEEDS_WITHIN: Duration = Duration::from_millis(500);

async fn run(command: Command, global: Global) -> ExitCode {
    let ends_by_itself = command.ends_when_interrupted();
    let mut task = tokio::spawn(command.run(global));
    let interrupted = async {
        match ends_by_itself {
            true => std::future::pending().await,
            false => told_to_end().await,
        }
    };
    let outcome = tokio::select! {
        outcome = &mut task => outcome,
        code = interrupted => {
            // Dropping the command removes what it made for itself, such as a half-written export. One that never waits, as verifying a
            // store that is here, is not dropped.
            task.abort();
            let _ = tokio::time::timeout(HEEDS_WITHIN, &mut task).await;
            say(format_args!("interrupted"));
            std::process::exit(code);
        }
    };
    match outcome {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) => failure.report(),
        Err(panic) => Failure::new(format!("a defect of this program: {panic}")).report(),
    }
}
