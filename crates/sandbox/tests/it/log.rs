//! Logs are read as they grow, in pieces, and kept within their bound without moving what follows.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use sheaf_domain::{ByteSize, ErrorKind};
use sheaf_runtime::Compute;
use sheaf_sandbox::{LOG_READ_BYTES_MAX, Tail, Trimmed, trim};
use tokio::sync::Notify;

use crate::place::Place;

/// Long enough that only a wake-up can end the wait.
const HARDLY_EVER: Duration = Duration::from_secs(3600);

fn append(place: &Place, bytes: &[u8]) {
    OpenOptions::new().append(true).create(true).open(place.path("log")).unwrap().write_all(bytes).unwrap();
}

#[tokio::test]
async fn a_reader_is_woken_and_gets_what_is_new() {
    let place = Place::new();
    append(&place, b"one\n");
    let woken = Notify::new();
    let mut tail = Tail::from_offset(place.path("log"), 0, &Compute::new(1));
    assert_eq!(tail.next(&woken, HARDLY_EVER).await.unwrap().bytes, b"one\n");
    let (chunk, ()) = tokio::join!(tail.next(&woken, HARDLY_EVER), async {
        append(&place, b"two\n");
        woken.notify_waiters();
    });
    let chunk = chunk.unwrap();
    assert_eq!((chunk.from, chunk.bytes.as_slice(), tail.offset()), (4, &b"two\n"[..], 8));
    // Nobody wakes it, so it looks by itself.
    let (chunk, ()) =
        tokio::join!(tail.next(&woken, Duration::from_millis(1)), async { append(&place, b"three\n") });
    assert_eq!(chunk.unwrap().bytes, b"three\n");
}

#[tokio::test]
async fn pieces_are_bounded_and_join_up() {
    let place = Place::new();
    let all: Vec<u8> = (0..200_000_u32).map(|idx| u8::try_from(idx % 251).unwrap()).collect();
    append(&place, &all);
    let mut tail = Tail::from_offset(place.path("log"), 0, &Compute::new(1));
    let mut joined = Vec::new();
    loop {
        let chunk = tail.read().await.unwrap();
        assert!(chunk.bytes.len() <= LOG_READ_BYTES_MAX && chunk.from == joined.len() as u64);
        if chunk.bytes.is_empty() {
            break;
        }
        joined.extend(chunk.bytes);
    }
    assert!(joined == all, "the pieces do not join up");
}

#[tokio::test]
async fn trimming_frees_the_disk_and_moves_nothing() {
    let place = Place::new();
    let compute = Compute::new(1);
    let (log, kept) = (place.path("log"), ByteSize::from_bytes(256 * 1024));
    append(&place, &vec![b'a'; 1024 * 1024]);
    append(&place, b"the newest line\n");
    let trimmed = trim(&log, kept, &compute).await.unwrap();
    if trimmed == Trimmed::Unsupported {
        return; // The file system of this machine's temporary files has no holes.
    }
    let Trimmed::To(to) = trimmed else { panic!("{trimmed:?}") };
    let metadata = std::fs::metadata(&log).unwrap();
    assert_eq!(metadata.len(), 1024 * 1024 + 16);
    assert!(metadata.blocks() * 512 <= 384 * 1024, "{} blocks are still there", metadata.blocks());
    assert_eq!(trim(&log, kept, &compute).await.unwrap(), Trimmed::Whole);
    // A reader that was slow is told where it goes on, one at the end notices nothing.
    let slow = Tail::from_offset(&log, 10, &compute).read().await.unwrap();
    assert_eq!((slow.from, slow.bytes.first()), (to, Some(&b'a')));
    let newest = Tail::from_offset(&log, 1024 * 1024, &compute).read().await.unwrap();
    assert_eq!(newest.bytes, b"the newest line\n");
}

#[tokio::test]
async fn a_log_cut_short_goes_on_at_its_end() {
    let place = Place::new();
    append(&place, b"short\n");
    let mut tail = Tail::from_offset(place.path("log"), 1_000_000, &Compute::new(1));
    assert_eq!((tail.read().await.unwrap().bytes, tail.offset()), (Vec::new(), 6));
    append(&place, b"more\n");
    assert_eq!(tail.read().await.unwrap().bytes, b"more\n");
}

#[tokio::test]
async fn what_is_no_log_is_not_read() {
    let place = Place::new();
    std::os::unix::fs::symlink(place.path("data/key"), place.path("log")).unwrap();
    let compute = Compute::new(1);
    assert!(Tail::from_offset(place.path("log"), 0, &compute).read().await.is_err(), "a link was followed");
    assert!(Tail::from_offset(place.path("data"), 0, &compute).read().await.is_err(), "a directory was read");
    let missing = Tail::from_offset(place.path("nothing"), 0, &compute).read().await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}
