//! An emulated Cosmos DB account at a port of the loopback interface. Prints its URL and runs until it is stopped.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use precedent_emulators::cosmos::host::Host;
use precedent_emulators::cosmos::{Account, Container};

/// An emulated Cosmos DB account, in memory, on 127.0.0.1. The first line it prints is its URL.
#[derive(Debug, Parser)]
#[command(name = "precedent-cosmos-emulator")]
struct Arguments {
    /// The port; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// A database to begin with.
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// A container to begin with, in that database.
    #[arg(long, value_name = "NAME", requires = "database")]
    container: Option<String>,
    /// A path of the container's partition key; given twice or more for a hierarchical one.
    #[arg(long, value_name = "PATH", default_value = "/eventType")]
    partition_key: Vec<String>,
    /// The container's throughput in request units a second, at least 400.
    #[arg(long, value_name = "RU", default_value_t = 400, value_parser = clap::value_parser!(u64).range(400..))]
    throughput: u64,
    /// Answer 429 when the throughput is used up.
    #[arg(long)]
    throttle: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

async fn run(arguments: Arguments) -> std::io::Result<()> {
    let account = Account { throttling: arguments.throttle, ..Account::default() };
    let host = Host::bind(arguments.port, account).await?;
    if let Some(database) = &arguments.database {
        host.emulator.create_database(database);
        if let Some(container) = &arguments.container {
            let partition_key = arguments.partition_key.into_iter().map(|path| &*path.leak()).collect();
            let made = Container { partition_key, throughput: arguments.throughput, partitions: 1 };
            host.emulator.create_container(database, container, &made);
        }
    }
    // Whoever started this reads the line and goes on: it must not wait in a buffer.
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", host.url)?;
    out.flush()?;
    drop(out);
    host.serve().await
}
