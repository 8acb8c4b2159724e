//! Plans and documents that stock read and dumped, against what is read and dumped here; then what is refused, by line.

use std::path::Path;

use serde::Deserialize;

use super::yaml::Value;
use super::*;

fn golden<T: for<'a> Deserialize<'a>>(name: &str) -> Vec<T> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/openfl-1.9").join(name);
    let text = std::fs::read_to_string(file).expect("the golden");
    serde_json::from_str(&text).expect("JSON")
}

#[derive(Deserialize)]
struct Document {
    text: String,
    dump: String,
}

#[derive(Deserialize)]
struct StockPlan {
    name: String,
    plan: String,
    dump: String,
    federation_uuid: String,
    aggregator_uuid: String,
    agg_addr: String,
    agg_port: u16,
}

#[test]
fn documents_are_dumped_byte_for_byte_as_stock_dumps_them() {
    let documents: Vec<Document> = golden("documents.json");
    assert!(documents.len() > 60);
    for Document { text, dump } in documents {
        let node = yaml::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(dump::dump(&node).expect("a dump"), dump, "{text}");
        let again = yaml::parse(&dump).unwrap_or_else(|error| panic!("{error}\n{dump}"));
        assert_eq!(dump::dump(&again).expect("a dump"), dump);
    }
}

#[test]
fn every_plan_of_the_stock_package_has_the_identity_that_stock_gives_it() {
    let plans: Vec<StockPlan> = golden("plans.json");
    assert!(plans.len() >= 35, "{}", plans.len());
    for stock in plans {
        let mut plan = identity::with_defaults(yaml::parse(&stock.plan).expect("YAML")).expect(&stock.name);
        assert_eq!(dump::dump(&plan).expect("a dump"), stock.dump, "{}", stock.name);
        let identity = Identity::of(&plan, "plan.yaml").expect("an identity");
        assert_eq!(identity.federation_uuid, stock.federation_uuid, "{}", stock.name);
        assert_eq!(identity.aggregator_uuid, stock.aggregator_uuid, "{}", stock.name);
        resolve(&mut plan, "agg.example").expect("it is filled in");
        let value = |plan: &mut Node, key: &str| network(plan, key).map(|node| node.value.clone());
        assert_eq!(value(&mut plan, "agg_addr"), Some(Value::Text(stock.agg_addr)), "{}", stock.name);
        assert_eq!(value(&mut plan, "agg_port"), Some(Value::Int(stock.agg_port.into())), "{}", stock.name);
    }
}

const AROUND: Surroundings<'_> =
    Surroundings { file_name: "plan.yaml", fqdn: "agg.example", task_group: None };
const COLS: &str = "collaborators: [col1, col2]\n";

fn stock(name: &str) -> String {
    let plans: Vec<StockPlan> = golden("plans.json");
    plans.into_iter().find(|plan| plan.name == name).unwrap_or_else(|| panic!("no {name}")).plan
}

fn read_stock(name: &str) -> Result<Plan, PlanError> {
    read(&stock(name), COLS, AROUND)
}

#[test]
fn plans_of_the_stock_package_are_read_or_refused_by_what_is_in_them() {
    let mut served = Vec::new();
    for StockPlan { name, plan, .. } in golden::<StockPlan>("plans.json") {
        match read(&plan, COLS, AROUND) {
            Ok(_) => served.push(name),
            Err(PlanError::NotServed { .. }) => {}
            Err(error) if name.starts_with("defaults/") => {
                assert!(matches!(error, PlanError::Missing { .. }), "{name}: {error}");
            }
            Err(error) => panic!("{name}: {error}"),
        }
    }
    for name in [
        "no-op",
        "keras/mnist",
        "torch/mnist",
        "torch/histology_fedcurv",
        "torch/mnist_straggler_check",
        "lab",
    ] {
        assert!(served.iter().any(|known| known == name), "{name} of {served:?}");
    }
    for (name, what) in [
        ("xgb_higgs", "FedBaggingXGBoost"),
        ("flower-app-pytorch", "a connector"),
        ("federated_analytics/histogram", "src.aggregatehistogram.AggregateHistogram"),
    ] {
        let error = read_stock(name).expect_err(name).to_string();
        assert!(error.contains(what), "{name}: {error}");
    }
}

#[test]
fn a_plan_comes_to_what_the_server_goes_by() {
    let plan = read_stock("lab").expect("a plan");
    assert_eq!(plan.collaborators.names(), ["col1", "col2"]);
    assert_eq!((plan.aggregator.rounds_to_train, plan.aggregator.db_store_rounds), (3, 2));
    assert_eq!((plan.aggregator.write_logs, plan.aggregator.use_delta_updates), (true, true));
    assert_eq!(plan.aggregator.init_state_path, "save/init.pbuf");
    assert_eq!((plan.network.agg_addr.as_str(), plan.network.agg_port), ("localhost", 50_151));
    assert_eq!((plan.network.use_tls, plan.network.transport), (true, Transport::Grpc));
    assert_eq!(plan.pipeline, crate::tensors::Pipeline::Skc { p_sparsity: 0.3, n_clusters: 4 });
    assert_eq!(plan.straggler, Straggler::CutoffTime { cutoff_s: 20.0, minimum_reporting: 1 });
    assert_eq!(plan.opt_treatment.as_deref(), Some("RESET"));
    let groups = plan.assigner.groups();
    assert_eq!(groups[0].tasks, ["aggregated_model_validation", "train", "locally_tuned_model_validation"]);
    assert_eq!((groups[0].percentage, groups[1].name.as_str()), (1.0, "evaluation"));
    let local: Vec<&str> =
        plan.tasks.iter().filter(|task| task.is_local).map(|task| task.name.as_str()).collect();
    assert_eq!(local, ["locally_tuned_model_validation"]);
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
}

#[test]
fn fedcurv_and_shares_of_stragglers_are_read() {
    let plan = read_stock("torch/histology_fedcurv").expect("a plan");
    assert!(plan.tasks.iter().any(|task| task.aggregation == Aggregation::FedCurv));
    let plan = read_stock("torch/mnist_straggler_check").expect("a plan");
    assert!(matches!(plan.straggler, Straggler::Percentage { .. }), "{:?}", plan.straggler);
}

const BARE: &str = "\
aggregator:
  settings: {rounds_to_train: 2, init_state_path: i, best_state_path: b, last_state_path: l, db_store_rounds: 2}
network:
  settings: {agg_addr: a, agg_port: 1}
assigner:
  settings:
    task_groups: [{name: g, percentage: 1.0, tasks: [train]}]
tasks:
  train: {function: train_task}
";

fn read_changed(from: &str, to: &str) -> Result<Plan, PlanError> {
    assert!(BARE.contains(from), "{from}");
    read(&BARE.replace(from, to), COLS, AROUND)
}

#[test]
fn unknown_settings_and_wrong_values_are_refused_by_name_and_line() {
    for (from, to, said) in [
        ("rounds_to_train: 2", "rounds_to_trian: 2", "line 2: aggregator has no setting \"rounds_to_trian\""),
        (
            "rounds_to_train: 2",
            "rounds_to_train: -2",
            "line 2: rounds_to_train of aggregator must be a whole number",
        ),
        ("rounds_to_train: 2", "rounds_to_train: yes", "line 2: rounds_to_train of aggregator must be"),
        ("agg_port: 1", "agg_port: 65536", "line 4: agg_port of network must be"),
        (
            "agg_port: 1",
            "agg_port: 1, transport_protocol: soap",
            "line 4: transport_protocol of network must be grpc, rest",
        ),
        (
            "percentage: 1.0",
            "percentage: 0.5",
            "line 7: task_groups of assigner must be groups whose percentages",
        ),
        ("percentage: 1.0", "percentage: 1.0, share: 1", "line 7: task_groups has no setting \"share\""),
        ("tasks: [train]", "tasks: [trian]", "line 7: the task \"trian\" of the group \"g\" is not served"),
        (
            "{function: train_task}",
            "{function: train_task, fuction: x}",
            "line 9: train has no setting \"fuction\"",
        ),
        (
            "rounds_to_train: 2",
            "rounds_to_train: 2, secure_aggregation: true",
            "line 2: secure_aggregation: true is not served",
        ),
        ("agg_addr: a, ", "", "network lacks agg_addr"),
    ] {
        let error = read_changed(from, to).expect_err(to).to_string();
        assert!(error.contains(said), "{to}: {error}");
    }
}

#[test]
fn classes_that_are_not_known_are_refused_by_name() {
    for (class, said) in [
        ("src.mine.Sum", "the class src.mine.Sum"),
        (
            "openfl.interface.aggregation_functions.Mode",
            "the class openfl.interface.aggregation_functions.Mode",
        ),
        ("openfl.interface.aggregation_functions.YogiAdaptiveAggregation", "YogiAdaptiveAggregation"),
    ] {
        let to = format!("{{function: train_task, aggregation_type: {{template: {class}}}}}");
        let error = read_changed("{function: train_task}", &to).expect_err(class).to_string();
        assert!(error.starts_with("line 9: ") && error.contains(said), "{error}");
    }
    for (settings, said) in [
        ("params: {w: [1.0]}", "line 9: params of the aggregation AdamAdaptiveAggregation is not served"),
        ("agg_func: Median", "line 9: agg_func of the aggregation AdamAdaptiveAggregation is not served"),
        ("betas: [0.9]", "line 9: betas of aggregation_type must be"),
        ("rate: 1", "line 9: aggregation_type has no setting \"rate\""),
    ] {
        let class = "openfl.interface.aggregation_functions.AdamAdaptiveAggregation";
        let to = format!(
            "{{function: train_task, aggregation_type: {{template: {class}, settings: {{{settings}}}}}}}"
        );
        let error = read_changed("{function: train_task}", &to).expect_err(settings).to_string();
        assert!(error.contains(said), "{error}");
    }
    for section in ["compression_pipeline", "straggler_handling_policy"] {
        let to = format!("tasks:\n  train: {{function: f}}\n{section}: {{template: src.mine.Own}}\n");
        let error = read_changed("tasks:\n  train: {function: train_task}\n", &to).expect_err(section);
        assert!(error.to_string().starts_with("line 10: the class src.mine.Own is not served"), "{error}");
    }
}

#[test]
fn extra_keys_of_the_network_and_deprecated_settings_are_warned_of() {
    let to = "network:\n  settings: {agg_addr: a, agg_port: 1, tls: true}\ncollaborator: {settings: {device_assignment_policy: X}}\n";
    let plan = read_changed("network:\n  settings: {agg_addr: a, agg_port: 1}\n", to).expect("a plan");
    assert_eq!(plan.warnings.len(), 2, "{:?}", plan.warnings);
    assert!(plan.warnings.iter().any(|said| said.contains("line 4") && said.contains("\"tls\"")));
    assert!(
        plan.warnings.iter().any(|said| said.contains("line 5") && said.contains("device_assignment_policy"))
    );
}

#[test]
fn groups_that_the_plan_names_have_everybody_once() {
    let group = "{name: g, percentage: 1.0, tasks: [train]}";
    let named = |cols: &str| {
        let to = format!(
            "{{name: g, collaborators: {cols}, tasks: [train]}}]}}\n  template: openfl.component.StaticGroupedAssigner"
        );
        let plan = BARE
            .replace("settings:\n    task_groups: [", "settings: {task_groups: [")
            .replace(&format!("{group}]"), &to);
        read(&plan, COLS, AROUND)
    };
    assert!(matches!(named("[col2, col1]").expect("a plan").assigner, Assigner::Static(_)));
    for cols in ["[col1]", "[col1, col2, col2]", "[col1, col3]"] {
        assert!(named(cols).is_err(), "{cols}");
    }
}

#[test]
fn a_selected_group_is_alone_and_whole() {
    let two =
        "[{name: g, percentage: 0.5, tasks: [train]}, {name: evaluation, percentage: 0.5, tasks: [train]}]";
    let to = format!("{two}\n    selected_task_group: evaluation");
    let plan = read_changed("[{name: g, percentage: 1.0, tasks: [train]}]", &to).expect("a plan");
    assert_eq!((plan.assigner.groups().len(), plan.assigner.groups()[0].percentage), (1, 1.0));
    assert!(plan.is_evaluation);
    let around = Surroundings { task_group: Some("evaluation"), ..AROUND };
    let plan = read(&stock("lab"), COLS, around).expect("a plan");
    assert_eq!((plan.assigner.groups()[0].tasks.len(), plan.is_evaluation), (1, true));
}

#[test]
fn a_list_of_collaborators_is_of_different_names() {
    for text in [
        "collaborators:\n",
        "collaborators: []\n",
        "collaborators: [a, a]\n",
        "collaborators: [1]\n",
        "cols: [a]\n",
        "a\n",
    ] {
        assert!(Collaborators::read(text).is_err(), "{text}");
    }
    assert!(Collaborators::read("collaborators:\n- b\n- a\n").expect("a list").contains("b"));
}
