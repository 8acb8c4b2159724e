//! The sections of a plan, read into what the server goes by.

mod classes;

use super::settings::{Rest, Settings};
use super::yaml::{Map, Node, Value};
use super::{
    Assigner, Collaborators, Federation, Group, Identity, Network, Place, Plan, PlanError, Task, Transport,
    shortened,
};

/// The sections that upstream knows; what only collaborators read of them is left alone.
const SECTIONS: [&str; 10] = [
    "aggregator",
    "collaborator",
    "data_loader",
    "task_runner",
    "network",
    "assigner",
    "tasks",
    "compression_pipeline",
    "straggler_handling_policy",
    "connector",
];
/// Deprecated settings of collaborators: taken, warned of, and without effect.
const DEPRECATED: [&str; 1] = ["device_assignment_policy"];
/// The group whose selection makes a run an evaluation.
const EVALUATION: &str = "evaluation";
const ROUNDS_MAX: u32 = 1_000_000;

/// A section: its class, where that stands, and its settings.
struct Section<'p> {
    class: Option<(&'p str, &'p str, usize)>,
    settings: Settings<'p>,
}

fn section<'p>(plan: &'p Map, name: &'p str) -> Result<Section<'p>, PlanError> {
    let map = plan.get(name).and_then(Node::map);
    let template = map.and_then(|map| map.get("template")).filter(|node| node.value != Value::Null);
    let class = match template {
        None => None,
        Some(node) => {
            let text = node.text().ok_or_else(|| PlanError::value(name, "template", node.line, "a class"))?;
            let (module, class) = text.rsplit_once('.').unwrap_or(("", text));
            Some((module, class, node.line))
        }
    };
    Ok(Section { class, settings: Settings::of(name, map.and_then(|map| map.get("settings")))? })
}

impl Section<'_> {
    /// The class, when it is one of upstream's own modules; of nothing, the default.
    fn class(&self, modules: &str, default: &'static str) -> Result<&str, PlanError> {
        match self.class {
            None => Ok(default),
            Some((module, class, _)) if module == modules || module.starts_with(&format!("{modules}.")) => {
                Ok(class)
            }
            Some((module, class, line)) => Err(unknown_class(module, class, line)),
        }
    }

    fn unknown(&self) -> PlanError {
        let (module, class, line) = self.class.unwrap_or_default();
        unknown_class(module, class, line)
    }
}

fn unknown_class(module: &str, class: &str, line: usize) -> PlanError {
    let what = shortened(&format!("the class {module}.{class}"));
    PlanError::NotServed {
        what,
        place: Place(line),
        reason: "no Python is run here, and it is not one that is known",
    }
}

/// Reads all sections of a plan whose defaults are laid down.
pub(super) fn read(
    plan: &Node,
    identity: Identity,
    collaborators: Collaborators,
    task_group: Option<&str>,
) -> Result<Plan, PlanError> {
    let map = plan.map().ok_or_else(|| PlanError::value("plan", "sections", plan.line, "a mapping"))?;
    let mut warnings = Vec::new();
    for (name, _) in map.iter().filter(|(name, _)| name.text().is_none_or(|name| !SECTIONS.contains(&name))) {
        let known = name.text().map_or_else(String::new, shortened);
        warnings.push(format!("{}: the section {known:?} is ignored", Place(name.line)));
    }
    if let Some(connector) = map.get("connector") {
        let place = Place(connector.line);
        return Err(PlanError::NotServed {
            what: "a connector".to_owned(),
            place,
            reason: "Flower's applications are served by sheaf superlink",
        });
    }
    let aggregator = aggregator(map, &mut warnings)?;
    let tasks = tasks(map, &mut warnings)?;
    let (assigner, is_evaluation) =
        assigner(map, &collaborators, &tasks, aggregator.rounds_to_train, task_group)?;
    if aggregator.use_delta_updates && aggregator.db_store_rounds < 2 {
        warnings.push(
            "db_store_rounds is below 2, and deltas stand on the round before: two are kept".to_owned(),
        );
    }
    Ok(Plan {
        identity,
        network: network(map, &mut warnings)?,
        assigner,
        is_evaluation,
        tasks,
        pipeline: classes::pipeline(map)?,
        straggler: classes::straggler(map)?,
        opt_treatment: opt_treatment(map, &mut warnings)?,
        aggregator,
        collaborators,
        warnings,
    })
}

fn aggregator(plan: &Map, warnings: &mut Vec<String>) -> Result<Federation, PlanError> {
    let section = section(plan, "aggregator")?;
    if section.class("openfl.component", "Aggregator")? != "Aggregator" {
        return Err(section.unknown());
    }
    let settings = section.settings;
    if settings.truth("secure_aggregation", false)? {
        let line = settings.node("secure_aggregation").map_or(0, |node| node.line);
        return Err(PlanError::NotServed {
            what: "secure_aggregation: true".to_owned(),
            place: Place(line),
            reason: "upstream's masks are not served; set it to false, or keep this plan with the stock aggregator",
        });
    }
    settings.ignore(&["log_memory_usage"]);
    if settings.truth("save_native_model", false)? {
        warnings.push(
            "save_native_model is ignored: the task runner that would convert the model is Python".to_owned(),
        );
    }
    let read = Federation {
        init_state_path: settings.needed_text("init_state_path")?.to_owned(),
        best_state_path: settings.needed_text("best_state_path")?.to_owned(),
        last_state_path: settings.needed_text("last_state_path")?.to_owned(),
        rounds_to_train: settings.whole("rounds_to_train", 256, 0, ROUNDS_MAX)?,
        db_store_rounds: settings.whole("db_store_rounds", 1, 1, ROUNDS_MAX)?,
        use_delta_updates: settings.truth("use_delta_updates", true)?,
        single_col_cert_common_name: settings
            .text("single_col_cert_common_name")?
            .unwrap_or_default()
            .to_owned(),
        write_logs: settings.truth("write_logs", false)?,
        persist_checkpoint: settings.truth("persist_checkpoint", true)?,
        persistent_db_path: settings.text("persistent_db_path")?.unwrap_or("tensor.db").to_owned(),
    };
    settings.finish(Rest::Refused, warnings)?;
    Ok(read)
}

fn network(plan: &Map, warnings: &mut Vec<String>) -> Result<Network, PlanError> {
    let settings = section(plan, "network")?.settings;
    let transport = match settings.text("transport_protocol")?.map(str::to_lowercase).as_deref() {
        None | Some("grpc") => Transport::Grpc,
        Some("rest") => Transport::Rest,
        Some("both") => Transport::Both,
        Some(_) => {
            let line = settings.node("transport_protocol").map_or(0, |node| node.line);
            return Err(PlanError::value("network", "transport_protocol", line, "grpc, rest or both"));
        }
    };
    let port = settings.whole("agg_port", 0, 1, u32::from(u16::MAX))?;
    if port == 0 {
        return Err(settings.missing("agg_port"));
    }
    let read = Network {
        agg_addr: settings.needed_text("agg_addr")?.to_owned(),
        agg_port: u16::try_from(port).unwrap_or_default(),
        use_tls: settings.truth("use_tls", true)?,
        require_client_auth: settings.truth("require_client_auth", true)?,
        cert_folder: settings.text("cert_folder")?.unwrap_or("cert").to_owned(),
        transport,
    };
    // Of collaborators, or of nobody.
    settings.ignore(&[
        "client_reconnect_interval",
        "hash_salt",
        "enable_atomic_connections",
        "resend_data_on_reconnection",
        "single_col_cert_common_name",
    ]);
    settings.finish(Rest::Warned, warnings)?;
    Ok(read)
}

fn assigner(
    plan: &Map,
    collaborators: &Collaborators,
    tasks: &[Task],
    rounds: u32,
    task_group: Option<&str>,
) -> Result<(Assigner, bool), PlanError> {
    let section = section(plan, "assigner")?;
    let class = section.class("openfl.component", "RandomGroupedAssigner")?;
    let is_static = match class {
        "RandomGroupedAssigner" => false,
        "StaticGroupedAssigner" => true,
        _ => return Err(section.unknown()),
    };
    let settings = &section.settings;
    let selected = task_group.or(settings.text("selected_task_group")?);
    let node = settings.node("task_groups").ok_or_else(|| settings.missing("task_groups"))?;
    let wrong = |line, wanted| PlanError::value("assigner", "task_groups", line, wanted);
    let Value::List(items) = &node.value else { return Err(wrong(node.line, "a list of groups")) };
    let mut groups = Vec::new();
    for item in items {
        let group = group(item, is_static)?;
        let unknown = group.tasks.iter().find(|name| !tasks.iter().any(|task| task.name == **name));
        // A plan of no rounds tests connections, and its groups are those of the defaults.
        if let Some(name) = unknown.filter(|_| rounds > 0 && selected.is_none_or(|name| name == group.name)) {
            let what = format!("the task {:?} of the group {:?}", shortened(name), shortened(&group.name));
            return Err(PlanError::NotServed {
                what,
                place: Place(item.line),
                reason: "the section tasks has none of this name",
            });
        }
        groups.push(group);
    }
    if let Some(selected) = selected {
        groups.retain(|group| group.name == selected);
        if let [group] = groups.as_mut_slice() {
            group.percentage = 1.0;
        } else {
            return Err(wrong(node.line, "one that has the selected group once"));
        }
    }
    section.settings.finish(Rest::Refused, &mut Vec::new())?;
    check_groups(&groups, is_static, collaborators).map_err(|wanted| wrong(node.line, wanted))?;
    let assigner = if is_static { Assigner::Static(groups) } else { Assigner::Random(groups) };
    Ok((assigner, selected == Some(EVALUATION)))
}

fn group(node: &Node, is_static: bool) -> Result<Group, PlanError> {
    let settings = Settings::of("task_groups", Some(node))?;
    let share = |value: f64| (0.0..=1.0).contains(&value);
    let read = Group {
        name: settings.needed_text("name")?.to_owned(),
        percentage: settings.number("percentage", 0.0, "a share from 0 to 1", share)?,
        tasks: settings.texts("tasks")?.ok_or_else(|| settings.missing("tasks"))?,
        collaborators: match settings.texts("collaborators")? {
            Some(names) => names,
            None if is_static => return Err(settings.missing("collaborators")),
            None => Vec::new(),
        },
    };
    settings.finish(Rest::Refused, &mut Vec::new())?;
    Ok(read)
}

/// What upstream asserts of the groups.
fn check_groups(
    groups: &[Group],
    is_static: bool,
    collaborators: &Collaborators,
) -> Result<(), &'static str> {
    if is_static {
        let mut named: Vec<&str> =
            groups.iter().flat_map(|group| &group.collaborators).map(String::as_str).collect();
        let mut known: Vec<&str> = collaborators.names().iter().map(String::as_str).collect();
        named.sort_unstable();
        known.sort_unstable();
        return if named == known { Ok(()) } else { Err("groups that have every collaborator once") };
    }
    let sum: f64 = groups.iter().map(|group| group.percentage).sum();
    if (1.0 - sum).abs() >= 0.01 {
        return Err("groups whose percentages come to 1");
    }
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a count"
    )]
    let drawn: usize =
        groups.iter().map(|group| (group.percentage * collaborators.names().len() as f64) as usize).sum();
    if drawn == collaborators.names().len() {
        Ok(())
    } else {
        Err("groups that divide the collaborators without rest")
    }
}

fn tasks(plan: &Map, warnings: &mut Vec<String>) -> Result<Vec<Task>, PlanError> {
    let mut tasks = Vec::new();
    let sections = plan.get("tasks").and_then(Node::map);
    for (name, node) in sections.into_iter().flat_map(Map::iter) {
        let line = name.line;
        let name = name.text().ok_or_else(|| PlanError::value("tasks", "a name", line, "a text"))?;
        if name == "settings" {
            if node.map().is_none_or(|map| !map.is_empty()) {
                warnings.push(format!("{}: the settings of tasks are ignored", Place(node.line)));
            }
            continue;
        }
        let settings = Settings::of(name, Some(node))?;
        let kwargs = settings.node("kwargs").and_then(Node::map);
        tasks.push(Task {
            name: name.to_owned(),
            function: settings.needed_text("function")?.to_owned(),
            is_local: kwargs.and_then(|map| map.get("apply")).and_then(Node::text) == Some("local"),
            judges: kwargs.and_then(|map| map.get("apply")).and_then(Node::text) == Some("global"),
            aggregation: classes::aggregation(settings.node("aggregation_type"))?,
        });
        settings.finish(Rest::Refused, warnings)?;
    }
    tasks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tasks)
}

/// The one setting of collaborators that shows in what they send; they judge all others themselves.
fn opt_treatment(plan: &Map, warnings: &mut Vec<String>) -> Result<Option<String>, PlanError> {
    let Some(settings) = plan.get("collaborator").and_then(Node::map).and_then(|map| map.get("settings"))
    else {
        return Ok(None);
    };
    for name in DEPRECATED {
        if let Some(node) = settings.map().and_then(|map| map.get(name)) {
            warnings.push(format!(
                "{}: upstream deprecates the setting {name:?} of collaborator",
                Place(node.line)
            ));
        }
    }
    let treatment = Settings::of("collaborator", Some(settings))?.text("opt_treatment")?;
    match treatment {
        None | Some("RESET" | "CONTINUE_LOCAL" | "CONTINUE_GLOBAL") => Ok(treatment.map(str::to_owned)),
        Some(_) => {
            let line = settings.map().and_then(|map| map.get("opt_treatment")).map_or(0, |node| node.line);
            Err(PlanError::value(
                "collaborator",
                "opt_treatment",
                line,
                "RESET, CONTINUE_LOCAL or CONTINUE_GLOBAL",
            ))
        }
    }
}
