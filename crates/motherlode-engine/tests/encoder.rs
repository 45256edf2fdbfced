//! Encoders through the seam: laws that hold for any model, and refusals.
#![expect(clippy::unwrap_used, reason = "a test stops where something unexpected happens")]

use motherlode::engine::{Encoder, Engine, LoadOptions, Precision, TokenBatch};
use motherlode_engine::CpuEngine;
use motherlode_engine::tiny::write_tiny_encoder;

fn tiny_in(precision: Precision) -> Box<dyn Encoder> {
    let folder = tempfile::tempdir().unwrap();
    write_tiny_encoder(folder.path(), 100, 32, 2, 1).unwrap();
    CpuEngine.encoder(folder.path(), &LoadOptions { precision, ..LoadOptions::default() }).unwrap()
}

fn tiny() -> Box<dyn Encoder> {
    tiny_in(Precision::F32)
}

fn sequence(seed: u32, length: usize) -> Vec<u32> {
    (0..length as u32).map(|index| (index * 37 + seed * 11) % 100).collect()
}

#[test]
fn the_vector_of_a_sequence_does_not_depend_on_its_batch() {
    let sequences: Vec<Vec<u32>> = (0..60).map(|seed| sequence(seed, 1 + (seed as usize * 7) % 64)).collect();
    for encoder in [tiny(), tiny_in(Precision::Bf16x3), tiny_in(Precision::Bf16)] {
        let together = encoder.encode(&sequences.iter().collect()).unwrap();
        for (index, sequence) in sequences.iter().enumerate() {
            let alone = encoder.encode(&[sequence].into_iter().collect()).unwrap();
            assert_eq!(alone.row(0), together.row(index));
            let length = alone.row(0).iter().map(|value| value * value).sum::<f32>().sqrt();
            assert!((length - 1.0).abs() < 1e-5);
        }
    }
}

#[test]
fn an_empty_batch_has_no_vectors() {
    assert_eq!(tiny().encode(&TokenBatch::default()).unwrap().rows(), 0);
}

#[test]
fn sequences_that_the_model_cannot_take_are_refused_by_number() {
    let encoder = tiny();
    for (bad, expected) in [
        (vec![1, 100, 2], "sequence 1 of the batch: expected token ids below the vocabulary's size 100, got 100"),
        (vec![1; 65], "sequence 1 of the batch: expected 1 to 64 tokens, got 65"),
        (vec![], "sequence 1 of the batch: expected 1 to 64 tokens, got 0"),
    ] {
        let error = encoder.encode(&[vec![5; 64], bad].into_iter().collect()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn tiny_encoders_tell_texts_apart_and_repeat() {
    let batch: TokenBatch = [sequence(1, 10), sequence(2, 10)].into_iter().collect();
    let vectors = tiny().encode(&batch).unwrap();
    assert_eq!(vectors, tiny().encode(&batch).unwrap());
    let cosine: f32 = vectors.row(0).iter().zip(vectors.row(1)).map(|(a, b)| a * b).sum();
    assert!(cosine < 0.9, "cosine {cosine}");
}
