//! `--name value`, nothing more: this program is called by another one.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::peer::Result;

/// What stands behind the verb and the system.
#[derive(Debug)]
pub(crate) struct Arguments(BTreeMap<String, String>);

impl Arguments {
    pub(crate) fn of(words: &[&str]) -> Result<Self> {
        let mut values = BTreeMap::new();
        for pair in words.chunks(2) {
            let [name, value] = pair else { return Err(format!("'{}' has no value", pair.join(" ")).into()) };
            let name = name.strip_prefix("--").ok_or_else(|| format!("'{name}' is not understood"))?;
            values.insert(name.to_owned(), (*value).to_owned());
        }
        Ok(Self(values))
    }

    pub(crate) fn get<T: FromStr>(&self, name: &str) -> Result<T> {
        let text = self.0.get(name).ok_or_else(|| format!("--{name} is missing"))?;
        text.parse().map_err(|_| format!("--{name} cannot be '{text}'").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_not_understood_is_named() {
        let arguments = Arguments::of(&["--events", "5", "--dir", "x"]).unwrap();
        assert_eq!(arguments.get::<u64>("events").unwrap(), 5);
        assert!(arguments.get::<u64>("dir").unwrap_err().to_string().contains("--dir cannot be 'x'"));
        assert!(arguments.get::<u64>("rounds").unwrap_err().to_string().contains("--rounds is missing"));
        assert!(Arguments::of(&["--events"]).unwrap_err().to_string().contains("'--events' has no value"));
        assert!(Arguments::of(&["events", "5"]).unwrap_err().to_string().contains("'events'"));
    }
}
