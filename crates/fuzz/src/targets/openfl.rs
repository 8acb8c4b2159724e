//! What stock OpenFL collaborators send, and the files of their workspaces.

use bytes::Bytes;
use prost::Message as _;
use sheaf_tensor::{Dtype, Tensor, TensorSpec};
use sheaf_wire_openfl::frames::{Frames, Framing};
use sheaf_wire_openfl::plan::{self, Surroundings};
use sheaf_wire_openfl::proto::openfl::aggregator::TaskResults;
use sheaf_wire_openfl::proto::{DataStream, ModelProto, NamedTensor};
use sheaf_wire_openfl::results::{Part, ResultsReader};
use sheaf_wire_openfl::state::ModelReader;
use sheaf_wire_openfl::tensors::{self, Decoder, Limits, Pipeline};

use crate::form::Form;
use crate::target::{Ceiling, Probe, Target, Verdict};

/// The frames of an upload, over gRPC and over HTTP, read in pieces and at once. The first byte chooses the framing.
pub(super) const FRAMES: Target = Target {
    name: "openfl-frames",
    about: "the frames of OpenFL's task results",
    form: Form::ChosenText(FRAME_WORDS),
    len_max: 16 * 1024,
    ceiling: Ceiling { per_byte: 160, constant: 16 * 1024 },
    samples: frames_samples,
    body: frames_body,
};

/// A task's results, and a model file, with tensors of each pipeline, read in pieces. The first byte chooses pipeline and message. What a
/// tensor unfolds to is bounded by [`TENSOR_BYTES_MAX`], that of a model by as much.
pub(super) const RESULTS: Target = Target {
    name: "openfl-results",
    about: "OpenFL's task results and model files",
    form: Form::ChosenProtobuf,
    len_max: 64 * 1024,
    ceiling: Ceiling { per_byte: 160, constant: 4 * TENSOR_BYTES_MAX + 256 * 1024 },
    samples: results_samples,
    body: results_body,
};

/// `plan.yaml` and what is read of it.
pub(super) const PLAN: Target = Target {
    name: "openfl-plan",
    about: "an OpenFL plan in YAML",
    form: Form::Text(WORDS),
    len_max: 32 * 1024,
    ceiling: Ceiling { per_byte: 2_048, constant: 16 * 1024 * 1024 },
    samples: plan_samples,
    body: plan_body,
};

const TENSOR_BYTES_MAX: u64 = 256 * 1024;
const LIMITS: Limits = Limits {
    tensor_bytes_max: TENSOR_BYTES_MAX,
    unfolded_bytes_max: TENSOR_BYTES_MAX,
    metadata_len_max: 64 * 1024,
};
/// How much is read at once.
const PIECE_LEN: usize = 61;

const FRAMINGS: [Framing; 2] = [Framing::Grpc, Framing::Http];
/// Prefixes of frames, and what stands in them.
const FRAME_WORDS: &[&str] = &["\0\0\0\0", "\0\0\0\x05", "\x12\x03abc", "\x08\x03", "\x7f\x7f\x7f\x7f"];

const CODECS: [Pipeline; 6] = [
    Pipeline::NoCompression,
    Pipeline::RandomShift,
    Pipeline::Stc { p_sparsity: 0.1 },
    Pipeline::Skc { p_sparsity: 0.1, n_clusters: 6 },
    Pipeline::Kc { n_clusters: 6 },
    Pipeline::Eden { n_bits: 3, dim_threshold: 16 },
];

const WORDS: &[&str] = &[
    "aggregator",
    "network",
    "assigner",
    "tasks",
    "settings",
    "defaults",
    "template",
    "plan/defaults/network.yaml",
    "auto",
    "plan/defaults/tasks_torch.yaml",
    "openfl.component.StaticGroupedAssigner",
    "openfl.pipelines.EdenPipeline",
    "rounds_to_train",
    "task_groups",
    "percentage",
    "collaborators",
    "aggregation_type",
    ": ",
    "- ",
    "&a ",
    "*a",
    "<<: ",
    "{",
    "}",
    "[",
    "]",
    "|\n  ",
    "'",
    "\"",
    "\\u2028",
    "0x1f",
    "1:30",
    "1e-5",
    "~",
    "yes",
    "\n",
    "\n  ",
    "# ",
];

fn frames_body(input: &[u8], probe: &mut Probe<'_>) -> Verdict {
    let (chosen, bytes) = match super::choice(input, FRAMINGS.len()) {
        Ok(chosen) => chosen,
        Err(refused) => return refused,
    };
    let Some(framing) = FRAMINGS.get(chosen).copied() else { return Verdict::refused("no framing") };
    let read = probe.watch(|| read_frames(bytes, framing, PIECE_LEN));
    assert_eq!(read, read_frames(bytes, framing, bytes.len().max(1)), "it matters how the body is cut");
    match read {
        Err(refused) => Verdict::Refused(refused),
        Ok(results) => Verdict::Accepted(format!("{} bytes of results", results.len())),
    }
}

fn read_frames(bytes: &[u8], framing: Framing, piece_len: usize) -> Result<Vec<u8>, String> {
    let (mut frames, mut results) = (Frames::new(framing), Vec::new());
    for piece in bytes.chunks(piece_len) {
        let mut piece = Bytes::copy_from_slice(piece);
        while let Some(stretch) = frames.next(&mut piece).map_err(|error| error.to_string())? {
            results.extend_from_slice(&stretch);
        }
    }
    frames.finish().map_err(|error| error.to_string())?;
    Ok(results)
}

fn results_body(input: &[u8], probe: &mut Probe<'_>) -> Verdict {
    let (chosen, bytes) = match super::choice(input, 2 * CODECS.len()) {
        Ok(chosen) => chosen,
        Err(refused) => return refused,
    };
    let Some(codec) = CODECS.get(chosen % CODECS.len()).copied() else { return Verdict::refused("no codec") };
    if chosen < CODECS.len() { results(bytes, codec, probe) } else { model(bytes, codec, probe) }
}

fn results(bytes: &[u8], codec: Pipeline, probe: &mut Probe<'_>) -> Verdict {
    match probe.watch(|| read_results(bytes, codec)) {
        Err(refused) => Verdict::Refused(refused),
        Ok(count) => {
            // Who reads the whole message at once reads as many.
            let whole = TaskResults::decode(bytes).map(|results| results.tensors.len());
            assert_eq!(whole.ok(), Some(count), "another reader sees another message");
            Verdict::Accepted(format!("{count} tensors"))
        }
    }
}

fn read_results(bytes: &[u8], codec: Pipeline) -> Result<usize, String> {
    let mut reader = ResultsReader::new(LIMITS);
    let (mut open, mut out, mut count) = (None::<Decoder>, Vec::new(), 0);
    for piece in bytes.chunks(PIECE_LEN) {
        let mut piece = Bytes::copy_from_slice(piece);
        while let Some(part) = reader.next(&mut piece).map_err(|error| error.to_string())? {
            match part {
                Part::Sent(_) => {}
                Part::Tensor(head) => {
                    open = Some(Decoder::new(codec, &head, &LIMITS).map_err(|error| error.to_string())?);
                }
                Part::Bytes(bytes) => {
                    let decoder = open.as_mut().ok_or("bytes of no tensor")?;
                    decoder.push(&bytes, &mut out).map_err(|error| error.to_string())?;
                    assert!(out.len() as u64 <= TENSOR_BYTES_MAX, "more than was allowed came out");
                }
                Part::End => {
                    let decoder = open.take().ok_or("the end of no tensor")?;
                    let shape = decoder.finish(&mut out).map_err(|error| error.to_string())?;
                    assert_eq!(out.len() as u64, 4 * shape.num_elements(), "as many bytes as the shape says");
                    out.clear();
                    count += 1;
                }
            }
        }
    }
    reader.finish().map_err(|error| error.to_string())?;
    Ok(count)
}

fn model(bytes: &[u8], codec: Pipeline, probe: &mut Probe<'_>) -> Verdict {
    let read = probe.watch(|| {
        let mut reader = ModelReader::new(codec, LIMITS, TENSOR_BYTES_MAX);
        for piece in bytes.chunks(PIECE_LEN) {
            reader.feed(Bytes::copy_from_slice(piece))?;
        }
        reader.finish()
    });
    match read {
        Err(error) => Verdict::refused(error),
        Ok(model) => {
            assert!(model.params.byte_len() <= TENSOR_BYTES_MAX, "beyond the limit");
            Verdict::Accepted(format!("a model of {} tensors", model.params.len()))
        }
    }
}

fn plan_body(input: &[u8], probe: &mut Probe<'_>) -> Verdict {
    let text = match super::text(input) {
        Ok(text) => text,
        Err(refused) => return refused,
    };
    let around = Surroundings { file_name: "plan.yaml", fqdn: "agg.example", task_group: None };
    let read = probe.watch(|| plan::read(text, "collaborators: [one, two]\n", around));
    if let Ok(node) = plan::yaml::parse(text)
        && let Ok(dump) = plan::dump::dump(&node)
    {
        let again = plan::yaml::parse(&dump).map(|node| plan::dump::dump(&node));
        assert_eq!(again, Ok(Ok(dump)), "the dump of a dump is another");
    }
    match read {
        Err(error) => Verdict::refused(error),
        Ok(plan) => {
            Verdict::Accepted(format!("{} groups, {}", plan.assigner.groups().len(), plan.pipeline.name()))
        }
    }
}

fn tensors_of(codec: Pipeline) -> Vec<NamedTensor> {
    let values = |count: u16| (0..count).map(|at| (f64::from(at) * 0.7).sin()).collect::<Vec<f64>>();
    [("scalar", vec![]), ("few", vec![3]), ("matrix", vec![5, 7])]
        .into_iter()
        .filter_map(|(name, dims): (&str, Vec<u64>)| {
            let count = dims.iter().product::<u64>();
            let spec = TensorSpec::new(name, Dtype::F32, dims).ok()?;
            let tensor = Tensor::from_f64(spec, &values(u16::try_from(count).ok()?)).ok()?;
            let encoded = tensors::encode(codec, &tensor, 5).ok()?;
            Some(NamedTensor {
                name: name.to_owned(),
                tags: vec!["model".to_owned(), "compressed".to_owned()],
                transformer_metadata: encoded.metadata,
                data_bytes: encoded.bytes,
                ..NamedTensor::default()
            })
        })
        .collect()
}

fn frames_samples() -> Vec<Vec<u8>> {
    let framed = |(at, framing): (usize, Framing)| {
        let mut body = Vec::new();
        for piece in [&b"results "[..], b"in pieces"] {
            let message = DataStream { size: 9, npbytes: Bytes::copy_from_slice(piece) }.encode_to_vec();
            if framing == Framing::Grpc {
                body.push(0);
            }
            body.extend_from_slice(&u32::try_from(message.len()).unwrap_or_default().to_be_bytes());
            body.extend_from_slice(&message);
        }
        if framing == Framing::Http {
            body.extend_from_slice(&[0; 4]);
        }
        super::chosen(at, &body)
    };
    FRAMINGS.into_iter().enumerate().map(framed).collect()
}

fn results_samples() -> Vec<Vec<u8>> {
    let numbered = || CODECS.into_iter().enumerate();
    let results = numbered().map(|(at, codec)| {
        let task_name = "train".to_owned();
        let results =
            TaskResults { task_name, data_size: 7, tensors: tensors_of(codec), ..TaskResults::default() };
        super::chosen(at, &results.encode_to_vec())
    });
    let models = numbered().map(|(at, codec)| {
        super::chosen(at + CODECS.len(), &ModelProto { tensors: tensors_of(codec) }.encode_to_vec())
    });
    results.chain(models).collect()
}

fn plan_samples() -> Vec<Vec<u8>> {
    let bare = "aggregator:\n  defaults: plan/defaults/aggregator.yaml\n  settings: {rounds_to_train: 3}\n\
                network:\n  defaults: plan/defaults/network.yaml\n\
                assigner:\n  defaults: plan/defaults/assigner.yaml\n\
                tasks:\n  defaults: plan/defaults/tasks_torch.yaml\n";
    let own = "aggregator:\n  settings: &s {rounds_to_train: 0x2, init_state_path: i, best_state_path: b, last_state_path: l}\n\
               network:\n  settings: {<<: {agg_addr: a}, agg_port: 1, note: 'it''s', more: \"\\u2028\"}\n\
               assigner:\n  template: openfl.component.StaticGroupedAssigner\n\
               \x20 settings:\n    task_groups:\n    - name: g\n      collaborators: [one, two]\n      tasks:\n      - t\n\
               tasks:\n  t:\n    function: f\n    aggregation_type: {template: openfl.interface.aggregation_functions.Median}\n\
               compression_pipeline:\n  template: openfl.pipelines.EdenPipeline\n  settings: {n_bits: 4}\n\
               straggler_handling_policy:\n  template: openfl.component.PercentagePolicy\n\
               \x20 settings: {percent_collaborators_needed: .5}\n";
    vec![bare.into(), own.into()]
}
