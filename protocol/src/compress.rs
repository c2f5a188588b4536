//! Compressed bodies. How a message's body is compressed is said by its system flag, never guessed from the bytes.

use std::io::{self, Read, Write};

use bytes::Bytes;
use flate2::{Compression as Level, read::ZlibDecoder, write::ZlibEncoder};
use sluice_model::Compression;

use crate::FieldError;

/// The level of Apache RocketMQ's clients.
const LEVEL: u32 = 5;

/// Compresses with zlib, which every client reads.
pub fn zlib(plain: &[u8]) -> Bytes {
    let mut encoder = ZlibEncoder::new(Vec::with_capacity(plain.len() / 2), Level::new(LEVEL));
    // Writing to a vector cannot fail.
    let done = encoder.write_all(plain).and_then(|()| encoder.finish());
    done.unwrap_or_default().into()
}

/// The plain body. Fails with the field `body` when it is damaged or has more than `limit` bytes.
pub fn decompress(body: &[u8], compression: Compression, limit: usize) -> Result<Vec<u8>, FieldError> {
    match compression {
        Compression::Zlib => inflate(body, limit),
        Compression::Lz4 => read("lz4", lz4_flex::frame::FrameDecoder::new(body), limit),
        Compression::Zstd => {
            read("zstd", zstd::Decoder::new(body).map_err(|problem| damaged("zstd", &problem))?, limit)
        }
    }
}

/// Decompresses zlib, as [`decompress`].
pub(crate) fn inflate(body: &[u8], limit: usize) -> Result<Vec<u8>, FieldError> {
    read("zlib", ZlibDecoder::new(body), limit)
}

fn read(name: &str, from: impl Read, limit: usize) -> Result<Vec<u8>, FieldError> {
    let mut plain = Vec::new();
    from.take(limit as u64 + 1).read_to_end(&mut plain).map_err(|problem| damaged(name, &problem))?;
    if plain.len() > limit {
        return Err(FieldError::new("body", format!("expected at most {limit} bytes once decompressed")));
    }
    Ok(plain)
}

fn damaged(name: &str, problem: &io::Error) -> FieldError {
    FieldError::new("body", format!("expected {name}, {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read_back_and_bounded() {
        let plain = b"to and fro ".repeat(1000);
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(&plain).unwrap();
        let forms = [
            (Compression::Zlib, zlib(&plain).to_vec()),
            (Compression::Lz4, lz4.finish().unwrap()),
            (Compression::Zstd, zstd::encode_all(plain.as_slice(), 3).unwrap()),
        ];
        for (form, packed) in forms {
            assert!(packed.len() < plain.len() / 2, "{form:?}");
            assert_eq!(decompress(&packed, form, plain.len()).unwrap(), plain, "{form:?}");
            let bomb = decompress(&packed, form, plain.len() - 1).unwrap_err().to_string();
            assert!(bomb.contains("at most 10999 bytes"), "{bomb}");
            assert!(decompress(&packed[..packed.len() / 2], form, plain.len()).is_err(), "{form:?} cut short");
            assert!(decompress(b"not compressed", form, 100).is_err(), "{form:?}");
        }
    }
}
