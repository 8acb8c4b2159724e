//! What the help pages say, and that the printed settings are the ones a server runs by.

use crate::world::World;

/// Every command with a page of its own.
const COMMANDS: [&str; 37] = [
    "",
    "serve",
    "superlink",
    "start-server",
    "openfl",
    "openfl start",
    "join",
    "run",
    "ls",
    "status",
    "logs",
    "stop",
    "rm",
    "nodes",
    "model",
    "model get",
    "replay",
    "journal",
    "journal export",
    "journal check",
    "backup",
    "restore",
    "invite",
    "approve",
    "revoke",
    "login",
    "login approve",
    "pki",
    "pki init",
    "pki show",
    "config show",
    "demo",
    "bench",
    "bench exchange",
    "bench polls",
    "bench fold",
    "bench durability",
];

#[test]
fn every_command_has_its_page() {
    let world = World::new();
    for command in COMMANDS {
        let output = world.sheaf(command).arg("--help").env("COLUMNS", "100").output().unwrap();
        assert!(output.status.success(), "{command}");
        let name = format!("help {command}").trim().replace(' ', "-");
        insta::assert_snapshot!(name, String::from_utf8(output.stdout).unwrap());
    }
    let usage = world.ok("--help");
    for command in
        usage.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty())
    {
        let name = command.split_whitespace().next().unwrap();
        let known = COMMANDS.iter().any(|page| page.split(' ').next() == Some(name));
        assert!(known || ["completions", "help"].contains(&name), "{name} has no page here");
    }
}

#[test]
fn settings_are_shown_with_where_they_come_from() {
    let world = World::new();
    world.write("sheaf.toml", "[limits]\nliveness = \"5s\"\n");
    let mut command = world.sheaf("config show --config sheaf.toml --listen 127.0.0.1:0");
    let output = command.env("SHEAF_STORE__MAX_BYTES", "3GiB").output().unwrap();
    assert!(output.status.success());
    insta::assert_snapshot!("config-show", String::from_utf8(output.stdout).unwrap());
    let shown = world.json("config show --name fl.example.org");
    assert_eq!(shown["listen.names"]["origin"], "flag --name");
    let error = world.sheaf("config show").env("SHEAF_LIMITS__INFLITE", "1").output().unwrap();
    assert_eq!(error.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&error.stderr).contains("SHEAF_LIMITS__INFLITE"), "{error:?}");
}

#[test]
fn completions_are_printed_for_every_shell() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(world.ok(&format!("completions {shell}")).contains("journal"), "{shell}");
    }
    world.refused(2, "completions nosuch");
    world.refused(2, "nosuch");
}
