//! What is refused, by us and by the service, and that no credential shows.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use precedent_azure::cloud::CLOUDS;
use precedent_azure::remote::{Document, FrameSet, LogRecord, Outcome, Remote};
use precedent_azure::table::batch::Operation;
use precedent_azure::table::client::{Query, Retries};
use precedent_azure::table::entity::{Entity, Value};
use precedent_azure::table::keys::Key;
use precedent_azure::table::{Options, Settings, TableRemote};
use precedent_core::store::ExpectedRegister;
use precedent_core::{Error, ErrorKind, LogId, LogName};

use crate::support::faults::{Fault, Faults};
use crate::{azurite, frame, noise};

const QUICK: Retries = Retries {
    tries_max: 2,
    first_wait: Duration::from_millis(1),
    wait_max: Duration::from_millis(1),
    patience: Duration::from_secs(30),
};

/// Settings from a URL and a connection string.
fn settings(url: &str, connection: &str) -> Settings {
    let read = |name: &str| (name == "AZURE_STORAGE_CONNECTION_STRING").then(|| connection.to_owned());
    let settings = Settings::parse_with(url, Options::default(), CLOUDS[0], read).expect("settings");
    Settings { retries: QUICK, ..settings }
}

/// What every method of the remote says when the service says no.
async fn every_error(remote: &TableRemote) -> Vec<Error> {
    let (name, log) = (LogName::default(), LogId::random());
    let record = LogRecord { id: log, copy: false, home: String::new() };
    let register = "r".parse().expect("a name");
    let event = precedent_core::Event::builder("s", "i", "t").build().expect("an event");
    let document = Document {
        name: name.clone(),
        event: precedent_core::RecordedEvent {
            log,
            position: precedent_core::Position(0),
            version: None,
            recorded: precedent_core::Time::default(),
            event,
            erased: false,
            entry: Bytes::new(),
        },
        inline_bytes_max: 100,
    };
    let mut errors = vec![
        remote.logs().await.expect_err("no"),
        remote.log(&name).await.expect_err("no"),
        remote.make_log(&name, record).await.expect_err("no"),
        remote.promote(&name, log).await.expect_err("no"),
        remote.has_frame(log, 0).await.expect_err("no"),
        remote.frames(log, 0, 1).await.expect_err("no"),
        remote.register(&register).await.expect_err("no"),
        remote.set_register(&register, ExpectedRegister::Absent, Bytes::new()).await.expect_err("no"),
        remote.documented(log).await.expect_err("no"),
        remote.add_documented(log, &FrameSet::before(1)).await.expect_err("no"),
        remote.check_documents(std::slice::from_ref(&document)).await.expect_err("no"),
    ];
    errors.extend(remote.put_documents(&[document]).await.into_iter().map(|answer| answer.expect_err("no")));
    match remote.commit(&frame(log, 0, noise(1, 1))).await {
        Outcome::Refused(error) => errors.push(error),
        other => panic!("{other:?}"),
    }
    let head = Entity::new(Key::new("p", "r"));
    errors.push(remote.client().transact(&[Operation::Insert(head.clone())]).await.expect_err("no"));
    errors.push(remote.client().replace(&head, "*").await.expect_err("no"));
    errors
}

/// Everything that is ever shown of an error, its causes included.
fn shown(error: &Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(" {error} {error:?}"));
        cause = error.source();
    }
    text
}

#[tokio::test]
async fn a_wrong_key_is_refused_by_name_and_never_shown() {
    let azurite = azurite!();
    let key = "d3Jvbmcta2V5LXdyb25nLWtleQ==";
    let connection = format!("AccountName=devstoreaccount1;AccountKey={key}");
    let settings = settings(&azurite.url("events"), &connection);
    let remote = TableRemote::new(&settings).expect("a remote");
    let errors = every_error(&remote).await;
    for error in &errors {
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
        assert!(!error.may_have_been_written());
        let shown = shown(error);
        assert!(shown.contains("the account 'devstoreaccount1' refuses the account key"), "{shown}");
        assert!(shown.contains("AZURE_STORAGE_CONNECTION_STRING"), "{shown}");
        assert!(!shown.contains(key) && !shown.contains("SharedKeyLite"), "{shown}");
    }
    for shown in [format!("{remote:?}"), format!("{settings:?}"), remote.url(), remote.identity()] {
        assert!(!shown.contains(key), "{shown}");
    }
}

#[tokio::test]
async fn a_shared_access_signature_is_never_shown() {
    let azurite = azurite!();
    let secret = "c2lnbmF0dXJlLXNpZ25hdHVyZQ";
    let connection = format!(
        "AccountName=devstoreaccount1;SharedAccessSignature=sv=2020-12-06&ss=t&srt=sco&sp=rwdlacu&se=2030-01-01T00:00:00Z&sig={secret}%3D"
    );
    let nowhere =
        "AccountName=devstoreaccount1;TableEndpoint=https://devstoreaccount1.table.nothing.invalid/;";
    for settings in [
        // Refused, not reached, not answered.
        settings(&azurite.url("events"), &connection),
        settings("table+http://127.0.0.1:1/devstoreaccount1/events", &connection),
        settings(
            "table://devstoreaccount1/events",
            &connection.replace("AccountName=devstoreaccount1;", nowhere),
        ),
    ] {
        let remote = TableRemote::new(&settings).expect("a remote");
        for error in every_error(&remote).await {
            let shown = shown(&error);
            assert!(!shown.contains(secret) && !shown.contains("sig="), "{shown}");
        }
        let shown = format!("{remote:?} {settings:?} {} {}", remote.url(), remote.identity());
        assert!(!shown.contains(secret) && !shown.contains("sig="), "{shown}");
    }
    let faults = Faults::new();
    faults.next(usize::MAX, None, "", Fault::LoseAnswer);
    let settings = settings(&azurite.url("events"), &connection);
    let remote = TableRemote::with_policies(&settings, vec![faults]).expect("a remote");
    let error = remote.logs().await.expect_err("no answer");
    assert!(!shown(&error).contains(secret), "{error}");
}

#[tokio::test]
async fn a_missing_table_is_named_with_the_command_that_makes_it() {
    let azurite = azurite!();
    let settings = azurite.settings("missing", Options::default());
    let remote = TableRemote::new(&settings).expect("a remote");
    for error in every_error(&remote).await {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert_eq!(
            error.message(),
            "the account 'devstoreaccount1' has no table 'missing': `precedent provision table up` makes it"
        );
    }
    // Once it is made, it is there.
    assert!(remote.client().create_table().await.expect("made"));
    assert!(!remote.client().create_table().await.expect("there"));
    assert_eq!(remote.logs().await.expect("logs"), []);
}

#[tokio::test]
async fn a_host_that_is_not_there_is_unavailable() {
    let key = "AccountKey=c2VjcmV0";
    let endpoint = "TableEndpoint=https://acct1.table.nothing.invalid/";
    let unknown = settings("table://acct1/events", &format!("AccountName=acct1;{key};{endpoint}"));
    let closed = settings("table+http://127.0.0.1:1/acct1/events", &format!("AccountName=acct1;{key}"));
    for (settings, host) in [(unknown, "acct1.table.nothing.invalid"), (closed, "127.0.0.1:1")] {
        let remote = TableRemote::new(&settings).expect("a remote");
        for error in every_error(&remote).await {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            assert!(error.message().contains(&format!("{host} cannot be reached")), "{error}");
            assert!(!error.may_have_been_written(), "nothing was sent: {error}");
        }
    }
}

#[tokio::test]
async fn a_certificate_that_does_not_verify_is_an_error_of_its_own_and_nothing_is_sent() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a configuration");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let server = tokio::spawn(async move {
        let mut accepted = 0;
        while let Ok((stream, _)) = listener.accept().await {
            // Who trusts it gets through here.
            accepted += usize::from(acceptor.accept(stream).await.is_ok());
            assert_eq!(accepted, 0, "nobody may trust it");
        }
    });
    let connection =
        format!("AccountName=acct1;AccountKey=c2VjcmV0;TableEndpoint=https://127.0.0.1:{port}/acct1/");
    let remote = TableRemote::new(&settings("table://acct1/events", &connection)).expect("a remote");
    for error in every_error(&remote).await {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.message().contains(&format!("127.0.0.1:{port} does not prove that it is")), "{error}");
        assert!(!error.message().contains("tries"), "trying again makes no sense: {error}");
    }
    assert!(!server.is_finished());
    server.abort();
}

#[tokio::test]
async fn what_the_service_does_not_take_is_refused_before_it_is_sent() {
    let faults = Faults::new();
    let remote = azurite!().fresh_with(Options::default(), vec![faults.clone()]).await;
    let client = remote.client();
    faults.count();
    let entity = |partition: &str, row: &str| Entity::new(Key::new(partition, row));
    let chunk = |entity: Entity, i: usize| entity.with(format!("d{i:02}"), Bytes::from(vec![1; 65_536]));
    let refused = [
        entity("a/b", "r"),
        entity("p", "a\u{1}b"),
        entity("p", &"x".repeat(513)),
        entity("p", "r").with("text", "x".repeat(32_769)),
        entity("p", "r").with("bytes", Bytes::from(vec![0; 65_537])),
        (0..16).fold(entity("p", "r"), chunk),
        (0..253).fold(entity("p", "r"), |entity, i| entity.with(format!("p{i}"), Value::Int32(i))),
    ];
    for entity in refused {
        client.insert(&entity).await.expect_err("refused");
        client.replace(&entity, "*").await.expect_err("refused");
        client.transact(&[Operation::Insert(entity)]).await.expect_err("refused");
    }
    let insert = |partition: &str, row: usize| Operation::Insert(entity(partition, &row.to_string()));
    let too_many: Vec<_> = (0..101).map(|row| insert("p", row)).collect();
    client.transact(&too_many).await.expect_err("101 operations");
    client.transact(&[insert("p", 1), insert("q", 1)]).await.expect_err("two partitions");
    let large = |row: usize| Operation::Insert((0..15).fold(entity("p", &row.to_string()), chunk));
    client.transact(&[large(1), large(2), large(3), large(4)]).await.expect_err("more than 4 MiB");
    assert_eq!(faults.count(), 0, "nothing was sent");

    // And what is just within the limits is taken.
    client.transact(&too_many[..100]).await.expect("100 operations");
    client.transact(&[large(1001), large(1002), large(1003)]).await.expect("just under 4 MiB");
    let long = entity("p", &"x".repeat(512))
        .with("text", "x".repeat(32_768))
        .with("bytes", Bytes::from(vec![0; 65_536]));
    client.insert(&long).await.expect("just within");
    let many = (0..252).fold(entity("p", "many"), |entity, i| entity.with(format!("p{i}"), Value::Int32(i)));
    client.insert(&many).await.expect("252 properties");
    let page = client.query(&Query::range("p", "many", Some("many!")), None).await.expect("a page");
    assert_eq!(page.rows[0].names().count(), 252);
}

#[tokio::test]
async fn what_the_service_says_no_to_becomes_an_error_of_the_right_kind() {
    let faults = Faults::new();
    let remote = azurite!().fresh_with(Options::default(), vec![faults.clone()]).await;
    for (status, code, kind) in [
        (401, "NoAuthenticationInformation", ErrorKind::Unauthorized),
        (403, "AuthorizationPermissionMismatch", ErrorKind::Unauthorized),
        (403, "AccountIsDisabled", ErrorKind::Unauthorized),
        (413, "RequestBodyTooLarge", ErrorKind::LimitExceeded),
        (400, "EntityTooLarge", ErrorKind::LimitExceeded),
        (400, "InvalidInput", ErrorKind::Invalid),
        (507, "", ErrorKind::Full),
        (409, "AccountQuotaExceeded", ErrorKind::Full),
        (404, "TableNotFound", ErrorKind::NotFound),
        (301, "", ErrorKind::NotAStore),
    ] {
        faults.next(1, None, "", Fault::error(status, code));
        let error = remote.logs().await.expect_err(code);
        assert_eq!(error.kind(), kind, "{error}");
        faults.next(1, None, "", Fault::error(status, code));
        let error = remote
            .make_log(
                &"x".parse().expect("a name"),
                LogRecord { id: LogId::random(), copy: false, home: String::new() },
            )
            .await;
        assert_eq!(error.expect_err(code).kind(), kind);
        faults.clear();
    }
    // What the service says about a signature can hold what was signed.
    let body = r#"{"odata.error":{"code":"AuthenticationFailed","message":{"lang":"en-US","value":"The MAC signature found in 'abc' is not"}}}"#;
    faults.next(1, None, "", Fault::Answer(403, Vec::new(), body));
    let error = remote.logs().await.expect_err("no");
    assert!(
        error.message().contains("403 AuthenticationFailed") && !error.message().contains("MAC"),
        "{error}"
    );
}

#[tokio::test]
async fn a_store_is_named_without_credentials_and_the_same_from_wherever() {
    let azurite = azurite!();
    let options = Options { item_bytes: Some(80_000), ..Options::default() };
    let remote = TableRemote::new(&azurite.settings("Events", options)).expect("a remote");
    assert_eq!(remote.url(), azurite.url("Events"));
    // The service does not tell tables apart by case.
    let same = TableRemote::new(&azurite.settings("events", Options::default())).expect("a remote");
    assert_eq!(remote.identity(), same.identity());
    assert_ne!(remote.url(), same.url());
    assert_eq!((remote.frame_bytes(), same.frame_bytes()), (80_000, 512 << 10));
    assert_eq!(remote.region(), "");
    assert_eq!(remote.durability(), precedent_core::Durability::RegionQuorum);
    assert_eq!(remote.clock(), None, "nothing was asked yet");
}
