//! The model hub: downloads the files of a repository into the cache that its other clients use, too.
//!
//! Honours `HF_ENDPOINT`, `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN` (or the token file that a login leaves), and
//! `HF_HUB_OFFLINE`. An interrupted download goes on where it stopped; a file counts as there only when it has the size
//! that the hub names and, for large files, the SHA-256 by which the hub stores them.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use hf_hub::api::RepoInfo;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use crate::error::{Error, Result};
use crate::progress::Progress;

/// How often a download is tried.
const ATTEMPTS: u32 = 4;

/// A repository on the hub.
#[derive(Debug, Clone)]
pub(super) struct Repository {
    /// `OWNER/NAME`.
    pub(super) name: String,
    /// Model or data set.
    pub(super) kind: RepoType,
    /// Branch, tag or commit.
    pub(super) revision: String,
}

/// The files of a repository that were asked for, all of them there.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// The folder that holds them under their names.
    pub(super) folder: PathBuf,
    /// Names with `/`, in ascending order: those that were asked for.
    pub(super) files: Vec<String>,
    /// All names of the repository as far as they are known, asked for or not.
    pub(super) listing: Vec<String>,
}

/// Why there is no snapshot.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nobody answers.
    Unreachable(String),
    /// `HF_HUB_OFFLINE` is set and the cache does not have the repository.
    NotCached(String),
    /// The hub answered, but not with the files.
    Refused(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(error) => error,
            Failure::Unreachable(message) => {
                let remedy = "check the network, set HF_ENDPOINT to a mirror, or name a folder";
                Self::remote("model hub", format!("it cannot be reached ({message}); {remedy}"))
            }
            Failure::NotCached(name) => {
                let remedy = "unset it, or download the repository where there is a network";
                Self::remote("model hub", format!("HF_HUB_OFFLINE is set and `{name}` is not in the cache; {remedy}"))
            }
        }
    }
}

type Fetched<T> = std::result::Result<T, Failure>;

/// Where the hub is, and who asks.
#[derive(Debug, Clone)]
pub(super) struct Hub {
    pub(super) endpoint: String,
    pub(super) cache: PathBuf,
    pub(super) token: Option<String>,
    pub(super) offline: bool,
    /// Before the second attempt; doubled before each further one.
    pub(super) pause: Duration,
}

impl Hub {
    /// As the environment variables of the hub's own client say.
    pub(super) fn from_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let home = variable("HF_HOME").map_or_else(
            || variable("HOME").map_or_else(PathBuf::new, PathBuf::from).join(".cache/huggingface"),
            PathBuf::from,
        );
        let token_file = variable("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
        let saved = || fs::read_to_string(token_file).ok().map(|text| text.trim().to_owned());
        Self {
            endpoint: variable("HF_ENDPOINT")
                .map_or_else(|| "https://huggingface.co".into(), |url| url.trim_end_matches('/').to_owned()),
            cache: variable("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from),
            token: variable("HF_TOKEN").or_else(saved).filter(|token| !token.is_empty()),
            offline: variable("HF_HUB_OFFLINE").is_some_and(|value| is_true(&value)),
            pause: Duration::from_secs(1),
        }
    }

    /// Downloads every file whose name `wanted` accepts, unless it is in the cache.
    pub(super) fn snapshot(
        &self,
        repository: &Repository,
        wanted: impl Fn(&str) -> bool,
        progress: &Progress<'_>,
    ) -> Fetched<Snapshot> {
        if self.offline {
            return self.cached(repository, wanted);
        }
        let api = self.api()?;
        let info = self.info(&api, repository)?;
        let mut listing: Vec<String> = info.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        listing.sort();
        let files: Vec<String> = listing.iter().filter(|name| is_plain(name) && wanted(name)).cloned().collect();
        let pinned = Repository { revision: info.sha.clone(), ..repository.clone() };
        let remote = api.repo(pinned.repo());
        for (place, file) in files.iter().enumerate() {
            progress.say(&format!("{}: {file} ({} of {})", repository.name, place + 1, files.len()));
            Download { hub: self, repository: &pinned, remote: &remote, progress }.file(file)?;
        }
        // What a later offline run looks up: the branch's commit. Written last, so that it names a whole snapshot.
        let cache = Cache::new(self.cache.clone()).repo(repository.repo());
        cache.create_ref(&info.sha).map_err(Error::io(&self.cache))?;
        Ok(Snapshot { folder: cache.pointer_path(&info.sha), files, listing })
    }

    fn api(&self) -> Result<Api> {
        ApiBuilder::from_cache(Cache::new(self.cache.clone()))
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.clone())
            .with_progress(false)
            .build()
            .map_err(|error| Error::remote(&self.endpoint, error.to_string()))
    }

    /// Commit and file names; also the place where an unreachable hub is noticed, within seconds.
    fn info(&self, api: &Api, repository: &Repository) -> Fetched<RepoInfo> {
        let request = api.repo(repository.repo()).info_request();
        let request = request.config().timeout_connect(Some(Duration::from_secs(10)));
        let answer = request.timeout_recv_response(Some(Duration::from_mins(1))).build().call();
        let mut answer = answer.map_err(|error| self.explain(&error, repository))?;
        answer.body_mut().read_json().map_err(|error| {
            let message = format!("expected a description of `{}`: {error}", repository.name);
            Failure::Refused(Error::remote(&self.endpoint, message))
        })
    }

    /// What is in the cache, without asking anybody.
    fn cached(&self, repository: &Repository, wanted: impl Fn(&str) -> bool) -> Fetched<Snapshot> {
        let missing = || Failure::NotCached(repository.name.clone());
        let reference = self.folder(repository).join("refs").join(&repository.revision);
        let commit = fs::read_to_string(reference).unwrap_or_else(|_| repository.revision.clone());
        let folder = self.folder(repository).join("snapshots").join(commit.trim());
        if !folder.is_dir() {
            return Err(missing());
        }
        let mut listing = Vec::new();
        list(&folder, "", &mut listing)?;
        listing.sort();
        let files: Vec<String> = listing.iter().filter(|name| wanted(name)).cloned().collect();
        for file in &files {
            verify_digest(&folder.join(file)).map_err(|message| Error::file(folder.join(file), message))?;
        }
        if files.is_empty() { Err(missing()) } else { Ok(Snapshot { folder, files, listing }) }
    }

    fn folder(&self, repository: &Repository) -> PathBuf {
        self.cache.join(repository.repo().folder_name())
    }

    fn page(&self, repository: &Repository) -> String {
        format!("{}/{}", self.endpoint, repository.repo().url())
    }

    fn explain(&self, error: &ureq::Error, repository: &Repository) -> Failure {
        let page = self.page(repository);
        let refused = |message: String| Failure::Refused(Error::remote(&page, message));
        match error {
            ureq::Error::StatusCode(code @ (401 | 403)) => refused(format!(
                "access refused (status {code}); the repository is gated, private, or not there: open the page while \
                 logged in, accept its licence, make a token at {}/settings/tokens, and set HF_TOKEN",
                self.endpoint
            )),
            ureq::Error::StatusCode(404) => refused(format!(
                "no such repository, revision `{}` or file; check the name, and set HF_TOKEN for a private one",
                repository.revision
            )),
            ureq::Error::StatusCode(code) => refused(format!("the hub answered with status {code}; try again later")),
            other => Failure::Unreachable(other.to_string()),
        }
    }
}

impl Repository {
    fn repo(&self) -> Repo {
        Repo::with_revision(self.name.clone(), self.kind, self.revision.clone())
    }
}

/// One file on its way.
struct Download<'a> {
    hub: &'a Hub,
    repository: &'a Repository,
    remote: &'a ApiRepo,
    progress: &'a Progress<'a>,
}

impl Download<'_> {
    fn file(&self, file: &str) -> Fetched<()> {
        let cache = Cache::new(self.hub.cache.clone()).repo(self.repository.repo());
        if let Some(path) = cache.get(file) {
            if verify_digest(&path).is_ok() {
                return Ok(());
            }
            remove(&path);
        }
        for attempt in 1.. {
            let failure = match self.attempt(file) {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            if attempt == ATTEMPTS || matches!(failure, Failure::Refused(_)) {
                return Err(failure);
            }
            std::thread::sleep(self.hub.pause * 2_u32.pow(attempt - 1));
        }
        unreachable!("the last attempt returns")
    }

    /// Failures that are worth another attempt are `Unreachable`.
    fn attempt(&self, file: &str) -> Fetched<()> {
        let size = Rc::new(Cell::new(0));
        let meter = Meter { progress: self.progress, size: Rc::clone(&size) };
        match self.remote.download_with_progress(file, meter) {
            Ok(path) => match verify(&path, size.get()) {
                Ok(()) => Ok(()),
                Err(message) => {
                    remove(&path);
                    Err(Failure::Unreachable(format!("{file}: {message}")))
                }
            },
            Err(error) => Err(self.failure(file, error)),
        }
    }

    fn failure(&self, file: &str, error: ApiError) -> Failure {
        match error {
            ApiError::RequestError(error) if matches!(*error, ureq::Error::StatusCode(416)) => self.restart(file),
            ApiError::InvalidResume => self.restart(file),
            ApiError::RequestError(error) => match *error {
                ureq::Error::StatusCode(429 | 500..) => Failure::Unreachable(format!("{file}: {error}")),
                error => self.hub.explain(&error, self.repository),
            },
            ApiError::LockAcquisition(path) => {
                Failure::Refused(Error::file(path, format!("another process is downloading {file}; wait for it")))
            }
            ApiError::IoError(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                Failure::Refused(Error::io(&self.hub.cache)(error))
            }
            other => Failure::Unreachable(format!("{file}: {other}")),
        }
    }

    /// The half file in the cache does not continue to a whole one: it is thrown away.
    fn restart(&self, file: &str) -> Failure {
        let blobs = self.hub.folder(self.repository).join("blobs");
        for entry in fs::read_dir(&blobs).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "part") {
                remove(&entry.path());
            }
        }
        Failure::Unreachable(format!("{file}: the half file in the cache did not fit"))
    }
}

/// Tells the progress of a download, and remembers the size that the hub names.
struct Meter<'a> {
    progress: &'a Progress<'a>,
    size: Rc<Cell<u64>>,
}

impl hf_hub::api::Progress for Meter<'_> {
    fn init(&mut self, size: usize, filename: &str) {
        self.size.set(size as u64);
        self.progress.begin(&format!("download {filename}"), size, "bytes");
    }

    fn update(&mut self, size: usize) {
        self.progress.advance(size);
    }

    fn finish(&mut self) {}
}

fn is_true(value: &str) -> bool {
    ["1", "true", "yes", "on"].contains(&value.trim().to_lowercase().as_str())
}

/// A name that stays inside its folder.
fn is_plain(name: &str) -> bool {
    !name.starts_with('/') && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

fn list(folder: &Path, prefix: &str, names: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            list(&entry.path(), &format!("{name}/"), names)?;
        } else if entry.path().exists() {
            names.push(name);
        }
    }
    Ok(())
}

/// Whether a downloaded file has the size that the hub named, and its digest where its name in the cache is one.
fn verify(path: &Path, size: u64) -> std::result::Result<(), String> {
    let found = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if found != size {
        return Err(format!("expected {size} bytes, got {found}"));
    }
    verify_digest(path)
}

/// Large files lie in the cache under their SHA-256.
fn verify_digest(path: &Path) -> std::result::Result<(), String> {
    let blob = fs::canonicalize(path).map_err(|error| error.to_string())?;
    let name = blob.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if name.len() != 64 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    let found = super::mirror::sha256_of(&blob).map_err(|error| error.to_string())?;
    if found == name { Ok(()) } else { Err(format!("expected SHA-256 {name}, got {found}; remove it and try again")) }
}

/// Removes a file, and what it points to.
fn remove(path: &Path) {
    if let Ok(blob) = fs::canonicalize(path) {
        fs::remove_file(blob).ok();
    }
    fs::remove_file(path).ok();
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::corpus::Language;
    use crate::fetch::DatasetConfig;
    use crate::fetch::dataset::dataset_from;
    use crate::fetch::standin::{COMMIT, StandIn};
    use crate::progress::Watcher;

    const NAME: &str = "owner/name";

    fn repository() -> Repository {
        Repository { name: NAME.into(), kind: RepoType::Model, revision: "main".into() }
    }

    /// A server with one large and one small file.
    fn server() -> StandIn {
        let server = StandIn::start();
        server.add("models/owner/name", "weights.bin", content());
        server.add("models/owner/name", "sub/config.json", "{}");
        server
    }

    fn content() -> Vec<u8> {
        (0..200_000_u32).flat_map(u32::to_le_bytes).collect()
    }

    fn fetch(hub: &Hub) -> Fetched<Snapshot> {
        hub.snapshot(&repository(), |_| true, &Progress::silent())
    }

    fn assert_whole(snapshot: &Snapshot) {
        assert_eq!(snapshot.files, ["sub/config.json", "weights.bin"]);
        assert!(fs::read(snapshot.folder.join("weights.bin")).unwrap() == content());
        assert_eq!(fs::read(snapshot.folder.join("sub/config.json")).unwrap(), b"{}");
    }

    #[test]
    fn files_arrive_once_and_are_there_offline() {
        let (server, folder) = (server(), tempfile::tempdir().unwrap());
        let hub = server.hub(folder.path());
        assert_whole(&fetch(&hub).unwrap());
        assert_eq!(server.requests().len(), 3);
        assert_whole(&fetch(&hub).unwrap());
        assert_eq!(server.requests().len(), 1, "only the listing is asked for again");
        let offline = Hub { offline: true, endpoint: "http://127.0.0.1:1".into(), ..hub };
        assert_whole(&fetch(&offline).unwrap());
        assert!(server.requests().is_empty());
        let other = Repository { revision: COMMIT.into(), ..repository() };
        assert_whole(&offline.snapshot(&other, |_| true, &Progress::silent()).unwrap());
        let other = Repository { name: "owner/other".into(), ..repository() };
        let failure = offline.snapshot(&other, |_| true, &Progress::silent()).unwrap_err();
        assert!(matches!(failure, Failure::NotCached(_)));
    }

    #[test]
    fn an_interrupted_download_goes_on_where_it_stopped() {
        let (server, folder) = (server(), tempfile::tempdir().unwrap());
        server.cut(300_000, 1);
        assert_whole(&fetch(&server.hub(folder.path())).unwrap());
        let requests = server.requests();
        assert!(requests.iter().any(|request| request.ends_with("weights.bin bytes=300000-")), "{requests:?}");
    }

    #[test]
    fn a_download_that_never_ends_leaves_no_file_and_goes_on_in_the_next_run() {
        let (server, folder) = (server(), tempfile::tempdir().unwrap());
        let hub = server.hub(folder.path());
        server.cut(100_000, ATTEMPTS);
        assert!(matches!(fetch(&hub).unwrap_err(), Failure::Unreachable(_)));
        let offline = Hub { offline: true, ..hub.clone() };
        assert!(matches!(fetch(&offline).unwrap_err(), Failure::NotCached(_)), "a half snapshot is none");
        server.requests();
        assert_whole(&fetch(&hub).unwrap());
        assert!(server.requests().iter().any(|request| request.ends_with("weights.bin bytes=400000-")));
    }

    #[test]
    fn a_server_that_ignores_ranges_does_not_spoil_the_file() {
        let (server, folder) = (server(), tempfile::tempdir().unwrap());
        server.ignore_ranges();
        server.cut(300_000, 1);
        assert_whole(&fetch(&server.hub(folder.path())).unwrap());
    }

    #[test]
    fn half_files_that_do_not_fit_are_thrown_away() {
        for length in [content().len(), content().len() + 9, 7] {
            let (server, folder) = (server(), tempfile::tempdir().unwrap());
            let hub = server.hub(folder.path());
            fetch(&hub).unwrap();
            let blobs = hub.folder(&repository()).join("blobs");
            let blob = fs::canonicalize(hub.folder(&repository()).join("snapshots").join(COMMIT).join("weights.bin"));
            let blob = blob.unwrap();
            fs::remove_file(&blob).unwrap();
            fs::remove_dir_all(hub.folder(&repository()).join("snapshots")).unwrap();
            fs::write(blob.with_extension("part"), vec![7; length]).unwrap();
            assert_whole(&fetch(&hub).unwrap());
            assert_eq!(
                fs::read_dir(blobs)
                    .unwrap()
                    .flatten()
                    .filter(|e| e.path().extension().is_some_and(|x| x == "part"))
                    .count(),
                0
            );
        }
    }

    #[test]
    fn a_damaged_file_of_the_cache_is_fetched_again() {
        let (server, folder) = (server(), tempfile::tempdir().unwrap());
        let hub = server.hub(folder.path());
        let path = fetch(&hub).unwrap().folder.join("weights.bin");
        fs::write(fs::canonicalize(path).unwrap(), "half").unwrap();
        let offline = fetch(&Hub { offline: true, ..hub.clone() }).unwrap_err();
        assert!(Error::from(offline).to_string().contains("expected SHA-256"));
        assert_whole(&fetch(&hub).unwrap());
    }

    #[test]
    fn a_gated_repository_says_what_to_do_and_never_shows_the_token() {
        let (server, folder) = (server(), tempfile::tempdir().unwrap());
        server.require_token("secret-right");
        let hub = Hub { token: Some("secret-wrong".into()), ..server.hub(folder.path()) };
        let message = Error::from(fetch(&hub).unwrap_err()).to_string();
        for part in ["owner/name", "licence", "/settings/tokens", "HF_TOKEN", "401"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(!message.contains("secret"));
        assert_whole(&fetch(&Hub { token: Some("secret-right".into()), ..hub }).unwrap());
    }

    #[test]
    fn what_is_not_there_is_not_unreachable() {
        let (server, folder) = (server(), tempfile::tempdir().unwrap());
        let hub = server.hub(folder.path());
        let other = Repository { name: "owner/other".into(), ..repository() };
        let failure = hub.snapshot(&other, |_| true, &Progress::silent()).unwrap_err();
        assert!(Error::from(failure).to_string().contains("no such repository"));
        let nobody = Hub { endpoint: "http://127.0.0.1:1".into(), ..hub };
        let failure = fetch(&nobody).unwrap_err();
        assert!(matches!(failure, Failure::Unreachable(_)));
        assert!(Error::from(failure).to_string().contains("HF_ENDPOINT"));
    }

    #[derive(Default)]
    struct Said(Mutex<Vec<String>>);

    impl Watcher for Said {
        fn begin(&self, task: &str, _total: u64, _unit: &'static str) {
            self.0.lock().unwrap().push(task.to_owned());
        }
        fn advance(&self, _done: u64) {}
        fn say(&self, message: &str) {
            self.0.lock().unwrap().push(message.to_owned());
        }
    }

    fn packed(text: &str) -> Vec<u8> {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn miracl_comes_from_its_two_repositories_only_the_languages_asked() {
        let (server, folder) = (StandIn::start(), tempfile::tempdir().unwrap());
        for tag in ["sw", "te"] {
            let queries = |file: &str, text: &str| {
                let kind = file.split('.').next().unwrap();
                server.add("datasets/miracl/miracl", &format!("miracl-v1.0-{tag}/{kind}/{file}"), text);
            };
            for split in ["train", "dev", "testA"] {
                queries(&format!("topics.miracl-v1.0-{tag}-{split}.tsv"), &format!("{split}1\tMaji?\n"));
                queries(&format!("qrels.miracl-v1.0-{tag}-{split}.tsv"), &format!("{split}1\tQ0\ta#1\t1\n"));
            }
            for number in 0..2 {
                let line = format!("{{\"docid\": \"a#{number}\", \"title\": \"t\", \"text\": \"x\"}}\n");
                let file = format!("miracl-corpus-v1.0-{tag}/docs-{number}.jsonl.gz");
                server.add("datasets/miracl/miracl-corpus", &file, packed(&line));
            }
        }
        server.add("datasets/miracl/miracl", "miracl.py", "import os");
        let config = DatasetConfig {
            source: "hub:miracl/miracl".into(),
            corpus: "hub:miracl/miracl-corpus".into(),
            languages: vec![Language::new("sw").unwrap()],
            ..Default::default()
        };
        let said = Said::default();
        let (hub, out) = (server.hub(folder.path()), folder.path().join("out"));
        let artefact = dataset_from(&config, &hub, 1, &out, &Progress::new(&said)).unwrap();
        assert_eq!(artefact.summary().counts["sw: passages"], 2);
        assert_eq!(artefact.summary().counts["sw: dev judgements"], 1);
        let requests = server.requests();
        assert_eq!(requests.len(), 2 + 4 + 2, "{requests:?}");
        assert!(said.0.lock().unwrap().iter().any(|line| line.contains("docs-1.jsonl.gz")));
        let again = dataset_from(&config, &Hub { offline: true, ..hub }, 1, &out, &Progress::silent()).unwrap();
        assert_eq!(again.key(), artefact.key());
    }

    #[test]
    fn the_environment_gives_true_in_several_words() {
        assert!(is_true("1") && is_true("ON ") && is_true("True") && !is_true("0") && !is_true("no"));
        assert!(is_plain("a/b.json") && !is_plain("../b") && !is_plain("/etc/x") && !is_plain("a//b"));
    }
}
