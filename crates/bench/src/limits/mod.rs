//! What the machine allows: small fixed programs, run beside a load, that do the part of its work nobody can leave out.
//!
//! Received bytes must be copied out of the kernel and hashed; kept bytes must be written. What a server spends beyond that is its own.
//! Rates are CPU time of the thread that does the work unless a field says wall time.

pub mod disk;
mod hash;
mod memory;
mod net;

use serde::{Deserialize, Serialize};

pub use hash::sha256_s_per_gb;
pub use memory::{read_gb_per_cpu_s, read_gb_per_s};
pub use net::{Sealing, Transfer, transfer};

use std::path::Path;

use crate::Error;

/// Bytes of a GB.
pub const GB: f64 = 1e9;

/// What a GB costs at least.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Hashing one GB, CPU seconds: SHA-256 over 64 MiB, two pieces at a time where the processor allows it.
    pub hash_cpu_s_per_gb: f64,
    /// Taking one GB out of a loopback connection, CPU seconds.
    pub tcp_receive_cpu_s_per_gb: f64,
    /// Putting one GB into a loopback connection, CPU seconds.
    pub tcp_send_cpu_s_per_gb: f64,
    /// Receiving over TLS 1.3, the connection included; 0 when it was not measured.
    pub tls_receive_cpu_s_per_gb: f64,
    /// Sending over TLS 1.3, the connection included; 0 when it was not measured.
    pub tls_send_cpu_s_per_gb: f64,
    /// The disk.
    #[serde(flatten)]
    pub disk: disk::Rates,
}

impl Limits {
    /// Measures all of them; `bytes` go through each connection and onto the disk below `dir`. Blocks.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Pki`] when the machine does not let us measure.
    pub fn measure(dir: &Path, bytes: u64, sealing: Sealing) -> Result<Limits, Error> {
        let plain = net::transfer(bytes, Sealing::Plain)?;
        let sealed = match sealing {
            Sealing::Plain => Transfer::default(),
            Sealing::Tls => net::transfer(bytes, Sealing::Tls)?,
        };
        Ok(Limits {
            hash_cpu_s_per_gb: sha256_s_per_gb(),
            tcp_receive_cpu_s_per_gb: plain.receive_cpu_s_per_gb,
            tcp_send_cpu_s_per_gb: plain.send_cpu_s_per_gb,
            tls_receive_cpu_s_per_gb: sealed.receive_cpu_s_per_gb,
            tls_send_cpu_s_per_gb: sealed.send_cpu_s_per_gb,
            disk: disk::rates(dir, bytes)?,
        })
    }

    /// CPU seconds it costs at least to receive and verify one GB.
    pub fn verified_receive_cpu_s_per_gb(&self, sealing: Sealing) -> f64 {
        self.receive(sealing) + self.hash_cpu_s_per_gb
    }

    /// The most bytes a CPU second receives and verifies, in GB: `1 / (tcp + hash)`, with TLS `1 / (tcp + tls + hash)`.
    pub fn verified_gb_per_cpu_s(&self, sealing: Sealing) -> f64 {
        1.0 / self.verified_receive_cpu_s_per_gb(sealing)
    }

    /// The least a round can take on this machine, in seconds.
    ///
    /// `max(CPU ÷ cores, disk)`. CPU, both sides: every client receives and verifies the model, and makes the digest of its update
    /// and sends it; the server sends and receives them and verifies every update. Disk: every update and the new model is
    /// written once, every update is read once.
    pub fn round_seconds(&self, model_bytes: u64, clients: u32, cores: usize, sealing: Sealing) -> f64 {
        let model_gb = gb(model_bytes);
        let moved_gb = model_gb * f64::from(clients);
        let way = self.receive(sealing) + self.send(sealing);
        // Down and up; three hashes: a client of the model, a client of its update, the server of the update.
        let cpu = moved_gb * (2.0 * way + 3.0 * self.hash_cpu_s_per_gb);
        let written = (moved_gb + model_gb) / self.disk.disk_write_gb_per_s;
        let disk = written + moved_gb / self.disk.disk_read_gb_per_s;
        #[expect(clippy::cast_precision_loss, reason = "the cores of a machine")]
        let cores = cores as f64;
        (cpu / cores).max(disk)
    }

    fn receive(&self, sealing: Sealing) -> f64 {
        match sealing {
            Sealing::Plain => self.tcp_receive_cpu_s_per_gb,
            Sealing::Tls => self.tls_receive_cpu_s_per_gb,
        }
    }

    fn send(&self, sealing: Sealing) -> f64 {
        match sealing {
            Sealing::Plain => self.tcp_send_cpu_s_per_gb,
            Sealing::Tls => self.tls_send_cpu_s_per_gb,
        }
    }
}

/// Bytes as GB.
#[expect(clippy::cast_precision_loss, reason = "a rate has few digits")]
pub fn gb(bytes: u64) -> f64 {
    bytes as f64 / GB
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_positive_and_tls_costs_more() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits::measure(dir.path(), 16 << 20, Sealing::Tls).unwrap();
        assert!(limits.hash_cpu_s_per_gb > 0.0 && limits.tcp_receive_cpu_s_per_gb > 0.0, "{limits:?}");
        assert!(limits.tls_receive_cpu_s_per_gb > limits.tcp_receive_cpu_s_per_gb, "{limits:?}");
        let (plain, tls) =
            (limits.verified_gb_per_cpu_s(Sealing::Plain), limits.verified_gb_per_cpu_s(Sealing::Tls));
        assert!(plain > tls && tls > 0.0 && plain.is_finite());
        assert!(limits.round_seconds(1 << 30, 4, 2, Sealing::Tls) > 0.0);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "a probe was left behind");
    }

    #[test]
    fn a_round_takes_the_longer_of_cpu_and_disk() {
        let disk = disk::Rates {
            disk_write_gb_per_s: 2.0,
            disk_read_gb_per_s: 4.0,
            disk_is_direct: true,
            fdatasync_ms: 0.1,
        };
        let limits = Limits {
            hash_cpu_s_per_gb: 0.5,
            tcp_receive_cpu_s_per_gb: 0.2,
            tcp_send_cpu_s_per_gb: 0.1,
            tls_receive_cpu_s_per_gb: 0.6,
            tls_send_cpu_s_per_gb: 0.4,
            disk,
        };
        // 4 GB each way: CPU 4 × (2 × 0.3 + 1.5) = 8.4 s; disk 5 / 2 + 4 / 4 = 3.5 s.
        let round = |cores| limits.round_seconds(1_000_000_000, 4, cores, Sealing::Plain);
        assert!((round(2) - 4.2).abs() < 1e-9 && (round(8) - 3.5).abs() < 1e-9);
        assert!((limits.verified_gb_per_cpu_s(Sealing::Tls) - 1.0 / 1.1).abs() < 1e-9);
    }
}
