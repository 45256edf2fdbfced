//! The list of queries: filters, a page of rows, and the way to the next.

use super::Inspector;
use super::answer::Answer;
use super::catalogue::{Row, Set};
use super::filter::{Filter, Place, Score, Sort};
use super::layout::{choice, document, field, input, link, path, score, table, with_parameters, words};
use crate::corpus::language_name;
use crate::error::Result;
use crate::html::{Element, Html, element, grouped};
use crate::judge::Verdict;

const COLUMNS: [(&str, bool); 12] = [
    ("Query", false),
    ("Language", false),
    ("Topic", false),
    ("Serves for", false),
    ("Candidates", true),
    ("Negative", true),
    ("Excluded", true),
    ("False negative", true),
    ("Best candidate", true),
    ("Best positive", true),
    ("Margin", true),
    ("Steps", true),
];

impl Inspector {
    /// The queries that pass a filter, a page of them.
    pub(super) fn list_page(&self, filter: &Filter) -> Result<Answer> {
        let found = self.lists.of(filter, &self.catalogue)?;
        let pages = found.len().div_ceil(self.config.page).max(1);
        let page = filter.page.min(pages);
        let filter = Filter { page, ..filter.clone() };
        let first = (page - 1) * self.config.page;
        let shown = &found[first..found.len().min(first + self.config.page)];
        let rows = shown.iter().map(|place| self.list_row(*place as usize, &filter)).collect();
        let count = match found.len() {
            0 => "No query passes the filter".to_owned(),
            all => format!("Queries {} to {} of {}", first + 1, first + shown.len(), grouped(all as u64)),
        };
        let content =
            element("div").class("list").child(element("h1").text("Queries")).child(self.filter_form(&filter));
        let content = content.child(table(&count, &COLUMNS, rows)).child(pager(&filter, pages));
        Ok(document(&self.arm, "Queries", "Queries", content.into()))
    }

    fn list_row(&self, place: usize, filter: &Filter) -> Vec<Html> {
        let row = &self.catalogue.rows[place];
        let language = &self.catalogue.files(row).language;
        let query = self.catalogue.query(row);
        let address = with_parameters(&path(&["query", language.as_str(), &query.id]), &filter.address());
        let text = link(address, &query.text).foreign(language).class("query").flag("data-stop", true);
        let count =
            |verdict| if row.lines.judgements.is_some() { row.count(verdict).to_string() } else { "–".to_owned() };
        let steps = self.catalogue.steps.as_ref().map_or("–".to_owned(), |steps| steps.of(place).len().to_string());
        let text = element("div").child(text).child(element("small").text(&query.id));
        let mut cells: Vec<Html> = vec![text.into(), Html::text(language_name(language)), self.topic_cell(row)];
        cells.push(Html::text(row.lines.example.map_or("–", |(set, _)| set.name())));
        cells.push(Html::text(row.candidates));
        cells.extend(
            [Verdict::Negative, Verdict::Excluded, Verdict::FalseNegative].map(|verdict| Html::text(count(verdict))),
        );
        cells.extend(Score::ALL.map(|kind| Html::text(score(kind.of(row)))));
        cells.push(Html::text(steps));
        cells
    }

    /// Topics are named by titles in any language.
    fn topic_cell(&self, row: &Row) -> Html {
        match row.topic {
            Some(topic) => {
                let label = self.catalogue.label(topic);
                element("div").class("topic").attribute("dir", "auto").attribute("title", label).text(label).into()
            }
            None => Html::text("–"),
        }
    }

    fn filter_form(&self, filter: &Filter) -> Element {
        let text = input("text", &filter.text).attribute("type", "search").attribute("data-key", "/");
        let label = if self.catalogue.full_text.is_some() { "Words" } else { "Words in the query or its id" };
        let text = element("label").class("wide").text(label).child(text);
        let places = Place::ALL.map(|place| (place.name().to_owned(), place_name(place).to_owned()));
        let places = choice("in", "in", places.to_vec(), filter.place.name());
        let languages = self.catalogue.languages.iter().map(|files| &files.language);
        let languages = languages.map(|language| (language.to_string(), language_name(language)));
        let topics = self.catalogue.topics.iter().flat_map(|topics| &topics.labels);
        let topics = topics.enumerate().map(|(number, label)| (number.to_string(), label.clone()));
        let verdicts = Verdict::ALL.map(|verdict| (verdict.name().to_owned(), words(verdict).to_owned()));
        let sets = Set::ALL.map(|set| (set.name().to_owned(), set.name().to_owned()));
        let scores = Score::ALL.map(|kind| (kind.name().to_owned(), score_name(kind).to_owned()));
        let sorts = Sort::ALL.map(|sort| (sort.name().to_owned(), sort_name(sort).to_owned()));
        let chosen = |value: Option<&str>| value.unwrap_or_default().to_owned();
        let bound = |bound: Option<f32>| bound.map_or_else(String::new, |bound| bound.to_string());
        let number = |name, label, value| field(name, label, value).class("bound");
        let fields = [
            text,
            choice("language", "Language", with_any(languages), &chosen(filter.language.as_deref())),
            choice(
                "topic",
                "Topic",
                with_any(topics),
                &filter.topic.map_or_else(String::new, |topic| topic.to_string()),
            ),
            choice("verdict", "Has a candidate", with_any(verdicts), &chosen(filter.verdict.map(Verdict::name))),
            choice("set", "Serves for", with_any(sets), &chosen(filter.set.map(Set::name))),
            choice("score", "Model score of", scores.to_vec(), filter.score.name()),
            number("low", "from", bound(filter.low)),
            number("high", "to", bound(filter.high)),
            choice("sort", "Order", sorts.to_vec(), filter.sort.name()),
        ];
        let buttons = element("div").class("buttons").child(element("button").text("Filter")).child(link("/", "Clear"));
        let form = element("form").class("filter").attribute("action", "/").attribute("role", "search");
        let [text, others @ ..] = fields;
        let places = self.catalogue.full_text.is_some().then_some(places);
        form.child(text).children(places).children(others).child(buttons)
    }
}

fn with_any(options: impl IntoIterator<Item = (String, String)>) -> Vec<(String, String)> {
    std::iter::once((String::new(), "any".to_owned())).chain(options).collect()
}

fn place_name(place: Place) -> &'static str {
    match place {
        Place::Query => "the query or its id",
        Place::Passages => "one of its passages",
    }
}

fn score_name(kind: Score) -> &'static str {
    match kind {
        Score::Best => "best candidate",
        Score::Positive => "best positive",
        Score::Margin => "margin (candidate − positive)",
    }
}

fn sort_name(sort: Sort) -> &'static str {
    match sort {
        Sort::Given => "as in the data",
        Sort::Score(Score::Best) => "best candidate first",
        Sort::Score(Score::Positive) => "best positive first",
        Sort::Score(Score::Margin) => "largest margin first",
        Sort::FalseNegatives => "most false negatives first",
    }
}

/// The way to the other pages.
fn pager(filter: &Filter, pages: usize) -> Element {
    let to = |page: usize, text: &str| {
        let address = with_parameters("/", &Filter { page, ..filter.clone() }.address());
        link(address, text)
    };
    let page = filter.page;
    let before = (page > 1)
        .then(|| [to(1, "First"), to(page - 1, "Previous").attribute("rel", "prev").attribute("data-key", "p")]);
    let after = (page < pages)
        .then(|| [to(page + 1, "Next").attribute("rel", "next").attribute("data-key", "n"), to(pages, "Last")]);
    let here = element("span").text(format!("Page {page} of {}", grouped(pages as u64)));
    let pager = element("nav").class("pager").attribute("aria-label", "Pages of the list");
    pager.children(before.into_iter().flatten()).child(here).children(after.into_iter().flatten())
}
