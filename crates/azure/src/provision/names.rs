//! What names and numbers Azure takes, checked before anything is asked of it.
//!
//! Each rule has its own message. The rules are those that Azure documents, narrowed where a name also stands in the URL
//! of a store: databases and containers are of letters, digits, `-`, `_` and `.`.

use precedent_core::{Error, Result};

/// The SKUs of a storage account that has tables.
pub const SKUS: &[&str] =
    &["Standard_LRS", "Standard_ZRS", "Standard_GRS", "Standard_RAGRS", "Standard_GZRS", "Standard_RAGZRS"];

fn wrong(what: &str, name: &str, why: &str) -> Error {
    Error::invalid(format!("{what} '{}': {why}", name.escape_debug()))
}

fn length(what: &str, name: &str, min: usize, max: usize) -> Result<()> {
    let length = name.chars().count();
    match (min..=max).contains(&length) {
        true => Ok(()),
        false => Err(wrong(what, name, &format!("it has {length} characters, and needs {min} to {max}"))),
    }
}

fn only(what: &str, name: &str, allowed: impl Fn(char) -> bool, said: &str) -> Result<()> {
    match name.chars().find(|c| !allowed(*c)) {
        None => Ok(()),
        Some(c) => Err(wrong(what, name, &format!("'{}' is not allowed: {said}", c.escape_debug()))),
    }
}

/// A resource group.
pub(crate) fn group(name: &str) -> Result<()> {
    const WHAT: &str = "the resource group";
    length(WHAT, name, 1, 90)?;
    let allowed = |c: char| c.is_alphanumeric() || "-_.()".contains(c);
    only(WHAT, name, allowed, "letters, digits, '-', '_', '.', '(' and ')' are")?;
    match name.ends_with('.') {
        true => Err(wrong(WHAT, name, "it must not end with '.'")),
        false => Ok(()),
    }
}

/// An account of Cosmos DB; the name is unique in the whole cloud.
pub(crate) fn cosmos_account(name: &str) -> Result<()> {
    const WHAT: &str = "the Cosmos DB account";
    length(WHAT, name, 3, 44)?;
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    only(WHAT, name, allowed, "lowercase letters, digits and '-' are")?;
    if name.starts_with('-') || name.ends_with('-') {
        return Err(wrong(WHAT, name, "it must begin and end with a letter or digit"));
    }
    match name.contains("--") {
        true => Err(wrong(WHAT, name, "two '-' must not follow each other")),
        false => Ok(()),
    }
}

fn in_url(what: &str, name: &str) -> Result<()> {
    length(what, name, 1, 255)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    only(
        what,
        name,
        allowed,
        "letters, digits, '-', '_' and '.' are, since the name stands in the store's URL",
    )?;
    match name.chars().all(|c| c == '.') {
        true => Err(wrong(what, name, "it must not be of dots only")),
        false => Ok(()),
    }
}

/// A database of Cosmos DB.
pub(crate) fn database(name: &str) -> Result<()> {
    in_url("the database", name)
}

/// A container of Cosmos DB.
pub(crate) fn container(name: &str) -> Result<()> {
    in_url("the container", name)
}

/// A storage account; the name is unique in the whole cloud.
pub(crate) fn storage_account(name: &str) -> Result<()> {
    const WHAT: &str = "the storage account";
    length(WHAT, name, 3, 24)?;
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    only(WHAT, name, allowed, "lowercase letters and digits are")
}

/// A table.
pub(crate) fn table(name: &str) -> Result<()> {
    const WHAT: &str = "the table";
    length(WHAT, name, 3, 63)?;
    only(WHAT, name, |c| c.is_ascii_alphanumeric(), "letters and digits are")?;
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Err(wrong(WHAT, name, "it must begin with a letter"));
    }
    match name.eq_ignore_ascii_case("tables") {
        true => Err(wrong(WHAT, name, "Azure keeps this name for itself")),
        false => Ok(()),
    }
}

/// A region as Azure's interfaces name it: `East US` and `eastus` are one.
pub(crate) fn location(name: &str) -> Result<String> {
    const WHAT: &str = "the location";
    only(WHAT, name, |c| c.is_ascii_alphanumeric() || c == ' ', "letters, digits and spaces are")?;
    let folded = folded_location(name);
    length(WHAT, &folded, 3, 40)?;
    Ok(folded)
}

/// A region without what differs between the ways it is written.
pub(crate) fn folded_location(name: &str) -> String {
    name.chars().filter(|c| *c != ' ').map(|c| c.to_ascii_lowercase()).collect()
}

/// A GUID, such as the id of a subscription or of an identity.
pub(crate) fn guid(what: &str, text: &str) -> Result<String> {
    let parts: Vec<&str> = text.split('-').collect();
    let lengths = parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]);
    match lengths && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-') {
        true => Ok(text.to_ascii_lowercase()),
        false => Err(wrong(what, text, "it has to be a GUID such as 00000000-0000-0000-0000-000000000000")),
    }
}

/// Request units a second that are always there.
pub(crate) fn throughput(units: u64) -> Result<()> {
    match (400..=1_000_000).contains(&units) && units.is_multiple_of(100) {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "a throughput of {units} RU/s: it has to be a multiple of 100 from 400 to 1000000"
        ))),
    }
}

/// The most request units a second that Azure scales to.
pub(crate) fn autoscale(units: u64) -> Result<()> {
    match (1_000..=1_000_000).contains(&units) && units.is_multiple_of(1_000) {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "an autoscale throughput of {units} RU/s: it has to be a multiple of 1000 from 1000 to 1000000"
        ))),
    }
}

/// The SKU of a storage account, as Azure writes it.
pub(crate) fn sku(name: &str) -> Result<&'static str> {
    let found = SKUS.iter().find(|sku| sku.eq_ignore_ascii_case(name)).copied();
    found.ok_or_else(|| wrong("the SKU", name, &format!("the SKUs that have tables are {}", SKUS.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_on_names_has_a_message_of_its_own() {
        type Check = fn(&str) -> Result<()>;
        let long = "a".repeat(300);
        let cases: &[(Check, &str, &str)] = &[
            (group, "", "it has 0 characters, and needs 1 to 90"),
            (group, "a/b", "'/' is not allowed"),
            (group, "a.", "must not end with '.'"),
            (cosmos_account, "ab", "it has 2 characters, and needs 3 to 44"),
            (cosmos_account, "Abc", "'A' is not allowed"),
            (cosmos_account, "a.b", "'.' is not allowed"),
            (cosmos_account, "-ab", "must begin and end"),
            (cosmos_account, "a--b", "two '-'"),
            (database, "a/b", "'/' is not allowed"),
            (database, "..", "of dots only"),
            (container, &long, "it has 300 characters"),
            (container, "a b", "' ' is not allowed"),
            (storage_account, "a-b", "'-' is not allowed"),
            (storage_account, "aaaaaaaaaaaaaaaaaaaaaaaaa", "it has 25 characters, and needs 3 to 24"),
            (table, "1ab", "begin with a letter"),
            (table, "Tables", "keeps this name"),
            (table, "a_b", "'_' is not allowed"),
        ];
        for (check, name, says) in cases {
            let error = check(name).expect_err(name);
            assert!(error.message().contains(says), "{name}: {error}");
        }
        for (check, name) in [
            (group as Check, "ai-event-sourcing-rg"),
            (group, "größe_(1)"),
            (cosmos_account, "precedent-0a1"),
            (database, "eventSourcingDb"),
            (container, "eventsContainer"),
            (storage_account, "aieventsourcingstorage"),
            (table, "eventsTable"),
        ] {
            check(name).expect(name);
        }
    }

    #[test]
    fn numbers_out_of_range_are_named_with_the_range() {
        assert!(throughput(400).is_ok() && throughput(1_000_000).is_ok());
        for units in [0, 399, 450, 1_000_100] {
            assert!(throughput(units).expect_err("refused").message().contains("from 400 to 1000000"));
        }
        assert!(autoscale(1_000).is_ok());
        assert!(autoscale(1_500).expect_err("refused").message().contains("multiple of 1000"));
        assert!(guid("the subscription", "x").is_err());
        assert!(guid("the subscription", "00000000-0000-0000-0000-00000000000g").is_err());
        assert_eq!(location("East US").expect("a region"), "eastus");
        assert!(location("east/us").is_err());
        assert_eq!(sku("standard_lrs").expect("a SKU"), "Standard_LRS");
        assert!(sku("Premium_LRS").expect_err("no tables").message().contains("Standard_ZRS"));
    }
}
