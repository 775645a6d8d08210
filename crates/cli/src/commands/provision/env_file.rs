//! A file of environment variables: readable by its owner only, whole or not there, and never over somebody else's file.

use std::io::Write;
use std::path::Path;

use crate::failure::{Failure, Result};

/// What such a file begins with: how a file of ours is recognised.
const MARK: &str = "# written by 'precedent provision'; it gives access to a store";

/// Whether the file may be written: it is not there, is one of ours, or `force` was said.
pub(crate) fn check(path: &Path, force: bool) -> Result<()> {
    let shown = path.display();
    match path.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::new(format!("{shown}: {error}"))),
        Ok(found) if !found.is_file() => {
            Err(Failure::new(format!("{shown} is no file, and is not overwritten")))
        }
        Ok(_) if force => Ok(()),
        Ok(_) => {
            let is_ours = std::fs::read(path).is_ok_and(|text| text.starts_with(MARK.as_bytes()));
            match is_ours {
                true => Ok(()),
                false => Err(Failure::new(format!(
                    "{shown} is there already and was not written by this command, so it is not overwritten"
                ))
                .hint("--force overwrites it; another name keeps it")),
            }
        }
    }
}

/// Writes the variables, in single quotes as shells take them.
pub(crate) fn write(path: &Path, variables: &[(&str, String)], force: bool) -> Result<()> {
    check(path, force)?;
    let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
    let mut text = format!("{MARK}\n");
    for (name, value) in variables {
        if value.contains(['\'', '\n', '\r', '\0']) {
            return Err(Failure::new(format!("the value of {name} cannot stand in a file of variables")));
        }
        text.push_str(&format!("{name}='{value}'\n"));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Made with mode 0600, before a byte is in it.
    let mut file = tempfile::Builder::new().prefix(".env-").tempfile_in(folder).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    match path.symlink_metadata().is_ok() {
        // It was looked at a moment ago.
        true => file.persist(path).map_err(|error| failed(error.error))?,
        false => file.persist_noclobber(path).map_err(|error| failed(error.error))?,
    };
    #[cfg(unix)]
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_owner_reads_it_and_another_file_is_not_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("azure.env");
        let variables = [("A", "x;y=z==".to_owned())];
        write(&path, &variables, false).expect("it is new");
        write(&path, &variables, false).expect("it is ours");
        let text = std::fs::read_to_string(&path).expect("it is there");
        assert_eq!(text, format!("{MARK}\nA='x;y=z=='\n"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        std::fs::write(&path, "mine").expect("written");
        write(&path, &variables, false).expect_err("not ours");
        assert_eq!(std::fs::read_to_string(&path).expect("it is there"), "mine");
        write(&path, &variables, true).expect("it was said");
        write(folder.path(), &variables, true).expect_err("a folder");
        write(&path, &[("A", "it's".into())], false).expect_err("a quote");
        let left = std::fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(left, 1, "nothing half written is left");
    }
}
