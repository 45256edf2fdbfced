//! Which queries are listed, and in which order: what stands behind `?` in an address.

use std::ops::Range;

use super::catalogue::{Catalogue, Row, Set};
use crate::error::Result;
use crate::judge::Verdict;
use crate::text::normalise::normalise;

/// A number of a query that the untouched model gave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Score {
    /// The highest score of a candidate.
    #[default]
    Best,
    /// The highest score of a positive.
    Positive,
    /// The best candidate's score less the best positive's: above 0 a candidate stands before every positive.
    Margin,
}

impl Score {
    /// All, in the order of declaration.
    pub(super) const ALL: [Self; 3] = [Self::Best, Self::Positive, Self::Margin];

    /// The name in addresses.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Best => "best",
            Self::Positive => "positive",
            Self::Margin => "margin",
        }
    }

    /// The value of a row; NaN where there is none.
    pub(super) fn of(self, row: &Row) -> f32 {
        match self {
            Self::Best => row.best,
            Self::Positive => row.positive,
            Self::Margin => row.best - row.positive,
        }
    }
}

/// In which order queries stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Sort {
    /// As in the files.
    #[default]
    Given,
    /// A score, descending.
    Score(Score),
    /// Candidates that the judge called false negatives, descending.
    FalseNegatives,
}

impl Sort {
    /// All, in the order in which they are offered.
    pub(super) const ALL: [Self; 5] = [
        Self::Given,
        Self::Score(Score::Best),
        Self::Score(Score::Positive),
        Self::Score(Score::Margin),
        Self::FalseNegatives,
    ];

    /// The name in addresses.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::Score(score) => score.name(),
            Self::FalseNegatives => "false-negatives",
        }
    }
}

/// Where the words of the text filter are looked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Place {
    /// In the query's text or id, each as a whole or as part of a word.
    #[default]
    Query,
    /// In one passage among the positives and candidates, as words of the language in any form that BM25 takes for the same.
    Passages,
}

impl Place {
    /// Both, in the order of declaration.
    pub(super) const ALL: [Self; 2] = [Self::Query, Self::Passages];

    /// The name in addresses.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Passages => "passages",
        }
    }
}

/// What is asked of the list.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Filter {
    /// The tag of a language.
    pub(super) language: Option<String>,
    /// The topic of the first positive.
    pub(super) topic: Option<u32>,
    /// At least one candidate has this verdict.
    pub(super) verdict: Option<Verdict>,
    /// What the query serves for.
    pub(super) set: Option<Set>,
    /// All of these words stand there.
    pub(super) text: String,
    /// Where.
    pub(super) place: Place,
    /// Which score is bounded.
    pub(super) score: Score,
    /// Its lower bound.
    pub(super) low: Option<f32>,
    /// Its upper bound.
    pub(super) high: Option<f32>,
    /// The order.
    pub(super) sort: Sort,
    /// Which page, from 1.
    pub(super) page: usize,
}

impl Filter {
    /// Reads what stands in an address; empty values and other keys do not count. An error says which value is none.
    pub(super) fn parse(pairs: &[(String, String)]) -> std::result::Result<Self, String> {
        let mut filter = Self { page: 1, ..Self::default() };
        for (key, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
            let number = || value.parse::<f32>().ok().filter(|number| number.is_finite());
            let known = match key.as_str() {
                "language" => set(&mut filter.language, Some(value.clone())),
                "topic" => set(&mut filter.topic, value.parse().ok()),
                "verdict" => set(&mut filter.verdict, Verdict::ALL.into_iter().find(|item| item.name() == value)),
                "set" => set(&mut filter.set, Set::ALL.into_iter().find(|item| item.name() == value)),
                "text" => {
                    filter.text.clone_from(value);
                    true
                }
                "in" => put(&mut filter.place, Place::ALL.into_iter().find(|item| item.name() == value)),
                "score" => put(&mut filter.score, Score::ALL.into_iter().find(|item| item.name() == value)),
                "low" => set(&mut filter.low, number()),
                "high" => set(&mut filter.high, number()),
                "sort" => put(&mut filter.sort, Sort::ALL.into_iter().find(|item| item.name() == value)),
                "page" => put(&mut filter.page, value.parse().ok().filter(|page| *page >= 1)),
                _ => true,
            };
            if !known {
                return Err(format!("`{key}`: `{value}` is none of its values"));
            }
        }
        Ok(filter)
    }

    /// The filter as it stands in an address, without what is as it is by default.
    pub(super) fn address(&self) -> String {
        let mut address = form_urlencoded::Serializer::new(String::new());
        let mut add = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                address.append_pair(key, &value);
            }
        };
        add("language", self.language.clone());
        add("topic", self.topic.map(|topic| topic.to_string()));
        add("verdict", self.verdict.map(|verdict| verdict.name().to_owned()));
        add("set", self.set.map(|set| set.name().to_owned()));
        add("text", Some(self.text.clone()).filter(|text| !text.is_empty()));
        add("in", Some(self.place.name().to_owned()).filter(|_| self.place != Place::default()));
        add("score", Some(self.score.name().to_owned()).filter(|_| self.score != Score::default()));
        add("low", self.low.map(|low| low.to_string()));
        add("high", self.high.map(|high| high.to_string()));
        add("sort", Some(self.sort.name().to_owned()).filter(|_| self.sort != Sort::default()));
        add("page", Some(self.page.to_string()).filter(|_| self.page != 1));
        address.finish()
    }

    /// Whether passages are to be searched.
    pub(super) fn reads_passages(&self) -> bool {
        self.place == Place::Passages && !self.text.trim().is_empty()
    }

    /// The rows that pass, in order; equal values keep the order of the files.
    ///
    /// # Errors
    /// Passages are to be searched and there is no index of them.
    pub(super) fn apply(&self, catalogue: &Catalogue) -> Result<Vec<u32>> {
        let languages = catalogue.numbers(self.language.as_deref());
        if self.reads_passages() {
            let rows = catalogue.rows_with(&self.text, languages.clone())?;
            return Ok(self.sorted(catalogue, &languages, &[], rows.into_iter()));
        }
        let normal = normalise(&self.text);
        let words: Vec<&str> = normal.split(' ').filter(|word| !word.is_empty()).collect();
        Ok(self.sorted(catalogue, &languages, &words, 0..catalogue.rows.len() as u32))
    }

    /// Those of some rows that pass, in order.
    fn sorted(
        &self,
        catalogue: &Catalogue,
        languages: &Range<u16>,
        words: &[&str],
        rows: impl Iterator<Item = u32>,
    ) -> Vec<u32> {
        let passes = |row: &Row| {
            languages.contains(&row.language)
                && self.topic.is_none_or(|topic| row.topic.is_some_and(|own| own.0 == topic))
                && self.verdict.is_none_or(|verdict| row.count(verdict) > 0)
                && self.set.is_none_or(|set| row.lines.example.is_some_and(|(own, _)| own == set))
                && self.low.is_none_or(|low| self.score.of(row) >= low)
                && self.high.is_none_or(|high| self.score.of(row) <= high)
                && words.iter().all(|word| row.words.contains(word))
        };
        let row = |place: &u32| &catalogue.rows[*place as usize];
        let mut found: Vec<u32> = rows.filter(|place| passes(row(place))).collect();
        match self.sort {
            Sort::Given => {}
            Sort::Score(score) => found.sort_by(|a, b| descending(score.of(row(a)), score.of(row(b)))),
            Sort::FalseNegatives => found.sort_by_key(|place| u16::MAX - row(place).count(Verdict::FalseNegative)),
        }
        found
    }
}

/// Higher first, what is no number last.
fn descending(a: f32, b: f32) -> std::cmp::Ordering {
    let key = |value: f32| if value.is_nan() { f32::NEG_INFINITY } else { value };
    key(b).total_cmp(&key(a))
}

/// Sets a bound; whether the value was one.
fn set<T>(place: &mut Option<T>, value: Option<T>) -> bool {
    *place = value;
    place.is_some()
}

/// Replaces a default; whether the value was one.
fn put<T>(place: &mut T, value: Option<T>) -> bool {
    value.map(|value| *place = value).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        form_urlencoded::parse(text.as_bytes()).into_owned().collect()
    }

    #[test]
    fn an_address_says_what_is_asked() {
        let filter = Filter::parse(&pairs("language=sw&topic=&verdict=false-negative&low=-0.5&sort=margin&page=3&x=y"));
        let expected = Filter {
            language: Some("sw".into()),
            verdict: Some(Verdict::FalseNegative),
            low: Some(-0.5),
            sort: Sort::Score(Score::Margin),
            page: 3,
            ..Filter::default()
        };
        assert_eq!(filter, Ok(expected));
        for (wrong, key) in
            [("verdict=maybe", "verdict"), ("page=0", "page"), ("low=NaN", "low"), ("topic=-1", "topic")]
        {
            assert!(Filter::parse(&pairs(wrong)).unwrap_err().contains(&format!("`{key}`")));
        }
    }

    #[test]
    fn what_is_no_number_stands_last() {
        let mut values = [f32::NAN, 0.5, -1.0, 0.75];
        values.sort_by(|a, b| descending(*a, *b));
        assert_eq!(format!("{values:?}"), "[0.75, 0.5, -1.0, NaN]");
    }

    proptest! {
        #[test]
        fn an_address_comes_back(text in ".{0,20}", topic in any::<Option<u32>>(), sort in 0..5_usize, page in 1..99_usize) {
            let place = Place::ALL[page % 2];
            let filter = Filter { text, place, topic, sort: Sort::ALL[sort], page, set: Some(Set::Validation), ..Filter::default() };
            prop_assert_eq!(Filter::parse(&pairs(&filter.address())), Ok(filter));
        }
    }
}
