//! Draws the negatives of one query, the most wanted first, until there are enough.

use std::collections::HashSet;

use rand::RngExt;
use rand::seq::SliceRandom;

use super::guard::Trained;
use super::material::{Listed, QueryMaterial};
use super::{Example, Negative, Provenance, SampleConfig};
use crate::corpus::PassageIndex;
use crate::dataset::{Partition, Split};
use crate::judge::Verdict;
use crate::queries::QueryIndex;
use crate::random;
use crate::text::twins::Twins;

/// By what negatives are drawn.
pub(super) struct Rules<'a> {
    pub(super) config: &'a SampleConfig,
    pub(super) seed: u64,
    /// Ranks of the first list, K.
    pub(super) first: u32,
    /// Whether there are judgements; without them the miner's rule decides.
    pub(super) judged: bool,
}

/// An example by positions.
pub(super) struct Drawn {
    pub(super) query: QueryIndex,
    pub(super) positives: Vec<PassageIndex>,
    pub(super) relevant: Vec<PassageIndex>,
    pub(super) negatives: Vec<(PassageIndex, Provenance)>,
}

impl Drawn {
    /// What the guard looks at.
    pub(super) fn trained(&self, partition: &Partition) -> Trained {
        let queries = &partition.split(Split::Train).expect("drawn from the train split").queries;
        Trained {
            query: queries.query(self.query).id.clone(),
            positives: self.positives.clone(),
            negatives: self.negatives.iter().map(|(passage, _)| *passage).collect(),
        }
    }

    /// The example with the ids of the user's files.
    pub(super) fn named(&self, partition: &Partition) -> Example {
        let queries = &partition.split(Split::Train).expect("drawn from the train split").queries;
        let id = |passage: &PassageIndex| partition.corpus.id(*passage).to_owned();
        Example {
            query: queries.query(self.query).id.clone(),
            positives: self.positives.iter().map(id).collect(),
            relevant: self.relevant.iter().map(id).collect(),
            negatives: self
                .negatives
                .iter()
                .map(|(passage, provenance)| Negative { passage: id(passage), provenance: *provenance })
                .collect(),
        }
    }
}

/// Negatives taken so far, and what must not become one.
struct Filler {
    wanted: usize,
    barred: HashSet<PassageIndex>,
    taken: Vec<(PassageIndex, Provenance)>,
}

impl Filler {
    /// Takes the passage unless there are enough, it is barred, or it was taken before.
    fn offer(&mut self, passage: PassageIndex, provenance: Provenance) {
        if self.taken.len() < self.wanted && self.barred.insert(passage) {
            self.taken.push((passage, provenance));
        }
    }

    /// Offers a candidate of a judged list as its verdict allows; `judged` tags a negative of the judge.
    fn offer_judged(&mut self, listed: &Listed, judged: Provenance) {
        match listed.verdict {
            Verdict::Negative => self.offer(listed.passage, judged),
            Verdict::Human => self.offer(listed.passage, Provenance::Human),
            Verdict::Unjudged | Verdict::Abstained if listed.passes => {
                self.offer(listed.passage, Provenance::Unjudged);
            }
            _ => {}
        }
    }

    /// Offers a candidate if the miner's rule kept it.
    fn offer_mined(&mut self, listed: &Listed) {
        let by_people = listed.verdict == Verdict::Human;
        if listed.passes {
            self.offer(listed.passage, if by_people { Provenance::Human } else { Provenance::Mined });
        }
    }
}

/// The example of one query.
pub(super) fn draw(query: &QueryMaterial, twins: &Twins, partition: &Partition, rules: &Rules) -> Drawn {
    let relevant = relevant(query, twins);
    let mut barred: HashSet<PassageIndex> = relevant.iter().copied().collect();
    barred.extend(query.listed().filter(|listed| listed.verdict == Verdict::Unknown).map(|listed| listed.passage));
    let mut filler = Filler { wanted: rules.config.negatives, barred, taken: Vec::new() };
    if rules.judged {
        fill_judged(&mut filler, query, partition, rules);
    } else {
        query.listed().for_each(|listed| filler.offer_mined(listed));
    }
    let mut positives = query.positives.clone();
    if rules.config.use_false_negatives_as_positives {
        let found = query.listed().filter(|listed| listed.verdict == Verdict::FalseNegative);
        positives.extend(found.map(|listed| listed.passage));
        let mut seen = HashSet::new();
        positives.retain(|passage| seen.insert(*passage));
    }
    Drawn { query: query.query, positives, relevant, negatives: filler.taken }
}

/// The fill order with a judge.
fn fill_judged(filler: &mut Filler, query: &QueryMaterial, partition: &Partition, rules: &Rules) {
    for listed in query.first.iter().filter(|listed| listed.rank <= rules.first) {
        filler.offer_judged(listed, Provenance::Judged);
    }
    for listed in &query.supplement {
        filler.offer_judged(listed, Provenance::Supplement);
    }
    for passage in &query.human {
        filler.offer(*passage, Provenance::Human);
    }
    let deeper = || query.first.iter().filter(|listed| listed.rank > rules.first);
    for listed in deeper().filter(|listed| listed.verdict == Verdict::Negative) {
        filler.offer(listed.passage, Provenance::Deeper);
    }
    for listed in deeper() {
        filler.offer_judged(listed, Provenance::Deeper);
    }
    fill_at_random(filler, query, partition, rules);
}

/// Random passages of the language. Whatever was listed and not taken was refused for a reason and stays out.
fn fill_at_random(filler: &mut Filler, query: &QueryMaterial, partition: &Partition, rules: &Rules) {
    let needed = filler.wanted - filler.taken.len();
    if needed == 0 {
        return;
    }
    filler.barred.extend(query.listed().map(|listed| listed.passage));
    let (passages, barred) = (partition.corpus.len(), filler.barred.len());
    let id = &partition.split(Split::Train).expect("drawn from the train split").queries.query(query.query).id;
    let mut random = random::keyed(rules.seed, "sample.random", &format!("{}/{id}", partition.language));
    if passages < 4 * (needed + barred) {
        let mut free: Vec<_> = partition.corpus.indices().filter(|index| !filler.barred.contains(index)).collect();
        free.shuffle(&mut random);
        for passage in free {
            filler.offer(passage, Provenance::Random);
        }
    }
    while filler.taken.len() < filler.wanted && passages >= 4 * (needed + barred) {
        filler.offer(PassageIndex(random.random_range(0..passages as u32)), Provenance::Random);
    }
}

/// Positives, then what the judge graded 1 or 2, each followed by its twins; none twice.
fn relevant(query: &QueryMaterial, twins: &Twins) -> Vec<PassageIndex> {
    let mut seen = HashSet::new();
    let with_twins = query.relevant().flat_map(|passage| std::iter::once(passage).chain(twins.of(passage)));
    with_twins.filter(|passage| seen.insert(*passage)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::dataset::Dataset;
    use crate::sample::UnjudgedPolicy;
    use crate::topic::fixture::{self, Sketch};

    const PASSAGES: u32 = 40;

    /// Forty passages of twenty-five texts, and one query.
    static DATASET: LazyLock<Dataset> = LazyLock::new(|| {
        let passages = (0..PASSAGES).map(|at| (format!("p{at}"), String::new(), format!("text {}", at % 25))).collect();
        let splits = vec![(Split::Train, "q\tquestion\n".into(), "q 0 p0 1\n".into())];
        let folder = tempfile::tempdir().unwrap();
        fixture::dataset(folder.path(), &[Sketch { language: "en", passages, splits }])
    });

    fn verdict() -> impl Strategy<Value = Verdict> {
        use Verdict::{Abstained, Excluded, FalseNegative, Human, Negative, Unjudged, Unknown};
        prop::sample::select(vec![Negative, Excluded, FalseNegative, Unknown, Abstained, Unjudged, Human])
    }

    fn list() -> impl Strategy<Value = Vec<Listed>> {
        prop::collection::vec((0..PASSAGES, verdict(), any::<bool>()), 0..12).prop_map(|entries| {
            let listed = |(place, (passage, verdict, passes)): (usize, (u32, Verdict, bool))| Listed {
                passage: PassageIndex(passage),
                rank: place as u32 + 1,
                verdict,
                passes,
            };
            entries.into_iter().enumerate().map(listed).collect()
        })
    }

    fn material() -> impl Strategy<Value = QueryMaterial> {
        let passages = |most| prop::collection::vec((0..PASSAGES).prop_map(PassageIndex), 0..most);
        ((0..PASSAGES), passages(3), passages(5), list(), list()).prop_map(|(one, more, human, first, supplement)| {
            let positives = std::iter::once(PassageIndex(one)).chain(more).collect();
            QueryMaterial { query: QueryIndex(0), positives, human, first, supplement }
        })
    }

    proptest! {
        #[test]
        fn no_negative_is_relevant_a_twin_unknown_or_taken_twice(
            query in material(), judged in any::<bool>(), negatives in 1usize..60, first in 1u32..12,
        ) {
            let partition = &DATASET.partitions[0];
            let twins = Twins::find(&partition.corpus);
            let config = SampleConfig { negatives, ..SampleConfig::default() };
            let drawn = draw(&query, &twins, partition, &Rules { config: &config, seed: 1, first, judged });
            let text = |passage: PassageIndex| passage.0 % 25;
            let mut seen = HashSet::new();
            for (passage, provenance) in &drawn.negatives {
                prop_assert!(seen.insert(*passage));
                prop_assert!(!drawn.relevant.contains(passage));
                prop_assert!(query.relevant().all(|relevant| text(relevant) != text(*passage)));
                let listed: Vec<_> = query.listed().filter(|listed| listed.passage == *passage).collect();
                prop_assert!(listed.iter().all(|listed| listed.verdict != Verdict::Unknown));
                prop_assert!(*provenance != Provenance::Random || listed.is_empty());
                prop_assert!(!judged || *provenance != Provenance::Mined);
                prop_assert!(judged || matches!(provenance, Provenance::Mined | Provenance::Human));
            }
            prop_assert!(drawn.negatives.len() <= negatives);
        }
    }

    fn listed(passage: u32, rank: u32, verdict: Verdict, passes: bool) -> Listed {
        Listed { passage: PassageIndex(passage), rank, verdict, passes }
    }

    #[test]
    fn negatives_come_in_the_order_of_wanting() {
        let query = QueryMaterial {
            query: QueryIndex(0),
            positives: vec![PassageIndex(0)],
            human: vec![PassageIndex(1), PassageIndex(2)],
            first: vec![
                listed(3, 1, Verdict::Negative, false),
                listed(2, 2, Verdict::Human, false),
                listed(4, 3, Verdict::Unjudged, true),
                listed(5, 4, Verdict::FalseNegative, true),
                listed(6, 5, Verdict::Unjudged, true),
                listed(7, 6, Verdict::Negative, false),
                listed(8, 7, Verdict::Abstained, false),
            ],
            supplement: vec![listed(9, 1, Verdict::Negative, false), listed(3, 2, Verdict::Negative, false)],
        };
        let config = SampleConfig {
            negatives: 10,
            unjudged: UnjudgedPolicy::Percentage,
            use_false_negatives_as_positives: true,
            ..SampleConfig::default()
        };
        let drawn = draw(
            &query,
            &Twins::default(),
            &DATASET.partitions[0],
            &Rules { config: &config, seed: 1, first: 4, judged: true },
        );
        let expected = [
            (3, Provenance::Judged),
            (2, Provenance::Human),
            (4, Provenance::Unjudged),
            (9, Provenance::Supplement),
            (1, Provenance::Human),
            (7, Provenance::Deeper),
            (6, Provenance::Unjudged),
        ];
        let expected = expected.map(|(passage, provenance)| (PassageIndex(passage), provenance));
        assert_eq!(drawn.negatives[..7], expected);
        assert!(drawn.negatives[7..].iter().all(|(_, provenance)| *provenance == Provenance::Random));
        assert_eq!(drawn.negatives.len(), 10);
        assert_eq!(drawn.positives, [PassageIndex(0), PassageIndex(5)]);
    }
}
