//! Every bench, run small: its figures are there, finite and positive. How large they are is for the machine to say.

use serde_json::Value;

use crate::world::World;

/// The number under a path such as `limits.hash_cpu_s_per_gb`, which must be positive and finite.
#[track_caller]
fn positive(report: &Value, path: &str) -> f64 {
    let pointer = format!("/{}", path.replace('.', "/"));
    let value = report.pointer(&pointer).and_then(Value::as_f64);
    let value = value.unwrap_or_else(|| panic!("{path} is no number in {report}"));
    assert!(value.is_finite() && value > 0.0, "{path} is {value}");
    value
}

/// Every field the page on performance explains is in the report, and the other way round.
#[track_caller]
fn is_documented(report: &Value, section: &str) {
    let page = include_str!("../../../../docs/performance.md");
    let from = page.find(&format!("### `{section}`")).unwrap_or_else(|| panic!("no section {section}"));
    let section = &page[from..];
    let section = section[4..].find("\n### ").map_or(section, |end| &section[..end + 4]);
    let explained = |field: &str| section.contains(&format!("`{field}`"));
    for (field, value) in report.as_object().unwrap() {
        assert!(explained(field), "{field} is not explained");
        let first = value.as_array().map_or(Some(value), |list| list.first());
        for inner in first.and_then(Value::as_object).into_iter().flat_map(|inner| inner.keys()) {
            assert!(explained(inner), "{field}: {inner} is not explained");
        }
    }
}

#[test]
fn an_exchange_reads_takes_in_folds_and_publishes_whole_models() {
    let world = World::new();
    for (transport, more) in [("grpc", "--data-dir kept"), ("https", ""), ("grpc", "--plain")] {
        let size = "--size 24MB --clients 3 --rounds 2 --probe 32MiB --inflight 16MiB";
        let report = world.json(&format!("bench exchange {size} --transport {transport} {more}"));
        let tls = more != "--plain";
        assert_eq!(report["sealing"], if tls { "tls" } else { "plain" });
        is_documented(&report, "exchange");
        for field in [
            "seconds_per_round",
            "ratio_to_round_limit",
            "server_peak_rss_bytes",
            "server_cpu_seconds",
            "ingest_gb_per_cpu_s",
            "limit_gb_per_cpu_s",
            "ratio_to_limit",
            "broadcast_gb_per_cpu_s",
            "limits.hash_cpu_s_per_gb",
            "limits.disk_write_gb_per_s",
        ] {
            positive(&report, field);
        }
        assert_eq!(report["model_bytes"], 24_000_000);
        assert_eq!(report["clients"], 3);
        let parts: Vec<&str> = report["stages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|stage| stage["stage"].as_str().unwrap())
            .collect();
        assert_eq!(parts, ["read", "upload", "gate", "fold"]);
        let seconds: f64 =
            report["stages"].as_array().unwrap().iter().map(|stage| stage["seconds"].as_f64().unwrap()).sum();
        let round = positive(&report, "seconds_per_round");
        assert!((seconds - round).abs() < 0.01, "the parts of a round take {seconds} s of {round} s");
    }
    assert!(world.path("kept/server/blobs").is_dir());
    world.refused(6, "bench exchange --size 1MB --data-dir kept");
}

#[test]
fn a_model_in_a_file_is_exchanged_as_it_is() {
    let world = World::new();
    world.model("small.safetensors", &[1.0; 5_000]);
    let report = world.json("bench exchange --model small.safetensors --clients 2 --rounds 1 --probe 4MiB");
    assert_eq!((&report["model_bytes"], &report["tensors"]), (&20_000.into(), &1.into()));
    world.refused(2, "bench exchange --model nosuch");
    let error = world.refused(5, "bench exchange --size 900TB --clients 1");
    assert!(error.contains("are needed") && error.contains("are free"), "{error}");
}

#[test]
fn polls_are_counted_and_none_fails() {
    let world = World::new();
    let report =
        world.json("bench polls --connections 20 --beat 200ms --poll 50ms --duration 2s --probe 4MiB");
    is_documented(&report, "polls");
    assert_eq!(report["errors"], 0, "{report}");
    assert_eq!(report["connections"], 20);
    for field in ["polls", "beats", "latency_p99_ms", "rss_per_connection_bytes", "calls_per_cpu_s"] {
        positive(&report, field);
    }
    for field in ["invite_seconds", "enrol_seconds", "connect_seconds"] {
        positive(&report, field);
    }
}

#[test]
fn folds_are_measured_beside_memory_and_disk() {
    let world = World::new();
    let report = world.json("bench fold --updates 3,10 --size 8MiB --budget 1MiB --probe 8MiB");
    is_documented(&report, "fold");
    positive(&report, "memory_read_gb_per_s");
    let memory = report["memory"].as_array().unwrap();
    let kernels: std::collections::BTreeSet<&str> =
        memory.iter().map(|figure| figure["kernel"].as_str().unwrap()).collect();
    assert_eq!(kernels.len(), 4, "{kernels:?}");
    for figure in memory {
        positive(figure, "ratio_to_memory_read");
    }
    let spool = report["spool"].as_array().unwrap();
    assert_eq!(spool.len(), 2);
    for figure in spool {
        positive(figure, "ratio_to_disk_read");
    }
}

#[test]
fn durable_entries_are_measured_beside_the_disk() {
    let world = World::new();
    let report = world.json("bench durability --duration 200ms --batch 64 --probe 4MiB");
    is_documented(&report, "durability");
    for field in
        ["disk_commits_per_s", "single_transitions_per_s", "transitions_per_s", "ratio_to_disk_commits"]
    {
        positive(&report, field);
    }
    assert_eq!(report["batch"], 64);
}
