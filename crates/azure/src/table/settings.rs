//! Which table is meant, and who we are to it.
//!
//! | URL | endpoint |
//! |---|---|
//! | `table://ACCOUNT/TABLE` | `https://ACCOUNT.table.` and the suffix of the [cloud](crate::cloud) |
//! | `table://HOST/TABLE` | `https://HOST`, with the account as its first label |
//! | `table+http://127.0.0.1:PORT/ACCOUNT/TABLE` | an emulator on this machine; nothing goes over a network unencrypted |
//!
//! A connection string's `TableEndpoint` takes the place of the endpoint of `table:`. Credentials, the first that is there:
//!
//! 1. `AZURE_STORAGE_CONNECTION_STRING`, with an account key or a shared access signature
//! 2. `AZURE_STORAGE_KEY`, and `AZURE_STORAGE_ACCOUNT`, which has to be the URL's then
//! 3. for the emulator's account `devstoreaccount1` its well-known key
//! 4. Entra ID
//!
//! *Invariant*: no credential is in a message, in the URL of a [`Settings`] or in what is printed of it.

use azure_core::credentials::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use precedent_core::{Error, ErrorKind, Result};
use url::Url;

use super::client::Retries;
use crate::cloud::Cloud;

/// The variable of a connection string.
pub const CONNECTION_STRING_VARIABLE: &str = "AZURE_STORAGE_CONNECTION_STRING";
/// The variable of an account key.
pub const KEY_VARIABLE: &str = "AZURE_STORAGE_KEY";
/// The variable of the account that the key is for.
pub const ACCOUNT_VARIABLE: &str = "AZURE_STORAGE_ACCOUNT";

/// The account of the emulator. Its key is the same everywhere and is no secret.
const EMULATOR_ACCOUNT: &str = "devstoreaccount1";
const EMULATOR_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Who we are to the service.
#[derive(Debug, Clone)]
pub enum Credential {
    /// The key of the account, in base64.
    Key(Secret),
    /// A shared access signature: the parameters, without `?`.
    Signature(Secret),
    /// Entra ID, whoever that finds.
    Entra,
}

impl Credential {
    /// What it is, in a message.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Key(_) => "the account key",
            Self::Signature(_) => "the shared access signature",
            Self::Entra => "the Entra ID credential",
        }
    }
}

/// What the parameters of a URL choose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// `item_bytes`: how long the encoded frame is at most that is written in one piece; 512 KiB unless said.
    pub item_bytes: Option<usize>,
    /// `inline_bytes`: above how many bytes of data a document names them instead of holding them. What does not fit a
    /// property of 64 KiB is named in any case.
    pub inline_bytes: Option<usize>,
}

/// A table, and how to reach it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The account.
    pub account: String,
    /// The table.
    pub table: String,
    /// Where the service is: `https://ACCOUNT.table.core.windows.net/`, or an emulator's `http://127.0.0.1:PORT/ACCOUNT/`.
    pub endpoint: Url,
    /// Who we are.
    pub credential: Credential,
    /// What the URL's parameters choose.
    pub options: Options,
    /// How long a call is tried again.
    pub retries: Retries,
    /// The URL that it was opened by, without parameters.
    pub url: String,
}

impl Settings {
    /// Reads the URL of a table, without its parameters, and the environment.
    ///
    /// # Errors
    /// `invalid` for a URL, a connection string or a key that is none, or that is another account's;
    /// `unauthorized` for an emulator's account of which no key is known.
    pub fn parse(url: &str, options: Options) -> Result<Self> {
        let read = |name: &str| std::env::var(name).ok();
        Self::parse_with(url, options, Cloud::from_environment()?, read)
    }

    /// Like [`Settings::parse`], with what the environment says given.
    ///
    /// # Errors
    /// As [`Settings::parse`].
    pub fn parse_with(
        url: &str,
        options: Options,
        cloud: Cloud,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let variable = |name| variable(name).filter(|value| !value.trim().is_empty());
        let place = Place::parse(url, cloud)?;
        let connection = variable(CONNECTION_STRING_VARIABLE);
        let connection = connection.map(|text| Connection::parse(&text)).transpose();
        let connection = connection.map_err(|error| error.context(CONNECTION_STRING_VARIABLE))?;
        let same = |account: Option<&str>, where_: &str| match account {
            Some(other) if other != place.account => Err(Error::invalid(format!(
                "{where_} is for the account '{}', the URL names the account '{}'",
                other.escape_debug(),
                place.account
            ))),
            _ => Ok(()),
        };
        let mut endpoint = place.endpoint;
        let credential = if let Some(connection) = connection {
            same(connection.account.as_deref(), CONNECTION_STRING_VARIABLE)?;
            if let (Some(other), false) = (connection.endpoint, place.emulator) {
                endpoint = other;
            }
            connection.credential
        } else if let Some(key) = variable(KEY_VARIABLE) {
            same(variable(ACCOUNT_VARIABLE).as_deref(), ACCOUNT_VARIABLE)?;
            Credential::Key(checked_key(key).map_err(|error| error.context(KEY_VARIABLE))?)
        } else if place.emulator && place.account == EMULATOR_ACCOUNT {
            Credential::Key(Secret::new(EMULATOR_KEY))
        } else if place.emulator {
            return Err(Error::new(
                ErrorKind::Unauthorized,
                format!(
                    "no key for the account '{}' of the emulator: set {KEY_VARIABLE}, or use {EMULATOR_ACCOUNT}",
                    place.account
                ),
            ));
        } else {
            Credential::Entra
        };
        check_options(options)?;
        let (account, table, url) = (place.account, place.table, place.url);
        Ok(Self { account, table, endpoint, credential, options, retries: Retries::default(), url })
    }
}

fn check_options(options: Options) -> Result<()> {
    let max = precedent_core::frame::FRAME_BYTES_MAX;
    match options.item_bytes {
        Some(bytes) if !(4096..=max).contains(&bytes) => {
            Err(Error::invalid(format!("item_bytes is {bytes}: it can be from 4096 to {max}")))
        }
        _ => Ok(()),
    }
}

/// What a URL says.
struct Place {
    url: String,
    account: String,
    table: String,
    endpoint: Url,
    emulator: bool,
}

impl Place {
    fn parse(text: &str, cloud: Cloud) -> Result<Self> {
        let bad = |why: &str| {
            let shown: String = text.chars().take_while(|c| *c != '?').take(128).collect();
            let shown = if shown.contains('@') {
                "the URL".to_owned()
            } else {
                format!("'{}'", shown.escape_debug())
            };
            Error::invalid(format!(
                "{shown} is not a table: {why}; expected table://ACCOUNT/TABLE or \
                 table+http://127.0.0.1:PORT/ACCOUNT/TABLE"
            ))
        };
        let url = Url::parse(text).map_err(|error| bad(&error.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad("it holds a credential, which belongs into the environment"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(bad("it has parameters"));
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        let segments: Vec<&str> =
            url.path_segments().into_iter().flatten().filter(|segment| !segment.is_empty()).collect();
        let place = match (url.scheme(), segments.as_slice()) {
            ("table", [table]) => {
                if url.port().is_some() {
                    return Err(bad("a port is only for an emulator"));
                }
                let account = host.split('.').next().unwrap_or_default().to_owned();
                let full = match host.contains('.') {
                    false => format!("{host}.table.{}", cloud.storage_suffix),
                    true if host.ends_with(".table.cosmos.azure.com")
                        || host.contains(".table.cosmosdb.") =>
                    {
                        return Err(bad(
                            "the Table API of Cosmos DB is another service: use cosmos://ACCOUNT/DATABASE/CONTAINER",
                        ));
                    }
                    true if !host.contains(".table.") => {
                        return Err(bad("its host is not one of Table Storage"));
                    }
                    true => host,
                };
                let endpoint = Url::parse(&format!("https://{full}/")).map_err(|e| bad(&e.to_string()))?;
                let url = format!("table://{}/{table}", url.host_str().unwrap_or_default());
                Self { url, account, table: (*table).to_owned(), endpoint, emulator: false }
            }
            ("table+http", [account, table]) => {
                let authority = match url.port() {
                    Some(port) => format!("{host}:{port}"),
                    None => host,
                };
                let endpoint = Url::parse(&format!("http://{authority}/{account}/"));
                let endpoint = endpoint.map_err(|error| bad(&error.to_string()))?;
                if !is_loopback(&endpoint) {
                    return Err(bad("table+http is for an emulator on this machine"));
                }
                let url = format!("table+http://{authority}/{account}/{table}");
                let (account, table) = ((*account).to_owned(), (*table).to_owned());
                Self { url, account, table, endpoint, emulator: true }
            }
            ("table" | "table+http", _) => return Err(bad("it has not the parts it needs")),
            _ => return Err(bad("its scheme is another one")),
        };
        let account_fits = place.account.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
            && (3..=24).contains(&place.account.len());
        if !account_fits {
            return Err(bad("an account has 3 to 24 of a-z and 0-9"));
        }
        let table_fits = place.table.starts_with(|c: char| c.is_ascii_alphabetic())
            && place.table.bytes().all(|c| c.is_ascii_alphanumeric())
            && (3..=63).contains(&place.table.len())
            && !place.table.eq_ignore_ascii_case("tables");
        if !table_fits {
            return Err(bad(
                "a table has 3 to 63 letters and digits, begins with a letter, and is not 'tables'",
            ));
        }
        Ok(place)
    }
}

/// Whether a URL leads to this machine: the only place that may be spoken to without TLS.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// What a connection string says.
struct Connection {
    account: Option<String>,
    endpoint: Option<Url>,
    credential: Credential,
}

impl Connection {
    /// No message shows any of it but the names of its parts: everything else may be a secret.
    fn parse(text: &str) -> Result<Self> {
        let (mut account, mut key, mut signature) = (None, None, None);
        let (mut endpoint, mut suffix, mut protocol) = (None, None, "https".to_owned());
        let mut emulator = false;
        for (index, part) in text.trim().split(';').enumerate().filter(|(_, part)| !part.trim().is_empty()) {
            let Some((name, value)) = part.split_once('=') else {
                return Err(Error::invalid(format!(
                    "part {} of the connection string has no '='",
                    index + 1
                )));
            };
            let value = value.trim().to_owned();
            match name.trim().to_ascii_lowercase().as_str() {
                "accountname" => account = Some(value),
                "accountkey" => key = Some(value),
                "sharedaccesssignature" => signature = Some(value.trim_start_matches('?').to_owned()),
                "tableendpoint" => endpoint = Some(value),
                "endpointsuffix" => suffix = Some(value),
                "defaultendpointsprotocol" => protocol = value,
                "usedevelopmentstorage" => emulator = value.eq_ignore_ascii_case("true"),
                // Endpoints of other services, and what is none of our business.
                _ => {}
            }
        }
        if emulator {
            let credential = Credential::Key(Secret::new(EMULATOR_KEY));
            return Ok(Self { account: Some(EMULATOR_ACCOUNT.into()), endpoint: None, credential });
        }
        if endpoint.is_none()
            && let (Some(account), Some(suffix)) = (&account, suffix)
        {
            endpoint = Some(format!("{protocol}://{account}.table.{suffix}"));
        }
        let endpoint = endpoint
            .map(|text| {
                let url = Url::parse(&text).ok().filter(|url| url.host().is_some());
                let mut url = url.ok_or_else(|| Error::invalid("the TableEndpoint of the connection string is not a URL"))?;
                let encrypted = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url));
                if !encrypted || url.query().is_some() || !url.username().is_empty() {
                    return Err(Error::invalid(
                        "the TableEndpoint of the connection string has to be https, without parameters and user",
                    ));
                }
                if !url.path().ends_with('/') {
                    url.set_path(&format!("{}/", url.path()));
                }
                Ok(url)
            })
            .transpose()?;
        let account = account.or_else(|| {
            let host = endpoint.as_ref()?.host_str()?;
            host.contains(".table.").then(|| host.split('.').next().unwrap_or_default().to_owned())
        });
        let credential = match (key, signature) {
            (Some(key), _) => Credential::Key(checked_key(key)?),
            (None, Some(signature)) => Credential::Signature(Secret::new(signature)),
            (None, None) => {
                return Err(Error::invalid(
                    "the connection string has neither an AccountKey nor a SharedAccessSignature",
                ));
            }
        };
        Ok(Self { account, endpoint, credential })
    }
}

/// A key is base64, which is worth saying before every call fails with another message.
fn checked_key(key: String) -> Result<Secret> {
    let key = key.trim().to_owned();
    match STANDARD.decode(&key) {
        Ok(bytes) if !bytes.is_empty() => Ok(Secret::new(key)),
        _ => Err(Error::invalid("the account key is not base64")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::CLOUDS;

    const SECRET: &str = "c2VjcmV0LXNlY3JldC1zZWNyZXQ=";

    fn parse(url: &str, variables: &[(&str, &str)]) -> Result<Settings> {
        let read =
            |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        let settings = Settings::parse_with(url, Options::default(), CLOUDS[0], read);
        let shown = format!("{settings:?}");
        assert!(!shown.contains(SECRET) && !shown.contains("sig="), "{shown}");
        settings
    }

    #[test]
    fn a_url_says_account_table_and_endpoint() {
        let settings = parse("table://acct1/events", &[]).expect("a table");
        assert_eq!(settings.endpoint.as_str(), "https://acct1.table.core.windows.net/");
        assert_eq!((settings.account.as_str(), settings.table.as_str()), ("acct1", "events"));
        assert!(matches!(settings.credential, Credential::Entra));
        let settings = parse("table://acct1.z12.table.storage.azure.net/events", &[]).expect("a host");
        assert_eq!(settings.endpoint.as_str(), "https://acct1.z12.table.storage.azure.net/");
        assert_eq!(settings.account, "acct1");
        let settings =
            parse("table+http://127.0.0.1:10002/devstoreaccount1/events", &[]).expect("an emulator");
        assert_eq!(settings.endpoint.as_str(), "http://127.0.0.1:10002/devstoreaccount1/");
        assert_eq!(settings.url, "table+http://127.0.0.1:10002/devstoreaccount1/events");
        assert!(matches!(settings.credential, Credential::Key(_)));
        let cloud = CLOUDS[1];
        let settings = Settings::parse_with("table://acct1/events", Options::default(), cloud, |_| None);
        assert_eq!(
            settings.expect("a table").endpoint.as_str(),
            "https://acct1.table.core.usgovcloudapi.net/"
        );
    }

    #[test]
    fn what_is_no_table_is_refused_and_shows_no_secret() {
        for url in [
            "table://acct1",
            "table://acct1/a/b",
            "table://acct1:443/events",
            "table://acct1/events?x=1",
            "table://acct1/1events",
            "table://acct1/ev-ents",
            "table://acct1/tables",
            "table://ab/events",
            "table://Ä/events",
            "table://acct1.example.com/events",
            "table://acct1.table.cosmos.azure.com/events",
            "table+http://10.0.0.1:80/acct1/events",
            "table+http://acct1.table.core.windows.net/acct1/events",
            "table+http://127.0.0.1:80/events",
            "table+http://127.0.0.1:80/acct1/events",
            "file:x",
            "",
        ] {
            parse(url, &[]).expect_err(url);
        }
        let error = parse(&format!("table://me:{SECRET}@acct1/events"), &[]).expect_err("a credential");
        assert!(error.message().contains("credential"), "{error}");
    }

    #[test]
    fn credentials_come_from_the_environment_and_have_to_be_the_accounts() {
        let key = format!(
            "DefaultEndpointsProtocol=https;AccountName=acct1;AccountKey={SECRET};EndpointSuffix=core.chinacloudapi.cn"
        );
        let settings = parse("table://acct1/events", &[(CONNECTION_STRING_VARIABLE, &key)]).expect("a key");
        assert!(matches!(&settings.credential, Credential::Key(key) if key.secret() == SECRET));
        assert_eq!(settings.endpoint.as_str(), "https://acct1.table.core.chinacloudapi.cn/");

        let error =
            parse("table://acct2/events", &[(CONNECTION_STRING_VARIABLE, &key)]).expect_err("another's");
        assert!(error.message().contains("'acct1'") && error.message().contains("'acct2'"), "{error}");

        let signature =
            "TableEndpoint=https://acct1.table.core.windows.net;SharedAccessSignature=?sv=1&sig=c2VjcmV0";
        let settings =
            parse("table://acct1/events", &[(CONNECTION_STRING_VARIABLE, signature)]).expect("a signature");
        assert!(
            matches!(&settings.credential, Credential::Signature(s) if s.secret() == "sv=1&sig=c2VjcmV0")
        );
        parse("table://acct2/events", &[(CONNECTION_STRING_VARIABLE, signature)]).expect_err("another's");

        let own = format!("AccountName=acct1;AccountKey={SECRET};TableEndpoint=https://127.0.0.1:7/acct1;");
        let settings =
            parse("table://acct1/events", &[(CONNECTION_STRING_VARIABLE, &own)]).expect("an endpoint");
        assert_eq!(settings.endpoint.as_str(), "https://127.0.0.1:7/acct1/");

        let settings = parse("table://acct1/events", &[(KEY_VARIABLE, SECRET)]).expect("a key");
        assert!(matches!(settings.credential, Credential::Key(_)));
        let error = parse("table://acct1/events", &[(KEY_VARIABLE, SECRET), (ACCOUNT_VARIABLE, "acct9")]);
        let error = error.expect_err("another account's");
        assert!(error.message().contains("'acct9'") && error.message().contains("'acct1'"), "{error}");

        for bad in [
            SECRET,
            "AccountName=acct1",
            "AccountName=acct1;AccountKey=%%%",
            "AccountName=acct1;AccountKey=c2VjcmV0;TableEndpoint=http://acct1.table.core.windows.net",
            "AccountName=acct1;AccountKey=c2VjcmV0;TableEndpoint=nothing",
        ] {
            let error = parse("table://acct1/events", &[(CONNECTION_STRING_VARIABLE, bad)]).expect_err("bad");
            assert!(error.message().starts_with(CONNECTION_STRING_VARIABLE), "{error}");
            assert!(!error.message().contains("c2VjcmV0"), "{error}");
        }
        let emulator = "table+http://127.0.0.1:1/devstoreaccount1/events";
        parse(emulator, &[(CONNECTION_STRING_VARIABLE, "UseDevelopmentStorage=true")]).expect("the emulator");
        parse(emulator, &[(CONNECTION_STRING_VARIABLE, &key)]).expect_err("another account's");
    }

    #[test]
    fn item_bytes_has_bounds() {
        let with = |bytes| {
            let options = Options { item_bytes: Some(bytes), inline_bytes: None };
            Settings::parse_with("table://acct1/events", options, CLOUDS[0], |_| None)
        };
        with(80_000).expect("80 KB");
        for bad in [0, 4095, (16 << 20) + 1] {
            assert!(with(bad).expect_err("out of bounds").message().contains(&bad.to_string()));
        }
    }
}
