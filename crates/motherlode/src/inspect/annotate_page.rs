//! Annotating: a pair of the audit sample at a time, without a word of what the judge, the retrievers or others said.

use std::collections::BTreeMap;

use hyper::StatusCode;

use super::Inspector;
use super::agreement::{by_pair, settled};
use super::answer::{Answer, Asked};
use super::audit::Item;
use super::labels::{Kept, Label, Pair};
use super::layout::{choice, document, facts, hidden, input, link, refusal, with_parameters};
use super::passages;
use crate::corpus::{Language, language_name};
use crate::dataset::Split;
use crate::error::Result;
use crate::html::{Element, Html, element};

/// The grades and what they mean.
const GRADES: [(&str, &str); 3] =
    [("0", "does not answer the query"), ("1", "answers a part of it"), ("2", "answers it")];
/// The longest name of an annotator, in characters.
const LONGEST_NAME: usize = 40;

/// Who annotates what.
struct Annotating {
    name: String,
    /// The tag of a language, or nothing for all.
    language: String,
}

impl Annotating {
    /// From an address or a form; none without a name. An error says what is wrong with it.
    fn parse(name: Option<&str>, language: Option<&str>) -> std::result::Result<Option<Self>, String> {
        let name = name.unwrap_or_default().trim();
        if name.is_empty() {
            return Ok(None);
        }
        if name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control) {
            return Err(format!("a name has up to {LONGEST_NAME} characters, and no control characters"));
        }
        Ok(Some(Self { name: name.to_owned(), language: language.unwrap_or_default().to_owned() }))
    }

    /// The address of a pair (`at`), or of the next open one behind it (`after`).
    fn address(&self, place: Option<(&str, usize)>) -> String {
        let mut address = form_urlencoded::Serializer::new(String::new());
        address.append_pair("as", &self.name).append_pair("language", &self.language);
        address.extend_pairs(place.map(|(key, place)| (key, place.to_string())));
        with_parameters("/annotate", &address.finish())
    }

    fn covers(&self, item: &Item) -> bool {
        self.language.is_empty() || item.pair.language.as_str() == self.language
    }
}

impl Inspector {
    /// A pair to grade: the one that the address names, or the next open one; without a name, who annotates.
    pub(super) fn annotate_page(&self, asked: &Asked<'_>) -> Result<Answer> {
        let annotating = match Annotating::parse(asked.value("as"), asked.value("language")) {
            Ok(Some(annotating)) => annotating,
            Ok(None) => return self.who_page(),
            Err(reason) => return Ok(refusal(StatusCode::BAD_REQUEST, &reason)),
        };
        let labels = self.labels.current(self.dataset())?;
        let place = |key| asked.value(key).and_then(|place| place.parse::<usize>().ok());
        let named = place("at").filter(|place| *place < self.audit.items.len());
        let content = match named.or_else(|| self.next_open(&labels, &annotating, place("after"))) {
            Some(place) => self.pair(&labels, &annotating, place),
            None => element("p").class("done").text("Nothing is left for you here. Others may still be at work."),
        };
        let content = element("div").class("annotate").child(self.progress(&labels, &annotating)).child(content);
        Ok(document(&self.arm, "Annotate", "Annotate", content.into()))
    }

    /// Keeps a label and goes on to the next open pair.
    pub(super) fn label(&self, asked: &Asked<'_>) -> Result<Answer> {
        let wrong = |reason: &str| Ok(refusal(StatusCode::BAD_REQUEST, reason));
        let annotating = match Annotating::parse(asked.field("as"), asked.field("language")) {
            Ok(Some(annotating)) => annotating,
            Ok(None) => return wrong("a label needs the name of who gives it"),
            Err(reason) => return wrong(&reason),
        };
        let pair = (asked.field("of"), asked.field("query"), asked.field("passage"));
        let (Some(language), Some(query), Some(passage)) = pair else { return wrong("a label needs a pair") };
        let Ok(language) = Language::new(language) else { return wrong("this is no language") };
        let pair = Pair { language, query: query.to_owned(), passage: passage.to_owned() };
        let Some(place) = self.audit.find(&pair) else { return wrong("the pair is not in the audit sample") };
        let grade = asked.field("grade").and_then(|grade| GRADES.iter().position(|(value, _)| *value == grade));
        let seen = asked.field("seen").and_then(|seen| seen.parse().ok());
        let (Some(grade), Some(seen)) = (grade, seen) else { return wrong("a grade is 0, 1 or 2") };
        match self.labels.put(self.dataset(), &pair, &annotating.name, grade as u8, seen)? {
            Kept::Yes(_) => Ok(Answer::see(annotating.address(Some(("after", place))))),
            Kept::Conflict { grade: standing, .. } => self.conflict(&annotating, place, grade as u8, standing),
        }
    }

    /// Says that another window was faster, and shows what stands now.
    fn conflict(&self, annotating: &Annotating, place: usize, given: u8, standing: u8) -> Result<Answer> {
        let labels = self.labels.current(self.dataset())?;
        let note = format!(
            "Another window gave this pair grade {standing} in the meantime. Your grade {given} was not kept: grade again \
             to change it, or go on."
        );
        let note = element("p").class("missing").attribute("role", "alert").text(note);
        let content = element("div").class("annotate").child(note).child(self.pair(&labels, annotating, place));
        let answer = document(&self.arm, "Annotate", "Annotate", content.into());
        Ok(Answer { status: StatusCode::CONFLICT, ..answer })
    }

    /// The first pair behind `after`, or else from the start, that waits for a label by this annotator: it has too few, or
    /// its annotators are at odds.
    fn next_open(&self, labels: &[Label], annotating: &Annotating, after: Option<usize>) -> Option<usize> {
        let pairs = by_pair(labels);
        let is_open = |place: &usize| {
            let item = &self.audit.items[*place];
            let given = pairs.get(&item.pair).map_or(&[][..], Vec::as_slice);
            let waits = given.len() < self.config.annotators || settled(given).is_none();
            annotating.covers(item) && waits && given.iter().all(|label| label.annotator != annotating.name)
        };
        let first = after.map_or(0, |after| after + 1).min(self.audit.items.len());
        (first..self.audit.items.len()).chain(0..first).find(is_open)
    }

    fn who_page(&self) -> Result<Answer> {
        let labels = self.labels.current(self.dataset())?;
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        labels.iter().for_each(|label| *counts.entry(label.annotator.as_str()).or_default() += 1);
        let languages = self.catalogue.languages.iter().map(|files| &files.language);
        let languages = languages.map(|language| (language.to_string(), language_name(language)));
        let languages = std::iter::once((String::new(), "all".to_owned())).chain(languages).collect();
        let name =
            element("label").text("Your name").child(input("as", "").flag("required", true).flag("data-first", true));
        let form = element("form").class("filter").child(name);
        let form = form.child(choice("language", "Language", languages, ""));
        let form = form.child(element("div").class("buttons").child(element("button").text("Begin")));
        let what = format!(
            "The audit sample has {} pairs of a query and a candidate, up to {} for every language and verdict of the judge, \
             in random order. Each is to be graded by {} people. You do not see what the judge, the retrievers or others \
             said. A label is kept as soon as it is given, and can be changed.",
            self.audit.items.len(),
            self.config.audit,
            self.config.annotators
        );
        let known = counts.into_iter().map(|(name, count)| {
            let annotating = Annotating { name: name.to_owned(), language: String::new() };
            element("li").child(link(annotating.address(None), name)).text(format!(" {count} labels"))
        });
        let content = element("div").class("annotate").child(element("h1").text("Annotate"));
        let content = content.child(element("p").text(what)).child(form).child(element("ul").children(known));
        Ok(document(&self.arm, "Annotate", "Annotate", content.into()))
    }

    fn progress(&self, labels: &[Label], annotating: &Annotating) -> Element {
        let pairs = by_pair(labels);
        let items: Vec<&Item> = self.audit.items.iter().filter(|item| annotating.covers(item)).collect();
        let given = |item: &Item| pairs.get(&item.pair).map_or(&[][..], Vec::as_slice);
        let own =
            items.iter().filter(|item| given(item).iter().any(|label| label.annotator == annotating.name)).count();
        let is_done = |item: &Item| given(item).len() >= self.config.annotators && settled(given(item)).is_some();
        let done = items.iter().filter(|item| is_done(item)).count();
        let language =
            Language::new(&annotating.language).map_or("all languages".to_owned(), |tag| language_name(&tag));
        let last = labels.iter().rev().find(|label| label.annotator == annotating.name);
        let last = last.and_then(|label| {
            let address = annotating.address(Some(("at", self.audit.find(&label.pair)?)));
            Some(link(address, format!("Change the last label, grade {}", label.grade)).attribute("data-key", "u"))
        });
        let bar = element("progress").attribute("max", items.len()).attribute("value", own);
        let bar = bar.attribute("aria-label", "Your pairs");
        let counts = facts(vec![
            ("Annotator", element("span").attribute("dir", "auto").text(&annotating.name).into()),
            ("Language", Html::text(language)),
            ("Yours", Html::text(format!("{own} of {}", items.len()))),
            ("Settled", Html::text(format!("{done} of {}", items.len()))),
        ]);
        element("div").class("progress").child(counts).child(bar).children(last)
    }

    /// The query, the passage, the grades.
    fn pair(&self, labels: &[Label], annotating: &Annotating, place: usize) -> Element {
        let Item { pair, row, .. } = &self.audit.items[place];
        let row = &self.catalogue.rows[*row as usize];
        let own = labels.iter().find(|label| label.pair == *pair && label.annotator == annotating.name);
        let passage = self.catalogue.passage(row, &pair.passage);
        let text = passage.map(|passage| passages::whole(&pair.language, &passage));
        let query = element("h1").class("query").foreign(&pair.language).text(&self.catalogue.query(row).text);
        let stands = own.map(|label| {
            let words = format!("You gave grade {}. Another grade changes it.", label.grade);
            element("p").class("stands").text(words)
        });
        let buttons = GRADES.map(|(value, words)| {
            let button = element("button").attribute("name", "grade").attribute("value", value);
            let button = button.attribute("data-key", value).flag("data-grade", true);
            let is_own = own.is_some_and(|label| label.grade.to_string() == value);
            let button = button.attribute("aria-pressed", is_own);
            button.child(element("kbd").text(value)).text(format!(" {words}"))
        });
        let form = element("form").class("grades").attribute("method", "post").attribute("action", "/label");
        let form = form.child(hidden("as", &annotating.name)).child(hidden("language", &annotating.language));
        let form = form.child(hidden("of", &pair.language)).child(hidden("query", &pair.query));
        let form = form.child(hidden("passage", &pair.passage));
        let form = form.child(hidden("seen", own.map_or(0, |label| label.revision))).children(buttons);
        let form = form.child(link(annotating.address(Some(("after", place))), "Skip").attribute("data-key", "s"));
        let ask = element("h2").text("Does this passage answer the query?");
        let card = element("article").class("card passage").children(text);
        element("div").child(query).child(ask).child(card).children(stands).child(form).children(self.reference(place))
    }

    /// The labelled positives, folded away.
    fn reference(&self, place: usize) -> Option<Element> {
        let Item { pair, row, .. } = &self.audit.items[place];
        let row = &self.catalogue.rows[*row as usize];
        let partition = self.catalogue.dataset.partition(&pair.language).ok()?;
        let qrels = &partition.split(Split::Train).ok()?.qrels;
        let positives = qrels.positives(row.query).map(|positive| {
            let passage = partition.corpus.passage(positive);
            element("div").class("card").child(passages::opening(&pair.language, &passage))
        });
        let summary = element("summary").attribute("data-key", "r").text("Labelled positives, to compare");
        Some(element("details").child(summary).children(positives))
    }
}
