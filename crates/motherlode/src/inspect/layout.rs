//! What all pages share: the frame, links, forms, tables, numbers.

use std::fmt::Display;

use hyper::StatusCode;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::Arm;
use super::answer::Answer;
use crate::html::{Element, Html, element};
use crate::judge::Verdict;

/// The pages of the navigation: address, name, key.
const PAGES: [(&str, &str, &str); 4] = [
    ("/", "Queries", "q"),
    ("/batch/0", "Batches", "b"),
    ("/annotate", "Annotate", "a"),
    ("/agreement", "Agreement", "g"),
];
/// What keys do, beside those of the navigation.
const KEYS: [(&str, &str); 10] = [
    ("j k", "next and previous entry"),
    ("Enter", "open the entry"),
    ("n p", "next and previous page, query or step"),
    ("/", "go to the text filter"),
    ("u", "up to the list; when annotating: change the last label"),
    ("0 1 2", "when annotating: grade the passage"),
    ("s", "when annotating: skip the pair"),
    ("r", "when annotating: show a labelled positive"),
    ("Esc", "leave a field"),
    ("?", "this help"),
];

/// A whole page. `here` is its entry in the navigation.
pub(super) fn document(arm: &Arm, title: &str, here: &str, content: Html) -> Answer {
    let entries = PAGES.map(|(address, name, key)| {
        let entry = link(address, name).attribute("data-key", key);
        element("li").child(if name == here { entry.attribute("aria-current", "page") } else { entry })
    });
    let navigation = element("nav").attribute("aria-label", "Pages").child(element("ul").children(entries));
    let experiment = element("p").class("experiment").child(element("strong").text(&arm.experiment));
    let experiment = experiment.text(format!(" {}, seed {}", arm.name, arm.seed));
    let missing = arm
        .missing
        .as_ref()
        .map(|missing| element("p").class("missing").text(format!("The experiment is not finished: {missing}.")));
    let skip = link("#content", "Skip to the content").class("skip");
    let header = element("header").class("bar").child(skip).child(navigation).child(experiment);
    let main = element("main").attribute("id", "content").children(missing).child(content);
    let body = element("body").child(header).child(main).child(help());
    Answer::page(StatusCode::OK, frame(&format!("{title} – {}", arm.experiment), body))
}

/// A page that says why there is no other.
pub(super) fn refusal(status: StatusCode, reason: &str) -> Answer {
    let main = element("main").child(element("h1").text(status)).child(element("p").text(reason));
    let back = element("p").child(link("/", "All queries"));
    Answer::page(status, frame(status.as_str(), element("body").child(main.child(back))))
}

fn frame(title: &str, body: Element) -> String {
    let meta = |name, content| element("meta").attribute("name", name).attribute("content", content);
    let head = element("head").child(element("meta").attribute("charset", "utf-8"));
    let head = head.child(meta("viewport", "width=device-width, initial-scale=1"));
    let head = head.child(meta("color-scheme", "light dark")).child(element("title").text(title));
    let link = |kind, place| element("link").attribute("rel", kind).attribute("href", place);
    let head = head.child(link("icon", "/icon.svg")).child(link("stylesheet", "/inspect.css"));
    let head = head.child(element("script").attribute("src", "/inspect.js").flag("defer", true));
    let page: Html = element("html").attribute("lang", "en").child(head).child(body).into();
    format!("<!DOCTYPE html>\n{}\n", page.as_str())
}

/// What keys do, opened by `?`.
fn help() -> Element {
    let own = KEYS.iter().map(|(key, what)| (*key, (*what).to_owned()));
    let pages = PAGES.iter().map(|(_, name, key)| (*key, format!("go to {name}")));
    let terms = own.chain(pages).flat_map(|(key, what)| {
        let keys = key.split(' ').map(|key| element("kbd").text(key));
        [element("dt").children(keys), element("dd").text(what)]
    });
    let close = element("form").attribute("method", "dialog").child(element("button").text("Close"));
    let dialog = element("dialog").attribute("id", "keys").attribute("aria-labelledby", "keys-title");
    let title = element("h2").attribute("id", "keys-title").text("Keys");
    dialog.child(title).child(element("dl").children(terms)).child(close)
}

/// A link.
pub(super) fn link(place: impl Display, text: impl Display) -> Element {
    element("a").attribute("href", place).text(text)
}

/// An address made of segments, each percent-encoded.
pub(super) fn path(segments: &[&str]) -> String {
    let parts =
        segments.iter().flat_map(|segment| ["/"].into_iter().chain(utf8_percent_encode(segment, NON_ALPHANUMERIC)));
    parts.collect()
}

/// An address with parameters, if there are any.
pub(super) fn with_parameters(path: &str, parameters: &str) -> String {
    if parameters.is_empty() { path.to_owned() } else { format!("{path}?{parameters}") }
}

/// A choice with its label; `options` are (value, text), the empty value first.
pub(super) fn choice(name: &'static str, label: &str, options: Vec<(String, String)>, chosen: &str) -> Element {
    let options = options
        .into_iter()
        .map(|(value, text)| element("option").attribute("value", &value).flag("selected", value == chosen).text(text));
    element("label").text(label).child(element("select").attribute("name", name).children(options))
}

/// A field with its label.
pub(super) fn field(name: &'static str, label: &str, value: impl Display) -> Element {
    element("label").text(label).child(input(name, value))
}

/// A field for text.
pub(super) fn input(name: &'static str, value: impl Display) -> Element {
    let input = element("input").attribute("name", name).attribute("value", value);
    input.attribute("autocomplete", "off").attribute("dir", "auto")
}

/// A value that a form sends along.
pub(super) fn hidden(name: impl Display, value: impl Display) -> Element {
    element("input").attribute("type", "hidden").attribute("name", name).attribute("value", value)
}

/// A table that scrolls sideways where the screen is narrow. Columns are (title, whether it holds numbers); the first cell
/// of a row names it.
pub(super) fn table(caption: &str, columns: &[(&str, bool)], rows: Vec<Vec<Html>>) -> Element {
    let class = |element: Element, is_number: bool| if is_number { element.class("number") } else { element };
    let titles =
        columns.iter().map(|(title, is_number)| class(element("th").attribute("scope", "col").text(title), *is_number));
    let rows = rows.into_iter().map(|cells| {
        let cells = cells.into_iter().zip(columns).enumerate().map(|(place, (cell, (_, is_number)))| match place {
            0 => element("th").attribute("scope", "row").child(cell),
            _ => class(element("td").child(cell), *is_number),
        });
        element("tr").children(cells)
    });
    let head = element("thead").child(element("tr").children(titles));
    let table = element("table").child(element("caption").text(caption)).child(head);
    let region = element("div").class("scroll").attribute("role", "region").attribute("tabindex", "0");
    region.attribute("aria-label", caption).child(table.child(element("tbody").children(rows)))
}

/// Terms with their descriptions, in a row.
pub(super) fn facts(facts: Vec<(&str, Html)>) -> Element {
    let pairs = facts.into_iter().map(|(term, description)| {
        element("div").child(element("dt").text(term)).child(element("dd").child(description))
    });
    element("dl").class("facts").children(pairs)
}

/// A verdict in words, with its colour.
pub(super) fn badge(verdict: Verdict) -> Element {
    element("span").class(format!("badge {}", verdict.name())).text(words(verdict))
}

/// A verdict in words.
pub(super) fn words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::FalseNegative => "false negative",
        Verdict::Human => "negative by people",
        other => other.name(),
    }
}

/// A score, or a dash where there is none.
pub(super) fn score(value: f32) -> String {
    if value.is_nan() { "–".to_owned() } else { format!("{value:.3}").replace('-', "−") }
}
