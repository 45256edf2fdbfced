//! The whole page over a small experiment.

use std::collections::BTreeSet;
use std::path::Path;

use super::fixture::{HOSTILE, experiment, source};
use super::{Experiment, report, side_by_side};

struct Page {
    _folder: tempfile::TempDir,
    text: String,
    files: BTreeSet<String>,
    csv: Vec<String>,
}

fn page(change: impl FnOnce(&mut Experiment)) -> Page {
    let folder = tempfile::tempdir().unwrap();
    let source = source(folder.path());
    let mut experiment = experiment(folder.path(), &source, ["motherlode", HOSTILE]);
    change(&mut experiment);
    let pages = folder.path().join("pages");
    report(&experiment, &pages).unwrap();
    let text = std::fs::read_to_string(pages.join("index.html")).unwrap();
    let (files, csv) = csv_files(&pages);
    Page { _folder: folder, text, files, csv }
}

fn csv_files(folder: &Path) -> (BTreeSet<String>, Vec<String>) {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let tables: Vec<_> = entries.filter(|path| path.extension().is_some_and(|extension| extension == "csv")).collect();
    let names = tables.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    (names, tables.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect())
}

/// The names of all tags of a page; a text that became markup would add to them.
fn tags(text: &str) -> BTreeSet<&str> {
    let opened = text.split('<').skip(1).filter(|rest| !rest.starts_with('/'));
    opened.map(|rest| rest.split(|c: char| c.is_whitespace() || c == '>').next().unwrap()).collect()
}

#[test]
fn hostile_texts_stay_text() {
    let page = page(|_| {});
    let body = page.text.split_once("</style>").unwrap().1;
    let known = [
        "a",
        "article",
        "aside",
        "bdi",
        "body",
        "caption",
        "circle",
        "code",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
        "figcaption",
        "figure",
        "h1",
        "h2",
        "h3",
        "header",
        "li",
        "line",
        "main",
        "nav",
        "ol",
        "p",
        "polyline",
        "pre",
        "section",
        "small",
        "span",
        "strong",
        "summary",
        "sup",
        "svg",
        "table",
        "tbody",
        "td",
        "text",
        "tfoot",
        "th",
        "thead",
        "tr",
        "ul",
    ];
    let unknown: Vec<&str> = tags(body).into_iter().filter(|tag| !known.contains(tag)).collect();
    assert_eq!(unknown, Vec::<&str>::new());
    assert!(!page.text.contains("<script") && !page.text.contains("onerror=\""));
    assert!(page.text.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&lt;img src=x onerror=&quot;"));
}

#[test]
fn every_tag_is_closed() {
    let page = page(|_| {});
    for tag in tags(page.text.split_once("</style>").unwrap().1) {
        let opened = page.text.matches(&format!("<{tag}>")).count() + page.text.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, page.text.matches(&format!("</{tag}>")).count(), "{tag}");
    }
}

#[test]
fn the_page_answers_and_shows_its_evidence() {
    let page = page(|_| {});
    for expected in [
        "over the untouched model, better in",
        "Against the hidden truth: ",
        "the weights were rounded to 4 bits",
        "te abstains: 5 of 10 canaries passed",
        "Language models answered 1,200 requests",
        "Macro mean",
        "90.0 % <small>[60, 98], 9 of 10</small>",
        "Of 8 hidden false negatives",
        "Hidden false negatives that still serve as negatives in training",
        "False negative: accuracy 2, completeness 1; rank 4, model score 0.870",
        "Generated query",
        "Collisions (motherlode, seed 1)",
        "Validation nDCG@10",
        "Artefacts behind this page",
        "What the arms set differently from one another",
        "judge none; ",
        "Miners over the candidates.",
        "Scores under the untouched model (motherlode)",
        "Eliminated candidates by rank (motherlode)",
        "Swap checks",
        "What the judge’s votes are worth as a probability",
        "People graded 2 pairs that the judge judged",
        "What generated queries brought (motherlode)",
        "<strong>stopped</strong>",
        "Hard negatives by stage (motherlode)",
        "Train queries by the topic of their first positive",
        "Queries drawn in every epoch",
        "Factors a of languages (motherlode)",
        "Share of the gradient by source of negatives: motherlode, seed 1",
    ] {
        assert!(page.text.contains(expected), "{expected}");
    }
}

#[test]
fn experiments_stand_side_by_side_and_equal_baselines_once() {
    let folder = tempfile::tempdir().unwrap();
    let source = source(folder.path());
    let one = experiment(folder.path(), &source, ["motherlode", HOSTILE]);
    let mut other = one.clone();
    other.name = HOSTILE.to_owned();
    let pages = folder.path().join("beside");
    let addresses = ["../one/index.html".to_owned(), "../two/index.html".to_owned()];
    side_by_side(&[one.clone(), other], &addresses, &pages).unwrap();
    let text = std::fs::read_to_string(pages.join("index.html")).unwrap();
    assert_eq!(text.matches("<th scope=\"col\" class=\"number\">BM25</th>").count(), text.matches("<tfoot>").count());
    assert!(text.contains("href=\"../two/index.html\"") && text.contains("Demo motherlode: motherlode</th>"));
    assert!(text.contains("Each experiment was tested against its own baseline") && !text.contains("<script"));
    assert!(side_by_side(&[one], &addresses[..1], &pages).is_err());
}

#[test]
fn other_scripts_have_their_language_and_direction() {
    let page = page(|_| {});
    assert!(page.text.contains("<dd lang=\"ar\" dir=\"auto\" class=\"query\">ما هي عاصمة كينيا؟ 0</dd>"));
    assert!(page.text.contains("<bdi lang=\"und\">1: رياضة, Football</bdi>"));
}

#[test]
fn every_link_leads_to_a_file_or_section_of_the_page() {
    let page = page(|_| {});
    let links = page.text.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    let (mut inside, mut files) = (0, BTreeSet::new());
    for link in links {
        match link.strip_prefix('#') {
            Some(id) => {
                inside += 1;
                assert!(page.text.contains(&format!("id=\"{id}\"")), "{id}");
            }
            None => {
                files.insert(link.to_owned());
            }
        }
    }
    assert!(inside >= 8);
    assert_eq!(files, page.files);
    let is_even = |csv: &String| csv.lines().next().is_some_and(|header| header.contains(','));
    assert!(page.csv.iter().all(is_even));
}

#[test]
fn nothing_is_loaded_from_elsewhere() {
    let page = page(|_| {});
    assert!(!page.text.contains("http://") && !page.text.contains("https://") && !page.text.contains("url("));
    assert!(!page.text.contains(" style=\"") && !page.text.contains(" src=\""));
}

#[test]
fn an_experiment_without_judge_training_or_truth_has_a_page() {
    let page = page(|experiment| {
        experiment.truth = None;
        experiment.arms.retain(|arm| !arm.artefacts.contains_key("judgements"));
        for arm in &mut experiment.arms {
            arm.artefacts.retain(|role, _| role == "dataset" || role == "measures");
        }
    });
    assert!(page.text.contains("No language model judged candidates in this experiment."));
    assert!(page.text.contains("No model was trained in this experiment."));
    assert!(page.text.contains("No significant difference from the untouched model"));
}

#[test]
fn the_same_experiment_gives_the_same_page() {
    let folder = tempfile::tempdir().unwrap();
    let source = source(folder.path());
    let experiment = experiment(folder.path(), &source, ["a", "b"]);
    let text = |name: &str| {
        report(&experiment, &folder.path().join(name)).unwrap();
        std::fs::read(folder.path().join(name).join("index.html")).unwrap()
    };
    assert_eq!(text("one"), text("two"));
}
