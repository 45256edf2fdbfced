//! From an address to a page.

use hyper::{Method, StatusCode};
use percent_encoding::percent_decode_str;

use super::Inspector;
use super::filter::Filter;
use super::layout;
use crate::error::Result;

const STYLE: &str = include_str!("inspect.css");
const SCRIPT: &str = include_str!("inspect.js");
const ICON: &str = include_str!("icon.svg");

/// A request that the guard let through.
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    /// What stands behind `?`.
    pub(super) pairs: Vec<(String, String)>,
    /// What a form sent.
    pub(super) form: Vec<(String, String)>,
}

impl Asked<'_> {
    /// The value of a parameter of the address.
    pub(super) fn value(&self, key: &str) -> Option<&str> {
        value(&self.pairs, key)
    }

    /// The value of a field of the form.
    pub(super) fn field(&self, key: &str) -> Option<&str> {
        value(&self.form, key)
    }
}

fn value<'a>(pairs: &'a [(String, String)], key: &str) -> Option<&'a str> {
    pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

/// What is sent back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// The media type.
    pub(super) kind: &'static str,
    /// Where to go on.
    pub(super) place: Option<String>,
    /// The name under which the body is to be saved.
    pub(super) file: Option<String>,
    pub(super) body: String,
}

impl Answer {
    fn new(kind: &'static str, body: String) -> Self {
        Self { status: StatusCode::OK, kind, place: None, file: None, body }
    }

    /// A page.
    pub(super) fn page(status: StatusCode, body: String) -> Self {
        Self { status, ..Self::new("text/html; charset=utf-8", body) }
    }

    /// A file to save.
    fn file(name: String, body: String) -> Self {
        Self { file: Some(name), ..Self::new("text/plain; charset=utf-8", body) }
    }

    /// Sends the browser on to another address, to be read.
    pub(super) fn see(place: String) -> Self {
        let answer = Self::new("text/plain; charset=utf-8", String::new());
        Self { status: StatusCode::SEE_OTHER, place: Some(place), ..answer }
    }
}

impl Inspector {
    /// The answer to a request.
    pub(super) fn answer(&self, asked: &Asked<'_>) -> Answer {
        let segments: Vec<String> = asked
            .path
            .split('/')
            .filter(|segment| !segment.is_empty())
            .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
            .collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let made = match (asked.method.as_str(), segments.as_slice()) {
            ("GET" | "HEAD", path) => self.read(path, asked),
            ("POST", ["label"]) => self.label(asked),
            _ => Ok(layout::refusal(StatusCode::METHOD_NOT_ALLOWED, "this is not done here")),
        };
        made.unwrap_or_else(|error| layout::refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()))
    }

    fn read(&self, path: &[&str], asked: &Asked<'_>) -> Result<Answer> {
        match path {
            [] => self.filtered(asked, |filter| self.list_page(filter)),
            ["query", language, id] => match self.catalogue.find(language, id) {
                Some(row) => self.filtered(asked, |filter| self.query_page(row, filter, asked)),
                None => Ok(layout::refusal(StatusCode::NOT_FOUND, "no mined query has this language and id")),
            },
            ["batch"] => self.batch_page(asked.value("step").unwrap_or("0")),
            ["batch", step] => self.batch_page(step),
            ["annotate"] => self.annotate_page(asked),
            ["agreement"] => self.agreement_page(),
            ["export", file] => self.download(file),
            ["inspect.css"] => Ok(Answer::new("text/css; charset=utf-8", format!("{}{STYLE}", crate::html::THEME))),
            ["inspect.js"] => Ok(Answer::new("text/javascript; charset=utf-8", SCRIPT.to_owned())),
            ["icon.svg"] => Ok(Answer::new("image/svg+xml", ICON.to_owned())),
            _ => Ok(layout::refusal(StatusCode::NOT_FOUND, "there is no such page")),
        }
    }

    fn filtered(&self, asked: &Asked<'_>, page: impl FnOnce(&Filter) -> Result<Answer>) -> Result<Answer> {
        match Filter::parse(&asked.pairs) {
            Ok(filter) if filter.reads_passages() && self.catalogue.full_text.is_none() => {
                let message = "the passages are not indexed yet; run the experiment up to `index`";
                Ok(layout::refusal(StatusCode::BAD_REQUEST, message))
            }
            Ok(filter) => page(&filter),
            Err(reason) => Ok(layout::refusal(StatusCode::BAD_REQUEST, &reason)),
        }
    }

    fn download(&self, file: &str) -> Result<Answer> {
        match self.exports().into_iter().find(|(name, _)| name == file) {
            Some((name, what)) => Ok(Answer::file(name, self.export(&what)?)),
            None => Ok(layout::refusal(StatusCode::NOT_FOUND, "there is no such file")),
        }
    }
}
