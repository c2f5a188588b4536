use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use crate::{Encoding, Ext, Language, ResponseCode, VERSION, head::Head};

/// Longest remark that is sent, bytes: an error's text may quote much.
const REMARK: usize = 4096;

/// An answer. Its opaque and encoding come from the request that it answers.
#[derive(Clone, Debug)]
pub struct Response {
    pub code: ResponseCode,
    pub remark: Option<String>,
    pub ext: Ext,
    pub body: Body,
}

impl Response {
    /// Success, with nothing else to say.
    pub fn ok() -> Self {
        Self { code: ResponseCode::Success, remark: None, ext: Ext::new(), body: Body::default() }
    }

    /// Any other end, with a remark that says why.
    pub fn error(code: ResponseCode, remark: impl Into<String>) -> Self {
        Self { code, remark: Some(remark.into()), ..Self::ok() }
    }

    pub fn with_ext(mut self, ext: Ext) -> Self {
        self.ext = ext;
        self
    }

    pub fn with_body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// Appends all of the answer's frame but its body.
    pub fn encode_head(&self, opaque: i32, encoding: Encoding, out: &mut BytesMut) {
        let remark = self.remark.as_deref().map(|remark| &remark[..remark.floor_char_boundary(REMARK)]);
        let head = Head {
            code: self.code.into(),
            // What every client has met as the language of a broker.
            language: Language::Java,
            version: VERSION,
            opaque,
            flag: 1,
            remark,
            ext: &self.ext,
            encoding,
        };
        head.write(out, self.body.len());
    }

    /// The whole frame in one piece.
    pub fn encode(&self, opaque: i32, encoding: Encoding) -> Bytes {
        let mut out = BytesMut::new();
        self.encode_head(opaque, encoding, &mut out);
        for part in self.body.parts() {
            out.extend_from_slice(part);
        }
        out.freeze()
    }
}

/// The body of an answer as slices, so that stored bytes are sent without being copied.
#[derive(Clone, Debug, Default)]
pub struct Body(SmallVec<[Bytes; 2]>);

impl Body {
    pub fn push(&mut self, part: Bytes) {
        if !part.is_empty() {
            self.0.push(part);
        }
    }

    /// Bytes of all parts.
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn parts(&self) -> &[Bytes] {
        &self.0
    }

    pub fn into_parts(self) -> impl Iterator<Item = Bytes> {
        self.0.into_iter()
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        let mut body = Self::default();
        body.push(bytes.into());
        body
    }
}

impl FromIterator<Bytes> for Body {
    fn from_iter<I: IntoIterator<Item = Bytes>>(parts: I) -> Self {
        let mut body = Self::default();
        parts.into_iter().for_each(|part| body.push(part));
        body
    }
}
