//! The workspace this program belongs to: its root, its files, and how cargo is called on it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// The package that makes the binary people run.
pub(crate) const BINARY_PACKAGE: &str = "precedent-cli";
/// The name of that binary.
pub(crate) const BINARY: &str = "precedent";

/// Directories that hold nothing of ours, for the case that git cannot be asked.
const NOT_OURS: [&str; 6] = [".git", "target", "corpus", "artifacts", "node_modules", "precedent-data"];

/// Where the workspace is, and how to ask about it.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The workspace this program was built from, wherever it is called.
    pub(crate) fn find() -> Result<Self, String> {
        let manifest_dir = std::env::var_os("CARGO_MANIFEST_DIR")
            .unwrap_or_else(|| OsString::from(env!("CARGO_MANIFEST_DIR")));
        let root = Path::new(&manifest_dir).parent().map(Path::to_path_buf).unwrap_or_default();
        match root.join("Cargo.toml").is_file() {
            true => Ok(Self { root }),
            false => Err(format!("{} holds no Cargo.toml; call this as `cargo xtask`", root.display())),
        }
    }

    /// The directory with the workspace's `Cargo.toml`.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A call of the cargo that called us, in the root, without standard input.
    pub(crate) fn cargo(&self, subcommand: &[&str]) -> Command {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let mut command = Command::new(cargo);
        command.current_dir(&self.root).args(subcommand).stdin(Stdio::null());
        // `cargo run` describes *this* package in the environment. Passed on, it would make build scripts
        // that look at those variables run again, and then once more when cargo is called by hand.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"]
                .iter()
                .any(|prefix| text.starts_with(prefix))
            {
                command.env_remove(&name);
            }
        }
        command
    }

    /// Whether this runs on a build server, where the lock file has to be complete and nothing may be missing.
    pub(crate) fn is_ci() -> bool {
        std::env::var("CI").is_ok_and(|ci| !matches!(ci.as_str(), "" | "0" | "false"))
    }

    /// What `cargo metadata` says, with these arguments.
    pub(crate) fn metadata(&self, args: &[&str]) -> Result<Value, String> {
        let mut command = self.cargo(&["metadata", "--format-version", "1"]);
        if Self::is_ci() {
            command.arg("--locked");
        }
        let out = command.args(args).output().map_err(|e| format!("cargo metadata does not start: {e}"))?;
        if !out.status.success() {
            return Err(format!("cargo metadata fails: {}", String::from_utf8_lossy(&out.stderr).trim()));
        }
        serde_json::from_slice(&out.stdout)
            .map_err(|e| format!("cargo metadata does not answer in JSON: {e}"))
    }

    /// Where cargo puts what it builds.
    pub(crate) fn target_dir(&self) -> Result<PathBuf, String> {
        let metadata = self.metadata(&["--no-deps"])?;
        metadata["target_directory"]
            .as_str()
            .map(PathBuf::from)
            .ok_or_else(|| "cargo metadata names no target directory".into())
    }

    /// Every file that is, or would be, committed: paths below the root with `/`, in order.
    pub(crate) fn files(&self) -> Result<Vec<String>, String> {
        let git = Command::new("git")
            .current_dir(&self.root)
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .stdin(Stdio::null())
            .output();
        let mut files: Vec<String> = match git {
            Ok(out) if out.status.success() => String::from_utf8_lossy(&out.stdout)
                .split_terminator('\0')
                .filter(|file| self.root.join(file).is_file())
                .map(str::to_owned)
                .collect(),
            // An unpacked source archive, or no git.
            _ => {
                let mut files = Vec::new();
                walk(&self.root, "", &mut files).map_err(|e| format!("the files cannot be listed: {e}"))?;
                files
            }
        };
        files.sort();
        files.dedup();
        Ok(files)
    }

    /// The text of a file below the root; `None` if it is not text.
    pub(crate) fn text(&self, file: &str) -> Result<Option<String>, String> {
        let bytes = fs::read(self.root.join(file)).map_err(|e| format!("{file} cannot be read: {e}"))?;
        Ok(String::from_utf8(bytes).ok().filter(|text| !text.contains('\0')))
    }
}

fn walk(dir: &Path, prefix: &str, files: &mut Vec<String>) -> std::io::Result<()> {
    for item in fs::read_dir(dir)? {
        let item = item?;
        let name = item.file_name().to_string_lossy().into_owned();
        let kind = item.file_type()?;
        if kind.is_dir() && !NOT_OURS.contains(&name.as_str()) {
            walk(&item.path(), &format!("{prefix}{name}/"), files)?;
        } else if kind.is_file() {
            files.push(format!("{prefix}{name}"));
        }
    }
    Ok(())
}
