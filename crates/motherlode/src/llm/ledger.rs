//! The ledger: every request to a language model with its answer, in one `SQLite` file that processes share.
//!
//! One table, `answers`: key, canonical request, raw answer, tokens. Written ahead (WAL) and committed before an answer
//! is handed on: a process that is killed loses no answer that it was given. Exchanged as JSON Lines, one answer a line:
//! `{"model", "prompt", "parameters", "attempt" (absent for 0), "messages", "answer", "prompt_tokens",
//! "completion_tokens"}`; the key is always computed from these.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use serde::{Deserialize, Serialize};

use super::request::{Answer, Message, Parameters, Request, key_of};
use crate::database::{self, Schema, failed};
use crate::error::{Error, Result};

/// The letters are "MLED".
const SCHEMA: Schema =
    Schema { what: "ledger", application: 0x4d4c_4544, format: 1, table: TABLE, synchronous: "NORMAL" };
const TABLE: &str = "CREATE TABLE answers (
    key TEXT NOT NULL PRIMARY KEY,
    request TEXT NOT NULL,
    answer TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL
)";

/// All answers that were ever given. Safe to share between threads and processes.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    connection: Mutex<Connection>,
}

/// How many recorded answers were new.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Imported {
    /// Answers that the ledger did not have.
    pub added: u64,
    /// Answers whose request was answered already; the ledger keeps the answer it had.
    pub known: u64,
}

/// What a ledger holds of one model and prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holding {
    /// Answers.
    pub answers: u64,
    /// Tokens of their requests.
    pub prompt_tokens: u64,
    /// Tokens of the answers.
    pub completion_tokens: u64,
}

/// A line of the exchange format.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    model: String,
    prompt: String,
    parameters: Parameters,
    #[serde(default, skip_serializing_if = "is_zero")]
    attempt: u32,
    messages: Vec<Message>,
    answer: String,
    prompt_tokens: u64,
    completion_tokens: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

impl Ledger {
    /// Opens the ledger, or makes an empty one.
    ///
    /// # Errors
    /// The file is no ledger, or one of a newer version of the program.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_path_buf(), connection: Mutex::new(database::open(path, &SCHEMA)?) })
    }

    /// Where the ledger lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of answers.
    pub fn len(&self) -> Result<u64> {
        let count = |connection: &Connection| {
            connection.query_row("SELECT count(*) FROM answers", [], |row| row.get::<_, i64>(0))
        };
        Ok(count(&self.connection()).map_err(failed(&self.path))? as u64)
    }

    /// Whether there is no answer.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// The answer under a [key](Request::key).
    pub fn get(&self, key: &str) -> Result<Option<Answer>> {
        find(&self.connection(), key).map_err(failed(&self.path))
    }

    /// Whether there is an answer under this key.
    pub fn contains(&self, key: &str) -> Result<bool> {
        let exists =
            |connection: &Connection| connection.prepare_cached("SELECT 1 FROM answers WHERE key = ?1")?.exists([key]);
        exists(&self.connection()).map_err(failed(&self.path))
    }

    /// Keeps an answer and returns the one that counts: the first that was ever kept for this request.
    ///
    /// When this returns, the answer outlives the process.
    pub fn put(&self, request: &Request, answer: &Answer) -> Result<Answer> {
        let connection = self.connection();
        let canonical = request.canonical();
        let key = key_of(&canonical);
        let kept = insert(&connection, &key, &canonical, answer)
            .and_then(|added| if added { Ok(None) } else { find(&connection, &key) });
        Ok(kept.map_err(failed(&self.path))?.unwrap_or_else(|| answer.clone()))
    }

    /// Takes in recorded answers, all of the file or none. Doing it again changes nothing.
    ///
    /// # Errors
    /// A line that is not in the exchange format, with file and line.
    pub fn import_jsonl(&self, path: &Path) -> Result<Imported> {
        let mut connection = self.connection();
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed(&self.path))?;
        let mut imported = Imported::default();
        crate::lines::for_each(path, |number, text| {
            let (request, answer) = parse(text).map_err(|message| Error::line(path, number, message))?;
            let canonical = request.canonical();
            let added = insert(&transaction, &key_of(&canonical), &canonical, &answer).map_err(failed(&self.path))?;
            *(if added { &mut imported.added } else { &mut imported.known }) += 1;
            Ok(())
        })?;
        transaction.commit().map_err(failed(&self.path))?;
        Ok(imported)
    }

    /// Writes answers in the exchange format and returns their number; `keys` chooses, none takes all.
    ///
    /// *Order*: by the bytes of the canonical request: model, prompt, parameters, attempt, messages.
    ///
    /// # Errors
    /// The output cannot be written; `path` is named in the error. A key without an answer.
    pub fn export_jsonl(&self, output: &mut impl Write, path: &Path, keys: Option<&BTreeSet<String>>) -> Result<u64> {
        let mut rows = 0;
        self.for_each(|key, canonical, answer| {
            if keys.is_none_or(|keys| keys.contains(key)) {
                let line = line_of(canonical, answer).map_err(|message| Error::file(&self.path, message))?;
                writeln!(output, "{line}").map_err(Error::io(path))?;
                rows += 1;
            }
            Ok(())
        })?;
        match keys {
            Some(keys) if keys.len() as u64 != rows => Err(Error::data(format!(
                "{} of {} keys have no answer in the ledger {}; run the stage again to get them",
                keys.len() as u64 - rows,
                keys.len(),
                self.path.display()
            ))),
            _ => Ok(rows),
        }
    }

    /// What the ledger holds, by model and prompt.
    ///
    /// # Errors
    /// A damaged row, as in [`verify`](Self::verify).
    pub fn stats(&self) -> Result<BTreeMap<(String, String), Holding>> {
        let mut stats: BTreeMap<(String, String), Holding> = BTreeMap::new();
        self.for_each(|_, canonical, answer| {
            let request = self.request_of(canonical)?;
            let holding = stats.entry((request.model, request.prompt)).or_default();
            holding.answers += 1;
            holding.prompt_tokens += answer.prompt_tokens;
            holding.completion_tokens += answer.completion_tokens;
            Ok(())
        })?;
        Ok(stats)
    }

    /// Checks that every request can be read and stands under its own key; the number of answers.
    ///
    /// # Errors
    /// The first row that is damaged.
    pub fn verify(&self) -> Result<u64> {
        let mut rows = 0;
        self.for_each(|key, canonical, _| {
            rows += 1;
            if self.request_of(canonical)?.key() == key {
                return Ok(());
            }
            Err(Error::file(
                &self.path,
                format!("the answer under key {key} is to another request; merge what is whole"),
            ))
        })?;
        Ok(rows)
    }

    fn request_of(&self, canonical: &str) -> Result<Request> {
        request_of(canonical).map_err(|message| Error::file(&self.path, message))
    }

    /// Visits key, canonical request and answer of every row, ordered by request.
    fn for_each(&self, mut visit: impl FnMut(&str, &str, Answer) -> Result<()>) -> Result<()> {
        let connection = self.connection();
        let select = "SELECT answer, prompt_tokens, completion_tokens, key, request FROM answers ORDER BY request";
        let mut statement = connection.prepare(select).map_err(failed(&self.path))?;
        let mut rows = statement.query([]).map_err(failed(&self.path))?;
        while let Some(row) = rows.next().map_err(failed(&self.path))? {
            let fields =
                || -> rusqlite::Result<(String, String, Answer)> { Ok((row.get(3)?, row.get(4)?, answer_of(row)?)) };
            let (key, request, answer) = fields().map_err(failed(&self.path))?;
            visit(&key, &request, answer)?;
        }
        Ok(())
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic elsewhere cannot leave a transaction half done: dropping it rolls it back.
        self.connection.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn insert(connection: &Connection, key: &str, canonical: &str, answer: &Answer) -> rusqlite::Result<bool> {
    let rows = connection
        .prepare_cached("INSERT INTO answers VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (key) DO NOTHING")?
        .execute(params![key, canonical, answer.text, answer.prompt_tokens as i64, answer.completion_tokens as i64])?;
    Ok(rows == 1)
}

fn find(connection: &Connection, key: &str) -> rusqlite::Result<Option<Answer>> {
    connection
        .prepare_cached("SELECT answer, prompt_tokens, completion_tokens FROM answers WHERE key = ?1")?
        .query_row([key], answer_of)
        .optional()
}

fn answer_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Answer> {
    let tokens = |column| row.get::<_, i64>(column).map(|tokens| tokens as u64);
    Ok(Answer { text: row.get(0)?, prompt_tokens: tokens(1)?, completion_tokens: tokens(2)? })
}

fn parse(text: &str) -> std::result::Result<(Request, Answer), String> {
    let line: Line = serde_json::from_str(text)
        .map_err(|error| format!("expected a recorded answer as the ledger exports it: {error}"))?;
    let request = Request {
        model: line.model,
        prompt: line.prompt,
        parameters: line.parameters,
        attempt: line.attempt,
        messages: line.messages,
        about: String::new(),
    };
    let answer =
        Answer { text: line.answer, prompt_tokens: line.prompt_tokens, completion_tokens: line.completion_tokens };
    Ok((request, answer))
}

fn request_of(canonical: &str) -> std::result::Result<Request, String> {
    let (model, prompt, parameters, attempt, messages) =
        serde_json::from_str(canonical).map_err(|error| format!("a request in the ledger is damaged: {error}"))?;
    Ok(Request { model, prompt, parameters, attempt, messages, about: String::new() })
}

fn line_of(canonical: &str, answer: Answer) -> std::result::Result<String, String> {
    let Request { model, prompt, parameters, attempt, messages, .. } = request_of(canonical)?;
    let Answer { text: answer, prompt_tokens, completion_tokens } = answer;
    let line = Line { model, prompt, parameters, attempt, messages, answer, prompt_tokens, completion_tokens };
    serde_json::to_string(&line).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    fn request(text: &str) -> Request {
        Request {
            model: "m".into(),
            prompt: "p".into(),
            parameters: Parameters::greedy(8),
            attempt: 0,
            messages: vec![Message::user(text)],
            about: "query `1` (en)".into(),
        }
    }

    fn answer(text: &str) -> Answer {
        Answer { text: text.into(), prompt_tokens: 3, completion_tokens: 1 }
    }

    fn export(ledger: &Ledger, keys: Option<&BTreeSet<String>>) -> Result<String> {
        let mut output = Vec::new();
        ledger.export_jsonl(&mut output, Path::new("out"), keys)?;
        Ok(String::from_utf8(output).unwrap())
    }

    #[test]
    fn an_answer_is_kept_over_openings_and_the_first_one_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/ledger.sqlite");
        let ledger = Ledger::open(&path).unwrap();
        assert!(ledger.is_empty().unwrap() && ledger.get(&request("q").key()).unwrap().is_none());
        assert_eq!(ledger.put(&request("q"), &answer("first")).unwrap(), answer("first"));
        assert_eq!(ledger.put(&request("q"), &answer("second")).unwrap(), answer("first"));
        drop(ledger);
        let again = Ledger::open(&path).unwrap();
        assert_eq!(again.get(&request("q").key()).unwrap(), Some(answer("first")));
        assert!(again.contains(&request("q").key()).unwrap() && !again.contains("x").unwrap());
        assert_eq!(again.len().unwrap(), 1);
    }

    #[test]
    fn export_and_import_give_the_same_ledger() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&folder.path().join("a")).unwrap();
        for text in ["zwei\n\"x\"", "eins", "ثلاثة"] {
            ledger.put(&request(text), &answer(text)).unwrap();
        }
        ledger.put(&Request { attempt: 2, ..request("eins") }, &answer("noch einmal")).unwrap();
        let text = export(&ledger, None).unwrap();
        let file = folder.path().join("recorded.jsonl");
        std::fs::write(&file, &text).unwrap();
        let other = Ledger::open(&folder.path().join("b")).unwrap();
        assert_eq!(other.import_jsonl(&file).unwrap(), Imported { added: 4, known: 0 });
        assert_eq!(other.import_jsonl(&file).unwrap(), Imported { added: 0, known: 4 });
        assert_eq!(export(&other, None).unwrap(), text);
        assert_eq!(other.get(&request("eins").key()).unwrap(), Some(answer("eins")));
    }

    #[test]
    fn export_takes_chosen_keys_and_misses_none() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&folder.path().join("a")).unwrap();
        ledger.put(&request("one"), &answer("1")).unwrap();
        ledger.put(&request("two"), &answer("2")).unwrap();
        let text = export(&ledger, Some(&BTreeSet::from([request("two").key()]))).unwrap();
        let expected = r#"{"model":"m","prompt":"p","parameters":{"temperature":0,"top_p":1,"max_tokens":8,"seed":0,"schema":null},"messages":[{"role":"user","content":"two"}],"answer":"2","prompt_tokens":3,"completion_tokens":1}"#;
        assert_eq!(text.trim_end(), expected);
        let error = export(&ledger, Some(&BTreeSet::from(["x".to_owned()]))).unwrap_err().to_string();
        assert!(error.contains("1 of 1 keys have no answer"), "{error}");
    }

    #[test]
    fn stats_count_by_model_and_prompt_and_verify_finds_a_forged_row() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&folder.path().join("a")).unwrap();
        ledger.put(&request("one"), &answer("1")).unwrap();
        ledger.put(&Request { model: "other".into(), ..request("one") }, &answer("1")).unwrap();
        ledger.put(&request("two"), &answer("2")).unwrap();
        let stats = ledger.stats().unwrap();
        let holding = |answers| Holding { answers, prompt_tokens: 3 * answers, completion_tokens: answers };
        assert_eq!(stats[&("m".to_owned(), "p".to_owned())], holding(2));
        assert_eq!(stats[&("other".to_owned(), "p".to_owned())], holding(1));
        assert_eq!(ledger.verify().unwrap(), 3);
        insert(&ledger.connection(), "forged", &request("three").canonical(), &answer("3")).unwrap();
        let message = ledger.verify().unwrap_err().to_string();
        assert!(message.contains("key forged is to another request"), "{message}");
    }

    #[test]
    fn a_bad_line_is_named_and_nothing_of_its_file_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&folder.path().join("a")).unwrap();
        let source = Ledger::open(&folder.path().join("b")).unwrap();
        source.put(&request("one"), &answer("1")).unwrap();
        let good = export(&source, None).unwrap();
        let file = folder.path().join("recorded.jsonl");
        let unknown = good.replace("\"answer\"", "\"key\":\"forged\",\"answer\"");
        for bad in ["{\"model\": 1}", "no json", unknown.trim_end()] {
            std::fs::write(&file, format!("{good}\n{bad}\n")).unwrap();
            let message = ledger.import_jsonl(&file).unwrap_err().to_string();
            assert!(message.contains("recorded.jsonl:3:"), "{message}");
        }
        assert!(ledger.is_empty().unwrap());
    }

    #[test]
    fn other_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        std::fs::write(&path, "some text that is long enough to be looked at, but no database at all".repeat(9))
            .unwrap();
        assert!(Ledger::open(&path).unwrap_err().to_string().contains("not a database"));
        let path = folder.path().join("other");
        Connection::open(&path).unwrap().execute("CREATE TABLE t (x)", []).unwrap();
        assert!(Ledger::open(&path).unwrap_err().to_string().contains("no ledger"));
        let path = folder.path().join("newer");
        drop(Ledger::open(&path).unwrap());
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 2).unwrap();
        assert!(Ledger::open(&path).unwrap_err().to_string().contains("newer"));
    }

    /// Not a test by itself: the process that the next test starts and kills.
    #[test]
    fn writer_process() {
        let Ok(path) = std::env::var("MOTHERLODE_TEST_LEDGER") else { return };
        let name = std::env::var("MOTHERLODE_TEST_WRITER").unwrap();
        let ledger = Ledger::open(Path::new(&path)).unwrap();
        for number in 0..100_000 {
            let text = format!("{name} {number}");
            ledger.put(&request(&text), &answer(&text)).unwrap();
            println!("\nkept {text}");
        }
    }

    fn start_writer(path: &Path, name: &str) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["llm::ledger::tests::writer_process", "--exact", "--nocapture", "--test-threads=1"])
            .env("MOTHERLODE_TEST_LEDGER", path)
            .env("MOTHERLODE_TEST_WRITER", name)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    #[test]
    fn two_processes_share_it_and_a_killed_one_loses_nothing_it_was_told_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let mut writers = ["a", "b"].map(|name| start_writer(&path, name));
        let mut kept = Vec::new();
        for writer in &mut writers {
            let lines = BufReader::new(writer.stdout.take().unwrap()).lines().map_while(std::result::Result::ok);
            let texts = lines.filter_map(|line| line.strip_prefix("kept ").map(str::to_owned));
            kept.extend(texts.take(200));
        }
        for writer in &mut writers {
            writer.kill().unwrap();
            writer.wait().unwrap();
        }
        assert_eq!(kept.len(), 400);
        let ledger = Ledger::open(&path).unwrap();
        for text in kept {
            assert_eq!(ledger.get(&request(&text).key()).unwrap(), Some(answer(&text)), "{text}");
        }
    }
}
