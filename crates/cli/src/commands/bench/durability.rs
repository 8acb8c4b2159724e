//! `sheaf bench durability`: journal entries that become durable in a second, beside the disk's own rate of synced appends.

use serde::Serialize;
use sheaf_bench::durability::{Figures, Settings, measure};
use sheaf_bench::process::{cores, load_average};
use sheaf_domain::Span;

use super::PlaceArgs;
use super::place::Place;
use crate::output;

const FIGURES: &str = "\
Figures with --json (docs/performance.md explains all of them):
  disk_commits_per_s         appends of 4 KiB, each with fdatasync
  single_transitions_per_s   journal entries committed one by one
  transitions_per_s          journal entries committed together
  ratio_to_disk_commits      transitions_per_s / disk_commits_per_s";

#[derive(Debug, clap::Args)]
#[command(after_help = FIGURES)]
pub(super) struct Args {
    /// Entries committed together; a server commits up to 256.
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4_096))]
    batch: u32,
    /// Runs whose journals they go to.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    journals: u32,
    /// For how long each rate is measured.
    #[arg(long, default_value = "3s", value_name = "DURATION")]
    duration: Span,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    cores: usize,
    load_average: f64,
    #[serde(flatten)]
    figures: Figures,
}

pub(super) async fn durability(args: Args, json: bool) -> anyhow::Result<()> {
    let place = Place::take(&args.place, NEED_BYTES)?;
    let settings = Settings {
        batch: args.batch as usize,
        journals: args.journals as usize,
        duration: args.duration.as_duration(),
    };
    let figures = measure(place.dir(), settings).await?;
    let report = Report { bench: "durability", cores: cores(), load_average: load_average(), figures };
    if json {
        return output::json(&report);
    }
    let line = |name: &str, value: String| output::line(format!("{name:<44}{value}"));
    line("synced appends of this disk, per second", format!("{:.0}", figures.disk_commits_per_s));
    line("entries one by one, per second", format!("{:.0}", figures.single_transitions_per_s));
    line(
        &format!("entries {} at a time, per second", figures.batch),
        format!("{:.0}", figures.transitions_per_s),
    );
    line("ratio to synced appends", format!("{:.1}", figures.ratio_to_disk_commits));
    line("load of the machine", format!("{:.1} on {} cores", report.load_average, report.cores));
    Ok(())
}

/// A few seconds of entries and the store's log, in bytes.
const NEED_BYTES: u64 = 1 << 30;
