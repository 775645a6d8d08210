//! Runs a command while its output is passed on and looked at: how many tests it ran, whether it is done in time.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How many tests a command said it ran.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tests {
    /// Those that passed.
    pub(crate) passed: u64,
    /// Those that did not.
    pub(crate) failed: u64,
    /// Those that did not run.
    pub(crate) skipped: u64,
}

impl Tests {
    /// Adds what a line of libtest's or nextest's output says, if it is one of their summaries.
    fn note(&mut self, line: &str) {
        let line = line.trim();
        let Some((_, counts)) = line
            .strip_prefix("test result: ")
            .and_then(|rest| rest.split_once(". "))
            .or_else(|| line.strip_prefix("Summary").and_then(|rest| rest.split_once(" run: ")))
        else {
            return;
        };
        for part in counts.split([';', ',']) {
            let mut words = part.split_whitespace();
            let (Some(number), Some(what)) = (words.next().and_then(|n| n.parse::<u64>().ok()), words.next())
            else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" | "timed" => self.failed += number,
                "ignored" | "skipped" => self.skipped += number,
                // "filtered out" and "measured" are not tests that were asked for.
                _ => {}
            }
        }
    }

    /// So many of those that passed only said why they could not run.
    pub(crate) fn leave_out(&mut self, tests: u64) {
        self.passed = self.passed.saturating_sub(tests);
        self.skipped += tests;
    }

    /// In a few words.
    pub(crate) fn words(&self) -> String {
        let all = self.passed + self.failed;
        let mut words = if all == 1 { "1 test".to_owned() } else { format!("{all} tests") };
        if self.skipped > 0 {
            words.push_str(&format!(", {} left out", self.skipped));
        }
        words
    }
}

/// Runs a command; its output goes where ours goes.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    println!("   {}", shown(command));
    let status = command.status().map_err(|e| format!("{} does not start: {e}", shown(command)))?;
    ended(command, status)
}

/// Runs a command that runs tests, passes its output on, and counts.
pub(crate) fn run_tests(command: &mut Command) -> Result<Tests, String> {
    println!("   {}", shown(command));
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{} does not start: {e}", shown(command)))?;
    let err = child.stderr.take().map(|err| thread::spawn(move || pass_on(err, std::io::stderr())));
    let mut tests = child.stdout.take().map(|out| pass_on(out, std::io::stdout())).unwrap_or_default();
    if let Some(more) = err.and_then(|reader| reader.join().ok()) {
        tests.passed += more.passed;
        tests.failed += more.failed;
        tests.skipped += more.skipped;
    }
    let status = child.wait().map_err(|e| format!("{}: {e}", shown(command)))?;
    ended(command, status).map(|()| tests)
}

fn pass_on(from: impl Read, mut to: impl Write) -> Tests {
    let mut tests = Tests::default();
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        tests.note(&String::from_utf8_lossy(&line));
        // A reader that went away is no reason to stop counting.
        let _ = to.write_all(&line);
        line.clear();
    }
    tests
}

fn ended(command: &Command, status: ExitStatus) -> Result<(), String> {
    match status.success() {
        true => Ok(()),
        false => Err(format!("{} ended with {status}", shown(command))),
    }
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub(crate) struct Captured {
    /// Its standard output.
    pub(crate) stdout: String,
    /// Its standard error.
    pub(crate) stderr: String,
    /// Its exit code; `None` if a signal ended it.
    pub(crate) code: Option<i32>,
}

/// Runs a command and keeps what it prints. One that takes longer than `limit` is killed, and that is an error.
pub(crate) fn capture(command: &mut Command, limit: Duration) -> Result<Captured, String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{} does not start: {e}", shown(command)))?;
    let out = child.stdout.take().map(|out| thread::spawn(move || all(out)));
    let err = child.stderr.take().map(|err| thread::spawn(move || all(err)));
    let status = wait(&mut child, limit).map_err(|e| format!("{}: {e}", shown(command)))?;
    let text = |reader: Option<thread::JoinHandle<String>>| {
        reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
    };
    Ok(Captured { stdout: text(out), stderr: text(err), code: status.code() })
}

fn all(mut from: impl Read) -> String {
    let mut bytes = Vec::new();
    // What was read before an error is still the output.
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus, String> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            return Ok(status);
        }
        if begin.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("not done after {} s", limit.as_secs()));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let mut line = program.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_counted_whoever_ran_them() {
        let mut tests = Tests::default();
        tests.note(
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s",
        );
        tests.note(
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s",
        );
        assert_eq!(tests, Tests { passed: 13, failed: 2, skipped: 1 });
        assert_eq!(tests.words(), "15 tests, 1 left out");

        let mut tests = Tests::default();
        tests.note("     Summary [   0.842s] 59 tests run: 57 passed (1 slow), 2 failed, 4 skipped");
        tests.note("running 3 tests");
        assert_eq!(tests, Tests { passed: 57, failed: 2, skipped: 4 });
    }
}
