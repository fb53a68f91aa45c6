"""The files of `jobs/` and `ray_cluster.yaml`: each is valid by the code that reads it, and says what it must."""

import logging
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import numpy as np
import pytest
import yaml
from moto.server import ThreadedMotoServer

from segment.errors import SegmentError
from segment.images.labels import LabelDecoder
from segment.job import make_job, read_job_file
from segment.models.card import load_card
from tests.datasets import encoded

REPOSITORY = Path(__file__).resolve().parents[1]
JOB_FILES = sorted((REPOSITORY / "jobs").glob("*.toml"))
CLUSTER = REPOSITORY / "ray_cluster.yaml"

# The data set's own label_colors.txt, and the class each is grouped into.
CAMVID = """
64 128 64 Animal Pedestrian
192 0 128 Archway Building
0 128 192 Bicyclist Bike
0 128 64 Bridge Building
128 0 0 Building Building
64 0 128 Car Vehicle
64 0 192 CartLuggagePram Pedestrian
192 128 64 Child Pedestrian
192 192 128 Column_Pole Pole
64 64 128 Fence Fence
128 0 192 LaneMkgsDriv Road
192 0 64 LaneMkgsNonDriv Road
128 128 64 Misc_Text SignSymbol
192 0 192 MotorcycleScooter Bike
128 64 64 OtherMoving Vehicle
64 192 128 ParkingBlock Pavement
64 64 0 Pedestrian Pedestrian
128 64 128 Road Road
128 128 192 RoadShoulder Pavement
0 0 192 Sidewalk Pavement
192 128 128 SignSymbol SignSymbol
128 128 128 Sky Sky
64 128 192 SUVPickupTruck Vehicle
0 0 64 TrafficCone Pole
0 64 64 TrafficLight SignSymbol
192 64 128 Train Vehicle
128 128 0 Tree Tree
192 128 192 Truck_Bus Vehicle
64 0 64 Tunnel Building
192 192 0 VegetationMisc Tree
0 0 0 Void Unlabeled
64 192 0 Wall Building
"""


@pytest.mark.parametrize("path", JOB_FILES, ids=lambda path: path.name)
def test_a_job_file_is_a_job(path: Path) -> None:
    job = make_job(read_job_file(str(path)))
    card = load_card(job.model)

    assert LabelDecoder(card.classes, job.label_encoding, job.label_remap)
    assert "secret" not in path.read_text(encoding="utf-8").lower()


def test_the_three_job_files_are_there() -> None:
    assert {path.name for path in JOB_FILES} >= {"camvid.toml", "camvid32.toml", "s3.toml"}


def test_the_32_colours_of_camvid_become_its_classes() -> None:
    rows = [line.split() for line in CAMVID.strip().splitlines()]
    job = make_job(tomllib.loads((REPOSITORY / "jobs" / "camvid32.toml").read_text(encoding="utf-8")))
    classes = load_card(job.model).classes
    decoder = LabelDecoder(classes, job.label_encoding, job.label_remap)
    picture = np.array([[[int(value) for value in row[:3]] for row in rows]], np.uint8)

    decoded = decoder.decode(encoded(picture), 1, len(rows))

    assert len(rows) == 32
    assert len(job.label_remap) == 32
    assert [classes.names[index] for index in decoded[0]] == [row[4] for row in rows]
    assert set(decoded[0]) == set(range(12))


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(CLUSTER.read_text(encoding="utf-8"))
    return loaded


def test_rays_own_schema_takes_the_cluster(cluster: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    logging.disable(logging.CRITICAL)
    try:
        prepared = prepare_config(cluster)
    finally:
        logging.disable(logging.NOTSET)
    validate_config(prepared)


def test_the_cluster_starts_from_nothing_and_its_head_does_no_work(cluster: dict[str, Any]) -> None:
    kinds = cluster["available_node_types"]

    assert kinds[cluster["head_node_type"]]["resources"]["CPU"] == 0
    assert {kind: node["min_workers"] for kind, node in kinds.items() if kind != "head"} == {"cpu": 0, "gpu": 0}
    assert kinds["gpu"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    cores = kinds["cpu"]["node_config"]["CpuOptions"]
    assert kinds["cpu"]["resources"]["CPU"] == cores["CoreCount"]
    assert cores["ThreadsPerCore"] == 1


def test_the_cluster_file_holds_no_key(cluster: dict[str, Any]) -> None:
    text = CLUSTER.read_text(encoding="utf-8")

    assert not re.search(r"AKIA|ASIA|aws_access_key|aws_secret|ssh_private_key", text, re.IGNORECASE)
    assert not re.search(r"\b[0-9a-f]{64}\b", text)  # a token
    for node in cluster["available_node_types"].values():
        assert node["node_config"]["IamInstanceProfile"]["Name"].startswith("segment-")


def test_what_the_cluster_copies_is_there_and_installs_with_the_lock(cluster: dict[str, Any]) -> None:
    mounted = {local for local in cluster["file_mounts"].values() if not local.startswith("~")}

    assert all((REPOSITORY / local).exists() for local in mounted)
    assert {"segment", "jobs", "pyproject.toml", "requirements.lock", "README.md", "LICENSE"} <= mounted
    gpu = cluster["available_node_types"]["gpu"]["worker_setup_commands"]
    for commands in (cluster["setup_commands"], gpu):
        (install,) = (command for command in commands if "--editable ." in command)
        assert "--constraint requirements.lock" in install
    pinned = re.search(r"^onnxruntime==([0-9.]*)", (REPOSITORY / "requirements.lock").read_text(), re.MULTILINE)
    assert pinned
    assert re.fullmatch(r"\d+\.\d+\.\d+", pinned.group(1))  # what the GPU nodes' sed finds


def test_every_node_is_told_of_the_token(cluster: dict[str, Any]) -> None:
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for commands in (cluster["head_start_ray_commands"], cluster["worker_start_ray_commands"]):
        assert "RAY_AUTH_MODE=token" in commands[-1]
        assert "ray start" in commands[-1]
    assert "--dashboard-host=127.0.0.1" in cluster["head_start_ray_commands"][-1]


def test_ray_up_launches_every_kind_of_node(
    cluster: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As far as it goes without a cloud: Ray's own bootstrapping and launching against moto's EC2 and IAM."""
    from ray.autoscaler._private.commands import _bootstrap_config
    from ray.autoscaler._private.providers import _get_node_provider

    (tmp_path / ".ssh").mkdir()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        settings = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "moto",
            "AWS_SECRET_ACCESS_KEY": "moto",
            "AWS_DEFAULT_REGION": cluster["provider"]["region"],
            "HOME": str(tmp_path),  # gets the SSH key that Ray makes
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        iam = boto3.client("iam")
        for profile in ("segment-head", "segment-worker"):
            iam.create_instance_profile(InstanceProfileName=profile)
        found = _bootstrap_config(cluster, no_config_cache=True)
        provider = _get_node_provider(found["provider"], found["cluster_name"])
        for kind, node in found["available_node_types"].items():
            tags = {"ray-node-type": "worker", "ray-user-node-type": kind, "ray-node-name": kind}
            provider.create_node(node["node_config"], tags, 1)
        reservations = boto3.client("ec2").describe_instances()["Reservations"]
    finally:
        server.stop()

    instances = {i["InstanceType"]: i for reservation in reservations for i in reservation["Instances"]}
    assert set(instances) == {"m7i.large", "c7i.4xlarge", "g6.2xlarge"}
    assert instances["g6.2xlarge"]["InstanceLifecycle"] == "spot"
    assert all(instance["MetadataOptions"]["HttpTokens"] == "required" for instance in instances.values())
    assert instances["m7i.large"]["IamInstanceProfile"]["Arn"].endswith("/segment-head")
    gpu = found["available_node_types"]["gpu"]["resources"]
    assert (gpu["GPU"], gpu["CPU"], gpu["accelerator_type:L4"]) == (1, 8, 1)
    assert any((tmp_path / ".ssh").iterdir())


RAYJOB = REPOSITORY / "jobs" / "kuberay" / "rayjob.yaml"


def test_the_rayjob_says_what_the_cluster_file_says() -> None:
    job = yaml.safe_load(RAYJOB.read_text(encoding="utf-8"))
    cluster = job["spec"]["rayClusterSpec"]
    lock = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
    assert re.search(rf"^ray(\[[a-z,]+\])?=={re.escape(cluster['rayVersion'])}$", lock, re.MULTILINE)
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert {group["groupName"]: group["minReplicas"] for group in cluster["workerGroupSpecs"]} == {"cpu": 0, "gpu": 0}
    assert not re.search(r"AKIA|secret_?key|password", RAYJOB.read_text(), re.IGNORECASE)
    entrypoint = job["spec"]["entrypoint"].split()
    assert entrypoint[:2] == ["python", "/opt/segment/jobs/segment_dataset.py"]
    dockerfile = (REPOSITORY / "jobs" / "Dockerfile").read_text(encoding="utf-8")
    assert "WORKDIR /opt/segment" in dockerfile
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert group["template"]["spec"]["restartPolicy"] == "Never"  # of autoscaler v2


def test_the_image_serves_every_store_and_login_shells(tmp_path: Path) -> None:
    """What nodes of Google and Azure need; and KubeRay's ENABLE_LOGIN_SHELL begins with `bash -lc`."""
    steps = (REPOSITORY / "jobs" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    installs = re.findall(r"uv pip install [^;]+", steps)
    assert len(installs) == 2  # for GPUs and CPUs
    assert all("'.[gcs,azure]' pycocotools" in install for install in installs)
    (profile,) = re.findall(r"echo (\"export PATH=[^>]+) > /etc/profile.d/", steps)
    written = subprocess.run(["sh", "-c", f"echo {profile}"], capture_output=True, text=True, check=True).stdout
    (tmp_path / "segment.sh").write_text(written)
    login = f'[ ! -r /etc/profile ] || . /etc/profile; . {tmp_path}/segment.sh; echo "$PATH"'
    shown = subprocess.run(["bash", "-c", login], env={}, capture_output=True, text=True, check=True)
    assert shown.stdout.strip().splitlines()[-1].startswith("/opt/venv/bin:/")


def test_the_published_schema_takes_the_rayjob() -> None:
    """Strictly: a field that the schema does not know is an error. The schema is 1.4 MB, so it is not kept here."""
    path = os.environ.get("SEGMENT_RAYJOB_CRD")
    if not path:
        pytest.skip("RAYJOB SCHEMA MISSING: SEGMENT_RAYJOB_CRD=.../kuberay-operator/crds/ray.io_rayjobs.yaml")
    versions = yaml.safe_load(Path(path).read_text(encoding="utf-8"))["spec"]["versions"]
    (schema,) = [version["schema"]["openAPIV3Schema"] for version in versions if version["name"] == "v1"]
    schema["properties"]["metadata"] = {"type": "object"}
    validator = jsonschema.Draft202012Validator(strict(schema))
    found = validator.iter_errors(yaml.safe_load(RAYJOB.read_text(encoding="utf-8")))
    assert [f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in found] == []


def strict(schema: Any) -> Any:
    """Kubernetes' dialect as JSON schema, with no field beyond those that are named."""
    if isinstance(schema, list):
        return [strict(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items()}
    if found.get("x-kubernetes-int-or-string"):
        found = {"type": ["integer", "string"]}
    if found.get("type") == "object" and "properties" in found and "additionalProperties" not in found:
        found["additionalProperties"] = False
    return found


def test_the_readme_names_files_that_are_there() -> None:
    text = (REPOSITORY / "jobs" / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `([^`]+)` \|", text.partition("## ")[0], re.MULTILINE)

    assert len(named) >= 5
    assert [name for name in named if not (REPOSITORY / "jobs" / name).exists()] == []
    assert set(re.findall(r"jobs/[a-z0-9_]+\.toml", text)) <= {f"jobs/{path.name}" for path in JOB_FILES}


def test_what_the_user_names_may_be_a_pipe() -> None:
    """`--job /dev/stdin` and `--job <(command)`, unlike what a list names; a card too."""
    card = (REPOSITORY / "segment" / "models" / "cards" / "demo-streets.toml").read_bytes()
    for read, text in ((read_job_file, b'input = "a"\n'), (load_card, card)):
        reading, writing = os.pipe()
        os.write(writing, text)
        os.close(writing)
        assert read(f"/dev/fd/{reading}")
        os.close(reading)
    with pytest.raises(SegmentError, match="it has more than"):
        read_job_file("/dev/zero")
