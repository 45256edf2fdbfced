//! One query: its positives, its candidates with all that is known of each, and where training uses them.

use std::collections::BTreeMap;

use super::Inspector;
use super::answer::{Answer, Asked};
use super::catalogue::Row;
use super::filter::Filter;
use super::layout::{badge, choice, document, facts, hidden, input, link, path, score, with_parameters, words};
use super::passages;
use crate::corpus::language_name;
use crate::error::Result;
use crate::generate::QuerySupplement;
use crate::html::{Element, Html, element, percent};
use crate::judge::{Judgement, Screened, Verdict, why};
use crate::mine::Candidate;
use crate::sample::Provenance;
use crate::text::normalise::normalise;

/// Steps that are named at most; queries stand in one step an epoch.
const STEPS: usize = 12;

/// What training does with a query's passages.
#[derive(Default)]
struct Uses {
    /// Negatives of its example, by passage.
    provenance: BTreeMap<String, Provenance>,
    /// Steps by passage that the query brings, as positive or as negative.
    steps: BTreeMap<String, Vec<u32>>,
}

/// Which candidates are shown.
struct Within {
    text: String,
    /// The normal form of `text`.
    words: String,
    verdict: Option<Verdict>,
}

impl Inspector {
    /// The page of the query in row `place`; `filter` is that of the list it came from.
    pub(super) fn query_page(&self, place: usize, filter: &Filter, asked: &Asked<'_>) -> Result<Answer> {
        let row = &self.catalogue.rows[place];
        let query = self.catalogue.query(row);
        let language = &self.catalogue.files(row).language;
        let uses = self.uses(place)?;
        let verdict = asked.value("with").and_then(|name| Verdict::ALL.into_iter().find(|other| other.name() == name));
        let text = asked.value("within").unwrap_or_default().to_owned();
        let within = Within { words: normalise(&text), text, verdict };
        let heading = element("h1").class("query").foreign(language).text(&query.text);
        let content = element("div").class("one").child(self.neighbours(place, filter)?).child(heading);
        let (list, supplement) = (self.catalogue.candidates(row)?, self.catalogue.supplement(row)?);
        let content = content.child(self.query_facts(place)).child(self.positives(row, &list.positives, &uses));
        let content = content.child(self.candidates_section(row, &list.candidates, &uses, &within, filter)?);
        let content = content.children(supplement.as_ref().map(|found| self.supplement_section(row, found, &uses)));
        let found = supplement.as_ref().map_or(&[][..], |found| &found.candidates);
        let content = content.children(self.others(row, [&list.candidates, found], &uses));
        Ok(document(&self.arm, &query.text, "Queries", content.into()))
    }

    /// The way to the queries beside it in the list, and back up to the list.
    fn neighbours(&self, place: usize, filter: &Filter) -> Result<Element> {
        let found = self.lists.of(filter, &self.catalogue)?;
        let here = found.iter().position(|other| *other as usize == place);
        let to = |place: u32, text: &str| {
            let row = &self.catalogue.rows[place as usize];
            let language = self.catalogue.files(row).language.as_str();
            link(with_parameters(&path(&["query", language, &self.catalogue.query(row).id]), &filter.address()), text)
        };
        let page = here.map_or(1, |here| here / self.config.page + 1);
        let list = with_parameters("/", &Filter { page, ..filter.clone() }.address());
        let before = here
            .and_then(|here| here.checked_sub(1))
            .map(|here| to(found[here], "Previous").attribute("data-key", "p"));
        let after = here.and_then(|here| found.get(here + 1)).map(|next| to(*next, "Next").attribute("data-key", "n"));
        let count = here.map(|here| element("span").text(format!("{} of {}", here + 1, found.len())));
        let navigation = element("nav").class("pager").attribute("aria-label", "Queries of the list");
        let up = link(list, "List").attribute("data-key", "u");
        Ok(navigation.child(up).children(before).children(count).children(after))
    }

    fn query_facts(&self, place: usize) -> Element {
        let row = &self.catalogue.rows[place];
        let mut list = vec![
            ("Id", element("code").text(&self.catalogue.query(row).id).into()),
            ("Language", Html::text(language_name(&self.catalogue.files(row).language))),
        ];
        if let Some(topic) = row.topic {
            list.push(("Topic", element("span").attribute("dir", "auto").text(self.catalogue.label(topic)).into()));
        }
        list.push(("Serves for", Html::text(row.lines.example.map_or("nothing yet", |(set, _)| set.name()))));
        if let Some(steps) = &self.catalogue.steps {
            list.push(("Steps", links_to_steps(steps.of(place))));
        }
        facts(list)
    }

    /// Reads the example and the steps of a row.
    fn uses(&self, place: usize) -> Result<Uses> {
        let mut uses = Uses::default();
        let row = &self.catalogue.rows[place];
        if let Some(example) = self.catalogue.example(row)? {
            let negatives = example.negatives.into_iter();
            uses.provenance = negatives.map(|negative| (negative.passage, negative.provenance)).collect();
        }
        let Some(steps) = &self.catalogue.steps else { return Ok(uses) };
        let (language, query) = (&self.catalogue.files(row).language, &self.catalogue.query(row).id);
        for number in steps.of(place) {
            let step = steps.brought(*number as usize)?;
            for row in step.rows.iter().filter(|row| row.query == *query && row.language == language.as_str()) {
                let negatives = row.negatives.iter().map(|negative| &negative.passage);
                for passage in std::iter::once(&row.positive).chain(negatives) {
                    match uses.steps.get_mut(passage.as_ref()) {
                        Some(steps) => steps.push(*number),
                        None => _ = uses.steps.insert(passage.clone().into_owned(), vec![*number]),
                    }
                }
            }
        }
        Ok(uses)
    }

    fn positives(&self, row: &Row, positives: &[(String, f32)], uses: &Uses) -> Element {
        let section = section("positives", format!("Positives ({})", positives.len()));
        let cards = positives.iter().map(|(passage, model)| {
            let mut known = vec![("Model", Html::text(score(*model)))];
            known.extend(uses.steps.get(passage).map(|steps| ("Steps", links_to_steps(steps))));
            self.card(row, passage, element("span").class("badge positive").text("positive"), known)
        });
        section.children(cards)
    }

    fn candidates_section(
        &self,
        row: &Row,
        candidates: &[Candidate],
        uses: &Uses,
        within: &Within,
        filter: &Filter,
    ) -> Result<Element> {
        let judgements = self.catalogue.judgements(row)?.map_or_else(Vec::new, |judged| judged.judgements);
        let all: Vec<(&Candidate, Option<&Judgement>)> =
            candidates.iter().map(|candidate| (candidate, find(&judgements, &candidate.passage))).collect();
        let shown: Vec<_> =
            all.iter().filter(|(candidate, judgement)| self.is_shown(row, candidate, *judgement, within)).collect();
        let title = if shown.len() == all.len() {
            format!("Candidates ({})", all.len())
        } else {
            format!("Candidates ({} of {})", shown.len(), all.len())
        };
        let section = section("candidates", title).child(within_form(within, filter));
        Ok(section
            .children(shown.into_iter().map(|(candidate, judgement)| self.candidate(row, candidate, *judgement, uses))))
    }

    fn is_shown(&self, row: &Row, candidate: &Candidate, judgement: Option<&Judgement>, within: &Within) -> bool {
        let verdict = within.verdict.is_none_or(|verdict| judgement.is_some_and(|own| own.verdict == verdict));
        if !verdict || within.words.is_empty() {
            return verdict;
        }
        let passage = self.catalogue.passage(row, &candidate.passage).map_or_else(String::new, |p| p.joined(" "));
        let text = normalise(&format!("{} {passage}", candidate.passage));
        within.words.split(' ').all(|word| text.contains(word))
    }

    /// A candidate with what each retriever and the judge said of it, and what training does with it.
    fn candidate(&self, row: &Row, candidate: &Candidate, judgement: Option<&Judgement>, uses: &Uses) -> Element {
        let mut known = vec![("Rank", Html::text(candidate.rank))];
        let grade = |grade: Option<u8>| Html::text(grade.map_or_else(|| "–".to_owned(), |grade| grade.to_string()));
        if let Some(judgement) = judgement.filter(|judgement| judgement.accuracy.is_some()) {
            known.extend([("Accuracy", grade(judgement.accuracy)), ("Completeness", grade(judgement.completeness))]);
        }
        known.extend(
            judgement.and_then(|judgement| judgement.screened.as_ref()).map(|said| ("Cheap judge", screened(said))),
        );
        known.push(("Model", Html::text(score(candidate.model_score))));
        known.push(("Fused", Html::text(format!("{:.4}", candidate.score))));
        known.extend(candidate.human_grade.map(|grade| ("People", Html::text(grade))));
        known.push(("Retrievers' ranks", ranks(candidate)));
        if let Some(provenance) = uses.provenance.get(&candidate.passage) {
            known.push(("Negative", Html::text(provenance.name())));
        }
        known.extend(uses.steps.get(&candidate.passage).map(|steps| ("Steps", links_to_steps(steps))));
        let verdict = judgement.map_or(Verdict::Unjudged, |judgement| judgement.verdict);
        let why = judgement.map(|judgement| why(judgement, candidate, self.thresholds));
        let why = why.map(|why| element("p").class("why").text(format!("{}.", capitalised(&why))));
        self.card(row, &candidate.passage, badge(verdict), known).children(why)
    }

    fn card(&self, row: &Row, passage: &str, verdict: Element, known: Vec<(&str, Html)>) -> Element {
        let language = &self.catalogue.files(row).language;
        let text = match self.catalogue.passage(row, passage) {
            Some(passage) => passages::opening(language, &passage),
            None => element("p").text("The data set has no such passage."),
        };
        let heading = element("h3").child(element("code").text(passage)).text(" ").child(verdict);
        let card = element("article").class("card").attribute("tabindex", "-1").flag("data-stop", true);
        card.child(heading).child(facts(known)).child(text)
    }

    /// The generated query and what it found.
    fn supplement_section(&self, row: &Row, supplement: &QuerySupplement, uses: &Uses) -> Element {
        let language = &self.catalogue.files(row).language;
        let QuerySupplement { summary, generated, rejected, novelty, candidates, judgements, .. } = supplement;
        let words = |text: &String| -> Html { element("span").foreign(language).text(text).into() };
        let mut known: Vec<(&str, Html)> =
            summary.iter().map(|summary| ("Summary of the positive", words(summary))).collect();
        known.push(("Generated query", words(generated)));
        known.push(("New candidates", Html::text(percent(*novelty))));
        if let Some(rejected) = rejected {
            known.push(("Not used", Html::text(format!("{rejected:?}").to_lowercase())));
        }
        let section = section("supplement", format!("Found through a generated query ({})", candidates.len()));
        let cards = candidates.iter().map(|found| self.candidate(row, found, find(judgements, &found.passage), uses));
        section.child(element("div").class("long").child(facts(known))).children(cards)
    }

    /// Negatives that none of the lists brought up: judged by people, or random.
    fn others(&self, row: &Row, lists: [&[Candidate]; 2], uses: &Uses) -> Option<Element> {
        let is_listed = |id: &String| lists.into_iter().flatten().any(|candidate| candidate.passage == *id);
        let others: Vec<_> = uses.provenance.iter().filter(|(passage, _)| !is_listed(passage)).collect();
        let section = section("others", format!("Further negatives ({})", others.len()));
        let cards = others.iter().map(|(passage, provenance)| {
            let known = uses.steps.get(*passage).map(|steps| ("Steps", links_to_steps(steps)));
            self.card(row, passage, element("span").class("badge").text(provenance.name()), known.into_iter().collect())
        });
        (!others.is_empty()).then(|| section.children(cards))
    }
}

fn section(id: &str, title: String) -> Element {
    let heading = element("h2").attribute("id", id).text(title);
    element("section").attribute("aria-labelledby", id).child(heading)
}

fn find<'a>(judgements: &'a [Judgement], passage: &str) -> Option<&'a Judgement> {
    judgements.iter().find(|judgement| judgement.passage == passage)
}

/// The cheap judge's probability, and whether its word counted.
fn screened(said: &Screened) -> Html {
    let probability = said.probability.map_or_else(|| "unreadable".to_owned(), |value| format!("{value:.3}"));
    Html::text(format!("{probability}, {}", if said.decided { "decided" } else { "left to the large one" }))
}

fn capitalised(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Each retriever's rank with its score as a hint.
fn ranks(candidate: &Candidate) -> Html {
    let each = candidate.evidence.iter().map(|said| {
        let rank = element("span").class("rank").attribute("title", format!("score {}", said.score));
        rank.text(format!("{} {}", said.retriever, said.rank))
    });
    element("span").children(each).into()
}

fn links_to_steps(steps: &[u32]) -> Html {
    let links = steps.iter().take(STEPS).map(|step| link(format!("/batch/{step}"), step));
    let more = steps.len().saturating_sub(STEPS);
    let rest = (more > 0).then(|| element("span").text(format!("and {more} more")));
    let none = steps.is_empty().then(|| element("span").text("none"));
    element("span").class("steps").children(links).children(rest).children(none).into()
}

/// Narrows the candidates; the list's filter goes along.
fn within_form(within: &Within, filter: &Filter) -> Element {
    let address = filter.address();
    let kept = form_urlencoded::parse(address.as_bytes()).map(|(name, value)| hidden(name, value));
    let verdicts = Verdict::ALL.map(|verdict| (verdict.name().to_owned(), words(verdict).to_owned()));
    let verdicts = std::iter::once((String::new(), "any".to_owned())).chain(verdicts).collect();
    let text = input("within", &within.text).attribute("type", "search").attribute("data-key", "/");
    let text = element("label").text("Words in the passage or its id").child(text);
    let form = element("form").class("filter").children(kept).child(text);
    let form = form.child(choice("with", "Verdict", verdicts, within.verdict.map_or("", Verdict::name)));
    form.child(element("div").class("buttons").child(element("button").text("Show")))
}
