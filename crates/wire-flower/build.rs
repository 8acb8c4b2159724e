//! Compiles the messages of the Flower protocol; services are dispatched by hand. Needs no `protoc`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let root = "../../proto";
    println!("cargo:rerun-if-changed={root}/flower");
    let names = ["fleet", "heartbeat", "fab", "log", "runtime", "control", "grpcadapter"];
    let files = protox::compile(names.map(|name| format!("{root}/flower/v1/{name}.proto")), [root])?;
    tonic_prost_build::configure()
        .emit_rerun_if_changed(false)
        .btree_map(".")
        .bytes(".")
        .compile_fds(files)?;
    Ok(())
}
