//! The page: what was recorded is text in it, a token is asked for and never given away, and a browser sees what comes live.
//!
//! The browser is Chromium; without it its tests say so and count as skipped. They leave pictures in `target/screenshots`, to be looked at.

mod support;

use std::sync::atomic::Ordering;

use serde_json::json;
use support::browser::{Browser, Look, NARROW, WIDE};
use support::{Request, Served, config, eventually, serve, serve_with};
use tokio::task::block_in_place;

const HOSTILE: &str = "<script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\"> \u{202e}evil \u{1b}[31m";

async fn hostile(served: &Served) {
    let event = |id: &str, kind: &str, data: serde_json::Value| json!({"id": id, "source": "urn:t", "type": kind, "stream": "<b>s</b>", "decisionid": "d<i>", "data": data});
    let events = json!({"events": [
        event("1", "ai.input.received", json!({"message": {"role": "user", "content": HOSTILE}})),
        event("2", "ai.decision.made", json!({"decision": HOSTILE, "reason": "r"})),
        event("3", "ai.tool.called", json!({"name": "find", "result": "w ".repeat(1 << 20)})),
        event("4", "ai.decision.overridden", json!({"from": "a", "to": "b", "person": "p", "reason": "later"})),
    ]});
    assert_eq!(served.append(events).await.status, 200);
}

#[tokio::test]
async fn recorded_text_is_text_in_every_page() {
    let served = serve().await;
    hostile(&served).await;
    for path in [
        "/",
        "/decisions",
        "/show?of=d%3Ci%3E",
        "/show?of=1&at=3",
        "/show?of=d%3Ci%3E&whole=1.0",
        "/?type=%3Cimg%3E",
    ] {
        let reply = served.get(path).await;
        assert_eq!(
            (reply.status, reply.header("content-type")),
            (200, Some("text/html; charset=utf-8")),
            "{path}"
        );
        let policy = reply.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        let html = reply.text().to_owned();
        let main = html.split("<main").nth(1).unwrap().split("</main>").next().unwrap();
        for bad in ["<script", "<img", "<b>s", "d<i>", "\u{202e}", "\u{1b}"] {
            assert!(!main.contains(bad), "{path}: {bad}");
        }
    }
    let shown = served.get("/show?of=d%3Ci%3E").await.text().to_owned();
    assert!(shown.contains("\\u{202e}") && shown.contains("all of it, ") && shown.len() < 200_000);
    let then = served.get("/show?of=d%3Ci%3E&at=2").await.text().to_owned();
    assert!(!then.contains("a → b") && !then.contains("when overridden"), "nothing later than position 2");
    assert_eq!(served.get("/show?of=nobody").await.status, 404);
    assert_eq!(served.get("/show?of=d&at=yesterday").await.status, 400);
    let one = served.get("/v1/decisions/d%3Ci%3E?at=1").await.json();
    assert_eq!((one["steps"].as_array().unwrap().len(), &one["as_of"]["position"]), (2, &json!(1)));
    let list = served.get("/v1/decisions").await.json();
    assert_eq!(
        (list["decisions"].as_array().unwrap().len(), &list["decisions"][0]["position"]),
        (1, &json!(1))
    );
}

#[tokio::test]
async fn from_a_later_event_a_page_leads_to_how_its_decision_was_made() {
    let served = serve().await;
    hostile(&served).await;
    let html = served.get("/show?of=3&as=position").await.text().to_owned();
    let links = html.split("<a href=\"").skip(1).filter_map(|link| link.split_once("\">when "));
    let links: Vec<String> = links.map(|(href, _)| href.replace("&amp;", "&")).collect();
    assert_eq!(links.len(), 2, "when decided, and when overridden: {links:?}");
    for link in links {
        assert_eq!(served.get(&link).await.status, 200, "{link}");
    }
}

#[tokio::test]
async fn without_the_token_a_page_is_a_form_and_nothing_of_the_log() {
    let mut config = config();
    config.token = Some("s3cret-token".into());
    let served = serve_with(config).await;
    for path in ["/", "/decisions", "/show?of=1"] {
        let reply = served.get(path).await;
        assert_eq!(reply.status, 401);
        assert!(reply.text().contains("id=sign") && !reply.text().contains("s3cret"), "{path}");
        let with = Request::new("GET", path).header("Authorization", "Bearer s3cret-token");
        let reply = served.send(with).await;
        assert!(
            reply.status != 401 && !reply.text().contains("s3cret") && reply.header("set-cookie").is_none()
        );
    }
    assert_eq!(served.get("/v1/decisions").await.header("content-type"), Some("application/problem+json"));
}

/// A browser, with room for it beside the server.
fn browser() -> Option<Browser> {
    block_in_place(Browser::start)
}

/// What no page may do: be wider than its window, or let anything recorded become an element.
fn is_well(browser: &mut Browser, where_it_is: &str) {
    let (width, window) = (
        browser.value_of("document.documentElement.scrollWidth").unwrap().as_u64().unwrap(),
        browser.value_of("innerWidth").unwrap().as_u64().unwrap(),
    );
    assert!(width <= window, "{where_it_is} is {width} wide in a window of {window}");
    assert_eq!(
        browser
            .value_of("document.querySelectorAll('main img,main script,main iframe,main i').length")
            .unwrap(),
        0
    );
    assert!(!browser.text_of("document.title").contains("pwned"), "{where_it_is}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_runs_nothing_that_was_recorded() {
    let served = serve().await;
    hostile(&served).await;
    let Some(mut browser) = browser() else { return };
    block_in_place(|| {
        for (name, look) in [("wide", WIDE), ("narrow", NARROW)] {
            browser.look(look);
            for (page, path) in [
                ("timeline", "/"),
                ("decisions", "/decisions"),
                ("show", "/show?of=d%3Ci%3E"),
                ("whole", "/show?of=d%3Ci%3E&whole=1.0"),
            ] {
                browser.open(&format!("{}{path}", served.url));
                is_well(&mut browser, path);
                browser.screenshot(&format!("hostile-{page}-{name}"));
            }
        }
        browser.open(&format!("{}/show?of=d%3Ci%3E", served.url));
        assert!(browser.text_of("document.title").starts_with("decision d<i>"));
        assert!(
            browser.text_of("document.getElementById('p2').innerText").contains("find"),
            "a place for each step"
        );
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_sees_what_comes_while_it_looks() {
    let served = serve().await;
    served.fill(3).await;
    let Some(mut browser) = browser() else { return };
    block_in_place(|| {
        browser.open(&format!("{}/", served.url));
        browser.wait_for("document.querySelectorAll('#timeline li').length === 3");
        browser.screenshot("live-before");
    });
    eventually("the page follows", async || served.store.waiting.load(Ordering::SeqCst) > 0).await;
    for n in 0..4 {
        let event = json!({"id": format!("live-{n}"), "source": "urn:t", "type": "ai.decision.made", "stream": "application/7",
            "decisionid": "d", "data": {"decision": "approve", "score": n}});
        served.append(json!({"events": [event]})).await;
        // Each shows up without anything being asked of the page, the newest first, and what is focused stays so.
        block_in_place(|| {
            browser.wait_for(&format!("document.querySelectorAll('#timeline li').length === {}", 4 + n));
            browser.wait_for(&format!(
                "document.querySelector('#timeline li').dataset.position === '{}'",
                3 + n
            ));
            browser.wait_for(&format!(
                "document.getElementById('facts').innerText.includes('events {}')",
                4 + n
            ));
            if n == 1 {
                browser.press("j");
                browser.press("j");
            }
            if n > 1 {
                browser.wait_for("document.activeElement.closest('li').dataset.position === '3'");
            }
        });
    }
    block_in_place(|| {
        browser.screenshot("live-after");
        browser.look(NARROW);
        browser.screenshot("live-after-narrow");
        is_well(&mut browser, "the timeline");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_log_says_so_and_shows_its_first_event() {
    let served = serve().await;
    let Some(mut browser) = browser() else { return };
    block_in_place(|| {
        for (name, look) in [("wide", WIDE), ("narrow", NARROW)] {
            browser.look(look);
            for (page, path) in
                [("decisions", "/decisions"), ("nothing", "/show?of=nobody"), ("timeline", "/")]
            {
                browser.open(&format!("{}{path}", served.url));
                is_well(&mut browser, path);
                browser.screenshot(&format!("empty-{page}-{name}"));
            }
        }
        assert!(
            browser
                .text_of("document.getElementById('empty').innerText")
                .contains("Nothing has been recorded yet")
        );
    });
    served.fill(1).await;
    block_in_place(|| {
        browser.wait_for("document.querySelectorAll('#timeline li').length === 1");
        browser.wait_for("!document.getElementById('empty')");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_signs_in_with_the_token_and_keeps_it_to_its_tab() {
    let mut config = config();
    config.token = Some("s3cret-token".into());
    let served = serve_with(config).await;
    let body = json!({"events": [{"id": "1", "source": "urn:t", "type": "ai.decision.made", "decisionid": "d",
        "data": {"decision": "approve"}}]});
    let request = Request::new("POST", "/v1/append").header("Authorization", "Bearer s3cret-token");
    let request = request.header("Content-Type", "application/json").body(body.to_string());
    assert_eq!(served.send(request).await.status, 200);
    let Some(mut browser) = browser() else { return };
    let url = &served.url;
    block_in_place(|| {
        browser.open(&format!("{url}/show?of=d"));
        browser.wait_for("document.activeElement.name === 'token'");
        browser.screenshot("token-form");
        browser.look(NARROW);
        browser.screenshot("token-form-narrow");
        browser.look(WIDE);
        // The wrong one is said to be wrong, and forgotten.
        browser.types("wrong");
        browser.press("Enter");
        browser.wait_for("document.getElementById('said').innerText.includes('not the right one')");
        assert_eq!(browser.value_of("sessionStorage.length").unwrap(), 0);
        browser.screenshot("token-wrong");
        // The right one opens what was asked for.
        browser.wait_for("document.activeElement.name === 'token'");
        browser.types("s3cret-token");
        browser.press("Enter");
        browser.wait_for("!!document.getElementById('p0')");
        assert_eq!(browser.text_of("location.href"), format!("{url}/show?of=d"));
        // By keyboard to the timeline, which is live with the token too.
        browser.press("t");
        browser
            .wait_for("location.pathname === '/' && document.querySelectorAll('#timeline li').length === 1");
        browser.wait_for("document.querySelector('.live').innerText === 'live'");
        // And to the decision, and back.
        browser.press("j");
        browser.press("Enter");
        browser.wait_for("location.pathname === '/show' && !!document.getElementById('p0')");
        browser.value_of("history.back()").unwrap();
        browser.wait_for("location.pathname === '/' && !!document.getElementById('timeline')");
        // It is in no address, no cookie, and nothing the page says.
        assert_eq!(browser.text_of("document.cookie"), "");
        for place in ["location.href", "document.documentElement.outerHTML", "JSON.stringify(localStorage)"] {
            assert!(!browser.text_of(place).contains("s3cret"), "{place}");
        }
        // A page that is loaded anew still has it.
        browser.open(&format!("{url}/decisions"));
        browser.wait_for("document.querySelectorAll('ol.rows li').length === 1");
    });
}

/// A run as agents have them: long instructions, long results, several overrides, and names that are too long.
async fn a_long_run(served: &Served) {
    let paragraph = "The applicant asks for 12,000 over 36 months; the policy wants a bureau score of at least 580, proof of income of the last \
        three months, and no arrears in the last two years. ";
    let long = paragraph.repeat(60);
    let event = |id: &str, kind: &str, data: serde_json::Value| {
        json!({"id": id, "source": "https://loans.example/agents/underwriting", "type": kind, "stream": "application/7c1f", "decisionid": "loan-7c1f",
            "tags": ["model=risk-7", "region=north"], "data": data})
    };
    let system = json!({"role": "system", "content": long});
    let user =
        json!({"role": "user", "content": "Application for 12,000 over 36 months, income 3,400 a month"});
    let asks = json!({"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function", "function":
        {"name": "bureau_score", "arguments": json!({"id": "A-7731", "reason": paragraph}).to_string()}}]});
    let result = json!({"role": "tool", "tool_call_id": "c1", "content": json!({"score": 548, "history": vec![paragraph; 12]}).to_string()});
    let answer = json!({"role": "assistant", "content": "Decline: the bureau score of 548 is below 580."});
    let call = |messages: serde_json::Value, response: &serde_json::Value| {
        json!({"request": {"model": "gpt-4o-2024-08-06", "temperature": 0, "messages": messages,
            "tools": [{"type": "function", "function": {"name": "bureau_score", "parameters": {"type": "object"}}}]},
            "response": response, "usage": {"input": 812, "output": 21}})
    };
    let over = |to: &str| json!({"from": "decline", "to": to, "person": "officer-12", "reason": paragraph});
    let wide = "a_name_without_any_blank_".repeat(12);
    let events = json!({"events": [
        {"id": "m", "source": "urn:ops", "type": "ai.model.deployed", "data": {"model": "risk", "version": "7", "environment": "production"}},
        event("1", "ai.input.received", json!({"message": user})),
        event("2", "ai.model.called", call(json!([system, user]), &asks)),
        event("3", "ai.tool.called", json!({"call": asks["tool_calls"][0], "result": result})),
        event("4", "ai.model.called", call(json!([system, user, asks, result]), &answer)),
        event("5", "ai.decision.made", json!({"decision": "decline", "score": 0.31, "threshold": 0.5, "model": "risk",
            "reason": "bureau score 548, policy asks for 580", "features": {"income": 3400, "amount": 12000.50, wide.as_str(): wide}})),
        event("6", "ai.decision.overridden", over("approve")),
        event("7", "ai.decision.overridden", over("decline")),
        event("8", "ai.feedback.received", json!({"text": "unfair", "rater": "customer"})),
        event("9", "ai.outcome.observed", json!({"outcome": "repaid in full", "label": 1})),
        {"id": "w", "source": "urn:t", "type": format!("custom.{wide}"), "stream": format!("stream/{wide}"), "decisionid": wide,
            "data": {"text": wide}},
    ]});
    assert_eq!(served.append(events).await.status, 200);
    for n in 0..60 {
        let event = json!({"id": format!("n{n}"), "source": "urn:t", "type": "ai.decision.made", "stream": format!("application/{n}"),
            "decisionid": format!("loan-{n}"), "data": {"decision": "approve", "score": f64::from(n) / 60.0, "model": "risk"}});
        served.append(json!({"events": [event]})).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_fits_its_window_by_day_and_by_night() {
    let served = serve().await;
    a_long_run(&served).await;
    let Some(mut browser) = browser() else { return };
    let looks = [
        ("wide", WIDE),
        ("narrow", NARROW),
        ("wide-dark", Look { dark: true, ..WIDE }),
        ("narrow-dark", Look { dark: true, ..NARROW }),
    ];
    block_in_place(|| {
        for (name, look) in looks {
            browser.look(look);
            for (page, path) in [
                ("timeline", "/"),
                ("earlier", "/?before=12"),
                ("decisions", "/decisions"),
                ("show", "/show?of=loan-7c1f"),
                ("show-then", "/show?of=loan-7c1f&at=6"),
                ("show-whole", "/show?of=loan-7c1f&whole=2.2"),
                ("show-wide", "/show?of=10"),
                ("trouble", "/show?of=1&at=yesterday"),
            ] {
                browser.open(&format!("{}{path}", served.url));
                is_well(&mut browser, path);
                browser.screenshot(&format!("{page}-{name}"));
            }
        }
        // Everything can be reached with the keyboard: the search, the steps one by one, and back.
        browser.look(WIDE);
        browser.open(&format!("{}/decisions", served.url));
        browser.press("/");
        browser.wait_for("document.activeElement.id === 'of'");
        browser.types("loan-7c1f");
        browser.press("Enter");
        browser.wait_for("location.pathname === '/show' && !!document.getElementById('p6')");
        browser.press("j");
        browser.press("j");
        browser.wait_for("document.activeElement.id === 'p2'");
        browser.screenshot("show-focused");
        browser.press("k");
        browser.wait_for("document.activeElement.id === 'p1'");
        browser.press("d");
        browser.wait_for("location.pathname === '/decisions'");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_ten_megabytes_is_a_page_like_any_other() {
    let served = serve().await;
    let text = "ten megabytes of words ".repeat((10 << 20) / 23);
    let events = json!({"events": [
        {"id": "1", "source": "urn:t", "type": "ai.input.received", "decisionid": "large", "data": {"message": {"role": "user", "content": text}}},
        {"id": "2", "source": "urn:t", "type": "ai.decision.made", "decisionid": "large", "data": {"decision": "x"}},
    ]});
    assert_eq!(served.append(events).await.status, 200);
    for path in ["/", "/decisions", "/show?of=large"] {
        let reply = served.get(path).await;
        assert!(reply.status == 200 && reply.body.len() < 100_000, "{path}: {} bytes", reply.body.len());
    }
    let Some(mut browser) = browser() else { return };
    block_in_place(|| {
        for (name, look) in [("wide", WIDE), ("narrow", NARROW)] {
            browser.look(look);
            for (page, path) in [("timeline", "/"), ("show", "/show?of=large")] {
                browser.open(&format!("{}{path}", served.url));
                is_well(&mut browser, path);
                browser.screenshot(&format!("large-{page}-{name}"));
            }
        }
        // All of it is one link away.
        browser.value_of("document.querySelector('.cut a').click()").unwrap();
        browser.wait_for("document.querySelector('pre.t') && document.querySelector('pre.t').textContent.length > 10000000");
    });
}
