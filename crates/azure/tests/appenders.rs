//! Many appenders at once on one handle: how many events share a commit, and that none is lost.
//!
//! `cargo test -p precedent-azure --test appenders -- --nocapture` prints what `docs/backends.md` shows.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use precedent_azure::cosmos::{self, CosmosRemote, KEY_VARIABLE, Settings, Transport};
use precedent_azure::remote::Remote;
use precedent_azure::{Options, RemoteStore};
use precedent_core::{Append, Event, LogName, Store};
use precedent_emulators::cosmos::{Account, Container, Emulator, KEY, Operation, delay};

/// What each appender records, one event after the other.
const EVENTS_EACH: usize = 20;

/// What came of it.
struct Run {
    events: usize,
    commits: u64,
    took: Duration,
}

impl Run {
    fn line(&self, service: &str, appenders: usize) {
        let seconds = self.took.as_secs_f64();
        println!(
            "| {service} | {appenders} | {:.0} | {:.0} | {:.1} |",
            self.events as f64 / seconds,
            self.commits as f64 / seconds,
            self.events as f64 / self.commits as f64,
        );
    }
}

/// Lets them append, and sees to it that everything is there.
async fn run(remote: Arc<dyn Remote>, appenders: usize) -> Run {
    let cache = tempfile::tempdir().expect("a folder");
    let mut options = Options::default();
    options.cache = cache.path().to_owned();
    let store = Arc::new(RemoteStore::open(remote.clone(), options).expect("it opens"));
    let log = LogName::default();
    // Making the log is no append.
    store.append(&log, one("first".into())).await.expect("recorded");
    let started = Instant::now();
    let tasks: Vec<_> = (0..appenders)
        .map(|appender| {
            let (store, log) = (store.clone(), log.clone());
            tokio::spawn(async move {
                let mut positions = Vec::new();
                for event in 0..EVENTS_EACH {
                    let appended = store.append(&log, one(format!("{appender}-{event}"))).await;
                    positions.push(appended.expect("recorded").events[0].position.0);
                }
                positions
            })
        })
        .collect();
    let mut positions = BTreeSet::new();
    for task in tasks {
        let own = task.await.expect("no panic");
        assert!(own.is_sorted(), "each appender's events are in its order");
        positions.extend(own);
    }
    let took = started.elapsed();
    let events = appenders * EVENTS_EACH;
    assert!(positions.into_iter().eq(1..=events as u64), "every position is there, and none twice");

    let id = remote.log(&log).await.expect("it answers").expect("it is there").id;
    let mut commits = 0;
    loop {
        let frames = remote.frames(id, commits, 1 << 20).await.expect("it answers");
        let Some(last) = frames.last() else { break };
        commits = last.sequence + 1;
    }
    Run { events, commits: commits - 1, took }
}

fn one(id: String) -> Append {
    let event = Event::builder("urn:appenders", id, "ai.decision.made").data(r#"{"decision":"approve"}"#);
    Append::new(vec![event.build().expect("an event")])
}

/// More appenders need no more commits: whatever waits goes into the next one.
fn shared(alone: &Run, together: &Run) {
    assert_eq!(alone.commits, alone.events as u64, "one after the other");
    assert!(together.commits * 4 < together.events as u64, "{} commits", together.commits);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appenders_share_commits_on_cosmos_db() {
    let (database, container) = ("eventSourcingDb", "eventsContainer");
    let remote = async || {
        let emulator = Emulator::new(Account::default());
        emulator.create_database(database);
        emulator.create_container(
            database,
            container,
            &Container { throughput: 100_000, ..Container::default() },
        );
        let url = format!("cosmos://{}/{database}/{container}", emulator.host());
        let settings = Settings::new(&url, |name| (name == KEY_VARIABLE).then(|| KEY.to_owned()));
        // An account takes its time; the emulator does not.
        let slow = [Operation::BatchItem, Operation::CreateItem, Operation::ReadItem];
        let slow = slow.into_iter().enumerate();
        let rules =
            slow.map(|(n, operation)| delay(&format!("slow {n}"), operation, Duration::from_millis(10)));
        let transport =
            Transport { runtime: Some(emulator.runtime(rules.collect()).await), http: Some(emulator.http()) };
        let connected =
            CosmosRemote::connect_through(settings.expect("a URL"), cosmos::Options::default(), transport)
                .await;
        Arc::new(connected.expect("it answers")) as Arc<dyn Remote>
    };
    let alone = run(remote().await, 1).await;
    let together = run(remote().await, 64).await;
    alone.line("Cosmos DB emulator, 10 ms a call", 1);
    together.line("Cosmos DB emulator, 10 ms a call", 64);
    shared(&alone, &together);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appenders_share_commits_on_table_storage() {
    let Some(azurite) = support::azurite::azurite() else { return };
    let alone = run(Arc::new(azurite.fresh().await), 1).await;
    let together = run(Arc::new(azurite.fresh().await), 64).await;
    alone.line("Azurite", 1);
    together.line("Azurite", 64);
    shared(&alone, &together);
}
