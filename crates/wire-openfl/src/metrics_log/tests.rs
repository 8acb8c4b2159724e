//! What a federation's metrics come to in its files, also when it was ended in the middle.

use super::*;

fn round<'a>(round: u64, metrics: &'a [(String, f64)]) -> RoundMetrics<'a> {
    RoundMetrics { round, elapsed_s: 0.5, at_s: 1_000.0, metrics }
}

fn read(dir: &Path) -> String {
    fs::read_to_string(dir.join(LINES)).unwrap()
}

#[test]
fn each_round_is_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("logs");
    let mut log = MetricsLog::open(&dir, None, None).unwrap();
    let metrics = [("train/loss".to_owned(), 0.25), ("validate/acc".to_owned(), f64::NAN)];
    log.write(round(0, &metrics)).unwrap();
    log.write(round(1, &metrics[..1])).unwrap();
    let lines: Vec<Value> = read(&dir).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let first = serde_json::json!({
        "round_number": 0, "elapsed_seconds": 0.5, "aggregator/train/loss": 0.25, "aggregator/validate/acc": null
    });
    let second =
        serde_json::json!({ "round_number": 1, "elapsed_seconds": 0.5, "aggregator/train/loss": 0.25 });
    assert_eq!(lines, [first, second]);
}

#[test]
fn a_federation_that_goes_on_writes_no_round_twice() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let metrics = [("train/loss".to_owned(), 0.25)];
    let mut earlier = MetricsLog::open(dir, None, None).unwrap();
    earlier.write(round(0, &metrics)).unwrap();
    let mut log = MetricsLog::open(dir, None, None).unwrap();
    log.write(round(0, &metrics)).unwrap();
    let noted = log.written_len().unwrap();
    log.write(round(1, &metrics)).unwrap();
    let whole = read(dir);
    assert_eq!(whole.lines().count(), 3);
    // It ended while it wrote its second round, or before it had noted that.
    for cut in usize::try_from(noted).unwrap()..=whole.len() {
        fs::write(dir.join(LINES), &whole[..cut]).unwrap();
        let mut log = MetricsLog::open(dir, Some(noted), None).unwrap();
        log.write(round(1, &metrics)).unwrap();
        assert_eq!(read(dir), whole, "cut at {cut}");
    }
    // A file that somebody made shorter is gone on with as it is.
    fs::write(dir.join(LINES), "").unwrap();
    let mut log = MetricsLog::open(dir, Some(noted), None).unwrap();
    log.write(round(1, &metrics)).unwrap();
    assert_eq!(read(dir).lines().count(), 1);
}

#[test]
fn event_files_hold_every_finite_value() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let metrics = [("train/loss".to_owned(), 0.25), ("train/worse".to_owned(), f64::INFINITY)];
    let mut log = MetricsLog::open(dir, None, Some(999.0)).unwrap();
    log.write(round(3, &metrics)).unwrap();
    let file = fs::read_dir(dir.join(EVENTS_DIR)).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(file).unwrap();
    let mut events = Vec::new();
    while !bytes.is_empty() {
        let len = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
        events.push(<events::Event as prost::Message>::decode(&bytes[12..12 + len]).unwrap());
        bytes.drain(..16 + len);
    }
    assert_eq!(events[0].file_version.as_deref(), Some("brain.Event:2"));
    let summary = events[1].summary.clone().unwrap();
    let scalars: Vec<(&str, f32)> =
        summary.value.iter().map(|scalar| (scalar.tag.as_str(), scalar.simple_value)).collect();
    assert_eq!((events[1].step, events[1].wall_time), (3, 1_000.0));
    assert_eq!(scalars, [("round_number", 3.0), ("elapsed_seconds", 0.5), ("aggregator/train/loss", 0.25)]);
}
