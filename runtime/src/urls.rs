//! Where a plugin may send requests to: URLs as they are granted, and whether a request's is below one of them.

use std::fmt;

use url::Url;

const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
/// Longest URL that is looked at, bytes.
const MAX_URL: usize = 8 * 1024;
/// How often a path is decoded in search of what it hides.
const MAX_DECODING: usize = 4;

/// A server, a path on it, and methods.
///
/// Scheme, host and port of a request must be the same. Its path must be the granted one or below it: `/v1` grants `/v1` and `/v1/users`
/// but not `/v1evil`; `/v1/` grants only what is below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlGrant {
    url: Url,
    methods: Vec<String>,
}

impl UrlGrant {
    /// Reads a grant. Without a method it is one of GET.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(url: &str, methods: &[String]) -> Result<Self, String> {
        let parsed = parse(url)?;
        if parsed.query().is_some() || url.contains('#') {
            return Err(format!("expected a URL without query and fragment, got {url:?}"));
        }
        if let Some(other) = methods.iter().find(|method| !METHODS.contains(&method.as_str())) {
            return Err(format!("expected methods of {}, got {other:?}", METHODS.join(", ")));
        }
        let methods = if methods.is_empty() { vec!["GET".to_owned()] } else { methods.to_vec() };
        Ok(Self { url: parsed, methods })
    }

    pub(crate) fn allows(&self, method: &str, url: &Url) -> bool {
        let place =
            |url: &Url| (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port_or_known_default());
        let granted = self.url.path();
        let below = match url.path().strip_prefix(granted) {
            Some(rest) => rest.is_empty() || rest.starts_with('/') || granted.ends_with('/'),
            None => false,
        };
        below && place(&self.url) == place(url) && self.methods.iter().any(|known| known == method)
    }
}

impl fmt::Display for UrlGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.methods.join("|"), self.url)
    }
}

/// The URL in its normal form: host in small letters, no default port, no `.` and `..`, no fragment.
pub(crate) fn parse(text: &str) -> Result<Url, String> {
    if text.len() > MAX_URL {
        return Err(format!("a URL has at most {MAX_URL} bytes, got {}", text.len()));
    }
    // What a parser would mend is refused: others may mend it otherwise.
    if let Some(odd) = text.chars().find(|c| !c.is_ascii_graphic() || *c == '\\') {
        return Err(format!("expected a URL of visible ASCII without \\, got one with {odd:?}"));
    }
    let begins = |scheme: &str| text.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme));
    let after = |scheme: &str| begins(scheme) && !text[scheme.len()..].starts_with(['/', '?', '#']);
    if !after("https://") && !after("http://") {
        return Err("expected a URL that begins with https:// or http:// and a host".to_owned());
    }
    let mut url = Url::parse(text).map_err(|error| format!("expected a URL: {error}"))?;
    let authority = text.split_once("://").and_then(|(_, rest)| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    if authority.contains('@') {
        return Err("expected a URL without user and password".to_owned());
    }
    if hides_dots(url.path()) {
        return Err("expected a path without `..` that is encoded or has parameters".to_owned());
    }
    url.set_fragment(None);
    Ok(url)
}

/// The URL without what may be private: its query.
pub(crate) fn without_query(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.into()
}

/// The text with `mark` wherever `value` stands in it, as it is or percent-encoded, wholly or in part; in a host it may have small letters.
pub(crate) fn without(text: &str, value: &str, mark: &str) -> String {
    if value.is_empty() {
        return text.to_owned();
    }
    // A value may look as if it were encoded itself.
    let raw = replace(text, mark, |rest| Some(value.len()).filter(|len| begins(rest.get(..*len), value)));
    replace(&raw, mark, |rest| encoded(rest, value))
}

fn begins(text: Option<&[u8]>, value: &str) -> bool {
    text.is_some_and(|text| text.eq_ignore_ascii_case(value.as_bytes()))
}

/// Puts `mark` in the place of what `find` finds at the beginning of the rest of the text, by its length.
fn replace(text: &str, mark: &str, find: impl Fn(&[u8]) -> Option<usize>) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(first) = rest.chars().next() {
        let found = find(rest.as_bytes()).and_then(|len| rest.get(len..));
        match found {
            Some(behind) => {
                out.push_str(mark);
                rest = behind;
            }
            None => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    out
}

/// How long the value is that the text begins with, when it is decoded.
fn encoded(text: &[u8], value: &str) -> Option<usize> {
    let mut at = 0;
    for byte in value.bytes() {
        let hex = |at: usize| text.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        let escaped = hex(at + 1).zip(hex(at + 2)).filter(|_| text.get(at) == Some(&b'%'));
        let (stands, len) = match escaped {
            Some((high, low)) => (u8::try_from(high << 4 | low).ok()?, 3),
            None => (*text.get(at)?, 1),
        };
        if !stands.eq_ignore_ascii_case(&byte) {
            return None;
        }
        at += len;
    }
    Some(at)
}

/// Whether a server that decodes the path once more than it should, or passes over what a segment has behind `;` (its parameters), would see
/// it go up.
fn hides_dots(path: &str) -> bool {
    let mut path = path.to_owned();
    for _ in 0..MAX_DECODING {
        let name = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
        if path.split(['/', '\\']).any(name) {
            return true;
        }
        let lower = path.to_ascii_lowercase();
        let decoded = lower.replace("%2e", ".").replace("%2f", "/").replace("%5c", "\\");
        let decoded = decoded.replace("%3b", ";").replace("%25", "%");
        if decoded == lower {
            return false;
        }
        path = decoded;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(url: &str) -> UrlGrant {
        UrlGrant::parse(url, &["GET".into(), "POST".into()]).unwrap()
    }

    fn allows(granted: &str, url: &str) -> bool {
        parse(url).is_ok_and(|url| grant(granted).allows("GET", &url))
    }

    #[test]
    fn what_is_the_same_place_is_granted() {
        let granted = "https://api.example.com/v1/";
        for url in [
            "https://api.example.com/v1/users",
            "https://API.Example.COM:443/v1/users?id=7#x",
            "https://api.example.com/v1/a/../users",
            "https://api.example.com/v1/%2e%2E/v1/users",
            "https://api.example.com/./v1/users",
            "https://api.example.com/v1/a%2Fb",
            "https://api.example.com/v1/users;role=..",
            "https://api.example.com/v1/..a;b",
        ] {
            assert!(allows(granted, url), "{url}");
        }
        assert!(allows("https://api.example.com/v1", "https://api.example.com/v1"));
        assert!(allows("https://api.example.com/v1", "https://api.example.com/v1/users"));
        assert!(allows("https://api.example.com", "https://api.example.com/anything"));
        assert!(allows("http://127.0.0.1:8080/", "http://0x7f.1:8080/x"), "one address, one form");
    }

    #[test]
    fn tricks_are_not() {
        let granted = "https://api.example.com/v1/";
        for url in [
            "https://api.example.com.evil.net/v1/",
            "https://api.example.com@evil.net/v1/",
            "https://evil.net/@api.example.com/v1/",
            "https://user:password@api.example.com/v1/",
            "https://@api.example.com/v1/",
            "https://api.example.com:8443/v1/",
            "http://api.example.com/v1/",
            "https://api.example.com/v1/../admin",
            "https://api.example.com/v1/%2e%2e/admin",
            "https://api.example.com/v1/.%2e/admin",
            "https://api.example.com/v1/..%2fadmin",
            "https://api.example.com/v1/%2e%2e%2fadmin",
            "https://api.example.com/v1/x/%2F%2e%2e%2Fadmin",
            "https://api.example.com/v1/%252e%252e/admin",
            "https://api.example.com/v1/%25252525252e%2e/admin",
            "https://api.example.com/v1/..%5cadmin",
            "https://api.example.com/v1/..\\admin",
            "https://api.example.com/v1/..;/admin",
            "https://api.example.com/v1/..;a=b/admin",
            "https://api.example.com/v1/..;",
            "https://api.example.com/v1/x/.;/..;/..;/admin",
            "https://api.example.com/v1/..%3b/admin",
            "https://api.example.com/v1/..%3Ba=b/admin",
            "https://api.example.com/v1/..%253b/admin",
            "https://api.example.com/v1/.%2e;x/admin",
            "https://api.example.com/v1/%2e%2e;/admin",
            "https://api.example.com/v1/..;x%2fadmin",
            "https:\\\\api.example.com\\v1\\",
            "https:/api.example.com/v1/",
            "https:api.example.com/v1/",
            "https:///api.example.com/v1/",
            "https://api.example.com/v1evil",
            "https://api.example.com/v1",
            "https://api.example.com/V1/",
            "https://api.example.com./v1/",
            "https://api.example.com /v1/",
            "https://api.exa\tmple.com/v1/",
            " https://api.example.com/v1/",
            "https://api.example.com/v1/\r\nx-evil: 1",
            "https://xn--pi-6kc.example.com/v1/",
            "https://аpi.example.com/v1/",
            "ftp://api.example.com/v1/",
            "file:///v1/",
            "//api.example.com/v1/",
            "/v1/",
            "",
        ] {
            assert!(!allows(granted, url), "{url}");
        }
        assert!(!allows("https://api.example.com/v1", "https://api.example.com/v1evil"));
    }

    #[test]
    fn only_granted_methods_are() {
        let url = parse("https://api.example.com/v1/x").unwrap();
        let granted = UrlGrant::parse("https://api.example.com/v1/", &[]).unwrap();
        assert!(granted.allows("GET", &url) && !granted.allows("POST", &url) && !granted.allows("get", &url));
        assert_eq!(granted.to_string(), "GET https://api.example.com/v1/");
    }

    #[test]
    fn a_value_is_found_however_it_is_spelled() {
        for (text, value, expected) in [
            ("https://a/hooks/T0/x1/y?z", "T0/x1", "https://a/hooks/*/y?z"),
            ("https://a/T0%2fx1/T0%2Fx1", "T0/x1", "https://a/*/*"),
            ("https://a/%540%2F%781.", "T0/x1", "https://a/*."),
            ("https://t0x.example.com/", "T0x", "https://*.example.com/"),
            ("https://a/%C3%A4%20b", "ä b", "https://a/*"),
            ("no ä b here", "ä b", "no * here"),
            ("https://a/%2541/%41", "%41", "https://a/*/*"),
            ("https://a/%", "%", "https://a/*"),
            ("https://a/T0%2", "T0/", "https://a/T0%2"),
            ("https://a/b", "", "https://a/b"),
            ("aaa", "aa", "*a"),
        ] {
            assert_eq!(without(text, value, "*"), expected, "{value} in {text}");
        }
    }

    #[test]
    fn a_grant_that_cannot_be_meant_is_refused() {
        for (url, expected) in [
            ("api.example.com", "expected a URL"),
            ("ftp://api.example.com/", "https://"),
            ("https://me@api.example.com/", "without user"),
            ("https://api.example.com/?a=1", "without query"),
            ("https://api.example.com/#a", "without query and fragment"),
        ] {
            let text = UrlGrant::parse(url, &[]).unwrap_err();
            assert!(text.contains(expected), "{url}: {text}");
        }
        let text = UrlGrant::parse("https://api.example.com/", &["CONNECT".into()]).unwrap_err();
        assert!(text.contains("GET, HEAD, POST"), "{text}");
        assert!(parse(&format!("https://a/{}", "x".repeat(MAX_URL))).unwrap_err().contains("at most"));
    }
}
