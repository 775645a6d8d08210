//! UmaDB behind its own server, with its defaults: the stream of an event is a tag. As a library it takes no appends.

use std::path::Path;

use tokio::runtime::Runtime;
use umadb_client::{SyncUmaDbClient, UmaDbClient};
use umadb_core::mvcc::StorageOptions;
use umadb_dcb::{DcbEvent, DcbEventStoreSync, DcbQuery, DcbQueryItem};
use umadb_server::ServerOptions;

use crate::child::Child;
use crate::peer::{Appender, Peer, Record, Result, Sink, What};

/// Serves until it is killed.
pub(crate) fn serve(place: &Path, address: &str) -> Result<()> {
    let (_stop, stopped) = tokio::sync::oneshot::channel();
    let options = ServerOptions {
        listen_addr: address.to_owned(),
        tls: None,
        api_key: None,
        storage: StorageOptions::default().db_path(place),
    };
    let served = runtime()?.block_on(umadb_server::start_server_with_options(options, stopped));
    served.map_err(|error| error.to_string().into())
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

pub(crate) struct Umadb {
    child: Child,
    reader: SyncUmaDbClient,
    /// For all connections: a client that finds none makes one of its own.
    runtime: Runtime,
}

impl Umadb {
    pub(crate) fn start(place: &Path) -> Result<Self> {
        let child = Child::serve("umadb-server", place)?;
        let runtime = runtime()?;
        let reader = connect(&child, &runtime)?;
        Ok(Self { child, reader, runtime })
    }
}

fn connect(child: &Child, runtime: &Runtime) -> Result<SyncUmaDbClient> {
    let _entered = runtime.enter();
    Ok(UmaDbClient::new(format!("http://{}", child.address())).connect()?)
}

struct Connection(SyncUmaDbClient);

impl Appender for Connection {
    fn append(&mut self, records: Vec<Record>) -> Result<()> {
        let event = |record: Record| {
            DcbEvent::new().event_type(record.event_type).tags([record.stream]).data(record.data)
        };
        self.0.append(records.into_iter().map(event).collect(), None, None)?;
        Ok(())
    }
}

impl Peer for Umadb {
    fn appender(&self) -> Result<Box<dyn Appender + '_>> {
        Ok(Box::new(Connection(connect(&self.child, &self.runtime)?)))
    }

    fn read(&self, what: What<'_>, sink: Sink<'_>) -> Result<()> {
        let query = match what {
            What::Stream(stream) => Some(DcbQuery::new().item(DcbQueryItem::new().tags([stream]))),
            What::Type(event_type) => Some(DcbQuery::new().item(DcbQueryItem::new().types([event_type]))),
            What::All { .. } => None,
        };
        for sequenced in self.reader.read(query, None, false, None)? {
            sink(&sequenced?.event.data);
        }
        Ok(())
    }

    fn head(&self) -> Result<()> {
        self.reader.head()?;
        Ok(())
    }
}
