//! Spherical k-means over passage vectors, the same for every number of threads: all sums run over fixed chunks, in order.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{Topic, TopicConfig, TopicInputs, Topics};
use crate::artefact::{Artefact, Summary};
use crate::corpus::{Language, PassageIndex};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::mapped::MappedFile;
use crate::progress::Progress;
use crate::random;

/// Rows that are summed in one go.
const CHUNK: usize = 4096;
/// Passages nearest each centre that may lend it their title, per language; neighbours often share one.
const TYPICAL: usize = 32;
/// Titles in a label.
const TITLES: usize = 3;
/// Cosine distances below this are rounding.
const SAME: f32 = 1e-6;

/// Topics by clusters, labelled by the titles nearest their centres.
pub(super) fn topics(
    inputs: &TopicInputs,
    config: &TopicConfig,
    seed: u64,
    progress: &Progress,
    summary: &mut Summary,
) -> Result<Topics> {
    let embeddings = inputs.embeddings.expect("asked for before the artefact was begun");
    let vectors = Vectors::open(embeddings, inputs.dataset)?;
    let clusters = cluster(&vectors.matrices(inputs.dataset)?, config, seed, progress)?;
    summary.count("rounds", clusters.rounds);
    summary.value("mean cosine to the centre", clusters.mean_cosine);
    let labels = clusters.nearest.iter().map(|nearest| label(inputs.dataset, nearest)).collect();
    if clusters.nearest.len() < config.classes {
        summary.note(format!(
            "{} clusters instead of {}: too few distinct vectors",
            clusters.nearest.len(),
            config.classes
        ));
    }
    Ok(Topics { labels, passages: clusters.passages })
}

/// Mapped passage vectors of all languages.
struct Vectors {
    dimension: usize,
    files: BTreeMap<Language, MappedFile>,
}

impl Vectors {
    fn open(embeddings: &Artefact, dataset: &Dataset) -> Result<Self> {
        let dimension = embeddings.summary().values.get("dimension").copied().unwrap_or(0.0) as usize;
        if dimension == 0 {
            return Err(Error::file(embeddings.folder(), "its summary has no dimension; run `encode` again"));
        }
        let open = |language: &Language| MappedFile::open(&embeddings.path(&format!("{language}/passages.f32")));
        let languages = dataset.partitions.iter().map(|partition| &partition.language);
        let files = languages.map(|language| Ok((language.clone(), open(language)?))).collect::<Result<_>>()?;
        Ok(Self { dimension, files })
    }

    fn matrices(&self, dataset: &Dataset) -> Result<Vec<Matrix<'_>>> {
        self.files.keys().map(|language| self.matrix(language, dataset.partition(language)?.corpus.len())).collect()
    }

    fn matrix(&self, language: &Language, rows: usize) -> Result<Matrix<'_>> {
        let file = &self.files[language];
        let (expected, bytes) = (rows * self.dimension * 4, file.bytes().len());
        if bytes != expected {
            let message = format!("expected {expected} bytes for {rows} passages, got {bytes}; run `encode` again");
            return Err(Error::file(file.path(), message));
        }
        let values = file.values(0, rows * self.dimension)?;
        Ok(Matrix { language: language.clone(), values, dimension: self.dimension })
    }
}

/// The passage vectors of one language: n × dimension, row-major.
pub(super) struct Matrix<'a> {
    pub(super) language: Language,
    pub(super) values: &'a [f32],
    pub(super) dimension: usize,
}

impl Matrix<'_> {
    fn rows(&self) -> usize {
        self.values.len() / self.dimension
    }

    fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.dimension..(index + 1) * self.dimension]
    }

    /// The mean of all rows; an error names a row that holds NaN or infinity.
    fn mean(&self) -> Result<Vec<f32>> {
        let sums: Vec<Vec<f64>> = self
            .values
            .par_chunks(CHUNK * self.dimension)
            .map(|chunk| chunk.chunks_exact(self.dimension).fold(vec![0.0; self.dimension], add))
            .collect();
        let total = sums.iter().fold(vec![0.0; self.dimension], |total, sum| added(total, sum));
        if total.iter().any(|value| !value.is_finite()) {
            let row = (0..self.rows()).find(|row| self.row(*row).iter().any(|value| !value.is_finite()));
            let row = row.unwrap_or_default();
            return Err(Error::data(format!(
                "vector {row} of `{}` holds NaN or infinity; run `encode` again",
                self.language
            )));
        }
        Ok(total.iter().map(|sum| (sum / self.rows().max(1) as f64) as f32).collect())
    }
}

/// What clustering found.
pub(super) struct Clusters {
    /// The topic of every passage.
    pub(super) passages: BTreeMap<Language, Vec<Topic>>,
    /// Per topic the passages nearest its centre, English first, then the nearest.
    pub(super) nearest: Vec<Vec<(Language, PassageIndex)>>,
    /// Mean cosine of all passages to their centre.
    pub(super) mean_cosine: f64,
    /// Rounds of k-means.
    pub(super) rounds: usize,
}

/// Clusters all rows of all languages. Topics are numbered by size in the fitted sample, the largest first.
pub(super) fn cluster(matrices: &[Matrix], config: &TopicConfig, seed: u64, progress: &Progress) -> Result<Clusters> {
    let means: Vec<Vec<f32>> = matrices
        .iter()
        .map(|matrix| Ok(if config.center_languages { matrix.mean()? } else { vec![0.0; matrix.mean()?.len()] }))
        .collect::<Result<_>>()?;
    let sample = sample(matrices, &means, config.sample, seed);
    let dimension = matrices.first().map_or(1, |matrix| matrix.dimension);
    if sample.is_empty() {
        return Err(Error::data("there is no vector to cluster: the corpus is empty or every vector is zero"));
    }
    let (centres, rounds) = fit(&sample, dimension, config, seed);
    progress.begin("topic passages", matrices.iter().map(Matrix::rows).sum(), "passages");
    let mut found = Clusters { passages: BTreeMap::new(), nearest: Vec::new(), mean_cosine: 0.0, rounds };
    let mut typical = vec![Vec::new(); centres.len() / dimension];
    for (matrix, mean) in matrices.iter().zip(&means) {
        let assigned = assign(matrix, mean, &centres);
        found.mean_cosine += assigned.iter().map(|(_, cosine)| f64::from(*cosine)).sum::<f64>();
        collect_typical(&matrix.language, &assigned, &mut typical);
        found.passages.insert(matrix.language.clone(), assigned.iter().map(|(topic, _)| Topic(*topic)).collect());
        progress.advance(matrix.rows());
    }
    found.mean_cosine /= found.passages.values().map(Vec::len).sum::<usize>() as f64;
    found.nearest = typical.into_iter().map(order_typical).collect();
    Ok(found)
}

/// Unit rows without their language's mean, the same number from every language as far as it goes; zero rows left out.
fn sample(matrices: &[Matrix], means: &[Vec<f32>], size: usize, seed: u64) -> Vec<f32> {
    let quota = quota(matrices.iter().map(Matrix::rows).collect(), size);
    let mut sample = Vec::new();
    for (matrix, mean) in matrices.iter().zip(means) {
        let mut random = random::keyed(seed, "topic.sample", matrix.language.as_str());
        for row in choose(matrix.rows(), quota.min(matrix.rows()), &mut random) {
            let unit = unit(matrix.row(row), mean);
            if unit.iter().any(|value| *value != 0.0) {
                sample.extend(unit);
            }
        }
    }
    sample
}

/// The largest number q such that taking min(q, n) of every language stays within `size`; at least 1.
fn quota(mut rows: Vec<usize>, size: usize) -> usize {
    rows.sort_unstable();
    let mut left = size;
    for (place, count) in rows.iter().enumerate() {
        let share = left / (rows.len() - place);
        if *count > share {
            return share.max(1);
        }
        left -= count;
    }
    rows.last().copied().unwrap_or(1).max(1)
}

/// `count` different numbers below `from`, ascending (Floyd's algorithm).
fn choose(from: usize, count: usize, random: &mut ChaCha8Rng) -> BTreeSet<usize> {
    let mut chosen = BTreeSet::new();
    for last in from - count..from {
        let drawn = random.random_range(0..=last as u64) as usize;
        if !chosen.insert(drawn) {
            chosen.insert(last);
        }
    }
    chosen
}

/// k-means from greedy k-means++ centres; returns centres (classes × dimension, largest cluster first) and rounds.
fn fit(rows: &[f32], dimension: usize, config: &TopicConfig, seed: u64) -> (Vec<f32>, usize) {
    let mut random = random::keyed(seed, "topic.centres", "");
    let mut centres = initial_centres(rows, dimension, config.classes, &mut random);
    let mut assigned: Vec<(u32, f32)> = Vec::new();
    let mut rounds = 0;
    while rounds < config.iterations {
        let next: Vec<(u32, f32)> = rows.par_chunks(dimension).map(|row| nearest(row, &centres)).collect();
        let settled = next.iter().map(|(cluster, _)| cluster).eq(assigned.iter().map(|(cluster, _)| cluster));
        assigned = next;
        if settled {
            break;
        }
        centres = moved_centres(rows, &assigned, &centres, dimension);
        rounds += 1;
    }
    (largest_first(&centres, &assigned, dimension), rounds)
}

/// Greedy k-means++: each new centre is the best of a few rows drawn in proportion to their distance 1 − cos.
/// Fewer centres where fewer rows differ. Source: Arthur and Vassilvitskii 2007, with the local trials of section 5.
fn initial_centres(rows: &[f32], dimension: usize, classes: usize, random: &mut ChaCha8Rng) -> Vec<f32> {
    let trials = 2 + (classes as f64).ln() as usize;
    let row = |index: usize| &rows[index * dimension..(index + 1) * dimension];
    let closer = |index: usize, distances: &[f32]| -> Vec<f32> {
        let centre = row(index);
        let distance = |(row, old): (&[f32], &f32)| {
            let distance = 1.0 - dot(row, centre);
            old.min(if distance < SAME { 0.0 } else { distance })
        };
        rows.par_chunks(dimension).zip(distances).map(distance).collect()
    };
    let first = random.random_range(0..(rows.len() / dimension) as u64) as usize;
    let mut centres = row(first).to_vec();
    let mut distances = closer(first, &vec![f32::INFINITY; rows.len() / dimension]);
    while centres.len() < classes * dimension {
        let drawn: Vec<usize> = (0..trials).filter_map(|_| draw(&distances, random)).collect();
        let tried = drawn.into_iter().map(|index| (index, closer(index, &distances)));
        let Some((index, closest)) = tried.min_by(|a, b| total(&a.1).total_cmp(&total(&b.1))) else { break };
        centres.extend_from_slice(row(index));
        distances = closest;
    }
    centres
}

/// A position drawn in proportion to the weights; none if all are zero.
fn draw(weights: &[f32], random: &mut ChaCha8Rng) -> Option<usize> {
    let mut left = random.random::<f64>() * total(weights);
    let mut last = None;
    for (index, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        left -= f64::from(*weight);
        last = Some(index);
        if left < 0.0 {
            break;
        }
    }
    last
}

fn total(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value)).sum()
}

/// The normalised sums of the clusters' rows; an empty cluster moves to the row that lies farthest from its centre.
fn moved_centres(rows: &[f32], assigned: &[(u32, f32)], old: &[f32], dimension: usize) -> Vec<f32> {
    let chunk_sums = |(rows, assigned): (&[f32], &[(u32, f32)])| {
        let mut sums = vec![0.0f64; old.len()];
        for (row, (cluster, _)) in rows.chunks_exact(dimension).zip(assigned) {
            let start = *cluster as usize * dimension;
            sums[start..start + dimension].iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        sums
    };
    let sums: Vec<Vec<f64>> =
        rows.par_chunks(CHUNK * dimension).zip(assigned.par_chunks(CHUNK)).map(chunk_sums).collect();
    let sums = sums.iter().fold(vec![0.0; old.len()], |total, sum| added(total, sum));
    let counts = sizes(assigned, old.len() / dimension);
    let mut farthest = farthest_first(assigned).into_iter();
    let mut centres = Vec::with_capacity(old.len());
    for (cluster, sum) in sums.chunks_exact(dimension).enumerate() {
        let length = sum.iter().map(|value| value * value).sum::<f64>().sqrt();
        let start = cluster * dimension;
        match farthest.len() {
            left if counts[cluster] == 0 && left > 0 => {
                let row = farthest.next().expect("one is left") * dimension;
                centres.extend_from_slice(&rows[row..row + dimension]);
            }
            _ if length > 0.0 => centres.extend(sum.iter().map(|value| (value / length) as f32)),
            _ => centres.extend_from_slice(&old[start..start + dimension]),
        }
    }
    centres
}

/// Rows by ascending cosine to their centre, then by position.
fn farthest_first(assigned: &[(u32, f32)]) -> Vec<usize> {
    let mut rows: Vec<usize> = (0..assigned.len()).collect();
    rows.sort_by(|a, b| assigned[*a].1.total_cmp(&assigned[*b].1));
    rows
}

fn sizes(assigned: &[(u32, f32)], clusters: usize) -> Vec<usize> {
    let mut sizes = vec![0; clusters];
    assigned.iter().for_each(|(cluster, _)| sizes[*cluster as usize] += 1);
    sizes
}

fn largest_first(centres: &[f32], assigned: &[(u32, f32)], dimension: usize) -> Vec<f32> {
    let sizes = sizes(assigned, centres.len() / dimension);
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|cluster| std::cmp::Reverse(sizes[*cluster]));
    order.iter().flat_map(|cluster| &centres[cluster * dimension..(cluster + 1) * dimension]).copied().collect()
}

/// For every row its nearest centre and the cosine to it.
fn assign(matrix: &Matrix, mean: &[f32], centres: &[f32]) -> Vec<(u32, f32)> {
    matrix.values.par_chunks(matrix.dimension).map(|row| nearest(&unit(row, mean), centres)).collect()
}

/// The centre of the highest cosine, the first of equal ones.
fn nearest(row: &[f32], centres: &[f32]) -> (u32, f32) {
    let mut best = (0, f32::NEG_INFINITY);
    for (cluster, centre) in centres.chunks_exact(row.len()).enumerate() {
        let cosine = dot(row, centre);
        if cosine > best.1 {
            best = (cluster as u32, cosine);
        }
    }
    best
}

/// `row` minus `mean`, scaled to length 1; a zero row stays zero.
fn unit(row: &[f32], mean: &[f32]) -> Vec<f32> {
    let mut unit: Vec<f32> = row.iter().zip(mean).map(|(value, mean)| value - mean).collect();
    let length = dot(&unit, &unit).sqrt();
    if length > SAME {
        unit.iter_mut().for_each(|value| *value /= length);
    } else {
        unit.fill(0.0);
    }
    unit
}

/// The dot product in eight running sums, which the compiler turns into vector instructions.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let (a_chunks, b_chunks) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + rest
}

fn add(mut sum: Vec<f64>, row: &[f32]) -> Vec<f64> {
    sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
    sum
}

fn added(mut total: Vec<f64>, sum: &[f64]) -> Vec<f64> {
    total.iter_mut().zip(sum).for_each(|(total, value)| *total += value);
    total
}

/// A passage near a centre: its cosine, language and position.
type Typical = (f32, Language, PassageIndex);

/// Keeps for each cluster the passages of one language that lie nearest its centre.
fn collect_typical(language: &Language, assigned: &[(u32, f32)], typical: &mut [Vec<Typical>]) {
    let mut best: Vec<Vec<(f32, u32)>> = vec![Vec::new(); typical.len()];
    for (index, (cluster, cosine)) in assigned.iter().enumerate() {
        let list = &mut best[*cluster as usize];
        let place = list.partition_point(|(other, _)| other >= cosine);
        if place < TYPICAL {
            list.insert(place, (*cosine, index as u32));
            list.truncate(TYPICAL);
        }
    }
    for (list, best) in typical.iter_mut().zip(best) {
        list.extend(best.into_iter().map(|(cosine, index)| (cosine, language.clone(), PassageIndex(index))));
    }
}

/// English first, since most readers of a report can read it; then the nearest.
fn order_typical(mut typical: Vec<Typical>) -> Vec<(Language, PassageIndex)> {
    typical.sort_by(|a, b| {
        let foreign = |language: &Language| language.as_str() != "en";
        foreign(&a.1).cmp(&foreign(&b.1)).then(b.0.total_cmp(&a.0))
    });
    typical.into_iter().map(|(_, language, index)| (language, index)).collect()
}

/// A few different titles of the nearest passages; the first words of a passage without a title.
fn label(dataset: &Dataset, nearest: &[(Language, PassageIndex)]) -> String {
    let mut titles: Vec<String> = Vec::new();
    for (language, index) in nearest {
        let partition = dataset.partition(language).expect("clusters hold languages of the data set");
        let passage = partition.corpus.passage(*index);
        let title = match passage.title {
            "" => passage.text.split_whitespace().take(6).collect::<Vec<_>>().join(" "),
            title => title.to_owned(),
        };
        if !title.is_empty() && !titles.contains(&title) {
            titles.push(title);
        }
        if titles.len() == TITLES {
            break;
        }
    }
    titles.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIMENSION: usize = 16;

    /// Vectors of `per_subject` passages for each of four subjects, in three languages with a strong direction of their own.
    fn synthetic(per_subject: usize) -> Vec<(Language, Vec<f32>)> {
        let mut random = random::keyed(3, "test", "vectors");
        let mut axis = |at: usize, strength: f32| -> Vec<f32> {
            (0..DIMENSION)
                .map(|place| if place == at { strength } else { 0.2 * (random.random::<f32>() - 0.5) })
                .collect()
        };
        let mut language = |tag: &str, number: usize| {
            let mut values = Vec::new();
            for passage in 0..4 * per_subject {
                let subject = axis(passage % 4, 1.0);
                values.extend(subject.iter().zip(axis(8 + number, 3.0)).map(|(a, b)| a + b));
            }
            (Language::new(tag).unwrap(), values)
        };
        vec![language("en", 0), language("sw", 1), language("zh", 2)]
    }

    fn matrices(vectors: &[(Language, Vec<f32>)]) -> Vec<Matrix<'_>> {
        vectors
            .iter()
            .map(|(language, values)| Matrix { language: language.clone(), values, dimension: DIMENSION })
            .collect()
    }

    fn run(vectors: &[(Language, Vec<f32>)], config: &TopicConfig) -> Clusters {
        cluster(&matrices(vectors), config, 1, &Progress::silent()).unwrap()
    }

    fn config(center_languages: bool) -> TopicConfig {
        TopicConfig { classes: 4, sample: 100, center_languages, ..TopicConfig::default() }
    }

    #[test]
    fn centred_clusters_are_subjects_across_languages() {
        let vectors = synthetic(20);
        let clusters = run(&vectors, &config(true));
        let english = &clusters.passages[&vectors[0].0];
        assert_eq!(english[..4].iter().collect::<BTreeSet<_>>().len(), 4, "four subjects, four topics");
        for topics in clusters.passages.values() {
            for (passage, topic) in topics.iter().enumerate() {
                assert_eq!(*topic, english[passage % 4]);
            }
        }
        assert_eq!(clusters.nearest[0][0].0.as_str(), "en");
    }

    #[test]
    fn without_centring_a_strong_language_direction_wins() {
        let vectors = synthetic(20);
        let clusters = run(&vectors, &TopicConfig { classes: 3, ..config(false) });
        for topics in clusters.passages.values() {
            assert!(topics.iter().all(|topic| *topic == topics[0]));
        }
    }

    #[test]
    fn the_number_of_threads_does_not_matter() {
        let vectors = synthetic(3000);
        let config = TopicConfig { classes: 7, sample: 9000, ..config(true) };
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let one = pool(1).install(|| run(&vectors, &config));
        let three = pool(3).install(|| run(&vectors, &config));
        assert_eq!(one.passages, three.passages);
        assert_eq!(one.mean_cosine.to_bits(), three.mean_cosine.to_bits());
    }

    #[test]
    fn fewer_distinct_vectors_than_classes_give_fewer_topics() {
        let values: Vec<f32> = (0..6).flat_map(|row| [if row < 3 { 1.0 } else { 0.0 }, 1.0]).collect();
        let matrix = Matrix { language: Language::new("en").unwrap(), values: &values, dimension: 2 };
        let clusters = cluster(&[matrix], &config(false), 1, &Progress::silent()).unwrap();
        assert_eq!(clusters.nearest.len(), 2);
    }

    #[test]
    fn an_empty_cluster_moves_to_the_farthest_row() {
        let rows = [1.0, 0.0, 0.8, 0.6, 0.0, 1.0];
        let centres = [1.0, 0.0, -1.0, 0.0];
        let assigned: Vec<_> = rows.chunks(2).map(|row| nearest(row, &centres)).collect();
        assert_eq!(moved_centres(&rows, &assigned, &centres, 2)[2..], [0.0, 1.0]);
    }

    #[test]
    fn nan_is_refused_with_its_row() {
        let values = [1.0, 0.0, f32::NAN, 1.0];
        let matrix = Matrix { language: Language::new("en").unwrap(), values: &values, dimension: 2 };
        let error = cluster(&[matrix], &config(false), 1, &Progress::silent()).err().unwrap();
        assert!(error.to_string().contains("vector 1 of `en`"), "{error}");
    }

    #[test]
    fn quotas_are_equal_as_far_as_languages_go() {
        assert_eq!(quota(vec![10, 1000, 1000], 110), 50);
        assert_eq!(quota(vec![10, 20], 100), 20);
        assert_eq!(quota(vec![100, 100], 1), 1);
        assert_eq!(choose(5, 5, &mut random::keyed(1, "t", "")).len(), 5);
    }
}
