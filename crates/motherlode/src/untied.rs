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

/// The folders of a model's encoders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoders {
    /// Of queries, and of passages where these have none of their own.
    pub queries: PathBuf,
    /// Of passages, where they have one of their own.
    pub passages: Option<PathBuf>,
}

/// The folders of the encoders of the model in `folder`, which is that of the encoder itself where there is one.
///
/// # Errors
/// There is only one of the folders for two.
pub fn encoders(folder: &Path) -> Result<Encoders> {
    let [queries, passages] = [QUERY_MODEL, PASSAGE_MODEL].map(|name| folder.join(name));
    match [queries.is_dir(), passages.is_dir()] {
        [true, true] => Ok(Encoders { queries, passages: Some(passages) }),
        [false, false] => Ok(Encoders { queries: folder.to_path_buf(), passages: None }),
        [has_queries, _] => {
            let (there, missing) =
                if has_queries { (QUERY_MODEL, PASSAGE_MODEL) } else { (PASSAGE_MODEL, QUERY_MODEL) };
            Err(Error::file(folder, format!("expected {missing} beside {there}, as a model of two encoders has it")))
        }
    }
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
        assert_eq!(encoders(folder.path()).unwrap().passages, None);
        assert_eq!(encoders(folder.path()).unwrap().queries, folder.path());
        std::fs::create_dir(folder.path().join(PASSAGE_MODEL)).unwrap();
        let message = encoders(folder.path()).unwrap_err().to_string();
        assert!(message.contains("expected query_model beside passage_model"), "{message}");
        std::fs::create_dir(folder.path().join(QUERY_MODEL)).unwrap();
        let Encoders { queries, passages } = encoders(folder.path()).unwrap();
        assert!(queries.ends_with(QUERY_MODEL) && passages.unwrap().ends_with(PASSAGE_MODEL));
    }
}
