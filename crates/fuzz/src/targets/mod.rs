//! Every decoder under attack, each with its samples, its ceiling of memory and its invariants.

mod flower;
mod flower_headers;
mod http;
mod join;
mod journal;
mod json;
mod openfl;
mod pki;
mod plan;
mod protobuf;
mod settings;
mod site;
mod tensors;
mod wire;

use crate::target::{Target, Verdict};

/// Every target, in the order of `cargo xtask fuzz --list`.
pub const ALL: [Target; 25] = [
    protobuf::TARGET,
    json::NATIVE,
    json::ADMIN,
    tensors::NPY,
    tensors::NPZ,
    tensors::SAFETENSORS,
    plan::TARGET,
    pki::KIT,
    pki::CSR,
    pki::CERTIFICATE,
    http::SIGNED,
    http::RANGE,
    journal::TARGET,
    site::RESULT,
    site::CSV,
    settings::TARGET,
    flower::PUSH,
    flower::OBJECT,
    flower::FLOWER,
    flower::FAB,
    flower_headers::TARGET,
    join::TARGET,
    openfl::FRAMES,
    openfl::RESULTS,
    openfl::PLAN,
];

/// The target of a name.
pub fn named(name: &str) -> Option<&'static Target> {
    static TARGETS: [Target; 25] = ALL;
    TARGETS.iter().find(|target| target.name == name)
}

/// Text, or the refusal of what is none.
fn text(input: &[u8]) -> Result<&str, Verdict> {
    std::str::from_utf8(input).map_err(|_| Verdict::Refused("it is not text".to_owned()))
}

/// The byte that chooses one of `count` decoders, and what follows it.
fn choice(input: &[u8], count: usize) -> Result<(usize, &[u8]), Verdict> {
    let (first, rest) = input.split_first().ok_or_else(|| Verdict::Refused("it is empty".to_owned()))?;
    Ok((usize::from(first.wrapping_sub(b'a')) % count, rest))
}

/// A sample for the decoder `chosen`.
fn chosen(chosen: usize, rest: &[u8]) -> Vec<u8> {
    let mut input = vec![b'a' + u8::try_from(chosen).unwrap_or(0)];
    input.extend_from_slice(rest);
    input
}
