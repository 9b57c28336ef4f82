//! The rules of the house that no compiler checks, as tests: who may import whom, where each third-party crate lives,
//! what pure files may not touch, how long a file may be, licences, and specification rules that no test carries.
//!
//! A rule that stands here with its reason need not be remembered. Each failure names the file and line and how to mend
//! it. To change a rule, change its table in `tests/tidy/`, with the reason.

#[path = "tidy/homes.rs"]
mod homes;
#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/licences.rs"]
mod licences;
#[path = "tidy/purity.rs"]
mod purity;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/specification.rs"]
mod specification;
#[path = "tidy/text.rs"]
mod text;

use source::{Tree, Violation};

/// Fails with every violation, one a line.
fn check(rule: fn(&Tree) -> Vec<Violation>) {
    let tree = Tree::read();
    assert!(tree.files.len() > 10, "the project's files were not found");
    let violations = rule(&tree);
    let lines: String = violations.iter().map(|each| format!("{each}\n")).collect();
    assert!(
        violations.is_empty(),
        "{} violations:\n{lines}",
        violations.len()
    );
}

#[test]
fn imports_go_down() {
    check(layers::check);
}

#[test]
fn third_party_crates_stay_home() {
    check(homes::check);
}

#[test]
fn pure_files_are_pure() {
    check(purity::check);
}

#[test]
fn files_are_short_and_say_why_they_exist() {
    check(text::check_files);
}

#[test]
fn nothing_is_left_undone_or_unbounded() {
    check(text::check_words);
}

#[test]
fn every_specification_rule_is_carried_by_a_test() {
    check(specification::check);
}

#[test]
fn licences_are_compatible() {
    check(licences::check);
}
