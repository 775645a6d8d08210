//! The tests that could not do what they are for, and why.
//!
//! A test that needs something that is not there prints a line that begins with `skipped: ` and returns. To the one who
//! runs it, it has passed. nextest keeps what tests printed in a report (`.config/nextest.toml`), where those lines are found.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::workspace::Workspace;

/// What a line begins with that says why a test could not run.
const MARK: &str = "skipped: ";

/// Why tests were left out, and how many for each reason.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LeftOut(BTreeMap<String, u64>);

impl LeftOut {
    /// Of a report in JUnit's XML.
    fn of(report: &str) -> Self {
        let mut reasons = BTreeMap::new();
        for test in report.split("<testcase ").skip(1) {
            // An element begins where its text does.
            let lines = test.lines().flat_map(|line| line.split('>'));
            if let Some(why) = lines.map(str::trim_start).find_map(|line| line.strip_prefix(MARK)) {
                let why = why.split('<').next().unwrap_or(why);
                *reasons.entry(plain(why)).or_default() += 1;
            }
        }
        Self(reasons)
    }

    /// How many tests.
    pub(crate) fn tests(&self) -> u64 {
        self.0.values().sum()
    }

    /// A line for each reason.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(why, tests)| match tests {
            1 => format!("left out: {why}"),
            more => format!("left out: {why} ({more} tests)"),
        })
    }
}

fn plain(xml: &str) -> String {
    [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&#39;", "'"), ("&amp;", "&")]
        .into_iter()
        .fold(xml.trim().to_owned(), |text, (written, meant)| text.replace(written, meant))
}

fn path(workspace: &Workspace) -> Option<PathBuf> {
    workspace.target_dir().ok().map(|target| target.join("nextest/default/junit.xml"))
}

/// Forgets the report of an earlier run.
pub(crate) fn forget(workspace: &Workspace) {
    // Most likely there is none.
    let _ = path(workspace).map(fs::remove_file);
}

/// What the run that has just ended left out; nothing where nextest is not installed and keeps no report.
pub(crate) fn read(workspace: &Workspace) -> LeftOut {
    let report = path(workspace).and_then(|path| fs::read_to_string(path).ok());
    report.map(|report| LeftOut::of(&report)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_found_in_what_passing_tests_printed() {
        let report = r#"<testsuite name="a">
            <testcase name="one" classname="a" time="0.1"><system-out>running 1 test
test one ... ok
</system-out><system-err>skipped: &apos;x&apos; is not there
</system-err></testcase>
            <testcase name="two" classname="a"><system-err>first
skipped: &apos;x&apos; is not there
skipped: nor is this
</system-err></testcase>
            <testcase name="three" classname="a"><system-out>skipped  a part: of a suite</system-out></testcase>
            <testcase name="skipped: by name" classname="a"/>
            <testcase name="four"><system-err>it was not skipped: it ran</system-err></testcase>
        </testsuite>"#;
        let found = LeftOut::of(report);
        assert_eq!(found.tests(), 2);
        assert_eq!(found.lines().collect::<Vec<_>>(), ["left out: 'x' is not there (2 tests)"]);
    }
}
