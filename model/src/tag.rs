//! Tags as consume queues carry them.

/// Java's `String.hashCode` of a tag, sign-extended; 0 when a message has no tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct TagCode(pub i64);

impl TagCode {
    pub fn of(tag: Option<&str>) -> Self {
        Self(tag.map_or(0, |tag| i64::from(java_hash(tag))))
    }
}

/// Java's `String.hashCode`: over UTF-16 code units, wrapping 32-bit arithmetic.
pub fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_java_hashes() {
        assert_eq!(java_hash("TagA"), 2_598_919);
        assert_eq!(java_hash("hello world"), 1_794_106_052);
        assert_eq!(java_hash("polygenelubricants"), i32::MIN);
        assert_eq!(TagCode::of(Some("polygenelubricants")).0, -2_147_483_648);
        assert_eq!(TagCode::of(None).0, 0);
    }
}
