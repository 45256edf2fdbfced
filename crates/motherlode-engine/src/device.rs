//! Where encoders compute: the processor, a graphics card, or what is there.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use half::bf16;
use motherlode::engine::{
    Encoder, Engine, Footprint, LanguageModel, LoadOptions, Precision, Sieve, Trainable, TrainableLm,
};
use motherlode::gguf::Gguf;
use motherlode::{Error, Result};

use crate::CpuEngine;
use crate::config::ModelFolder;
use crate::cuda::card::Card;
use crate::cuda::kernels::{Element, MOST_NORMALISED, MOST_WIDTH};
use crate::cuda::memory::Backend;
use crate::cuda::several;
use crate::cuda::sieve::CardSieve;
use crate::kernel::mask::Mask;
use crate::kernel::normalise::Kind;
use crate::shape::{Activation, Layer, Placement, Shape};

/// What a person asks for: `cpu`, `cuda` (the first card), `cuda:N` (card N, counted from 0), `cuda:N,M` (several cards,
/// which share the sequences of every batch) or `auto` (the first card if it can do the work, else the processor).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// Graphics cards of NVIDIA by their numbers, all different, one at least.
    Cuda(Vec<usize>),
    /// The first card if it can do the work, else the processor.
    Auto,
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let expected = "`cpu`, `cuda`, `cuda:N`, `cuda:N,M` or `auto`";
        let unknown = || Error::config(format!("device: expected {expected}, got `{text}`"));
        match text {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(vec![0])),
            "auto" => Ok(Self::Auto),
            _ => {
                let numbers = text.strip_prefix("cuda:").ok_or_else(unknown)?.split(',').map(str::parse);
                let numbers: Vec<usize> = numbers.collect::<std::result::Result<_, _>>().map_err(|_| unknown())?;
                match numbers.iter().enumerate().find(|(place, number)| numbers[..*place].contains(number)) {
                    Some((_, twice)) => Err(Error::config(format!("device: card {twice} is named twice in `{text}`"))),
                    None => Ok(Self::Cuda(numbers)),
                }
            }
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
                write!(formatter, "cuda:{}", numbers.join(","))
            }
            Self::Auto => formatter.write_str("auto"),
        }
    }
}

/// The engine whose encoders compute on a [`Device`], which also takes part in exact searches; its language models compute on
/// the processor in any case.
///
/// On a card, vectors depend on what else is in the batch by their last digits: what multiplies is chosen by the
/// sizes.
#[derive(Debug, Clone, Default)]
pub struct DeviceEngine {
    /// Where encoders compute.
    pub device: Device,
}

/// What was chosen for an encoder.
enum Chosen {
    /// The processor, and why where that was not asked for.
    Cpu(Option<Error>),
    Cards(Vec<Arc<dyn Backend>>),
}

impl DeviceEngine {
    /// Chooses for the encoder in `folder`.
    ///
    /// # Errors
    /// A card is asked for by name that is not there or cannot do it.
    fn choose(&self, folder: &ModelFolder, options: &LoadOptions) -> Result<Chosen> {
        let cards = |numbers: &[usize]| {
            supported(folder, options)?;
            numbers.iter().map(|number| Card::open(*number)).collect::<Result<Vec<_>>>()
        };
        match &self.device {
            Device::Cpu => Ok(Chosen::Cpu(None)),
            Device::Cuda(numbers) => Ok(Chosen::Cards(cards(numbers)?)),
            Device::Auto => Ok(cards(&[0]).map_or_else(|error| Chosen::Cpu(Some(error)), Chosen::Cards)),
        }
    }
}

/// Whether an encoder has the parts that cards compute, and no others.
fn is_of_berts_family(shape: &Shape) -> bool {
    let Shape { norm, biases, tables, .. } = shape;
    let whole = |layer: &Layer| layer.mask == Mask::NONE && layer.rotary.is_none() && layer.attention_norm;
    shape.placement == Placement::After
        && shape.activation == Activation::Gelu
        && (norm.kind == Kind::Layer && norm.bias && norm.embeddings)
        && (biases.projection && biases.merge && biases.feed_forward)
        && (tables.positions > 0 && tables.kinds > 0)
        && (shape.heads == shape.groups && !shape.head_norms)
        && shape.layers.iter().all(whole)
}

/// Refuses what is not written for cards.
fn supported(folder: &ModelFolder, options: &LoadOptions) -> Result<()> {
    let shape = &folder.shape;
    let missing = if !is_of_berts_family(shape) {
        Some("graphics cards compute BERT and XLM-RoBERTa only, and this is another family".to_owned())
    } else if shape.width > MOST_WIDTH {
        Some(format!("graphics cards compute heads of at most {MOST_WIDTH} values, got {}", shape.width))
    } else if shape.hidden > MOST_NORMALISED {
        let hidden = shape.hidden;
        Some(format!("graphics cards compute token vectors of at most {MOST_NORMALISED} values, got {hidden}"))
    } else if options.precision == Precision::Bf16 && !shape.width.is_multiple_of(bf16::WIDTH_STEP) {
        let (step, width) = (bf16::WIDTH_STEP, shape.width);
        Some(format!("in bfloat16, graphics cards compute heads of a multiple of {step} values, got {width}"))
    } else if options.lora.is_some() {
        Some("adapters (`train.lora`) are trained on the CPU only".to_owned())
    } else if options.optimizer.dropout > 0.0 {
        Some("there is no dropout on graphics cards; set `train.optimizer.dropout` to 0".to_owned())
    } else {
        None
    };
    match missing {
        Some(what) => Err(Error::file(&folder.weights, format!("{what}, or compute on the CPU"))),
        None => Ok(()),
    }
}

impl Engine for DeviceEngine {
    fn device(&self, folder: &Path, options: &LoadOptions) -> Result<Option<String>> {
        let folder = ModelFolder::open(folder, options)?;
        let names = |cards: &[Arc<dyn Backend>]| cards.iter().map(|card| card.name()).collect::<Vec<_>>().join(" and ");
        Ok(match (self.choose(&folder, options)?, &self.device) {
            (Chosen::Cpu(None), _) => None,
            (Chosen::Cpu(Some(error)), _) => Some(format!("the CPU, which `auto` took: {error}")),
            (Chosen::Cards(cards), Device::Auto) => Some(format!("{}, found by `auto`", names(&cards))),
            (Chosen::Cards(cards), _) => Some(names(&cards)),
        })
    }

    fn sieve(&self) -> Result<Option<Box<dyn Sieve>>> {
        let card = match &self.device {
            Device::Cpu => None,
            Device::Cuda(numbers) => Some(Card::open(numbers[0])?),
            Device::Auto => Card::open(0).ok(),
        };
        Ok(card.map(|card| Box::new(CardSieve::new(&card)) as Box<dyn Sieve>))
    }

    fn encoder(&self, path: &Path, options: &LoadOptions) -> Result<Box<dyn Encoder>> {
        let folder = ModelFolder::open(path, options)?;
        match self.choose(&folder, options)? {
            Chosen::Cpu(_) => CpuEngine.encoder(path, options),
            Chosen::Cards(cards) => match options.precision {
                Precision::F32 | Precision::Bf16x3 => several::encoder::<f32>(&cards, &folder, options),
                Precision::Bf16 => several::encoder::<bf16>(&cards, &folder, options),
            },
        }
    }

    fn trainable(&self, path: &Path, options: &LoadOptions) -> Result<Box<dyn Trainable>> {
        let folder = ModelFolder::open(path, options)?;
        match self.choose(&folder, options)? {
            Chosen::Cpu(_) => CpuEngine.trainable(path, options),
            Chosen::Cards(cards) => match options.precision {
                Precision::F32 | Precision::Bf16x3 => several::trainable::<f32>(&cards, &folder, options),
                Precision::Bf16 => several::trainable::<bf16>(&cards, &folder, options),
            },
        }
    }

    fn trainable_lm(&self, folder: &Path, options: &LoadOptions) -> Result<Box<dyn TrainableLm>> {
        CpuEngine.trainable_lm(folder, options)
    }

    fn encoding_footprint(&self, path: &Path, options: &LoadOptions, longest: usize) -> Result<Footprint> {
        let folder = ModelFolder::open(path, options)?;
        match self.choose(&folder, options)? {
            Chosen::Cpu(_) => CpuEngine.encoding_footprint(path, options, longest),
            Chosen::Cards(cards) => several::encoding_footprint(&cards, &folder.shape, options, longest),
        }
    }

    fn training_footprint(&self, path: &Path, options: &LoadOptions, lengths: &[usize]) -> Result<Footprint> {
        let folder = ModelFolder::open(path, options)?;
        match self.choose(&folder, options)? {
            Chosen::Cpu(_) => CpuEngine.training_footprint(path, options, lengths),
            Chosen::Cards(cards) => several::training_footprint(&cards, &folder.shape, options, lengths),
        }
    }

    fn language_training_footprint(
        &self,
        folder: &Path,
        options: &LoadOptions,
        lengths: &[usize],
    ) -> Result<Footprint> {
        CpuEngine.language_training_footprint(folder, options, lengths)
    }

    fn language_model_in(&self, folder: &Path, precision: Precision) -> Result<Box<dyn LanguageModel>> {
        CpuEngine.language_model_in(folder, precision)
    }

    fn language_model(&self, file: Arc<Gguf>, precision: Precision) -> Result<Box<dyn LanguageModel>> {
        CpuEngine.language_model(file, precision)
    }
}

#[cfg(test)]
mod tests {
    use motherlode::engine::{LoraConfig, OptimizerConfig};

    use super::*;

    fn folder(family: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(family)
    }

    #[test]
    fn devices_are_read_by_name_and_others_refused() {
        for (text, device) in [
            ("cpu", Device::Cpu),
            ("cuda", Device::Cuda(vec![0])),
            ("cuda:3", Device::Cuda(vec![3])),
            ("cuda:1,0", Device::Cuda(vec![1, 0])),
            ("auto", Device::Auto),
        ] {
            assert_eq!(text.parse::<Device>().unwrap(), device);
            assert_eq!(device.to_string().parse::<Device>().unwrap(), device);
        }
        for text in ["gpu", "cuda:", "cuda:x", "cuda:0,", "cuda:0 1", "CPU", ""] {
            let error = text.parse::<Device>().unwrap_err().to_string();
            assert!(error.contains("expected `cpu`, `cuda`, `cuda:N`, `cuda:N,M` or `auto`"), "{error}");
        }
        let error = "cuda:1,0,1".parse::<Device>().unwrap_err().to_string();
        assert!(error.contains("card 1 is named twice"), "{error}");
    }

    /// Without a card, which machine the test runs on decides what is missing; the message always names it.
    #[test]
    fn a_card_that_is_not_there_is_an_error_by_name_and_the_processor_by_auto() {
        let options = LoadOptions::default();
        let far = DeviceEngine { device: Device::Cuda(vec![1000]) };
        let error = far.encoder(&folder("bert"), &options).err().unwrap().to_string();
        assert!(error.contains("compute on the CPU"), "{error}");
        let auto = DeviceEngine { device: Device::Auto };
        let told = auto.device(&folder("bert"), &options).unwrap().unwrap();
        assert!(told.contains("cuda:0 (") || told.starts_with("the CPU, which `auto` took: "), "{told}");
        assert!(auto.encoder(&folder("bert"), &options).is_ok());
        let plain = DeviceEngine::default();
        assert_eq!(plain.device(&folder("bert"), &options).unwrap(), None);
    }

    #[test]
    fn language_models_are_those_of_the_processor_wherever_encoders_compute() {
        let (folder, options) = (folder("qwen3-language"), LoadOptions::default());
        for device in [Device::Cpu, Device::Cuda(vec![0]), Device::Auto] {
            let engine = DeviceEngine { device };
            assert!(engine.language_model_in(&folder, Precision::F32).is_ok());
            assert!(engine.trainable_lm(&folder, &options).is_ok());
            let told = engine.language_training_footprint(&folder, &options, &[9]).unwrap();
            assert_eq!(told.total(), CpuEngine.language_training_footprint(&folder, &options, &[9]).unwrap().total());
        }
    }

    #[test]
    fn what_is_not_written_for_cards_is_refused_by_name_and_left_to_the_processor_by_auto() {
        let lora = LoadOptions { lora: Some(LoraConfig::default()), ..Default::default() };
        let optimizer = OptimizerConfig { dropout: 0.1, ..Default::default() };
        let dropping = LoadOptions { optimizer, ..Default::default() };
        for (family, options, expected) in [
            ("modern-bert", LoadOptions::default(), "another family"),
            ("qwen3", LoadOptions::default(), "another family"),
            ("bert", lora, "`train.lora`"),
            ("bert", dropping, "no dropout"),
        ] {
            let cuda = DeviceEngine { device: Device::Cuda(vec![0]) };
            let error = cuda.trainable(&folder(family), &options).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
            let auto = DeviceEngine { device: Device::Auto };
            let told = auto.device(&folder(family), &options).unwrap().unwrap();
            assert!(told.starts_with("the CPU, which `auto` took: ") && told.contains(expected), "{told}");
            assert!(auto.trainable(&folder(family), &options).is_ok());
        }
    }
}
