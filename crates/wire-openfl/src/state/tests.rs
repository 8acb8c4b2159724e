//! Model files that stock wrote, read and written again; then files that are none.

use std::path::PathBuf;

use prost::Message as _;

use super::*;
use crate::proto::ModelProto;

const SKC: Pipeline = Pipeline::Skc { p_sparsity: 0.1, n_clusters: 6 };
const ROOM: u64 = 1 << 20;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

fn of_bytes(bytes: &[u8], cut: usize, pipeline: Pipeline) -> Result<Model, StateError> {
    let mut reader = ModelReader::new(pipeline, Limits::default(), ROOM);
    for piece in bytes.chunks(cut) {
        reader.feed(Bytes::copy_from_slice(piece))?;
    }
    reader.finish()
}

#[test]
fn a_stock_model_is_read_and_written_to_the_same_bytes() {
    let path = golden("openfl-1.9/model.pbuf");
    let model = read(&path, Pipeline::NoCompression, ROOM).expect("a model");
    assert_eq!(model.round_number, 2);
    assert!(model.params.len() > 5);
    let stock = std::fs::read(&path).unwrap();
    for cut in [1, 11, 1_000] {
        assert_eq!(of_bytes(&stock, cut, Pipeline::NoCompression).expect("a model"), model);
    }
    let folder = tempfile::tempdir().unwrap();
    let written = folder.path().join("last.pbuf");
    write(&written, &model, Pipeline::NoCompression, 0).expect("it is written");
    assert_eq!(std::fs::read(&written).unwrap(), stock);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn a_stock_model_of_a_lossy_pipeline_is_what_stock_reads_from_it() {
    let model = read(&golden("openfl-1.9/model_skc.pbuf"), SKC, ROOM).expect("a model");
    let wanted =
        read(&golden("openfl-1.9/model_skc.decoded.pbuf"), Pipeline::NoCompression, ROOM).expect("a model");
    assert_eq!(model.params, wanted.params);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("best.pbuf");
    write(&path, &model, SKC, 3).expect("it is written");
    let again = read(&path, SKC, ROOM).expect("a model");
    assert_eq!(again.params.specs(), model.params.specs());
}

#[test]
fn the_final_model_is_written_without_loss() {
    let model = read(&golden("openfl-1.9/model.pbuf"), Pipeline::NoCompression, ROOM).expect("a model");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("final.safetensors");
    write_safetensors(&path, &model).expect("it is written");
    let read = safetensors::read(std::fs::read(&path).unwrap().into()).expect("safetensors");
    assert_eq!(read, model.params);
}

#[test]
fn a_file_that_cannot_be_written_stays_what_it_was() {
    let model = read(&golden("openfl-1.9/model.pbuf"), Pipeline::NoCompression, ROOM).expect("a model");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last.pbuf");
    std::fs::create_dir(&path).unwrap();
    assert!(matches!(write(&path, &model, Pipeline::NoCompression, 0), Err(StateError::Write { .. })));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    let nowhere = folder.path().join("no/such/last.pbuf");
    assert!(matches!(write(&nowhere, &model, Pipeline::NoCompression, 0), Err(StateError::Write { .. })));
}

#[test]
fn files_that_are_no_model_are_refused() {
    let stock = std::fs::read(golden("openfl-1.9/model.pbuf")).unwrap();
    let refused = |bytes: &[u8]| of_bytes(bytes, 100, Pipeline::NoCompression).expect_err("it is refused");
    assert!(matches!(refused(&[]), StateError::Empty));
    assert!(matches!(refused(b"\x80\x80\x80"), StateError::Encoding(FieldError::Truncated)));
    assert!(matches!(refused(&stock[..stock.len() - 1]), StateError::Encoding(FieldError::Truncated)));
    let changed = |change: fn(&mut ModelProto)| {
        let mut model = ModelProto::decode(stock.as_slice()).unwrap();
        change(&mut model);
        refused(&model.encode_to_vec())
    };
    assert!(matches!(
        changed(|model| model.tensors[1].round_number = 7),
        StateError::Rounds { round: 7, before: 2, .. }
    ));
    assert!(matches!(
        changed(|model| model.tensors[1].name = model.tensors[0].name.clone()),
        StateError::Set(_)
    ));
    assert!(matches!(changed(|model| model.tensors[1].transformer_metadata.clear()), StateError::Tensor(_)));
    let small = ModelReader::new(Pipeline::NoCompression, Limits::default(), 100).feed(stock.clone().into());
    assert!(matches!(small, Err(StateError::TooLarge { max: 100 })));
}
