//! Agreement beyond chance: Cohen's κ for two annotators, Fleiss' κ for more.

/// Grades 0, 1 and 2.
pub(crate) const GRADES: usize = 3;

/// The grade that most people gave; none where two grades share the most.
pub(crate) fn settled(grades: impl Iterator<Item = u8>) -> Option<u8> {
    let mut counts = [0_usize; GRADES];
    grades.for_each(|grade| counts[usize::from(grade)] += 1);
    let most = counts.into_iter().max().filter(|most| *most > 0)?;
    let mut best = (0..GRADES as u8).filter(|grade| counts[usize::from(*grade)] == most);
    best.next().filter(|_| best.next().is_none())
}

/// How far two annotators agree over the same pairs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cohen {
    /// Share of the pairs with equal grades.
    pub(crate) agreement: f64,
    /// κ: every difference counts alike.
    pub(crate) kappa: f64,
    /// Its standard error.
    pub(crate) error: f64,
    /// κ with quadratic weights: 0 against 2 counts four times as much as 0 against 1.
    pub(crate) weighted: f64,
}

impl Cohen {
    /// From a table of one annotator's grades (rows) against the other's (columns), in pairs or in weights that sum to
    /// them. None where it is not defined: no pairs, or both always give one and the same grade.
    ///
    /// Source: Cohen 1960 and 1968 (`cohen_kappa_score` of scikit-learn); the standard error is that of Fleiss, Cohen and
    /// Everitt 1969 (`cohens_kappa` of statsmodels).
    pub(crate) fn of(table: &[[f64; GRADES]; GRADES]) -> Option<Self> {
        let total: f64 = table.iter().flatten().sum();
        let share = |row: usize, column: usize| table[row][column] / total;
        let rows: [f64; GRADES] = std::array::from_fn(|row| (0..GRADES).map(|column| share(row, column)).sum());
        let columns: [f64; GRADES] = std::array::from_fn(|column| (0..GRADES).map(|row| share(row, column)).sum());
        let agreement: f64 = (0..GRADES).map(|grade| share(grade, grade)).sum();
        let chance: f64 = (0..GRADES).map(|grade| rows[grade] * columns[grade]).sum();
        if total <= 0.0 || 1.0 - chance < 1e-12 {
            return None;
        }
        let kappa = (agreement - chance) / (1.0 - chance);
        let cells = || (0..GRADES).flat_map(|row| (0..GRADES).map(move |column| (row, column)));
        let distance = |(row, column): (usize, usize)| (row.abs_diff(column) as f64).powi(2);
        let observed: f64 = cells().map(|cell| distance(cell) * share(cell.0, cell.1)).sum();
        let expected: f64 = cells().map(|cell| distance(cell) * rows[cell.0] * columns[cell.1]).sum();
        let on = |(row, column): (usize, usize)| {
            let sum = columns[row] + rows[column];
            let factor = if row == column { 1.0 - sum * (1.0 - kappa) } else { sum * (1.0 - kappa) };
            share(row, column) * factor * factor
        };
        let spread = cells().map(on).sum::<f64>() - (kappa - chance * (1.0 - kappa)).powi(2);
        let error = (spread.max(0.0) / total).sqrt() / (1.0 - chance);
        Some(Self { agreement, kappa, error, weighted: 1.0 - observed / expected })
    }
}

/// Fleiss' κ over items with equally many grades each; it does not matter who gave which. None where it is not defined: no
/// items, fewer than two grades an item, or one grade throughout.
///
/// Source: Fleiss 1971 (`fleiss_kappa` of statsmodels).
pub(crate) fn fleiss(items: &[[u32; GRADES]]) -> Option<f64> {
    let raters = f64::from(items.first()?.iter().sum::<u32>());
    let count = items.len() as f64;
    let agreeing = |item: &[u32; GRADES]| item.iter().map(|grade| f64::from(*grade).powi(2)).sum::<f64>() - raters;
    let observed = items.iter().map(agreeing).sum::<f64>() / (count * raters * (raters - 1.0));
    let share = |grade: usize| items.iter().map(|item| f64::from(item[grade])).sum::<f64>() / (count * raters);
    let chance: f64 = (0..GRADES).map(|grade| share(grade).powi(2)).sum();
    (raters >= 2.0 && 1.0 - chance > 1e-12).then(|| (observed - chance) / (1.0 - chance))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Golden: scikit-learn 1.9.1 and statsmodels 0.15.0, `tests/golden/kappa.py`.
    #[test]
    fn cohen_is_that_of_scikit_learn_and_statsmodels() {
        let golden = [
            (
                [[30, 4, 1], [6, 12, 5], [0, 3, 20]],
                0.639_240_506_329_114,
                0.070_712_260_024_826_82,
                0.812_025_316_455_696_2,
            ),
            (
                [[5, 0, 0], [1, 0, 2], [0, 0, 1]],
                0.437_500_000_000_000_1,
                0.164_062_499_999_999_97,
                0.756_756_756_756_756_8,
            ),
            ([[0, 3, 4], [2, 0, 5], [6, 1, 0]], -0.5, 0.050_507_627_227_610_21, -0.645_161_290_322_580_7),
            (
                [[9, 1, 0], [1, 0, 0], [0, 0, 0]],
                -0.100_000_000_000_000_09,
                0.070_356_236_397_367_14,
                -0.100_000_000_000_000_09,
            ),
        ];
        for (table, kappa, error, weighted) in golden {
            let found = Cohen::of(&table.map(|row| row.map(f64::from))).unwrap();
            let far = [found.kappa - kappa, found.error - error, found.weighted - weighted].map(f64::abs);
            assert!(far.iter().all(|far| *far < 1e-12), "{table:?}: {found:?}");
        }
    }

    /// Golden: statsmodels 0.15.0, `tests/golden/kappa.py`.
    #[test]
    fn fleiss_is_that_of_statsmodels() {
        let three = [[3, 0, 0], [2, 1, 0], [0, 3, 0], [1, 1, 1], [0, 0, 3], [0, 2, 1]];
        let five = [[5, 0, 0], [4, 1, 0], [0, 5, 0], [1, 2, 2], [0, 0, 5], [2, 3, 0], [1, 0, 4]];
        let two = [[2, 0, 0], [1, 1, 0], [0, 0, 2], [0, 2, 0]];
        let golden = [
            (&three[..], 0.411_214_953_271_027_9),
            (&five[..], 0.527_027_027_027_027),
            (&two[..], 0.619_047_619_047_619_1),
        ];
        for (items, kappa) in golden {
            assert!((fleiss(items).unwrap() - kappa).abs() < 1e-12, "{items:?}");
        }
    }

    #[test]
    fn what_is_not_defined_has_no_value() {
        assert_eq!(Cohen::of(&[[0.0; GRADES]; GRADES]), None);
        assert_eq!(Cohen::of(&[[4.0, 0.0, 0.0], [0.0; GRADES], [0.0; GRADES]]), None);
        assert_eq!((fleiss(&[]), fleiss(&[[1, 0, 0], [0, 1, 0]]), fleiss(&[[2, 0, 0]])), (None, None, None));
    }

    proptest! {
        #[test]
        fn kappa_does_not_mind_who_is_first_nor_how_much_all_weighs(cells in prop::array::uniform9(1..9_u32), factor in 0.1..50.0) {
            let at = |row: usize, column: usize| f64::from(cells[3 * row + column]);
            let table = std::array::from_fn(|row| std::array::from_fn(|column| at(row, column)));
            let turned = std::array::from_fn(|row| std::array::from_fn(|column| factor * at(column, row)));
            let (one, other) = (Cohen::of(&table).unwrap(), Cohen::of(&turned).unwrap());
            prop_assert!((one.kappa - other.kappa).abs() < 1e-9 && (one.weighted - other.weighted).abs() < 1e-9);
            prop_assert!(one.kappa <= 1.0 && one.error >= 0.0);
        }
    }
}
