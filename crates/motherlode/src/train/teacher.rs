//! A teacher's scores of training pairs, for distillation.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::artefact::Artefact;
use crate::corpus::Language;
use crate::error::{Error, Result};
use crate::judge::{QueryJudgements, Verdict};
use crate::mine::QueryCandidates;

/// Whose scores are imitated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TeacherKind {
    /// The untouched model: its scores of positives and candidates in the artefact of `mine`.
    #[default]
    Untouched,
    /// The judge: accuracy + completeness of a candidate in the artefact of `judge`, 4 for a positive.
    Judge,
}

/// The judge's grade of a positive: both criteria at their highest.
const POSITIVE_GRADE: f32 = 4.0;

/// The scores that a teacher gave.
#[derive(Debug, Default)]
pub(super) struct Teacher {
    queries: HashMap<(Language, String), Scores>,
}

#[derive(Debug, Default)]
struct Scores {
    passages: HashMap<String, f32>,
    /// For passages that have no score of their own, when they are the row's positive.
    positive: Option<f32>,
}

impl Teacher {
    /// Reads the scores of all languages of an artefact: of `mine` for the untouched model, of `judge` for the judge.
    pub(super) fn open(kind: TeacherKind, artefact: Option<&Artefact>) -> Result<Self> {
        let needed = match kind {
            TeacherKind::Untouched => "`distillation.teacher = \"untouched\"` needs the candidates of `mine`",
            TeacherKind::Judge => "`distillation.teacher = \"judge\"` needs the judgements of `judge`",
        };
        let artefact = artefact.ok_or_else(|| Error::config(format!("train: {needed}")))?;
        let mut teacher = Self::default();
        for (language, file) in language_files(artefact)? {
            match kind {
                TeacherKind::Untouched => teacher.learn_candidates(&language, artefact.read_lines(file)?),
                TeacherKind::Judge => teacher.learn_judgements(&language, artefact.read_lines(file)?),
            }
        }
        Ok(teacher)
    }

    fn learn_candidates(&mut self, language: &Language, queries: Vec<QueryCandidates>) {
        for query in queries {
            let candidates = query.candidates.into_iter().map(|candidate| (candidate.passage, candidate.model_score));
            let passages = query.positives.into_iter().chain(candidates).collect();
            self.queries.insert((language.clone(), query.query), Scores { passages, positive: None });
        }
    }

    fn learn_judgements(&mut self, language: &Language, queries: Vec<QueryJudgements>) {
        for query in queries {
            let mut passages = HashMap::new();
            for judgement in query.judgements {
                let grades = judgement.accuracy.zip(judgement.completeness);
                let counts = !matches!(judgement.verdict, Verdict::Unknown | Verdict::Abstained | Verdict::Unjudged);
                if let (Some((accuracy, completeness)), true) = (grades, counts) {
                    passages.insert(judgement.passage, f32::from(accuracy + completeness));
                }
            }
            let scores = Scores { passages, positive: Some(POSITIVE_GRADE) };
            self.queries.insert((language.clone(), query.query), scores);
        }
    }

    /// The scores of a row's passages, the positive first; empty where the teacher knows nothing of the query.
    pub(super) fn scores<'a>(
        &self,
        language: &Language,
        query: &str,
        passages: impl Iterator<Item = &'a String>,
    ) -> Vec<Option<f32>> {
        if self.queries.is_empty() {
            return Vec::new();
        }
        let Some(scores) = self.queries.get(&(language.clone(), query.to_owned())) else { return Vec::new() };
        let score = |(place, passage): (usize, &String)| {
            let otherwise = if place == 0 { scores.positive } else { None };
            scores.passages.get(passage).copied().or(otherwise)
        };
        passages.enumerate().map(score).collect()
    }
}

/// The `LANG.jsonl` files of an artefact.
pub(super) fn language_files(artefact: &Artefact) -> Result<BTreeMap<Language, &str>> {
    let files = artefact.manifest().files.iter().map(|file| file.path.as_str());
    let named = files.filter_map(|file| file.strip_suffix(".jsonl").map(|name| (name, file)));
    let plain = named.filter(|(name, _)| !name.contains(['.', '/']));
    plain.map(|(name, file)| Ok((Language::new(name)?, file))).collect()
}
