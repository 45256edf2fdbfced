//! The server: takes requests, lets the guard look at them, and gives the pages out with the headers that shut them in.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderName};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

use super::Inspector;
use super::answer::{Answer, Asked};
use super::guard::{Access, Passage, without_token};
use super::layout;
use crate::error::{Error, Result};

/// The longest form that is read, in bytes.
const LONGEST_FORM: usize = 64 << 10;
/// Nothing is loaded from elsewhere, nothing runs but the one script, no page of another site may frame these.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Answers requests until the process ends.
///
/// # Errors
/// The listener fails.
pub fn serve(inspector: Inspector, listener: std::net::TcpListener, access: Access) -> Result<()> {
    let failed = |error: std::io::Error| Error::data(format!("the server cannot go on: {error}"));
    listener.set_nonblocking(true).map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
    runtime.block_on(accept(Arc::new((inspector, access)), listener)).map_err(failed)
}

async fn accept(state: Arc<(Inspector, Access)>, listener: std::net::TcpListener) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let preparing = Arc::clone(&state);
    tokio::task::spawn_blocking(move || preparing.0.catalogue.prepare_search());
    loop {
        let (stream, _) = listener.accept().await?;
        let state = Arc::clone(&state);
        let service = service_fn(move |request| handle(Arc::clone(&state), request));
        // A connection that breaks off is the browser's to open anew.
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// Pages are made on a thread of their own, since they read files and the labels are synced to the disk.
async fn handle(
    state: Arc<(Inspector, Access)>,
    request: Request<Incoming>,
) -> std::result::Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let Ok(form) = Limited::new(body, LONGEST_FORM).collect().await else {
        return Ok(response(layout::refusal(StatusCode::PAYLOAD_TOO_LARGE, "the form is too long"), None));
    };
    let request = Request::from_parts(parts, form.to_bytes());
    let made = tokio::task::spawn_blocking(move || respond(&state.0, &state.1, &request)).await;
    Ok(made.unwrap_or_else(|_| {
        response(layout::refusal(StatusCode::INTERNAL_SERVER_ERROR, "this page could not be made"), None)
    }))
}

fn respond(inspector: &Inspector, access: &Access, request: &Request<Bytes>) -> Response<Full<Bytes>> {
    let parse = |bytes: &[u8]| form_urlencoded::parse(bytes).into_owned().collect::<Vec<_>>();
    let path = request.uri().path();
    let pairs = parse(request.uri().query().unwrap_or_default().as_bytes());
    match access.check(request.method(), request.headers(), &pairs) {
        Passage::Open => {
            let asked = Asked { method: request.method(), path, pairs, form: parse(request.body()) };
            response(inspector.answer(&asked), None)
        }
        Passage::Welcome => {
            let place = layout::with_parameters(path, &without_token(&pairs));
            response(Answer::see(place), Some(access.set_cookie()))
        }
        Passage::Refused(status, reason) => response(layout::refusal(status, reason), None),
    }
}

fn response(answer: Answer, cookie: Option<String>) -> Response<Full<Bytes>> {
    let fixed = [
        (header::CONTENT_TYPE, answer.kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    let varying = [
        (header::LOCATION, answer.place),
        (header::SET_COOKIE, cookie),
        (header::CONTENT_DISPOSITION, answer.file.map(|file| format!("attachment; filename=\"{file}\""))),
    ];
    let mut builder = Response::builder().status(answer.status);
    for (name, value) in fixed {
        builder = builder.header(name, value);
    }
    for (name, value) in varying.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        builder = builder.header(name, value);
    }
    let body = Full::new(Bytes::from(answer.body));
    builder.body(body).expect("names and values are of this program, or were percent-encoded")
}
