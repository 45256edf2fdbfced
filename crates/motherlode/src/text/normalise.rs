//! One normal form of a text, so that twins (the same passage under two ids) are found.

use unicode_normalization::UnicodeNormalization;

/// NFKC, lower case, every run of white space one space, none at the ends.
pub fn normalise(text: &str) -> String {
    let mut normal = String::with_capacity(text.len());
    for word in text.nfkc().collect::<String>().to_lowercase().split_whitespace() {
        if !normal.is_empty() {
            normal.push(' ');
        }
        normal.push_str(word);
    }
    normal
}

/// A digest of the normal form: two texts are twins if their digests are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TextDigest([u8; 16]);

/// The digest of a text's normal form. Titles do not count: the same body under two titles is one passage.
pub fn text_digest(text: &str) -> TextDigest {
    let hash = blake3::hash(normalise(text).as_bytes());
    TextDigest(hash.as_bytes()[..16].try_into().expect("sixteen bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_differ_only_in_form() {
        assert_eq!(text_digest(" Ｆｕｌｌ\u{a0}width\n Text"), text_digest("full width text"));
        assert_ne!(text_digest("full width texts"), text_digest("full width text"));
    }
}
