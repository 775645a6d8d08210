//! Sends requests that are made already, over a few connections, and says how long the answers took. One sender for
//! every server, so that none is flattered.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ureq::Agent;

use super::calls::Batch;

/// Where requests go.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    pub(super) url: String,
    pub(super) headers: Vec<(&'static str, &'static str)>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sent {
    /// Of the requests that were answered with 200.
    pub(super) spans: usize,
    /// The first request began here,
    pub(super) began: Instant,
    /// and the last answer was read so much later.
    pub(super) took: Duration,
}

/// A client that keeps its connection, asks no proxy, and waits at most so long for an answer.
pub(super) fn client(patience: Duration) -> Agent {
    Agent::config_builder()
        .proxy(None)
        .http_status_as_error(false)
        .timeout_global(Some(patience))
        .max_idle_connections(1)
        .build()
        .into()
}

/// Sends the batches in their order, on each of `connections` the next one as soon as an answer has come. After `limit`
/// no other is begun. An answer that is not 200 ends it.
pub(super) fn send(
    endpoint: &Endpoint,
    batches: &[Batch],
    connections: usize,
    limit: Duration,
) -> Result<Sent, String> {
    let (next, spans, failed) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let errors = Mutex::new(Vec::new());
    let send_until_done = |client: Agent, began: Instant| {
        while !failed.load(Ordering::Relaxed) && began.elapsed() < limit {
            let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            match post(&client, endpoint, &batch.body) {
                Ok(()) => _ = spans.fetch_add(batch.spans, Ordering::Relaxed),
                Err(error) => {
                    failed.store(true, Ordering::Relaxed);
                    errors.lock().unwrap_or_else(|p| p.into_inner()).push(error);
                }
            }
        }
    };
    let clients: Vec<Agent> = (0..connections).map(|_| client(limit * 2)).collect();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for client in clients {
            let send_until_done = &send_until_done;
            scope.spawn(move || send_until_done(client, began));
        }
    });
    let took = began.elapsed();
    match errors.into_inner().unwrap_or_else(|p| p.into_inner()).into_iter().next() {
        Some(error) => Err(error),
        None => Ok(Sent { spans: spans.into_inner(), began, took }),
    }
}

/// One request, answered with 200 or an error.
fn post(client: &Agent, endpoint: &Endpoint, body: &[u8]) -> Result<(), String> {
    let failed = |e: ureq::Error| format!("POST {}: {e}", endpoint.url);
    let mut request = client.post(&endpoint.url).header("content-type", "application/x-protobuf");
    for (name, value) in &endpoint.headers {
        request = request.header(*name, *value);
    }
    let mut response = request.send(body).map_err(failed)?;
    // To its end, also because the connection is used again only then.
    let answer = response.body_mut().read_to_vec().map_err(failed)?;
    match response.status().as_u16() {
        200 => Ok(()),
        status => Err(format!(
            "POST {}: {status}: {}",
            endpoint.url,
            String::from_utf8_lossy(&answer[..answer.len().min(500)])
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::sync::Arc;

    use super::*;

    /// A server that answers each request with what `answer` makes of the number of those before it; how many
    /// connections it took, and the bodies it got.
    struct Counted {
        address: SocketAddr,
        connections: Arc<AtomicUsize>,
        bodies: Arc<Mutex<Vec<Vec<u8>>>>,
    }

    fn server(answer: fn(usize) -> u16) -> Counted {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let counted = Counted {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            bodies: Arc::default(),
        };
        let (connections, bodies) = (counted.connections.clone(), counted.bodies.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                connections.fetch_add(1, Ordering::Relaxed);
                let bodies = bodies.clone();
                std::thread::spawn(move || while serve(&stream, &bodies, answer).is_some() {});
            }
        });
        counted
    }

    fn serve(mut stream: &TcpStream, bodies: &Mutex<Vec<Vec<u8>>>, answer: fn(usize) -> u16) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let (mut length, mut marked, mut line) = (0, false, String::new());
        loop {
            line.clear();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let lower = line.trim().to_lowercase();
            match lower.split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap(),
                Some(("x-mark", "here")) => marked = true,
                _ if lower.is_empty() => break,
                _ => {}
            }
        }
        assert!(marked, "a header of the endpoint is missing");
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let before = {
            let mut bodies = bodies.lock().unwrap();
            bodies.push(body);
            bodies.len() - 1
        };
        let status = answer(before);
        write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: 4\r\n\r\nsaid").ok()
    }

    fn batches(count: usize) -> Vec<Batch> {
        (0..count).map(|at| Batch { spans: at + 1, body: vec![at as u8; 100_000] }).collect()
    }

    fn endpoint(counted: &Counted) -> Endpoint {
        Endpoint { url: format!("http://{}/v1/traces", counted.address), headers: vec![("x-mark", "here")] }
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn every_batch_is_sent_once_over_the_connections_there_are() {
        let counted = server(|_| 200);
        let batches = batches(20);
        let sent = send(&endpoint(&counted), &batches, 3, LONG).unwrap();
        assert_eq!(sent.spans, 210);
        let mut bodies = counted.bodies.lock().unwrap().clone();
        bodies.sort();
        assert!(bodies == batches.into_iter().map(|batch| batch.body).collect::<Vec<_>>());
        let connections = counted.connections.load(Ordering::Relaxed);
        assert!((1..=3).contains(&connections), "{connections} connections");
    }

    #[test]
    fn an_answer_other_than_200_ends_it_and_is_named() {
        let counted = server(|before| if before == 2 { 503 } else { 200 });
        let error = send(&endpoint(&counted), &batches(20), 1, LONG).unwrap_err();
        assert!(error.contains("503: said"), "{error}");
        assert_eq!(counted.bodies.lock().unwrap().len(), 3);
    }

    #[test]
    fn nothing_is_begun_when_the_time_is_over() {
        let counted = server(|_| 200);
        let sent = send(&endpoint(&counted), &batches(20), 2, Duration::ZERO).unwrap();
        assert_eq!(sent.spans, 0);
        assert!(counted.bodies.lock().unwrap().is_empty());
    }
}
