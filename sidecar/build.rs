//! Builds the C++ shim against libtorch, and tells binaries where to find libtorch.

use std::{env, path::PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=src/engine/torch/shim.cpp");
    println!("cargo:rerun-if-changed=src/engine/torch/shim.h");
    println!("cargo:rerun-if-changed=src/engine/torch/shim");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let libtorch = PathBuf::from(env::var_os("LIBTORCH").expect(
        "LIBTORCH is not set: run `make libtorch` once, or point LIBTORCH at a libtorch that you have",
    ));
    let mut shim = cc::Build::new();
    shim.cpp(true).std("c++20").file("src/engine/torch/shim.cpp");
    // As system headers, so that the warnings are about our code and not libtorch's.
    for include in ["include", "include/torch/csrc/api/include"] {
        shim.flag("-isystem").flag(libtorch.join(include));
    }
    // Unoptimised, its templates would cost every request of a debug build.
    shim.opt_level(2).compile("sconce_shim");
    let lib = libtorch.join("lib");
    println!("cargo:rustc-link-search=native={}", lib.display());
    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");
    // So that a binary starts without LD_LIBRARY_PATH: in an image from beside itself,
    // here from where it was built.
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
}
