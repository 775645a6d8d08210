//! Who is answered: Host and Origin against pages of other sites, and the bearer token.
//!
//! A page of another site can make a browser send requests to `127.0.0.1`. Its `Origin` gives it away; and if
//! it points a name of its own at `127.0.0.1` (DNS rebinding), its `Host` does.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, Uri, header};
use precedent_core::Error;
use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::problem::Problem;

/// The rules of one server.
pub(crate) struct Guard {
    listen: IpAddr,
    tls: bool,
    allowed_hosts: Vec<String>,
    /// The SHA-256 of the token: comparing hashes in constant time does not even tell its length.
    token: Option<[u8; 32]>,
}

impl Guard {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            listen: config.listen.ip(),
            tls: config.tls.is_some(),
            allowed_hosts: config.allowed_hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            token: config.token.as_ref().map(|token| Sha256::digest(token).into()),
        }
    }

    /// Whether the request is meant for this server and comes from somebody who may ask.
    pub(crate) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        let host = self.host(uri, headers)?;
        self.origin(headers, &host)?;
        // An orchestrator asks after the server's health without knowing its token.
        if uri.path() == "/healthz" {
            return Ok(());
        }
        // Through the proxy goes the provider's key, in the header where the token would be.
        if uri.path().starts_with("/proxy/") {
            return self.proxy_token(headers);
        }
        self.token(headers)
    }

    fn host(&self, uri: &Uri, headers: &HeaderMap) -> Result<String, Problem> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let sent = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().ok(),
            _ => None,
        };
        let sent =
            sent.ok_or_else(|| Error::invalid("the request does not have one Host header of ASCII text"))?;
        for authority in [Some(sent), uri.authority().map(|a| a.as_str())].into_iter().flatten() {
            if !self.is_ours(name_of(authority)) {
                return Err(Problem::http(
                    "misdirected",
                    format!("this server does not answer for the host '{}'", authority.escape_debug()),
                ));
            }
        }
        Ok(sent.to_ascii_lowercase())
    }

    fn is_ours(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let bracketed = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let address: Option<IpAddr> = match bracketed {
            Some(six) => six.parse().map(IpAddr::V6).ok(),
            None => name.parse().map(IpAddr::V4).ok(),
        };
        let listed = self.allowed_hosts.contains(&name);
        if listed
            || address.is_some_and(|a| a.is_loopback())
            || name == "localhost"
            || name.ends_with(".localhost")
        {
            return true;
        }
        // Beyond loopback there is always a token, which a rebinding page does not have; names are then only
        // checked when some are given.
        !self.listen.is_loopback() && !name.is_empty() && (address.is_some() || self.allowed_hosts.is_empty())
    }

    fn origin(&self, headers: &HeaderMap, host: &str) -> Result<(), Problem> {
        for origin in headers.get_all(header::ORIGIN) {
            let text = origin.to_str().unwrap_or("null").to_ascii_lowercase();
            let scheme = if self.tls { "https://" } else { "http://" };
            let ours = text.strip_prefix(scheme) == Some(host)
                || text
                    .split_once("://")
                    .is_some_and(|(_, a)| self.allowed_hosts.iter().any(|h| h == name_of(a)));
            if !ours {
                return Err(Problem::http(
                    "forbidden_origin",
                    format!("a page of '{}' may not ask this server", text.escape_debug()),
                ));
            }
        }
        Ok(())
    }

    fn proxy_token(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(expected) = &self.token else { return Ok(()) };
        let mut sent = headers.get_all("precedent-token").iter();
        let sent = match (sent.next(), sent.next()) {
            (Some(value), None) => value.as_bytes().trim_ascii(),
            _ => b"",
        };
        match same(&Sha256::digest(sent).into(), expected) {
            true => Ok(()),
            false => Err(Problem::http(
                "unauthorized",
                "the proxy wants this server's token in the header Precedent-Token, and it is missing or not the right one",
            )),
        }
    }

    fn token(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(expected) = &self.token else { return Ok(()) };
        let mut sent = headers.get_all(header::AUTHORIZATION).iter();
        let bearer = match (sent.next(), sent.next()) {
            (Some(value), None) => value.as_bytes().split_at_checked(7),
            _ => None,
        };
        match bearer {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => {
                let token: [u8; 32] = Sha256::digest(token.trim_ascii()).into();
                if same(&token, expected) {
                    return Ok(());
                }
                Err(Problem::http("unauthorized", "the token is not the right one").with_header(
                    header::WWW_AUTHENTICATE,
                    "Bearer realm=\"precedent\", error=\"invalid_token\"",
                ))
            }
            _ => Err(Problem::http("unauthorized", "the request carries no bearer token")
                .with_header(header::WWW_AUTHENTICATE, "Bearer realm=\"precedent\"")),
        }
    }
}

/// The host of `host` or `host:port`; nothing, which is nobody's name, if it is neither.
fn name_of(authority: &str) -> &str {
    let end = match authority.starts_with('[') {
        true => authority.find(']').map_or(0, |at| at + 1),
        false => authority.find(':').unwrap_or(authority.len()),
    };
    let (name, port) = authority.split_at(end);
    match port.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => name,
        None if port.is_empty() => name,
        _ => "",
    }
}

/// Compares in the same time wherever the first difference is.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    let difference = a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b));
    std::hint::black_box(difference) == 0
}

/// The URL under which a server on `address` is reached from where it runs.
pub(crate) fn url_of(address: SocketAddr, tls: bool) -> String {
    format!("{}://{address}", if tls { "https" } else { "http" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(listen: &str, allowed: &[&str]) -> Guard {
        let mut config = Config::new(listen.parse().unwrap());
        config.allowed_hosts = allowed.iter().map(|&h| h.to_owned()).collect();
        Guard::new(&config)
    }

    #[test]
    fn only_names_that_cannot_be_rebound_are_ours() {
        let local = guard("127.0.0.1:7373", &["log.example"]);
        for ours in
            ["127.0.0.1:7373", "localhost", "LOCALHOST:1", "[::1]:7373", "a.localhost", "log.example:80"]
        {
            assert!(local.is_ours(name_of(ours)), "{ours}");
        }
        for other in
            ["evil.example", "evil.example:7373", "10.0.0.1", "localhost.evil.example", "", "127.0.0.1.evil"]
                .into_iter()
                .chain([
                    "[127.0.0.1]evil.com",
                    "[::1]evil.com",
                    "[::1]:1.evil.com",
                    "[127.0.0.1]",
                    "[::1",
                    "::1",
                ])
                .chain(["localhost:evil.com", "127.0.0.1:80:80"])
        {
            assert!(!local.is_ours(name_of(other)), "{other}");
        }
        let wide = guard("0.0.0.0:7373", &[]);
        assert!(wide.is_ours("log.internal") && wide.is_ours("10.0.0.1"));
        let named = guard("0.0.0.0:7373", &["log.internal"]);
        assert!(named.is_ours("log.internal") && named.is_ours("10.0.0.1") && !named.is_ours("evil.example"));
    }
}
