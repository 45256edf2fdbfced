//! `inspect` over HTTP: what pages show, who is let in, and that no label is lost.
#![expect(clippy::unwrap_used, reason = "a test stops where something unexpected happens")]

mod browser;
mod client;
mod generated;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use browser::Browser;
use client::{Client, form_of, raw, start};
use generated::{HOSTILE, SMALL, Size, arm};
use motherlode::inspect::{InspectConfig, Labels};

fn config() -> InspectConfig {
    InspectConfig { page: 10, audit: 3, ..InspectConfig::default() }
}

fn labels(folder: &Path) -> PathBuf {
    folder.join("labels.sqlite")
}

/// A small experiment and a browser on it.
fn small(folder: &Path) -> Client {
    let (_, told) = start(arm(folder, SMALL), config(), &labels(folder));
    Client::open(&told)
}

#[test]
fn the_list_is_filtered_sorted_and_paged() {
    let folder = tempfile::tempdir().unwrap();
    let client = small(folder.path());
    let all = client.page("/");
    assert!(all.contains("Queries 1 to 10 of 24") && all.contains("Page 1 of 3") && all.contains("data-key=\"n\""));
    assert!(client.page("/?page=3").contains("Queries 21 to 24 of 24"));
    assert!(client.page("/?page=99").contains("Queries 21 to 24 of 24"), "beyond the end is the end");
    assert!(client.page("/?language=sw").contains("Queries 1 to 10 of 12"));
    assert!(client.page("/?language=sw&set=validation").contains("Queries 1 to 2 of 2"));
    assert!(
        client.page("/?language=sw&topic=1&text=KENYA+10").contains("href=\"/query/sw/q10?language=sw&amp;topic=1")
    );
    assert!(client.page("/?text=q7").contains("Queries 1 to 2 of 2"));
    assert!(client.page("/?verdict=abstained").contains("No query passes the filter"));
    assert!(client.page("/?verdict=false-negative").contains("of 24"));
    assert!(client.page("/?score=best&low=0.885&language=ar").contains("Queries 1 to 6 of 6"));
    // p9 of Swahili is the positive of q9 and a candidate of those before it.
    let passages = client.page("/?language=sw&in=passages&text=nairobi279+nairobi296");
    assert!(passages.contains("href=\"/query/sw/q9?language=sw&amp;text=nairobi279+nairobi296&amp;in=passages\""));
    assert!(passages.contains("href=\"/query/sw/q8?") && !passages.contains("href=\"/query/sw/q1?"));
    assert!(client.page("/?in=passages&text=nairobi279+nowhere").contains("No query passes the filter"));
    let worst = client.page("/?language=sw&sort=margin");
    assert!(worst.find("/query/sw/q0?").unwrap() < worst.find("/query/sw/q9?").unwrap());
    assert_eq!(client.get("/?verdict=maybe").status, 400);
    assert_eq!(client.get("/query/sw/q99").status, 404);
    assert_eq!(client.get("/nothing").status, 404);
    assert_eq!(client.post("/", "x=y").status, 405);
}

#[test]
fn a_query_shows_all_that_is_known_of_its_candidates() {
    let folder = tempfile::tempdir().unwrap();
    let client = small(folder.path());
    let page = client.page("/query/ar/q2?language=ar&sort=best");
    for expected in [
        "<h1 class=\"query\" lang=\"ar\" dir=\"auto\">ما هي عاصمة كينيا 2؟</h1>",
        "<title>ما هي عاصمة كينيا 2؟ – generated ",
        "3 of 12",
        "href=\"/query/ar/q3?language=ar&amp;sort=best\" data-key=\"n\"",
        "<code>p3</code> <span class=\"badge negative\">negative</span>",
        "<dt>Accuracy</dt><dd>0</dd>",
        "<p class=\"why\">Accuracy 0 (it is wrong about it) and completeness 0 (the answer is not there) make grade 0: a negative.</p>",
        "title=\"score 0.5\">e5 2</span>",
        ">bm25 4</span>",
        "<dt>Negative</dt><dd>judged</dd>",
        "<span class=\"badge false-negative\">false negative</span>",
        "<a href=\"/batch/0\">0</a>",
        "Further negatives (1)",
        "<span class=\"badge\">random</span>",
    ] {
        assert!(page.contains(expected), "{expected} is missing in {page}");
    }
    let within = client.page("/query/ar/q2?with=false-negative");
    assert!(within.contains("Candidates (1 of 6)") && within.contains("<code>p6</code>"));
    let words = format!("/query/ar/q2?within={}+p5", percent("نيروبي"));
    assert!(client.page(&words).contains("Candidates (1 of 6)"));
    let found = client.page("/query/sw/q0");
    assert!(found.contains("Found through a generated query (1)") && found.contains("a generated query"));
}

#[test]
fn a_step_shows_queries_topics_negatives_and_masks() {
    let folder = tempfile::tempdir().unwrap();
    let client = small(folder.path());
    let page = client.page("/batch/0");
    assert!(page.contains("Step 0 of 0 to 11") && page.contains("<dt>Masked cells</dt><dd>1</dd>"), "{page}");
    assert!(page.contains("<rect class=\"masked\"") && page.contains("brought by q3"));
    assert!(page.contains("رياضة") && page.contains("<small>judged</small>"));
    assert!(client.page("/batch?step=3").contains("<h1>Step 3</h1>"));
    assert_eq!(client.get("/batch/12").status, 404);
    assert_eq!(client.get("/batch/x").status, 404);
}

#[test]
fn words_of_the_data_stay_words_and_nothing_is_loaded_from_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let client = small(folder.path());
    let annotating = client.get("/annotate?as=%3Cb%3Eanna").body;
    for path in ["/", "/query/sw/q1", "/query/sw/q0", "/batch/3", "/annotate?as=%3Cb%3Eanna", "/agreement"] {
        let reply = client.get(path);
        assert!(reply.body.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;"), "{path}");
        assert!(
            !reply.body.contains(HOSTILE) && !reply.body.contains("<script>") && !reply.body.contains("<img"),
            "{path}"
        );
        assert!(
            !reply.body.contains("http://") && !reply.body.contains("https://") && !reply.body.contains(" style="),
            "{path}"
        );
        let policy = reply.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; style-src 'self'; script-src 'self'"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!((reply.header("x-content-type-options"), reply.header("cache-control")), ("nosniff", "no-store"));
    }
    assert!(annotating.contains("&lt;b&gt;anna") && !annotating.contains("<b>"));
    assert!(client.page("/inspect.css").contains("prefers-color-scheme: dark"));
    assert_eq!(client.get("/inspect.js").header("content-type"), "text/javascript; charset=utf-8");
}

#[test]
fn without_token_host_and_origin_nobody_gets_in() {
    let folder = tempfile::tempdir().unwrap();
    let (server, told) = start(arm(folder.path(), SMALL), config(), &labels(folder.path()));
    let client = Client::open(&told);
    let (address, token) = (server.0, told.split_once("token=").unwrap().1);
    let get = |path: &str, host: &str| {
        raw(address, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
    };
    let own = address.to_string();
    for path in
        ["/", "/agreement", "/export/labels.jsonl", "/inspect.js", "/?token=", &format!("/?token={}", &token[1..])]
    {
        let reply = get(path, &own);
        assert_eq!(reply.status, 403, "{path}");
        assert!(!reply.body.contains("Kenya") && !reply.body.contains(token));
    }
    assert_eq!(get(&format!("/?token={token}"), "evil.example").status, 421, "a name that was pointed here");
    assert_eq!(get(&format!("/batch/1?x=1&token={token}"), &own).header("location"), "/batch/1?x=1");
    let form = form_of(&client.page("/annotate?as=anna"), 2);
    let foreign = ["", "Origin: null\r\n", "Origin: http://evil.example\r\n", "Origin: https://127.0.0.1\r\n"];
    for origin in foreign {
        assert_eq!(client.post_from("/label", &form, origin).status, 403, "{origin}");
    }
    let bare =
        format!("POST /label HTTP/1.1\r\nHost: {own}\r\nOrigin: http://{own}\r\nContent-Length: {}\r\n", form.len());
    assert_eq!(raw(address, &format!("{bare}Connection: close\r\n\r\n{form}")).status, 403, "no cookie");
    assert!(Labels::open(&labels(folder.path())).unwrap().is_empty().unwrap());
    assert_eq!(client.post("/label", &"x".repeat(70_000)).status, 413);
    assert_eq!(client.post("/label", &form).status, 303);
}

#[test]
fn annotators_grade_blindly_and_their_labels_come_out() {
    let folder = tempfile::tempdir().unwrap();
    let client = small(folder.path());
    assert!(client.page("/annotate").contains("The audit sample has 18 pairs"));
    let mut graded = 0;
    for (name, step) in [("anna", 1), ("بن", 2)] {
        let mut page = client.page(&format!("/annotate?language=sw&as={}", percent(name)));
        for number in 0_u8.. {
            if page.contains("Nothing is left for you here") {
                break;
            }
            for secret in ["badge", "Accuracy", "negative", "excluded", "Rank", "bm25", "0.8"] {
                assert!(!page.contains(secret), "{secret} is told in {page}");
            }
            let reply = client.post("/label", &form_of(&page, number / step % 3));
            assert_eq!(reply.status, 303, "{}", reply.body);
            page = client.page(reply.header("location"));
            graded += 1;
        }
    }
    assert_eq!(graded, 18, "three verdicts with three pairs each, by two people");
    let agreement = client.page("/agreement");
    assert!(agreement.contains("<th scope=\"row\"><span dir=\"auto\">anna</span></th><td class=\"number\">9</td>"));
    assert!(agreement.contains("Fleiss’ κ over the 9 pairs with 2 grades: ") && agreement.contains("Cohen’s κ"));
    assert!(agreement.contains("<dt>At odds</dt>") && agreement.contains("Swahili (sw)"));
    let qrels = client.page("/export/sw.qrels.tsv");
    let settled = qrels.lines().count();
    assert!(settled > 0 && settled < 9 && qrels.lines().all(|line| line.split('\t').count() == 4), "{qrels}");
    assert_eq!(client.page("/export/labels.jsonl").lines().count(), 18);
    let calibration = client.page("/export/calibration.jsonl");
    let lines: Vec<serde_json::Value> = calibration.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), settled);
    assert!(lines.iter().all(|line| line["language"] == "sw" && line["grade"].as_u64().unwrap() <= 2));
    let stands_for: f64 = lines.iter().map(|line| line["weight"].as_f64().unwrap()).sum();
    assert!(stands_for > settled as f64, "pairs stand for all candidates of their stratum");
    let third = client.page("/annotate?language=sw&as=carla");
    assert!(third.contains("<form class=\"grades\""), "pairs at odds wait for one more");
}

fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |written, byte| format!("{written}%{byte:02X}"))
}

#[test]
fn two_windows_do_not_overwrite_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let client = small(folder.path());
    let (one, other) = (client.page("/annotate?as=anna&at=4"), client.page("/annotate?as=anna&at=4"));
    assert_eq!(client.post("/label", &form_of(&one, 2)).status, 303);
    let refused = client.post("/label", &form_of(&other, 0));
    assert_eq!(refused.status, 409);
    assert!(refused.body.contains("gave this pair grade 2") && refused.body.contains("Your grade 0 was not kept"));
    let stored = || Labels::open(&labels(folder.path())).unwrap();
    let grade = || client.page("/export/labels.jsonl").split_once("\"grade\":").unwrap().1[..1].to_owned();
    assert_eq!((stored().len().unwrap(), grade().as_str()), (1, "2"));
    assert_eq!(client.post("/label", &form_of(&other, 2)).status, 303, "the same grade is no conflict");
    assert_eq!(client.post("/label", &form_of(&refused.body, 0)).status, 303, "who has seen it may change it");
    assert_eq!((stored().len().unwrap(), grade().as_str()), (2, "0"));
    let form = form_of(&one, 1);
    for wrong in
        [form.replace("query=q", "query=x"), form.replace("as=anna", "as="), form.replace("grade=1", "grade=3")]
    {
        assert_eq!(client.post("/label", &wrong).status, 400, "{wrong}");
    }
}

#[test]
fn an_unfinished_experiment_can_be_inspected() {
    let folder = tempfile::tempdir().unwrap();
    let mut arm = arm(folder.path(), SMALL);
    arm.artefacts.retain(|role, _| role == "dataset" || role == "candidates");
    arm.missing = Some("judge is not made yet".to_owned());
    let (_, told) = start(arm, config(), &labels(folder.path()));
    let client = Client::open(&told);
    assert!(client.page("/").contains("The experiment is not finished: judge is not made yet."));
    assert!(client.page("/query/sw/q3").contains("Candidates (6)"));
    assert!(client.page("/batch/0").contains("No batches are planned yet"));
    assert!(client.page("/annotate").contains("The audit sample has 6 pairs"));
    assert!(client.page("/").contains("Words in the query or its id"), "there is no index yet");
    assert_eq!(client.get("/?in=passages&text=nairobi").status, 400);
    let form = form_of(&client.page("/annotate?as=anna"), 1);
    assert_eq!(client.post("/label", &form).status, 303);
    assert!(client.page("/agreement").contains("No pair with a verdict is settled yet"));
}

const FOLDER: &str = "MOTHERLODE_INSPECT_TEST";

/// Not a test of its own: the process that the next one kills.
#[test]
#[ignore = "a server for another test"]
fn server_process() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let (_, told) = start(arm(&folder, SMALL), config(), &labels(&folder));
    println!("\nopen {told}");
    std::thread::sleep(Duration::from_mins(2));
}

/// Three servers over one labels file; each is killed (SIGKILL) as soon as it has confirmed a few labels.
#[test]
fn a_killed_server_loses_no_label() {
    let folder = tempfile::tempdir().unwrap();
    let mut confirmed = 0;
    for round in 0..3 {
        let mut server = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "server_process", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let told = lines.find_map(|line| line.unwrap().strip_prefix("open ").map(str::to_owned)).unwrap();
        let client = Client::open(&told);
        for grade in 0..3 {
            let page = client.page("/annotate?as=anna");
            assert_eq!(client.post("/label", &form_of(&page, grade)).status, 303);
            confirmed += 1;
        }
        server.kill().unwrap();
        server.wait().unwrap();
        let kept = Labels::open(&labels(folder.path())).unwrap();
        assert_eq!(kept.len().unwrap(), confirmed, "round {round}");
    }
}

/// In a browser: paging and filtering, a hostile passage, annotating, κ, reload and a second window, all by keyboard.
#[test]
fn a_person_gets_on_with_keys_alone() {
    let Some(browser) = Browser::start() else {
        println!("skipped: there is no chromedriver (Debian: chromium-driver)");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (server, told) = start(arm(folder.path(), SMALL), config(), &labels(folder.path()));
    browser.open(&told);
    assert_eq!(browser.address(), format!("http://{}/", server.0), "the token has left the address");
    browser.press("n");
    browser.wait_for("document.body.innerText.includes('Page 2 of 3')");
    browser.press("/swahili\u{e007}");
    browser.wait_for("document.body.innerText.includes('No query passes')");
    browser.open(&format!("http://{}/?language=sw", server.0));
    browser.press("jj\u{e007}");
    browser.wait_for("location.pathname === '/query/sw/q1'");
    let alerts = "return document.querySelectorAll('main script, main img').length";
    assert_eq!(browser.run(alerts), 0);
    assert!(browser.run("return document.querySelector('h1').textContent").as_str().unwrap().contains("<script>"));
    browser.press("n");
    browser.wait_for("location.pathname === '/query/sw/q2'");
    browser.press("u");
    browser.wait_for("location.pathname === '/' && location.search === '?language=sw'");
    annotate_in(&browser, server.0);
    two_windows_in(&browser, server.0);
}

/// Anna and Ben grade Arabic pairs alike; the agreement keeps up with them and outlives a reload.
fn annotate_in(browser: &Browser, server: std::net::SocketAddr) {
    browser.press("a");
    browser.wait_for("location.pathname === '/annotate'");
    for name in ["anna", "ben"] {
        browser.open(&format!("http://{server}/annotate?language=ar&as={name}"));
        assert_eq!(browser.run("return getComputedStyle(document.querySelector('.words > div')).direction"), "rtl");
        for (number, key) in ["0", "1", "2"].into_iter().enumerate() {
            browser.press(key);
            browser.wait_for(&format!("document.body.innerText.includes('{} of 9')", number + 1));
        }
    }
    let first = browser.new_window();
    browser.open(&format!("http://{server}/agreement"));
    browser.wait_for("document.querySelector('.said').textContent.includes('over the 3 pairs with 2 grades: 1.000')");
    let agreement = browser.new_window();
    browser.open(&format!("http://{server}/annotate?language=ar&as=anna"));
    browser.press("2");
    browser.wait_for("document.body.innerText.includes('4 of 9')");
    browser.to_window(&agreement);
    browser.wait_for("document.querySelector('td.number').textContent === '4'");
    browser.run("location.reload()");
    browser.wait_for("document.querySelector('td.number').textContent === '4'");
    browser.to_window(&first);
}

/// The same pair in two windows: the second grade is refused, and the first stands.
fn two_windows_in(browser: &Browser, server: std::net::SocketAddr) {
    let pair = format!("http://{server}/annotate?language=sw&as=anna&at=9");
    browser.open(&pair);
    let one = browser.new_window();
    browser.open(&pair);
    browser.press("2");
    browser.wait_for("location.search.includes('after=9')");
    browser.to_window(&one);
    browser.press("0");
    browser.wait_for("document.querySelector('[role=alert]')?.textContent.includes('gave this pair grade 2')");
    assert_eq!(browser.run("return document.querySelector('[aria-pressed=true]').value"), "2");
}

/// 40,000 queries with 40 candidates each: every page within 50 ms, over HTTP, the median of 21.
#[test]
#[ignore = "writes half a gigabyte; run with --release"]
fn pages_come_within_50_ms() {
    let size = Size {
        languages: &["ar", "en", "sw", "te"],
        queries: 10_000,
        candidates: 40,
        passages: 50_000,
        words: 100,
        epochs: 20,
    };
    let folder = tempfile::tempdir().unwrap();
    let arm = arm(folder.path(), size);
    let started = Instant::now();
    let (_, told) = start(arm, InspectConfig::default(), &labels(folder.path()));
    println!("opened in {:.1} s", started.elapsed().as_secs_f64());
    let client = Client::open(&told);
    for number in 0..200 {
        let page = client.page(&format!("/annotate?as=a{}", number % 2));
        assert_eq!(client.post("/label", &form_of(&page, (number / 3 % 3) as u8)).status, 303);
    }
    let mut slowest: f64 = 0.0;
    for path in [
        "/",
        "/?page=700",
        "/?text=kenya+99",
        "/?in=passages&text=nairobi12+nairobi29",
        "/?sort=margin&page=400",
        "/?language=te&verdict=false-negative&topic=2&score=margin&low=0.1&sort=false-negatives",
        "/query/ar/q4321?sort=margin",
        "/query/sw/q9999?within=nairobi12",
        "/query/sw/q9999?in=passages&text=nairobi12",
        "/batch/30000",
        "/annotate?as=a0",
        "/agreement",
        "/export/calibration.jsonl",
    ] {
        let mut times: Vec<f64> = Vec::new();
        let mut bytes = 0;
        for _ in 0..21 {
            let started = Instant::now();
            bytes = client.page(path).len();
            times.push(1e3 * started.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        println!("{:8.1} ms, at most {:.1} ms, {bytes:7} bytes  {path}", times[10], times[20]);
        slowest = slowest.max(times[10]);
    }
    println!(
        "{{\"bench\": \"inspect\", \"ratio\": {:.2}, \"ours\": {slowest:.1}, \"theirs\": 50, \"unit\": \"ms\"}}",
        50.0 / slowest
    );
    assert!(slowest < 50.0, "{slowest} ms");
}
