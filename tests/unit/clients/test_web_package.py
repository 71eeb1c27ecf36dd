"""The web package as npm would publish it: made from a clean checkout, typed for its users."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
WEB = ROOT / "clients" / "web"
MODULES = WEB / "node_modules"
IGNORED = shutil.ignore_patterns("node_modules", "build", "dist", "public")
USE = """
import { AvatarError, type AvatarSession, type Recording, connect } from "@visavis/web";

export async function say(canvas: HTMLCanvasElement, pcm: Int16Array): Promise<Recording> {
  const url = "wss://host/v1/realtime/avatar";
  const session: AvatarSession = connect({ url, avatar: "clara", canvas });
  session.on("status", (status) => {
    if (status.state === "queued") console.log(status.position.toFixed());
  });
  try {
    await session.ready;
  } catch (error) {
    if (error instanceof AvatarError) console.log(error.remedy.length);
  }
  await session.recorder.start({ watermark: "AI" });
  session.sendAudio(pcm);
  // @ts-expect-error Text is no sound.
  session.sendAudio("hello");
  // @ts-expect-error There is no such option.
  connect({ url: "wss://host", avatar: "clara", canvas, colour: "red" });
  return session.recorder.stop();
}
"""


def node_environment() -> dict[str, str]:
    """Where scripts/web.py would find Node.js."""
    code = "import sys; sys.path.insert(0, 'scripts'); import web; print(web.wheel_bin() or '')"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()
    search = os.pathsep.join(filter(None, (os.environ["PATH"], found)))
    return {**os.environ, "PATH": search, "npm_config_update_notifier": "false"}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked tarball of `npm pack`, from a copy in which nothing was built."""
    if not MODULES.is_dir():
        pytest.fail("the web client's tools are not installed: run `make setup`")
    folder = tmp_path_factory.mktemp("npm")
    source = folder / "source"
    shutil.copytree(WEB, source, ignore=IGNORED)
    (source / "node_modules").symlink_to(MODULES, target_is_directory=True)
    command = ["npm", "pack", "--silent", "--offline", "--pack-destination", str(folder)]
    subprocess.run(command, cwd=source, env=node_environment(), check=True, timeout=200)
    (tarball,) = folder.glob("*.tgz")
    with tarfile.open(tarball) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"


@pytest.mark.slow
def test_a_clean_pack_has_what_its_users_need(packed: Path) -> None:
    manifest = json.loads((packed / "package.json").read_text())
    entry = manifest["exports"]["."]
    for name in (entry["import"], entry["types"], "README.md", "LICENSE"):
        assert (packed / name).is_file(), name
    assert (packed / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert not (packed / "src").exists()
    scripts = {path.name.split("-")[0] for path in (packed / "build" / "assets").iterdir()}
    assert len(scripts) >= 2, scripts  # the decoder's worker and the microphone's worklet


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "resolution"), [("ESNext", "bundler"), ("NodeNext", "nodenext")]
)
def test_its_types_hold_in_a_project_of_a_user(
    packed: Path, tmp_path: Path, module: str, resolution: str
) -> None:
    modules = tmp_path / "node_modules"
    shutil.copytree(packed, modules / "@visavis" / "web")
    (modules / "mediabunny").symlink_to(MODULES / "mediabunny", target_is_directory=True)
    (tmp_path / "package.json").write_text('{"name": "user", "type": "module"}')
    (tmp_path / "use.ts").write_text(USE)
    options = {
        "target": "ES2022",
        "lib": ["ES2023", "DOM", "DOM.Iterable"],
        "module": module,
        "moduleResolution": resolution,
        "strict": True,
        "exactOptionalPropertyTypes": True,
        "noEmit": True,
        "types": [],
    }
    settings = {"compilerOptions": options, "files": ["use.ts"]}
    (tmp_path / "tsconfig.json").write_text(json.dumps(settings))
    command = [str(MODULES / ".bin" / "tsc"), "-p", str(tmp_path)]
    done = subprocess.run(
        command, env=node_environment(), capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout


def test_every_package_brings_the_licence() -> None:
    for client in ("web", "python", "conformance"):
        assert (ROOT / "clients" / client / "LICENSE").read_bytes() == (
            ROOT / "LICENSE"
        ).read_bytes(), client
