//! Who may take part and who may operate: kits, tokens, certificates, revocation.

use crate::process::eventually;
use crate::world::{World, digits_plan};

const DATA: &str = "--data ada.csv --classes 10 --scale 0.0625 --trainer softmax";

#[test]
fn a_revoked_site_is_cut_off_at_once_and_no_other_is_touched() {
    let world = World::new();
    let _server = world.serve("");
    let [mut ada, _bo, _cy] = world.three_sites("softmax");
    assert!(world.ok("revoke ada --reason laptop").contains("shut out"));
    // Its request for work is held at this moment; it ends by itself.
    assert_eq!(ada.ended(), 4, "{}", ada.log());
    assert!(ada.log().contains("revoked"), "{}", ada.log());
    let mut again = world.start("ada-again", &format!("join --dir ada {DATA}"));
    assert_eq!(again.ended(), 4, "{}", again.log());
    assert!(again.log().contains("revoked"), "{}", again.log());

    world.write("plan.toml", digits_plan("rest", 1, 2, "softmax", ""));
    world.ok("run plan.toml");
    world.finished("rest");
    assert!(world.ok("nodes").contains("revoked: laptop"));
    assert_eq!(world.entry("federation", "site_revoked")["site"], "ada");
    // Invited again, it comes in with a new key.
    std::fs::rename(world.path("ada.kit"), world.path("old.kit")).unwrap();
    std::fs::remove_dir_all(world.path("ada")).unwrap();
    let _ada = world.site("ada", DATA);
}

#[test]
fn a_spent_token_with_another_key_is_refused_and_reported() {
    let world = World::new();
    let _server = world.serve("");
    world.digits("ada.csv", 20, 0);
    let ada = world.site("ada", DATA);
    assert_eq!(ada.drain(), 0);
    let mut thief = world.start("thief", &format!("join ada.kit --dir elsewhere {DATA}"));
    assert_eq!(thief.ended(), 4, "{}", thief.log());
    assert!(thief.log().contains("another key") && thief.log().contains("[SHEAF-010]"), "{}", thief.log());
    assert_eq!(world.entry("federation", "token_reuse")["site"], "ada");
    assert!(world.ok("logs federation").contains("somebody else may have its kit"));
    assert!(world.ok("nodes").contains("possible theft"), "{}", world.ok("nodes"));
    // The site itself is as welcome as before, with its kit or without.
    let ada = world.site("ada", DATA);
    assert_eq!(ada.drain(), 0);
}

#[test]
fn approval_waits_for_the_fingerprint_an_operator_has_compared() {
    let world = World::new();
    let _server = world.serve("");
    world.digits("ada.csv", 20, 0);
    world.ok("invite ada --approve");
    let mut ada = world.enrol("ada", DATA);
    ada.says("read them this fingerprint");
    let log = ada.log();
    let fingerprint = log.split("fingerprint: ").nth(1).map(|rest| rest.split_whitespace().next().unwrap());
    let fingerprint = fingerprint.filter(|text| text.len() == 64).unwrap_or_else(|| {
        log.split_whitespace()
            .find(|word| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .unwrap()
    });
    world.refused(4, &format!("approve ada {}", "a".repeat(64)));
    world.ok(&format!("approve ada {fingerprint}"));
    ada.says("takes part");
}

#[test]
fn kits_that_are_of_no_use_say_why() {
    let world = World::new();
    let _server = world.serve("");
    world.digits("ada.csv", 20, 0);
    world.ok("invite ada --ttl 1ms");
    let mut late = world.start("late", &format!("join ada.kit {DATA}"));
    assert_eq!(late.ended(), 4, "{}", late.log());
    assert!(late.log().contains("expired"), "{}", late.log());

    let other = World::new();
    let _other_server = other.serve("");
    other.ok("invite bo");
    // The other server's kit, dialled here: the pin tells that it is not the same federation.
    let dialled_here = |kit: String| {
        let servers = |kit: &str| kit.lines().find(|line| line.starts_with("servers")).unwrap().to_owned();
        world.ok("invite cy");
        kit.replace(&servers(&kit), &servers(&world.read("cy.kit")))
    };
    world.write("bo.kit", "");
    let private = std::fs::metadata(other.path("bo.kit")).unwrap().permissions();
    std::fs::set_permissions(world.path("bo.kit"), private).unwrap();
    world.write("bo.kit", dialled_here(other.read("bo.kit")));
    let mut lost = world.start("bo", &format!("join bo.kit {DATA}"));
    lost.says("certificate");
    lost.says("cannot reach");
    assert!(!lost.log().contains("takes part"));
    world.write("broken.kit", "format = 1\n");
    let error = world.refused(2, &format!("join broken.kit {DATA}"));
    assert!(error.contains("kit"), "{error}");
    let error = world.refused(2, &format!("join {DATA}"));
    assert!(error.contains("kit"), "{error}");
}

#[test]
fn certificates_renew_themselves_and_an_expired_one_may_for_a_while() {
    let world = World::new();
    world.write("sheaf.toml", "[identity]\ncertificate_validity = \"2s\"\n");
    let _server = world.serve("--config sheaf.toml");
    world.digits("ada.csv", 20, 0);
    let ada = world.site("ada", DATA);
    world.entry("federation", "certificate_renewed");
    assert_eq!(ada.drain(), 0);
    let renewals =
        || world.journal("federation").iter().filter(|entry| entry["kind"] == "certificate_renewed").count();
    let before = renewals();
    eventually("its certificate has expired", || {
        let nodes = world.json("nodes");
        let until = nodes[0]["certificate_not_after"].as_u64().unwrap();
        (sheaf_runtime::SystemClock::shared().now().as_millis() > until).then_some(())
    });
    // It was off for too long, yet within the grace.
    let _ada = world.site("ada", DATA);
    eventually("it has renewed", || (renewals() > before).then_some(()));
    world.write("plan.toml", digits_plan("after", 1, 1, "softmax", ""));
    world.ok("run plan.toml");
    world.finished("after");
}

#[test]
fn operators_of_other_federations_and_sites_cannot_operate() {
    let (world, other) = (World::new(), World::new());
    let (_server, _other_server) = (world.serve(""), other.serve(""));
    let address = world.read("sheaf-data/operator/address");
    // Another federation's operator does not trust this server.
    let error = other.refused(5, &format!("ls --server {}", address.trim()));
    assert!(error.contains("certificate"), "{error}");
    // Were it made to, this server would not trust it.
    std::fs::copy(world.path("sheaf-data/operator/ca.pem"), other.path("sheaf-data/operator/ca.pem"))
        .unwrap();
    let error = other.run(&format!("ls --server {}", address.trim()));
    assert!(!error.status.success());
    // A site's certificate is good for a site only.
    world.digits("ada.csv", 20, 0);
    let _ada = world.site("ada", DATA);
    std::fs::create_dir(world.path("posing")).unwrap();
    let identity: toml::Table = toml::from_str(&world.read("ada/identity.toml")).unwrap();
    world.write("posing/operator.pem", identity["certificate_pem"].as_str().unwrap());
    world.write("posing/ca.pem", identity["ca_pem"].as_str().unwrap());
    let key = std::fs::read_dir(world.path("ada/keys")).unwrap().next().unwrap().unwrap().path();
    std::fs::copy(key, world.path("posing/operator.key")).unwrap();
    world.write("posing/address", &address);
    let error = world.refused(4, "--operator posing ls");
    assert!(error.contains("operator"), "{error}");
}
