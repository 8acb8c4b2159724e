//! Identifiers. Each is a type of its own, checked on construction; none is ever a bare string or number.

use serde::{Deserialize, Serialize};

use crate::{Error, Hasher};

/// Makes a checked name type over a string.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $len_max:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks and wraps a name: ASCII letters, digits, `.`, `_` and `-`, starting with a letter or digit.
            ///
            /// # Errors
            /// [`Error::BadId`] naming the rule that is broken.
            pub fn new(value: impl Into<String>) -> Result<$name, Error> {
                let value = value.into();
                match name_rule(&value, $len_max) {
                    Ok(()) => Ok($name(value)),
                    Err(rule) => Err(Error::BadId {
                        what: $what,
                        value: value.chars().take(64).collect(),
                        rule,
                    }),
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(value: String) -> Result<$name, Error> {
                $name::new(value)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = Error;
            fn from_str(value: &str) -> Result<$name, Error> {
                $name::new(value)
            }
        }
    };
}

name_type! {
    /// A participant's name: what its certificate or key stands for. Canonical order is the order of these names.
    ///
    /// # Examples
    /// ```
    /// use sheaf_domain::SiteName;
    ///
    /// let berlin: SiteName = "berlin-charite".parse()?;
    /// assert!(berlin < SiteName::new("zurich")?);
    /// assert!(SiteName::new("../etc").is_err());
    /// # Ok::<(), sheaf_domain::Error>(())
    /// ```
    SiteName, "site name", 64
}
name_type! {
    /// The name of a stage of a round, such as `train`.
    StageName, "stage name", 64
}
name_type! {
    /// The name of an input or output of an assignment, such as `model`.
    SlotName, "slot name", 64
}
name_type! {
    /// The name of a lineage of versions, such as `global`.
    LineageName, "lineage name", 64
}

fn name_rule(value: &str, len_max: usize) -> Result<(), &'static str> {
    let Some(first) = value.chars().next() else {
        return Err("it must not be empty");
    };
    if value.len() > len_max {
        return Err("it must be at most 64 characters long");
    }
    if !first.is_ascii_alphanumeric() {
        return Err("it must start with an ASCII letter or digit");
    }
    if !value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')) {
        return Err("it may hold only ASCII letters, digits, '.', '_' and '-'");
    }
    Ok(())
}

impl LineageName {
    /// The lineage that participants train: `global`.
    pub fn global() -> LineageName {
        LineageName("global".to_owned())
    }
    /// The lineage of the best evaluated model: `best`.
    pub fn best() -> LineageName {
        LineageName("best".to_owned())
    }
    /// The lineage of one moment of the server optimiser that steps `target`: `<target>.opt.<moment>`.
    ///
    /// # Errors
    /// [`Error::BadId`] where the target's name leaves no room for it.
    pub fn optimiser(target: &LineageName, moment: &str) -> Result<LineageName, Error> {
        LineageName::new(format!("{target}.opt.{moment}"))
    }

    /// The lineage of what each version of `target` differs by from the one before: `<target>.difference`.
    ///
    /// # Errors
    /// [`Error::BadId`] where the target's name leaves no room for it.
    pub fn difference(target: &LineageName) -> Result<LineageName, Error> {
        LineageName::new(format!("{target}.difference"))
    }

    /// Whether it is the lineage of differences between versions of another.
    pub fn is_difference(&self) -> bool {
        self.as_str().ends_with(".difference")
    }
}

/// A run: one execution of one plan. 64 random bits, shown as 16 hexadecimal digits; never zero.
///
/// # Examples
/// ```
/// use sheaf_domain::RunId;
///
/// let run: RunId = "00000000000005ea".parse()?;
/// assert_eq!(Some(run), RunId::new(0x5ea));
/// # Ok::<(), sheaf_domain::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(u64);

impl RunId {
    /// Wraps a number; zero is no run.
    pub fn new(value: u64) -> Option<RunId> {
        (value != 0).then_some(RunId(value))
    }
    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl std::fmt::Display for RunId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::str::FromStr for RunId {
    type Err = Error;
    fn from_str(value: &str) -> Result<RunId, Error> {
        let well_formed = value.len() == 16 && value.bytes().all(|b| b.is_ascii_hexdigit());
        well_formed.then(|| u64::from_str_radix(value, 16).ok()).flatten().and_then(RunId::new).ok_or_else(
            || Error::BadId {
                what: "run id",
                value: value.chars().take(64).collect(),
                rule: "it must be 16 hexadecimal digits, not all zero",
            },
        )
    }
}

impl TryFrom<String> for RunId {
    type Error = Error;
    fn try_from(value: String) -> Result<RunId, Error> {
        value.parse()
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> String {
        id.to_string()
    }
}

/// One attempt of one participant at one stage of one round: the key under which its result counts once.
///
/// Derived from what it names, so that a replayed journal hands out the same ids.
///
/// # Examples
/// ```
/// use sheaf_domain::{RunId, SiteName, StageName, TaskId};
///
/// let (run, train) = (RunId::new(1).ok_or("zero")?, StageName::new("train")?);
/// let task = |attempt| Ok::<_, sheaf_domain::Error>(TaskId::derive(run, 3, &train, &SiteName::new("berlin")?, attempt));
/// assert_eq!(task(1)?, task(1)?);
/// assert_ne!(task(1)?, task(2)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TaskId([u8; 16]);

impl TaskId {
    /// The id of attempt `attempt` (from 1) of `site` at `stage` of round `round` of `run`.
    pub fn derive(run: RunId, round: u32, stage: &StageName, site: &SiteName, attempt: u32) -> TaskId {
        let mut hasher = Hasher::new();
        hasher.update(b"sheaf task 1\0");
        hasher.update(&run.get().to_le_bytes());
        hasher.update(&round.to_le_bytes());
        hasher.update(&attempt.to_le_bytes());
        hasher.update(stage.as_str().as_bytes());
        hasher.update(b"\0");
        hasher.update(site.as_str().as_bytes());
        let digest = hasher.finish();
        let mut id = [0; 16];
        id.copy_from_slice(&digest.as_bytes()[..16]);
        TaskId(id)
    }
}

impl std::fmt::Display for TaskId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl std::fmt::Debug for TaskId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TaskId({self})")
    }
}

impl std::str::FromStr for TaskId {
    type Err = Error;
    fn from_str(value: &str) -> Result<TaskId, Error> {
        let mut id = [0; 16];
        hex::decode_to_slice(value, &mut id).map_err(|_| Error::BadId {
            what: "task id",
            value: value.chars().take(64).collect(),
            rule: "it must be 32 hexadecimal digits",
        })?;
        Ok(TaskId(id))
    }
}

impl TryFrom<String> for TaskId {
    type Error = Error;
    fn try_from(value: String) -> Result<TaskId, Error> {
        value.parse()
    }
}

impl From<TaskId> for String {
    fn from(id: TaskId) -> String {
        id.to_string()
    }
}

/// One version of one lineage of one run. Version 0 is what the run starts from; round *n* makes version *n*.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VersionRef {
    /// The run.
    pub run: RunId,
    /// The lineage.
    pub lineage: LineageName,
    /// The version's number.
    pub version: u32,
}

impl std::fmt::Display for VersionRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}@{}", self.run, self.lineage, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule_of(name: &str) -> Option<&'static str> {
        match SiteName::new(name) {
            Ok(_) => None,
            Err(Error::BadId { rule, .. }) => Some(rule),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_are_plain_short_ascii() {
        for good in ["a", "7", "site-01", "a.b_c-d", "Berlin", &"x".repeat(64)] {
            assert_eq!(rule_of(good), None, "{good:?}");
        }
        for (bad, rule) in [
            ("", "empty"),
            (&*"x".repeat(65), "64"),
            (".", "start"),
            ("-x", "start"),
            ("_x", "start"),
            ("é", "start"),
            ("a b", "only"),
            ("a/b", "only"),
            ("a\0", "only"),
            ("ä", "start"),
            ("bü", "only"),
            ("a\n", "only"),
        ] {
            assert!(rule_of(bad).is_some_and(|broken| broken.contains(rule)), "{bad:?}: {:?}", rule_of(bad));
        }
    }

    #[test]
    fn a_bad_name_is_quoted_only_in_part() {
        let error = SiteName::new("/".repeat(10_000)).unwrap_err().to_string();
        assert!(error.len() < 200, "{error}");
    }

    #[test]
    fn names_are_checked_when_read_from_json() {
        assert!(serde_json::from_str::<StageName>("\"train\"").is_ok());
        for bad in ["\"\"", "\"a b\"", "7", "null"] {
            assert!(serde_json::from_str::<StageName>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn run_ids_read_back_and_are_never_zero() {
        let run = RunId::new(u64::MAX).unwrap();
        assert_eq!(run.to_string().parse(), Ok(run));
        assert_eq!(serde_json::to_string(&RunId::new(1).unwrap()).unwrap(), "\"0000000000000001\"");
        for bad in ["", "0", "0000000000000000", "+000000000000001", "000000000000000g", "00000000000000001"]
        {
            assert!(bad.parse::<RunId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn task_ids_tell_apart_everything_they_name() {
        let (run, stage, site) =
            (RunId::new(1).unwrap(), StageName::new("ab").unwrap(), SiteName::new("c").unwrap());
        let task = TaskId::derive(run, 1, &stage, &site, 1);
        assert_eq!(task.to_string().parse(), Ok(task));
        let others = [
            TaskId::derive(RunId::new(2).unwrap(), 1, &stage, &site, 1),
            TaskId::derive(run, 2, &stage, &site, 1),
            TaskId::derive(run, 1, &stage, &site, 2),
            TaskId::derive(run, 1, &StageName::new("a").unwrap(), &SiteName::new("bc").unwrap(), 1),
        ];
        assert!(others.iter().all(|other| *other != task));
        for bad in ["", "00", &"0".repeat(31), &"0".repeat(33), &"g".repeat(32)] {
            assert!(bad.parse::<TaskId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_task_id_never_changes_between_releases() {
        let (stage, site) = (StageName::new("train").unwrap(), SiteName::new("site-1").unwrap());
        let task = TaskId::derive(RunId::new(7).unwrap(), 2, &stage, &site, 1);
        assert_eq!(task.to_string(), "674103cae58ef193563de5f46d30bb87");
    }
}
