//! Answers that are lost, requests that arrive late, a service that is busy.

use std::sync::Arc;

use azure_core::http::Method;
use bytes::Bytes;
use precedent_azure::remote::{Commit, FrameSet, Outcome, Remote};
use precedent_azure::table::{Options, TableRemote};
use precedent_core::store::{ExpectedRegister, RegisterName};
use precedent_core::{ErrorKind, FrameId, LogId};

use crate::support::faults::{Fault, Faults};
use crate::{azurite, commit, commit_some, frame, make_log, noise};

/// Tries of a call, in these tests.
const TRIES: usize = crate::support::azurite::TRIES;

async fn faulty() -> Option<(Arc<Faults>, TableRemote, LogId)> {
    let azurite = crate::support::azurite::azurite()?;
    let faults = Faults::new();
    let remote = azurite.fresh_with(Options::default(), vec![faults.clone()]).await.with_bucket_bits(2);
    let log = make_log(&remote).await;
    faults.count();
    Some((faults, remote, log))
}

macro_rules! faulty {
    () => {
        match faulty().await {
            Some(all) => all,
            None => return,
        }
    };
}

/// The frame is there, once, and its number is not to be had any more.
async fn is_there(remote: &TableRemote, frame: &Commit) {
    let stored = remote.frames(frame.log, frame.sequence, usize::MAX).await.expect("frames");
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].bytes.as_ref().expect("undamaged"), &frame.bytes);
    let other = Commit { id: FrameId::random(), ..frame.clone() };
    assert!(matches!(remote.commit(&other).await, Outcome::Taken));
}

#[tokio::test]
async fn a_commit_is_one_request_once_the_head_is_known() {
    let (faults, remote, log) = faulty!();
    commit_some(&remote, log, 0..1).await;
    assert_eq!(faults.count(), 2, "the head, the transaction");
    commit_some(&remote, log, 1..4).await;
    assert_eq!(faults.count(), 3);
    commit_some(&remote, log, 4..5).await;
    assert_eq!(faults.count(), 5, "no head, the predecessor, the new head twice, the transaction");
    remote.has_frame(log, 5).await.expect("an answer");
    assert_eq!(faults.count(), 1);
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_committed_once() {
    let (faults, remote, log) = faulty!();
    for (sequence, size) in [(0, 10), (1, 4_000_000), (2, 10), (3, 10)] {
        let frame = frame(log, sequence, noise(size, sequence + 1));
        faults.next(1, None, "$batch", Fault::LoseAnswer);
        commit(&remote, &frame).await;
        is_there(&remote, &frame).await;
    }
    // The answer to making the new bucket is lost too, and to every part.
    faults.next(1, Some(Method::Post), "", Fault::LoseAnswer);
    commit_some(&remote, log, 4..5).await;
    let parts = frame(log, 5, noise(3 << 20, 6));
    faults.next(2, Some(Method::Post), "", Fault::LoseAnswer);
    commit(&remote, &parts).await;
    is_there(&remote, &parts).await;
}

#[tokio::test]
async fn a_commit_whose_every_answer_was_lost_is_found_by_reading_back() {
    let (faults, remote, log) = faulty!();
    commit_some(&remote, log, 0..1).await;
    let mine = frame(log, 1, noise(10, 1));
    faults.next(TRIES, None, "$batch", Fault::LoseAnswer);
    commit(&remote, &mine).await;
    faults.clear();
    is_there(&remote, &mine).await;
}

#[tokio::test]
async fn a_commit_that_never_arrived_is_refused_and_cannot_arrive_later() {
    let (faults, remote, log) = faulty!();
    commit_some(&remote, log, 0..1).await;
    let mine = frame(log, 1, noise(10, 1));
    faults.next(TRIES, None, "$batch", Fault::Hold);
    let outcome = remote.commit(&mine).await;
    assert!(
        matches!(&outcome, Outcome::Refused(error)
            if error.kind() == ErrorKind::Unavailable && !error.may_have_been_written()),
        "{outcome:?}"
    );
    faults.clear();
    // All of them arrive after all.
    let said = faults.release().await;
    assert_eq!(said.len(), TRIES);
    assert!(said.iter().all(|said| said.contains("UpdateConditionNotSatisfied")), "{said:?}");
    assert!(!remote.has_frame(log, 1).await.expect("an answer"));
    // The number is still to be had.
    let other = frame(log, 1, noise(10, 2));
    commit(&remote, &other).await;
    is_there(&remote, &other).await;
}

#[tokio::test]
async fn a_commit_nobody_can_say_anything_about_is_unsettled_and_settles_when_sent_again() {
    let (faults, remote, log) = faulty!();
    for (sequence, arrives) in [(1, true), (3, false)] {
        commit_some(&remote, log, sequence - 1..sequence).await;
        let mine = frame(log, sequence, noise(10, sequence));
        let fault = if arrives { Fault::LoseAnswer } else { Fault::Hold };
        faults.next(1, None, "$batch", fault);
        faults.next(usize::MAX, None, "", Fault::NoConnection);
        let outcome = remote.commit(&mine).await;
        assert!(
            matches!(&outcome, Outcome::Unsettled(error) if error.may_have_been_written()),
            "{outcome:?}"
        );
        faults.clear();
        commit(&remote, &mine).await;
        is_there(&remote, &mine).await;
    }
    faults.release().await;
}

#[tokio::test]
async fn somebody_elses_frame_behind_a_lost_answer_is_not_taken_for_ours() {
    let (faults, remote, log) = faulty!();
    commit_some(&remote, log, 0..1).await;
    let name = remote.url().rsplit('/').next().expect("a name").to_owned();
    let other = TableRemote::new(&azurite!().settings(&name, Options::default())).expect("a remote");
    let other = other.with_bucket_bits(2);
    // Ours is under way while theirs is committed.
    faults.next(TRIES, None, "$batch", Fault::Hold);
    let (mine, theirs) = (frame(log, 1, noise(10, 1)), frame(log, 1, noise(10, 2)));
    commit(&other, &theirs).await;
    let outcome = remote.commit(&mine).await;
    assert!(matches!(outcome, Outcome::Taken), "{outcome:?}");
    faults.clear();
    faults.release().await;
    is_there(&remote, &theirs).await;
}

#[tokio::test]
async fn a_throttled_call_is_tried_again_within_bounds_and_then_reported() {
    let (faults, remote, log) = faulty!();
    commit_some(&remote, log, 0..1).await;
    faults.count();
    for fault in
        [Fault::error(503, "ServerBusy"), Fault::error(500, "OperationTimedOut"), Fault::error(429, "")]
    {
        faults.next(TRIES - 1, None, "", fault);
        assert!(remote.has_frame(log, 0).await.expect("the last try succeeds"));
        assert_eq!(faults.count(), TRIES);
    }
    let mut mine = frame(log, 1, noise(10, 1));
    let busy =
        || Fault::Answer(503, vec![("retry-after", "0".into())], r#"{"odata.error":{"code":"ServerBusy"}}"#);
    faults.next(TRIES, None, "$batch", busy());
    let outcome = remote.commit(&mine).await;
    assert!(
        matches!(&outcome, Outcome::Refused(error)
            if error.kind() == ErrorKind::Overloaded && !error.may_have_been_written() && error.retry_after_secs() == Some(0)),
        "nothing was done, and the service says so: {outcome:?}"
    );
    // A try that timed out there may have been carried out: it is looked up.
    for code in ["OperationTimedOut", "InternalError"] {
        faults.next(TRIES, None, "$batch", Fault::error(500, code));
        let outcome = remote.commit(&mine).await;
        assert!(
            matches!(&outcome, Outcome::Refused(error) if error.kind() == ErrorKind::Unavailable),
            "{outcome:?}"
        );
    }
    // A wait that the service asks for and that is longer than the patience is not begun.
    let late =
        Fault::Answer(503, vec![("retry-after", "3600".into())], r#"{"odata.error":{"code":"ServerBusy"}}"#);
    faults.next(1, None, "", late);
    faults.count();
    let error = remote.has_frame(log, 0).await.expect_err("an hour is too long");
    assert_eq!((error.kind(), error.retry_after_secs()), (ErrorKind::Overloaded, Some(3600)));
    assert_eq!(faults.count(), 1);
    mine.bytes = noise(20, 2);
    commit(&remote, &mine).await;
}

#[tokio::test]
async fn answers_that_are_none_are_errors() {
    let (faults, remote, log) = faulty!();
    let page = |body| Fault::Answer(200, Vec::new(), body);
    for body in
        ["", "{}", "[]", "<html>", r#"{"value":[{}]}"#, r#"{"value":[{"PartitionKey":1,"RowKey":"x"}]}"#]
    {
        faults.next(1, None, "()", page(body));
        remote.frames(log, 0, 1).await.expect_err(body);
    }
    faults.next(1, None, "", Fault::Answer(302, vec![("location", "https://example.com/".into())], ""));
    let error = remote.has_frame(log, 0).await.expect_err("redirected");
    assert_eq!(error.kind(), ErrorKind::NotAStore);
    // A transaction whose answer cannot be read is looked up.
    let mine = frame(log, 0, noise(10, 1));
    faults.next(
        1,
        None,
        "$batch",
        Fault::Answer(202, Vec::new(), "--a\r\nHTTP/1.1 204 No Content\r\n\r\n--a--"),
    );
    let outcome = remote.commit(&mine).await;
    assert!(matches!(outcome, Outcome::Refused(_)), "it was never sent: {outcome:?}");
    commit(&remote, &mine).await;
}

#[tokio::test]
async fn pages_may_be_short_or_empty() {
    let (faults, remote, log) = faulty!();
    let committed: Vec<Commit> = {
        let mut all = commit_some(&remote, log, 0..2).await;
        let long = frame(log, 2, noise(2_500_000, 3));
        commit(&remote, &long).await;
        all.push(long);
        all.extend(commit_some(&remote, log, 3..7).await);
        all
    };
    for rows in [1, 2, 3] {
        faults.next(usize::MAX, None, "()", Fault::Top(rows));
        let read = remote.frames(log, 0, usize::MAX).await.expect("frames");
        assert_eq!(read.len(), committed.len());
        for (read, committed) in read.iter().zip(&committed) {
            assert!(*read.bytes.as_ref().expect("undamaged") == committed.bytes);
        }
        faults.clear();
    }
    faults.next(3, None, "()", Fault::EmptyPage);
    assert_eq!(remote.frames(log, 0, usize::MAX).await.expect("frames").len(), committed.len());
}

#[tokio::test]
async fn a_register_whose_answer_was_lost_is_set_once_or_unknown() {
    let (faults, remote, _) = faulty!();
    let name: RegisterName = "r".parse().expect("a name");
    let value = |n: u8| Bytes::from(vec![n]);
    let set = async |expected, n| remote.set_register(&name, expected, value(n)).await;
    faults.next(1, Some(Method::Post), "", Fault::LoseAnswer);
    assert_eq!(set(ExpectedRegister::Absent, 1).await.expect("set").revision, 1);
    faults.next(1, Some(Method::Put), "", Fault::LoseAnswer);
    assert_eq!(set(ExpectedRegister::Revision(1), 2).await.expect("set").revision, 2);
    faults.next(TRIES, Some(Method::Put), "", Fault::LoseAnswer);
    assert_eq!(set(ExpectedRegister::Revision(2), 3).await.expect("read back").revision, 3);
    faults.clear();
    // It never arrived, and may yet.
    faults.next(TRIES, Some(Method::Put), "", Fault::Hold);
    let error = set(ExpectedRegister::Revision(3), 4).await.expect_err("nobody knows");
    assert_eq!(error.kind(), ErrorKind::Unknown);
    assert!(error.may_have_been_written());
    faults.clear();
    assert_eq!(remote.register(&name).await.expect("an answer").expect("set").revision, 3);
    assert_eq!(set(ExpectedRegister::Revision(3), 5).await.expect("set").revision, 4);
    faults.release().await;
    let now = remote.register(&name).await.expect("an answer").expect("set");
    assert_eq!((now.revision, now.value), (4, value(5)), "what came late failed");
    // Nobody answers at all.
    faults.next(1, Some(Method::Put), "", Fault::LoseAnswer);
    faults.next(TRIES - 1, Some(Method::Put), "", Fault::NoConnection);
    faults.next(TRIES, Some(Method::Get), "zzz", Fault::NoConnection);
    assert_eq!(set(ExpectedRegister::Revision(4), 6).await.expect("read back").revision, 5);
    // A conflict is one, whatever was lost on the way.
    let error = set(ExpectedRegister::Revision(1), 7).await.expect_err("it has revision 5");
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn a_log_and_a_mark_whose_answer_was_lost_are_made_once() {
    let (faults, remote, log) = faulty!();
    for method in [Method::Post, Method::Put] {
        faults.next(1, Some(method), "", Fault::LoseAnswer);
        let frames = if method == Method::Post { 3 } else { 5 };
        remote.add_documented(log, &FrameSet::before(frames)).await.expect("said");
        assert_eq!(remote.documented(log).await.expect("an answer").through(), frames);
    }
    let name = "other".parse().expect("a name");
    faults.next(2, Some(Method::Post), "", Fault::LoseAnswer);
    let record = precedent_azure::remote::LogRecord { id: LogId::random(), copy: true, home: String::new() };
    assert_eq!(remote.make_log(&name, record.clone()).await.expect("a log"), record);
    faults.next(1, Some(Method::Put), "", Fault::LoseAnswer);
    remote.promote(&name, record.id).await.expect("promoted");
    assert!(!remote.log(&name).await.expect("an answer").expect("there").copy);
}

#[tokio::test]
async fn a_clock_that_is_off_is_seen() {
    let (faults, remote, log) = faulty!();
    faults.next(usize::MAX, None, "", Fault::Header("date", "Thu, 26 Nov 2020 10:00:00 GMT".to_owned()));
    let findings = remote.examine(&precedent_core::LogName::default(), log).await.expect("findings");
    assert!(findings.iter().any(|finding| finding.code == "clock_off"), "{findings:?}");
    assert_eq!(remote.clock().expect("a time").0.to_string(), "2020-11-26T10:00:00.000000Z");
}
