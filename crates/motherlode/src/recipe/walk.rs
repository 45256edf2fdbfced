//! Walking a recipe: every variant through every stage, then the comparison and the pages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::artefact::{Artefact, hash_file};
use crate::batch::{self, BatchInputs};
use crate::corpus::Language;
use crate::dataset::{Dataset, Split};
use crate::encode::{self, EncodeInputs, EncoderConfig};
use crate::error::{Error, Result};
use crate::evaluate::{self, EvaluateInputs, System};
use crate::fetch::{self, ModelConfig};
use crate::fuse::{self, FuseInputs};
use crate::generate::{self, GenerateInputs};
use crate::index::bm25::{self, IndexInputs};
use crate::judge::{self, JudgeInputs};
use crate::llm::Llm;
use crate::mine::{self, MineInputs};
use crate::recipe::ensemble::Ensemble;
use crate::recipe::pages::{Finished, finish, people};
use crate::recipe::place::{Place, Workshop};
use crate::recipe::settings::{Retriever, Settings, Variant};
use crate::report::{Arm, Experiment};
use crate::sample::{self, SampleInputs};
use crate::search;
use crate::text::analyse::JapaneseDictionary;
use crate::text::language::LanguageCheck;
use crate::topic::{self, TopicInputs};
use crate::train::{self, BaseModel, TrainInputs};

/// The choice of train queries, verdicts and topics are the same for all seeds of an experiment, so that seeds differ in
/// sampling, batches and training alone.
const SEED_OF_DATA: u64 = 0;

const SPLITS: [Split; 2] = [Split::Train, Split::Dev];

/// Runs all variants of a recipe, compares them with BM25 and the untouched models, and writes the pages.
///
/// # Errors
/// Whatever a stage says. What was finished before stays, and the same call goes on behind it.
pub fn run(workshop: &Workshop<'_>, variants: &[Variant]) -> Result<Finished> {
    let first = &variants[0].settings;
    let llm = Llm::open(&workshop.ledger(), &first.recorded, &first.llm)?;
    let llm = llm.run_with(workshop.engine().clone(), &workshop.cache());
    finish(workshop, &experiment(workshop, variants, Some(&llm))?)
}

/// All variants through all stages, and their comparison.
pub(super) fn experiment(workshop: &Workshop<'_>, variants: &[Variant], llm: Option<&Llm>) -> Result<Experiment> {
    let first = &variants[0].settings;
    let mut arms = Vec::new();
    let mut baselines: BTreeMap<String, Artefact> = BTreeMap::new();
    for variant in variants {
        workshop.progress().say(&format!("{}, seed {}", variant.name, variant.seed));
        let walk = Walk { workshop, name: &variant.name, settings: &variant.settings, seed: variant.seed, llm };
        let base = walk.base()?;
        baselines.insert("BM25".to_owned(), walk.lexical_baseline(&base)?);
        baselines.insert(untouched_name(variants, &variant.settings), walk.untouched(&base)?);
        arms.push(Arm { name: variant.name.clone(), seed: variant.seed, artefacts: walk.arm(base)? });
    }
    let baselines: Vec<(String, Artefact)> = baselines.into_iter().collect();
    let comparison = compare(workshop, first, &arms, &baselines)?;
    let people = people(workshop, &arms)?;
    Ok(Experiment { name: first.name.clone(), arms, baselines, comparison, truth: first.truth.path.clone(), people })
}

/// Walks one variant in a workshop that [only looks](Workshop::only_look).
pub(super) fn look(workshop: &Workshop<'_>, variant: &Variant) -> Result<()> {
    let walk = Walk::looking(workshop, variant);
    let base = walk.base()?;
    walk.lexical_baseline(&base)?;
    walk.untouched(&base)?;
    walk.arm(base).map(drop)
}

/// The data set and the model to be tuned, made or found.
pub(super) fn data_and_model(workshop: &Workshop<'_>, variant: &Variant) -> Result<(Rc<Dataset>, Artefact)> {
    let walk = Walk::looking(workshop, variant);
    let (_, dataset) = walk.dataset()?;
    Ok((dataset, walk.model(&variant.settings.model)?))
}

/// "untouched", with the model's name where the recipe tunes several.
fn untouched_name(variants: &[Variant], settings: &Settings) -> String {
    let same = |other: &Variant| other.settings.model == settings.model && other.settings.encoder == settings.encoder;
    if variants.iter().all(same) { "untouched".to_owned() } else { format!("untouched {}", settings.model.name) }
}

fn compare(
    workshop: &Workshop<'_>,
    settings: &Settings,
    arms: &[Arm],
    baselines: &[(String, Artefact)],
) -> Result<Artefact> {
    let mut systems: Vec<System> = Vec::new();
    for (name, measures) in baselines {
        systems.push(System { name: name.clone(), seeds: vec![measures.clone()] });
    }
    for arm in arms {
        let measures = arm.artefacts["measures"].clone();
        match systems.iter_mut().find(|system| system.name == arm.name) {
            Some(system) => system.seeds.push(measures),
            None => systems.push(System { name: arm.name.clone(), seeds: vec![measures] }),
        }
    }
    let at = systems
        .iter()
        .position(|system| system.name.starts_with("untouched"))
        .expect("every variant has an untouched model");
    let baseline = systems.remove(at);
    let mut place = Place::new("compare", &settings.compare)?.input("baseline", &baseline.seeds[0]);
    for (index, measures) in systems.iter().flat_map(|system| &system.seeds).enumerate() {
        place = place.input(&format!("{index:04}"), measures);
    }
    workshop.stage(&place, |out| evaluate::compare(&baseline, &systems, &settings.compare, out, workshop.progress()))
}

/// One variant on its way through the stages.
struct Walk<'a> {
    workshop: &'a Workshop<'a>,
    /// The variant's name.
    name: &'a str,
    settings: &'a Settings,
    seed: u64,
    llm: Option<&'a Llm>,
}

/// What all later stages start from.
struct Base {
    data: Artefact,
    dataset: Rc<Dataset>,
    model: Artefact,
    vectors: Artefact,
}

/// What training is given.
struct Given<'a> {
    examples: &'a Artefact,
    batches: &'a Artefact,
    topics: &'a Artefact,
    candidates: &'a Artefact,
    judgements: Option<&'a Artefact>,
}

impl<'a> Walk<'a> {
    /// A walk that asks no language model.
    fn looking(workshop: &'a Workshop<'a>, variant: &'a Variant) -> Self {
        Self { workshop, name: &variant.name, settings: &variant.settings, seed: variant.seed, llm: None }
    }
}

impl Walk<'_> {
    fn dataset(&self) -> Result<(Artefact, Rc<Dataset>)> {
        let config = &self.settings.dataset;
        let place = Place::new("dataset", config)?.seed(SEED_OF_DATA);
        let progress = self.workshop.progress();
        let data = self.workshop.stage(&place, |out| fetch::dataset(config, SEED_OF_DATA, out, progress))?;
        let dataset = self.workshop.open_dataset(&data)?;
        self.settings.evaluate.check_pool(dataset.partitions.iter().filter(|partition| partition.has(Split::Dev)))?;
        Ok((data, dataset))
    }

    fn base(&self) -> Result<Base> {
        let (data, dataset) = self.dataset()?;
        let model = self.model(&self.settings.model)?;
        let vectors = self.encode(&dataset, &data, &model, &self.settings.encoder)?;
        Ok(Base { data, dataset, model, vectors })
    }

    fn llm(&self) -> Result<&Llm> {
        self.llm.ok_or_else(|| Error::data("no language model may be asked while looking"))
    }

    fn model(&self, config: &ModelConfig) -> Result<Artefact> {
        let place = Place::new("model", config)?;
        self.workshop.stage(&place, |out| fetch::model(config, &self.workshop.cache(), out, self.workshop.progress()))
    }

    fn encode(&self, dataset: &Dataset, data: &Artefact, model: &Artefact, config: &EncoderConfig) -> Result<Artefact> {
        let place = Place::new("encode", config)?.input("dataset", data).input("model", model);
        let engine = &**self.workshop.engine();
        let inputs = EncodeInputs { dataset, splits: &SPLITS, engine, model: model.folder(), model_key: model.key() };
        self.workshop.stage(&place, |out| encode::encode(inputs, config, out, self.workshop.progress()))
    }

    fn search(&self, base: &Base, vectors: &Artefact, split: Split) -> Result<Artefact> {
        let config = &self.settings.search;
        let place = Place::new("search", config)?.input("embeddings", vectors).word("split", split.name());
        let (engine, progress) = (self.workshop.engine(), self.workshop.progress());
        self.workshop.stage(&place, |out| {
            let sieve = engine.sieve()?;
            let inputs = search::DenseInputs { embeddings: vectors, sieve: sieve.as_deref() };
            search::dense(&base.dataset, inputs, split, config, out, progress)
        })
    }

    fn index(&self, base: &Base) -> Result<Artefact> {
        let (config, dictionary) = (&self.settings.index, self.settings.index_files.dictionary.as_deref());
        let mut place = Place::new("index", config)?.input("dataset", &base.data);
        if let Some(folder) = dictionary {
            place = place.word("dictionary", &JapaneseDictionary::key(folder)?);
        }
        let inputs = IndexInputs { dataset: &base.dataset, dictionary };
        self.workshop.stage(&place, |out| bm25::index(inputs, config, out, self.workshop.progress()))
    }

    fn lexical(&self, base: &Base, split: Split) -> Result<Artefact> {
        let (config, index) = (&self.settings.search, self.index(base)?);
        let place = Place::new("search", config)?.input("index", &index).word("split", split.name());
        self.workshop
            .stage(&place, |out| search::lexical(&base.dataset, &index, split, config, out, self.workshop.progress()))
    }

    fn evaluate(&self, base: &Base, run: &Artefact, examples: Option<&Artefact>) -> Result<Artefact> {
        let config = &self.settings.evaluate;
        let place = Place::new("evaluate", config)?.input("run", run);
        let place = examples.into_iter().fold(place, |place, examples| place.input("examples", examples));
        let truth = self.settings.truth.path.as_deref();
        let inputs = EvaluateInputs { dataset: &base.dataset, run, split: Split::Dev, examples, truth };
        self.workshop.stage(&place, |out| evaluate::evaluate(&inputs, config, out, self.workshop.progress()))
    }

    fn lexical_baseline(&self, base: &Base) -> Result<Artefact> {
        self.evaluate(base, &self.lexical(base, Split::Dev)?, None)
    }

    fn untouched(&self, base: &Base) -> Result<Artefact> {
        self.evaluate(base, &self.search(base, &base.vectors, Split::Dev)?, None)
    }

    /// All stages of the variant; the artefacts by role, for the pages.
    fn arm(&self, base: Base) -> Result<BTreeMap<String, Artefact>> {
        let (ensemble, runs) = self.ensemble(&base)?;
        let fused = self.fuse(&base, &ensemble, &runs)?;
        let candidates = self.mine(&base, (&ensemble, &runs), &fused)?;
        let judgements = self.judge(&base, &candidates)?;
        let supplement = match &judgements {
            Some(judgements) => self.generate(&base, &ensemble, &candidates, judgements)?,
            None => None,
        };
        let topics = self.topic(&base, &ensemble)?;
        let examples = self.sample(&base, &candidates, judgements.as_ref(), supplement.as_ref())?;
        let batches = self.batch(&base, &examples, &topics)?;
        let trained = self.train(
            &base,
            &Given {
                examples: &examples,
                batches: &batches,
                topics: &topics,
                candidates: &candidates,
                judgements: judgements.as_ref(),
            },
        )?;
        let vectors = self.encode(&base.dataset, &base.data, &trained, &self.tuned_encoder())?;
        let run = self.search(&base, &vectors, Split::Dev)?;
        let measures = self.evaluate(&base, &run, Some(&examples))?;
        let required = [
            ("dataset", base.data),
            ("model", base.model),
            ("embeddings", base.vectors),
            ("fused", fused),
            ("candidates", candidates),
            ("topics", topics),
            ("examples", examples),
            ("batches", batches),
            ("trained", trained),
            ("tuned", vectors),
            ("run", run),
            ("measures", measures),
        ];
        let optional = [("judgements", judgements), ("supplement", supplement)];
        let optional = optional.into_iter().filter_map(|(role, artefact)| Some((role, artefact?)));
        let named = required.into_iter().chain(optional).map(|(role, artefact)| (role.to_owned(), artefact));
        Ok(named.chain(ensemble.artefacts(runs)).collect())
    }

    /// The tuned model is saved with the layers it was cut to, so it is read whole.
    fn tuned_encoder(&self) -> EncoderConfig {
        EncoderConfig { layers: None, ..self.settings.encoder.clone() }
    }

    /// The ensemble and its members' runs over the train queries.
    fn ensemble(&self, base: &Base) -> Result<(Ensemble, Vec<Artefact>)> {
        let mut runs = Vec::new();
        let mut ensemble = Ensemble::new(self.settings.fuse.clone(), self.settings.mine.clone());
        for retriever in &self.settings.retriever {
            match retriever {
                Retriever::Lexical { name } => {
                    runs.push(self.lexical(base, Split::Train)?);
                    ensemble.lexical(name, self.index(base)?);
                }
                Retriever::Dense { name, model, encoder } => {
                    let model = self.model(model)?;
                    let vectors = self.encode(&base.dataset, &base.data, &model, encoder)?;
                    runs.push(self.search(base, &vectors, Split::Train)?);
                    ensemble.dense(name, vectors, model, encoder.clone());
                }
            }
        }
        Ok((ensemble, runs))
    }

    fn fuse(&self, base: &Base, ensemble: &Ensemble, runs: &[Artefact]) -> Result<Artefact> {
        let config = &self.settings.fuse;
        let members = ensemble.fused(runs)?;
        let mut place = Place::new("fuse", config)?.input("dataset", &base.data);
        for member in &members {
            place = place.input(member.name, member.artefact);
        }
        self.workshop.stage(&place, |out| {
            let sieve = self.workshop.engine().sieve()?;
            let (dataset, split, sieve) = (&base.dataset, Split::Train, sieve.as_deref());
            let inputs = FuseInputs { dataset, split, members: &members, sieve };
            fuse::fuse(inputs, config, out, self.workshop.progress())
        })
    }

    fn mine(&self, base: &Base, ensemble: (&Ensemble, &[Artefact]), fused: &Artefact) -> Result<Artefact> {
        let config = &self.settings.mine;
        let place = Place::new("mine", config)?.input("fused", fused).input("embeddings", &base.vectors);
        let (ensemble, runs) = ensemble;
        let members = ensemble.evidence(runs);
        let inputs = MineInputs { dataset: &base.dataset, fused, members: &members, embeddings: &base.vectors };
        self.workshop.stage(&place, |out| mine::mine(inputs, config, out, self.workshop.progress()))
    }

    fn judge(&self, base: &Base, candidates: &Artefact) -> Result<Option<Artefact>> {
        let config = &self.settings.judge;
        if config.method == judge::Method::None {
            return Ok(None);
        }
        let labels = &self.settings.labels;
        let mut place = Place::new("judge", config)?.seed(SEED_OF_DATA).input("candidates", candidates);
        if let Some(digest) = judge::labels_digest(labels)? {
            place = place.word("weighted labels", &digest);
        }
        let inputs = JudgeInputs { dataset: &base.dataset, candidates, split: Split::Train, labels };
        let make = |out: &Path| judge::judge(&inputs, config, SEED_OF_DATA, self.llm()?, out, self.workshop.progress());
        self.workshop.stage(&place, make).map(Some)
    }

    fn generate(
        &self,
        base: &Base,
        ensemble: &Ensemble,
        candidates: &Artefact,
        judgements: &Artefact,
    ) -> Result<Option<Artefact>> {
        let config = &self.settings.generate;
        if config.method == generate::Method::None {
            return Ok(None);
        }
        let place = Place::new("generate", config)?.input("candidates", candidates).input("judgements", judgements);
        let retrieve = |language: &Language, queries: &[(String, String)]| {
            ensemble.retrieve(&**self.workshop.engine(), &base.dataset, &base.vectors, (language, queries))
        };
        let language_model = self.language_model()?;
        let inputs = GenerateInputs {
            dataset: &base.dataset,
            split: Split::Train,
            candidates,
            judgements,
            first: self.settings.mine.depth,
            language_model: language_model.as_deref(),
        };
        let progress = self.workshop.progress();
        let make = |out: &Path| generate::generate(&inputs, config, self.llm()?, out, &retrieve, progress);
        self.workshop.stage(&place, make).map(Some)
    }

    /// The language identification model, where new queries are checked with it.
    fn language_model(&self) -> Result<Option<PathBuf>> {
        match self.settings.generate.language_check {
            LanguageCheck::Fasttext => {
                fetch::file("lid.176.ftz", &self.workshop.cache(), self.workshop.progress()).map(Some)
            }
            LanguageCheck::Script | LanguageCheck::None => Ok(None),
        }
    }

    /// Clusters the vectors of the first dense retriever, which is often stronger than the model to be tuned, or does what
    /// the recipe says with the files that it names.
    fn topic(&self, base: &Base, ensemble: &Ensemble) -> Result<Artefact> {
        let (config, files) = (&self.settings.topic, &self.settings.topic_files);
        let vectors = ensemble.first_vectors().unwrap_or(&base.vectors);
        let mut place = Place::new("topic", config)?.seed(SEED_OF_DATA).input("dataset", &base.data);
        if config.method == topic::Method::Cluster {
            place = place.input("embeddings", vectors);
        }
        for (role, path) in files.named() {
            place = place.word(role, &hash_file(path)?);
        }
        let inputs = TopicInputs {
            dataset: &base.dataset,
            embeddings: Some(vectors),
            yahoo: files.yahoo.as_deref(),
            dbpedia: files.dbpedia.as_deref(),
            labels: files.labels.as_deref(),
        };
        self.workshop.stage(&place, |out| topic::topic(&inputs, config, SEED_OF_DATA, out, self.workshop.progress()))
    }

    fn sample(
        &self,
        base: &Base,
        candidates: &Artefact,
        judgements: Option<&Artefact>,
        supplement: Option<&Artefact>,
    ) -> Result<Artefact> {
        let config = &self.settings.sample;
        let mut place = Place::new("sample", config)?.seed(self.seed).input("candidates", candidates);
        for (role, artefact) in [("judgements", judgements), ("supplement", supplement)] {
            place = artefact.into_iter().fold(place, |place, artefact| place.input(role, artefact));
        }
        let inputs = SampleInputs {
            dataset: &base.dataset,
            candidates,
            judgements,
            supplement,
            first: self.settings.mine.depth,
        };
        self.workshop.stage(&place, |out| sample::sample(&inputs, config, self.seed, out, self.workshop.progress()))
    }

    fn batch(&self, base: &Base, examples: &Artefact, topics: &Artefact) -> Result<Artefact> {
        let config = &self.settings.batch;
        let place = Place::new("batch", config)?.seed(self.seed).input("examples", examples).input("topics", topics);
        let inputs = BatchInputs { dataset: &base.dataset, examples, topics };
        self.workshop.stage(&place, |out| batch::batch(&inputs, config, self.seed, out, self.workshop.progress()))
    }

    fn train(&self, base: &Base, given: &Given<'_>) -> Result<Artefact> {
        let Given { examples, batches, topics, candidates, judgements } = *given;
        let config = &self.settings.train;
        let watched = self.workshop.watched(&self.settings.name, &format!("{} seed {}", self.name, self.seed));
        let place = Place::new("train", &(config, &self.settings.encoder))?.seed(self.seed);
        let place = place.input("model", &base.model).input("batches", batches).input("examples", examples);
        let inputs = TrainInputs {
            dataset: &base.dataset,
            batches,
            examples,
            topics,
            candidates: Some(candidates),
            judgements,
            base: BaseModel {
                folder: base.model.folder(),
                name: &self.settings.model.name,
                key: base.model.key(),
                notes: &base.model.summary().notes,
            },
            encoder: &self.settings.encoder,
            engine: &**self.workshop.engine(),
            watched: Some(&watched),
        };
        self.workshop.stage(&place, |out| train::train(&inputs, config, self.seed, out, self.workshop.progress()))
    }
}
