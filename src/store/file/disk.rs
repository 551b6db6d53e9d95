//! The directory: its lock, and the file with the rows. Everything here blocks; only the writer's thread comes here.
//!
//! | file | what it is |
//! |---|---|
//! | `lock` | held, by a lock of the operating system's, by the process that has the directory open (D8) |
//! | `locks.redb` | the rows, by redb: a tree of pages that a commit never writes over, with checksums |
//! | `locks.redb.new` | the same while it is made anew from memory (D3) |

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

use super::row::{Meta, Row, RowKey, Rows};
use crate::store::StoreError;

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("locks");
/// Of the file's pages, in memory. The rows of 100,000 locks are about 10 MB.
const CACHE_BYTES: usize = 64 << 20;

/// Opens the file behind a database, and makes it if it is not there.
pub(super) type Opener = Arc<dyn Fn(&Path) -> io::Result<Box<dyn StorageBackend>> + Send + Sync>;

pub(super) fn open_file(path: &Path) -> io::Result<Box<dyn StorageBackend>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = FileBackend::new(options.open(path)?).map_err(io::Error::other)?;
    Ok(Box::new(file))
}

/// An open directory.
pub(super) struct Disk {
    dir: PathBuf,
    opener: Opener,
    /// `None` after a failure, until it is opened again.
    db: Option<Database>,
    /// Whether the operating system may have forgotten what it was given to write.
    is_doubtful: Arc<AtomicBool>,
    _lock: File,
}

/// What was found in a directory.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) rows: Vec<(RowKey, Row)>,
    /// `None` in a new one.
    pub(super) meta: Option<Meta>,
}

impl Disk {
    /// Opens the directory, and makes it if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Config`] that names what is in the way. Nothing is changed then (D9).
    pub(super) fn open(dir: &Path, opener: Opener) -> Result<(Self, Found), StoreError> {
        let lock = lock(dir)?;
        let mut this = Self { dir: dir.into(), opener, db: None, is_doubtful: Arc::default(), _lock: lock };
        let path = this.path();
        let unreadable = |why: &dyn std::fmt::Display| {
            let what =
                "it was left as it is: put a copy in its place, or move it away to begin without the locks in it";
            config(format!("{} cannot be read ({why}); {what}", path.display()))
        };
        match fs::metadata(&path) {
            // It is never there before it is whole.
            Ok(file) if file.len() == 0 => return Err(unreadable(&"it is empty")),
            Ok(_) => {}
            Err(why) if why.kind() == io::ErrorKind::NotFound => {
                this.is_doubtful.store(true, Ordering::Release);
                return Ok((this, Found { rows: Vec::new(), meta: None }));
            }
            Err(why) => return Err(cannot("read", &path, &why)),
        }
        let db = this.database(&path).map_err(|why| match why.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => cannot("write to", &path, &why),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => cannot("write to", &path, &why),
            _ => unreadable(&why),
        })?;
        let read = catch_unwind(AssertUnwindSafe(|| read(&db)));
        let found = match read {
            Ok(Ok(found)) => found.ok_or_else(|| unreadable(&"of a newer version, or not of this program"))?,
            Ok(Err(why)) => return Err(unreadable(&why)),
            Err(_) => return Err(unreadable(&"it is damaged")),
        };
        this.db = Some(db);
        Ok((this, found))
    }

    fn path(&self) -> PathBuf {
        self.dir.join("locks.redb")
    }

    fn database(&self, path: &Path) -> io::Result<Database> {
        let is_doubtful = Arc::clone(&self.is_doubtful);
        let file = Watched { file: (self.opener)(path)?, is_doubtful };
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
        catch_unwind(AssertUnwindSafe(|| builder.create_with_backend(file)))
            .map_err(|_| io::Error::other("it is damaged"))?
            .map_err(|why| io_error(why.into()))
    }

    /// Whether the file may not be written any further (D3): it has to be made anew.
    pub(super) fn is_to_be_made_anew(&self) -> bool {
        self.is_doubtful.load(Ordering::Acquire)
    }

    /// Makes a new file of all rows, and puts it in the place of the old one. `rows` yields them in pages.
    pub(super) fn make_anew(&mut self, rows: impl Iterator<Item = Rows>, meta: &Meta) -> io::Result<()> {
        self.db = None;
        let (path, new) = (self.path(), self.dir.join("locks.redb.new"));
        if let Err(why) = fs::remove_file(&new)
            && why.kind() != io::ErrorKind::NotFound
        {
            return Err(why);
        }
        self.is_doubtful.store(false, Ordering::Release);
        let made = self.database(&new).and_then(|db| {
            for page in rows {
                commit(&db, &page, meta)?;
            }
            commit(&db, &Rows::new(), meta)?;
            drop(db);
            if self.is_to_be_made_anew() {
                return Err(io::Error::other("it could not be synced"));
            }
            fs::rename(&new, &path)?;
            sync_dir(&self.dir)?;
            self.database(&path)
        });
        self.is_doubtful.store(made.is_err(), Ordering::Release);
        self.db = Some(made?);
        Ok(())
    }

    /// Writes rows, and what there is to say of them, in one step that is on the disk when it returns.
    ///
    /// # Errors
    /// All of it may be there, or nothing.
    pub(super) fn commit(&mut self, rows: &Rows, meta: &Meta) -> io::Result<()> {
        let db = match self.db.take() {
            Some(db) => db,
            None => self.database(&self.path())?,
        };
        commit(&db, rows, meta)?;
        self.db = Some(db);
        Ok(())
    }
}

fn commit(db: &Database, rows: &Rows, meta: &Meta) -> io::Result<()> {
    let committing = || -> Result<(), redb::Error> {
        let transaction = db.begin_write()?;
        {
            let (mut table, mut name, mut value) = (transaction.open_table(TABLE)?, Vec::new(), Vec::new());
            table.insert(Meta::NAME, &*meta.bytes())?;
            for (key, row) in rows {
                key.spell(&mut name);
                match row {
                    Some(row) => {
                        row.write(&mut value);
                        drop(table.insert(&*name, &*value)?);
                    }
                    None => drop(table.remove(&*name)?),
                }
            }
        }
        Ok(transaction.commit()?)
    };
    let committed = catch_unwind(AssertUnwindSafe(committing));
    committed.unwrap_or_else(|_| Err(redb::Error::Corrupted("a panic".into()))).map_err(io_error)
}

/// `None` if there is something that this version does not know.
fn read(db: &Database) -> Result<Option<Found>, redb::Error> {
    let table = match db.begin_read()?.open_table(TABLE) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(why) => return Err(why.into()),
    };
    let mut found = Found { rows: Vec::new(), meta: None };
    for entry in table.iter()? {
        let (name, value) = entry?;
        if name.value() == Meta::NAME {
            found.meta = Meta::read(value.value());
            continue;
        }
        match (RowKey::read(name.value()), Row::read(value.value())) {
            (Some(name), Some(row)) => found.rows.push((name, row)),
            _ => return Ok(None),
        }
    }
    Ok(found.meta.is_some().then_some(found))
}

fn lock(dir: &Path) -> Result<File, StoreError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(|why| cannot("make the directory", dir, &why))?;
    let path = dir.join("lock");
    let opened = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = opened.map_err(|why| cannot("write to", &path, &why))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let why = "another process has it open, or another store of this one; one at a time may";
            return Err(config(format!("{} is in use: {why}", dir.display())));
        }
        Err(TryLockError::Error(why)) => return Err(cannot("lock", &path, &why)),
    }
    // That the directory's names are on the disk is as needed as that the pages are.
    sync_dir(dir).map_err(|why| cannot("sync", dir, &why))?;
    Ok(file)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(dir)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = dir;
    Ok(())
}

fn config(why: String) -> StoreError {
    StoreError::Config(why.into())
}

fn cannot(what: &str, path: &Path, why: &io::Error) -> StoreError {
    config(format!("cannot {what} {}: {why}", path.display()))
}

fn io_error(why: redb::Error) -> io::Error {
    match why {
        redb::Error::Io(why) => why,
        other => io::Error::other(other.to_string()),
    }
}

/// A file of which it is known whether a sync has failed: what the system was given before may be lost then, and a later
/// sync would not say so.
#[derive(Debug)]
struct Watched {
    file: Box<dyn StorageBackend>,
    is_doubtful: Arc<AtomicBool>,
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data().inspect_err(|_| self.is_doubtful.store(true, Ordering::Release))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}
