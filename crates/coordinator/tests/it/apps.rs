//! Runs that name an app: who works on them, what goes along with them, and that both end together.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use sheaf_coordinator::{AppHost, CreateRun, Error, Force, KeyCard, Reply};
use sheaf_domain::{ConfigMap, Digest, Identity, JournalId, Manifest, Principal, RunId, Span};
use sheaf_pki::{PublicKey, SiteKey};
use sheaf_relay::{LetterDraft, ObjectDraft, Outcome, Phase};

use crate::world::{Backend, Model, World, on_both, plan, specs};

on_both!(
    participants_work_on_what_they_can,
    a_run_and_its_companion_end_together,
    a_companion_whose_run_is_gone_goes_at_the_next_start,
    a_letter_of_the_server_is_found_again_and_taken_back,
    what_an_app_lacks_is_refused_by_name,
);

const BUNDLE: &[u8] = b"an app";

/// Takes one bundle, and one setting.
#[derive(Debug)]
struct Host;

impl AppHost for Host {
    fn header(&self, bundle: &[u8], config: &ConfigMap, model: Option<&Manifest>) -> Result<String, String> {
        if bundle != BUNDLE || model.is_none() {
            return Err("it is another one".to_owned());
        }
        Ok(format!("{} settings", config.len()))
    }
}

fn app_plan(more: &str) -> String {
    plan(1, 1, &format!("[model]\ninit = \"a.npz\"\n[task]\napp = \"app.fab\"\n{more}"))
}

async fn try_create(world: &World, plan: &str, bundle: Option<&'static [u8]>) -> Result<RunId, Error> {
    let model = Model::zeros().bytes();
    let init = Manifest::over_pieces(specs(), model.len() as u64, &[Digest::of(&model)]).unwrap();
    for bytes in [model].into_iter().chain(bundle.map(Bytes::from_static)) {
        let digest = Digest::of(&bytes);
        let mut upload =
            world.handle.operator_upload(&world.operator, "app", bytes.len() as u64).await.unwrap();
        upload.write(bytes).await.unwrap();
        upload.finish(digest).await.unwrap();
    }
    let app = bundle.map(Digest::of);
    let upload = Some("app".to_owned());
    let request = CreateRun { plan: plan.to_owned(), init: Some(init), upload, app, from: None };
    world.handle.create_run(&world.operator, request).await
}

async fn create(world: &World, plan: &str) -> RunId {
    try_create(world, plan, Some(BUNDLE)).await.unwrap()
}

/// A participant that is known by its key alone, present.
async fn node(world: &World) -> Identity {
    let key = SiteKey::generate().unwrap();
    let key = PublicKey::from_spki_der(key.public_key().spki_der()).unwrap();
    let site = world.relays.register(&key, KeyCard::default()).await.unwrap();
    world.relays.activate(&site, std::time::Duration::from_secs(30)).await.unwrap();
    assert_eq!(world.relays.online(), std::slice::from_ref(&site));
    let who = world.relays.identity(&site).unwrap();
    world.handle.next(&who, &[], Span::default()).await.unwrap();
    world.settle().await;
    who
}

async fn present_in(world: &World, run: RunId) -> Vec<String> {
    let status = world.status(run).await;
    status
        .sites
        .into_iter()
        .filter(|site| site.presence == "present")
        .map(|site| site.site.to_string())
        .collect()
}

async fn participants_work_on_what_they_can(backend: Backend) {
    let mut world = World::start(backend).await;
    world.handle.host_apps(Arc::new(Host));
    let native = world.site("site-0").await;
    world.present(std::slice::from_ref(&native)).await;
    let node = node(&world).await;
    let (native, node) = (native.who.name.to_string(), node.name.to_string());
    let for_trainers = world.create(&plan(1, 2, "")).await;
    let for_apps = create(&world, &app_plan("")).await;
    let for_both = create(&world, &app_plan("trainer = \"mlp\"\n")).await;
    for restarted in [false, true] {
        if restarted {
            world.restart().await;
        }
        assert_eq!(present_in(&world, for_trainers).await, std::slice::from_ref(&native));
        assert_eq!(present_in(&world, for_apps).await, std::slice::from_ref(&node));
        assert_eq!(present_in(&world, for_both).await, [node.clone(), native.clone()]);
    }
    // One that comes later is told to the runs it can work on.
    let late = world.site("site-1").await;
    world.present(std::slice::from_ref(&late)).await;
    assert_eq!(present_in(&world, for_apps).await, std::slice::from_ref(&node));
    assert_eq!(present_in(&world, for_trainers).await, [native.clone(), late.who.name.to_string()]);
    // One that unregisters cannot come back.
    world.relays.unregister(&sheaf_domain::SiteName::new(node).unwrap()).await.unwrap();
    world.settle().await;
    assert_eq!(present_in(&world, for_both).await, [native, late.who.name.to_string()]);
    let seen = world.status(for_trainers).await.sites.len();
    assert_eq!(seen, 2, "a run for trainers never hears of nodes");
}

async fn a_run_and_its_companion_end_together(backend: Backend) {
    let mut world = World::start(backend).await;
    world.handle.host_apps(Arc::new(Host));
    let run = create(&world, &app_plan("[task.app_config]\nlr = 0.5\n")).await;
    let companion = world.relays.overview(run).unwrap();
    assert_eq!((companion.application.phase, companion.header.as_str()), (Phase::Running, "1 settings"));
    assert_eq!(world.relays.bundle(run).await.unwrap(), BUNDLE);
    world.restart().await;
    assert_eq!(world.relays.coordinated(), [run]);
    world.handle.stop(&world.operator, run, "enough".to_owned()).await.unwrap();
    // Whatever was not told before the crash is told after it.
    world.restart().await;
    world.relays.over(run).await.unwrap();
    let ended = world.relays.overview(run).unwrap().application.phase;
    assert!(matches!(&ended, Phase::Ended { outcome: Outcome::Stopped, .. }), "{ended:?}");
    world.handle.host_apps(Arc::new(Host));
    let other = create(&world, &app_plan("")).await;
    assert!(
        world.relays.stop(&world.operator, other).await.unwrap(),
        "the run stops when its companion is to"
    );
    assert_eq!(world.status(other).await.phase.name(), "stopped");
    world.relays.over(other).await.unwrap();
    assert!(!world.relays.stop(&world.operator, other).await.unwrap());
    let refused = world.handle.extend(&world.operator, other, 1).await.unwrap_err();
    assert!(refused.to_string().contains("not extended"), "{refused}");
    let apart = world.handle.remove_relayed(&world.operator, other, Force::Yes).await.unwrap_err();
    assert!(apart.to_string().contains("goes along with the run"), "{apart}");
    world.handle.remove_run(&world.operator, other, Force::No).await.unwrap();
    assert!(world.relays.overview(other).is_err(), "its companion goes with it");
    world.restart().await;
    assert!(world.relays.overview(other).is_err());
}

async fn a_companion_whose_run_is_gone_goes_at_the_next_start(backend: Backend) {
    let mut world = World::start(backend).await;
    world.handle.host_apps(Arc::new(Host));
    let [gone, other] = [create(&world, &app_plan("")).await, create(&world, &app_plan("")).await];
    world.handle.stop(&world.operator, gone, "enough".to_owned()).await.unwrap();
    // The server dies when the run is removed and its companion is not.
    world.faults.dies_with_a_journal.store(true, Ordering::SeqCst);
    world.handle.remove_run(&world.operator, gone, Force::No).await.unwrap();
    assert!(world.store.journals().await.unwrap().contains(&JournalId::Relay(gone)));
    world.restart().await;
    assert!(!world.store.journals().await.unwrap().contains(&JournalId::Relay(gone)));
    assert!(world.relays.overview(gone).is_err() && world.relays.overview(other).is_ok());
    let holds = world.blob.holds().await.unwrap();
    assert!(holds.iter().all(|hold| !hold.as_str().contains(&gone.to_string())), "{holds:?}");
    world.restart().await;
    assert!(world.relays.overview(other).is_ok());
}

async fn a_letter_of_the_server_is_found_again_and_taken_back(backend: Backend) {
    let mut world = World::start(backend).await;
    world.handle.host_apps(Arc::new(Host));
    let run = create(&world, &app_plan("")).await;
    let who = node(&world).await;
    let server = Principal::ServerApp(run);
    let mut letters = Vec::new();
    for text in ["one", "two"] {
        let root = Bytes::from(text.as_bytes());
        let id = Digest::of(&root);
        let draft = LetterDraft {
            id,
            to: Principal::Participant(who.name.clone()),
            answers: None,
            header: text.to_owned(),
            expires_at: sheaf_runtime::Clock::now(&*world.clock).after(Span::from_secs(3600)),
        };
        let objects = vec![ObjectDraft { id, children: vec![] }];
        let posted = world.relays.post(&server, run, vec![draft], objects).await.unwrap();
        assert_eq!(posted.missing, [id]);
        let sheaf_coordinator::Bring::Wanted(mut intake) =
            world.relays.bring(&server, run, id, root.len() as u64).await.unwrap()
        else {
            panic!("the object is wanted");
        };
        intake.write(root).await.unwrap();
        intake.finish().await.unwrap();
        letters.push(id);
    }
    let handed = world.relays.next_letter(&who.name, std::time::Duration::ZERO).await.unwrap().unwrap();
    assert_eq!(handed.letter, letters[0]);
    world.restart().await;
    let mut questions = world.relays.questions(run, &who.name).unwrap();
    questions.sort_by_key(|question| question.header.clone());
    let found: Vec<_> = questions.iter().map(|question| (question.letter, question.handed_out)).collect();
    assert_eq!(found, [(letters[0], true), (letters[1], false)]);
    assert!(!world.relays.take_back(run, letters[0], false).await.unwrap(), "it lies with the node");
    assert!(world.relays.take_back(run, letters[1], false).await.unwrap());
    assert!(matches!(world.relays.reply_to(run, letters[1]).await.unwrap(), Reply::Never));
    assert!(world.relays.take_back(run, letters[0], true).await.unwrap(), "the node is gone");
    world.restart().await;
    assert_eq!(world.relays.questions(run, &who.name).unwrap().len(), 0);
    assert_eq!(world.relays.overview(run).unwrap().letters, 0);
}

async fn what_an_app_lacks_is_refused_by_name(backend: Backend) {
    let world = World::start(backend).await;
    let refused = async |plan: &str, bundle| try_create(&world, plan, bundle).await.unwrap_err().to_string();
    assert!(refused(&app_plan(""), Some(BUNDLE)).await.contains("no participants that run apps"));
    world.handle.host_apps(Arc::new(Host));
    assert!(refused(&app_plan(""), None).await.contains("was not handed in"));
    let other = refused(&app_plan(""), Some(b"other")).await;
    assert!(other.contains("\"app.fab\" is refused: it is another one"), "{other}");
    let none = plan(1, 1, "[model]\ninit = \"a.npz\"\n");
    assert!(refused(&none, Some(BUNDLE)).await.contains("the plan names none"));
    assert_eq!(world.relays.coordinated(), []);
}

/// Remembers which thread looked at a bundle.
#[derive(Debug, Default)]
struct Watched(std::sync::Mutex<Option<std::thread::ThreadId>>);

impl AppHost for Watched {
    fn header(&self, bundle: &[u8], config: &ConfigMap, model: Option<&Manifest>) -> Result<String, String> {
        *self.0.lock().unwrap() = Some(std::thread::current().id());
        Host.header(bundle, config, model)
    }
}

#[tokio::test]
async fn a_bundle_is_looked_at_off_the_threads_of_the_sockets() {
    let world = World::start(Backend::Memory).await;
    let host = Arc::new(Watched::default());
    world.handle.host_apps(Arc::<Watched>::clone(&host));
    create(&world, &app_plan("")).await;
    let looked = host.0.lock().unwrap().unwrap();
    // This test's runtime has one thread, which all tasks share.
    assert_ne!(looked, std::thread::current().id());
}
