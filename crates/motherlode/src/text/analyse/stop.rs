//! Lists of words that are left out; `NOTICE` tells where they come from.

use std::collections::HashSet;
use std::sync::LazyLock;

/// A list of stop words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopWords {
    /// Arabic, before spelling variants are made alike.
    Arabic,
    /// Bengali.
    Bengali,
    /// A few English ones, in texts of Chinese, Japanese and Korean.
    Cjk,
    /// English, the 33 of Lucene.
    English,
    /// Finnish.
    Finnish,
    /// French.
    French,
    /// Hindi.
    Hindi,
    /// Indonesian.
    Indonesian,
    /// Japanese, base forms.
    Japanese,
    /// Persian, after spelling variants are made alike.
    Persian,
    /// Russian.
    Russian,
    /// Spanish.
    Spanish,
    /// Telugu.
    Telugu,
    /// Thai.
    Thai,
}

type Words = HashSet<Box<[char]>, foldhash::fast::RandomState>;

macro_rules! lists {
    ($($language:ident $file:literal),*) => {
        /// All lists, by name.
        pub(super) const LISTS: &[(&str, StopWords)] = &[$(($file, StopWords::$language)),*];

        fn list(words: StopWords) -> &'static Words {
            match words {
                $(StopWords::$language => {
                    static WORDS: LazyLock<Words> =
                        LazyLock::new(|| read(include_str!(concat!("stop/", $file, ".txt"))));
                    &WORDS
                })*
            }
        }
    };
}

lists!(
    Arabic "ar", Bengali "bn", Cjk "cjk", English "en", Finnish "fi", French "fr", Hindi "hi", Indonesian "id",
    Japanese "ja", Persian "fa", Russian "ru", Spanish "es", Telugu "te", Thai "th"
);

fn read(lines: &str) -> Words {
    lines.lines().map(|word| word.chars().collect()).collect()
}

impl StopWords {
    /// Whether a term is on the list.
    pub(super) fn contains(self, term: &[char]) -> bool {
        list(self).contains(term)
    }
}
