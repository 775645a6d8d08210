//! The whole way: a client, the wire, the server, and a store in a directory behind it keep the promises.
//!
//! Two clients are two processes here, and both may write: the server lets them interleave.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use precedent::conformance::{Backend, Fixture, Unable, assert_conforms};
use precedent::{HttpStore, Result, Store};
use precedent_engine::{EmbeddedStore, Options};
use precedent_server::Config;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

struct OverFiles {
    runtime: Runtime,
    /// They stay as long as the suite, and so do the servers: some handles outlive what made them.
    dirs: Mutex<Vec<tempfile::TempDir>>,
}

/// A server that runs, and the client in use.
struct Running {
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<()>,
    store: Arc<EmbeddedStore>,
    address: SocketAddr,
    client: Arc<dyn Store>,
}

struct Served {
    runtime: Handle,
    path: PathBuf,
    running: Mutex<Running>,
}

fn start(runtime: &Handle, path: &std::path::Path, listen: SocketAddr) -> Result<Running> {
    let store = Arc::new(EmbeddedStore::open(path, Options::default())?);
    runtime.block_on(async {
        let server = precedent_server::bind(store.clone(), Config::new(listen)).await?;
        let (url, address) = (server.url(), server.local_addr());
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = tokio::spawn(async {
            let stopped = async {
                let _ = stopped.await;
            };
            server.run(stopped).await.expect("the server ends in good order");
        });
        let client = Arc::new(HttpStore::connect(&url, None).await?);
        Ok(Running { stop: Some(stop), ended, store, address, client })
    })
}

impl Backend for OverFiles {
    fn create(&self) -> Result<Box<dyn Fixture>> {
        let dir = tempfile::tempdir().expect("a directory for a test");
        let path = dir.path().join("store");
        let runtime = self.runtime.handle().clone();
        self.dirs.lock().unwrap().push(dir);
        let running = Mutex::new(start(&runtime, &path, SocketAddr::from(([127, 0, 0, 1], 0)))?);
        Ok(Box::new(Served { runtime, path, running }))
    }

    fn block_on(&self, future: BoxFuture<'_, ()>) {
        self.runtime.block_on(future);
    }
}

impl Served {
    fn stop(&self, running: &mut Running) {
        if let Some(stop) = running.stop.take() {
            // A test may have closed it already.
            let _ = self.runtime.block_on(running.client.close());
            let _ = stop.send(());
            self.runtime.block_on(async {
                let _ = (&mut running.ended).await;
                // The suite may have closed it through a client already.
                let _ = running.store.close().await;
            });
        }
    }
}

impl Fixture for Served {
    fn store(&self) -> Arc<dyn Store> {
        self.running.lock().unwrap().client.clone()
    }

    /// The server ends, and another is started on the same directory and port: clients from before reach that.
    fn reopen(&self) -> Result<Arc<dyn Store>, Unable> {
        let mut running = self.running.lock().unwrap();
        self.stop(&mut running);
        *running = start(&self.runtime, &self.path, running.address)?;
        Ok(running.client.clone())
    }

    fn second_handle(&self) -> Result<Result<Arc<dyn Store>>, Unable> {
        let url = format!("http://{}", self.running.lock().unwrap().address);
        Ok(self
            .runtime
            .block_on(HttpStore::connect(&url, None))
            .map(|client| Arc::new(client) as Arc<dyn Store>))
    }
}

impl Drop for Served {
    /// Without this the server would end here, with clients of it still in use.
    fn drop(&mut self) {
        std::mem::forget(self.running.lock().unwrap().stop.take());
    }
}

#[test]
fn a_store_in_a_directory_keeps_the_promises_through_a_server() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    assert_conforms(&OverFiles { runtime, dirs: Mutex::default() });
}
