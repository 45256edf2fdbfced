//! Where artefacts of recipes lie, and what happened to each: made now, or up to date.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use crate::artefact::{Artefact, Manifest, Recipe};
use crate::dataset::Dataset;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// The work folder with everything that stages need to run: shared by all arms, so that equal stages run once.
///
/// `WORK/artefacts/STAGE/DIGEST` holds the artefacts, `WORK/cache` downloads, `WORK/ledger.sqlite` answers of language
/// models, `WORK/labels.sqlite` labels of people, `WORK/tensorboard/NAME` what training tells as it goes on, `WORK/NAME`
/// the pages of the experiment NAME.
pub struct Workshop<'a> {
    folder: PathBuf,
    engine: Arc<dyn Engine>,
    progress: &'a Progress<'a>,
    artefacts: RefCell<HashMap<PathBuf, Artefact>>,
    datasets: RefCell<HashMap<String, Rc<Dataset>>>,
    seen: RefCell<Vec<Seen>>,
    only_look: bool,
}

/// An artefact that was made or found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The stage.
    pub stage: &'static str,
    /// Its folder.
    pub folder: PathBuf,
    /// Size of its data files.
    pub bytes: u64,
}

/// What determines where an artefact lies: its stage, configuration, seed and inputs.
pub struct Place {
    stage: &'static str,
    recipe: Recipe,
}

impl Place {
    /// A stage with its configuration.
    pub fn new(stage: &'static str, config: &impl Serialize) -> Result<Self> {
        Ok(Self { stage, recipe: Recipe::new(stage, 1, config)? })
    }

    /// Adds the seed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.recipe = self.recipe.seed(seed);
        self
    }

    /// Adds an input under a role.
    #[must_use]
    pub fn input(mut self, role: &str, artefact: &Artefact) -> Self {
        self.recipe = self.recipe.input(role, artefact);
        self
    }

    /// Adds a distinction that is no artefact.
    #[must_use]
    pub fn word(mut self, role: &str, word: &str) -> Self {
        self.recipe = self.recipe.input_key(role, word);
        self
    }
}

impl<'a> Workshop<'a> {
    /// A workshop in `folder`, which is made when it is first needed.
    pub fn new(folder: &Path, engine: Arc<dyn Engine>, progress: &'a Progress<'a>) -> Self {
        Self {
            folder: folder.to_path_buf(),
            engine,
            progress,
            artefacts: RefCell::default(),
            datasets: RefCell::default(),
            seen: RefCell::default(),
            only_look: false,
        }
    }

    /// Makes nothing any more: a stage whose artefact is missing is an error that says so.
    #[must_use]
    pub fn only_look(mut self) -> Self {
        self.only_look = true;
        self
    }

    /// The artefacts that were made or found since [`forget`](Self::forget), in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    /// A finished artefact that was made or found in this process, by its folder.
    pub fn known(&self, folder: &Path) -> Option<Artefact> {
        self.artefacts.borrow().get(folder).cloned()
    }

    /// Begins a new list of what is seen.
    pub fn forget(&self) {
        self.seen.borrow_mut().clear();
    }

    /// Opens models.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// Receives how far stages are.
    pub fn progress(&self) -> &'a Progress<'a> {
        self.progress
    }

    /// Where downloads are kept.
    pub fn cache(&self) -> PathBuf {
        self.folder.join("cache")
    }

    /// Where answers of language models are kept.
    pub fn ledger(&self) -> PathBuf {
        self.folder.join("ledger.sqlite")
    }

    /// Where people's labels are kept.
    pub fn labels(&self) -> PathBuf {
        self.folder.join("labels.sqlite")
    }

    /// Where the pages of an experiment go.
    pub fn pages(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Where a training of the experiment `name` tells how it goes; `run` is how TensorBoard calls it.
    pub fn watched(&self, name: &str, run: &str) -> PathBuf {
        let plain = |letter: char| if letter.is_alphanumeric() || "-_.=".contains(letter) { letter } else { '-' };
        self.folder.join("tensorboard").join(name).join(run.chars().map(plain).collect::<String>())
    }

    /// The folder of an artefact.
    pub fn folder(&self, place: &Place) -> PathBuf {
        self.folder.join("artefacts").join(place.stage).join(&place.recipe.key()[..16])
    }

    /// Makes an artefact, or finds it: `make` gets its folder and is the one to say whether it is up to date. Within
    /// one process each artefact is made and checked once.
    pub fn stage(&self, place: &Place, make: impl FnOnce(&Path) -> Result<Artefact>) -> Result<Artefact> {
        let folder = self.folder(place);
        let known = self.artefacts.borrow().get(&folder).cloned();
        let artefact = match known {
            Some(artefact) => artefact,
            None if self.only_look && !folder.join("manifest.json").exists() => {
                return Err(Error::data(why_missing(place, &folder)));
            }
            None if self.only_look => Artefact::open(&folder)?,
            None => self.make(place.stage, &folder, make)?,
        };
        let bytes = artefact.manifest().files.iter().map(|file| file.bytes).sum();
        self.seen.borrow_mut().push(Seen { stage: place.stage, folder: folder.clone(), bytes });
        self.artefacts.borrow_mut().insert(folder, artefact.clone());
        Ok(artefact)
    }

    fn make(&self, stage: &str, folder: &Path, make: impl FnOnce(&Path) -> Result<Artefact>) -> Result<Artefact> {
        let (before, started) = (key_of(folder), Instant::now());
        let artefact = make(folder)?;
        let state = if before.as_deref() == Some(artefact.key()) {
            "up to date".to_owned()
        } else {
            format!("done in {:.1} s", started.elapsed().as_secs_f64())
        };
        self.progress.say(&format!("{stage:<9} {state}{}", headline(&artefact)));
        Ok(artefact)
    }

    /// The data set in an artefact, opened once.
    pub fn open_dataset(&self, artefact: &Artefact) -> Result<Rc<Dataset>> {
        if let Some(dataset) = self.datasets.borrow().get(artefact.key()) {
            return Ok(Rc::clone(dataset));
        }
        let dataset = Rc::new(Dataset::open(artefact)?);
        self.datasets.borrow_mut().insert(artefact.key().to_owned(), Rc::clone(&dataset));
        Ok(dataset)
    }
}

/// That a stage is not made, whether it was begun, and in what the most similar artefact of the stage differs.
fn why_missing(place: &Place, folder: &Path) -> String {
    let stage = place.stage;
    let state =
        if folder.with_extension("partial").exists() { "was begun and is not finished" } else { "is not made yet" };
    let mut said = format!("{stage} {state}");
    let siblings = std::fs::read_dir(folder.parent().unwrap_or(folder)).into_iter().flatten().flatten();
    let differences = |sibling: std::fs::DirEntry| {
        let text = std::fs::read_to_string(sibling.path().join("manifest.json")).ok()?;
        let manifest: Manifest = serde_json::from_str(&text).ok()?;
        Some((place.recipe.differences(&manifest), sibling.file_name().to_string_lossy().into_owned()))
    };
    let nearest = siblings.filter_map(differences).min_by_key(|(found, name)| (found.len(), name.clone()));
    if let Some((found, name)) = nearest.filter(|(found, _)| !found.is_empty()) {
        said += &format!("; {name}, the most similar one, was made with {}", found.join("; "));
    }
    said
}

fn key_of(folder: &Path) -> Option<String> {
    let text = std::fs::read_to_string(folder.join("manifest.json")).ok()?;
    let manifest: serde_json::Value = serde_json::from_str(&text).ok()?;
    Some(manifest["key"].as_str()?.to_owned())
}

/// The first counts of a summary, for the line that a person sees.
fn headline(artefact: &Artefact) -> String {
    let plain = artefact.summary().counts.iter().filter(|(name, _)| !name.contains(':') && !name.contains(' '));
    let counts: Vec<String> = plain.take(4).map(|(name, count)| format!("{count} {name}")).collect();
    if counts.is_empty() { String::new() } else { format!("  ({})", counts.join(", ")) }
}
