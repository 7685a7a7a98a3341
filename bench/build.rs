//! Compiles the loop of Linux' shape, one of those that the cipher is compared with: `benches/cipher/linux.c`.

use std::env;
use std::path::PathBuf;

fn main() {
    let source = "benches/cipher/linux.c";
    println!("cargo::rerun-if-changed={source}");
    cc::Build::new()
        .file(source)
        // As Linux is, whatever the profile.
        .opt_level(2)
        .cargo_metadata(false)
        .compile("turnpike_bench_linux");
    if let Some(folder) = env::var_os("OUT_DIR").map(PathBuf::from) {
        let library = folder.join("libturnpike_bench_linux.a");
        // For benchmarks alone: what people run does without.
        println!("cargo::rustc-link-arg-benches={}", library.display());
    }
}
