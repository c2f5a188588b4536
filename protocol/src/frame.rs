use bytes::{Buf, Bytes, BytesMut};

use crate::{
    Encoding, Ext, FrameError, Language, VERSION,
    head::{Head, PREFIX, Rest, read_binary, read_json},
};

const RESPONSE: i32 = 1;
const ONEWAY: i32 = 2;

/// A request or an answer as it came, or a request to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub header: Header,
    pub body: Bytes,
}

/// The header of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Number of the request, or how it ended.
    pub code: i32,
    pub language: Language,
    /// The peer's version, see [`VERSION`]; 0 when it said none.
    pub version: i32,
    /// Number by which an answer finds its request.
    pub opaque: i32,
    /// Bit 1: an answer. Bit 2: no answer wanted.
    pub flag: i32,
    pub remark: Option<String>,
    pub ext: Ext,
    pub encoding: Encoding,
}

impl Header {
    /// The header of a request of ours.
    pub fn new(code: i32) -> Self {
        Self {
            code,
            language: Language::Rust,
            version: VERSION,
            opaque: 0,
            flag: 0,
            remark: None,
            ext: Ext::new(),
            encoding: Encoding::Json,
        }
    }

    pub fn is_response(&self) -> bool {
        self.flag & RESPONSE != 0
    }

    pub fn is_oneway(&self) -> bool {
        self.flag & ONEWAY != 0
    }
}

impl Frame {
    /// A request of ours; its opaque is given by the connection that sends it.
    pub fn request(code: impl Into<i32>, ext: Ext, body: impl Into<Bytes>) -> Self {
        Self { header: Header { ext, ..Header::new(code.into()) }, body: body.into() }
    }

    /// The same request, wanting no answer.
    pub fn oneway(mut self) -> Self {
        self.header.flag |= ONEWAY;
        self
    }

    /// Appends all of the frame but its body.
    pub fn encode_head(&self, out: &mut BytesMut) {
        let header = &self.header;
        let head = Head {
            code: header.code,
            language: header.language,
            version: header.version,
            opaque: header.opaque,
            flag: header.flag,
            remark: header.remark.as_deref(),
            ext: &header.ext,
            encoding: header.encoding,
        };
        head.write(out, self.body.len());
    }

    /// Appends the whole frame.
    pub fn encode(&self, out: &mut BytesMut) {
        self.encode_head(out);
        out.extend_from_slice(&self.body);
    }
}

/// Takes the first frame out of `buffer`; `None` when it is not there in full.
///
/// `limit` is the longest frame taken, bytes without the length field. After [`FrameError::Header`] the bad frame is gone
/// from `buffer`; after [`FrameError::Length`] nothing behind it can be read.
pub fn decode(buffer: &mut BytesMut, limit: usize) -> Result<Option<Frame>, FrameError> {
    let Some(length) = buffer.first_chunk::<4>() else { return Ok(None) };
    let got = i32::from_be_bytes(*length);
    let length = usize::try_from(got).ok().filter(|length| (4..=limit).contains(length));
    let Some(length) = length else { return Err(FrameError::Length { got, limit }) };
    if buffer.len() < 4 + length {
        buffer.reserve(4 + length - buffer.len());
        return Ok(None);
    }
    let mut frame = buffer.split_to(4 + length).freeze();
    let mark = frame.slice(4..PREFIX).get_u32();
    frame.advance(PREFIX);
    let mut rest = Rest::default();
    split(&mut frame, mark, &mut rest).map(Some).map_err(|what| FrameError::Header {
        opaque: rest.opaque,
        oneway: rest.flag & (ONEWAY | RESPONSE) != 0,
        what,
    })
}

fn split(frame: &mut Bytes, mark: u32, rest: &mut Rest) -> Result<Frame, String> {
    let header_len = (mark & 0x00FF_FFFF) as usize;
    if header_len > frame.len() {
        return Err(format!("expected at most {} bytes, its length says {header_len}", frame.len()));
    }
    let bytes = frame.split_to(header_len);
    let header = match mark >> 24 {
        0 => read_json(&bytes, rest)?,
        1 => read_binary(&bytes, rest)?,
        other => return Err(format!("expected form 0 (JSON) or 1 (ROCKETMQ), got {other}")),
    };
    Ok(Frame { header, body: std::mem::take(frame) })
}
