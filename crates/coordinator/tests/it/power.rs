//! The power goes under the blob store in the middle of anything: the model is the same in the end.
//!
//! The state store keeps what it was given; of the blob store's files, whatever was not flushed is lost or torn. A journal that
//! speaks of bytes must find them, and what was accepted is accepted once.

use std::path::Path;
use std::sync::Arc;

use sheaf_blob::{DiskBlobs, OpenOptions};
use sheaf_domain::rng::SeededRng;
use sheaf_domain::{ByteSize, Digest, JournalId, RunId, RunPhase, Submission, SubmitOutcome, SubmittedSlot};
use sheaf_testkit::files::FaultyFiles;

use crate::world::{Backend, Site, World, num_examples, plan, submission};

/// How many calls that change files there are before the power goes, at most.
const CALLS_MAX: u64 = 60;
const SEEDS: u64 = 12;

/// A coordinator whose bytes lie on files that forget.
struct Machine {
    world: World,
    files: FaultyFiles,
    sites: Vec<Site>,
    /// What was accepted, to be asked again.
    told: Vec<(usize, Submission)>,
}

impl Machine {
    async fn start(seed: u64) -> Machine {
        let mut world = World::start(Backend::Memory).await;
        let files = FaultyFiles::new(seed);
        world.crash().await;
        world.blob = open(&files).await;
        world.boot().await.unwrap();
        let sites = world.sites(3).await;
        Machine { world, files, sites, told: Vec::new() }
    }

    /// Lets the power go, if it has not yet, and starts again on what is left.
    async fn cut(&mut self) {
        self.files.power_off_after(0);
        self.world.crash().await;
        self.world.blob.close().await;
        self.files = self.files.after_power_loss();
        self.world.blob = open(&self.files).await;
        self.world.boot().await.unwrap();
        for (site, submission) in &self.told {
            let again = self.world.handle.submit(&self.sites[*site].who, submission.clone()).await.unwrap();
            assert!(matches!(again, SubmitOutcome::Duplicate | SubmitOutcome::TooLate { .. }), "{again:?}");
        }
    }

    /// Works until the run is over or something fails; true when it is over.
    async fn work(&mut self, run: RunId) -> bool {
        loop {
            let status = self.world.status(run).await;
            if status.phase.is_over() {
                assert!(matches!(status.phase, RunPhase::Finished { .. }), "{:?}", status.phase);
                return true;
            }
            for idx in 0..self.sites.len() {
                if !self.answer(idx).await {
                    return false;
                }
            }
            // A fold fails by itself when the power is off; nobody has an answer to it.
            if self.files.is_off() {
                return false;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Does what a site is asked for; false when it could not.
    async fn answer(&mut self, idx: usize) -> bool {
        let (world, site) = (&self.world, &self.sites[idx]);
        for order in world.orders(site).await {
            let mut slots = Vec::new();
            if let Some((slot, _)) = order.expects.first() {
                let Ok(result) = world.result(site, &order).await else { return false };
                let Ok(manifest) = world.upload(site, &order, &result).await else { return false };
                slots.push(SubmittedSlot { slot: slot.clone(), manifest });
            }
            let answer = submission(order.assignment.task, slots, num_examples(&site.who.name));
            match world.handle.submit(&site.who, answer.clone()).await {
                Ok(SubmitOutcome::Accepted) => self.told.push((idx, answer)),
                Ok(other) => panic!("{other:?}"),
                Err(error) => {
                    assert!(self.files.is_off(), "{error}");
                    return false;
                }
            }
        }
        true
    }
}

async fn open(files: &FaultyFiles) -> Arc<dyn sheaf_blob::BlobStore> {
    let options = OpenOptions { segment_len: ByteSize::from_bytes(64 * 1024), ..OpenOptions::default() };
    Arc::new(DiskBlobs::open_on(Arc::new(files.clone()), Path::new("/blobs"), options).await.unwrap())
}

/// The final model's digest, and how often the power went.
async fn drive(seed: u64, cuts_max: u32) -> (Digest, u32) {
    let mut rng = SeededRng::new(seed, "power cuts");
    let mut machine = Machine::start(seed).await;
    machine.world.present(&machine.sites).await;
    let run = machine.world.create(&plan(3, 3, "[strategy]\nkind = \"fedyogi\"")).await;
    let mut cuts = 0;
    loop {
        if cuts < cuts_max {
            machine.files.power_off_after(rng.below(CALLS_MAX));
        }
        if machine.work(run).await {
            break;
        }
        machine.cut().await;
        cuts += 1;
    }
    // Once more after the end: what is told of a finished run is there.
    machine.cut().await;
    let kinds = machine.world.kinds(JournalId::Run(run)).await;
    let count = |kind: &str| kinds.iter().filter(|found| *found == kind).count();
    assert_eq!((count("submitted"), count("folded")), (1 + 3 * 3, 4), "seed {seed}");
    assert_eq!(machine.told.len(), count("submitted"), "seed {seed}");
    (machine.world.digest(run).await, cuts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_loss_at_any_moment_changes_no_bit() {
    let (undisturbed, _) = drive(0, 0).await;
    let mut cuts = 0;
    for seed in 0..SEEDS {
        let (digest, times) = drive(seed, 40).await;
        assert_eq!(digest, undisturbed, "seed {seed}");
        cuts += times;
    }
    assert!(u64::from(cuts) > SEEDS, "the power went only {cuts} times");
}
