//! Who we are to Azure: Entra ID, from what is at hand.
//!
//! Identities are looked for in the order people know from other SDKs: the environment, workload identity, managed
//! identity, the Azure CLI, the Azure Developer CLI. What is configured and refused is the end of the search: another
//! identity instead of the one that was set up would be a surprise. `AZURE_TOKEN_CREDENTIALS` narrows the search, to `dev`,
//! `prod` or the name of one credential, as it does elsewhere.
//!
//! *Invariant*: an error says what was tried and why each was of no use, and holds no secret.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use azure_core::cloud::CloudConfiguration;
use azure_core::credentials::{AccessToken, Secret, TokenCredential, TokenRequestOptions};
use azure_core::error::ErrorKind as AzureErrorKind;
use azure_core::http::{ClientOptions, Transport};
use azure_identity::{
    AzureCliCredential, AzureDeveloperCliCredential, ClientAssertionCredentialOptions,
    ClientSecretCredential, ClientSecretCredentialOptions, ManagedIdentityCredential,
    ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential,
    WorkloadIdentityCredentialOptions,
};
use precedent_core::{Error, ErrorKind, Result};

use crate::cloud::Cloud;

/// The credential of Entra ID that this process has, in the cloud of its environment.
///
/// Nothing is asked of anybody until a token is needed; an error then says what was tried.
///
/// # Errors
/// `invalid` if the environment names a cloud or a credential that there is not.
pub fn entra() -> Result<Arc<dyn TokenCredential>> {
    entra_in(Cloud::from_environment()?)
}

/// The same, in a cloud.
pub fn entra_in(cloud: Cloud) -> Result<Arc<dyn TokenCredential>> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let narrowed = variable("AZURE_TOKEN_CREDENTIALS");
    let wanted = links(narrowed.as_deref())?;
    let options = ClientOptions {
        transport: Some(transport()?),
        // Who names the authority host in the environment means it.
        cloud: match variable("AZURE_AUTHORITY_HOST") {
            Some(_) => None,
            None => Some(Arc::new(configuration(cloud))),
        },
        ..ClientOptions::default()
    };
    let links = wanted.iter().map(|link| Link { name: link.name(), state: link.make(&variable, &options) });
    Ok(Arc::new(Chain { links: links.collect(), chosen: Mutex::new(None) }))
}

/// What carries requests to Azure: TLS with the cryptography of our other clients, and no redirects, which would carry a
/// token elsewhere.
///
/// # Errors
/// `internal` if there can be no TLS.
pub fn transport() -> Result<Transport> {
    // The HTTP client takes the process's provider. If there is one already, it is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(20))
        .read_timeout(Duration::from_secs(60))
        .build()
        .map_err(|error| Error::new(ErrorKind::Internal, format!("TLS cannot be used: {error}")))?;
    Ok(Transport::new(Arc::new(client)))
}

fn configuration(cloud: Cloud) -> CloudConfiguration {
    match cloud.name {
        "AzureUSGovernment" => CloudConfiguration::AzureGovernment,
        "AzureChinaCloud" => CloudConfiguration::AzureChina,
        _ => CloudConfiguration::AzurePublic,
    }
}

/// A place where an identity may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Environment,
    Workload,
    Managed,
    Cli,
    DeveloperCli,
}

const SOURCES: &[Source] =
    &[Source::Environment, Source::Workload, Source::Managed, Source::Cli, Source::DeveloperCli];

/// The sources that are meant.
fn links(narrowed: Option<&str>) -> Result<Vec<Source>> {
    let Some(narrowed) = narrowed else { return Ok(SOURCES.to_vec()) };
    let is_dev = |source: &Source| matches!(source, Source::Cli | Source::DeveloperCli);
    let found: Vec<Source> = match narrowed.to_ascii_lowercase().as_str() {
        "dev" => SOURCES.iter().copied().filter(is_dev).collect(),
        "prod" => SOURCES.iter().copied().filter(|source| !is_dev(source)).collect(),
        name => SOURCES.iter().copied().filter(|s| s.credential().eq_ignore_ascii_case(name)).collect(),
    };
    match found.is_empty() {
        false => Ok(found),
        true => {
            let names: Vec<_> = SOURCES.iter().map(|source| source.credential()).collect();
            Err(Error::invalid(format!(
                "AZURE_TOKEN_CREDENTIALS is '{}': it has to be dev, prod or one of {}",
                narrowed.escape_debug(),
                names.join(", ")
            )))
        }
    }
}

/// An environment.
type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::Workload => "workload identity",
            Self::Managed => "managed identity",
            Self::Cli => "Azure CLI",
            Self::DeveloperCli => "Azure Developer CLI",
        }
    }

    /// As other SDKs name it.
    fn credential(self) -> &'static str {
        match self {
            Self::Environment => "EnvironmentCredential",
            Self::Workload => "WorkloadIdentityCredential",
            Self::Managed => "ManagedIdentityCredential",
            Self::Cli => "AzureCliCredential",
            Self::DeveloperCli => "AzureDeveloperCliCredential",
        }
    }

    /// Makes the credential, if what it needs is there.
    fn make(self, variable: Variables<'_>, options: &ClientOptions) -> State {
        let needed = |names: &[&str]| -> Result<Vec<String>, State> {
            let missing: Vec<&str> = names.iter().copied().filter(|name| variable(name).is_none()).collect();
            match missing.is_empty() {
                true => Ok(names.iter().filter_map(|name| variable(name)).collect()),
                false => Err(State::Missing(format!("without {}", missing.join(", ")))),
            }
        };
        let made = |credential: azure_core::Result<Arc<dyn TokenCredential>>, patience, on_refusal| match (
            credential, on_refusal,
        ) {
            (Ok(credential), _) => State::There { credential, patience, on_refusal },
            (Err(error), OnRefusal::End) => State::Wrong(reason(&error)),
            (Err(error), OnRefusal::GoOn) => State::Missing(reason(&error)),
        };
        match self {
            Self::Environment => {
                let names = ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"];
                let [tenant, client, secret] = match needed(&names).map(<[String; 3]>::try_from) {
                    Ok(Ok(values)) => values,
                    Ok(Err(_)) => return State::Missing("its variables changed".into()),
                    Err(missing) => return missing,
                };
                let options = ClientSecretCredentialOptions { client_options: options.clone() };
                let credential =
                    ClientSecretCredential::new(&tenant, client, Secret::new(secret), Some(options));
                made(credential.map(|c| c as _), SERVICE_PATIENCE, OnRefusal::End)
            }
            Self::Workload => {
                let names = ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"];
                let [tenant, client, file] = match needed(&names).map(<[String; 3]>::try_from) {
                    Ok(Ok(values)) => values,
                    Ok(Err(_)) => return State::Missing("its variables changed".into()),
                    Err(missing) => return missing,
                };
                let options = WorkloadIdentityCredentialOptions {
                    credential_options: ClientAssertionCredentialOptions { client_options: options.clone() },
                    client_id: Some(client),
                    tenant_id: Some(tenant),
                    token_file_path: Some(PathBuf::from(file)),
                };
                let credential = WorkloadIdentityCredential::new(Some(options));
                made(credential.map(|c| c as _), SERVICE_PATIENCE, OnRefusal::End)
            }
            Self::Managed => {
                let options = ManagedIdentityCredentialOptions {
                    user_assigned_id: variable("AZURE_CLIENT_ID").map(UserAssignedId::ClientId),
                    client_options: options.clone(),
                };
                let credential = match ManagedIdentityCredential::new(Some(options)) {
                    Ok(credential) => credential,
                    Err(error) => return State::Missing(reason(&error)),
                };
                let has_endpoint = variable("IDENTITY_ENDPOINT").is_some();
                let probe = (!has_endpoint).then_some(METADATA_SERVICE);
                made(Ok(Arc::new(Probed { probe, credential })), SERVICE_PATIENCE, OnRefusal::GoOn)
            }
            Self::Cli => made(AzureCliCredential::new(None).map(|c| c as _), TOOL_PATIENCE, OnRefusal::GoOn),
            Self::DeveloperCli => {
                made(AzureDeveloperCliCredential::new(None).map(|c| c as _), TOOL_PATIENCE, OnRefusal::GoOn)
            }
        }
    }
}

/// Where virtual machines of Azure ask who they are.
const METADATA_SERVICE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 169, 254)), 80);
/// Elsewhere nobody is there, and often nothing says so.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);
/// How long a service may take to give a token.
const SERVICE_PATIENCE: Duration = Duration::from_secs(30);
/// How long a program may.
const TOOL_PATIENCE: Duration = Duration::from_secs(60);

/// What a refusal means for the search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnRefusal {
    /// It was set up: that it is refused is the answer.
    End,
    /// It may not be meant at all.
    GoOn,
}

#[derive(Debug)]
struct Link {
    name: &'static str,
    state: State,
}

#[derive(Debug)]
enum State {
    There {
        credential: Arc<dyn TokenCredential>,
        patience: Duration,
        on_refusal: OnRefusal,
    },
    /// What it needs is not there.
    Missing(String),
    /// It was set up, and wrongly.
    Wrong(String),
}

/// Credentials one after the other; the first that gives a token is the one from then on.
#[derive(Debug)]
struct Chain {
    links: Vec<Link>,
    chosen: Mutex<Option<usize>>,
}

impl Chain {
    fn chosen(&self) -> std::sync::MutexGuard<'_, Option<usize>> {
        self.chosen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[async_trait::async_trait]
impl TokenCredential for Chain {
    async fn get_token(
        &self,
        scopes: &[&str],
        options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let chosen = *self.chosen();
        let mut tried = Vec::new();
        for (at, link) in self.links.iter().enumerate() {
            if chosen.is_some_and(|chosen| chosen != at) {
                continue;
            }
            let (credential, patience, on_refusal) = match &link.state {
                State::There { credential, patience, on_refusal } => (credential, patience, on_refusal),
                State::Missing(why) => {
                    tried.push(format!("{}: {why}", link.name));
                    continue;
                }
                State::Wrong(why) => return Err(ended(&format!("{}: {why}", link.name))),
            };
            let token = tokio::time::timeout(*patience, credential.get_token(scopes, options.clone())).await;
            match token {
                Ok(Ok(token)) => {
                    *self.chosen() = Some(at);
                    return Ok(token);
                }
                Ok(Err(error)) => tried.push(format!("{}: {}", link.name, reason(&error))),
                Err(_) => {
                    tried.push(format!("{}: no token came within {} seconds", link.name, patience.as_secs()))
                }
            }
            if *on_refusal == OnRefusal::End {
                return Err(ended(&tried.pop().unwrap_or_default()));
            }
        }
        Err(refused(format!(
            "no credentials for Azure: sign in with 'az login', or set AZURE_TENANT_ID, AZURE_CLIENT_ID and \
             AZURE_CLIENT_SECRET. Tried: {}",
            tried.join("; ")
        )))
    }
}

fn refused(message: String) -> azure_core::Error {
    azure_core::Error::with_message(AzureErrorKind::Credential, message)
}

fn ended(why: &str) -> azure_core::Error {
    refused(format!("no token for Azure from what is set up: {why}; other credentials are not tried then"))
}

/// Why a credential was of no use, in a line: without the advice where to read on, and of bounded length.
fn reason(error: &azure_core::Error) -> String {
    let text = error.to_string();
    let text = text.split("To troubleshoot").next().unwrap_or_default();
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = match line.split_once("authentication failed. ") {
        Some((_, why)) if !why.is_empty() => why.to_owned(),
        _ => line,
    };
    match line.char_indices().nth(300) {
        None => line,
        Some((at, _)) => format!("{}…", &line[..at]),
    }
}

/// A credential that is asked only if somebody listens where it asks.
#[derive(Debug)]
struct Probed {
    probe: Option<SocketAddr>,
    credential: Arc<dyn TokenCredential>,
}

#[async_trait::async_trait]
impl TokenCredential for Probed {
    async fn get_token(
        &self,
        scopes: &[&str],
        options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        if let Some(address) = self.probe {
            let connecting = tokio::net::TcpStream::connect(address);
            if !matches!(tokio::time::timeout(PROBE_PATIENCE, connecting).await, Ok(Ok(_))) {
                return Err(refused(format!("nobody answers at {address}: this is no machine of Azure")));
            }
        }
        self.credential.get_token(scopes, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Played(Result<&'static str, &'static str>, Mutex<u32>);

    #[async_trait::async_trait]
    impl TokenCredential for Played {
        async fn get_token(
            &self,
            _: &[&str],
            _: Option<TokenRequestOptions<'_>>,
        ) -> azure_core::Result<AccessToken> {
            *self.1.lock().expect("no panic") += 1;
            let hour = azure_core::time::OffsetDateTime::now_utc() + azure_core::time::Duration::hours(1);
            match self.0 {
                Ok(token) => Ok(AccessToken::new(token, hour)),
                Err(why) => Err(refused(why.into())),
            }
        }
    }

    fn there(answer: Result<&'static str, &'static str>, on_refusal: OnRefusal) -> (Arc<Played>, State) {
        let played = Arc::new(Played(answer, Mutex::new(0)));
        let credential = played.clone();
        (played, State::There { credential, patience: SERVICE_PATIENCE, on_refusal })
    }

    fn chain(states: Vec<State>) -> Chain {
        let links = SOURCES.iter().zip(states).map(|(source, state)| Link { name: source.name(), state });
        Chain { links: links.collect(), chosen: Mutex::new(None) }
    }

    #[tokio::test]
    async fn the_first_that_gives_a_token_is_asked_from_then_on() {
        let (refusing, first) = there(Err("not signed in"), OnRefusal::GoOn);
        let (giving, second) = there(Ok("a token"), OnRefusal::GoOn);
        let (last, third) = there(Ok("another"), OnRefusal::GoOn);
        let chain = chain(vec![State::Missing("X is not set".into()), first, second, third]);
        for _ in 0..2 {
            let token = chain.get_token(&["scope"], None).await.expect("there is one");
            assert_eq!(token.token.secret(), "a token");
        }
        let calls = |played: &Played| *played.1.lock().expect("no panic");
        assert_eq!((calls(&refusing), calls(&giving), calls(&last)), (1, 2, 0));
    }

    #[tokio::test]
    async fn without_any_the_error_says_what_was_tried_and_why_each_was_of_no_use() {
        let (_, cli) = there(
            Err(
                "AzureCliCredential authentication failed. Azure CLI not found on PATH \nTo troubleshoot, visit x",
            ),
            OnRefusal::GoOn,
        );
        let chain = chain(vec![State::Missing("AZURE_CLIENT_SECRET is not set".into()), cli]);
        let error = chain.get_token(&["scope"], None).await.expect_err("none").to_string();
        assert!(error.contains("az login"), "{error}");
        assert!(
            error.contains(
                "environment: AZURE_CLIENT_SECRET is not set; workload identity: Azure CLI not found on PATH"
            ),
            "{error}"
        );
        assert!(!error.contains("troubleshoot"), "{error}");
    }

    #[tokio::test]
    async fn what_is_set_up_and_refused_is_not_replaced_by_another_identity() {
        let (_, environment) = there(Err("AADSTS7000222: the secret has expired"), OnRefusal::End);
        let (other, cli) = there(Ok("another identity's"), OnRefusal::GoOn);
        let chain = chain(vec![environment, cli]);
        let error = chain.get_token(&["scope"], None).await.expect_err("refused").to_string();
        assert!(error.contains("environment: AADSTS7000222"), "{error}");
        assert_eq!(*other.1.lock().expect("no panic"), 0);
    }

    #[tokio::test]
    async fn an_identity_nobody_offers_is_not_waited_for() {
        // Nothing listens there: the port was free a moment ago, and the connection is refused at once.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let probe = listener.local_addr().expect("an address");
        drop(listener);
        let (asked, state) = there(Ok("a token"), OnRefusal::GoOn);
        let State::There { credential, .. } = state else { unreachable!("it is there") };
        let probed = Probed { probe: Some(probe), credential };
        let error = probed.get_token(&["scope"], None).await.expect_err("nobody").to_string();
        assert!(error.contains("nobody answers"), "{error}");
        assert_eq!(*asked.1.lock().expect("no panic"), 0);
    }

    #[test]
    fn the_search_can_be_narrowed_and_a_strange_name_is_refused() {
        assert_eq!(links(None).expect("all"), SOURCES);
        assert_eq!(links(Some("dev")).expect("two"), [Source::Cli, Source::DeveloperCli]);
        assert_eq!(links(Some("prod")).expect("three").len(), 3);
        assert_eq!(links(Some("azureclicredential")).expect("one"), [Source::Cli]);
        let error = links(Some("VisualStudioCredential")).expect_err("not here");
        assert!(error.message().contains("dev, prod or one of EnvironmentCredential"), "{error}");
    }

    #[test]
    fn what_is_missing_in_the_environment_is_named_and_a_secret_is_not() {
        let none = |_: &str| None;
        let State::Missing(why) = Source::Environment.make(&none, &ClientOptions::default()) else {
            panic!("nothing is set")
        };
        assert_eq!(why, "without AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET");
        let options =
            ClientOptions { transport: Some(transport().expect("TLS")), ..ClientOptions::default() };
        let some = |name: &str| Some(format!("value-of-{}", name.replace('_', "-")));
        let made = Source::Environment.make(&some, &options);
        assert!(matches!(made, State::There { on_refusal: OnRefusal::End, .. }), "{made:?}");
        assert!(!format!("{made:?}").contains("value-of-AZURE-CLIENT-SECRET"), "{made:?}");
        let wrong = |name: &str| some(name).map(|value| format!("{value} /?"));
        let made = Source::Environment.make(&wrong, &options);
        assert!(matches!(made, State::Wrong(_)), "what is set up wrongly is not passed over: {made:?}");
    }
}
