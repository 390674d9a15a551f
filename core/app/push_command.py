"""`crossdistil push`: a student to the Hugging Face hub, in one commit: the model folder, its card with a licence, the recipe."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import CheckpointError, CrossdistilError, did_you_mean
from ..extras import require
from ..shown import plain
from .options import PluginOption, given_plugins
from .progress import make_console

_REPO = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{1,60}")
_LICENSES = frozenset(
    "apache-2.0 mit other unknown openrail openrail++ bigscience-openrail-m creativeml-openrail-m bsd bsd-2-clause bsd-3-clause "
    "cc cc0-1.0 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-4.0 "
    "cc-by-nc-sa-4.0 agpl-3.0 gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 mpl-2.0 epl-2.0 eupl-1.1 eupl-1.2 isc ms-pl odbl odc-by "
    "pddl afl-3.0 artistic-2.0 bsl-1.0 ecl-2.0 unlicense wtfpl zlib gemma llama2 llama3".split()
)
"""Names that the hub knows; it has more, so that others are told and not refused."""
console = make_console()


def push(
    student: Annotated[Path, typer.Argument(help="The folder of a run, or of a student.")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Where to; made where it is not there.")],
    license: Annotated[str | None, typer.Option(help="Of the student, as the hub spells it: apache-2.0, mit, other, ...")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository that only its owner sees.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be sent, and send nothing.")] = False,
    plugins: PluginOption = None,
) -> None:
    """Send a student with its model card and recipe to the Hugging Face hub."""
    from ..card_file import README

    given_plugins("push", plugins)
    if not _REPO.fullmatch(repo):
        raise CrossdistilError(f"{plain(repo)}: expected OWNER/NAME, the name of a repository of the hub")
    files = contents(student, license)
    if license is not None and license not in _LICENSES:
        near = did_you_mean(license, _LICENSES)
        print(f"note: --license {license}: is no name of the hub's that is known here{near}", file=sys.stderr)
    for name, content in files.items():
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        console.print(f"{name}  {size:,} bytes", markup=False)
    if dry_run:
        console.print(files[README].decode("utf-8"), markup=False, highlight=False)
        console.print(f"{len(files)} files for {repo}; nothing was sent", markup=False)
        return
    console.print(f"sent: {send(files, repo, private)}", markup=False)


def contents(student: Path, license: str | None) -> dict[str, Path | bytes]:
    """Name in the repository -> the file, or its bytes where they are not those on the disk. Raises CrossdistilError."""
    from ..card_file import README
    from ..checkpoint import WEIGHTS, load_model
    from ..model_card import with_license
    from ..run_files import RECIPE
    from ..yaml_files import read_yaml
    from .run_student import student_of

    if license is not None and not _LICENSE.fullmatch(license):
        raise CrossdistilError(f"--license {plain(license)}: expected a name of the hub's, for example apache-2.0, mit")
    folder = student_of(student)
    model = load_model(folder)  # every byte of it as it was written
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"{folder}: has no {WEIGHTS}, which is what others would load")
    if not (folder / README).is_file():
        raise CheckpointError(f"{folder / README}: missing; a student that a run wrote has this card")
    found: dict[str, Path | bytes] = {
        path.name: path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")
    }
    text = (folder / README).read_text(encoding="utf-8")
    found[README] = with_license(text, license, model.about, folder / README).encode("utf-8")
    recipe = next((place / RECIPE for place in (student, folder.parent) if (place / RECIPE).is_file()), None)
    if recipe is not None:
        found[RECIPE] = _public(read_yaml(recipe))
    return found


def _public(tree: Any) -> bytes:
    """A recipe whose paths end where they say nothing of this machine: the last two parts of each."""
    from ruamel.yaml import YAML


    def shortened(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shortened(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [shortened(inner) for inner in value]
        return "/".join(Path(value).parts[-2:]) if isinstance(value, str) and value.startswith("/") else value

    yaml, text = YAML(), io.StringIO()
    yaml.dump(shortened(tree), text)
    return text.getvalue().encode("utf-8")


def send(files: dict[str, Path | bytes], repo: str, private: bool) -> str:
    """Make the repository where it is not there, and one commit of all files; returns its address. Raises CrossdistilError."""
    require("hub", "push")
    import huggingface_hub

    operations = [
        huggingface_hub.CommitOperationAdd(name, str(content) if isinstance(content, Path) else content)
        for name, content in files.items()
    ]
    api = huggingface_hub.HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.create_commit(repo_id=repo, operations=operations, commit_message="Student distilled with crossdistil")
    except Exception as error:  # the client's errors share no base but this
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        way = "`hf auth login` gives this machine a token"
        raise CrossdistilError(f"push: {repo}: the hub did not take it: {reason}; {way}") from error
    return str(getattr(done, "commit_url", repo))
