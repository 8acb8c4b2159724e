//! What stock encoded, decoded here, against what stock itself decoded from it; then what is wrong in one way each.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message as _;
use sheaf_tensor::{Dtype, Tensor, TensorSpec};

use super::*;
use crate::proto::{MetadataProto, ModelProto, NamedTensor};
use crate::tensors::{decode, encode};

const SKC: Pipeline = Pipeline::Skc { p_sparsity: 0.1, n_clusters: 6 };
const KC: Pipeline = Pipeline::Kc { n_clusters: 6 };

/// Each golden, the pipeline that made it, and whether its decoded values are those of a codec without loss.
const GOLDENS: [(&str, Pipeline); 9] = [
    ("no_compression", Pipeline::NoCompression),
    ("random_shift", Pipeline::RandomShift),
    ("stc", Pipeline::Stc { p_sparsity: 0.1 }),
    ("stc_half", Pipeline::Stc { p_sparsity: 0.5 }),
    ("skc", SKC),
    ("kc", KC),
    ("eden_1", eden(1)),
    ("eden_4", eden(4)),
    ("eden_8", eden(8)),
];

const fn eden(n_bits: u8) -> Pipeline {
    Pipeline::Eden { n_bits, dim_threshold: 100 }
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

fn model(name: &str) -> Vec<NamedTensor> {
    let bytes = std::fs::read(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    ModelProto::decode(bytes.as_slice()).expect("a model").tensors
}

fn decoded(codec: Pipeline, tensor: NamedTensor, cut: usize) -> Result<(Shape, Vec<u8>), Refusal> {
    let (head, bytes) = Head::split(tensor);
    let mut decoder = Decoder::new(codec, &head, &Limits::default())?;
    let mut out = Vec::new();
    for piece in bytes.chunks(cut) {
        decoder.push(piece, &mut out)?;
    }
    decoder.finish(&mut out).map(|shape| (shape, out))
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

/// The tensor whose values are codes themselves: it is held against the input (see `metadata::table`).
const OF_CODES: (&str, &str) = ("kc", "codes");

#[test]
fn stock_tensors_decode_to_the_bits_that_stock_decodes() {
    let inputs = model("openfl-1.9/inputs.pbuf");
    for (name, pipeline) in GOLDENS {
        let wanted = model(&format!("openfl-1.9/{name}.decoded.pbuf"));
        let encoded = model(&format!("openfl-1.9/{name}.pbuf"));
        assert!(encoded.len() >= 10 && encoded.len() == wanted.len(), "{name}");
        for (tensor, stock) in encoded.into_iter().zip(wanted) {
            let codec = pipeline.of_tags(&tensor.tags).expect("a codec");
            assert_eq!(codec, pipeline);
            let of_codes = inputs.iter().find(|input| (name, input.name.as_str()) == OF_CODES);
            let wanted = of_codes.filter(|input| input.name == tensor.name).unwrap_or(&stock);
            for cut in [3, 1_000_000] {
                let (shape, out) = decoded(codec, tensor.clone(), cut).expect("it decodes");
                let dims: Vec<i32> = shape.dims().iter().map(|dim| i32::try_from(*dim).unwrap()).collect();
                assert_eq!(dims, wanted.transformer_metadata[0].int_list, "{name} {}", tensor.name);
                let (out, wanted) = (floats(&out), floats(&wanted.data_bytes));
                let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&out), bits(&wanted), "{name} {} {out:?} {wanted:?}", tensor.name);
            }
        }
    }
}

#[test]
fn what_stock_rotates_comes_back_near_to_what_it_was() {
    let inputs = model("openfl-1.9/inputs.pbuf");
    for tensor in model("openfl-1.9/eden_8.decoded.pbuf") {
        let input = inputs.iter().find(|input| input.name == tensor.name).expect("an input");
        let (was, is) = (floats(&input.data_bytes), floats(&tensor.data_bytes));
        let norm: f32 = was.iter().map(|x| x * x).sum::<f32>().sqrt();
        let error: f32 = was.iter().zip(&is).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
        assert!(error <= 0.02 * norm, "{}: {error} of {norm}", tensor.name);
    }
}

/// Our encodings of the inputs. The file is held against stock's decoder by `tests/interop/openfl/test_tensors.py`.
#[test]
fn what_is_encoded_here_is_what_stock_was_shown_and_decodes_to_the_same() {
    for (name, codec) in GOLDENS {
        let encoded: Vec<NamedTensor> =
            model("openfl-1.9/inputs.pbuf").into_iter().map(|input| encoded(codec, input)).collect();
        let wanted: Vec<NamedTensor> = encoded
            .iter()
            .map(|tensor| {
                let (head, bytes) = Head::split(tensor.clone());
                let tensor = decode(codec, &head, &bytes, &Limits::default()).expect("it decodes");
                named(&tensor, &encode(Pipeline::NoCompression, &tensor, 0).expect("it encodes"))
            })
            .collect();
        let file = path(&format!("sheaf/{name}.pbuf"));
        let wanted_file = path(&format!("sheaf/{name}.decoded.pbuf"));
        if std::env::var_os("SHEAF_WRITE_GOLDENS").is_some() {
            std::fs::create_dir_all(path("sheaf")).unwrap();
            std::fs::write(&file, ModelProto { tensors: encoded.clone() }.encode_to_vec()).unwrap();
            std::fs::write(&wanted_file, ModelProto { tensors: wanted.clone() }.encode_to_vec()).unwrap();
        }
        // The gzip of another release may be another; what it unfolds to may not.
        assert_eq!(model(&format!("sheaf/{name}.decoded.pbuf")), wanted, "{name}");
        let metadata = |tensors: &[NamedTensor]| -> Vec<Vec<MetadataProto>> {
            tensors.iter().map(|tensor| tensor.transformer_metadata.clone()).collect()
        };
        assert_eq!(metadata(&model(&format!("sheaf/{name}.pbuf"))), metadata(&encoded), "{name}");
    }
}

fn encoded(codec: Pipeline, input: NamedTensor) -> NamedTensor {
    let (head, bytes) = Head::split(input);
    let tensor = decode(Pipeline::NoCompression, &head, &bytes, &Limits::default()).expect("it decodes");
    named(&tensor, &encode(codec, &tensor, 11).expect("it encodes"))
}

fn named(tensor: &sheaf_tensor::Tensor, encoded: &crate::tensors::Encoded) -> NamedTensor {
    NamedTensor {
        name: tensor.name().to_owned(),
        transformer_metadata: encoded.metadata.clone(),
        data_bytes: encoded.bytes.clone(),
        ..NamedTensor::default()
    }
}

#[test]
fn ternary_values_are_those_that_stock_finds() {
    let stock = model("openfl-1.9/stc.pbuf");
    for (stock, input) in stock.into_iter().zip(model("openfl-1.9/inputs.pbuf")) {
        // Of these all magnitudes are the same, and which are kept is the sort's business.
        if ["zeros", "constant", "codes"].contains(&input.name.as_str()) {
            continue;
        }
        let ours = encoded(Pipeline::Stc { p_sparsity: 0.1 }, input);
        assert_eq!(ours.transformer_metadata, stock.transformer_metadata, "{}", stock.name);
    }
}

#[test]
fn a_rotation_of_ours_comes_back_near_to_what_it_was() {
    for input in model("openfl-1.9/inputs.pbuf") {
        let (_, out) = decoded(eden(8), encoded(eden(8), input.clone()), 1_000).expect("it decodes");
        let was = floats(&input.data_bytes);
        let norm: f32 = was.iter().map(|x| x * x).sum::<f32>().sqrt();
        let error: f32 = was.iter().zip(floats(&out)).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
        assert!(error <= 0.02 * norm, "{}: {error} of {norm}", input.name);
    }
}

fn fault(codec: Pipeline, tensor: NamedTensor) -> Fault {
    let refusal = decoded(codec, tensor, 5).expect_err("it is refused");
    assert_eq!(refusal.tensor, "matrix");
    refusal.fault
}

fn matrix(name: &str) -> NamedTensor {
    model(&format!("openfl-1.9/{name}.pbuf"))
        .into_iter()
        .find(|tensor| tensor.name == "matrix")
        .expect("a matrix")
}

fn longer(tensor: &NamedTensor) -> NamedTensor {
    let data_bytes = Bytes::from([tensor.data_bytes.as_ref(), &[0; 4]].concat());
    NamedTensor { data_bytes, ..tensor.clone() }
}

fn shorter(tensor: &NamedTensor, by: usize) -> NamedTensor {
    let data_bytes = tensor.data_bytes.slice(..tensor.data_bytes.len() - by);
    NamedTensor { data_bytes, ..tensor.clone() }
}

#[test]
fn bytes_that_are_not_as_many_as_the_shape_says_are_refused() {
    for (name, codec) in
        [("no_compression", Pipeline::NoCompression), ("random_shift", Pipeline::RandomShift)]
    {
        let tensor = matrix(name);
        assert_eq!(fault(codec, longer(&tensor)), Fault::TooManyBytes { expected: 396 }, "{name}");
        assert_eq!(
            fault(codec, shorter(&tensor, 4)),
            Fault::TooFewBytes { expected: 396, got: 392 },
            "{name}"
        );
        assert_eq!(
            fault(codec, shorter(&tensor, 1)),
            Fault::TooFewBytes { expected: 396, got: if name == "random_shift" { 392 } else { 395 } },
            "{name}"
        );
    }
    // The matrix is below the threshold of a rotation.
    let tensor = model("openfl-1.9/eden_4.pbuf").into_iter().find(|tensor| tensor.name == "large").unwrap();
    let tensor = NamedTensor { name: "matrix".to_owned(), ..tensor };
    assert!(matches!(fault(eden(4), longer(&tensor)), Fault::TooManyBytes { .. }));
    assert!(matches!(fault(eden(4), shorter(&tensor, 1)), Fault::TooFewBytes { .. }));
    assert!(matches!(fault(eden(5), tensor), Fault::TooFewBytes { .. }));
}

#[test]
fn a_gzip_that_is_cut_longer_or_none_is_refused() {
    let tensor = matrix("skc");
    for by in 1..tensor.data_bytes.len() {
        assert!(matches!(fault(SKC, shorter(&tensor, by)), Fault::Gzip { .. }), "by {by}");
    }
    assert!(matches!(fault(SKC, longer(&tensor)), Fault::Gzip { .. }));
    let none = NamedTensor { data_bytes: Bytes::from_static(b"not a gzip"), ..tensor };
    assert!(matches!(fault(SKC, none), Fault::Gzip { .. }));
}

#[test]
fn a_bomb_is_refused_before_it_has_unfolded() {
    // As many bytes as a shape of a hundred times as many elements has.
    let mut large = matrix("skc");
    large.transformer_metadata[0].int_list = vec![1_000, 1_000];
    large.data_bytes = gzip(&vec![0; 4_000_000]);
    assert!(large.data_bytes.len() < 8_000, "a bomb");
    let bomb = NamedTensor { transformer_metadata: matrix("skc").transformer_metadata, ..large.clone() };
    assert_eq!(fault(SKC, bomb), Fault::TooManyBytes { expected: 396 });
    let (shape, _) = decoded(SKC, large, 1_000).expect("it is none for its own shape");
    assert_eq!(shape.num_elements(), 1_000_000);
}

#[test]
fn what_unfolds_a_thousandfold_comes_out_a_few_mib_at_a_time() {
    let mut large = matrix("skc");
    large.transformer_metadata[0].int_list = vec![4_000, 4_000];
    large.data_bytes = gzip(&vec![0; 64_000_000]);
    let (head, bytes) = Head::split(large);
    let mut decoder = Decoder::new(SKC, &head, &Limits::default()).unwrap();
    let (mut most, mut all) = (0, 0);
    for stretch in bytes.chunks(decoder.stretch_len()) {
        let mut out = Vec::new();
        decoder.push(stretch, &mut out).unwrap();
        (most, all) = (most.max(out.len()), all + out.len());
    }
    assert!(most <= 8 << 20, "{most}");
    assert_eq!(all, 64_000_000);
    decoder.finish(&mut Vec::new()).unwrap();
}

#[test]
fn metadata_of_every_pipeline_is_within_its_bound() {
    for (_, codec) in GOLDENS {
        for len in [1_u16, 1_000, 30_000] {
            let values: Vec<f64> = (0..len).map(|at| f64::from(at).sin()).collect();
            let spec = TensorSpec::new("w", Dtype::F32, [u64::from(len)]).unwrap();
            let tensor = Tensor::from_f64(spec, &values).unwrap();
            for metadata in encode(codec, &tensor, 3).unwrap().metadata {
                let (told, max) = (metadata.encoded_len() as u64, codec.metadata_len_max(u64::from(len)));
                assert!(told <= max, "{codec:?} of {len}: {told}");
            }
        }
    }
}

fn gzip(bytes: &[u8]) -> Bytes {
    use std::io::Write as _;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap().into()
}

#[test]
fn codes_that_are_not_in_the_table_are_refused() {
    let mut tensor = matrix("kc");
    let last = tensor.transformer_metadata[0].int_to_float.pop_last().expect("a value");
    let len = tensor.transformer_metadata[0].int_to_float.len();
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let code = last.0 as f32;
    assert_eq!(fault(KC, tensor), Fault::Code { code, len });
    let mut tensor = matrix("kc");
    for code in [0.5f32, -1.0, f32::NAN, f32::INFINITY, 1e9] {
        tensor.data_bytes = gzip(&code.to_le_bytes());
        assert!(matches!(fault(KC, tensor.clone()), Fault::Code { .. }), "{code}");
    }
}

#[test]
fn rotations_that_lie_are_refused() {
    let tensor = model("openfl-1.9/eden_4.pbuf").into_iter().find(|tensor| tensor.name == "large").unwrap();
    let tensor = NamedTensor { name: "matrix".to_owned(), ..tensor };
    let lies: [(i32, f32); 9] = [
        (0, 0.5),
        (0, 65_536.0),
        (0, f32::NAN),
        (1, 7.0),
        (3, 1_023.0),
        (3, 4.0),
        (3, 1_048_576.0),
        (3, -8.0),
        (3, f32::INFINITY),
    ];
    for (key, value) in lies {
        let mut tensor = tensor.clone();
        tensor.transformer_metadata[0].int_to_float.insert(key, value);
        assert!(matches!(fault(eden(4), tensor), Fault::Transformers { .. }), "{key}: {value}");
    }
}

/// A thousandth of a tensor's bytes can come to all of it: what unfolds is believed as far as the federation's own tensors go.
#[test]
fn what_unfolds_has_a_bound_of_its_own() {
    let limits = |unfolded_bytes_max| Limits { unfolded_bytes_max, ..Limits::default() };
    for (name, codec) in GOLDENS {
        for tensor in model(&format!("openfl-1.9/{name}.pbuf")) {
            let (head, _) = Head::split(tensor.clone());
            let is_plain = head.metadata.iter().all(|entry| entry.int_to_float.is_empty());
            let Ok(decoder) = Decoder::new(codec, &head, &Limits::default()) else { continue };
            let len = decoder.shape().num_elements() * 4;
            assert!(Decoder::new(codec, &head, &limits(len)).is_ok(), "{name}");
            if len > 0 && !is_plain {
                let refused = Decoder::new(codec, &head, &limits(len - 1)).unwrap_err();
                assert!(refused.to_string().contains(&head.name), "{refused}");
                assert!(matches!(refused.fault, Fault::TooLarge { .. }), "{refused}");
            } else if is_plain {
                assert!(Decoder::new(codec, &head, &limits(0)).is_ok() || len == 0, "{name}");
            }
        }
    }
}
