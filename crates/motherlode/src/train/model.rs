//! What is trained: one encoder of queries and passages, or one of each.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::engine::{Embeddings, Encoder, Engine, Footprint, LoadOptions, TokenBatch, Trainable, Training};
use crate::error::{Error, Result};
use crate::untied::{self, Encoders, PASSAGE_MODEL, QUERY_MODEL};

/// The encoders in training.
pub(super) enum Model {
    /// One for queries and passages.
    Tied(Box<dyn Trainable>),
    /// That of queries and that of passages. Their gradients are clipped together, as the parameters of one model.
    Untied([Box<dyn Trainable>; 2]),
}

/// An encoder that is about to be read.
struct Opening {
    folder: PathBuf,
    options: LoadOptions,
    footprint: Footprint,
}

/// What training takes, of the model in `folder`, whose largest step has queries and passages of these lengths in tokens.
///
/// # Errors
/// It does not fit into the memory.
pub fn footprint(
    engine: &dyn Engine,
    folder: &Path,
    options: &LoadOptions,
    lengths: [&[usize]; 2],
) -> Result<Footprint> {
    Ok(total(&openings(engine, folder, options, lengths)?))
}

fn total(openings: &[Opening]) -> Footprint {
    openings.iter().map(|opening| opening.footprint).reduce(Footprint::beside).unwrap_or_default()
}

/// One encoder or two; the second has the memory that the first leaves, and dropout masks of its own.
fn openings(
    engine: &dyn Engine,
    folder: &Path,
    options: &LoadOptions,
    [queries, passages]: [&[usize]; 2],
) -> Result<Vec<Opening>> {
    let open = |folder: PathBuf, options: LoadOptions, lengths: &[usize]| -> Result<Opening> {
        let footprint = engine.training_footprint(&folder, &options, lengths)?;
        Ok(Opening { folder, options, footprint })
    };
    let Encoders { queries: of_queries, passages: of_passages } = untied::encoders(folder)?;
    let Some(of_passages) = of_passages else {
        return Ok(vec![open(of_queries, options.clone(), &[queries, passages].concat())?]);
    };
    let first = open(of_queries, options.clone(), queries)?;
    let (seed, beside) = (options.seed.wrapping_add(1), first.footprint.total());
    let options = LoadOptions { seed, beside, ..options.clone() };
    let second = open(of_passages, options, passages)?;
    Ok(vec![first, second])
}

impl Model {
    /// Reads the model in `folder`; gives also what its largest step takes, as [`footprint`] does.
    ///
    /// # Errors
    /// Too little memory; two encoders whose vectors are not of one length.
    pub(super) fn open(
        engine: &dyn Engine,
        folder: &Path,
        options: &LoadOptions,
        lengths: [&[usize]; 2],
    ) -> Result<(Self, Footprint)> {
        let openings = openings(engine, folder, options, lengths)?;
        let footprint = total(&openings);
        let open = |opening: Opening| engine.trainable(&opening.folder, &opening.options);
        let mut encoders = openings.into_iter().map(open).collect::<Result<Vec<_>>>()?;
        let last = encoders.pop().expect("one encoder at least");
        let Some(first) = encoders.pop() else { return Ok((Self::Tied(last), footprint)) };
        untied::check_dimensions(folder, [first.dimension(), last.dimension()])?;
        Ok((Self::Untied([first, last]), footprint))
    }

    /// Encoders of queries and of passages.
    pub(super) fn encoders(&self) -> [&dyn Encoder; 2] {
        match self {
            Self::Tied(model) => [&**model, &**model],
            Self::Untied([queries, passages]) => [&**queries, &**passages],
        }
    }

    /// The vectors of `batch`, which begins with so many queries; otherwise as [`Trainable::forward`].
    pub(super) fn forward(&mut self, batch: &TokenBatch, queries: usize, step: u64) -> Result<Embeddings> {
        match self {
            Self::Tied(model) => model.forward(batch, step),
            Self::Untied([of_queries, of_passages]) => {
                let vectors = of_queries.forward(&batch.slice(0..queries), step)?;
                let passages = of_passages.forward(&batch.slice(queries..batch.len()), step)?;
                Embeddings::new(vectors.dimension(), [vectors.values(), passages.values()].concat())
            }
        }
    }

    /// As [`Trainable::backward`], of a batch that begins with so many queries.
    pub(super) fn backward(
        &mut self,
        batch: &TokenBatch,
        queries: usize,
        gradient: &Embeddings,
        step: u64,
    ) -> Result<()> {
        match self {
            Self::Tied(model) => model.backward(batch, gradient, step),
            Self::Untied([of_queries, of_passages]) => {
                let (first, second) = (0..queries, queries..batch.len());
                of_queries.backward(&batch.slice(first.clone()), &gradient.slice(first), step)?;
                of_passages.backward(&batch.slice(second.clone()), &gradient.slice(second), step)
            }
        }
    }

    fn all(&self) -> &[Box<dyn Trainable>] {
        match self {
            Self::Tied(model) => std::slice::from_ref(model),
            Self::Untied(models) => models,
        }
    }

    fn all_mut(&mut self) -> &mut [Box<dyn Trainable>] {
        match self {
            Self::Tied(model) => std::slice::from_mut(model),
            Self::Untied(models) => models,
        }
    }
}

impl Training for Model {
    fn gradient_norm(&mut self) -> Result<f32> {
        // The square of an f32 is exact in f64: the norm of one model stays what it is.
        let squares = self.all_mut().iter_mut().map(|model| Ok(f64::from(model.gradient_norm()?).powi(2)));
        Ok(squares.sum::<Result<f64>>()?.sqrt() as f32)
    }

    fn apply(&mut self, rate: f32, norm: f32) -> Result<()> {
        self.all_mut().iter_mut().try_for_each(|model| model.apply(rate, norm))
    }

    fn write_state(&self, output: &mut dyn Write) -> Result<()> {
        self.all().iter().try_for_each(|model| model.write_state(output))
    }

    fn restore(&mut self, input: &mut dyn Read) -> Result<()> {
        self.all_mut().iter_mut().try_for_each(|model| model.restore(input))
    }

    fn save(&self, folder: &Path) -> Result<()> {
        let models = match self {
            Self::Tied(model) => return model.save(folder),
            Self::Untied(models) => models,
        };
        for (name, model) in [QUERY_MODEL, PASSAGE_MODEL].into_iter().zip(models) {
            let folder = folder.join(name);
            fs::create_dir(&folder).map_err(Error::io(&folder))?;
            model.save(&folder)?;
        }
        Ok(())
    }
}
