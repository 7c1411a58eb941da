"""What can be trained. The only package that knows torch; it knows nothing of optuna, mlflow or search."""
