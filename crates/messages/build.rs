//! Compiles the native protocol's definition into messages and service stubs; needs no `protoc`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let root = "../../proto";
    let proto = "../../proto/native/v1/participant.proto";
    println!("cargo:rerun-if-changed={proto}");
    let files = protox::compile([proto], [root])?;
    tonic_prost_build::configure()
        .emit_rerun_if_changed(false)
        .codec_path("crate::BoundedCodec")
        .btree_map(".")
        .bytes(".")
        .type_attribute(".", "#[derive(serde::Serialize, serde::Deserialize)]")
        .message_attribute(".", "#[serde(default)]")
        .field_attribute(".sheaf.native.v1.SubmitRequest.num_examples", "#[serde(with = \"crate::number\")]")
        .field_attribute(".sheaf.native.v1.SubmitRequest.metrics", "#[serde(with = \"crate::number::map\")]")
        .type_attribute(".sheaf.native.v1.ConfigValue.kind", "#[serde(rename_all = \"snake_case\")]")
        .message_attribute(".sheaf.native.v1.ConfigValue", "#[serde(transparent)]")
        .compile_fds(files)?;
    Ok(())
}
