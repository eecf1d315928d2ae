import os

from moonshine.containers.launcher import SIF, bound_folders
from snakemake.exceptions import WorkflowError
from snakemake.settings.types import DeploymentMethod


# The one image of every rule; used with --use-singularity, ignored without.
container: str(SIF)


if DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method:
    if not SIF.exists():
        raise WorkflowError(f"{SIF}: missing; build it with `make sif`")
    try:
        binds = ",".join(bound_folders(config))
    except ParamsError as error:
        refuse(error)
    # what Apptainer reads, and Singularity
    os.environ.update(APPTAINER_BIND=binds, SINGULARITY_BIND=binds)
