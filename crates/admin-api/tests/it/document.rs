//! The checked-in OpenAPI document says what the router serves and what the bodies hold.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Value, json};
use sheaf_admin_api::{
    ApproveBody, BackupBody, CreateRunBody, CreatedRun, ErrorBody, ErrorDetail, ExtendBody, HeadBody,
    InviteBody, JournalBody, KitBody, LoginBody, ModelBody, PlanBody, PlanSummary, ROUTES, ReasonBody,
    RemoveBody,
};
use sheaf_coordinator::{
    BackupReport, LoginOverview, RemovedRun, ReplayReport, ReplayRound, ReplayVerdict, SiteOverview,
};
use sheaf_domain::{
    Digest, Identity, JournalEntry, LineageName, Manifest, Metrics, Missing, Role, RoundRecord, RunId,
    RunPhase, RunStatus, SiteName, SiteStatus, Span, StageName, Timestamp, VersionRef, Wait,
};
use sheaf_tensor::{Dtype, TensorSpec};

fn document() -> Value {
    serde_json::from_str(include_str!("../../../../docs/openapi/admin.v1.json")).unwrap()
}

#[test]
fn the_paths_are_those_of_the_router() {
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let described: BTreeSet<(&str, &str)> = paths
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(move |m| (m.as_str(), path.as_str()))
        })
        .collect();
    assert_eq!(described, ROUTES.into_iter().collect());
    // Every name in a path is described, and every reference leads somewhere.
    for (path, methods) in paths {
        for method in methods.as_object().unwrap().values() {
            let named: BTreeSet<&str> =
                path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
            let parameters = method["parameters"].as_array().cloned().unwrap_or_default();
            let described: BTreeSet<String> = parameters
                .iter()
                .filter(|parameter| parameter["in"] == "path")
                .map(|parameter| parameter["name"].as_str().unwrap().to_owned())
                .collect();
            assert_eq!(described.iter().map(String::as_str).collect::<BTreeSet<_>>(), named, "{path}");
        }
    }
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

fn collect_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|value| collect_references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| collect_references(value, found)),
        _ => {}
    }
}

fn name(text: &str) -> SiteName {
    SiteName::new(text).unwrap()
}

fn manifest() -> Manifest {
    let spec = TensorSpec::new("w", Dtype::F32, [3]).unwrap();
    Manifest::over_pieces(vec![spec], 12, &[Digest::of(b"piece")]).unwrap()
}

fn removed() -> RemovedRun {
    RemovedRun {
        run: RunId::new(1).unwrap(),
        name: "digits".to_owned(),
        entries: 3,
        head: Digest::of(b"head"),
    }
}

fn status() -> RunStatus {
    let at = Timestamp::from_millis(7);
    RunStatus {
        run: RunId::new(1).unwrap(),
        name: "digits".to_owned(),
        phase: RunPhase::Finished { reason: "done".to_owned() },
        round: 1,
        rounds: 1,
        waits: Vec::new(),
        history: vec![RoundRecord {
            round: 1,
            stage: StageName::new("train").unwrap(),
            accepted: vec![name("a")],
            cohort: 1,
            metrics: Metrics::new(),
            bytes: 12,
            num_examples: 3.0,
            model: Some(Digest::of(b"model")),
            version: Some(1),
            started_at: at,
            closed_at: at,
        }],
        sites: vec![SiteStatus {
            site: name("a"),
            presence: "present".to_owned(),
            accepted: 1,
            refused: 0,
            last_error: None,
        }],
        notices: vec!["who calls is not checked".to_owned()],
        model: Some(Digest::of(b"model")),
        best: Some((1, 0.5)),
        created_at: at,
        ended_at: Some(at),
    }
}

/// A sample of every body, under the name of its schema.
fn samples() -> Vec<(&'static str, Value)> {
    fn value(sample: impl Serialize) -> Value {
        serde_json::to_value(sample).unwrap()
    }
    let (run, digest, at) = (RunId::new(1).unwrap(), Digest::of(b"x"), Timestamp::from_millis(7));
    let (text, stage) = (String::new, StageName::new("train").unwrap());
    let status = value(status());
    let manifest = value(manifest());
    let version = VersionRef { run, lineage: LineageName::global(), version: 1 };
    let spec = TensorSpec::new("w", Dtype::F32, [3]).unwrap();
    let model = ModelBody { version: version.clone(), digest, tensors: vec![spec.clone()], bytes: 12 };
    let detail = ErrorDetail { kind: text(), message: text(), retry_after_ms: Some(1) };
    let entry = JournalEntry { seq: 1, at, kind: text(), body: text(), previous: digest, hash: digest };
    let missing = Missing { site: name("a"), state: text() };
    let waiting = Wait::Submissions {
        stage: stage.clone(),
        accepted: 0,
        needed: 1,
        missing: vec![missing.clone()],
        deadline: Some(at),
    };
    let rebuilt = ReplayRound { round: 1, digest, verdict: ReplayVerdict::Different { rebuilt: digest } };
    let not_kept = ReplayRound { round: 1, digest, verdict: ReplayVerdict::NotKept { reason: text() } };
    let mut round = value(&rebuilt);
    round["reason"] = value(not_kept)["reason"].clone();
    let site = SiteOverview {
        name: name("a"),
        state: text(),
        present: true,
        last_seen: Some(at),
        certificate_not_after: Some(at),
        key_fingerprint: Some(digest),
        client: Some(text()),
        working: vec![text()],
        last_error: Some(text()),
    };
    let create = CreateRunBody { plan: text(), init: None, upload: None, app: None, from: None };
    let head = HeadBody { journal: text(), seq: 1, hash: digest, signature: text(), at, public_key: text() };
    let who =
        Identity { trust_domain: text(), name: name("a"), role: Role::Operator, key_fingerprint: digest };
    vec![
        ("Error", value(ErrorBody { error: detail.clone() })),
        ("ErrorDetail", value(detail)),
        ("PlanBody", value(PlanBody { plan: text() })),
        ("PlanSummary", value(PlanSummary { summary: text(), waits: Vec::new() })),
        ("CreateRun", value(create)),
        ("CreatedRun", value(CreatedRun { run })),
        ("Reason", value(ReasonBody::default())),
        ("Extend", value(ExtendBody { rounds: 1 })),
        ("Remove", value(RemoveBody { force: true })),
        ("RemovedRun", value(removed())),
        ("PlacedTensor", manifest["tensors"][0].clone()),
        ("Segment", manifest["tensors"][0]["segments"][0].clone()),
        ("Manifest", manifest),
        ("TensorSpec", value(spec)),
        ("RoundRecord", status["history"][0].clone()),
        ("SiteStatus", status["sites"][0].clone()),
        ("RunStatus", status),
        ("WaitParticipants", value(Wait::Participants { present: 1, needed: 2 })),
        ("WaitSubmissions", value(waiting)),
        ("WaitFold", value(Wait::Fold { stage: stage.clone() })),
        ("WaitFoldRetry", value(Wait::FoldRetry { stage, reason: text() })),
        ("Missing", value(missing)),
        ("Site", value(site)),
        ("Journal", value(JournalBody { entries: vec![entry.clone()] })),
        ("JournalEntry", value(entry)),
        ("Head", value(head)),
        ("Model", value(model)),
        ("Version", value(version)),
        ("ReplayReport", value(ReplayReport { run, entries: 1, head: digest, rounds: vec![rebuilt] })),
        ("ReplayRound", round),
        ("Invite", value(InviteBody { site: name("a"), ttl: Span::from_secs(1), approve: true })),
        ("Kit", value(KitBody { kit: text() })),
        ("Approve", value(ApproveBody { fingerprint: digest })),
        ("ApproveLogin", value(LoginBody { name: name("alice"), validity: Span::from_secs(1) })),
        (
            "Login",
            value(LoginOverview {
                name: name("alice"),
                by: name("operator"),
                begun_at: Timestamp::from_millis(1),
                ends_at: Timestamp::from_millis(2),
            }),
        ),
        ("Backup", value(BackupBody { dir: "/b".into() })),
        ("BackupReport", value(BackupReport { dir: "/b".into(), objects: 1, bytes: 1 })),
        ("Identity", value(who)),
    ]
}

#[test]
fn the_properties_are_those_of_the_bodies() {
    let document = document();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let samples = samples();
    for (schema, sample) in &samples {
        let schema_of = &schemas[*schema];
        let described: BTreeSet<&String> = schema_of["properties"].as_object().unwrap().keys().collect();
        let held: BTreeSet<&String> = sample.as_object().unwrap().keys().collect();
        assert_eq!(described, held, "{schema}");
        for required in schema_of["required"].as_array().unwrap() {
            assert!(held.contains(&required.as_str().unwrap().to_owned()), "{schema}: {required}");
        }
        for (property, value) in sample.as_object().unwrap() {
            check(&document, &schema_of["properties"][property], value, &format!("{schema}.{property}"));
        }
    }
    // The rest are texts, numbers and choices.
    let known: BTreeSet<&str> = samples.iter().map(|(name, _)| *name).collect();
    let others: BTreeSet<&str> =
        schemas.keys().map(String::as_str).filter(|name| !known.contains(name)).collect();
    assert_eq!(others, BTreeSet::from(["RunId", "Digest", "Name", "Timestamp", "Span", "Dtype", "Wait"]));
    assert_eq!(json!(Span::from_secs(90)), json!("90s"));
}

/// Checks that a value has a type its schema allows.
fn check(document: &Value, schema: &Value, value: &Value, place: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        return check(document, document.pointer(&reference[1..]).unwrap(), value, place);
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        let fits = choices.iter().any(|choice| allowed(document, choice, value));
        assert!(fits, "{place}: {value}");
        return;
    }
    assert!(allowed(document, schema, value), "{place}: {value} is not {schema}");
}

fn allowed(document: &Value, schema: &Value, value: &Value) -> bool {
    if let Some(reference) = schema["$ref"].as_str() {
        return allowed(document, document.pointer(&reference[1..]).unwrap(), value);
    }
    if let Some(constant) = schema.get("const") {
        return constant == value;
    }
    let is = |name: &Value| match name.as_str().unwrap() {
        "string" => value.is_string(),
        "integer" => value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        _ => false,
    };
    match &schema["type"] {
        Value::Array(names) => names.iter().any(is),
        name => is(name),
    }
}

#[test]
fn every_dtype_and_kind_of_error_is_named() {
    let document = document();
    let names = |pointer: &str| -> BTreeSet<String> {
        let values = document.pointer(pointer).unwrap().as_array().unwrap().clone();
        values.iter().map(|value| value.as_str().unwrap().to_owned()).collect()
    };
    for dtype in names("/components/schemas/Dtype/enum") {
        assert!(serde_json::from_value::<Dtype>(json!(dtype)).is_ok(), "{dtype}");
    }
    assert_eq!(names("/components/schemas/Dtype/enum").len(), Dtype::ALL.len());
    for kind in names("/components/schemas/ErrorDetail/properties/kind/enum") {
        assert!(sheaf_domain::ErrorKind::from_name(&kind).is_some(), "{kind}");
    }
}
