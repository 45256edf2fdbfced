//! The paper's topics: English fastText classifiers for Yahoo Answers and DBpedia, mapped to its 12 classes.
//!
//! The classifiers know English words only; in other scripts their labels are noise with a preferred class. Either
//! classifier works alone. Source: the authors' mapping table; where its two columns disagree, Yahoo decides.

use std::collections::BTreeMap;
use std::path::Path;

use fasttext::FastText;
use rayon::prelude::*;

use super::{Topic, TopicInputs, Topics};
use crate::dataset::Partition;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// A class of the paper with the labels of both classifiers that belong to it.
struct Class {
    name: &'static str,
    yahoo: &'static [&'static str],
    dbpedia: &'static [&'static str],
}

const fn class(name: &'static str, yahoo: &'static [&'static str], dbpedia: &'static [&'static str]) -> Class {
    Class { name, yahoo, dbpedia }
}

const CLASSES: [Class; 12] = [
    class("Books & Literature", &[], &["WrittenWork"]),
    class("Science & Mathematics", &["Science & Mathematics"], &["EducationalInstitution"]),
    class("Life & Health", &["Health"], &["Animal", "Plant"]),
    class("Jobs & Education", &["Education & Reference"], &[]),
    class("Computers & Internet", &["Computers & Internet"], &["Company"]),
    class("Sports", &["Sports"], &["Athlete"]),
    class("Business & Finance", &["Business & Finance"], &["OfficeHolder"]),
    class("Politics & Government", &["Politics & Government"], &[]),
    class("Traffic & Transportation", &[], &["MeanOfTransportation"]),
    class("Arts & Entertainment", &["Entertainment & Music"], &["Artist", "Album", "Film"]),
    class("Geography", &[], &["Building", "Village", "NaturalPlace"]),
    class("Others", &[], &[]),
];

/// Where no classifier gives a class.
const OTHERS: Topic = Topic(11);

/// Yahoo Answers' classes; `__label__1` is the first.
const YAHOO: [&str; 10] = [
    "Society & Culture",
    "Science & Mathematics",
    "Health",
    "Education & Reference",
    "Computers & Internet",
    "Sports",
    "Business & Finance",
    "Entertainment & Music",
    "Family & Relationships",
    "Politics & Government",
];

/// DBpedia's classes; `__label__1` is the first.
const DBPEDIA: [&str; 14] = [
    "Company",
    "EducationalInstitution",
    "Artist",
    "Athlete",
    "OfficeHolder",
    "MeanOfTransportation",
    "Building",
    "NaturalPlace",
    "Village",
    "Animal",
    "Plant",
    "Album",
    "Film",
    "WrittenWork",
];

/// Which classes a classifier was trained on.
#[derive(Clone, Copy)]
enum Labels {
    Yahoo,
    DbPedia,
}

impl Labels {
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Yahoo => &YAHOO,
            Self::DbPedia => &DBPEDIA,
        }
    }

    /// The position of a fastText label, written as a number from 1 or as the class's name.
    fn position(self, label: &str) -> Option<usize> {
        let plain = |text: &str| -> String {
            text.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect()
        };
        let label = label.trim_start_matches("__label__");
        match label.parse::<usize>() {
            Ok(number) => number.checked_sub(1).filter(|position| *position < self.names().len()),
            Err(_) => self.names().iter().position(|name| plain(name) == plain(label)),
        }
    }

    /// The paper's class for the label at a position.
    fn topic(self, position: usize) -> Option<Topic> {
        let name = self.names()[position];
        let member = |class: &Class| match self {
            Self::Yahoo => class.yahoo.contains(&name),
            Self::DbPedia => class.dbpedia.contains(&name),
        };
        CLASSES.iter().position(member).map(|number| Topic(number as u32))
    }
}

/// A fastText model whose every label is in the table.
struct Classifier {
    labels: Labels,
    model: FastText,
}

impl Classifier {
    fn open(path: &Path, labels: Labels) -> Result<Self> {
        let model = FastText::load_model(path)
            .map_err(|error| Error::file(path, format!("no fastText model, or truncated ({error}); get it again")))?;
        let (names, _) = model.get_labels();
        if names.is_empty() {
            return Err(Error::file(path, "expected a fastText classifier, got word vectors without labels"));
        }
        if let Some(unknown) = names.iter().find(|name| labels.position(name).is_none()) {
            let known = labels.names().join(", ");
            let message = format!("label `{unknown}`: expected numbers from 1 to {} or {known}", labels.names().len());
            return Err(Error::file(path, message));
        }
        Ok(Self { labels, model })
    }

    /// The position of the most probable label for a normalised text; none for an empty text.
    fn position(&self, normal: &str) -> Option<usize> {
        let predictions = self.model.predict(normal, 1, 0.0);
        predictions.first().and_then(|prediction| self.labels.position(&prediction.label))
    }

    fn topic(&self, normal: &str) -> Option<Topic> {
        self.position(normal).and_then(|position| self.labels.topic(position))
    }
}

/// Topics by the classifiers that are there: Yahoo's class, else DBpedia's, else Others.
pub(super) fn topics(inputs: &TopicInputs, progress: &Progress) -> Result<Topics> {
    let files = [(inputs.yahoo, Labels::Yahoo), (inputs.dbpedia, Labels::DbPedia)];
    let classifiers = files
        .into_iter()
        .filter_map(|(path, labels)| path.map(|path| Classifier::open(path, labels)))
        .collect::<Result<Vec<_>>>()?;
    progress.begin("topic passages", inputs.dataset.partitions.iter().map(|part| part.corpus.len()).sum(), "passages");
    let passages = |partition: &Partition| {
        let indices: Vec<_> = partition.corpus.indices().collect();
        let topic = |index| {
            progress.advance(1);
            topic_of(&classifiers, &partition.corpus.passage(index).joined(" "))
        };
        (partition.language.clone(), indices.into_par_iter().map(topic).collect())
    };
    let passages: BTreeMap<_, _> = inputs.dataset.partitions.iter().map(passages).collect();
    Ok(Topics { labels: CLASSES.iter().map(|class| class.name.to_owned()).collect(), passages })
}

fn topic_of(classifiers: &[Classifier], text: &str) -> Topic {
    let normal = normalise(text);
    classifiers.iter().find_map(|classifier| classifier.topic(&normal)).unwrap_or(OTHERS)
}

/// The form on which fastText's published classifiers were trained: lower case, punctuation split off or dropped.
///
/// Source: `normalize_text` of fastText's `classification-example.sh`, whose `tr` lowers ASCII letters only.
fn normalise(text: &str) -> String {
    let mut normal = String::with_capacity(text.len() + 16);
    for letter in text.replace("<br />", " ").chars() {
        match letter {
            '"' => {}
            ';' | ':' => normal.push(' '),
            '\'' | '.' | ',' | '(' | ')' | '!' | '?' => normal.extend([' ', letter, ' ']),
            _ => normal.push(letter.to_ascii_lowercase()),
        }
    }
    normal.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use fasttext::args::Args;

    use super::*;

    #[test]
    fn text_is_normalised_as_in_the_classification_example() {
        // printf '%s' 'Mr. "X" (b. 1950); isn'"'"'t: it?<br />Yes!' | tr '[:upper:]' '[:lower:]' | sed -e "s/'/ ' /g" \
        //   -e 's/"//g' -e 's/\./ \. /g' -e 's/<br \/>/ /g' -e 's/,/ , /g' -e 's/(/ ( /g' -e 's/)/ ) /g' \
        //   -e 's/\!/ \! /g' -e 's/\?/ \? /g' -e 's/\;/ /g' -e 's/\:/ /g' | tr -s " "     (GNU sed 4.9, coreutils 9.1)
        assert_eq!(normalise("Mr. \"X\" (b. 1950); isn't: it?<br />Yes!"), "mr . x ( b . 1950 ) isn ' t it ? yes !");
    }

    #[test]
    fn labels_map_to_the_classes_of_the_table() {
        let name = |labels: Labels, label: &str| {
            labels.position(label).and_then(|at| labels.topic(at)).map(|topic| CLASSES[topic.0 as usize].name)
        };
        assert_eq!(name(Labels::Yahoo, "__label__8"), Some("Arts & Entertainment"));
        assert_eq!(name(Labels::Yahoo, "__label__Society_&_Culture"), None, "falls through to DBpedia");
        assert_eq!(name(Labels::DbPedia, "__label__14"), Some("Books & Literature"));
        assert_eq!(name(Labels::DbPedia, "__label__Village"), Some("Geography"));
        assert_eq!(Labels::Yahoo.position("__label__11"), None);
        assert!((0..DBPEDIA.len()).all(|at| Labels::DbPedia.topic(at).is_some()), "every DBpedia label has a class");
        assert_eq!((0..YAHOO.len()).filter(|at| Labels::Yahoo.topic(*at).is_none()).count(), 2);
    }

    /// A classifier of a few dozen made-up lines, good enough to tell its own words apart.
    fn train(folder: &Path, name: &str, lines: &[(&str, &str)]) -> std::path::PathBuf {
        let input = folder.join(format!("{name}.txt"));
        let mut file = std::fs::File::create(&input).unwrap();
        for _ in 0..20 {
            lines.iter().for_each(|(label, text)| writeln!(file, "__label__{label} {text}").unwrap());
        }
        let mut args = Args { input, dim: 10, epoch: 25, thread: 1, verbose: 0, ..Args::default() };
        args.apply_supervised_defaults();
        let path = folder.join(format!("{name}.bin"));
        FastText::train(Args { lr: 1.0, ..args }).unwrap().save_model(&path).unwrap();
        path
    }

    #[test]
    fn either_classifier_works_alone_and_yahoo_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let yahoo = train(folder.path(), "yahoo", &[("6", "goal match team"), ("1", "wedding custom village")]);
        let dbpedia = train(folder.path(), "dbpedia", &[("Company", "goal team firm"), ("9", "village river custom")]);
        let yahoo = || Classifier::open(&yahoo, Labels::Yahoo).unwrap();
        let dbpedia = || Classifier::open(&dbpedia, Labels::DbPedia).unwrap();
        let name = |classifiers: &[Classifier], text| CLASSES[topic_of(classifiers, text).0 as usize].name;
        assert_eq!(name(&[yahoo()], "Goal! Match, team."), "Sports");
        assert_eq!(name(&[yahoo()], "wedding custom"), "Others", "Society & Culture has no class of its own");
        assert_eq!(name(&[dbpedia()], "Goal, team."), "Computers & Internet");
        assert_eq!(name(&[yahoo(), dbpedia()], "goal team"), "Sports");
        assert_eq!(name(&[yahoo(), dbpedia()], "village custom"), "Geography");
        assert_eq!(name(&[yahoo(), dbpedia()], " "), "Others");
    }

    #[test]
    fn a_classifier_of_other_labels_and_a_broken_file_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = train(folder.path(), "other", &[("cooking", "pan"), ("9", "sea")]);
        let message = Classifier::open(&path, Labels::DbPedia).err().unwrap().to_string();
        assert!(message.contains("__label__cooking") && message.contains("1 to 14"), "{message}");
        let broken = folder.path().join("broken.bin");
        std::fs::write(&broken, b"no model").unwrap();
        assert!(Classifier::open(&broken, Labels::Yahoo).err().unwrap().to_string().contains("no fastText model"));
    }

    #[test]
    fn the_published_dbpedia_classifier_keeps_its_accuracy() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/topics");
        if !folder.exists() {
            eprintln!("skipped: {} is not there", folder.display());
            return;
        }
        let classifier = Classifier::open(&folder.join("dbpedia.ftz"), Labels::DbPedia).unwrap();
        let (mut lines, mut right) = (0, 0);
        crate::lines::for_each(&folder.join("dbpedia.test.txt.gz"), |_, line| {
            let (label, text) = line.split_once(' ').unwrap();
            lines += 1;
            right += usize::from(classifier.position(&normalise(text)) == Labels::DbPedia.position(label));
            Ok(())
        })
        .unwrap();
        let accuracy = f64::from(right as u32) / f64::from(lines);
        assert!(lines >= 500 && accuracy >= 0.95, "{right} of {lines} right");
    }
}
