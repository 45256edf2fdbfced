//! The contrastive loss and its gradient, on plain n × d matrices: no framework, no tape.
//!
//! Every query of a step is scored against every distinct passage of the step (a *column*). Its own positive is the
//! class to find; its own negatives and all other columns that are not masked are the alternatives. [`contrastive`]
//! returns the mean over the queries and ∂loss/∂embedding for queries and passages, which is all that
//! [`Trainable::backward`](crate::engine::Trainable::backward) needs.
//!
//! Errors: shapes that do not match, a vector without length under cosine, a weight that has no logarithm.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::engine::Embeddings;
use crate::error::{Error, Result};
use crate::index::exact::Similarity;
use crate::sample::Provenance;

/// What the weights ω of languages and topics do to the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reading {
    /// log ω of a negative is added to its logit: it counts ω times in the partition function.
    Negative,
    /// ω of the query multiplies the query's loss.
    Query,
    /// The mean ω of the query's negatives multiplies the query's loss: the formula as it is printed in the paper.
    PaperMean,
    /// No weights.
    None,
}

/// A leading part of the vectors that must be useful by itself (Matryoshka).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prefix {
    /// Number of leading components.
    pub dimension: usize,
    /// Its part in the loss; the full length has 1.
    #[serde(default = "one")]
    pub weight: f32,
}

fn one() -> f32 {
    1.0
}

/// How much, and how softly, the scores of a teacher are imitated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Imitation {
    /// The factor of the divergence beside the contrastive loss.
    pub weight: f32,
    /// The teacher's scores are divided by this before their softmax.
    pub temperature: f32,
}

/// Which loss.
#[derive(Debug, Clone, PartialEq)]
pub struct LossOptions {
    /// How vectors are compared.
    pub similarity: Similarity,
    /// τ: similarities are divided by it.
    pub temperature: f32,
    /// What the weights do.
    pub reading: Reading,
    /// Prefixes beside the full length; the loss is the weighted mean over all of them.
    pub matryoshka: Vec<Prefix>,
    /// Imitation of a teacher, where a row has its scores.
    pub distillation: Option<Imitation>,
    /// Whether the other queries of the step are alternatives, too.
    pub query_negatives: bool,
}

/// One query of the step: which columns are what to it.
#[derive(Debug, Clone, PartialEq)]
pub struct LossRow {
    /// The column of its positive.
    pub positive: usize,
    /// The columns of its own negatives.
    pub negatives: Vec<(usize, Provenance)>,
    /// Columns that are no alternatives: relevant to the query, or known to be.
    pub masked: Vec<usize>,
    /// ω of the query, used by [`Reading::Query`]; with [`LossOptions::query_negatives`] also its ω as a negative.
    pub weight: f32,
    /// The teacher's scores of the positive and of each own negative, where it has them; empty means none at all.
    pub teacher: Vec<Option<f32>>,
}

/// The matrices of a step and what their rows mean.
#[derive(Debug, Clone, Copy)]
pub struct LossInput<'a> {
    /// B × d, one vector a row of `rows`.
    pub queries: &'a Embeddings,
    /// P × d, one vector a column.
    pub passages: &'a Embeddings,
    /// B rows.
    pub rows: &'a [LossRow],
    /// ω of every column, by the passage's own language and topic; P values.
    pub weights: &'a [f32],
}

/// The loss of a step, its gradient, and what drives it.
#[derive(Debug, Clone, PartialEq)]
pub struct LossReport {
    /// Mean over the queries; natural logarithms.
    pub loss: f64,
    /// ∂loss/∂query vectors, B × d.
    pub queries: Embeddings,
    /// ∂loss/∂passage vectors, P × d.
    pub passages: Embeddings,
    /// Share of the queries whose positive is more similar than every alternative (full length, no weights).
    pub accuracy: f64,
    /// Share of the contrastive gradient on the logits of negatives by their provenance (`judged`, …), `in-batch` for
    /// the passages and `query` for the queries of other rows; sums to 1 where there is a negative (full length).
    pub shares: BTreeMap<String, f64>,
}

/// The loss of a step with its gradient.
///
/// Order: neither the order of columns nor of rows matters, up to rounding. Masked cells have no part in anything.
///
/// # Errors
/// Shapes that do not match; a column out of range; a positive that is masked or its own negative; under cosine a
/// vector without length; under [`Reading::Negative`] a weight that is not above 0.
///
/// Source: InfoNCE; the readings of the weights are those of the paper's equation for `L_final`.
pub fn contrastive(input: &LossInput<'_>, options: &LossOptions) -> Result<LossReport> {
    check(input, options)?;
    let full = Prefix { dimension: input.queries.dimension(), weight: 1.0 };
    let total: f32 = 1.0 + options.matryoshka.iter().map(|prefix| prefix.weight).sum::<f32>();
    let mut report = level(input, options, full, 1.0 / total)?;
    for prefix in &options.matryoshka {
        let part = level(input, options, *prefix, prefix.weight / total)?;
        report.loss += part.loss;
        add(&mut report.queries, &part.queries);
        add(&mut report.passages, &part.passages);
    }
    Ok(report)
}

fn add(sum: &mut Embeddings, part: &Embeddings) {
    for (sum, part) in sum.values_mut().iter_mut().zip(part.values()) {
        *sum += part;
    }
}

fn check(input: &LossInput<'_>, options: &LossOptions) -> Result<()> {
    let (dimension, columns) = (input.queries.dimension(), input.passages.rows());
    let expect = |what: &str, expected: usize, got: usize| {
        if expected == got { Ok(()) } else { Err(Error::shape(what, expected, got)) }
    };
    expect("dimension of the passages", dimension, input.passages.dimension())?;
    expect("rows of the step", input.queries.rows(), input.rows.len())?;
    expect("weights of the columns", columns, input.weights.len())?;
    if input.rows.is_empty() {
        return Err(Error::shape("rows of the step", "at least one", 0));
    }
    if let Some(prefix) = options.matryoshka.iter().find(|prefix| !(1..dimension).contains(&prefix.dimension)) {
        let limit = format!("below the model's {dimension}");
        return Err(Error::config(format!("train.matryoshka: expected a dimension {limit}, got {}", prefix.dimension)));
    }
    input.rows.iter().try_for_each(|row| check_row(row, columns))?;
    check_weights(input, options)
}

fn check_row(row: &LossRow, columns: usize) -> Result<()> {
    let own = row.negatives.iter().map(|(column, _)| *column);
    let mut named = std::iter::once(row.positive).chain(own.clone()).chain(row.masked.iter().copied());
    if let Some(column) = named.find(|column| *column >= columns) {
        return Err(Error::shape("a column of the step", format!("less than {columns}"), column));
    }
    if own.clone().any(|column| column == row.positive) || row.masked.contains(&row.positive) {
        let message = format!("column {} is a row's positive and also masked or its negative", row.positive);
        return Err(Error::data(format!("{message}; plan the batches again")));
    }
    if !row.teacher.is_empty() && row.teacher.len() != row.negatives.len() + 1 {
        return Err(Error::shape("teacher scores of a row", row.negatives.len() + 1, row.teacher.len()));
    }
    Ok(())
}

fn check_weights(input: &LossInput<'_>, options: &LossOptions) -> Result<()> {
    let queries = input.rows.iter().map(|row| row.weight);
    let mut weights = input.weights.iter().copied().chain(queries);
    let usable = |weight: f32| match options.reading {
        Reading::Negative => weight > 0.0 && weight.is_finite(),
        Reading::Query | Reading::PaperMean => weight >= 0.0 && weight.is_finite(),
        Reading::None => true,
    };
    match weights.find(|weight| !usable(*weight)) {
        Some(weight) => Err(Error::data(format!("a weight of {weight} cannot be used; expected a positive number"))),
        None => Ok(()),
    }
}

/// The loss and gradient of one prefix, times `scale`.
fn level(input: &LossInput<'_>, options: &LossOptions, prefix: Prefix, scale: f32) -> Result<LossReport> {
    let queries = View::new("a query", input.queries, prefix.dimension, options.similarity)?;
    let passages = View::new("a passage", input.passages, prefix.dimension, options.similarity)?;
    let step = StepView { queries: &queries.vectors, passages: &passages.vectors, input, options };
    let terms: Vec<RowTerms> = (0..input.rows.len()).into_par_iter().map(|row| step.row(row)).collect();

    let mean = scale / terms.len() as f32;
    let (to_queries, to_passages) = step.gradients(&terms, mean / options.temperature);
    let mut shares = BTreeMap::new();
    for (name, mass) in terms.iter().flat_map(|term| &term.masses) {
        *shares.entry((*name).to_owned()).or_insert(0.0) += mass;
    }
    let whole: f64 = shares.values().sum();
    shares.values_mut().for_each(|share| *share /= if whole > 0.0 { whole } else { 1.0 });
    Ok(LossReport {
        loss: terms.iter().map(|term| term.loss).sum::<f64>() * f64::from(mean),
        queries: queries.pull_back(&to_queries, input.queries.dimension()),
        passages: passages.pull_back(&to_passages, input.passages.dimension()),
        accuracy: terms.iter().filter(|term| term.correct).count() as f64 / terms.len() as f64,
        shares,
    })
}

/// The leading components of vectors, made unit vectors where the similarity wants them.
struct View {
    vectors: Embeddings,
    /// Euclidean lengths before scaling; empty where nothing was scaled.
    lengths: Vec<f32>,
}

impl View {
    fn new(what: &str, embeddings: &Embeddings, dimension: usize, similarity: Similarity) -> Result<Self> {
        let prefixes = (0..embeddings.rows()).flat_map(|row| &embeddings.row(row)[..dimension]);
        let mut vectors = Embeddings::new(dimension, prefixes.copied().collect())?;
        if similarity == Similarity::Dot {
            return Ok(Self { vectors, lengths: Vec::new() });
        }
        let mut lengths = Vec::with_capacity(vectors.rows());
        for row in 0..vectors.rows() {
            let vector = vectors.row_mut(row);
            let length = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt() as f32;
            if length == 0.0 {
                let message = format!("the vector of {what} of the step has length 0, so it has no cosine");
                return Err(Error::data(format!("{message}; use similarity = \"dot\" or another model")));
            }
            vector.iter_mut().for_each(|value| *value /= length);
            lengths.push(length);
        }
        Ok(Self { vectors, lengths })
    }

    /// ∂loss/∂original vectors, n × `dimension`, from ∂loss/∂view: scaling to unit length takes away the part of the
    /// gradient along the vector, and components behind the prefix have none.
    fn pull_back(&self, gradient: &Embeddings, dimension: usize) -> Embeddings {
        let mut original = Embeddings::zeros(gradient.rows(), dimension);
        for row in 0..gradient.rows() {
            let (unit, gradient) = (self.vectors.row(row), gradient.row(row));
            let (along, length) = match self.lengths.get(row) {
                Some(length) => (dot(unit, gradient), *length),
                None => (0.0, 1.0),
            };
            for (component, target) in original.row_mut(row)[..unit.len()].iter_mut().enumerate() {
                *target = (gradient[component] - along * unit[component]) / length;
            }
        }
        original
    }
}

/// What a column is to a row.
#[derive(Clone, Copy, PartialEq)]
enum Cell {
    Positive,
    Own(Provenance),
    Other,
    Masked,
}

/// What a row adds: its weighted loss, ∂/∂logit of every passage and query, and its part in the diagnostics.
struct RowTerms {
    loss: f64,
    passages: Vec<f32>,
    queries: Vec<f32>,
    correct: bool,
    masses: BTreeMap<&'static str, f64>,
}

/// One alternative in the partition function of a row.
struct Alternative {
    /// The column, or P + the row of a query.
    place: usize,
    name: &'static str,
    similarity: f64,
    weight: f32,
}

/// A step at one prefix.
struct StepView<'a> {
    queries: &'a Embeddings,
    passages: &'a Embeddings,
    input: &'a LossInput<'a>,
    options: &'a LossOptions,
}

impl StepView<'_> {
    fn row(&self, index: usize) -> RowTerms {
        let row = &self.input.rows[index];
        let similarity = |column| self.scaled(index, self.passages.row(column));
        let positive = similarity(row.positive);
        let alternatives = self.alternatives(index);
        let mut logits = vec![positive];
        logits.extend(alternatives.iter().map(|alternative| alternative.similarity + self.log_weight(alternative)));
        let (normaliser, probabilities) = softmax(&logits);
        let factor = self.factor(row, &alternatives);

        let mut terms = RowTerms {
            loss: factor * (normaliser - positive),
            passages: vec![0.0; self.passages.rows()],
            queries: vec![0.0; self.queries.rows()],
            correct: alternatives.iter().all(|alternative| alternative.similarity < positive),
            masses: BTreeMap::new(),
        };
        terms.passages[row.positive] = (factor * (probabilities[0] - 1.0)) as f32;
        for (alternative, probability) in alternatives.iter().zip(&probabilities[1..]) {
            terms.set(alternative.place, (factor * probability) as f32);
            *terms.masses.entry(alternative.name).or_default() += factor * probability;
        }
        if let Some(imitation) = self.options.distillation {
            imitate(row, imitation, factor, &mut terms, similarity);
        }
        terms
    }

    /// Similarity over temperature, without weights.
    fn scaled(&self, row: usize, other: &[f32]) -> f64 {
        f64::from(dot(self.queries.row(row), other)) / f64::from(self.options.temperature)
    }

    /// Everything that row `index` must not prefer to its positive: columns first, then queries.
    fn alternatives(&self, index: usize) -> Vec<Alternative> {
        let row = &self.input.rows[index];
        let mut alternatives = Vec::with_capacity(self.passages.rows());
        for (place, cell) in cells(row, self.passages.rows()).into_iter().enumerate() {
            let name = match cell {
                Cell::Positive | Cell::Masked => continue,
                Cell::Own(provenance) => provenance_name(provenance),
                Cell::Other => "in-batch",
            };
            let similarity = self.scaled(index, self.passages.row(place));
            alternatives.push(Alternative { place, name, similarity, weight: self.input.weights[place] });
        }
        if self.options.query_negatives {
            alternatives.extend(self.other_queries(index));
        }
        alternatives
    }

    /// The other queries, except those whose positive is one for this row, too.
    fn other_queries(&self, index: usize) -> impl Iterator<Item = Alternative> {
        let (rows, columns) = (self.input.rows, self.passages.rows());
        let row = &rows[index];
        let alike = |other: &LossRow| other.positive == row.positive || row.masked.contains(&other.positive);
        let others = (0..rows.len()).filter(move |other| *other != index && !alike(&rows[*other]));
        others.map(move |other| Alternative {
            place: columns + other,
            name: "query",
            similarity: self.scaled(index, self.queries.row(other)),
            weight: rows[other].weight,
        })
    }

    fn log_weight(&self, alternative: &Alternative) -> f64 {
        if self.options.reading == Reading::Negative { f64::from(alternative.weight).ln() } else { 0.0 }
    }

    /// What multiplies the loss of a row; the mean of [`Reading::PaperMean`] is over its passages, own and others'.
    fn factor(&self, row: &LossRow, alternatives: &[Alternative]) -> f64 {
        match self.options.reading {
            Reading::Negative | Reading::None => 1.0,
            Reading::Query => f64::from(row.weight),
            Reading::PaperMean => {
                let passages = alternatives.iter().filter(|alternative| alternative.place < self.passages.rows());
                let weights: Vec<f64> = passages.map(|alternative| f64::from(alternative.weight)).collect();
                if weights.is_empty() { 1.0 } else { weights.iter().sum::<f64>() / weights.len() as f64 }
            }
        }
    }

    /// ∂/∂view of queries (B × k) and passages (P × k), with ∂/∂logit times `scale`.
    fn gradients(&self, terms: &[RowTerms], scale: f32) -> (Embeddings, Embeddings) {
        let mut queries = Embeddings::zeros(self.queries.rows(), self.queries.dimension());
        combine(&mut queries, self.passages, |row, column| scale * terms[row].passages[column]);
        if self.options.query_negatives {
            combine(&mut queries, self.queries, |row, other| {
                scale * (terms[row].queries[other] + terms[other].queries[row])
            });
        }
        let mut passages = Embeddings::zeros(self.passages.rows(), self.passages.dimension());
        combine(&mut passages, self.queries, |column, row| scale * terms[row].passages[column]);
        (queries, passages)
    }
}

impl RowTerms {
    fn set(&mut self, place: usize, value: f32) {
        match place.checked_sub(self.passages.len()) {
            None => self.passages[place] = value,
            Some(query) => self.queries[query] = value,
        }
    }
}

fn cells(row: &LossRow, columns: usize) -> Vec<Cell> {
    let mut cells = vec![Cell::Other; columns];
    for (column, provenance) in &row.negatives {
        cells[*column] = Cell::Own(*provenance);
    }
    for column in &row.masked {
        cells[*column] = Cell::Masked;
    }
    cells[row.positive] = Cell::Positive;
    cells
}

/// The name of a provenance, as in the files of `sample`.
fn provenance_name(provenance: Provenance) -> &'static str {
    match provenance {
        Provenance::Judged => "judged",
        Provenance::Supplement => "supplement",
        Provenance::Human => "human",
        Provenance::Deeper => "deeper",
        Provenance::Mined => "mined",
        Provenance::Unjudged => "unjudged",
        Provenance::Random => "random",
    }
}

/// Adds the divergence of the model's distribution from the teacher's, over the row's own passages with a score.
///
/// The model's softmax is over similarity/τ, the teacher's over score/temperature. A row in which the positive or
/// every negative lacks a score adds nothing.
fn imitate(row: &LossRow, imitation: Imitation, factor: f64, terms: &mut RowTerms, similarity: impl Fn(usize) -> f64) {
    let own = std::iter::once(row.positive).chain(row.negatives.iter().map(|(column, _)| *column));
    let mut group: Vec<(usize, f64)> = Vec::new();
    for (column, score) in own.zip(&row.teacher) {
        if let (Some(score), false) = (score, row.masked.contains(&column)) {
            group.push((column, f64::from(*score) / f64::from(imitation.temperature)));
        }
    }
    if group.len() < 2 || group[0].0 != row.positive {
        return;
    }
    let teacher: Vec<f64> = group.iter().map(|(_, score)| *score).collect();
    let student: Vec<f64> = group.iter().map(|(column, _)| similarity(*column)).collect();
    let ((teacher_normaliser, target), (normaliser, probability)) = (softmax(&teacher), softmax(&student));
    let scale = factor * f64::from(imitation.weight);
    for (place, (column, _)) in group.iter().enumerate() {
        let difference = (teacher[place] - teacher_normaliser) - (student[place] - normaliser);
        terms.loss += scale * target[place] * difference;
        terms.passages[*column] += (scale * (probability[place] - target[place])) as f32;
    }
}

/// The logarithm of the sum of exponentials, and the probabilities.
fn softmax(logits: &[f64]) -> (f64, Vec<f64>) {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|logit| (logit - largest).exp()).sum();
    let normaliser = largest + sum.ln();
    (normaliser, logits.iter().map(|logit| (logit - normaliser).exp()).collect())
}

/// Row r of `sum` gets Σₖ coefficient(r, k) · `vectors[k]`, k ascending whatever the number of threads.
fn combine(sum: &mut Embeddings, vectors: &Embeddings, coefficient: impl Fn(usize, usize) -> f32 + Sync) {
    let dimension = sum.dimension();
    sum.values_mut().par_chunks_mut(dimension).enumerate().for_each(|(row, sum)| {
        for other in 0..vectors.rows() {
            let coefficient = coefficient(row, other);
            if coefficient != 0.0 {
                sum.iter_mut().zip(vectors.row(other)).for_each(|(sum, value)| *sum += coefficient * value);
            }
        }
    });
}

/// The inner product, in sixteen running sums that the compiler turns into vector instructions.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0_f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    rest + sums.iter().sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: usize = 3;
    const COLUMNS: usize = 7;
    const DIMENSION: usize = 8;

    fn sines(rows: usize, columns: usize, phase: f64) -> Embeddings {
        let values = (0..rows * columns).map(|number| (number as f64 * 1.7 + phase).sin() as f32).collect();
        Embeddings::new(columns, values).unwrap()
    }

    struct Fixture {
        queries: Embeddings,
        passages: Embeddings,
        rows: Vec<LossRow>,
        weights: Vec<f32>,
    }

    impl Fixture {
        fn new() -> Self {
            let weight = |value: f32| 1.0 + 0.5 * value;
            let row_weights: Vec<f32> = sines(1, ROWS, 5.1).values().iter().copied().map(weight).collect();
            let row =
                |index: usize, positive, negatives: [usize; 2], masked: &[usize], teacher: &[Option<f32>]| LossRow {
                    positive,
                    negatives: vec![(negatives[0], Provenance::Judged), (negatives[1], Provenance::Random)],
                    masked: masked.to_vec(),
                    weight: row_weights[index],
                    teacher: teacher.to_vec(),
                };
            Self {
                queries: sines(ROWS, DIMENSION, 0.4),
                passages: sines(COLUMNS, DIMENSION, 2.9),
                rows: vec![
                    row(0, 0, [1, 6], &[2], &[Some(0.9), Some(0.3), None]),
                    row(1, 2, [3, 4], &[], &[Some(0.8), Some(0.7), Some(0.1)]),
                    row(2, 5, [6, 3], &[0, 1], &[]),
                ],
                weights: sines(1, COLUMNS, 1.3).values().iter().copied().map(weight).collect(),
            }
        }

        fn solve(&self, options: &LossOptions) -> Result<LossReport> {
            let (queries, passages) = (&self.queries, &self.passages);
            contrastive(&LossInput { queries, passages, rows: &self.rows, weights: &self.weights }, options)
        }
    }

    fn plain() -> LossOptions {
        LossOptions {
            similarity: Similarity::Cosine,
            temperature: 0.3,
            reading: Reading::None,
            matryoshka: Vec::new(),
            distillation: None,
            query_negatives: false,
        }
    }

    #[derive(Deserialize)]
    struct Golden {
        similarity: Similarity,
        temperature: f32,
        reading: Reading,
        matryoshka: Vec<(usize, f32)>,
        distillation: Option<(f32, f32)>,
        query_negatives: bool,
        loss: f64,
        queries: Vec<f32>,
        passages: Vec<f32>,
    }

    impl Golden {
        fn options(&self) -> LossOptions {
            let prefix = |(dimension, weight): &(usize, f32)| Prefix { dimension: *dimension, weight: *weight };
            LossOptions {
                similarity: self.similarity,
                temperature: self.temperature,
                reading: self.reading,
                matryoshka: self.matryoshka.iter().map(prefix).collect(),
                distillation: self.distillation.map(|(weight, temperature)| Imitation { weight, temperature }),
                query_negatives: self.query_negatives,
            }
        }
    }

    /// The values of `tests/golden/loss.py` (torch 2.11.0, float64, gradients by autograd).
    fn golden() -> BTreeMap<String, Golden> {
        serde_json::from_str(include_str!("../../../../tests/golden/loss.json")).unwrap()
    }

    fn assert_near(what: &str, got: &[f32], expected: &[f32], tolerance: f32) {
        let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() <= tolerance * largest, "{what}: {got} is not {expected}");
        }
    }

    #[test]
    fn loss_and_gradient_are_those_of_pytorch() {
        for (name, golden) in golden() {
            let report = Fixture::new().solve(&golden.options()).unwrap();
            assert!((report.loss - golden.loss).abs() < 2e-6 * golden.loss.abs().max(1.0), "{name}: {}", report.loss);
            assert_near(&name, report.queries.values(), &golden.queries, 1e-5);
            assert_near(&name, report.passages.values(), &golden.passages, 1e-5);
        }
    }

    #[test]
    fn the_gradient_is_the_finite_difference_under_every_option() {
        const STEP: f32 = 0.01;
        for (name, golden) in golden().into_iter().filter(|(name, _)| name != "sharp cosine") {
            let options = golden.options();
            let report = Fixture::new().solve(&options).unwrap();
            let slope = |change: &dyn Fn(&mut Fixture, f32)| {
                let loss = |by| {
                    let mut fixture = Fixture::new();
                    change(&mut fixture, by);
                    fixture.solve(&options).unwrap().loss
                };
                ((loss(STEP) - loss(-STEP)) / f64::from(2.0 * STEP)) as f32
            };
            let numeric = |count: usize, change: fn(&mut Fixture, usize, f32)| -> Vec<f32> {
                (0..count).map(|at| slope(&|fixture: &mut Fixture, by| change(fixture, at, by))).collect()
            };
            let queries = numeric(ROWS * DIMENSION, |fixture, at, by| fixture.queries.values_mut()[at] += by);
            let passages = numeric(COLUMNS * DIMENSION, |fixture, at, by| fixture.passages.values_mut()[at] += by);
            assert_near(&name, report.queries.values(), &queries, 2e-3);
            assert_near(&name, report.passages.values(), &passages, 2e-3);
        }
    }

    #[test]
    fn equal_weights_are_no_weights() {
        let expected = Fixture::new().solve(&plain()).unwrap();
        for reading in [Reading::Negative, Reading::Query, Reading::PaperMean] {
            let mut fixture = Fixture::new();
            fixture.weights.fill(1.0);
            fixture.rows.iter_mut().for_each(|row| row.weight = 1.0);
            assert_eq!(fixture.solve(&LossOptions { reading, ..plain() }).unwrap(), expected);
        }
    }

    #[test]
    fn a_constant_factor_on_the_weights_scales_a_multiplying_reading_and_so_changes_no_direction() {
        for reading in [Reading::Query, Reading::PaperMean] {
            let options = LossOptions { reading, ..plain() };
            let expected = Fixture::new().solve(&options).unwrap();
            let mut fixture = Fixture::new();
            fixture.weights.iter_mut().for_each(|weight| *weight *= 4.0);
            fixture.rows.iter_mut().for_each(|row| row.weight *= 4.0);
            let scaled = fixture.solve(&options).unwrap();
            assert!((scaled.loss - 4.0 * expected.loss).abs() < 1e-9);
            let times_four: Vec<f32> = expected.queries.values().iter().map(|value| 4.0 * value).collect();
            assert_near("gradient", scaled.queries.values(), &times_four, 1e-6);
        }
    }

    #[test]
    fn the_weights_of_negatives_move_the_gradient_towards_the_heavier_ones() {
        let options = LossOptions { reading: Reading::Negative, ..plain() };
        let mut fixture = Fixture::new();
        let before = fixture.solve(&options).unwrap().shares["judged"];
        fixture.weights[1] *= 8.0;
        assert!(fixture.solve(&options).unwrap().shares["judged"] > before);
    }

    #[test]
    fn a_mask_removes_its_cell() {
        let mut fixture = Fixture::new();
        let before = fixture.solve(&plain()).unwrap();
        fixture.rows.truncate(1);
        fixture.queries = fixture.queries.slice(0..1);
        fixture.rows[0].masked = vec![2, 3, 4, 5];
        fixture.passages.row_mut(3).fill(100.0);
        let alone = fixture.solve(&plain()).unwrap();
        assert!(alone.loss < before.loss);
        for masked in [2, 3, 4, 5] {
            assert!(alone.passages.row(masked).iter().all(|value| *value == 0.0));
        }
        assert_eq!(alone.shares.keys().collect::<Vec<_>>(), ["judged", "random"]);
        fixture.rows[0].masked = vec![1, 2, 3, 4, 5, 6];
        let nothing = fixture.solve(&plain()).unwrap();
        assert!(nothing.loss == 0.0 && nothing.shares.is_empty());
    }

    #[test]
    fn the_order_of_columns_does_not_matter() {
        let options = golden()["all"].options();
        let expected = Fixture::new().solve(&options).unwrap();
        let mut fixture = Fixture::new();
        let place = |column: usize| (column * 3 + 2) % COLUMNS;
        for column in 0..COLUMNS {
            let original = Fixture::new();
            fixture.passages.row_mut(place(column)).copy_from_slice(original.passages.row(column));
            fixture.weights[place(column)] = original.weights[column];
        }
        for row in &mut fixture.rows {
            row.positive = place(row.positive);
            row.negatives.iter_mut().for_each(|negative| negative.0 = place(negative.0));
            row.masked.iter_mut().for_each(|column| *column = place(*column));
        }
        let moved = fixture.solve(&options).unwrap();
        assert!((moved.loss - expected.loss).abs() < 1e-9);
        assert_near("queries", moved.queries.values(), expected.queries.values(), 1e-6);
        for column in 0..COLUMNS {
            assert_near("passages", moved.passages.row(place(column)), expected.passages.row(column), 1e-5);
        }
    }

    #[test]
    fn the_diagnostics_say_who_pulls() {
        let report = Fixture::new().solve(&LossOptions { query_negatives: true, ..plain() }).unwrap();
        assert_eq!(report.shares.keys().collect::<Vec<_>>(), ["in-batch", "judged", "query", "random"]);
        assert!((report.shares.values().sum::<f64>() - 1.0).abs() < 1e-12);
        let mut easy = Fixture::new();
        for (query, positive) in [(0, 0), (1, 2)] {
            let vector = easy.queries.row(query).to_vec();
            easy.passages.row_mut(positive).copy_from_slice(&vector);
        }
        let accuracy = easy.solve(&LossOptions { temperature: 0.1, ..plain() }).unwrap().accuracy;
        assert!(accuracy >= 2.0 / 3.0 - 1e-12, "{accuracy}");
    }

    #[test]
    fn what_cannot_be_a_step_is_refused() {
        let refuse = |change: &dyn Fn(&mut Fixture, &mut LossOptions), expected: &str| {
            let (mut fixture, mut options) = (Fixture::new(), plain());
            change(&mut fixture, &mut options);
            let message = fixture.solve(&options).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        refuse(&|fixture, _| fixture.queries.row_mut(1).fill(0.0), "a query of the step has length 0");
        refuse(&|fixture, _| fixture.passages.row_mut(1).fill(0.0), "a passage of the step has length 0");
        refuse(&|fixture, _| fixture.passages = sines(COLUMNS, 4, 0.0), "dimension of the passages");
        refuse(&|fixture, _| fixture.weights.truncate(6), "weights of the columns: expected 7, got 6");
        refuse(&|fixture, _| fixture.rows[0].masked.push(7), "less than 7, got 7");
        refuse(&|fixture, _| fixture.rows[0].masked.push(0), "also masked or its negative");
        refuse(&|fixture, _| fixture.rows[1].teacher.truncate(2), "teacher scores of a row: expected 3, got 2");
        refuse(
            &|fixture, options| {
                options.reading = Reading::Negative;
                fixture.weights[0] = 0.0;
            },
            "a weight of 0 cannot be used",
        );
        let whole = Prefix { dimension: DIMENSION, weight: 1.0 };
        refuse(&|_, options| options.matryoshka.push(whole), "below the model's 8, got 8");
    }
}
