//! The recording proxy: what passes through is not changed, and what passed through is recorded, however it ended.
//!
//! The upstream of these tests is a listener that the test itself reads from and writes to, so that the borders of chunks are
//! where the test puts them. Recorded exchanges are not part of the repository; `PRECEDENT_SHARED_DATA` names their folder.

mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use precedent_capture::exchange;
use precedent_capture::view::{Dialect, Fidelity, Missing};
use precedent_core::*;
use serde_json::json;
use support::proxied::*;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_call_passes_unchanged_and_is_recorded_whole() {
    let proxied = proxied().await;
    let headers = [
        ("Authorization", "Bearer provider-secret"),
        ("X-Api-Key", "other-secret"),
        ("Precedent-Session", "s-1"),
        ("Precedent-Decision", "d-1"),
        ("Precedent-User", "u-77"),
        ("Precedent-Prompt", "greeting@3"),
        ("TE", "trailers"),
        ("X-Custom", "kept"),
    ];
    let path = "/proxy/up/v1/chat/completions?a=%2Fb&api_key=hush";
    let (received, reply) =
        proxied.play(path, &headers, ASKED, &head(ANSWER.len()), &[ANSWER.as_bytes()]).await;
    assert!(
        received.head.starts_with("POST /base/v1/chat/completions?a=%2Fb&api_key=hush HTTP/1.1\r\n"),
        "{}",
        received.head
    );
    assert_eq!(received.body, ASKED);
    let sent = received.head.to_ascii_lowercase();
    for (name, there) in [
        ("authorization: bearer provider-secret", true),
        ("x-api-key: other-secret", true),
        ("x-custom: kept", true),
        ("precedent-", false),
        ("te:", false),
        ("accept", false),
        ("user-agent", false),
    ] {
        assert_eq!(sent.contains(name), there, "{name} in {sent}");
    }
    assert_eq!((reply.status, reply.body.as_slice(), reply.complete), (200, ANSWER.as_bytes(), true));
    assert_eq!((reply.header("x-request-id"), reply.header("set-cookie")), (Some("r-1"), Some("a=b")));
    assert_eq!((reply.header("keep-alive"), reply.header("content-security-policy")), (None, None));

    let (events, call) = proxied.call().await;
    assert_eq!(
        events.iter().map(|e| e.event_type()).collect::<Vec<_>>(),
        ["ai.model.requested", "ai.model.called"]
    );
    for event in &events {
        let data = std::str::from_utf8(event.data().unwrap()).unwrap();
        for secret in ["provider-secret", "other-secret", "hush", "a=b"] {
            assert!(!data.contains(secret), "{secret} in {data}");
        }
        assert!(event.attribute("redactedby").is_some());
        assert_eq!((event.stream(), event.attribute("decisionid")), (Some("session/s-1"), Some("d-1")));
        assert_eq!(event.attribute("dataperson"), Some("u-77"));
        let tags: Vec<&str> = event.tags().iter().map(|t| t.as_str()).collect();
        assert_eq!(tags[..3], ["upstream=up", "model=gpt-4o-mini", "prompt=greeting@3"]);
    }
    assert_eq!(events[1].attribute("causationid"), Some(events[0].id()));
    assert_eq!(events[0].attribute("correlationid"), events[1].attribute("correlationid"));
    let read = |event: &Event| exchange::Read::event(event).unwrap().unwrap();
    assert_eq!(read(&events[0]).body, ASKED);
    assert_eq!(read(&events[1]).body, ANSWER.as_bytes());
    assert_eq!((read(&events[1]).status, read(&events[1]).complete), (Some(200), Some(true)));
    assert_eq!(
        (call.dialect, call.fidelity, &call.missing[..]),
        (Dialect::OpenAiHttp, Fidelity::Exact, &[][..])
    );
    assert_eq!(call.messages.as_ref().unwrap()[0].text().as_deref(), Some("Grüße"));
    assert_eq!((call.output_text().as_deref(), call.usage.total), (Some("Grüße"), Some(11)));
    assert!(
        call.times.started.is_some()
            && call.times.started <= call.times.first_output
            && call.times.first_output <= call.times.ended
    );
}

#[tokio::test]
async fn a_stream_passes_piece_by_piece_and_each_piece_is_recorded_with_its_time() {
    let proxied = proxied().await;
    let event = |text: &str| {
        format!(
            "data: {{\"id\":\"c\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"
        )
    };
    let body = event("Gr") + &event("ü") + &event("ße") + "data: [DONE]\n\n";
    // Borders within a character, and within an event.
    let within = body.find('ü').unwrap() + 1;
    let pieces = [&body.as_bytes()[..10], &body.as_bytes()[10..within], &body.as_bytes()[within..]];
    let (_, reply) = proxied.play("/proxy/up/v1/chat/completions", &[], ASKED, CHUNKED, &pieces).await;
    assert_eq!((reply.body.as_slice(), reply.complete), (body.as_bytes(), true));
    let (events, call) = proxied.call().await;
    let read = exchange::Read::event(&events[1]).unwrap().unwrap();
    assert_eq!(read.body, body.as_bytes());
    let lens: Vec<u64> = read.chunks.iter().map(|(_, len)| *len).collect();
    assert_eq!(lens, pieces.map(|piece| piece.len() as u64));
    assert!(read.chunks.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    assert_eq!(call.output_text().as_deref(), Some("Grüße"));
}

#[tokio::test]
async fn a_stream_that_is_cut_is_recorded_as_far_as_it_came() {
    for application_goes in [false, true] {
        let proxied = proxied().await;
        let piece = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hel\"}}]}\n\n";
        soon(async {
            let mut client = proxied.connect("/proxy/up/v1/chat/completions", &[], ASKED).await;
            let (mut upstream, _) = proxied.upstream.accept().await.unwrap();
            read_request(&mut upstream).await;
            upstream
                .write_all(format!("{CHUNKED}{:x}\r\n{piece}\r\n", piece.len()).as_bytes())
                .await
                .unwrap();
            read_until(&mut client, "Hel").await;
            if application_goes {
                drop(client);
                // The upstream is let go too: nobody pays for an answer that nobody hears.
                let mut rest = Vec::new();
                let _ = upstream.read_to_end(&mut rest).await;
            } else {
                drop(upstream);
                let mut rest = Vec::new();
                let _ = client.read_to_end(&mut rest).await;
                assert!(!rest.ends_with(b"0\r\n\r\n"), "an answer that is cut does not look whole");
            }
        })
        .await;
        let (events, call) = proxied.call().await;
        let read = exchange::Read::event(&events[1]).unwrap().unwrap();
        assert_eq!((read.complete, read.body.as_slice()), (Some(false), piece.as_bytes()));
        let why = read.error.unwrap();
        assert!(
            why.contains(if application_goes { "application went away" } else { "upstream broke" }),
            "{why}"
        );
        assert_eq!(
            (call.output_text().as_deref(), &call.missing[..]),
            (Some("Hel"), &[Missing::EndOfOutput][..])
        );
    }
}

#[tokio::test]
async fn an_upstream_that_stalls_resets_or_answers_garbage_is_a_problem_and_a_record() {
    for (answer, status, says) in [
        (&b""[..], 502, "cannot be asked"),
        (b"no such protocol\r\n\r\n", 502, "cannot be asked"),
        (b"HTTP/1.1 200 OK\r\n", 504, "did not begin to answer"),
    ] {
        let proxied =
            proxied_with(|config| config.limits.upstream_timeout = Duration::from_millis(300)).await;
        let reply = soon(async {
            let mut client = proxied.connect("/proxy/up/v1/chat/completions", &[], ASKED).await;
            let (mut upstream, _) = proxied.upstream.accept().await.unwrap();
            read_request(&mut upstream).await;
            upstream.write_all(answer).await.unwrap();
            let stalls = status == 504;
            let kept = stalls.then_some(upstream);
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.unwrap();
            drop(kept);
            Reply::parse(&got, true)
        })
        .await;
        assert_eq!(reply.status, status);
        assert!(reply.json()["detail"].as_str().unwrap().contains(says), "{}", reply.text());
        let (_, call) = proxied.call().await;
        assert!(call.error.unwrap().message.unwrap().contains(says));
        assert_eq!(call.output, None);
    }
    // Nobody listens there.
    let proxied = proxied().await;
    let address = proxied.upstream.local_addr().unwrap();
    let Proxied { store, address: at, upstream, _stop } = proxied;
    drop(upstream);
    let mut client = TcpStream::connect(at).await.unwrap();
    let request = Request::new("POST", "/proxy/up/v1/chat/completions").body(ASKED);
    let reply = soon(request.over(&mut client, &at.to_string())).await;
    reply.problem(502, "upstream_failed", &["'up'"]);
    let page = store.inner.read(&LogName::default(), &Read::default()).await.unwrap();
    assert_eq!(page.events.len(), 2, "{address}");
}

#[test]
fn a_process_that_ends_in_the_middle_of_a_call_ends() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (proxied, client) = runtime.block_on(async {
        let proxied = proxied().await;
        let mut client = proxied.connect("/proxy/up/v1/chat/completions", &[], ASKED).await;
        let (mut upstream, _) = proxied.upstream.accept().await.unwrap();
        read_request(&mut upstream).await;
        upstream.write_all(format!("{CHUNKED}1\r\nx\r\n").as_bytes()).await.unwrap();
        read_until(&mut client, "x\r\n").await;
        (proxied, (client, upstream))
    });
    // With the runtime goes the call, and whatever would have recorded its end.
    drop(runtime);
    drop((proxied, client));
}

#[tokio::test]
async fn a_stream_that_falls_silent_is_broken_off_and_recorded() {
    let proxied = proxied_with(|config| config.limits.upstream_timeout = Duration::from_millis(300)).await;
    soon(async {
        let mut client = proxied.connect("/proxy/up/v1/messages", &[], ASKED).await;
        let (mut upstream, _) = proxied.upstream.accept().await.unwrap();
        read_request(&mut upstream).await;
        upstream.write_all(format!("{CHUNKED}1\r\nx\r\n").as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest).await;
        assert!(!rest.ends_with(b"0\r\n\r\n"));
    })
    .await;
    let (events, _) = proxied.call().await;
    let read = exchange::Read::event(&events[1]).unwrap().unwrap();
    assert!(read.error.unwrap().contains("fell silent"));
}

#[tokio::test]
async fn fail_closed_holds_an_answer_until_its_request_is_durable() {
    let proxied = proxied().await;
    proxied.store.hold_appends();
    soon(async {
        let mut client = proxied.connect("/proxy/up/v1/chat/completions", &[], ASKED).await;
        let (mut upstream, _) = proxied.upstream.accept().await.unwrap();
        read_request(&mut upstream).await;
        upstream.write_all(format!("{}{ANSWER}", head(ANSWER.len())).as_bytes()).await.unwrap();
        let mut got = Vec::new();
        let begun = async {
            eventually("the append begins", async || {
                proxied.store.appends_begun.load(std::sync::atomic::Ordering::SeqCst) == 1
            })
            .await;
        };
        tokio::select! {
            _ = client.read_buf(&mut got) => panic!("an answer came before its request was durable"),
            () = begun => {}
        }
        proxied.store.let_through(1);
        // The head comes, and the end only with the record of the answer.
        read_until(&mut client, "\r\n\r\n").await;
        assert_eq!(proxied.events().await.len(), 1);
        proxied.store.let_through(10);
        client.read_to_end(&mut got).await.unwrap();
        assert!(got.ends_with(b"}}"));
    })
    .await;
    assert_eq!(proxied.events().await.len(), 2);
}

#[tokio::test]
async fn without_a_record_fail_closed_gives_no_answer_and_fail_open_leaves_a_gap() {
    for fail_closed in [true, false] {
        let proxied = proxied_with(|config| config.capture.fail_closed = fail_closed).await;
        *proxied.store.failing.lock().unwrap() = Some(Error::new(ErrorKind::Full, "no space is left"));
        let reply = soon(async {
            let mut client = proxied.connect("/proxy/up/v1/chat/completions", &[], ASKED).await;
            let (mut upstream, _) = proxied.upstream.accept().await.unwrap();
            read_request(&mut upstream).await;
            let _ = upstream.write_all(format!("{}{ANSWER}", head(ANSWER.len())).as_bytes()).await;
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.unwrap();
            Reply::parse(&got, true)
        })
        .await;
        if fail_closed {
            reply.problem(503, "not_recorded", &["no space is left"]);
            continue;
        }
        assert_eq!((reply.status, reply.body.as_slice()), (200, ANSWER.as_bytes()));
        eventually("the failure is noticed", async || {
            let mut client = TcpStream::connect(proxied.address).await.unwrap();
            let reply = Request::new("GET", "/metrics").over(&mut client, &proxied.address.to_string()).await;
            reply.text().contains("precedent_capture_gaps_waiting 1")
        })
        .await;
        *proxied.store.failing.lock().unwrap() = None;
        let (_, reply) = proxied
            .play("/proxy/up/v1/chat/completions", &[], ASKED, &head(ANSWER.len()), &[ANSWER.as_bytes()])
            .await;
        assert_eq!(reply.status, 200);
        eventually("the gap is recorded", async || {
            proxied.events().await.iter().any(|event| {
                event.event_type() == "ai.capture.gap_detected"
                    && String::from_utf8_lossy(event.data().unwrap()).contains("recording_failed")
            })
        })
        .await;
    }
}

#[tokio::test]
async fn a_token_goes_beside_the_providers_key_and_unknown_upstreams_are_named() {
    let proxied = proxied_with(|config| config.token = Some("ours".to_owned())).await;
    let refused = |path: &'static str, headers: &'static [(&str, &str)]| {
        let proxied = &proxied;
        async move {
            soon(async {
                let mut client = proxied.connect(path, headers, ASKED).await;
                let mut got = Vec::new();
                client.read_to_end(&mut got).await.unwrap();
                Reply::parse(&got, true)
            })
            .await
        }
    };
    let provider = &[("Authorization", "Bearer provider")];
    refused("/proxy/up/v1/x", provider).await.problem(401, "unauthorized", &["Precedent-Token"]);
    refused("/proxy/other/v1/x", &[("Precedent-Token", "ours")]).await.problem(
        404,
        "not_found",
        &["other", "up"],
    );
    let headers = [("Authorization", "Bearer provider"), ("Precedent-Token", "ours")];
    let (received, reply) = proxied
        .play("/proxy/up/v1/chat/completions", &headers, ASKED, &head(ANSWER.len()), &[ANSWER.as_bytes()])
        .await;
    assert_eq!(reply.status, 200);
    assert!(received.head.contains("Bearer provider") && !received.head.contains("ours"));
}

/// A recorded exchange of a real provider.
struct Exchange {
    name: String,
    path: String,
    request: String,
    answer: String,
    status: u16,
}

/// The exchanges that were recorded, or nothing, and then it says so.
fn exchanges() -> Vec<Exchange> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let data = std::env::var_os("PRECEDENT_SHARED_DATA").map_or(beside, PathBuf::from).join("provider-http");
    let mut exchanges = Vec::new();
    for provider in ["openai", "anthropic"] {
        let Ok(files) = std::fs::read_dir(data.join(provider)) else {
            eprintln!(
                "skipped: {} is not there; PRECEDENT_SHARED_DATA names the folder of the data",
                data.display()
            );
            return Vec::new();
        };
        let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            for part in text
                .split("\n- request:")
                .flat_map(|part| part.split("interactions:\n- request:"))
                .filter(|p| p.contains("uri:"))
            {
                let uri = part.lines().find_map(|line| line.trim().strip_prefix("uri: ")).unwrap();
                exchanges.push(Exchange {
                    name: file.file_stem().unwrap().to_string_lossy().into_owned(),
                    path: uri.splitn(4, '/').nth(3).unwrap().to_owned(),
                    request: quoted(part, "    body: "),
                    answer: quoted(part, "      string: "),
                    status: part
                        .lines()
                        .find_map(|line| line.trim().strip_prefix("code: "))
                        .unwrap()
                        .parse()
                        .unwrap(),
                });
            }
        }
    }
    exchanges
}

/// The value of a member that is a quoted YAML string, folded over lines.
fn quoted(text: &str, member: &str) -> String {
    let start = text.find(member).unwrap() + member.len();
    let quote = text.as_bytes()[start] as char;
    let rest = &text[start + 1..];
    // One line break is a space, and one more is a line break; around them blanks do not count.
    let mut out = String::new();
    let mut chars = rest.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' if quote == '\'' => match chars.peek() {
                Some('\'') => out.extend(chars.next()),
                _ => return out,
            },
            '"' if quote == '"' => return out,
            '\\' if quote == '"' => match chars.next().unwrap() {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                '\n' => {
                    while chars.peek() == Some(&' ') {
                        chars.next();
                    }
                }
                code @ ('u' | 'x' | 'U') => {
                    let len = match code {
                        'x' => 2,
                        'u' => 4,
                        _ => 8,
                    };
                    let hex: String = chars.by_ref().take(len).collect();
                    out.push(char::from_u32(u32::from_str_radix(&hex, 16).unwrap()).unwrap());
                }
                other => out.push(other),
            },
            '\n' => {
                while out.ends_with(' ') {
                    out.pop();
                }
                let mut breaks = 0;
                while let Some(&next) = chars.peek() {
                    match next {
                        '\n' => breaks += 1,
                        ' ' => {}
                        _ => break,
                    }
                    chars.next();
                }
                match breaks {
                    0 => out.push(' '),
                    n => out.extend(std::iter::repeat_n('\n', n)),
                }
            }
            other => out.push(other),
        }
    }
    panic!("the string does not end")
}

#[tokio::test]
async fn recorded_exchanges_of_providers_pass_byte_for_byte_and_are_understood() {
    let exchanges = exchanges();
    let mut seed = 7u64;
    let mut random = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize % below.max(1)
    };
    for (at, exchange) in exchanges.iter().enumerate() {
        let name = &exchange.name;
        let streamed = exchange.answer.starts_with("event:") || exchange.answer.starts_with("data:");
        // Every third answer is compressed, as providers do when they are allowed to.
        let compressed = at % 3 == 2;
        let body = match compressed {
            true => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(exchange.answer.as_bytes()).unwrap();
                encoder.finish().unwrap()
            }
            false => exchange.answer.clone().into_bytes(),
        };
        let coding = if compressed { "content-encoding: gzip\r\n" } else { "" };
        let media_type = if streamed { "text/event-stream" } else { "application/json" };
        let head = format!(
            "HTTP/1.1 {} Said\r\ncontent-type: {media_type}\r\n{coding}transfer-encoding: chunked\r\n\r\n",
            exchange.status
        );
        let mut pieces: Vec<&[u8]> = Vec::new();
        let mut rest = &body[..];
        while !rest.is_empty() {
            let len = (1 + random(rest.len().min(900))).max(rest.len() / 20).min(rest.len());
            let (piece, more) = rest.split_at(len);
            pieces.push(piece);
            rest = more;
        }
        let proxied = proxied().await;
        let path = format!("/proxy/up/{}", exchange.path);
        let (received, reply) = proxied.play(&path, &[], exchange.request.as_bytes(), &head, &pieces).await;
        assert_eq!(received.body, exchange.request.as_bytes(), "{name}");
        assert_eq!(
            (reply.status, reply.body.as_slice(), reply.complete),
            (exchange.status, body.as_slice(), true),
            "{name}"
        );
        let (events, call) = proxied.call().await;
        let read = |event: &Event| exchange::Read::event(event).unwrap().unwrap();
        assert_eq!(read(&events[0]).body, exchange.request.as_bytes(), "{name}");
        let answer = read(&events[1]);
        assert_eq!(answer.body, body, "{name}");
        let lens: Vec<u64> = answer.chunks.iter().map(|(_, len)| *len).collect();
        assert_eq!(
            lens,
            pieces.iter().map(|piece| piece.len() as u64).collect::<Vec<_>>(),
            "{name}: chunk by chunk"
        );
        assert_eq!(answer.text().as_deref(), Some(exchange.answer.as_str()), "{name}");

        let expected =
            if name.starts_with("test_anthropic") { Dialect::AnthropicHttp } else { Dialect::OpenAiHttp };
        assert_eq!((call.dialect, call.fidelity), (expected, Fidelity::Exact), "{name}");
        assert!(call.messages.as_ref().is_some_and(|m| !m.is_empty()), "{name}");
        if exchange.status >= 400 {
            let error = call.error.expect("a refusal is an error");
            assert!(error.kind.is_some() && error.message.is_some(), "{name}: {error:?}");
            continue;
        }
        assert!(
            call.output.as_ref().is_some_and(|o| o.iter().all(|m| !m.parts.is_empty())),
            "{name}: {:?}",
            call.output
        );
        assert!(call.model_requested.is_some() && call.model_served.is_some(), "{name}");
        assert!(call.finish_reasons.is_some(), "{name}");
        assert_eq!(call.missing, [], "{name}");
        assert_eq!(call.notes, [""; 0], "{name}");
        assert_eq!(call.streamed.unwrap_or(false), streamed, "{name}");
        // What a decoder of another make finds in the last part of the body.
        if !streamed {
            let whole: serde_json::Value = serde_json::from_str(&exchange.answer).unwrap();
            let count = |name: &str| whole["usage"][name].as_u64();
            assert_eq!(call.usage.input, count("input_tokens").or(count("prompt_tokens")), "{name}");
            assert_eq!(call.usage.output, count("output_tokens").or(count("completion_tokens")), "{name}");
            assert_eq!(json!(call.response_id), whole["id"], "{name}");
        } else if !name.contains("completions") {
            assert!(call.usage.output.is_some(), "{name}");
        }
    }
    println!("{} exchanges", exchanges.len());
}
