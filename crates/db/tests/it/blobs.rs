use std::path::Path;
use std::time::Duration;

use base::Digest;
use db::{BlobError, BlobStore};
use testkit::clock::FixedClock;
use tokio::task::JoinSet;

use crate::support::ids;

fn store(folder: &Path, max_bytes: u64) -> BlobStore {
    BlobStore::open(folder.join("blobs"), ids(&FixedClock::new()), max_bytes).unwrap()
}

fn temporary_files(folder: &Path) -> usize {
    std::fs::read_dir(folder.join("blobs/tmp")).unwrap().count()
}

#[test]
fn content_is_kept_once_under_its_digest() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = store(folder.path(), 1000);
    let first = blobs.put_bytes(b"hello").unwrap();
    assert_eq!(
        (first.digest, first.size_bytes, first.already_existed),
        (Digest::of(b"hello"), 5, false)
    );
    assert!(blobs.put_bytes(b"hello").unwrap().already_existed);
    assert_eq!(blobs.read(&first.digest).unwrap(), b"hello");
    let hex = first.digest.hex();
    assert!(
        folder
            .path()
            .join("blobs/sha256")
            .join(&hex[..2])
            .join(&hex)
            .is_file()
    );
    assert_eq!(temporary_files(folder.path()), 0);

    blobs.remove(&first.digest).unwrap();
    blobs.remove(&first.digest).unwrap();
    assert!(!blobs.has(&first.digest));
    assert!(matches!(
        blobs.read(&first.digest),
        Err(BlobError::Missing(_))
    ));
    assert_eq!(blobs.put_bytes(b"").unwrap().size_bytes, 0);
}

#[test]
fn what_is_refused_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = store(folder.path(), 4);
    assert!(matches!(
        blobs.put_bytes(b"12345"),
        Err(BlobError::TooLarge { max_bytes: 4 })
    ));
    assert!(blobs.put_bytes(b"1234").is_ok());
    let mut writer = blobs.writer().unwrap();
    writer.write(b"ab").unwrap();
    let wrong = writer.finish_as(Some(Digest::of(b"cd")));
    assert!(matches!(wrong, Err(BlobError::WrongDigest { .. })));
    assert!(!blobs.has(&Digest::of(b"ab")));
    let mut given_up = blobs.writer().unwrap();
    given_up.write(b"ab").unwrap();
    drop(given_up);
    assert_eq!(temporary_files(folder.path()), 0);
}

#[test]
fn a_changed_file_is_found_out_and_can_be_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = store(folder.path(), 1000);
    let digest = blobs.put_bytes(b"hello").unwrap().digest;
    std::fs::write(blobs.path(&digest), b"hullo").unwrap();
    assert!(matches!(
        blobs.read(&digest),
        Err(BlobError::WrongDigest { .. })
    ));
    assert!(matches!(
        blobs.verify(&digest),
        Err(BlobError::WrongDigest { .. })
    ));
    std::fs::write(blobs.path(&digest), b"hel").unwrap();
    assert!(
        !blobs.put_bytes(b"hello").unwrap().already_existed,
        "a cut file is replaced"
    );
    blobs.verify(&digest).unwrap();
}

#[test]
fn the_sweep_takes_only_what_nobody_writes() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = store(folder.path(), 1000);
    let mut alive = blobs.writer().unwrap();
    alive.write(b"abc").unwrap();
    let left_behind = folder.path().join("blobs/tmp/left-behind");
    std::fs::write(&left_behind, b"half").unwrap();
    let long_ago = std::fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
    std::fs::File::options()
        .write(true)
        .open(&left_behind)
        .unwrap()
        .set_times(long_ago)
        .unwrap();
    assert_eq!(blobs.sweep(Duration::from_secs(3600)).unwrap(), 1);
    assert!(!left_behind.exists());
    assert_eq!(alive.finish().unwrap().size_bytes, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn streams_are_verified_and_writers_of_the_same_do_not_meet() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = store(folder.path(), 10_000_000);
    let content: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let digest = Digest::of(&content);
    let mut writers = JoinSet::new();
    for _ in 0..8 {
        let (blobs, content) = (blobs.clone(), content.clone());
        writers.spawn(async move { blobs.put(content.as_slice(), Some(digest)).await.unwrap() });
    }
    for blob in writers.join_all().await {
        assert_eq!((blob.digest, blob.size_bytes), (digest, 1_000_000));
    }
    blobs.verify(&digest).unwrap();
    let wrong = blobs.put(&b"other"[..], Some(digest)).await;
    assert!(matches!(wrong, Err(BlobError::WrongDigest { .. })));
    assert_eq!(temporary_files(folder.path()), 0);
}

#[test]
fn projects_do_not_see_each_others_blobs() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = store(folder.path(), 1000);
    let ids = ids(&FixedClock::new());
    let (ours, theirs) = (blobs.of_project(ids.make()), blobs.of_project(ids.make()));
    let digest = ours.put_bytes(b"secret").unwrap().digest;
    assert_eq!(ours.read(&digest).unwrap(), b"secret");
    for stranger in [&theirs, &blobs] {
        assert!(!stranger.has(&digest));
        assert!(matches!(stranger.read(&digest), Err(BlobError::Missing(_))));
    }
    assert!(!theirs.put_bytes(b"secret").unwrap().already_existed);
    ours.remove(&digest).unwrap();
    assert_eq!(theirs.read(&digest).unwrap(), b"secret");
    assert_eq!(temporary_files(folder.path()), 0);
}
