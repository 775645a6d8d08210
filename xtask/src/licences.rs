//! The licence of every crate in the tree, held against the list of those allowed.
//!
//! Every crate means every crate of `Cargo.lock`: of all platforms, for tests and build scripts too. A crate
//! that names no licence fails.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::spdx::Expression;
use crate::steps::Outcome;
use crate::workspace::Workspace;

/// Permissive licences only: none asks anything of those who link with the binary but to keep the notices.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "BlueOak-1.0.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Zlib",
];

#[derive(Debug)]
struct Package {
    name: String,
    /// `None`: the manifest has none, or only a file.
    licence: Option<String>,
}

fn packages(workspace: &Workspace) -> Result<Vec<Package>, String> {
    let metadata = workspace.metadata(&[])?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata names no packages")?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Ok(packages
        .iter()
        .map(|package| Package {
            name: format!(
                "{} {}",
                text(&package["name"]).unwrap_or_default(),
                text(&package["version"]).unwrap_or_default()
            ),
            licence: text(&package["license"]),
        })
        .collect())
}

/// What is wrong with a crate's licence, if anything.
fn problem(package: &Package) -> Option<String> {
    let Some(licence) = &package.licence else {
        return Some(format!("{} names no licence", package.name));
    };
    match Expression::parse(licence) {
        Err(error) => {
            Some(format!("{}: the licence '{licence}' is not an SPDX expression: {error}", package.name))
        }
        Ok(expression) if !expression.allows(ALLOWED) => {
            Some(format!("{}: the licence '{licence}' is not allowed", package.name))
        }
        Ok(_) => None,
    }
}

fn judge(packages: &[Package]) -> Outcome {
    let problems: Vec<String> = packages.iter().filter_map(problem).collect();
    match problems.is_empty() {
        true => Outcome::Passed(format!("{} crates", packages.len())),
        false => Outcome::Failed(format!("{}\nallowed: {}", problems.join("\n"), ALLOWED.join(", "))),
    }
}

/// Looks at every crate.
pub(crate) fn look(workspace: &Workspace) -> Outcome {
    match packages(workspace) {
        Ok(packages) => judge(&packages),
        Err(error) => Outcome::Failed(error),
    }
}

/// Prints every licence and who has it, then judges.
pub(crate) fn list(workspace: &Workspace) -> Outcome {
    let packages = match packages(workspace) {
        Ok(packages) => packages,
        Err(error) => return Outcome::Failed(error),
    };
    let mut by_licence: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in &packages {
        by_licence.entry(package.licence.as_deref().unwrap_or("none")).or_default().push(&package.name);
    }
    for (licence, names) in by_licence {
        println!("{licence}\n    {}", names.join(", "));
    }
    judge(&packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(licence: Option<&str>) -> Option<String> {
        problem(&Package { name: "some 1.0.0".into(), licence: licence.map(str::to_owned) })
    }

    #[test]
    fn a_crate_without_an_allowed_licence_is_named() {
        assert_eq!(judged(Some("MIT OR GPL-3.0-only")), None);
        assert!(judged(None).unwrap().contains("some 1.0.0"));
        assert!(judged(Some("AGPL-3.0-only")).unwrap().contains("AGPL-3.0-only"));
        assert!(judged(Some("my own")).unwrap().contains("not an SPDX expression"));
    }
}
