//! Words of Japanese in their base forms, by a dictionary in `MeCab`'s format, IPADIC.
//!
//! Source: Lucene, `JapaneseAnalyzer` (search mode). Its way of taking long compounds apart, a second search under a penalty
//! for their length, is a penalty in the dictionary here, so that words are near to Lucene's, not always the same.

use std::borrow::Cow;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use encoding_rs::EUC_JP;
use icu_properties::CodePointMapData;
use icu_properties::props::{GeneralCategory, GeneralCategoryGroup, Script};
use vibrato::{SystemDictionaryBuilder, Tokenizer};

use super::characters;
use crate::artefact::entries;
use crate::error::{Error, Result};

/// Characters of a text that are read at a time; a longer one is cut.
const LONGEST: usize = 10_000;
/// Parts of speech that are left out. Source: Lucene 9.9, `stoptags.txt`.
const LEFT_OUT: &[&str] = &[
    "接続詞",
    "助詞",
    "助詞-格助詞",
    "助詞-格助詞-一般",
    "助詞-格助詞-引用",
    "助詞-格助詞-連語",
    "助詞-接続助詞",
    "助詞-係助詞",
    "助詞-副助詞",
    "助詞-間投助詞",
    "助詞-並立助詞",
    "助詞-終助詞",
    "助詞-副助詞／並立助詞／終助詞",
    "助詞-連体化",
    "助詞-副詞化",
    "助詞-特殊",
    "助動詞",
    "記号",
    "記号-一般",
    "記号-読点",
    "記号-句点",
    "記号-空白",
    "記号-括弧開",
    "記号-括弧閉",
    "その他-間投",
    "フィラー",
    "非言語音",
];

/// A dictionary that is ready for use; copies share it.
#[derive(Clone)]
pub struct JapaneseDictionary(Arc<Tokenizer>);

impl std::fmt::Debug for JapaneseDictionary {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("JapaneseDictionary")
    }
}

impl PartialEq for JapaneseDictionary {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for JapaneseDictionary {}

impl JapaneseDictionary {
    /// The dictionary whose files lie in a folder: `*.csv`, `matrix.def`, `char.def` and `unk.def`, in UTF-8 or EUC-JP.
    ///
    /// # Errors
    /// A file is missing or in another form.
    pub fn compile(folder: &Path) -> Result<Self> {
        let mut lexicon = String::new();
        for path in lexicon_files(folder)? {
            let text = read(&path)?;
            text.lines().for_each(|line| penalise(line, &mut lexicon));
        }
        let [matrix, characters, unknown] = ["matrix.def", "char.def", "unk.def"].map(|name| read(&folder.join(name)));
        let (matrix, characters, unknown) = (matrix?, characters?, unknown?);
        let dictionary = SystemDictionaryBuilder::from_readers(
            lexicon.as_bytes(),
            matrix.as_bytes(),
            characters.as_bytes(),
            unknown.as_bytes(),
        );
        let dictionary = dictionary.map_err(|error| Error::file(folder, error.to_string()))?;
        Ok(Self(Arc::new(Tokenizer::new(dictionary))))
    }

    /// A key of the files that [`compile`](Self::compile) would read.
    pub fn key(folder: &Path) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        let definitions = ["matrix.def", "char.def", "unk.def"].map(|name| folder.join(name));
        for path in lexicon_files(folder)?.into_iter().chain(definitions) {
            let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
            hasher.update(&(bytes.len() as u64).to_le_bytes()).update(&bytes);
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// Writes it so that [`read`](Self::read) has it without compiling; `path` is named in errors.
    pub fn write(&self, output: &mut impl Write, path: &Path) -> Result<()> {
        self.0.dictionary().write(output).map(drop).map_err(|error| Error::file(path, error.to_string()))
    }

    /// Reads what [`write`](Self::write) wrote.
    pub fn read(path: &Path) -> Result<Self> {
        let file = std::fs::File::open(path).map_err(Error::io(path))?;
        let dictionary = vibrato::Dictionary::read(std::io::BufReader::new(file));
        let dictionary = dictionary.map_err(|error| Error::file(path, format!("{error}; index the data set again")))?;
        Ok(Self(Arc::new(Tokenizer::new(dictionary))))
    }

    /// Calls `visit` with the base form of every word that is neither a sign nor of a part of speech that is left out.
    pub(super) fn words(&self, text: &str, visit: &mut dyn FnMut(&str)) {
        let mut letters: Vec<char> = text.chars().collect();
        characters::width(&mut letters);
        let mut worker = self.0.new_worker();
        for letters in letters.chunks(LONGEST) {
            worker.reset_sentence(letters.iter().collect::<String>());
            worker.tokenize();
            for token in worker.token_iter() {
                let fields: Vec<&str> = token.feature().split(',').collect();
                if !token.surface().starts_with(is_sign) && !is_left_out(&fields) {
                    let base = fields.get(6).filter(|base| **base != "*").copied();
                    visit(base.unwrap_or(token.surface()));
                }
            }
        }
    }
}

fn lexicon_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = entries(folder)?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "csv"));
    if files.is_empty() {
        let message = "no *.csv; expected the folder of IPADIC's sources, such as Debian's /usr/share/mecab/dic/ipadic";
        return Err(Error::file(folder, message));
    }
    Ok(files)
}

fn read(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) => match EUC_JP.decode_without_bom_handling_and_without_replacement(error.as_bytes()) {
            Some(text) => Ok(text.into_owned()),
            None => Err(Error::file(path, "expected UTF-8 or EUC-JP")),
        },
    }
}

/// Appends a line of the lexicon, its cost raised by the penalty for long words.
fn penalise(line: &str, lexicon: &mut String) {
    let fields: Vec<&str> = line.splitn(5, ',').collect();
    let line = match fields[..] {
        [surface, left, right, cost, rest] if !surface.starts_with('"') && penalty(surface) > 0 => {
            let cost = cost.parse::<i32>().unwrap_or_default() + penalty(surface);
            Cow::Owned(format!("{surface},{left},{right},{},{rest}", cost.min(i32::from(i16::MAX))))
        }
        _ => Cow::Borrowed(line),
    };
    lexicon.push_str(&line);
    lexicon.push('\n');
}

/// Source: Lucene, `JapaneseTokenizer`: 3000 for each ideograph above two, or 1700 for each other character above seven.
fn penalty(surface: &str) -> i32 {
    let length = surface.chars().count() as i32;
    let is_han = |character| CodePointMapData::<Script>::new().get(character) == Script::Han;
    if surface.chars().all(is_han) { 3000 * (length - 2).max(0) } else { 1700 * (length - 7).max(0) }
}

/// White space, punctuation and symbols, as Lucene's tokenizer drops them.
fn is_sign(character: char) -> bool {
    let category = CodePointMapData::<GeneralCategory>::new().get(character);
    let groups = [GeneralCategoryGroup::Punctuation, GeneralCategoryGroup::Symbol, GeneralCategoryGroup::Separator];
    groups.iter().any(|group| group.contains(category))
        || matches!(category, GeneralCategory::Control | GeneralCategory::Format)
}

fn is_left_out(fields: &[&str]) -> bool {
    let parts: Vec<&str> = fields.iter().take(4).copied().filter(|part| *part != "*").collect();
    LEFT_OUT.contains(&parts.join("-").as_str())
}

/// Takes the prolonged sound mark off the end of katakana words of four letters and more. Source: Lucene,
/// `JapaneseKatakanaStemFilter`.
pub(super) fn stem_katakana(term: &mut Vec<char>) {
    let is_katakana = |character: &char| ('\u{30A0}'..='\u{30FF}').contains(character);
    if term.len() >= 4 && term.last() == Some(&'ー') && term.iter().all(is_katakana) {
        term.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_words_cost_more() {
        let mut lexicon = String::new();
        penalise("関西国際空港,1288,1288,1000,名詞,固有名詞,組織,*,*,*,関西国際空港,x,x", &mut lexicon);
        penalise("空港,1285,1285,5000,名詞,一般,*,*,*,*,空港,x,x", &mut lexicon);
        penalise("シニアソフトウェアエンジニア,1,1,32000,x", &mut lexicon);
        let costs: Vec<&str> = lexicon.lines().map(|line| line.split(',').nth(3).unwrap()).collect();
        assert_eq!(costs, ["13000", "5000", "32767"]);
    }

    #[test]
    fn katakana_lose_their_last_mark() {
        let stem = |word: &str| {
            let mut letters = word.chars().collect();
            stem_katakana(&mut letters);
            letters.into_iter().collect::<String>()
        };
        assert_eq!(["コピー", "サーバー", "らーめー"].map(stem), ["コピー", "サーバ", "らーめー"]);
    }

    #[test]
    fn a_folder_without_a_dictionary_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let message = JapaneseDictionary::compile(folder.path()).unwrap_err().to_string();
        assert!(message.contains("no *.csv"), "{message}");
    }

    /// A dictionary of four words; costs are such that the whole is one word but for the penalty.
    #[test]
    fn compounds_are_taken_apart_and_verbs_have_their_base_form() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let words = [
            "国際空港,0,0,100,名詞,一般,*,*,*,*,国際空港,x,x",
            "国際,0,0,200,名詞,一般,*,*,*,*,国際,x,x",
            "空港,0,0,200,名詞,一般,*,*,*,*,空港,x,x",
            "に,0,0,10,助詞,格助詞,一般,*,*,*,に,x,x",
            "着い,0,0,100,動詞,自立,*,*,五段,連用,着く,x,x",
        ];
        write("words.csv", &words.join("\n"));
        write("matrix.def", "1 1\n0 0 0\n");
        write("char.def", "DEFAULT 0 1 0\nSPACE 0 1 0\n0x0020 SPACE\n");
        write("unk.def", "DEFAULT,0,0,9000,名詞,一般,*,*,*,*,*\nSPACE,0,0,9000,記号,空白,*,*,*,*,*\n");
        let dictionary = JapaneseDictionary::compile(folder.path()).unwrap();
        let path = folder.path().join("words.dic");
        dictionary.write(&mut std::fs::File::create(&path).unwrap(), &path).unwrap();
        for dictionary in [dictionary, JapaneseDictionary::read(&path).unwrap()] {
            let mut found = Vec::new();
            dictionary.words("国際空港に、 着いｘ", &mut |word| found.push(word.to_owned()));
            assert_eq!(found, ["国際", "空港", "着く", "x"]);
        }
        assert_eq!(JapaneseDictionary::key(folder.path()).unwrap().len(), 64);
    }
}
