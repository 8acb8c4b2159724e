//! The names a server is reached by: what its certificate says and what kits tell participants to dial.

use std::net::{IpAddr, SocketAddr};

/// The names for the certificate: those configured, and always this machine's own loopback ones.
pub(crate) fn certificate_names(configured: &[String], bound: SocketAddr) -> Vec<String> {
    let mut names: Vec<String> = configured.to_vec();
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    if !bound.ip().is_unspecified() {
        names.push(bound.ip().to_string());
    }
    names.sort();
    names.dedup();
    names
}

/// The addresses kits carry: every configured name with the port, or the bound address.
pub(crate) fn advertised(configured: &[String], bound: SocketAddr) -> Vec<String> {
    if configured.is_empty() {
        let host = match bound.ip() {
            IpAddr::V6(ip) if !ip.is_unspecified() => format!("[{ip}]"),
            ip if ip.is_unspecified() => "localhost".to_owned(),
            ip => ip.to_string(),
        };
        return vec![format!("{host}:{}", bound.port())];
    }
    configured
        .iter()
        .map(|name| match name.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) => format!("[{ip}]:{}", bound.port()),
            _ => format!("{name}:{}", bound.port()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_address_is_never_advertised() {
        let bound: SocketAddr = "0.0.0.0:7443".parse().unwrap();
        assert_eq!(advertised(&[], bound), ["localhost:7443"]);
        assert_eq!(
            advertised(&["fl.example.org".into(), "::1".into()], bound),
            ["fl.example.org:7443", "[::1]:7443"]
        );
        assert!(!certificate_names(&[], bound).contains(&"0.0.0.0".to_owned()));
    }
}
