//! Opening the file: is it whole, is it ours, can this program read it?

use redb::{Database, DatabaseError, ReadableDatabase, StorageBackend, StorageError, TableError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use crate::clock::Clock;
use crate::disk::{Behind, BehindBackend};
use crate::error::{OpenError, Stop};
use crate::folder::failed;
use crate::format::{SCHEMA_VERSION, Table, decode_plain, encode_plain};
use crate::shared::{Shared, cause_of_panic};

/// Key of the schema version in `meta`.
const SCHEMA: &[u8] = b"flowkit_schema";
/// Key of the deployment record in `meta`.
pub(crate) const DEPLOYMENT: &[u8] = b"deployment";

/// Memory for pages, in bytes; taken only as it is filled. Half of it may be pages not yet written.
/// At 50,000 records a second with 400,000 tasks in flight neither half nor double of it made a
/// difference to processor time.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

type Disk = Box<dyn StorageBackend>;

/// Makes an empty store on an empty disk.
pub(crate) fn create(disk: Disk, path: &Path) -> Result<(), OpenError> {
    guarded(path, || {
        let (db, _) = database(disk, path)?;
        fill(&db).map_err(|stop| stopped(path, stop))?;
        db.close().map_err(|error| refused(path, error))
    })
}

/// Opens a store; `path` is for messages.
pub(crate) fn open(
    disk: Disk,
    path: &Path,
    clock: Clock,
) -> Result<(Arc<Shared>, Arc<Behind>), OpenError> {
    let len = disk.len().map_err(failed("read", path))?;
    if len == 0 {
        return Err(damaged(path, "it is empty"));
    }
    guarded(path, || {
        let (db, behind) = database(disk, path)?;
        // A repair at open is made durable before anything rests on it.
        behind.drain().map_err(failed("write", path))?;
        check_schema(&db, path)?;
        let synced = db
            .begin_read()
            .map_err(|error| stopped(path, error.into()))?;
        Ok((Arc::new(Shared::new(db, synced, clock)), behind))
    })
}

fn database(disk: Disk, path: &Path) -> Result<(Database, Arc<Behind>), OpenError> {
    let behind = Behind::new(disk).map_err(failed("read", path))?;
    let db = Database::builder()
        .set_cache_size(CACHE_BYTES)
        // After a clean close redb trusts the file, and reads check no checksum: without this a
        // damaged page is a panic later, or a wrong row. Costs about 1 ms per MB.
        .set_check_integrity_on_open(true)
        .create_with_backend(BehindBackend(behind.clone()))
        .map_err(|error| refused(path, error))?;
    Ok((db, behind))
}

fn fill(db: &Database) -> Result<(), Stop> {
    let transaction = db.begin_write()?;
    for table in Table::ALL {
        transaction.open_table(table.definition())?;
    }
    let mut version = Vec::new();
    // A number always has a binary form.
    if encode_plain(&SCHEMA_VERSION, &mut version).is_ok() {
        let mut meta = transaction.open_table(Table::Meta.definition())?;
        meta.insert(SCHEMA, &version[..])?;
    }
    transaction.commit()?;
    Ok(())
}

fn check_schema(db: &Database, path: &Path) -> Result<(), OpenError> {
    let not_ours = |detail: &str| OpenError::NotOurs {
        path: path.to_owned(),
        detail: detail.to_owned(),
    };
    let read = db
        .begin_read()
        .map_err(|error| stopped(path, error.into()))?;
    let meta = match read.open_table(Table::Meta.definition()) {
        Ok(meta) => meta,
        Err(TableError::Storage(error)) => return Err(stopped(path, error.into())),
        Err(_) => return Err(not_ours("a redb file of another program")),
    };
    let version = meta
        .get(SCHEMA)
        .map_err(|error| stopped(path, error.into()))?
        .ok_or_else(|| not_ours("a redb file without our mark"))?;
    let found: u32 = decode_plain("schema", version.value()).map_err(|why| damaged(path, &why))?;
    if found > SCHEMA_VERSION {
        return Err(OpenError::NewerSchema {
            path: path.to_owned(),
            found,
            known: SCHEMA_VERSION,
        });
    }
    if found < SCHEMA_VERSION {
        let detail = format!("of schema {found}, made before the first release");
        return Err(not_ours(&detail));
    }
    Ok(())
}

/// A damaged file may make redb panic.
fn guarded<T>(path: &Path, f: impl FnOnce() -> Result<T, OpenError>) -> Result<T, OpenError> {
    catch_unwind(AssertUnwindSafe(f))
        .unwrap_or_else(|panic| Err(damaged(path, &cause_of_panic(&*panic))))
}

fn damaged(path: &Path, detail: &str) -> OpenError {
    OpenError::Damaged {
        path: path.to_owned(),
        detail: detail.to_owned(),
    }
}

fn stopped(path: &Path, stop: Stop) -> OpenError {
    match stop {
        Stop::Store(error) => match *error {
            redb::Error::Io(source) => failed("read or write", path)(source),
            error => damaged(path, &error.to_string()),
        },
        Stop::Answer(error) => damaged(path, &error.to_string()),
    }
}

fn refused(path: &Path, error: DatabaseError) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            OpenError::InUse {
                path: path.to_owned(),
                pid: None,
            }
        }
        DatabaseError::Storage(StorageError::Io(source)) => match source.kind() {
            io::ErrorKind::InvalidData => OpenError::NotOurs {
                path: path.to_owned(),
                detail: source.to_string(),
            },
            io::ErrorKind::UnexpectedEof => damaged(path, "it is shorter than it should be"),
            _ => failed("read or write", path)(source),
        },
        DatabaseError::UpgradeRequired(format) => OpenError::NotOurs {
            path: path.to_owned(),
            detail: format!("an old redb file of format {format}"),
        },
        error => damaged(path, &error.to_string()),
    }
}
