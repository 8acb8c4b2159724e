//! The power goes at a random moment: what was acknowledged is there, nothing is there in part, no room is lost.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use sheaf_blob::suite::{hold, noise, put};
use sheaf_blob::{BlobStore, DiskBlobs, OpenOptions};
use sheaf_domain::rng::SeededRng;
use sheaf_domain::{ByteSize, Digest};
use sheaf_runtime::TaskScope;

use sheaf_testkit::files::FaultyFiles;

const MAX_BYTES: u64 = 1024 * 1024;
const DIR: &str = "/blobs";

/// What is known of a hold: by what the store said, and by what was asked for.
#[derive(Debug, Default, Clone)]
struct Known {
    stored: Vec<Digest>,
    asked: Vec<Digest>,
    release_asked: bool,
    released: bool,
}

type Ledger = Arc<Mutex<BTreeMap<String, Known>>>;

pub(crate) async fn open(files: &FaultyFiles) -> DiskBlobs {
    let options = OpenOptions {
        max_bytes: ByteSize::from_bytes(MAX_BYTES),
        segment_len: ByteSize::from_bytes(64 * 1024),
        ..OpenOptions::default()
    };
    DiskBlobs::open_on(Arc::new(files.clone()), Path::new(DIR), options).await.unwrap()
}

/// Stores and releases until the store refuses, noting what was asked and what was acknowledged.
async fn work(store: Arc<DiskBlobs>, ledger: Ledger, seed: u64, worker: u64) {
    let mut rng = SeededRng::new(seed, &format!("worker {worker}"));
    for step in 0_u64.. {
        let name = format!("task/{seed}/{worker}/{step}");
        let keeper = hold(&name);
        for _ in 0..=rng.below(3) {
            // A few objects are common to all workers, so that copies meet.
            let len = usize::try_from(1 + rng.below(20_000)).unwrap();
            let object =
                if rng.below(3) == 0 { noise(rng.below(4), 9_000) } else { noise(rng.next_u64(), len) };
            let digest = Digest::of(&object);
            ledger.lock().unwrap().entry(name.clone()).or_default().asked.push(digest);
            if put(&*store, &keeper, object).await.is_err() {
                return;
            }
            ledger.lock().unwrap().get_mut(&name).unwrap().stored.push(digest);
        }
        if rng.below(8) > 0 {
            ledger.lock().unwrap().get_mut(&name).unwrap().release_asked = true;
            if store.release(&keeper).await.is_err() {
                return;
            }
            ledger.lock().unwrap().get_mut(&name).unwrap().released = true;
        }
    }
}

/// What is in the store is what the ledger allows; each object is whole.
async fn check(store: &DiskBlobs, ledger: &mut BTreeMap<String, Known>, context: &str) {
    for (name, known) in &mut *ledger {
        let held: Vec<Digest> =
            store.held(&hold(name)).await.unwrap().into_iter().map(|(digest, _)| digest).collect();
        for digest in &held {
            assert!(known.asked.contains(digest), "{context}: {name} holds what it never asked for");
            store.verify(digest).await.unwrap_or_else(|error| panic!("{context}: {name}: {error}"));
        }
        if known.released {
            assert!(held.is_empty(), "{context}: {name} was released and came back");
        }
        let complete = known.stored.iter().all(|digest| held.contains(digest));
        let gone = known.release_asked && held.is_empty();
        assert!(complete || gone, "{context}: {name} lost an acknowledged object");
        // What was found is acknowledged from now on.
        *known = Known { stored: held.clone(), asked: held, release_asked: false, released: false };
    }
    for keeper in store.holds().await.unwrap() {
        assert!(ledger.contains_key(keeper.as_str()), "{context}: {keeper} is nobody's");
    }
}

async fn power_goes_at_random_moments(seed: u64) {
    let mut rng = SeededRng::new(seed, "power");
    let mut files = FaultyFiles::new(seed);
    let mut ledger = BTreeMap::new();
    let mut store = open(&files).await;
    for generation in 0..4 {
        let context = format!("seed {seed}, generation {generation}");
        files.power_off_after(1 + rng.below(250));
        let running = Arc::new(store);
        let shared: Ledger = Arc::new(Mutex::new(std::mem::take(&mut ledger)));
        let scope = TaskScope::new();
        let tasks: Vec<_> = (0..3)
            .map(|worker| {
                let (store, ledger) = (Arc::clone(&running), Arc::clone(&shared));
                scope.spawn(work(store, ledger, seed * 10 + generation, worker))
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        running.close().await;
        ledger = std::mem::take(&mut *shared.lock().unwrap());
        files = files.after_power_loss();
        // Recovery itself may be cut off at any of its steps, too.
        files.power_off_after(rng.below(8));
        let options = OpenOptions { segment_len: ByteSize::from_bytes(64 * 1024), ..OpenOptions::default() };
        if let Ok(store) = DiskBlobs::open_on(Arc::new(files.clone()), Path::new(DIR), options).await {
            store.close().await;
        }
        files = files.after_power_loss();
        store = open(&files).await;
        check(&store, &mut ledger, &context).await;
    }
    no_room_is_lost(&files, &store, seed).await;
}

async fn no_room_is_lost(files: &FaultyFiles, store: &DiskBlobs, seed: u64) {
    for keeper in store.holds().await.unwrap() {
        store.release(&keeper).await.unwrap();
    }
    let usage = store.usage();
    assert_eq!((usage.objects, usage.stored_bytes), (0, 0), "seed {seed}");
    let header = 4096;
    let largest = store.writer(&hold("all"), MAX_BYTES - header).await;
    assert!(largest.is_ok(), "seed {seed}: {:?}", largest.err());
    assert!(files.content(&Path::new(DIR).join("index.new")).is_none(), "seed {seed}");
    assert!(files.bytes() < 2 * 1024 * 1024, "seed {seed}: {} bytes are left", files.bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_loss_takes_nothing_acknowledged() {
    for seed in 0..60 {
        power_goes_at_random_moments(seed).await;
    }
}
