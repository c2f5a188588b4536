//! Answers that break the contract.

use super::*;

/// Answers that break the contract. The batch has four records.
pub(super) fn lying() -> Vec<Case> {
    let filters = |data: String| Guest { fields: data, ..filter() };
    let answers = |data: String| Guest { fields: data, ..transform() };
    // A failure: index, action, code, reason.
    let failure = |index: u32, action: u32| [index, action, 512, 6, 512, 6];
    let failures = |list: &[[u32; 6]]| {
        let len = u32::try_from(list.len()).unwrap();
        filters(words(ANSWER, &[0, 0, 0, OWN, len]) + &words(OWN, list.as_flattened()))
    };
    let noise = words(ANSWER, &[0, 0, 0, OWN, 1])
        + &words(OWN, &[0, 0, OWN + 64, 4, 512, 6])
        + &bytes_at(OWN + 64, b"\xff\xfe\xfd\xfc");
    let large = |data: String| Guest { memory: "(export \"memory\") 250", ..answers(data) };
    vec![
        call(
            "an answer beyond the memory",
            Guest { body: "(i32.const -4)".into(), ..filter() },
            "trap",
            "out of bounds",
        ),
        call("an answer between two words", Guest { body: "(i32.const 1026)".into(), ..filter() }, "trap", "aligned"),
        call("neither ok nor an error", filters(words(ANSWER, &[9])), "trap", "discriminant"),
        call(
            "a bitmap of the wrong length",
            filters(words(ANSWER, &[0, OWN, 3])),
            "nonsense",
            "keep: expected 1 bytes",
        ),
        call("a bitmap beyond the memory", filters(words(ANSWER, &[0, OWN, 1 << 30])), "trap", "out of bounds"),
        call(
            "a bitmap of megabytes",
            Guest { memory: "(export \"memory\") 250", ..filters(words(ANSWER, &[0, HEAP, 15 << 20])) },
            "nonsense",
            "keep: expected",
        ),
        call("one failure named twice", failures(&[failure(1, 0), failure(1, 0)]), "nonsense", "named twice"),
        call("a failure of no record", failures(&[failure(4, 0)]), "nonsense", "record 4"),
        call("more failures than records", failures(&[failure(1, 0); 5]), "nonsense", "5 failures for 4"),
        call("a failure with no known action", failures(&[failure(1, 9)]), "trap", "discriminant"),
        call("a failure of noise", filters(noise), "trap", "utf-8"),
        call(
            "millions of failures",
            Guest { memory: "(export \"memory\") 250", ..filters(words(ANSWER, &[0, 0, 0, HEAP, 600_000])) },
            "too-much-output",
            "more than its limit",
        ),
        call(
            "a fault of the batch",
            filters(words(ANSWER, &[1, 1, 512, 6, 512, 6])),
            "corpus",
            "failed the whole batch",
        ),
        call("an origin beyond the batch", answers(output(&[0, 4], &[], None)), "nonsense", "origin[1] is 4"),
        call("origins that go back", answers(output(&[1, 0], &[], None)), "nonsense", "origin[1] is 0 after 1"),
        call("a target that is not there", answers(output(&[0, 1], &[0, 2], None)), "nonsense", "target[1] is 2"),
        call("fewer targets than outputs", answers(output(&[0, 1], &[0], None)), "nonsense", "target: expected 2"),
        call("outputs of nothing", answers(output(&[], &[0], None)), "nonsense", "target: expected 0"),
        call("a fan of outputs", answers(output(&[0; 257], &[], None)), "nonsense", "257 outputs from 4 records"),
        call(
            "a storm of outputs",
            large(words(ANSWER, &[0, HEAP, 3_000_000])),
            "nonsense",
            "3000000 outputs from 4 records",
        ),
        call(
            "ends that go back",
            answers(output(&[0, 1], &[], Some((VALUES, &[], b"abcd", &[3, 2])))),
            "nonsense",
            "end 1 is 2, after 3",
        ),
        call(
            "ends beyond the data",
            answers(output(&[0, 1], &[], Some((VALUES, &[], b"abcd", &[3, 5])))),
            "nonsense",
            "end 1 is 5",
        ),
        call(
            "too few ends",
            answers(output(&[0, 1], &[], Some((VALUES, &[], b"abcd", &[4])))),
            "nonsense",
            "expected 2 ends",
        ),
        call(
            "data behind the last end",
            answers(output(&[0, 1], &[], Some((VALUES, &[], b"abcd", &[1, 2])))),
            "nonsense",
            "the last end is 2",
        ),
        call(
            "a patch of the wrong length",
            answers(output(&[0, 1], &[], Some((VALUES, &[3, 0], b"ab", &[1, 2])))),
            "nonsense",
            "`changed`",
        ),
        call(
            "data beyond the memory",
            answers(words(ANSWER, &[0, OWN, 1]) + &words(ANSWER + 76, &[1, 0, 0, OWN, 1 << 30, OWN, 1])),
            "trap",
            "out of bounds",
        ),
        call(
            "a key of noise",
            answers(output(&[0], &[], Some((KEYS, &[], b"\xff", &[1])))),
            "nonsense",
            "the key is not UTF-8",
        ),
        call(
            "a key that holds a property",
            answers(output(&[0], &[], Some((KEYS, &[], b"a\x01b", &[3])))),
            "nonsense",
            "byte 1 or 2",
        ),
        call(
            "a tag of noise",
            answers(output(&[0], &[], Some((TAGS, &[], b"\xc0\x80", &[2])))),
            "nonsense",
            "the tag is not UTF-8",
        ),
        call(
            "headers of noise",
            answers(output(&[0], &[], Some((HEADERS, &[], b"\xff", &[1])))),
            "nonsense",
            "the headers are not UTF-8",
        ),
        call(
            "headers without a value",
            answers(output(&[0], &[], Some((HEADERS, &[], &[3; 30_000], &[30_000])))),
            "nonsense",
            "which is no name",
        ),
        call(
            "headers longer than can be stored",
            answers(output(&[0], &[], Some((HEADERS, &[], &[b'a'; 40_000], &[40_000])))),
            "nonsense",
            "32767",
        ),
        call(
            "one place four times",
            large(
                words(ANSWER, &[0, OWN, 1])
                    + &[KEYS, TAGS, VALUES, HEADERS]
                        .map(|column| words(ANSWER + column, &[1, 0, 0, HEAP, 14 << 20, OWN + 8, 1]))
                        .concat()
                    + &words(OWN + 8, &[14 << 20]),
            ),
            "too-much-output",
            "more than its limit",
        ),
    ]
}

pub(super) const KEYS: u32 = 20;
pub(super) const TAGS: u32 = 48;
pub(super) const VALUES: u32 = 76;
pub(super) const HEADERS: u32 = 104;

/// A column, its bits of what changed, its data and its ends.
type Patch<'a> = Option<(u32, &'a [u8], &'a [u8], &'a [u32])>;

/// A transformer's answer.
pub(super) fn output(origin: &[u32], target: &[u16], patch: Patch<'_>) -> String {
    let len = |n: usize| u32::try_from(n).unwrap();
    let (origins, targets, changed, ends, data) = (OWN, OWN + 2048, OWN + 2560, OWN + 2568, OWN + 2600);
    let target_bytes: Vec<u8> = target.iter().flat_map(|target| target.to_le_bytes()).collect();
    let mut text = words(ANSWER, &[0, origins, len(origin.len()), targets, len(target.len())]);
    text += &bytes_at(origins, &bytes_of(origin));
    text += &bytes_at(targets, &target_bytes);
    if let Some((column, bits, bytes, cuts)) = patch {
        text += &words(ANSWER + column, &[1, changed, len(bits.len()), data, len(bytes.len()), ends, len(cuts.len())]);
        text += &(bytes_at(changed, bits) + &bytes_at(ends, &bytes_of(cuts)) + &bytes_at(data, bytes));
    }
    text
}
