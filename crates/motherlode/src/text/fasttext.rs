//! fastText classifiers: the `fasttext` crate, with hierarchical softmax computed here.
//!
//! The crate (0.8) takes the plain softmax for quantised models of every loss, which is wrong for those trained with
//! hierarchical softmax, such as `lid.176.ftz`. Their labels are the leaves of a Huffman tree, whose inner nodes each
//! have a row in the output matrix.

use std::path::Path;

use fasttext::FastText;
use fasttext::args::LossName;
use fasttext::dictionary::EntryType;

use crate::error::{Error, Result};

/// A `.bin` or `.ftz` model with labels.
pub struct Classifier {
    model: FastText,
    tree: Option<Tree>,
}

impl std::fmt::Debug for Classifier {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Classifier").field("labels", &self.model.dict().nlabels()).finish_non_exhaustive()
    }
}

impl Classifier {
    /// Reads a model.
    ///
    /// # Errors
    /// No such file, one that is no fastText model or truncated, a model without labels, or one whose output matrix is
    /// quantised under hierarchical softmax.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.is_file() {
            return Err(Error::file(path, "expected a fastText model, there is no such file; name another"));
        }
        let model = FastText::load_model(path)
            .map_err(|error| Error::file(path, format!("expected a fastText model: {error}; get the file again")))?;
        if model.dict().nlabels() == 0 {
            return Err(Error::file(path, "expected a classifier, the model has no labels; name a supervised model"));
        }
        let is_hierarchical = model.args().loss == LossName::HierarchicalSoftmax;
        if is_hierarchical && model.quant_output().is_some() {
            let message =
                "hierarchical softmax over a quantised output matrix is not supported; quantise without -qout";
            return Err(Error::file(path, message));
        }
        let tree = is_hierarchical.then(|| Tree::new(&model.dict().get_counts(EntryType::Label)));
        Ok(Self { model, tree })
    }

    /// The `count` most probable labels with their probabilities, most probable first; none for a text without words.
    ///
    /// Ties: the label that was more frequent in training.
    pub fn predict(&self, text: &str, count: usize) -> Vec<(String, f32)> {
        let line = text.replace(['\n', '\r'], " ");
        match &self.tree {
            None => {
                let predictions = self.model.predict(&line, count, 0.0);
                predictions.into_iter().map(|prediction| (prediction.label, prediction.prob)).collect()
            }
            Some(tree) => self.predict_by_tree(tree, &line, count),
        }
    }

    fn predict_by_tree(&self, tree: &Tree, line: &str, count: usize) -> Vec<(String, f32)> {
        let (mut words, mut labels) = (Vec::new(), Vec::new());
        self.model.dict().get_line_from_str(line, &mut words, &mut labels);
        if words.is_empty() {
            return Vec::new();
        }
        let hidden = self.model.get_sentence_vector(line);
        let output = self.model.output_matrix();
        let logit = |row: usize| -> f32 { output.row(row as i64).iter().zip(&hidden).map(|(a, b)| a * b).sum() };
        let mut scored: Vec<(f32, usize)> = tree.probabilities(logit).into_iter().zip(0..).collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let named = scored.into_iter().take(count);
        named
            .filter_map(|(probability, label)| {
                Some((self.model.dict().get_label(label as i32).ok()?.to_owned(), probability))
            })
            .collect()
    }
}

/// The Huffman tree of hierarchical softmax: leaves 0..n are the labels, n..2n − 1 the inner nodes, the last one the root.
struct Tree {
    leaves: usize,
    /// Of every inner node: left and right child.
    children: Vec<[usize; 2]>,
}

impl Tree {
    /// Builds the tree as training did; `counts` are the labels' frequencies in descending order.
    ///
    /// Source: fastText, `HierarchicalSoftmaxLoss::buildTree`.
    fn new(counts: &[i64]) -> Self {
        let leaves = counts.len();
        let mut weights: Vec<i64> = counts.to_vec();
        let mut children: Vec<[usize; 2]> = Vec::new();
        // Labels from the rarest on, and inner nodes from the first on: both in ascending order of weight.
        let (mut labels_left, mut next_node) = (leaves, leaves);
        for _ in 1..leaves {
            let mut take = || {
                let node_weight = weights.get(next_node).copied().unwrap_or(i64::MAX);
                if labels_left > 0 && weights[labels_left - 1] < node_weight {
                    labels_left -= 1;
                    labels_left
                } else {
                    next_node += 1;
                    next_node - 1
                }
            };
            let pair = [take(), take()];
            weights.push(weights[pair[0]] + weights[pair[1]]);
            children.push(pair);
        }
        Self { leaves, children }
    }

    /// The probability of every label; `logit` gives that of taking the right branch at an inner node.
    ///
    /// Source: fastText, `HierarchicalSoftmaxLoss::dfs`, without its 1e-5 inside the logarithms.
    fn probabilities(&self, logit: impl Fn(usize) -> f32) -> Vec<f32> {
        let mut probabilities = vec![1.0_f32; self.leaves + self.children.len()];
        for (row, [left, right]) in self.children.iter().enumerate().rev() {
            let here = probabilities[self.leaves + row];
            let to_right = 1.0 / (1.0 + (-logit(row)).exp());
            probabilities[*left] = here * (1.0 - to_right);
            probabilities[*right] = here * to_right;
        }
        probabilities.truncate(self.leaves);
        probabilities
    }
}

#[cfg(test)]
mod tests {
    use fasttext::args::{Args, ModelName};

    use super::*;

    /// A model of three kinds of texts, trained with this loss.
    fn trained(folder: &Path, loss: LossName) -> std::path::PathBuf {
        let kinds = [("food", "bread dough yeast oven"), ("sky", "star moon comet night"), ("sea", "wave salt fish")];
        let mut lines = String::new();
        for round in 0..200 {
            for (place, (label, words)) in kinds.iter().enumerate() {
                if round % (place + 1) == 0 {
                    lines += &format!("__label__{label} {words}\n");
                }
            }
        }
        let input = folder.join("train.txt");
        std::fs::write(&input, lines).unwrap();
        let args = Args {
            input: input.display().to_string().into(),
            model: ModelName::Supervised,
            loss,
            dim: 8,
            epoch: 20,
            lr: 0.5,
            thread: 1,
            min_count: 1,
            ..Args::default()
        };
        let path = folder.join("model.bin");
        FastText::train(args).unwrap().save_model(&path).unwrap();
        path
    }

    #[test]
    fn hierarchical_softmax_agrees_with_the_crate_where_the_crate_is_right() {
        let folder = tempfile::tempdir().unwrap();
        let path = trained(folder.path(), LossName::HierarchicalSoftmax);
        let (ours, theirs) = (Classifier::open(&path).unwrap(), FastText::load_model(&path).unwrap());
        for text in ["bread and yeast", "moon", "salt fish wave", "bread star"] {
            let (ours, theirs) = (ours.predict(text, 3), theirs.predict(text, 3, 0.0));
            let best = ours[0].1 - theirs[0].prob;
            assert!(ours[0].0 == theirs[0].label && best.abs() < 1e-3, "{text}: {ours:?} {theirs:?}");
            assert!((ours.iter().map(|(_, probability)| probability).sum::<f32>() - 1.0).abs() < 1e-5);
        }
        assert!(ours.predict("", 3).is_empty());
    }

    #[test]
    fn softmax_models_work_too() {
        let folder = tempfile::tempdir().unwrap();
        let classifier = Classifier::open(&trained(folder.path(), LossName::Softmax)).unwrap();
        assert_eq!(classifier.predict("moon\nnight", 1)[0].0, "__label__sky");
    }

    #[test]
    fn files_that_are_no_classifier_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.ftz");
        assert!(Classifier::open(&path).unwrap_err().to_string().contains("no such file"));
        std::fs::write(&path, b"not a model").unwrap();
        assert!(Classifier::open(&path).unwrap_err().to_string().contains("expected a fastText model"));
        let whole = std::fs::read(trained(folder.path(), LossName::Softmax)).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(Classifier::open(&path).is_err());
    }
}
