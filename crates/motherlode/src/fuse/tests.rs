use super::*;
use crate::corpus::Corpus;
use crate::encode::fixture::{PASSAGES, WordVectors, dataset, embeddings, english};
use crate::index::bm25::{self, Bm25Config, IndexInputs};
use crate::queries::QueryIndex;
use crate::search::SearchConfig;
use proptest::prelude::*;

fn list(scores: &[(u32, f32)]) -> Ranking {
    scores.iter().map(|(passage, score)| Scored { passage: PassageIndex(*passage), score: *score }).collect()
}

fn weighted(ranking: &Ranking, weight: f64) -> Weighted<'_> {
    Weighted { ranking, weight }
}

fn assert_near(found: &Ranking, expected: &[(u32, f32)]) {
    assert_eq!(found.len(), expected.len());
    for (found, (passage, score)) in found.iter().zip(expected) {
        assert!(found.passage.0 == *passage && (found.score - score).abs() < 1e-6, "{found:?} {expected:?}");
    }
}

type Scores = BTreeMap<String, BTreeMap<String, f64>>;

#[derive(Deserialize)]
struct Golden {
    lists: BTreeMap<String, Scores>,
    inverse_spread: BTreeMap<String, f64>,
    cases: Vec<GoldenCase>,
}

#[derive(Deserialize)]
struct GoldenCase {
    config: FuseConfig,
    expected: Scores,
}

/// The lists of the queries `q0`, `q1`, … of the passages `d0`, `d1`, …, in rank order.
fn rankings(scores: &Scores, id_ranks: &[u32]) -> Vec<Ranking> {
    let ranking = |query: usize| {
        let scored = |(id, score): (&String, &f64)| (id[1..].parse().unwrap(), *score as f32);
        let mut ranking = list(&scores[&format!("q{query}")].iter().map(scored).collect::<Vec<_>>());
        ranking.sort_by(|a, b| rank_order(a, b, id_ranks));
        ranking
    };
    (0..scores.len()).map(ranking).collect()
}

/// Values of `tests/data/fuse.json`, made by `tests/golden/fuse.py` with ranx.
#[test]
fn every_fusion_of_lists_equals_ranx() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fuse.json");
    let golden: Golden = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let id_ranks: Vec<u32> = (0..30).collect();
    let lists: Vec<(&str, Vec<Ranking>)> =
        golden.lists.iter().map(|(name, scores)| (name.as_str(), rankings(scores, &id_ranks))).collect();
    for (name, rankings) in &lists {
        let (found, expected) = (inverse_spread(name, rankings).unwrap(), golden.inverse_spread[*name]);
        assert!((found / expected - 1.0).abs() < 1e-9, "{name}: {found} is not {expected}");
    }
    let members: Vec<(&str, &[Ranking])> = lists.iter().map(|(name, r)| (*name, r.as_slice())).collect();
    assert_eq!(golden.cases.len(), 14);
    for GoldenCase { config, expected } in golden.cases {
        let fused = fuse_rankings(&members, &config, &id_ranks).unwrap();
        for (found, expected) in fused.iter().zip(rankings(&expected, &id_ranks)) {
            assert_eq!(found.len(), expected.len());
            for scored in found {
                let same = expected.iter().find(|other| other.passage == scored.passage).unwrap();
                let tolerance = 2e-6 * scored.score.abs().max(1.0);
                assert!((scored.score - same.score).abs() < tolerance, "{config:?} {scored:?} {same:?}");
            }
            assert!(found.is_sorted_by(|a, b| rank_order(a, b, &id_ranks).is_lt()));
        }
    }
}

#[test]
fn the_depth_cuts_the_fused_list() {
    let (a, b) = (list(&[(1, 3.0), (2, 2.0)]), list(&[(3, 1.0)]));
    assert_eq!(rrf(&[weighted(&a, 1.0), weighted(&b, 1.0)], 60.0, 2, &[0, 1, 2, 3]).len(), 2);
}

#[test]
fn weights_count_and_ties_fall_to_the_higher_id() {
    let (a, b) = (list(&[(0, 2.0), (1, 1.0)]), list(&[(1, 2.0), (0, 1.0)]));
    let order = |weight| {
        let fused = rrf(&[weighted(&a, weight), weighted(&b, 1.0)], 60.0, 10, &[7, 3]);
        fused.iter().map(|scored| scored.passage.0).collect::<Vec<_>>()
    };
    assert_eq!(order(1.0), [0, 1], "a tie: passage 0 has the higher id");
    assert_eq!(order(0.5), [1, 0]);
    let constant = list(&[(0, 1.0), (1, 1.0)]);
    let fused = combsum(&[weighted(&constant, 1.0)], Normalisation::ZNorm, 10, &[7, 3]);
    assert_near(&fused, &[(0, 0.0), (1, 0.0)]);
}

proptest! {
    #[test]
    fn the_order_of_lists_does_not_matter(
        scores in prop::collection::vec(prop::collection::btree_map(0_u32..30, -5.0_f32..5.0, 0..20), 1..5),
        shift in 0_usize..4,
        min_max in any::<bool>(),
    ) {
        let id_ranks: Vec<u32> = (0..30).rev().collect();
        let rankings: Vec<Ranking> = scores
            .iter()
            .map(|scores| {
                let mut ranking = list(&scores.iter().map(|(p, s)| (*p, *s)).collect::<Vec<_>>());
                ranking.sort_by(|a, b| rank_order(a, b, &id_ranks));
                ranking
            })
            .collect();
        let mut lists: Vec<Weighted<'_>> =
            rankings.iter().enumerate().map(|(n, ranking)| weighted(ranking, 0.3 + n as f64)).collect();
        let normalisation = if min_max { Normalisation::MinMax } else { Normalisation::ZNorm };
        let before = (rrf(&lists, 60.0, 10, &id_ranks), combsum(&lists, normalisation, 10, &id_ranks));
        lists.rotate_left(shift % rankings.len());
        lists.reverse();
        let after = (rrf(&lists, 60.0, 10, &id_ranks), combsum(&lists, normalisation, 10, &id_ranks));
        prop_assert_eq!(before, after);
    }

    #[test]
    fn the_order_of_members_does_not_matter(
        scores in prop::collection::vec(prop::collection::btree_map(0_u32..30, -5.0_f32..5.0, 2..20), 3),
        order in Just(vec![0_usize, 1, 2]).prop_shuffle(),
        spread in any::<bool>(),
        combsum in any::<bool>(),
    ) {
        let id_ranks: Vec<u32> = (0..30).rev().collect();
        let ranked = |scores: &BTreeMap<u32, f32>| {
            let mut ranking = list(&scores.iter().map(|(p, s)| (*p, *s)).collect::<Vec<_>>());
            ranking.sort_by(|a, b| rank_order(a, b, &id_ranks));
            vec![ranking]
        };
        let rankings: Vec<Vec<Ranking>> = scores.iter().map(ranked).collect();
        let members: Vec<(&str, &[Ranking])> =
            ["a", "b", "c"].into_iter().zip(rankings.iter().map(Vec::as_slice)).collect();
        let config = FuseConfig {
            method: if combsum { Method::Combsum } else { Method::Rrf },
            weighting: if spread { Weighting::InverseSpread } else { Weighting::Equal },
            weights: [("b".to_owned(), 0.3)].into(),
            ..FuseConfig::default()
        };
        let shuffled: Vec<(&str, &[Ranking])> = order.iter().map(|at| members[*at]).collect();
        let (one, other) =
            (fuse_rankings(&members, &config, &id_ranks), fuse_rankings(&shuffled, &config, &id_ranks));
        prop_assert_eq!(one.unwrap(), other.unwrap());
    }
}

#[test]
fn spreads_are_inverted_and_constant_scores_refused() {
    let rankings = [list(&[(0, 1.0), (1, 3.0)]), list(&[(0, 5.0), (1, 11.0)]), list(&[(0, 9.0)])];
    assert!((inverse_spread("a", &rankings).unwrap() - 0.5).abs() < 1e-12);
    assert!(inverse_spread("a", &rankings[2..]).unwrap_err().to_string().contains("`a` do not differ"));
}

const SMALL: WordVectors = WordVectors { seed: 1, dimension: 8 };
const LARGE: WordVectors = WordVectors { seed: 2, dimension: 24 };

/// The weighted mean cosine of every passage with the first query, by hand.
fn brute_force(members: &[(&Artefact, f64)], corpus: &Corpus) -> Ranking {
    let mut scores = vec![0.0; PASSAGES.len()];
    let total: f64 = members.iter().map(|(_, weight)| weight).sum();
    for (artefact, weight) in members {
        let queries = Vectors::open(artefact, &english(), VectorsOf::Queries(Split::Dev)).unwrap();
        let passages = Vectors::open(artefact, &english(), VectorsOf::Passages).unwrap();
        for (row, score) in scores.iter_mut().enumerate() {
            let cosine = Similarity::Cosine.of(queries.matrix().row(0), passages.matrix().row(row));
            *score += weight * f64::from(cosine) / total;
        }
    }
    let mut ranking = list(&(0..).zip(&scores).map(|(row, score)| (row, *score as f32)).collect::<Vec<_>>());
    ranking.sort_by(|a, b| rank_order(a, b, &corpus.id_ranks()));
    ranking
}

#[test]
fn concat_is_the_weighted_mean_cosine_over_the_whole_corpus() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path());
    let (a, b) = (embeddings(folder.path(), &dataset, &SMALL), embeddings(folder.path(), &dataset, &LARGE));
    let corpus = &dataset.partitions[0].corpus;
    let members = [Member { name: "small", artefact: &a }, Member { name: "large", artefact: &b }];
    let fused = |members: &[Member<'_>], config: &FuseConfig, out: &str| {
        let inputs = FuseInputs { dataset: &dataset, split: Split::Dev, members, sieve: None };
        let artefact = fuse(inputs, config, &folder.path().join(out), &Progress::silent()).unwrap();
        let run = open_run(&artefact, &dataset, &english(), Split::Dev).unwrap();
        (run.ranking(QueryIndex(0)).to_vec(), artefact.key().to_owned())
    };
    let config = FuseConfig { weights: [("large".to_owned(), 3.0)].into(), ..FuseConfig::default() };
    let found = fused(&members, &config, "a");
    let expected = brute_force(&[(&a, 1.0), (&b, 3.0)], corpus);
    assert_near(&found.0, &expected.iter().map(|s| (s.passage.0, s.score)).collect::<Vec<_>>());
    assert_eq!(fused(&[members[1], members[0]], &config, "b"), found, "members are taken by name");
    let spread = FuseConfig { weighting: Weighting::InverseSpread, ..FuseConfig::default() };
    assert_eq!(fused(&members, &spread, "c").0.len(), PASSAGES.len());
}

#[test]
fn runs_of_both_kinds_are_fused_and_wrong_members_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path());
    let (silent, at) = (Progress::silent(), |name: &str| folder.path().join(name));
    let vectors = embeddings(folder.path(), &dataset, &SMALL);
    let index =
        bm25::index(IndexInputs { dataset: &dataset, dictionary: None }, &Bm25Config::default(), &at("index"), &silent)
            .unwrap();
    let config = SearchConfig::default();
    let dense = search::DenseInputs { embeddings: &vectors, sieve: None };
    let dense = search::dense(&dataset, dense, Split::Train, &config, &at("dense"), &silent).unwrap();
    let lexical = search::lexical(&dataset, &index, Split::Train, &config, &at("lexical"), &silent).unwrap();
    let run = |members: &[Member<'_>], config: &FuseConfig| {
        let inputs = FuseInputs { dataset: &dataset, split: Split::Train, members, sieve: None };
        fuse(inputs, config, &at("fused"), &silent).map_err(|error| error.to_string())
    };
    let (a, b) = (Member { name: "dense", artefact: &dense }, Member { name: "bm25", artefact: &lexical });
    let rrf = FuseConfig { method: Method::Rrf, ..FuseConfig::default() };
    assert_eq!(run(&[a, b], &rrf).unwrap().summary().counts["rows"], 2 * PASSAGES.len() as u64);
    assert!(run(&[a, b], &FuseConfig::default()).unwrap_err().contains("expected an artefact of `encode`"));
    assert!(run(&[a, a], &rrf).unwrap_err().contains("two retrievers are named `dense`"));
    assert!(run(&[], &rrf).unwrap_err().contains("at least one"));
    let unknown = FuseConfig { weights: [("x".to_owned(), 1.0)].into(), ..rrf };
    assert!(run(&[a, b], &unknown).unwrap_err().contains("`fuse.weights.x`"));
}

#[test]
fn values_out_of_range_are_refused() {
    let fails = |config: FuseConfig| config.validate().unwrap_err().to_string();
    assert!(fails(FuseConfig { depth: 0, ..FuseConfig::default() }).contains("`fuse.depth`"));
    assert!(fails(FuseConfig { rrf_k: -1.0, ..FuseConfig::default() }).contains("`fuse.rrf_k`"));
    let weights = [("a".to_owned(), 0.0)].into();
    assert!(fails(FuseConfig { weights, ..FuseConfig::default() }).contains("`fuse.weights.a`"));
}
