//! The real binary, killed with SIGKILL at random moments while clients append: every acknowledged event is
//! there afterwards, in its place, and no half batch.
//!
//! A kill cannot show a missing sync, since the page cache survives it: the engine's tests on a file system
//! that loses what was not synced do. `PRECEDENT_CRASH_ROUNDS` makes this one longer.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const CLIENTS: u64 = 6;

/// What a client was told: the batch, and the position of its first event.
struct Acknowledged {
    batch: String,
    events: u64,
    first: u64,
}

fn serve(store: &Path) -> (Child, String) {
    let mut server = Command::new(env!("CARGO_BIN_EXE_precedent"))
        .args(["--json", "serve", "--listen", "127.0.0.1:0", "--store"])
        .arg(format!("file:{}", store.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let mut line = String::new();
    BufReader::new(server.stdout.take().expect("its output is ours"))
        .read_line(&mut line)
        .expect("it says where");
    let said: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("'{line}': {e}"));
    let address = said["url"].as_str().expect("a URL").trim_start_matches("http://").to_owned();
    (server, address)
}

/// Sends a request and reads its whole answer; `None` once the server is gone.
fn post(connection: &mut TcpStream, body: &str) -> Option<(u16, serde_json::Value)> {
    let request = format!(
        "POST /v1/append HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let n = connection.read(&mut buffer).ok().filter(|n| *n > 0)?;
        answer.extend_from_slice(&buffer[..n]);
        let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
        let length: usize =
            head.lines().find_map(|l| l.strip_prefix("content-length:"))?.trim().parse().ok()?;
        if answer.len() >= end + 4 + length {
            let status = head.split(' ').nth(1)?.parse().ok()?;
            return Some((status, serde_json::from_slice(&answer[end + 4..]).ok()?));
        }
    }
}

/// Letters that do not repeat.
fn noise(seed: u64, len: usize) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + (state >> 59) as u8 % 26)
    };
    (0..len).map(|_| letter()).collect()
}

/// Appends batches until the server is gone; counts what was acknowledged.
fn client(address: &str, name: &str, count: &AtomicU64) -> Vec<Acknowledged> {
    let mut acknowledged = Vec::new();
    let Ok(mut connection) = TcpStream::connect(address) else { return acknowledged };
    connection.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout can be set");
    for number in 0..100_000 {
        let batch = format!("{name}.{number}");
        let size = 1 + number % 4;
        // Every eighth makes a frame that is written past the system's cache.
        let text = |i: u64| match number % 8 {
            7 => noise(number * 4 + i, 50_000),
            _ => "x".repeat((number as usize * 37 + i as usize * 500) % 3_000),
        };
        let event = |i: u64| {
            serde_json::json!({"id": format!("{batch}.{i}"), "source": "urn:kill", "type": "test.happened",
                "stream": name, "data": {"text": text(i)}})
        };
        let events: Vec<_> = (0..size).map(event).collect();
        let body = serde_json::json!({ "events": events }).to_string();
        match post(&mut connection, &body) {
            Some((200, answer)) => {
                let first = answer["events"][0]["position"].as_u64().expect("a position");
                acknowledged.push(Acknowledged { batch, events: size, first });
                count.fetch_add(1, Ordering::Relaxed);
            }
            Some((status, answer)) => panic!("status {status}: {answer}"),
            None => break,
        }
    }
    acknowledged
}

fn precedent(store: &Path, args: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_precedent"))
        .args(args)
        .arg("--store")
        .arg(format!("file:{}", store.display()))
        .output()
        .expect("the binary runs")
}

#[test]
fn every_acknowledged_event_survives_being_killed_and_no_batch_is_half_there() {
    let rounds: u64 = std::env::var("PRECEDENT_CRASH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    let dir = tempfile::tempdir().expect("a directory");
    let store = dir.path().join("store");
    let mut acknowledged = Vec::new();
    for round in 0..rounds {
        let (mut server, address) = serve(&store);
        let count = AtomicU64::new(0);
        // Killed after so many acknowledgements: a moment that does not depend on how fast the machine is.
        let enough = 1 + (seed ^ (round * 7_919)).wrapping_mul(0x9e37_79b9_7f4a_7c15) % 400;
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|c| {
                    let (address, count) = (&address, &count);
                    scope.spawn(move || client(address, &format!("r{round}c{c}"), count))
                })
                .collect();
            let deadline = std::time::Instant::now() + Duration::from_secs(30);
            while count.load(Ordering::Relaxed) < enough && std::time::Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            server.kill().expect("the server is ours to kill");
            server.wait().expect("it ends");
            for client in clients {
                acknowledged.extend(client.join().expect("a client that was told an error"));
            }
        });
        let verified = precedent(&store, &["verify"]);
        assert!(
            verified.status.success(),
            "round {round}, seed {seed}: {}",
            String::from_utf8_lossy(&verified.stdout)
        );
    }
    assert!(acknowledged.len() as u64 > rounds, "seed {seed}: hardly anything was acknowledged");

    let read = precedent(&store, &["--json", "read"]);
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let mut positions = HashMap::new();
    let mut batches: HashMap<String, u64> = HashMap::new();
    for (expected, line) in read.stdout.lines().enumerate() {
        let event: serde_json::Value = serde_json::from_str(&line.expect("text")).expect("an event");
        assert_eq!(event["position"], expected.to_string(), "seed {seed}: positions are dense");
        let id = event["id"].as_str().expect("an id").to_owned();
        *batches.entry(id.rsplit_once('.').expect("batch.index").0.to_owned()).or_default() += 1;
        positions.insert(id, expected as u64);
    }
    for told in &acknowledged {
        for i in 0..told.events {
            let id = format!("{}.{i}", told.batch);
            assert_eq!(positions.get(&id), Some(&(told.first + i)), "seed {seed}: acknowledged event {id}");
        }
    }
    for (batch, there) in batches {
        let number: u64 = batch.rsplit_once('.').and_then(|(_, n)| n.parse().ok()).expect("a number");
        assert_eq!(there, 1 + number % 4, "seed {seed}: batch {batch} is half there");
    }
}
