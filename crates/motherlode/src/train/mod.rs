//! Training: loss, schedule, checkpoints, and the loop over planned batches.
