//! Packed encoders with explicit backward passes: what `motherlode::engine` asks for, on the CPU in f32 or bfloat16.
//!
//! Reads encoders from sentence-transformers folders, writes `model.safetensors` and `config.json`: BERT, XLM-RoBERTa,
//! ModernBERT, and Llama, Mistral, Qwen2 and Qwen3 as encoders. All weights are trained, or low-rank adapters (LoRA),
//! which are read and written as `peft` does. A batch is cut into spans of whole sequences; one thread takes a span
//! through the network, so that no token is padded and no thread waits for another inside the forward pass. The vector
//! of a sequence does not depend on its batch, and no result on the number of threads, bit for bit. There is no
//! autograd: each kernel and the block written on them have their backward pass beside the forward pass.
//!
//! Language models are read from GGUF files and continue texts, on the same blocks.
//!
//! BERT and XLM-RoBERTa also compute on a graphics card of NVIDIA (`cuda`), if [`DeviceEngine`] is told so.
//!
//! From the outside in: `trainer` and `network` (the encoder), `block` (one transformer block), [`kernel`] (slices).
//! The families differ by data alone: `families` makes a `shape` of a configuration, and `names` has the tensors' names.
#![cfg_attr(
    test,
    expect(
        clippy::float_cmp,
        clippy::large_stack_arrays,
        clippy::single_range_in_vec_init,
        clippy::type_complexity,
        reason = "tests compare bit for bit, and keep their cases in one place"
    )
)]

mod adapter;
mod block;
mod config;
mod cuda;
mod device;
mod families;
mod footprint;
mod gradient;
pub mod kernel;
mod language_head;
mod language_model;
mod layout;
mod learner;
mod names;
mod network;
mod optimizer;
mod peft;
mod shape;
mod span;
mod state;
pub mod tiny;
mod trainable_lm;
mod trainer;
mod weights;

use std::path::Path;
use std::sync::Arc;

use motherlode::Result;
use motherlode::engine::{
    Embeddings, Encoder, Engine, Footprint, LanguageModel, LoadOptions, Precision, TokenBatch, Trainable, TrainableLm,
};
use motherlode::gguf::Gguf;

use crate::config::ModelFolder;
pub use crate::device::{Device, DeviceEngine};
use crate::footprint::Planner;
use crate::language_model::Decoder;
use crate::network::Network;
use crate::span::Masks;
use crate::trainable_lm::CpuTrainableLm;
use crate::trainer::CpuTrainable;

/// The engine that computes on the CPU, on the threads of rayon's current pool.
#[derive(Debug, Clone, Copy, Default)]
pub struct CpuEngine;

impl Engine for CpuEngine {
    fn encoder(&self, folder: &Path, options: &LoadOptions) -> Result<Box<dyn Encoder>> {
        let folder = ModelFolder::open(folder, options)?;
        let adapters = options.adapter.as_ref().map(|path| peft::read(path, &folder.shape)).transpose()?;
        Ok(Box::new(CpuEncoder(Network::open(&folder, adapters.as_ref(), options.precision)?)))
    }

    fn trainable(&self, folder: &Path, options: &LoadOptions) -> Result<Box<dyn Trainable>> {
        Ok(Box::new(CpuTrainable::open(folder, options)?))
    }

    fn trainable_lm(&self, folder: &Path, options: &LoadOptions) -> Result<Box<dyn TrainableLm>> {
        Ok(Box::new(CpuTrainableLm::open(folder, options)?))
    }

    fn encoding_footprint(&self, folder: &Path, options: &LoadOptions, longest: usize) -> Result<Footprint> {
        Planner::new(&ModelFolder::open(folder, options)?.shape, options)?.encoding(longest)
    }

    fn training_footprint(&self, folder: &Path, options: &LoadOptions, lengths: &[usize]) -> Result<Footprint> {
        Planner::new(&ModelFolder::open(folder, options)?.shape, options)?.training(lengths)
    }

    fn language_training_footprint(
        &self,
        folder: &Path,
        options: &LoadOptions,
        lengths: &[usize],
    ) -> Result<Footprint> {
        Planner::new(&ModelFolder::language_model(folder, options)?.shape, options)?.training(lengths)
    }

    fn language_model_in(&self, folder: &Path, precision: Precision) -> Result<Box<dyn LanguageModel>> {
        Ok(Box::new(Decoder::open_folder(folder, precision)?))
    }

    fn language_model(&self, file: Arc<Gguf>, precision: Precision) -> Result<Box<dyn LanguageModel>> {
        Ok(Box::new(Decoder::open(file, precision)?))
    }
}

/// An encoder that is not trained.
#[derive(Debug)]
struct CpuEncoder(Network);

impl Encoder for CpuEncoder {
    fn dimension(&self) -> usize {
        self.0.shape.hidden
    }

    fn encode(&self, batch: &TokenBatch) -> Result<Embeddings> {
        self.0.encode(batch, Masks::OFF)
    }
}
