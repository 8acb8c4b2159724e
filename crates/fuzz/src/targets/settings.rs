//! The configurations of a server and of a site.

use std::path::Path;

use sheaf_client::site::SiteConfig;
use sheaf_server::{Config, Layer, Resolved};

use crate::form::{self, Form};
use crate::target::{Ceiling, Probe, Target, Verdict};

/// `Layer::parse` with `Resolved::of`, and `SiteConfig::parse`. The first byte chooses.
pub(super) const TARGET: Target = Target {
    name: "settings",
    about: "a server's and a site's configuration in TOML",
    form: Form::ChosenText(form::CONFIG),
    len_max: 64 * 1024,
    ceiling: Ceiling { per_byte: 256, constant: 256 * 1024 },
    samples,
    body,
};

fn body(input: &[u8], probe: &mut Probe<'_>) -> Verdict {
    let (chosen, text) =
        match super::choice(input, 2).and_then(|(chosen, rest)| Ok((chosen, super::text(rest)?))) {
            Ok(parts) => parts,
            Err(refused) => return refused,
        };
    if chosen == 0 { server(text, probe) } else { site(text, probe) }
}

fn server(text: &str, probe: &mut Probe<'_>) -> Verdict {
    let resolved = probe.watch(|| {
        let layer = Layer::parse(text, Path::new("sheaf.toml"))?;
        Resolved::of(vec![layer])
    });
    let config = match resolved {
        Ok(resolved) => resolved.config,
        Err(error) => return Verdict::refused(error),
    };
    let json = serde_json::to_vec(&config).unwrap_or_else(|error| panic!("no JSON form: {error}"));
    let again = serde_json::from_slice::<Config>(&json).map_err(|error| error.to_string());
    assert_eq!(again, Ok(config), "what was printed is another configuration");
    Verdict::Accepted("a server's".to_owned())
}

fn site(text: &str, probe: &mut Probe<'_>) -> Verdict {
    let config = match probe.watch(|| SiteConfig::parse(text)) {
        Ok(config) => config,
        Err(error) => return Verdict::refused(error),
    };
    let trainers = config.trainers.len();
    // JSON has no form for what is not finite.
    if let Ok(json) = serde_json::to_vec(&config)
        && let Ok(again) = serde_json::from_slice::<SiteConfig>(&json)
    {
        assert_eq!(again, config, "what was printed is another configuration");
    }
    Verdict::Accepted(format!("a site's with {trainers} trainers"))
}

fn samples() -> Vec<Vec<u8>> {
    let server = include_str!("../../../../docs/samples/server.toml");
    let site = "transport = \"https\"\nauth = \"signed\"\ntasks_max = 2\n[trainers.mlp]\nkind = \"mlp\"\n\
                data = \"shard.csv\"\n[trainers.own]\nkind = \"exec\"\ncommand = [\"python3\", \"train.py\"]\n\
                timeout = \"1h\"\n";
    let empty = super::chosen(0, b"");
    vec![empty, super::chosen(0, server.as_bytes()), super::chosen(1, site.as_bytes()), super::chosen(1, b"")]
}
