//! An experiment that nobody ran: artefacts as the stages write them, of any size.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use motherlode::artefact::{self, Artefact, Draft, Outcome, Recipe, Summary};
use motherlode::batch::{self, Row, Step};
use motherlode::corpus::{CorpusWriter, Language, Passage};
use motherlode::dataset::Dataset;
use motherlode::generate::QuerySupplement;
use motherlode::index::bm25::{self, Bm25Config, IndexInputs};
use motherlode::inspect::Arm;
use motherlode::judge::{Judgement, QueryJudgements, Verdict};
use motherlode::mine::{Candidate, Evidence, QueryCandidates};
use motherlode::progress::Progress;
use motherlode::sample::{Example, Negative, Provenance};
use motherlode::topic::{Topic, Topics};
use motherlode::{Error, Result};
use serde_json::json;

/// A query, a passage, a title, a topic and a summary that a careless page would run.
pub(crate) const HOSTILE: &str = "<script>alert('x')</script><img src=x onerror=\"alert(1)\"></td></table><!--";

/// How much of everything. Queries, passages and what they consist of are numbered, each language the same.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) languages: &'static [&'static str],
    /// Queries of a language.
    pub(crate) queries: usize,
    /// Candidates of a query.
    pub(crate) candidates: usize,
    /// Passages of a language.
    pub(crate) passages: usize,
    /// Words of a passage.
    pub(crate) words: usize,
    /// Times that every query is drawn.
    pub(crate) epochs: usize,
}

pub(crate) const SMALL: Size =
    Size { languages: &["ar", "sw"], queries: 12, candidates: 6, passages: 40, words: 12, epochs: 2 };

/// Queries of a step, and negatives of a query in it.
const BATCH: usize = 4;
const NEGATIVES: usize = 3;

/// All artefacts below `folder`, by role.
pub(crate) fn arm(folder: &Path, size: Size) -> Arm {
    let per_language = |stage: &str, rows: &dyn Fn(&mut Draft, Language)| {
        write(&folder.join(stage), stage, |draft| {
            size.languages.iter().for_each(|tag| rows(draft, Language::new(tag).unwrap()));
        })
    };
    let candidates = per_language("mine", &|draft, language| {
        let rows = (0..size.queries).map(|query| candidates(size, query));
        draft.write_lines(&format!("{language}.jsonl"), rows).unwrap();
    });
    let judgements = per_language("judge", &|draft, language| {
        let rows = (0..size.queries).map(|query| judgements(size, query));
        draft.write_lines(&format!("{language}.jsonl"), rows).unwrap();
    });
    let supplement = per_language("generate", &|draft, language| {
        draft.write_lines(&format!("{language}.jsonl"), [supplement(size)]).unwrap();
    });
    let examples = per_language("sample", &|draft, language| {
        for (set, validates) in [("train", false), ("validation", true)] {
            let rows =
                (0..size.queries).filter(|query| (query % 6 == 5) == validates).map(|query| example(size, query));
            draft.write_lines(&format!("{language}.{set}.jsonl"), rows).unwrap();
        }
    });
    let dataset = dataset(folder, size);
    let artefacts = [
        ("index", index(folder, &dataset)),
        ("dataset", dataset),
        ("candidates", candidates),
        ("judgements", judgements),
        ("supplement", supplement),
        ("topics", topics(folder, size)),
        ("examples", examples),
        ("batches", batches(folder, size)),
    ];
    Arm {
        experiment: format!("generated {HOSTILE}"),
        name: "main".to_owned(),
        seed: 1,
        artefacts: artefacts.map(|(role, artefact)| (role.to_owned(), artefact)).into(),
        missing: None,
    }
}

fn write(folder: &Path, stage: &str, fill: impl FnOnce(&mut Draft)) -> Artefact {
    match artefact::draft(folder, Recipe::new(stage, 1, &()).unwrap()).unwrap() {
        Outcome::UpToDate(artefact) => artefact,
        Outcome::Write(mut draft) => {
            fill(&mut draft);
            draft.commit(Summary::default()).unwrap()
        }
    }
}

fn dataset(folder: &Path, size: Size) -> Artefact {
    write(&folder.join("dataset"), Dataset::STAGE, |draft| {
        for language in size.languages {
            let corpus = |output: &mut _| -> Result<u64> {
                let mut writer = CorpusWriter::new(output, folder)?;
                for number in 0..size.passages {
                    let (title, text) = passage(language, number, size.words);
                    writer.push(Passage { id: &format!("p{number}"), title: &title, text: &text })?;
                }
                writer.finish()
            };
            draft.write(&format!("{language}/passages.bin"), corpus).unwrap();
            let lines = |line: &dyn Fn(usize) -> String| (0..size.queries).map(line).collect::<String>();
            let queries = lines(&|query| format!("q{query}\t{}\n", question(language, query)));
            let qrels = lines(&|query| format!("q{query}\t0\t{}\t1\n", positive(size, query)));
            for (name, text) in [("queries.train.tsv", queries), ("qrels.train.tsv", qrels)] {
                let file = format!("{language}/{name}");
                draft
                    .write(&file, |output| output.write_all(text.as_bytes()).map(|()| 1).map_err(Error::io(folder)))
                    .unwrap();
            }
        }
    })
}

fn index(folder: &Path, dataset: &Artefact) -> Artefact {
    let dataset = Dataset::open(dataset).unwrap();
    let inputs = IndexInputs { dataset: &dataset, dictionary: None };
    bm25::index(inputs, &Bm25Config::default(), &folder.join("index"), &Progress::silent()).unwrap()
}

fn question(language: &str, query: usize) -> String {
    match (language, query) {
        ("sw", 1) => HOSTILE.to_owned(),
        ("ar", _) => format!("ما هي عاصمة كينيا {query}؟"),
        _ => format!("Mji mkuu wa Kenya ni upi {query}?"),
    }
}

fn passage(language: &str, number: usize, words: usize) -> (String, String) {
    if number.is_multiple_of(7) {
        return (HOSTILE.to_owned(), format!("{HOSTILE} {number}"));
    }
    let stem = if language == "ar" { "نيروبي" } else { "nairobi" };
    let text: Vec<String> = (0..words).map(|word| format!("{stem}{}", (number * 31 + word * 17) % 5000)).collect();
    (format!("{stem} {number}"), text.join(" "))
}

fn positive(size: Size, query: usize) -> String {
    format!("p{}", query % size.passages)
}

/// The `rank`th candidate of a query, from 1: never its positive.
fn listed(size: Size, query: usize, rank: usize) -> String {
    format!("p{}", (query + rank) % size.passages)
}

fn candidates(size: Size, query: usize) -> QueryCandidates {
    let candidate = |rank: usize| {
        let evidence = [("e5", 2 * rank), ("bm25", rank + 3)].map(|(name, rank)| Evidence {
            retriever: name.to_owned(),
            rank: rank as u32,
            score: 1.0 / rank as f32,
        });
        Candidate {
            passage: listed(size, query, rank),
            rank: rank as u32,
            score: 0.03 / rank as f32,
            model_score: model_score(query, rank),
            human_grade: (verdict(query, rank) == Verdict::Human).then_some(0),
            evidence: if rank.is_multiple_of(3) { evidence[..1].to_vec() } else { evidence.to_vec() },
        }
    };
    QueryCandidates {
        query: format!("q{query}"),
        positives: vec![(positive(size, query), 0.7)],
        candidates: (1..=size.candidates).map(candidate).collect(),
    }
}

fn model_score(query: usize, rank: usize) -> f32 {
    0.9 - 0.01 * rank as f32 - 0.001 * (query % 300) as f32
}

fn verdict(query: usize, rank: usize) -> Verdict {
    match (query + rank) % 6 {
        0 => Verdict::FalseNegative,
        1 => Verdict::Excluded,
        2 => Verdict::Human,
        _ => Verdict::Negative,
    }
}

fn judgements(size: Size, query: usize) -> QueryJudgements {
    let judgement = |rank: usize| {
        let verdict = verdict(query, rank);
        let grade = match verdict {
            Verdict::Negative => Some(0),
            Verdict::Excluded => Some(1),
            Verdict::FalseNegative => Some(2),
            _ => None,
        };
        judged(&listed(size, query, rank), verdict, grade)
    };
    QueryJudgements { query: format!("q{query}"), judgements: (1..=size.candidates).map(judgement).collect() }
}

/// A judgement with both criteria of one grade.
fn judged(passage: &str, verdict: Verdict, grade: Option<u8>) -> Judgement {
    let line = json!({ "passage": passage, "verdict": verdict, "accuracy": grade, "completeness": grade });
    serde_json::from_value(line).unwrap()
}

fn supplement(size: Size) -> QuerySupplement {
    let passage = format!("p{}", size.passages - 1);
    let judgement = judged(&passage, Verdict::Negative, Some(0));
    QuerySupplement {
        query: "q0".to_owned(),
        summary: Some(format!("a summary {HOSTILE}")),
        generated: "a generated query".to_owned(),
        rejected: None,
        novelty: 0.5,
        candidates: vec![Candidate { passage, ..candidates(size, 0).candidates.remove(0) }],
        judgements: vec![judgement],
    }
}

fn negatives(size: Size, query: usize) -> Vec<Negative> {
    let ranks = 1..=size.candidates;
    let judged = ranks.filter(|rank| verdict(query, *rank) == Verdict::Negative);
    let judged = judged.map(|rank| Negative { passage: listed(size, query, rank), provenance: Provenance::Judged });
    let random = format!("p{}", (query + size.candidates + 1) % size.passages);
    judged.take(NEGATIVES - 1).chain([Negative { passage: random, provenance: Provenance::Random }]).collect()
}

fn example(size: Size, query: usize) -> Example {
    let positive = positive(size, query);
    let (query, negatives) = (format!("q{query}"), negatives(size, query));
    Example { query, positives: vec![positive.clone()], relevant: vec![positive], negatives }
}

fn topics(folder: &Path, size: Size) -> Artefact {
    let of = |tag: &&str| {
        (Language::new(tag).unwrap(), (0..size.passages).map(|passage| Topic(passage as u32 % 3)).collect())
    };
    let labels = ["Geography, Nairobi", "رياضة", HOSTILE].map(str::to_owned).to_vec();
    let passages: BTreeMap<Language, Vec<Topic>> = size.languages.iter().map(of).collect();
    write(&folder.join("topic"), "topic", |draft| {
        draft.write_lines("topics.json", [Topics { labels, passages }]).unwrap();
    })
}

/// Every training query once an epoch, in steps of one language; the first step's first row masks its last column.
fn batches(folder: &Path, size: Size) -> Artefact {
    let mut steps: Vec<Step> = Vec::new();
    for epoch in 0..size.epochs {
        for tag in size.languages {
            let row = |query: &usize| Row {
                language: Language::new(tag).unwrap(),
                query: format!("q{query}"),
                positive: positive(size, *query),
                negatives: negatives(size, *query),
                masked: Vec::new(),
            };
            let training: Vec<usize> = (0..size.queries).filter(|query| query % 6 != 5).collect();
            for queries in training.chunks(BATCH) {
                let rows = queries.iter().map(row).collect();
                steps.push(Step { step: steps.len() as u64, epoch: epoch as u32, rows });
            }
        }
    }
    let last = steps[0].columns().len() as u32 - 1;
    steps[0].rows[0].masked.push(last);
    write(&folder.join("batch"), batch::STAGE, |draft| draft.write_lines(batch::FILE, &steps).unwrap())
}
