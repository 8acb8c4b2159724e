"""Writes app.fab: a small app bundled by the stock library. Needs `pip install flwr==1.42.0`."""
from flwr.cli.build import build_fab_from_files

PROJECT = b"""
[project]
name = "meadow"
version = "1.2.3"
description = "A golden app"
license = "Apache-2.0"
dependencies = ["flwr>=1.42.0"]

[tool.flwr.app]
publisher = "clover"

[tool.flwr.app.components]
serverapp = "meadow.server:app"
clientapp = "meadow.client:app"

[tool.flwr.app.config]
rounds = 3
rate = 0.5
shuffle = true
name = "caf\xc3\xa9"
optimiser.momentum = 0.9
optimiser.inner.steps = 7
"""
files = {"pyproject.toml": PROJECT, "meadow/__init__.py": b"", "meadow/server.py": b"app = 1\n",
         "meadow/client.py": b"app = 2\n", "README.md": b"# Meadow\n"}
open("app.fab", "wb").write(build_fab_from_files(files)[0])
