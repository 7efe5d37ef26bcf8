//! Builds the C++ shim against libtorch, and tells binaries where to find libtorch.

use std::{env, path::PathBuf};

fn main() {
    let shim = "src/engine/torch/shim";
    println!("cargo:rerun-if-changed={shim}.cpp");
    println!("cargo:rerun-if-changed={shim}.h");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let libtorch = PathBuf::from(env::var_os("LIBTORCH").expect(
        "LIBTORCH is not set: run `make libtorch` once, or point LIBTORCH at a libtorch that you have",
    ));
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .file(format!("{shim}.cpp"))
        .include(libtorch.join("include"))
        .include(libtorch.join("include/torch/csrc/api/include"))
        // libtorch's headers, not ours.
        .flag_if_supported("-Wno-unused-parameter")
        .warnings(false)
        .opt_level(2)
        .compile("sconce_shim");
    let lib = libtorch.join("lib");
    println!("cargo:rustc-link-search=native={}", lib.display());
    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");
    // So that a binary starts without LD_LIBRARY_PATH: here from where it was built, in
    // an image from beside itself.
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
}
