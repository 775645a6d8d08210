//! `peers`: other stores under the workloads of `precedent bench`, with the same data, names and arithmetic.
//!
//! ```text
//! peers list                                what can be measured here, and what is missing, a line each
//! peers append SYSTEM --workload NAME …     one measurement of appends to a new store
//! peers read SYSTEM --events N …            a loaded log: reads, openings, bytes, in rounds
//! ```
//!
//! Rows are those of `precedent bench --json`; the ratio is left to whoever has the bare loop of the same round.
//! `cargo xtask bench --peers` calls all of this, round by round. Two more verbs are for this program alone: `serve`
//! is a server in a process of its own, `hold` an embedded store that is going to be killed.

#[allow(dead_code, reason = "the peers use a part of it")]
#[path = "../../crates/cli/src/commands/bench/chats.rs"]
mod chats;
#[path = "../../crates/cli/src/commands/bench/disk.rs"]
mod disk;
#[allow(dead_code, reason = "the peers use a part of it")]
#[path = "../../crates/cli/src/commands/bench/workload.rs"]
mod workload;

mod arguments;
mod child;
mod fjall;
mod group;
mod measure;
mod peer;
mod redis;
mod sqlite;
mod tephra;
#[cfg(feature = "umadb-server")]
mod umadb;

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use arguments::Arguments;
use peer::{Peer, Result};

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum System {
    Sqlite,
    Fjall,
    Tephra,
    Redis,
    TephraServer,
    UmadbServer,
}

impl System {
    const ALL: [Self; 6] =
        [Self::Sqlite, Self::Fjall, Self::Tephra, Self::Redis, Self::TephraServer, Self::UmadbServer];

    /// As the rows name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Fjall => "fjall",
            Self::Tephra => "tephra",
            Self::Redis => "redis",
            Self::TephraServer => "tephra-server",
            Self::UmadbServer => "umadb-server",
        }
    }

    fn named(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|system| system.name() == name);
        found.ok_or_else(|| format!("there is no system '{name}'").into())
    }

    /// Whether it is a process of its own.
    pub(crate) fn is_server(self) -> bool {
        matches!(self, Self::Redis | Self::TephraServer | Self::UmadbServer)
    }

    /// Why it cannot be measured here.
    fn missing(self) -> Option<&'static str> {
        match self {
            Self::Redis if !redis::is_installed() => {
                Some("redis-server is not installed: apt-get install redis-server")
            }
            Self::TephraServer if !cfg!(feature = "tephra-server") => {
                Some("built without it: it needs protoc 36.2")
            }
            Self::UmadbServer if !cfg!(feature = "umadb-server") => Some("built without it: it needs protoc"),
            _ => None,
        }
    }

    /// Opens the store in this directory, or makes it; starts the server first if it is one.
    pub(crate) fn open(self, place: &Path) -> Result<Box<dyn Peer>> {
        if let Some(missing) = self.missing() {
            return Err(missing.into());
        }
        match self {
            Self::Sqlite => Ok(Box::new(sqlite::Sqlite::open(place)?)),
            Self::Fjall => Ok(Box::new(fjall::Fjall::open(place)?)),
            Self::Tephra => Ok(Box::new(tephra::Tephra::open(place)?)),
            Self::Redis => Ok(Box::new(redis::Redis::start(place)?)),
            #[cfg(feature = "tephra-server")]
            Self::TephraServer => Ok(Box::new(tephra::served::TephraServer::start(place)?)),
            #[cfg(feature = "umadb-server")]
            Self::UmadbServer => Ok(Box::new(umadb::Umadb::start(place)?)),
            #[cfg(not(all(feature = "tephra-server", feature = "umadb-server")))]
            _ => Err("built without it".into()),
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["list"] => {
            for system in System::ALL {
                println!("{}\t{}", system.name(), system.missing().unwrap_or_default());
            }
            Ok(())
        }
        ["append", system, rest @ ..] => measure::append(System::named(system)?, &Arguments::of(rest)?),
        ["read", system, rest @ ..] => measure::read(System::named(system)?, &Arguments::of(rest)?),
        ["serve", system, place, address] => {
            // Whoever started us holds the other end, and may be killed: then nobody is left to kill us.
            std::thread::spawn(|| {
                let _ = std::io::stdin().read(&mut [0]);
                std::process::exit(0);
            });
            match System::named(system)? {
                System::TephraServer => serve_tephra(Path::new(place), address),
                System::UmadbServer => serve_umadb(Path::new(place), address),
                other => Err(format!("{} is no server that is built into this program", other.name()).into()),
            }
        }
        ["hold", system, place, first, event_bytes] => {
            hold(System::named(system)?, Path::new(place), first.parse()?, event_bytes.parse()?)
        }
        _ => {
            Err("peers list | peers append SYSTEM … | peers read SYSTEM …; see the top of bench/src/main.rs"
                .into())
        }
    }
}

#[cfg(feature = "tephra-server")]
fn serve_tephra(place: &Path, address: &str) -> Result<()> {
    tephra::served::serve(place, address)
}

#[cfg(not(feature = "tephra-server"))]
fn serve_tephra(_: &Path, _: &str) -> Result<()> {
    Err("built without it".into())
}

#[cfg(feature = "umadb-server")]
fn serve_umadb(place: &Path, address: &str) -> Result<()> {
    umadb::serve(place, address)
}

#[cfg(not(feature = "umadb-server"))]
fn serve_umadb(_: &Path, _: &str) -> Result<()> {
    Err("built without it".into())
}

/// Appends to an embedded store, says so, and waits to be killed.
fn hold(system: System, place: &Path, first: u64, event_bytes: usize) -> Result<()> {
    let peer = system.open(place)?;
    measure::append_until_killed(&*peer, first, event_bytes)?;
    println!("appended");
    std::io::stdout().flush()?;
    // Until whoever started us kills us, or has gone.
    let _ = std::io::stdin().read(&mut [0]);
    Ok(())
}
