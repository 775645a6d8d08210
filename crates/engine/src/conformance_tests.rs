//! The embedded store keeps the promises: on a file system that can be made to fail, and on a real one.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use precedent_core::conformance::{Backend, Failure, Fixture, Unable, assert_conforms};
use precedent_core::memory::Clock;
use precedent_core::{LogName, Position, Result, Store, Time};

use crate::io::faults::{FaultyIo, Random};
use crate::io::{Io, Mode, RealIo};
use crate::reader::FrameReader;
use crate::segment::EventPlace;
use crate::{Access, EmbeddedStore, Options};

/// A file system for the suite.
trait TestIo: Clone + Send + Sync + 'static {
    fn io(&self) -> Arc<dyn Io>;
    fn after_crash(&self) -> Option<Self>;
    fn fail_next(&self, failure: Failure) -> bool;
}

impl TestIo for FaultyIo {
    fn io(&self) -> Arc<dyn Io> {
        Arc::new(self.clone())
    }

    fn after_crash(&self) -> Option<Self> {
        Some(FaultyIo::after_crash(self, &mut Random::new(self.operations())))
    }

    fn fail_next(&self, failure: Failure) -> bool {
        match failure {
            Failure::Write => FaultyIo::fail_next(self, std::io::ErrorKind::Other),
            Failure::Sync => self.fail_next_sync(std::io::ErrorKind::Other),
        }
        true
    }
}

#[derive(Clone)]
struct Real;

impl TestIo for Real {
    fn io(&self) -> Arc<dyn Io> {
        Arc::new(RealIo)
    }

    fn after_crash(&self) -> Option<Self> {
        None
    }

    fn fail_next(&self, _: Failure) -> bool {
        false
    }
}

struct Embedded<T> {
    make: fn() -> (T, PathBuf, Option<tempfile::TempDir>),
    segment_bytes: u64,
    index_flush_bytes: u64,
    /// Not where failures are brought about: they are meant for the write, not for the index.
    background: bool,
}

struct Opened<T> {
    io: Mutex<T>,
    path: PathBuf,
    options: Options,
    clock: Arc<AtomicU64>,
    store: Mutex<Arc<EmbeddedStore>>,
    _dir: Option<tempfile::TempDir>,
}

impl<T: TestIo> Backend for Embedded<T> {
    fn create(&self) -> Result<Box<dyn Fixture>> {
        let (io, path, dir) = (self.make)();
        let clock = Arc::new(AtomicU64::new(0));
        let options = Options {
            segment_bytes: self.segment_bytes,
            index_flush_bytes: self.index_flush_bytes,
            clock: settable(&clock),
            background: self.background,
            ..Options::default()
        };
        let store = EmbeddedStore::open_in(io.io(), &path, options.clone())?;
        let store = Mutex::new(Arc::new(store));
        Ok(Box::new(Opened { io: Mutex::new(io), path, options, clock, store, _dir: dir }))
    }
}

fn settable(clock: &Arc<AtomicU64>) -> Clock {
    let clock = clock.clone();
    Arc::new(move || match clock.load(Ordering::SeqCst) {
        0 => Time::from_system(std::time::SystemTime::now()),
        set => Time::from_micros(set).expect("the suite sets times that can be written"),
    })
}

impl<T: TestIo> Opened<T> {
    fn current(&self) -> Arc<EmbeddedStore> {
        self.store.lock().unwrap().clone()
    }

    fn open(&self, access: Access) -> Result<EmbeddedStore> {
        let io = self.io.lock().unwrap().io();
        EmbeddedStore::open_in(io, &self.path, Options { access, ..self.options.clone() })
    }

    fn open_again(&self) -> Result<Arc<dyn Store>> {
        let store = Arc::new(self.open(Access::ReadWrite)?);
        *self.store.lock().unwrap() = store.clone();
        Ok(store)
    }

    fn close(&self) {
        // The suite may have closed it already.
        let _ = self.current().close().now_or_never();
    }
}

impl<T: TestIo> Fixture for Opened<T> {
    fn store(&self) -> Arc<dyn Store> {
        self.current()
    }

    fn reopen(&self) -> Result<Arc<dyn Store>, Unable> {
        self.close();
        Ok(self.open_again()?)
    }

    fn crash(&self) -> Result<Arc<dyn Store>, Unable> {
        let left = self.io.lock().unwrap().after_crash();
        let left =
            left.ok_or_else(|| Unable::cannot("the death of a process is shown on the other file system"))?;
        *self.io.lock().unwrap() = left;
        Ok(self.open_again()?)
    }

    fn second_handle(&self) -> Result<Result<Arc<dyn Store>>, Unable> {
        Ok(self.open(Access::ReadWrite).map(|store| Arc::new(store) as Arc<dyn Store>))
    }

    fn second_reader(&self) -> Result<Arc<dyn Store>, Unable> {
        Ok(Arc::new(self.open(Access::ReadOnly)?))
    }

    fn damage(&self, log: &LogName, position: Position) -> Result<Arc<dyn Store>, Unable> {
        // Closing may pack the event.
        self.close();
        let (path, offset) = {
            let store = self.open(Access::ReadOnly)?;
            let log = store.log(log)?;
            match log.segments.locate(position.0)? {
                EventPlace::Pack(pack) => {
                    let open = log.segments.open_pack(&pack)?;
                    (pack.path(&log.dir), open.block_offset(open.block_of(position)) + 9)
                }
                EventPlace::Frame(place) => {
                    let frame = FrameReader::new(&log.segments, false).frame(&place)?;
                    let event = frame.directory.places[(position.0 - place.first_position) as usize];
                    (log.segments.path(place.segment), place.offset + u64::from(event.entry_at) + 1)
                }
            }
        };
        let io = self.io.lock().unwrap().io();
        flip(&*io, &path, offset).map_err(precedent_core::Error::from)?;
        Ok(self.open_again()?)
    }

    fn fail_next(&self, failure: Failure) -> Result<(), Unable> {
        match self.io.lock().unwrap().fail_next(failure) {
            true => Ok(()),
            false => Err(Unable::cannot("failures are shown on the other file system")),
        }
    }

    fn set_clock(&self, now: Time) -> Result<(), Unable> {
        self.clock.store(now.as_micros(), Ordering::SeqCst);
        Ok(())
    }
}

fn flip(io: &dyn Io, path: &Path, offset: u64) -> std::io::Result<()> {
    let file = io.open(path, Mode::Write)?;
    let mut byte = [0];
    file.read_at(&mut byte, offset)?;
    file.write_at(&[byte[0] ^ 0x10], offset)?;
    file.sync()
}

#[test]
fn the_embedded_store_keeps_the_promises_where_everything_can_fail() {
    let make = || (FaultyIo::default(), PathBuf::from("/store"), None);
    // Sealing, flushing and merging happen in the middle of everything.
    assert_conforms(&Embedded {
        make,
        segment_bytes: 16 << 10,
        index_flush_bytes: 4 << 10,
        background: false,
    });
}

#[test]
fn the_embedded_store_keeps_the_promises_on_a_real_file_system() {
    let make = || {
        let dir = tempfile::tempdir().expect("a directory for a test");
        (Real, dir.path().join("store"), Some(dir))
    };
    assert_conforms(&Embedded {
        make,
        segment_bytes: 64 << 20,
        index_flush_bytes: 64 << 10,
        background: true,
    });
}
