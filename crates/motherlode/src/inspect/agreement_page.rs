//! How far annotators agree with one another, and the judge with them; kept up to date while they work.

use super::Inspector;
use super::agreement::{Against, Agreement, Couple};
use super::answer::Answer;
use super::layout::{document, facts, link, path, table};
use crate::corpus::language_name;
use crate::error::Result;
use crate::html::{Element, Html, element, grouped, percent};
use crate::judge::Estimate;
use crate::judge::kappa::Cohen;

const VERDICTS: [&str; 3] = ["negative", "excluded", "false negative"];

impl Inspector {
    /// The page.
    pub(super) fn agreement_page(&self) -> Result<Answer> {
        let labels = self.labels.current(self.dataset())?;
        let agreement = Agreement::of(&self.audit, &labels, self.config.annotators);
        let live = element("div").attribute("id", "live").flag("data-live", true).child(self.counts(&agreement));
        let live = live.child(people(&agreement)).child(judge(&agreement));
        let content = element("div").class("agreement").child(element("h1").text("Agreement")).child(live);
        Ok(document(&self.arm, "Agreement", "Agreement", content.child(self.downloads()).into()))
    }

    fn counts(&self, agreement: &Agreement) -> Element {
        facts(vec![
            ("Pairs in the sample", Html::text(grouped(self.audit.items.len() as u64))),
            ("Settled", Html::text(grouped(agreement.settled as u64))),
            ("At odds", Html::text(grouped(agreement.tied as u64))),
            ("Annotators", Html::text(agreement.annotators.len())),
        ])
    }

    fn downloads(&self) -> Element {
        let save = |file: &str, text: &str| {
            let link = link(path(&["export", file]), text);
            element("li").child(link.attribute("download", file))
        };
        let qrels = self.catalogue.languages.iter().map(|files| {
            save(&format!("{}.qrels.tsv", files.language), &format!("qrels, {}", language_name(&files.language)))
        });
        let list = element("ul").child(save("calibration.jsonl", "Labels to calibrate the judge with"));
        let list = list.child(save("labels.jsonl", "All labels with their annotators"));
        let heading = element("h2").attribute("id", "exports").text("Take the labels along");
        let note = "Qrels and calibration hold the grade that most annotators gave; pairs at odds are left out.";
        let qrels = element("ul").class("inline").children(qrels);
        element("section")
            .attribute("aria-labelledby", "exports")
            .child(heading)
            .child(element("p").text(note))
            .child(list)
            .child(qrels)
    }
}

/// Annotators with one another.
fn people(agreement: &Agreement) -> Element {
    let heading = element("h2").attribute("id", "people").text("Annotators with one another");
    let section = element("section").attribute("aria-labelledby", "people").child(heading);
    if agreement.annotators.is_empty() {
        return section.child(element("p").text("Nobody has given a label yet."));
    }
    let names = agreement.annotators.iter().map(|(name, count)| {
        vec![element("span").attribute("dir", "auto").text(name).into(), Html::text(grouped(*count as u64))]
    });
    let section = section.child(table("Labels", &[("Annotator", false), ("Labels", true)], names.collect()));
    let fleiss = agreement.fleiss;
    let fleiss = format!(
        "Fleiss’ κ over the {} with {} grades: {}.",
        counted(fleiss.pairs, "pair"),
        fleiss.grades,
        decimal(fleiss.kappa)
    );
    let section = section.child(element("p").class("said").text(fleiss));
    if agreement.couples.is_empty() {
        return section;
    }
    let columns = [
        ("Annotators", false),
        ("Pairs of both", true),
        ("Equal grades", true),
        ("Cohen’s κ", true),
        ("95 % interval", true),
        ("κ, quadratic weights", true),
    ];
    section.child(table(
        "Two and two, over the pairs that both graded",
        &columns,
        agreement.couples.iter().map(couple).collect(),
    ))
}

fn couple(couple: &Couple) -> Vec<Html> {
    let value = |value: fn(&Cohen) -> f64| Html::text(decimal(couple.cohen.as_ref().map(value)));
    let interval = couple.cohen.map_or("–".to_owned(), |Cohen { kappa, error, .. }| {
        format!("{} to {}", decimal(Some(kappa - 1.96 * error)), decimal(Some((kappa + 1.96 * error).min(1.0))))
    });
    let share = couple.cohen.map_or("–".to_owned(), |cohen| percent(cohen.agreement));
    let [one, other] = &couple.names;
    let name = |name| element("bdi").text(name);
    vec![
        element("span").child(name(one)).text(", ").child(name(other)).into(),
        Html::text(couple.pairs),
        Html::text(share),
        value(|cohen| cohen.kappa),
        Html::text(interval),
        value(|cohen| cohen.weighted),
    ]
}

/// The judge with what annotators settled on.
fn judge(agreement: &Agreement) -> Element {
    let heading = element("h2").attribute("id", "judge").text("The judge with people");
    let section = element("section").attribute("aria-labelledby", "judge").child(heading);
    if agreement.against.is_empty() {
        return section.child(element("p").text("No pair with a verdict is settled yet."));
    }
    let note = "A verdict is right if people settled on the same grade. Shares of all candidates count each pair for as many \
                candidates as it was drawn from, since the sample takes rare verdicts more often than they are.";
    let overall = agreement.overall();
    let columns = [
        ("Language", false),
        ("Settled pairs", true),
        ("Negative right", true),
        ("Excluded right", true),
        ("False negative right", true),
        ("Judge and people agree", true),
        ("κ", true),
        ("Answer the query, by people", true),
    ];
    let mut rows: Vec<Vec<Html>> =
        agreement.against.iter().map(|(language, against)| row(&language_name(language), against)).collect();
    rows.push(row("All", &overall));
    let section = section.child(element("p").text(note)).child(table("By language", &columns, rows));
    let columns = [("The judge says", false), ("People: 0", true), ("People: 1", true), ("People: 2", true)];
    let rows = VERDICTS
        .iter()
        .zip(&overall.pairs)
        .map(|(verdict, counts)| std::iter::once(Html::text(verdict)).chain(counts.iter().map(Html::text)).collect());
    section.child(table("Settled pairs of all languages", &columns, rows.collect()))
}

fn row(name: &str, against: &Against) -> Vec<Html> {
    let mut cells = vec![Html::text(name), Html::text(against.count())];
    cells.extend((0..VERDICTS.len()).map(|grade| share(against.right(grade))));
    let cohen = against.weighted_kappa();
    cells.push(Html::text(cohen.map_or("–".to_owned(), |cohen| percent(cohen.agreement))));
    cells.push(Html::text(decimal(cohen.map(|cohen| cohen.kappa))));
    cells.push(Html::text(against.share(2).map_or("–".to_owned(), percent)));
    cells
}

/// A share with its counts and interval.
fn share(estimate: Estimate) -> Html {
    match estimate {
        Estimate::NotEstimable => Html::text("–"),
        Estimate::Share { count, of, rate, low, high } => {
            let interval = format!("{:.0} to {:.0} %", 100.0 * low, 100.0 * high);
            let small = element("small").text(format!("{count} of {of}, {interval}"));
            element("span").text(percent(rate)).text(" ").child(small).into()
        }
    }
}

fn decimal(value: Option<f64>) -> String {
    value.map_or("not estimable".to_owned(), |value| format!("{value:.3}").replace('-', "−"))
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{} {what}s", grouped(count as u64)) }
}
