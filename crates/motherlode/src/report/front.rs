//! The front: what was done, the answer in one sentence for each arm, what a reader must not miss, and what it cost.

use super::material::{Material, Taken};
use super::page::{Section, folded};
use super::table::{Cell, Table, grouped, minus, signed};
use crate::corpus::Language;
use crate::dataset::{Dataset, Split};
use crate::evaluate::compare::{CompareConfig, Difference, MeasureComparison, SystemComparison};
use crate::evaluate::{Judgements, Measure};
use crate::html::{Element, element};
use crate::llm::Usage;

/// The measure of the answer.
pub(super) const HEADLINE: Measure = Measure::Ndcg(10);

/// The front of the page.
pub(super) fn front(material: &Material<'_>) -> Section {
    let mut section = Section::new("front", "");
    section.say(deeds(material));
    let answers = answers(material);
    if answers.is_empty() {
        section.say(format!("No arm was compared by {HEADLINE}, so there is no answer here."));
    }
    section.add(element("ul").class("answers").children(answers));
    if let Some(notes) = notes(material) {
        section.add(notes);
    }
    let stages = by_stage(material);
    section.say(cost(&stages));
    if let Some(table) = section.tabled("stages", &of_stages(&stages)) {
        section.add(folded("What each stage took", table));
    }
    section
}

/// What was done, in one paragraph, as far as the artefacts say it.
fn deeds(material: &Material<'_>) -> String {
    let mut deeds: Vec<String> = material.datasets().map(of_dataset).collect();
    let count = |role: &str, name: &str| {
        let found = material.shared(role).into_iter().next()?;
        found.artefact.summary().counts.get(name).copied()
    };
    if let Some(candidates) = count("candidates", "candidates") {
        deeds.push(format!("{} candidates for hard negatives were mined.", grouped(candidates)));
    }
    for shared in material.shared("judgements").into_iter().take(1) {
        let counts = &shared.artefact.summary().counts;
        let of = |name: &str| counts.get(name).copied().unwrap_or(0);
        let model = shared.artefact.manifest().config["model"].as_str().unwrap_or("a language model").to_owned();
        let answered = grouped(of("negative") + of("excluded") + of("false-negative"));
        let (false_negatives, excluded) = (grouped(of("false-negative")), grouped(of("excluded")));
        deeds.push(format!(
            "{model} judged {answered} of them and called {false_negatives} false negatives and {excluded} partly relevant."
        ));
    }
    let trainings = material.shared("trained").len() as u64;
    if trainings > 0 {
        let models = if trainings == 1 { "model was" } else { "models were" };
        deeds.push(format!("{} {models} fine-tuned.", grouped(trainings)));
    }
    deeds.join(" ")
}

fn of_dataset(dataset: &Dataset) -> String {
    let passages: usize = dataset.partitions.iter().map(|partition| partition.corpus.len()).sum();
    let queries = |split: Split| {
        let splits = dataset.partitions.iter().filter_map(|partition| partition.split(split).ok());
        grouped(splits.map(|judged| judged.queries.len() as u64).sum())
    };
    let languages = match dataset.partitions.len() {
        1 => "1 language".to_owned(),
        count => format!("{count} languages"),
    };
    let (train, dev) = (queries(Split::Train), queries(Split::Dev));
    format!("{} passages in {languages}, {train} train and {dev} dev queries.", grouped(passages as u64))
}

/// One entry for each arm, in their order.
pub(super) fn answers(material: &Material<'_>) -> Vec<Element> {
    let comparison = &material.comparison;
    let by =
        |judgements| comparison.measures.iter().find(move |by| by.measure == HEADLINE && by.judgements == judgements);
    let Some(qrels) = by(Judgements::Qrels) else { return Vec::new() };
    let is_arm = |system: &&SystemComparison| material.experiment.arms.iter().any(|arm| arm.name == system.values.name);
    let answer = |system: &SystemComparison| {
        let verdict = Outcome::of(&system.macro_mean, &comparison.config);
        let name = &system.values.name;
        let mut entry = element("li").class(verdict.class());
        entry = entry.child(element("span").class("name").text(seeds_of(name, system.values.seeds)));
        entry =
            entry.child(element("span").class("said").text(sentence(system, &comparison.baseline, &comparison.config)));
        let against_truth = by(Judgements::Truth).and_then(|truth| system_named(truth, name)).map(|truth| {
            format!("Against the hidden truth: {}", sentence(truth, &comparison.baseline, &comparison.config))
        });
        let more = power(&system.macro_mean, &comparison.config).into_iter().chain(against_truth);
        entry.children(more.map(|text| element("span").class("more").text(text)))
    };
    qrels.systems.iter().filter(is_arm).map(answer).collect()
}

fn seeds_of(name: &str, seeds: usize) -> String {
    if seeds > 1 { format!("{name}, mean of {seeds} seeds") } else { name.to_owned() }
}

/// The system of this name.
pub(super) fn system_named<'a>(by: &'a MeasureComparison, name: &str) -> Option<&'a SystemComparison> {
    by.systems.iter().find(|system| system.values.name == name)
}

/// What a difference comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Better,
    Worse,
    Open,
}

impl Outcome {
    /// Better or worse only where the randomisation test and the interval agree on it.
    fn of(difference: &Difference, config: &CompareConfig) -> Self {
        let significant = difference.p_randomisation < config.alpha;
        match difference.interval {
            Some((low, _)) if significant && low > 0.0 => Self::Better,
            Some((_, high)) if significant && high < 0.0 => Self::Worse,
            _ => Self::Open,
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Open => "open",
        }
    }
}

/// The answer for one system: the macro difference in points of a hundred, its interval, and the languages.
pub(super) fn sentence(system: &SystemComparison, baseline: &str, config: &CompareConfig) -> String {
    let model = if baseline == "untouched" { "the untouched model".to_owned() } else { baseline.to_owned() };
    let difference = &system.macro_mean;
    let points = signed(100.0 * difference.difference, 1);
    let interval = difference
        .interval
        .map_or_else(String::new, |(low, high)| minus(&format!(" [{:.1}, {:.1}]", 100.0 * low, 100.0 * high)));
    let all = system.languages.len();
    let number = |count: usize| if count == 0 { "none".to_owned() } else { count.to_string() };
    let (better, worse) = (number(system.better), number(system.worse));
    let languages = format!("better in {better} of {all} languages, worse in {worse}");
    match Outcome::of(difference, config) {
        Outcome::Better => format!("{points} {HEADLINE}{interval} over {model}, {languages}."),
        Outcome::Worse => format!("Worse than {model}: {points} {HEADLINE}{interval}, {languages}."),
        Outcome::Open => format!("No significant difference from {model}: {points} {HEADLINE}{interval}, {languages}."),
    }
}

/// What could have been found, for an answer that found nothing.
fn power(difference: &Difference, config: &CompareConfig) -> Option<String> {
    let (shift, power) = (100.0 * difference.detectable?, 100.0 * config.power);
    let says =
        format!("With these queries a true difference of {shift:.1} points would show {power:.0} % of the time.");
    (Outcome::of(difference, config) == Outcome::Open).then_some(says)
}

/// The remarks of all stages, each once, with the stages that made it; one that only the language tells apart from others
/// names all languages.
fn notes(material: &Material<'_>) -> Option<Element> {
    let mut notes: Vec<(Vec<&str>, Vec<String>, String)> = Vec::new();
    for (_, artefact) in material.artefacts() {
        let stage = artefact.manifest().stage.as_str();
        for note in &artefact.summary().notes {
            let (language, what) = match note.split_once(": ") {
                Some((tag, what)) if Language::new(tag).is_ok() => (Some(tag.to_owned()), what.to_owned()),
                _ => (None, note.clone()),
            };
            let place = notes.iter().position(|(.., said)| *said == what).unwrap_or(notes.len());
            if place == notes.len() {
                notes.push((Vec::new(), Vec::new(), what));
            }
            let (stages, languages, _) = &mut notes[place];
            stages.extend((!stages.contains(&stage)).then_some(stage));
            languages.extend(language.filter(|language| !languages.contains(language)));
        }
    }
    let line = |(stages, languages, what): &(Vec<&str>, Vec<String>, String)| match &languages[..] {
        [] => format!("{}: {what}", stages.join(", ")),
        languages => format!("{}: {}: {what}", stages.join(", "), languages.join(", ")),
    };
    let notes: Vec<String> = notes.iter().map(line).collect();
    let heading = element("h2").attribute("id", "notes").text("Not to be missed");
    let list = element("ul").children(notes.iter().map(|note| element("li").text(note)));
    let aside = element("aside").class("notes").attribute("aria-labelledby", "notes").child(heading).child(list);
    (!notes.is_empty()).then_some(aside)
}

/// The artefacts of one stage, and what they took together.
pub(super) struct StageCost<'a> {
    stage: &'a str,
    artefacts: u64,
    taken: Taken,
}

/// What each stage took when its artefacts were made, in the order of the pipeline.
pub(super) fn by_stage<'a>(material: &Material<'a>) -> Vec<StageCost<'a>> {
    let mut stages: Vec<StageCost<'a>> = Vec::new();
    for (_, artefact) in material.artefacts() {
        let (stage, taken) = (artefact.manifest().stage.as_str(), Taken::by(artefact).unwrap_or_default());
        let place = stages.iter().position(|known| known.stage == stage).unwrap_or(stages.len());
        if place == stages.len() {
            stages.push(StageCost { stage, artefacts: 0, taken: Taken::default() });
        }
        stages[place].artefacts += 1;
        stages[place].taken += taken;
    }
    stages
}

/// Time, calls, tokens and money of all stages.
pub(super) fn cost(stages: &[StageCost<'_>]) -> String {
    let mut all = Taken::default();
    stages.iter().for_each(|stage| all += stage.taken);
    let time = duration(all.seconds);
    format!("The stages behind this page took {time} when they were made. {}", spent(&all.usage))
}

/// The same by stage.
fn of_stages(stages: &[StageCost<'_>]) -> Table {
    let columns = ["Stage", "Artefacts", "Seconds", "Requests answered", "From the ledger", "Tokens", "Cost"];
    let mut table = Table::new("Time, and what language models were asked, by stage", columns);
    for StageCost { stage, artefacts, taken: Taken { seconds, usage } } in stages {
        let tokens = usage.prompt_tokens + usage.completion_tokens;
        let asked = [usage.calls, usage.ledger_hits, tokens].map(Cell::count);
        let row = [Cell::text(stage), Cell::count(*artefacts), Cell::number(*seconds, 1)].into_iter().chain(asked);
        table.push(row.chain([Cell::number(usage.cost, 2)]).collect());
    }
    table
}

fn spent(usage: &Usage) -> String {
    if usage.calls + usage.ledger_hits + usage.unanswered == 0 {
        return "No language model was asked.".to_owned();
    }
    let tokens = grouped(usage.prompt_tokens + usage.completion_tokens);
    let mut text = format!("Language models answered {} requests ({tokens} tokens", grouped(usage.calls));
    if usage.cost > 0.0 {
        text += &format!(", cost {:.2}", usage.cost);
    }
    text += &format!("); the ledger answered {}.", grouped(usage.ledger_hits));
    if usage.unanswered > 0 {
        text += &format!(" The budget left {} requests without an answer.", grouped(usage.unanswered));
    }
    text
}

fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture::{difference, system};

    fn said(macro_mean: Difference) -> String {
        sentence(&system("main", macro_mean), "untouched", &CompareConfig::default())
    }

    #[test]
    fn an_answer_is_claimed_only_where_test_and_interval_agree() {
        let gain = said(difference(0.018, Some((0.009, 0.026)), 0.001));
        assert_eq!(
            gain,
            "+1.8 nDCG@10 [0.9, 2.6] over the untouched model, better in 1 of 2 languages, worse in none."
        );
        let loss = said(difference(-0.018, Some((-0.026, -0.009)), 0.001));
        assert!(loss.starts_with("Worse than the untouched model: −1.8 nDCG@10 [−2.6, −0.9], "), "{loss}");
        for open in [
            difference(0.004, Some((-0.006, 0.013)), 0.4),
            difference(0.004, Some((0.001, 0.013)), 0.4),
            difference(0.004, Some((-0.001, 0.013)), 0.01),
            difference(0.004, None, 0.01),
        ] {
            let said = said(open);
            assert!(said.starts_with("No significant difference from the untouched model: +0.4 nDCG@10"), "{said}");
        }
    }

    #[test]
    fn what_was_spent_is_said_in_words() {
        let usage = Usage { calls: 1200, ledger_hits: 3, prompt_tokens: 90_000, cost: 1.5, ..Usage::default() };
        assert_eq!(
            spent(&usage),
            "Language models answered 1,200 requests (90,000 tokens, cost 1.50); the ledger answered 3."
        );
        assert_eq!(spent(&Usage::default()), "No language model was asked.");
        assert_eq!([duration(5.2), duration(61.0), duration(7322.0)], ["5 s", "1 min 1 s", "2 h 2 min"]);
    }
}
