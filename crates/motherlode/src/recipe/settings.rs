//! The sections of a recipe, typed: one struct of the stage's own room for each.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::batch::BatchConfig;
use crate::config::{from_table, parse_table};
use crate::encode::EncoderConfig;
use crate::error::{Error, Result};
use crate::evaluate::{CompareConfig, EvaluateConfig};
use crate::fetch::{DatasetConfig, ModelConfig};
use crate::fuse::FuseConfig;
use crate::generate::GenerateConfig;
use crate::index::bm25::Bm25Config;
use crate::inspect::InspectConfig;
use crate::judge::JudgeConfig;
use crate::llm::LlmConfig;
use crate::mine::MineConfig;
use crate::recipe::arms::expand;
use crate::sample::SampleConfig;
use crate::search::SearchConfig;
use crate::topic::TopicConfig;
use crate::train::TrainConfig;

/// One member of the ensemble.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Retriever {
    /// BM25, with the settings of `[index]`.
    Lexical {
        /// What the evidence of candidates calls it.
        name: String,
    },
    /// An encoder with exact search.
    Dense {
        /// What the evidence of candidates calls it.
        name: String,
        /// Which encoder.
        model: Box<ModelConfig>,
        /// How it encodes.
        #[serde(default)]
        encoder: EncoderConfig,
    },
}

impl Retriever {
    /// What the evidence of candidates calls it.
    pub fn name(&self) -> &str {
        match self {
            Self::Lexical { name } | Self::Dense { name, .. } => name,
        }
    }
}

/// What the report shows beyond the artefacts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TruthConfig {
    /// A TSV of every relevant pair, known because the corpus was written for it; for the demo's page alone.
    pub path: Option<PathBuf>,
}

/// What an index is made with, besides passages.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IndexFiles {
    /// For the chain `japanese`: the folder of a dictionary, IPADIC's files.
    pub dictionary: Option<PathBuf>,
}

/// What topics are made of, besides vectors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TopicFiles {
    /// For `topic.method = "fasttext"`: the Yahoo-Answers classifier.
    pub yahoo: Option<PathBuf>,
    /// For `topic.method = "fasttext"`: the `DBpedia` classifier.
    pub dbpedia: Option<PathBuf>,
    /// For `topic.method = "field"`: lines of `LANG<TAB>docid<TAB>label`.
    pub labels: Option<PathBuf>,
}

impl TopicFiles {
    /// The files that are named, by role.
    pub(super) fn named(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let files = [("yahoo", &self.yahoo), ("dbpedia", &self.dbpedia), ("labels", &self.labels)];
        files.into_iter().filter_map(|(role, path)| Some((role, path.as_deref()?)))
    }
}

/// Everything one variant of an experiment is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The experiment's name: its folder under the work folder.
    pub name: String,
    /// The data set.
    pub dataset: DatasetConfig,
    /// The encoder to be tuned.
    pub model: ModelConfig,
    /// How it encodes.
    #[serde(default)]
    pub encoder: EncoderConfig,
    /// The ensemble that mines.
    pub retriever: Vec<Retriever>,
    /// BM25, for the ensemble and as a baseline.
    #[serde(default)]
    pub index: Bm25Config,
    /// The dictionary of a chain that needs one.
    #[serde(default)]
    pub index_files: IndexFiles,
    /// Depth and memory of searches.
    #[serde(default)]
    pub search: SearchConfig,
    /// How the members' lists become one.
    #[serde(default)]
    pub fuse: FuseConfig,
    /// Candidates.
    #[serde(default)]
    pub mine: MineConfig,
    /// How language models are reached, and what they may cost.
    #[serde(default)]
    pub llm: LlmConfig,
    /// JSON Lines files of recorded answers, taken into the ledger before anything is asked.
    #[serde(default)]
    pub recorded: Vec<PathBuf>,
    /// JSON Lines files of labels that people gave to pairs (query, passage, grade, annotator), to calibrate the judge with.
    #[serde(default)]
    pub labels: Vec<PathBuf>,
    /// False negatives.
    #[serde(default)]
    pub judge: JudgeConfig,
    /// Supplementary negatives.
    #[serde(default)]
    pub generate: GenerateConfig,
    /// Topics.
    #[serde(default)]
    pub topic: TopicConfig,
    /// Classifiers or labels for topics that are no clusters.
    #[serde(default)]
    pub topic_files: TopicFiles,
    /// Training examples and the validation split.
    #[serde(default)]
    pub sample: SampleConfig,
    /// Batches.
    #[serde(default)]
    pub batch: BatchConfig,
    /// Training.
    #[serde(default)]
    pub train: TrainConfig,
    /// Measures.
    #[serde(default)]
    pub evaluate: EvaluateConfig,
    /// Tests between systems.
    #[serde(default)]
    pub compare: CompareConfig,
    /// The audit sample and the pages of `inspect`.
    #[serde(default)]
    pub inspect: InspectConfig,
    /// Known relevant pairs of a made corpus.
    #[serde(default)]
    pub truth: TruthConfig,
}

/// One variant with its settings typed and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// The arm's name, followed by swept values.
    pub name: String,
    /// The seed of everything random in it.
    pub seed: u64,
    /// Its settings.
    pub settings: Settings,
}

/// Reads a recipe and checks every section of every variant, before anything is done.
///
/// `overrides` are `key=value`, as in `judge.votes=4`. Paths in the recipe are relative to its file. A recipe with
/// `base = "other.toml"` begins with all that the other recipe beside it says.
///
/// # Errors
/// The file is not TOML, a key is unknown, a value out of range, there is no retriever, or two have one name.
pub fn load(path: &Path, overrides: &[String]) -> Result<Vec<Variant>> {
    let root = path.parent().unwrap_or(Path::new("."));
    expand(read(path, &mut Vec::new())?, overrides)?
        .into_iter()
        .map(|variant| {
            let mut settings: Settings = from_table("recipe", variant.settings)?;
            settings.resolve(root);
            settings.validate()?;
            Ok(Variant { name: variant.name, seed: variant.seed, settings })
        })
        .collect()
}

/// The recipe's text over its base's; `above` are the recipes that led here.
fn read(path: &Path, above: &mut Vec<PathBuf>) -> Result<Table> {
    let wrong = |message: &str| Err(Error::file(path, message));
    if above.iter().any(|recipe| recipe == path) {
        return wrong("`base` leads back to this recipe; let one of them stand alone");
    }
    above.push(path.to_path_buf());
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let mut table = parse_table(&path.display().to_string(), &text)?;
    let base = match table.remove("base") {
        None => return Ok(table),
        Some(Value::String(base)) => base,
        Some(_) => return wrong("`base`: expected the name of a recipe in the same folder"),
    };
    if Path::new(&base).file_name().is_none_or(|name| name != base.as_str()) {
        return wrong("`base`: expected the name of a recipe in the same folder, since its paths are relative to it");
    }
    let mut whole = read(&path.with_file_name(base), above)?;
    overlay(&mut whole, table);
    Ok(whole)
}

/// Puts `over` on `table`: sections are joined, everything else is replaced.
fn overlay(table: &mut Table, over: Table) {
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(section)), Value::Table(over)) => overlay(section, over),
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}

impl Settings {
    /// Makes the recipe's relative paths relative to the working folder.
    fn resolve(&mut self, root: &Path) {
        for source in [&mut self.dataset.source, &mut self.dataset.corpus] {
            if !source.is_empty() && !source.starts_with("hub:") {
                *source = root.join(&*source).display().to_string();
            }
        }
        let TopicFiles { yahoo, dbpedia, labels } = &mut self.topic_files;
        let dictionary = &mut self.index_files.dictionary;
        let files = [yahoo, dbpedia, labels, dictionary, &mut self.truth.path].into_iter().flatten();
        for path in files.chain(&mut self.recorded).chain(&mut self.labels) {
            *path = root.join(&*path);
        }
        let members = self.retriever.iter_mut().filter_map(|retriever| match retriever {
            Retriever::Dense { model, .. } => Some(&mut **model),
            Retriever::Lexical { .. } => None,
        });
        let models = members.chain([&mut self.model]);
        for name in models.flat_map(|model| [Some(&mut model.name), model.passage_model.as_mut()]).flatten() {
            if root.join(&*name).is_dir() {
                *name = root.join(&*name).display().to_string();
            }
        }
    }

    fn validate(&self) -> Result<()> {
        self.dataset.validate()?;
        self.encoder.validate()?;
        self.index.validate()?;
        self.search.validate()?;
        self.fuse.validate()?;
        self.mine.validate()?;
        self.llm.validate()?;
        self.judge.validate()?;
        self.generate.validate()?;
        self.topic.validate()?;
        self.sample.validate()?;
        self.batch.validate()?;
        self.train.validate()?;
        self.evaluate.validate()?;
        self.compare.validate()?;
        self.inspect.validate()?;
        let mut names: Vec<&str> = self.retriever.iter().map(Retriever::name).collect();
        names.sort_unstable();
        if names.is_empty() {
            return Err(Error::config("`retriever`: expected at least one [[retriever]]"));
        }
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(Error::config(format!("two retrievers are named `{}`; give each its own name", pair[0]))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "name = 'plain'\n[dataset]\nsource = 'data'\n[model]\nname = 'm'\n[train]\nrate = 1e-5\n\
                         [judge]\nmethod = 'none'\n[generate]\nmethod = 'none'\n\
                         [[retriever]]\nkind = 'lexical'\nname = 'bm25'\n";

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn a_recipe_begins_with_its_base_and_changes_single_keys() {
        let over =
            "base = 'plain.toml'\nname = 'over'\n[train]\ntemperature = 0.05\n[topic_files]\nlabels = 'labels.tsv'";
        let folder = folder(&[("plain.toml", PLAIN), ("over.toml", over)]);
        let variants = load(&folder.path().join("over.toml"), &["train.rate=2e-5".to_owned()]).unwrap();
        let settings = &variants[0].settings;
        assert_eq!((settings.name.as_str(), settings.train.rate, settings.train.temperature), ("over", 2e-5, 0.05));
        assert_eq!(settings.topic_files.named().next(), Some(("labels", folder.path().join("labels.tsv").as_path())));
        assert_eq!(settings.retriever[0].name(), "bm25");
    }

    #[test]
    fn a_base_that_leads_back_or_elsewhere_is_refused() {
        let folder =
            folder(&[("a.toml", "base = 'b.toml'"), ("b.toml", "base = 'a.toml'"), ("c.toml", "base = '../a.toml'")]);
        let refused = |name: &str| load(&folder.path().join(name), &[]).unwrap_err().to_string();
        assert!(refused("a.toml").contains("a.toml: `base` leads back to this recipe"), "{}", refused("a.toml"));
        assert!(refused("c.toml").contains("in the same folder"), "{}", refused("c.toml"));
    }

    /// Every recipe that the project ships can be read, with every key known and every value in range.
    #[test]
    fn the_recipes_are_valid() {
        let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
        let mut read = Vec::new();
        for folder in [recipes.clone(), recipes.join("paper")] {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|extension| extension == "toml") {
                    let variants = load(&path, &[]).unwrap_or_else(|error| panic!("{error}"));
                    read.push((path.file_stem().unwrap().to_string_lossy().into_owned(), variants.len()));
                }
            }
        }
        let variants = |name: &str| read.iter().find(|(stem, _)| stem == name).map(|(_, variants)| *variants);
        assert_eq!((variants("demo"), variants("mini-miracl-small")), (Some(1), Some(6)));
        assert_eq!((variants("table-02"), variants("table-09")), (Some(6), Some(4)));
    }
}
