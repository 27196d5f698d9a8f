//! The rules for `[http]`.

use forebay_http::settings::DestinationSettings;
use forebay_http::{Gateway, HttpSettings};
use hyper::Uri;

use super::Findings;
use crate::config::summary::http_budget;

pub(super) fn check(settings: &HttpSettings, found: &mut Findings) {
    if settings.destinations.is_empty() {
        found.add(
            "http",
            "no destination: write `[http.destinations.NAME]` and its `url = \"https://…\"`",
        );
    }
    found.at_least_one("http.max_clients".to_owned(), Some(settings.max_clients));
    for problem in Gateway::check_secrets(settings) {
        found.add(problem.at, problem.reason);
    }
    for (name, destination) in &settings.destinations {
        let at = format!("http.destinations.{name}");
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if name.is_empty() || !name.bytes().all(plain) || name.bytes().all(|b| b == b'.') {
            found.add(
                at.clone(),
                "the name is the first part of a path: use letters, digits, `-`, `_` and `.`",
            );
        }
        check_destination(&at, destination, found);
    }
}

fn check_destination(at: &str, destination: &DestinationSettings, found: &mut Findings) {
    if let Err(reason) = check_url(&destination.url) {
        found.add(format!("{at}.url"), reason);
    }
    if let Some(file) = &destination.ca_file {
        found.file(format!("{at}.ca_file"), file);
    }
    found.at_least_one(format!("{at}.budget"), destination.budget);
    found.at_least_one(format!("{at}.documented_limit"), destination.documented_limit);
    found.percent(format!("{at}.warm_up"), destination.warm_up);
    found.some_time(format!("{at}.probe_interval"), destination.probe_interval);
    let (shed_from, hold_limit) = (destination.shed_from, destination.hold_limit);
    found.thresholds(at, shed_from, hold_limit, destination.lend_max_hold);
    if let (Some(budget), Some(limit)) = (destination.budget, destination.documented_limit)
        && budget > limit
    {
        found.add(
            format!("{at}.budget"),
            format!("{budget} is more than the service's `documented_limit` of {limit}"),
        );
    }
    let classes: Vec<_> = destination.classes.clone().into_iter().collect();
    found.classes(at, &classes, Some(http_budget(destination)), 100);
}

/// An absolute URL of a service, without what does not belong to its place.
fn check_url(url: &str) -> Result<(), &'static str> {
    const EXPECTED: &str = "expected a URL such as `https://api.example.com/v1`";
    let uri: Uri = url.parse().map_err(|_| EXPECTED)?;
    if !matches!(uri.scheme_str(), Some("https" | "http")) {
        return Err(EXPECTED);
    }
    let authority = uri.authority().ok_or(EXPECTED)?;
    if authority.as_str().contains('@') {
        return Err("a URL is no place for a password: write an `auth` instead");
    }
    if authority.host().is_empty() {
        return Err(EXPECTED);
    }
    if uri.query().is_some() || url.contains('#') {
        return Err("expected a URL without `?` and `#`: both belong to the single call");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_scheme_a_host_and_perhaps_a_path() {
        for good in ["https://api.example.com", "https://a:8443/v1", "http://127.0.0.1:9/"] {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "api.example.com",
            "/v1",
            "ftp://a",
            "https://",
            "https://a/?x=1",
            "https://a/#x",
            "https://user:pw@a/",
        ] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }
}
