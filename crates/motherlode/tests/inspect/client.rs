//! A browser as far as tests need one: requests with any headers, and a server on a free port.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use motherlode::inspect::{Access, Arm, InspectConfig, Inspector, serve};
use motherlode::progress::Progress;

/// What came back.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> &str {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next().unwrap_or_default()
    }
}

/// A browser with a cookie.
pub(crate) struct Client {
    address: SocketAddr,
    cookie: String,
}

/// A server on a thread of its own, until the test ends; the address that a person is told.
pub(crate) fn start(arm: Arm, config: InspectConfig, labels: &Path) -> (Inspecting, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let access = Access::new(address, &[]).unwrap();
    let told = access.address();
    let inspector = Inspector::open(arm, config, labels, &Progress::silent()).unwrap();
    std::thread::spawn(move || serve(inspector, listener, access));
    (Inspecting(address), told)
}

/// A running server.
pub(crate) struct Inspecting(pub(crate) SocketAddr);

/// Sends a request as it stands, and reads until the end.
pub(crate) fn raw(address: SocketAddr, request: &str) -> Reply {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, head: head.to_owned(), body: body.to_owned() }
}

impl Client {
    /// Opens the told address, as a person would.
    pub(crate) fn open(told: &str) -> Self {
        let rest = told.strip_prefix("http://").unwrap();
        let (host, path) = rest.split_at(rest.find('/').unwrap());
        let address: SocketAddr = host.parse().unwrap();
        let reply = raw(address, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
        assert_eq!((reply.status, reply.header("location")), (303, "/"));
        let cookie = reply.header("set-cookie");
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite"), "{cookie}");
        Self { address, cookie: cookie.split(';').next().unwrap().to_owned() }
    }

    /// Reads a page.
    pub(crate) fn get(&self, path: &str) -> Reply {
        let Self { address, cookie } = self;
        let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nCookie: {cookie}\r\n");
        raw(*address, &format!("{head}Connection: close\r\n\r\n"))
    }

    /// The body of a page that is there.
    pub(crate) fn page(&self, path: &str) -> String {
        let reply = self.get(path);
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        reply.body
    }

    /// Sends a form.
    pub(crate) fn post(&self, path: &str, form: &str) -> Reply {
        self.post_from(path, form, &format!("Origin: http://{}\r\n", self.address))
    }

    /// Sends a form with other headers than a browser's of this page.
    pub(crate) fn post_from(&self, path: &str, form: &str, headers: &str) -> Reply {
        let Self { address, cookie } = self;
        let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nCookie: {cookie}\r\n{headers}");
        let kind = "Content-Type: application/x-www-form-urlencoded\r\n";
        raw(*address, &format!("{head}{kind}Content-Length: {}\r\nConnection: close\r\n\r\n{form}", form.len()))
    }
}

/// The form of the pair that an annotating page shows, as a browser sends it when a grade is chosen.
pub(crate) fn form_of(page: &str, grade: u8) -> String {
    let form = &page[page.find("<form class=\"grades\"").expect("a pair is shown")..];
    let mut fields = String::new();
    for input in form.split("<input type=\"hidden\" name=\"").skip(1) {
        let (name, rest) = input.split_once("\" value=\"").unwrap();
        let value = rest.split('"').next().unwrap().replace(' ', "+");
        fields += &format!("{name}={value}&");
    }
    format!("{fields}grade={grade}")
}
