//! A release binary holds the whole UI; without it the build stops here with
//! one clear line instead of shipping a server that has no pages.

use std::path::Path;

fn main() {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ui/dist");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=../../ui/dist/manifest.json");
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if release && !dist.join("manifest.json").exists() {
        println!("cargo::error=ui/dist is missing: run make ui");
    }
    // Debug builds read the folder when they run; the embedding macro only wants it to exist.
    let _ = std::fs::create_dir_all(dist);
}
