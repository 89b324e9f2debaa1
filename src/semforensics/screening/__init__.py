"""A file from outside → panels, verdicts, evidence, a report."""
