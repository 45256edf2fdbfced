//! The planner: from examples to steps, a pure function of examples, topics, configuration and seed.
//!
//! Queries wait in shuffled queues, one per language and topic. A step draws its language, then for each row a topic
//! among those below the cap, and takes the first query of that queue which is not in the step yet. An empty queue
//! starts anew in another order; queries passed over keep their place at the front, so uses stay even.

use std::collections::{BTreeMap, VecDeque};

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::material::{Material, Query};
use super::{BatchConfig, Collisions, Exposure, LanguagePolicy, Row, Step, TopicPolicy};
use crate::artefact::Summary;
use crate::corpus::Language;
use crate::error::Result;
use crate::random;
use crate::sample::{Example, Negative};
use crate::topic::Topic;

/// Queries of a queue that are tried before a collision is masked.
const TRIES: usize = 16;

/// Plans all steps of a training. `topic_of` names the topic of a passage by its language and id.
///
/// # Errors
/// No examples, an example without a positive, and whatever `topic_of` returns.
pub fn plan(
    examples: &BTreeMap<Language, Vec<Example>>,
    topic_of: impl Fn(&Language, &str) -> Result<Topic>,
    config: &BatchConfig,
    seed: u64,
) -> Result<Plan> {
    config.validate()?;
    let material = Material::new(examples, topic_of, seed)?;
    let per_epoch = material.queries.len().div_ceil(config.queries);
    let total = per_epoch * config.epochs as usize;
    let mut planner = Planner::new(&material, config, seed);
    let steps = (0..total).map(|step| planner.step(step)).collect();
    let Planner { uses, avoided, last_resorts, raised_caps, .. } = planner;
    Ok(Plan { material, steps, per_epoch, queries: config.queries, uses, avoided, last_resorts, raised_caps })
}

/// A planned training, compact; [`steps`](Self::steps) writes it out.
pub struct Plan {
    material: Material,
    steps: Vec<Vec<Draw>>,
    per_epoch: usize,
    queries: usize,
    uses: Vec<u32>,
    avoided: usize,
    last_resorts: usize,
    raised_caps: usize,
}

/// One row: a query, which of its positives, and the window of its shuffled negatives.
struct Draw {
    query: u32,
    positive: u32,
    window: (u32, u32),
    masked: Vec<u32>,
}

impl Draw {
    /// The passages that the row brings: its positive, then its negatives.
    fn passages<'a>(&self, query: &'a Query) -> impl Iterator<Item = u32> + use<'a> {
        let positive = self.positive;
        std::iter::once(positive).chain(window(query, self.window).map(|(passage, _)| *passage))
    }
}

/// A cyclic window (start, length) of a query's negatives.
fn window(query: &Query, (start, length): (u32, u32)) -> impl Iterator<Item = &(u32, crate::sample::Provenance)> {
    query.negatives.iter().cycle().skip(start as usize).take(length as usize)
}

impl Plan {
    /// Number of steps.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there is no step; never, since every epoch has one.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The steps in order.
    pub fn steps(&self) -> impl Iterator<Item = Step> + '_ {
        self.steps.iter().enumerate().map(|(number, draws)| Step {
            step: number as u64,
            epoch: (number / self.per_epoch) as u32,
            rows: draws.iter().map(|draw| self.row(draw)).collect(),
        })
    }

    fn row(&self, draw: &Draw) -> Row {
        let query = &self.material.queries[draw.query as usize];
        let id = |passage: u32| self.material.passages[passage as usize].id.clone();
        let negative = |(passage, provenance): &(u32, _)| Negative { passage: id(*passage), provenance: *provenance };
        Row {
            language: self.material.languages[query.language].clone(),
            query: query.id.clone(),
            positive: id(draw.positive),
            negatives: window(query, draw.window).map(negative).collect(),
            masked: draw.masked.clone(),
        }
    }

    /// How often each language and topic stands among the negatives.
    pub fn exposure(&self) -> Exposure {
        let mut topics: BTreeMap<&Language, BTreeMap<&str, Topic>> = BTreeMap::new();
        for passage in &self.material.passages {
            let language = &self.material.languages[passage.language];
            topics.entry(language).or_default().insert(&passage.id, passage.topic);
        }
        let mut exposure = Exposure::default();
        self.steps().for_each(|step| exposure.add(&step, |language, passage| topics[language][passage]));
        exposure
    }

    /// The counts of the plan; `labels` name the topics.
    pub fn summary(&self, labels: &[String]) -> Summary {
        let mut summary = Summary::default();
        summary.count("steps", self.steps.len());
        summary.count("queries", self.material.queries.len());
        summary.count("steps per epoch", self.per_epoch);
        summary.count("collisions avoided", self.avoided);
        summary.count("collisions masked as a last resort", self.last_resorts);
        summary.count("topic caps raised", self.raised_caps);
        self.count_uses(&mut summary);
        self.count_rows(labels, &mut summary);
        for draws in &self.steps {
            self.count_step(draws, &mut summary);
        }
        summary
    }

    fn count_uses(&self, summary: &mut Summary) {
        let mut uses = self.uses.clone();
        uses.sort_unstable();
        summary.count("uses per query, least", uses[0] as usize);
        summary.count("uses per query, median", uses[uses.len() / 2] as usize);
        summary.count("uses per query, most", uses[uses.len() - 1] as usize);
    }

    fn count_rows(&self, labels: &[String], summary: &mut Summary) {
        let mut topics: BTreeMap<Topic, usize> = BTreeMap::new();
        let mut languages: BTreeMap<usize, usize> = BTreeMap::new();
        for (query, uses) in self.material.queries.iter().zip(&self.uses) {
            *topics.entry(query.topic).or_default() += *uses as usize;
            *languages.entry(query.language).or_default() += *uses as usize;
        }
        for (topic, rows) in topics {
            let label = labels.get(topic.0 as usize).map_or("", String::as_str);
            summary.count(format!("rows of topic {:02} {label}", topic.0), rows);
        }
        for (language, rows) in languages {
            summary.count(format!("{}: rows", self.material.languages[language]), rows);
        }
    }

    fn count_step(&self, draws: &[Draw], summary: &mut Summary) {
        let queries = || draws.iter().map(|draw| &self.material.queries[draw.query as usize]);
        let first = queries().next().expect("a step has a query");
        if queries().all(|query| query.language == first.language) {
            summary.count(format!("{}: steps", self.material.languages[first.language]), 1);
        }
        let is_single_topic = queries().all(|query| query.topic == first.topic);
        summary.count("single-topic steps", usize::from(is_single_topic));
        summary.count("short steps", usize::from(draws.len() < self.queries));
        summary.count("masked cells", draws.iter().map(|draw| draw.masked.len()).sum());
    }
}

/// The queries of one language and topic (or of one language, where topics are ignored).
struct Group {
    /// Names the group in the key of its shuffles.
    name: String,
    topic: usize,
    queries: Vec<u32>,
    /// m^δ.
    weight: f64,
    queue: VecDeque<u32>,
    rounds: u32,
    /// Queries of this group in the current step.
    in_step: usize,
}

/// The groups of one language, or of all.
struct Pool {
    /// Places in the planner's list of groups.
    groups: Vec<usize>,
    weight: f64,
    size: usize,
}

/// Draws steps one after another.
struct Planner<'a> {
    material: &'a Material,
    config: &'a BatchConfig,
    seed: u64,
    groups: Vec<Group>,
    pools: Vec<Pool>,
    /// The most queries of one topic in a step, by pool; one value for all where languages are mixed.
    caps: Vec<usize>,
    raised_caps: usize,
    /// How often each query was drawn.
    uses: Vec<u32>,
    avoided: usize,
    last_resorts: usize,
    marks: Marks,
}

impl<'a> Planner<'a> {
    fn new(material: &'a Material, config: &'a BatchConfig, seed: u64) -> Self {
        let groups = groups(material, config);
        let pools = pools(material, &groups, config);
        let caps = match config.language {
            LanguagePolicy::Single => {
                pools.iter().map(|pool| cap(&topic_sizes(&groups, &pool.groups), config)).collect()
            }
            LanguagePolicy::Mixed => vec![cap(&topic_sizes(&groups, &(0..groups.len()).collect::<Vec<_>>()), config)],
        };
        let caps: Vec<(usize, bool)> = caps;
        Self {
            material,
            config,
            seed,
            groups,
            pools,
            raised_caps: caps.iter().filter(|(_, raised)| *raised).count(),
            caps: caps.into_iter().map(|(cap, _)| cap).collect(),
            uses: vec![0; material.queries.len()],
            avoided: 0,
            last_resorts: 0,
            marks: Marks::new(material),
        }
    }

    fn step(&mut self, number: usize) -> Vec<Draw> {
        let mut random = random::keyed(self.seed, "batch.step", &number.to_string());
        let one = draw(&mut random, self.pools.iter().map(|pool| pool.weight)).expect("there is a language");
        let (size, cap) = match self.config.language {
            LanguagePolicy::Single => (self.pools[one].size, self.caps[one]),
            LanguagePolicy::Mixed => (self.material.queries.len(), self.caps[0]),
        };
        self.marks.begin(number);
        self.groups.iter_mut().for_each(|group| group.in_step = 0);
        let mut draws = Vec::new();
        while draws.len() < size.min(self.config.queries) {
            let pool = match self.config.language {
                LanguagePolicy::Single => one,
                LanguagePolicy::Mixed => self.draw_pool(cap, &mut random),
            };
            let group = self.draw_group(pool, cap, &mut random).expect("the cap leaves room for a whole step");
            draws.push(self.take(group));
        }
        self.mask(&mut draws);
        draws
    }

    /// A language that still has a topic below the cap.
    fn draw_pool(&self, cap: usize, random: &mut ChaCha8Rng) -> usize {
        let open = |pool: &Pool| pool.groups.iter().any(|group| self.weight(*group, cap) > 0.0);
        let weights = self.pools.iter().map(|pool| if open(pool) { pool.weight } else { 0.0 });
        draw(random, weights).expect("the cap leaves room for a whole step")
    }

    fn draw_group(&self, pool: usize, cap: usize, random: &mut ChaCha8Rng) -> Option<usize> {
        let groups = &self.pools[pool].groups;
        draw(random, groups.iter().map(|group| self.weight(*group, cap))).map(|place| groups[place])
    }

    /// m^δ, or 0 where every query of the group is in the step or its topic has reached the cap.
    fn weight(&self, group: usize, cap: usize) -> f64 {
        let group = &self.groups[group];
        let used_up = group.in_step == group.queries.len() || self.marks.topics[group.topic] == cap;
        if used_up { 0.0 } else { group.weight }
    }

    /// Takes the first query of the queue that is not in the step; with `avoid`, the first that does not collide.
    fn take(&mut self, group: usize) -> Draw {
        let (mut first, mut tried, mut place, mut refilled) = (None, 0, 0, false);
        let chosen = loop {
            if place == self.groups[group].queue.len() {
                if refilled && first.is_some() {
                    break None;
                }
                self.refill(group);
                refilled = true;
            }
            let query = self.groups[group].queue[place];
            if !self.marks.has_query(query) {
                first = first.or(Some(place));
                if self.config.collisions == Collisions::Mask || !self.collides(query) {
                    break Some(place);
                }
                tried += 1;
                if tried == TRIES {
                    break None;
                }
            }
            place += 1;
        };
        self.avoided += if chosen.is_some() { tried } else { 0 };
        self.last_resorts += usize::from(chosen.is_none());
        let place = chosen.or(first).expect("the group has a query that is not in the step");
        let query = self.groups[group].queue.remove(place).expect("the place was just looked at");
        self.enter(query, group)
    }

    /// Appends another round of the group's queries in a new order.
    fn refill(&mut self, group: usize) {
        let group = &mut self.groups[group];
        let mut round = group.queries.clone();
        round.shuffle(&mut random::keyed(self.seed, "batch.queue", &format!("{}/{}", group.name, group.rounds)));
        group.rounds += 1;
        group.queue.extend(round);
    }

    fn enter(&mut self, query: u32, group: usize) -> Draw {
        let draw = self.next_draw(query);
        self.uses[query as usize] += 1;
        self.groups[group].in_step += 1;
        self.marks.enter(&self.material.queries[query as usize], &draw, self.groups[group].topic);
        draw
    }

    /// The positive and the window of negatives whose turn it is.
    fn next_draw(&self, number: u32) -> Draw {
        let query = &self.material.queries[number as usize];
        let uses = self.uses[number as usize] as usize;
        let length = self.config.negatives.min(query.negatives.len());
        let start = if length == 0 { 0 } else { uses * self.config.negatives % query.negatives.len() };
        let positive = query.positives[uses % query.positives.len()];
        Draw { query: number, positive, window: (start as u32, length as u32), masked: Vec::new() }
    }

    /// Whether the query would bring a passage relevant to a row of the step, or finds one relevant to itself there.
    fn collides(&self, number: u32) -> bool {
        let query = &self.material.queries[number as usize];
        let mut brought = self.next_draw(number).passages(query);
        brought.any(|passage| self.marks.is_relevant(passage))
            || query.relevant.iter().any(|passage| self.marks.is_brought(*passage))
    }

    /// Notes for each row the columns that hold something relevant to it, its own positive apart.
    fn mask(&mut self, draws: &mut [Draw]) {
        self.marks.number_columns(draws, self.material);
        for draw in draws {
            let relevant = self.material.queries[draw.query as usize].relevant.iter();
            let other = relevant.filter(|passage| **passage != draw.positive);
            draw.masked = other.filter_map(|passage| self.marks.column(*passage)).collect();
            draw.masked.sort_unstable();
        }
    }
}

/// What stands in the current step: for each passage and query the last step, counted from 1, in which it was seen.
struct Marks {
    now: u32,
    queries: Vec<u32>,
    brought: Vec<u32>,
    relevant: Vec<u32>,
    columns: Vec<(u32, u32)>,
    /// Queries of each topic in the step.
    topics: Vec<usize>,
}

impl Marks {
    fn new(material: &Material) -> Self {
        let passages = material.passages.len();
        let topics = material.queries.iter().map(|query| query.topic.0 as usize + 1).max().unwrap_or(0);
        Self {
            now: 0,
            queries: vec![0; material.queries.len()],
            brought: vec![0; passages],
            relevant: vec![0; passages],
            columns: vec![(0, 0); passages],
            topics: vec![0; topics],
        }
    }

    fn begin(&mut self, step: usize) {
        self.now = step as u32 + 1;
        self.topics.fill(0);
    }

    fn enter(&mut self, query: &Query, draw: &Draw, topic: usize) {
        self.queries[draw.query as usize] = self.now;
        self.topics[topic] += 1;
        draw.passages(query).for_each(|passage| self.brought[passage as usize] = self.now);
        query.relevant.iter().for_each(|passage| self.relevant[*passage as usize] = self.now);
    }

    fn has_query(&self, query: u32) -> bool {
        self.queries[query as usize] == self.now
    }

    fn is_brought(&self, passage: u32) -> bool {
        self.brought[passage as usize] == self.now
    }

    fn is_relevant(&self, passage: u32) -> bool {
        self.relevant[passage as usize] == self.now
    }

    /// Numbers the distinct passages in order of first use, as [`Step::columns`] does.
    fn number_columns(&mut self, draws: &[Draw], material: &Material) {
        let mut next = 0;
        for draw in draws {
            for passage in draw.passages(&material.queries[draw.query as usize]) {
                if self.columns[passage as usize].0 != self.now {
                    self.columns[passage as usize] = (self.now, next);
                    next += 1;
                }
            }
        }
    }

    fn column(&self, passage: u32) -> Option<u32> {
        let (step, column) = self.columns[passage as usize];
        (step == self.now).then_some(column)
    }
}

/// One group per language and topic, in that order; one per language where topics are ignored.
fn groups(material: &Material, config: &BatchConfig) -> Vec<Group> {
    let mut members: BTreeMap<(usize, usize), Vec<u32>> = BTreeMap::new();
    for (number, query) in material.queries.iter().enumerate() {
        let topic = if config.topic == TopicPolicy::Ignore { 0 } else { query.topic.0 as usize };
        members.entry((query.language, topic)).or_default().push(number as u32);
    }
    let group = |((language, topic), queries): ((usize, usize), Vec<u32>)| Group {
        name: format!("{}/{topic}", material.languages[language]),
        topic,
        weight: (queries.len() as f64).powf(config.topic_delta),
        queries,
        queue: VecDeque::new(),
        rounds: 0,
        in_step: 0,
    };
    members.into_iter().map(group).collect()
}

/// One pool per language that has queries, weighing n^γ.
fn pools(material: &Material, groups: &[Group], config: &BatchConfig) -> Vec<Pool> {
    let language = |group: &Group| material.queries[group.queries[0] as usize].language;
    let pool = |number: usize| {
        let groups_of = groups.iter().enumerate().filter(|(_, group)| language(group) == number);
        let (places, sizes): (Vec<usize>, Vec<usize>) =
            groups_of.map(|(place, group)| (place, group.queries.len())).unzip();
        let size = sizes.iter().sum();
        Pool { groups: places, weight: (size as f64).powf(config.language_gamma), size }
    };
    (0..material.languages.len()).map(pool).filter(|pool| pool.size > 0).collect()
}

/// The number of queries of each topic among some groups.
fn topic_sizes(groups: &[Group], places: &[usize]) -> Vec<usize> {
    let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
    places.iter().for_each(|place| *sizes.entry(groups[*place].topic).or_default() += groups[*place].queries.len());
    sizes.into_values().collect()
}

/// The most queries of one topic in a step: ⌈B/C⌉ + 1 for C topics. Raised just enough where topics are too small to
/// fill the step otherwise, and then marked; no cap where topics are ignored.
fn cap(sizes: &[usize], config: &BatchConfig) -> (usize, bool) {
    if config.topic == TopicPolicy::Ignore {
        return (config.queries, false);
    }
    let wanted = config.queries.min(sizes.iter().sum());
    let asked = config.queries.div_ceil(sizes.len()) + 1;
    let fits = |cap: &usize| sizes.iter().map(|size| size.min(cap)).sum::<usize>() >= wanted;
    let cap = (asked..).find(fits).expect("a cap of B fills every step");
    (cap, cap > asked)
}

/// A position drawn in proportion to the weights; none if all are zero.
fn draw(random: &mut ChaCha8Rng, weights: impl Iterator<Item = f64> + Clone) -> Option<usize> {
    let mut left = random.random::<f64>() * weights.clone().sum::<f64>();
    let mut last = None;
    for (place, weight) in weights.enumerate().filter(|(_, weight)| *weight > 0.0) {
        left -= weight;
        last = Some(place);
        if left < 0.0 {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests;
