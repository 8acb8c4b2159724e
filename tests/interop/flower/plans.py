"""Runs that a plan of ours drives, worked on by stock SuperNodes: the `sheaf` command and plans for the tests' app."""

import json
import pathlib
import subprocess

import numpy as np

import harness
import reference

# Less than in relayed runs: every round of these is compared element by element.
CONFIG = {"seed": 20260419, "rounds": 2, "large_bytes": 400_000}


class Sheaf:
    """The `sheaf` command of an operator of the server."""

    def __init__(self, world, server):
        self.world = world
        self.program = pathlib.Path(harness.SERVER).absolute()
        self.operator = world.directory / "state.db" / "operator"
        self.env = harness.environment(world.directory)

    def run(self, *arguments, timeout_s=None):
        return subprocess.run(
            [self.program, "--operator", self.operator, *map(str, arguments)],
            cwd=self.world.directory,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s or harness.DEADLINE_S,
        )

    def __call__(self, *arguments):
        done = self.run(*arguments)
        if done.returncode != 0:
            raise RuntimeError(f"sheaf {arguments} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def json(self, *arguments):
        return json.loads(self(*arguments, "--json"))

    def start(self, plan):
        return self.json("run", plan)["run"]

    def status(self, run):
        """The run's status; none while the server is away."""
        done = self.run("status", run, "--json")
        return json.loads(done.stdout) if done.returncode == 0 else None

    def end(self, run, deadline_s=None):
        """Waits until the run is over; gives its phase."""

        def over():
            status = self.status(run)
            return status and status["phase"] != "running" and status

        return harness.wait_for(f"the end of run {run}", over, deadline_s or 2 * harness.DEADLINE_S, 0.5)

    def model(self, run):
        """The newest model, in its order."""
        file = self.world.directory / f"{run}.npz"
        self("model", "get", run, "--output", file)
        with np.load(file) as arrays:
            return {name: arrays[name] for name in arrays.files}

    def journal(self, run):
        """The run's journal, as text."""
        return self("logs", run)


def write(
    world,
    *,
    nodes=2,
    app=harness.APP,
    strategy="fedavg",
    parameters="",
    cohort="",
    config=(),
    name="plan",
    trainer="",
    evaluates=True,
):
    """A plan of the tests' app with its first model beside it; gives its path."""
    config = CONFIG | dict(config)
    np.savez(world.directory / "init.npz", **reference.initial(config))
    own = {"mode": "fedavg", "seed": config["seed"]}
    own |= {key.replace("_", "-"): value for key, value in config.items() if key not in ("rounds", "seed")}
    lines = [
        "[run]",
        f'name = "{name}"',
        f"rounds = {config['rounds']}",
        "[model]",
        'init = "init.npz"',
        "[strategy]",
        f'kind = "{strategy}"',
        parameters,
        "[cohort]",
        f"min = {nodes}",
        cohort,
        "[task]",
        f'app = "{app}"',
        trainer and f'trainer = "{trainer}"',
        "[task.app_config]",
        *[f"{key} = {json.dumps(value)}" for key, value in own.items()],
        *(["[task.evaluate]", 'metric = "loss"'] if evaluates else []),
    ]
    plan = world.directory / f"{name}.toml"
    plan.write_text("\n".join(lines) + "\n")
    return plan


class NativeSite(harness.Program):
    """A site of ours, enrolled, that does what a partition of the app does, by its trainer `twin`."""

    def __init__(self, world, sheaf, partition):
        name = f"native-{partition}"
        kit = world.directory / f"{name}.kit"
        sheaf("invite", name, "--output", kit)
        trainer = [harness.BIN / "python", pathlib.Path(__file__).with_name("twin.py"), partition, CONFIG["seed"]]
        command = [sheaf.program, "join", kit, "--dir", world.directory / name / "site", "--trainer", "twin"]
        command += ["--env", "PATH", "--env", "HOME", "--", *trainer]
        super().__init__(world, name, command)
