//! Models of two encoders: one for queries and one for passages, with weights of their own.
//!
//! Such a model is a folder with [`QUERY_MODEL`] and [`PASSAGE_MODEL`], each a whole sentence-transformers folder: the layout in
//! which Tevatron writes untied encoders (`--untie_encoder`).

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The folder of the encoder of queries.
pub const QUERY_MODEL: &str = "query_model";
/// The folder of the encoder of passages.
pub const PASSAGE_MODEL: &str = "passage_model";

/// The folders of the encoders of queries and of passages in a model's; none if one encoder takes both.
///
/// # Errors
/// There is only one of the two.
pub fn encoders(folder: &Path) -> Result<Option<[PathBuf; 2]>> {
    let folders = [QUERY_MODEL, PASSAGE_MODEL].map(|name| folder.join(name));
    match [folders[0].is_dir(), folders[1].is_dir()] {
        [true, true] => Ok(Some(folders)),
        [false, false] => Ok(None),
        [has_queries, _] => {
            let (there, missing) =
                if has_queries { (QUERY_MODEL, PASSAGE_MODEL) } else { (PASSAGE_MODEL, QUERY_MODEL) };
            Err(Error::file(folder, format!("expected {missing} beside {there}, as a model of two encoders has it")))
        }
    }
}

/// A folder of a model that has one encoder alone: that of queries where there are two.
///
/// # Errors
/// As those of [`encoders`].
pub fn first_encoder(folder: &Path) -> Result<PathBuf> {
    Ok(encoders(folder)?.map_or_else(|| folder.to_path_buf(), |[queries, _]| queries))
}

/// Refuses two encoders whose vectors cannot be compared.
pub(crate) fn check_dimensions(folder: &Path, [queries, passages]: [usize; 2]) -> Result<()> {
    if queries == passages {
        return Ok(());
    }
    let what = format!("{}: vectors of passages, as those of queries", folder.display());
    Err(Error::shape(what, format!("length {queries}"), format!("length {passages}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_folders_make_a_model_of_two_encoders_and_one_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(encoders(folder.path()).unwrap(), None);
        assert_eq!(first_encoder(folder.path()).unwrap(), folder.path());
        std::fs::create_dir(folder.path().join(PASSAGE_MODEL)).unwrap();
        let message = encoders(folder.path()).unwrap_err().to_string();
        assert!(message.contains("expected query_model beside passage_model"), "{message}");
        std::fs::create_dir(folder.path().join(QUERY_MODEL)).unwrap();
        let [queries, passages] = encoders(folder.path()).unwrap().unwrap();
        assert!(queries.ends_with(QUERY_MODEL) && passages.ends_with(PASSAGE_MODEL));
        assert_eq!(first_encoder(folder.path()).unwrap(), queries);
    }
}
