//! Asking: a case is one query with the passages to judge, and every passage gets an opinion.

use super::config::{JudgeConfig, Reference};
use super::parse::parse;
use super::prompt;
use super::verdict::{Grades, Opinion};
use crate::corpus::{Corpus, Language, PassageIndex};
use crate::dataset::{Partition, Split};
use crate::error::Result;
use crate::llm::{Llm, Parameters, Reply, Request};
use crate::progress::Progress;
use crate::queries::{Query, QueryIndex};

/// How often a reply that cannot be read is asked for again.
const REPEATS: u32 = 2;

/// One query with its reference and the passages to judge. All its requests go to one server, one after the other.
#[derive(Clone)]
pub(super) struct Case<'a> {
    pub(super) language: &'a Language,
    pub(super) query: &'a Query,
    pub(super) corpus: &'a Corpus,
    pub(super) reference: String,
    pub(super) passages: Vec<PassageIndex>,
}

/// What is known of one vote.
enum Vote {
    Read { grades: Grades, key: String },
    Unreadable { key: String },
    Missing,
}

impl<'a> Case<'a> {
    /// A case whose reference are the query's positives, or `without` some of them; empty if the configuration says so.
    pub(super) fn new(
        partition: &'a Partition,
        split: Split,
        query: QueryIndex,
        without: &[PassageIndex],
        config: &JudgeConfig,
    ) -> Result<Self> {
        let judged = partition.split(split)?;
        let positives = judged.qrels.positives(query).filter(|positive| !without.contains(positive));
        let reference = reference(partition, &positives.collect::<Vec<_>>(), config);
        let query = judged.queries.query(query);
        Ok(Self { language: &partition.language, query, corpus: &partition.corpus, reference, passages: Vec::new() })
    }

    /// The same with the positives of the reference in reverse order; none where that changes nothing.
    pub(super) fn reversed(&self, partition: &Partition, split: Split, config: &JudgeConfig) -> Result<Option<Self>> {
        let judged = partition.split(split)?;
        let Some(query) = judged.queries.find(&self.query.id) else { return Ok(None) };
        let mut positives: Vec<PassageIndex> = judged.qrels.positives(query).collect();
        positives.reverse();
        let reference = reference(partition, &positives, config);
        Ok((reference != self.reference).then(|| Self { reference, ..self.clone() }))
    }

    /// The request for one vote on one passage.
    fn request(&self, passage: PassageIndex, vote: &Parameters, attempt: u32, config: &JudgeConfig) -> Request {
        let candidate = prompt::passage_text(self.corpus.passage(passage));
        Request {
            model: config.model.clone(),
            prompt: config.order.prompt().to_owned(),
            parameters: vote.clone(),
            attempt,
            messages: prompt::messages(config.order, &self.query.text, &self.reference, &candidate),
            about: format!("query `{}` ({})", self.query.id, self.language),
        }
    }

    /// The request for the cheap judge's probability that one passage is relevant.
    pub(super) fn screen_request(&self, passage: PassageIndex, model: &str) -> Request {
        let candidate = prompt::passage_text(self.corpus.passage(passage));
        let (messages, parameters) = prompt::screen(&self.query.text, &self.reference, &candidate);
        Request {
            model: model.to_owned(),
            prompt: prompt::SCREEN.to_owned(),
            parameters,
            attempt: 0,
            messages,
            about: format!("query `{}` ({})", self.query.id, self.language),
        }
    }

    /// The cheap judge's requests, by passage.
    pub(super) fn screen_requests(&self, model: &str) -> Vec<Request> {
        self.passages.iter().map(|passage| self.screen_request(*passage, model)).collect()
    }

    /// The requests of the first attempt, by passage, then vote.
    pub(super) fn requests(&self, config: &JudgeConfig) -> Vec<Request> {
        let votes = ballots(config);
        let request = |passage: &PassageIndex| {
            votes.iter().map(|vote| self.request(*passage, vote, 0, config)).collect::<Vec<_>>()
        };
        self.passages.iter().flat_map(request).collect()
    }

    /// Requests once more where the reply could not be read; `votes` by passage, then vote.
    fn repeats(&self, votes: &[Vote], attempt: u32, config: &JudgeConfig) -> Vec<Request> {
        let ballots = ballots(config);
        let again = |(place, vote): (usize, &Vote)| {
            let (passage, ballot) = (self.passages[place / ballots.len()], &ballots[place % ballots.len()]);
            matches!(vote, Vote::Unreadable { .. }).then(|| self.request(passage, ballot, attempt, config))
        };
        votes.iter().enumerate().filter_map(again).collect()
    }
}

fn reference(partition: &Partition, positives: &[PassageIndex], config: &JudgeConfig) -> String {
    match config.reference {
        Reference::None => String::new(),
        Reference::Positives => prompt::reference(&partition.corpus, positives, config.reference_characters),
    }
}

fn ballots(config: &JudgeConfig) -> Vec<Parameters> {
    if config.votes == 4 { prompt::four_votes() } else { vec![prompt::greedy()] }
}

/// The opinions on every case's passages, in their order.
pub(super) fn opinions(
    cases: &[Case],
    config: &JudgeConfig,
    llm: &Llm,
    progress: &Progress,
) -> Result<Vec<Vec<Opinion>>> {
    let groups: Vec<Vec<Request>> = cases.iter().map(|case| case.requests(config)).collect();
    let replies = llm.ask(&groups, progress)?;
    drop(groups);
    let mut votes: Vec<Vec<Vote>> =
        replies.into_iter().map(|replies| replies.into_iter().map(read).collect()).collect();
    for attempt in 1..=REPEATS {
        let repeats = |(case, votes): (&Case, &Vec<Vote>)| case.repeats(votes, attempt, config);
        let groups: Vec<Vec<Request>> = cases.iter().zip(&votes).map(repeats).collect();
        for (votes, replies) in votes.iter_mut().zip(llm.ask(&groups, progress)?) {
            let unreadable = votes.iter_mut().filter(|vote| matches!(vote, Vote::Unreadable { .. }));
            for (vote, reply) in unreadable.zip(replies) {
                *vote = read(reply);
            }
        }
    }
    let ballots = ballots(config).len();
    Ok(votes.into_iter().map(|votes| votes.chunks(ballots).map(count).collect()).collect())
}

fn read(reply: Reply) -> Vote {
    match reply {
        Reply::Answered { text, key, .. } => match parse(&text) {
            Some(grades) => Vote::Read { grades, key },
            None => Vote::Unreadable { key },
        },
        Reply::Unanswered(_) => Vote::Missing,
    }
}

fn count(votes: &[Vote]) -> Opinion {
    let mut grades = Vec::new();
    let mut keys = Vec::new();
    for vote in votes {
        match vote {
            Vote::Read { grades: read, key } => {
                grades.push(Some(*read));
                keys.push(key.clone());
            }
            Vote::Unreadable { key } => {
                grades.push(None);
                keys.push(key.clone());
            }
            Vote::Missing => return Opinion::Unjudged,
        }
    }
    Opinion::of_votes(&grades, keys)
}
