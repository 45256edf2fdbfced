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
