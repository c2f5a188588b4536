//! From tokens to a tree, one function per level of the grammar.

use std::{cmp::Ordering, collections::BTreeMap};

use super::{
    DEPTH_LIMIT, HEIGHT_LIMIT, LIST_LIMIT,
    lexer::{Lexer, Token, Word, refuse},
};
use crate::error::Result;

/// A part of an expression.
#[derive(Debug)]
pub(super) enum Node {
    Constant(Constant),
    /// A property by its place among the names.
    Property(usize),
    Negate(Box<Node>),
    /// A property where a condition is asked for.
    Cast(usize),
    Not(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
    Equal(Box<[Node; 2]>),
    Ordered(Order, Box<[Node; 2]>),
    /// Value, low, high.
    Between {
        of: Box<[Node; 3]>,
        negated: bool,
    },
    /// The texts are sorted.
    In {
        property: usize,
        texts: Vec<Box<str>>,
        negated: bool,
    },
    Find {
        place: Place,
        of: Box<Node>,
        text: Box<str>,
        negated: bool,
    },
}

/// A literal, in the kinds that Java gives it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Constant {
    Null,
    Bool(bool),
    Int(i32),
    Long(i64),
    Double(f64),
    Text(Box<str>),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Order {
    pub fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

/// Where one text is looked for in another.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Anywhere,
    Start,
    End,
}

impl Node {
    fn is_condition(&self) -> bool {
        match self {
            Self::Constant(constant) => matches!(constant, Constant::Null | Constant::Bool(_)),
            Self::Property(_) | Self::Negate(_) => false,
            _ => true,
        }
    }
}

/// A part with the byte where it begins, and the most operators on top of each other in it.
struct Term {
    at: usize,
    height: u32,
    node: Node,
}

pub(super) struct Parser<'s> {
    lexer: Lexer<'s>,
    at: usize,
    token: Token<'s>,
    depth: u32,
    names: BTreeMap<Box<str>, usize>,
}

impl<'s> Parser<'s> {
    pub fn new(source: &'s str) -> Result<Self> {
        let mut lexer = Lexer::new(source);
        let (at, token) = lexer.next()?;
        Ok(Self { lexer, at, token, depth: 0, names: BTreeMap::new() })
    }

    /// The whole source as one condition, and the properties that it names.
    pub fn whole(mut self) -> Result<(Node, BTreeMap<Box<str>, usize>)> {
        let term = self.or()?;
        if self.token != Token::End {
            return Err(self.unexpected("an operator or the end"));
        }
        let root = self.condition(term)?.node;
        Ok((root, self.names))
    }

    fn or(&mut self) -> Result<Term> {
        let first = self.and()?;
        if self.token != Token::Word(Word::Or) {
            return Ok(first);
        }
        let mut terms = vec![self.condition(first)?];
        while self.take(Token::Word(Word::Or))? {
            let next = self.and()?;
            terms.push(self.condition(next)?);
        }
        self.join(terms, Node::Or)
    }

    fn and(&mut self) -> Result<Term> {
        let first = self.equality()?;
        if self.token != Token::Word(Word::And) {
            return Ok(first);
        }
        let mut terms = vec![self.condition(first)?];
        while self.take(Token::Word(Word::And))? {
            let next = self.equality()?;
            terms.push(self.condition(next)?);
        }
        self.join(terms, Node::And)
    }

    fn equality(&mut self) -> Result<Term> {
        let mut left = self.comparison()?;
        loop {
            left = match self.token {
                Token::Sign("=") => {
                    self.advance()?;
                    let right = self.comparison()?;
                    self.equal(left, right)?
                }
                Token::Sign("<>") => {
                    self.advance()?;
                    let right = self.comparison()?;
                    let equal = self.equal(left, right)?;
                    self.over(equal, not)?
                }
                Token::Word(Word::Is) => {
                    self.advance()?;
                    let negated = self.take(Token::Word(Word::Not))?;
                    if !self.take(Token::Word(Word::Null))? {
                        return Err(self.unexpected(if negated { "NULL" } else { "NULL or NOT NULL" }));
                    }
                    let null = Node::Constant(Constant::Null);
                    let is_null = self.over(left, |node| Node::Equal(Box::new([node, null])))?;
                    if negated { self.over(is_null, not)? } else { is_null }
                }
                _ => return Ok(left),
            };
        }
    }

    fn comparison(&mut self) -> Result<Term> {
        let mut left = self.unary()?;
        loop {
            let order = match self.token {
                Token::Sign(">") => Some(Order::Greater),
                Token::Sign(">=") => Some(Order::GreaterOrEqual),
                Token::Sign("<") => Some(Order::Less),
                Token::Sign("<=") => Some(Order::LessOrEqual),
                _ => None,
            };
            if let Some(order) = order {
                self.advance()?;
                let right = self.unary()?;
                self.check_sized(&left)?;
                self.check_sized(&right)?;
                let height = left.height.max(right.height);
                let node = Node::Ordered(order, Box::new([left.node, right.node]));
                left = self.term(left.at, height + 1, node)?;
                continue;
            }
            let negated = self.take(Token::Word(Word::Not))?;
            left = match self.token {
                Token::Word(Word::Between) => self.between(left, negated)?,
                Token::Word(Word::In) => self.one_of(left, negated)?,
                Token::Word(Word::Contains) => self.find(left, Place::Anywhere, negated)?,
                Token::Word(Word::StartsWith) => self.find(left, Place::Start, negated)?,
                Token::Word(Word::EndsWith) => self.find(left, Place::End, negated)?,
                _ if negated => return Err(self.unexpected("BETWEEN, IN, CONTAINS, STARTSWITH or ENDSWITH")),
                _ => return Ok(left),
            };
        }
    }

    fn between(&mut self, value: Term, negated: bool) -> Result<Term> {
        self.advance()?;
        let low = self.unary()?;
        if !self.take(Token::Word(Word::And))? {
            return Err(self.unexpected("AND and the upper bound"));
        }
        let high = self.unary()?;
        for term in [&value, &low, &high] {
            self.check_sized(term)?;
        }
        // Apache looks at literals only, and not at those with a minus; nor where there is a NOT.
        if !negated
            && let (Node::Constant(low), Node::Constant(up)) = (&low.node, &high.node)
            && up.order(low).is_lt()
        {
            let expected = "an upper bound that is not below the lower one";
            return Err(refuse(self.lexer.source, high.at, expected, "a lower one"));
        }
        let height = value.height.max(low.height).max(high.height);
        let node = Node::Between { of: Box::new([value.node, low.node, high.node]), negated };
        self.term(value.at, height + 1, node)
    }

    fn one_of(&mut self, left: Term, negated: bool) -> Result<Term> {
        let Node::Property(property) = left.node else {
            return Err(refuse(self.lexer.source, left.at, "a property in front of IN", "something else"));
        };
        self.advance()?;
        self.must("(", "( and a list of texts")?;
        let mut texts = vec![self.text()?];
        while self.take(Token::Sign(","))? {
            if texts.len() == LIST_LIMIT {
                return Err(self.unexpected(&format!("a list of at most {LIST_LIMIT} texts")));
            }
            texts.push(self.text()?);
        }
        self.must(")", ", or )")?;
        texts.sort_unstable();
        texts.dedup();
        self.term(left.at, left.height + 1, Node::In { property, texts, negated })
    }

    fn find(&mut self, left: Term, place: Place, negated: bool) -> Result<Term> {
        self.advance()?;
        let text = self.text()?;
        self.over(left, |node| Node::Find { place, of: Box::new(node), text, negated })
    }

    fn unary(&mut self) -> Result<Term> {
        if self.depth == DEPTH_LIMIT {
            return Err(self.unexpected(&format!("at most {DEPTH_LIMIT} levels of nesting")));
        }
        self.depth += 1;
        let at = self.at;
        let term = match self.token {
            Token::Sign("+") => {
                self.advance()?;
                self.unary()?
            }
            Token::Sign("-") => {
                self.advance()?;
                let term = self.unary()?;
                self.over(Term { at, ..term }, |node| Node::Negate(Box::new(node)))?
            }
            Token::Word(Word::Not) => {
                self.advance()?;
                let term = self.unary()?;
                let condition = self.condition(term)?;
                self.over(Term { at, ..condition }, not)?
            }
            _ => self.primary()?,
        };
        self.depth -= 1;
        Ok(term)
    }

    fn primary(&mut self) -> Result<Term> {
        let at = self.at;
        let node = match self.token {
            Token::Sign("(") => {
                self.advance()?;
                let term = self.or()?;
                self.must(")", "an operator or )")?;
                return Ok(Term { at, ..term });
            }
            Token::Text(_) => return Ok(Term { at, height: 1, node: Node::Constant(Constant::Text(self.text()?)) }),
            Token::Name(name) => Node::Property(self.name(name)),
            Token::Whole(text) => Node::Constant(self.whole_number(text)?),
            Token::Fraction(text) => Node::Constant(self.fraction(text)?),
            Token::Word(Word::True) => Node::Constant(Constant::Bool(true)),
            Token::Word(Word::False) => Node::Constant(Constant::Bool(false)),
            Token::Word(Word::Null) => Node::Constant(Constant::Null),
            _ => return Err(self.unexpected("a property, a literal or (")),
        };
        self.advance()?;
        Ok(Term { at, height: 1, node })
    }

    fn name(&mut self, name: &str) -> usize {
        if let Some(at) = self.names.get(name) {
            return *at;
        }
        let at = self.names.len();
        self.names.insert(name.into(), at);
        at
    }

    fn whole_number(&self, text: &str) -> Result<Constant> {
        let number: i64 = text.trim_end_matches(['l', 'L']).parse().map_err(|_| {
            let expected = format!("a whole number of at most {}", i64::MAX);
            self.unexpected(&expected)
        })?;
        Ok(i32::try_from(number).map_or(Constant::Long(number), Constant::Int))
    }

    fn fraction(&self, text: &str) -> Result<Constant> {
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() && number > 0.0 => Ok(Constant::Double(number)),
            Ok(0.0) => Err(self.unexpected("a floating-point number above 0, or 0 without a point")),
            _ => Err(self.unexpected(&format!("a number of at most {:e}", f64::MAX))),
        }
    }

    /// The text that stands here.
    fn text(&mut self) -> Result<Box<str>> {
        let Token::Text(text) = self.token else { return Err(self.unexpected("a text in quotes")) };
        self.advance()?;
        Ok(text.replace("''", "'").into())
    }

    fn equal(&self, left: Term, right: Term) -> Result<Term> {
        for term in [&left, &right] {
            if matches!(term.node, Node::Constant(Constant::Null)) {
                return Err(refuse(self.lexer.source, term.at, "IS NULL or IS NOT NULL", "a comparison with NULL"));
            }
        }
        if let (Node::Constant(Constant::Bool(_)), Node::Constant(other)) = (&left.node, &right.node)
            && !matches!(other, Constant::Bool(_))
        {
            return Err(refuse(self.lexer.source, right.at, "TRUE, FALSE or a property", "another literal"));
        }
        let height = left.height.max(right.height) + 1;
        self.term(left.at, height, Node::Equal(Box::new([left.node, right.node])))
    }

    /// Fails for what cannot be compared by size.
    fn check_sized(&self, term: &Term) -> Result<()> {
        let got = match &term.node {
            Node::Constant(Constant::Int(_) | Constant::Long(_) | Constant::Double(_)) => return Ok(()),
            Node::Constant(Constant::Text(_)) => "a text",
            node if node.is_condition() => "a condition",
            _ => return Ok(()),
        };
        Err(refuse(self.lexer.source, term.at, "a number or a property to compare by size", got))
    }

    /// A term where a condition must stand. A property is one that never holds.
    fn condition(&self, term: Term) -> Result<Term> {
        match term.node {
            Node::Property(property) => self.term(term.at, term.height, Node::Cast(property)),
            node if node.is_condition() => Ok(Term { node, ..term }),
            _ => Err(refuse(self.lexer.source, term.at, "a condition", "a value")),
        }
    }

    fn over(&self, term: Term, make: impl FnOnce(Node) -> Node) -> Result<Term> {
        self.term(term.at, term.height + 1, make(term.node))
    }

    fn join(&self, terms: Vec<Term>, make: fn(Vec<Node>) -> Node) -> Result<Term> {
        let at = terms.first().map_or(self.at, |term| term.at);
        let height = terms.iter().map(|term| term.height).max().unwrap_or_default();
        self.term(at, height + 1, make(terms.into_iter().map(|term| term.node).collect()))
    }

    fn term(&self, at: usize, height: u32, node: Node) -> Result<Term> {
        if height > HEIGHT_LIMIT {
            let expected = format!("at most {HEIGHT_LIMIT} operators on top of each other");
            return Err(refuse(self.lexer.source, at, &expected, "more"));
        }
        Ok(Term { at, height, node })
    }

    fn advance(&mut self) -> Result<()> {
        (self.at, self.token) = self.lexer.next()?;
        Ok(())
    }

    /// Whether `token` stands here; it is passed then.
    fn take(&mut self, token: Token<'_>) -> Result<bool> {
        let here = self.token == token;
        if here {
            self.advance()?;
        }
        Ok(here)
    }

    fn must(&mut self, sign: &'static str, expected: &str) -> Result<()> {
        if self.take(Token::Sign(sign))? { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    fn unexpected(&self, expected: &str) -> crate::Error {
        refuse(self.lexer.source, self.at, expected, self.token)
    }
}

fn not(node: Node) -> Node {
    Node::Not(Box::new(node))
}
