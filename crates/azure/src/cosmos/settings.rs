//! Where the container is and who we are to it: the URL, and the variables beside it.
//!
//! *Invariant*: a key is only ever sent to the account it belongs to, and nothing here shows one.

use std::fmt;

use azure_core::credentials::Secret;
use precedent_core::{Error, ErrorKind, Result};
use url::{Host, Url};

use crate::cloud::Cloud;

/// The variable with a connection string.
pub const CONNECTION_STRING_VARIABLE: &str = "AZURE_COSMOS_CONNECTION_STRING";
/// The variable with an account key.
pub const KEY_VARIABLE: &str = "AZURE_COSMOS_KEY";
/// The variable with the endpoint that the key belongs to; if set, it has to be the URL's.
pub const ENDPOINT_VARIABLE: &str = "AZURE_COSMOS_ENDPOINT";
/// The key of every emulator, as Microsoft publishes it.
const EMULATOR_KEY: &str =
    "C2y6yDjf5/R+ob0N8A7Cgv30VRDJIWEHLM+4QDU5DE2nQ9nDuVTqobD4b8mGGyPMbIZnqyMsEcaGQy67XIw/Jw==";

/// How we say who we are.
#[derive(Clone)]
pub enum Credential {
    /// The key of the account.
    Key(Secret),
    /// Entra ID.
    Entra,
}

impl Credential {
    /// What kind it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Key(_) => "account key",
            Self::Entra => "Entra ID credential",
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

/// The container, and who we are to it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The endpoint of the account, with a `/` at the end.
    pub endpoint: Url,
    /// The database.
    pub database: String,
    /// The container.
    pub container: String,
    /// Who we are.
    pub credential: Credential,
}

/// What the caller may choose, from the query of the URL.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The size that items of frames have at most, instead of the one that follows from the throughput.
    pub item_bytes: Option<usize>,
    /// The region to write to, in an account with several.
    pub region: Option<String>,
}

impl Settings {
    /// The settings for a URL, with the variables of this process.
    ///
    /// # Errors
    /// `invalid` if the URL or a variable is not what it has to be, or they name different accounts.
    pub fn from_environment(url: &str) -> Result<Self> {
        Self::new(url, |name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// The settings for a URL, with variables from elsewhere.
    ///
    /// # Errors
    /// As [`Settings::from_environment`].
    pub fn new(url: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let parsed =
            Url::parse(url).map_err(|error| Error::invalid(format!("the URL of the store: {error}")))?;
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(Error::invalid(format!("a cosmos URL holds no credentials: set {KEY_VARIABLE}")));
        }
        let host = parsed.host_str().unwrap_or_default();
        let (endpoint, emulated) = match parsed.scheme() {
            "cosmos" if host.contains('.') || host.starts_with('[') => {
                let port = parsed.port().map(|port| format!(":{port}")).unwrap_or_default();
                (format!("https://{host}{port}/"), false)
            }
            "cosmos" if parsed.port().is_some() => {
                return Err(Error::invalid(format!(
                    "the URL of the store has a port, which an account ('{host}') does not have: a port follows a full \
                     host name"
                )));
            }
            "cosmos" => (format!("https://{host}.{}/", Cloud::from_environment()?.cosmos_suffix), false),
            "cosmos+http" => {
                // The standard parser leaves the host of a scheme it does not know as text.
                let endpoint = format!("http://{host}:{}/", parsed.port().unwrap_or(80));
                let loopback =
                    match Url::parse(&endpoint).ok().and_then(|url| url.host().map(|h| h.to_owned())) {
                        Some(Host::Ipv4(ip)) => ip.is_loopback(),
                        Some(Host::Ipv6(ip)) => ip.is_loopback(),
                        Some(Host::Domain(name)) => name == "localhost",
                        None => false,
                    };
                if !loopback {
                    return Err(Error::invalid(format!(
                        "cosmos+http is for an emulator on this machine, '{host}' is not: use cosmos://"
                    )));
                }
                (endpoint, true)
            }
            other => return Err(Error::invalid(format!("'{other}' is not a scheme of Cosmos DB"))),
        };
        let endpoint =
            Url::parse(&endpoint).map_err(|_| Error::invalid("the URL of the store has no account"))?;
        let path: Vec<_> = parsed.path().trim_matches('/').split('/').collect();
        let [database, container] = path[..] else {
            return Err(Error::invalid("the URL of a container is cosmos://ACCOUNT/DATABASE/CONTAINER"));
        };
        if endpoint.host_str().is_none_or(str::is_empty) || database.is_empty() || container.is_empty() {
            return Err(Error::invalid("the URL of a container is cosmos://ACCOUNT/DATABASE/CONTAINER"));
        }
        let credential = credential(&endpoint, emulated, variable)?;
        Ok(Self { endpoint, database: database.into(), container: container.into(), credential })
    }
}

fn credential(
    endpoint: &Url,
    emulated: bool,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Credential> {
    let same = |other: &str, name: &str| {
        let url =
            Url::parse(other).map_err(|_| Error::invalid(format!("{name}: its endpoint is not a URL")))?;
        let place = |url: &Url| (url.host_str().map(str::to_lowercase), url.port_or_known_default());
        if place(&url) == place(endpoint) {
            return Ok(());
        }
        let (theirs, ours) = (url.host_str().unwrap_or_default(), endpoint.host_str().unwrap_or_default());
        Err(Error::invalid(format!("{name} is for the account {theirs}, the URL is for {ours}")))
    };
    if let Some(text) = variable(CONNECTION_STRING_VARIABLE) {
        let field = |name: &str| {
            text.split(';').find_map(|pair| {
                let (key, value) = pair.split_once('=')?;
                key.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        let lacks = |what| Error::invalid(format!("{CONNECTION_STRING_VARIABLE} has no {what}"));
        same(&field("AccountEndpoint").ok_or_else(|| lacks("AccountEndpoint"))?, CONNECTION_STRING_VARIABLE)?;
        return Ok(Credential::Key(Secret::new(field("AccountKey").ok_or_else(|| lacks("AccountKey"))?)));
    }
    if let Some(key) = variable(KEY_VARIABLE) {
        if let Some(other) = variable(ENDPOINT_VARIABLE) {
            same(&other, ENDPOINT_VARIABLE)?;
        }
        return Ok(Credential::Key(Secret::new(key)));
    }
    Ok(if emulated { Credential::Key(Secret::new(EMULATOR_KEY)) } else { Credential::Entra })
}

/// Kinds of failure that have nothing to do with the service's answer.
pub(super) fn not_a_store(message: String) -> Error {
    Error::new(ErrorKind::NotAStore, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(url: &str, variables: &[(&str, &str)]) -> Result<Settings> {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned());
        Settings::new(url, find)
    }

    #[test]
    fn a_key_is_never_sent_to_another_account_than_its_own_and_never_shown() {
        let string = "AccountEndpoint=https://other.documents.azure.com:443/;AccountKey=c2VjcmV0LWtleQ==;";
        let error = with("cosmos://mine/db/c", &[(CONNECTION_STRING_VARIABLE, string)]).expect_err("another");
        assert!(error.message().contains("other.documents.azure.com") && error.message().contains("mine."));
        assert!(!error.message().contains("c2Vj"));
        let good = string.replace("other", "mine");
        let settings = with("cosmos://mine/db/c", &[(CONNECTION_STRING_VARIABLE, &good)]).expect("its own");
        assert!(!format!("{settings:?}").contains("c2Vj"));
        assert_eq!(settings.endpoint.as_str(), "https://mine.documents.azure.com/");
    }

    #[test]
    fn a_port_is_that_of_a_host_and_never_dropped() {
        let endpoint = |url: &str| with(url, &[]).map(|settings| settings.endpoint.to_string());
        for (url, expected) in [
            ("cosmos://mine.example.com:8443/db/c", "https://mine.example.com:8443/"),
            ("cosmos://mine.example.com:443/db/c", "https://mine.example.com/"),
            ("cosmos://127.0.0.1:8081/db/c", "https://127.0.0.1:8081/"),
            ("cosmos://[::1]:8081/db/c", "https://[::1]:8081/"),
            ("cosmos://mine/db/c", "https://mine.documents.azure.com/"),
            ("cosmos+http://localhost:8081/db/c", "http://localhost:8081/"),
        ] {
            assert_eq!(endpoint(url).expect(url), expected);
        }
        let refused = endpoint("cosmos://mine:8443/db/c").expect_err("an account has no port");
        assert!(refused.message().contains("'mine'") && refused.message().contains("port"), "{refused}");
        // A key for the same host is not sent to another port.
        let key = [(KEY_VARIABLE, "c2Vj"), (ENDPOINT_VARIABLE, "https://mine.example.com/")];
        assert!(with("cosmos://mine.example.com:8443/db/c", &key).is_err());
    }

    #[test]
    fn plain_http_is_for_this_machine_only() {
        assert!(with("cosmos+http://127.0.0.1:8081/db/c", &[]).is_ok());
        for url in ["cosmos+http://example.com/db/c", "cosmos+http://127.0.0.1.example.com/db/c"] {
            assert!(with(url, &[]).expect_err(url).message().contains("on this machine"));
        }
        assert!(
            with("cosmos://mine/db", &[]).expect_err("no container").message().contains("DATABASE/CONTAINER")
        );
    }
}
