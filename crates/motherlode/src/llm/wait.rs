//! How long to wait before a request is sent again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use rand::RngExt;
use ureq::Body;
use ureq::http::Response;

use super::request::Request;

const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// Half a second doubled at every retry, at most a minute, each shortened by up to a half.
pub(super) fn backoff(request: &Request, retry: u32) -> Duration {
    let longest = FIRST_WAIT.saturating_mul(1 << retry.min(16)).min(LONGEST_WAIT);
    let jitter: f64 = crate::random::keyed(0, "llm backoff", &format!("{} {retry}", request.key())).random();
    longest.mul_f64(0.5 + 0.5 * jitter)
}

pub(super) fn pause(wait: Duration, stop: &AtomicBool) {
    const SLICE: Duration = Duration::from_millis(50);
    let mut left = wait;
    while !left.is_zero() && !stop.load(Ordering::Relaxed) {
        let slice = left.min(SLICE);
        std::thread::sleep(slice);
        left -= slice;
    }
}

/// `Retry-After` in either of its forms: seconds, or a date.
pub(super) fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let value = response.headers().get("retry-after")?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(Duration::from_secs(seconds_of_date(value)?).saturating_sub(now))
}

/// Seconds since 1970 of an HTTP date such as `Sun, 06 Nov 1994 08:49:37 GMT`.
///
/// Source: RFC 9110 section 5.6.7; the day number is Howard Hinnant's `days_from_civil`.
fn seconds_of_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let fields: Vec<&str> = text.split_once(", ")?.1.split(' ').collect();
    let [day, month, year, time, "GMT"] = fields[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let (day, year): (u64, u64) = (day.parse().ok()?, year.parse().ok()?);
    let clock: Vec<u64> = time.split(':').map(str::parse).collect::<std::result::Result<_, _>>().ok()?;
    let [hours, minutes, seconds] = clock[..] else { return None };
    if !(1970..10_000).contains(&year) || !(1..=31).contains(&day) || hours > 23 || minutes > 59 || seconds > 60 {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    Some(days * 86_400 + hours * 3600 + minutes * 60 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Golden: `date -u -d 'DATE' +%s`, GNU coreutils 9.1.
    #[test]
    fn dates_are_read() {
        assert_eq!(seconds_of_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(seconds_of_date("Thu, 29 Feb 2024 23:59:59 GMT"), Some(1_709_251_199));
        for bad in ["", "tomorrow", "Sun, 06 Nov 1994 08:49 GMT", "Sun, 99 Nov 1994 08:49:37 GMT"] {
            assert_eq!(seconds_of_date(bad), None, "{bad}");
        }
    }

    #[test]
    fn waits_grow_and_differ_by_request() {
        let request = |text: &str| Request {
            model: "m".into(),
            prompt: "p".into(),
            parameters: crate::llm::Parameters::greedy(1),
            attempt: 0,
            messages: vec![crate::llm::Message::user(text)],
            about: String::new(),
        };
        let (first, later) = (backoff(&request("a"), 0), backoff(&request("a"), 4));
        assert!(first >= FIRST_WAIT / 2 && first <= FIRST_WAIT && later >= FIRST_WAIT * 8);
        assert_ne!(first, backoff(&request("b"), 0));
        assert!(backoff(&request("a"), 99) <= LONGEST_WAIT);
    }
}
