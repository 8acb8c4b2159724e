//! The oldest clients: what they are told, what is believed of their answers, and what becomes of a run when they misbehave.

use std::time::Duration;

use bytes::Bytes;
use sheaf_domain::RunPhase;
use sheaf_tensor::{Dtype, TensorSpec, npy};
use sheaf_wire_flower::frames::grpc_prefix;
use sheaf_wire_flower::legacy::History;
use sheaf_wire_flower::proto::client_message::{EvaluateRes, FitRes, Msg as Answer};
use sheaf_wire_flower::proto::server_message::Msg as Order;
use sheaf_wire_flower::proto::{Parameters, Status};

use crate::world::{Client, MESSAGE_LEN_MAX, World, array, evaluate, fit, floats, parameters, properties};

const EVALUATED: &str = "[task.evaluate]\nmetric = \"loss\"\nbetter = \"lower\"\nbatch = 4\n";
const ALONE: &str = "[cohort]\nmin = 1\n";
/// How long clients at work may take when all are sent away; none of these is.
const PATIENCE: Duration = Duration::from_secs(60);

fn all_of(history: &[(u32, f64)]) -> Vec<f64> {
    history.iter().map(|(_, value)| *value).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clients_train_and_evaluate_and_are_sent_away() {
    let world = World::start(None).await;
    let run = world.run(2, EVALUATED).await;
    let clients = [(1.0, 1), (2.0, 3)]
        .map(async |(step, examples)| world.client().await.take_part(step, examples).await);
    let driven = async {
        let status = world.ended(run).await;
        world.join.dismiss(0, PATIENCE).await;
        status
    };
    let [first, second] = clients;
    let (status, (), ()) = tokio::join!(driven, first, second);
    assert!(matches!(status.phase, RunPhase::Finished { .. }), "{:?}", status.phase);
    let history = History::of(&status);
    // (1 × 1 + 2 × 3) / 4 is added in each round.
    assert_eq!(history.losses_distributed, [(1, 1.75), (2, 3.5)]);
    assert_eq!(all_of(&history.metrics_distributed["accuracy"]), [1.75, 1.75]);
    assert_eq!(all_of(&history.metrics_distributed_fit["half"]), [0.5, 0.5]);
    assert!(history.losses_centralized.is_empty() && history.metrics_centralized.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_layout_of_an_array_comes_back_as_ours() {
    let world = World::start(None).await;
    world.run(1, ALONE).await;
    let mut client = world.client().await;
    assert!(matches!(client.told().await, Order::GetParametersIns(_)));
    let head = |text: &str| {
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend_from_slice(&u16::try_from(text.len() + 1).unwrap().to_le_bytes());
        file.extend_from_slice(text.as_bytes());
        file.push(b'\n');
        file
    };
    let mut columns = head("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3), }");
    columns.extend_from_slice(&[0, 3, 1, 4, 2, 5]);
    let mut big = head("{'descr': '>i2', 'fortran_order': False, 'shape': (2,), }");
    big.extend_from_slice(&[1, 2, 3, 4]);
    let plain = |dtype, dims: &[u64]| {
        let spec = TensorSpec::new("x", dtype, dims.to_vec()).unwrap();
        let mut file = Vec::new();
        npy::write(&spec, &vec![0; usize::try_from(spec.byte_len()).unwrap()], &mut file).unwrap();
        Bytes::from(file)
    };
    // More than one piece of the store and of the stream.
    let long: Vec<f32> = (0..1_500_000u32).map(|idx| (idx % 1000) as f32).collect();
    let mut given = vec![Bytes::from(columns), Bytes::from(big), array(&long)];
    let dtypes = Dtype::ALL.into_iter().filter(|dtype| *dtype != Dtype::Bf16);
    given.extend(dtypes.map(|dtype| plain(dtype, &[2, 1])));
    given.extend([plain(Dtype::F32, &[]), plain(Dtype::F64, &[0, 2])]);
    client.say(parameters(&given)).await;
    let Order::FitIns(ins) = client.told().await else { panic!("fit is next") };
    let told = ins.parameters.unwrap();
    assert_eq!((told.tensor_type.as_str(), told.tensors.len()), ("numpy.ndarray", given.len()));
    assert_eq!(npy::read(told.tensors[0].clone()).unwrap().2, [0u8, 1, 2, 3, 4, 5].as_slice());
    assert_eq!(npy::read(told.tensors[1].clone()).unwrap().2, [2u8, 1, 4, 3].as_slice());
    for (told, given) in told.tensors.iter().zip(&given).skip(2) {
        assert_eq!(told, given, "bit for bit as NumPy writes it");
    }
}

/// Says something in answer to get_parameters, and gives the status its stream ends with.
async fn answered(say: impl AsyncFnOnce(&mut Client)) -> (String, String, String) {
    let world = World::start(None).await;
    let run = world.run(1, ALONE).await;
    let mut client = world.client().await;
    assert!(matches!(client.told().await, Order::GetParametersIns(_)));
    say(&mut client).await;
    let (status, message) = client.end().await;
    let seen = world.until(run, |status| status.sites[0].presence != "present").await;
    (status, message, seen.sites[0].last_error.clone().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_breaks_the_protocol_is_told_why_and_dropped() {
    let of = |tensors: Vec<Bytes>, tensor_type: &str| {
        let parameters = Parameters { tensors, tensor_type: tensor_type.to_owned() };
        Answer::FitRes(FitRes { parameters: Some(parameters), ..FitRes::default() })
    };
    let wrong = answered(async |client: &mut Client| client.say(fit(&[array(&[1.0])], 1)).await).await;
    let words = ["get_parameters_res", "fit_res"];
    assert!(wrong.0 == "3" && words.iter().all(|word| wrong.1.contains(word)), "{wrong:?}");

    let kind = answered(async |client: &mut Client| {
        let Answer::FitRes(res) = of(vec![array(&[1.0])], "cpp_float") else { unreachable!() };
        let res = sheaf_wire_flower::proto::client_message::GetParametersRes {
            status: None,
            parameters: res.parameters,
        };
        client.say(Answer::GetParametersRes(res)).await;
    })
    .await;
    assert!(kind.0 == "3" && kind.1.contains("cpp_float"), "{kind:?}");

    let cut = answered(async |client: &mut Client| {
        client.say(parameters(&[array(&[1.0]).slice(..130)])).await;
    })
    .await;
    assert!(cut.0 == "3" && cut.1.contains("tensor 0"), "{cut:?}");

    let pickled = answered(async |client: &mut Client| {
        let file = b"\x93NUMPY\x01\x00\x38\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n";
        client.say(parameters(&[Bytes::from_static(file)])).await;
    })
    .await;
    assert!(pickled.0 == "3" && pickled.1.contains("pickled"), "{pickled:?}");

    let garbage = answered(async |client: &mut Client| {
        client.send(Bytes::from_static(&[0, 0, 0, 0, 3, 0x1a, 0x7f, 0])).await;
    })
    .await;
    assert!(garbage.0 == "3" && garbage.1.contains("broken"), "{garbage:?}");

    let oversize = answered(async |client: &mut Client| {
        let prefix = grpc_prefix(MESSAGE_LEN_MAX + 1).unwrap();
        client.send(Bytes::copy_from_slice(&prefix)).await;
    })
    .await;
    assert!(oversize.0 == "3" && oversize.1.contains(&MESSAGE_LEN_MAX.to_string()), "{oversize:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_speaks_unasked_is_dropped() {
    // There is no run, so nobody is asked.
    let world = World::start(None).await;
    let client = world.client().await;
    client.say(fit(&[array(&[1.0])], 1)).await;
    let (status, message) = client.end().await;
    assert!(status == "3" && message.contains("before it was asked"), "{status} {message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_work_of_a_client_that_went_away_is_another_ones() {
    let world = World::start(None).await;
    let run = world.run(1, EVALUATED).await;
    let mut first = world.client().await;
    let Order::GetParametersIns(_) = first.told().await else { panic!("the first is asked") };
    first.say(parameters(&[array(&[0.0])])).await;
    let mut second = world.client().await;
    let (Order::FitIns(_), Order::FitIns(ins)) = (first.told().await, second.told().await) else {
        panic!("both are to fit")
    };
    assert_eq!(floats(&ins.parameters.unwrap().tensors[0]), [0.0]);
    second.say(fit(&[array(&[2.0])], 1)).await;
    drop(first);
    // It comes again: the place, and the work, are its own.
    let mut again = world.client().await;
    let Order::FitIns(_) = again.told().await else { panic!("the work waits") };
    again.say(fit(&[array(&[4.0])], 1)).await;
    let Order::EvaluateIns(ins) = again.told().await else { panic!("evaluation is next") };
    assert_eq!(floats(&ins.parameters.unwrap().tensors[0]), [3.0]);
    // A client that is there and has no part in the round takes the place of one that leaves.
    let mut reserve = world.client().await;
    world.until(run, |status| status.sites.len() == 3 && status.sites[2].presence == "present").await;
    drop(again);
    let Order::EvaluateIns(_) = reserve.told().await else { panic!("the reserve is to evaluate") };
    reserve.say(evaluate(1.0, 1, &[])).await;
    let Order::EvaluateIns(_) = second.told().await else { panic!("evaluation is next") };
    second.say(evaluate(3.0, 3, &[])).await;
    let history = History::of(&world.ended(run).await);
    assert_eq!(history.losses_distributed, [(1, 2.5)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_is_told_in_the_clients_words_and_no_evaluation_is_none() {
    let world = World::start(None).await;
    let run = world.run(1, &format!("{ALONE}{EVALUATED}")).await;
    let mut client = world.client().await;
    client.told().await;
    client.say(parameters(&[array(&[0.0])])).await;
    let status = |code| Some(Status { code, message: "not here".to_owned() });
    client.told().await;
    client.say(Answer::FitRes(FitRes { status: status(3), ..FitRes::default() })).await;
    let Order::FitIns(_) = client.told().await else { panic!("it is tried again") };
    let seen = world.status(run).await.sites[0].last_error.clone().unwrap();
    assert!(seen.contains("FIT_NOT_IMPLEMENTED: not here"), "{seen}");
    client.say(fit(&[array(&[1.0])], 0)).await;
    let Order::EvaluateIns(ins) = client.told().await else { panic!("evaluation is next") };
    assert_eq!(ins.config.len(), 1);
    client.say(Answer::EvaluateRes(EvaluateRes { status: status(4), ..EvaluateRes::default() })).await;
    let ended = world.ended(run).await;
    assert!(matches!(ended.phase, RunPhase::Finished { .. }));
    assert!(History::of(&ended).losses_distributed.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_have_names_are_known_by_them() {
    let world = World::start(Some("site")).await;
    let run = world.run(1, ALONE).await;
    let mut client = world.client().await;
    let Order::GetPropertiesIns(_) = client.told().await else { panic!("it is asked who it is") };
    client.say(properties("berlin")).await;
    let Order::GetParametersIns(_) = client.told().await else { panic!("work is next") };
    assert_eq!(world.status(run).await.sites[0].site.as_str(), "berlin");
    let mut other = world.client().await;
    other.told().await;
    other.say(properties("berlin")).await;
    let (status, message) = other.end().await;
    assert!(status == "14" && message.contains("berlin"), "{status} {message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_told_when_to_come_back_and_later_ones_are_refused() {
    let world = World::start(None).await;
    let mut client = world.client().await;
    let asked = async {
        let Order::ReconnectIns(ins) = client.told().await else { panic!("it is sent away") };
        assert_eq!(ins.seconds, 30);
        client.say(Answer::DisconnectRes(Default::default())).await;
        client.end().await
    };
    let ((), (status, _)) = tokio::join!(world.join.dismiss(30, PATIENCE), asked);
    assert_eq!(status, "0");
    assert_eq!(world.client().await.end().await.0, "14");
}
