//! Finding a field in one pass over the text, eight bytes at a time. Anything unusual is left to the library, so whatever is answered here,
//! it would answer as well. What the loop over an object does not always need lies in memory, and what it seldom needs in
//! functions that are not inlined: registers are what a guest has few of, beside those that watch its deadline, and each call looks at that and
//! at the stack.

use std::num::NonZeroUsize;

/// Deepest nesting that is gone into.
const DEPTH: u32 = 32;

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGH: u64 = ONES << 7;

/// The text of the field at a JSON Pointer, `Some(None)` if the text is JSON without that field. `None`: ask the library, about what is no
/// JSON, about a pointer with `~` in it, or below what is no object, and about names that are written with escapes, or twice.
pub(super) fn find<'j>(json: &'j [u8], pointer: &str) -> Option<Option<&'j [u8]>> {
    let text = Text::new(json);
    let sought = Name::first(pointer.as_bytes())?;
    let mut scan = Scan { text, seen: 0, depth: 0, sought, found: None };
    let at = text.blanks(0);
    if text.byte(at) != b'{' {
        return None;
    }
    let end = scan.object(at + 1)?.get();
    let whole = end == json.len() || text.blanks(end) == json.len();
    let valid = scan.seen & HIGH == 0 || str::from_utf8(json).is_ok();
    (whole && valid).then_some(scan.found)
}

#[derive(Clone, Copy)]
struct Text<'j> {
    bytes: &'j [u8],
    /// The last eight bytes, the very last one on top.
    last: u64,
}

impl<'j> Text<'j> {
    #[inline(always)]
    fn new(bytes: &'j [u8]) -> Text<'j> {
        let last = match bytes.last_chunk() {
            Some(eight) => u64::from_le_bytes(*eight),
            None => few(bytes),
        };
        Text { bytes, last }
    }

    /// 0 at the end, which is no part of JSON.
    #[inline(always)]
    fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    /// The next eight bytes, the first one lowest; zeros from the end on.
    #[inline(always)]
    fn word(&self, at: usize) -> u64 {
        match self.bytes.get(at..).map(|rest| (rest.first_chunk(), rest.len())) {
            Some((Some(eight), _)) => u64::from_le_bytes(*eight),
            Some((None, left @ 1..)) => self.last >> (64 - 8 * left),
            _ => 0,
        }
    }

    /// The place of the quote that closes what begins at `at` with this word, if it is within so many words and all before it is usual; else how
    /// far that is so.
    #[inline(always)]
    fn closing<const WORDS: usize>(&self, mut at: usize, mut word: u64) -> Result<usize, usize> {
        for _ in 1..WORDS {
            match quoted(word) {
                Ok(short) => return Ok(at + short),
                Err(8) => at += 8,
                Err(short) => return Err(at + short),
            }
            word = self.word(at);
        }
        quoted(word).map(|short| at + short).map_err(|short| at + short)
    }

    #[inline(always)]
    fn blanks(&self, at: usize) -> usize {
        self.behind_blanks(at, self.byte(at)).0
    }

    /// The next place that is no blank, and its byte. `byte` is the one at `at`.
    #[inline(always)]
    fn behind_blanks(&self, at: usize, byte: u8) -> (usize, u8) {
        if byte > b' ' {
            return (at, byte);
        }
        let at = self.more_blanks(at);
        (at, self.byte(at))
    }

    #[inline(always)]
    fn and_byte(&self, at: Place) -> (usize, u8) {
        (at.get(), self.byte(at.get()))
    }

    #[inline(never)]
    fn more_blanks(&self, mut at: usize) -> usize {
        while matches!(self.byte(at), b' ' | b'\t' | b'\n' | b'\r') {
            at += 1;
        }
        at
    }

    /// What follows a backslash.
    fn escape(&self, at: usize) -> Option<usize> {
        match self.byte(at) {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(at + 1),
            b'u' => self.bytes.get(at + 1..at + 5)?.iter().all(u8::is_ascii_hexdigit).then_some(at + 5),
            _ => None,
        }
    }

    #[inline(never)]
    fn number(&self, mut at: usize) -> Option<Place> {
        if self.byte(at) == b'-' {
            at += 1;
        }
        at = if self.byte(at) == b'0' { at + 1 } else { self.digits(at)? };
        if self.byte(at) == b'.' {
            at = self.digits(at + 1)?;
        }
        if matches!(self.byte(at), b'e' | b'E') {
            let signed = matches!(self.byte(at + 1), b'+' | b'-');
            at = self.digits(at + 1 + usize::from(signed))?;
        }
        Place::new(at)
    }

    /// The place after one digit or more.
    fn digits(&self, from: usize) -> Option<usize> {
        let mut at = from;
        loop {
            let others = others(self.word(at));
            at += first_of(others);
            if others != 0 {
                return (at > from).then_some(at);
            }
        }
    }
}

/// A place in a text behind its first byte: as an [`Option`] it is one value, which a function of a guest gives in a register.
type Place = NonZeroUsize;

/// The name that is looked for in an object.
#[derive(Clone, Copy)]
struct Name<'p> {
    /// [`NOWHERE`] if none is.
    len: usize,
    bytes: &'p [u8],
    /// Its first eight bytes, and which bits of a word they are.
    word: u64,
    mask: u64,
    /// The path below it.
    below: &'p [u8],
    /// Whether it was there already.
    met: bool,
}

/// A length that no name has.
const NOWHERE: usize = usize::MAX;

impl<'p> Name<'p> {
    /// The first one of a path that is not empty.
    #[inline(always)]
    fn first(path: &'p [u8]) -> Option<Name<'p>> {
        let path = path.strip_prefix(b"/")?;
        let word = Text::new(path).word(0);
        let len = match first_of(path_stops(word)) {
            8 => path.iter().position(|byte| matches!(byte, b'/' | b'~')).unwrap_or(path.len()),
            short => short,
        };
        let (bytes, below) = path.split_at_checked(len)?;
        if below.first().is_some_and(|byte| *byte != b'/') {
            return None;
        }
        let mask = if len < 8 { (1 << (8 * len)) - 1 } else { u64::MAX };
        Some(Name { len, bytes, word: word & mask, mask, below, met: false })
    }
}

struct Scan<'j, 'p> {
    text: Text<'j>,
    /// The words of strings that are long or unusual, one over the other: whether there is anything but ASCII.
    seen: u64,
    depth: u32,
    sought: Name<'p>,
    found: Option<&'j [u8]>,
}

impl Scan<'_, '_> {
    /// What follows a brace: the place after the closing one.
    fn object(&mut self, from: usize) -> Option<Place> {
        let text = self.text;
        let (mut at, mut byte) = text.behind_blanks(from, text.byte(from));
        if byte == b'}' {
            return Place::new(at + 1);
        }
        loop {
            if byte != b'"' {
                return None;
            }
            let name = at + 1;
            let word = text.word(name);
            let end = match text.closing::<2>(name, word) {
                Ok(end) => end,
                Err(far) => self.string(far, false)?.get(),
            };
            let is_it = end - name == self.sought.len
                && (word ^ self.sought.word) & self.sought.mask == 0
                && self.meet(name, end)?;
            (at, byte) = text.behind_blanks(end + 1, text.byte(end + 1));
            if byte != b':' {
                return None;
            }
            let (start, first) = text.behind_blanks(at + 1, text.byte(at + 1));
            (at, byte) = match first {
                b'"' => {
                    let closing = match text.closing::<4>(start + 1, text.word(start + 1)) {
                        Ok(end) => end,
                        Err(far) => self.string(far, true)?.get(),
                    };
                    (closing + 1, text.byte(closing + 1))
                }
                b'1'..=b'9' => {
                    let word = text.word(start);
                    let digits = first_of(others(word));
                    match byte_of(word, digits) {
                        Some(next) if !matches!(next, b'.' | b'e' | b'E') => (start + digits, next),
                        _ => text.and_byte(text.number(start)?),
                    }
                }
                _ => text.and_byte(self.other(start, is_it)?),
            };
            if is_it && !self.ends(start, at) {
                return None;
            }
            (at, byte) = text.behind_blanks(at, byte);
            match byte {
                b',' => (at, byte) = text.behind_blanks(at + 1, text.byte(at + 1)),
                b'}' => return Place::new(at + 1),
                _ => return None,
            }
        }
    }

    /// What follows a quote: the place of the closing one.
    #[inline(never)]
    fn string(&mut self, mut at: usize, may_escape: bool) -> Option<Place> {
        let text = self.text;
        loop {
            let word = text.word(at);
            self.seen |= word;
            let stops = marks(word) & !word & HIGH;
            at += first_of(stops);
            if stops != 0 {
                match text.byte(at) {
                    b'"' => return Place::new(at),
                    b'\\' if may_escape => at = text.escape(at + 1)?,
                    _ => return None,
                }
            }
        }
    }

    /// A name that begins as the one that is looked for, and is as long: whether it is that. `None` if it was there before.
    #[inline(always)]
    fn meet(&mut self, name: usize, end: usize) -> Option<bool> {
        let is_it = end - name <= 8 || self.sought.bytes == &self.text.bytes[name..end];
        let again = is_it && self.sought.met;
        self.sought.met |= is_it;
        (!again).then_some(is_it)
    }

    /// The value of the name that is looked for. False if there is more of the path, but nothing below.
    #[inline(always)]
    fn ends(&mut self, from: usize, to: usize) -> bool {
        if !self.sought.below.is_empty() {
            return self.text.byte(from) == b'{';
        }
        self.found = Some(&self.text.bytes[from..to]);
        true
    }

    /// A value that is neither a string nor begins with a digit but 0.
    #[inline(never)]
    fn other(&mut self, at: usize, is_it: bool) -> Option<Place> {
        let is = |word: &[u8]| {
            let there = self.text.bytes[at..].starts_with(word);
            if there { Place::new(at + word.len()) } else { None }
        };
        match self.text.byte(at) {
            b'0' | b'-' => self.text.number(at),
            b't' => is(b"true"),
            b'f' => is(b"false"),
            b'n' => is(b"null"),
            first @ (b'{' | b'[') => {
                let here = self.sought;
                if !is_it || here.below.is_empty() {
                    self.sought.len = NOWHERE;
                } else if first == b'{' {
                    self.sought = Name::first(here.below)?;
                } else {
                    return None;
                }
                self.depth += 1;
                if self.depth > DEPTH {
                    return None;
                }
                let end = if first == b'{' { self.object(at + 1)? } else { self.array(at + 1)? };
                self.depth -= 1;
                self.sought = here;
                Some(end)
            }
            _ => None,
        }
    }

    /// What follows a bracket: the place after the closing one.
    fn array(&mut self, from: usize) -> Option<Place> {
        let text = self.text;
        let mut at = text.blanks(from);
        if text.byte(at) == b']' {
            return Place::new(at + 1);
        }
        loop {
            at = match text.byte(at) {
                b'"' => self.string(at + 1, true)?.get() + 1,
                b'1'..=b'9' => text.number(at)?.get(),
                _ => self.other(at, false)?.get(),
            };
            at = text.blanks(at);
            match text.byte(at) {
                b',' => at = text.blanks(at + 1),
                b']' => return Place::new(at + 1),
                _ => return None,
            }
        }
    }
}

/// Less than eight bytes, the last one on top.
#[inline(always)]
fn few(bytes: &[u8]) -> u64 {
    match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>(), bytes) {
        // Those that are in both are the same in both.
        (Some(first), Some(last), _) => {
            let first = u64::from(u32::from_le_bytes(*first)) << (8 * (8 - bytes.len()));
            first | u64::from(u32::from_le_bytes(*last)) << 32
        }
        (_, _, [first, .., last]) => {
            let middle = u64::from(bytes[(bytes.len() - 1) / 2]) << 48;
            u64::from(*first) << (8 * (8 - bytes.len())) | middle | u64::from(*last) << 56
        }
        (_, _, [one]) => u64::from(*one) << 56,
        _ => 0,
    }
}

/// How many bytes of a string there are up to the closing quote, if that is in the word and all before it is usual; else how many of them are.
#[inline(always)]
fn quoted(word: u64) -> Result<usize, usize> {
    let usual = first_of(marks(word) & HIGH);
    if byte_of(word, usual) == Some(b'"') { Ok(usual) } else { Err(usual) }
}

/// Bit 7 of the first byte that is a quote, a backslash, less than a space, or not ASCII; those after it may say anything.
#[inline(always)]
fn marks(word: u64) -> u64 {
    let zero = |word: u64| word.wrapping_sub(ONES);
    let quote = zero(word ^ (ONES * u64::from(b'"')));
    let backslash = zero(word ^ (ONES * u64::from(b'\\')));
    let control = word.wrapping_sub(ONES * u64::from(b' '));
    quote | backslash | control
}

/// Bit 7 of the first byte that ends a name of a pointer, which is `/`, `~` or the end; those after it may say anything.
#[inline(always)]
fn path_stops(word: u64) -> u64 {
    let zero = |word: u64| word.wrapping_sub(ONES);
    let slash = zero(word ^ (ONES * u64::from(b'/')));
    let tilde = zero(word ^ (ONES * u64::from(b'~')));
    (slash | tilde | zero(word)) & !word & HIGH
}

/// A bit of the upper half of the first byte that is no digit; those after it may say anything.
#[inline(always)]
fn others(word: u64) -> u64 {
    const UPPER: u64 = ONES * 0xf0;
    let digits = ONES * u64::from(b'0');
    ((word & UPPER) ^ digits) | ((word.wrapping_add(ONES * 6) & UPPER) ^ digits)
}

/// `None` for the one after the last.
#[inline(always)]
fn byte_of(word: u64, index: usize) -> Option<u8> {
    (index < 8).then(|| word.wrapping_shr(8 * index as u32).to_le_bytes()[0])
}

/// Which byte the lowest bit is in; 8 if there is none.
#[inline(always)]
fn first_of(bits: u64) -> usize {
    (bits.trailing_zeros() / 8) as usize
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::by_library;
    use super::*;

    const TEXTS: [&str; 9] = [
        r#"{"id":17,"amount":501,"currency":"EUR","customer":"c00017","note":"                        x"}"#,
        r#" { "a" : { "b" : -1.5e3 , "c":[1, {"b":2}, [], {}, "x", null] } , "amount" : "\u00e9\"\\ é" ,"":0 } "#,
        r#"{"a":{"d":[{"amount":1},[true,false]],"b":{"b":null}},"amount":123456789012345678,"b":"ü"}"#,
        r#"{"a":{"b":0.25},"amount":1e2,"c":17.5,"a_long_name_for_once":{"and_another_one":["1","22"]}}"#,
        r#"{"amount":{"b":1,"a":true},"a":false,"12345678":"12345678","":{"":""}}"#,
        r#"{"a":1}"#,
        r#"{"":2}"#,
        "{}",
        " {}",
    ];
    const POINTERS: [&str; 11] = [
        "/amount",
        "/a/b",
        "/a",
        "/",
        "//",
        "/a/b/b",
        "/amount/b",
        "/12345678",
        "/a_long_name_for_once/and_another_one",
        "/a_long_name_for_on",
        "/missing",
    ];

    /// Whether it was found here, as the library finds it.
    fn agrees(json: &[u8], pointer: &str) -> bool {
        let Some(found) = find(json, pointer) else { return false };
        let value = match found.map(serde_json::from_slice::<Value>).transpose() {
            Ok(value) => value,
            // What cannot be a value is asked of the library again.
            Err(_) => return false,
        };
        let text = String::from_utf8_lossy(json);
        let said = by_library(json, pointer).unwrap_or_else(|e| panic!("{text} at {pointer}: {e}"));
        assert_eq!(said, value, "{text} at {pointer}");
        true
    }

    #[test]
    fn usual_texts_need_no_library() {
        for text in TEXTS {
            let whole: Value = serde_json::from_str(text).unwrap();
            for pointer in POINTERS {
                let mut above = pointer.match_indices('/').filter_map(|(at, _)| whole.pointer(&pointer[..at]));
                let through = above.any(|above| !above.is_object());
                assert_eq!(agrees(text.as_bytes(), pointer), !through, "{pointer} in {text}");
            }
        }
    }

    #[test]
    fn what_is_answered_of_damaged_texts_is_what_the_library_says() {
        let bytes = b"\"\\{}[],:019.eE+-tfnubx/~ \n\0\x1f\x7f\x80\xc3\xff";
        let (mut answered, mut tried) = (0, 0);
        let mut check = |text: &[u8]| {
            for pointer in POINTERS {
                answered += usize::from(agrees(text, pointer));
                tried += 1;
            }
        };
        for text in TEXTS.map(str::as_bytes) {
            for at in 0..text.len() {
                check(&text[..at]);
                check(&text[at..]);
                check(&[&text[..at], &text[at + 1..]].concat());
                for byte in bytes {
                    check(&[&text[..at], &[*byte], &text[at + 1..]].concat());
                    check(&[&text[..at], &[*byte], &text[at..]].concat());
                }
            }
        }
        // Neither of nearly all nor of nearly none: else this would have shown little.
        assert!(tried > 100_000 && answered > tried / 5 && answered < tried / 2, "{answered} of {tried}");
    }

    #[test]
    fn a_name_of_any_length_is_told_from_others() {
        let names: Vec<&str> = (0..20).map(|len| &"abcdefghijklmnopqrst"[..len]).collect();
        let fields: Vec<String> = names.iter().map(|name| format!("{name:?}:{{{name:?}:{}}}", name.len())).collect();
        let text = format!("{{{}}}", fields.join(","));
        for name in names {
            let nested = format!("/{name}/{name}");
            assert_eq!(find(text.as_bytes(), &nested), Some(Some(name.len().to_string().as_bytes())), "{name}");
            for other in [format!("/{name}x"), format!("/{name}/{name}x"), format!("/x{name}")] {
                assert_eq!(find(text.as_bytes(), &other), Some(None), "{other}");
            }
        }
    }

    #[test]
    fn the_library_is_asked_about_what_is_unusual() {
        let deep = format!("{}1{}", "{\"a\":".repeat(40), "}".repeat(40));
        for (text, pointer) in [
            (r#"{"a":1}"#, ""),
            (r#"{"a":1}"#, "a"),
            (r#"{"a/b":1}"#, "/a~1b"),
            (r#"{"name_with~1":1}"#, "/name_with~1"),
            (r#"{"a":[1]}"#, "/a/0"),
            (r#"[1]"#, "/0"),
            (r#"{"\u0061":1}"#, "/a"),
            (r#"{"a":1,"a":2}"#, "/a"),
            (&deep, "/a"),
        ] {
            assert_eq!(find(text.as_bytes(), pointer), None, "{pointer} in {text}");
        }
    }
}
