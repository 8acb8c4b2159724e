//! A server process and sites that are the client's own transports, driven call by call.

use std::collections::BTreeMap;
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

use super::{Digests, PARTS, ROUNDS, RULES, order_of, rule_of};
use crate::process::{Process, eventually};
use crate::world::{World, body, file_plan};

/// Runs that go on at once; a server has a limit.
const AT_ONCE: usize = 50;

/// A server and its sites.
pub(super) struct Federation {
    members: Vec<Member>,
    server: Option<Process>,
    world: World,
}

impl Federation {
    /// Starts a server and enrols the sites, over the given transports in turn.
    pub(super) async fn start(transports: &[TransportKind]) -> Federation {
        let world = World::new();
        let server = world.serve("");
        for (rule, first) in RULES.into_iter().zip([0.0, 0.25]) {
            world.model(&format!("{rule}.safetensors"), &[first; 3]);
            let plan = file_plan(rule, ROUNDS, 5, &format!("{rule}.safetensors"), "");
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
        // Two commands that hand in one first model at once would share its upload: each rule has a model of its own.
        let begin = |rule: usize| {
            let seeds = seeds.clone().filter(move |seed| rule_of(*seed) == RULES[rule]);
            seeds.map(run).collect::<Vec<_>>()
        };
        let both = std::thread::scope(|scope| {
            [0, 1].map(|rule| scope.spawn(move || begin(rule))).map(|part| part.join().unwrap())
        });
        both.into_iter().flatten().collect()
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
    pub(super) async fn play(&self, seeds: Range<u64>) -> Digests {
        let mut digests = Digests::new();
        for from in seeds.clone().step_by(AT_ONCE) {
            let runs = self.begin(from..seeds.end.min(from + AT_ONCE as u64));
            for round in 1..=ROUNDS {
                let orders = self.orders(round, runs.len()).await;
                let arrivals = orders.iter().map(async |(run, orders)| {
                    for site_idx in order_of(runs[run], round) {
                        self.arrive(site_idx, &orders[site_idx]).await;
                    }
                });
                stream::iter(arrivals).buffer_unordered(16).collect::<()>().await;
            }
            for (of, models) in self.digests(&runs) {
                digests.entry(of).or_default().extend(models);
            }
        }
        digests
    }

    /// Plays runs to their end, one arrival after another, and kills the server once in every round of each.
    pub(super) async fn play_with_kills(&mut self, seeds: Range<u64>) -> Digests {
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
            let Some(seed) = runs.get(&run["run"].as_str().unwrap().parse().unwrap()) else { continue };
            for closed in run["history"].as_array().unwrap() {
                let model = closed["model"].as_str().unwrap().to_owned();
                let round = closed["round"].as_u64().unwrap();
                digests.entry((rule_of(*seed), round)).or_default().insert(model);
            }
        }
        digests
    }
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
