//! Which certificates a server is believed with.

use std::fmt;
use std::sync::Arc;

use precedent_core::{Error, ErrorKind, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};
use rustls_platform_verifier::BuilderVerifierExt;

/// The environment variable that names a PEM file: its certificates are trusted, and no others.
pub const CA_FILE_VARIABLE: &str = "PRECEDENT_CA_FILE";

/// The settings for a server that is reached by TLS, or that is not: then no certificate is needed.
pub(super) fn tls_config(used: bool) -> Result<rustls::ClientConfig> {
    let failed = |e: rustls::Error| Error::new(ErrorKind::Internal, format!("TLS cannot be used: {e}"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(failed)?;
    let file = std::env::var_os(CA_FILE_VARIABLE).filter(|file| used && !file.is_empty());
    if !used || file.is_some() {
        let mut roots = rustls::RootCertStore::empty();
        let mut named = Vec::new();
        if let Some(file) = file {
            let path = std::path::Path::new(&file);
            let unreadable = |e: &dyn fmt::Display| {
                Error::invalid(format!("{CA_FILE_VARIABLE} names {}: {e}", path.display()))
            };
            for certificate in CertificateDer::pem_file_iter(path).map_err(|e| unreadable(&e))? {
                let certificate = certificate.map_err(|e| unreadable(&e))?;
                named.push(certificate.clone());
                roots.add(certificate).map_err(|e| unreadable(&e))?;
            }
            if roots.is_empty() {
                return Err(unreadable(&"it holds no certificate"));
            }
        }
        if named.is_empty() {
            return Ok(builder.with_root_certificates(roots).with_no_client_auth());
        }
        let issued = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let issued = issued.map_err(|e| Error::invalid(format!("{CA_FILE_VARIABLE}: {e}")))?;
        let verifier = Arc::new(Named { issued, named });
        return Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth());
    }
    Ok(builder.with_platform_verifier().map_err(failed)?.with_no_client_auth())
}

/// Trusts what the certificates of a file have issued, and those certificates themselves. A certificate that
/// signs itself often says that it is an authority, and webpki refuses an authority as a server's own.
#[derive(Debug)]
struct Named {
    issued: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let issued =
            self.issued.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match issued {
            // webpki looks at the validity time before it looks for an authority; the name comes after both.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(other)))
                if other.to_string() == "CaUsedAsEndEntity" && self.named.contains(end_entity) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            issued => issued,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.issued.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.issued.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.issued.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_named_certificate_that_is_an_authority_is_trusted_for_its_name_while_it_is_valid() {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let make = |until: i32| {
            let mut made = rcgen::CertificateParams::new(vec!["log.example".to_owned()]).unwrap();
            made.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            made.not_before = rcgen::date_time_ymd(2020, 1, 1);
            made.not_after = rcgen::date_time_ymd(until, 1, 1);
            made.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().clone()
        };
        let (good, other, expired) = (make(2040), make(2040), make(2021));
        let named = vec![good.clone(), expired.clone()];
        let mut roots = rustls::RootCertStore::empty();
        named.iter().for_each(|c| roots.add(c.clone()).unwrap());
        let issued = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let verifier = Named { issued, named };
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let verify = |certificate: &CertificateDer<'_>, name: &'static str| {
            let name = ServerName::try_from(name).unwrap();
            verifier.verify_server_cert(certificate, &[], &name, &[], now)
        };
        verify(&good, "log.example").unwrap();
        for (certificate, name, says) in [
            (&good, "evil.example", "name"),
            (&other, "log.example", ""),
            (&expired, "log.example", "expired"),
        ] {
            let error = verify(certificate, name).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
