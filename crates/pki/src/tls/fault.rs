//! Why a TLS connection failed, in words of this system: found in the chain of sources of whatever error came back.

use rustls::{AlertDescription, CertificateError};

use super::ForeignServer;

/// Why a TLS connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsFault {
    /// The server's certificate comes from another CA.
    #[error("the server's certificate was not issued by this federation's CA")]
    ForeignServer,
    /// The server's certificate is for another name.
    #[error("the server's certificate is not for the address that was dialled")]
    WrongServerName,
    /// The server's certificate is not valid now.
    #[error("the server's certificate is not valid at this time: compare the clocks of both machines")]
    ServerExpired,
    /// The server says that the client's certificate is not valid now; a signed request may still renew it.
    #[error(
        "the server says that this certificate is not valid at this time: renew it with a signed request"
    )]
    OwnCertificateExpired,
    /// The server says that it does not accept the client's certificate.
    #[error("the server does not accept this certificate: it is of another CA or not for client use")]
    OwnCertificateRefused,
    /// The other end speaks no TLS 1.3.
    #[error("the other end does not speak TLS 1.3")]
    NoTls13,
}

impl TlsFault {
    /// Looks for a TLS failure in `error` and its sources.
    pub fn of(error: &(dyn std::error::Error + 'static)) -> Option<TlsFault> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(fault) = error.downcast_ref::<rustls::Error>().and_then(of_rustls) {
                return Some(fault);
            }
            // An I/O error names the source of what it wraps as its own, so what it wraps is asked for separately.
            next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
                Some(wrapped) => Some(wrapped),
                None => error.source(),
            };
        }
        None
    }
}

fn of_rustls(error: &rustls::Error) -> Option<TlsFault> {
    match error {
        rustls::Error::Other(other) => {
            other.0.downcast_ref::<ForeignServer>().map(|_| TlsFault::ForeignServer)
        }
        rustls::Error::InvalidCertificate(reason) => of_certificate(reason),
        rustls::Error::AlertReceived(alert) => of_alert(*alert),
        rustls::Error::PeerIncompatible(_) => Some(TlsFault::NoTls13),
        _ => None,
    }
}

fn of_certificate(reason: &CertificateError) -> Option<TlsFault> {
    match reason {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Some(TlsFault::WrongServerName)
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => Some(TlsFault::ServerExpired),
        CertificateError::UnknownIssuer => Some(TlsFault::ForeignServer),
        _ => None,
    }
}

fn of_alert(alert: AlertDescription) -> Option<TlsFault> {
    match alert {
        AlertDescription::CertificateExpired => Some(TlsFault::OwnCertificateExpired),
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::DecryptError => Some(TlsFault::OwnCertificateRefused),
        AlertDescription::ProtocolVersion => Some(TlsFault::NoTls13),
        _ => None,
    }
}
