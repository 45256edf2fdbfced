//! A stand-in for an OpenAI-compatible server on the loopback interface, whose answers are a pure function of the request.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use serde_json::Value;

/// Answers until the test process ends.
pub(crate) struct Server {
    address: SocketAddr,
}

impl Server {
    /// Judges, summarises and asks. Listens on a free port.
    #[allow(dead_code, reason = "each test file that includes this one uses a part of it")]
    pub(crate) fn start() -> Self {
        Self::answering(|request| answer(request["messages"][1]["content"].as_str().unwrap_or_default()))
    }

    /// Gives the answer of a function to every request.
    pub(crate) fn answering(answer: impl Fn(&Value) -> String + Send + Sync + 'static) -> Self {
        let answer = Arc::new(answer);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answer = Arc::clone(&answer);
                std::thread::spawn(move || serve(stream, &*answer));
            }
        });
        Self { address }
    }

    /// What goes into `llm.endpoints`.
    pub(crate) fn address(&self) -> String {
        format!("http://{}/v1", self.address)
    }
}

/// One request a connection.
fn serve(mut stream: TcpStream, answer: &dyn Fn(&Value) -> String) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut line, mut length) = (String::new(), None);
    while reader.read_line(&mut line).unwrap_or(0) > 2 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = Some(value.trim().parse().unwrap());
        }
        line.clear();
    }
    // Whoever sends no body only looks which models are served.
    let Some(length) = length else {
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        return;
    };
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let request: Value = serde_json::from_slice(&body).unwrap();
    let answer = serde_json::json!({
        "choices": [{ "message": { "role": "assistant", "content": answer(&request) }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": body.len() / 4, "completion_tokens": 8 },
    })
    .to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        answer.len()
    );
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(answer.as_bytes()));
}

/// A candidate that has the question's word answers it; a passage is summarised, and asked for, by its last words.
fn answer(prompt: &str) -> String {
    let field = |tag: &str| {
        let text = prompt.split(&format!("<{tag}>\n")).nth(1)?;
        text.split(&format!("\n</{tag}>")).next()
    };
    match (field("question"), field("candidate_answer"), field("passage"), field("text")) {
        (Some(question), Some(candidate), ..) => {
            let found = candidate.contains(question.trim_end_matches('?'));
            format!("{{\"accuracy\": 2, \"completeness\": {}}}", if found { 2 } else { 0 })
        }
        (Some(question), _, Some(passage), _) => format!("{} {passage}", question.trim_end_matches('?')),
        (.., Some(text)) => format!("{}?", text.split_whitespace().last().unwrap_or("none")),
        _ => "none".to_owned(),
    }
}
