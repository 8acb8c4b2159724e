//! Settings: a few small texts that belong to the deployment, such as its instance id and trust domain.

use crate::Error;
use crate::journal::check_len;

/// The longest key, in bytes.
pub const SETTING_KEY_LEN_MAX: usize = 128;
/// The longest value, in bytes.
pub const SETTING_VALUE_LEN_MAX: usize = 64 << 10;

pub(crate) fn check(key: &str, value: &str) -> Result<(), Error> {
    check_len("setting's key", key.len(), SETTING_KEY_LEN_MAX)?;
    check_len("setting's value", value.len(), SETTING_VALUE_LEN_MAX)
}
