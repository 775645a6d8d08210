//! From a URL to a log: the only place that matches on schemes.
//!
//! A directory has one writer. If that writer is a server on this machine, [`open`] asks it instead of
//! failing; if it is another process, what it has published can still be read beside it.
//!
//! *Invariant*: the token goes to the host that was named, or to a server on this machine that holds the
//! lock of the directory that was named; never elsewhere.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use precedent_azure::cosmos::{self, CosmosRemote};
use precedent_azure::table::{self, TableRemote};
use precedent_azure::{self as azure, CatchingUp, RemoteStore};
use precedent_core::{Error, ErrorKind, Log, LogName, MemoryStore, Result, Store};
use precedent_engine::{self as engine, EmbeddedStore};

use crate::http::HttpStore;

/// The environment variable that holds the bearer token for a server.
const TOKEN_VARIABLE: &str = "PRECEDENT_TOKEN";

/// What is meant to be done with a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Read it. A directory that a server has open is read through that server, unless that fails.
    Read,
    /// Read the files of a directory themselves, whoever has it open: for those who check them.
    ReadFiles,
    /// Read it and write to it, through the server that has it open if there is one.
    #[default]
    Write,
    /// Be the one process that writes to it: fails if another one is.
    Own,
}

/// How a log is opened.
#[derive(Clone)]
pub struct OpenOptions {
    /// What is meant to be done with it.
    pub access: Access,
    /// Make the directory's store if there is none; only with [`Access::Write`] and [`Access::Own`].
    pub create: bool,
    /// Write although this machine's clock is behind the log; this is recorded in the log.
    pub accept_clock: bool,
    /// Compress what is recorded, in the background: only for a directory that is opened by this process. Without
    /// it the log stays as it is written.
    pub pack: bool,
    /// The bearer token for a server; without one, the environment variable `PRECEDENT_TOKEN`.
    pub token: Option<String>,
    /// Told how many events are here, while a log on Azure is caught up with, and when that is done.
    pub catching_up: Option<CatchingUp>,
}

impl Default for OpenOptions {
    /// To write, making the store if there is none.
    fn default() -> Self {
        Self {
            access: Access::Write,
            create: true,
            accept_clock: false,
            pack: true,
            token: None,
            catching_up: None,
        }
    }
}

impl std::fmt::Debug for OpenOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenOptions")
            .field("access", &self.access)
            .field("create", &self.create)
            .field("accept_clock", &self.accept_clock)
            .field("pack", &self.pack)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .finish_non_exhaustive()
    }
}

impl OpenOptions {
    /// To read what is there.
    pub fn read() -> Self {
        Self { access: Access::Read, create: false, ..Self::default() }
    }

    /// The same, with another access.
    #[must_use]
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    fn token(&self) -> Option<String> {
        let from_environment = || std::env::var(TOKEN_VARIABLE).ok();
        self.token.clone().or_else(from_environment).filter(|token| !token.is_empty())
    }
}

/// A log, and what only the process that owns its directory can do.
#[derive(Debug)]
pub struct Opened {
    log: Log,
    owned: Option<Arc<EmbeddedStore>>,
}

impl Opened {
    /// The log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Writes into the directory's lock where this process serves it, so that others ask there instead of
    /// failing. Nothing happens for a store that is not a directory opened by this process.
    pub fn publish_url(&self, url: &str) -> Result<()> {
        self.owned.as_ref().map_or(Ok(()), |store| store.publish_url(url))
    }
}

/// Opens the log behind a URL. The [crate documentation](crate) lists the URLs.
///
/// # Errors
/// `invalid` for a URL that is not understood; `not_found` for a directory that is not there, unless it is to
/// be made; `locked`, with the process id, if another process writes to it and cannot be asked; whatever the
/// store itself says.
pub async fn open(url: &str, options: OpenOptions) -> Result<Log> {
    Ok(open_store(url, options).await?.log)
}

/// Like [`open`], for those who may have to [publish](Opened::publish_url) where they serve the store.
pub async fn open_store(url: &str, options: OpenOptions) -> Result<Opened> {
    let (location, name) = parse(url)?;
    let not_owned = |store: Arc<dyn Store>| Opened { log: Log::new(store, name.clone()), owned: None };
    match location {
        Location::Memory => Ok(not_owned(Arc::new(MemoryStore::new()))),
        Location::Http(url) if options.access == Access::Own => Err(Error::invalid(format!(
            "{url} is a server already: only a store of this machine can be owned by this process"
        ))),
        Location::Http(url) => Ok(not_owned(connect(&url, options.token()).await?)),
        // Any number of processes write to it: nobody has to own it.
        Location::Service(service) => Ok(not_owned(open_service(service, &options).await?)),
        Location::Directory(path) => match options.access {
            Access::Read | Access::ReadFiles => Ok(not_owned(open_to_read(&path, &options).await?)),
            Access::Write | Access::Own => {
                let opened = open_to_write(&path, &options).await?;
                Ok(match opened {
                    Writable::Here(store) => {
                        Opened { log: Log::new(store.clone(), name), owned: Some(store) }
                    }
                    Writable::Through(store) => not_owned(store),
                })
            }
        },
    }
}

async fn connect(url: &str, token: Option<String>) -> Result<Arc<dyn Store>> {
    Ok(Arc::new(HttpStore::connect(url, token).await?))
}

async fn open_service(service: Service, options: &OpenOptions) -> Result<Arc<dyn Store>> {
    let mut store = azure::Options::default();
    store.access = match options.access {
        Access::Read | Access::ReadFiles => azure::store::Access::ReadOnly,
        Access::Write | Access::Own => azure::store::Access::ReadWrite,
    };
    store.accept_clock = options.accept_clock;
    store.catching_up = options.catching_up.clone();
    if let Some(bytes) = service.inline_bytes {
        store.inline_bytes_max = bytes;
    }
    let Service { kind, url, item_bytes, inline_bytes, region } = service;
    let remote: Arc<dyn azure::remote::Remote> = match kind {
        Kind::Cosmos => {
            let settings = cosmos::Settings::from_environment(&url)?;
            let options = cosmos::Options { item_bytes, region };
            Arc::new(CosmosRemote::connect(settings, options).await?)
        }
        Kind::Table => {
            let options = table::Options { item_bytes, inline_bytes };
            Arc::new(TableRemote::new(&table::Settings::parse(&url, options)?)?)
        }
    };
    Ok(Arc::new(RemoteStore::open(remote, store)?))
}

async fn open_to_read(path: &Path, options: &OpenOptions) -> Result<Arc<dyn Store>> {
    must_exist(path)?;
    let refused = |error| refused(error, path, "cannot be read by this user");
    if options.access == Access::Read
        && let Some(url) = engine::owner(path).map_err(refused)?.and_then(|owner| owner.url)
        && is_loopback(&url)
        && let Ok(store) = connect(&url, options.token()).await
    {
        return Ok(store);
    }
    // Whoever may read the files may read the log: a server that has gone or wants a token is no obstacle.
    let mut settings = engine::Options::default();
    settings.access = engine::Access::ReadOnly;
    settings.create = false;
    Ok(Arc::new(EmbeddedStore::open(path, settings).map_err(refused)?))
}

enum Writable {
    Here(Arc<EmbeddedStore>),
    Through(Arc<dyn Store>),
}

async fn open_to_write(path: &Path, options: &OpenOptions) -> Result<Writable> {
    if options.create {
        no_file(path)?;
    } else {
        must_exist(path)?;
    }
    // Where there is no store yet, the error says that one could not be made.
    let refused = |error| match path.exists() {
        true => refused(error, path, "is read-only for this user"),
        false => error,
    };
    // The owner may let go between the two questions; then the lock is free and the second try gets it.
    let mut tries = 0;
    loop {
        tries += 1;
        let mut settings = engine::Options::default();
        settings.access = engine::Access::ReadWrite;
        settings.create = options.create;
        settings.accept_clock = options.accept_clock;
        settings.pack = options.pack;
        let locked = match EmbeddedStore::open(path, settings) {
            Ok(store) => return Ok(Writable::Here(Arc::new(store))),
            Err(error) if error.kind() == ErrorKind::Locked => error,
            Err(error) => return Err(refused(error)),
        };
        let owner = match engine::owner(path).map_err(refused)? {
            Some(owner) => owner,
            None if tries < 3 => continue,
            None => return Err(locked),
        };
        let process = owner.pid.map_or("another process".to_owned(), |pid| format!("process {pid}"));
        let shown = path.display();
        return match owner.url {
            Some(url) if options.access == Access::Write && is_loopback(&url) => {
                let mut context =
                    format!("the store at {shown} is open in {process}, which serves it at {url}");
                connect(&url, options.token()).await.map(Writable::Through).map_err(|error| {
                    // Asking at the name of the certificate instead would send the token wherever that name leads.
                    if error.kind() == ErrorKind::Unavailable && url.starts_with("https:") {
                        context.push_str(", where its certificate has to be trusted and cover this address");
                    }
                    error.context(context)
                })
            }
            Some(url) => Err(Error::new(
                ErrorKind::Locked,
                format!("the store at {shown} is open in {process}, which serves it at {url}"),
            )),
            None => Err(Error::new(
                ErrorKind::Locked,
                format!("the store at {shown} is open for writing in {process}"),
            )),
        };
    }
}

/// A file where the directory of a store should be is said to be one, before the system says something vaguer.
fn no_file(path: &Path) -> Result<()> {
    match path.metadata() {
        Ok(there) if !there.is_dir() => {
            let message = format!("{} is not a directory, and a store is one", path.display());
            Err(Error::new(ErrorKind::NotAStore, message))
        }
        _ => Ok(()),
    }
}

/// What the system refuses says which store, and what this user may not do with it.
fn refused(error: Error, path: &Path, what: &str) -> Error {
    let shown = path.display();
    match error.kind() {
        ErrorKind::ReadOnly => error.context(format!("the store at {shown} {what}")),
        ErrorKind::Io | ErrorKind::NotFound if !error.message().contains(&shown.to_string()) => {
            error.context(format!("the store at {shown}"))
        }
        _ => error,
    }
}

fn must_exist(path: &Path) -> Result<()> {
    no_file(path)?;
    match path.try_exists() {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::new(ErrorKind::NotFound, format!("there is no store at {}", path.display()))),
        Err(error) => Err(Error::from(error).context(path.display())),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Location {
    Directory(PathBuf),
    Memory,
    /// The URL without the parameters that are ours.
    Http(String),
    Service(Service),
}

/// A service of Azure.
#[derive(Debug, PartialEq, Eq)]
struct Service {
    kind: Kind,
    /// The URL without parameters.
    url: String,
    item_bytes: Option<usize>,
    inline_bytes: Option<usize>,
    region: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Cosmos,
    Table,
}

impl Kind {
    /// A store of this kind with nothing chosen.
    fn at(self, url: &str) -> Location {
        let url = url.to_owned();
        Location::Service(Service { kind: self, url, item_bytes: None, inline_bytes: None, region: None })
    }
}

const UNDERSTOOD: &str = "file:PATH or a path, memory:, http://HOST[:PORT], https://HOST[:PORT], \
                          cosmos://ACCOUNT/DATABASE/CONTAINER and table://ACCOUNT/TABLE";

fn parse(url: &str) -> Result<(Location, LogName)> {
    let (place, parameters) = match url.split_once('?') {
        Some((place, parameters)) => (place, Some(parameters)),
        None => (url, None),
    };
    let mut location = location(place)?;
    let mut seen = Vec::new();
    let mut log = None;
    for parameter in parameters.into_iter().flat_map(|p| p.split('&')) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if seen.contains(&name) {
            let name = name.escape_debug();
            return Err(Error::invalid(format!("the parameter '{name}' stands twice in the URL")));
        }
        seen.push(name);
        match (name, &mut location) {
            ("log", _) => log = Some(value.parse::<LogName>()?),
            ("item_bytes", Location::Service(service)) => service.item_bytes = Some(bytes(name, value)?),
            ("inline_bytes", Location::Service(service)) => service.inline_bytes = Some(bytes(name, value)?),
            ("region", Location::Service(Service { kind: Kind::Cosmos, region, .. }))
                if !value.is_empty() =>
            {
                let decoded = percent_encoding::percent_decode_str(value).decode_utf8();
                let decoded = decoded.map_err(|_| Error::invalid("the parameter 'region' is not UTF-8"))?;
                *region = Some(decoded.into_owned());
            }
            _ => {
                let understood = match location {
                    Location::Service(Service { kind: Kind::Cosmos, .. }) => {
                        "'log=NAME', 'item_bytes=N', 'inline_bytes=N' and 'region=NAME' are understood"
                    }
                    Location::Service(_) => "'log=NAME', 'item_bytes=N' and 'inline_bytes=N' are understood",
                    _ => "'log=NAME' is the only one understood",
                };
                return Err(Error::invalid(format!(
                    "the URL has the parameter '{}'; {understood}",
                    parameter.escape_debug()
                )));
            }
        }
    }
    Ok((location, log.unwrap_or_default()))
}

/// A number of bytes in a parameter.
fn bytes(name: &str, value: &str) -> Result<usize> {
    value.parse().map_err(|_| {
        Error::invalid(format!("'{name}={}' is not a number of bytes, digits only", value.escape_debug()))
    })
}

fn location(place: &str) -> Result<Location> {
    if place.is_empty() {
        return Err(Error::invalid(format!("the URL of a store is empty; understood are {UNDERSTOOD}")));
    }
    // One letter before the colon is a drive of Windows, not a scheme.
    let scheme = place.split_once(':').filter(|(scheme, _)| {
        scheme.len() > 1
            && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    });
    let Some((scheme, rest)) = scheme else {
        return Ok(Location::Directory(place.into()));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "file" => directory(rest),
        "memory" if rest.is_empty() => Ok(Location::Memory),
        "memory" => Err(Error::invalid(format!(
            "'{}' names something in memory: it is 'memory:'",
            place.escape_debug()
        ))),
        "http" | "https" if rest.starts_with("//") && rest.len() > 2 => Ok(Location::Http(place.to_owned())),
        "http" | "https" => Err(Error::invalid(format!("'{}' names no host", place.escape_debug()))),
        "cosmos" | "cosmos+http" => Ok(Kind::Cosmos.at(place)),
        "table" | "table+http" => Ok(Kind::Table.at(place)),
        other => Err(Error::invalid(format!(
            "the scheme '{other}:' is not understood; understood are {UNDERSTOOD}"
        ))),
    }
}

/// The path of a `file:` URL, taken as it stands: nothing in it is percent-encoded.
fn directory(rest: &str) -> Result<Location> {
    let path = match rest.strip_prefix("//") {
        None => rest,
        Some(after) => match after.strip_prefix("localhost").unwrap_or(after) {
            path if path.starts_with('/') => path,
            _ => {
                return Err(Error::invalid(format!(
                    "'file:{}' names a host; a path follows file: at once, or file:// if it begins with '/'",
                    rest.escape_debug()
                )));
            }
        },
    };
    match path {
        "" => Err(Error::invalid("'file:' names no directory")),
        path => Ok(Location::Directory(path.into())),
    }
}

/// Whether the URL's host is this machine: its name is `localhost`, or its address a loopback one.
fn is_loopback(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or("");
    if authority.contains('@') {
        return false;
    }
    let host = match authority.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or(""),
        None => authority.split(':').next().unwrap_or(""),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(url: &str) -> Location {
        parse(url).unwrap().0
    }

    #[test]
    fn every_way_to_write_a_directory_means_it() {
        for (url, path) in [
            ("file:./log", "./log"),
            ("file:log", "log"),
            ("file:/tmp/log", "/tmp/log"),
            ("file:///tmp/log", "/tmp/log"),
            ("file://localhost/tmp/log", "/tmp/log"),
            ("FILE:./100%25", "./100%25"),
            ("./log", "./log"),
            ("log", "log"),
            ("C:\\log", "C:\\log"),
            ("./a:b", "./a:b"),
        ] {
            assert_eq!(located(url), Location::Directory(path.into()), "{url}");
        }
        assert_eq!(located("memory:"), Location::Memory);
        let chosen = Service {
            kind: Kind::Table,
            url: "table://account/events".into(),
            item_bytes: Some(7),
            inline_bytes: Some(0),
            region: None,
        };
        assert_eq!(
            located("table://account/events?item_bytes=7&inline_bytes=0&log=other"),
            Location::Service(chosen)
        );
        let (server, name) = parse("https://log.example:8443?log=team-1").unwrap();
        assert_eq!(server, Location::Http("https://log.example:8443".into()));
        assert_eq!(name.as_str(), "team-1");
        assert_eq!(parse("./log?log=other").unwrap().1.as_str(), "other");
    }

    #[test]
    fn a_url_that_is_not_understood_says_which_ones_are() {
        for (url, says) in [
            ("", "empty"),
            ("file:", "names no directory"),
            ("file://host/share", "names a host"),
            ("ftp://x", "'ftp:'"),
            ("ftp://x", "http://HOST"),
            ("memory:x", "'memory:'"),
            ("http:", "names no host"),
            ("https://", "names no host"),
            ("ftp://x", "cosmos://ACCOUNT/DATABASE/CONTAINER"),
            ("table://account/t?region=x", "'item_bytes=N'"),
            ("cosmos://account/db/container?item_bytes=many", "'item_bytes=many'"),
            ("./log?item_bytes=1", "'log=NAME' is the only one"),
            ("./log?lgo=main", "'lgo=main'"),
            ("./log?", "''"),
            ("./log?log=UPPER", "UPPER"),
            ("./log?log=a&log=b", "twice"),
        ] {
            let error = parse(url).unwrap_err();
            assert!(error.message().contains(says), "{url}: {error}");
        }
    }

    #[test]
    fn what_the_system_refuses_names_the_store_and_what_may_not_be_done() {
        let path = Path::new("./here");
        let of = |kind: std::io::ErrorKind| Error::from(std::io::Error::from(kind));
        let denied = of(std::io::ErrorKind::PermissionDenied).context("./here/lock");
        let said = refused(denied, path, "is read-only for this user");
        assert_eq!(said.kind(), ErrorKind::ReadOnly);
        assert_eq!(
            said.message(),
            "the store at ./here is read-only for this user: ./here/lock: permission denied"
        );
        let said = refused(of(std::io::ErrorKind::NotADirectory), path, "cannot be read by this user");
        assert!(said.message().starts_with("the store at ./here: "), "{said}");
        let said = refused(Error::damaged("something"), path, "cannot be read by this user");
        assert_eq!(said.message(), "something");
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for url in ["http://127.0.0.1:7373", "http://localhost:1/x", "https://[::1]:80", "http://127.8.8.8"] {
            assert!(is_loopback(url), "{url}");
        }
        for url in [
            "http://10.0.0.1:7373",
            "http://127.0.0.1.example",
            "http://localhost.example",
            "http://127.0.0.1@evil.example",
            "http://evil.example\\@127.0.0.1",
            "http://[::]:80",
            "127.0.0.1",
        ] {
            assert!(!is_loopback(url), "{url}");
        }
    }
}
