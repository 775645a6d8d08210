//! The conformance suite is itself tested: on a store that has every hook no test is skipped and all pass; and on
//! stores that break a promise on purpose the tests of that promise fail.
//!
//! The store is a memory store in front of a "disk", the frames as they were written. It keeps every promise as
//! long as its [`Breach`] is none.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use precedent_core::conformance::{Backend, Failure, Fixture, Unable, run};
use precedent_core::frame::Frame;
use precedent_core::store::{Finding, Progress, Severity, Usage};
use precedent_core::verify::{Expect, Report, Verifier};
use precedent_core::{
    Append, Appended, Damage, Durability, Error, ErrorKind, ExpectedRegister, Head, Limits, LogName,
    MemoryStore, Page, Position, Read, Register, RegisterName, Result, Store, Time,
};

/// A promise that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Breach {
    None,
    LosesTheLastFrame,
    LosesRegisters,
    ForgetsTheKeys,
    IgnoresConditions,
    ShowsHalfABatch,
    LeavesGapsBetweenPages,
    MixesUpNoDataAndEmptyData,
    GoesBackwards,
    NeverWakesAnyone,
    StopsWithoutTellingAnyone,
    GoesOnAfterAFailedSync,
    DeniesWhatItMayHaveWritten,
    HidesDamage,
    ReturnsDamagedEvents,
    VerifiesAnything,
    SetsRegistersUnasked,
    AnswersAfterClosing,
    TakesLargeNames,
    LetsTwoWritersIn,
    WritesToCopies,
}

/// Appends to the store that keeps its promises.
static APPENDS: AtomicU64 = AtomicU64::new(0);

#[derive(Default)]
struct Disk {
    logs: BTreeMap<LogName, Written>,
    registers: BTreeMap<RegisterName, Register>,
    owned: bool,
    fails: Option<Failure>,
}

#[derive(Default)]
struct Written {
    /// The frames as the writer meant them, and as the device has them.
    frames: Vec<(Frame, Bytes)>,
    own: bool,
}

struct DiskStore {
    disk: Arc<Mutex<Disk>>,
    cache: MemoryStore,
    breach: Breach,
    writes: bool,
    stopped: AtomicBool,
}

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("a memory store does not wait")
}

fn closed() -> Error {
    Error::new(ErrorKind::Stopped, "the store has been closed")
}

impl DiskStore {
    fn open(
        disk: &Arc<Mutex<Disk>>,
        clock: &Arc<AtomicU64>,
        breach: Breach,
        writes: bool,
    ) -> Result<Arc<Self>> {
        let read = clock.clone();
        let time = move || match read.load(Ordering::SeqCst) {
            0 => Time::from_system(std::time::SystemTime::now()),
            set => Time::from_micros(set).expect("the suite sets times that can be written"),
        };
        let cache = MemoryStore::with_clock(Arc::new(time));
        let store = Self { disk: disk.clone(), cache, breach, writes, stopped: AtomicBool::new(false) };
        {
            let mut disk = store.disk();
            if writes && disk.owned && breach != Breach::LetsTwoWritersIn {
                return Err(Error::new(ErrorKind::Locked, "another process writes to this store"));
            }
            disk.owned |= writes;
            store.refresh(&disk)?;
            for (name, written) in &disk.logs {
                if writes && written.own && !written.frames.is_empty() {
                    now(store.cache.promote(name))?;
                }
            }
            for (name, register) in &disk.registers {
                for revision in 0..register.revision {
                    let expected = match revision {
                        0 => ExpectedRegister::Absent,
                        _ => ExpectedRegister::Revision(revision),
                    };
                    now(store.cache.set_register(name, expected, register.value.clone()))?;
                }
            }
        }
        Ok(Arc::new(store))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Takes over what is on the disk and not yet in the cache.
    fn refresh(&self, disk: &Disk) -> Result<()> {
        for (name, written) in &disk.logs {
            let have = now(self.cache.head(name)).map_or(0, |head| head.frames as usize);
            let new = written.frames[have.min(written.frames.len())..].iter().map(|(frame, _)| frame.clone());
            now(self.cache.put_frames(name, new.collect()))?;
        }
        Ok(())
    }

    /// Looks at the store before it is read.
    fn look(&self) -> Result<()> {
        if self.stopped.load(Ordering::SeqCst) && self.breach != Breach::AnswersAfterClosing {
            return Err(closed());
        }
        if !self.writes {
            self.refresh(&self.disk())?;
        }
        Ok(())
    }

    /// Writes what the cache has and the disk has not.
    fn write(&self, disk: &mut Disk, name: &LogName, own: bool) -> Result<()> {
        let written = disk.logs.entry(name.clone()).or_default();
        written.own |= own;
        let new = now(self.cache.frames(name, written.frames.len() as u64, usize::MAX))?;
        written.frames.extend(new.into_iter().map(|frame| (frame.clone(), frame.bytes().clone())));
        Ok(())
    }

    fn stop(&self, disk: &mut Disk) {
        disk.owned = false;
        self.stopped.store(true, Ordering::SeqCst);
        if !matches!(self.breach, Breach::StopsWithoutTellingAnyone | Breach::AnswersAfterClosing) {
            let _ = now(self.cache.close());
        }
    }

    fn append_now(&self, log: &LogName, mut append: Append) -> Result<Appended> {
        if self.breach == Breach::None {
            APPENDS.fetch_add(1, Ordering::Relaxed);
        }
        let mut disk = self.disk();
        self.writable()?;
        if self.breach == Breach::IgnoresConditions {
            append.conditions.clear();
        }
        if self.breach == Breach::ForgetsTheKeys {
            let size = now(self.cache.head(log)).map_or(0, |head| head.size);
            let fresh = |(i, event): (usize, precedent_core::Event)| {
                event.into_builder().attribute("fresh", format!("{size}/{i}")).build()
            };
            append.events = append.events.into_iter().enumerate().map(fresh).collect::<Result<_>>()?;
        }
        if self.breach == Breach::TakesLargeNames {
            append.events.retain(|event| event.stream().is_none_or(|stream| stream.len() <= 512));
        }
        if self.breach == Breach::WritesToCopies {
            let _ = now(self.cache.promote(log));
        }
        match disk.fails {
            Some(Failure::Write) => {
                disk.fails = None;
                return Err(Error::new(ErrorKind::Io, "the device refused the bytes"));
            }
            Some(Failure::Sync) => {
                disk.fails = None;
                let appended = now(self.cache.append(log, append))?;
                if appended.events[0].position.0 % 2 == 1 || self.breach == Breach::DeniesWhatItMayHaveWritten
                {
                    self.write(&mut disk, log, true)?;
                }
                if self.breach != Breach::GoesOnAfterAFailedSync {
                    self.stop(&mut disk);
                }
                return Err(match self.breach {
                    Breach::DeniesWhatItMayHaveWritten => Error::new(ErrorKind::Io, "the sync failed"),
                    _ => Error::new(ErrorKind::Io, "the sync failed").maybe_written(),
                });
            }
            None => {}
        }
        let appended = now(self.cache.append(log, append))?;
        self.write(&mut disk, log, true)?;
        Ok(appended)
    }

    fn writable(&self) -> Result<()> {
        if self.stopped.load(Ordering::SeqCst) {
            return Err(closed());
        }
        match self.writes {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::ReadOnly, "this handle reads only")),
        }
    }

    /// What is wrong with the stored bytes of an event.
    fn damage(disk: &Disk, log: &LogName, position: Position) -> Option<Error> {
        let written = disk.logs.get(log)?;
        let (_, stored) = written.frames.iter().find(|(frame, _)| {
            let chained = frame.chained();
            (chained.first.0..chained.tree_size()).contains(&position.0)
        })?;
        let checked = Frame::decode(stored.clone())
            .and_then(|frame| frame.event((position.0 - frame.chained().first.0) as usize).map(drop));
        checked.err().map(|e| e.context(format!("position {position}")))
    }

    fn read_now(&self, log: &LogName, read: &Read) -> Result<Page> {
        self.look()?;
        let mut read = read.clone();
        if self.breach == Breach::LeavesGapsBetweenPages && read.after.is_some_and(|after| after.0 == 30) {
            read.after = Some(Position(31));
        }
        let mut page = now(self.cache.read(log, &read))?;
        match self.breach {
            Breach::ShowsHalfABatch if page.size > 3 && page.size % 7 == 0 => {
                page.events.retain(|e| e.position.0 + 1 < page.size);
            }
            Breach::MixesUpNoDataAndEmptyData => {
                for event in &mut page.events {
                    if event.event.data().is_some_and(Bytes::is_empty) {
                        let parsed = br#"{"specversion":"1.0","id":"i","source":"s","type":"t"}"#;
                        event.event = precedent_core::cloudevents::parse_event(
                            parsed,
                            precedent_core::cloudevents::Shape::CloudEvents,
                        )?;
                    }
                }
            }
            Breach::GoesBackwards if page.size % 10 == 9 => {
                page.size -= 1;
                page.events.retain(|e| e.position.0 < page.size);
            }
            Breach::ReturnsDamagedEvents => return Ok(page),
            _ => {}
        }
        let disk = self.disk();
        let (mut sound, mut damaged) = (Vec::new(), Vec::new());
        for event in page.events {
            match Self::damage(&disk, log, event.position) {
                None => sound.push(event),
                Some(_) if self.breach == Breach::HidesDamage => {}
                Some(error) => damaged.push(Damage { position: event.position, error }),
            }
        }
        Ok(Page { events: sound, damaged, ..page })
    }

    fn verify_now(&self, log: &LogName, expect: Option<Expect>) -> Result<Report> {
        self.look()?;
        now(self.cache.head(log))?;
        let mut verifier = Verifier::new(expect);
        for (frame, stored) in self.disk().logs.get(log).map_or(&[][..], |written| &written.frames) {
            match Frame::decode(stored.clone()) {
                _ if self.breach == Breach::VerifiesAnything => verifier.frame(frame, None),
                Ok(frame) => verifier.frame(&frame, None),
                Err(e) => verifier.unreadable(None, e.to_string()),
            }
        }
        Ok(verifier.finish())
    }
}

impl Store for DiskStore {
    fn limits(&self) -> Limits {
        Limits::new(Durability::Device)
    }

    fn url(&self) -> String {
        "test:disk".into()
    }

    fn append<'a>(&'a self, log: &'a LogName, append: Append) -> BoxFuture<'a, Result<Appended>> {
        async move { self.append_now(log, append) }.boxed()
    }

    fn read<'a>(&'a self, log: &'a LogName, read: &'a Read) -> BoxFuture<'a, Result<Page>> {
        async move { self.read_now(log, read) }.boxed()
    }

    fn head<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<Head>> {
        async move {
            self.look()?;
            now(self.cache.head(log))
        }
        .boxed()
    }

    fn grown<'a>(&'a self, log: &'a LogName, size: u64) -> BoxFuture<'a, Result<Head>> {
        async move {
            self.look()?;
            if self.breach == Breach::NeverWakesAnyone && now(self.cache.head(log))?.size <= size {
                return std::future::pending().await;
            }
            self.cache.grown(log, size).await
        }
        .boxed()
    }

    fn logs(&self) -> BoxFuture<'_, Result<Vec<LogName>>> {
        async move {
            self.look()?;
            now(self.cache.logs())
        }
        .boxed()
    }

    fn frames<'a>(
        &'a self,
        log: &'a LogName,
        from: u64,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<Vec<Frame>>> {
        async move {
            self.look()?;
            now(self.cache.frames(log, from, bytes_max))
        }
        .boxed()
    }

    fn put_frames<'a>(&'a self, log: &'a LogName, frames: Vec<Frame>) -> BoxFuture<'a, Result<Head>> {
        async move {
            let mut disk = self.disk();
            self.writable()?;
            let head = now(self.cache.put_frames(log, frames))?;
            self.write(&mut disk, log, false)?;
            Ok(head)
        }
        .boxed()
    }

    fn promote<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<()>> {
        async move {
            let mut disk = self.disk();
            self.writable()?;
            now(self.cache.promote(log))?;
            self.write(&mut disk, log, true)
        }
        .boxed()
    }

    fn verify<'a>(
        &'a self,
        log: &'a LogName,
        expect: Option<Expect>,
        _: Progress<'a>,
    ) -> BoxFuture<'a, Result<Report>> {
        async move { self.verify_now(log, expect) }.boxed()
    }

    fn examine<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<(Usage, Vec<Finding>)>> {
        async move {
            let (usage, _) = now(self.cache.examine(log))?;
            let finding = Finding { code: "test", severity: Severity::Info, message: "for tests".into() };
            Ok((usage, vec![finding]))
        }
        .boxed()
    }

    fn register<'a>(&'a self, name: &'a RegisterName) -> BoxFuture<'a, Result<Option<Register>>> {
        async move {
            self.look()?;
            now(self.cache.register(name))
        }
        .boxed()
    }

    fn set_register<'a>(
        &'a self,
        name: &'a RegisterName,
        expected: ExpectedRegister,
        value: Bytes,
    ) -> BoxFuture<'a, Result<Register>> {
        async move {
            let mut disk = self.disk();
            self.writable()?;
            let mut set = now(self.cache.set_register(name, expected, value.clone()));
            if self.breach == Breach::SetsRegistersUnasked && set.is_err() {
                let revision = now(self.cache.register(name))?.map_or(0, |register| register.revision);
                set = now(self.cache.set_register(name, ExpectedRegister::Revision(revision), value));
            }
            disk.registers.insert(name.clone(), set.clone()?);
            set
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        async move {
            let mut disk = self.disk();
            self.writable()?;
            self.stop(&mut disk);
            Ok(())
        }
        .boxed()
    }
}

struct Disks(Breach);

struct OneDisk {
    disk: Arc<Mutex<Disk>>,
    clock: Arc<AtomicU64>,
    breach: Breach,
    current: Mutex<Arc<DiskStore>>,
}

impl Backend for Disks {
    fn create(&self) -> Result<Box<dyn Fixture>> {
        let (disk, clock) = (Arc::<Mutex<Disk>>::default(), Arc::<AtomicU64>::default());
        let store = DiskStore::open(&disk, &clock, self.0, true)?;
        Ok(Box::new(OneDisk { disk, clock, breach: self.0, current: Mutex::new(store) }))
    }

    fn patience(&self) -> Duration {
        // A breach may make a test wait for ever.
        Duration::from_secs(if self.0 == Breach::None { 60 } else { 2 })
    }
}

impl OneDisk {
    fn current(&self) -> MutexGuard<'_, Arc<DiskStore>> {
        self.current.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn open_again(&self, gently: bool) -> Result<Arc<dyn Store>, Unable> {
        let mut current = self.current();
        if gently {
            // It may have stopped already.
            let _ = now(current.close());
        } else {
            let mut disk = current.disk();
            current.stop(&mut disk);
        }
        if self.breach == Breach::LosesTheLastFrame {
            current.disk().logs.values_mut().for_each(|written| drop(written.frames.pop()));
        }
        if self.breach == Breach::LosesRegisters {
            current.disk().registers.clear();
        }
        *current = DiskStore::open(&self.disk, &self.clock, self.breach, true)?;
        Ok(current.clone())
    }
}

impl Fixture for OneDisk {
    fn store(&self) -> Arc<dyn Store> {
        self.current().clone()
    }

    fn reopen(&self) -> Result<Arc<dyn Store>, Unable> {
        self.open_again(true)
    }

    fn crash(&self) -> Result<Arc<dyn Store>, Unable> {
        self.open_again(false)
    }

    fn second_handle(&self) -> Result<Result<Arc<dyn Store>>, Unable> {
        Ok(DiskStore::open(&self.disk, &self.clock, self.breach, true).map(|store| store as _))
    }

    fn second_reader(&self) -> Result<Arc<dyn Store>, Unable> {
        Ok(DiskStore::open(&self.disk, &self.clock, self.breach, false)?)
    }

    fn damage(&self, log: &LogName, position: Position) -> Result<Arc<dyn Store>, Unable> {
        let current = self.current().clone();
        let mut disk = current.disk();
        let written = disk.logs.get_mut(log).ok_or_else(|| Unable::cannot("no such log"))?;
        for (frame, stored) in &mut written.frames {
            let chained = frame.chained();
            if (chained.first.0..chained.tree_size()).contains(&position.0) {
                let place = frame.directory.places[(position.0 - chained.first.0) as usize];
                let mut bytes = stored.to_vec();
                bytes[place.parts_at as usize + place.parts_len as usize / 2] ^= 1;
                *stored = bytes.into();
            }
        }
        drop(disk);
        self.open_again(true)
    }

    fn fail_next(&self, failure: Failure) -> Result<(), Unable> {
        self.current().disk().fails = Some(failure);
        Ok(())
    }

    fn set_clock(&self, now: Time) -> Result<(), Unable> {
        self.clock.store(now.as_micros(), Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn a_store_with_every_hook_passes_everything() {
    let summary = run(&Disks(Breach::None), None);
    summary.assert_passed();
    // Those that remain need two writers at work, which this store keeps apart.
    for (name, reason) in &summary.skipped {
        assert!(reason.contains("a second writer is kept away"), "{name}: {reason}");
    }
    // A backend that waits for a device on every append runs all of this on every change.
    let appends = APPENDS.load(Ordering::Relaxed);
    assert!(appends < 10_000, "the suite makes {appends} appends");
}

#[test]
fn a_broken_promise_is_found_out_by_the_tests_of_that_promise() {
    let cases = [
        (Breach::LosesTheLastFrame, "=1"),
        (Breach::ShowsHalfABatch, "=2"),
        (Breach::IgnoresConditions, "=4"),
        (Breach::ForgetsTheKeys, "=5"),
        (Breach::LetsTwoWritersIn, "=6"),
        (Breach::NeverWakesAnyone, "an_append_wakes_everyone"),
        (Breach::StopsWithoutTellingAnyone, "closing_ends_every_wait"),
        (Breach::GoesOnAfterAFailedSync, "=8"),
        (Breach::DeniesWhatItMayHaveWritten, "=8"),
        (Breach::AnswersAfterClosing, "a_closed_store"),
        (Breach::HidesDamage, "=9"),
        (Breach::ReturnsDamagedEvents, "=9"),
        (Breach::VerifiesAnything, "=9"),
        (Breach::TakesLargeNames, "=10"),
        (Breach::SetsRegistersUnasked, "=11"),
        (Breach::LosesRegisters, "=11"),
        (Breach::GoesBackwards, "=12"),
        (Breach::LeavesGapsBetweenPages, "=12"),
        (Breach::MixesUpNoDataAndEmptyData, "data_comes_back"),
        (Breach::WritesToCopies, "a_copy_is_read_only"),
    ];
    for (breach, promise) in cases {
        let summary = run(&Disks(breach), Some(promise));
        assert!(!summary.failed.is_empty(), "{breach:?} passes the tests '{promise}'");
    }
}
