//! What a site accepts of a plan: runs, trainers, keys, and bounds for numbers. The site's own word, never a server's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sheaf_domain::{ConfigMap, RunId};

use super::Error;

/// A site's policy. An absent list accepts everything; an empty one nothing.
///
/// # Examples
/// ```
/// use sheaf_client::trainer::SitePolicy;
/// use sheaf_domain::{ConfigMap, ConfigValue, RunId};
///
/// let policy: SitePolicy = toml::from_str(
///     "runs = [\"digits-*\"]\nkeys = [\"epochs\"]\nlimits = { epochs = { max = 10 } }",
/// )?;
/// let run = RunId::new(1).ok_or("zero")?;
/// let config = ConfigMap::from([("epochs".to_owned(), ConfigValue::Int(50))]);
/// let refusal = policy.admit(run, "digits-a", "mlp", &config).unwrap_err();
/// assert_eq!(refusal.to_string(), "the site's policy refuses plan key \"epochs\": 50 is above 10");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SitePolicy {
    /// Patterns of run names, in which `*` stands for any characters, and run ids.
    pub runs: Option<Vec<String>>,
    /// Names of trainers.
    pub trainers: Option<Vec<String>>,
    /// Plan keys; those with a limit count as named here.
    pub keys: Option<Vec<String>>,
    /// Bounds of numeric plan keys. A key that is absent from a plan is not held to them: the trainer's default holds.
    pub limits: BTreeMap<String, KeyLimit>,
}

/// The bounds of a numeric plan key, both inclusive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyLimit {
    /// The least value accepted.
    pub min: Option<f64>,
    /// The greatest value accepted.
    pub max: Option<f64>,
}

impl SitePolicy {
    /// Whether work may be done here.
    ///
    /// # Errors
    /// [`Error::Refused`], naming the run, the trainer or the key.
    pub fn admit(&self, run: RunId, run_name: &str, trainer: &str, config: &ConfigMap) -> Result<(), Error> {
        if let Some(runs) = &self.runs {
            let id = run.to_string();
            if !runs.iter().any(|pattern| *pattern == id || matches(pattern, run_name)) {
                return Err(refused(
                    format!("run {run_name:?}"),
                    "it is not among the runs this site accepts",
                ));
            }
        }
        if let Some(trainers) = &self.trainers
            && !trainers.iter().any(|name| name == trainer)
        {
            let reason = "it is not among the trainers this site accepts";
            return Err(refused(format!("trainer {trainer:?}"), reason));
        }
        config.iter().filter(|(key, _)| *key != "trainer").try_for_each(|(key, value)| {
            let limit = self.limits.get(key);
            let listed = self.keys.as_ref().is_none_or(|keys| keys.contains(key));
            if !listed && limit.is_none() {
                return Err(refused_key(key, "it is not among the keys this site accepts"));
            }
            let Some(limit) = limit else { return Ok(()) };
            let number = value.as_f64().ok_or_else(|| refused_key(key, "its limits ask for a number"))?;
            limit.admit(number).map_err(|reason| refused_key(key, &reason))
        })
    }
}

impl KeyLimit {
    fn admit(&self, number: f64) -> Result<(), String> {
        // A NaN is within no bounds.
        if let Some(min) = self.min.filter(|min| number.is_nan() || number < *min) {
            return Err(format!("{number} is below {min}"));
        }
        if let Some(max) = self.max.filter(|max| number.is_nan() || number > *max) {
            return Err(format!("{number} is above {max}"));
        }
        Ok(())
    }
}

/// Whether a name fits a pattern in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        // The leftmost place leaves the most for what follows.
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

fn refused(what: String, reason: &str) -> Error {
    Error::Refused { what, reason: reason.to_owned() }
}

fn refused_key(key: &str, reason: &str) -> Error {
    refused(format!("plan key {:?}", key.chars().take(128).collect::<String>()), reason)
}

#[cfg(test)]
mod tests {
    use sheaf_domain::ConfigValue;

    use super::*;

    fn policy(text: &str) -> SitePolicy {
        toml::from_str(text).unwrap()
    }

    fn admit(policy: &SitePolicy, config: &[(&str, ConfigValue)]) -> Result<(), String> {
        let config = config.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        policy
            .admit(RunId::new(0xabc).unwrap(), "digits-7", "mlp", &config)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn without_a_word_everything_is_accepted() {
        assert_eq!(admit(&SitePolicy::default(), &[("anything", ConfigValue::Bool(true))]), Ok(()));
    }

    #[test]
    fn runs_are_pinned_by_pattern_or_id() {
        for runs in ["digits-*", "*", "*-7", "d*g*s-7", "digits-7", "0000000000000abc", "digits*-*7"] {
            assert_eq!(admit(&policy(&format!("runs = [{runs:?}]")), &[]), Ok(()), "{runs}");
        }
        for runs in ["digits", "*-8", "igits-7", "digits-7*7", "0000000000000abd", ""] {
            let refusal = admit(&policy(&format!("runs = [{runs:?}]")), &[]).unwrap_err();
            assert!(refusal.contains("run \"digits-7\""), "{runs}: {refusal}");
        }
        assert!(admit(&policy("runs = []"), &[]).is_err());
    }

    #[test]
    fn trainers_are_pinned() {
        assert_eq!(admit(&policy("trainers = [\"cnn\", \"mlp\"]"), &[]), Ok(()));
        let refusal = admit(&policy("trainers = [\"cnn\"]"), &[]).unwrap_err();
        assert!(refusal.contains("trainer \"mlp\""), "{refusal}");
    }

    #[test]
    fn keys_are_pinned_and_the_trainers_name_is_no_key() {
        let policy = policy("keys = [\"epochs\"]\nlimits = { rate = { min = 0.1, max = 1 } }");
        let fine = [
            ("epochs", ConfigValue::Int(999)),
            ("rate", ConfigValue::Float(1.0)),
            ("trainer", ConfigValue::Text("mlp".into())),
        ];
        assert_eq!(admit(&policy, &fine), Ok(()));
        for (key, value, reason) in [
            ("hidden", ConfigValue::Int(1), "not among the keys"),
            ("rate", ConfigValue::Float(1.5), "1.5 is above 1"),
            ("rate", ConfigValue::Int(0), "0 is below 0.1"),
            ("rate", ConfigValue::Float(f64::NAN), "below"),
            ("rate", ConfigValue::Text("1".into()), "ask for a number"),
        ] {
            let refusal = admit(&policy, &[(key, value)]).unwrap_err();
            assert!(refusal.contains(&format!("plan key {key:?}")) && refusal.contains(reason), "{refusal}");
        }
    }

    #[test]
    fn an_unknown_setting_is_refused() {
        assert!(toml::from_str::<SitePolicy>("run = [\"x\"]").is_err());
        assert!(toml::from_str::<SitePolicy>("limits = { epochs = { maximum = 3 } }").is_err());
    }
}
