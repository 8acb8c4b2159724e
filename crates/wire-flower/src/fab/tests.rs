//! A bundle of the stock library, and archives made by hand with one thing wrong.

use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::*;

const GOLDEN: &[u8] = include_bytes!("../../testdata/flower/1.42.0/app.fab");
const PROJECT: &str = "[project]\nname = 'n'\nversion = '1'\n[tool.flwr.app]\npublisher = 'p'\n\
    [tool.flwr.app.components]\nserverapp = 'a:b'\nclientapp = 'a:c'\n";

/// An entry as its headers tell it; stored.
#[derive(Clone)]
struct Entry {
    name: Vec<u8>,
    bytes: Vec<u8>,
    flags: u16,
    mode: u32,
    size: Option<u32>,
    extra: Vec<u8>,
}

fn entry(name: impl AsRef<[u8]>, bytes: impl AsRef<[u8]>) -> Entry {
    let (name, bytes) = (name.as_ref().to_vec(), bytes.as_ref().to_vec());
    Entry { name, bytes, flags: 0, mode: 0o600, size: None, extra: Vec::new() }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    })
}

fn archive(entries: &[Entry]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let at = u32::try_from(out.len()).unwrap();
        let len = u32::try_from(entry.bytes.len()).unwrap();
        let mut shared = [20u16, entry.flags, 0, 0, 0x5941].map(u16::to_le_bytes).concat();
        shared.extend([crc32(&entry.bytes), len, entry.size.unwrap_or(len)].map(u32::to_le_bytes).concat());
        let lens = [entry.name.len(), entry.extra.len()].map(|len| u16::try_from(len).unwrap().to_le_bytes());
        shared.extend(lens.concat());
        out.extend([b"PK\x03\x04", &shared[..], &entry.name, &entry.extra, &entry.bytes].concat());
        directory.extend([b"PK\x01\x02\x14\x03", &shared[..], &[0; 6]].concat());
        directory.extend([entry.mode << 16, at].map(u32::to_le_bytes).concat());
        directory.extend([&entry.name[..], &entry.extra].concat());
    }
    let (at, len) = (u32::try_from(out.len()).unwrap(), u32::try_from(directory.len()).unwrap());
    let count = u16::try_from(entries.len()).unwrap();
    out.extend(&directory);
    out.extend([b"PK\x05\x06\0\0\0\0", &[count, count].map(u16::to_le_bytes).concat()[..]].concat());
    out.extend([len, at].map(u32::to_le_bytes).concat());
    out.extend([0; 2]);
    out
}

fn with(extra: Entry) -> Vec<u8> {
    archive(&[entry("pyproject.toml", PROJECT), extra])
}

fn project(text: impl AsRef<[u8]>) -> Result<Fab, FabError> {
    check(&archive(&[entry("pyproject.toml", text)]))
}

fn deflated(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, bytes) in files {
        writer.start_file(*name, options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn the_stock_bundle_is_understood() {
    let fab = check(GOLDEN).unwrap();
    assert_eq!((fab.id.as_str(), fab.version.as_str()), ("clover/meadow", "1.2.3"));
    assert_eq!(fab.hash.to_string(), "21add8e98eced3a585f68d682ab1bea2bdab0b7e0d59153333f1d592e9433405");
    assert_eq!(fab.server_app.as_deref(), Some("meadow.server:app"));
    assert_eq!(fab.client_app.as_deref(), Some("meadow.client:app"));
    let config = [
        ("rounds", ConfigScalar::Int(3)),
        ("rate", ConfigScalar::Float(0.5)),
        ("shuffle", ConfigScalar::Bool(true)),
        ("name", ConfigScalar::Text("café".to_owned())),
        ("optimiser.momentum", ConfigScalar::Float(0.9)),
        ("optimiser.inner.steps", ConfigScalar::Int(7)),
    ];
    assert_eq!(fab.config, config.map(|(key, value)| (key.to_owned(), value)).into());
    let overrides = |key: &str| BTreeMap::from([(key.to_owned(), proto::Scalar::default())]);
    assert_eq!(check_overrides(&fab, &overrides("optimiser.momentum")), Ok(()));
    let unknown = FabError::UnknownKey { key: "optimiser".to_owned() };
    assert_eq!(check_overrides(&fab, &overrides("optimiser")), Err(unknown));
}

#[test]
fn a_changed_or_shortened_bundle_is_never_taken_for_the_stock_one() {
    for at in 0..GOLDEN.len() {
        let mut changed = GOLDEN.to_vec();
        changed[at] ^= 0x41;
        // Only dates, versions and attributes may change unnoticed: they say nothing that is read.
        if let Ok(fab) = check(&changed) {
            let stock = Fab { hash: fab.hash, ..check(GOLDEN).unwrap() };
            assert_eq!(fab, stock, "byte {at}");
        }
        assert!(check(&GOLDEN[..at]).is_err(), "the first {at} bytes");
    }
}

#[test]
fn plain_and_deflated_archives_without_a_list_are_read() {
    assert_eq!(check(&with(entry("src/a.py", "x"))).unwrap().id, "p/n");
    let folder = Entry { mode: 0o040_755, ..entry("src/", "") };
    assert!(check(&archive(&[entry("pyproject.toml", PROJECT), folder, entry("src/a.py", "x")])).is_ok());
    assert!(check(&deflated(&[("pyproject.toml", PROJECT.as_bytes()), ("z", &[0; 60_000])])).is_ok());
    let utf8 = Entry { flags: 1 << 11, ..entry("é.py", "") };
    assert!(check(&with(utf8)).is_ok());
}

#[test]
fn dangerous_paths_are_refused() {
    for name in [
        "../a",
        "a/../b",
        "..",
        "/etc/passwd",
        "a\\b",
        "C:a",
        "c:/a",
        "a\0b",
        "a\nb",
        "",
        "./a",
        "a//b",
        "a/.",
        "/",
        "pyproject.toml",
        "pyproject.toml/",
        "pyproject.toml/a",
        &"a".repeat(600),
    ] {
        let error = check(&with(entry(name, ""))).expect_err(name);
        assert!(matches!(error, FabError::Entry { .. } | FabError::Archive { .. }), "{name:?}: {error}");
        assert!(error.to_string().len() < 200, "{error}");
    }
    let refusal = |entry| check(&with(entry)).unwrap_err().to_string();
    assert_eq!(refusal(entry("a/../b", "")), "the entry \"a/../b\" is refused: its path leads upwards");
    assert!(refusal(Entry { mode: 0o120_777, ..entry("l", "x") }).contains("it is a link"));
    assert!(refusal(Entry { mode: 0o010_600, ..entry("l", "x") }).contains("neither a file"));
    assert!(refusal(entry("é.py", "")).contains("not UTF-8"));
    assert!(refusal(Entry { flags: 1, ..entry("e", "secret") }).contains("encrypted"));
    assert!(refusal(entry("d/", "x")).contains("directory with content"));
    let unicode_path = [b"\x75\x70\x06\x00\x01", &crc32(b"u").to_le_bytes()[..], b"v"].concat();
    let time = b"\x55\x54\x05\x00\x01\0\0\0\0".to_vec();
    for extra in [unicode_path.clone(), [&time[..], &unicode_path].concat(), vec![1, 0, 0, 0]] {
        assert!(refusal(Entry { extra, ..entry("u", "") }).contains("twice"));
    }
    assert!(check(&with(Entry { extra: time, ..entry("u", "") })).is_ok());
}

#[test]
fn what_headers_claim_must_be_so() {
    for size in [0, 1, 3, u32::MAX] {
        assert!(check(&with(Entry { size: Some(size), ..entry("a", "xx") })).is_err(), "{size}");
    }
    let good = with(entry("a", "xx"));
    for (what, bytes) in [
        ("before", [b"x", &good[..]].concat()),
        ("behind", [&good[..], b"x"].concat()),
        ("comment", [&good[..good.len() - 2], b"\x01\0x"].concat()),
        ("nothing", Vec::new()),
    ] {
        assert!(matches!(check(&bytes), Err(FabError::Archive { .. })), "{what}");
    }
    let long = vec![0; FAB_LEN_MAX + 1];
    assert!(matches!(check(&long), Err(FabError::TooLong { .. })));
}

#[test]
fn bombs_are_stopped_while_they_unfold() {
    let zeros = vec![0; 9 * 1_024 * 1_024];
    let bomb = deflated(&[("pyproject.toml", PROJECT.as_bytes()), ("bomb", &zeros)]);
    assert!(bomb.len() < 100_000);
    assert_eq!(check(&bomb), Err(FabError::Ratio { entry: "bomb".to_owned(), max: 200 }));
    let many: Vec<String> = (0..1_100).map(|n| format!("{n}")).collect();
    let piece = vec![0; 64 * 1_024];
    let files: Vec<(&str, &[u8])> = many.iter().map(|name| (name.as_str(), &piece[..])).collect();
    assert_eq!(check(&deflated(&files)), Err(FabError::TotalTooLong { max: 64 * 1_024 * 1_024 }));
    let crowd: Vec<Entry> = (0..10_001).map(|n| entry(format!("{n}"), "")).collect();
    assert_eq!(check(&archive(&crowd)), Err(FabError::TooManyEntries { count: 10_001, max: 10_000 }));
    let long = "#".repeat(1_024 * 1_024 + 1);
    assert!(matches!(project(long), Err(FabError::TooLong { .. })));
}

#[test]
fn the_list_is_verified() {
    let listed = |list: &str| {
        check(&archive(&[entry("pyproject.toml", PROJECT), entry("a", "xx"), entry(".info/CONTENT", list)]))
    };
    let line = |path: &str, text: &str| format!("{path},{},{}", Digest::of(text.as_bytes()), text.len() * 8);
    let (first, second) = (line("pyproject.toml", PROJECT), line("a", "xx"));
    assert!(listed(&format!("{first}\n{second}")).is_ok());
    assert!(listed(&format!("{second}\n{first}\n")).is_ok());
    assert_eq!(listed(&first), Err(FabError::Unlisted { entry: "a".to_owned() }));
    for wrong in [line("a", "xy"), second.replace(",16", ",8"), second.to_uppercase().replacen('A', "a", 1)] {
        let differs = FabError::ContentDiffers { entry: "a".to_owned() };
        assert_eq!(listed(&format!("{first}\n{wrong}")), Err(differs), "{wrong}");
    }
    for wrong in [line("b", ""), format!("{second},"), "a".to_owned(), String::new(), first.clone()] {
        let error = listed(&format!("{first}\n{wrong}\n{second}")).unwrap_err();
        assert!(matches!(error, FabError::Content { line: 2, .. }), "{wrong:?}: {error}");
    }
}

#[test]
fn the_project_is_read_as_upstream_reads_it() {
    let missing = check(&archive(&[entry("a", "")]));
    assert_eq!(missing, Err(FabError::NoProject));
    assert!(matches!(project(b"\xff"), Err(FabError::Entry { .. })));
    assert!(matches!(project("["), Err(FabError::Project { .. })));
    for (from, to) in [
        ("name = 'n'", ""),
        ("version = '1'", ""),
        ("publisher = 'p'", ""),
        ("serverapp = 'a:b'", ""),
        ("name = 'n'", "name = ' '"),
        ("name = 'n'", "name = 1"),
        ("'1'", "'../1'"),
        ("'p'", "'p\\q'"),
        ("'a:b'", "'a'"),
        ("'a:b'", "':b'"),
        ("'a:c'", "'a:'"),
        ("'p'", "'p'\nfab-format-version = 2"),
        ("'p'", "'p'\nconfig = 1"),
        ("'p'", "'p'\nconfig.a = [1]"),
        ("'p'", "'p'\nconfig.a = 2024-10-01"),
        ("'p'", "'p'\nconfig = { 'a.b' = 1, a.b = 2 }"),
    ] {
        let error = project(PROJECT.replacen(from, to, 1)).expect_err(to);
        assert!(matches!(error, FabError::Missing { .. } | FabError::Field { .. }), "{to:?}: {error}");
    }
    let agent = PROJECT.replacen("serverapp = 'a:b'\nclientapp = 'a:c'", "agentapp = 'a:b'", 1);
    assert_eq!(project(agent).unwrap().server_app, None);
    let deep = format!("{PROJECT}[tool.flwr.app.config{}]\nx = 1\n", ".a".repeat(100_000));
    assert!(matches!(project(deep), Err(FabError::Project { .. })));
}

#[test]
fn a_directory_becomes_the_bundle_that_upstreams_command_would_make() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/interop/flower/app");
    let bundle = build(&dir).unwrap();
    let fab = check(&bundle).unwrap();
    assert_eq!((fab.id.as_str(), fab.client_app.as_deref()), ("sheaf/judged", Some("judged.client_app:app")));
    assert_eq!(build(&dir).unwrap(), bundle, "the same files are the same bundle");
    let archive = zip::ZipArchive::new(Cursor::new(bundle)).unwrap();
    let names: Vec<_> = archive.file_names().map(|name| name.unwrap().into_owned()).collect();
    let expected = [
        "pyproject.toml",
        "judged/__init__.py",
        "judged/client_app.py",
        "judged/content.py",
        "judged/server_app.py",
        ".info/CONTENT",
    ];
    assert_eq!(names, expected);
    let missing = build(&dir.join("judged")).unwrap_err();
    assert!(missing.starts_with("pyproject.toml cannot be read"), "{missing}");
}

#[test]
fn a_project_file_of_too_many_tables_is_refused_before_it_is_parsed() {
    let more = |num: usize| project(format!("{PROJECT}[tool.x]\ny = [{}]\n", "[],".repeat(num)));
    assert!(more(10_000).is_ok(), "more than a plan may have");
    let refused = more(PROJECT_MARKS_MAX).unwrap_err();
    assert!(
        matches!(&refused, FabError::Project { reason } if reason.contains("opening brackets")),
        "{refused}"
    );
    // What is no TOML at all is refused for its marks as well: it was not parsed.
    let refused = project("x = [".repeat(PROJECT_MARKS_MAX + 1)).unwrap_err();
    assert!(
        matches!(&refused, FabError::Project { reason } if reason.contains("opening brackets")),
        "{refused}"
    );
}
