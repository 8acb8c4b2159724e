//! `sheaf bench fold`: the kernels on updates in memory, and the weighted mean on updates in a store.

use serde::Serialize;
use sheaf_bench::fold::{Figure, Kernel, measure};
use sheaf_bench::limits::{disk, read_gb_per_cpu_s, read_gb_per_s};
use sheaf_bench::process::{cores, load_average};
use sheaf_bench::spool;
use sheaf_domain::ByteSize;
use sheaf_runtime::Compute;

use super::PlaceArgs;
use super::place::Place;
use crate::output;

const FIGURES: &str = "\
Figures with --json, among others (docs/performance.md explains all of them):
  memory_read_gb_per_s       reading memory with as many threads as fold
  memory_read_gb_per_cpu_s   the same with one thread, per CPU second
  memory                     one object a kernel and number of updates:
    gb_per_s                 bytes of all updates per second
    ratio_to_memory_read     one thread: gb_per_cpu_s / memory_read_gb_per_cpu_s;
                             more: gb_per_s / memory_read_gb_per_s
  spool                      one object a number of updates, read from a store on the disk:
    ratio_to_disk_read       gb_per_s / disk_read_gb_per_s";

#[derive(Debug, clap::Args)]
#[command(after_help = FIGURES)]
pub(super) struct Args {
    /// How many updates are folded; several numbers give several figures.
    #[arg(long, default_value = "10,25,50,100", value_delimiter = ',', value_name = "N", value_parser = clap::value_parser!(u32).range(3..=1_000))]
    updates: Vec<u32>,
    /// Bytes of all updates together.
    #[arg(long, default_value = "512MiB", value_name = "SIZE")]
    size: ByteSize,
    /// Bytes of tiles held at once, as `limits.fold` of a server.
    #[arg(long, default_value = "32MiB", value_name = "SIZE")]
    budget: ByteSize,
    /// Threads that fold [default: as many as there are cores].
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Debug, Serialize)]
struct InMemory {
    #[serde(flatten)]
    figure: Figure,
    ratio_to_memory_read: f64,
}

#[derive(Debug, Serialize)]
struct Spooled {
    #[serde(flatten)]
    figure: spool::Figure,
    ratio_to_disk_read: f64,
}

/// The figures, named as in `docs/performance.md`.
#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    cores: usize,
    load_average: f64,
    memory_read_gb_per_s: f64,
    memory_read_gb_per_cpu_s: f64,
    memory: Vec<InMemory>,
    spool: Vec<Spooled>,
    #[serde(flatten)]
    disk: disk::Rates,
}

pub(super) async fn fold(args: Args, json: bool) -> anyhow::Result<()> {
    let most = args.updates.len() as u64;
    let need = args.size.as_bytes().saturating_mul(most).saturating_add(args.place.probe.as_bytes());
    let place = Place::take(&args.place, need.saturating_add(64 << 20))?;
    let threads = args.threads.unwrap_or_else(cores).max(1);
    let (size, budget) = (args.size.as_bytes(), args.budget.as_bytes());
    let updates: Vec<usize> = args.updates.iter().map(|updates| *updates as usize).collect();
    eprintln!("folding in memory");
    let cohorts = updates.clone();
    let (memory_read, memory) =
        Compute::new(1).run(move || in_memory(&cohorts, size, threads, budget)).await??;
    eprintln!("folding from the disk");
    let (dir, probe) = (place.dir().to_owned(), args.place.probe.as_bytes());
    let disk = Compute::new(1).run(move || disk::rates(&dir, probe)).await??;
    let mut spooled = Vec::new();
    for updates in updates {
        let dir = place.make(&format!("store-{updates}"))?;
        let figure = spool::measure(&dir, updates, size, budget).await?;
        spooled.push(Spooled { ratio_to_disk_read: figure.gb_per_s / disk.disk_read_gb_per_s, figure });
        std::fs::remove_dir_all(&dir)?;
    }
    let report = Report {
        bench: "fold",
        cores: cores(),
        load_average: load_average(),
        memory_read_gb_per_s: memory_read.1,
        memory_read_gb_per_cpu_s: memory_read.0,
        memory,
        spool: spooled,
        disk,
    };
    if json {
        return output::json(&report);
    }
    print(&report);
    Ok(())
}

/// Memory read by one thread (per CPU second) and by all, and every kernel beside it.
///
/// One thread is compared by CPU time, which others on the machine disturb least.
fn in_memory(
    updates: &[usize],
    size: u64,
    threads: usize,
    budget: u64,
) -> Result<((f64, f64), Vec<InMemory>), sheaf_bench::Error> {
    let (one, all) = (read_gb_per_cpu_s(), read_gb_per_s(threads));
    let mut figures = Vec::new();
    for updates in updates {
        for kernel in Kernel::ALL {
            for threads in if threads > 1 { vec![1, threads] } else { vec![1] } {
                let figure = measure(kernel, *updates, size, threads, budget)?;
                if figure.threads == threads {
                    let of_read = if threads > 1 { figure.gb_per_s / all } else { figure.gb_per_cpu_s / one };
                    figures.push(InMemory { figure, ratio_to_memory_read: of_read });
                }
            }
        }
    }
    Ok(((one, all), figures))
}

fn print(report: &Report) {
    let rows = report.memory.iter().map(|row| {
        vec![
            row.figure.kernel.name().to_owned(),
            row.figure.updates.to_string(),
            row.figure.threads.to_string(),
            format!("{:.2}", row.figure.gb_per_s),
            format!("{:.2}", row.figure.gb_per_cpu_s),
            format!("{:.2}", row.ratio_to_memory_read),
        ]
    });
    output::table(&["from memory", "updates", "threads", "GB/s", "GB per CPU s", "of memory read"], rows);
    output::line("");
    let rows = report.spool.iter().map(|row| {
        vec![
            "mean".to_owned(),
            row.figure.updates.to_string(),
            format!("{:.2}", row.figure.gb_per_s),
            format!("{:.2}", row.figure.written_gb_per_s),
            format!("{:.2}", row.ratio_to_disk_read),
        ]
    });
    output::table(&["from the disk", "updates", "GB/s", "written GB/s", "of disk read"], rows);
    output::line("");
    let line = |name: &str, value: String| output::line(format!("{name:<44}{value}"));
    let (one, all) = (report.memory_read_gb_per_cpu_s, report.memory_read_gb_per_s);
    line("memory read: GB per CPU s, GB/s of all", format!("{one:.1}, {all:.1}"));
    let (read, written) = (report.disk.disk_read_gb_per_s, report.disk.disk_write_gb_per_s);
    line("disk, GB/s: read, written", format!("{read:.2}, {written:.2}"));
    line("load of the machine", format!("{:.1} on {} cores", report.load_average, report.cores));
}
