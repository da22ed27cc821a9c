"""Build the wheel, the sdist and their SBOM into dist/: `make dist`.

Each is built twice, from copies of the files that git knows, and must come out with the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
DIST = ROOT / "dist"


def main() -> int:
    """Build all, compare, and print the digests."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = (build(Path(folder, name)) for name in ("first", "second"))
        for one, other in zip(first, second):
            if one.read_bytes() != other.read_bytes():
                print(f"{one.name} differs between two builds.", file=sys.stderr)
                return 1
        DIST.mkdir(exist_ok=True)
        built = [Path(shutil.copy(path, DIST)) for path in first]
        built.append(bill_of_materials(first[0], Path(folder, "environment")))
    for path in built:
        print(hashlib.sha256(path.read_bytes()).hexdigest(), path.relative_to(ROOT))
    return 0


def build(folder: Path) -> tuple[Path, Path]:
    """Build wheel and sdist in `folder` from a copy of the sources, and return their paths."""
    source, made = folder / "source", folder / "made"
    epoch = modified_at()
    copy_sources(source, epoch)
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", made, source],
        env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "PYTHONHASHSEED": "0"},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    (wheel,), (sdist,) = made.glob("*.whl"), made.glob("*.tar.gz")
    normalise(sdist, epoch)
    return wheel, sdist


def modified_at() -> int:
    """Return the time of the last commit, or SOURCE_DATE_EPOCH, as Unix seconds."""
    return int(os.environ.get("SOURCE_DATE_EPOCH") or git("log", "-1", "--format=%ct"))


def copy_sources(target: Path, epoch: int) -> None:
    """Copy what git knows or would add; modes and times depend neither on umask nor on checkout."""
    for name in git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        path = ROOT / name
        if not name or not (path.is_symlink() or path.exists()):
            continue
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy, follow_symlinks=False)
        if not copy.is_symlink():
            copy.chmod(0o755 if os.access(path, os.X_OK) else 0o644)
            os.utime(copy, (epoch, epoch))


def git(*arguments: str) -> str:
    """Return what a git command prints about this repository."""
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def normalise(sdist: Path, epoch: int) -> None:
    """Write an sdist again, sorted and without owners and times: setuptools keeps those."""
    with tarfile.open(sdist) as archive:
        members = [(it, archive.extractfile(it)) for it in archive.getmembers()]
        with (
            gzip.GzipFile(f"{sdist}.new", "wb", mtime=epoch) as stream,
            tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as out,
        ):
            for member, content in sorted(members, key=lambda it: it[0].name):
                member.uid = member.gid = 0
                member.uname = member.gname = ""
                member.mtime, member.pax_headers = epoch, {}
                member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
                out.addfile(member, content)
    os.replace(f"{sdist}.new", sdist)


def bill_of_materials(wheel: Path, environment: Path) -> Path:
    """Write a CycloneDX SBOM of the wheel and all that pip installs with it."""
    python = environment / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", wheel], check=True
    )
    target = DIST / f"{wheel.name.partition('-py3')[0]}.cdx.json"
    subprocess.run(
        [
            *(sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible"),
            *("--pyproject", ROOT / "pyproject.toml", "--mc-type", "application"),
            *("--output-file", target, python),
        ],
        check=True,
    )
    return target


if __name__ == "__main__":
    sys.exit(main())
