//! Writes the store that stays in `fixtures/` once a version is released: `cargo run -p precedent-engine
//! --example write_fixture -- fixtures/format-N`. A later version has to open it; it is never written again.

use std::path::Path;
use std::process::ExitCode;

use futures_util::FutureExt;
use precedent_core::{Append, Event, ExpectedRegister, LogName, Result, Store};
use precedent_engine::{EmbeddedStore, Options};

fn main() -> ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("error: expected the directory to write");
        return ExitCode::from(2);
    };
    match write(Path::new(&path)) {
        Ok(said) => {
            print!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(path: &Path) -> Result<String> {
    let mut options = Options::default();
    // Several segments and several index runs, and small files.
    options.segment_bytes = 16 << 10;
    options.index_flush_bytes = 8 << 10;
    let store = EmbeddedStore::open(path, options)?;
    let mut said = String::new();
    for name in ["main", "second"] {
        let name: LogName = name.parse()?;
        for n in 0..40u32 {
            append(&store, &name, Append::new(events(n)?))?;
        }
        let head = futures(store.head(&name))?;
        said.push_str(&format!("{name} {}:{}\n", head.size, head.root));
    }
    let register = "cursors/reader".parse()?;
    futures(store.set_register(&register, ExpectedRegister::Absent, "17".into()))?;
    futures(store.close())?;
    Ok(said)
}

/// Long enough, and without repeats of its own, that every later event refers to the first.
fn repeated() -> String {
    (0..400u64).map(|i| format!("{} ", i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44)).collect()
}

/// One batch: every kind of attribute, no data, empty data, data that is all zero, data that is not JSON.
fn events(n: u32) -> Result<Vec<Event>> {
    let builder =
        |kind: &str| Event::builder("urn:fixture", format!("{n}-{kind}"), format!("fixture.{kind}"));
    Ok(vec![
        builder("json")
            .stream(format!("stream/{}", n % 3))
            .time("2026-11-22T10:00:00+01:00")
            .tag("number", &n.to_string())
            .attribute("decisionid", format!("decision-{}", n % 5))
            .attribute("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
            .attribute("flag", true)
            .attribute("count", n as i32 - 20)
            .datacontenttype("application/json")
            .data(format!(r#"{{"n":{n}.0,"ä":"\u00e9"}}"#))
            .build()?,
        builder("repeats").data(format!("{n}: {}", repeated())).build()?,
        builder("none").stream("bare").build()?,
        builder("empty").data("").build()?,
        builder("zeros")
            .data(vec![0; 300 * (n as usize % 7)])
            .datacontenttype("application/octet-stream")
            .build()?,
    ])
}

fn append(store: &EmbeddedStore, name: &LogName, append: Append) -> Result<()> {
    futures(store.append(name, append)).map(|_| ())
}

/// Runs a future of the store: only an append waits, for the writer's thread.
fn futures<T>(mut future: futures_util::future::BoxFuture<'_, Result<T>>) -> Result<T> {
    loop {
        match (&mut future).now_or_never() {
            Some(result) => return result,
            None => std::thread::yield_now(),
        }
    }
}
