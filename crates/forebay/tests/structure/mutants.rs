//! Mutants (`tests/mutants`) are applied by hand, so that they can be applied is checked here.

use std::collections::BTreeSet;
use std::fs;

use crate::source::root;

#[test]
fn every_mutant_still_applies() {
    let list = fs::read_to_string(root().join("tests/mutants/mutants.toml")).unwrap();
    let list: toml::Table = list.parse().unwrap();
    let mut names = BTreeSet::new();
    for mutant in list["mutant"].as_array().unwrap() {
        let of = |key: &str| mutant[key].as_str().unwrap().to_owned();
        let name = of("name");
        let besides = mutant.get("besides").and_then(toml::Value::as_array);
        for edit in std::iter::once(mutant).chain(besides.into_iter().flatten()) {
            let of = |key: &str| edit[key].as_str().unwrap();
            let (file, text) = (of("file"), of("text"));
            let source = fs::read_to_string(root().join(file)).unwrap();
            let times = source.matches(text).count();
            assert_eq!(times, 1, "{name}: rewrite it, its text is in {file} {times} times");
            assert_ne!(text, of("instead"), "{name}");
        }
        assert!(!of("rule").is_empty() && names.insert(name.clone()), "{name}");
    }
    assert!(names.len() >= 10, "a mutant per rule");
}
