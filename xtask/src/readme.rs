//! Keeps the output in the documentation true: every marked block holds what its command really prints.
//!
//! The blocks of one document run in its order, with the dev build, in one empty directory, so that a later
//! one sees what an earlier one recorded. Blocks are compared after [`normal`] took out what changes from run
//! to run; one that is stale fails the check, and [`regenerate`] puts the real output in its place.
//!
//! `cargo xtask test` cannot run inside itself: its block holds the summary of the last run in which
//! everything passed, and the check asks that it names the steps there are. It may be empty until there was
//! such a run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::markdown::{OutputBlock, output_blocks};
use crate::normal::normal;
use crate::output::{capture, run};
use crate::steps::{Outcome, closing_line, summary_line};
use crate::suite;
use crate::workspace::{BINARY, BINARY_PACKAGE, Workspace};

/// A command in the documentation is done within this time.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// The command that cannot run inside itself.
const SUITE: &str = "cargo xtask test";

/// The ways to call the binary that the documentation shows.
const CALLS: [&str; 3] = ["cargo run --release -- ", "cargo run --release -q -- ", "cargo run -- "];

/// Where the summary of the last complete run of `cargo xtask test` is kept.
pub(crate) fn kept_summary(workspace: &Workspace) -> Result<PathBuf, String> {
    Ok(workspace.target_dir()?.join("xtask").join("test-summary.txt"))
}

/// A document with output blocks.
struct Document {
    file: String,
    text: String,
    blocks: Vec<OutputBlock>,
}

fn documents(workspace: &Workspace) -> Result<Vec<Document>, String> {
    let mut documents = Vec::new();
    for file in workspace.files()?.into_iter().filter(|file| file.ends_with(".md")) {
        let Some(text) = workspace.text(&file)? else { continue };
        let blocks = output_blocks(&text).map_err(|e| format!("{file}: {e}"))?;
        if !blocks.is_empty() {
            documents.push(Document { file, text, blocks });
        }
    }
    Ok(documents)
}

/// A directory of its own for the commands of one document, gone when they are done.
struct Place(PathBuf);

impl Place {
    fn new(number: usize) -> Result<Self, String> {
        let dir = std::env::temp_dir().join(format!("precedent-docs-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).map_err(|e| format!("{} cannot be made: {e}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What `block` should hold now.
fn now(workspace: &Workspace, block: &OutputBlock, place: &Place, bin_dir: &Path) -> Result<String, String> {
    if block.command == SUITE {
        // A summary that was kept before a step was added is of no use.
        let kept = fs::read_to_string(kept_summary(workspace)?).unwrap_or_default();
        return Ok(if shows_the_steps(&kept).is_ok() { kept } else { String::new() });
    }
    let mut command = if block.command == "cargo xtask" {
        Command::new(std::env::current_exe().map_err(|e| format!("this program is not found: {e}"))?)
    } else {
        let line = CALLS
            .iter()
            .find_map(|call| block.command.strip_prefix(call))
            .map_or(block.command.clone(), |args| format!("{BINARY} {args}"));
        if line.starts_with("cargo ") {
            return Err(
                "only `cargo run --release --`, `cargo xtask` and `cargo xtask test` are run here".into()
            );
        }
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(line);
        shell
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::iter::once(bin_dir.to_path_buf()).chain(std::env::split_paths(&path));
    let path = std::env::join_paths(dirs).map_err(|e| format!("PATH: {e}"))?;
    command
        .current_dir(&place.0)
        .env("PATH", path)
        .env("NO_COLOR", "1")
        .env("TERM", "dumb")
        .env("COLUMNS", "100");
    for ours in std::env::vars_os().map(|(name, _)| name) {
        if ours.to_string_lossy().starts_with("PRECEDENT_") {
            command.env_remove(ours);
        }
    }
    let captured = capture(&mut command, TIME_LIMIT)?;
    if captured.code != Some(block.exit) {
        let code = captured.code.map_or("a signal".to_owned(), |code| format!("code {code}"));
        let (exit, said) = (block.exit, captured.stderr.trim());
        return Err(format!("ended with {code}, expected code {exit}\n{said}"));
    }
    let output = captured.stdout.replace(&*place.0.to_string_lossy(), "/tmp/precedent");
    let lines: Vec<&str> = output.trim_end().lines().map(str::trim_end).collect();
    Ok(lines.join("\n"))
}

/// Whether a block that shows the summary of `cargo xtask test` names the steps there are.
fn shows_the_steps(block: &str) -> Result<(), String> {
    let mut should = String::new();
    for step in suite::TEST {
        should.push_str(&summary_line(step.name, "passed", Duration::ZERO, ""));
        should.push('\n');
    }
    should.push_str(&closing_line(suite::TEST.len(), 0, 0));
    // The words behind the time are counts, which change with every test that is written.
    let bare: Vec<String> = block
        .lines()
        .map(|line| line.split_once(" s  ").map_or(line.to_owned(), |(before, _)| format!("{before} s")))
        .collect();
    compare(&bare.join("\n"), &should)
}

/// Says how two outputs differ, if they do.
fn compare(shown: &str, now: &str) -> Result<(), String> {
    match normal(shown) == normal(now) {
        true => Ok(()),
        false => Err(difference(shown, now)),
    }
}

/// The lines of both, those with `-` only shown, those with `+` only real.
fn difference(shown: &str, real: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) =
        (shown.trim_end().lines().collect(), real.trim_end().lines().collect());
    let same = |i: usize, j: usize| normal(a[i]) == normal(b[j]);
    // common[i][j]: how many lines of a[i..] and b[j..] can be paired, in order.
    let mut common = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i][j] =
                if same(i, j) { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut out = String::new();
    while i < a.len() || j < b.len() {
        let (mark, line) = if i < a.len() && j < b.len() && same(i, j) {
            (i, j) = (i + 1, j + 1);
            (' ', a[i - 1])
        } else if j == b.len() || (i < a.len() && common[i + 1][j] >= common[i][j + 1]) {
            i += 1;
            ('-', a[i - 1])
        } else {
            j += 1;
            ('+', b[j - 1])
        };
        out.push_str(&format!("  {mark} {line}\n"));
    }
    out
}

/// Looks at every block; what `stale` makes of a block that is not true is counted, or is what failed.
fn each(
    workspace: &Workspace,
    mut stale: impl FnMut(&Document, &OutputBlock, String, String) -> Result<(), String>,
) -> Result<usize, String> {
    let documents = documents(workspace)?;
    if documents.is_empty() {
        return Ok(0);
    }
    run(&mut workspace.cargo(&["build", "--quiet", "--package", BINARY_PACKAGE, "--bin", BINARY]))?;
    let bin_dir = workspace.target_dir()?.join("debug");
    let mut problems = Vec::new();
    let mut count = 0;
    for (number, document) in documents.iter().enumerate() {
        let place = Place::new(number)?;
        for block in &document.blocks {
            count += 1;
            let lines: Vec<&str> = document.text.lines().collect();
            let shown = lines[block.lines.0..block.lines.1].join("\n");
            let checked = now(workspace, block, &place, &bin_dir).and_then(|real| {
                let compared = match block.command.as_str() {
                    SUITE if !shown.is_empty() => shows_the_steps(&shown),
                    _ => compare(&shown, &real),
                };
                compared.or_else(|difference| stale(document, block, real, difference))
            });
            if let Err(problem) = checked {
                problems.push(format!("{}:{}: `{}` {problem}", document.file, block.line, block.command));
            }
        }
    }
    if problems.is_empty() { Ok(count) } else { Err(problems.join("\n")) }
}

/// Fails if a block does not hold what its command prints.
pub(crate) fn check(workspace: &Workspace) -> Outcome {
    let checked = each(workspace, |_, _, _, difference| {
        Err(format!(
            "prints something else (- shown, + real); `cargo xtask readme` puts it right\n{difference}"
        ))
    });
    match checked {
        Ok(0) => Outcome::Passed("no blocks of output".into()),
        Ok(count) => Outcome::Passed(format!("{count} blocks of output")),
        Err(problems) => Outcome::Failed(problems),
    }
}

/// Puts the real output into every block that is stale.
pub(crate) fn regenerate(workspace: &Workspace) -> Outcome {
    let mut fresh: Vec<(String, (usize, usize), String)> = Vec::new();
    let looked = each(workspace, |document, block, real, _| {
        if real.lines().any(|line| line.trim_start().starts_with("```")) {
            return Err("prints a line that would end the block".into());
        }
        fresh.push((document.file.clone(), block.lines, real));
        Ok(())
    });
    let written = fresh.len();
    // From the last block to the first, so that the line numbers of the others stay true.
    for (file, (from, to), real) in fresh.into_iter().rev() {
        let replaced = workspace.text(&file).and_then(|text| {
            let text = text.unwrap_or_default();
            let mut lines: Vec<&str> = text.lines().collect();
            lines.splice(from..to, real.lines());
            let path = workspace.root().join(&file);
            fs::write(&path, lines.join("\n") + "\n").map_err(|e| format!("{file} cannot be written: {e}"))
        });
        if let Err(error) = replaced {
            return Outcome::Failed(error);
        }
    }
    looked.map(|count| format!("{count} blocks of output, {written} were stale and are written anew")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_line_is_shown_beside_the_real_one() {
        assert_eq!(compare("took 3 ms\nroot 0123456789ab", "took 12.0 s\nroot ba9876543210"), Ok(()));
        let difference = compare("a\nold\nc", "a\nnew\nc\nd").unwrap_err();
        assert_eq!(difference, "    a\n  - old\n  + new\n    c\n  + d\n");
    }

    #[test]
    fn the_shown_summary_names_the_steps_there_are() {
        let mut block = String::new();
        for step in suite::TEST {
            block.push_str(&summary_line(step.name, "passed", Duration::from_secs(7), "12 things"));
            block.push('\n');
        }
        let complete = format!("{block}{}\n", closing_line(suite::TEST.len(), 0, 0));
        assert_eq!(shows_the_steps(&complete), Ok(()));
        let without_last = block.lines().take(suite::TEST.len() - 1).collect::<Vec<_>>().join("\n");
        assert!(shows_the_steps(&without_last).is_err());
    }
}
