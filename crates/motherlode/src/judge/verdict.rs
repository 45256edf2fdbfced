//! From grades to a verdict: how two criteria combine and how votes are counted.

use super::Verdict;

/// The two criteria of one reply, each 0, 1 or 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grades {
    pub(super) accuracy: u8,
    pub(super) completeness: u8,
}

impl Grades {
    /// The grade of the pair: 0 if any criterion is 0, 1 if both are 1, else 2.
    ///
    /// Source: the authors' deleted prompt, anchors 1.3: more ones than twos give 1, ties give 2.
    pub(super) fn combined(self) -> u8 {
        match (self.accuracy, self.completeness) {
            (0, _) | (_, 0) => 0,
            (1, 1) => 1,
            _ => 2,
        }
    }
}

/// What the votes on one candidate come to.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Opinion {
    /// A grade from 0 to 2, the criteria of the first vote for it, and the mean grade of all readable votes halved.
    Graded { grade: u8, grades: Grades, claimed: f64, ledger: Vec<String> },
    /// All replies are there and none could be read.
    Unknown { ledger: Vec<String> },
    /// At least one reply was not bought.
    Unjudged,
}

impl Opinion {
    pub(super) fn grade(&self) -> Option<u8> {
        match self {
            Self::Graded { grade, .. } => Some(*grade),
            _ => None,
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        match self {
            Self::Graded { grade: 0, .. } => Verdict::Negative,
            Self::Graded { grade: 1, .. } => Verdict::Excluded,
            Self::Graded { .. } => Verdict::FalseNegative,
            Self::Unknown { .. } => Verdict::Unknown,
            Self::Unjudged => Verdict::Unjudged,
        }
    }

    /// Counts the readable votes: the majority wins, a tie goes to the higher grade.
    pub(super) fn of_votes(votes: &[Option<Grades>], ledger: Vec<String>) -> Self {
        let count = |grade: u8| votes.iter().flatten().filter(|vote| vote.combined() == grade).count();
        let grade = (0..=2).max_by_key(|grade| count(*grade)).expect("three grades");
        let read: Vec<f64> = votes.iter().flatten().map(|vote| f64::from(vote.combined())).collect();
        let claimed = read.iter().sum::<f64>() / (2 * read.len()) as f64;
        match votes.iter().flatten().find(|vote| vote.combined() == grade) {
            Some(grades) => Self::Graded { grade, grades: *grades, claimed, ledger },
            None => Self::Unknown { ledger },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grades(accuracy: u8, completeness: u8) -> Grades {
        Grades { accuracy, completeness }
    }

    #[test]
    fn the_combination_is_the_authors() {
        let table = [[0, 0, 0], [0, 1, 2], [0, 2, 2]];
        for (accuracy, row) in (0..).zip(table) {
            for (completeness, expected) in (0..).zip(row) {
                assert_eq!(grades(accuracy, completeness).combined(), expected, "{accuracy} {completeness}");
            }
        }
    }

    fn of(votes: &[Option<Grades>]) -> Opinion {
        Opinion::of_votes(votes, vec!["key".into()])
    }

    #[test]
    fn the_majority_decides_and_ties_go_up() {
        let (no, some, yes) = (Some(grades(0, 2)), Some(grades(1, 1)), Some(grades(2, 1)));
        assert_eq!(of(&[no, no, yes, no]).grade(), Some(0));
        assert_eq!(of(&[no, yes, no, yes]).grade(), Some(2));
        assert_eq!(of(&[no, some, some, None]).grade(), Some(1));
        assert_eq!(of(&[no, some, None, None]).grade(), Some(1));
        assert_eq!(of(&[None, None, yes, None]).verdict(), Verdict::FalseNegative);
        assert_eq!(of(&[None]).verdict(), Verdict::Unknown);
    }

    #[test]
    fn the_criteria_are_those_of_the_first_vote_that_won() {
        let opinion = of(&[Some(grades(0, 0)), Some(grades(1, 2)), Some(grades(2, 2)), Some(grades(0, 1))]);
        let expected = Opinion::Graded { grade: 2, grades: grades(1, 2), claimed: 0.5, ledger: vec!["key".into()] };
        assert_eq!(opinion, expected);
        assert_eq!(opinion.verdict(), Verdict::FalseNegative);
    }
}
