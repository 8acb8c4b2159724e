//! Results arriving in every order, over either transport, and around crashes of the server: one digest.
//!
//! Sites are the client's own transports, driven call by call, so that an order of arrival is what the seed says: a result is
//! sent when the one before it has been acknowledged. Every round of every run has an order of its own. The numbers are such
//! that a sum in double precision depends on the order of its terms.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use sheaf_bench::load::{Member, Party, Way, enrol_all};
use sheaf_client::participant::TransportKind;
use sheaf_domain::rng::SeededRng;
use sheaf_domain::{
    Digest, Manifest, Metrics, PIECE_LEN_DEFAULT, RunId, Submission, SubmitOutcome, SubmittedSlot,
};
use sheaf_messages::{Order, outcome_from_wire, submission_to_wire, v1};
use sheaf_tensor::{Dtype, TensorSpec};

use crate::process::{Process, eventually};
use crate::world::{World, body, file_plan};

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

struct Federation {
    members: Vec<Member>,
    server: Option<Process>,
    world: World,
}

impl Federation {
    async fn start(transports: &[TransportKind]) -> Federation {
        let world = World::new();
        let server = world.serve("");
        world.model("init.safetensors", &[0.0; 3]);
        for rule in RULES {
            let plan = file_plan(rule, ROUNDS, 5, "init.safetensors", "");
            world.write(
                &format!("{rule}.toml"),
                plan.replace("\"fedavg\"\n[cohort]", &format!("\"{rule}\"\n[cohort]")),
            );
        }
        let mut members = Vec::new();
        for ((site, ..), transport) in PARTS.iter().zip(transports.iter().cycle()) {
            world.ok(&format!("invite {site}"));
            let party = Party {
                kits: vec![world.path(format!("{site}.kit"))],
                transport: *transport,
                plaintext: None,
                server_pid: server.pid(),
            };
            members.extend(enrol_all(&Way::of(&party).unwrap(), &party.kits).await.unwrap());
        }
        Federation { members, server: Some(server), world }
    }

    /// Begins a run for each seed.
    fn begin(&self, seeds: Range<u64>) -> BTreeMap<RunId, u64> {
        let run = |seed: u64| {
            let run =
                self.world.json(&format!("run {}.toml", rule_of(seed)))["run"].as_str().unwrap().to_owned();
            (run.parse().unwrap(), seed)
        };
        std::thread::scope(|scope| {
            let begin =
                |part: u64| seeds.clone().filter(move |seed| seed % 4 == part).map(run).collect::<Vec<_>>();
            let parts: Vec<_> = (0..4).map(|part| scope.spawn(move || begin(part))).collect();
            parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
        })
    }

    /// The work of a round of every run, site by site.
    async fn orders(&self, round: u32, num_runs: usize) -> BTreeMap<RunId, Vec<Order>> {
        let waits = self.members.iter().map(async |member| {
            let mut orders: Vec<Order> = Vec::new();
            while orders.len() < num_runs {
                let have = orders.iter().map(|order| order.assignment.task.to_string()).collect();
                let request = v1::NextRequest { have, hold_ms: 20_000 };
                let reply = patiently(|| member.transport.next(request.clone())).await;
                orders.extend(reply.work.iter().map(|order| Order::from_wire(order).unwrap()));
            }
            orders
        });
        let mut by_run: BTreeMap<RunId, Vec<Order>> = BTreeMap::new();
        for order in futures_util::future::join_all(waits).await.into_iter().flatten() {
            assert_eq!(order.assignment.round, round);
            by_run.entry(order.assignment.run).or_default().push(order);
        }
        by_run
    }

    /// Hands in a site's result; returns once it is acknowledged.
    async fn arrive(&self, site_idx: usize, order: &Order) {
        let (site, num_examples, values) = PARTS[site_idx];
        let assignment = &order.assignment;
        assert_eq!(assignment.site.as_str(), site);
        let bytes: Bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let digest = Digest::of(&bytes);
        let spec = TensorSpec::new("w", Dtype::F32, [values.len() as u64]).unwrap();
        let manifest = Manifest::over_pieces(vec![spec], PIECE_LEN_DEFAULT, &[digest]).unwrap();
        let slots = vec![SubmittedSlot { slot: assignment.outputs[0].slot.clone(), manifest }];
        let submission = Submission { task: assignment.task, slots, num_examples, metrics: Metrics::new() };
        let transport = &self.members[site_idx].transport;
        patiently(|| transport.put_piece(assignment.task, digest, bytes.clone())).await;
        let reply = patiently(|| transport.submit(submission_to_wire(&submission))).await;
        assert_eq!(outcome_from_wire(reply).unwrap(), SubmitOutcome::Accepted);
    }

    /// Plays runs to their end, many at once.
    async fn play(&self, seeds: Range<u64>) -> Digests {
        let runs = self.begin(seeds);
        for round in 1..=ROUNDS {
            let orders = self.orders(round, runs.len()).await;
            let arrivals = orders.iter().map(async |(run, orders)| {
                for site_idx in order_of(runs[run], round) {
                    self.arrive(site_idx, &orders[site_idx]).await;
                }
            });
            stream::iter(arrivals).buffer_unordered(16).collect::<()>().await;
        }
        self.digests(&runs)
    }

    /// Plays runs to their end, one arrival after another, and kills the server once in every round of each.
    async fn play_with_kills(&mut self, seeds: Range<u64>) -> Digests {
        let runs = self.begin(seeds);
        for round in 1..=ROUNDS {
            for (run, orders) in self.orders(round, runs.len()).await {
                let seed = runs[&run];
                let killed_after =
                    SeededRng::new(seed, &format!("kill/{round}")).below(PARTS.len() as u64 - 1);
                for (site_idx, count) in order_of(seed, round).into_iter().zip(0..) {
                    self.arrive(site_idx, &orders[site_idx]).await;
                    if count == killed_after {
                        self.server.take().unwrap().crash();
                        self.server = Some(self.world.serve_again(""));
                    }
                }
            }
        }
        self.digests(&runs)
    }

    fn digests(&self, runs: &BTreeMap<RunId, u64>) -> Digests {
        let told = eventually("every run is over", || {
            let told = self.world.json("ls");
            told.as_array().unwrap().iter().all(|run| run["phase"] == "finished").then_some(told)
        });
        let (run, seed) = runs.first_key_value().unwrap();
        let journal = self.world.journal(&run.to_string());
        let arrived = journal.iter().filter(|entry| entry["kind"] == "submitted").map(body);
        let arrived: Vec<String> = arrived.map(|entry| entry["site"].as_str().unwrap().to_owned()).collect();
        let sent: Vec<&str> =
            (1..=ROUNDS).flat_map(|round| order_of(*seed, round)).map(|idx| PARTS[idx].0).collect();
        assert_eq!(arrived, sent, "run {run}, seed {seed}");
        let mut digests = Digests::new();
        for run in told.as_array().unwrap() {
            let seed = runs[&run["run"].as_str().unwrap().parse().unwrap()];
            for closed in run["history"].as_array().unwrap() {
                let model = closed["model"].as_str().unwrap().to_owned();
                let round = closed["round"].as_u64().unwrap();
                digests.entry((rule_of(seed), round)).or_default().insert(model);
            }
        }
        digests
    }
}

fn rule_of(seed: u64) -> &'static str {
    RULES[usize::from(seed % 2 == 1)]
}

/// Calls again while the server may help, a number of times only an outage exceeds.
async fn patiently<T, F>(mut call: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, sheaf_client::Error>>,
{
    for _ in 0..20 {
        match call().await {
            Err(error) if error.is_transient() => {}
            done => return done.unwrap(),
        }
    }
    panic!("the server does not answer: {:?}", call().await.err())
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
