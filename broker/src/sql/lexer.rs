//! From text to tokens.

use std::fmt;

use crate::{Error, error::Result};

/// A reserved word; case does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Not,
    And,
    Or,
    Between,
    In,
    True,
    False,
    Null,
    Is,
    Contains,
    StartsWith,
    EndsWith,
}

const WORDS: [(&str, Word); 12] = [
    ("NOT", Word::Not),
    ("AND", Word::And),
    ("OR", Word::Or),
    ("BETWEEN", Word::Between),
    ("IN", Word::In),
    ("TRUE", Word::True),
    ("FALSE", Word::False),
    ("NULL", Word::Null),
    ("IS", Word::Is),
    ("CONTAINS", Word::Contains),
    ("STARTSWITH", Word::StartsWith),
    ("ENDSWITH", Word::EndsWith),
];

/// Signs, the longer ones before those that they begin with.
const SIGNS: [&str; 11] = ["<>", "<=", ">=", "<", ">", "=", "(", ")", ",", "+", "-"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'s> {
    Word(Word),
    Name(&'s str),
    /// A text as written between its quotes, where two quotes stand for one.
    Text(&'s str),
    /// A whole number, perhaps with the letter L behind it.
    Whole(&'s str),
    /// A number with a point or an exponent.
    Fraction(&'s str),
    Sign(&'static str),
    End,
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => {
                let name = WORDS.iter().find(|(_, other)| other == word).map_or("", |(name, _)| *name);
                f.write_str(name)
            }
            Self::Text(text) => write!(f, "'{text}'"),
            Self::Name(text) | Self::Whole(text) | Self::Fraction(text) => f.write_str(text),
            Self::Sign(text) => f.write_str(text),
            Self::End => f.write_str("the end"),
        }
    }
}

impl Token<'_> {
    /// Whether something to compare may end here.
    fn ends_operand(self) -> bool {
        match self {
            Self::Word(word) => matches!(word, Word::True | Word::False | Word::Null),
            Self::Name(_) | Self::Text(_) | Self::Whole(_) | Self::Fraction(_) => true,
            Self::Sign(sign) => sign == ")",
            Self::End => false,
        }
    }
}

/// The error for what stands at a byte of the source.
pub(super) fn refuse(source: &str, at: usize, expected: &str, got: impl fmt::Display) -> Error {
    let column = source.get(..at).map_or(0, |before| before.chars().count()) + 1;
    Error::invalid("subscription", format!("expected {expected} at column {column}, got {got}"))
}

pub(super) struct Lexer<'s> {
    pub source: &'s str,
    at: usize,
    after_operand: bool,
}

impl<'s> Lexer<'s> {
    pub fn new(source: &'s str) -> Self {
        Self { source, at: 0, after_operand: false }
    }

    /// The next token and the byte where it begins. Behind the last one stands [`Token::End`].
    pub fn next(&mut self) -> Result<(usize, Token<'s>)> {
        self.skip()?;
        let (token, len) = self.token()?;
        let at = self.at;
        self.at += len;
        self.after_operand = token.ends_operand();
        Ok((at, token))
    }

    fn rest(&self) -> &'s str {
        self.source.get(self.at..).unwrap_or_default()
    }

    /// Goes on behind blanks and comments.
    fn skip(&mut self) -> Result<()> {
        loop {
            let rest = self.rest();
            let text = rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{C}']);
            self.at += rest.len() - text.len();
            if let Some(comment) = text.strip_prefix("--") {
                match comment.find(['\n', '\r']) {
                    Some(end) => self.at += 2 + end,
                    // Without an end of line this is a comment for Apache only in effect: what stands behind a complete
                    // condition is not read. Elsewhere it is two signs.
                    None if self.after_operand => self.at = self.source.len(),
                    None => return Ok(()),
                }
            } else if let Some(comment) = text.strip_prefix("/*") {
                let end = comment.find("*/");
                let end = end.ok_or_else(|| refuse(self.source, self.at, "a comment that ends with */", "the end"))?;
                self.at += 2 + end + 2;
            } else {
                return Ok(());
            }
        }
    }

    fn token(&self) -> Result<(Token<'s>, usize)> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok((Token::End, 0)) };
        if first == '\'' {
            return self.text();
        }
        if let Some((number, fraction)) = number(rest) {
            let token = if fraction { Token::Fraction(number) } else { Token::Whole(number) };
            return Ok((token, number.len()));
        }
        if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            return Ok((Token::Sign(sign), sign.len()));
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$';
        let name = &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())];
        if name.is_empty() {
            let expected = "a property, a literal, an operator or a parenthesis";
            return Err(refuse(self.source, self.at, expected, format_args!("{first:?}")));
        }
        let word = WORDS.iter().find(|(text, _)| text.eq_ignore_ascii_case(name));
        Ok((word.map_or(Token::Name(name), |(_, word)| Token::Word(*word)), name.len()))
    }

    fn text(&self) -> Result<(Token<'s>, usize)> {
        let rest = self.rest();
        let mut end = 1;
        while let Some(quote) = rest[end..].find('\'') {
            end += quote;
            if !rest[end + 1..].starts_with('\'') {
                return Ok((Token::Text(&rest[1..end]), end + 1));
            }
            end += 2;
        }
        Err(refuse(self.source, self.at, "a text that ends with a quote", "the end"))
    }
}

/// The longest number that a text begins with, and whether it has a point or an exponent. A whole number with a zero in
/// front ends behind that zero.
fn number(text: &str) -> Option<(&str, bool)> {
    let digits = |from: usize| text[from..].bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(0);
    let mut end = whole;
    let mut fraction = false;
    if text[end..].starts_with('.') {
        let decimals = digits(end + 1);
        if whole + decimals > 0 {
            (end, fraction) = (end + 1 + decimals, true);
        }
    }
    if end == 0 {
        return None;
    }
    if text[end..].starts_with(['e', 'E']) {
        let sign = usize::from(text[end + 1..].starts_with(['+', '-']));
        let exponent = digits(end + 1 + sign);
        if exponent > 0 {
            (end, fraction) = (end + 1 + sign + exponent, true);
        }
    }
    if fraction {
        return Some((&text[..end], true));
    }
    if text.starts_with('0') {
        return Some((&text[..1], false));
    }
    let letter = usize::from(text[end..].starts_with(['l', 'L']));
    Some((&text[..end + letter], false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(source: &str) -> Vec<String> {
        let mut lexer = Lexer::new(source);
        let mut tokens = Vec::new();
        loop {
            match lexer.next().unwrap() {
                (_, Token::End) => return tokens,
                (_, token) => tokens.push(format!("{token:?}")),
            }
        }
    }

    #[test]
    fn numbers_are_as_long_as_they_can_be() {
        assert_eq!(
            tokens("5 5. .5 5.5e+3 5E-1 7L 0"),
            [
                "Whole(\"5\")",
                "Fraction(\"5.\")",
                "Fraction(\".5\")",
                "Fraction(\"5.5e+3\")",
                "Fraction(\"5E-1\")",
                "Whole(\"7L\")",
                "Whole(\"0\")"
            ]
        );
        assert_eq!(tokens("5e 007"), ["Whole(\"5\")", "Name(\"e\")", "Whole(\"0\")", "Whole(\"0\")", "Whole(\"7\")"]);
        assert_eq!(tokens("00.5"), ["Fraction(\"00.5\")"]);
    }

    #[test]
    fn words_know_no_case_and_names_do() {
        assert_eq!(tokens("nOt $a_1 nota"), ["Word(Not)", "Name(\"$a_1\")", "Name(\"nota\")"]);
        assert_eq!(
            tokens("a<>b<=-c"),
            ["Name(\"a\")", "Sign(\"<>\")", "Name(\"b\")", "Sign(\"<=\")", "Sign(\"-\")", "Name(\"c\")"]
        );
    }

    #[test]
    fn comments_are_passed_over() {
        assert_eq!(tokens("/* a **/b--c\nd/**/-- e"), ["Name(\"b\")", "Name(\"d\")"]);
        assert_eq!(tokens("=--5"), ["Sign(\"=\")", "Sign(\"-\")", "Sign(\"-\")", "Whole(\"5\")"]);
    }

    #[test]
    fn a_quote_in_a_text_is_written_twice() {
        assert_eq!(tokens("'' 'it''s' ''''"), ["Text(\"\")", "Text(\"it''s\")", "Text(\"''\")"]);
        assert!(Lexer::new("'it''s").next().is_err());
    }
}
