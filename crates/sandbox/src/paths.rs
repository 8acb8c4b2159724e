//! What every program may read: the system's libraries and the few settings they look for, no secrets among them.
//!
//! Invariant: nothing under `/etc` is named but single files and directories that are public by their purpose.
//!
//! Source: hier(7); PEP 405 for `pyvenv.cfg`.

use std::path::{Path, PathBuf};

/// Read and execute. Those that are missing are left out.
pub(crate) const SYSTEM: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    // What processes say of others (memory, environment, descriptors) is held by the walls all the same.
    "/proc",
    // How many cores there are: asked by every numerical library.
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/dev/random",
    "/dev/urandom",
    // The loader, users' names, names of machines, the time zone, certificates of public CAs.
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/alternatives",
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/resolv.conf",
    "/etc/gai.conf",
    "/etc/protocols",
    "/etc/services",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/os-release",
    "/etc/debian_version",
    "/etc/mime.types",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/ca-certificates",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust",
];

/// Read and write: devices that keep nothing.
pub(crate) const NOWHERE: &[&str] = &["/dev/null", "/dev/zero", "/dev/full"];

/// The Python environment an executable lies in, and the installation that environment stands on; for any other executable, the
/// file itself.
pub(crate) fn environment_of(executable: &Path) -> Vec<PathBuf> {
    let mut paths = vec![executable.to_path_buf()];
    paths.extend(executable.canonicalize());
    for file in paths.clone() {
        let Some(prefix) = prefix_of(&file) else { continue };
        if let Ok(settings) = std::fs::read_to_string(prefix.join("pyvenv.cfg")) {
            paths.extend(home_in(&settings).and_then(|bin| python_prefix(&bin.join("python3"))));
            paths.push(prefix);
        } else {
            paths.extend(python_prefix(&file));
        }
    }
    paths
}

/// The directory above `bin`, if it is one of its own.
fn prefix_of(file: &Path) -> Option<PathBuf> {
    let bin = file.parent().filter(|bin| bin.ends_with("bin"))?;
    bin.parent().filter(|prefix| prefix.parent().is_some()).map(Path::to_path_buf)
}

/// The prefix of an installed Python, behind all links.
fn python_prefix(python: &Path) -> Option<PathBuf> {
    let prefix = prefix_of(&python.canonicalize().ok()?)?;
    let lib = std::fs::read_dir(prefix.join("lib")).ok()?;
    let is_python = lib.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("python3"));
    is_python.then_some(prefix)
}

/// The `home` of a `pyvenv.cfg`.
fn home_in(settings: &str) -> Option<PathBuf> {
    settings.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        let home = PathBuf::from(value.trim());
        (key.trim() == "home" && home.is_absolute()).then_some(home)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_brings_the_installation_it_stands_on() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        let (installed, venv) = (root.join("opt/python"), root.join("venv"));
        for directory in [installed.join("bin"), installed.join("lib/python3.12"), venv.join("bin")] {
            std::fs::create_dir_all(directory).unwrap();
        }
        std::fs::write(installed.join("bin/python3"), "").unwrap();
        std::fs::write(venv.join("bin/app"), "").unwrap();
        let settings = format!("home = {}\nversion = 3.12\n", installed.join("bin").display());
        std::fs::write(venv.join("pyvenv.cfg"), settings).unwrap();

        let paths = environment_of(&venv.join("bin/app"));
        assert!(paths.contains(&venv) && paths.contains(&installed), "{paths:?}");
        assert!(!paths.contains(&root) && !paths.contains(&root.join("opt")), "{paths:?}");
        assert!(environment_of(&installed.join("bin/python3")).contains(&installed));
    }

    #[test]
    fn a_plain_program_brings_itself_alone() {
        let place = tempfile::tempdir().unwrap();
        let program = place.path().canonicalize().unwrap().join("program");
        std::fs::write(&program, "").unwrap();
        assert!(environment_of(&program).iter().all(|path| *path == program));
        assert_eq!(prefix_of(Path::new("/bin/sh")), None);
    }
}
