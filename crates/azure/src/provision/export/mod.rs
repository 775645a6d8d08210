//! The definition for the tools that a company uses already: one file a format.
//!
//! *Invariant*: an export holds every owned value of the definition; its outputs have the names that `outputs` prints. A
//! test reads every format back with a reader of others and looks for each value at its place.

mod arm;
mod bicep;
mod pulumi;
mod pulumi_python;
mod pulumi_yaml;
mod terraform;

use precedent_core::Result;

use super::definition::{Resource, Type, definition};
use super::settings::Settings;

/// A format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A deployment template of Azure Resource Manager, at the scope of the subscription.
    Arm,
    /// Bicep: two files, since a resource group and what is in it have different scopes.
    Bicep,
    /// Pulumi, in YAML.
    PulumiYaml,
    /// Pulumi, in Python.
    PulumiPython,
    /// Terraform, with the provider azurerm.
    Terraform,
}

/// All of them.
pub const FORMATS: &[Format] =
    &[Format::Arm, Format::Bicep, Format::PulumiYaml, Format::PulumiPython, Format::Terraform];

impl Format {
    /// As it stands on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Arm => "arm",
            Self::Bicep => "bicep",
            Self::PulumiYaml => "pulumi-yaml",
            Self::PulumiPython => "pulumi-python",
            Self::Terraform => "terraform",
        }
    }

    /// The format of this name.
    pub fn named(name: &str) -> Option<Self> {
        FORMATS.iter().copied().find(|format| format.name() == name)
    }
}

/// The files of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Name and text of each, the main one first.
    pub files: Vec<(&'static str, String)>,
    /// The command that applies it, in the folder of the files.
    pub command: String,
}

/// Writes the definition in a format. Nothing is asked of Azure.
///
/// # Errors
/// `internal` if the definition has a value that the format has no place for.
pub fn export(settings: &Settings, format: Format) -> Result<Export> {
    let resources = definition(settings);
    match format {
        Format::Arm => Ok(arm::write(settings, &resources)),
        Format::Bicep => Ok(bicep::write(settings, &resources)),
        Format::PulumiYaml => Ok(pulumi_yaml::write(settings, &resources)),
        Format::PulumiPython => Ok(pulumi_python::write(settings, &resources)),
        Format::Terraform => terraform::write(settings, &resources),
    }
}

/// What a resource is called inside an export.
fn symbol(kind: Type) -> &'static str {
    match kind {
        Type::Group => "group",
        Type::CosmosAccount | Type::StorageAccount => "account",
        Type::SqlDatabase => "database",
        Type::SqlContainer => "container",
        Type::Table => "table",
        Type::CosmosRole | Type::StorageRole => "role",
    }
}

/// The names in the path of a resource, from its provider on: account, database, container.
fn names(resource: &Resource) -> Vec<&str> {
    resource.path.iter().skip(5).step_by(2).map(String::as_str).collect()
}

/// The first line of every file.
fn heading(settings: &Settings) -> String {
    format!(
        "{} for the event store Precedent, written by 'precedent provision {} export'",
        what(settings),
        settings.service().name()
    )
}

fn what(settings: &Settings) -> &'static str {
    match settings.service() {
        super::settings::Service::Cosmos => "Cosmos DB",
        super::settings::Service::Table => "Table Storage",
    }
}

/// `text` is put where the subscription's id stands in the definition; `None` if it does not stand there.
fn around_subscription(text: &str) -> Option<(&str, &str)> {
    text.split_once(super::definition::SUBSCRIPTION)
}

/// `consistencyPolicy` as `consistency_policy`.
fn snake(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}
