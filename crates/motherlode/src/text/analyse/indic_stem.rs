//! Light stems of Hindi, Bengali and Telugu: the longest known ending is taken off.
#![expect(clippy::unicode_not_nfc, reason = "the Bengali letter yya is one character in a term here, two in NFC")]

use super::suffix::{Endings, strip_longest};

/// Source: Ramanathan and Rao, A Lightweight Stemmer for Hindi, as in Lucene's `HindiStemmer`.
const HINDI: Endings = &[
    (5, "ाएंगी ाएंगे ाऊंगी ाऊंगा ाइयाँ ाइयों ाइयां"),
    (4, "ाएगी ाएगा ाओगी ाओगे एंगी ेंगी एंगे ेंगे ूंगी ूंगा ातीं नाओं नाएं ताओं ताएं ियाँ ियों ियां"),
    (3, "ाकर ाइए ाईं ाया ेगी ेगा ोगी ोगे ाने ाना ाते ाती ाता तीं ाओं ाएं ुओं ुएं ुआं"),
    (2, "कर ाओ िए ाई ाए ने नी ना ते ीं ती ता ाँ ां ों ें"),
    (1, "ो े ू ु ी ि ा"),
];

/// Source: Sengupta and Chaudhuri, Natural Language Processing in an Indian Language (Bengali): Verb Phrase Analysis, and
/// Savoy's light stemmer, as in Lucene's `BengaliStemmer`.
const BENGALI: Endings = &[
    (8, "িয়াছিলাম িতেছিলাম িতেছিলেন ইতেছিলেন িয়াছিলেন ইয়াছিলেন"),
    (7, "িতেছিলি িতেছিলে িয়াছিলা িয়াছিলে িতেছিলা িয়াছিলি য়েদেরকে"),
    (6, "িতেছিস িতেছেন িয়াছিস িয়াছেন েছিলাম েছিলেন েদেরকে"),
    (5, "িতেছি িতেছা িতেছে ছিলাম ছিলেন িয়াছি িয়াছা িয়াছে েছিলে েছিলা য়েদের দেরকে"),
    (4, "িলাম িলেন িতাম িতেন িবেন ছিলি ছিলে ছিলা তেছে িতেছ খানা খানি গুলো গুলি য়েরা েদের"),
    (3, "লাম িলি ইলি িলে ইলে লেন িলা ইলা তাম িতি ইতি িতে ইতে তেন িতা িবা ইবা িবি ইবি বেন িবে ইবে ছেন য়োন য়ের েরা দের"),
    (2, "িস েন লি লে লা তি তে তা বি বে বা ছি ছা ছে ুন ুক টা টি নি ের রা কে"),
    (1, "ি ী া ো ে ব ত"),
];

/// Source: Lucene, `TeluguStemmer`.
const TELUGU: Endings = &[(4, "ళ్ళు డ్లు"), (2, "డు ము వు లు ని ను చే కై లో ది కి సు వై పై"), (1, "ి ీ ు ూ ె ే ొ ో ా")];

pub(super) fn stem_hindi(term: &mut Vec<char>) {
    strip_longest(term, HINDI);
}

pub(super) fn stem_bengali(term: &mut Vec<char>) {
    strip_longest(term, BENGALI);
}

pub(super) fn stem_telugu(term: &mut Vec<char>) {
    strip_longest(term, TELUGU);
}
