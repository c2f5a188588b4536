//! The two forms of a header: JSON (every client's default) and ROCKETMQ's binary one.
//!
//! Source: Apache RocketMQ `RemotingCommand`, `RocketMQSerializable`.

use bytes::{BufMut, BytesMut};

use crate::{
    Ext, Header, Language,
    json::{Scanner, write_string},
};

/// Which form a header has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Encoding {
    #[default]
    Json,
    Binary,
}

/// What is known of a header that cannot be read.
#[derive(Default)]
pub(crate) struct Rest {
    pub opaque: Option<i32>,
    pub flag: i32,
}

/// A header to be written.
pub(crate) struct Head<'a> {
    pub code: i32,
    pub language: Language,
    pub version: i32,
    pub opaque: i32,
    pub flag: i32,
    pub remark: Option<&'a str>,
    pub ext: &'a Ext,
    pub encoding: Encoding,
}

/// Bytes of a frame before its header: the length and the mark.
pub(crate) const PREFIX: usize = 8;

impl Head<'_> {
    /// Appends length, mark and header of a frame whose body has `body_len` bytes.
    pub fn write(&self, out: &mut BytesMut, body_len: usize) {
        let start = out.len();
        out.reserve(PREFIX + 160 + self.ext.text_len() * 5 / 4 + self.ext.len() * 6);
        out.put_u64(0);
        // The binary form has 16 bits for the code and for the length of a key.
        let fits = i16::try_from(self.code).is_ok() && self.ext.iter().all(|(key, _)| i16::try_from(key.len()).is_ok());
        let binary = self.encoding == Encoding::Binary && fits;
        if binary {
            self.write_binary(out)
        } else {
            self.write_json(out)
        }
        let header_len = out.len() - start - PREFIX;
        let total = (4 + header_len + body_len) as u32;
        let mark = header_len as u32 & 0x00FF_FFFF | u32::from(binary) << 24;
        out[start..start + 4].copy_from_slice(&total.to_be_bytes());
        out[start + 4..start + 8].copy_from_slice(&mark.to_be_bytes());
    }

    fn write_json(&self, out: &mut BytesMut) {
        out.put_slice(b"{\"code\":");
        put_number(out, self.code);
        out.put_slice(b",\"extFields\":{");
        for (at, (key, value)) in self.ext.iter().enumerate() {
            if at > 0 {
                out.put_u8(b',');
            }
            write_string(out, key);
            out.put_u8(b':');
            write_string(out, value);
        }
        out.put_slice(b"},\"flag\":");
        put_number(out, self.flag);
        out.put_slice(b",\"language\":\"");
        out.put_slice(self.language.name().as_bytes());
        out.put_slice(b"\",\"opaque\":");
        put_number(out, self.opaque);
        if let Some(remark) = self.remark {
            out.put_slice(b",\"remark\":");
            write_string(out, remark);
        }
        out.put_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
        put_number(out, self.version);
        out.put_u8(b'}');
    }

    fn write_binary(&self, out: &mut BytesMut) {
        out.put_i16(self.code as i16);
        out.put_u8(self.language.code());
        out.put_i16(self.version as i16);
        out.put_i32(self.opaque);
        out.put_i32(self.flag);
        let remark = self.remark.unwrap_or_default();
        out.put_u32(remark.len() as u32);
        out.put_slice(remark.as_bytes());
        out.put_u32((self.ext.text_len() + 6 * self.ext.len()) as u32);
        for (key, value) in self.ext.iter() {
            out.put_u16(key.len() as u16);
            out.put_slice(key.as_bytes());
            out.put_u32(value.len() as u32);
            out.put_slice(value.as_bytes());
        }
    }
}

fn put_number(out: &mut BytesMut, number: i32) {
    let mut digits = [0u8; 11];
    let mut at = digits.len();
    let mut left = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    out.put_slice(&digits[at..]);
}

/// Reads a JSON header. Unknown keys are passed over; `rest` keeps what was read before a mistake.
pub(crate) fn read_json(bytes: &[u8], rest: &mut Rest) -> Result<Header, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| format!("expected UTF-8, {e}"))?;
    let mut scan = Scanner::new(text);
    let mut header = Header::new(0);
    header.language = Language::Unknown;
    header.version = 0;
    let mut code = None;
    scan.object(|scan, key| {
        match key {
            "code" => code = Some(scan.i32("code")?),
            "opaque" => {
                header.opaque = scan.i32("opaque")?;
                rest.opaque = Some(header.opaque);
            }
            "flag" => {
                header.flag = scan.i32("flag")?;
                rest.flag = header.flag;
            }
            "version" => header.version = scan.i32("version")?,
            "language" => header.language = scan.scalar()?.map_or(Language::Unknown, |name| language(&name)),
            "remark" => header.remark = scan.scalar()?,
            "extFields" => header.ext = read_ext(scan, text.len())?,
            _ => scan.skip()?,
        }
        Ok(())
    })?;
    scan.end()?;
    header.code = code.ok_or("expected code, got none")?;
    Ok(header)
}

fn language(text: &str) -> Language {
    text.parse().map_or_else(|_| Language::from_name(text), Language::from_code)
}

fn read_ext(scan: &mut Scanner<'_>, header_len: usize) -> Result<Ext, String> {
    if scan.null() {
        return Ok(Ext::new());
    }
    let mut ext = Ext::with_capacity(header_len, 16);
    scan.open()?;
    while scan.more()? {
        let key = ext.text().len();
        scan.string_into(ext.text())?;
        scan.colon()?;
        let value = ext.text().len();
        // Java clients leave out what is null; others write it.
        if scan.null() {
            ext.truncate(key);
            continue;
        }
        scan.scalar_into(ext.text())?;
        ext.close(key, value);
    }
    Ok(ext)
}

/// Reads a binary header; `rest` keeps what was read before a mistake.
pub(crate) fn read_binary(bytes: &[u8], rest: &mut Rest) -> Result<Header, String> {
    let mut at = Cursor(bytes);
    let mut header = Header::new(i32::from(i16::from_be_bytes(at.array("code")?)));
    header.encoding = Encoding::Binary;
    header.language = Language::from_code(u8::from_be_bytes(at.array("language")?));
    header.version = i32::from(i16::from_be_bytes(at.array("version")?));
    header.opaque = i32::from_be_bytes(at.array("opaque")?);
    rest.opaque = Some(header.opaque);
    header.flag = i32::from_be_bytes(at.array("flag")?);
    rest.flag = header.flag;
    let remark_len = u32::from_be_bytes(at.array("remark")?) as usize;
    let remark = at.text("remark", remark_len)?;
    header.remark = (!remark.is_empty()).then(|| remark.to_owned());
    let ext_len = u32::from_be_bytes(at.array("extFields")?) as usize;
    let mut fields = Cursor(at.take("extFields", ext_len)?);
    let mut ext = Ext::with_capacity(ext_len, 16);
    while !fields.0.is_empty() {
        let key_len = u16::from_be_bytes(fields.array("extFields key")?);
        let key = fields.text("extFields key", usize::from(key_len))?;
        let value_len = u32::from_be_bytes(fields.array("extFields value")?) as usize;
        let value = fields.text("extFields value", value_len)?;
        ext.push_str(key, value);
    }
    header.ext = ext;
    Ok(header)
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, field: &str, len: usize) -> Result<&'a [u8], String> {
        let (taken, left) = self
            .0
            .split_at_checked(len)
            .ok_or_else(|| format!("{field}: expected {len} bytes, {} are left", self.0.len()))?;
        self.0 = left;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N], String> {
        let bytes = self.take(field, N)?;
        bytes.try_into().map_err(|_| format!("{field}: expected {N} bytes"))
    }

    fn text(&mut self, field: &str, len: usize) -> Result<&'a str, String> {
        std::str::from_utf8(self.take(field, len)?).map_err(|_| format!("{field}: expected UTF-8"))
    }
}
