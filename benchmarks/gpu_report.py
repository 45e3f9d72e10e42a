"""What of edgead holds on the GPU of this machine, in under 8 minutes: one folder with report.md, report.json and logs.

    python3 benchmarks/gpu_report.py OUT        from the root of the repository, as `make gpu-report` does

For a bare machine: it needs no network, no installation of edgead and nothing but the standard library to start. A step
runs if its tools are there, has a time limit and its own result, and stops no other step. A step that cannot run says
why. The exit code is 1 if a step failed or ran out of time.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 465
"""Seconds for all steps together; the rest of the 8 minutes is for the start and the report."""

PACKAGES = (
    "numpy", "onnx", "onnxruntime", "onnxsim", "torch", "timm", "cuda-core", "cuda-bindings", "nvidia-cuda-nvrtc",
    "tensorrt", "tensorrt-rtx", "pytest", "pytest-benchmark",
)  # fmt: skip
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
TESTS = ("numpy", "onnx", "cuda.core", "pytest")
SANITIZER = "compute-sanitizer"
STATES = ("passed", "failed", "timed out", "skipped")


@dataclasses.dataclass(frozen=True)
class Step:
    """A command with a time limit in seconds, the programs, packages and files that it needs, and the file it gives."""

    name: str
    command: tuple[str, ...]
    limit_s: int
    programs: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    file: Path | None = None
    gives: str | None = None
    any_of: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Result:
    """How a step ended: `state` is one of STATES; `detail` says why, or has the last line of the output."""

    name: str
    state: str
    seconds: float
    detail: str
    command: str


def pytest_step(name: str, tests: str, limit_s: int, packages: Sequence[str] = TESTS, **more) -> Step:
    # Warnings of the libraries that happen to be here are no result.
    options = ("-q", "-rs", "-W", "default", "-p", "no:cacheprovider")
    json_option = (f"--benchmark-json={{out}}/{more['gives']}",) if "gives" in more else ()
    command = (sys.executable, "-m", "pytest", *options, *json_option, *tests.split(" ", 2))
    return Step(name, command, limit_s, packages=tuple(packages), **more)


def steps(launcher: Path, architecture: str) -> list[Step]:
    sources = ("tests/gpu/launcher.cu", "edgead/plugin/anomaly_map.cu")
    options = ("-std=c++17", "-O3", "-lineinfo", f"-arch={architecture}", "-Iedgead/plugin")
    bench = (*TESTS, "torch", "timm", "pytest_benchmark")
    tensorrt = ("tensorrt", "tensorrt_rtx")
    return [
        Step("launcher: compile", ("nvcc", *options, *sources, "-o", str(launcher)), 60, ("nvcc",)),
        Step("launcher: against float64", (str(launcher),), 60, file=launcher, gives="launcher.jsonl"),
        *(
            Step(
                f"launcher: {tool}",
                (SANITIZER, "--tool", tool, "--error-exitcode", "9", str(launcher), "small"),
                45,
                (SANITIZER,),
                file=launcher,
            )
            for tool in TOOLS
        ),
        pytest_step("kernels", "tests/gpu/test_anomaly_map_kernels.py", 100, (*TESTS, "torch")),
        pytest_step("driver, streams, graphs, KernelHead", "tests/gpu/test_cuda_gpu.py", 60),
        pytest_step(
            "anomaly map: speed", "benchmarks/gpu/test_anomaly_map.py", 120, bench, gives="anomaly_map.json"
        ),
        pytest_step("engines", "tests/gpu/test_tensorrt_gpu.py tests/gpu/test_heads_gpu.py", 150, any_of=tensorrt),
        pytest_step(
            "engines: layers and p50", "benchmarks/gpu/test_latency.py -k test_engine and fp16 and batch1",
            120, (*bench, "onnxsim"), any_of=tensorrt, gives="engines.json",
        ),
    ]  # fmt: skip


def missing(step: Step, gpu: dict[str, str]) -> str:
    """Everything that this machine lacks for a step; empty if the step can run."""
    reasons = []
    if not gpu:
        found = "nvidia-smi lists none" if shutil.which("nvidia-smi") else "no nvidia-smi on PATH"
        reasons.append(f"no NVIDIA GPU: {found}")
    absent = [program for program in step.programs if shutil.which(program) is None]
    absent += [project_name(package) for package in step.packages if not has_package(package)]
    if step.any_of and not any(map(has_package, step.any_of)):
        absent.append(" or ".join(map(project_name, step.any_of)))
    if absent:
        reasons.append(f"not installed: {', '.join(absent)}")
    if not reasons and step.file is not None and not step.file.is_file():
        reasons.append("the launcher was not compiled")
    return "; ".join(reasons)


def project_name(package: str) -> str:
    """The name of a package for pip, which is the one in the table of the machine too."""
    return package.replace(".", "-").replace("_", "-")


def has_package(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def run(step: Step, out: Path, gpu: dict[str, str], left_s: float, environment: dict[str, str]) -> Result:
    command = [part.replace("{out}", str(out)) for part in step.command]
    shown = shown_text(" ".join(command), out)
    reason = missing(step, gpu)
    if not reason and left_s < 5:
        reason = f"the {LIMIT_S} seconds of all steps are over"
    if reason:
        return Result(step.name, "skipped", 0.0, reason, shown)
    begin = time.monotonic()
    limit_s = min(step.limit_s, left_s)
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        said = output.read()
    seconds = time.monotonic() - begin
    with (out / "log.txt").open("a") as log:
        log.write(shown_text(f"=== {step.name}\n$ {shown}\n{said}\n", out))
    if step.gives and step.gives.endswith(".jsonl"):
        (out / step.gives).write_text(said)
    lines = [line for line in said.splitlines() if line.strip()] or ["it printed nothing"]
    detail = shown_text(lines[-1][:200], out)
    if code is None:
        return Result(step.name, "timed out", seconds, f"after {limit_s:.0f} s; {detail}", shown)
    if code == 0 and step.gives and not rows_of(out / step.gives):
        return Result(step.name, "failed", seconds, "nothing was measured", shown)
    return Result(step.name, "failed" if code else "passed", seconds, detail, shown)


def shown_text(text: str, out: Path) -> str:
    """A text without the folders of this machine."""
    names = {str(out): "OUT", tempfile.gettempdir(): "TMP", sys.executable: "python3", str(ROOT): "."}
    for folder, name in names.items():
        text = text.replace(folder, name)
    return text


def rows_of(file: Path) -> list[dict[str, object]]:
    """The measurements in a file of pytest-benchmark or of the launcher; empty if there are none."""
    try:
        text = file.read_text()
        if file.suffix == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        found = json.loads(text)["benchmarks"]
    except (OSError, ValueError, KeyError):
        return []
    return [{"name": entry["name"], **entry["extra_info"]} for entry in found]


def said_by(*command: str) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=ROOT)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def this_gpu() -> dict[str, str]:
    """Name, driver, memory and compute capability of the first GPU; empty if there is none."""
    names = ("name", "driver_version", "memory.total", "compute_cap")
    line = said_by("nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader").splitlines()[:1]
    values = [value.strip() for value in line[0].split(",")] if line else []
    return dict(zip(names, values, strict=True)) if len(values) == len(names) else {}


def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def this_machine() -> dict[str, object]:
    cpu = [
        line.partition(": ")[2]
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return {
        "gpu": this_gpu(),
        "cpu": cpu[0] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "nvcc": (said_by("nvcc", "--version").splitlines() or [""])[-1],
        "commit": said_by("git", "rev-parse", "HEAD"),
        "packages": {package: version_of(package) for package in PACKAGES},
    }  # fmt: skip


def table(rows: Sequence[dict[str, object]]) -> list[str]:
    """A Markdown table with a column for each key."""
    if not rows:
        return []
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns), *([row.get(column, "") for column in columns] for row in rows)]
    return ["| " + " | ".join(str(cell).replace("|", "/") for cell in line) + " |" for line in lines]


def counts(steps: Sequence[dict[str, object]]) -> str:
    """How many steps ended in each state."""
    states = [step["state"] for step in steps]
    return ", ".join(f"{states.count(state)} {state}" for state in STATES)


def markdown(report: dict) -> str:
    lines = ["# edgead on a GPU", "", f"`{report['command']}` on {report['date']}.", "", "## Machine", ""]
    machine = report["machine"]
    gpu = {f"GPU {key}": value for key, value in machine["gpu"].items()} or {"GPU": "none"}
    lines += table(
        [{"": key, "value": value} for key, value in gpu.items()]
        + [{"": key, "value": value} for key, value in machine.items() if not isinstance(value, dict)]
        + [{"": key, "value": value or "not installed"} for key, value in machine["packages"].items()]
    )
    shown = [
        {
            "step": step["name"],
            "result": step["state"],
            "seconds": f"{step['seconds']:.1f}",
            "detail": step["detail"],
        }
        for step in report["steps"]
    ]
    lines += [
        "",
        "## Steps",
        "",
        f"{counts(report['steps'])}. docs/gpu.md says what each step does and needs.",
    ]
    lines += ["", *table(shown)]
    for name, rows in report["measurements"].items():
        lines += ["", f"## {name}", "", *table(rows)]
    return "\n".join(lines) + "\n"


def write_report(
    out: Path, machine: dict[str, object], results: Sequence[Result], given: Sequence[str]
) -> None:
    report = {
        "command": "make gpu-report",
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": machine,
        "steps": [dataclasses.asdict(result) for result in results],
        "measurements": {name: rows for name in given if (rows := rows_of(out / name))},
    }
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    (out / "report.md").write_text(markdown(report))


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Tests and measurements of edgead on the GPU of this machine."
    )
    parser.add_argument("out", type=Path, help="folder of the report; it must be empty or not exist")
    out = parser.parse_args().out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        print(f"{out} is not an empty folder; remove it or name another one", file=sys.stderr)
        return 2
    out.mkdir(parents=True, exist_ok=True)
    # The toolkit is often installed without being on PATH.
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/local/cuda/bin"
    begin, machine, gpu = time.monotonic(), this_machine(), this_gpu()
    architecture = f"sm_{gpu['compute_cap'].replace('.', '')}" if gpu else "native"
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as work:
        # Kernels are compiled anew in a cache of its own, and no test may skip for want of a GPU.
        environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": work, "EDGEAD_REQUIRE_GPU": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        planned = steps(Path(work) / "launcher", architecture)
        given = [step.gives for step in planned if step.gives]
        for step in planned:
            left_s = LIMIT_S - (time.monotonic() - begin)
            try:
                results.append(run(step, out, gpu, left_s, environment))
            except OSError as error:
                results.append(Result(step.name, "failed", 0.0, str(error), " ".join(step.command)))
            print(f"{results[-1].name}: {results[-1].state} ({results[-1].detail})", flush=True)
            # After each step, so that a machine that is taken away leaves a report.
            write_report(out, machine, results, given)
    print(f"{counts([dataclasses.asdict(result) for result in results])}: {out / 'report.md'}")
    return int(any(result.state in ("failed", "timed out") for result in results))


if __name__ == "__main__":
    sys.exit(main())
