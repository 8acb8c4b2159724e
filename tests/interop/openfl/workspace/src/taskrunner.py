"""The runner that OpenFL's documentation names in the plan it prints, without any learning framework."""

from src.runner import JudgedRunner


class TemplateTaskRunner(JudgedRunner):
    """All of its settings are its own."""
