//! Who may import whom: imports go down only, and not sideways between the parts of one of the middle layers.
//!
//! A part that reaches up or across cannot be understood, tested or replaced alone. Tests may import what they like.

use super::source::{File, Tree, Violation, is_name};

/// The modules by layer. `ids`, `clock` and `units` know nothing; `node` knows everything.
const LAYERS: [&[&str]; 7] = [
    &["ids", "clock", "units"],
    &["protocol", "doc", "auth", "limits", "telemetry", "shutdown"],
    &["transport", "store"],
    &["room", "history"],
    &["session", "mesh"],
    &["http", "loadtest"],
    &["config", "node", "cli", "main", "lib"],
];

/// Layers whose modules do not import each other: two carriers of one role would grow together.
const NOT_SIDEWAYS: [usize; 3] = [2, 3, 4];

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

pub(crate) fn check(tree: &Tree) -> Vec<Violation> {
    let mut out = Vec::new();
    for file in tree.rust().filter(|file| file.path.starts_with("src/")) {
        let module = module_of(&file.path);
        let Some(layer) = layer_of(module) else {
            let what =
                format!("the module `{module}` has no layer: give it one in tests/tidy/layers.rs");
            out.push(Violation::new(&file.path, 0, what));
            continue;
        };
        for (line, target) in imports(file) {
            let Some(below) = layer_of(&target) else {
                continue;
            };
            let sideways = below == layer && target != module && NOT_SIDEWAYS.contains(&layer);
            if below > layer {
                let what = format!(
                    "`{module}` (layer {layer}) imports `{target}` (layer {below}): move what is shared down, or hand \
                     it over as an argument or a trait of `{module}`"
                );
                out.push(Violation::new(&file.path, line, what));
            } else if sideways {
                let what = format!(
                    "`{module}` imports `{target}` beside it in layer {layer}: meet in a module below, or let the one \
                     above connect them"
                );
                out.push(Violation::new(&file.path, line, what));
            }
        }
    }
    out
}

/// The top module of a path such as `src/room/state.rs` or `src/ids.rs`.
fn module_of(path: &str) -> &str {
    let rest = path.strip_prefix("src/").unwrap_or(path);
    rest.split('/')
        .next()
        .unwrap_or(rest)
        .trim_end_matches(".rs")
}

/// How many modules a file lies below the crate's root.
fn depth_of(path: &str) -> usize {
    let parts = path.trim_start_matches("src/").split('/').count();
    if path.ends_with("/mod.rs") || path == "src/lib.rs" || path == "src/main.rs" {
        parts - 1
    } else {
        parts
    }
}

/// The top modules that a file names by `crate::x`, `crate::{x, y::z}`, `syncline::x` or enough `super::`.
fn imports(file: &File) -> Vec<(usize, String)> {
    let mut code = String::new();
    let mut starts = Vec::new();
    for line in &file.lines {
        starts.push(code.len());
        if !line.is_test {
            code.push_str(&line.code);
        }
        code.push('\n');
    }
    let to_root = "super::".repeat(depth_of(&file.path));
    let mut roots = vec!["crate::", "syncline::"];
    if !to_root.is_empty() {
        roots.push(&to_root);
    }
    let mut out = Vec::new();
    for root in roots {
        for (at, _) in code.match_indices(root) {
            if code[..at]
                .chars()
                .next_back()
                .is_some_and(|c| is_name(c) || c == ':')
            {
                continue;
            }
            let line = starts.partition_point(|start| *start <= at) - 1;
            for name in names(&code[at + root.len()..]) {
                out.push((line, name));
            }
        }
    }
    out
}

/// The first names of a path or of each member of a `{…}` group.
fn names(after: &str) -> Vec<String> {
    let first = |text: &str| -> String {
        text.trim_start()
            .chars()
            .take_while(|c| is_name(*c))
            .collect()
    };
    let Some(group) = after.trim_start().strip_prefix('{') else {
        return vec![first(after)];
    };
    let mut depth = 0;
    let mut out = vec![first(group)];
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => out.push(first(&group[at + 1..])),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n_violations(path: &str, text: &str) -> usize {
        check(&Tree::of(path, text)).len()
    }

    #[test]
    fn upward_and_sideways_imports_are_found() {
        assert_eq!(
            n_violations("src/room/state.rs", "use crate::session::X;"),
            1
        );
        assert_eq!(
            n_violations("src/room/state.rs", "use crate::{doc::A,\n  http::{B, C}};"),
            1
        );
        assert_eq!(
            n_violations("src/room/state.rs", "let x = crate::node::run();"),
            1
        );
        assert_eq!(
            n_violations("src/room/state.rs", "use super::super::session;"),
            1
        );
        assert_eq!(n_violations("src/store/mod.rs", "use super::transport;"), 1);
        assert_eq!(n_violations("src/session/mod.rs", "use crate::mesh::X;"), 1);
        assert_eq!(n_violations("src/unheard/mod.rs", ""), 1);
    }

    #[test]
    fn downward_imports_own_modules_and_tests_are_fine() {
        for text in [
            "use crate::{doc::A, store::B, ids::C};",
            "use crate::room::actor::X;",
            "use super::actor::session;",
            "#[cfg(test)]\nmod tests {\n use crate::http::X;\n}",
            "// use crate::http::X;",
            "let x = \"crate::http\";",
        ] {
            assert_eq!(n_violations("src/room/state.rs", text), 0, "{text}");
        }
        assert_eq!(
            n_violations("src/http/mod.rs", "use crate::session::accept;"),
            0
        );
    }
}
