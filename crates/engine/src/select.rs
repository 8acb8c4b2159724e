//! Who works on a stage: seeded sampling in canonical order.

use std::collections::BTreeSet;

use sheaf_domain::rng::SeededRng;
use sheaf_domain::{Selector, SiteName, StageName};

/// What a selector comes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// These participants.
    Cohort(BTreeSet<SiteName>),
    /// Not enough are present.
    Waiting { present: u32, needed: u32 },
}

/// Applies `selector` to those present.
///
/// The outcome depends only on the arguments: the same journal samples the same cohorts.
pub(crate) fn select(
    selector: &Selector,
    present: &BTreeSet<SiteName>,
    earlier: impl Fn(&StageName) -> BTreeSet<SiteName>,
    seed: u64,
    (round, stage): (u32, &StageName),
) -> Selection {
    let num_present = u32::try_from(present.len()).unwrap_or(u32::MAX);
    match selector {
        Selector::Sample { fraction, min } => {
            let needed = (*min).max(1);
            if num_present < needed {
                return Selection::Waiting { present: num_present, needed };
            }
            let wanted = share_of(*fraction, num_present).max(needed);
            Selection::Cohort(sample(present, wanted, seed, &format!("cohort/{round}/{stage}")))
        }
        Selector::Named { .. } | Selector::Drawn { .. } if present.is_empty() => {
            Selection::Waiting { present: 0, needed: 1 }
        }
        Selector::Named { sites } => Selection::Cohort(sites.clone()),
        Selector::Drawn { sites, places } => Selection::Cohort(draw(sites, places, seed, round)),
        Selector::SameAs(stage) => Selection::Cohort(earlier(stage)),
        _ => match present.first() {
            Some(first) => Selection::Cohort(BTreeSet::from([first.clone()])),
            None => Selection::Waiting { present: 0, needed: 1 },
        },
    }
}

/// `ceil(share × total)`, at least 1 and at most `total`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share in (0, 1] of a u32 is a u32"
)]
pub(crate) fn share_of(share: f64, total: u32) -> u32 {
    // A share such as 0.6 × 5 must not become 4 because of the last bit.
    let exact = share * f64::from(total);
    let ceiling = if (exact - exact.round()).abs() < 1e-9 { exact.round() } else { exact.ceil() };
    (ceiling as u32).clamp(1, total.max(1))
}

fn sample(present: &BTreeSet<SiteName>, wanted: u32, seed: u64, label: &str) -> BTreeSet<SiteName> {
    let mut names: Vec<&SiteName> = present.iter().collect();
    if (wanted as usize) < names.len() {
        SeededRng::new(seed, label).shuffle(&mut names);
        names.truncate(wanted as usize);
    }
    names.into_iter().cloned().collect()
}

/// Those in the places of an order that depends on seed and round alone.
fn draw(sites: &BTreeSet<SiteName>, places: &[(u32, u32)], seed: u64, round: u32) -> BTreeSet<SiteName> {
    let mut names: Vec<&SiteName> = sites.iter().collect();
    SeededRng::new(seed, &format!("drawn/{round}")).shuffle(&mut names);
    let is_drawn = |place: u32| places.iter().any(|(from, to)| (*from..*to).contains(&place));
    (0..).zip(names).filter(|(place, _)| is_drawn(*place)).map(|(_, site)| site.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sites(count: u32) -> BTreeSet<SiteName> {
        (0..count).map(|i| SiteName::new(format!("site-{i:02}")).unwrap()).collect()
    }

    #[test]
    fn a_share_is_rounded_up_but_not_by_float_error() {
        assert_eq!(share_of(0.6, 5), 3);
        assert_eq!(share_of(0.61, 5), 4);
        assert_eq!(share_of(1.0, 7), 7);
        assert_eq!(share_of(0.001, 7), 1);
    }

    #[test]
    fn sampling_depends_on_seed_and_label_only() {
        let selector = Selector::Sample { fraction: 0.3, min: 2 };
        let stage = StageName::new("a").unwrap();
        let draw = |seed, round| select(&selector, &sites(20), |_| BTreeSet::new(), seed, (round, &stage));
        assert_eq!(draw(1, 1), draw(1, 1));
        assert_ne!(draw(1, 1), draw(2, 1));
        assert_ne!(draw(1, 1), draw(1, 2));
        assert!(matches!(draw(1, 1), Selection::Cohort(cohort) if cohort.len() == 6));
    }

    #[test]
    fn the_named_are_chosen_also_where_they_are_not_there() {
        let stage = StageName::new("a").unwrap();
        let chosen = |selector: &Selector, present: u32, round| {
            select(selector, &sites(present), |_| BTreeSet::new(), 1, (round, &stage))
        };
        let named = Selector::Named { sites: sites(4) };
        assert_eq!(chosen(&named, 0, 1), Selection::Waiting { present: 0, needed: 1 });
        assert_eq!(chosen(&named, 1, 1), Selection::Cohort(sites(4)));
    }

    #[test]
    fn stages_that_draw_from_the_same_divide_them() {
        let (one, other) = (StageName::new("a").unwrap(), StageName::new("b").unwrap());
        let drawn = |places: &[(u32, u32)], round, stage| {
            let selector = Selector::Drawn { sites: sites(6), places: places.to_vec() };
            match select(&selector, &sites(1), |_| BTreeSet::new(), 7, (round, stage)) {
                Selection::Cohort(cohort) => cohort,
                waiting => panic!("{waiting:?}"),
            }
        };
        let mut orders = BTreeSet::new();
        for round in 1..20 {
            let (first, rest) = (drawn(&[(0, 2)], round, &one), drawn(&[(2, 6)], round, &other));
            assert_eq!((first.len(), rest.len()), (2, 4));
            assert!(first.is_disjoint(&rest));
            assert_eq!(drawn(&[(0, 2), (2, 6)], round, &other), sites(6));
            orders.insert(first);
        }
        assert!(orders.len() > 1, "every round draws anew");
    }

    #[test]
    fn too_few_present_is_a_wait_with_numbers() {
        let selector = Selector::Sample { fraction: 1.0, min: 3 };
        let stage = StageName::new("x").unwrap();
        let selection = select(&selector, &sites(2), |_| BTreeSet::new(), 0, (1, &stage));
        assert_eq!(selection, Selection::Waiting { present: 2, needed: 3 });
    }
}
