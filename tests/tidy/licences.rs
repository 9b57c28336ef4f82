//! What we ship may be shipped under MIT OR Apache-2.0: every dependency, Rust or npm, has a permissive licence.

use std::env::consts;
use std::fs;
use std::process::Command;

use serde_json::Value;

use super::source::{Tree, Violation};

/// Licences that ask for no more than a notice.
const ALLOWED: [&str; 11] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// The packages of `client/` whose code ends up in the page.
const NPM_LOCK: &str = "client/package-lock.json";

pub(crate) fn check(tree: &Tree) -> Vec<Violation> {
    let mut out = cargo(tree);
    if let Ok(text) = fs::read_to_string(tree.root.join(NPM_LOCK)) {
        let lock: Value = serde_json::from_str(&text).expect("a lock file is JSON");
        out.extend(npm(&lock));
    }
    out
}

fn cargo(tree: &Tree) -> Vec<Violation> {
    let mut command = Command::new(option_env!("CARGO").unwrap_or("cargo"));
    command
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(&tree.root);
    if consts::OS == "linux" {
        // Without it cargo downloads what only other systems need.
        command.args([
            "--filter-platform",
            &format!("{}-unknown-linux-gnu", consts::ARCH),
        ]);
    }
    let done = command
        .output()
        .expect("cargo runs, since it runs this test");
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "cargo metadata failed: {errors}");
    let metadata: Value = serde_json::from_slice(&done.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"]
        .as_array()
        .expect("cargo metadata lists packages");
    assert!(packages.len() > 50, "cargo metadata lists too few packages");
    let mut out = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or("?");
        out.extend(judge("Cargo.toml", name, package["license"].as_str()));
        let registry = "registry+https://github.com/rust-lang/crates.io-index";
        if package["source"]
            .as_str()
            .is_some_and(|source| source != registry)
        {
            let what = format!("`{name}` does not come from crates.io: use a published version");
            out.push(Violation::new("Cargo.toml", 0, what));
        }
    }
    out
}

fn npm(lock: &Value) -> Vec<Violation> {
    let packages = lock["packages"]
        .as_object()
        .expect("a lock file has packages");
    let mut out = Vec::new();
    for (path, package) in packages {
        let is_set = |key: &str| package[key].as_bool() == Some(true);
        // The workspace's own packages are links; tools of the build are not shipped.
        if path.starts_with("node_modules/") && !is_set("dev") && !is_set("link") {
            out.extend(judge(NPM_LOCK, path, package["license"].as_str()));
        }
    }
    out
}

fn judge(file: &str, name: &str, licence: Option<&str>) -> Option<Violation> {
    let words = licence.unwrap_or("none");
    (!is_allowed(words)).then(|| {
        let what = format!(
            "`{name}` has the licence {words:?}: do without it, or add the licence to tests/tidy/licences.rs if it asks \
             for no more than a notice"
        );
        Violation::new(file, 0, what)
    })
}

/// Judges an SPDX expression: `OR` needs one side, `AND` both. An old `/` means `OR`.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &tokens[..];
    any(&mut rest) && rest.is_empty()
}

fn any(rest: &mut &[&str]) -> bool {
    let mut allowed = all(rest);
    while rest.first() == Some(&"OR") {
        *rest = &rest[1..];
        allowed |= all(rest);
    }
    allowed
}

fn all(rest: &mut &[&str]) -> bool {
    let mut allowed = one(rest);
    while rest.first() == Some(&"AND") {
        *rest = &rest[1..];
        allowed &= one(rest);
    }
    allowed
}

fn one(rest: &mut &[&str]) -> bool {
    match **rest {
        ["(", ..] => {
            *rest = &rest[1..];
            let allowed = any(rest);
            if rest.first() == Some(&")") {
                *rest = &rest[1..];
            }
            allowed
        }
        [licence, "WITH", exception, ..] => {
            *rest = &rest[3..];
            ALLOWED.contains(&&*format!("{licence} WITH {exception}")) || ALLOWED.contains(&licence)
        }
        [licence, ..] => {
            *rest = &rest[1..];
            ALLOWED.contains(&licence)
        }
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_judged() {
        for good in [
            "MIT",
            "MIT OR GPL-3.0",
            "MIT/Apache-2.0",
            "(MIT OR GPL-3.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
        ] {
            assert!(is_allowed(good), "{good}");
        }
        for bad in [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "none",
            "",
            "MIT OR",
            "MIT (",
            "(MIT OR ISC) AND MPL-2.0",
        ] {
            assert_eq!(is_allowed(bad), bad == "MIT OR", "{bad}");
        }
    }

    #[test]
    fn packages_that_are_shipped_are_judged() {
        let lock = serde_json::json!({ "packages": {
            "": {},
            "sdk": { "license": "MIT" },
            "node_modules/a": { "license": "MIT" },
            "node_modules/b": { "license": "GPL-3.0" },
            "node_modules/c": { "license": "GPL-3.0", "dev": true },
            "node_modules/d": {},
            "node_modules/e": { "link": true },
        }});
        assert_eq!(npm(&lock).len(), 2);
    }
}
