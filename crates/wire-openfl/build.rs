//! Compiles the messages of OpenFL's protocol; services are dispatched by hand. Needs no `protoc`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let root = "../../proto";
    println!("cargo:rerun-if-changed={root}/openfl");
    let names = ["base", "aggregator"];
    let files = protox::compile(names.map(|name| format!("{root}/openfl/v1/{name}.proto")), [root])?;
    tonic_prost_build::configure()
        .emit_rerun_if_changed(false)
        .btree_map(".")
        .bytes(".")
        .build_client(false)
        .build_server(false)
        .compile_fds(files)?;
    Ok(())
}
