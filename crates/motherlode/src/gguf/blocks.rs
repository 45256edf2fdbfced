//! How ggml writes numbers: blocks of 32 or 256 values of a few bits with common scales.
//!
//! Source: `ggml-common.h` and `ggml-quants.c` of ggml.

use half::{bf16, f16};

/// A way to write the values of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "ggml's own names")]
pub enum Quantisation {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

impl Quantisation {
    /// All of them, for messages.
    pub(super) const NAMES: &'static str = "F32, F16, BF16, Q4_0, Q4_1, Q8_0, Q4_K, Q5_K or Q6_K";

    /// By ggml's number.
    pub(super) fn of(kind: u32) -> Option<Self> {
        Some(match kind {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            8 => Self::Q8_0,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::Bf16,
            _ => return None,
        })
    }

    /// Values of a block.
    pub fn block(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of `values` values, whole blocks.
    pub fn bytes(self, values: usize) -> usize {
        let block = match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        };
        values / self.block() * block
    }

    /// Writes the values of whole blocks to `out`.
    pub(super) fn read(self, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(bytes.len(), self.bytes(out.len()), "bytes and values differ");
        match self {
            Self::F32 => each(bytes, out, |bytes, out: &mut [f32; 1]| *out = [f32::from_le_bytes(*bytes)]),
            Self::F16 => each(bytes, out, |bytes, out: &mut [f32; 1]| *out = [f16::from_le_bytes(*bytes).to_f32()]),
            Self::Bf16 => each(bytes, out, |bytes, out: &mut [f32; 1]| *out = [bf16::from_le_bytes(*bytes).to_f32()]),
            Self::Q4_0 => each(bytes, out, q4_0),
            Self::Q4_1 => each(bytes, out, q4_1),
            Self::Q8_0 => each(bytes, out, q8_0),
            Self::Q4K => each(bytes, out, q4_k),
            Self::Q5K => each(bytes, out, q5_k),
            Self::Q6K => each(bytes, out, q6_k),
        }
    }
}

/// Reads block after block.
fn each<const BYTES: usize, const VALUES: usize>(
    bytes: &[u8],
    out: &mut [f32],
    read: impl Fn(&[u8; BYTES], &mut [f32; VALUES]),
) {
    let blocks = bytes.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<VALUES>().0);
    blocks.for_each(|(bytes, out)| read(bytes, out));
}

/// The number in half precision at `place`.
fn half_at(bytes: &[u8], place: usize) -> f32 {
    f16::from_le_bytes([bytes[place], bytes[place + 1]]).to_f32()
}

/// The low halves of the bytes are the first 16 values, the high ones the others.
fn q4_0(bytes: &[u8; 18], out: &mut [f32; 32]) {
    let scale = half_at(bytes, 0);
    for (place, byte) in bytes[2..].iter().enumerate() {
        out[place] = f32::from((byte & 15) as i8 - 8) * scale;
        out[place + 16] = f32::from((byte >> 4) as i8 - 8) * scale;
    }
}

fn q4_1(bytes: &[u8; 20], out: &mut [f32; 32]) {
    let (scale, least) = (half_at(bytes, 0), half_at(bytes, 2));
    for (place, byte) in bytes[4..].iter().enumerate() {
        out[place] = f32::from(byte & 15) * scale + least;
        out[place + 16] = f32::from(byte >> 4) * scale + least;
    }
}

fn q8_0(bytes: &[u8; 34], out: &mut [f32; 32]) {
    let scale = half_at(bytes, 0);
    for (out, byte) in out.iter_mut().zip(&bytes[2..]) {
        *out = f32::from(byte.cast_signed()) * scale;
    }
}

/// Scale and offset of the eight parts of a block of 256, 6 bits each in 12 bytes.
fn scales_and_offsets(bytes: &[u8], scale: f32, offset: f32) -> [(f32, f32); 8] {
    std::array::from_fn(|part| {
        let (factor, least) = if part < 4 {
            (bytes[part] & 63, bytes[part + 4] & 63)
        } else {
            let (low, high) = (bytes[part + 4], [bytes[part - 4] >> 6, bytes[part] >> 6]);
            ((low & 15) | (high[0] << 4), (low >> 4) | (high[1] << 4))
        };
        (scale * f32::from(factor), offset * f32::from(least))
    })
}

/// Eight parts of 32; two parts share 32 bytes, the low halves first.
fn q4_k(bytes: &[u8; 144], out: &mut [f32; 256]) {
    let parts = scales_and_offsets(&bytes[4..16], half_at(bytes, 0), half_at(bytes, 2));
    for (pair, values) in bytes[16..].as_chunks::<32>().0.iter().enumerate() {
        for (half, (scale, offset)) in parts[2 * pair..2 * pair + 2].iter().enumerate() {
            let out = &mut out[(2 * pair + half) * 32..][..32];
            for (out, byte) in out.iter_mut().zip(values) {
                *out = scale * f32::from((byte >> (4 * half)) & 15) - offset;
            }
        }
    }
}

/// As [`q4_k`], with a fifth bit: bit `part` of 32 bytes before the others.
fn q5_k(bytes: &[u8; 176], out: &mut [f32; 256]) {
    let parts = scales_and_offsets(&bytes[4..16], half_at(bytes, 0), half_at(bytes, 2));
    let fifth = &bytes[16..48];
    for (pair, values) in bytes[48..].as_chunks::<32>().0.iter().enumerate() {
        for (half, (scale, offset)) in parts[2 * pair..2 * pair + 2].iter().enumerate() {
            let part = 2 * pair + half;
            for (out, (byte, fifth)) in out[part * 32..][..32].iter_mut().zip(values.iter().zip(fifth)) {
                let value = ((byte >> (4 * half)) & 15) | (((fifth >> part) & 1) << 4);
                *out = scale * f32::from(value) - offset;
            }
        }
    }
}

/// Two halves of 128, each four parts of 32: four low bits in 64 bytes, two high ones in 32; a scale for every 16.
fn q6_k(bytes: &[u8; 210], out: &mut [f32; 256]) {
    let (low, high, scales, scale) = (&bytes[..128], &bytes[128..192], &bytes[192..208], half_at(bytes, 208));
    for half in 0..2 {
        for part in 0..4 {
            let low = &low[half * 64 + (part % 2) * 32..][..32];
            let high = &high[half * 32..][..32];
            let out = &mut out[half * 128 + part * 32..][..32];
            for (place, (low, high)) in low.iter().zip(high).enumerate() {
                let value = ((low >> (4 * (part / 2))) & 15) | (((high >> (2 * part)) & 3) << 4);
                let factor = scales[half * 8 + part * 2 + place / 16].cast_signed();
                out[place] = scale * f32::from(factor) * f32::from(value as i8 - 32);
            }
        }
    }
}
