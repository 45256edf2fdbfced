//! Every mined query in a compact row, and the mapped files that hold the rest.

use std::ops::Range;

use rayon::prelude::*;

use super::Arm;
use super::facts::{CandidateFacts, ExampleFacts, JudgementFacts, ListedFacts, SupplementFacts};
use super::full_text::FullText;
use super::mapped_lines::MappedLines;
use super::steps::Steps;
use crate::artefact::Artefact;
use crate::corpus::Language;
use crate::dataset::{Dataset, JudgedQueries, Partition, Split};
use crate::error::{Error, Result};
use crate::generate::QuerySupplement;
use crate::judge::{QueryJudgements, Verdict};
use crate::mine::{self, QueryCandidates};
use crate::progress::Progress;
use crate::queries::{Query, QueryIndex};
use crate::sample::Example;
use crate::text::normalise::normalise;
use crate::topic::{Topic, Topics};

/// What a query serves for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Set {
    /// To learn from.
    Train,
    /// Set aside by `sample`.
    Validation,
}

impl Set {
    /// Both, in the order of declaration.
    pub(super) const ALL: [Self; 2] = [Self::Train, Self::Validation];

    /// The name in file names and addresses.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
        }
    }
}

/// What is kept of a query.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// Its language, a place in [`Catalogue::languages`].
    pub(super) language: u16,
    /// Its place among the train queries of its language.
    pub(super) query: QueryIndex,
    /// Its lines in the files of its language.
    pub(super) lines: LinesOfQuery,
    /// The topic of its first positive.
    pub(super) topic: Option<Topic>,
    /// Candidates by verdict, in the order of [`Verdict::ALL`]; all zero where nothing was judged.
    pub(super) verdicts: [u16; Verdict::ALL.len()],
    /// Its candidates.
    pub(super) candidates: u16,
    /// The highest model score of a candidate; NaN without any.
    pub(super) best: f32,
    /// The highest model score of a positive; NaN without any.
    pub(super) positive: f32,
    /// Id and text in normal form, for the text filter.
    pub(super) words: Box<str>,
}

impl Row {
    /// How many candidates have this verdict.
    pub(super) fn count(&self, verdict: Verdict) -> u16 {
        let place = Verdict::ALL.iter().position(|other| *other == verdict).expect("all verdicts are listed");
        self.verdicts[place]
    }
}

/// Where a query stands in the files of its language, lines from 0.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LinesOfQuery {
    pub(super) candidates: u32,
    pub(super) judgements: Option<u32>,
    pub(super) supplement: Option<u32>,
    pub(super) example: Option<(Set, u32)>,
}

/// The files of a language.
#[derive(Debug)]
pub(super) struct LanguageFiles {
    pub(super) language: Language,
    /// Its rows among [`Catalogue::rows`].
    pub(super) rows: Range<usize>,
    candidates: MappedLines,
    judgements: Option<MappedLines>,
    supplement: Option<MappedLines>,
    examples: [Option<MappedLines>; 2],
    /// The row of each train query, if it was mined.
    row_of: Vec<Option<u32>>,
}

/// All queries, and where everything about them lies.
pub(super) struct Catalogue {
    pub(super) dataset: Dataset,
    pub(super) topics: Option<Topics>,
    /// The mined languages, in ascending order of their tags.
    pub(super) languages: Vec<LanguageFiles>,
    /// By language, then in the order of the candidates' file.
    pub(super) rows: Vec<Row>,
    pub(super) steps: Option<Steps>,
    pub(super) full_text: Option<FullText>,
}

impl Catalogue {
    /// Opens the artefacts of an arm and reads the facts of every query.
    pub(super) fn open(arm: &Arm, progress: &Progress<'_>) -> Result<Self> {
        let dataset = Dataset::open(arm.required("dataset")?)?;
        let candidates = arm.required("candidates")?;
        let topics = arm.artefacts.get("topics").map(Topics::open).transpose()?;
        let full_text = arm.artefacts.get("index").map(FullText::new);
        let mut catalogue = Self { dataset, topics, languages: Vec::new(), rows: Vec::new(), steps: None, full_text };
        progress.begin("inspect", catalogue.dataset.partitions.len(), "languages");
        for partition in &catalogue.dataset.partitions {
            if partition.has(Split::Train) && candidates.has(&mine::file_name(&partition.language)) {
                let reader = Reader { partition, topics: catalogue.topics.as_ref(), number: catalogue.languages.len() };
                let mut files = LanguageFiles::open(arm, candidates, partition)?;
                let rows = reader.rows(&files)?;
                files.rows = catalogue.rows.len()..catalogue.rows.len() + rows.len();
                for (place, row) in (files.rows.start as u32..).zip(&rows) {
                    files.row_of[row.query.at()] = Some(place);
                }
                catalogue.languages.push(files);
                catalogue.rows.extend(rows);
            }
            progress.advance(1);
        }
        catalogue.steps = arm.artefacts.get("batches").map(|batches| Steps::open(batches, &catalogue)).transpose()?;
        Ok(catalogue)
    }

    /// The number and files of a language.
    pub(super) fn language(&self, tag: &str) -> Option<(u16, &LanguageFiles)> {
        (0..).zip(&self.languages).find(|(_, files)| files.language.as_str() == tag)
    }

    /// The number of the language of a tag, all numbers without a tag, none where there is no such language.
    pub(super) fn numbers(&self, tag: Option<&str>) -> Range<u16> {
        match tag.map(|tag| self.language(tag)) {
            None => 0..self.languages.len() as u16,
            Some(Some((number, _))) => number..number + 1,
            Some(None) => 0..0,
        }
    }

    /// The row of a query by its language's tag and its id.
    pub(super) fn find(&self, language: &str, id: &str) -> Option<usize> {
        let (_, files) = self.language(language)?;
        let partition = self.dataset.partition(&files.language).ok()?;
        let query = partition.split(Split::Train).ok()?.queries.find(id)?;
        files.row_of[query.at()].map(|row| row as usize)
    }

    /// The files of a row's language.
    pub(super) fn files(&self, row: &Row) -> &LanguageFiles {
        &self.languages[usize::from(row.language)]
    }

    /// The passages and judgements of a row's language.
    pub(super) fn partition(&self, row: &Row) -> &Partition {
        self.dataset.partition(&self.files(row).language).expect("the row came from there")
    }

    /// A row's query.
    pub(super) fn query(&self, row: &Row) -> &Query {
        self.judged(row).queries.query(row.query)
    }

    /// The train queries of a row's language with their qrels.
    pub(super) fn judged(&self, row: &Row) -> &JudgedQueries {
        self.partition(row).split(Split::Train).expect("the row came from there")
    }

    /// The name of a topic.
    pub(super) fn label(&self, topic: Topic) -> &str {
        let labels = self.topics.as_ref().map_or(&[][..], |topics| &topics.labels);
        labels.get(topic.0 as usize).map_or("", String::as_str)
    }

    /// A row's candidates.
    pub(super) fn candidates(&self, row: &Row) -> Result<QueryCandidates> {
        self.files(row).candidates.read(row.lines.candidates as usize)
    }

    /// A row's judgements.
    pub(super) fn judgements(&self, row: &Row) -> Result<Option<QueryJudgements>> {
        read(self.files(row).judgements.as_ref(), row.lines.judgements)
    }

    /// What a generated query found for a row.
    pub(super) fn supplement(&self, row: &Row) -> Result<Option<QuerySupplement>> {
        read(self.files(row).supplement.as_ref(), row.lines.supplement)
    }

    /// A row's training or validation example.
    pub(super) fn example(&self, row: &Row) -> Result<Option<Example>> {
        let Some((set, line)) = row.lines.example else { return Ok(None) };
        read(self.files(row).examples[set as usize].as_ref(), Some(line))
    }
}

fn read<T: serde::de::DeserializeOwned>(lines: Option<&MappedLines>, line: Option<u32>) -> Result<Option<T>> {
    lines.zip(line).map(|(lines, line)| lines.read(line as usize)).transpose()
}

impl LanguageFiles {
    fn open(arm: &Arm, candidates: &Artefact, partition: &Partition) -> Result<Self> {
        let language = partition.language.clone();
        let file = mine::file_name(&language);
        let optional = |role: &str, file: &str| MappedLines::open_if_there(arm.artefacts.get(role), file);
        let examples = Set::ALL.map(|set| optional("examples", &format!("{language}.{}.jsonl", set.name())));
        let [train, validation] = examples;
        Ok(Self {
            rows: 0..0,
            candidates: MappedLines::open(candidates, &file)?,
            judgements: optional("judgements", &file)?,
            supplement: optional("supplement", &file)?,
            examples: [train?, validation?],
            row_of: vec![None; partition.split(Split::Train)?.queries.len()],
            language,
        })
    }

    /// What was said of a row's candidates and of nothing else, borrowed from the files: for going through all of them.
    pub(super) fn verdicts<'a>(&'a self, row: &Row) -> Result<Option<JudgementFacts<'a>>> {
        let lines = self.judgements.as_ref().zip(row.lines.judgements);
        lines.map(|(lines, line)| lines.read(line as usize)).transpose()
    }

    /// All passages that a row lists, positives first, borrowed from the file.
    pub(super) fn all_listed<'a>(&'a self, row: &Row) -> Result<ListedFacts<'a>> {
        self.candidates.read(row.lines.candidates as usize)
    }

    /// Which passages a row lists, borrowed from the file.
    pub(super) fn listed<'a>(&'a self, row: &Row) -> Result<super::facts::PassageFacts<'a>> {
        self.candidates.read(row.lines.candidates as usize)
    }
}

/// Reads the rows of one language.
struct Reader<'a> {
    partition: &'a Partition,
    topics: Option<&'a Topics>,
    number: usize,
}

impl Reader<'_> {
    fn rows(&self, files: &LanguageFiles) -> Result<Vec<Row>> {
        let read = |line: usize| self.row(&files.candidates, line);
        let mut rows: Vec<Row> = (0..files.candidates.len()).into_par_iter().map(read).collect::<Result<_>>()?;
        let mut row_of = vec![None; files.row_of.len()];
        for (place, row) in rows.iter().enumerate() {
            if row_of[row.query.at()].replace(place).is_some() {
                let id = &self.queries()?.query(row.query).id;
                let message = format!("query `{id}` stands on two lines; mine again");
                return Err(Error::file(files.candidates.path(), message));
            }
        }
        self.add_judgements(files, &row_of, &mut rows)?;
        self.add_supplements(files, &row_of, &mut rows)?;
        for (set, lines) in Set::ALL.into_iter().zip(&files.examples) {
            self.add_examples(set, lines.as_ref(), &row_of, &mut rows)?;
        }
        Ok(rows)
    }

    fn queries(&self) -> Result<&crate::queries::Queries> {
        Ok(&self.partition.split(Split::Train)?.queries)
    }

    fn row(&self, lines: &MappedLines, line: usize) -> Result<Row> {
        let facts: CandidateFacts = lines.read(line)?;
        let query = self.query_named(lines, line, &facts.query)?;
        let Query { id, text } = self.queries()?.query(query);
        let positives = &self.partition.split(Split::Train)?.qrels;
        let first = positives.positives(query).next();
        let highest = |scores: &mut dyn Iterator<Item = f32>| scores.fold(f32::NAN, f32::max);
        Ok(Row {
            language: self.number as u16,
            query,
            lines: LinesOfQuery { candidates: line as u32, ..LinesOfQuery::default() },
            topic: first.and_then(|positive| self.topic(positive)),
            verdicts: [0; Verdict::ALL.len()],
            candidates: facts.candidates.len() as u16,
            best: highest(&mut facts.candidates.iter().map(|candidate| candidate.model_score)),
            positive: highest(&mut facts.positives.iter().map(|(_, score)| *score)),
            words: normalise(&format!("{id} {text}")).into(),
        })
    }

    fn topic(&self, passage: crate::corpus::PassageIndex) -> Option<Topic> {
        self.topics?.passages.get(&self.partition.language)?.get(passage.at()).copied()
    }

    fn query_named(&self, lines: &MappedLines, line: usize, id: &str) -> Result<QueryIndex> {
        let language = &self.partition.language;
        self.queries()?.find(id).ok_or_else(|| {
            let message = format!("`{id}` is no train query of `{language}`; was this made from another data set?");
            Error::line(lines.path(), line as u64 + 1, message)
        })
    }

    fn add_supplements(&self, files: &LanguageFiles, row_of: &[Option<usize>], rows: &mut [Row]) -> Result<()> {
        let Some(lines) = &files.supplement else { return Ok(()) };
        for line in 0..lines.len() {
            let facts: SupplementFacts = lines.read(line)?;
            if let Some(place) = row_of[self.query_named(lines, line, &facts.query)?.at()] {
                rows[place].lines.supplement = Some(line as u32);
            }
        }
        Ok(())
    }

    fn add_judgements(&self, files: &LanguageFiles, row_of: &[Option<usize>], rows: &mut [Row]) -> Result<()> {
        let Some(lines) = &files.judgements else { return Ok(()) };
        let read = |line: usize| -> Result<_> {
            let facts: JudgementFacts = lines.read(line)?;
            let mut verdicts = [0; Verdict::ALL.len()];
            for fact in &facts.judgements {
                let place = Verdict::ALL.iter().position(|verdict| *verdict == fact.verdict);
                verdicts[place.expect("all verdicts are listed")] += 1;
            }
            Ok((self.query_named(lines, line, &facts.query)?, verdicts))
        };
        let found: Vec<_> = (0..lines.len()).into_par_iter().map(read).collect::<Result<_>>()?;
        for (line, (query, verdicts)) in (0..).zip(found) {
            if let Some(place) = row_of[query.at()] {
                rows[place].verdicts = verdicts;
                rows[place].lines.judgements = Some(line);
            }
        }
        Ok(())
    }

    /// Examples say in which order positives are taken, so the topic is that of the first of them, as `batch` has it.
    fn add_examples(
        &self,
        set: Set,
        lines: Option<&MappedLines>,
        row_of: &[Option<usize>],
        rows: &mut [Row],
    ) -> Result<()> {
        let Some(lines) = lines else { return Ok(()) };
        let read = |line: usize| -> Result<_> {
            let facts: ExampleFacts = lines.read(line)?;
            let first = facts.positives.first().and_then(|id| self.partition.corpus.find(id));
            Ok((self.query_named(lines, line, &facts.query)?, first.and_then(|positive| self.topic(positive))))
        };
        let found: Vec<_> = (0..lines.len()).into_par_iter().map(read).collect::<Result<_>>()?;
        for (line, (query, topic)) in (0..).zip(found) {
            if let Some(place) = row_of[query.at()] {
                rows[place].lines.example = Some((set, line));
                rows[place].topic = topic;
            }
        }
        Ok(())
    }
}
