//! What is not started, and that the operator is told why.

use sheaf_sandbox::{Error, Launcher, Protection, Unwalled};

use crate::place::{Place, hold, landlock, launcher};

#[tokio::test]
async fn without_walls_nothing_is_started_unless_asked_for() {
    let none = landlock().without_landlock();
    assert!(!none.protects());
    let refused = Launcher::new(none.clone(), Unwalled::Refused).unwrap_err();
    assert!(matches!(refused, Error::NoWalls) && refused.to_string().contains("SHEAF-013"));
    assert!(Launcher::new(none, Unwalled::Allowed).is_ok());
    assert!(matches!(Protection::probe(Some("no such account")), Err(Error::BadAccount { .. })));
}

#[tokio::test]
async fn a_path_opened_and_hidden_at_once_is_refused() {
    let place = Place::new();
    let everything = place.path("data").parent().unwrap().to_path_buf();
    std::os::unix::fs::symlink(place.path("data"), place.path("innocent")).unwrap();
    for (idx, opened) in
        [place.path("data/key"), place.path("data"), everything, place.path("innocent")].iter().enumerate()
    {
        let mut program = place.shell("true");
        program.directory = place.path(&format!("run-{idx}"));
        program.readable = vec![opened.clone()];
        let refused = launcher(landlock()).hold(&program).await.unwrap_err();
        let right = matches!(&refused, Error::WallsOpen { path, .. } if *path == place.path("data"));
        assert!(right, "{}: {refused}", opened.display());
    }
}

#[tokio::test]
async fn the_directory_may_lie_in_what_is_hidden_but_hide_nothing() {
    let place = Place::new();
    let mut program = place.shell("echo x >own; if cat ../key; then exit 9; fi");
    program.directory = place.path("data/run");
    if landlock().protects() {
        let mut process = hold(&program).await.start().await.unwrap();
        assert_eq!(process.gone().await.unwrap(), sheaf_sandbox::Exit::Code(0));
        assert_eq!(place.read("data/run/own"), "x\n");
    }
    program.directory = place.path("run");
    program.hidden = vec![place.path("run/key")];
    let refused = launcher(landlock()).hold(&program).await.unwrap_err();
    assert!(matches!(refused, Error::WallsOpen { .. }), "{refused}");
}

#[tokio::test]
async fn a_directory_that_is_taken_and_a_program_that_is_none_are_refused() {
    let place = Place::new();
    let mut program = place.shell("true");
    program.directory = place.path("data");
    let refused = launcher(landlock()).hold(&program).await.unwrap_err().to_string();
    assert!(refused.contains("make ") && refused.contains("SHEAF-015"), "{refused}");

    program.directory = place.path("run");
    program.executable = "/no/such/program".into();
    let refused = hold(&program).await.start().await.unwrap_err().to_string();
    assert!(refused.contains("execute /no/such/program") && refused.contains("SHEAF-015"), "{refused}");

    let mut linked = place.shell("true");
    linked.directory = place.path("other");
    std::os::unix::fs::symlink(place.path("data/key"), place.path("log-link")).unwrap();
    linked.log = place.path("log-link");
    assert!(launcher(landlock()).hold(&linked).await.is_err(), "a log that is a link was opened");
}

#[tokio::test]
async fn a_confiner_that_is_none_is_no_program() {
    let place = Place::new();
    let launcher = launcher(landlock()).through("/bin/true", []);
    let refused = launcher.hold(&place.shell("true")).await.unwrap_err();
    assert!(matches!(refused, Error::Confiner { .. }), "{refused}");
}
