//! A disk in memory that can lose unsynced writes, run full and fail to sync. Must behave like a
//! real one otherwise.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::{Disk, DiskFile};

#[derive(Clone, Default)]
pub struct SimDisk {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    names: Mutex<BTreeMap<String, Arc<SimFile>>>,
    /// Directory as it would be after a power cut.
    durable: Mutex<BTreeMap<String, Arc<SimFile>>>,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct Faults {
    full: AtomicBool,
    sync_fails: AtomicBool,
    sync_lies: AtomicBool,
    syncs: AtomicU64,
}

#[derive(Default)]
struct SimFile {
    now: Mutex<Vec<u8>>,
    durable: Mutex<Vec<u8>>,
    allocated: AtomicU64,
    faults: Arc<Faults>,
}

impl SimDisk {
    /// No new space can be allocated.
    pub fn set_full(&self, full: bool) {
        self.inner.faults.full.store(full, Ordering::Relaxed);
    }

    pub fn fail_syncs(&self) {
        self.inner.faults.sync_fails.store(true, Ordering::Relaxed);
    }

    /// From now on nothing that is synced is durable, as if nobody had asked for it.
    pub fn skip_syncs(&self) {
        self.inner.faults.sync_lies.store(true, Ordering::Relaxed);
    }

    pub fn syncs(&self) -> u64 {
        self.inner.faults.syncs.load(Ordering::Relaxed)
    }

    /// What another start finds after the power was cut: only what was synced.
    pub fn after_power_cut(&self) -> Self {
        let cut = Self::default();
        for (name, file) in &*self.inner.durable.lock().unwrap() {
            let content = file.durable.lock().unwrap().clone();
            let file = SimFile {
                now: Mutex::new(content.clone()),
                durable: Mutex::new(content),
                allocated: AtomicU64::new(file.allocated.load(Ordering::Relaxed)),
                faults: Arc::clone(&cut.inner.faults),
            };
            let file = Arc::new(file);
            cut.inner.names.lock().unwrap().insert(name.clone(), Arc::clone(&file));
            cut.inner.durable.lock().unwrap().insert(name.clone(), file);
        }
        cut
    }
}

fn not_found(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, name.to_owned())
}

impl Disk for SimDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let faults = Arc::clone(&self.inner.faults);
        let file = Arc::new(SimFile { faults, ..SimFile::default() });
        self.inner.names.lock().unwrap().insert(name.into(), Arc::clone(&file));
        Ok(file)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let names = self.inner.names.lock().unwrap();
        let file = names.get(name).ok_or_else(|| not_found(name))?;
        Ok(Arc::<SimFile>::clone(file))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.inner.names.lock().unwrap().keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut names = self.inner.names.lock().unwrap();
        let file = names.remove(from).ok_or_else(|| not_found(from))?;
        names.insert(to.into(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.names.lock().unwrap().remove(name).map(drop).ok_or_else(|| not_found(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        let names = self.inner.names.lock().unwrap().clone();
        *self.inner.durable.lock().unwrap() = names;
        Ok(())
    }

    fn describe(&self, name: &str) -> String {
        format!("sim/{name}")
    }
}

impl SimFile {
    fn extend(&self, end: u64) -> io::Result<()> {
        if end > self.allocated.load(Ordering::Relaxed) {
            if self.faults.full.load(Ordering::Relaxed) {
                return Err(io::Error::new(io::ErrorKind::StorageFull, "simulated"));
            }
            self.allocated.store(end, Ordering::Relaxed);
        }
        let mut now = self.now.lock().unwrap();
        if end as usize > now.len() {
            now.resize(end as usize, 0);
        }
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.now.lock().unwrap().len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        let now = self.now.lock().unwrap();
        let at = at as usize;
        let part = now.get(at..at + buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(part);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.extend(at + bytes.len() as u64)?;
        self.now.lock().unwrap()[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.extend(len)?;
        self.sync()
    }

    fn sync(&self) -> io::Result<()> {
        if self.faults.sync_fails.load(Ordering::Relaxed) {
            return Err(io::Error::other("simulated sync failure"));
        }
        self.faults.syncs.fetch_add(1, Ordering::Relaxed);
        if self.faults.sync_lies.load(Ordering::Relaxed) {
            return Ok(());
        }
        *self.durable.lock().unwrap() = self.now.lock().unwrap().clone();
        Ok(())
    }
}
