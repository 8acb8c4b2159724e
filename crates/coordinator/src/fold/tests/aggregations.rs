//! Rules that look at tensors by themselves or by their names, and optimisers between the folded value and what is told.

use proptest::prelude::*;
use sheaf_domain::GradientOptimiser;
use sheaf_domain::rng::SeededRng;

use super::*;

type Tensors = Vec<(&'static str, Vec<f32>)>;

impl World {
    /// Stores a model.
    async fn tensors(&self, tensors: &Tensors) -> Manifest {
        let mut made = Manifest::empty();
        for (name, values) in tensors {
            made.tensors.extend(self.named(name, values).await.tensors);
        }
        made
    }

    /// Folds onto version 4 and gives the values of version 5.
    async fn folded(
        &self,
        rule: FoldRule,
        budget: u64,
        current: &Tensors,
        rows: &[(Tensors, f64)],
    ) -> Vec<Vec<f32>> {
        let mut handed_in = Vec::new();
        for (tensors, num_examples) in rows {
            handed_in.push((self.tensors(tensors).await, *num_examples));
        }
        let current = (Arc::new(self.tensors(current).await), Digest::of(b"4"));
        let order = order(handed_in, (rule, ServerStep::Replace), current);
        let hold = |_: &LineageName, _| Ok(Hold::new("made").unwrap());
        let made = Folder::new(&self.blob, &self.compute, budget).fold(&order, hold).await.unwrap();
        let mut values = self.values(&made[0].manifest).await.into_iter();
        let lens = made[0].manifest.specs().map(|spec| usize::try_from(spec.shape.num_elements()).unwrap());
        lens.map(|len| values.by_ref().take(len).collect()).collect()
    }
}

#[tokio::test]
async fn tensors_whose_names_end_in_certain_ways_are_added_up() {
    let world = World::new();
    let row = |w: f32, u: f32| vec![("w", vec![w, -w]), ("x_u", vec![u]), ("u", vec![w])];
    let rule = FoldRule::CompatibleMeanAndSum { summed: vec!["_u".to_owned(), "_v".to_owned()] };
    let rows = [(row(2.0, 5.0), 3.0), (row(6.0, 7.0), 1.0)];
    let made = world.folded(rule, 1 << 16, &row(1.0, 1.0), &rows).await;
    assert_eq!(made, [vec![3.0, -3.0], vec![12.0], vec![3.0]]);
}

#[tokio::test]
async fn a_geometric_median_is_each_tensors_own() {
    let world = World::new();
    // In every tensor another one is far away; nobody would count for much in a median of whole models.
    let row = |a: f32, b: f32| vec![("a", vec![a, a]), ("none", vec![]), ("b", vec![b])];
    let rows = [(row(1.0, 1.0), 1.0), (row(1.0, 1000.0), 1.0), (row(1000.0, 1.0), 1.0), (row(1.0, 1.0), 1.0)];
    let made = world.folded(FoldRule::GeometricMedian, 1 << 16, &row(0.0, 0.0), &rows).await;
    assert!(made[1].is_empty());
    for value in made.concat() {
        assert!((value - 1.0).abs() < 0.5, "{made:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn what_a_fold_may_hold_does_not_change_a_bit(seed: u64, k in 1usize..7) {
        let mut rng = SeededRng::new(seed, "budget");
        #[expect(clippy::cast_possible_truncation, reason = "any float32 will do")]
        let mut values = |len: usize| (0..len).map(|_| rng.normal() as f32).collect::<Vec<f32>>();
        let mut model = || vec![("a", values(1)), ("b_u", values(40_000)), ("c", values(513)), ("d", values(7))];
        let (current, rows): (Tensors, Vec<Tensors>) = (model(), (0..k).map(|_| model()).collect());
        let rows: Vec<(Tensors, f64)> = rows.into_iter().zip([3.0, 5.0, 1.0, 1.0, 9.0, 2.0]).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for rule in [
            FoldRule::GeometricMedian,
            FoldRule::CompatibleMeanAndSum { summed: vec!["_u".to_owned()] },
        ] {
            let of = |budget| runtime.block_on(World::new().folded(rule.clone(), budget, &current, &rows));
            let whole = of(64 << 20);
            for budget in [0, 1 << 16, 1 << 20] {
                prop_assert!(whole == of(budget), "{:?} within {} bytes", rule, budget);
            }
        }
    }
}

/// Three rounds of a model, everybody told in some way; its values after each.
async fn stepped(optimiser: GradientOptimiser, as_difference: bool, codec: Option<&str>) -> Vec<Vec<f32>> {
    let world = World::new();
    let step =
        ServerStep::Told { as_difference, codec: codec.map(str::to_owned), optimiser: Some(optimiser) };
    let mut current =
        BTreeMap::from([(LineageName::global(), (0, world.model(&[1.0, -20.0, 0.25]).await.0))]);
    let mut rounds = Vec::new();
    for version in 1..=3 {
        let base = world.values(&current[&LineageName::global()].1).await;
        let mut handed_in = Vec::new();
        for (moved, num_examples) in [([0.5, -3.0, 0.0], 20.0), ([-0.25, 2.0, 0.0], 60.0)] {
            let row: Vec<f32> = base.iter().zip(moved).map(|(base, moved)| base + moved).collect();
            handed_in.push((world.model(&row).await.0.as_ref().clone(), num_examples));
        }
        let now = (Arc::clone(&current[&LineageName::global()].1), Digest::of(b"now"));
        let mut order = order(handed_in, (FoldRule::WeightedMean, step.clone()), now);
        order.current = current
            .iter()
            .map(|(lineage, (version, manifest))| {
                (lineage.clone(), (*version, Arc::clone(manifest), Digest::of(b"now")))
            })
            .collect();
        let hold = |_: &LineageName, _| Ok(Hold::new("made").unwrap());
        let folder = Folder::new(&world.blob, &world.compute, 1 << 16).with_coder(Some(Arc::new(Halves)));
        for new in folder.fold(&order, hold).await.unwrap() {
            assert_eq!(new.version, version);
            current.insert(new.lineage, (new.version, Arc::new(new.manifest)));
        }
        rounds.push(world.values(&current[&LineageName::global()].1).await);
    }
    rounds
}

const ADAM: GradientOptimiser =
    GradientOptimiser::Adam { learning_rate: 0.5, beta1: 0.5, beta2: 0.9, start: 0.25, epsilon: 1e-8 };
const ADAGRAD: GradientOptimiser =
    GradientOptimiser::Adagrad { learning_rate: 0.5, start: 0.1, epsilon: 1e-10 };

/// The expected values are openfl 1.9's own, in float32.
#[tokio::test]
async fn optimisers_step_from_round_to_round_whether_differences_are_told_or_not() {
    let adam = [
        [0.895_923_6, -19.850_93, 0.166_666_66],
        [0.825_422_4, -19.589_704, 0.126_306_47],
        [0.765_713_7, -19.268_333, 0.104_531_236],
    ];
    let adagrad = [
        [0.903_054_2, -19.539_278, 0.25],
        [0.807_880_8, -19.200_462, 0.25],
        [0.714_386_17, -18.919_98, 0.25],
    ];
    for (optimiser, expected) in [(ADAM, adam), (ADAGRAD, adagrad)] {
        for as_difference in [false, true] {
            let rounds = stepped(optimiser, as_difference, None).await;
            for (value, expected) in rounds.concat().into_iter().zip(expected.concat()) {
                assert!(
                    (value - expected).abs() <= 1e-6_f32 * f32::abs(expected),
                    "{optimiser:?}: {rounds:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn what_a_codec_tells_of_a_step_is_what_the_next_step_is_from() {
    let (exact, halved) = (stepped(ADAGRAD, true, None).await, stepped(ADAGRAD, true, Some("halves")).await);
    let moved = |rounds: &[Vec<f32>]| f64::from(rounds[0][1]) + 20.0;
    assert!((moved(&halved) - moved(&exact) / 2.0).abs() < 1e-5, "{exact:?}, {halved:?}");
    // The updates are from what everybody has, so gradients are the same again, and so are the steps, but for the half.
    let last = |rounds: &[Vec<f32>]| f64::from(rounds[2][1]) - f64::from(rounds[1][1]);
    assert!((last(&halved) - last(&exact) / 2.0).abs() < 1e-5, "{exact:?}, {halved:?}");
}

#[tokio::test]
async fn an_optimiser_keeps_nothing_of_what_may_be_left_out() {
    let world = World::new();
    let current = (Arc::new(world.named("m", &[1.0, 2.0]).await), Digest::of(b"4"));
    let handed_in = vec![(world.named("m", &[3.0, 4.0]).await, 1.0)];
    let step = ServerStep::Told { as_difference: true, codec: None, optimiser: Some(ADAM) };
    let mut order = order(handed_in, (FoldRule::CompatibleMean, step), current);
    order.loose.insert(slot());
    let hold = |_: &LineageName, _| Ok(Hold::new("made").unwrap());
    let made = Folder::new(&world.blob, &world.compute, 1 << 16).fold(&order, hold).await.unwrap();
    let named: Vec<_> = made.iter().map(|new| new.lineage.as_str()).collect();
    assert_eq!(named, ["global", "global.difference"]);
    assert_eq!(world.values(&made[0].manifest).await, [3.0, 4.0]);
}
