//! The store's URL, which may carry a password: whatever prints a configuration hides it.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize, Serializer};

/// What stands where a password was.
const HIDDEN: &str = "hidden";

/// Where documents are kept: `sqlite:PATH`, `memory:`. Its `Debug`, `Display` and serialised forms hide a password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct StoreUrl(String);

impl StoreUrl {
    /// The embedded database in a data directory.
    pub fn sqlite_in(data: &Path) -> Self {
        Self(format!("sqlite:{}", data.join("syncline.db").display()))
    }

    /// The URL as configured, with its password. For opening the store and nothing else.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether documents are gone when the process ends.
    pub fn is_memory(&self) -> bool {
        self.0 == "memory:"
    }

    /// The URL with `hidden` in place of a password.
    pub fn redacted(&self) -> String {
        let (url, query) = match self.0.split_once('?') {
            Some((url, query)) => (url, Some(query)),
            None => (&*self.0, None),
        };
        let mut out = redact_authority(url);
        if let Some(query) = query {
            let pairs = query.split('&').map(|pair| match pair.split_once('=') {
                Some((key, _)) if key.to_ascii_lowercase().contains("password") => {
                    format!("{key}={HIDDEN}")
                }
                Some(_) | None => pair.to_owned(),
            });
            out.push('?');
            out.push_str(&pairs.collect::<Vec<_>>().join("&"));
        }
        out
    }
}

/// `scheme://user:password@host/path` without the password. The last `@` of the URL ends the user information, since
/// people forget to encode one in a password.
fn redact_authority(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    match rest.rsplit_once('@') {
        Some((user_info, host)) => match user_info.split_once(':') {
            Some((user, _)) => format!("{scheme}://{user}:{HIDDEN}@{host}"),
            None => url.to_owned(),
        },
        None => url.to_owned(),
    }
}

impl From<&str> for StoreUrl {
    fn from(url: &str) -> Self {
        Self(url.to_owned())
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.redacted())
    }
}

impl Serialize for StoreUrl {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&self.redacted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_hidden_wherever_it_stands() {
        for (url, shown) in [
            ("sqlite:data/syncline.db", "sqlite:data/syncline.db"),
            ("memory:", "memory:"),
            ("postgres://db/syncline", "postgres://db/syncline"),
            ("postgres://me@db/syncline", "postgres://me@db/syncline"),
            (
                "postgres://me:s3cret@db:5432/x",
                "postgres://me:hidden@db:5432/x",
            ),
            ("postgres://me:s3/c@r:et@db/x", "postgres://me:hidden@db/x"),
            (
                "postgres://db/x?user=me&password=s3cret&ssl=on",
                "postgres://db/x?user=me&password=hidden&ssl=on",
            ),
        ] {
            let url = StoreUrl::from(url);
            assert_eq!(url.redacted(), shown);
            assert!(!format!("{url:?}{url}").contains("s3"), "{url:?}");
        }
    }
}
