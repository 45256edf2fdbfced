//! Who may ask: whoever has the token, under a name that this server goes by, from no other page.

use std::net::{IpAddr, SocketAddr};

use hyper::{HeaderMap, Method, StatusCode, header};

use crate::error::{Error, Result};

/// The parameter of the printed address that holds the token.
const PARAMETER: &str = "token";

/// Under which names the server is reached, and the secret that opens it.
#[derive(Debug, Clone)]
pub struct Access {
    hosts: Vec<String>,
    cookie: String,
    token: String,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Passage {
    /// It is answered.
    Open,
    /// It brought the token in its address: it gets a cookie, and is sent on to the address without the token.
    Welcome,
    /// It is refused, for a reason.
    Refused(StatusCode, &'static str),
}

impl Access {
    /// A new token for a server that listens on `address`; `names` are further hosts that people reach it by, without port.
    ///
    /// # Errors
    /// `address` is open to other machines and no name is given; the system gives no random numbers.
    pub fn new(address: SocketAddr, names: &[String]) -> Result<Self> {
        let port = address.port();
        let mut hosts: Vec<String> = names.iter().map(|name| format!("{}:{port}", name.to_lowercase())).collect();
        match address.ip() {
            ip if ip.is_loopback() => {
                hosts.extend([address.to_string(), format!("127.0.0.1:{port}"), format!("localhost:{port}")]);
            }
            ip if ip.is_unspecified() && names.is_empty() => {
                return Err(Error::config(format!(
                    "`{address}` is open to other machines; say by which name they reach this one (--host NAME)"
                )));
            }
            ip if ip.is_unspecified() => {}
            IpAddr::V4(_) | IpAddr::V6(_) => hosts.push(address.to_string()),
        }
        let mut secret = [0; 16];
        getrandom::fill(&mut secret)
            .map_err(|error| Error::data(format!("the system gives no random numbers: {error}")))?;
        let token = format!("{:032x}", u128::from_be_bytes(secret));
        Ok(Self { hosts, cookie: format!("motherlode-{port}"), token })
    }

    /// The address to open, with the token.
    pub fn address(&self) -> String {
        format!("http://{}/?{PARAMETER}={}", self.hosts[0], self.token)
    }

    /// The value of `Set-Cookie`: not for scripts, and not sent along with what other sites ask for.
    pub(super) fn set_cookie(&self) -> String {
        format!("{}={}; Path=/; HttpOnly; SameSite=Lax", self.cookie, self.token)
    }

    /// Whether a request is answered. `pairs` are the parameters of its address.
    ///
    /// The Host keeps out pages that a name server points here (DNS rebinding), the Origin keeps out what other pages send,
    /// the token keeps out everyone else on the machine or the net.
    pub(super) fn check(&self, method: &Method, headers: &HeaderMap, pairs: &[(String, String)]) -> Passage {
        let text = |name: header::HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
        let host = text(header::HOST).unwrap_or_default().to_lowercase();
        if !self.hosts.contains(&host) {
            return Passage::Refused(StatusCode::MISDIRECTED_REQUEST, "this server does not go by that name (Host)");
        }
        let reads = method == Method::GET || method == Method::HEAD;
        match text(header::ORIGIN) {
            Some(origin) if origin.to_lowercase() != format!("http://{host}") => {
                return Passage::Refused(StatusCode::FORBIDDEN, "the request comes from another page (Origin)");
            }
            None if !reads => {
                return Passage::Refused(StatusCode::FORBIDDEN, "the request does not say from which page it comes");
            }
            _ => {}
        }
        if text(header::COOKIE).is_some_and(|cookies| self.has_token(cookies)) {
            return Passage::Open;
        }
        let given = pairs.iter().find(|(key, _)| key == PARAMETER);
        if reads && given.is_some_and(|(_, token)| self.is_token(token)) {
            return Passage::Welcome;
        }
        Passage::Refused(StatusCode::FORBIDDEN, "open the address that `motherlode inspect` printed, with its token")
    }

    fn has_token(&self, cookies: &str) -> bool {
        let mut cookies = cookies.split(';').filter_map(|cookie| cookie.trim().split_once('='));
        cookies.any(|(name, value)| name == self.cookie && self.is_token(value))
    }

    /// Takes equally long wherever the first difference is.
    fn is_token(&self, given: &str) -> bool {
        let difference = given.bytes().zip(self.token.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
        given.len() == self.token.len() && difference == 0
    }
}

/// Parameters without the token.
pub(super) fn without_token(pairs: &[(String, String)]) -> String {
    let mut rest = form_urlencoded::Serializer::new(String::new());
    rest.extend_pairs(pairs.iter().filter(|(key, _)| key != PARAMETER));
    rest.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Headers<'a> = &'a [(header::HeaderName, &'a str)];

    fn check(access: &Access, method: &Method, headers: Headers<'_>, token: &str) -> Passage {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        access.check(method, &headers, &[("token".to_owned(), token.to_owned())])
    }

    fn status(passage: &Passage) -> u16 {
        match passage {
            Passage::Open => 200,
            Passage::Welcome => 303,
            Passage::Refused(status, _) => status.as_u16(),
        }
    }

    #[test]
    fn host_origin_and_token_are_all_asked_for() {
        let access = Access::new("127.0.0.1:4711".parse().unwrap(), &[]).unwrap();
        let cookie = format!("other=1; motherlode-4711={}", access.token);
        let (cookie, token) = (cookie.as_str(), access.token.as_str());
        let wrong = "0".repeat(32);
        let cases: [(Method, Headers<'_>, &str, u16); 12] = [
            (Method::GET, &[(header::HOST, "localhost:4711")], token, 303),
            (Method::GET, &[(header::HOST, "127.0.0.1:4711"), (header::COOKIE, cookie)], "", 200),
            (Method::GET, &[(header::HOST, "LOCALHOST:4711"), (header::COOKIE, cookie)], "", 200),
            (Method::GET, &[(header::HOST, "127.0.0.1:4711")], &wrong, 403),
            (Method::GET, &[(header::HOST, "127.0.0.1:4711")], &token[1..], 403),
            (Method::GET, &[(header::HOST, "evil.example:4711"), (header::COOKIE, cookie)], "", 421),
            (Method::GET, &[(header::HOST, "127.0.0.1:80"), (header::COOKIE, cookie)], "", 421),
            (Method::GET, &[(header::COOKIE, cookie)], token, 421),
            (Method::POST, &[(header::HOST, "127.0.0.1:4711"), (header::COOKIE, cookie)], "", 403),
            (Method::POST, &[(header::HOST, "127.0.0.1:4711")], token, 403),
            (
                Method::POST,
                &[(header::HOST, "127.0.0.1:4711"), (header::COOKIE, cookie), (header::ORIGIN, "http://evil.example")],
                "",
                403,
            ),
            (
                Method::POST,
                &[
                    (header::HOST, "127.0.0.1:4711"),
                    (header::COOKIE, cookie),
                    (header::ORIGIN, "http://127.0.0.1:4711"),
                ],
                "",
                200,
            ),
        ];
        for (number, (method, headers, token, expected)) in cases.into_iter().enumerate() {
            assert_eq!(status(&check(&access, &method, headers, token)), expected, "case {number}");
        }
    }

    #[test]
    fn an_open_address_needs_a_name() {
        let open = "0.0.0.0:80".parse().unwrap();
        assert!(Access::new(open, &[]).unwrap_err().to_string().contains("--host NAME"));
        let access = Access::new(open, &["Lab.example".to_owned()]).unwrap();
        assert!(access.address().starts_with("http://lab.example:80/?token="));
        assert_ne!(access.token, Access::new(open, &["x".to_owned()]).unwrap().token);
        let one = Access::new("192.0.2.1:80".parse().unwrap(), &[]).unwrap();
        assert!(one.address().starts_with("http://192.0.2.1:80/?token="));
    }

    #[test]
    fn the_token_leaves_the_address() {
        let pairs = [("language", "sw"), ("token", "x"), ("text", "a&b")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(without_token(&pairs), "language=sw&text=a%26b");
    }
}
