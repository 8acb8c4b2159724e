//! The `date` of an answer, kept out of HTTP/2's table of headers.
//!
//! The HTTP library's own date is a new value every second, each of which is put into the connection's table of headers until
//! that is full of past seconds: 6 KB for every connection that lasts. Ours is marked as never to be indexed.
//!
//! Source: RFC 9110 section 6.6.1 (an origin server with a clock sends it); RFC 7541 section 6.2.3 (never indexed).

use std::time::{Duration, UNIX_EPOCH};

use axum::http::header::{DATE, HeaderMap, HeaderValue};
use sheaf_domain::Timestamp;

/// Says when an answer was made, unless it says so already.
pub(super) fn put(headers: &mut HeaderMap, now: Timestamp) {
    // Beyond the year 9999 there is no such date.
    let since_epoch = Duration::from_millis(now.as_millis()).min(LATEST);
    let text = httpdate::fmt_http_date(UNIX_EPOCH + since_epoch);
    if let Ok(mut date) = HeaderValue::try_from(text) {
        date.set_sensitive(true);
        headers.entry(DATE).or_insert(date);
    }
}

/// 9999-12-31, 23:59:59 UTC.
const LATEST: Duration = Duration::from_secs(253_402_300_799);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_never_indexed_and_a_present_one_stays() {
        let mut headers = HeaderMap::new();
        put(&mut headers, Timestamp::from_millis(784_111_777_500));
        // The example of RFC 9110.
        assert_eq!(headers[DATE], "Sun, 06 Nov 1994 08:49:37 GMT");
        assert!(headers[DATE].is_sensitive());
        put(&mut headers, Timestamp::from_millis(u64::MAX));
        assert_eq!(headers[DATE], "Sun, 06 Nov 1994 08:49:37 GMT");
        let mut headers = HeaderMap::new();
        put(&mut headers, Timestamp::from_millis(u64::MAX));
        assert_eq!(headers[DATE], "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
