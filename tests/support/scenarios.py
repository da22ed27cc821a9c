"""One workflow for each thing that may happen to a workflow; runs as a driver of a cluster.

The first argument is a folder; a task that holds waits there for a file of its name. Commands
come as lines on stdin: a JSON list of an operation and its arguments. Each is answered by one
JSON line: what Ray itself says.
"""
# ruff: noqa: F821 - the driver's prelude imports ray, workflow, sys and time
# mypy: disable-error-code="name-defined"

import json
import os
from pathlib import Path

FOLDER = Path(sys.argv[1])
# Answers alone go to the pipe; what Ray prints goes to stderr.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def hold(name):
    while not (FOLDER / name).exists():
        time.sleep(0.05)


@ray.remote
def number(value):
    return value


@ray.remote
def add(*values):
    time.sleep(0.1)
    return sum(values)


@ray.remote
def held(name, value=1):
    hold(name)
    return value


@ray.remote
def countdown(value):
    return workflow.continuation(countdown.bind(value - 1)) if value else 0


@ray.remote
def grow():
    return workflow.continuation(add.bind(number.bind(1), number.bind(2)))


@ray.remote
def grow_held(name):
    return workflow.continuation(add.bind(held.bind(name), number.bind(2)))


@ray.remote
def third_time_lucky(name):
    path = FOLDER / name
    attempt = int(path.read_text()) + 1 if path.exists() else 1
    path.write_text(str(attempt))
    if attempt < 3:
        raise ConnectionError(f"attempt {attempt}")
    hold(name + ".go")
    return attempt


@ray.remote
def raises(*_):
    raise ValueError("42 rows have no customer")


@ray.remote
def unless(name):
    if not (FOLDER / name).exists():
        raise LookupError(f"{name} is not there yet")
    return 1


@ray.remote
def crashes(seconds):
    time.sleep(seconds)
    os._exit(7)


@ray.remote
def exits():
    sys.exit(3)


@ray.remote
def raises_what_cannot_be_pickled():
    error = ValueError("has a lock")
    error.lock = __import__("threading").Lock()  # type: ignore[attr-defined]
    raise error


@ray.remote
def returns_what_cannot_be_pickled():
    return __import__("threading").Lock()


@ray.remote(max_calls=1)
def limited(value):
    return value


def load(driver):
    if os.getpid() != driver:
        raise RuntimeError("no such table")
    return LoadableInTheDriver()


class LoadableInTheDriver:
    def __reduce__(self):
        return load, (os.getpid(),)


def options(task, **more):
    return task.options(**workflow.options(**more))


DAGS = {
    "diamond": lambda: add.bind(add.bind(shared := number.bind(1)), add.bind(shared, shared)),
    "countdown": lambda: countdown.bind(3),
    "grow": lambda: add.bind(grow.bind(), number.bind(5)),
    "retried": lambda: third_time_lucky.options(max_retries=4, retry_exceptions=True).bind("retry"),
    "failed": lambda: add.bind(raises.bind(number.bind(1)), number.bind(2)),
    "caught": lambda: options(raises, catch_exceptions=True).bind(),
    "crashed": lambda: add.bind(crashes.options(max_retries=0).bind(2.0)),
    "crashed at once": lambda: add.bind(crashes.options(max_retries=0).bind(0.0)),
    "exited": lambda: add.bind(exits.options(max_retries=0).bind()),
    "odd error": lambda: raises_what_cannot_be_pickled.options(max_retries=0).bind(),
    "odd output": lambda: returns_what_cannot_be_pickled.options(max_retries=0).bind(),
    "no checkpoint": lambda: options(add, checkpoint=False).bind(number.bind(3)),
    "loose growth": lambda: options(grow, checkpoint=False).bind(),
    "starved": lambda: add.bind(number.options(num_cpus=1000).bind(1)),
    "siblings": lambda: add.bind(raises.bind(), held.bind("sibling", 5)),
    "resumed": lambda: add.bind(number.bind(1), unless.bind("mended")),
    "again": lambda: add.bind(number.bind(1)),
    "cancelled late": lambda: number.bind(1),
    "cancelled": lambda: add.bind(held.bind("never")),
    "deleted": lambda: number.bind(1),
    "sleeper": lambda: workflow.sleep(1.0),
    "limited": lambda: add.bind(limited.bind(1)),
    "bad input": lambda: add.bind(number.options(max_retries=0).bind(LoadableInTheDriver())),
    "bad environment": lambda: add.bind(
        number.options(max_retries=0, runtime_env={"conda": "no-such-environment"}).bind(1)
    ),
    "loose and held": lambda: options(grow_held, checkpoint=False).bind("loose"),
    "live": lambda: add.bind(held.bind("live"), number.bind(1)),
}
IDS = [
    "with/slash", "new\nline", 'quo"te', "back\\slash", "ünïcode ✓", "trailing ", "{curly}", "%2F",
    "RUNNING", "dirty", "x" * 255,
]  # fmt: skip


def start(name):
    dag = DAGS[name]() if name in DAGS else number.bind(1)
    workflow.run_async(dag, workflow_id=name, metadata={"workflow": "test", "name": name})


def truth(*names):
    answer = {}
    for name in names:
        metadata = workflow.get_metadata(name)
        answer[name] = [workflow.get_status(name).value, metadata["stats"]]
    return answer


def task_truth(name, *tasks):
    return {task: workflow.get_metadata(name, task) for task in tasks}


def start_as(dag, name):
    workflow.run_async(DAGS[dag](), workflow_id=name)


OPERATIONS = {
    "start as": start_as,
    "start held": lambda name: workflow.run_async(held.bind(name), workflow_id=name) and None,
    "start": lambda *names: [start(name) for name in names],
    "init": lambda running, pending: workflow.init(
        max_running_workflows=running, max_pending_workflows=pending
    ),
    "truth": truth,
    "tasks": task_truth,
    "resume": lambda name: workflow.resume_async(name) and None,
    "cancel": workflow.cancel,
    "delete": workflow.delete,
    "kill manager": lambda: ray.kill(
        ray.get_actor("WorkflowManagementActor", namespace="workflow")
    ),
}

for line in sys.stdin:
    operation, *arguments = json.loads(line)
    try:
        result = OPERATIONS[operation](*arguments)
    except Exception as error:
        result = f"{type(error).__name__}: {error}"
    print(json.dumps(result, default=str), file=ANSWERS, flush=True)
