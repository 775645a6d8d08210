//! Runs steps one after the other, says what became of each and how long it took, and counts.
//!
//! A step that fails does not stop the others: one run names everything that is wrong. A step that cannot
//! run says why and is counted as skipped; on a build server it fails instead, so that nothing is missing
//! there unseen.

use std::time::{Duration, Instant};

use crate::workspace::Workspace;

/// What became of a step.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// All is well; a few words on what was looked at.
    Passed(String),
    /// Something is not; what.
    Failed(String),
    /// It could not run here; why.
    Skipped(String),
}

impl From<Result<String, String>> for Outcome {
    fn from(result: Result<String, String>) -> Self {
        match result {
            Ok(words) => Self::Passed(words),
            Err(message) => Self::Failed(message),
        }
    }
}

/// One thing to be looked at.
#[derive(Debug)]
pub(crate) struct Step {
    /// Its name, one word.
    pub(crate) name: &'static str,
    /// Looks.
    pub(crate) run: fn(&Workspace) -> Outcome,
}

/// A line of the summary: what a step of this name ended as.
pub(crate) fn summary_line(name: &str, ended: &str, took: Duration, words: &str) -> String {
    let line = format!("{name:<10} {ended:<8} {:>7.1} s  {words}", took.as_secs_f64());
    line.trim_end().to_owned()
}

/// The last line of a run.
pub(crate) fn closing_line(passed: usize, failed: usize, skipped: usize) -> String {
    format!("{passed} passed, {failed} failed, {skipped} skipped")
}

/// Runs the steps, prints a summary that ends with [`closing_line`], and answers whether nothing failed.
/// `keep` is given the summary of a run in which everything passed.
pub(crate) fn run(workspace: &Workspace, steps: &[Step], keep: impl FnOnce(&str)) -> bool {
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    let mut summary = String::new();
    for step in steps {
        println!("== {}", step.name);
        let begin = Instant::now();
        let mut outcome = (step.run)(workspace);
        let took = begin.elapsed();
        if let Outcome::Skipped(why) = &outcome
            && Workspace::is_ci()
        {
            outcome = Outcome::Failed(format!("{why}, and on a build server nothing is skipped"));
        }
        let (ended, words) = match &outcome {
            Outcome::Passed(words) => {
                passed += 1;
                ("passed", words.as_str())
            }
            Outcome::Failed(message) => {
                failed += 1;
                println!("{message}");
                ("FAILED", "")
            }
            Outcome::Skipped(why) => {
                skipped += 1;
                ("skipped", why.as_str())
            }
        };
        let line = summary_line(step.name, ended, took, words);
        println!("== {line}\n");
        summary.push_str(&line);
        summary.push('\n');
    }
    summary.push_str(&closing_line(passed, failed, skipped));
    summary.push('\n');
    if failed == 0 && skipped == 0 {
        keep(&summary);
    }
    print!("{summary}");
    failed == 0
}

/// Says what became of a verb that is one step of its own.
pub(crate) fn alone(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Passed(words) => {
            println!("{words}");
            true
        }
        Outcome::Skipped(why) => {
            println!("skipped: {why}");
            true
        }
        Outcome::Failed(message) => {
            eprintln!("{message}");
            false
        }
    }
}
