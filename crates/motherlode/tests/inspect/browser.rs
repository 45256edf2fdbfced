//! The pages in a real browser: Debian's `chromium` and `chromium-driver`, spoken to as `WebDriver` has it (W3C).

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

/// A headless browser of its own.
pub(crate) struct Browser {
    driver: Child,
    session: String,
}

impl Browser {
    /// Starts driver and browser; none where there is no `chromedriver`.
    pub(crate) fn start() -> Option<Self> {
        let mut driver =
            Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        let mut lines = BufReader::new(driver.stdout.take()?).lines();
        let port = lines.find_map(|line| {
            let line = line.ok()?;
            let port = line.split_once("successfully on port ")?.1.trim_end_matches('.').to_owned();
            Some(port)
        });
        std::thread::spawn(move || lines.for_each(drop));
        let server = format!("http://127.0.0.1:{}", port.expect("the driver says where it listens"));
        let arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];
        let options = json!({ "args": arguments });
        let asked = json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": options } } });
        let made = call("POST", &format!("{server}/session"), &asked);
        let session = format!("{server}/session/{}", made["sessionId"].as_str().expect("a session"));
        Some(Self { driver, session })
    }

    /// Goes to an address and waits until the page is there.
    pub(crate) fn open(&self, address: &str) {
        self.post("url", &json!({ "url": address }));
    }

    /// The value of a script's `return`.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.post("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Presses keys one after another, wherever the focus is.
    pub(crate) fn press(&self, keys: &str) {
        let strokes: Vec<Value> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key.to_string() })))
            .collect();
        self.post("actions", &json!({ "actions": [{ "type": "key", "id": "keys", "actions": strokes }] }));
    }

    /// Waits until a script's `return` is true.
    pub(crate) fn wait_for(&self, condition: &str) {
        for _ in 0..100 {
            if self.run(&format!("return document.readyState === 'complete' && ({condition})")) == true {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("{condition} does not come true at {}: {}", self.address(), self.run("return document.body.innerText"));
    }

    /// Where the browser is.
    pub(crate) fn address(&self) -> String {
        self.run("return location.href").as_str().unwrap().to_owned()
    }

    /// Makes another window and goes there; returns the one it comes from.
    pub(crate) fn new_window(&self) -> String {
        let here = call("GET", &format!("{}/window", self.session), &Value::Null).as_str().unwrap().to_owned();
        let made = self.post("window/new", &json!({ "type": "tab" }));
        self.to_window(made["handle"].as_str().unwrap());
        here
    }

    /// Goes to a window.
    pub(crate) fn to_window(&self, handle: &str) {
        self.post("window", &json!({ "handle": handle }));
    }

    fn post(&self, command: &str, body: &Value) -> Value {
        call("POST", &format!("{}/{command}", self.session), body)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        call("DELETE", &self.session, &Value::Null);
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Sends a command and returns its value.
fn call(method: &str, address: &str, body: &Value) -> Value {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let answer = match method {
        "GET" => agent.get(address).call(),
        "DELETE" => agent.delete(address).call(),
        _ => agent.post(address).send_json(body),
    };
    let answer: Value = answer.unwrap().body_mut().with_config().limit(64 << 20).read_json().unwrap();
    assert!(answer["value"]["error"].is_null(), "{method} {address}: {}", answer["value"]["message"]);
    answer["value"].clone()
}
