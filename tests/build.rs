//! Tells the test binaries where libtorch is: a dependency's link arguments do not
//! reach the binaries of those who depend on it.

use std::{env, path::PathBuf};

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if let Some(libtorch) = env::var_os("LIBTORCH") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", PathBuf::from(libtorch).join("lib").display());
    }
}
