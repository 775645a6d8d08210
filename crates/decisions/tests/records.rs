//! What a record holds, what it does not, and what it says about both.

mod support;

use std::sync::Arc;

use precedent_capture::Rules;
use precedent_capture::otlp::{self, Encoding, Signal};
use precedent_capture::view::Missing;
use precedent_core::*;
use precedent_decisions::facts;
use precedent_decisions::gather::Bounds;
use precedent_decisions::list::{Filter, list};
use precedent_decisions::record::{Content, StepKind};
use precedent_decisions::{Ask, By, Key, Record, Shown, show};
use serde_json::{Value, json};
use support::watched::Watched;
use support::{asked, at, event, log, nothing, of, put, ticking, ticking_store};

fn positions(record: &Record) -> Vec<u64> {
    record.steps.iter().flat_map(|step| step.events.iter().map(|event| event.position.0)).collect()
}

/// A decision, twice overridden, with feedback and a late outcome, among other people's events.
async fn a_story(log: &Log) {
    let features = json!({"income": 3400, "amount": 12000.50});
    put(log, facts::model_deployed("urn:ops", "m-6", "risk", "6").build().unwrap()).await;
    put(log, facts::model_retired("urn:ops", "r-6", "risk", "6").build().unwrap()).await;
    put(log, facts::model_deployed("urn:ops", "m-7", "risk", "7").environment("production").build().unwrap())
        .await;
    put(log, facts::input("urn:test", "i-1").with("features", &features).decision("d").build().unwrap())
        .await;
    let made =
        facts::decision("urn:test", "d").decided("decline").score(0.31).threshold(0.5).model("risk", "7");
    put(log, made.features(&features).stream("application/1").build().unwrap()).await;
    put(log, event("other", "ai.decision.made", Some("other"), json!({"decision": "approve"}))).await;
    put(log, facts::model_deployed("urn:ops", "m-8", "risk", "8").environment("production").build().unwrap())
        .await;
    let over = facts::overridden("urn:desk", "o-1", "d").person("officer-1").from("decline").to("approve");
    put(log, over.reason("new income").build().unwrap()).await;
    let again = facts::overridden("urn:desk", "o-2", "d").person("officer-2").from("approve").to("decline");
    put(log, again.build().unwrap()).await;
    put(log, facts::feedback("urn:app", "f-1", "d").with("text", "unfair").build().unwrap()).await;
    put(log, facts::outcome("urn:crm", "out-1", "d").value("repaid", false).build().unwrap()).await;
}

#[tokio::test]
async fn a_record_holds_what_names_the_decision_however_late_it_came() {
    let log = ticking();
    a_story(&log).await;
    let record = of(&log, "d").await;
    assert_eq!(positions(&record), [3, 4, 7, 8, 9, 10]);
    let kinds: Vec<StepKind> = record.steps.iter().map(|step| step.kind).collect();
    use StepKind::*;
    assert_eq!(kinds, [Input, Decision, Override, Override, Feedback, Outcome]);
    assert!(
        record.notes.iter().any(|note| note.contains("overridden 2 times, at 7, 8")),
        "{:?}",
        record.notes
    );
    assert_eq!(record.also, [Key::new(By::Stream, "application/1")]);
    let Content::Said(said) = &record.steps[1].content else { panic!() };
    // As it was sent, numbers included.
    assert!(said.data.as_str().contains("12000.5"), "{}", said.data);
}

#[tokio::test]
async fn what_is_shown_at_a_position_is_what_a_log_that_ends_there_would_show() {
    let whole = ticking();
    a_story(&whole).await;
    let size = whole.head().await.unwrap().size;
    for last in 3..size {
        let cut = ticking();
        for position in 0..=last {
            let read = Read {
                before: Some(Position(position + 1)),
                after: position.checked_sub(1).map(Position),
                ..Read::default()
            };
            let event = whole.page(&read).await.unwrap().events.remove(0);
            put(&cut, event.event).await;
        }
        let (then, now) = (at(&whole, "d", &last.to_string()).await, of(&cut, "d").await);
        let json = |record: &Record| {
            let mut json = serde_json::to_value(record).unwrap();
            json["as_of"]["asked"] = Value::Null;
            json
        };
        assert_eq!(json(&then), json(&now), "at {last}");
        // By the clock of the log, each event one second after the other, it is the same moment.
        let time = format!("2026-01-01T00:00:{:02}Z", last + 1);
        assert_eq!(json(&at(&whole, "d", &time).await), json(&then));
    }
}

#[tokio::test]
async fn nothing_later_than_the_moment_is_known_even_as_an_absence() {
    let log = ticking();
    a_story(&log).await;
    // The decision is at 4, so at 2 it is as unknown as one that never was.
    let (one, never) = (nothing(&log, "d", Some("2")).await, nothing(&log, "never", Some("2")).await);
    assert_eq!(one.replace("'d'", "'never'"), never);
    let before = at(&log, "d", "5").await;
    assert_eq!(before.milestones.overrides, []);
    assert_eq!(before.notes, [""; 0]);
    assert!(
        nothing(&log, "d", Some("2025-12-31T00:00:00Z")).await.contains("nothing was recorded at or before")
    );
    assert!(
        nothing(&log, "d", Some("99")).await.contains("position 99 is not in the log, which holds 11 events")
    );
    assert_eq!(nothing(&support::log(), "d", None).await, "the log is empty");
}

#[tokio::test]
async fn the_version_that_was_live_is_the_one_before_the_decision() {
    let log = ticking();
    a_story(&log).await;
    let live = of(&log, "d").await.live;
    assert_eq!(live.at, Some(Position(4)));
    // The sixth was retired before, the eighth came after.
    let versions: Vec<_> = live.versions.iter().map(|v| (v.version.as_deref(), v.since.0, v.named)).collect();
    assert_eq!(versions, [(Some("7"), 2, true)]);
}

#[tokio::test]
async fn an_outcome_for_a_decision_that_never_was_is_kept_and_said() {
    let log = log();
    put(&log, facts::outcome("urn:crm", "o", "ghost").value("repaid", true).build().unwrap()).await;
    let record = of(&log, "ghost").await;
    assert_eq!((positions(&record), &record.milestones.decisions), (vec![0], &vec![]));
    assert!(
        record.notes[0].contains("no ai.decision.made of decision 'ghost' is recorded"),
        "{:?}",
        record.notes
    );
    let rows = list(&log, &Filter::default()).await.unwrap().decisions;
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].decision.as_ref(), rows[0].outcomes.len()), (None, 1));
    // Beside decisions that were, it is found by its type and by what it says.
    put(&log, facts::decision("urn:test", "d").decided("x").build().unwrap()).await;
    let by_type = Filter { types: vec!["ai.outcome.observed".into()], ..Filter::default() };
    let by_outcome = Filter { outcomes: vec!["repaid=true".parse().unwrap()], ..Filter::default() };
    for filter in [by_type, by_outcome] {
        let rows = list(&log, &filter).await.unwrap().decisions;
        assert_eq!(rows.iter().map(|row| row.key.value.as_str()).collect::<Vec<_>>(), ["ghost"]);
    }
    let rows = list(&log, &Filter::default()).await.unwrap().decisions;
    assert_eq!(rows.iter().map(|row| row.key.value.as_str()).collect::<Vec<_>>(), ["d"]);
}

#[tokio::test]
async fn what_is_not_there_is_no_record_and_what_is_two_things_is_asked_back() {
    let log = log();
    put(&log, event("1", "ai.decision.made", Some("0"), json!({"decision": "x"}))).await;
    assert!(nothing(&log, "nobody", None).await.contains("'nobody'"));
    assert!(nothing(&log, "7", None).await.contains("position 7 is not in the log, which holds 1 event"));
    let error = show(&log, &Ask { what: "0".into(), ..Ask::default() }).await.unwrap_err();
    assert!(error.message().contains("'0' is a position, and a decision has that name too"), "{error}");
    let one = asked(&log, Ask { what: "0".into(), by: Some(By::Decision), ..Ask::default() }).await;
    let other = asked(&log, Ask { what: "0".into(), by: Some(By::Position), ..Ask::default() }).await;
    assert_eq!((one.opened, other.opened), (None, Some(Position(0))));
    assert_eq!(one.key, other.key);
    assert!(show(&log, &Ask::default()).await.is_err());
    let long = "x".repeat(10_000);
    assert!(nothing(&log, &long, None).await.len() < 400);
}

#[tokio::test]
async fn calls_join_by_trace_and_stream_unless_they_name_another_decision() {
    let log = log();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let call = |id: &str| {
        Event::builder("urn:test", id, "ai.tool.called").json(&json!({"name": "find", "result": id}))
    };
    put(&log, call("by-trace").attribute("traceparent", trace).build().unwrap()).await;
    put(&log, call("by-stream").stream("s").build().unwrap()).await;
    put(
        &log,
        call("of-another")
            .stream("s")
            .attribute("decisionid", "e")
            .attribute("traceparent", trace)
            .build()
            .unwrap(),
    )
    .await;
    let made = facts::decision("urn:test", "d").decided("x").stream("s").traceparent(trace).build().unwrap();
    put(&log, made).await;
    put(&log, facts::outcome("urn:test", "o", "d").value("x", 1).build().unwrap()).await;
    put(&log, call("later-in-stream").stream("s").build().unwrap()).await;
    let record = of(&log, "d").await;
    let by: Vec<(u64, By)> = record.steps.iter().map(|step| (step.position.0, step.events[0].by)).collect();
    assert_eq!(by, [(0, By::Trace), (1, By::Stream), (3, By::Decision), (4, By::Decision), (5, By::Stream)]);
    assert_eq!(record.others, ["e"]);
    // The trace leads to its decisions: both, since both are in it.
    assert_eq!(of(&log, "0af7651916cd43dd8448eb211c80319c").await.decisions, ["d", "e"]);
}

#[tokio::test]
async fn sums_invent_no_zero() {
    let log = log();
    let call = |id: &str, usage: Value| {
        let request = json!({"model": "m", "messages": [{"role": "user", "content": id}]});
        let data =
            json!({"request": request, "response": {"role": "assistant", "content": "ok"}, "usage": usage});
        event(id, "ai.model.called", Some("d"), data)
    };
    put(&log, call("1", json!({"input": 10, "output": 2}))).await;
    put(&log, call("2", json!({"input": "many"}))).await;
    put(&log, call("3", json!({"input": 5}))).await;
    let totals = of(&log, "d").await.totals;
    assert_eq!(totals.calls, 3);
    assert_eq!(totals.input_tokens.map(|sum| (sum.sum, sum.calls)), Some((15, 2)));
    assert_eq!(totals.output_tokens.map(|sum| (sum.sum, sum.calls)), Some((2, 1)));
    assert_eq!((totals.total_tokens, totals.model_us), (None, None));
    let json = serde_json::to_value(totals).unwrap();
    assert!(json.get("total_tokens").is_none() && json.get("model_us").is_none());
}

#[tokio::test]
async fn a_call_whose_span_never_came_is_shown_from_its_log_record() {
    let log = log();
    let request = json!({"resourceLogs": [{"scopeLogs": [{"scope": {"name": "opentelemetry.util.genai.handler"}, "logRecords": [{
    "timeUnixNano": "1767225600000000000", "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331",
    "eventName": "gen_ai.client.inference.operation.details",
    "attributes": [
        {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
        {"key": "gen_ai.request.model", "value": {"stringValue": "gpt-4o"}},
        {"key": "company.secret_sauce", "value": {"stringValue": "\u{202e}<b>"}},
        {"key": "gen_ai.input.messages", "value": {"stringValue": "[{\"role\":\"user\",\"parts\":[{\"type\":\"text\",\"content\":\"hello\"}]}]"}},
    ]}]}]}]});
    let body = request.to_string();
    otlp::check(Signal::Logs, Encoding::Json, body.as_bytes()).unwrap();
    let item = otlp::items(Signal::Logs, Encoding::Json, body.as_bytes()).next().unwrap();
    put(&log, item.written(false, &Rules::default()).unwrap().unwrap().event).await;
    let record = of(&log, "0af7651916cd43dd8448eb211c80319c").await;
    assert_eq!(record.steps.len(), 1);
    let step = &record.steps[0];
    assert!(step.notes[0].contains("its span is not"), "{:?}", step.notes);
    let Content::Call { call, .. } = &step.content else { panic!("{step:#?}") };
    assert_eq!(call.messages.as_ref().unwrap()[0].text().as_deref(), Some("hello"));
    assert!(call.missing.contains(&Missing::Output));
    // What nobody knows is under its own name, to the letter, and in the story too.
    assert_eq!(call.unmapped["company.secret_sauce"].string().as_deref(), Some("\u{202e}<b>"));
    let story = record.story();
    assert!(
        story.scenes[0].lines.iter().any(|line| line.text.contains("company.secret_sauce = \u{202e}<b>"))
    );
}

#[tokio::test]
async fn data_that_is_no_json_and_data_that_is_not_there_are_told_apart() {
    let log = log();
    let plain =
        |id: &str| Event::builder("urn:test", id, "custom.thing.happened").attribute("decisionid", "d");
    put(&log, plain("none").build().unwrap()).await;
    put(&log, plain("empty").data("").build().unwrap()).await;
    put(&log, plain("text").datacontenttype("text/plain").data("two\nlines").build().unwrap()).await;
    put(&log, plain("bytes").datacontenttype("application/x").data(&b"\xff\x00"[..]).build().unwrap()).await;
    put(&log, plain("broken").data("{\"a\":").build().unwrap()).await;
    put(&log, plain("schema").dataschema("urn:precedent:otlp:span:1").data("nonsense").build().unwrap())
        .await;
    let record = of(&log, "d").await;
    let shown: Vec<Value> =
        record.steps.iter().map(|step| serde_json::to_value(&step.content).unwrap()).collect();
    assert_eq!(shown[0], json!({"no_data": true}));
    assert_eq!(shown[1]["opaque"]["bytes"], 0);
    assert_eq!(shown[2]["opaque"]["text"], "two\nlines");
    assert_eq!(shown[3]["opaque"], json!({"media_type": "application/x", "bytes": 2}));
    assert!(shown[4]["opaque"]["unread"].as_str().unwrap().contains("says JSON"));
    assert!(shown[5]["opaque"]["unread"].is_string(), "{}", shown[5]);
    assert_eq!(record.steps.len(), 6);
}

#[tokio::test]
async fn an_event_that_fails_its_check_is_named_with_the_record_and_hides_no_other() {
    let log = Log::new(Arc::new(Watched::damaged(8, MemoryStore::new())), LogName::default());
    a_story(&log).await;
    let record = of(&log, "d").await;
    assert_eq!(positions(&record), [3, 4, 7, 9, 10]);
    assert_eq!(record.unreadable.iter().map(|one| one.position.0).collect::<Vec<_>>(), [8]);
    assert!(record.unreadable[0].detail.contains("checksum"));
    let opened = asked(&log, Ask { what: "8".into(), ..Ask::default() }).await;
    assert_eq!((opened.steps.len(), opened.unreadable.len()), (0, 1));
    // Before the damage nothing is said of it.
    assert_eq!(at(&log, "d", "7").await.unreadable, []);
    // The row it belongs to says so.
    let listing = list(&log, &Filter::default()).await.unwrap();
    assert_eq!(listing.unreadable.iter().map(|one| one.position.0).collect::<Vec<_>>(), [8]);
}

#[tokio::test]
async fn a_damaged_event_at_the_end_of_a_moment_is_named() {
    let log = Log::new(Arc::new(Watched::damaged(10, ticking_store())), LogName::default());
    a_story(&log).await;
    // The outcome at 10 was recorded at second 11, and cannot be read.
    let then = at(&log, "d", "2026-01-01T00:00:11Z").await;
    assert_eq!((then.as_of.position, then.unreadable.len()), (Position(9), 1));
    assert_eq!(then.unreadable[0].position, Position(10));
    assert!(
        then.unreadable[0].detail.contains("by 2026-01-01T00:00:11.000000Z, or later"),
        "{:?}",
        then.unreadable
    );
    assert!(then.story().head.iter().any(|line| line.position == Some(Position(10))));
    // A moment before it knows nothing of it.
    assert_eq!(at(&log, "d", "2026-01-01T00:00:10Z").await.unreadable, []);
    // Where nothing else is there, it is named too.
    let log = Log::new(Arc::new(Watched::damaged(0, ticking_store())), LogName::default());
    put(&log, event("1", "ai.decision.made", Some("d"), json!({"decision": "x"}))).await;
    let ask = Ask { what: "d".into(), at: Some("2026-01-01T00:00:05Z".parse().unwrap()), ..Ask::default() };
    let Shown::Nothing(nothing) = show(&log, &ask).await.unwrap() else { panic!() };
    assert!(nothing.message.contains("nothing that can be read"), "{}", nothing.message);
    assert_eq!(nothing.unreadable.len(), 1);
}

#[tokio::test]
async fn what_is_near_and_not_named_is_counted() {
    let log = log();
    for n in 0..300 {
        let made = facts::decision("urn:test", &format!("d{n}")).decided("x").stream("scoring");
        put(&log, made.build().unwrap()).await;
    }
    let record = of(&log, "d0").await;
    assert_eq!((record.others.len(), record.others_more), (256, 43));
    assert!(record.notes.iter().any(|note| note.ends_with(", and 294 more")), "{:?}", record.notes);
    let calls = (0..100).map(|n| {
        let call =
            Event::builder("urn:test", format!("c{n}"), "ai.tool.called").attribute("decisionid", "named");
        call.attribute("correlationid", format!("job-{n}")).build().unwrap()
    });
    log.append(Append::new(calls)).await.unwrap();
    let record = of(&log, "named").await;
    assert_eq!((record.also.len(), record.also_more), (64, 36));
    let story = record.story();
    let says = |text: &str| story.head.iter().any(|line| !line.detail && line.text.contains(text));
    assert!(says("100 correlations, traces and streams besides"), "{:#?}", story.head);
}

#[tokio::test]
async fn a_correlation_that_a_whole_job_has_is_looked_at_around_the_decision() {
    let log = log();
    for n in 0..300 {
        let made = facts::decision("urn:test", &format!("d{n}")).decided("x").correlation("job");
        put(&log, made.build().unwrap()).await;
        if n == 150 {
            let late =
                Event::builder("urn:test", "loose", "ai.outcome.observed").attribute("correlationid", "job");
            put(&log, late.json(&json!({"reward": 1})).build().unwrap()).await;
        }
    }
    let bounds = Bounds { linked_events_max: 20, ..Bounds::default() };
    let record = asked(&log, Ask { what: "d149".into(), bounds, ..Ask::default() }).await;
    assert_eq!(positions(&record), [149, 151]);
    let said: Vec<&str> = record.left_out.iter().map(|left| left.detail.as_str()).collect();
    assert!(said.len() == 2 && said[0].contains("its correlation goes on before position"), "{said:?}");
}

#[tokio::test]
async fn a_record_beyond_its_bounds_says_what_it_leaves_out() {
    let log = log();
    for n in 0..600 {
        put(&log, event(&n.to_string(), "custom.thing.happened", Some("d"), json!({"n": n}))).await;
    }
    let bounds = Bounds { events_max: 500, ..Bounds::default() };
    let record = asked(&log, Ask { what: "d".into(), bounds, ..Ask::default() }).await;
    assert_eq!(record.steps.len(), 500);
    assert!(
        record.left_out[0].detail.contains("comes after position 499 is not shown"),
        "{:?}",
        record.left_out
    );
    // In the very last page too.
    let bounds = Bounds { events_max: 599, ..Bounds::default() };
    assert_eq!(asked(&log, Ask { what: "d".into(), bounds, ..Ask::default() }).await.left_out.len(), 1);
    let bounds = Bounds { bytes_max: 10_000, ..Bounds::default() };
    assert!(asked(&log, Ask { what: "d".into(), bounds, ..Ask::default() }).await.left_out.len() == 1);
    assert_eq!(of(&log, "d").await.left_out, []);
}

#[tokio::test]
async fn a_stream_that_is_the_whole_log_is_not_read_for_one_decision() {
    let log = log();
    for n in 0..900 {
        let id = format!("d{n}");
        put(&log, facts::decision("urn:test", &id).decided("x").stream("scoring").build().unwrap()).await;
    }
    let bounds = Bounds { stream_events_max: 100, ..Bounds::default() };
    let record = asked(&log, Ask { what: "d450".into(), bounds, ..Ask::default() }).await;
    assert_eq!(positions(&record), [450]);
    assert_eq!(record.left_out.len(), 2, "{:?}", record.left_out);
    assert!(!record.others.is_empty());
}

#[tokio::test]
async fn every_decision_stands_on_one_page_and_pages_follow_each_other() {
    let log = log();
    for n in 0..50 {
        let id = format!("d{n}");
        put(
            &log,
            facts::decision("urn:test", &id)
                .decided("x")
                .model("m", "1")
                .tag("n", &n.to_string())
                .build()
                .unwrap(),
        )
        .await;
    }
    for n in 0..50 {
        let id = format!("d{n}");
        put(&log, facts::outcome("urn:test", &format!("o{n}"), &id).value("score", n % 5).build().unwrap())
            .await;
    }
    let mut filter = Filter { limit: 7, ..Filter::default() };
    let mut seen = Vec::new();
    loop {
        let page = list(&log, &filter).await.unwrap();
        assert!(page.decisions.len() <= 7);
        seen.extend(page.decisions.iter().map(|row| row.key.value.clone()));
        assert!(
            page.decisions.iter().all(|row| row.outcomes.len() == 1 && row.model.as_deref() == Some("m"))
        );
        // What comes between two pages moves nothing.
        put(
            &log,
            event(&format!("more{}", seen.len()), "ai.feedback.received", Some("d3"), json!({"text": "x"})),
        )
        .await;
        match page.next {
            Some(next) => filter.before = Some(next),
            None => break,
        }
    }
    let expected: Vec<String> = (0..50).rev().map(|n| format!("d{n}")).collect();
    assert_eq!(seen, expected);
    let found = |filter: Filter| {
        let log = log.clone();
        async move { list(&log, &Filter { limit: 1000, ..filter }).await.unwrap().decisions.len() }
    };
    assert_eq!(found(Filter { outcomes: vec!["score=3".parse().unwrap()], ..Filter::default() }).await, 10);
    assert_eq!(found(Filter { outcomes: vec!["score=3.0".parse().unwrap()], ..Filter::default() }).await, 10);
    assert_eq!(
        found(Filter { outcomes: vec!["score=30e-1".parse().unwrap()], ..Filter::default() }).await,
        10
    );
    assert_eq!(found(Filter { outcomes: vec!["score=nan".parse().unwrap()], ..Filter::default() }).await, 0);
    assert_eq!(found(Filter { tags: vec!["n=7".parse().unwrap()], ..Filter::default() }).await, 1);
    assert_eq!(found(Filter { model: Some("m".into()), ..Filter::default() }).await, 50);
    assert_eq!(found(Filter { model: Some("other".into()), ..Filter::default() }).await, 0);
    assert_eq!(found(Filter { types: vec!["ai.outcome.observed".into()], ..Filter::default() }).await, 50);
}

#[tokio::test]
async fn what_a_call_was_given_before_is_said_and_what_is_new_is_shown() {
    let log = log();
    let (user, asks) = (
        json!({"role": "user", "content": "where?"}),
        json!({"role": "assistant", "content": null,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{\"n\": 1}"}}]}),
    );
    let result = json!({"role": "tool", "tool_call_id": "c1", "content": "here"});
    let call = |id: &str, messages: Value, response: &Value| {
        event(
            id,
            "ai.model.called",
            Some("d"),
            json!({"request": {"model": "m", "messages": messages}, "response": response}),
        )
    };
    put(&log, call("1", json!([user]), &asks)).await;
    put(
        &log,
        event("t", "ai.tool.called", Some("d"), json!({"call": asks["tool_calls"][0], "result": result})),
    )
    .await;
    let answer = json!({"role": "assistant", "content": "there"});
    put(&log, call("2", json!([user, asks, result]), &answer)).await;
    let record = of(&log, "d").await;
    let story = record.story();
    let content = |at: usize| -> Vec<(String, String)> {
        let of_scene = |line: &&precedent_decisions::story::Line<'_>| {
            !line.detail && ["user", "answer", "→ calls", "result", "gave"].contains(&&*line.label)
        };
        story.scenes[at]
            .lines
            .iter()
            .filter(of_scene)
            .map(|l| (l.label.to_string(), l.text.to_string()))
            .collect()
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(content(0), [pair("user", "where?"), pair("→ calls", "find({\"n\":1})")]);
    assert_eq!(content(1), [pair("gave", "here")]);
    assert_eq!(content(2), [pair("result", "as at 1"), pair("answer", "there")]);
    // And the call itself holds all of it.
    let Content::Call { call, repeats } = &record.steps[2].content else { panic!() };
    assert_eq!(call.messages.as_ref().unwrap().len(), 3);
    assert_eq!(repeats.unwrap().messages, 2);
}

#[tokio::test]
async fn facts_that_lack_what_they_need_are_refused_by_name() {
    for (fact, lacks) in [
        (facts::decision("urn:s", "d"), "'decision'"),
        (facts::decision("urn:s", "").decided("x"), "id of the decision is empty"),
        (facts::overridden("urn:s", "1", "d").to("x"), "'person'"),
        (facts::overridden("urn:s", "1", "d").person("p").to(""), "'to'"),
        (facts::outcome("urn:s", "1", "d"), "a value"),
        (facts::feedback("urn:s", "1", "d").rater("r"), "'value' or 'text'"),
        (facts::decision("urn:s", "d").decided("x").score(f64::NAN), "'score'"),
        (facts::call("urn:s", "1", &json!({"messages": []})), "'response' or 'error'"),
        (facts::retrieval("urn:s", "1", "q"), "'documents'"),
    ] {
        let error = fact.build().unwrap_err();
        assert!(error.message().contains(lacks), "{error}");
    }
}
