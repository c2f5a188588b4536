//! What expressions say of messages: a table, and the parser under fire.

use proptest::prelude::*;

use super::{Expression, Incomparable};
use crate::Error;

const TRUE: Result<Option<bool>, Incomparable> = Ok(Some(true));
const FALSE: Result<Option<bool>, Incomparable> = Ok(Some(false));
const UNKNOWN: Result<Option<bool>, Incomparable> = Ok(None);
const INCOMPARABLE: Result<Option<bool>, Incomparable> = Err(Incomparable);

/// The properties of every case. `empty` is one that Apache does not see; the second `twice` counts.
const PROPERTIES: [(&str, &str); 16] = [
    ("a", "5"),
    ("b", "10"),
    ("neg", "-3"),
    ("f", "3.5"),
    ("padded", " 7 "),
    ("big", "3000000000"),
    ("s", "hello"),
    ("quoted", "it's"),
    ("t", "true"),
    ("u", "False"),
    ("inf", "Infinity"),
    ("nan", "NaN"),
    ("empty", ""),
    ("twice", "1"),
    ("twice", "2"),
    ("TAGS", "tag-a"),
];

fn evaluate(source: &str) -> Result<Option<bool>, Incomparable> {
    let expression = Expression::parse(source).unwrap_or_else(|error| panic!("{source}: {error}"));
    expression.evaluate(PROPERTIES.into_iter())
}

#[test]
fn conditions_hold_where_apache_says_so() {
    let table = [
        // Equality. A property is read as the literal's kind.
        ("a = 5", TRUE),
        ("a=5", TRUE),
        ("5 = a", TRUE),
        ("a = 6", FALSE),
        ("a <> 6", TRUE),
        ("a <> 5", FALSE),
        ("a = '5'", TRUE),
        ("a = '05'", FALSE),
        ("a = 5.0", TRUE),
        ("f = 3.5", TRUE),
        ("f = 3.50e0", TRUE),
        ("f = 3", INCOMPARABLE),
        ("padded = 7.0", TRUE),
        ("padded = 7", INCOMPARABLE),
        ("a = 5L", TRUE),
        ("a = 3000000000", FALSE),
        ("big = 3000000000", TRUE),
        ("big = 5", INCOMPARABLE),
        ("big = 5.0", FALSE),
        ("neg = -3", TRUE),
        ("neg = +-3", TRUE),
        ("neg = - -3", FALSE),
        ("neg = --3", FALSE),
        ("a = -(-5)", TRUE),
        ("s = 'hello'", TRUE),
        ("s = 'Hello'", FALSE),
        ("S = 'hello'", UNKNOWN),
        ("s <> 'Hello'", TRUE),
        ("s = 5", INCOMPARABLE),
        ("s <> 5", INCOMPARABLE),
        ("5 = s", INCOMPARABLE),
        ("quoted = 'it''s'", TRUE),
        ("quoted <> ''''", TRUE),
        ("a = b", FALSE),
        ("a = a", TRUE),
        ("a <> b", TRUE),
        ("5 = 5", TRUE),
        ("5 = 5.0", TRUE),
        ("3000000000 = 3000000000.0", TRUE),
        ("5 = '5'", TRUE),
        ("'x' = 5", INCOMPARABLE),
        ("'5' = 5", TRUE),
        ("-5 = '-5'", TRUE),
        ("a = -s", FALSE),
        ("-s = a", UNKNOWN),
        ("twice = 2", TRUE),
        // What is missing. Only on the left it leaves a comparison open.
        ("x = 5", UNKNOWN),
        ("5 = x", FALSE),
        ("x <> 5", UNKNOWN),
        ("a <> x", TRUE),
        ("x = y", TRUE),
        ("x <> y", FALSE),
        ("x IS NULL", TRUE),
        ("a IS NULL", FALSE),
        ("x IS NOT NULL", FALSE),
        ("a is not null", TRUE),
        ("empty IS NULL", TRUE),
        ("empty = ''", UNKNOWN),
        ("NULL IS NULL", TRUE),
        ("5 IS NOT NULL", TRUE),
        ("a = 5 IS NULL", FALSE),
        ("x = 5 IS NULL", TRUE),
        ("-s IS NULL", TRUE),
        ("NULL", UNKNOWN),
        ("NOT NULL", UNKNOWN),
        // Truth values.
        ("TRUE", TRUE),
        ("false", FALSE),
        ("NOT FALSE", TRUE),
        ("NOT NOT TRUE", TRUE),
        ("t = TRUE", TRUE),
        ("u = FALSE", TRUE),
        ("u = TRUE", FALSE),
        ("s = FALSE", TRUE),
        ("TRUE = t", INCOMPARABLE),
        ("TRUE = x", FALSE),
        ("TRUE = TRUE", TRUE),
        ("TRUE <> FALSE", TRUE),
        ("'true' = TRUE", TRUE),
        ("5 = TRUE", FALSE),
        ("5 <> TRUE", TRUE),
        ("(a = 5) = TRUE", TRUE),
        ("a = 5 = TRUE", TRUE),
        ("a = (b > 5)", FALSE),
        ("t = (b > 5)", TRUE),
        ("(b > 5) = 1", FALSE),
        ("t", FALSE),
        ("NOT t", TRUE),
        ("x", UNKNOWN),
        ("NOT x", UNKNOWN),
        ("NOT a = 5", FALSE),
        ("NOT (a = 6)", TRUE),
        // By size.
        ("a > 4", TRUE),
        ("a > 5", FALSE),
        ("a >= 5", TRUE),
        ("a < 5", FALSE),
        ("a <= 5", TRUE),
        ("4 < a", TRUE),
        ("5.5 > a", TRUE),
        ("a > 4.5", TRUE),
        ("f > 3", INCOMPARABLE),
        ("f > 3.0", TRUE),
        ("3 < f", INCOMPARABLE),
        ("big > 5", INCOMPARABLE),
        ("big > 5.5", TRUE),
        ("big < 3000000001", TRUE),
        ("neg < -2", TRUE),
        ("a > -2", TRUE),
        ("a < b", TRUE),
        ("b > a", TRUE),
        ("a > f", TRUE),
        ("padded > a", TRUE),
        ("s > a", INCOMPARABLE),
        ("s > 5", INCOMPARABLE),
        ("x > 5", UNKNOWN),
        ("5 > x", UNKNOWN),
        ("x > s", UNKNOWN),
        ("s > x", UNKNOWN),
        ("1 < 2", TRUE),
        ("2 < 1.5", FALSE),
        ("3000000000 > 1", TRUE),
        ("1 > 3000000000", FALSE),
        ("3000000000 > 1.5", TRUE),
        ("inf > 1.5", TRUE),
        ("nan > inf", TRUE),
        ("a > -s", UNKNOWN),
        ("a > -'s'", UNKNOWN),
        // Between.
        ("a BETWEEN 1 AND 10", TRUE),
        ("a between 5 and 5", TRUE),
        ("a BETWEEN 6 AND 10", FALSE),
        ("a BETWEEN 1 AND b", TRUE),
        ("a BETWEEN b AND 1", FALSE),
        ("a NOT BETWEEN 6 AND 10", TRUE),
        ("a NOT BETWEEN 10 AND 6", TRUE),
        ("a NOT BETWEEN 1 AND 10", FALSE),
        ("a BETWEEN -1 AND -2", FALSE),
        ("x BETWEEN 1 AND 2", UNKNOWN),
        ("x NOT BETWEEN 1 AND 2", UNKNOWN),
        ("a BETWEEN x AND 10", UNKNOWN),
        ("a BETWEEN x AND 2", FALSE),
        ("a NOT BETWEEN x AND 2", TRUE),
        ("a NOT BETWEEN x AND 10", UNKNOWN),
        ("a BETWEEN 6 AND s", FALSE),
        ("a BETWEEN 1 AND s", INCOMPARABLE),
        ("s BETWEEN 1 AND 2", INCOMPARABLE),
        ("5 BETWEEN 1 AND a", TRUE),
        ("f BETWEEN 3.4 AND 3.6", TRUE),
        ("a BETWEEN 1 AND 10 AND b = 10", TRUE),
        // Lists hold texts, and texts are compared as they stand.
        ("s IN ('x', 'hello')", TRUE),
        ("s IN ('x')", FALSE),
        ("s NOT IN ('x')", TRUE),
        ("s not in ('x', 'hello', 'x')", FALSE),
        ("a IN ('5')", TRUE),
        ("a IN ('5.0')", FALSE),
        ("x IN ('5')", UNKNOWN),
        ("x NOT IN ('5')", UNKNOWN),
        ("(a) IN ('5')", TRUE),
        ("+a IN ('5')", TRUE),
        ("quoted IN ('it''s')", TRUE),
        // Parts of texts. Here what is missing is false, either way, and so is looking for nothing.
        ("s CONTAINS 'ell'", TRUE),
        ("s contains 'x'", FALSE),
        ("s NOT CONTAINS 'x'", TRUE),
        ("s NOT CONTAINS 'ell'", FALSE),
        ("s STARTSWITH 'he'", TRUE),
        ("s STARTSWITH 'ello'", FALSE),
        ("s NOT STARTSWITH 'ello'", TRUE),
        ("s ENDSWITH 'llo'", TRUE),
        ("s EndsWith 'hell'", FALSE),
        ("s NOT ENDSWITH 'hell'", TRUE),
        ("s CONTAINS ''", FALSE),
        ("s NOT CONTAINS ''", FALSE),
        ("x CONTAINS 'a'", FALSE),
        ("x NOT CONTAINS 'a'", FALSE),
        ("x NOT STARTSWITH 'a'", FALSE),
        ("x NOT ENDSWITH 'a'", FALSE),
        ("NOT (x CONTAINS 'a')", TRUE),
        ("'axb' CONTAINS 'x'", TRUE),
        ("5 CONTAINS '5'", FALSE),
        ("5 NOT CONTAINS '5'", FALSE),
        ("a = 5 CONTAINS '5'", TRUE),
        ("(a = 5) CONTAINS '5'", FALSE),
        ("quoted ENDSWITH '''s'", TRUE),
        ("s CONTAINS '\\'", FALSE),
        // Logic: AND before OR; the first that decides ends it.
        ("a = 5 AND b = 10", TRUE),
        ("a = 5 AND b = 11", FALSE),
        ("a = 6 OR b = 10", TRUE),
        ("a = 6 OR b = 11", FALSE),
        ("a = 5 OR a = 6 AND b = 11", TRUE),
        ("(a = 5 OR a = 6) AND b = 11", FALSE),
        ("x = 1 AND a = 5", UNKNOWN),
        ("x = 1 AND a = 6", FALSE),
        ("a = 6 AND x = 1", FALSE),
        ("x = 1 OR a = 5", TRUE),
        ("x = 1 OR a = 6", UNKNOWN),
        ("x = 1 OR y = 1 OR a = 5", TRUE),
        ("NULL AND NULL", UNKNOWN),
        ("NULL OR TRUE", TRUE),
        ("s = 5 OR a = 5", INCOMPARABLE),
        ("a = 5 OR s = 5", TRUE),
        ("s = 5 AND a = 6", INCOMPARABLE),
        ("a = 6 AND s = 5", FALSE),
        ("x = 1 AND s = 5", INCOMPARABLE),
        ("a = 5AND b = 10", TRUE),
        ("a IN ('5')AND(b = 10)", TRUE),
        ("t AND a = 5", FALSE),
        // Blanks and comments.
        ("\t a\r\n=\u{C}5 ", TRUE),
        ("a = 5 -- five", TRUE),
        ("a = -- five\n5", TRUE),
        ("a /* b */ = /***/ 5 /* c **/", TRUE),
        ("TAGS IS NOT NULL AND TAGS = 'tag-a'", TRUE),
    ];
    let wrong: Vec<_> = table.into_iter().filter(|(source, expected)| evaluate(source) != *expected).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_no_condition_is_refused_with_its_column() {
    let nested = format!("{}a = 1{}", "(".repeat(64), ")".repeat(64));
    let negated = "NOT ".repeat(65) + "TRUE";
    let signs = format!("a = {}1", "- ".repeat(70));
    let chain = format!("a{}", " = 1".repeat(300));
    let list = format!("a IN ({})", vec!["''"; 1_025].join(","));
    let long = format!("a = '{}'", "x".repeat(4_096));
    let table = [
        ("", "expected a property, a literal or ( at column 1, got the end"),
        ("  ", "expected a property, a literal or ( at column 3, got the end"),
        ("*", "expected a property, a literal, an operator or a parenthesis at column 1, got '*'"),
        ("a = #", "expected a property, a literal, an operator or a parenthesis at column 5, got '#'"),
        ("grün = 1", "expected a property, a literal, an operator or a parenthesis at column 3, got 'ü'"),
        ("a = 'grün' b", "expected an operator or the end at column 12, got b"),
        ("a =", "expected a property, a literal or ( at column 4, got the end"),
        ("a = 1 AND", "expected a property, a literal or ( at column 10, got the end"),
        ("AND a = 1", "expected a property, a literal or ( at column 1, got AND"),
        ("(a = 1", "expected an operator or ) at column 7, got the end"),
        ("a = 1)", "expected an operator or the end at column 6, got )"),
        ("a = 1 b = 2", "expected an operator or the end at column 7, got b"),
        ("a = 1 AND b c", "expected an operator or the end at column 13, got c"),
        ("a LIKE 'x%'", "expected an operator or the end at column 3, got LIKE"),
        ("a + 1 > 2", "expected an operator or the end at column 3, got +"),
        ("a = 0x10", "expected an operator or the end at column 6, got x10"),
        ("a = 010", "expected an operator or the end at column 6, got 10"),
        ("a == 1", "expected a property, a literal or ( at column 4, got ="),
        ("a != 1", "expected a property, a literal, an operator or a parenthesis at column 3, got '!'"),
        ("a = 1 /* b", "expected a comment that ends with */ at column 7, got the end"),
        ("a = 'x", "expected a text that ends with a quote at column 5, got the end"),
        ("a = \"x\"", "expected a property, a literal, an operator or a parenthesis at column 5, got '\"'"),
        ("5", "expected a condition at column 1, got a value"),
        ("'x'", "expected a condition at column 1, got a value"),
        ("-a", "expected a condition at column 1, got a value"),
        ("a = 1 AND 5", "expected a condition at column 11, got a value"),
        ("a = 1 OR -b", "expected a condition at column 10, got a value"),
        ("NOT 5", "expected a condition at column 5, got a value"),
        ("a = NULL", "expected IS NULL or IS NOT NULL at column 5, got a comparison with NULL"),
        ("NULL <> a", "expected IS NULL or IS NOT NULL at column 1, got a comparison with NULL"),
        ("TRUE = 5", "expected TRUE, FALSE or a property at column 8, got another literal"),
        ("a > 'x'", "expected a number or a property to compare by size at column 5, got a text"),
        ("'x' < a", "expected a number or a property to compare by size at column 1, got a text"),
        ("a > TRUE", "expected a number or a property to compare by size at column 5, got a condition"),
        ("a > NULL", "expected a number or a property to compare by size at column 5, got a condition"),
        ("a > 1 > 2", "expected a number or a property to compare by size at column 1, got a condition"),
        ("(a = 1) >= 2", "expected a number or a property to compare by size at column 1, got a condition"),
        ("a BETWEEN 10 AND 0", "expected an upper bound that is not below the lower one at column 18, got a lower one"),
        (
            "a BETWEEN 1.5 AND 1",
            "expected an upper bound that is not below the lower one at column 19, got a lower one",
        ),
        ("a BETWEEN 'a' AND 'b'", "expected a number or a property to compare by size at column 11, got a text"),
        ("a BETWEEN NULL AND 5", "expected a number or a property to compare by size at column 11, got a condition"),
        ("a BETWEEN 1 OR 2", "expected AND and the upper bound at column 13, got OR"),
        ("a and between 2 and 10", "expected a property, a literal or ( at column 7, got BETWEEN"),
        ("a IN ()", "expected a text in quotes at column 7, got )"),
        ("a IN (1, 2)", "expected a text in quotes at column 7, got 1"),
        ("a IN ('1', )", "expected a text in quotes at column 12, got )"),
        ("a IN ('1' '2')", "expected , or ) at column 11, got '2'"),
        ("a IN '1'", "expected ( and a list of texts at column 6, got '1'"),
        ("5 IN ('5')", "expected a property in front of IN at column 1, got something else"),
        ("NOT a IN ('5')", "expected a property in front of IN at column 1, got something else"),
        ("a IN ('5') IN ('6')", "expected a property in front of IN at column 1, got something else"),
        ("a CONTAINS b", "expected a text in quotes at column 12, got b"),
        ("a STARTSWITH 5", "expected a text in quotes at column 14, got 5"),
        ("a ENDSWITH", "expected a text in quotes at column 11, got the end"),
        ("a NOT 5", "expected BETWEEN, IN, CONTAINS, STARTSWITH or ENDSWITH at column 7, got 5"),
        ("a IS 5", "expected NULL or NOT NULL at column 6, got 5"),
        ("a IS NOT TRUE", "expected NULL at column 10, got TRUE"),
        (
            "a > 9223372036854775808",
            "expected a whole number of at most 9223372036854775807 at column 5, got 9223372036854775808",
        ),
        ("a > 0.0", "expected a floating-point number above 0, or 0 without a point at column 5, got 0.0"),
        ("a > 1e-999", "expected a floating-point number above 0, or 0 without a point at column 5, got 1e-999"),
        ("a > 1e999", "expected a number of at most 1.7976931348623157e308 at column 5, got 1e999"),
        (&nested, "expected at most 64 levels of nesting at column 65, got a"),
        (&negated, "expected at most 64 levels of nesting at column 257, got NOT"),
        (&signs, "expected at most 64 levels of nesting at column 133, got -"),
        (&chain, "expected at most 256 operators on top of each other at column 1, got more"),
        (&list, "expected a list of at most 1024 texts at column 3079, got ''"),
        (&long, "expected an expression of at most 4096 bytes, got 4102"),
    ];
    let mut wrong = Vec::new();
    for (source, expected) in table {
        match Expression::parse(source) {
            Err(Error::Invalid { field: "subscription", expected: text }) if text == expected => {}
            other => wrong.push((source, other)),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn limits_are_reached_before_they_are_crossed() {
    let nested = format!("{}a = 5{}", "(".repeat(63), ")".repeat(63));
    assert_eq!(evaluate(&nested), TRUE);
    let list = format!("a IN ('5', {})", vec!["'6'"; 1_000].join(","));
    assert_eq!(evaluate(&list), TRUE);
    let any = vec!["a = 6"; 400].join(" OR ") + " OR b = 10";
    assert_eq!(evaluate(&any), TRUE);
    // Each level evaluates the one below once.
    let mut deep = "a".to_owned();
    for _ in 0..30 {
        deep = format!("-({deep} BETWEEN 1 AND 2)");
    }
    assert_eq!(evaluate(&format!("{deep} IS NULL")), TRUE);
}

/// Expressions of which most are valid.
fn sources() -> impl Strategy<Value = String> {
    let operand = prop::sample::select(vec![
        "a",
        "x",
        "s",
        "5",
        "-5",
        "'it''s'",
        "TRUE",
        "NULL",
        "3.5",
        "3000000000",
        "+b",
        "'5'",
        "neg",
        "$_1",
    ]);
    let leaf = (operand.clone(), prop::sample::select(vec!["=", "<>", "<", ">="]), operand.clone())
        .prop_map(|(left, sign, right)| format!("{left} {sign} {right}"));
    let postfix = (
        operand,
        prop::sample::select(vec![
            "IS NULL",
            "IS NOT NULL",
            "IN ('5', 'x')",
            "NOT IN ('x')",
            "CONTAINS 'e'",
            "NOT STARTSWITH 'h'",
            "ENDSWITH ''",
            "BETWEEN 1 AND 10",
            "NOT BETWEEN 1.5 AND b",
        ]),
    );
    let leaf = prop_oneof![leaf, postfix.prop_map(|(left, rest)| format!("{left} {rest}"))];
    leaf.prop_recursive(6, 64, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("{left} AND {right}")),
            (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("({left}) OR ({right})")),
            inner.clone().prop_map(|inner| format!("NOT ({inner})")),
            inner.prop_map(|inner| format!("({inner}) = TRUE /* {inner} */")),
        ]
    })
}

fn must_not_panic(source: &str) {
    if let Ok(expression) = Expression::parse(source) {
        let _ = expression.evaluate(PROPERTIES.into_iter());
        assert_eq!(expression.source(), source);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        must_not_panic(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_tokens_make_it_panic(
        tokens in prop::collection::vec(
            prop::sample::select(vec![
                "a", "5", "-", "+", "(", ")", "NOT", "AND", "OR", "BETWEEN", "IN", ",", "'x'", "IS", "NULL", "TRUE", "=",
                "<>", "<=", "CONTAINS", "--", "/*", "*/", "\n", "'", "1e", ".5", "é",
            ]),
            0..60,
        ),
        between in prop::sample::select(vec!["", " "]),
    ) {
        must_not_panic(&tokens.join(between));
    }

    #[test]
    fn no_change_of_a_valid_one_makes_it_panic(
        source in sources(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 0..6),
    ) {
        must_not_panic(&source);
        let mut bytes = source.into_bytes();
        for (at, byte, how) in changes {
            let at = at.index(bytes.len() + 1);
            match how {
                0 => bytes.insert(at, byte),
                1 if at < bytes.len() => bytes[at] = byte & 0x7F,
                _ => bytes.truncate(at),
            }
        }
        must_not_panic(&String::from_utf8_lossy(&bytes));
    }

    /// NOT turns true and false round and leaves the rest; AND and OR with themselves change nothing.
    #[test]
    fn logic_is_three_valued(source in sources()) {
        if let Ok(expression) = Expression::parse(&source) {
            let value = expression.evaluate(PROPERTIES.into_iter());
            prop_assert_eq!(evaluate(&format!("NOT ({source})")), value.map(|value| value.map(|holds| !holds)));
            prop_assert_eq!(evaluate(&format!("({source}) AND ({source})")), value);
            prop_assert_eq!(evaluate(&format!("({source}) OR ({source})")), value);
        }
    }
}
