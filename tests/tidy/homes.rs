//! Where each third-party crate lives. Its types stay behind our own, so that it can be replaced in one folder, and so
//! that nobody needs to know it to read the rest.

use std::fs;

use super::source::{Tree, Violation, is_name, words};

/// Crates that any file may use: they are our vocabulary.
const EVERYWHERE: [&str; 8] = [
    "bytes",
    "futures_util",
    "serde",
    "serde_json",
    "thiserror",
    "tokio",
    "tokio_util",
    "tracing",
];

/// A crate, the paths (or beginnings of paths) that may use it, and why.
const HOMES: &[(&str, &[&str], &str)] = &[
    (
        "anyhow",
        &["src/cli.rs", "src/main.rs"],
        "errors are typed everywhere else",
    ),
    (
        "axum",
        &["src/http/", "src/transport/websocket"],
        "HTTP is one face, not the shape of the program",
    ),
    ("clap", &["src/cli.rs"], "only the command line knows flags"),
    (
        "hyper",
        &["src/http/", "src/transport/", "src/node.rs"],
        "HTTP is one face, not the shape of the program",
    ),
    (
        "hyper_util",
        &["src/http/", "src/transport/"],
        "HTTP is one face, not the shape of the program",
    ),
    ("jsonwebtoken", &["src/auth/"], "only auth judges tokens"),
    (
        "prometheus_client",
        &["src/telemetry/"],
        "metrics are fields of one struct",
    ),
    (
        "quinn",
        &["src/transport/", "src/mesh/peer.rs"],
        "a room or session must not know the carrier",
    ),
    (
        "quinn_proto",
        &["src/transport/"],
        "a room or session must not know the carrier",
    ),
    (
        "rcgen",
        &["src/transport/"],
        "certificates are the carrier's",
    ),
    (
        "ring",
        &["src/ids.rs", "src/auth/", "src/transport/", "src/store/"],
        "pure code has no randomness",
    ),
    (
        "rust_embed",
        &["src/http/"],
        "the demo's files are pages of HTTP",
    ),
    (
        "rustix",
        &["src/doc/worker/"],
        "limits are what a worker sets itself",
    ),
    (
        "rustls",
        &["src/transport/", "src/http/", "src/cli.rs"],
        "TLS is the carrier's",
    ),
    (
        "socket2",
        &["src/transport/", "src/http/"],
        "sockets are the carrier's",
    ),
    (
        "sqlx",
        &["src/store/"],
        "the store is a trait to everybody else",
    ),
    (
        "tokio_rustls",
        &["src/transport/", "src/http/"],
        "TLS is the carrier's",
    ),
    (
        "tokio_tungstenite",
        &["src/transport/"],
        "a room or session must not know the carrier",
    ),
    ("toml", &["src/config/"], "configuration is read once"),
    (
        "tracing_subscriber",
        &["src/telemetry/"],
        "the library only emits; the program listens",
    ),
    (
        "wtransport",
        &["src/transport/webtransport", "src/transport/dial"],
        "a room or session must not know the carrier",
    ),
    (
        "x509_parser",
        &["src/transport/"],
        "certificates are the carrier's",
    ),
    (
        "yrs",
        &["src/doc/worker/"],
        "client bytes reach yrs in a worker process only; it judges us in tests",
    ),
    (
        "zstd",
        &["src/store/"],
        "what is stored packed is unpacked by the store; others see bytes",
    ),
];

pub(crate) fn check(tree: &Tree) -> Vec<Violation> {
    let mut out = uses(tree);
    let manifest = fs::read_to_string(tree.root.join("Cargo.toml")).unwrap_or_default();
    out.extend(undecided(&manifest));
    out
}

fn uses(tree: &Tree) -> Vec<Violation> {
    let mut out = Vec::new();
    for file in tree.rust().filter(|file| file.path.starts_with("src/")) {
        for (number, line) in file.shipped() {
            for (name, homes, why) in HOMES {
                if names_crate(&line.code, name)
                    && !homes.iter().any(|home| file.path.starts_with(home))
                {
                    let what = format!(
                        "`{name}` belongs to {} ({why}): wrap it there, or change its home in tests/tidy/homes.rs",
                        homes.join(", ")
                    );
                    out.push(Violation::new(&file.path, number, what));
                }
            }
        }
    }
    out
}

/// `name::…` or `use name`, not as the last part of a longer path.
fn names_crate(code: &str, name: &str) -> bool {
    words(code, name).any(|at| {
        let before = code[..at].trim_end();
        let after = code[at + name.len()..].trim_start();
        // `use ::name` is the crate too; `other::name` is not.
        let rooted = before.strip_suffix("::").unwrap_or(before);
        let is_root = rooted.len() == before.len() || !rooted.ends_with(is_name);
        let is_path = after.starts_with("::");
        let is_use = rooted.trim_end().ends_with("use")
            && (after.starts_with(';') || after.starts_with("as "));
        is_root && !before.ends_with('.') && (is_path || is_use)
    })
}

/// Dependencies of the manifest that nobody gave a home.
fn undecided(manifest: &str) -> Vec<Violation> {
    let mut section = "";
    let mut out = Vec::new();
    for (number, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            section = line;
        }
        let Some((name, _)) = line.split_once('=') else {
            continue;
        };
        let name = name.trim().replace('-', "_");
        let known =
            EVERYWHERE.contains(&&*name) || HOMES.iter().any(|(known, _, _)| *known == name);
        if section == "[dependencies]" && !name.starts_with('#') && !known {
            let what = format!(
                "`{name}` has no home: give it one in tests/tidy/homes.rs, with the reason"
            );
            out.push(Violation::new("Cargo.toml", number, what));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n_violations(path: &str, text: &str) -> usize {
        uses(&Tree::of(path, text)).len()
    }

    #[test]
    fn a_crate_away_from_home_is_found() {
        assert_eq!(n_violations("src/room/state.rs", "use yrs::Doc;"), 1);
        assert_eq!(
            n_violations("src/room/state.rs", "let d = yrs::Doc::new();"),
            1
        );
        assert_eq!(n_violations("src/session/mod.rs", "use ::quinn as q;"), 1);
        assert_eq!(n_violations("src/session/mod.rs", "use quinn as q;"), 1);
        assert_eq!(n_violations("src/doc/scan.rs", "use yrs::Doc;"), 1);
        assert_eq!(
            n_violations("src/doc/worker/visible.rs", "use yrs::Doc;"),
            0
        );
        assert_eq!(
            n_violations("src/room/state.rs", "use self::yrs::Doc; // yrs::Doc"),
            0
        );
        assert_eq!(n_violations("src/room/x_tests.rs", "use yrs::Doc;"), 0);
    }

    #[test]
    fn a_dependency_without_a_home_is_found() {
        let manifest = "[dependencies]\nbytes = \"1\"\nleft-pad = \"1\"\n[dev-dependencies]\nproptest = \"1\"\n";
        assert_eq!(undecided(manifest).len(), 1);
    }
}
