"""The files of `launch/`: that they parse, are valid, and start the command that they say, with every argument."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.paths import ROOT
from stajax import cli
from stajax.train import __main__ as train

LAUNCH = ROOT / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
ARGUMENTS = ["--config", "configs/ave.py", "--data.path", "a folder/it's", "--workdir", "runs/$X", "--sta.steps", "7"]

RECORD = f"""#!{sys.executable}
import json, os, sys
names = [name for name in os.environ if name.startswith(("JAX_", "SLURM_"))]
with open(os.environ["RECORD"], "a") as file:
  print(json.dumps([os.getcwd(), sys.argv, {{name: os.environ[name] for name in names}}]), file=file)
"""
"""A program that stands for Python, and writes down how it was called."""

SRUN = """#!/usr/bin/env bash
# Two tasks on one node, with the variables of srun that tell tasks from each other.
while [[ $1 == --* ]]; do shift; done
for task in 0 1; do
  SLURM_JOB_ID=$$ SLURM_STEP_NODELIST=localhost SLURM_NTASKS=2 SLURM_STEP_NUM_NODES=1 SLURM_PROCID=$task \\
    SLURM_LOCALID=$task "$@" &
done
wait
"""

GCLOUD = """#!/usr/bin/env bash
# Runs the command of `ssh` in the home folder, and keeps the file of `create`.
for argument in "$@"; do
  case $argument in
    --command=*) (cd "$HOME" && bash -c "${argument#--command=}") ;;
    --metadata-from-file=startup-script=*) cp "${argument##*=}" "$STARTUP" ;;
  esac
done
printf '%s\\n' "$@" >"$CALLED"
"""


@pytest.fixture
def programs(tmp_path):
  """Returns an environment whose path begins with programs that only write down how they were called."""
  for name, text in {"python": RECORD, "srun": SRUN, "gcloud": GCLOUD}.items():
    (tmp_path / name).write_text(text)
    (tmp_path / name).chmod(0o755)
  folders = {"RECORD": tmp_path / "record", "STARTUP": tmp_path / "startup.sh", "CALLED": tmp_path / "called"}
  environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}
  return environment | {name: str(path) for name, path in folders.items()}


def recorded(environment):
  """Returns (folder, arguments, variables) of each call of Python."""
  return [json.loads(line) for line in Path(environment["RECORD"]).read_text().splitlines()]


def run(command, environment, cwd=ROOT):
  subprocess.run(command, env=environment, cwd=cwd, check=True, timeout=60)


def check_command(argv):
  """Checks that an argument vector is a training of `configs/ave.py` on several hosts, and returns its options."""
  assert argv[1:4] == ["-m", "stajax.train", "--distributed"]
  options, config = cli.parse_with_config("stajax train", train.Arguments, argv[3:], None)
  assert options.distributed and config.name == "ave"
  return options, config


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_pass_shellcheck(script):
  if not shutil.which("shellcheck"):
    pytest.skip("shellcheck (the extra `dev`) is not installed")
  subprocess.run(["shellcheck", script], check=True)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_can_be_run(script):
  assert os.access(script, os.X_OK)
  subprocess.run(["bash", "-n", script], check=True)


def test_slurm_starts_one_process_a_task(programs, monkeypatch):
  monkeypatch.chdir(ROOT)
  run([LAUNCH / "slurm.sh", *ARGUMENTS], programs)
  calls = recorded(programs)
  assert sorted(variables["SLURM_PROCID"] for _, _, variables in calls) == ["0", "1"]
  for _, argv, _ in calls:
    assert argv[4:] == ARGUMENTS
    check_command(argv)


def test_jax_joins_the_tasks_of_slurm(programs, tmp_path):
  """With SLURM's variables alone, the two processes of a job become one group."""
  joins = (
    f"#!/usr/bin/env bash\nexec {sys.executable} -c "
    "'from stajax.runtime.processes import join_processes; join_processes()\n"
    # One write: the processes share a pipe, and Python without a buffer writes every argument for itself.
    'import jax, os; os.write(1, f"{jax.process_index()} {jax.process_count()} {len(jax.devices())}\\n".encode())\'\n'
  )
  (tmp_path / "python").write_text(joins)
  environment = {**programs, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
  command = [LAUNCH / "slurm.sh", *ARGUMENTS]
  done = subprocess.run(command, env=environment, cwd=ROOT, check=True, timeout=60, capture_output=True, text=True)
  assert sorted(done.stdout.splitlines()) == ["0 2 2", "1 2 2"]


def test_the_jobset_is_one_by_its_schema():
  yaml = pytest.importorskip("yaml", reason="the extra `dev` is not installed")
  schema = pytest.importorskip("kubeflow_trainer_api.models", reason="the extra `dev` is not installed")
  written = yaml.safe_load((LAUNCH / "jobset.yaml").read_text())
  understood = schema.JobsetV1alpha2JobSet.from_dict(written).to_dict()
  # A field that the schema does not know is dropped. It may add defaults.
  assert not missing(written, understood)


def missing(written, understood, path=""):
  """Returns the fields that are not understood as they are written."""
  if isinstance(written, dict) and isinstance(understood, dict):
    return [field for key in written for field in missing(written[key], understood.get(key), f"{path}.{key}")]
  if isinstance(written, list) and isinstance(understood, list) and len(written) == len(understood):
    pairs = enumerate(zip(written, understood, strict=True))
    return [field for i, (old, new) in pairs for field in missing(old, new, f"{path}[{i}]")]
  return [] if written == understood else [path]


def test_the_jobset_starts_a_process_a_host(programs, monkeypatch):
  yaml = pytest.importorskip("yaml", reason="PyYAML (the extra `dev`) is not installed")
  monkeypatch.chdir(ROOT)
  jobset = yaml.safe_load((LAUNCH / "jobset.yaml").read_text())
  replicated = jobset["spec"]["replicatedJobs"][0]
  job = replicated["template"]["spec"]
  container = job["template"]["spec"]["containers"][0]
  variables = {entry["name"]: entry["value"] for entry in container["env"]}
  assert job["parallelism"] == job["completions"] == int(variables["JAX_NUM_PROCESSES"])
  # JobSet names a pod JOBSET-JOB-REPLICA-INDEX, in the subdomain JOBSET.
  first = f"{jobset['metadata']['name']}-{replicated['name']}-0-0.{jobset['metadata']['name']}"
  host, port = variables["JAX_COORDINATOR_ADDRESS"].split(":")
  assert host == first and int(port) == container["ports"][0]["containerPort"]
  mounted = {mount["name"] for mount in container["volumeMounts"]}
  assert mounted == {volume["name"] for volume in job["template"]["spec"]["volumes"]}

  run([*container["command"], *container["args"]], programs | variables | {"JOB_COMPLETION_INDEX": "3"})
  ((_, argv, found),) = recorded(programs)
  assert found["JAX_PROCESS_ID"] == "3" and found["JAX_NUM_PROCESSES"] == variables["JAX_NUM_PROCESSES"]
  options, config = check_command(argv)
  assert str(options.workdir).startswith("/shared/") and config.data.path.startswith("/shared/")


def test_a_slice_runs_the_command_on_every_worker(programs, tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  (tmp_path / "stajax/.venv/bin").mkdir(parents=True)
  (tmp_path / "stajax/.venv/bin/python").symlink_to(tmp_path / "python")
  run([LAUNCH / "tpu_vm.sh", *ARGUMENTS], programs | {"TPU": "slice", "ZONE": "z"})
  ((folder, argv, _),) = recorded(programs)
  assert folder == str(tmp_path / "stajax") and argv[4:] == ARGUMENTS
  check_command(argv)
  assert {"slice", "--zone=z", "--worker=all"} <= set(Path(programs["CALLED"]).read_text().splitlines())


def test_a_queued_resource_gets_a_start_up_script(programs, tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  names = {"NAME": "n", "ZONE": "z", "TYPE": "v5litepod-32", "RUNTIME": "r", "NFS": "10.0.0.2:/a b"}
  run([LAUNCH / "tpu_queued.sh", *ARGUMENTS], programs | names)
  called = Path(programs["CALLED"]).read_text().splitlines()
  assert {"create", "--node-id=n", "--zone=z", "--accelerator-type=v5litepod-32", "--spot"} <= set(called)
  startup = Path(programs["STARTUP"])
  if shutil.which("shellcheck"):
    subprocess.run(["shellcheck", startup], check=True)
  # As on a host whose share is mounted and where all is installed, with folders below this test's.
  (tmp_path / "opt/stajax/.venv/bin").mkdir(parents=True)
  (tmp_path / "opt/stajax/installed").touch()
  (tmp_path / "opt/stajax/.venv/bin/python").symlink_to(tmp_path / "python")
  (tmp_path / "mountpoint").symlink_to("/bin/true")
  text = startup.read_text().replace("/opt/", f"{tmp_path}/opt/").replace("/mnt/", f"{tmp_path}/mnt/")
  run(["bash", "-c", text], programs)
  ((folder, argv, _),) = recorded(programs)
  assert folder == str(tmp_path / "opt/stajax") and argv[4:] == ARGUMENTS
  check_command(argv)


@pytest.mark.parametrize("script", ["tpu_vm.sh", "tpu_queued.sh"])
def test_a_missing_name_is_one_clear_line(script, programs):
  names = {name: value for name, value in programs.items() if name not in ("TPU", "NAME", "ZONE")}
  done = subprocess.run([LAUNCH / script, *ARGUMENTS], env=names, capture_output=True, text=True)
  assert done.returncode and len(done.stderr.splitlines()) == 1 and "slice" in done.stderr


@pytest.mark.parametrize("after", ["0", "0.5"])
def test_a_process_that_a_signal_ends_is_named_in_one_line(tmp_path, after):
  """It cannot say so itself, and Bash would show the line of the script, as it does before the script waits."""
  program = tmp_path / "python"
  program.write_text(f"""#!/usr/bin/env bash
[[ $1 == -c ]] && echo 1 && exit
((JAX_PROCESS_ID)) && sleep {after} && kill -KILL $$
sleep 1
exit 3
""")
  program.chmod(0o755)
  environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
  command = [LAUNCH / "local_processes.sh", "2"]
  done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50)
  lines = done.stderr.splitlines()
  assert done.returncode == 137 and len(lines) == 1
  assert after == "0" or lines == ["launch/local_processes.sh: process 1 was ended by SIGKILL"]
