//! A stand-in for the model hub on 127.0.0.1: serves files from memory, and misbehaves when told to.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::hub::Hub;

/// The commit that every repository here is at.
pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

#[derive(Default)]
struct State {
    /// `models/OWNER/NAME` or `datasets/OWNER/NAME` → file → content.
    repositories: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// Only who brings this token gets anything.
    token: Option<String>,
    /// Answers with content end after so many bytes, so often.
    cut: Option<(usize, u32)>,
    /// Whether byte ranges are ignored.
    whole_only: bool,
    requests: Vec<String>,
}

/// The server; it ends with the process.
#[derive(Clone)]
pub(super) struct StandIn {
    address: String,
    state: Arc<Mutex<State>>,
}

impl StandIn {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = Self { address, state: Arc::default() };
        let shared = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = shared.clone();
                std::thread::spawn(move || server.answer(stream));
            }
        });
        server
    }

    /// A client of this server with its cache in `folder`.
    pub(super) fn hub(&self, folder: &std::path::Path) -> Hub {
        Hub {
            endpoint: self.address.clone(),
            cache: folder.join("hub"),
            token: None,
            offline: false,
            pause: Duration::from_millis(1),
        }
    }

    pub(super) fn add(&self, repository: &str, file: &str, content: impl Into<Vec<u8>>) {
        let mut state = self.state.lock().unwrap();
        state.repositories.entry(repository.to_owned()).or_default().insert(file.to_owned(), content.into());
    }

    pub(super) fn require_token(&self, token: &str) {
        self.state.lock().unwrap().token = Some(token.to_owned());
    }

    pub(super) fn cut(&self, bytes: usize, times: u32) {
        self.state.lock().unwrap().cut = Some((bytes, times));
    }

    pub(super) fn ignore_ranges(&self) {
        self.state.lock().unwrap().whole_only = true;
    }

    /// `PATH RANGE` of every request since the last call, without those that only ask for the size.
    pub(super) fn requests(&self) -> Vec<String> {
        let mut requests = std::mem::take(&mut self.state.lock().unwrap().requests);
        requests.retain(|request| !request.ends_with("bytes=0-0"));
        requests
    }

    fn answer(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut lines = Vec::new();
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
            lines.push(std::mem::take(&mut line).trim_end().to_owned());
        }
        let Some(path) = lines.first().and_then(|line| line.split(' ').nth(1)) else { return };
        let header = |name: &str| {
            let found = lines.iter().find(|line| line.to_lowercase().starts_with(&format!("{name}:")));
            found.and_then(|line| line.split_once(": ")).map(|(_, value)| value.to_owned())
        };
        let range = header("range").unwrap_or_default();
        let mut state = self.state.lock().unwrap();
        state.requests.push(format!("{path} {range}"));
        if state.token.as_ref().is_some_and(|token| header("authorization") != Some(format!("Bearer {token}"))) {
            return send(stream, "401 Unauthorized", &[], b"", 0);
        }
        respond(&mut state, stream, path, &range);
    }
}

fn respond(state: &mut State, stream: TcpStream, path: &str, range: &str) {
    if let Some(repository) = path.strip_prefix("/api/").and_then(|path| path.split_once("/revision/")) {
        let Some(files) = state.repositories.get(repository.0) else {
            return send(stream, "404 Not Found", &[], b"", 0);
        };
        let siblings: Vec<_> = files.keys().map(|name| serde_json::json!({"rfilename": name})).collect();
        let body = serde_json::json!({"sha": COMMIT, "siblings": siblings}).to_string();
        return send(stream, "200 OK", &["Content-Type: application/json".into()], body.as_bytes(), body.len());
    }
    let Some((repository, rest)) = path[1..].split_once("/resolve/") else { return };
    let key = if repository.starts_with("datasets/") { repository.to_owned() } else { format!("models/{repository}") };
    let file = rest.split_once('/').map(|(_, file)| file).unwrap_or_default();
    let Some(content) = state.repositories.get(&key).and_then(|files| files.get(file)) else {
        return send(stream, "404 Not Found", &[], b"", 0);
    };
    let content = content.clone();
    let (first, last) = range.trim_start_matches("bytes=").split_once('-').unwrap_or(("0", ""));
    let first: usize = if state.whole_only && last.is_empty() { 0 } else { first.parse().unwrap_or(0) };
    let end = last.parse().map_or(content.len(), |last: usize| last + 1).min(content.len());
    if first >= content.len() {
        return send(stream, "416 Range Not Satisfiable", &[], b"", 0);
    }
    let body = &content[first..end];
    let headers = [
        format!("ETag: \"{:x}\"", Sha256::digest(&content)),
        format!("X-Repo-Commit: {COMMIT}"),
        format!("Content-Range: bytes {first}-{}/{}", end - 1, content.len()),
    ];
    let sent = match &mut state.cut {
        Some((bytes, times)) if *times > 0 && body.len() > *bytes => {
            *times -= 1;
            *bytes
        }
        _ => body.len(),
    };
    let status = if state.whole_only && last.is_empty() { "200 OK" } else { "206 Partial Content" };
    send(stream, status, &headers, &body[..sent], body.len());
}

/// Sends `body` while promising `length` bytes, then hangs up.
fn send(mut stream: TcpStream, status: &str, headers: &[String], body: &[u8], length: usize) {
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).ok();
}
