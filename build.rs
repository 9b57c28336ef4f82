//! Embeds the demo app again when it was built anew: cargo does not see files that appear in a folder by itself.

use std::path::Path;

fn main() {
    let built = "client/app/dist";
    // A folder that does not exist would count as changed at every build, so watch the one that it will appear in. A
    // tree without any of them, such as a published crate, has nothing to watch.
    let watched = [built, "client/app", "client"];
    let found = watched.into_iter().find(|path| Path::new(path).is_dir());
    println!("cargo:rerun-if-changed={}", found.unwrap_or("build.rs"));
    println!("cargo:rerun-if-changed=build.rs");
}
