//! Is a generated query usable: not empty, not the original again, in the right language?

use super::Rejection;
use crate::corpus::Language;
use crate::text::language::Checker;
use crate::text::normalise::normalise;

/// A query out of a model's reply: its first line with text, without the quotation marks around it.
pub(super) fn clean(reply: &str) -> String {
    const QUOTES: [(char, char); 9] = [
        ('"', '"'),
        ('\'', '\''),
        ('`', '`'),
        ('“', '”'),
        ('„', '“'),
        ('‘', '’'),
        ('«', '»'),
        ('「', '」'),
        ('『', '』'),
    ];
    let mut line = reply.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    while let Some(inner) =
        QUOTES.iter().find_map(|(open, close)| line.strip_prefix(*open).and_then(|rest| rest.strip_suffix(*close)))
    {
        line = inner.trim();
    }
    line.to_owned()
}

/// What is wrong with the query `generated` for `original`, if anything is.
pub(super) fn rejection(generated: &str, original: &str, language: &Language, checker: &Checker) -> Option<Rejection> {
    if !generated.chars().any(char::is_alphanumeric) {
        Some(Rejection::Empty)
    } else if normalise(generated) == normalise(original) {
        Some(Rejection::Copy)
    } else if !checker.agrees(generated, language) {
        Some(Rejection::Language)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use fasttext::FastText;
    use fasttext::args::Args;

    use super::*;
    use crate::text::language::{Checker, LanguageCheck};

    fn language(tag: &str) -> Language {
        Language::new(tag).unwrap()
    }

    #[test]
    fn replies_are_cleaned() {
        assert_eq!(clean("\n  \"What is it?\" \nBecause…"), "What is it?");
        assert_eq!(clean("「『何ですか』」"), "何ですか");
        assert_eq!(clean("«Что это?»"), "Что это?");
        assert_eq!(clean("What does \"CV\" mean?"), "What does \"CV\" mean?");
        assert_eq!(clean(" \n\t\n"), "");
        assert_eq!(clean("\""), "\"");
    }

    #[test]
    fn empty_copied_and_foreign_queries_are_refused() {
        let check = |text: &str, checker: &Checker| rejection(text, "Who wrote it?", &language("en"), checker);
        assert_eq!(check("When was it written?", &Checker::Script), None);
        assert_eq!(check(" \"…?\"", &Checker::Script), Some(Rejection::Empty));
        assert_eq!(check("who  WROTE it?", &Checker::Script), Some(Rejection::Copy));
        assert_eq!(check("誰が書きましたか", &Checker::Script), Some(Rejection::Language));
        assert_eq!(check("誰が書きましたか", &Checker::None), None);
    }

    #[test]
    fn a_classifier_tells_languages_of_one_script_apart() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("lines.txt");
        let mut file = std::fs::File::create(&input).unwrap();
        for _ in 0..50 {
            writeln!(file, "__label__fi kuka kirjoitti romaanin\n__label__sw nani aliandika riwaya").unwrap();
        }
        let mut args = Args { input, dim: 10, epoch: 25, thread: 1, verbose: 0, ..Args::default() };
        args.apply_supervised_defaults();
        let path = folder.path().join("lid.bin");
        FastText::train(Args { lr: 1.0, ..args }).unwrap().save_model(&path).unwrap();
        let fi = language("fi");
        let checker = Checker::open(LanguageCheck::Fasttext, Some(&path), [&fi].into_iter()).unwrap();
        let check = |text| rejection(text, "x", &fi, &checker);
        assert_eq!(check("kuka kirjoitti romaanin"), None);
        assert_eq!(check("nani aliandika riwaya"), Some(Rejection::Language));
    }
}
