//! What went in, what came out, and whether the two agree.

use std::{collections::BTreeMap, fmt};

/// Differences that are named; more are counted.
const NAMED: usize = 10;

/// An account of everything that was sent.
#[derive(Default)]
pub struct Account {
    lines: Vec<String>,
    problems: Vec<String>,
}

impl Account {
    pub fn line(&mut self, line: String) {
        self.lines.push(line);
    }

    pub fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// Every expected key must be there exactly once, and nothing else.
    pub fn compare(&mut self, what: &str, expected: &[String], found: &[String]) {
        let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
        expected.iter().for_each(|key| *counts.entry(key).or_default() -= 1);
        found.iter().for_each(|key| *counts.entry(key).or_default() += 1);
        for (word, sign) in [("missing", -1), ("too many", 1)] {
            let keys: Vec<&str> = counts.iter().filter(|(_, n)| **n * sign > 0).map(|(key, _)| *key).collect();
            if !keys.is_empty() {
                let named = keys.iter().take(NAMED).copied().collect::<Vec<_>>().join(" ");
                self.problem(format!("{what}: {} {word}: {named}", keys.len()));
            }
        }
    }

    pub fn equal(&mut self, what: &str, expected: u64, found: u64) {
        if expected != found {
            self.problem(format!("{what}: expected {expected}, found {found}"));
        }
    }

    pub fn is_even(&self) -> bool {
        self.problems.is_empty()
    }

    pub fn problems(&self) -> String {
        self.problems.join("\n")
    }
}

impl fmt::Display for Account {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(out, "{line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_and_repeated_keys_are_named() {
        let keys = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let mut account = Account::default();
        account.compare("sink", &keys("a b c"), &keys("c b a"));
        assert!(account.is_even());
        account.compare("sink", &keys("a b c"), &keys("a a c"));
        assert_eq!(account.problems(), "sink: 1 missing: b\nsink: 1 too many: a");
    }
}
