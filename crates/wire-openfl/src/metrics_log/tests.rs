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
    let mut log = MetricsLog::open(&dir, false, None).unwrap();
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
fn a_federation_that_goes_on_writes_no_round_twice_and_mends_a_line_that_was_cut() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let metrics = [("train/loss".to_owned(), 0.25)];
    let mut log = MetricsLog::open(dir, true, None).unwrap();
    (0..2).for_each(|idx| log.write(round(idx, &metrics)).unwrap());
    let whole = read(dir);
    for cut in whole.find('\n').unwrap() + 1..whole.len() {
        fs::write(dir.join(LINES), &whole[..cut]).unwrap();
        let mut log = MetricsLog::open(dir, true, None).unwrap();
        (0..2).for_each(|idx| log.write(round(idx, &metrics)).unwrap());
        assert_eq!(read(dir), whole, "cut at {cut}");
    }
    // Another federation in the same directory begins at its first round.
    let mut other = MetricsLog::open(dir, false, None).unwrap();
    other.write(round(0, &metrics)).unwrap();
    assert_eq!(read(dir).lines().count(), 3);
}

#[test]
fn event_files_hold_every_finite_value() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let metrics = [("train/loss".to_owned(), 0.25), ("train/worse".to_owned(), f64::INFINITY)];
    let mut log = MetricsLog::open(dir, false, Some(999.0)).unwrap();
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
