//! From a plan's fold rule to the fold that carries it out.

use sheaf_aggregate::{Clip, Rule};
use sheaf_domain::{ClipBound, FoldRule};

use crate::Error;

/// The fold of a plan's rule for a tensor of this name.
///
/// A [`Rule::GeometricMedian`] is to be shown that tensor alone, any other rule may be shown all tensors it is the rule of.
///
/// # Errors
/// [`Error::Adopts`] for [`FoldRule::Adopt`], which is no fold: the caller takes the one submission as it is.
/// [`Error::Unknown`] for a rule this version does not know.
///
/// # Examples
/// ```
/// use sheaf_aggregate::Rule;
/// use sheaf_domain::FoldRule;
///
/// assert_eq!(sheaf_strategy::fold_rule(&FoldRule::Median, "w"), Ok(Rule::Median));
/// assert_eq!(sheaf_strategy::fold_rule(&FoldRule::Adopt, "w"), Err(sheaf_strategy::Error::Adopts));
/// ```
pub fn fold_rule(rule: &FoldRule, tensor: &str) -> Result<Rule, Error> {
    match *rule {
        FoldRule::WeightedMean => Ok(Rule::WeightedMean),
        FoldRule::CompatibleMean => Ok(Rule::CompatibleMean),
        FoldRule::CompatibleMeanAndSum { ref summed } => {
            let is_summed = summed.iter().any(|ending| tensor.ends_with(ending));
            Ok(if is_summed { Rule::CompatibleSum } else { Rule::CompatibleMean })
        }
        FoldRule::GeometricMedian => Ok(Rule::GeometricMedian),
        FoldRule::NormClippedMean { bound: ClipBound::NormRatio(ratio) } => {
            Ok(Rule::NormClippedMean(Clip::NormRatio(ratio)))
        }
        FoldRule::NormClippedMean { bound: ClipBound::NormMax(bound) } => {
            Ok(Rule::NormClippedMean(Clip::NormMax(bound)))
        }
        FoldRule::Median => Ok(Rule::Median),
        FoldRule::TrimmedMean { share } => Ok(Rule::TrimmedMean { share }),
        FoldRule::Krum { byzantine, keep } => Ok(Rule::Krum { byzantine, keep }),
        FoldRule::Adopt => Err(Error::Adopts),
        _ => Err(Error::Unknown { what: "fold rule" }),
    }
}
