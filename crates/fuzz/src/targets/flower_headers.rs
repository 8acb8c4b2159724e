//! What Flower's peers prove themselves by: the headers of SuperNodes over both transports, and those of SuperExecs.

use http::{HeaderMap, HeaderName, HeaderValue};
use sheaf_wire_flower::node_auth::{NodeHeaders, NodeVerifier, Window, verify_signature};
use sheaf_wire_flower::superexec_auth::SuperExecVerifier;
use sheaf_wire_flower::timestamp::parse_isoformat_us;

use crate::form::{self, Form};
use crate::target::{Ceiling, Probe, Target, Verdict};

/// `NodeHeaders`, `NodeVerifier`, `verify_signature` and `SuperExecVerifier`. The first byte chooses; then lines of `name: value`.
pub(super) const TARGET: Target = Target {
    name: "flower-headers",
    about: "the headers that SuperNodes and SuperExecs prove themselves by",
    form: Form::ChosenText(form::FLOWER_HEADERS),
    len_max: 16 * 1024,
    ceiling: Ceiling { per_byte: 16, constant: 64 * 1024 },
    samples,
    body,
};

const NODE: &str = include_str!("../../../wire-flower/testdata/flower/1.42.0/node_auth.txt");
const SUPEREXEC: &str = include_str!("../../../wire-flower/testdata/flower/1.42.0/superexec_auth.txt");
/// When the recorded calls were made.
const NODE_AT_US: i64 = 1_795_227_952_192_024;
const SUPEREXEC_AT_S: i64 = 1_795_640_550;

fn body(input: &[u8], probe: &mut Probe<'_>) -> Verdict {
    let (chosen, rest) = match super::choice(input, 3) {
        Ok(chosen) => chosen,
        Err(refused) => return refused,
    };
    let text = match super::text(rest) {
        Ok(text) => text,
        Err(refused) => return refused,
    };
    let mut headers = HeaderMap::new();
    for (name, value) in text.lines().filter_map(|line| line.split_once(": ")).take(64) {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
            headers.append(name, value);
        }
    }
    match chosen {
        2 => superexec(&headers, probe),
        grpc => node(&headers, grpc == 1, probe),
    }
}

fn node(headers: &HeaderMap, grpc: bool, probe: &mut Probe<'_>) -> Verdict {
    let read = || if grpc { NodeHeaders::of_grpc(headers) } else { NodeHeaders::of_http(headers) };
    let read = match probe.watch(read) {
        Ok(read) => read,
        Err(error) => return Verdict::refused(error),
    };
    let mut verifier = NodeVerifier::new(Window::default(), 4);
    match probe.watch(|| verifier.quick(&read, false, NODE_AT_US)) {
        Ok(known) => assert!(known.is_none(), "nothing was verified before"),
        Err(error) => return Verdict::refused(error),
    }
    let at = parse_isoformat_us(&read.timestamp);
    assert!(at.is_some_and(|at| at.abs_diff(NODE_AT_US) <= 305_000_000), "{at:?} is in no window");
    if let Err(error) = probe.watch(|| verify_signature(&read)) {
        return Verdict::refused(error);
    }
    verifier.remember(&read);
    assert!(matches!(verifier.quick(&read, false, NODE_AT_US), Ok(Some(_))), "it is remembered");
    let golden: Vec<&str> = NODE.lines().collect();
    assert_eq!(Some(&read.timestamp.as_str()), golden.get(1), "a signature was made without the key");
    Verdict::Accepted("a node".to_owned())
}

fn superexec(headers: &HeaderMap, probe: &mut Probe<'_>) -> Verdict {
    let mut lines = SUPEREXEC.lines().filter_map(|line| line.split_once(' '));
    let mut bytes = || lines.next().and_then(|(_, hex)| hex::decode(hex).ok()).unwrap_or_default();
    let (secret, body) = (bytes(), bytes());
    let Ok(mut verifier) = SuperExecVerifier::new(&secret) else {
        return Verdict::Refused("no secret".to_owned());
    };
    match probe.watch(|| verifier.verify(headers, &body, SUPEREXEC_AT_S)) {
        Ok(()) => {
            assert!(verifier.verify(headers, &body, SUPEREXEC_AT_S).is_err(), "a claim was taken twice");
            Verdict::Accepted("a SuperExec".to_owned())
        }
        Err(error) => Verdict::refused(error),
    }
}

fn samples() -> Vec<Vec<u8>> {
    let lines: Vec<&str> = NODE.lines().collect();
    let mut samples = Vec::new();
    for (chosen, suffix) in [(0, ""), (1, "-bin")] {
        let value = |at: usize| lines.get(at).copied().unwrap_or_default();
        let (key, stamp, signature) = (value(0), value(1), value(2));
        let text = format!(
            "flwr-public-key{suffix}: {key}\nflwr-timestamp: {stamp}\nflwr-signature{suffix}: {signature}\n"
        );
        samples.push(super::chosen(chosen, text.as_bytes()));
    }
    let text: String = SUPEREXEC
        .lines()
        .skip(2)
        .filter_map(|line| line.split_once(' '))
        .map(|(n, v)| format!("{n}: {v}\n"))
        .collect();
    samples.push(super::chosen(2, text.as_bytes()));
    samples
}
