//! An address that is this machine's own: what may be served there need not be encrypted.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A loopback address and a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "SocketAddr", into = "SocketAddr")]
pub struct LoopbackAddr(SocketAddr);

impl LoopbackAddr {
    /// The address.
    pub fn get(self) -> SocketAddr {
        self.0
    }
}

impl TryFrom<SocketAddr> for LoopbackAddr {
    type Error = String;

    fn try_from(address: SocketAddr) -> Result<LoopbackAddr, String> {
        match address.ip().is_loopback() {
            true => Ok(LoopbackAddr(address)),
            false => Err(format!("{address} is no loopback address; plaintext never leaves this machine")),
        }
    }
}

impl From<LoopbackAddr> for SocketAddr {
    fn from(address: LoopbackAddr) -> SocketAddr {
        address.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machines_own_addresses_are_taken() {
        let read = |text: &str| LoopbackAddr::try_from(text.parse::<SocketAddr>().unwrap());
        for here in ["127.0.0.1:0", "127.1.2.3:80", "[::1]:7"] {
            assert_eq!(read(here).unwrap().get().to_string(), here);
        }
        for elsewhere in ["0.0.0.0:0", "10.0.0.1:80", "[::]:7", "192.168.0.1:1"] {
            assert!(read(elsewhere).unwrap_err().contains("loopback"), "{elsewhere}");
        }
    }
}
