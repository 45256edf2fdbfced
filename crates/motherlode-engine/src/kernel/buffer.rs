//! Working memory that grows to the longest length it had, and not beyond: what a pass takes can be told beforehand.

/// Gives `buffer` this length; its values are left from before, or `zero`.
pub(crate) fn resize<T: Clone>(buffer: &mut Vec<T>, length: usize, zero: T) {
    if buffer.capacity() < length {
        // The old memory goes before the new one comes, and a `Vec` that grows by itself would take twice as much.
        *buffer = Vec::new();
        *buffer = vec![zero; length];
    } else {
        buffer.resize(length, zero);
    }
}

/// Makes `buffer` a copy of `values`.
pub(crate) fn copy(values: &[f32], buffer: &mut Vec<f32>) {
    resize(buffer, values.len(), 0.0);
    buffer.copy_from_slice(values);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_take_no_more_than_their_longest_length() {
        let mut buffer = vec![1.0_f32; 10];
        for (length, capacity) in [(4, 10), (10, 10), (11, 11), (3, 11)] {
            resize(&mut buffer, length, 0.0);
            assert_eq!((buffer.len(), buffer.capacity()), (length, capacity));
        }
        copy(&[1.0, 2.0], &mut buffer);
        assert_eq!(buffer, [1.0, 2.0]);
    }
}
