//! Compressed bytes: zstd frames with content size and checksum. The only file that knows zstd.

use std::io::{self, Write as _};

use bytes::Bytes;

/// Level 3: on typing, higher levels gain a few percent for several times the time.
const LEVEL: i32 = 3;

/// How much is compressed between two looks at other tasks: about a millisecond of work.
const SLICE_BYTES: usize = 256 << 10;

/// Why compressing into memory cannot fail.
const IN_MEMORY: &str = "zstd fails for want of memory only, which aborts before";

/// One frame. For up to a few MiB; more would hold the thread for too long.
pub(super) fn pack(bytes: &[u8]) -> Bytes {
    let mut encoder = encoder(bytes.len()).expect(IN_MEMORY);
    encoder.write_all(bytes).expect(IN_MEMORY);
    encoder.finish().expect(IN_MEMORY).into()
}

/// One frame of anything, with room for other tasks in between.
pub(super) async fn pack_large(bytes: &[u8]) -> Bytes {
    let mut encoder = encoder(bytes.len()).expect(IN_MEMORY);
    for slice in bytes.chunks(SLICE_BYTES) {
        encoder.write_all(slice).expect(IN_MEMORY);
        tokio::task::yield_now().await;
    }
    encoder.finish().expect(IN_MEMORY).into()
}

/// What is in a frame, if that is at most `bytes_max`, and the checksum agrees.
pub(super) fn unpack(frame: &[u8], bytes_max: usize) -> io::Result<Vec<u8>> {
    zstd::bulk::decompress(frame, bytes_max)
}

fn encoder(n_bytes: usize) -> io::Result<zstd::stream::write::Encoder<'static, Vec<u8>>> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(n_bytes as u64))?;
    Ok(encoder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_are_the_same_however_they_are_made_and_damage_is_found() {
        let bytes: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let frame = pack(&bytes);
        assert_eq!(unpack(&frame, bytes.len()).unwrap(), bytes);
        let large = pack_large(&bytes).await;
        assert_eq!(unpack(&large, bytes.len()).unwrap(), bytes);
        assert!(unpack(&frame, bytes.len() - 1).is_err());
        assert!(unpack(&frame[..frame.len() - 1], bytes.len()).is_err());
        let mut wrong = frame.to_vec();
        let middle = wrong.len() / 2;
        wrong[middle] ^= 1;
        assert!(unpack(&wrong, bytes.len()).is_err());
        assert_eq!(unpack(&pack(&[]), 0).unwrap(), b"");
    }
}
