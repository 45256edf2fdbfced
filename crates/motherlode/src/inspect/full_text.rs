//! Words in passages: the BM25 index of the experiment says which passages have them, and a table which queries list those.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use super::catalogue::{Catalogue, LanguageFiles};
use crate::artefact::Artefact;
use crate::error::{Error, Result};
use crate::index::bm25::{self, Bm25Index};

/// The index of every language, opened when words are first looked for in it, or before.
pub(super) struct FullText {
    index: Artefact,
    languages: Mutex<BTreeMap<u16, Arc<LanguageText>>>,
}

/// The index of a language, and which rows list which passages.
struct LanguageText {
    index: Bm25Index,
    /// Passage and row, ascending: eight bytes a candidate.
    listed: Vec<(u32, u32)>,
}

impl FullText {
    /// Over an artefact of `index`; nothing is read yet.
    pub(super) fn new(index: &Artefact) -> Self {
        Self { index: index.clone(), languages: Mutex::default() }
    }

    /// Adds the rows of a language with a passage, positive or candidate, that has all words.
    fn add(&self, catalogue: &Catalogue, number: u16, text: &str, rows: &mut Vec<u32>) -> Result<()> {
        let files = &catalogue.languages[usize::from(number)];
        let language = self.language(catalogue, number, files)?;
        let mut listed = language.listed.as_slice();
        for passage in language.index.with_all(text) {
            listed = &listed[listed.partition_point(|(other, _)| *other < passage)..];
            rows.extend(listed.iter().take_while(|(other, _)| *other == passage).map(|(_, row)| *row));
        }
        Ok(())
    }

    fn language(&self, catalogue: &Catalogue, number: u16, files: &LanguageFiles) -> Result<Arc<LanguageText>> {
        let mut languages = self.languages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(language) = languages.get(&number) {
            return Ok(Arc::clone(language));
        }
        let index = Bm25Index::open(&self.index.path(&bm25::file_name(&files.language)))?;
        let language = Arc::new(LanguageText { index, listed: listed(catalogue, files)? });
        languages.insert(number, Arc::clone(&language));
        Ok(language)
    }
}

/// Passage and row of everything that a language's queries list.
fn listed(catalogue: &Catalogue, files: &LanguageFiles) -> Result<Vec<(u32, u32)>> {
    let corpus = &catalogue.dataset.partition(&files.language)?.corpus;
    let of_row = |place: usize| -> Result<Vec<(u32, u32)>> {
        let facts = files.all_listed(&catalogue.rows[place])?;
        let ids = facts.positives.iter().map(|(id, _)| id).chain(facts.candidates.iter().map(|fact| &fact.passage));
        Ok(ids.filter_map(|id| Some((corpus.find(id)?.0, place as u32))).collect())
    };
    let rows: Vec<Vec<(u32, u32)>> = files.rows.clone().into_par_iter().map(of_row).collect::<Result<_>>()?;
    let mut listed: Vec<(u32, u32)> = rows.into_iter().flatten().collect();
    listed.par_sort_unstable();
    Ok(listed)
}

impl Catalogue {
    /// Makes ready what searching passages needs, which takes seconds. What fails, fails again for whoever searches.
    pub(super) fn prepare_search(&self) {
        if let Some(full_text) = &self.full_text {
            (0..).zip(&self.languages).for_each(|(number, files)| drop(full_text.language(self, number, files)));
        }
    }

    /// The rows of these languages that list a passage with all words, ascending.
    ///
    /// # Errors
    /// There is no index of the passages.
    pub(super) fn rows_with(&self, text: &str, languages: Range<u16>) -> Result<Vec<u32>> {
        let Some(full_text) = &self.full_text else {
            return Err(Error::data("the passages are not indexed yet; run the experiment up to `index`"));
        };
        let mut rows = Vec::new();
        for number in languages {
            full_text.add(self, number, text, &mut rows)?;
        }
        rows.sort_unstable();
        rows.dedup();
        Ok(rows)
    }
}
