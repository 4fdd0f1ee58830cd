//! Opening folders and files that are not as they should be.

use flowkit_core::port::{StoreReply, StoreRequest};
use redb::{Database, TableDefinition};
use std::fs;
use std::path::Path;

use super::records::{put_task, task};
use super::{Owner, ask};
use crate::format::SCHEMA_VERSION;
use crate::{EmbeddedStore, OpenError};

fn refusal(path: &Path) -> OpenError {
    match EmbeddedStore::open(path) {
        Ok(_) => panic!("opened"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_store_is_made_in_a_new_folder_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b");
    let mut owner = Owner::of(EmbeddedStore::open(&path).unwrap()).await;
    owner.commit(vec![put_task(task("t"))]).await.unwrap();
    owner.sync().await.unwrap();
    drop(owner);
    let store = EmbeddedStore::open(&path).unwrap();
    let request = StoreRequest::ListTasks {
        after: None,
        limit: 5,
    };
    match ask(&store, request).await {
        StoreReply::Tasks(page) => assert_eq!(page.tasks[0].task, task("t")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_second_opener_is_told_who_holds_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let first = EmbeddedStore::open(folder.path()).unwrap();
    let error = refusal(folder.path());
    let pid = std::process::id();
    assert!(matches!(error, OpenError::InUse { pid: Some(p), .. } if p == pid));
    assert!(
        error
            .to_string()
            .contains(&format!("is in use by process {pid}"))
    );
    drop(first);
    EmbeddedStore::open(folder.path()).unwrap();
}

#[test]
fn a_file_in_place_of_the_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "x").unwrap();
    assert!(matches!(refusal(&path), OpenError::NotAFolder { .. }));
    assert!(matches!(refusal(&path.join("below")), OpenError::Io { .. }));
}

#[test]
fn files_of_others_and_empty_files_are_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flowkit.redb");
    for content in [&b""[..], b"short", &[7; 100_000]] {
        fs::write(&path, content).unwrap();
        let error = refusal(folder.path());
        let expected = if content.is_empty() {
            matches!(error, OpenError::Damaged { .. })
        } else {
            matches!(error, OpenError::NotOurs { .. } | OpenError::Damaged { .. })
        };
        assert!(expected, "{error:?}");
        assert_eq!(fs::read(&path).unwrap(), content);
    }
    fs::remove_file(&path).unwrap();
    let other = Database::create(&path).unwrap();
    let transaction = other.begin_write().unwrap();
    transaction
        .open_table(TableDefinition::<u64, u64>::new("theirs"))
        .unwrap();
    transaction.commit().unwrap();
    drop(other);
    assert!(matches!(refusal(folder.path()), OpenError::NotOurs { .. }));
}

/// What opening says of a store whose mark is of this schema.
fn marked(schema: u8) -> OpenError {
    let folder = tempfile::tempdir().unwrap();
    drop(EmbeddedStore::open(folder.path()).unwrap());
    let db = Database::open(folder.path().join("flowkit.redb")).unwrap();
    let transaction = db.begin_write().unwrap();
    let definition = TableDefinition::<&[u8], &[u8]>::new("meta");
    transaction
        .open_table(definition)
        .unwrap()
        .insert(&b"flowkit_schema"[..], &[schema][..])
        .unwrap();
    transaction.commit().unwrap();
    drop(db);
    refusal(folder.path())
}

#[test]
fn a_newer_schema_is_refused() {
    let error = marked(9);
    let (found, known) = (9, SCHEMA_VERSION);
    assert!(
        matches!(error, OpenError::NewerSchema { found: f, known: k, .. } if (f, k) == (found, known)),
        "{error}"
    );
}

#[test]
fn an_older_schema_is_refused_and_not_taken_for_damage() {
    let error = marked(1);
    assert!(
        matches!(error, OpenError::OlderSchema { found: 1, known, .. } if known == SCHEMA_VERSION),
        "{error}"
    );
}
