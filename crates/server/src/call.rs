//! One request, taken apart: the log, the parts of the path, and the query parameters.

use std::str::FromStr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Extensions, HeaderMap, Method, header};
use percent_encoding::percent_decode;
use precedent_core::{Error, LogName, Result};
use tokio::sync::OwnedSemaphorePermit;

use crate::app::App;

/// A request on its way to its route.
pub(crate) struct Call {
    pub(crate) app: Arc<App>,
    pub(crate) log: LogName,
    /// The variable parts of the path, decoded.
    pub(crate) path: Vec<(String, String)>,
    pub(crate) query: Parameters,
    /// That of the route, or HEAD where it is GET.
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    /// What the connection has to offer: that it can become a WebSocket.
    pub(crate) extensions: Extensions,
    pub(crate) body: Body,
    /// The place among the requests, until the answer has begun or has become a stream.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

impl Call {
    /// The variable part of the path with this name.
    pub(crate) fn part(&self, name: &str) -> &str {
        self.path.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }

    /// Takes the body, to read it while the rest of the call stays at hand.
    pub(crate) fn take_body(&mut self) -> Body {
        std::mem::replace(&mut self.body, Body::empty())
    }

    /// The media type of the body: its essence in lower case.
    pub(crate) fn media_type(&self) -> Option<String> {
        let value = self.headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        Some(value.split(';').next().unwrap_or("").trim().to_ascii_lowercase())
    }
}

/// The parameters of a query string.
#[derive(Debug, Default)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Takes a query string apart. Names that `known` does not list are refused, and what is not UTF-8.
    pub(crate) fn parse(query: &str, known: &[&str]) -> Result<Self> {
        let mut parameters = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text: &str| -> Result<String, &'static str> {
                let hex = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
                let mut escapes = text.split('%').skip(1).map(str::as_bytes);
                if !escapes.all(|rest| hex(rest.first()) && hex(rest.get(1))) {
                    return Err("has a '%' without two hexadecimal digits behind it");
                }
                let text = text.replace('+', " ");
                let text = percent_decode(text.as_bytes()).decode_utf8();
                text.map(|t| t.into_owned()).map_err(|_| "is not UTF-8 once decoded")
            };
            let name = decode(name)
                .map_err(|what| Error::invalid(format!("the name of a query parameter {what}")))?;
            if !known.contains(&name.as_str()) {
                let known = match known {
                    [] => "it takes none".to_owned(),
                    known => format!("it takes {}", known.join(", ")),
                };
                return Err(Error::invalid(format!(
                    "'{}' is no query parameter of this path: {known}",
                    name.chars().take(64).collect::<String>().escape_debug()
                )));
            }
            let value =
                decode(value).map_err(|what| Error::invalid(format!("query parameter '{name}' {what}")))?;
            parameters.push((name, value));
        }
        Ok(Self(parameters))
    }

    /// All values of a parameter that may stand several times.
    pub(crate) fn all<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// All parameters, in their order.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of a parameter that may stand once.
    pub(crate) fn one(&self, name: &str) -> Result<Option<&str>> {
        let mut values = self.all(name);
        let first = values.next();
        match values.count() {
            0 => Ok(first),
            more => Err(Error::invalid(format!("query parameter '{name}' stands {} times", more + 1))),
        }
    }

    /// The value of a parameter that may stand once, read as `T`.
    pub(crate) fn parsed<T: FromStr<Err = Error>>(&self, name: &str) -> Result<Option<T>> {
        let value = self.one(name)?;
        value.map(|v| v.parse().map_err(|e| named(name, &e))).transpose()
    }

    /// The value of a parameter that is a whole number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>> {
        let parse = |text: &str| {
            let shown = text.chars().take(64).collect::<String>();
            let bad = || format!("'{}' is not a whole number from 0", shown.escape_debug());
            text.parse().map_err(|_| named(name, &Error::invalid(bad())))
        };
        self.one(name)?.map(parse).transpose()
    }

    /// The value of a parameter that is true or false; its name alone means true.
    pub(crate) fn flag(&self, name: &str) -> Result<bool> {
        match self.one(name)? {
            None | Some("false" | "0") => Ok(false),
            Some("" | "true" | "1") => Ok(true),
            Some(other) => {
                let shown = other.chars().take(64).collect::<String>();
                Err(named(name, &Error::invalid(format!("'{}' is not true or false", shown.escape_debug()))))
            }
        }
    }
}

/// An error about the value of a query parameter.
pub(crate) fn named(name: &str, error: &Error) -> Error {
    error.clone().context(format!("query parameter '{name}'"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use precedent_core::Position;

    #[test]
    fn parameters_are_decoded_and_the_unknown_and_the_double_are_refused() {
        let known = ["tag", "after", "follow"];
        let p = Parameters::parse("tag=a%3Db+c&tag=%C3%A4=1&&after=7&follow", &known).unwrap();
        assert_eq!(p.all("tag").collect::<Vec<_>>(), ["a=b c", "ä=1"]);
        assert_eq!(p.parsed("after").unwrap(), Some(Position(7)));
        assert!(p.flag("follow").unwrap());
        assert!(p.one("tag").unwrap_err().message().contains("'tag' stands 2 times"));
        for (bad, says) in [
            ("tags=1", "'tags'"),
            ("tag=%ff", "'tag'"),
            ("%ff=1", "UTF-8"),
            ("tag=a%zz", "'tag' has a '%'"),
            ("tag=%4", "'%'"),
            ("t%=1", "name"),
        ] {
            let error = Parameters::parse(bad, &known).unwrap_err();
            assert!(error.message().contains(says), "{error}");
        }
        let p = Parameters::parse("after=-1&follow=maybe", &known).unwrap();
        assert!(p.parsed::<Position>("after").unwrap_err().message().contains("'after'"));
        assert!(p.flag("follow").unwrap_err().message().contains("'follow'"));
    }
}
