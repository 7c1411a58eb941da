"""Registers a study's best network with MLflow: `mlflow.pytorch.load_model("models:/STUDY@champion")`."""

import tempfile
from hashlib import file_digest
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

ALIAS = "champion"


def register(client: "MlflowClient", name: str, *, program: Path, trial: int, run: str) -> None:
    """Log the exported network as a model of the run and make it the champion, unless it is that already.

    Args:
        name: of the registered model, which is created if it is missing.
        program: a torch.export program (.pt2), with an example input of batch size > 1 beside it (.npy).
    """
    with program.open("rb") as content:
        digest = file_digest(content, "sha256").hexdigest()
    champion = _champion(client, name)
    if champion is not None and champion.tags.get("sha256") == digest and champion.run_id == run:
        return
    with tempfile.TemporaryDirectory() as folder:
        _save(program, Path(folder) / "model")
        client.log_artifacts(run, folder)
    source = f"{client.get_run(run).info.artifact_uri}/model"
    if champion is None and not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, description=f"The best network of the study {name}.")
    tags = {"sha256": digest, "trial": str(trial)}
    version = client.create_model_version(name, source=source, run_id=run, tags=tags)
    client.set_registered_model_alias(name, ALIAS, version.version)


def _champion(client: "MlflowClient", name: str) -> "ModelVersion | None":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, ALIAS)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # no such model, or no alias
            return None
        raise


def _save(program: Path, destination: Path) -> None:
    """Write an MLflow model folder; torch is imported here, for the one network of the study that is registered."""
    import mlflow.pytorch
    import numpy as np
    import torch
    from mlflow.models import infer_signature

    network = torch.export.load(program).module()
    example = np.load(program.with_suffix(".npy"))
    with torch.no_grad():
        outputs = network(torch.from_numpy(example)).numpy()
    mlflow.pytorch.save_model(
        network,
        str(destination),
        signature=infer_signature(example, outputs),
        input_example=example,
        serialization_format="pt2",
        pip_requirements=[f"torch=={torch.__version__.split('+')[0]}", f"mlflow=={mlflow.__version__}", "numpy"],
    )
