//! The state from which a training continues: weights and moments, whatever computes them.

use std::io::{Error as IoError, Read, Write};

use motherlode::{Error, Result};

use crate::weights::{read_values, write_values};

/// What opens a training state; the last byte is the version of the format.
const MAGIC: &[u8; 8] = b"MLSTATE\x01";

/// Writes weights, first and second moments after so many optimiser steps.
///
/// Format: [`MAGIC`], number of parameters and steps (u64), weights, first and second moments (f32); little-endian.
pub(crate) fn write(output: &mut dyn Write, steps: u64, parts: [&[f32]; 3]) -> Result<()> {
    let write = |output: &mut dyn Write| {
        output.write_all(MAGIC)?;
        output.write_all(&(parts[0].len() as u64).to_le_bytes())?;
        output.write_all(&steps.to_le_bytes())?;
        parts.into_iter().try_for_each(|part| write_values(output, part))
    };
    write(output).map_err(|error| Error::data(format!("training state not written: {error}")))
}

/// The steps of what [`write`] wrote, and its values in `parts`; after an error these are of no use.
pub(crate) fn read(input: &mut dyn Read, parts: [&mut [f32]; 3]) -> Result<u64> {
    let unread = |error: IoError| Error::data(format!("training state not read: {error}; it is truncated"));
    let mut header = [[0; 8]; 3];
    header.iter_mut().try_for_each(|field| input.read_exact(field)).map_err(unread)?;
    let [magic, parameters, steps] = header;
    if magic != *MAGIC {
        return Err(Error::data("training state: expected a state that this version wrote, got something else"));
    }
    let (expected, got) = (parts[0].len() as u64, u64::from_le_bytes(parameters));
    if expected != got {
        return Err(Error::shape("training state", format!("{expected} parameters"), got));
    }
    parts.into_iter().try_for_each(|part| read_values(input, part)).map_err(unread)?;
    Ok(u64::from_le_bytes(steps))
}
