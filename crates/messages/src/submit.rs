//! Submissions and what became of them, on the wire.

use sheaf_domain::{Refusal, SlotName, Submission, SubmitOutcome, SubmittedSlot};

use crate::bounds::{KEY_LEN_MAX, METRICS_MAX, SLOTS_MAX};
use crate::text::{limit, slot, task};
use crate::{Error, manifest_from_wire, manifest_to_wire, v1};

/// A submission for the wire.
pub fn submission_to_wire(submission: &Submission) -> v1::SubmitRequest {
    let slots = submission.slots.iter().map(|slot| v1::SubmittedSlot {
        slot: slot.slot.to_string(),
        manifest: Some(manifest_to_wire(&slot.manifest)),
    });
    v1::SubmitRequest {
        task: submission.task.to_string(),
        slots: slots.collect(),
        num_examples: submission.num_examples,
        metrics: submission.metrics.clone(),
    }
}

/// A submission from the wire.
///
/// Weight and metrics are handed on as they came: whether they are finite and believable is for the gate to say.
///
/// # Errors
/// [`Error`] naming the first field that is wrong.
pub fn submission_from_wire(request: v1::SubmitRequest) -> Result<Submission, Error> {
    limit("slots", request.slots.len(), SLOTS_MAX)?;
    limit("metrics", request.metrics.len(), METRICS_MAX)?;
    for name in request.metrics.keys() {
        limit("metric name", name.len(), KEY_LEN_MAX)?;
    }
    let slots = request.slots.iter().map(|submitted| {
        let manifest = submitted.manifest.as_ref().ok_or(Error::Absent { field: "manifest" })?;
        Ok(SubmittedSlot { slot: slot(&submitted.slot)?, manifest: manifest_from_wire(manifest)? })
    });
    Ok(Submission {
        task: task(&request.task)?,
        slots: slots.collect::<Result<_, Error>>()?,
        num_examples: request.num_examples,
        metrics: request.metrics,
    })
}

/// An outcome for the wire.
pub fn outcome_to_wire(outcome: &SubmitOutcome) -> v1::SubmitReply {
    let reply = |word: &str| v1::SubmitReply { outcome: word.to_owned(), ..v1::SubmitReply::default() };
    match outcome {
        SubmitOutcome::Accepted => reply("accepted"),
        SubmitOutcome::Duplicate => reply("duplicate"),
        SubmitOutcome::TooLate { reason } => v1::SubmitReply { reason: reason.clone(), ..reply("too_late") },
        SubmitOutcome::Refused { refusal } => {
            v1::SubmitReply { refusal: Some(refusal_to_wire(refusal)), ..reply("refused") }
        }
    }
}

/// An outcome from the wire.
///
/// # Errors
/// [`Error`] naming the field that is wrong.
pub fn outcome_from_wire(reply: v1::SubmitReply) -> Result<SubmitOutcome, Error> {
    match reply.outcome.as_str() {
        "accepted" => Ok(SubmitOutcome::Accepted),
        "duplicate" => Ok(SubmitOutcome::Duplicate),
        "too_late" => Ok(SubmitOutcome::TooLate { reason: reply.reason }),
        "refused" => {
            let refusal = reply.refusal.ok_or(Error::Absent { field: "refusal" })?;
            Ok(SubmitOutcome::Refused { refusal: refusal_from_wire(refusal)? })
        }
        other => Err(Error::unknown("outcome", other, "accepted, duplicate, too_late, refused")),
    }
}

fn refusal_to_wire(refusal: &Refusal) -> v1::Refusal {
    let of = |word: &str| v1::Refusal { refusal: word.to_owned(), ..v1::Refusal::default() };
    let at = |word: &str, slot: &SlotName| v1::Refusal { slot: slot.to_string(), ..of(word) };
    match refusal {
        Refusal::Slots { message } => v1::Refusal { message: message.clone(), ..of("slots") },
        Refusal::Schema { slot, message } => v1::Refusal { message: message.clone(), ..at("schema", slot) },
        Refusal::NotFinite { slot, tensor, index } => {
            v1::Refusal { tensor: tensor.clone(), index: *index, ..at("not_finite", slot) }
        }
        Refusal::Weight { value, min, max } => {
            v1::Refusal { value: value.clone(), min: min.clone(), max: max.clone(), ..of("weight") }
        }
        Refusal::Metric { name, message } => {
            v1::Refusal { name: name.clone(), message: message.clone(), ..of("metric") }
        }
        Refusal::Bytes { slot, message } => v1::Refusal { message: message.clone(), ..at("bytes", slot) },
        Refusal::Malformed { message } => v1::Refusal { message: message.clone(), ..of("malformed") },
        // A refusal newer than this protocol is told in words.
        other => v1::Refusal { message: other.to_string(), ..of("malformed") },
    }
}

fn refusal_from_wire(refusal: v1::Refusal) -> Result<Refusal, Error> {
    let v1::Refusal { message, tensor, index, name, value, min, max, .. } = refusal;
    match refusal.refusal.as_str() {
        "slots" => Ok(Refusal::Slots { message }),
        "schema" => Ok(Refusal::Schema { slot: slot(&refusal.slot)?, message }),
        "not_finite" => Ok(Refusal::NotFinite { slot: slot(&refusal.slot)?, tensor, index }),
        "weight" => Ok(Refusal::Weight { value, min, max }),
        "metric" => Ok(Refusal::Metric { name, message }),
        "bytes" => Ok(Refusal::Bytes { slot: slot(&refusal.slot)?, message }),
        "malformed" => Ok(Refusal::Malformed { message }),
        other => Err(Error::unknown("refusal", other, REFUSALS)),
    }
}

const REFUSALS: &str = "slots, schema, not_finite, weight, metric, bytes, malformed";

#[cfg(test)]
mod tests {
    use super::*;
    use sheaf_domain::{Digest, Manifest, Metrics};
    use sheaf_tensor::{Dtype, TensorSpec};

    fn submission() -> Submission {
        let specs = vec![TensorSpec::new("w", Dtype::F32, [4]).unwrap()];
        let manifest = Manifest::over_pieces(specs, 16, &[Digest::of(b"w")]).unwrap();
        Submission {
            task: "00112233445566778899aabbccddeeff".parse().unwrap(),
            slots: vec![SubmittedSlot { slot: slot("model").unwrap(), manifest }],
            num_examples: 12.0,
            metrics: Metrics::from([("loss".to_owned(), 0.5)]),
        }
    }

    #[test]
    fn a_submission_survives_the_wire_and_its_json() {
        let wire = submission_to_wire(&submission());
        let json = serde_json::to_vec(&wire).unwrap();
        let back: v1::SubmitRequest = serde_json::from_slice(&json).unwrap();
        assert_eq!(submission_from_wire(back), Ok(submission()));
    }

    #[test]
    fn numbers_that_json_has_none_for_have_names() {
        let mut wire = submission_to_wire(&submission());
        wire.num_examples = f64::NAN;
        wire.metrics.insert("loss".to_owned(), f64::NEG_INFINITY);
        let json = serde_json::to_string(&wire).unwrap();
        assert!(json.contains(r#""num_examples":"NaN""#) && json.contains(r#""loss":"-Infinity""#), "{json}");
        let back: v1::SubmitRequest = serde_json::from_str(&json).unwrap();
        assert!(back.num_examples.is_nan() && back.metrics["loss"] == f64::NEG_INFINITY);
        let whole: v1::SubmitRequest =
            serde_json::from_str(r#"{"num_examples": -3, "metrics": {"a": 18446744073709551615}}"#).unwrap();
        assert_eq!((whole.num_examples, whole.metrics["a"]), (-3.0, 18_446_744_073_709_551_615.0));
        for wrong in [r#"{"num_examples": "1"}"#, r#"{"metrics": {"a": null}}"#, r#"{"num_examples": []}"#] {
            let error = serde_json::from_str::<v1::SubmitRequest>(wrong).unwrap_err();
            assert!(error.to_string().contains("a number"), "{error}");
        }
    }

    #[test]
    fn bounds_are_checked() {
        let mut many = submission_to_wire(&submission());
        many.slots = vec![many.slots[0].clone(); SLOTS_MAX + 1];
        assert!(matches!(submission_from_wire(many), Err(Error::TooLarge { field: "slots", .. })));
        let mut long = submission_to_wire(&submission());
        long.metrics.insert("m".repeat(KEY_LEN_MAX + 1), 1.0);
        assert!(matches!(submission_from_wire(long), Err(Error::TooLarge { field: "metric name", .. })));
        let mut bare = submission_to_wire(&submission());
        bare.slots[0].manifest = None;
        assert_eq!(submission_from_wire(bare), Err(Error::Absent { field: "manifest" }));
    }

    #[test]
    fn every_outcome_survives_the_wire() {
        let model = || slot("model").unwrap();
        let text = || "words".to_owned();
        let refusals = [
            Refusal::Slots { message: text() },
            Refusal::Schema { slot: model(), message: text() },
            Refusal::NotFinite { slot: model(), tensor: text(), index: 7 },
            Refusal::Weight { value: text(), min: text(), max: text() },
            Refusal::Metric { name: text(), message: text() },
            Refusal::Bytes { slot: model(), message: text() },
            Refusal::Malformed { message: text() },
        ];
        let mut outcomes = vec![
            SubmitOutcome::Accepted,
            SubmitOutcome::Duplicate,
            SubmitOutcome::TooLate { reason: text() },
        ];
        outcomes.extend(refusals.map(|refusal| SubmitOutcome::Refused { refusal }));
        for outcome in outcomes {
            assert_eq!(outcome_from_wire(outcome_to_wire(&outcome)), Ok(outcome));
        }
        let unknown = v1::SubmitReply { outcome: "maybe".to_owned(), ..v1::SubmitReply::default() };
        assert!(outcome_from_wire(unknown).is_err());
    }
}
