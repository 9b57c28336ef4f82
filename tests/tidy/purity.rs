//! Pure files: no `async`, no clock, no randomness, no I/O. What they do depends on their arguments alone, so a test can
//! put them into any state and replay any failure from a seed.

use super::source::{Tree, Violation, words};

/// Pure paths, or beginnings of paths.
const PURE: [&str; 9] = [
    "src/auth/host.rs",
    "src/doc/",
    "src/mesh/membership",
    "src/mesh/placement",
    "src/protocol/",
    "src/room/outbox",
    "src/room/settle",
    "src/room/state",
    "src/units.rs",
];

/// Parts of [`PURE`] that are not: the processes that run yrs.
const EXCEPT: [&str; 1] = ["src/doc/worker"];

/// Words that no pure file contains, and what to do instead.
const FORBIDDEN: [(&str, &str); 15] = [
    (
        "async",
        "return what has to be done, and let the shell await it",
    ),
    (
        "await",
        "return what has to be done, and let the shell await it",
    ),
    ("tokio", "a pure file has no runtime"),
    ("Instant::now", "take `now` as an argument"),
    ("SystemTime", "take the time as an argument"),
    ("unix_millis", "take the time as an argument"),
    ("SystemRandom", "take randomness as an argument"),
    ("ring", "take randomness as an argument"),
    ("rand", "take randomness as an argument"),
    ("random", "take what is drawn as an argument"),
    ("std::fs", "take the bytes as an argument"),
    ("std::net", "addresses and sockets are the carrier's"),
    ("std::io", "take the bytes as an argument"),
    ("std::env", "take it from the configuration"),
    ("std::thread", "a pure file starts nothing"),
];

/// Kinds of words above that a file needs all the same, with the reason.
const ALLOWED: [(&str, &str); 1] = [
    // `IpAddr` is a value; nothing is opened.
    ("src/auth/host.rs", "std::net"),
];

pub(crate) fn check(tree: &Tree) -> Vec<Violation> {
    let mut out = Vec::new();
    for file in tree.rust() {
        let starts = |list: &[&str]| list.iter().any(|path| file.path.starts_with(path));
        if !starts(&PURE) || starts(&EXCEPT) {
            continue;
        }
        for (number, line) in file.shipped() {
            for (word, instead) in FORBIDDEN {
                let allowed = ALLOWED.contains(&(file.path.as_str(), word));
                if !allowed && words(&line.code, word).next().is_some() {
                    let what = format!("`{word}` in a pure file: {instead}");
                    out.push(Violation::new(&file.path, number, what));
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impurities_are_found() {
        let n = |path: &str, text: &str| check(&Tree::of(path, text)).len();
        assert_eq!(n("src/room/state.rs", "async fn f() {}"), 1);
        assert_eq!(n("src/protocol/frame.rs", "let t = Instant::now();"), 1);
        assert_eq!(n("src/doc/scan.rs", "use std::fs;"), 1);
        assert_eq!(n("src/room/actor.rs", "async fn f() {}"), 0);
        assert_eq!(
            n("src/room/state.rs", "// async\nlet ringing = \"ring\";"),
            0
        );
    }
}
