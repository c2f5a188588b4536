//! Frames against bytes written by hand from the layout, and against whatever else may come.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]
use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use sluice_protocol::{Body, Encoding, Ext, Frame, FrameError, Language, Response, ResponseCode, decode};

const LIMIT: usize = 1 << 20;

fn frame(mark: u8, header: &[u8], body: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_u32((4 + header.len() + body.len()) as u32);
    out.put_u32(header.len() as u32 | u32::from(mark) << 24);
    out.put_slice(header);
    out.put_slice(body);
    out
}

fn one(mut bytes: BytesMut) -> Frame {
    let frame = decode(&mut bytes, LIMIT).unwrap().unwrap();
    assert!(bytes.is_empty());
    frame
}

#[test]
fn a_java_header_is_read() {
    let json = r#"{"code":310,"extFields":{"a":"pg","i":"KEYS\u0001k\u0002\u00e9\ud83d\ude00","e":"3"},"flag":0,"language":"JAVA","opaque":7,"serializeTypeCurrentRPC":"JSON","version":473}"#;
    let got = one(frame(0, json.as_bytes(), b"body"));
    assert_eq!((got.header.code, got.header.opaque, got.header.version), (310, 7, 473));
    assert_eq!(got.header.language, Language::Java);
    let fields: Vec<_> = got.header.ext.iter().collect();
    assert_eq!(fields, [("a", "pg"), ("i", "KEYS\u{1}k\u{2}é😀"), ("e", "3")]);
    assert_eq!(got.body, "body");
}

#[test]
fn a_header_with_everything_unusual_is_read() {
    let json = r#" { "extra" : {"a":[1,{"b":null}]}, "opaque":-1,"extFields":{"n":5,"b":true,"gone":null},"remark":null,
        "language":9,"version":317,"code":34, "flag":2 } "#;
    let got = one(frame(0, json.as_bytes(), b""));
    assert_eq!(got.header.ext.iter().collect::<Vec<_>>(), [("n", "5"), ("b", "true")]);
    assert_eq!((got.header.language, got.header.opaque), (Language::Go, -1));
    assert!(got.header.is_oneway() && !got.header.is_response());
}

#[test]
fn a_binary_header_is_read_and_written() {
    // code 11, Java, version 473, opaque 9, flag 2, remark "r", one field k = vv.
    let header = b"\x00\x0b\x00\x01\xd9\x00\x00\x00\x09\x00\x00\x00\x02\x00\x00\x00\x01r\x00\x00\x00\x09\x00\x01k\x00\x00\x00\x02vv";
    let bytes = frame(1, header, b"xyz");
    let got = one(bytes.clone());
    assert_eq!((got.header.code, got.header.version, got.header.opaque), (11, 473, 9));
    assert_eq!(got.header.remark.as_deref(), Some("r"));
    assert_eq!(got.header.ext.iter().collect::<Vec<_>>(), [("k", "vv")]);
    let mut again = BytesMut::new();
    got.encode(&mut again);
    assert_eq!(again, bytes);
}

#[test]
fn an_answer_is_compact_json_with_text_values_and_always_fields() {
    let mut ext = Ext::new();
    ext.push("queueId", 3);
    let answer = Response::error(ResponseCode::TopicNotExist, "no \"t\"\u{1}\n").with_ext(ext);
    let json = r#"{"code":17,"extFields":{"queueId":"3"},"flag":1,"language":"JAVA","opaque":-5,"remark":"no \"t\"\u0001\n","serializeTypeCurrentRPC":"JSON","version":479}"#;
    assert_eq!(answer.encode(-5, Encoding::Json), frame(0, json.as_bytes(), b"").freeze());
    let empty = Response::ok().encode(1, Encoding::Json);
    assert!(String::from_utf8_lossy(&empty[8..]).contains(r#""extFields":{}"#));
}

#[test]
fn an_answer_mirrors_the_binary_form_and_keeps_its_parts_in_order() {
    let body: Body = [Bytes::from_static(b"ab"), Bytes::new(), Bytes::from_static(b"c")].into_iter().collect();
    let answer = Response::ok().with_body(body).encode(2, Encoding::Binary);
    let header = b"\x00\x00\x00\x01\xdf\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00";
    assert_eq!(answer, frame(1, header, b"abc").freeze());
}

#[test]
fn a_code_that_the_binary_form_cannot_hold_goes_as_json() {
    let mut request = Frame::request(200_050, Ext::new(), Bytes::new());
    request.header.encoding = Encoding::Binary;
    let mut out = BytesMut::new();
    request.encode(&mut out);
    let got = one(out);
    assert_eq!((got.header.code, got.header.encoding), (200_050, Encoding::Json));
}

#[test]
fn a_length_out_of_bounds_is_fatal() {
    for length in [-1, 0, 3, LIMIT as i32 + 1, i32::MAX] {
        let mut bytes = BytesMut::from(&length.to_be_bytes()[..]);
        let error = decode(&mut bytes, LIMIT).unwrap_err();
        assert!(error.is_fatal() && error.to_string().contains(&length.to_string()), "{error}");
    }
}

#[test]
fn a_bad_header_is_passed_over_and_its_sender_known() {
    let bad = [
        (0, &br#"{"opaque":5,"code":"#[..], Some(5)),
        (0, br#"{"opaque":5}"#, Some(5)),
        (0, br#"{"code":1,"extFields":{"a":{}},"opaque":5}"#, None),
        (0, b"\xff", None),
        (0, b"", None),
        (1, b"\x00\x0b\x00\x01\xd9\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\xff", Some(5)),
        (7, b"{}", None),
    ];
    for (mark, header, who) in bad {
        let mut bytes = frame(mark, header, b"body");
        bytes.unsplit(frame(0, br#"{"code":1}"#, b"next"));
        match decode(&mut bytes, LIMIT).unwrap_err() {
            FrameError::Header { opaque, oneway, .. } => assert_eq!((opaque, oneway), (who, false)),
            other => panic!("{other}"),
        }
        assert_eq!(one(bytes).body, "next");
    }
}

#[test]
fn a_bad_header_that_wants_no_answer_says_so() {
    let mut bytes = frame(0, br#"{"flag":2,"opaque":5,"code":"x"}"#, b"");
    let error = decode(&mut bytes, LIMIT).unwrap_err();
    assert!(matches!(error, FrameError::Header { opaque: Some(5), oneway: true, .. }), "{error}");
}

#[test]
fn brackets_without_end_do_not_exhaust_the_stack() {
    let header = format!(r#"{{"code":1,"x":{}"#, "[".repeat(100_000));
    assert!(decode(&mut frame(0, header.as_bytes(), b""), LIMIT).is_err());
}

proptest! {
    #[test]
    fn frames_are_read_back_however_they_arrive(
        code in any::<i16>(), opaque: i32, flag: i32, binary: bool, remark in proptest::option::of("\\PC{1,20}"),
        fields in proptest::collection::vec(("[a-z\u{1}\"\\\\é😀]{1,8}", ".{0,30}"), 0..6),
        body in proptest::collection::vec(any::<u8>(), 0..100), cut in 1usize..60,
    ) {
        let mut ext = Ext::new();
        fields.iter().for_each(|(key, value)| ext.push_str(key, value));
        let mut sent = Frame::request(i32::from(code), ext, body);
        sent.header.opaque = opaque;
        sent.header.flag = flag;
        sent.header.remark = remark;
        sent.header.encoding = if binary { Encoding::Binary } else { Encoding::Json };
        let mut bytes = BytesMut::new();
        sent.encode(&mut bytes);
        let mut buffer = BytesMut::new();
        let mut got = None;
        for piece in bytes.chunks(cut) {
            prop_assert!(got.is_none());
            buffer.extend_from_slice(piece);
            got = decode(&mut buffer, LIMIT).unwrap();
        }
        prop_assert_eq!(got, Some(sent));
    }

    #[test]
    fn garbage_never_panics(mark in 0u8..3, header in proptest::collection::vec(any::<u8>(), 0..120)) {
        let _ = decode(&mut frame(mark, &header, b""), LIMIT);
        let mut raw = BytesMut::from(&header[..]);
        while let Ok(Some(_)) | Err(FrameError::Header { .. }) = decode(&mut raw, LIMIT) {}
    }

    #[test]
    fn broken_json_never_panics(header in r#"[{}\[\]":,a-z0-9\\ u]{0,80}"#) {
        let _ = decode(&mut frame(0, format!(r#"{{"code":1,{header}"#).as_bytes(), b""), LIMIT);
    }
}
