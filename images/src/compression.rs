//! Plain, gzip or zstd: told by the first bytes, not by a media type or a file's name, as docker does.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::error::refusal;

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Plain,
    /// gzip, of any number of members.
    Gzip,
    /// zstd, of any number of frames.
    Zstd,
}

/// Window of a zstd frame: 128 MiB is what `zstd --long` writes; a larger one is an attack on memory.
const ZSTD_WINDOW_BYTES: u64 = 128 << 20;

/// Looks at the first bytes of `source` and gives the uncompressed stream.
/// A stream without its compression, if it has one that is known.
///
/// # Errors
/// The stream's.
pub fn decompressed<'a>(source: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    decode(source).map(|(_, plain)| plain)
}

pub(crate) fn decode<'a>(mut source: impl Read + 'a) -> io::Result<(Compression, Box<dyn Read + 'a>)> {
    let mut head = Vec::with_capacity(6);
    source.by_ref().take(6).read_to_end(&mut head)?;
    let compression = sniff(&head)?;
    let source = Cursor::new(head).chain(source);
    let buffered = |source| BufReader::with_capacity(64 << 10, source);
    let decoded: Box<dyn Read + 'a> = match compression {
        Compression::Plain => Box::new(source),
        Compression::Gzip => Box::new(MultiGzDecoder::new(buffered(source))),
        Compression::Zstd => Box::new(Zstd::new(buffered(source))),
    };
    Ok((compression, decoded))
}

/// What the first bytes of a stream say. Kinds that we can't read are errors with the way out.
fn sniff(head: &[u8]) -> io::Result<Compression> {
    let other = |kind, tool| {
        Err(refusal(format!("compressed with {kind}, which is not supported; uncompress it first ({tool})")))
    };
    match head {
        [0x1f, 0x8b, ..] => Ok(Compression::Gzip),
        // A zstd frame, or a skippable frame (RFC 8878, 3.1.2) before the first.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Compression::Zstd),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => other("xz", "xz -d"),
        [b'B', b'Z', b'h', ..] => other("bzip2", "bzip2 -d"),
        [b'P', b'K', 3, 4, ..] => other("zip", "unzip"),
        _ => Ok(Compression::Plain),
    }
}

/// A zstd stream of several frames; ruzstd's own reader stops after the first.
struct Zstd<R> {
    source: R,
    frame: FrameDecoder,
    inside: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(source: R) -> Zstd<R> {
        let mut frame = FrameDecoder::new();
        frame.set_max_window_size(ZSTD_WINDOW_BYTES);
        Zstd { source, frame, inside: false }
    }

    /// Starts the next frame that has content; false at the end of the stream.
    fn next_frame(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.frame.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let length = u64::from(length);
                    let skipped = io::copy(&mut self.source.by_ref().take(length), &mut io::sink())?;
                    if skipped < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(refusal(format!("damaged zstd data: {error}"))),
            }
        }
        Ok(false)
    }

    /// A frame's own checksum, where it has one.
    fn check_frame(&self) -> io::Result<()> {
        match (self.frame.get_checksum_from_data(), self.frame.get_calculated_checksum()) {
            (Some(said), Some(is)) if said != is => Err(refusal("damaged zstd data: wrong checksum")),
            _ => Ok(()),
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.inside {
                if !self.next_frame()? {
                    return Ok(0);
                }
                self.inside = true;
            }
            if self.frame.can_collect() > 0 {
                return self.frame.read(into);
            }
            if self.frame.is_finished() {
                self.check_frame()?;
                self.inside = false;
                continue;
            }
            // One block (at most 128 KiB) at a time keeps the memory at window + block.
            self.frame
                .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                .map_err(|error| refusal(format!("damaged zstd data: {error}")))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(data: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(data, ruzstd::encoding::CompressionLevel::Fastest)
    }

    fn decoded(data: &[u8]) -> io::Result<(Compression, Vec<u8>)> {
        let (compression, mut reader) = decode(data)?;
        let mut out = Vec::new();
        reader.read_to_end(&mut out)?;
        Ok((compression, out))
    }

    #[test]
    fn several_gzip_members_and_zstd_frames_are_one_stream() {
        let (a, b) = (vec![b'a'; 300_000], b"second".to_vec());
        let both = [a.clone(), b.clone()].concat();
        assert_eq!(decoded(&both).unwrap(), (Compression::Plain, both.clone()));
        assert_eq!(decoded(&[gzip(&a), gzip(&b)].concat()).unwrap(), (Compression::Gzip, both.clone()));
        let skippable = [&[0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"xyz"].concat();
        let frames = [skippable.clone(), zstd(&a), skippable.clone(), zstd(&b), skippable].concat();
        assert_eq!(decoded(&frames).unwrap(), (Compression::Zstd, both));
        assert_eq!(decoded(b"").unwrap(), (Compression::Plain, vec![]));
    }

    #[test]
    fn damaged_streams_are_errors_at_every_length() {
        let data: Vec<u8> = (0..200_000u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
        for whole in [gzip(&data), zstd(&data)] {
            for cut in [7, 20, 1000, whole.len() / 2, whole.len() - 1] {
                assert!(decoded(&whole[..cut]).is_err(), "cut at {cut} of {}", whole.len());
            }
        }
    }

    #[test]
    fn kinds_that_cannot_be_read_are_named_with_the_way_out() {
        let error = decoded(b"\xfd7zXZ\0....").unwrap_err().to_string();
        assert!(error.contains("xz -d"), "{error}");
    }
}
