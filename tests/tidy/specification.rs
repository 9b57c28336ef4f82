//! Specifications have numbered rules (`**ST1**` in a `.md` below `src/`), and every rule is carried by a test: its
//! number stands in a test's name (`st1_…`), or in a comment or text of a test. A rule that nothing checks is a wish.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Tree, Violation, is_name};

pub(crate) fn check(tree: &Tree) -> Vec<Violation> {
    let mut defined: BTreeMap<String, (&str, usize)> = BTreeMap::new();
    let mut out = Vec::new();
    let specifications = tree
        .files
        .iter()
        .filter(|file| file.path.starts_with("src/") && file.path.ends_with(".md"));
    for file in specifications {
        for (number, line) in file.lines.iter().enumerate() {
            for rule in defined_rules(&line.raw) {
                if let Some((path, at)) = defined.insert(rule.clone(), (&file.path, number)) {
                    let what = format!(
                        "{rule} is defined at {path}:{} too: give it a number of its own",
                        at + 1
                    );
                    out.push(Violation::new(&file.path, number, what));
                }
            }
        }
    }
    let carried = carried(tree);
    for (rule, (path, number)) in &defined {
        if !carried.contains(rule) {
            let what = format!(
                "no test carries {rule}: write one and put the number into its name (`{}_…`) or a comment of it",
                rule.to_lowercase()
            );
            out.push(Violation::new(path, *number, what));
        }
    }
    out
}

/// Rules in bold: `**ST1**`.
fn defined_rules(line: &str) -> Vec<String> {
    line.split("**")
        .skip(1)
        .step_by(2)
        .filter(|bold| is_rule(bold))
        .map(str::to_owned)
        .collect()
}

/// Two or three capital letters and a number.
fn is_rule(word: &str) -> bool {
    let letters = word.chars().take_while(char::is_ascii_uppercase).count();
    (2..=3).contains(&letters)
        && word.len() > letters
        && word[letters..].chars().all(|c| c.is_ascii_digit())
}

/// The rules that lines of tests mention, whatever their case.
fn carried(tree: &Tree) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for file in tree
        .files
        .iter()
        .filter(|file| file.is_rust() || file.is_script())
    {
        for line in file.lines.iter().filter(|line| line.is_test) {
            for word in line.raw.split(|c: char| !is_name(c) || c == '_') {
                let word = word.to_ascii_uppercase();
                if is_rule(&word) {
                    out.insert(word);
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::source::File;
    use super::*;

    #[test]
    fn a_rule_without_a_test_is_found() {
        let mut tree = Tree::of(
            "src/store/STORAGE.md",
            "- **ST1** One.\n- **ST12** Two. **Bold** ST3.\n",
        );
        assert_eq!(check(&tree).len(), 2);
        let shipped = "//! ST1 is here.\n#[cfg(test)]\nmod tests {\n  fn st12_two_holds() {}\n}\n";
        tree.files.push(File::new("src/store/mod.rs", shipped));
        assert_eq!(check(&tree).len(), 1);
        tree.files.push(File::new(
            "client/sdk/test/a.test.ts",
            "it('[ST1] holds', () => {})",
        ));
        assert_eq!(check(&tree).len(), 0);
        tree.files.push(File::new("src/b/B.md", "**ST1** again"));
        assert_eq!(check(&tree).len(), 1);
    }
}
