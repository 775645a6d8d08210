//! Logs, registers, marks, and what an examination says.

use std::sync::Arc;

use bytes::Bytes;
use precedent_azure::remote::{FrameSet, LogRecord, Remote};
use precedent_core::store::{ExpectedRegister, RegisterName, Severity};
use precedent_core::{ErrorKind, LogId, LogName};

use crate::{azurite, commit_some, empty, make_log, noise};

#[tokio::test]
async fn a_register_is_set_if_it_is_as_expected() {
    let remote = azurite!().fresh().await;
    let name = "cursors/a".parse().expect("a name");
    assert_eq!(remote.register(&name).await.expect("an answer"), None);
    let set = remote.set_register(&name, ExpectedRegister::Absent, noise(65_536, 1)).await.expect("set");
    assert_eq!(set.revision, 1);
    assert_eq!(remote.register(&name).await.expect("an answer"), Some(set));
    let error = remote.set_register(&name, ExpectedRegister::Absent, Bytes::new()).await.expect_err("set");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let set = remote.set_register(&name, ExpectedRegister::Revision(1), Bytes::new()).await.expect("set");
    assert_eq!(set.revision, 2);
    assert_eq!(remote.register(&name).await.expect("an answer"), Some(set));
    let error = remote.set_register(&name, ExpectedRegister::Revision(1), Bytes::new()).await;
    assert_eq!(error.expect_err("it has revision 2").kind(), ErrorKind::Conflict);
    let error = remote.set_register(&name, ExpectedRegister::Revision(2), noise(65_537, 1)).await;
    assert_eq!(error.expect_err("too long").kind(), ErrorKind::LimitExceeded);
}

#[tokio::test]
async fn registers_of_every_name_are_registers_of_their_own() {
    let remote = azurite!().fresh().await;
    let long = format!("a{}", "/".repeat(127));
    let names = ["a", "a/b", "a.b", "a-b", "a_b", "a=2fb", long.as_str()];
    let names: Vec<RegisterName> = names.iter().filter_map(|name| name.parse().ok()).collect();
    assert_eq!(names.len(), 6);
    for name in &names {
        let value = Bytes::from(name.as_str().to_owned());
        remote.set_register(name, ExpectedRegister::Absent, value).await.expect("set");
    }
    for name in &names {
        let register = remote.register(name).await.expect("an answer").expect("set");
        assert_eq!(register.value, name.as_str().as_bytes());
    }
}

#[tokio::test]
async fn a_register_counts_every_success_once_whoever_sets_it() {
    const WRITERS: usize = 6;
    const EACH: usize = 5;
    let remote = Arc::new(azurite!().fresh().await);
    let name: RegisterName = "counter".parse().expect("a name");
    let tasks: Vec<_> = (0..WRITERS)
        .map(|_| {
            let (remote, name) = (remote.clone(), name.clone());
            tokio::spawn(async move {
                let mut set = 0;
                while set < EACH {
                    let now = remote.register(&name).await.expect("an answer");
                    let value = now
                        .as_ref()
                        .map_or(0, |now| u64::from_le_bytes(now.value[..].try_into().expect("8")));
                    let expected =
                        now.map_or(ExpectedRegister::Absent, |now| ExpectedRegister::Revision(now.revision));
                    let next = Bytes::copy_from_slice(&(value + 1).to_le_bytes());
                    match remote.set_register(&name, expected, next).await {
                        Ok(_) => set += 1,
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    let now = remote.register(&name).await.expect("an answer").expect("set");
    assert_eq!(now.revision, (WRITERS * EACH) as u64);
    assert_eq!(now.value, now.revision.to_le_bytes()[..]);
}

#[tokio::test]
async fn a_log_is_made_once_and_a_copy_is_promoted() {
    let remote = azurite!().fresh().await;
    let name: LogName = "copied.log".parse().expect("a name");
    assert_eq!(remote.logs().await.expect("logs"), []);
    assert_eq!(remote.log(&name).await.expect("an answer"), None);
    let record = LogRecord { id: LogId::random(), copy: true, home: "x".into() };
    assert_eq!(remote.make_log(&name, record.clone()).await.expect("made"), record);
    let other = LogRecord { id: LogId::random(), copy: false, home: String::new() };
    assert_eq!(remote.make_log(&name, other).await.expect("there"), record);
    let main = make_log(&remote).await;
    assert_eq!(remote.logs().await.expect("logs"), [name.clone(), LogName::default()]);
    let error = remote.promote(&name, main).await.expect_err("another id");
    assert_eq!(error.kind(), ErrorKind::LogWentBackwards);
    for _ in 0..2 {
        remote.promote(&name, record.id).await.expect("promoted");
        let now = remote.log(&name).await.expect("an answer");
        assert_eq!(now, Some(LogRecord { copy: false, ..record.clone() }));
    }
    let error = remote.promote(&"none".parse().expect("a name"), main).await.expect_err("no such log");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn of_many_that_make_a_log_all_get_the_same_and_can_write_to_it() {
    let remote = Arc::new(azurite!().fresh().await);
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let remote = remote.clone();
            tokio::spawn(async move { make_log(&remote).await })
        })
        .collect();
    let mut ids = Vec::new();
    for task in tasks {
        ids.push(task.await.expect("no panic"));
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    commit_some(&remote, ids[0], 0..1).await;
}

#[tokio::test]
async fn more_logs_than_a_page_has_are_all_listed() {
    let remote = azurite!().fresh().await;
    let names: Vec<LogName> = (0..1005).map(|i| format!("log-{i:04}").parse().expect("a name")).collect();
    for names in names.chunks(100) {
        use precedent_azure::table::{batch::Operation, entity::Entity, keys::Key};
        let rows: Vec<_> = names
            .iter()
            .map(|name| Operation::Insert(Entity::new(Key::new("~logs", name.as_str()))))
            .collect();
        remote.client().transact(&rows).await.expect("rows");
    }
    assert_eq!(remote.logs().await.expect("logs"), names);
}

#[tokio::test]
async fn how_far_documents_are_complete_never_goes_down() {
    let remote = Arc::new(azurite!().fresh().await);
    let log = LogId::random();
    assert_eq!(remote.documented(log).await.expect("an answer").through(), 0);
    for (said, holds) in [(3, 3), (2, 3), (3, 3), (10, 10), (0, 10)] {
        remote.add_documented(log, &FrameSet::before(said)).await.expect("said");
        assert_eq!(remote.documented(log).await.expect("an answer").through(), holds);
    }
    assert_eq!(remote.documented(LogId::random()).await.expect("an answer").through(), 0);
    let tasks: Vec<_> = (0..8)
        .map(|i| {
            let remote = remote.clone();
            tokio::spawn(async move { remote.add_documented(log, &FrameSet::before(20 + i)).await })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic").expect("said");
    }
    assert_eq!(remote.documented(log).await.expect("an answer").through(), 27);
}

#[tokio::test]
async fn an_examination_says_what_can_be_seen() {
    let azurite = azurite!();
    let remote = azurite.fresh().await.with_bucket_bits(1);
    let log = make_log(&remote).await;
    let name = LogName::default();
    commit_some(&remote, log, 0..5).await;
    let codes = async || {
        let findings = remote.examine(&name, log).await.expect("findings");
        findings
            .into_iter()
            .map(|finding| (finding.code, finding.severity, finding.message))
            .collect::<Vec<_>>()
    };
    let findings = codes().await;
    assert_eq!(findings.len(), 2, "{findings:?}");
    assert_eq!((findings[0].0, findings[0].1), ("table_frames", Severity::Info));
    assert!(findings[0].2.contains("5 frames in 3 partitions of at most 2"), "{}", findings[0].2);
    assert_eq!((findings[1].0, findings[1].1), ("documents_behind", Severity::Warning));
    remote.add_documented(log, &FrameSet::before(5)).await.expect("said");
    assert_eq!(codes().await.len(), 1);
    empty(&remote).await;
    assert_eq!(codes().await[0].0, "log_head_missing");
    let (theirs, ours) = remote.clock().expect("the emulator says its time");
    assert!(theirs.as_micros().abs_diff(ours.as_micros()) < 10_000_000, "{theirs} {ours}");

    let settings = azurite.settings(&azurite.fresh_name(), Default::default());
    let nowhere = precedent_azure::table::TableRemote::new(&settings).expect("a remote");
    let findings = nowhere.examine(&name, log).await.expect("findings");
    assert_eq!((findings[0].code, findings[0].severity), ("table_unreachable", Severity::Error));
}
