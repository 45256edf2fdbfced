//! Explanations: every verdict with the texts and the reasons, for a person to read.

use std::collections::BTreeMap;

use serde::Serialize;

use super::cascade::Thresholds;
use super::verdict::Grades;
use super::{Judge, Judged, Judgement, Verdict, passage_named, passage_text, query_named};
use crate::corpus::Language;
use crate::error::Result;
use crate::mine::{Candidate, QueryCandidates};

/// Characters of a passage that are shown.
const EXCERPT: usize = 400;

/// One verdict: a line of `LANG.explained.jsonl`.
#[derive(Serialize)]
pub(super) struct Explanation {
    query: String,
    question: String,
    passage: String,
    text: String,
    verdict: Verdict,
    why: String,
    rank: u32,
    model_score: f32,
    /// The best positive's score under the same model.
    positive_score: Option<f32>,
    retrievers: BTreeMap<String, u32>,
    /// What the judge wrote, one reply a vote.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    replies: Vec<String>,
}

/// The explanations of all candidates of a language.
///
/// *Order*: queries and candidates as mined.
pub(super) fn explanations(
    judge: &Judge,
    (language, lists): (&Language, &[QueryCandidates]),
    judged: &Judged,
    thresholds: Option<Thresholds>,
) -> Result<Vec<Explanation>> {
    let partition = judge.dataset.partition(language)?;
    let queries = &partition.split(judge.split)?.queries;
    let mut rows = Vec::new();
    for (list, row) in lists.iter().zip(&judged.lists[language]) {
        let question = &queries.query(query_named(partition, judge.split, &list.query)?).text;
        for (candidate, judgement) in list.candidates.iter().zip(&row.judgements) {
            let passage = partition.corpus.passage(passage_named(partition, &candidate.passage)?);
            let retrievers = candidate.evidence.iter().map(|said| (said.retriever.clone(), said.rank)).collect();
            rows.push(Explanation {
                query: list.query.clone(),
                question: question.clone(),
                passage: candidate.passage.clone(),
                text: excerpt(&passage_text(passage)),
                verdict: judgement.verdict,
                why: why(judgement, candidate, thresholds),
                rank: candidate.rank,
                model_score: candidate.model_score,
                positive_score: list.positives.iter().map(|(_, score)| *score).reduce(f32::max),
                retrievers,
                replies: replies(judge, judgement)?,
            });
        }
    }
    Ok(rows)
}

fn excerpt(text: &str) -> String {
    let mut characters = text.chars();
    let beginning: String = characters.by_ref().take(EXCERPT).collect();
    if characters.next().is_some() { beginning + "…" } else { beginning }
}

fn replies(judge: &Judge, judgement: &Judgement) -> Result<Vec<String>> {
    let mut replies = Vec::new();
    for key in &judgement.ledger {
        replies.extend(judge.llm.ledger().get(key)?.map(|answer| answer.text));
    }
    Ok(replies)
}

/// The reason of a verdict in one sentence, without its full stop. `thresholds` are those of a cheap judge.
pub(crate) fn why(judgement: &Judgement, candidate: &Candidate, thresholds: Option<Thresholds>) -> String {
    let probability = judgement.screened.as_ref().and_then(|screened| screened.probability);
    let decided = judgement.screened.as_ref().is_some_and(|screened| screened.decided);
    let because = match (judgement.accuracy, judgement.completeness, probability, thresholds) {
        (Some(accuracy), Some(completeness), ..) => of_grades(Grades { accuracy, completeness }),
        (.., Some(probability), Some(thresholds)) if decided => of_probability(probability, thresholds),
        _ => return without_grades(judgement, candidate),
    };
    match judgement.verdict {
        Verdict::Abstained => because + ", but too few of the language's canaries passed: it does not count",
        verdict => format!("{because}: {}", meaning(verdict)),
    }
}

fn without_grades(judgement: &Judgement, candidate: &Candidate) -> String {
    match (judgement.verdict, candidate.human_grade) {
        (Verdict::Human, Some(grade)) => format!("people judged it, grade {grade}: {}", meaning(Verdict::Human)),
        (Verdict::Unknown, _) => "none of the judge's replies could be read: never used as a negative".to_owned(),
        (Verdict::Abstained, _) => {
            "none of the judge's replies could be read, and too few of the language's canaries passed".to_owned()
        }
        _ => "not asked: deeper than judge.depth, behind judge.max_pairs, or the budget was spent before".to_owned(),
    }
}

fn of_grades(grades: Grades) -> String {
    let accuracy = ["it is wrong about it", "it is mostly right", "it is right"][usize::from(grades.accuracy.min(2))];
    let completeness = ["the answer is not there", "part of the answer is there", "the answer is there"]
        [usize::from(grades.completeness.min(2))];
    format!(
        "accuracy {} ({accuracy}) and completeness {} ({completeness}) make grade {}",
        grades.accuracy,
        grades.completeness,
        grades.combined()
    )
}

fn of_probability(probability: f64, thresholds: Thresholds) -> String {
    let said = format!("the cheap judge finds it relevant with probability {probability:.3}");
    match (thresholds.low, thresholds.high) {
        (Some(low), _) if probability <= low => format!("{said}, at most {low:.3}"),
        (_, Some(high)) => format!("{said}, at least {high:.3}"),
        _ => said,
    }
}

fn meaning(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Negative | Verdict::Human => "a negative",
        Verdict::Excluded => "excluded, neither negative nor positive",
        Verdict::FalseNegative => "a false negative, it answers the query",
        Verdict::Unknown => "unknown",
        Verdict::Abstained => "abstained",
        Verdict::Unjudged => "unjudged",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_at_characters() {
        assert_eq!(excerpt("答え"), "答え");
        assert_eq!(excerpt(&"答".repeat(EXCERPT + 1)).chars().count(), EXCERPT + 1);
    }

    #[test]
    fn grades_become_a_sentence() {
        let words = of_grades(Grades { accuracy: 2, completeness: 0 });
        assert_eq!(words, "accuracy 2 (it is right) and completeness 0 (the answer is not there) make grade 0");
        let thresholds = Thresholds { low: Some(0.1), high: Some(0.9) };
        assert!(of_probability(0.05, thresholds).ends_with("0.050, at most 0.100"));
        assert!(of_probability(0.95, thresholds).ends_with("0.950, at least 0.900"));
    }
}
