use super::*;

/// A file with these settings, each as its type and bytes, and no tensors.
fn file(settings: &[(&str, u32, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3_u32.to_le_bytes());
    bytes.extend(0_u64.to_le_bytes());
    bytes.extend((settings.len() as u64).to_le_bytes());
    for (name, kind, value) in settings {
        bytes.extend(text(name));
        bytes.extend(kind.to_le_bytes());
        bytes.extend(value);
    }
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

fn open(bytes: &[u8]) -> Result<Gguf> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    Gguf::open(&path)
}

fn refused(bytes: &[u8]) -> String {
    open(bytes).unwrap_err().to_string()
}

#[test]
fn settings_of_every_type_are_read() {
    let list = [&8_u32.to_le_bytes()[..], &2_u64.to_le_bytes(), &text("a"), &text("ü")].concat();
    let file = open(&file(&[
        ("byte", 1, vec![0xff]),
        ("wide", 10, 7_u64.to_le_bytes().into()),
        ("share", 6, 0.5_f32.to_le_bytes().into()),
        ("double", 12, 0.25_f64.to_le_bytes().into()),
        ("flag", 7, vec![1]),
        ("name", 8, text("x")),
        ("list", 9, list),
    ]))
    .unwrap();
    assert_eq!(file.setting("byte"), Some(&Setting::Whole(-1)));
    assert_eq!((file.whole("wide").unwrap(), file.whole("absent").unwrap()), (Some(7), None));
    assert_eq!((file.float("share").unwrap(), file.float("double").unwrap()), (Some(0.5), Some(0.25)));
    assert_eq!((file.flag("flag").unwrap(), file.text("name").unwrap()), (Some(true), Some("x")));
    assert_eq!(file.texts("list").unwrap(), ["a", "ü"]);
    let error = file.whole("byte").unwrap_err().to_string();
    assert!(error.contains("setting `byte`: expected a whole number"), "{error}");
    assert!(file.texts("absent").unwrap_err().to_string().contains("expected a setting `absent`"));
}

#[test]
fn damaged_files_are_refused() {
    let whole = file(&[("name", 8, text("value"))]);
    for length in 0..whole.len() {
        assert!(open(&whole[..length]).is_err(), "{length} bytes");
    }
    assert!(refused(b"GGML").contains("expected a GGUF file"));
    let mut other = whole.clone();
    other[4] = 1;
    assert!(refused(&other).contains("version 2 or 3, got 1"));
    assert!(refused(&file(&[("name", 99, vec![])])).contains("unknown type 99"));
    assert!(refused(&file(&[("general.alignment", 4, vec![0; 4])])).contains("general.alignment"));
    let mut lists = vec![];
    (0..10).for_each(|_| lists.extend([&9_u32.to_le_bytes()[..], &1_u64.to_le_bytes()].concat()));
    assert!(refused(&file(&[("deep", 9, lists)])).contains("unknown type 9"));
    let mut huge = whole;
    huge[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(refused(&huge).contains("damaged"));
}

/// The first, a middle and the last value, and the sum, of one block of bytes (place · 89 + 7) mod 256, whose scales in
/// half precision are 0.5 and 0.25.
///
/// Golden: gguf 0.19 (Python 3.11), `gguf.quants.dequantize(block, gguf.GGMLQuantizationType.NAME)` with
/// `block = (numpy.arange(bytes) * 89 + 7).astype(numpy.uint8)` and the scales put at `places`.
const GOLDEN: &[(u32, &[usize], [f32; 4])] = &[
    (2, &[0], [0.5, -3.5, 3.5, -5.5]),
    (3, &[0, 2], [5.75, 6.25, 5.25, 131.5]),
    (8, &[0], [-35.5, -47.0, -64.0, -56.0]),
    (12, &[0, 2], [146.75, -12.75, 152.25, 27148.0]),
    (13, &[0, 2], [490.75, 139.25, 182.25, 58060.0]),
    (14, &[208], [-655.5, 1808.0, 14.0, 5414.0]),
];

#[test]
fn blocks_agree_with_ggml() {
    for (kind, places, expected) in GOLDEN {
        let quantisation = Quantisation::of(*kind).unwrap();
        let values = quantisation.block();
        let mut bytes: Vec<u8> = (0..quantisation.bytes(values)).map(|place| (place * 89 + 7) as u8).collect();
        for (place, scale) in places.iter().zip([0.5, 0.25]) {
            bytes[*place..place + 2].copy_from_slice(&half::f16::from_f32(scale).to_le_bytes());
        }
        let mut out = vec![0.0; values];
        quantisation.read(&bytes, &mut out);
        let found = [out[0], out[values / 2 + 1], out[values - 1], out.iter().sum()];
        assert_eq!(found.map(f32::to_bits), expected.map(f32::to_bits), "{quantisation:?}");
    }
}

/// What `tests/golden/sentence_pieces.py` wrote.
#[derive(serde::Deserialize)]
struct SentencePieces {
    tokens: Vec<String>,
    scores: Vec<f32>,
    types: Vec<i32>,
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
}

impl SentencePieces {
    /// The settings of a file with this tokenizer.
    fn settings(&self) -> [(&'static str, u32, Vec<u8>); 4] {
        let list = |kind: u32, items: Vec<u8>| {
            [&kind.to_le_bytes()[..], &(self.tokens.len() as u64).to_le_bytes(), &items].concat()
        };
        [
            ("tokenizer.ggml.model", 8, text("llama")),
            ("tokenizer.ggml.tokens", 9, list(8, self.tokens.iter().flat_map(|token| text(token)).collect())),
            ("tokenizer.ggml.scores", 9, list(6, self.scores.iter().flat_map(|score| score.to_le_bytes()).collect())),
            ("tokenizer.ggml.token_type", 9, list(5, self.types.iter().flat_map(|kind| kind.to_le_bytes()).collect())),
        ]
    }
}

#[test]
fn sentence_pieces_are_those_of_the_tool_that_made_them() {
    let golden: SentencePieces =
        serde_json::from_str(include_str!("../../../../tests/golden/sentence_pieces.json")).unwrap();
    let opened = open(&file(&golden.settings())).unwrap();
    let tokenizer = tokenizer::tokenizer(&opened).unwrap().to_string();
    let tokenizer = tokenizers::Tokenizer::from_bytes(tokenizer).unwrap();
    for Case { text, ids } in &golden.cases {
        let found = tokenizer.encode(text.as_str(), false).unwrap();
        assert_eq!(found.get_ids(), ids, "{text}");
        assert_eq!(tokenizer.decode(ids, true).unwrap(), *text);
    }
    // Special tokens are found in a text, and what follows them begins anew.
    let [start, apples] = ["<s>", "apples"].map(|text| tokenizer.encode(text, false).unwrap().get_ids().to_vec());
    assert_eq!(tokenizer.encode("<s>apples", false).unwrap().get_ids(), [start, apples].concat());
}

#[test]
fn sentence_pieces_without_their_scores_are_refused() {
    let golden: SentencePieces =
        serde_json::from_str(include_str!("../../../../tests/golden/sentence_pieces.json")).unwrap();
    let [model, tokens, mut scores, types] = golden.settings();
    let wrong = |settings: &[_]| tokenizer::tokenizer(&open(&file(settings)).unwrap()).unwrap_err().to_string();
    assert!(wrong(&[model.clone(), tokens.clone(), types.clone()]).contains("`tokenizer.ggml.scores`"));
    scores.2 = [&6_u32.to_le_bytes()[..], &1_u64.to_le_bytes(), &1_f32.to_le_bytes()].concat();
    let error = wrong(&[model, tokens, scores, types]);
    assert!(error.contains("a score and a type for each of 1600 tokens, got 1 and 1600"), "{error}");
    assert!(wrong(&[("tokenizer.ggml.model", 8, text("t5"))]).contains("byte pairs"));
}
