//! A server for tests that answers chat completions from a script, faults included.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// What the server does with one request.
pub(crate) enum Play {
    /// A chat completion with this text.
    Say(String),
    /// The same, after a while.
    Slow(Duration, String),
    /// A status with an error message and more headers.
    Status(u16, &'static str, Vec<(&'static str, String)>),
    /// 200 with this body.
    Body(String),
    /// A completion whose connection ends in the middle of the announced length.
    Truncated,
    /// The connection is cut before any answer.
    Reset,
}

/// A request as the server saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    /// Azure's header.
    pub(crate) api_key: Option<String>,
    pub(crate) body: Value,
}

type Script = dyn Fn(usize, &Value) -> Play + Send + Sync;

/// A running server; it ends when dropped.
pub(crate) struct StandIn {
    address: String,
    shared: Arc<Shared>,
}

struct Shared {
    script: Box<Script>,
    /// The body of `GET /v1/models`; none: 404.
    models: Option<String>,
    count: AtomicUsize,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
    is_over: AtomicBool,
}

impl StandIn {
    /// Starts a server that asks `script` with the number of the request, from 0, and its body.
    pub(crate) fn start(script: impl Fn(usize, &Value) -> Play + Send + Sync + 'static) -> Self {
        Self::serving(None, script)
    }

    /// The same, with something to say of its models.
    pub(crate) fn serving(
        models: Option<Value>,
        script: impl Fn(usize, &Value) -> Play + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            models: models.map(|models| models.to_string()),
            count: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            most_in_flight: AtomicUsize::new(0),
            seen: Mutex::default(),
            is_over: AtomicBool::new(false),
        });
        let server = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if server.is_over.load(Ordering::SeqCst) {
                    break;
                }
                let server = Arc::clone(&server);
                std::thread::spawn(move || stream.ok().and_then(|stream| server.serve(stream)));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub(crate) fn most_in_flight(&self) -> usize {
        self.shared.most_in_flight.load(Ordering::SeqCst)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(&self.address));
    }
}

impl Shared {
    /// One connection, one request.
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let Received::Post(seen) = receive(&mut stream)? else {
            let play = match &self.models {
                Some(models) => Play::Body(models.clone()),
                None => Play::Status(404, "no such path", vec![]),
            };
            return respond(&mut stream, play);
        };
        let body = seen.body.clone();
        let number = self.count.fetch_add(1, Ordering::SeqCst);
        self.seen.lock().unwrap().push(seen);
        let in_flight = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_in_flight.fetch_max(in_flight, Ordering::SeqCst);
        let play = (self.script)(number, &body);
        if let Play::Slow(wait, _) = &play {
            std::thread::sleep(*wait);
        }
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        respond(&mut stream, play)
    }
}

enum Received {
    /// Somebody looks what is served.
    Get,
    Post(Seen),
}

fn receive(stream: &mut TcpStream) -> Option<Received> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let header = |name: &str| {
        lines.iter().find_map(|line| {
            line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        })
    };
    if lines[0].starts_with("GET ") {
        return Some(Received::Get);
    }
    let mut body = vec![0; header("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some(Received::Post(Seen {
        path: lines[0].split(' ').nth(1)?.to_owned(),
        authorization: header("authorization"),
        api_key: header("api-key"),
        body: serde_json::from_slice(&body).ok()?,
    }))
}

/// A chat completion as servers send it.
pub(crate) fn completion(text: &str) -> String {
    json!({
        "id": "x",
        "object": "chat.completion",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    })
    .to_string()
}

fn respond(stream: &mut TcpStream, play: Play) -> Option<()> {
    let (status, headers, body) = match play {
        Play::Say(text) | Play::Slow(_, text) => (200, Vec::new(), completion(&text)),
        Play::Status(status, message, headers) => (status, headers, json!({"error": {"message": message}}).to_string()),
        Play::Body(body) => (200, Vec::new(), body),
        Play::Truncated => {
            let body = completion("cut");
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            return stream.write_all((head + &body[..body.len() / 2]).as_bytes()).ok();
        }
        Play::Reset => return Some(()),
    };
    let more: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head =
        format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\n{}", more.concat());
    stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).ok()
}
