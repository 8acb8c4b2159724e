"""A straight line fitted to a site's own points: the smallest trainer made of plain functions.

    command = ["python3", "line.py", "points.csv"]
"""

import sys

import numpy as np

import sheaf_trainer

points = np.loadtxt(sys.argv[1], delimiter=",", ndmin=2)
x, y = points[:, 0], points[:, 1]


def init(config):
    return {"slope": np.zeros(1, np.float32), "intercept": np.zeros(1, np.float32)}


def train(weights, config):
    slope, intercept = weights["slope"].astype(float), weights["intercept"].astype(float)
    for _ in range(config.get("steps", 100)):
        error = slope * x + intercept - y
        slope -= config.get("learning_rate", 0.1) * (error * x).mean()
        intercept -= config.get("learning_rate", 0.1) * error.mean()
    loss = ((slope * x + intercept - y) ** 2).mean()
    return {"slope": slope, "intercept": intercept}, len(x), {"loss": loss}


def evaluate(weights, config):
    error = weights["slope"] * x + weights["intercept"] - y
    return len(x), {"loss": (error**2).mean()}


if __name__ == "__main__":
    sheaf_trainer.run(train, init=init, evaluate=evaluate)
