//! Checks on real weights: agreement with transformers, and the exactness of an ensemble of two different encoders.
//!
//! The models lie in `target/test-models`, where `.ci/run` fetches them by the command itself; without them the tests say so
//! and skip. `tests/golden/engine.py` wrote the golden vectors.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where something unexpected happens, and says why it skips"
)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use motherlode::artefact::Artefact;
use motherlode::corpus::Language;
use motherlode::dataset::{Dataset, Partition, Split};
use motherlode::encode::{EncodeInputs, EncoderConfig, Vectors, VectorsOf, encode};
use motherlode::engine::{Engine, LanguageModel, LoadOptions, Next, Precision};
use motherlode::fetch::{self, DatasetConfig};
use motherlode::fuse::{FuseConfig, FuseInputs, Member, fuse};
use motherlode::gguf::Gguf;
use motherlode::progress::Progress;
use motherlode::search::open_run;
use motherlode_engine::CpuEngine;

const MODELS: [&str; 2] = ["multilingual-e5-small", "all-MiniLM-L6-v2"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The models' artefacts, if both are there.
fn models() -> Option<[Artefact; 2]> {
    let folders = MODELS.map(|name| root().join("target/test-models").join(name));
    if let Some(missing) = folders.iter().find(|folder| !folder.join("manifest.json").exists()) {
        println!("skipped: {} is not there; .ci/run shows how to fetch it", missing.display());
        return None;
    }
    Some(folders.map(|folder| Artefact::open(&folder).unwrap()))
}

#[test]
fn vectors_agree_with_transformers() {
    let Some(models) = models() else { return };
    for (model, name) in models.iter().zip(MODELS) {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.json"));
        let golden: serde_json::Value = std::fs::read_to_string(golden).unwrap().parse().unwrap();
        let sequences: Vec<Vec<u32>> = serde_json::from_value(golden["sequences"].clone()).unwrap();
        let expected: Vec<Vec<f32>> = serde_json::from_value(golden["vectors"].clone()).unwrap();
        let encoder = CpuEngine.encoder(model.folder(), &LoadOptions::default()).unwrap();
        let vectors = encoder.encode(&sequences.into_iter().collect()).unwrap();
        let differences = vectors.values().iter().zip(expected.concat()).map(|(ours, theirs)| (ours - theirs).abs());
        let greatest = differences.fold(0.0, f32::max);
        assert!(greatest < 1e-4, "{name}: greatest difference {greatest:e}");
    }
}

/// `tests/golden/language_model.py` asked transformers, with the same weights in f32, and llama.cpp, which rounds what enters
/// its products to 8 bits: that moves the logarithms of this small model's probabilities by up to a quarter.
#[test]
fn a_language_model_scores_as_transformers_and_llama_cpp_do() {
    let path = root().join("target/test-models/SmolLM2-135M-Instruct.gguf");
    if !path.exists() {
        println!("skipped: {} is not there; .ci/run shows how to fetch it", path.display());
        return;
    }
    let golden = std::fs::read_to_string(root().join("tests/golden/language_model.json")).unwrap();
    let cases: Vec<Chat> = serde_json::from_str(&golden).unwrap();
    let file = Arc::new(Gguf::open(&path).unwrap());
    for (precision, tolerance) in [(Precision::F32, 1e-3), (Precision::Bf16x3, 2e-3), (Precision::Bf16, 0.1)] {
        let model = CpuEngine.language_model(file.clone(), precision).unwrap();
        let scores = first_scores(&*model, &cases);
        let differences = cases.iter().zip(&scores).flat_map(|(case, scores)| {
            let total = scores.iter().map(|score| f64::from(*score).exp()).sum::<f64>().ln();
            case.likeliest.iter().zip(&case.exact).map(move |((token, llama), exact)| {
                let ours = f64::from(scores[*token]) - total;
                [(ours - exact).abs(), (ours - llama).abs()]
            })
        });
        let [exact, llama] =
            differences.fold([0.0_f64; 2], |most, found| [most[0].max(found[0]), most[1].max(found[1])]);
        println!("{precision:?}: greatest difference from transformers {exact:.5}, from llama.cpp {llama:.4}");
        assert!(exact < tolerance && llama < 0.3, "{precision:?}: {exact} from transformers, {llama} from llama.cpp");
    }
}

/// The scores of what follows each chat.
fn first_scores(model: &dyn LanguageModel, cases: &[Chat]) -> Vec<Vec<f32>> {
    let prompts: Vec<Vec<u32>> =
        cases.iter().map(|case| [case.tokens.clone(), case.opening.clone()].concat()).collect();
    let scores = Mutex::new(vec![Vec::new(); cases.len()]);
    let choose = |_: usize, prompt: usize, found: &[f32]| {
        scores.lock().unwrap()[prompt] = found.to_vec();
        Next::End
    };
    model.continue_texts(&[prompts], &choose).unwrap();
    scores.into_inner().unwrap()
}

/// A chat of `language_model.json`, with what is asked of it here.
#[derive(serde::Deserialize)]
struct Chat {
    tokens: Vec<u32>,
    opening: Vec<u32>,
    likeliest: Vec<(usize, f64)>,
    exact: Vec<f64>,
}

/// English and Swahili of the demo.
fn demo(folder: &Path) -> Dataset {
    let languages = ["en", "sw"].map(|tag| Language::new(tag).unwrap()).into();
    let source = root().join("data/demo").display().to_string();
    let config = DatasetConfig { source, languages, ..DatasetConfig::default() };
    Dataset::open(&fetch::dataset(&config, 0, &folder.join("dataset"), &Progress::silent()).unwrap()).unwrap()
}

/// The mean cosine of every passage with every query under all members, by its definition, in double precision.
fn brute_force(partition: &Partition, vectors: &[Artefact]) -> Vec<Vec<f64>> {
    let queries = partition.split(Split::Train).unwrap().queries.len();
    let mut scores = vec![vec![0.0; partition.corpus.len()]; queries];
    for member in vectors {
        let [of_queries, of_passages] = [VectorsOf::Queries(Split::Train), VectorsOf::Passages]
            .map(|of| Vectors::open(member, &partition.language, of).unwrap());
        let row = |vectors: &Vectors, index| vectors.matrix().row(index).iter().copied().map(f64::from).collect();
        for (query, scores) in scores.iter_mut().enumerate() {
            let query: Vec<f64> = row(&of_queries, query);
            for (passage, score) in scores.iter_mut().enumerate() {
                let passage: Vec<f64> = row(&of_passages, passage);
                let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                let cosine = dot(&query, &passage) / (dot(&query, &query) * dot(&passage, &passage)).sqrt();
                *score += cosine / vectors.len() as f64;
            }
        }
    }
    scores
}

#[test]
fn a_concatenation_of_two_encoders_ranks_as_brute_force_does() {
    const DEPTH: usize = 15;
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let dataset = demo(folder.path());
    let vectors = models.each_ref().map(|model| {
        let (splits, engine) = (&[Split::Train][..], &CpuEngine);
        let inputs = EncodeInputs { dataset: &dataset, splits, engine, model: model.folder(), model_key: model.key() };
        let out = folder.path().join(model.key());
        encode(inputs, &EncoderConfig::default(), &out, &Progress::silent()).unwrap()
    });
    let members = [Member { name: "e5", artefact: &vectors[0] }, Member { name: "minilm", artefact: &vectors[1] }];
    let inputs = FuseInputs { dataset: &dataset, split: Split::Train, members: &members, sieve: None };
    let config = FuseConfig { depth: DEPTH, ..FuseConfig::default() };
    let fused = fuse(inputs, &config, &folder.path().join("fused"), &Progress::silent()).unwrap();
    for partition in &dataset.partitions {
        let run = open_run(&fused, &dataset, &partition.language, Split::Train).unwrap();
        for (ranking, scores) in run.rankings().iter().zip(brute_force(partition, &vectors)) {
            let mut best = scores.clone();
            best.sort_by(|a, b| b.total_cmp(a));
            assert_eq!(ranking.len(), DEPTH);
            for (found, best) in ranking.iter().zip(best) {
                let own = scores[found.passage.at()];
                assert!((f64::from(found.score) - own).abs() < 1e-6 && (own - best).abs() < 1e-6);
            }
        }
    }
}
