//! What an expression says of a message.

use std::cmp::Ordering;

use super::parser::{Constant, Node, Order, Place};

/// Two values were compared that cannot be: Apache RocketMQ takes this as no match, and so does everybody here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incomparable;

type Evaluated<T> = Result<Option<T>, Incomparable>;

/// A value that is there; `None` in its place is NULL, or unknown.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Bool(bool),
    Int(i32),
    Long(i64),
    Double(f64),
    Text(&'a str),
}

impl Constant {
    fn value(&self) -> Option<Value<'_>> {
        match self {
            Self::Null => None,
            Self::Bool(value) => Some(Value::Bool(*value)),
            Self::Int(value) => Some(Value::Int(*value)),
            Self::Long(value) => Some(Value::Long(*value)),
            Self::Double(value) => Some(Value::Double(*value)),
            Self::Text(text) => Some(Value::Text(text)),
        }
    }

    /// How two numbers stand to each other; equal for what is no number.
    pub fn order(&self, other: &Self) -> Ordering {
        match (self.value(), other.value()) {
            (Some(left), Some(right)) => compare(left, right).unwrap_or(Ordering::Equal),
            _ => Ordering::Equal,
        }
    }
}

impl Node {
    /// `values` are those of the properties, by their places.
    pub fn evaluate<'a>(&'a self, values: &[Option<&'a str>]) -> Evaluated<Value<'a>> {
        let property = |at: usize| values.get(at).copied().flatten();
        let truth = match self {
            Self::Constant(constant) => return Ok(constant.value()),
            Self::Property(at) => return Ok(property(*at).map(Value::Text)),
            Self::Negate(of) => return Ok(of.evaluate(values)?.and_then(negate)),
            // Even of the text "true": only a boolean literal is true by itself.
            Self::Cast(at) => property(*at).map(|_| false),
            Self::Not(of) => of.truth(values)?.map(|holds| !holds),
            Self::And(parts) => all(parts, values, true)?,
            Self::Or(parts) => all(parts, values, false)?,
            Self::Equal(sides) => match (sides[0].evaluate(values)?, sides[1].evaluate(values)?) {
                (None, None) => Some(true),
                (None, Some(_)) => None,
                (Some(_), None) => Some(false),
                (Some(left), Some(right)) => Some(compare(left, right)?.is_eq()),
            },
            Self::Ordered(order, sides) => match sides[0].evaluate(values)? {
                None => None,
                Some(left) => sized(left, *order, &sides[1], values)?,
            },
            Self::Between { of, negated } => match of[0].evaluate(values)? {
                None => None,
                Some(value) => {
                    let (low, high) = if *negated {
                        (Order::Less, Order::Greater)
                    } else {
                        (Order::GreaterOrEqual, Order::LessOrEqual)
                    };
                    // The one answer that decides before the other bound is looked at.
                    let decides = Some(*negated);
                    match sized(value, low, &of[1], values)? {
                        answer if answer == decides => decides,
                        first => match sized(value, high, &of[2], values)? {
                            answer if answer == decides => decides,
                            second => first.and(second),
                        },
                    }
                }
            },
            Self::In { property: at, texts, negated } => {
                property(*at).map(|value| texts.binary_search_by(|text| (**text).cmp(value)).is_ok() != *negated)
            }
            // NULL holds no text, and does not lack one either.
            Self::Find { text, .. } if text.is_empty() => Some(false),
            Self::Find { place, of, text, negated } => match of.evaluate(values)? {
                Some(Value::Text(value)) => Some(place.holds(value, text) != *negated),
                _ => Some(false),
            },
        };
        Ok(truth.map(Value::Bool))
    }

    fn truth(&self, values: &[Option<&str>]) -> Evaluated<bool> {
        Ok(if let Some(Value::Bool(holds)) = self.evaluate(values)? { Some(holds) } else { None })
    }
}

impl Place {
    fn holds(self, value: &str, text: &str) -> bool {
        match self {
            Self::Anywhere => value.contains(text),
            Self::Start => value.starts_with(text),
            Self::End => value.ends_with(text),
        }
    }
}

/// AND of conditions with `neutral` true, OR with false: the first that is not neutral decides, what stands behind it is not
/// looked at, and an unknown leaves the whole unknown.
fn all(parts: &[Node], values: &[Option<&str>], neutral: bool) -> Evaluated<bool> {
    let mut whole = Some(neutral);
    for part in parts {
        match part.truth(values)? {
            Some(holds) if holds == neutral => {}
            Some(_) => return Ok(Some(!neutral)),
            None => whole = None,
        }
    }
    Ok(whole)
}

/// A comparison by size. Two texts are compared as floating-point numbers.
fn sized(left: Value<'_>, order: Order, right: &Node, values: &[Option<&str>]) -> Evaluated<bool> {
    let Some(right) = right.evaluate(values)? else { return Ok(None) };
    let ordering = match (left, right) {
        (Value::Text(left), Value::Text(right)) => order_doubles(double(left)?, double(right)?),
        _ => compare(left, right)?,
    };
    Ok(Some(order.holds(ordering)))
}

fn negate(value: Value<'_>) -> Option<Value<'_>> {
    match value {
        Value::Int(value) => Some(Value::Int(value.wrapping_neg())),
        Value::Long(value) => Some(Value::Long(value.wrapping_neg())),
        Value::Double(value) => Some(Value::Double(-value)),
        Value::Bool(_) | Value::Text(_) => None,
    }
}

/// How two values stand to each other. The narrower number is widened, a text is read as what it is compared with, and
/// what has no order counts as less (source: Apache RocketMQ `ComparisonExpression.__compare`).
fn compare(left: Value<'_>, right: Value<'_>) -> Result<Ordering, Incomparable> {
    use Value::{Bool, Double, Int, Long, Text};
    Ok(match (left, right) {
        (Bool(left), Bool(right)) => left.cmp(&right),
        // A class cast that fails in Apache, whatever the text is.
        (Bool(_), Text(_)) => return Err(Incomparable),
        (Int(left), Int(right)) => left.cmp(&right),
        (Int(left), Long(right)) => i64::from(left).cmp(&right),
        (Int(left), Double(right)) => order_doubles(f64::from(left), right),
        (Int(left), Text(right)) => left.cmp(&whole(right)?),
        (Long(left), Int(right)) => left.cmp(&i64::from(right)),
        (Long(left), Long(right)) => left.cmp(&right),
        (Long(left), Double(right)) => order_doubles(left as f64, right),
        (Long(left), Text(right)) => left.cmp(&whole(right)?),
        (Double(left), Int(right)) => order_doubles(left, f64::from(right)),
        (Double(left), Long(right)) => order_doubles(left, right as f64),
        (Double(left), Double(right)) => order_doubles(left, right),
        (Double(left), Text(right)) => order_doubles(left, double(right)?),
        (Text(left), Text(right)) => left.cmp(right),
        (Text(left), Bool(right)) => left.eq_ignore_ascii_case("true").cmp(&right),
        (Text(left), Int(right)) => whole::<i32>(left)?.cmp(&right),
        (Text(left), Long(right)) => whole::<i64>(left)?.cmp(&right),
        (Text(left), Double(right)) => order_doubles(double(left)?, right),
        (Bool(_), _) | (_, Bool(_)) => Ordering::Less,
    })
}

/// A whole number: digits with or without a sign, as `Integer.valueOf` and `Long.valueOf` of Java read them.
fn whole<T: std::str::FromStr>(text: &str) -> Result<T, Incomparable> {
    text.parse().map_err(|_| Incomparable)
}

/// A floating-point number as `Double.valueOf` of Java reads it, but for the hexadecimal form.
fn double(text: &str) -> Result<f64, Incomparable> {
    let text = text.trim_matches(|c| c <= ' ');
    let (sign, number) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let value = match number {
        "NaN" => f64::NAN,
        "Infinity" => f64::INFINITY,
        _ => {
            let digits = number.strip_suffix(['f', 'F', 'd', 'D']).unwrap_or(number);
            if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
                return Err(Incomparable);
            }
            digits.parse::<f64>().map_err(|_| Incomparable)?
        }
    };
    Ok(sign * value)
}

/// Java's order of floating-point numbers: -0 is below 0, and what is not a number is above all.
fn order_doubles(left: f64, right: f64) -> Ordering {
    match (left.is_nan(), right.is_nan()) {
        (false, false) => left.total_cmp(&right),
        (left, right) => left.cmp(&right),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floating_point_is_read_as_java_reads_it() {
        for (text, value) in [(" 5.5\t", 5.5), ("+.5", 0.5), ("-5.", -5.0), ("1e3", 1000.0), ("2.5f", 2.5), ("7D", 7.0)]
        {
            assert_eq!(double(text), Ok(value), "{text:?}");
        }
        assert_eq!(double("-Infinity"), Ok(f64::NEG_INFINITY));
        assert!(double("NaN").unwrap().is_nan());
        for text in ["", " ", "+-5", "inf", "nan", "infinity", "5ff", "1_0", "0x1p3", "5,5", ".", "f", "\u{A0}5", "e5"]
        {
            assert_eq!(double(text), Err(Incomparable), "{text:?}");
        }
        assert_eq!(order_doubles(f64::NAN, f64::INFINITY), Ordering::Greater);
        assert_eq!(order_doubles(-0.0, 0.0), Ordering::Less);
    }
}
