//! Compiles the contracts without a `protoc` on the machine.

use std::{env, fs, path::PathBuf};

use prost::Message as _;

const FILES: &[&str] = &[
    "inference/v2/open_inference_grpc.proto",
    "inference/v2/model_config.proto",
    "inference/v2/model_repository.proto",
    "inference/v2/settings.proto",
    "inference/v2/shared_memory.proto",
    "inference/v2/statistics.proto",
    "sconce/v1/catalog.proto",
    "sconce/v1/registry.proto",
    "sconce/v1/sidecar.proto",
    "sconce/v1/identity.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // gRPC reflection serves this.
    fs::write(out.join("descriptor.bin"), compiler.encode_file_descriptor_set())?;
    let descriptors = compiler.file_descriptor_set();
    debug_assert!(descriptors.encoded_len() > 0);
    tonic_prost_build::configure()
        // Tensors and chunks stay slices of the buffer they arrived in.
        .bytes(".inference.ModelInferRequest.raw_input_contents")
        .bytes(".inference.ModelInferResponse.raw_output_contents")
        .bytes(".sconce.v1.Chunk.data")
        .compile_fds(descriptors)?;
    Ok(())
}
