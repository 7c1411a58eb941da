"""What can be trained. The only package that knows torch; it knows nothing of optuna, mlflow or search."""

OBJECTIVES = {"classification": "objectives.classification:Classification"}
"""The name in a study file -> "package.module:Name", imported when a trainer needs it."""
