use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::sample::Provenance;

type Examples = BTreeMap<Language, Vec<Example>>;

/// The topic of a passage is its number modulo four, in every language.
fn topic_of(_: &Language, passage: &str) -> Result<Topic> {
    Ok(Topic(passage[1..].parse::<u32>().unwrap() % 4))
}

fn example(query: usize, positives: &[u32], eliminated: &[u32], negatives: &[u32]) -> Example {
    let id = |passage: &u32| format!("p{passage}");
    let relevant: Vec<String> = positives.iter().chain(eliminated).map(id).collect();
    let negative = |passage| Negative { passage, provenance: Provenance::Judged };
    let allowed = negatives.iter().map(id).filter(|passage| !relevant.contains(passage));
    let negatives = allowed.collect::<std::collections::BTreeSet<_>>().into_iter().map(negative).collect();
    Example { query: format!("q{query}"), positives: positives.iter().map(id).collect(), relevant, negatives }
}

fn examples() -> impl Strategy<Value = Examples> {
    let list = |range| prop::collection::vec(0u32..30, range);
    let query = (list(1..4), list(0..3), list(0..12));
    let language = prop::collection::vec(query, 1..25);
    prop::collection::vec(language, 1..4).prop_map(|languages| {
        let of = |(tag, queries): (&str, Vec<(Vec<u32>, Vec<u32>, Vec<u32>)>)| {
            let example = |(number, (positives, eliminated, negatives)): (usize, (Vec<u32>, Vec<u32>, Vec<u32>))| {
                let mut seen = HashSet::new();
                let positives: Vec<u32> = positives.into_iter().filter(|passage| seen.insert(*passage)).collect();
                example(number, &positives, &eliminated, &negatives)
            };
            (Language::new(tag).unwrap(), queries.into_iter().enumerate().map(example).collect())
        };
        ["ar", "ko", "sw"].into_iter().zip(languages).map(of).collect()
    })
}

fn config() -> impl Strategy<Value = BatchConfig> {
    let policies = (any::<bool>(), any::<bool>(), any::<bool>());
    (1usize..12, 1usize..6, 1u32..6, 0.0..1.0, 0.0..1.0, policies).prop_map(
        |(queries, negatives, epochs, language_gamma, topic_delta, (mixed, ignore, mask))| BatchConfig {
            queries,
            negatives,
            epochs,
            language: if mixed { LanguagePolicy::Mixed } else { LanguagePolicy::Single },
            language_gamma,
            topic: if ignore { TopicPolicy::Ignore } else { TopicPolicy::Balance },
            topic_delta,
            collisions: if mask { Collisions::Mask } else { Collisions::Avoid },
        },
    )
}

fn find<'a>(examples: &'a Examples, row: &Row) -> &'a Example {
    examples[&row.language].iter().find(|example| example.query == row.query).unwrap()
}

fn topic(example: &Example, language: &Language) -> Topic {
    topic_of(language, &example.positives[0]).unwrap()
}

/// The sizes of the topics of one language, or of all.
fn sizes(examples: &Examples, language: Option<&Language>) -> Vec<usize> {
    let mut sizes: BTreeMap<Topic, usize> = BTreeMap::new();
    for (tag, examples) in examples.iter().filter(|(tag, _)| language.is_none_or(|language| language == *tag)) {
        examples.iter().for_each(|example| *sizes.entry(topic(example, tag)).or_default() += 1);
    }
    sizes.into_values().collect()
}

/// A step is as full as its language allows, holds no query twice, and keeps its language and topic quota.
fn check_composition(step: &Step, examples: &Examples, config: &BatchConfig) {
    let language = (config.language == LanguagePolicy::Single).then(|| &step.rows[0].language);
    let sizes = sizes(examples, language);
    assert_eq!(step.rows.len(), config.queries.min(sizes.iter().sum()));
    assert!(language.is_none_or(|language| step.rows.iter().all(|row| row.language == *language)));
    let queries: HashSet<_> = step.rows.iter().map(|row| (&row.language, &row.query)).collect();
    assert_eq!(queries.len(), step.rows.len());
    let mut counts: BTreeMap<Topic, usize> = BTreeMap::new();
    step.rows.iter().for_each(|row| *counts.entry(topic(find(examples, row), &row.language)).or_default() += 1);
    let asked = config.queries.div_ceil(sizes.len()) + 1;
    let fits = sizes.iter().map(|size| size.min(&asked)).sum::<usize>() >= step.rows.len();
    if config.topic == TopicPolicy::Balance && fits {
        assert!(counts.values().all(|count| *count <= asked), "{counts:?} over {asked}");
    }
}

/// Exactly the columns that hold something relevant to the row, its own positive apart, are masked.
fn check_masks(step: &Step, examples: &Examples) {
    let columns = step.columns();
    for row in &step.rows {
        let relevant = &find(examples, row).relevant;
        let hidden = |(language, passage): &(&Language, &str)| {
            **language == row.language && *passage != row.positive && relevant.iter().any(|id| id == passage)
        };
        let expected: Vec<u32> =
            (0..columns.len()).filter(|column| hidden(&columns[*column])).map(|column| column as u32).collect();
        assert_eq!(row.masked, expected);
    }
}

/// The `uses`-th draw of a query takes the next positive and the next window of its negatives.
fn check_rotation(row: &Row, example: &Example, drawn: &mut Vec<Vec<String>>, config: &BatchConfig) {
    assert_eq!(row.positive, example.positives[drawn.len() % example.positives.len()]);
    let window: Vec<String> = row.negatives.iter().map(|negative| negative.passage.clone()).collect();
    assert_eq!(window.len(), config.negatives.min(example.negatives.len()));
    assert_eq!(window.iter().collect::<HashSet<_>>().len(), window.len());
    drawn.push(window);
    let lap = example.negatives.len().div_ceil(config.negatives.max(1)).max(1);
    if drawn.len().is_multiple_of(lap) && drawn.len() == lap {
        let seen: HashSet<_> = drawn.iter().flatten().collect();
        assert_eq!(seen.len(), example.negatives.len(), "a lap of windows shows every negative");
    }
}

proptest! {
    #[test]
    fn every_step_keeps_the_invariants(examples in examples(), config in config(), seed in 0u64..1000) {
        let plan = plan(&examples, topic_of, &config, seed).unwrap();
        let queries: usize = examples.values().map(Vec::len).sum();
        prop_assert_eq!(plan.len(), queries.div_ceil(config.queries) * config.epochs as usize);
        let mut drawn: BTreeMap<(Language, String), Vec<Vec<String>>> = BTreeMap::new();
        for (number, step) in plan.steps().enumerate() {
            prop_assert_eq!(step.step, number as u64);
            prop_assert_eq!(step.epoch as usize, number / queries.div_ceil(config.queries));
            check_composition(&step, &examples, &config);
            check_masks(&step, &examples);
            for row in &step.rows {
                let history = drawn.entry((row.language.clone(), row.query.clone())).or_default();
                check_rotation(row, find(&examples, row), history, &config);
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_plan_in_any_number_of_threads(examples in examples(), config in config()) {
        let steps = || plan(&examples, topic_of, &config, 3).unwrap().steps().collect::<Vec<_>>();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        prop_assert_eq!(steps(), pool.install(steps));
    }

    #[test]
    fn the_queries_of_a_topic_are_used_evenly(examples in examples(), config in config()) {
        let config = BatchConfig { collisions: Collisions::Mask, ..config };
        let plan = plan(&examples, topic_of, &config, 3).unwrap();
        let mut uses: BTreeMap<(usize, Topic), Vec<u32>> = BTreeMap::new();
        for (query, count) in plan.material.queries.iter().zip(&plan.uses) {
            let topic = if config.topic == TopicPolicy::Ignore { Topic(0) } else { query.topic };
            uses.entry((query.language, topic)).or_default().push(*count);
        }
        prop_assert!(uses.values().all(|uses| uses.iter().max().unwrap() - uses.iter().min().unwrap() <= 2));
    }
}

#[test]
fn a_collision_is_avoided_where_another_query_fits_and_masked_where_none_does() {
    let swahili = |queries: Vec<Example>| Examples::from([(Language::new("sw").unwrap(), queries)]);
    let config = BatchConfig { queries: 2, negatives: 1, epochs: 30, ..BatchConfig::default() };
    let masked = |examples: &Examples, config: &BatchConfig| {
        let plan = plan(examples, topic_of, config, 1).unwrap();
        let cells: usize = plan.steps().flat_map(|step| step.rows).map(|row| row.masked.len()).sum();
        (cells, plan.avoided, plan.last_resorts)
    };
    // Queries 0 and 1 share positive 0; queries 2 and 3 are free. All are of topic 0.
    let mixed = swahili((0..4).map(|at| example(at, &[if at < 2 { 0 } else { 4 * at as u32 }], &[], &[])).collect());
    let (cells, avoided, last_resorts) = masked(&mixed, &config);
    assert!(cells == 0 && avoided > 0 && last_resorts == 0, "{cells} {avoided} {last_resorts}");
    // Query 0 brings passage 8, which the judge found relevant to query 1; there is no other query.
    let stuck = swahili(vec![example(0, &[0], &[], &[8]), example(1, &[4], &[8], &[])]);
    let (cells, avoided, last_resorts) = masked(&stuck, &config);
    assert!(cells == 30 && avoided == 0 && last_resorts == 30, "{cells} {avoided} {last_resorts}");
    let (cells, _, last_resorts) = masked(&stuck, &BatchConfig { collisions: Collisions::Mask, ..config });
    assert_eq!((cells, last_resorts), (30, 0));
}

#[test]
fn languages_and_topics_are_drawn_in_proportion_to_a_power_of_their_size() {
    let queries = |count: u32| (0..count).map(|at| example(at as usize, &[at], &[], &[])).collect();
    let examples =
        Examples::from([(Language::new("ru").unwrap(), queries(400)), (Language::new("ko").unwrap(), queries(100))]);
    for (gamma, expected) in [(0.0, 0.5), (0.5, 2.0 / 3.0), (1.0, 0.8)] {
        let config = BatchConfig { queries: 4, epochs: 40, language_gamma: gamma, ..BatchConfig::default() };
        let plan = plan(&examples, topic_of, &config, 1).unwrap();
        let russian = plan.steps().filter(|step| step.rows[0].language.as_str() == "ru").count();
        let share = russian as f64 / plan.len() as f64;
        assert!((share - expected).abs() < 0.03, "γ {gamma}: {share}");
    }
    // One topic of 300 queries, one of 12: with δ = 0 a row is of either topic alike until the cap of ⌈4/2⌉ + 1.
    let uneven = (0..312).map(|at| example(at, &[if at < 300 { 4 * at as u32 } else { 4 * at as u32 + 1 }], &[], &[]));
    let uneven = Examples::from([(Language::new("ru").unwrap(), uneven.collect())]);
    let config = BatchConfig { queries: 4, epochs: 10, topic_delta: 0.0, ..BatchConfig::default() };
    let plan = plan(&uneven, topic_of, &config, 1).unwrap();
    let summary = plan.summary(&[]);
    let share = summary.counts["rows of topic 01 "] as f64 / (4 * plan.len()) as f64;
    assert!((share - 0.5).abs() < 0.03, "{share}");
    assert_eq!((summary.counts["uses per query, most"] > 40, summary.counts["single-topic steps"]), (true, 0));
}

#[test]
fn a_cap_is_raised_only_where_topics_are_too_small() {
    let config = BatchConfig::default();
    assert_eq!(cap(&[100; 12], &config), (3, false));
    assert_eq!(cap(&[100, 1, 1, 1], &config), (21, true));
    assert_eq!(cap(&[5], &config), (25, false));
    assert_eq!(cap(&[3, 3], &BatchConfig { topic: TopicPolicy::Ignore, ..config }), (24, false));
}

#[test]
fn no_example_and_an_example_without_a_positive_are_refused() {
    let error = plan(&Examples::new(), topic_of, &BatchConfig::default(), 1).err().unwrap();
    assert!(error.to_string().contains("no training examples"), "{error}");
    let examples = Examples::from([(Language::new("sw").unwrap(), vec![example(7, &[], &[], &[1])])]);
    let error = plan(&examples, topic_of, &BatchConfig::default(), 1).err().unwrap();
    assert!(error.to_string().contains("`q7` of `sw` has no positive"), "{error}");
}

#[test]
fn forty_thousand_queries_are_planned_in_seconds() {
    let language = |number: usize| {
        let example = |at: usize| {
            let passage = |offset: usize| ((at * 31 + offset * 97) % 100_000) as u32;
            let negatives: Vec<u32> = (2..32).map(passage).collect();
            example(at, &[passage(0)], &[passage(1)], &negatives)
        };
        (Language::new(&format!("l{number}")).unwrap(), (0..2_500).map(example).collect())
    };
    let examples: Examples = (0..16).map(language).collect();
    let started = std::time::Instant::now();
    let plan = plan(&examples, topic_of, &BatchConfig::default(), 1).unwrap();
    eprintln!("{} steps planned in {:.2} s", plan.len(), started.elapsed().as_secs_f64());
    let exposure = plan.exposure();
    eprintln!("exposure counted after {:.2} s", started.elapsed().as_secs_f64());
    assert_eq!((plan.len(), exposure.language.len()), (33_340, 16));
    assert!(started.elapsed().as_secs() < 60);
}
