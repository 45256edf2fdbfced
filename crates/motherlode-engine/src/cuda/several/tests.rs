//! Several twins against one.

use std::path::PathBuf;

use half::bf16;
use motherlode::engine::Precision;

use super::*;
use crate::cuda::testing::twin;
use crate::kernel::testing::{assert_close, noise};

fn model() -> ModelFolder {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/xlm-roberta");
    ModelFolder::open(&folder, &LoadOptions::default()).unwrap()
}

fn batch(lengths: &[u32]) -> TokenBatch {
    let sequence = |length: &u32| (0..*length).map(|place| (place * 7 + length) % 40).collect::<Vec<_>>();
    lengths.iter().map(sequence).collect()
}

/// Some twins; none, and a word about it, where there is no C++ compiler.
fn twins(count: usize) -> Option<Vec<Arc<dyn Backend>>> {
    (0..count).map(|_| twin()).collect()
}

#[test]
fn shares_cover_all_sequences_in_order_and_are_nearly_equal() {
    assert_eq!(shares(&[5, 5, 5, 5], 2), [0..2, 2..4]);
    assert_eq!(shares(&[20, 1, 1, 1, 1, 16], 2), [0..1, 1..6]);
    assert_eq!(shares(&[3], 3), [0..0, 0..1, 1..1]);
    assert_eq!(shares(&[2, 0], 2), [0..0, 0..2]);
    assert_eq!(shares(&[], 2), [0..0, 0..0]);
    assert_eq!(shares(&[7, 9], 1), [0..2]);
    let lengths: Vec<usize> = (0..200).map(|index| 1 + index * 37 % 60).collect();
    for count in 1..=8 {
        let shares = shares(&lengths, count);
        assert!(shares.iter().flat_map(Clone::clone).eq(0..200) && shares.len() == count);
        let even = lengths.iter().sum::<usize>() / count;
        let most = |share: &Range<usize>| lengths[share.clone()].iter().sum::<usize>().abs_diff(even) <= 60;
        assert!(shares.iter().all(most));
    }
}

/// The loss is a function of the vectors; its gradient here is Σ w ∘ v of known w.
fn compare<A: Element>(precision: Precision, tolerance: f32) {
    let (model, options) = (model(), LoadOptions { precision, ..Default::default() });
    let Some(cards) = twins(3) else { return };
    // Fewer sequences than cards among them.
    for batch in [batch(&[9, 1, 20, 14, 3, 8]), batch(&[5, 6])] {
        let mut one = trainable::<A>(&cards[..1], &model, &options).unwrap();
        let gradient = Embeddings::new(one.dimension(), noise(2, batch.len() * one.dimension())).unwrap();
        for count in [2, 3] {
            let mut several = trainable::<A>(&cards[..count], &model, &options).unwrap();
            let mut state = Vec::new();
            one.write_state(&mut state).unwrap();
            several.restore(&mut state.as_slice()).unwrap();
            for step in 0..2 {
                let vectors = one.forward(&batch, step).unwrap();
                assert_close(several.forward(&batch, step).unwrap().values(), vectors.values(), tolerance);
                one.backward(&batch, &gradient, step).unwrap();
                several.backward(&batch, &gradient, step).unwrap();
                let norms = [one.step(1e-3), several.step(1e-3)].map(|report| report.unwrap().gradient_norm);
                assert!((norms[1] / norms[0] - 1.0).abs() < tolerance, "{norms:?}");
            }
            let after = one.encode(&batch).unwrap();
            assert_close(several.encode(&batch).unwrap().values(), after.values(), tolerance);
        }
    }
}

#[test]
fn several_cards_train_as_one_does_in_f32() {
    compare::<f32>(Precision::F32, 1e-4);
}

#[test]
fn several_cards_train_as_one_does_in_bfloat16() {
    compare::<bf16>(Precision::Bf16, 2e-2);
}

#[test]
fn several_cards_encode_as_one_does_and_refuse_what_it_refuses() {
    let Some(cards) = twins(2) else { return };
    let (model, options) = (model(), LoadOptions::default());
    let one = encoder::<f32>(&cards[..1], &model, &options).unwrap();
    let two = encoder::<f32>(&cards, &model, &options).unwrap();
    for lengths in [&[4, 20, 2, 7][..], &[6], &[]] {
        let batch = batch(lengths);
        assert_eq!(two.encode(&batch).unwrap(), one.encode(&batch).unwrap());
    }
    let error = two.encode(&[vec![1, 2], vec![]].into_iter().collect()).unwrap_err().to_string();
    assert!(error.contains("expected 1 to"), "{error}");
}

#[test]
fn every_card_holds_all_that_training_keeps_and_its_share_of_the_rest() {
    let Some(cards) = twins(2) else { return };
    let (model, options) = (model(), LoadOptions { memory: Some(1 << 30), ..Default::default() });
    let footprint = |count| training_footprint(&cards[..count], &model.shape, &options, &[9, 9, 9, 9]).unwrap();
    let (one, two) = (footprint(1), footprint(2));
    assert_eq!((one.weights, one.optimizer), (two.weights, two.optimizer));
    assert!(two.activations * 2 == one.activations && two.scratch < one.scratch);
}
