//! The project's files, with Rust code told apart from comments, texts and tests.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders whose files are the project's own.
const ROOTS: [&str; 5] = ["src", "tests", "benches", "client", "certs"];

/// Folders that hold what was installed or built.
const NOT_OURS: [&str; 6] = [
    "node_modules",
    "dist",
    "target",
    "out",
    "artifacts",
    "corpus",
];

/// A broken rule: where, what, and how to mend it.
#[derive(Debug)]
pub(crate) struct Violation {
    file: String,
    line: usize,
    what: String,
}

impl Violation {
    /// `line` counts from 0, as indexes do; it is shown from 1.
    pub(crate) fn new(file: &str, line: usize, what: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            line: line + 1,
            what: what.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// One line of a file.
#[derive(Debug, Default, Clone)]
pub(crate) struct Line {
    /// The line as it stands.
    pub(crate) raw: String,
    /// Its code, with texts emptied (`""`) and comments taken out. Only for Rust.
    pub(crate) code: String,
    /// Its comments. Only for Rust.
    pub(crate) comment: String,
    /// Whether it belongs to a test.
    pub(crate) is_test: bool,
}

/// One file, by its path from the project's root.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) lines: Vec<Line>,
}

impl File {
    /// Splits a text; Rust by its path's ending.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let mut lines = if path.ends_with(".rs") {
            scan_rust(text)
        } else {
            let raw = |line: &str| Line {
                raw: line.into(),
                ..Line::default()
            };
            text.lines().map(raw).collect()
        };
        let name = path.rsplit('/').next().unwrap_or(path);
        let is_test_file = path.starts_with("tests/")
            || path.contains("/test/")
            || path.contains("/tests/")
            || name.contains(".test.")
            || name.ends_with("_tests.rs")
            || name == "tests.rs";
        if is_test_file {
            lines.iter_mut().for_each(|line| line.is_test = true);
        } else {
            mark_test_items(&mut lines);
        }
        Self {
            path: path.into(),
            lines,
        }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    pub(crate) fn is_typescript(&self) -> bool {
        [".ts", ".tsx", ".mts"]
            .iter()
            .any(|end| self.path.ends_with(end))
    }

    pub(crate) fn is_script(&self) -> bool {
        self.is_typescript() || [".js", ".mjs"].iter().any(|end| self.path.ends_with(end))
    }

    /// The numbered lines that ship.
    pub(crate) fn shipped(&self) -> impl Iterator<Item = (usize, &Line)> {
        self.lines
            .iter()
            .enumerate()
            .filter(|(_, line)| !line.is_test)
    }
}

/// All files of the project.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) root: PathBuf,
    pub(crate) files: Vec<File>,
}

impl Tree {
    /// Reads what is below [`ROOTS`].
    pub(crate) fn read() -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let mut paths = Vec::new();
        for folder in ROOTS {
            walk(&root.join(folder), &mut paths);
        }
        paths.sort();
        let files = paths
            .iter()
            .filter_map(|path| {
                let text = fs::read_to_string(path).ok()?;
                let relative = path.strip_prefix(&root).ok()?.to_str()?;
                Some(File::new(relative, &text))
            })
            .collect();
        Self { root, files }
    }

    /// A tree of one file, to test a rule.
    #[cfg(test)]
    pub(crate) fn of(path: &str, text: &str) -> Self {
        Self {
            root: PathBuf::new(),
            files: vec![File::new(path, text)],
        }
    }

    pub(crate) fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is_rust())
    }
}

fn walk(folder: &Path, out: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // A link may lead out of the project, and npm makes links from packages to themselves.
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() && !NOT_OURS.contains(&&*name) && !name.starts_with('.') {
            walk(&path, out);
        } else if kind.is_file() {
            let wanted = ["rs", "ts", "tsx", "mts", "js", "mjs", "md"];
            if path
                .extension()
                .is_some_and(|end| wanted.iter().any(|each| end == *each))
            {
                out.push(path);
            }
        }
    }
}

/// Where the scanner of Rust stands between two characters.
enum Mode {
    Code,
    /// Nested block comments.
    Block(usize),
    /// A text that ends with a quote.
    Text,
    /// A raw text that ends with a quote and this many `#`.
    Raw(usize),
}

/// Tells code from comments and texts. Knows enough of Rust for this and no more.
fn scan_rust(text: &str) -> Vec<Line> {
    let mut mode = Mode::Code;
    let mut lines = Vec::new();
    for raw in text.lines() {
        let mut line = Line {
            raw: raw.into(),
            ..Line::default()
        };
        let chars: Vec<char> = raw.chars().collect();
        let mut i = 0;
        while i < chars.len() {
            i += step(&mut mode, &chars[i..], &mut line);
        }
        lines.push(line);
    }
    lines
}

/// Takes the next piece of a line; says how many characters it took.
fn step(mode: &mut Mode, rest: &[char], line: &mut Line) -> usize {
    let starts = |text: &str| {
        text.chars()
            .enumerate()
            .all(|(i, c)| rest.get(i) == Some(&c))
    };
    match *mode {
        Mode::Code if starts("//") => {
            line.comment.extend(rest);
            rest.len()
        }
        Mode::Code if starts("/*") => {
            *mode = Mode::Block(1);
            2
        }
        Mode::Code if rest[0] == '"' => {
            line.code.push('"');
            *mode = Mode::Text;
            1
        }
        Mode::Code if rest[0] == 'r' && !ends_in_name(&line.code) => {
            let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
            if rest.get(1 + hashes) == Some(&'"') {
                line.code.push('"');
                *mode = Mode::Raw(hashes);
                2 + hashes
            } else {
                line.code.push('r');
                1
            }
        }
        Mode::Code if rest[0] == '\'' => {
            // A character ('x', '\n', '\u{..}') or a lifetime ('a).
            let len = match rest.get(1) {
                Some('\\') => rest[2..]
                    .iter()
                    .skip(1)
                    .position(|c| *c == '\'')
                    .map(|i| i + 4),
                Some(_) if rest.get(2) == Some(&'\'') => Some(3),
                Some(_) | None => None,
            };
            line.code.push('\'');
            len.unwrap_or(1)
        }
        Mode::Code => {
            line.code.push(rest[0]);
            1
        }
        Mode::Block(depth) if starts("*/") => {
            *mode = if depth == 1 {
                Mode::Code
            } else {
                Mode::Block(depth - 1)
            };
            2
        }
        Mode::Block(depth) if starts("/*") => {
            *mode = Mode::Block(depth + 1);
            2
        }
        Mode::Block(_) => {
            line.comment.push(rest[0]);
            1
        }
        Mode::Text if rest[0] == '\\' => 2,
        Mode::Text if rest[0] == '"' => {
            line.code.push('"');
            *mode = Mode::Code;
            1
        }
        Mode::Raw(hashes)
            if rest[0] == '"' && rest[1..].iter().take_while(|c| **c == '#').count() >= hashes =>
        {
            line.code.push('"');
            *mode = Mode::Code;
            1 + hashes
        }
        Mode::Text | Mode::Raw(_) => 1,
    }
}

/// Whether a text ends within a name, so that the `r` that follows begins no raw text. `br"…"` does.
fn ends_in_name(code: &str) -> bool {
    let name: String = code.chars().rev().take_while(|c| is_name(*c)).collect();
    !name.is_empty() && name != "b" && name != "c"
}

/// Whether a character can be part of a name.
pub(crate) fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Marks what follows a `#[cfg(test)]`, to the end of that item.
fn mark_test_items(lines: &mut [Line]) {
    let mut i = 0;
    while i < lines.len() {
        if !lines[i].code.contains("#[cfg(test)]") {
            i += 1;
            continue;
        }
        let mut depth = 0_usize;
        'item: while i < lines.len() {
            lines[i].is_test = true;
            for c in lines[i].code.clone().chars() {
                match c {
                    '{' => depth += 1,
                    '}' => {
                        depth = depth.saturating_sub(1);
                        if depth == 0 {
                            break 'item;
                        }
                    }
                    ';' if depth == 0 => break 'item,
                    _ => {}
                }
            }
            i += 1;
        }
        i += 1;
    }
}

/// The positions at which `name` stands as a whole word in `code`.
pub(crate) fn words<'a>(code: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(name)
        .map(|(at, _)| at)
        .filter(move |at| {
            let before = code[..*at].chars().next_back();
            let after = code[*at + name.len()..].chars().next();
            !before.is_some_and(is_name) && !after.is_some_and(is_name)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_comments_texts_and_tests_are_told_apart() {
        let text = r##"//! head
let a = "x // not a comment"; // one
let b = r#"raw " // x"#; /* two /* nested */ */ let c = '"'; let d: &'a str = '\'';
fn f() {}
#[cfg(test)]
mod tests {
    fn g() { "}" }
}
fn h() {}
"##;
        let file = File::new("src/x.rs", text);
        let code: Vec<_> = file.lines.iter().map(|line| line.code.trim()).collect();
        assert_eq!(code[0], "");
        assert_eq!(file.lines[0].comment, "//! head");
        assert_eq!(code[1], "let a = \"\";");
        assert_eq!(file.lines[1].comment, "// one");
        assert_eq!(code[2], "let b = \"\";  let c = '; let d: &'a str = ';");
        let tests: Vec<_> = file.lines.iter().map(|line| line.is_test).collect();
        assert_eq!(
            tests,
            [false, false, false, false, true, true, true, true, false]
        );
        assert_eq!(words("use yrs::Doc; xyrs::y; yrs_x", "yrs").count(), 1);
    }
}
