//! A small experiment made by hand: artefacts of every stage over a data set in a public layout.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rand::RngExt;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Arm, Experiment, HumanGrade};
use crate::artefact::{Artefact, Draft, Outcome, Recipe, Summary, draft};
use crate::corpus::{Language, PassageIndex};
use crate::dataset::{Dataset, Partition, Split};
use crate::evaluate::compare::{CompareConfig, Difference, SeedMean, System, SystemComparison, SystemValues, compare};
use crate::evaluate::{LanguageMeasures, Measure, MeasureTable, Pool, QueryMeasures, Values};
use crate::fetch::DatasetConfig;
use crate::llm::{USAGE, Usage};
use crate::progress::Progress;
use crate::queries::QueryIndex;
use crate::random::keyed;

/// A passage, a question, a title and an arm's name that a careless page would run.
pub(super) const HOSTILE: &str = "<script>alert('x')</script><img src=x onerror=\"alert(1)\"></td></table><!--";

/// A difference with only what a sentence needs.
pub(super) fn difference(difference: f64, interval: Option<(f64, f64)>, p: f64) -> Difference {
    let detectable = Some(0.012);
    Difference { queries: 20, difference, interval, p_t: Some(p), p_randomisation: p, p_holm: None, detectable }
}

/// A system that is better in one of two languages.
pub(super) fn system(name: &str, macro_mean: Difference) -> SystemComparison {
    let language = |tag| (Language::new(tag).unwrap(), macro_mean);
    let mean = SeedMean { value: 0.5, spread: None };
    let values = SystemValues { name: name.into(), seeds: 1, languages: BTreeMap::new(), macro_mean: mean };
    let languages = BTreeMap::from([language("ar"), language("sw")]);
    SystemComparison { values, languages, macro_mean, micro: macro_mean, better: 1, worse: 0 }
}

/// Writes a data set of two languages in MIRACL's layout, with hostile texts, and returns its folder.
pub(super) fn source(folder: &Path) -> PathBuf {
    let source = folder.join("source");
    let texts = [("ar", "ما هي عاصمة كينيا؟", "نيروبي هي عاصمة كينيا."), ("sw", HOSTILE, HOSTILE)];
    let mut truth = String::new();
    for (language, question, text) in texts {
        let write = |name: &str, text: String| {
            let path = source.join(language).join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let passage = |id: usize| {
            json!({ "docid": format!("{id}#0"), "title": format!("{id} {text}"), "text": format!("{text} {id}") })
                .to_string()
        };
        write("corpus.jsonl", (0..8).map(|id| passage(id) + "\n").collect());
        for split in ["train", "dev"] {
            let lines = |line: fn(&str, &str, usize) -> String| -> String {
                (0..4).map(|number| line(&format!("{split}-{number}"), question, number)).collect()
            };
            write(&format!("topics.{split}.tsv"), lines(|id, question, number| format!("{id}\t{question} {number}\n")));
            write(&format!("qrels.{split}.tsv"), lines(|id, _, number| format!("{id}\tQ0\t{number}#0\t1\n")));
        }
        for number in 0..4 {
            truth += &format!("{language}\ttrain\ttrain-{number}\t{number}#0\tlabelled\n");
            truth += &format!("{language}\ttrain\ttrain-{number}\t{}#0\thidden\n", number + 4);
        }
    }
    std::fs::write(source.join("truth.tsv"), truth).unwrap();
    source
}

/// An experiment over a data set in MIRACL's layout with `truth.tsv`: one judged arm with two seeds, one without a judge.
pub(super) fn experiment(folder: &Path, source: &Path, names: [&str; 2]) -> Experiment {
    let config = DatasetConfig { source: source.to_str().unwrap().into(), ..DatasetConfig::default() };
    let data = crate::fetch::dataset(&config, 0, &folder.join("dataset"), &Progress::silent()).unwrap();
    let dataset = Dataset::open(&data).unwrap();
    let truth = std::fs::read_to_string(source.join("truth.tsv")).unwrap();
    let maker = Maker { folder, dataset: &dataset, truth: &truth };
    let shared = maker.shared(&data);
    let mut arms = Vec::new();
    for (name, seed, gain) in [(names[0], 1, 0.1), (names[0], 2, 0.12), (names[1], 1, 0.0)] {
        let mut artefacts = shared.clone();
        if name == names[1] {
            artefacts.remove("judgements");
            artefacts.remove("supplement");
        }
        let kind = if name == names[0] { "judged" } else { "mined" };
        artefacts.insert("examples".into(), maker.examples(kind));
        artefacts.insert("batches".into(), maker.batches(kind, seed));
        artefacts.insert("trained".into(), maker.trained(kind, seed));
        artefacts.insert("measures".into(), maker.measures(&format!("{kind}-{seed}"), gain));
        arms.push(Arm { name: name.into(), seed, artefacts });
    }
    let baselines =
        [("BM25", -0.1), ("untouched", 0.0)].map(|(name, gain)| (name.to_owned(), maker.measures(name, gain)));
    let comparison = maker.comparison(&arms, &baselines);
    let truth = Some(source.join("truth.tsv"));
    let name = format!("Demo {}", names[0]);
    Experiment { name, arms, baselines: baselines.to_vec(), comparison, truth, people: people() }
}

/// Two people over three Arabic pairs, at odds about one of them.
fn people() -> Vec<HumanGrade> {
    let grade = |query: usize, annotator: &str, grade| HumanGrade {
        language: Language::new("ar").unwrap(),
        query: format!("train-{query}"),
        passage: format!("{}#0", query + 4),
        annotator: annotator.into(),
        grade,
    };
    let anna = [grade(0, "anna", 2), grade(1, "anna", 2), grade(2, "anna", 0)];
    let ben = [grade(0, "ben", 2), grade(1, "ben", 0), grade(2, "ben", 0)];
    anna.into_iter().chain(ben).collect()
}

/// The configuration of a stage, its own where the page reads it.
fn config(stage: &str, name: &str) -> Value {
    match stage {
        "sample" if name == "judged" => json!({ "negatives": 5, "step_negatives": 3 }),
        "sample" => json!({ "negatives": 4, "step_negatives": 3, "miner": { "rule": "top-k" } }),
        "train" => json!({ "train": { "reading": "negative", "weights": {} }, "encoder": { "layers": 6 } }),
        _ => json!({ "name": name, "model": "a-model-1.5b-instruct" }),
    }
}

struct Maker<'a> {
    folder: &'a Path,
    dataset: &'a Dataset,
    truth: &'a str,
}

impl Maker<'_> {
    fn artefact(&self, stage: &str, name: &str, fill: impl FnOnce(&mut Draft, &mut Summary)) -> Artefact {
        let recipe = Recipe::new(stage, 1, &config(stage, name)).unwrap().input_key("made as", name);
        let Outcome::Write(mut draft) = draft(&self.folder.join(format!("{stage}-{name}")), recipe).unwrap() else {
            panic!("made twice")
        };
        let mut summary = Summary::default();
        fill(&mut draft, &mut summary);
        draft.commit(summary).unwrap()
    }

    fn shared(&self, data: &Artefact) -> BTreeMap<String, Artefact> {
        let model = self.artefact("model", "x", |_, summary| {
            summary.note("the weights were rounded to 4 bits (Q4_0) by the package they came in");
        });
        let candidates = self.per_language("mine", "LANG.jsonl", Self::candidates);
        let judgements = self.artefact("judge", "x", |draft, summary| self.fill_judgements(draft, summary));
        let supplement = self.per_language("generate", "LANG.jsonl", |partition, query| {
            let text = &partition.split(Split::Train).unwrap().queries.query(query).text;
            let list = Self::candidates(partition, query)["candidates"].as_array().unwrap()[1].clone();
            let judgement =
                json!({ "passage": list["passage"], "verdict": "negative", "accuracy": 0, "completeness": 1 });
            json!({ "query": id(partition, query), "summary": text, "generated": format!("{text} 2"), "novelty": 0.5,
                    "candidates": [list], "judgements": [judgement] })
        });
        let topics = self.artefact("topic", "x", |draft, _| {
            let of = |partition: &Partition| {
                let numbers = partition.corpus.indices().map(|index| index.0 % 3).collect::<Vec<_>>();
                (partition.language.to_string(), numbers)
            };
            let passages: BTreeMap<String, Vec<u32>> = self.dataset.partitions.iter().map(of).collect();
            let labels = ["Geography, Nairobi", "رياضة, Football", HOSTILE];
            let text = json!({ "labels": labels, "passages": passages });
            draft.write_lines("topics.json", [text]).unwrap();
        });
        let roles = [
            ("dataset", data.clone()),
            ("model", model),
            ("candidates", candidates),
            ("judgements", judgements),
            ("supplement", supplement),
            ("topics", topics),
        ];
        roles.map(|(role, artefact)| (role.to_owned(), artefact)).into()
    }

    fn per_language(&self, stage: &str, file: &str, row: impl Fn(&Partition, QueryIndex) -> Value) -> Artefact {
        self.artefact(stage, "x", |draft, summary| {
            if stage == "generate" {
                let adding = crate::judge::Estimate::wilson(2, 4);
                let gain = crate::generate::Gain { tried: 4, used: 3, left_out: 5, adding, ..Default::default() };
                draft.write_lines("gains.json", [json!({ "ar": gain })]).unwrap();
            }
            for partition in &self.dataset.partitions {
                let rows: Vec<Value> = queries(partition).map(|query| row(partition, query)).collect();
                summary.count("queries", rows.len());
                summary.count(format!("{}: queries", partition.language), rows.len());
                draft.write_lines(&file.replace("LANG", partition.language.as_str()), rows).unwrap();
            }
        })
    }

    /// The passages after the positive, in the order of the corpus.
    fn listed(partition: &Partition, query: QueryIndex) -> Vec<PassageIndex> {
        let qrels = &partition.split(Split::Train).unwrap().qrels;
        let positive = qrels.positives(query).next().unwrap();
        let after = (1..partition.corpus.len() as u32).map(|step| (positive.0 + step) % partition.corpus.len() as u32);
        after
            .map(PassageIndex)
            .filter(|passage| qrels.grade(query, *passage).is_none_or(|grade| grade < 1))
            .take(5)
            .collect()
    }

    fn candidates(partition: &Partition, query: QueryIndex) -> Value {
        let listed = Self::listed(partition, query);
        let candidate = |(rank, passage): (usize, &PassageIndex)| {
            let score = 0.9 - 0.01 * (rank as f64 + f64::from(query.0));
            json!({ "passage": partition.corpus.id(*passage), "rank": rank + 1, "score": score, "model_score": score,
                    "evidence": [] })
        };
        let candidates: Vec<Value> = listed.iter().enumerate().map(candidate).collect();
        json!({ "query": id(partition, query), "positives": [], "candidates": candidates })
    }

    fn is_hidden(&self, partition: &Partition, query: &str, passage: &str) -> bool {
        let line = format!("{}\ttrain\t{query}\t{passage}\thidden\n", partition.language);
        self.truth.contains(&line)
    }

    fn fill_judgements(&self, draft: &mut Draft, summary: &mut Summary) {
        let (calls, ledger_hits, prompt_tokens, completion_tokens) = (1200, 48, 912_004, 20_310);
        let usage = Usage { calls, ledger_hits, prompt_tokens, completion_tokens, ..Usage::default() };
        draft.took(USAGE, usage).unwrap();
        let (mut canaries, mut calibration) = (BTreeMap::new(), BTreeMap::new());
        for partition in &self.dataset.partitions {
            let judge = |query: QueryIndex| {
                let judgement = |(rank, passage): (usize, PassageIndex)| {
                    let (query, passage) = (id(partition, query), partition.corpus.id(passage));
                    let (verdict, accuracy, completeness) = match rank {
                        _ if self.is_hidden(partition, query, passage) => ("false-negative", 2, 1),
                        4 => ("excluded", 1, 1),
                        _ => ("negative", 0, 1),
                    };
                    json!({ "passage": passage, "verdict": verdict, "accuracy": accuracy, "completeness": completeness })
                };
                let judgements: Vec<Value> =
                    Self::listed(partition, query).into_iter().enumerate().map(judgement).collect();
                json!({ "query": id(partition, query), "judgements": judgements })
            };
            let rows: Vec<Value> = queries(partition).map(judge).collect();
            for row in rows.iter().flat_map(|row| row["judgements"].as_array().unwrap()) {
                summary.count(row["verdict"].as_str().unwrap(), 1);
            }
            draft.write_lines(&format!("{}.jsonl", partition.language), rows).unwrap();
            let probe = json!({ "query": "q", "passage": "p", "expected": 2, "grade": 2 });
            canaries
                .insert(&partition.language, json!({ "passed": 1, "of": 1, "abstained": false, "probes": [probe] }));
            calibration.insert(&partition.language, calibration_of(9, 8));
        }
        summary.note("te abstains: 5 of 10 canaries passed");
        draft.write_lines("canaries.json", [canaries]).unwrap();
        draft.write_lines("calibration.json", [calibration]).unwrap();
        let swap = json!({ "same": crate::judge::Estimate::wilson(7, 9), "lower": 1, "higher": 1 });
        draft.write_lines("swaps.json", [json!({ "ar": { "order": swap, "reference": swap } })]).unwrap();
    }

    fn examples(&self, kind: &str) -> Artefact {
        let folder = self.folder.join(format!("sample-{kind}"));
        if folder.exists() {
            return Artefact::open(&folder).unwrap();
        }
        self.artefact("sample", kind, |draft, summary| {
            for partition in &self.dataset.partitions {
                let rows = queries(partition).map(|query| self.example(partition, query, kind));
                draft.write_lines(&format!("{}.train.jsonl", partition.language), rows).unwrap();
                summary.count("train queries", queries(partition).count());
            }
            summary.value("yield", 0.83);
        })
    }

    fn example(&self, partition: &Partition, query: QueryIndex, kind: &str) -> Value {
        let keeps = |passage: &&PassageIndex| {
            kind == "mined" || !self.is_hidden(partition, id(partition, query), partition.corpus.id(**passage))
        };
        let provenance = |rank| match (kind, rank) {
            ("mined", _) => "mined",
            (_, 3) => "supplement",
            _ => "judged",
        };
        let listed = Self::listed(partition, query);
        let negative = |(rank, passage): (usize, &PassageIndex)| json!({ "passage": partition.corpus.id(*passage), "provenance": provenance(rank) });
        let negatives: Vec<Value> = listed.iter().filter(keeps).enumerate().map(negative).collect();
        json!({ "query": id(partition, query), "positives": [positive(partition, query)], "relevant": [],
                "negatives": negatives })
    }

    fn batches(&self, kind: &str, seed: u64) -> Artefact {
        self.artefact("batch", &format!("{kind}-{seed}"), |draft, summary| {
            let mut steps = Vec::new();
            for (epoch, partition) in (0..2).flat_map(|epoch| self.dataset.partitions.iter().map(move |p| (epoch, p))) {
                let row = |query| {
                    json!({ "language": partition.language, "query": id(partition, query),
                            "positive": positive(partition, query), "negatives": [], "masked": [1] })
                };
                let rows: Vec<Value> = queries(partition).map(row).collect();
                steps.push(json!({ "step": steps.len(), "epoch": epoch, "rows": rows }));
            }
            draft.write_lines("batches.jsonl", steps).unwrap();
            draft
                .write_lines("exposure.json", [json!({ "language": { "ar": 30, "sw": 10 }, "topic": [20, 10, 10] })])
                .unwrap();
            summary.count("collisions avoided", 17);
        })
    }

    fn trained(&self, kind: &str, seed: u64) -> Artefact {
        self.artefact("train", &format!("{kind}-{seed}"), |draft, _| {
            let mut random = keyed(seed, "fixture", kind);
            let step = |step: u32| {
                let falling = (-f64::from(step) / 40.0).exp();
                json!({ "step": step, "epoch": step / 30, "language": "sw", "loss": 0.4 + falling + 0.2 * random.random::<f64>(),
                        "rate": 2e-5 * f64::from(150 - step) / 150.0, "gradient_norm": 1.0 + 3.0 * falling,
                        "accuracy": 0.8 - 0.4 * falling, "shares": { "judged": 0.7, "in-batch": 0.3 } })
            };
            draft.write_lines("log.jsonl", (0..150).map(step)).unwrap();
            let gain = if kind == "judged" { 0.08 } else { 0.03 };
            let validation = |epoch: u32| {
                let value = 0.55 + gain * (1.0 - (-f64::from(epoch)).exp());
                json!({ "step": 30 * epoch, "macro_average": value, "languages": { "sw": value } })
            };
            draft.write_lines("validation.jsonl", (0..=5).map(validation)).unwrap();
        })
    }

    fn measures(&self, name: &str, gain: f64) -> Artefact {
        self.artefact("evaluate", name, |draft, _| {
            let mut languages = BTreeMap::new();
            for partition in &self.dataset.partitions {
                let row = |(_, query): (QueryIndex, &crate::queries::Query)| {
                    let item = format!("{}{}", partition.language, query.id);
                    let base = keyed(0, "fixture base", &item).random_range(0.3..0.7);
                    let noise: f64 = keyed(0, name, &item).random_range(-0.06..0.06);
                    let values = |value: f64| Values::from([(Measure::Ndcg(10), value), (Measure::Recall(100), value)]);
                    let value = base + gain + noise;
                    let truth = Some(Values::from([(Measure::Ndcg(10), value + gain / 2.0)]));
                    QueryMeasures { query: query.id.clone(), retrieved: 10, unjudged: 8, values: values(value), truth }
                };
                let rows: Vec<QueryMeasures> = partition.split(Split::Dev).unwrap().queries.iter().map(row).collect();
                languages.insert(partition.language.clone(), means(partition, &rows));
                draft.write_lines(&format!("{}.jsonl", partition.language), rows).unwrap();
            }
            let split = Some(Split::Dev);
            let table = MeasureTable {
                split,
                complete: true,
                languages,
                mean: Values::new(),
                unjudged_at_10: 8.0,
                truth: None,
            };
            draft.write_lines(MeasureTable::FILE, [table]).unwrap();
        })
    }

    fn comparison(&self, arms: &[Arm], baselines: &[(String, Artefact)]) -> Artefact {
        let mut systems = vec![System { name: baselines[0].0.clone(), seeds: vec![baselines[0].1.clone()] }];
        for arm in arms {
            let measures = arm.artefacts["measures"].clone();
            match systems.iter_mut().find(|system| system.name == arm.name) {
                Some(system) => system.seeds.push(measures),
                None => systems.push(System { name: arm.name.clone(), seeds: vec![measures] }),
            }
        }
        let baseline = System { name: baselines[1].0.clone(), seeds: vec![baselines[1].1.clone()] };
        let config = CompareConfig { draws: 1000, ..CompareConfig::default() };
        compare(&baseline, &systems, &config, &self.folder.join("comparison"), &Progress::silent()).unwrap()
    }
}

fn queries(partition: &Partition) -> impl Iterator<Item = QueryIndex> {
    partition.split(Split::Train).unwrap().queries.iter().map(|(query, _)| query)
}

fn id(partition: &Partition, query: QueryIndex) -> &str {
    &partition.split(Split::Train).unwrap().queries.query(query).id
}

fn positive(partition: &Partition, query: QueryIndex) -> &str {
    let qrels = &partition.split(Split::Train).unwrap().qrels;
    partition.corpus.id(qrels.positives(query).next().unwrap())
}

fn means(partition: &Partition, rows: &[QueryMeasures]) -> LanguageMeasures {
    let mean = |values: Vec<&Values>| -> Values {
        let sum = |measure: &Measure| values.iter().map(|values| values[measure]).sum::<f64>() / values.len() as f64;
        values[0].keys().map(|measure| (*measure, sum(measure))).collect()
    };
    LanguageMeasures {
        pool: Pool { passages: Some(partition.corpus.len()), declared: None },
        queries: rows.len(),
        found: rows.len(),
        unjudged_at_10: 8.0,
        mean: mean(rows.iter().map(|row| &row.values).collect()),
        truth: Some(mean(rows.iter().map(|row| row.truth.as_ref().unwrap()).collect())),
    }
}

fn calibration_of(positives: usize, negatives: usize) -> impl Serialize {
    let share = |count, of| crate::judge::Estimate::wilson(count, of);
    let rates = crate::judge::Rates {
        sensitivity: share(positives, 10),
        specificity: share(negatives, 10),
        apparent: share(3, 10),
        corrected: crate::judge::Corrected::Rate { rate: 0.25, low: 0.1, high: 0.5 },
        ..crate::judge::Rates::default()
    };
    let counts = |grades| crate::judge::GradeCounts { grades, unknown: 0 };
    crate::judge::Calibration {
        positives: counts([10 - positives, 0, positives]),
        negatives: counts([negatives, 0, 10 - negatives]),
        eliminated: rates,
        false_negative: rates,
        reliability: vec![crate::judge::Bin { claimed: 0.75, relevant: share(3, 4) }],
        brier: Some(0.2),
        ..crate::judge::Calibration::default()
    }
}
