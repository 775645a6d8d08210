//! What a reader of this repository can rely on, checked: files in order, modules that say what they are for,
//! links that lead somewhere, and dependencies that point inward.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::markdown;
use crate::steps::Outcome;
use crate::workspace::Workspace;

/// A file with more lines than this is hardly held in the head; it is named, and does not fail.
const LINES_WISHED: usize = 900;

/// What no Rust file holds. Written in two pieces, so that this file does not either.
const UNFINISHED: [&str; 4] =
    [concat!("todo", "!("), concat!("dbg", "!("), concat!("unimplemented", "!("), concat!("#[", "ignore")];

/// Places that exist on one machine only, and hosts that are one person's way to the registry.
const MACHINE: [&str; 10] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/Use", "rs/"),
    concat!("C:\\", "Users"),
    concat!("index.", "crates.io"),
    concat!("static.", "crates.io"),
    concat!("registry.", "npmjs.org"),
    concat!("art", "ifactory"),
    concat!(".cargo/", "registry"),
];

/// Where every crate of a lock file comes from that is not ours.
const LOCK_SOURCE: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Which of our crates each may depend on, as ARCHITECTURE.md has it. A new crate needs a row.
const ARROWS: &[(&str, &[&str])] = &[
    ("precedent-core", &[]),
    ("precedent-engine", &["precedent-core"]),
    ("precedent-azure", &["precedent-core", "precedent-engine"]),
    ("precedent-emulators", &[]),
    ("precedent-capture", &["precedent-core"]),
    // The record of a decision shows calls in the one view that capture makes of them (decision 21).
    ("precedent-decisions", &["precedent-core", "precedent-capture"]),
    ("precedent-server", &["precedent-core", "precedent-capture", "precedent-decisions"]),
    ("precedent", &["precedent-core", "precedent-engine", "precedent-azure"]),
    // `provision` makes what a store needs before there is one; whoever opens a store does not carry it.
    (
        "precedent-cli",
        &["precedent", "precedent-azure", "precedent-server", "precedent-decisions", "precedent-core"],
    ),
    ("xtask", &[]),
];

/// What the core does without: runtimes, HTTP, disks, command lines.
const NOT_IN_CORE: &[&str] = &[
    "tokio",
    "async-std",
    "smol",
    "axum",
    "hyper",
    "reqwest",
    "tonic",
    "rustls",
    "tempfile",
    "memmap2",
    "clap",
];

/// The findings of all checks.
#[derive(Debug, Default)]
struct Findings {
    wrong: Vec<String>,
    notes: Vec<String>,
}

/// The text files of the repository, by path.
type Files = BTreeMap<String, String>;

/// Runs every check.
pub(crate) fn look(workspace: &Workspace) -> Outcome {
    match all(workspace) {
        Err(error) => Outcome::Failed(error),
        Ok((_, findings)) if !findings.wrong.is_empty() => Outcome::Failed(findings.wrong.join("\n")),
        Ok((count, findings)) => {
            for note in &findings.notes {
                println!("   note: {note}");
            }
            Outcome::Passed(format!("{count} files"))
        }
    }
}

fn all(workspace: &Workspace) -> Result<(usize, Findings), String> {
    let mut files = Files::new();
    for file in workspace.files()? {
        if let Some(text) = workspace.text(&file)? {
            files.insert(file, text);
        }
    }
    let mut findings = Findings::default();
    for (file, text) in &files {
        lines_of(file, text, &mut findings);
    }
    for (file, lock) in files.iter().filter(|(file, _)| file.ends_with("Cargo.lock")) {
        lock_sources(file, lock, &mut findings);
    }
    documents(workspace, &files, &mut findings);
    decisions(&files, &mut findings);
    arrows(&workspace.metadata(&["--no-deps"])?, &mut findings);
    for (file, text) in files.iter().filter(|(file, _)| is_crate_manifest(file)) {
        if !text.contains("[lints]\nworkspace = true") {
            findings.wrong.push(format!("{file}: the lints of the workspace are not taken over ([lints])"));
        }
    }
    Ok((files.len(), findings))
}

fn is_crate_manifest(file: &str) -> bool {
    file == "xtask/Cargo.toml" || (file.starts_with("crates/") && file.ends_with("/Cargo.toml"))
}

/// Whether the line holds `place`, and not only as the later part of a longer path or URL.
fn names(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        !place.starts_with('/') || !line[..at].ends_with(|c: char| c.is_alphanumeric() || "-_.}".contains(c))
    })
}

/// What was recorded elsewhere, or is written by a program, is left as it is.
fn is_ours_to_shape(file: &str) -> bool {
    !file.starts_with("fixtures/")
        && !file.contains("/fixtures/")
        && !file.ends_with("Cargo.lock")
        && file != "LICENSE"
}

fn lines_of(file: &str, text: &str, findings: &mut Findings) {
    if !is_ours_to_shape(file) {
        return;
    }
    let rust = file.ends_with(".rs");
    let wrong = &mut findings.wrong;
    if !text.is_empty() && !text.ends_with('\n') {
        wrong.push(format!("{file}: the last line does not end"));
    }
    for (at, line) in text.lines().enumerate() {
        let mut note = |what: &str| wrong.push(format!("{file}:{}: {what}", at + 1));
        if line.ends_with([' ', '\t', '\r']) {
            note("white space at the end of the line");
        }
        if rust && line.contains('\t') {
            note("a tab");
        }
        for word in UNFINISHED.iter().filter(|word| rust && line.contains(**word)) {
            note(&format!("unfinished or switched off: {word}"));
        }
        for word in MACHINE.iter().filter(|word| names(line, word)) {
            note(&format!("names a place on one machine or a registry host: {word}"));
        }
    }
    if !rust {
        return;
    }
    let opens = |line: &&str| !line.trim().is_empty() && !line.starts_with("#!");
    if is_module(file) && !text.lines().find(opens).is_some_and(|line| line.starts_with("//!")) {
        wrong.push(format!("{file}: does not open with `//!`, saying what it is responsible for"));
    }
    let lines = text.lines().count();
    if lines > LINES_WISHED {
        findings.notes.push(format!("{file} has {lines} lines; more than {LINES_WISHED} are two files"));
    }
}

/// Every module opens with its responsibility, but those that only hold the tests of another.
fn is_module(file: &str) -> bool {
    let ours = file.starts_with("xtask/src/") || (file.starts_with("crates/") && file.contains("/src/"));
    ours && !file.ends_with("/tests.rs") && !file.contains("/tests/")
}

fn lock_sources(file: &str, lock: &str, findings: &mut Findings) {
    for line in lock.lines() {
        if let Some(source) = line.strip_prefix("source = ")
            && source.trim_matches('"') != LOCK_SOURCE
        {
            findings.wrong.push(format!("{file}: a crate comes from {source}"));
        }
    }
}

/// Relative links lead to files and headings that are there, and every page is reached from the front.
fn documents(workspace: &Workspace, files: &Files, findings: &mut Findings) {
    let mut linked: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (file, text) in files.iter().filter(|(file, _)| file.ends_with(".md")) {
        let dir = file.rsplit_once('/').map_or("", |(dir, _)| dir);
        for (line, link) in markdown::links(text) {
            if link.contains("://") || link.starts_with("mailto:") || link.is_empty() {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() { Some(file.clone()) } else { joined(dir, path) };
            let Some(target) = target.filter(|target| workspace.root().join(target).exists()) else {
                findings.wrong.push(format!("{file}:{line}: nothing is at '{link}'"));
                continue;
            };
            if let Some(text) = files.get(&target)
                && target.ends_with(".md")
                && !anchor.is_empty()
                && !markdown::anchors(text).iter().any(|a| a == anchor)
            {
                findings.wrong.push(format!("{file}:{line}: {target} has no heading '#{anchor}'"));
            }
            linked.entry(file).or_default().insert(target);
        }
    }
    let front = ["README.md", "ARCHITECTURE.md"];
    if front.iter().any(|file| !files.contains_key(*file)) {
        findings
            .notes
            .push("README.md or ARCHITECTURE.md is not there yet; nothing can be reached from it".into());
        return;
    }
    let is_reached = |page: &str| {
        let dir = page.rsplit_once('/').map_or("", |(dir, _)| dir);
        front.iter().any(|file| {
            linked
                .get(file)
                .is_some_and(|to| to.contains(page) || (page.ends_with("/README.md") && to.contains(dir)))
        })
    };
    let pages = files.keys().filter(|file| file.starts_with("docs/") && file.ends_with(".md"));
    for page in pages.filter(|page| !page.starts_with("docs/decisions/0")) {
        if !is_reached(page) {
            findings.wrong.push(format!("{page}: neither README.md nor ARCHITECTURE.md links to it"));
        }
    }
}

/// `path` as seen from `dir`, both with `/`; `None` if it leaves the repository.
fn joined(dir: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = dir.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Decision pages are numbered without gaps and stand in their index.
fn decisions(files: &Files, findings: &mut Findings) {
    let pages: Vec<&str> = files.keys().filter_map(|file| file.strip_prefix("docs/decisions/0")).collect();
    let index = files.get("docs/decisions/README.md").map_or("", String::as_str);
    for (number, page) in pages.iter().enumerate() {
        let page = format!("0{page}");
        if !page.starts_with(&format!("{number:04}-")) {
            findings.wrong.push(format!("docs/decisions/{page}: the number {number:04} comes next"));
        }
        if !index.contains(&format!("]({page})")) {
            findings.wrong.push(format!("docs/decisions/{page}: is not in the index, README.md beside it"));
        }
    }
}

/// Our crates depend on each other as [`ARROWS`] says; for tests they may depend on any.
fn arrows(metadata: &Value, findings: &mut Findings) {
    let none = Vec::new();
    let packages = metadata["packages"].as_array().unwrap_or(&none);
    let names: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| *from == name) else {
            findings.wrong.push(format!("{name}: has no row in the table of arrows"));
            continue;
        };
        let dependencies = package["dependencies"].as_array().unwrap_or(&none);
        for dependency in dependencies.iter().filter(|dependency| dependency["kind"].as_str() != Some("dev"))
        {
            let to = dependency["name"].as_str().unwrap_or_default();
            if names.contains(to) && !allowed.contains(&to) {
                findings
                    .wrong
                    .push(format!("{name} depends on {to}, which the table of arrows does not allow"));
            }
            if name == "precedent-core" && NOT_IN_CORE.contains(&to) {
                findings.wrong.push(format!("{name} depends on {to}: the core has no runtime, HTTP or disk"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(check: impl FnOnce(&mut Findings)) -> Vec<String> {
        let mut findings = Findings::default();
        check(&mut findings);
        findings.wrong
    }

    #[test]
    fn unfinished_and_untidy_lines_are_named_with_their_place() {
        let todo = format!("//! A module.\nfn f() {{ {}) }}\n", UNFINISHED[0]);
        for (text, says) in [
            ("//! A module.\nfn f() {} \n", ":2: white space"),
            ("//! A module.\n\tfn f() {}\n", ":2: a tab"),
            ("fn f() {}\n", "does not open"),
            ("//! A module.", "last line"),
            (&todo, ":2: unfinished"),
        ] {
            let found = wrong(|findings| lines_of("crates/x/src/a.rs", text, findings));
            assert!(found.len() == 1 && found[0].contains(says), "{found:?}");
        }
        let found = wrong(|findings| lines_of("docs/a.md", &format!("see {}x\n", MACHINE[0]), findings));
        assert!(found[0].starts_with("docs/a.md:1: names a place"), "{found:?}");
        let url = format!("see x.org{}x\n", MACHINE[2]);
        assert!(wrong(|findings| lines_of("docs/a.md", &url, findings)).is_empty());
        assert!(wrong(|findings| lines_of("fixtures/a.md", "x ", findings)).is_empty());
        assert!(wrong(|findings| lines_of("crates/x/src/a.rs", "#![a]\n\n//! B.\n", findings)).is_empty());
    }

    #[test]
    fn an_arrow_that_points_outward_is_named_and_tests_may_use_anything() {
        let metadata = serde_json::json!({"packages": [
            {"name": "precedent-core", "dependencies": [
                {"name": "precedent-engine", "kind": "dev"}, {"name": "tokio", "kind": null}]},
            {"name": "precedent-engine", "dependencies": [{"name": "precedent-core", "kind": null}]},
            {"name": "precedent-server", "dependencies": [{"name": "precedent-engine", "kind": null}]},
            {"name": "precedent-new", "dependencies": []},
        ]});
        let found = wrong(|findings| arrows(&metadata, findings));
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].contains("tokio"));
        assert!(found[1].starts_with("precedent-server depends on precedent-engine"));
        assert!(found[2].starts_with("precedent-new: has no row"));
    }

    #[test]
    fn a_decision_page_has_the_next_number_and_stands_in_the_index() {
        let page = |name: &str| (format!("docs/decisions/{name}"), "# x\n".to_owned());
        let mut files: Files = [page("0000-template.md"), page("0002-x.md")].into();
        files.insert("docs/decisions/README.md".into(), "[t](0000-template.md)".into());
        let found = wrong(|findings| decisions(&files, findings));
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn a_link_is_seen_from_the_page_it_stands_on() {
        assert_eq!(joined("docs/decisions", "../format.md").as_deref(), Some("docs/format.md"));
        assert_eq!(joined("", "docs/./x.md").as_deref(), Some("docs/x.md"));
        assert_eq!(joined("docs", "../../x.md"), None);
    }

    #[test]
    fn a_crate_from_elsewhere_is_named() {
        let lock = format!("source = \"{LOCK_SOURCE}\"\nsource = \"git+https://example.org/x\"\n");
        assert_eq!(wrong(|findings| lock_sources("Cargo.lock", &lock, findings)).len(), 1);
    }
}
