//! A server and the commands beside it; pipes that close; interrupts.
#![cfg(unix)]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use common::{Place, Running, within};

/// Starts a server on a free port; answers its URL.
fn serve(place: &Place, arguments: &[&str], token: Option<&str>) -> (Running, String) {
    serve_on("127.0.0.1:0", place, arguments, token)
}

fn serve_on(address: &str, place: &Place, arguments: &[&str], token: Option<&str>) -> (Running, String) {
    let mut command = place.command(["serve", "--listen", address]);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::null());
    if let Some(token) = token {
        command.env("PRECEDENT_TOKEN", token);
    }
    let mut server = Running(command.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("listening on ").expect("it says where it listens").to_owned();
    assert!(!url.ends_with(":0"), "{url}");
    (server, url)
}

/// An address that nobody else takes while a server is down for a moment: systems give out higher ports where any will do.
fn lasting_address() -> String {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let mine = std::process::id() + ASKED.fetch_add(1, Ordering::Relaxed);
    let free = |port: &u32| std::net::TcpListener::bind(("127.0.0.1", *port as u16)).is_ok();
    let port = (0..100).map(|n| 20_000 + (mine + n * 97) % 10_000).find(free);
    format!("127.0.0.1:{}", port.expect("a free port"))
}

#[test]
fn beside_a_server_every_command_asks_it_and_it_ends_in_order() {
    let place = Place::new();
    let (mut server, url) = serve(&place, &[], None);
    place.run("append --type t --stream q").ends(0);
    place.run(&format!("append --type t --stream q --store {url}")).ends(0);
    assert_eq!(place.run("head --json").ends(0).json()["size"], 2);
    assert_eq!(place.run(&format!("head --json --store {url}")).ends(0).json()["size"], 2);
    assert_eq!(
        place.run(&format!("read --json --store {url}")).ends(0).out(),
        place.run("read --json").ends(0).out()
    );
    place.run(&format!("verify --store {url}")).ends(0);
    place.run("verify").ends(0);
    place.run("doctor").ends(0);
    place.run("demo --dir precedent-data").ends(0);
    place.run(&format!("copy --from {url} --to ./copy")).ends(0);
    let root =
        |store: &str| place.run(&format!("head --json --store {store}")).ends(0).json()["root"].clone();
    assert_eq!(root("./copy"), root(&url));
    // A second owner is turned away, and told whose it is.
    let pid = server.0.id().to_string();
    place.run("serve --listen 127.0.0.1:0").ends(2).says(&pid).says(&url);
    server.interrupt();
    assert_eq!(server.end(), 0);
    assert_eq!(place.run("head --json").ends(0).json()["size"], 12);
    place.run(&format!("head --store {url}")).ends(2);
}

#[test]
fn a_server_does_not_pretend_to_serve_one_log() {
    let place = Place::new();
    place
        .run("serve --listen 127.0.0.1:0 --store file:./logs?log=other")
        .ends(2)
        .says("'log=other'")
        .says("serves every log");
    assert!(!place.path().join("logs").exists(), "nothing is made for it");
}

#[test]
fn a_server_with_a_token_answers_nobody_without_it() {
    let place = Place::new();
    place.run("append --type t").ends(0);
    let (_server, url) = serve(&place, &[], Some("secret-1"));
    place.run(&format!("head --store {url}")).ends(2).says("PRECEDENT_TOKEN");
    let with = |token: &str, line: &str| {
        place.command(line.split_whitespace()).env("PRECEDENT_TOKEN", token).output().unwrap().status.code()
    };
    assert_eq!(with("secret-1", &format!("head --store {url}")), Some(0));
    assert_eq!(with("wrong", &format!("head --store {url}")), Some(2));
    // Whoever may read the files may read the log; writing goes through the server, which wants the token.
    place.run("read").ends(0);
    place.run("append --type t").ends(2).says("token");
    assert_eq!(with("secret-1", "append --type t"), Some(0));
}

#[test]
fn what_is_not_safe_to_serve_is_refused() {
    let place = Place::new();
    place.run("serve --listen 0.0.0.0:0").ends(2).says("token");
    place.run("serve --listen nowhere").ends(2).says("nowhere");
    place.run("serve --tls-cert a.pem").ends(2).says("--tls-key");
    place.run("serve --listen 127.0.0.1:0 --tls-cert a.pem --tls-key b.pem").ends(2).says("a.pem");
    place.run("serve --store http://127.0.0.1:1").ends(2).says("server already");
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap();
    place.run(&format!("serve --listen {taken}")).ends(2).says(&taken.to_string());
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "nothing of this makes a store");
}

#[test]
fn a_certificate_for_another_name_is_named_and_the_files_are_still_read() {
    let place = Place::new();
    place.run("append --type t").ends(0);
    let key = rcgen::generate_simple_self_signed(vec!["log.example".to_owned()]).unwrap();
    place.write("cert.pem", key.cert.pem());
    place.write("key.pem", key.signing_key.serialize_pem());
    let tls = ["--tls-cert", "cert.pem", "--tls-key", "key.pem", "--host", "log.example"];
    let (_server, url) = serve(&place, &tls, None);
    let said = place.run("append --type t").ends(2).says(&url).says("127.0.0.1").err();
    assert!(said.contains("certificate") && said.contains("--store https://NAME"), "{said}");
    place.run("read").ends(0);
    assert_eq!(place.run("head --json").ends(0).json()["size"], 1);
}

#[test]
fn following_goes_on_where_it_was_when_the_server_comes_back() {
    let place = Place::new();
    place.run("append --type t --id one").ends(0);
    let (mut server, url) = serve_on(&lasting_address(), &place, &[], None);
    let mut command = place.command(["read", "--follow", "--json", "--limit", "3", "--store", &url]);
    let mut follower = Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(follower.0.stdout.take().unwrap()).lines();
    let mut said = BufReader::new(follower.0.stderr.take().unwrap()).lines();
    let mut next = |id: &str| {
        let line = lines.next().unwrap().unwrap();
        assert!(line.contains(&format!("\"id\":\"{id}\"")), "{line}");
    };
    next("one");
    server.interrupt();
    assert_eq!(server.end(), 0);
    let line = said.next().unwrap().unwrap();
    assert!(line.contains("trying again"), "{line}");
    place.run("append --type t --id two").ends(0);
    let (_server, _) = serve_on(url.strip_prefix("http://").unwrap(), &place, &[], None);
    next("two");
    place.run("append --type t --id three").ends(0);
    next("three");
    assert_eq!(follower.end(), 0);
}

#[test]
fn following_a_server_does_not_go_on_in_another_log() {
    let place = Place::new();
    place.run("append --type t --id one").ends(0);
    place.run("append --type t --id other --store ./other").ends(0);
    let (mut server, url) = serve_on(&lasting_address(), &place, &[], None);
    let mut command = place.command(["read", "--follow", "--json", "--store", &url]);
    let mut follower = Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(follower.0.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("\"id\":\"one\""));
    server.interrupt();
    assert_eq!(server.end(), 0);
    let address = url.strip_prefix("http://").unwrap();
    let (_server, _) = serve_on(address, &place, &["--store", "./other"], None);
    place.run("append --type t --store ./other").ends(0);
    assert_eq!(follower.end(), 2);
    assert!(lines.next().is_none());
    let mut said = String::new();
    follower.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("another log"), "{said}");
}

#[test]
fn following_prints_what_comes_and_an_interrupt_ends_it_well() {
    let place = Place::new();
    place.run("append --type t --id one").ends(0);
    let mut command = place.command(["read", "--follow", "--json"]);
    let mut follower = Running(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(follower.0.stdout.take().unwrap()).lines();
    let mut next = |id: &str| {
        let line = lines.next().unwrap().unwrap();
        assert!(line.contains(&format!("\"id\":\"{id}\"")), "{line}");
    };
    next("one");
    place.run("append --type t --id two").ends(0);
    next("two");
    place.run("append --type t --id three").ends(0);
    next("three");
    follower.interrupt();
    assert_eq!(follower.end(), 0);
    assert_eq!(place.run("read --follow --limit 2 --json").ends(0).lines().len(), 2);
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let place = Place::new();
    let lines: String = (0..3_000)
        .map(|n| format!("{{\"specversion\":\"1.0\",\"id\":\"{n}\",\"source\":\"s\",\"type\":\"t\",\"data\":\"{}\"}}\n", "x".repeat(200)))
        .collect();
    place.run_with(["import", "-"], lines.as_bytes()).ends(0);
    for line in ["read", "read --json", "export"] {
        let mut command = place.command(line.split_whitespace());
        let mut child = Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        let mut first = [0; 16];
        let mut out = child.0.stdout.take().unwrap();
        out.read_exact(&mut first).unwrap();
        drop(out);
        assert_eq!(child.end(), 0, "{line}");
        let mut said = String::new();
        child.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "", "{line}");
    }
}

#[test]
fn a_follower_ends_when_nobody_reads_it_any_more() {
    let place = Place::new();
    place.run("append --type t").ends(0);
    let mut command = place.command(["read", "--follow"]);
    let mut follower = Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut out = BufReader::new(follower.0.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    drop(out);
    assert_eq!(follower.end(), 0);
}

#[test]
fn an_interrupted_export_and_read_end_at_once_and_leave_nothing_behind() {
    let place = Place::new();
    let lines: String = (0..300_000)
        .map(|n| format!("{{\"specversion\":\"1.0\",\"id\":\"{n}\",\"source\":\"s\",\"type\":\"t\"}}\n"))
        .collect();
    place.write("events.ndjson", lines);
    place.run("import events.ndjson").ends(0);
    let files = || {
        let names = std::fs::read_dir(place.path()).unwrap();
        let mut names: Vec<String> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let before = files();
    let mut command = place.command(["export", "--output", "all.ndjson"]);
    let mut export = Running(command.stderr(Stdio::null()).spawn().unwrap());
    within(|| (files() != before).then_some(()));
    export.interrupt();
    assert_eq!(export.end(), 130);
    assert_eq!(files(), before);
    let mut command = place.command(["read"]);
    let mut read = Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut out = BufReader::new(read.0.stdout.take().unwrap()).lines();
    out.next().unwrap().unwrap();
    read.interrupt();
    let printed = 1 + out.count();
    assert_eq!(read.end(), 130);
    assert!(printed < 300_000, "all {printed} were printed");
}

#[test]
fn an_import_under_way_can_be_read_beside_and_lets_the_store_go_when_interrupted() {
    let place = Place::new();
    place.run("append --type t --store ./other").ends(0);
    // An import that waits for its input holds the lock.
    let mut command = place.command(["import", "-", "--store", "./other"]);
    let mut import = Running(command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let locked = within(|| {
        let done = place.run("append --type t --store ./other");
        (done.code() == 2).then_some(done)
    });
    locked.says(&import.0.id().to_string());
    assert!(!place.run("read --json --store ./other").ends(0).lines().is_empty());
    place.run("verify --store ./other").ends(0);
    import.interrupt();
    assert_eq!(import.end(), 130);
    place.run("append --type t --store ./other").ends(0);
}
