//! The file system of the machine.

use std::{
    fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use rustix::{
    fs::{FallocateFlags, SeekFrom, fallocate, seek, statvfs, syncfs},
    io::Errno,
};

use crate::{Disk, Error, File, map::Map};

const LOCK: &str = "sluice.lock";
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// A directory of the machine, locked against other processes for as long as this value lives.
pub struct RealDisk {
    root: PathBuf,
    directory: fs::File,
    /// Held open for its lock.
    _lock: fs::File,
}

impl RealDisk {
    /// Makes the directory if need be and locks it. Fails with [`Error::InUse`] when it is locked already.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, Error> {
        let root = root.into();
        let named = |action| {
            let path = root.display().to_string();
            move |source| Error::io(action, &path, source)
        };
        fs::create_dir_all(&root).map_err(named("create directory"))?;
        let path = root.join(LOCK);
        let lock = fs::File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(named("create lock file in"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(Error::InUse(root.display().to_string())),
            Err(fs::TryLockError::Error(source)) => return Err(named("lock")(source)),
        }
        let directory = fs::File::open(&root).map_err(named("open"))?;
        Ok(Self { root, directory, _lock: lock })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    fn at(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &str) -> io::Result<Arc<dyn File>> {
        let file = fs::File::options().read(true).write(true).open(self.at(path))?;
        Ok(Arc::new(RealFile { file, map: OnceLock::new() }))
    }

    fn create(&self, path: &str, len: u64) -> io::Result<Arc<dyn File>> {
        let file = fs::File::options().read(true).write(true).create(true).truncate(false).open(self.at(path))?;
        if file.metadata()?.len() < len {
            file.set_len(len)?;
        }
        Ok(Arc::new(RealFile { file, map: OnceLock::new() }))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.at(dir)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.at(path))
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        fs::create_dir_all(self.at(path))
    }

    fn remove_dir_all(&self, path: &str) -> io::Result<()> {
        match fs::remove_dir_all(self.at(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        fs::File::open(self.at(dir))?.sync_all()
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(syncfs(&self.directory)?)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = statvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

struct RealFile {
    file: fs::File,
    /// The whole file, mapped when a slice of it is first asked for.
    map: OnceLock<Map>,
}

impl File for RealFile {
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, at)
    }

    fn allocate(&self, from: u64, len: u64) -> io::Result<()> {
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, from, len) {
            Err(Errno::OPNOTSUPP) => write_zeros(&self.file, from, len),
            done => Ok(done?),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        match seek(&self.file, SeekFrom::Data(from)) {
            Ok(at) => Ok(Some(at.max(from))),
            Err(Errno::NXIO) => Ok(None),
            // A file system that keeps no track of holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok((from < self.len()?).then_some(from)),
            Err(error) => Err(error.into()),
        }
    }

    fn slice(&self, from: u64, len: usize) -> io::Result<Bytes> {
        let whole = match self.map.get() {
            Some(whole) => whole,
            None => {
                let whole = Map::new(&self.file, self.file.metadata()?.len())?;
                self.map.get_or_init(|| whole)
            }
        };
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        whole.slice(from, len).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// For file systems without `fallocate`: writes zeros where the file still reads as zeros.
fn write_zeros(file: &fs::File, from: u64, len: u64) -> io::Result<()> {
    let mut present = vec![0; ZEROS.len()];
    let mut at = from;
    while at < from + len {
        let part = ((from + len - at) as usize).min(ZEROS.len());
        file.read_exact_at(&mut present[..part], at)?;
        if present[..part].iter().all(|byte| *byte == 0) {
            file.write_all_at(&ZEROS[..part], at)?;
        }
        at += part as u64;
    }
    Ok(())
}
