//! Results arriving in every order, over either transport, and around crashes of the server: one digest.
//!
//! Sites are the client's own transports, driven call by call, so that an order of arrival is what the seed says: a result is
//! sent when the one before it has been acknowledged. Every round of every run has an order of its own. The numbers are such
//! that a sum in double precision depends on the order of its terms.

mod federation;

use std::collections::{BTreeMap, BTreeSet};

use sheaf_client::participant::TransportKind;
use sheaf_domain::rng::SeededRng;

use federation::Federation;

/// Runs of each transport; every other one has an optimiser, whose moments carry a difference on.
const RUNS: u64 = 100;
/// Runs during whose every round the server is killed between two arrivals; three of either rule.
const KILLED_RUNS: u64 = 6;
const ROUNDS: u32 = 2;
/// Rules whose first step is the weighted mean.
const RULES: [&str; 2] = ["fedavg", "fedyogi"];

/// What each site hands in, and its weight: terms that cancel, that vanish beside others, and that no binary number is.
const PARTS: [(&str, f64, [f32; 3]); 5] = [
    ("ada", 0.1, [1e30, 1.0, 0.1]),
    ("bo", 1.0 / 3.0, [1.0, 1e-9, 0.3]),
    ("cy", 0.1, [-1e30, 3e-17, 0.7]),
    ("dee", 7e-3, [0.5, -1.0, 1e10]),
    ("eli", 12_345.678, [3e-5, 0.2, -1e-3]),
];

/// The order in which sites hand in, by their place in [`PARTS`].
fn order_of(seed: u64, round: u32) -> [usize; PARTS.len()] {
    let mut order = std::array::from_fn(|idx| idx);
    SeededRng::new(seed, &format!("arrivals/{round}")).shuffle(&mut order);
    order
}

/// The digests of a rule's models by round; one each is as it should be.
type Digests = BTreeMap<(&'static str, u64), BTreeSet<String>>;

fn rule_of(seed: u64) -> &'static str {
    RULES[usize::from(seed % 2 == 1)]
}

#[test]
fn the_order_of_the_terms_would_matter() {
    let sums = (0..RUNS).map(|seed| {
        let terms = order_of(seed, 1).map(|idx| PARTS[idx].1 * f64::from(PARTS[idx].2[0]));
        terms.iter().sum::<f64>().to_bits()
    });
    assert!(sums.collect::<BTreeSet<u64>>().len() > 3);
}

#[test]
fn one_digest_of_every_order_of_arrival_on_either_transport_and_around_crashes() {
    let run = |transports: &[TransportKind], kills: bool| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut federation = Federation::start(transports).await;
            match kills {
                false => federation.play(0..RUNS).await,
                true => federation.play_with_kills(0..KILLED_RUNS).await,
            }
        })
    };
    let (grpc, https) = (TransportKind::Grpc, TransportKind::Https);
    let found = std::thread::scope(|scope| {
        let parts = [
            scope.spawn(|| run(&[grpc], false)),
            scope.spawn(|| run(&[https], false)),
            scope.spawn(|| run(&[grpc, https], true)),
        ];
        parts.map(|part| part.join().unwrap())
    });
    for (part, digests) in found.iter().enumerate() {
        assert_eq!(digests.len(), RULES.len() * ROUNDS as usize, "part {part}");
        assert!(digests.values().all(|models| models.len() == 1), "part {part}: {digests:#?}");
        assert_eq!(digests, &found[0], "part {part}");
    }
}
