//! How files look: short, with a header that says why they exist, without loose ends.

use super::source::{File, Tree, Violation, words};

/// The most lines of a source file. What is longer has two subjects, or tests that belong into a file beside it.
const LINES_MAX: usize = 600;

pub(crate) fn check_files(tree: &Tree) -> Vec<Violation> {
    let mut out = Vec::new();
    for file in &tree.files {
        let n_lines = file.lines.len();
        if (file.is_rust() || file.is_script()) && n_lines > LINES_MAX {
            let what = format!(
                "{n_lines} lines; at most {LINES_MAX}: split it by subject, or move its tests to a file beside it"
            );
            out.push(Violation::new(&file.path, LINES_MAX, what));
        }
        if file.is_rust() && !has_header(file) {
            let what =
                "no header: begin the file with `//!`, and say why it exists and what it promises";
            out.push(Violation::new(&file.path, 0, what));
        }
    }
    out
}

/// Whether the first thing in a file is a `//!` with words.
fn has_header(file: &File) -> bool {
    let first = file.lines.iter().find(|line| !line.raw.trim().is_empty());
    first.is_some_and(|line| {
        line.raw
            .strip_prefix("//! ")
            .is_some_and(|text| text.len() > 10)
    })
}

/// Words of code, and what to do instead.
const CODE: [(&str, &str); 5] = [
    ("todo!", "finish it, or leave it out"),
    ("unimplemented!", "finish it, or leave it out"),
    (
        "unbounded_channel",
        "bound the queue, and say what happens when it is full",
    ),
    (
        "UnboundedSender",
        "bound the queue, and say what happens when it is full",
    ),
    ("#[ignore", "make the test pass, or delete it"),
];

/// Words of comments that promise instead of doing.
const COMMENTS: [&str; 4] = ["TODO", "FIXME", "XXX", "HACK"];

/// Too long a dash.
const EM_DASH: char = '\u{2014}';

pub(crate) fn check_words(tree: &Tree) -> Vec<Violation> {
    let mut out = Vec::new();
    for file in &tree.files {
        for (number, line) in file.lines.iter().enumerate() {
            let mut report = |what: String| out.push(Violation::new(&file.path, number, what));
            let script_comment;
            let comment = if file.is_rust() {
                for (word, instead) in CODE {
                    if line.code.contains(word) {
                        report(format!("`{word}`: {instead}"));
                    }
                }
                &line.comment
            } else if file.is_script() {
                script_comment = comment_of_script(&line.raw);
                &script_comment
            } else {
                continue;
            };
            for word in COMMENTS {
                if words(comment, word).next().is_some() {
                    report(format!("`{word}` in a comment: do it, or file an issue"));
                }
            }
            if comment.contains(EM_DASH) {
                report("an em dash in a comment: use a colon, a comma or two sentences".into());
            }
        }
    }
    out
}

/// The comment of a line of TypeScript, near enough: what follows `//` at the start or after a space, or a line of a
/// block comment.
fn comment_of_script(raw: &str) -> String {
    let line = raw.trim_start();
    if line.starts_with("//") || line.starts_with("/*") || line.starts_with('*') {
        return line.into();
    }
    line.split_once(" // ")
        .map(|(_, comment)| comment.into())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_headless_files_are_found() {
        let n = |path: &str, text: &str| check_files(&Tree::of(path, text)).len();
        assert_eq!(n("src/a.rs", "fn f() {}\n"), 1);
        assert_eq!(n("src/a.rs", "//! x\n"), 1);
        assert_eq!(n("src/a.rs", "//! Says why it exists.\n"), 0);
        assert_eq!(n("client/sdk/src/a.ts", &"x\n".repeat(601)), 1);
        assert_eq!(n("client/sdk/src/a.ts", &"x\n".repeat(600)), 0);
    }

    #[test]
    fn loose_ends_are_found() {
        let n = |path: &str, text: &str| check_words(&Tree::of(path, text)).len();
        for text in [
            "todo!()",
            "mpsc::unbounded_channel()",
            "// FIXME later",
            "/// a \u{2014} b",
            "#[ignore] fn f() {}",
        ] {
            assert_eq!(n("src/a.rs", text), 1, "{text}");
        }
        assert_eq!(n("src/a.rs", "let a = \"FIXME todo!\"; // mastodons"), 0);
        assert_eq!(n("client/a.ts", "f(); // FIXME"), 1);
        assert_eq!(n("client/a.ts", "const a = \"a \u{2014} b\";"), 0);
    }
}
