//! Where a URL that a user gave may lead.
//!
//! Those who say whom to notify are not those who run Herald: a URL of theirs must not make it call
//! whatever it can reach. Where all that a channel can need is known, that is the whole list.

use reqwest::Url;

/// A list of bases, such as `https://hooks.slack.com/services` or `https://*.push.apple.com`.
#[derive(Debug, Clone)]
pub struct Allowed(Vec<Base>);

#[derive(Debug, Clone)]
struct Base {
    scheme: String,
    host: Host,
    port: Option<u16>,
    /// Without a slash at its end.
    path: String,
}

#[derive(Debug, Clone)]
enum Host {
    Is(String),
    /// With the dot that it begins with.
    EndsWith(String),
}

impl Allowed {
    /// Reads a list; an error names the base that is none.
    pub fn new(bases: &[String]) -> Result<Self, String> {
        let bases = bases.iter().map(|base| {
            Base::of(base).ok_or_else(|| {
                format!(
                    "{base:?} is no base of a URL: expected https://host/path or https://*.host"
                )
            })
        });
        bases.collect::<Result<_, _>>().map(Self)
    }

    /// The URL that `text` is, if it lies below one of the bases.
    pub(crate) fn url(&self, text: &str) -> Option<Url> {
        let url: Url = text.parse().ok()?;
        self.0.iter().any(|base| base.holds(&url)).then_some(url)
    }
}

impl Base {
    fn of(text: &str) -> Option<Self> {
        // A star is nothing that a host can have: it is read without it.
        let (text, is_suffix) = match text.split_once("://*.") {
            Some((scheme, rest)) => (format!("{scheme}://{rest}"), true),
            None => (text.to_owned(), false),
        };
        let url: Url = text.parse().ok()?;
        let host = url.host_str()?.to_owned();
        let is_plain = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        (is_plain && matches!(url.scheme(), "http" | "https")).then(|| Self {
            scheme: url.scheme().to_owned(),
            host: match is_suffix {
                true => Host::EndsWith(format!(".{host}")),
                false => Host::Is(host),
            },
            port: url.port_or_known_default(),
            path: url.path().trim_end_matches('/').to_owned(),
        })
    }

    /// A parsed URL has its host in lower case, and no dots left in its path.
    fn holds(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default();
        let has_host = match &self.host {
            Host::Is(is) => host == is,
            Host::EndsWith(end) => host.ends_with(end.as_str()),
        };
        let rest = url.path().strip_prefix(self.path.as_str());
        has_host
            && url.scheme() == self.scheme
            && url.port_or_known_default() == self.port
            && url.username().is_empty()
            && url.password().is_none()
            && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(bases: &[&str]) -> Allowed {
        let bases: Vec<String> = bases.iter().map(|base| base.to_string()).collect();
        Allowed::new(&bases).unwrap()
    }

    #[test]
    fn only_what_lies_below_a_base_is_allowed() {
        let allowed = allowed(&[
            "https://hooks.slack.com/services/",
            "https://*.push.apple.com",
            "http://127.0.0.1:8065",
        ]);
        for good in [
            "https://hooks.slack.com/services/T/B/x",
            "https://HOOKS.slack.com:443/services/T",
            "https://web.push.apple.com/abc?d",
            "http://127.0.0.1:8065/hooks/x",
        ] {
            assert!(allowed.url(good).is_some(), "{good}");
        }
        for bad in [
            "http://hooks.slack.com/services/T",
            "https://hooks.slack.com/servicesT",
            "https://hooks.slack.com/",
            "https://hooks.slack.com/services/../admin",
            "https://hooks.slack.com/services/%2e%2e/admin",
            "https://hooks.slack.com:8443/services/T",
            "https://hooks.slack.com@evil.example/services/T",
            "https://me@hooks.slack.com/services/T",
            "https://hooks.slack.com.evil.example/services/T",
            "https://evilpush.apple.com/x",
            "https://push.apple.com/x",
            "http://127.0.0.1/hooks",
            "http://127.0.0.1:8066/hooks",
            "http://169.254.169.254/",
            "file:///etc/passwd",
            "services",
            "",
        ] {
            assert!(allowed.url(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_base_that_is_none_is_named() {
        for base in [
            "hooks.slack.com",
            "ftp://x/",
            "https://me:pw@x/",
            "https://x/?y",
            "https://*./",
            "*",
        ] {
            let error = Allowed::new(&[base.to_owned()]).unwrap_err();
            assert!(error.contains("is no base"), "{error}");
        }
    }
}
