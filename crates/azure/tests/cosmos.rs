//! Cosmos DB as a `Remote`, on the emulator in this process.

use std::sync::Arc;

use bytes::Bytes;
use precedent_azure::cosmos::{CosmosRemote, KEY_VARIABLE, Options, Settings, Transport};
use precedent_azure::remote::{Commit, FrameSet, LogRecord, Outcome, Remote};
use precedent_core::store::ExpectedRegister;
use precedent_core::{ErrorKind, FrameId, Hash, LogId, LogName, Position};
use precedent_emulators::cosmos::{
    Account, Container, Emulator, Fault, FaultRule, KEY, Operation, answer, fault,
};

const DATABASE: &str = "eventSourcingDb";
const CONTAINER: &str = "eventsContainer";
/// Buckets of four frames, so that tests reach their boundaries.
const BUCKET_BITS: u32 = 2;

fn emulator(account: Account, container: &Container) -> Emulator {
    let emulator = Emulator::new(account);
    emulator.create_database(DATABASE);
    emulator.create_container(DATABASE, CONTAINER, container);
    emulator
}

async fn try_open(
    emulator: &Emulator,
    options: Options,
    rules: Vec<Arc<FaultRule>>,
) -> precedent_core::Result<CosmosRemote> {
    let url = format!("cosmos://{}/{DATABASE}/{CONTAINER}", emulator.host());
    let settings = Settings::new(&url, |name| (name == KEY_VARIABLE).then(|| KEY.to_owned()))?;
    let transport = Transport { runtime: Some(emulator.runtime(rules).await), http: Some(emulator.http()) };
    let remote = CosmosRemote::connect_through(settings, options, transport).await?;
    Ok(remote.with_bucket_bits(BUCKET_BITS))
}

async fn open(emulator: &Emulator, rules: Vec<Arc<FaultRule>>) -> CosmosRemote {
    try_open(emulator, Options::default(), rules).await.expect("the container can be opened")
}

async fn log(remote: &CosmosRemote) -> LogId {
    let record = LogRecord { id: LogId::random(), copy: false, home: remote.region() };
    remote.make_log(&LogName::default(), record).await.expect("a log can be made").id
}

fn hash(sequence: u64) -> Hash {
    let mut hash = [7; 32];
    hash[..8].copy_from_slice(&sequence.to_le_bytes());
    Hash(hash)
}

fn frame(log: LogId, sequence: u64, bytes: Bytes) -> Commit {
    let previous = sequence.checked_sub(1).map_or(Hash::ZERO, hash);
    let (id, first) = (FrameId::random(), Position(sequence));
    let header = bytes.slice(..frame_header(&bytes));
    Commit { log, sequence, id, first, count: 1, hash: hash(sequence), previous, header, bytes }
}

fn noise(len: usize) -> Bytes {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| step()).collect::<Vec<_>>().into()
}

#[track_caller]
fn assert_committed(outcome: &Outcome) {
    assert!(matches!(outcome, Outcome::Committed), "{outcome:?}");
}

#[tokio::test]
async fn frames_come_back_in_order_across_buckets() {
    for partition_key in [vec!["/eventType"], vec!["/eventType", "/period"]] {
        let emulator = emulator(Account::default(), &Container { partition_key, ..Container::default() });
        let remote = open(&emulator, Vec::new()).await;
        let log = log(&remote).await;
        for sequence in 0..11 {
            let bytes = Bytes::from(format!("frame {sequence}").repeat(40));
            assert_committed(&remote.commit(&frame(log, sequence, bytes)).await);
        }
        let frames = remote.frames(log, 2, 1 << 20).await.expect("they are there");
        let numbers: Vec<_> = frames.iter().map(|frame| frame.sequence).collect();
        assert_eq!(numbers, (2..11).collect::<Vec<_>>());
        for frame in frames {
            let bytes = frame.bytes.expect("undamaged");
            assert_eq!(bytes, format!("frame {}", frame.sequence).repeat(40));
            assert_eq!(frame.header.expect("a header"), bytes.slice(..frame_header(&bytes)));
        }
        assert!(remote.has_frame(log, 10).await.expect("it answers"));
        assert!(!remote.has_frame(log, 11).await.expect("it answers"));
        assert!(remote.frames(log, 11, 1 << 20).await.expect("it answers").is_empty());
        assert_eq!(remote.frames(log, 0, 1).await.expect("it answers").len(), 1, "at least one");
    }
}

fn frame_header(bytes: &Bytes) -> usize {
    bytes.len().min(precedent_core::frame::HEADER_BYTES)
}

#[tokio::test]
async fn of_two_racing_commits_one_wins_and_the_other_is_told() {
    let emulator = emulator(Account::default(), &Container::default());
    let (one, two) = (open(&emulator, Vec::new()).await, open(&emulator, Vec::new()).await);
    let log = log(&one).await;
    for sequence in 0..9 {
        let (a, b) = (frame(log, sequence, noise(100)), frame(log, sequence, noise(100)));
        let outcomes = tokio::join!(one.commit(&a), two.commit(&b));
        let won = [&outcomes.0, &outcomes.1].into_iter().filter(|o| matches!(o, Outcome::Committed)).count();
        let lost = [&outcomes.0, &outcomes.1].into_iter().filter(|o| matches!(o, Outcome::Taken)).count();
        assert_eq!((won, lost), (1, 1), "{outcomes:?}");
    }
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_recognised_as_ours() {
    let emulator = emulator(Account::default(), &Container::default());
    let rule = fault("lost", Operation::BatchItem, Fault::ResponseTimeoutAfterService, 1);
    let remote = open(&emulator, vec![rule.clone()]).await;
    let log = log(&remote).await;
    let commit = frame(log, 0, noise(100));
    assert_committed(&remote.commit(&commit).await);
    assert_eq!(rule.hit_count(), 1, "the answer was lost");
    assert_committed(&remote.commit(&commit).await);
    assert!(matches!(remote.commit(&frame(log, 0, noise(100))).await, Outcome::Taken));
}

#[tokio::test]
async fn a_frame_never_follows_one_that_is_gone_or_another() {
    let emulator = emulator(Account::default(), &Container::default());
    let remote = open(&emulator, Vec::new()).await;
    let log = log(&remote).await;
    assert!(matches!(remote.commit(&frame(log, 1, noise(9))).await, Outcome::Gone(_)), "no predecessor");
    assert!(
        matches!(remote.commit(&frame(log, 4, noise(9))).await, Outcome::Gone(_)),
        "of the bucket before"
    );
    assert!(matches!(remote.commit(&frame(LogId::random(), 0, noise(9))).await, Outcome::Gone(_)), "no log");
    assert_committed(&remote.commit(&frame(log, 0, noise(9))).await);
    let other = Commit { previous: hash(99), ..frame(log, 1, noise(9)) };
    assert!(matches!(remote.commit(&other).await, Outcome::Gone(_)), "another predecessor");
    assert!(!remote.has_frame(log, 1).await.expect("it answers"), "and nothing was written");
}

#[tokio::test]
async fn a_frame_of_fifteen_mebibytes_goes_in_parts_and_comes_back() {
    let emulator = emulator(Account::default(), &Container { throughput: 100_000, ..Container::default() });
    let options = Options { item_bytes: Some(80_000), region: None };
    let remote = try_open(&emulator, options, Vec::new()).await.expect("it opens");
    let log = log(&remote).await;
    let bytes = noise(15 << 20);
    let commit = frame(log, 0, bytes.clone());
    assert_committed(&remote.commit(&commit).await);
    assert_committed(&remote.commit(&commit).await);
    let frames = remote.frames(log, 0, 1).await.expect("it is there");
    assert_eq!(frames[0].bytes.as_ref().expect("undamaged"), &bytes);
}

#[tokio::test]
async fn a_throttled_or_refused_commit_says_that_nothing_was_written() {
    let emulator = emulator(Account::default(), &Container::default());
    for (status, substatus, kind) in [
        (403, 1014, ErrorKind::Full),
        (403, 5300, ErrorKind::Unauthorized),
        (401, 0, ErrorKind::Unauthorized),
    ] {
        let remote = open(&emulator, vec![answer("no", Operation::BatchItem, status, substatus, 1)]).await;
        let log = log(&remote).await;
        let outcome = remote.commit(&frame(log, 0, noise(9))).await;
        let Outcome::Refused(error) = &outcome else { panic!("{status}/{substatus}: {outcome:?}") };
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(!format!("{error:?} {remote:?}").contains(KEY) && !error.may_have_been_written());
    }
}

#[tokio::test]
async fn a_region_that_is_not_the_home_of_a_log_is_refused_for_writing() {
    let account =
        Account { regions: vec!["East US", "West US"], several_write_regions: true, ..Account::default() };
    let emulator = emulator(account, &Container::default());
    let east = open(&emulator, Vec::new()).await;
    let log = log(&east).await;
    assert_committed(&east.commit(&frame(log, 0, noise(9))).await);
    let options = Options { region: Some("West US".into()), item_bytes: None };
    let west = try_open(&emulator, options, Vec::new()).await.expect("it opens");
    let record = west.log(&LogName::default()).await.expect("it answers").expect("it is replicated");
    assert_eq!(record.home, "East US");
    let outcome = west.commit(&frame(log, 1, noise(9))).await;
    let Outcome::Refused(error) = &outcome else { panic!("{outcome:?}") };
    assert!(error.message().contains("East US") && error.message().contains("West US"), "{error}");
}

#[tokio::test]
async fn registers_are_swapped_once_even_if_the_answer_is_lost() {
    let emulator = emulator(Account::default(), &Container::default());
    let lost = |id, operation| fault(id, operation, Fault::ResponseTimeoutAfterService, 1);
    let rules = vec![lost("create", Operation::CreateItem), lost("replace", Operation::ReplaceItem)];
    let remote = open(&emulator, rules).await;
    let name = "cursors/a".parse().expect("a name");
    assert_eq!(remote.register(&name).await.expect("it answers"), None);
    for revision in 1..4 {
        let expected = match revision {
            1 => ExpectedRegister::Absent,
            n => ExpectedRegister::Revision(n - 1),
        };
        let set = remote.set_register(&name, expected, Bytes::from_static(b"x")).await.expect("as expected");
        assert_eq!(set.revision, revision);
    }
    let again = remote.set_register(&name, ExpectedRegister::Revision(1), Bytes::new()).await;
    assert_eq!(again.expect_err("an old revision").kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn a_container_of_another_key_is_no_store() {
    let other = Container { partition_key: vec!["/streamId"], ..Container::default() };
    let error = try_open(&emulator(Account::default(), &other), Options::default(), Vec::new()).await;
    let error = error.expect_err("another key");
    assert_eq!(error.kind(), ErrorKind::NotAStore);
    assert!(error.message().contains("/streamId") && error.message().contains("provision cosmos"), "{error}");
    let empty = Emulator::new(Account::default());
    let error = try_open(&empty, Options::default(), Vec::new()).await.expect_err("no database");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
}

#[tokio::test]
async fn the_clock_of_the_service_is_heard_and_logs_are_listed_and_promoted() {
    let emulator = emulator(Account::default(), &Container::default());
    let remote = open(&emulator, Vec::new()).await;
    assert!(remote.clock().is_some());
    let name = LogName::default();
    assert_eq!(remote.log(&name).await.expect("it answers"), None);
    let record = LogRecord { id: LogId::random(), copy: true, home: remote.region() };
    assert_eq!(remote.make_log(&name, record.clone()).await.expect("made"), record);
    let other = LogRecord { id: LogId::random(), ..record.clone() };
    assert_eq!(remote.make_log(&name, other).await.expect("there"), record, "the first one stays");
    remote.promote(&name, record.id).await.expect("a copy");
    remote.promote(&name, record.id).await.expect("promoted already");
    assert!(!remote.log(&name).await.expect("it answers").expect("there").copy);
    assert_eq!(remote.logs().await.expect("it answers"), [name]);
    remote.add_documented(record.id, &FrameSet::before(7)).await.expect("set");
    remote.add_documented(record.id, &FrameSet::before(3)).await.expect("never down");
    assert_eq!(remote.documented(record.id).await.expect("it answers").through(), 7);
}
